//! The remote manifest: it names only chunks that are there, and it only grows.

use std::collections::BTreeSet;

use bubbaloop_storage_schemas::{
    Digest, UnixNs,
    manifest::{Manifest, ManifestChunk},
};

/// How the upload of a chunk is recorded in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded<'a> {
    /// The digest that was proven.
    pub sha256: Digest,
    /// When it was proven.
    pub at_ns: UnixNs,
    /// The object's ETag.
    pub etag: &'a str,
}

impl Uploaded<'_> {
    /// Tells whether it is the upload of the bytes that a manifest names.
    pub fn is_of(&self, chunk: &ManifestChunk) -> bool {
        chunk.sha256.parse() == Ok(self.sha256)
    }

    /// Tells whether a manifest records it.
    pub fn is_recorded(&self, chunk: &ManifestChunk) -> bool {
        chunk.uploaded_at_ns == Some(self.at_ns) && chunk.remote_etag.as_deref() == Some(self.etag)
    }

    /// Records it. Returns whether that was not recorded yet.
    pub fn record(&self, chunk: &mut ManifestChunk) -> bool {
        if self.is_recorded(chunk) {
            return false;
        }
        (chunk.uploaded_at_ns, chunk.remote_etag) = (Some(self.at_ns), Some(self.etag.to_owned()));
        true
    }
}

/// The field of a remote manifest that names the library that wrote it: two under one machine id are twins.
const LIBRARY_ID: &str = "library_id";

/// Returns the library that wrote a remote manifest, where it says so.
pub fn library_of(remote: &Manifest) -> Option<&str> {
    remote.other.get(LIBRARY_ID)?.as_str()
}

/// Returns the manifest that may stand in the store: `local` with the chunks that are proven there, and no others, and
/// with the library's name.
///
/// `uploaded` tells of a chunk's name how it is proven.
pub fn remote<'a>(mut local: Manifest, uploaded: impl Fn(&str) -> Option<Uploaded<'a>>, library_id: &str) -> Manifest {
    local.chunks.retain_mut(|chunk| {
        let mark = uploaded(&chunk.name).filter(|mark| mark.is_of(chunk));
        mark.is_some_and(|mark| {
            mark.record(chunk);
            true
        })
    });
    local.other.insert(LIBRARY_ID.into(), library_id.into());
    local
}

/// What is done with a manifest that stands under the name already.
#[derive(Debug, Clone, PartialEq)]
pub enum Merged {
    /// It is of the same capture and names nothing that ours does not.
    Ours,
    /// It is of the same capture: this one names the chunks of both.
    Joined(Box<Manifest>),
    /// It is of another capture, or contradicts ours: ours goes under a name of its own and leaves it alone.
    NameTaken,
}

/// Joins our remote manifest with the one in the store. No chunk that either names is lost.
pub fn merge(ours: &Manifest, theirs: &Manifest) -> Merged {
    let is_one_capture =
        ours.name == theirs.name && ours.machine_id == theirs.machine_id && ours.started_at_ns == theirs.started_at_ns;
    if !is_one_capture {
        return Merged::NameTaken;
    }
    let known: BTreeSet<_> = ours.chunks.iter().map(|chunk| &chunk.name).collect();
    let mut more = theirs.chunks.iter().filter(|chunk| !known.contains(&chunk.name)).peekable();
    if more.peek().is_none() {
        return Merged::Ours;
    }
    let mut chunks: Vec<_> = ours.chunks.iter().chain(more).cloned().collect();
    chunks.sort_by_key(|chunk| chunk.index);
    if chunks.windows(2).any(|pair| pair[0].index == pair[1].index) {
        return Merged::NameTaken;
    }
    Merged::Joined(Box::new(Manifest { chunks, ..ours.clone() }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bubbaloop_storage_schemas::{ChunkName, Digest, manifest::Indices};
    use proptest::prelude::*;

    use super::*;

    fn chunk(index: u32) -> ManifestChunk {
        let digest = Digest::of(&index.to_be_bytes());
        let name = ChunkName::new(index, &digest).to_string();
        ManifestChunk { name, index, size_bytes: 4, sha256: digest.to_string(), ..ManifestChunk::default() }
    }

    fn manifest(indices: impl IntoIterator<Item = u32>) -> Manifest {
        let head = serde_json::json!({
            "schema_version": 1, "name": "r", "machine_id": "m", "started_at_ns": 5, "tags": ["a"], "more": {"x": 1}
        });
        let head: Manifest = serde_json::from_value(head).unwrap();
        Manifest { chunks: indices.into_iter().map(chunk).collect(), ..head }
    }

    fn indices(manifest: &Manifest) -> Vec<u32> {
        manifest.chunks.iter().map(|chunk| chunk.index).collect()
    }

    #[test]
    fn only_what_is_proven_is_named_and_all_else_is_kept() {
        let local = manifest(0..3);
        let mark = |index: u32| {
            let sha256 = Digest::of(&index.to_be_bytes());
            (chunk(index).name, Uploaded { sha256, at_ns: 7, etag: "e" })
        };
        let lie = (chunk(1).name, Uploaded { sha256: Digest::of(b"other"), at_ns: 7, etag: "e" });
        let uploaded = BTreeMap::from([mark(0), lie, mark(2)]);
        let mut remote = remote(local.clone(), |name| uploaded.get(name).copied(), "lib");
        assert_eq!(library_of(&remote), Some("lib"));
        remote.other.remove(LIBRARY_ID);
        assert_eq!(indices(&remote), [0, 2]);
        assert_eq!((remote.chunks[1].uploaded_at_ns, remote.chunks[1].remote_etag.as_deref()), (Some(7), Some("e")));
        assert_eq!((&remote.tags, &remote.other), (&local.tags, &local.other));
        assert!(remote.check(Indices::Rising).is_ok());
    }

    #[test]
    fn another_capture_of_the_name_is_left_alone() {
        let other = Manifest { started_at_ns: 6, ..manifest(0..2) };
        assert_eq!(merge(&manifest(0..1), &other), Merged::NameTaken);
    }

    #[test]
    fn manifests_that_give_one_index_to_two_chunks_are_not_joined() {
        let mut theirs = manifest([0]);
        theirs.chunks[0].name = ChunkName::new(0, &Digest::of(b"twin")).to_string();
        assert_eq!(merge(&manifest([0]), &theirs), Merged::NameTaken);
    }

    proptest! {
        #[test]
        fn a_join_names_what_either_names_and_doing_it_again_changes_nothing(
            ours in proptest::collection::btree_set(0..30_u32, 0..10),
            theirs in proptest::collection::btree_set(0..30_u32, 0..10),
        ) {
            let all: Vec<_> = ours.union(&theirs).copied().collect();
            let (ours, theirs) = (manifest(ours), manifest(theirs));
            let joined = match merge(&ours, &theirs) {
                Merged::Ours => Box::new(ours),
                Merged::Joined(joined) => joined,
                Merged::NameTaken => panic!("one capture"),
            };
            prop_assert_eq!(indices(&joined), all);
            prop_assert!(joined.check(Indices::Rising).is_ok());
            prop_assert_eq!(merge(&joined, &theirs), Merged::Ours);
        }
    }
}
