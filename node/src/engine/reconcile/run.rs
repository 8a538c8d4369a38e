//! One run over one recording: its options, why it fails, and what it has found and done so far.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bubbaloop_storage_schemas::{
    ChunkName, Digest, MachineId, RecordingName,
    keys::ObjectKey,
    reconcile::{Action, Finding, FindingKind},
    reply::{Probe, Progress},
};

use crate::{
    content::ContentError,
    engine::{driver::Engine, fetch::RemoteManifest},
    policy::{
        fetch::NoRoom,
        queue::ChunkId,
        reconcile::{self, ChunkEvidence, Evidence, Means, Remote},
    },
    store::{ObjectStore, StoreError},
};

/// How it is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ReconcileOptions {
    /// Every local file is hashed, and every object fetched and hashed.
    pub deep: bool,
    /// The plan is told and nothing is changed, neither here nor in the store.
    pub dry_run: bool,
    /// What is damaged, missing or evicted here is fetched from the store. Every local file is hashed.
    pub restore: bool,
}

/// Why nothing could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// There is no such recording, neither here nor in the store.
    #[error("there is no such recording, neither here nor in the store")]
    NotFound,
    /// It is not here, and the store gives no answer.
    #[error("it is not in the library, and the store gives no answer: {0}")]
    Unavailable(String),
    /// Its folder can't be read.
    #[error(transparent)]
    Library(ContentError),
    /// The disk has not the room for what is to be fetched.
    #[error("the library's disk has not the room: {0}")]
    NoRoom(#[from] NoRoom),
}

/// Hears how far it is. The totals are known once the recording was read.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What a run fetches from the store, and what it does not.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    /// The store's manifest, if it is to be written here.
    pub(super) restorable: Option<RemoteManifest>,
    /// Why the store's manifest is not written here, although it is requested.
    pub(super) not_restorable: Option<String>,
    /// Why nothing more is fetched: the disk is full.
    pub(super) is_full: Option<String>,
    /// The number of fetched chunks, and their bytes.
    pub(super) restored: (u64, u64),
}

/// The findings and actions of a run so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Findings that are not part of the plan.
    pub(super) found: Vec<Finding>,
    /// Actions that are done.
    pub(super) done: Vec<Action>,
}

/// The progress of a run, and who receives it.
pub(super) struct Meter<'a> {
    pub(super) told: OnProgress<'a>,
    pub(super) progress: Progress,
}

impl Meter<'_> {
    fn tell(&self) {
        (self.told)(self.progress);
    }
}

/// One run over one recording.
pub(super) struct Reconcile<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) store: Arc<dyn ObjectStore>,
    /// The machine under whose name its objects stand.
    pub(super) machine: MachineId,
    pub(super) name: RecordingName,
    pub(super) options: ReconcileOptions,
    pub(super) meter: Meter<'a>,
    /// What the store was found to do; without it no digest that it tells is believed.
    pub(super) probe: Option<Probe>,
    /// Why the store is not asked any more: it gave no answer.
    pub(super) silent: Option<String>,
    /// The remote manifest that was written last does not stand there.
    pub(super) is_manifest_gone: bool,
    /// What is fetched from the store.
    pub(super) fetching: Fetching,
    /// What the chunks' bytes hash to, where that is known.
    pub(super) digests: BTreeMap<ChunkName, Digest>,
    pub(super) report: Report,
}

impl fmt::Debug for Reconcile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconcile").field("name", &self.name).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Reconcile<'_> {
    pub(super) fn key(&self, chunk: ChunkName) -> ObjectKey {
        ObjectKey::chunk(&self.machine, &self.name, chunk)
    }

    /// Tells whether the store gives some means to prove what it holds.
    pub(super) fn can_prove(&self) -> bool {
        self.probe.is_none_or(|probe| probe.enforces_sha256 || probe.etag_is_md5 || probe.rights.get)
    }

    pub(super) fn means(&self) -> Means {
        Means { can_prove: self.can_prove(), restore: self.options.restore }
    }

    /// Tells how much there is to look at.
    pub(super) fn begin(&mut self, sizes: impl Iterator<Item = u64>) {
        for size_bytes in sizes {
            self.meter.progress.chunks_total += 1;
            self.meter.progress.bytes_total += size_bytes;
        }
        self.meter.tell();
    }

    /// Counts a chunk that is gathered as done, unless its bytes are still to be sent.
    pub(super) fn gathered(&mut self, chunk: &ChunkEvidence) {
        if self.options.dry_run || reconcile::step(chunk, self.means()).is_none() {
            self.settled(chunk.size_bytes);
        }
    }

    pub(super) fn settled(&mut self, size_bytes: u64) {
        self.meter.progress.chunks_done += 1;
        self.meter.progress.bytes_done += size_bytes;
        self.meter.tell();
    }

    pub(super) fn id(&self, chunk: ChunkName) -> ChunkId {
        ChunkId { recording: self.name.clone(), chunk }
    }

    /// Tells what an error leaves known: nothing. A store that does not answer is not asked for the other chunks.
    pub(super) fn no_answer(&mut self, error: &StoreError) -> Remote {
        self.note_silence(error);
        Remote::Unknown(error.to_string())
    }

    pub(super) fn note_silence(&mut self, error: &StoreError) {
        if !error.is_denied() {
            self.silent.get_or_insert_with(|| error.to_string());
        }
    }

    /// Takes down what is seen of the recording and no plan tells.
    pub(super) fn find(&mut self, kind: FindingKind, message: String) {
        self.report.found.push(Finding::new(kind, &self.name, None, message));
    }
}

/// Returns the evidence of one chunk; it was gathered in their order.
pub(super) fn chunk_of(evidence: &mut Evidence, name: ChunkName) -> Option<&mut ChunkEvidence> {
    let place = evidence.chunks.binary_search_by_key(&name, |chunk| chunk.name).ok()?;
    evidence.chunks.get_mut(place)
}
