//! `storage/left_alone.json`: the files that no recording is made of by itself, because a person removed the one that was.
//!
//! Whoever names them adopts them all the same. A file that changed is another file.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use bubbaloop_storage_schemas::{UnixNs, adopt::AdoptedFile, limits::LEFT_ALONE_MAX};
use serde::{Deserialize, Serialize};

use super::{mtime_ns, source::Stamp};
use crate::{
    content::{self, ContentError},
    durable,
};

/// Largest file that is read: room for as many as are written, with paths of some 300 bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The files, by their path under the folder of recordings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LeftAlone {
    files: BTreeMap<String, Seen>,
}

/// What tells one content of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    size_bytes: u64,
    mtime_ns: UnixNs,
}

impl LeftAlone {
    /// Reads them; where the file is absent or broken there are none.
    pub fn load(path: &Path) -> Self {
        let read = match content::read(path, FILE_BYTES_MAX) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(ContentError::Gone(_)) => return Self::default(),
            Err(error) => Err(error.to_string()),
        };
        read.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), error, "what was removed may be adopted by itself again");
            Self::default()
        })
    }

    /// Tells whether a file is one of them and as it was.
    pub fn holds(&self, path: &str, metadata: &Metadata) -> bool {
        let now = Seen { size_bytes: metadata.size(), mtime_ns: mtime_ns(metadata) };
        self.files.get(path) == Some(&now)
    }

    /// Adds files. Those that are gone from the folder of recordings are forgotten. Idempotent.
    ///
    /// # Errors
    /// There are too many, or the disk is full or not writable: nothing has changed.
    pub fn add(path: &Path, recordings: &Path, files: &[AdoptedFile]) -> io::Result<()> {
        Self::update(path, |known| {
            for file in files {
                let seen = Seen { size_bytes: file.size_bytes, mtime_ns: file.mtime_ns };
                known.files.insert(file.file.clone(), seen);
            }
            known.files.retain(|file, seen| is_still(recordings, file, *seen));
        })
    }

    /// Takes files out: a recording is made of them again.
    ///
    /// # Errors
    /// The disk is full or not writable: nothing has changed.
    pub fn remove<'a>(path: &Path, files: impl Iterator<Item = &'a AdoptedFile>) -> io::Result<()> {
        Self::update(path, |known| {
            for file in files.filter(|file| !file.outside) {
                known.files.remove(&file.file);
            }
        })
    }

    fn update(path: &Path, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        static ONE_WRITER: Mutex<()> = Mutex::new(());
        let _one_writer = ONE_WRITER.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Self::load(path);
        let mut after = before.clone();
        change(&mut after);
        if after.files.len() > LEFT_ALONE_MAX {
            let message = format!("more than {LEFT_ALONE_MAX} files whose recordings were removed still lie there");
            return Err(io::Error::other(message));
        }
        if after == before { Ok(()) } else { durable::replace(path, &serde_json::to_vec(&after)?) }
    }
}

/// Tells whether a file that a recording was made of is still as it was then.
pub fn is_as_adopted(recordings: &Path, file: &AdoptedFile) -> bool {
    !file.outside && is_still(recordings, &file.file, Seen { size_bytes: file.size_bytes, mtime_ns: file.mtime_ns })
}

fn is_still(recordings: &Path, file: &str, seen: Seen) -> bool {
    Stamp::of(&recordings.join(file))
        .is_ok_and(|now| Seen { size_bytes: now.size_bytes, mtime_ns: now.mtime_ns } == seen)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the files that other tools leave")]
mod tests {
    use std::fs;

    use bubbaloop_storage_schemas::Digest;

    use super::*;

    fn adopted(recordings: &Path, file: &str) -> AdoptedFile {
        fs::write(recordings.join(file), file).unwrap();
        let stamp = Stamp::of(&recordings.join(file)).unwrap();
        let (size_bytes, mtime_ns) = (stamp.size_bytes, stamp.mtime_ns);
        AdoptedFile {
            file: file.into(),
            size_bytes,
            mtime_ns,
            sha256: Digest::of(b"x"),
            outside: false,
            recovered: false,
        }
    }

    #[test]
    fn what_was_removed_is_known_until_it_changes_goes_or_is_adopted_again() {
        let folder = tempfile::tempdir().unwrap();
        let (root, path) = (folder.path(), folder.path().join("left_alone.json"));
        let files = ["a.mcap", "b.mcap", "c.mcap"].map(|file| adopted(root, file));
        let holds = |file: &str| LeftAlone::load(&path).holds(file, &fs::metadata(root.join(file)).unwrap());
        assert!(!holds("a.mcap"));
        LeftAlone::add(&path, root, &files).unwrap();
        assert!(holds("a.mcap") && holds("b.mcap"));
        let elsewhere = AdoptedFile { outside: true, ..files[0].clone() };
        LeftAlone::remove(&path, [elsewhere].iter()).unwrap();
        assert!(holds("a.mcap"), "one of the same name outside is another file");
        LeftAlone::remove(&path, files[..1].iter()).unwrap();
        assert!(!holds("a.mcap") && holds("b.mcap"));
        fs::write(root.join("b.mcap"), "longer than it was").unwrap();
        assert!(!holds("b.mcap"), "another content is another file");
        fs::remove_file(root.join("c.mcap")).unwrap();
        LeftAlone::add(&path, root, &files[..1]).unwrap();
        assert_eq!(
            LeftAlone::load(&path).files.into_keys().collect::<Vec<_>>(),
            ["a.mcap"],
            "what is gone is forgotten"
        );
        fs::write(&path, "{").unwrap();
        assert_eq!(LeftAlone::load(&path), LeftAlone::default());
    }
}
