//! The one door to manifests: folding what the journal proves into an ended recording's `manifest.json`.
//!
//! It is a convenience for other readers; the journal stays the authority.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, time::Duration};

use bubbaloop_storage_schemas::{
    UnixNs,
    limits::MANIFEST_BYTES_MAX,
    manifest::{Indices, Manifest},
};

use super::mtime_ns;
use crate::{
    content,
    durable::{self, Replace, Staged},
    policy::manifest::Uploaded,
};

/// How long a recorder's last change must be past.
const STILL_MIN: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// The file says now what the journal proves.
    Written,
    /// It says so already, or it is not ours to write: no end, not readable, or changed lately.
    LeftAlone,
}

/// What tells one version of a file from another.
fn version(path: &Path) -> io::Result<(u64, u64, UnixNs, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), mtime_ns(&metadata), metadata.len()))
}

/// Writes the marks of proven chunks into an ended recording's manifest. Idempotent; all else in it survives.
///
/// `uploaded` tells of a chunk's name how it is proven. `now_ns` is wall time.
///
/// # Errors
/// The disk is full or not writable; the old manifest stands.
pub fn fold<'a>(path: &Path, uploaded: impl Fn(&str) -> Option<Uploaded<'a>>, now_ns: UnixNs) -> io::Result<Folded> {
    let before = version(path)?;
    if u128::from(now_ns.saturating_sub(before.2)) < STILL_MIN.as_nanos() {
        return Ok(Folded::LeftAlone);
    }
    let Ok(text) = content::read(path, MANIFEST_BYTES_MAX) else { return Ok(Folded::LeftAlone) };
    let Ok((mut manifest, _)) = Manifest::parse(&text, Indices::Contiguous) else { return Ok(Folded::LeftAlone) };
    if manifest.ended_at_ns.is_none() {
        return Ok(Folded::LeftAlone);
    }
    let mut is_changed = false;
    for chunk in &mut manifest.chunks {
        if let Some(mark) = uploaded(&chunk.name).filter(|mark| mark.is_of(chunk)) {
            is_changed |= mark.record(chunk);
        }
    }
    if !is_changed {
        return Ok(Folded::LeftAlone);
    }
    let mut staged = Staged::create(path.with_file_name(".manifest.json.fold"))?;
    staged.write(&serde_json::to_vec_pretty(&manifest)?)?;
    staged.sync()?;
    if version(path)? != before {
        return Ok(Folded::LeftAlone);
    }
    staged.commit(path, Replace::Allowed)?;
    Ok(Folded::Written)
}

/// Writes a whole manifest in the place of whatever stands there.
///
/// # Errors
/// The disk is full or not writable; the old manifest stands.
pub fn write(path: &Path, manifest: &Manifest) -> io::Result<()> {
    durable::replace(path, &serde_json::to_vec_pretty(manifest)?)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write as a recorder does")]
mod tests {
    use bubbaloop_storage_schemas::{ChunkName, Digest};
    use serde_json::{Value, json};

    use super::*;

    const MINUTE_NS: u64 = 60_000_000_000;

    fn chunk_name() -> String {
        ChunkName::new(0, &Digest::of(b"x")).to_string()
    }

    fn manifest(more: Value) -> Value {
        let chunk = json!({"name": chunk_name(), "index": 0, "size_bytes": 1, "sha256": Digest::of(b"x"), "odd": 1});
        let mut manifest = json!({
            "schema_version": 1, "name": "drive", "machine_id": "m", "started_at_ns": 5, "ended_at_ns": 9,
            "mine": {"a": [1]}, "chunks": [chunk],
        });
        manifest.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        manifest
    }

    fn fold_after(manifest: &Value, still_ns: u64) -> (Folded, Value) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        fs::write(&path, manifest.to_string()).unwrap();
        let now_ns = mtime_ns(&fs::metadata(&path).unwrap()) + still_ns;
        let mark = Uploaded { sha256: Digest::of(b"x"), at_ns: 7, etag: "e" };
        let folded = fold(&path, |name| (name == chunk_name()).then_some(mark), now_ns).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing stays behind");
        (folded, serde_json::from_slice(&fs::read(&path).unwrap()).unwrap())
    }

    #[test]
    fn an_ended_recording_gets_its_marks_and_keeps_all_else() {
        let (folded, found) = fold_after(&manifest(json!({})), MINUTE_NS);
        assert_eq!(folded, Folded::Written);
        assert_eq!(found["chunks"][0]["uploaded_at_ns"], 7);
        assert_eq!(found["chunks"][0]["remote_etag"], "e");
        assert_eq!((&found["mine"], &found["chunks"][0]["odd"]), (&json!({"a": [1]}), &json!(1)));
        assert_eq!(fold_after(&found, MINUTE_NS).0, Folded::LeftAlone, "a second time there is nothing to write");
    }

    #[test]
    fn a_manifest_that_is_a_recorders_is_left_alone() {
        for (more, still_ns) in [
            (json!({"ended_at_ns": null}), MINUTE_NS),
            (json!({"schema_version": 2}), MINUTE_NS),
            (json!({}), MINUTE_NS - 1),
            (json!({}), 0),
        ] {
            let before = manifest(more);
            assert_eq!(fold_after(&before, still_ns), (Folded::LeftAlone, before));
        }
    }
}
