//! Carries the plan out, and takes what came of each step into the evidence, so that the next round's plan knows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bubbaloop_storage_schemas::{
    ChunkName,
    event::{Fact, StorageEvent},
    reconcile::{Action, ActionKind, Finding, FindingKind},
    reply::{ChunkLocal, Proof},
};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    look::{self, Target},
    run::{Reconcile, chunk_of},
};
use crate::{
    content::ContentError,
    engine::{
        driver::UploadOutcome,
        request::UploadRequest,
        transfer::{self, Proven, TransferError},
    },
    library::scan::Folder,
    policy::{
        queue::ChunkId,
        reconcile::{self, Evidence, Failure, Local, Mark, Remote, RemoteManifest, Step},
    },
    store::{StoreError, StoreErrorKind},
};

/// Rounds at most: proven in vain, sent in vain, replaced.
const ROUNDS_MAX: usize = 3;

/// How often it looks although nothing was told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is done about a chunk; a recording's own actions come after all of them.
const fn is_chunks(kind: ActionKind) -> bool {
    match kind {
        ActionKind::Unmark
        | ActionKind::Mark
        | ActionKind::Prove
        | ActionKind::Upload
        | ActionKind::Replace
        | ActionKind::Restore => true,
        ActionKind::MarkCorrupt | ActionKind::ClearCorrupt | ActionKind::Publish | ActionKind::RestoreManifest => false,
    }
}

