//! `uploads.jsonl`: the node's own record of a recording, one JSON line per fact, append-only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    names::{ChunkName, RecordingName},
    reply::Proof,
    time::UnixNs,
};

/// Names an object store for the journal: a hash of provider, endpoint, bucket and prefix.
pub type StoreId = String;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JournalLine {
    /// When the fact was written.
    pub at_ns: UnixNs,
    /// The store that it is about: in another bucket nothing is uploaded.
    pub store_id: StoreId,
    /// What happened.
    #[serde(flatten)]
    pub entry: JournalEntry,
}

/// A fact about a recording in one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JournalEntry {
    /// The store is known to hold this chunk.
    Uploaded {
        /// The chunk's name.
        chunk: ChunkName,
        /// Its digest.
        sha256: Digest,
        /// Its size.
        size_bytes: u64,
        /// How it is known.
        proof: Proof,
        /// The object's ETag.
        etag: String,
        /// The object's key: where the recorder spells the machine in another way later, this is not that object.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// The store is known not to hold a chunk that an earlier line says it does.
    Gone {
        /// The chunk's name.
        chunk: ChunkName,
    },
    /// An upload in parts was begun.
    UploadBegun {
        /// The chunk's name.
        chunk: ChunkName,
        /// The object's key.
        key: String,
        /// The store's name for the upload: only those that stand here are gone on with or given up.
        upload_id: String,
        /// The size of its parts, the last one's aside.
        part_bytes: u64,
    },
    /// A part was sent.
    PartSent {
        /// The chunk's name.
        chunk: ChunkName,
        /// The upload that it belongs to.
        upload_id: String,
        /// Its number, from 1.
        number: u32,
        /// Its size.
        size_bytes: u64,
        /// Its digest.
        sha256: Digest,
        /// What the store calls it.
        etag: String,
        /// That is the MD5 of the bytes that were sent.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        etag_is_md5: bool,
    },
    /// An upload in parts is completed or given up.
    UploadEnded {
        /// The chunk's name.
        chunk: ChunkName,
        /// The upload.
        upload_id: String,
    },
    /// The chunk is fetched from the store because a person wanted it here: for a while it is not removed to make room.
    Restored {
        /// The chunk's name.
        chunk: ChunkName,
    },
    /// A remote manifest was written.
    Published {
        /// The manifest's key: another capture may own the usual one.
        key: String,
        /// The recording that it is of.
        recording: RecordingName,
        /// The digest of the written text.
        sha256: Digest,
        /// The digest of the text that this library wanted, before chunks that stood there only were joined to it.
        wanted: Digest,
        /// The object's ETag.
        etag: String,
    },
    /// A chunk's file was removed to make room, or is about to be. It holds for as long as the file is not there, whatever
    /// the store is.
    Evicted {
        /// The chunk's name.
        chunk: ChunkName,
        /// Its size.
        size_bytes: u64,
    },
    /// Nothing here can heal the recording. It holds for the recording whatever the store is.
    Corrupt {
        /// Why.
        reason: String,
    },
    /// The recording that an earlier line calls corrupt is healed.
    Healed,
    /// A person removes the recording from the store: no earlier line's upload counts there any more, and nothing of it
    /// goes up by itself, whatever the store is.
    Withdrawn,
    /// A person wants the withdrawn recording in the store again.
    Offered,
    /// A person removes the recording's files.
    RemovalBegun,
    /// A fact of a later version: read, never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_later_version_is_read_as_unknown() {
        let line: JournalLine =
            serde_json::from_str(r#"{"at_ns":1,"store_id":"s","kind":"of_a_later_version","chunk":"x","new":[1]}"#)
                .unwrap();
        assert_eq!(line.entry, JournalEntry::Unknown);
    }

    #[test]
    fn a_line_is_one_line() {
        let entry = JournalEntry::Uploaded {
            chunk: ChunkName::new(0, &Digest::of(b"a")),
            sha256: Digest::of(b"a"),
            size_bytes: 1,
            proof: Proof::Enforced,
            etag: "with\nnewline".into(),
            key: None,
        };
        let line = JournalLine { at_ns: 1, store_id: "s".into(), entry };
        let text = serde_json::to_string(&line).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(serde_json::from_str::<JournalLine>(&text).unwrap(), line);
    }
}
