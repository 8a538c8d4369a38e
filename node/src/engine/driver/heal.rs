//! What reconcile changes of the shared state, each step idempotent and journaled before it is seen.

use std::sync::Arc;

use bubbaloop_storage_schemas::{
    Digest, RecordingName,
    journal::JournalEntry,
    keys::ObjectKey,
    manifest::Manifest,
    reply::{ChunkLocal, Probe, Proof},
};
use tokio::{sync::futures::Notified, task::spawn_blocking};

use super::{Deps, Engine, State, marks::StoredChunk, publish};
use crate::{
    engine::transfer::Proven,
    library::scan::Recording,
    policy::{
        fetch,
        queue::{ChunkId, Stage},
        recording::ManifestFacts,
    },
};

/// How a recording's remote manifest stands by what the journal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestDue {
    /// None of ours is readable here, so there is nothing to write.
    Nothing,
    /// It says what it should.
    No,
    /// It is to say something else.
    Yes,
}

impl Engine {
    /// Returns what it works with.
    pub(in crate::engine) const fn parts(&self) -> &Deps {
        &self.deps
    }

    /// Returns what the store was found to do; where that is not known yet, it is found out unless `is_quiet`.
    pub(in crate::engine) async fn known_probe(&self, is_quiet: bool) -> Option<Probe> {
        let known = self.state().probe;
        if known.is_some() || is_quiet {
            return known;
        }
        // What is wrong with the store is told by the requests that follow.
        self.probe().await.ok()
    }

    /// Takes in how a chunk's file was found to be.
    pub(in crate::engine) fn note_local(&self, id: &ChunkId, local: ChunkLocal) {
        self.change(id, |chunk| chunk.facts.local = local);
    }

    /// Takes in that a chunk's bytes have a digest that fits its name and is not its manifest's.
    pub(in crate::engine) fn note_contradiction(&self, id: &ChunkId, found: Digest) {
        self.change(id, |chunk| {
            if chunk.facts.is_listed {
                chunk.contradict(Some(found));
            }
        });
    }

    /// Marks a chunk as proven and ends its dead letter.
    pub(in crate::engine) async fn mark(self: &Arc<Self>, id: &ChunkId, proven: Proven, key: ObjectKey) {
        let item = {
            let state = self.state();
            let chunk = state.recordings.get(&id.recording).and_then(|recording| recording.chunk(id.chunk));
            chunk.map(|chunk| {
                let is_proven = chunk.facts.proof.is_some_and(Proof::is_proven);
                (self.item(&id.recording, chunk, 0), is_proven && chunk.etag.as_deref() == Some(&*proven.etag))
            })
        };
        let Some((item, is_marked)) = item else { return };
        // The queue may have sent it since the evidence was gathered.
        let is_new = !is_marked && self.settle(StoredChunk { item, proven, key, began: self.deps.clock.tick() }).await;
        let mut state = self.state();
        state.queue.forget(id);
        // Behind that: whether anything waits tells when the manifest is written.
        if is_new {
            state.publisher.want(&id.recording, self.deps.clock.tick());
            self.changed.notify_one();
        }
        state.are_letters_changed |= state.letters.remove(id).is_some();
        state.note_done();
    }

    /// Takes a chunk's mark back.
    pub(in crate::engine) async fn unmark(self: &Arc<Self>, id: ChunkId, key: ObjectKey) {
        let engine = Arc::clone(self);
        let taken = spawn_blocking(move || engine.take_back(&id, &key)).await;
        if let Err(error) = taken {
            tracing::error!(%error, "taking back a mark ended abnormally");
        }
    }

