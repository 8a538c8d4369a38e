//! `storage/dead_letter.json`: the uploads that were given up, so that a restart does not try each of them again.
//!
//! It is a cache with reasons: without it, or with other settings, every chunk is simply tried once more.

use std::{io, path::Path};

use bubbaloop_storage_schemas::{
    ChunkName, Digest, RecordingName, UnixNs, journal::StoreId, limits::DEAD_LETTERS_MAX, reply::ChunkLocal,
};
use serde::{Deserialize, Serialize};

use super::scan::ChunkEntry;
use crate::{
    content::{self, ContentError},
    durable,
};

/// Largest file that is read: room for every letter that is written.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// An upload that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterRecord {
    /// The chunk's recording.
    pub recording: RecordingName,
    /// Its name.
    pub chunk: ChunkName,
    /// The store that it was for.
    pub store_id: StoreId,
    /// Why.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last.
    pub last_tried_at_ns: UnixNs,
    /// Its file has other bytes than it should.
    pub is_damaged: bool,
    /// The file as it was then.
    pub file: FileSeen,
}

/// What tells one version of a chunk's file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSeen {
    /// Its size.
    pub size_bytes: u64,
    /// When it changed last.
    pub changed_at_ns: UnixNs,
    /// What its bytes should hash to, where that is known.
    pub sha256: Option<Digest>,
    /// It was there.
    #[serde(default = "was_there")]
    pub is_there: bool,
}

/// Letters of the first version do not tell.
const fn was_there() -> bool {
    true
}

impl FileSeen {
    /// Takes down how a chunk's file looks.
    pub const fn of(chunk: &ChunkEntry) -> Self {
        let is_there = matches!(chunk.facts.local, ChunkLocal::Present | ChunkLocal::Damaged);
        Self { size_bytes: chunk.size_bytes, changed_at_ns: chunk.finalized_at_ns, sha256: chunk.digest, is_there }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Written {
    /// With other settings everything is worth another try.
    settings: Digest,
    dead_letters: Vec<DeadLetterRecord>,
}

/// Reads the letters that were written with these settings. A file that is absent or broken holds none.
pub fn load(path: &Path, settings: &Digest) -> Vec<DeadLetterRecord> {
    let text = match content::read(path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(ContentError::Gone(_)) => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "the dead letters can't be read: those chunks are tried again");
            return Vec::new();
        }
    };
    match serde_json::from_slice::<Written>(&text) {
        Ok(written) if written.settings == *settings => written.dead_letters,
        Ok(_) => Vec::new(),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the dead letters can't be read: those chunks are tried again");
            Vec::new()
        }
    }
}

/// Writes the letters, at most [`DEAD_LETTERS_MAX`] of them.
///
/// # Errors
/// The disk is full or not writable; the old ones stand.
pub fn save<'a>(path: &Path, settings: &Digest, letters: impl Iterator<Item = &'a DeadLetterRecord>) -> io::Result<()> {
    let dead_letters = letters.take(DEAD_LETTERS_MAX).cloned().collect();
    durable::replace(path, &serde_json::to_vec_pretty(&Written { settings: *settings, dead_letters })?)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make broken files")]
mod tests {
    use super::*;

    fn letter() -> DeadLetterRecord {
        let digest = Digest::of(b"x");
        DeadLetterRecord {
            recording: "drive".parse().unwrap(),
            chunk: ChunkName::new(0, &digest),
            store_id: "s".into(),
            reason: "damaged".into(),
            attempts: 2,
            last_tried_at_ns: 7,
            is_damaged: true,
            file: FileSeen { size_bytes: 1, changed_at_ns: 5, sha256: Some(digest), is_there: true },
        }
    }

    #[test]
    fn letters_are_read_back_with_the_same_settings_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead_letter.json");
        assert_eq!(load(&path, &Digest::of(b"a")), []);
        save(&path, &Digest::of(b"a"), [letter()].iter()).unwrap();
        assert_eq!(load(&path, &Digest::of(b"a")), [letter()]);
        assert_eq!(load(&path, &Digest::of(b"b")), []);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(load(&path, &Digest::of(b"a")), []);
    }
}