impl Reconcile<'_> {
    /// Carries out what is planned until nothing more is, and returns what is not mended.
    pub(super) async fn heal(&mut self, evidence: &mut Evidence) -> Vec<Finding> {
        self.restore_manifest(evidence).await;
        for _ in 0..ROUNDS_MAX {
            let actions: Vec<_> =
                reconcile::plan(evidence).actions.into_iter().filter(|action| is_chunks(action.kind)).collect();
            if actions.is_empty() {
                break;
            }
            self.round(evidence, actions).await;
        }
        let plan = reconcile::plan(evidence);
        for action in plan.actions {
            match action.kind {
                ActionKind::MarkCorrupt => self.engine.note_corrupt(&self.name, Some(action.message.clone())).await,
                ActionKind::ClearCorrupt => self.engine.note_corrupt(&self.name, None).await,
                ActionKind::Publish if !self.publish().await => {
                    let remedy = reconcile::remedy(FindingKind::ManifestWaits);
                    self.find(
                        FindingKind::ManifestWaits,
                        format!("the remote manifest can't be written now: {remedy}"),
                    );
                    continue;
                }
                ActionKind::Publish => {}
                ActionKind::Unmark
                | ActionKind::Mark
                | ActionKind::Prove
                | ActionKind::Upload
                | ActionKind::Replace
                | ActionKind::RestoreManifest
                | ActionKind::Restore => continue,
            }
            self.report.done.push(action);
        }
        plan.findings
    }

    async fn round(&mut self, evidence: &mut Evidence, actions: Vec<Action>) {
        let mut sent = BTreeMap::new();
        let mut fetched = Vec::new();
        for action in actions {
            let Some(name) = action.chunk else { continue };
            let is_done = match action.kind {
                ActionKind::Unmark => self.unmark(evidence, name).await,
                ActionKind::Mark => self.mark(evidence, name).await,
                ActionKind::Replace => self.replace(evidence, name).await,
                ActionKind::Prove | ActionKind::Upload => {
                    sent.insert(name, action);
                    continue;
                }
                ActionKind::Restore => {
                    fetched.push(action);
                    continue;
                }
                ActionKind::MarkCorrupt
                | ActionKind::ClearCorrupt
                | ActionKind::Publish
                | ActionKind::RestoreManifest => continue,
            };
            if is_done {
                changed(evidence);
                self.report.done.push(action);
            }
        }
        if !fetched.is_empty() {
            self.restore_all(evidence, fetched).await;
        }
        if !sent.is_empty() {
            self.send(evidence, sent).await;
        }
    }

    async fn unmark(&self, evidence: &mut Evidence, name: ChunkName) -> bool {
        let Some(chunk) = chunk_of(evidence, name) else { return false };
        self.engine.unmark(self.id(name), self.key(name)).await;
        chunk.mark = Mark::None;
        true
    }

    async fn mark(&self, evidence: &mut Evidence, name: ChunkName) -> bool {
        let (Some(chunk), Some(&digest)) = (chunk_of(evidence, name), self.digests.get(&name)) else { return false };
        let Remote::Same { proof, etag } = chunk.remote.clone() else { return false };
        self.engine.mark(&self.id(name), Proven { digest, proof, etag, sent_bytes: 0 }, self.key(name)).await;
        chunk.mark = Mark::Current;
        true
    }

    async fn replace(&mut self, evidence: &mut Evidence, name: ChunkName) -> bool {
        let (Some(chunk), Some(&digest)) = (chunk_of(evidence, name), self.digests.get(&name)) else { return false };
        let size_bytes = chunk.size_bytes;
        let failed = |reason: String, is_denied| Some(Failure { step: Step::Replace, reason, is_denied });
        let Some(probe) = self.probe else {
            chunk.failure = failed("what the store does is not known yet".into(), false);
            return false;
        };
        let path = Folder::new(&self.engine.parts().recordings, &self.name).chunk(name);
        let parcel = UploadRequest { path, digest, key: self.key(name), size_bytes, may_be_there: true, large: None };
        let is_done = match transfer::replace(&*self.store, probe, &parcel).await {
            Ok(proven) if proven.proof.is_proven() => {
                chunk.remote = Remote::Same { proof: proven.proof, etag: proven.etag.clone() };
                chunk.mark = Mark::Current;
                self.engine.mark(&self.id(name), proven, self.key(name)).await;
                true
            }
            Ok(_) => {
                chunk.failure = failed("it was put there, and the store proves nothing".into(), false);
                false
            }
            Err(TransferError::Store(StoreError { kind: StoreErrorKind::Content(error), .. })) => {
                chunk.local = self.note_content(&self.id(name), &error);
                false
            }
            Err(error) => {
                let is_denied = matches!(&error, TransferError::Store(error) if error.is_denied());
                chunk.failure = failed(error.to_string(), is_denied);
                false
            }
        };
        self.settled(size_bytes);
        is_done
    }

    /// Takes in how a file turned out to be that was about to be sent.
    fn note_content(&self, id: &ChunkId, error: &ContentError) -> Local {
        match error {
            ContentError::Damaged { .. } | ContentError::Misnamed { .. } => {
                self.engine.note_local(id, ChunkLocal::Damaged);
                Local::Damaged
            }
            ContentError::Gone(_) => {
                self.engine.note_local(id, ChunkLocal::Missing);
                Local::Missing
            }
            ContentError::Unreadable { .. } => Local::Unreadable(error.to_string()),
        }
    }

    /// Hands chunks to the queue and waits until each of them is proven or given up.
    async fn send(&mut self, evidence: &mut Evidence, mut sent: BTreeMap<ChunkName, Action>) {
        // Heard from before the asking, so that no chunk is settled unheard.
        let mut facts = self.engine.parts().facts.listen();
        let mut waiting: BTreeSet<_> = sent.keys().map(|name| self.id(*name)).collect();
        self.engine.clear_failure(waiting.iter());
        self.engine.enqueue_first(&self.name, waiting.iter());
        // Scans and events may have had one sent since its mark was taken back: of that no fact comes any more.
        let mut looked_at: Vec<_> = waiting.iter().cloned().collect();
        loop {
            for id in looked_at {
                let standing = self.engine.standing(&id);
                let (UploadOutcome::Proven | UploadOutcome::Failed { .. }) = &standing else { continue };
                waiting.remove(&id);
                let Some(action) = sent.remove(&id.chunk) else { continue };
                self.take_in(evidence, action, &id, standing).await;
            }
            if waiting.is_empty() {
                return;
            }
            looked_at = self.heard(&mut facts, &waiting).await;
        }
    }

    /// Returns the chunks to look at: the one that was told of, or all of them.
    async fn heard(&self, facts: &mut broadcast::Receiver<StorageEvent>, waiting: &BTreeSet<ChunkId>) -> Vec<ChunkId> {
        let fact = match tokio::time::timeout(LOOK_EVERY, facts.recv()).await {
            Ok(Ok(event)) => event.fact,
            // The facts end with their engine, which this one holds; a look in its stead costs little.
            Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) | Err(_) => {
                // What the queue had no room for, it may have room for now.
                self.engine.enqueue_first(&self.name, waiting.iter());
                return waiting.iter().cloned().collect();
            }
        };
        match fact {
            Fact::ChunkUploaded { recording, chunk, .. }
            | Fact::DeadLettered { recording, chunk, .. }
            | Fact::UploadFailed { recording, chunk, .. } => {
                let id = ChunkId { recording, chunk };
                if waiting.contains(&id) { vec![id] } else { Vec::new() }
            }
            _ => Vec::new(),
        }
    }

    async fn take_in(&mut self, evidence: &mut Evidence, action: Action, id: &ChunkId, standing: UploadOutcome) {
        let entry = self.engine.read(|recordings, _| recordings.get(&self.name)?.chunk(id.chunk).cloned());
        let Some(chunk) = chunk_of(evidence, id.chunk) else { return };
        let size_bytes = chunk.size_bytes;
        let is_contradicted = entry.as_ref().is_some_and(|entry| entry.refused_digest.is_some());
        if is_contradicted {
            chunk.local = Local::Unnamed("its manifest names it with another digest".into());
        }
        match (standing, entry) {
            (UploadOutcome::Proven, Some(entry)) => {
                let etag = entry.etag.map_or_else(String::new, Into::into);
                let proof = entry.facts.proof.unwrap_or(Proof::Claimed);
                (chunk.remote, chunk.mark) = (Remote::Same { proof, etag }, Mark::Current);
                changed(evidence);
                self.report.done.push(action);
                self.settled(size_bytes);
            }
            (UploadOutcome::Failed { reason, .. }, Some(entry)) => {
                let step = if action.kind == ActionKind::Prove { Step::Prove } else { Step::Upload };
                match entry.facts.local {
                    ChunkLocal::Damaged => chunk.local = Local::Damaged,
                    ChunkLocal::Missing => chunk.local = Local::Missing,
                    ChunkLocal::Evicted => chunk.local = Local::Evicted,
                    ChunkLocal::Present => chunk.failure = Some(Failure { step, reason, is_denied: false }),
                }
                let proven = entry.facts.proof.filter(|proof| proof.is_proven()).zip(entry.etag);
                let (name, key, digest) = (id.chunk, self.key(id.chunk), entry.digest);
                let target = Target { name, key, digest, size_bytes, proven };
                let found = look::look(&*self.store, self.probe, &target).await;
                chunk.remote = found.unwrap_or_else(|error| self.no_answer(&error));
                let means = evidence.means;
                let is_left = chunk_of(evidence, id.chunk).is_some_and(|chunk| reconcile::step(chunk, means).is_some());
                if !is_left {
                    self.settled(size_bytes);
                }
            }
            (UploadOutcome::Waiting, _) | (_, None) => chunk.local = Local::Missing,
        }
    }

    /// Has the remote manifest written; that of an ended recording is waited for. Returns whether it is, or will be soon.
    async fn publish(&self) -> bool {
        self.engine.want_manifest(&self.name, self.is_manifest_gone);
        let wall = self.engine.parts().clock.wall();
        let has_ended = self.engine.recording(&self.name).is_some_and(|recording| recording.has_ended(wall));
        if !has_ended {
            return true;
        }
        loop {
            let told = self.engine.manifest_told();
            match self.engine.manifest_failures(&self.name) {
                None => return true,
                Some(1..) => return false,
                Some(0) if self.engine.blocked().is_some() || self.engine.paused().is_some() => return false,
                // The end of the time is a look of its own.
                Some(0) => drop(tokio::time::timeout(LOOK_EVERY, told).await),
            }
        }
    }
}

/// Takes in that what is in the store is not what it was.
fn changed(evidence: &mut Evidence) {
    match evidence.manifest {
        RemoteManifest::Nothing => {}
        RemoteManifest::Current | RemoteManifest::Due | RemoteManifest::Unknown(_) => {
            evidence.manifest = RemoteManifest::Due;
        }
    }
}