    /// Forgets that chunks were given up, so that they are tried as if for the first time.
    pub(in crate::engine) fn clear_failure<'a>(&self, ids: impl Iterator<Item = &'a ChunkId>) {
        let mut guard = self.state();
        let State { queue, recordings, letters, are_letters_changed, .. } = &mut *guard;
        for id in ids {
            let is_damaged = |recording: &Recording| {
                recording.chunk(id.chunk).is_some_and(|chunk| chunk.facts.local == ChunkLocal::Damaged)
            };
            let recording = recordings.get_mut(&id.recording).filter(|recording| is_damaged(recording));
            if let Some(chunk) = recording.and_then(|recording| Arc::make_mut(recording).chunk_mut(id.chunk)) {
                chunk.facts.local = ChunkLocal::Present;
            }
            *are_letters_changed |= letters.remove(id).is_some();
            if matches!(queue.stage(id), Some(Stage::Dead(_))) || queue.unreadable(id).is_some() {
                queue.forget(id);
            }
        }
    }

    /// Puts chunks of a recording into the queue, before others. What it has no room for is to be handed in again.
    pub(in crate::engine) fn enqueue_first<'a>(
        &self,
        recording: &RecordingName,
        ids: impl Iterator<Item = &'a ChunkId>,
    ) {
        let mut guard = self.state();
        let State { queue, recordings, .. } = &mut *guard;
        let Some(found) = recordings.get(recording).filter(|found| !found.is_withdrawn()) else { return };
        let mut is_new = false;
        for chunk in ids.filter_map(|id| found.chunk(id.chunk)) {
            let item = self.item(recording, chunk, 0);
            if queue.stage(&item.id).is_none() {
                queue.offer(item);
                is_new = true;
            }
        }
        if is_new {
            queue.prioritize(recording);
            self.changed.notify_one();
        }
    }

    /// Notes that nothing here can heal a recording, for this reason; without one, that it is healed.
    pub(in crate::engine) async fn note_corrupt(self: &Arc<Self>, name: &RecordingName, reason: Option<String>) {
        let (engine, name) = (Arc::clone(self), name.clone());
        let noted = spawn_blocking(move || {
            let is_corrupt = reason.is_some();
            let entry = reason.map_or(JournalEntry::Healed, |reason| JournalEntry::Corrupt { reason });
            let at_ns = engine.journal(&name, entry);
            if let Some(recording) = engine.state().recording_mut(&name) {
                (recording.is_corrupt, recording.corrupt_noted_at_ns) = (is_corrupt, Some(at_ns));
            }
        });
        if let Err(error) = noted.await {
            tracing::error!(%error, "noting what is corrupt ended abnormally");
        }
    }

    /// Returns how many chunks may be on their way at once.
    pub(in crate::engine) fn concurrency(&self) -> usize {
        self.state().queue.concurrency()
    }

    /// Writes down that a chunk is fetched because a person wants it here, before it has its name. It blocks.
    pub(in crate::engine) fn note_restored(&self, id: &ChunkId) {
        let at_ns = self.journal(&id.recording, JournalEntry::Restored { chunk: id.chunk });
        self.change(id, |chunk| chunk.pinned_until_ns = Some(fetch::pinned_until_ns(at_ns)));
    }

    /// Tells how a recording's remote manifest stands by what the journal says. It takes long of a large one.
    pub(in crate::engine) fn manifest_due(&self, recording: &Recording, local: Manifest) -> ManifestDue {
        if !matches!(recording.manifest, ManifestFacts::Readable { is_ours: true, .. }) {
            return ManifestDue::Nothing;
        }
        let is_due = publish::is_due(recording, local, self.deps.facts.library_id());
        if is_due { ManifestDue::Yes } else { ManifestDue::No }
    }

    /// Wants a recording's remote manifest written. `is_gone` tells that the one that was written does not stand there.
    pub(in crate::engine) fn want_manifest(&self, name: &RecordingName, is_gone: bool) {
        let now = self.deps.clock.tick();
        let mut state = self.state();
        if is_gone && let Some(recording) = state.recording_mut(name) {
            recording.published = None;
        }
        state.publisher.want(name, now);
        drop(state);
        self.changed.notify_one();
    }

    /// Tells how often the wanted manifest of a recording could not be written; `None` where none is wanted.
    pub(in crate::engine) fn manifest_failures(&self, name: &RecordingName) -> Option<u32> {
        self.state().publisher.failures(name)
    }

    /// Returns what ends when the next writing of a manifest does.
    pub(in crate::engine) fn manifest_told(&self) -> Notified<'_> {
        self.published.notified()
    }
}
