//! One chunk at a time: what the queue names is sent, marked and told.

use std::{path::PathBuf, sync::Arc};

use bubbaloop_storage_schemas::{
    BlockReason, ChunkName, Digest,
    event::Fact,
    keys::ObjectKey,
    reply::{ChunkLocal, Probe, Proof},
};
use tokio::task::spawn_blocking;

use super::{Engine, State, marks::StoredChunk};
use crate::{
    content::{self, ContentError},
    engine::{
        request::UploadRequest,
        transfer::{self, Proven, TransferError},
    },
    library::scan::{Fingerprint, Folder},
    policy::{
        intake::Refused,
        queue::{Block, ChunkId, Item, Outcome, ProbeFailure, Stage},
    },
    store::{StoreError, StoreErrorKind},
};

/// Who named a wrong digest for a sound file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrongDigestSource {
    ByEvent,
    ByManifest,
}

impl Engine {
    pub(super) async fn upload(self: &Arc<Self>, item: Item, attempt: u32) {
        let began = self.deps.clock.tick();
        self.state().pace.begin(began);
        let sent = self.send(&item, attempt).await;
        self.end_pace(sent.as_ref().map_or(0, |(proven, _)| proven.sent_bytes));
        let outcome = match sent {
            Ok((proven, key)) => return self.land(StoredChunk { item, proven, key, began }).await,
            Err(TransferError::Store(StoreError { kind: StoreErrorKind::Halted, .. })) => Outcome::Halted,
            Err(error) => {
                tracing::warn!(recording = %item.id.recording, chunk = %item.id.chunk, %error, "an upload failed");
                if let Some(misled) = self.was_misled(&item, &error) {
                    return self.go_on_after(&item, misled, error);
                }
                if self.rests(&item, &error).await {
                    return;
                }
                self.note_damage(&item, &error);
                error.into()
            }
        };
        self.finish(&item.id, outcome);
    }

    /// Tells the queue how a try ended, and whoever listens what follows from it.
    fn finish(&self, id: &ChunkId, outcome: Outcome) {
        self.finish_in(&mut self.state(), id, outcome);
    }

    /// Does as [`Engine::finish`] does, to the state that is at hand.
    pub(super) fn finish_in(&self, state: &mut State, id: &ChunkId, outcome: Outcome) {
        let failure = match &outcome {
            Outcome::Retry { message, .. } | Outcome::Unreadable(message) => Some(message.clone()),
            Outcome::Settled | Outcome::Blocked(_) | Outcome::Halted | Outcome::Dead(_) => None,
        };
        let chunk = state.recordings.get(&id.recording).and_then(|recording| recording.chunk(id.chunk));
        let is_proven = chunk.is_some_and(|chunk| chunk.facts.proof.is_some_and(Proof::is_proven));
        let is_known = chunk.is_some();
        let outcome = match outcome {
            // It was proven meanwhile in another way.
            Outcome::Dead(_) if is_proven => Outcome::Settled,
            outcome => outcome,
        };
        match (&failure, &outcome) {
            (Some(message), _) => state.note_failing(message, self.deps.clock.wall()),
            (None, Outcome::Settled) => state.failing = None,
            (None, _) => {}
        }
        state.queue.finish(id, outcome, self.deps.clock.tick(), fastrand::f64());
        if !is_known {
            // Somebody removed it meanwhile: there is nothing to send.
            state.queue.forget(id);
        }
        state.note_done();
        state.note_letter(id, &self.deps.store_id, self.deps.clock.wall());
        let ChunkId { recording, chunk } = id.clone();
        if let Some(Stage::Dead(reason)) = state.queue.stage(id) {
            self.deps.facts.emit(Fact::DeadLettered { recording, chunk, reason: reason.to_owned() });
        } else if let Some(message) = failure {
            self.deps.facts.emit(Fact::UploadFailed { recording, chunk, message });
        }
        self.note_gate(state);
    }

