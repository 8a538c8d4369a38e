//! What is published: the finalize event that a recorder sends, and the events of the node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    block::BlockReason,
    codec::{self, DecodeError, Format},
    digest::shorten_message,
    manifest::ManifestChunk,
    names::{ChunkName, MachineId, RecordingName},
    reply::{JobState, Progress, Proof},
    time::UnixNs,
    verb::Verb,
};

/// A recorder's word that a chunk's file is complete, hashed and renamed to its last name.
///
/// Published on a key of [`crate::keys::chunk_finalized`], as JSON or CBOR, bare or as the `body` of
/// Bubbaloop's `{header, body}` envelope. It is a hint: the disk is the truth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FinalizeEvent {
    /// The recording's name.
    pub recording: String,
    /// The machine that recorded it, with `_` or `-`.
    pub machine_id: String,
    /// The chunk, with the names of the manifest.
    pub chunk: ManifestChunk,
}

impl FinalizeEvent {
    /// Decodes an event, bare or in an envelope.
    ///
    /// # Errors
    /// Neither JSON nor CBOR, trailing bytes, or not of this shape. The event is counted and dropped.
    pub fn decode(bytes: &[u8], format: Option<Format>) -> Result<Self, DecodeError> {
        let value = codec::decode_value(bytes, format)?;
        let body = match value {
            Value::Object(mut fields) if fields.contains_key("header") && fields.contains_key("body") => {
                fields.remove("body").unwrap_or_default()
            }
            bare => bare,
        };
        serde_json::from_value(body).map_err(|error| DecodeError::Shape(shorten_message(&error)))
    }
}

/// Ties an event of the node to its library and its run; `seq` rises by one per event of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventHead {
    /// The library that it is about.
    pub library_id: String,
    /// The run of the node.
    pub boot_id: String,
    /// The event's number in that run, from 1; the same on both forms of the key.
    pub seq: u64,
    /// When it happened.
    pub at_ns: UnixNs,
}

/// An event of the node: a bare JSON object on `events/<kind>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StorageEvent {
    /// Whose, which run, which number, when.
    #[serde(flatten)]
    pub head: EventHead,
    /// The machine of the node.
    pub machine_id: MachineId,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// How much an event matters to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is wrong.
    Info,
    /// Something went wrong, and the node tries again by itself.
    Warning,
    /// A person should look.
    Problem,
}

impl Severity {
    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What is known of one kind of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventKind {
    /// The last part of the event's key, and its field `kind`.
    pub name: &'static str,
    /// When it is published, as a clause without a full stop.
    pub summary: &'static str,
    /// How much it matters.
    pub severity: Severity,
}

/// Defines [`Fact`]. Each kind is written as `/// summary`, `Variant = kind, Severity { fields }`.
macro_rules! facts {
    ($($(#[doc = $summary:literal])+ $variant:ident = $kind:ident, $severity:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty,)*
    })+) => {
        /// What the node says changed. The kind is the last part of the key too.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Fact {
            $($(#[doc = $summary])+ $variant { $($(#[doc = $doc])+ $field: $type,)* },)+
        }

        impl Fact {
            /// All kinds, in the order of the documentation.
            pub const KINDS: &'static [EventKind] = &[$(EventKind {
                name: stringify!($kind),
                summary: concat!($($summary),+).trim_ascii_start(),
                severity: Severity::$severity,
            }),+];

            /// Returns the last part of the event's key.
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($kind),)+
                }
            }
        }
    };
}

