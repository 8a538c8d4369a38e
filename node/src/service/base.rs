//! The service of one library: its parts, and what several verbs check first.

use std::{path::PathBuf, sync::Arc};

use bubbaloop_storage_schemas::{
    RecordingName, Timestamp, Verb,
    error::{ErrorCode, Refusal},
    journal::StoreId,
    reply::{ConfigProblem, ReplyHead},
};
use tokio::sync::watch;

use super::admin::AdminToken;
use crate::{
    clock::Clock,
    config::CurrentSettings,
    engine::{
        driver::{Engine, LibraryUnavailable},
        events::Events,
        jobs::Jobs,
    },
    library::{
        identity::Identity,
        scan::{ReadReason, Recording},
    },
};

/// What a node was started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The folder of recordings.
    pub recordings: PathBuf,
    /// The kind of store; `None` where none is configured.
    pub backend: Option<String>,
    /// Its id in the journal.
    pub store_id: Option<StoreId>,
    /// Its folder, where it is one.
    pub store_folder: Option<PathBuf>,
    /// Commands of the node contract may act, not only look.
    pub commands_act: bool,
    /// What tells who may ask for what an admin may.
    pub admin_token: AdminToken,
    /// The settings as they are now: some change while the node runs.
    pub current: watch::Receiver<CurrentSettings>,
    /// What is wrong with the store that they name.
    pub store_problems: Vec<ConfigProblem>,
}

/// Answers for one library.
#[derive(Debug)]
pub struct Service {
    pub(super) identity: Identity,
    pub(super) sync: Arc<Engine>,
    pub(super) jobs: Jobs,
    pub(super) facts: Arc<Events>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) setup: Setup,
}

impl Service {
    /// Makes the service of one library.
    pub const fn new(
        identity: Identity,
        sync: Arc<Engine>,
        jobs: Jobs,
        facts: Arc<Events>,
        clock: Arc<dyn Clock>,
        setup: Setup,
    ) -> Self {
        Self { identity, sync, jobs, facts, clock, setup }
    }

    /// Ends the jobs: the node, or this putting together of it, is ending. Whoever waits for one is told its state.
    pub fn stop_jobs(&self) {
        self.jobs.stop();
    }

    /// Returns whose library it is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the head of a verb's reply.
    pub(super) fn head(&self, verb: Verb) -> ReplyHead {
        let Identity { machine_id, library_id } = self.identity.clone();
        ReplyHead { machine_id, library_id, verb }
    }

    /// Returns what is known of a recording; one that no scan saw yet is read now.
    pub(super) fn look_up(&self, name: &RecordingName) -> Option<Arc<Recording>> {
        if let Some(known) = self.sync.recording(name) {
            return Some(known);
        }
        if let Err(error) = self.sync.refresh(name, ReadReason::OnDemand) {
            tracing::warn!(recording = %name, %error, "a recording can't be read");
        }
        self.sync.recording(name)
    }

    /// Refuses what needs the whole library before the first scan is done.
    pub(super) fn scanned(&self) -> Result<(), Refusal> {
        if let Some((LibraryUnavailable::Unreadable(error), _)) = self.sync.away() {
            let folder = self.setup.recordings.display();
            let refusal = Refusal::new(ErrorCode::Unavailable, format!("the folder {folder} can't be read: {error}"));
            return Err(refusal.hint("mount or make it, or set recordings_dir; status tells when it is there again"));
        }
        if self.sync.is_scanned() {
            return Ok(());
        }
        let seen = self.sync.read(|recordings, _| recordings.len());
        let message = format!("the first scan is not done: {seen} recordings so far");
        Err(Refusal::new(ErrorCode::Unavailable, message).hint("ask again in a moment"))
    }

    /// Tells that there is no recording of this name.
    pub(super) fn no_such(&self, name: &str) -> Refusal {
        self.sync.no_such(name)
    }

    /// Refuses what would upload while a person stopped uploads.
    pub(super) fn not_paused(&self) -> Result<(), Refusal> {
        let Some(paused) = self.sync.paused() else { return Ok(()) };
        let since = Timestamp(paused.since_ns).to_rfc3339();
        Err(Refusal::new(ErrorCode::Conflict, format!("uploads are paused since {since}")).hint("resume them first"))
    }

    /// Refuses what needs a store where none is configured.
    pub(super) fn has_store(&self) -> Result<(), Refusal> {
        if self.setup.backend.is_some() {
            return Ok(());
        }
        let refusal = Refusal::new(ErrorCode::Unavailable, "no object store is configured");
        Err(refusal.hint("set backend in [storage] of config.toml; status tells what is wrong with the settings"))
    }
}
