//! The states of recordings and of their chunks, as replies name them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a recording is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordingState {
    /// It goes on.
    Recording,
    /// It has no end, and its folder has been still for a day.
    Interrupted,
    /// It has ended.
    Ended,
    /// Chunks of it are in no manifest.
    Unlisted,
    /// Its manifest is refused.
    Invalid,
    /// Another machine recorded it.
    Foreign,
    /// It is laid out in another way.
    Unmanaged,
}

impl RecordingState {
    /// All states, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Recording,
        Self::Interrupted,
        Self::Ended,
        Self::Unlisted,
        Self::Invalid,
        Self::Foreign,
        Self::Unmanaged,
    ];

    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Interrupted => "interrupted",
            Self::Ended => "ended",
            Self::Unlisted => "unlisted",
            Self::Invalid => "invalid",
            Self::Foreign => "foreign",
            Self::Unmanaged => "unmanaged",
        }
    }
}

/// How much of a recording is proven in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// No chunk.
    None,
    /// Some chunks.
    Partial,
    /// Every chunk.
    Complete,
}

/// Where a chunk is on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChunkLocal {
    /// Its file is there.
    Present,
    /// A manifest names it, and there is no file.
    Missing,
    /// The file has other bytes than its digest says.
    Damaged,
    /// It was removed to make room, being proven in a store.
    Evicted,
}

/// How far a chunk's upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChunkUpload {
    /// Not proven yet.
    Pending,
    /// On its way.
    InFlight,
    /// Proven in the store.
    Uploaded,
    /// Something says that it is there.
    Claimed,
    /// Given up until something changes.
    DeadLetter,
}