    /// Tells when a fact began or ended to stop uploads.
    pub(super) fn note_gate(&self, state: &mut State) {
        let reason = |block: &Block| block.reason.clone();
        let (now, before) = (state.queue.blocked().cloned(), state.block.as_ref().map(|(block, _)| block.clone()));
        if now == before {
            return;
        }
        if before.as_ref().map(reason) != now.as_ref().map(reason) {
            if let Some(Block { reason, .. }) = before {
                tracing::info!(%reason, "uploads are not blocked by this any more");
                self.deps.facts.emit(Fact::Unblocked { reason });
            }
            if let Some(Block { reason, hint }) = now.clone() {
                if reason.leaves_marks_unproven() {
                    state.doubt.arises();
                }
                tracing::warn!(%reason, hint, "uploads are blocked");
                self.deps.facts.emit(Fact::Blocked { reason, hint });
            }
            state.block = now.map(|block| (block, self.deps.clock.wall()));
        } else if let (Some((told, _)), Some(block)) = (&mut state.block, now) {
            *told = block;
        }
    }

    async fn send(self: &Arc<Self>, item: &Item, attempt: u32) -> Result<(Proven, ObjectKey), TransferError> {
        let known = self.state().probe;
        let probe = match known {
            Some(probe) => probe,
            None => self.probe().await?,
        };
        let parcel = self.parcel(item, attempt).await?;
        let proven = transfer::send(&*self.deps.store, probe, &parcel).await?;
        Ok((proven, parcel.key))
    }

    /// Probes the store and remembers what was found. It fails by a block or by what may pass: what a store refuses of a
    /// probe is the fault of no chunk.
    pub(super) async fn probe(&self) -> Result<Probe, StoreError> {
        let probe = self.deps.store.probe().await.map_err(|error| match error.kind {
            StoreErrorKind::Blocked(_) | StoreErrorKind::Retry { .. } => error,
            _ => {
                let hint = format!("it refuses the node's own test objects: {}", error.message);
                StoreError::new(StoreErrorKind::Blocked(Block::new(BlockReason::ProbeRefused, hint)), error.message)
            }
        })?;
        self.state().probe = Some(probe);
        Ok(probe)
    }

    /// Looks at the store when the run begins, so that a fact that stops uploads is told before the first chunk.
    pub async fn probe_first(&self) {
        if let Err(StoreError { kind: StoreErrorKind::Blocked(block), .. }) = self.probe().await {
            let mut state = self.state();
            state.queue.block(block, self.deps.clock.tick());
            self.note_gate(&mut state);
        }
    }

    /// Looks whether the fact that stops uploads has ended.
    pub(super) async fn probe_again(&self) {
        let found = self.probe().await.map(drop).map_err(|error| match error.kind {
            StoreErrorKind::Blocked(block) => ProbeFailure::Blocked(block),
            StoreErrorKind::Retry { after } => ProbeFailure::Unanswered { after },
            _ => ProbeFailure::Unanswered { after: None },
        });
        let mut state = self.state();
        state.queue.probed(found, self.deps.clock.tick());
        self.note_gate(&mut state);
    }

    async fn parcel(self: &Arc<Self>, item: &Item, attempt: u32) -> Result<UploadRequest, StoreError> {
        let id = &item.id;
        let gone = || StoreError::from(ContentError::Gone(self.deps.recordings.join(id.recording.as_str())));
        let (machine_id, known) = {
            let state = self.state();
            let recording = state.recordings.get(&id.recording).ok_or_else(gone)?;
            (recording.machine_id.clone(), recording.chunk(id.chunk).and_then(|chunk| chunk.digest))
        };
        let path = Folder::new(&self.deps.recordings, &id.recording).chunk(id.chunk);
        let digest = match known {
            Some(digest) => digest,
            None => hash_named(path.clone(), id.chunk).await?,
        };
        let key = ObjectKey::chunk(&machine_id, &id.recording, id.chunk);
        let large = self.large(id, item.size_bytes);
        let may_be_there = attempt > 1 || !item.is_fresh;
        Ok(UploadRequest { path, digest, key, size_bytes: item.size_bytes, may_be_there, large })
    }

