//! How an upload is known to be in the store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an upload is known to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The store checks digests, and took ours.
    Enforced,
    /// The store's ETag is the MD5 of the bytes that were sent.
    EtagMd5,
    /// It was fetched and hashed.
    ReadBack,
    /// Something says so. Never counts as uploaded.
    Claimed,
}

impl Proof {
    /// Tells whether it counts as uploaded.
    pub const fn is_proven(self) -> bool {
        !matches!(self, Self::Claimed)
    }
}
