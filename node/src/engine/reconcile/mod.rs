//! Looks at manifest, local files and remote objects of one recording, then heals what can be healed without loss.
//!
//! `listing` reads what the store lists, `look` what one object is, `gather` makes the evidence of it, `heal` carries the
//! plan out, `restore` what of it fetches from the store. Uploads go through the queue: there is one retry loop, and a running sync drives it.

mod gather;
mod heal;
mod listing;
mod look;
mod restore;

pub use self::restore::{has_room, names_in_store};

use std::{collections::BTreeMap, fmt, sync::Arc};

use bubbaloop_storage_schemas::{
    ChunkName, Digest, MachineId, RecordingName,
    keys::ObjectKey,
    reconcile::{Action, Finding, ReconcileResult},
    reply::{Probe, Progress},
};

use super::sync::Sync;
use crate::{
    content::ContentError,
    engine::fetch::RemoteManifest,
    policy::{
        fetch::NoRoom,
        reconcile::{self, ChunkEvidence, Evidence, Mark, Means, Remote},
    },
    store::ObjectStore,
};

/// How it is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Options {
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

/// What a look at one recording came to.
#[derive(Debug)]
pub struct Reconciled {
    /// What it saw and did.
    pub result: ReconcileResult,
    /// Why the store gave no answer to some of it; `None` where it answered, be it with a refusal.
    pub silent: Option<String>,
    /// Why the store's manifest was not brought back, although it was wanted.
    pub not_restorable: Option<String>,
}

/// Hears how far it is. The totals are known once the recording was read.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + std::marker::Sync);

/// Looks at one recording on both sides and heals what can be healed; nothing is ever removed. Idempotent.
///
/// What is not known is told and never taken for absent. Chunks that are to be sent are handed to the queue, before all
/// others, and waited for: a running sync sends them, and waits with them while a fact blocks it.
///
/// # Errors
/// Nothing could be looked at, as [`ReconcileError`] tells.
///
/// # Cancellation
/// It ends between two idempotent steps. What was handed to the queue goes up all the same.
pub async fn reconcile(
    sync: &Arc<Sync>,
    name: &RecordingName,
    options: Options,
    progress: OnProgress<'_>,
) -> Result<Reconciled, ReconcileError> {
    let parts = sync.parts();
    let mut run = Reconcile {
        sync,
        store: Arc::clone(&parts.store),
        machine: parts.machine_id.clone(),
        name: name.clone(),
        options,
        told: progress,
        progress: Progress::default(),
        probe: None,
        silent: None,
        is_manifest_gone: false,
        restorable: None,
        not_restorable: None,
        is_full: None,
        restored: (0, 0),
        digests: BTreeMap::new(),
        found: Vec::new(),
        done: Vec::new(),
    };
    let mut result = ReconcileResult::default();
    result.counts.recordings = 1;
    let Some(mut evidence) = Box::pin(run.gather()).await? else {
        result.add(run.found, Vec::new());
        return Ok(Reconciled { result, silent: None, not_restorable: None });
    };
    let findings = if options.dry_run {
        let plan = reconcile::plan(&evidence);
        run.restored = restore::planned(&evidence);
        run.done = plan.actions;
        plan.findings
    } else {
        has_room(sync, restore::planned(&evidence).1).await?;
        run.heal(&mut evidence).await
    };
    result.counts.chunks = evidence.chunks.len() as u64;
    result.counts.proven_chunks = evidence.chunks.iter().filter(|chunk| is_proven(chunk)).count() as u64;
    (result.counts.restored_chunks, result.counts.restored_bytes) = run.restored;
    if options.restore && !options.dry_run {
        result.counts.unrestored_chunks =
            evidence.chunks.iter().filter(|chunk| !reconcile::is_here(chunk)).count() as u64;
    }
    run.found.extend(findings);
    result.add(run.found, run.done);
    Ok(Reconciled { result, silent: run.silent, not_restorable: run.not_restorable })
}

/// Tells whether the store is known to hold a chunk and the journal says so, where it has a place for that.
fn is_proven(chunk: &ChunkEvidence) -> bool {
    matches!((&chunk.remote, chunk.mark), (Remote::Same { .. }, Mark::Current | Mark::NoPlace))
}

/// One run over one recording.
struct Reconcile<'a> {
    sync: &'a Arc<Sync>,
    store: Arc<dyn ObjectStore>,
    /// The machine under whose name its objects stand.
    machine: MachineId,
    name: RecordingName,
    options: Options,
    told: OnProgress<'a>,
    progress: Progress,
    /// What the store was found to do; without it no digest that it tells is believed.
    probe: Option<Probe>,
    /// Why the store is not asked any more: it gave no answer.
    silent: Option<String>,
    /// The remote manifest that was written last does not stand there.
    is_manifest_gone: bool,
    /// The store's manifest, where it is to be written here.
    restorable: Option<RemoteManifest>,
    /// Why it is not, although it is wanted.
    not_restorable: Option<String>,
    /// Why nothing more is fetched: the disk is full.
    is_full: Option<String>,
    /// Chunks that were fetched, and their bytes.
    restored: (u64, u64),
    /// What the chunks' bytes hash to, where that is known.
    digests: BTreeMap<ChunkName, Digest>,
    /// What was seen beside the plan.
    found: Vec<Finding>,
    /// What was done.
    done: Vec<Action>,
}

impl fmt::Debug for Reconcile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconcile").field("name", &self.name).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Reconcile<'_> {
    fn key(&self, chunk: ChunkName) -> ObjectKey {
        ObjectKey::chunk(&self.machine, &self.name, chunk)
    }

    /// Tells whether the store gives some means to prove what it holds.
    fn can_prove(&self) -> bool {
        self.probe.is_none_or(|probe| probe.enforces_sha256 || probe.etag_is_md5 || probe.rights.get)
    }

    fn means(&self) -> Means {
        Means { can_prove: self.can_prove(), restore: self.options.restore }
    }

    /// Tells how much there is to look at.
    fn begin(&mut self, sizes: impl Iterator<Item = u64>) {
        for size_bytes in sizes {
            self.progress.chunks_total += 1;
            self.progress.bytes_total += size_bytes;
        }
        (self.told)(self.progress);
    }

    /// Counts a chunk that is gathered as done, unless its bytes are still to be sent.
    fn gathered(&mut self, chunk: &ChunkEvidence) {
        if self.options.dry_run || reconcile::step(chunk, self.means()).is_none() {
            self.settled(chunk.size_bytes);
        }
    }

    fn settled(&mut self, size_bytes: u64) {
        self.progress.chunks_done += 1;
        self.progress.bytes_done += size_bytes;
        (self.told)(self.progress);
    }
}

/// Returns the evidence of one chunk; it was gathered in their order.
fn chunk_of(evidence: &mut Evidence, name: ChunkName) -> Option<&mut ChunkEvidence> {
    let place = evidence.chunks.binary_search_by_key(&name, |chunk| chunk.name).ok()?;
    evidence.chunks.get_mut(place)
}