    /// Tells who named a digest for a file that it does not have, where the file is sound: its bytes fit its name. The
    /// word is taken back, and the file goes up as one that no manifest names.
    fn was_misled(&self, item: &Item, error: &TransferError) -> Option<WrongDigestSource> {
        let TransferError::Store(StoreError { kind: StoreErrorKind::Content(content), .. }) = error else {
            return None;
        };
        let ContentError::Damaged { found, .. } = content else { return None };
        let mut misled = None;
        self.change(&item.id, |chunk| {
            if !chunk.name.fits(found) {
                return;
            }
            if chunk.facts.is_listed {
                chunk.contradict(Some(*found));
                misled = Some(WrongDigestSource::ByManifest);
            } else if chunk.facts.is_announced && chunk.refused_digest.is_none() {
                chunk.digest = None;
                chunk.facts.is_announced = false;
                misled = Some(WrongDigestSource::ByEvent);
            }
        });
        misled
    }

    /// Ends a try that a wrong digest misled; a file of which the right one is known by now is tried again.
    fn go_on_after(&self, item: &Item, misled: WrongDigestSource, error: TransferError) {
        if misled == WrongDigestSource::ByEvent {
            self.refuse(Refused::Mismatch);
        }
        let mut state = self.state();
        let (now, reason) = (self.deps.clock.tick(), error.to_string());
        state.queue.finish(&item.id, Outcome::Dead(reason), now, 0.0);
        state.queue.forget(&item.id);
        if misled == WrongDigestSource::ByManifest {
            state.queue.offer(item.clone());
            self.changed.notify_one();
        }
    }

    /// Lets a chunk rest whose recording is away as a whole: scans offer it again when it is back.
    async fn rests(self: &Arc<Self>, item: &Item, error: &TransferError) -> bool {
        let TransferError::Store(StoreError { kind: StoreErrorKind::Content(ContentError::Gone(_)), .. }) = error
        else {
            return false;
        };
        let (engine, name) = (Arc::clone(self), item.id.recording.clone());
        let is_away = spawn_blocking(move || engine.is_unseen(&name)).await.unwrap_or(false);
        if is_away {
            let mut state = self.state();
            state.queue.finish(&item.id, Outcome::Halted, self.deps.clock.tick(), 0.0);
            state.queue.forget(&item.id);
            state.note_done();
        }
        is_away
    }

    fn note_damage(&self, item: &Item, error: &TransferError) {
        let TransferError::Store(StoreError { kind: StoreErrorKind::Content(content), .. }) = error else { return };
        let local = match content {
            ContentError::Damaged { .. } | ContentError::Misnamed { .. } => ChunkLocal::Damaged,
            ContentError::Gone(_) => ChunkLocal::Missing,
            ContentError::Unreadable { .. } => return,
        };
        self.change(&item.id, |chunk| chunk.facts.local = local);
        if local == ChunkLocal::Missing
            && let Some(recording) = self.state().recording_mut(&item.id.recording)
        {
            // It may come back without a trace in its folder, as a disk does.
            recording.fingerprint = Fingerprint::default();
        }
    }
}

/// Hashes a chunk of which only the name is known; bytes that do not fit the name are damaged.
async fn hash_named(path: PathBuf, name: ChunkName) -> Result<Digest, StoreError> {
    let hashed = spawn_blocking(move || {
        let (found, size_bytes) = content::hash(&path)?;
        if name.fits(&found) { Ok(found) } else { Err(ContentError::Misnamed { path, size_bytes, found }) }
    });
    let ended = |error| StoreError::new(StoreErrorKind::Retry { after: None }, format!("hashing ended: {error}"));
    Ok(hashed.await.map_err(ended)??)
}
