//! One run of a removal.

use std::sync::Arc;

use bubbaloop_storage_schemas::{
    RecordingName,
    error::{ErrorCode, Refusal},
    removal::RemovalResult,
    reply::Progress,
};
use tokio::task::JoinError;

use crate::{engine::driver::Engine, policy::removal::RemovalOptions};

/// Receives the progress.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// One run over one recording.
pub(super) struct Removal<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) name: &'a RecordingName,
    pub(super) options: RemovalOptions,
    pub(super) told: OnProgress<'a>,
    pub(super) progress: Progress,
    pub(super) result: RemovalResult,
}

/// Returns the refusal for a task of the removal that panicked.
pub(super) fn ended(error: &JoinError) -> Refusal {
    Refusal::new(ErrorCode::Internal, format!("the removal ended abnormally: {error}")).hint("say it again: it goes on")
}
