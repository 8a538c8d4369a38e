//! Looks at manifest, local files and remote objects of one recording, then heals what can be healed without loss.
//!
//! `listing` reads what the store lists, `look` what one object is, `gather` makes the evidence of it, `heal` carries the
//! plan out, `restore` what of it fetches from the store. Uploads go through the queue: there is one retry loop, and a running sync drives it.

mod gather;
mod heal;
mod listing;
mod look;
mod restore;
mod run;

pub use self::{
    restore::{has_room, names_in_store},
    run::{OnProgress, ReconcileError, ReconcileOptions},
};

use std::{collections::BTreeMap, sync::Arc};

use bubbaloop_storage_schemas::{RecordingName, reconcile::ReconcileResult, reply::Progress};

use self::run::{Fetching, Meter, Reconcile, Report};
use super::driver::Engine;
use crate::policy::reconcile::{self, ChunkEvidence, Mark, Remote};

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
    engine: &Arc<Engine>,
    name: &RecordingName,
    options: ReconcileOptions,
    progress: OnProgress<'_>,
) -> Result<Reconciled, ReconcileError> {
    let parts = engine.parts();
    let mut run = Reconcile {
        engine,
        store: Arc::clone(&parts.store),
        machine: parts.machine_id.clone(),
        name: name.clone(),
        options,
        meter: Meter { told: progress, progress: Progress::default() },
        probe: None,
        silent: None,
        is_manifest_gone: false,
        fetching: Fetching::default(),
        digests: BTreeMap::new(),
        report: Report::default(),
    };
    let mut result = ReconcileResult::default();
    result.counts.recordings = 1;
    let Some(mut evidence) = Box::pin(run.gather()).await? else {
        result.add(run.report.found, Vec::new());
        return Ok(Reconciled { result, silent: None, not_restorable: None });
    };
    let findings = if options.dry_run {
        let plan = reconcile::plan(&evidence);
        run.fetching.restored = restore::planned(&evidence);
        run.report.done = plan.actions;
        plan.findings
    } else {
        has_room(engine, restore::planned(&evidence).1).await?;
        run.heal(&mut evidence).await
    };
    result.counts.chunks = evidence.chunks.len() as u64;
    result.counts.proven_chunks = evidence.chunks.iter().filter(|chunk| is_proven(chunk)).count() as u64;
    (result.counts.restored_chunks, result.counts.restored_bytes) = run.fetching.restored;
    if options.restore && !options.dry_run {
        result.counts.unrestored_chunks =
            evidence.chunks.iter().filter(|chunk| !reconcile::is_here(chunk)).count() as u64;
    }
    run.report.found.extend(findings);
    result.add(run.report.found, run.report.done);
    Ok(Reconciled { result, silent: run.silent, not_restorable: run.fetching.not_restorable })
}

/// Tells whether the store is known to hold a chunk and the journal says so, where it has a place for that.
fn is_proven(chunk: &ChunkEvidence) -> bool {
    matches!((&chunk.remote, chunk.mark), (Remote::Same { .. }, Mark::Current | Mark::NoPlace))
}