facts! {
    /// a chunk is proven in the object store
    ChunkUploaded = chunk_uploaded, Info {
        /// Its recording.
        recording: RecordingName,
        /// Its name.
        chunk: ChunkName,
        /// Its size.
        size_bytes: u64,
        /// Its digest.
        sha256: String,
        /// How it is known.
        proof: Proof,
        /// The store's ETag of the object.
        etag: String,
    }
    /// an upload failed and is tried again
    UploadFailed = upload_failed, Warning {
        /// The chunk's recording.
        recording: RecordingName,
        /// Its name.
        chunk: ChunkName,
        /// What went wrong.
        message: String,
    }
    /// an upload was given up until something changes
    DeadLettered = dead_lettered, Problem {
        /// The chunk's recording.
        recording: RecordingName,
        /// Its name.
        chunk: ChunkName,
        /// Why.
        reason: String,
    }
    /// an ended recording is complete in the store, its manifest too
    RecordingComplete = recording_complete, Info {
        /// The recording.
        recording: RecordingName,
        /// How many chunks it has.
        chunks: u64,
    }
    /// a fact stops all uploads
    Blocked = blocked, Problem {
        /// The class of the fact.
        reason: BlockReason,
        /// What a person can do.
        hint: String,
    }
    /// that fact has ended
    Unblocked = unblocked, Info {
        /// The class of the fact that ended.
        reason: BlockReason,
    }
    /// a person stopped uploads
    Paused = paused, Info {
        /// Until when; null until somebody resumes.
        until_ns: Option<UnixNs>,
    }
    /// uploads go on
    Resumed = resumed, Info {}
    /// a job has changed: at most once a second, and at its end
    Job = job, Info {
        /// Its id.
        job: String,
        /// The verb that was asked for.
        verb: Verb,
        /// The recording that it is about; null for all of them.
        recording: Option<RecordingName>,
        /// Where it stands.
        state: JobState,
        /// How far it is.
        progress: Progress,
    }
    /// another library uses this machine's id
    Twin = twin, Problem {
        /// The other library; `library_id` is the one that tells.
        twin_library_id: String,
        /// Where it was met: `bus` or `bucket`.
        met: String,
    }
    /// the local file of a proven chunk was removed to make room
    Evicted = evicted, Info {
        /// The chunk's recording.
        recording: RecordingName,
        /// Its name.
        chunk: ChunkName,
        /// Its size.
        size_bytes: u64,
    }
    /// less room is left than the settings want, and nothing more may be removed
    DiskLow = disk_low, Problem {
        /// How much less.
        short_bytes: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str =
        r#"{"recording":"r","machine_id":"m","chunk":{"name":"n","index":3.0,"size_bytes":4.0,"sha256":"s"}}"#;

    #[test]
    fn bare_and_enveloped_json_and_cbor_are_one_event() {
        let bare = FinalizeEvent::decode(BARE.as_bytes(), Some(Format::Json)).unwrap();
        assert_eq!((bare.chunk.index, bare.chunk.size_bytes), (3, 4));
        let enveloped = format!(r#"{{"header":{{"monotonic_seq":1}},"body":{BARE}}}"#);
        assert_eq!(FinalizeEvent::decode(enveloped.as_bytes(), None).unwrap(), bare);
        let cbor = codec::encode(&serde_json::from_str::<Value>(&enveloped).unwrap(), Format::Cbor).unwrap();
        assert_eq!(FinalizeEvent::decode(&cbor, None).unwrap(), bare);
        assert_eq!(FinalizeEvent::decode(&cbor, Some(Format::Cbor)).unwrap(), bare);
    }

    #[test]
    fn the_kind_in_the_body_is_the_kind_in_the_key() {
        let fact = Fact::Unblocked { reason: "x".into() };
        assert_eq!(serde_json::to_value(&fact).unwrap()["kind"], fact.kind());
        assert!(Fact::KINDS.iter().any(|kind| kind.name == fact.kind()));
    }

    #[test]
    fn what_is_no_event_is_an_error_that_says_so() {
        for bytes in [&b""[..], b"ok", b"{}", b"[1,2]", b"{\"recording\":1}", &[0xff; 64], &BARE.as_bytes()[..40]] {
            assert!(FinalizeEvent::decode(bytes, None).is_err(), "{bytes:?}");
        }
    }
}
