//! What came of a job, by its verb.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{adopt::AdoptResult, reconcile::ReconcileResult, removal::RemovalResult};

/// What came of a job, by its verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum JobResult {
    /// Of an `rm`: read first, for it tells where from.
    Removal(Box<RemovalResult>),
    /// Of an `adopt`: read before the next, for it has all that a reconcile's has.
    Adopt(Box<AdoptResult>),
    /// Of a `reconcile`.
    Reconcile(Box<ReconcileResult>),
    /// Of an `upload`.
    Upload(UploadResult),
}

/// What came of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct UploadResult {
    /// Chunks that are proven in the store at its end.
    pub uploaded_chunks: u64,
    /// Chunks that could not be sent.
    pub failed_chunks: u64,
}
