//! Marks: what the store has counts once the journal tells it.
//!
//! The next chunk goes while a mark is written, and of one recording all that arrive meanwhile share the next write.

use std::{sync::Arc, time::Duration};

use bubbaloop_storage_schemas::{
    RecordingName, UnixNs,
    event::Fact,
    journal::{JournalEntry, JournalLine},
    keys::ObjectKey,
    reply::Proof,
};
use tokio::task::spawn_blocking;

use super::{Engine, State};
use crate::{
    engine::transfer::Proven,
    library::scan::{ChunkEntry, OwnLine, Recording},
    policy::{
        Tick,
        queue::{ChunkId, Item, Outcome},
    },
};

/// How long what arrived waits for what is still on its way: their marks share a write then, and a sync of the disk.
const GATHERING: Duration = Duration::from_millis(4);

/// A chunk that the store has.
#[derive(Debug)]
pub(super) struct StoredChunk {
    pub item: Item,
    pub proven: Proven,
    pub key: ObjectKey,
    /// When its bytes began to go.
    pub began: Tick,
}

/// Why a chunk that the store seems to hold does not count as uploaded.
const CLAIMED: &str = "the store seems to hold it and nothing proves that: give the node's key the right to read the \
                       object, or remove the object";

impl StoredChunk {
    fn outcome(&self) -> Outcome {
        // Trying again proves nothing until something changes, and may send the bytes each time.
        if self.proven.proof.is_proven() { Outcome::Settled } else { Outcome::Dead(CLAIMED.into()) }
    }

    fn is_key_of(&self, recording: &Recording) -> bool {
        ObjectKey::chunk(&recording.machine_id, &self.item.id.recording, self.item.id.chunk) == self.key
    }

    /// Tells whether nothing is new: that the store only claims to hold it is known.
    fn is_known_claim(&self, recording: Option<&Recording>) -> bool {
        let entry = recording.and_then(|recording| recording.chunk(self.item.id.chunk));
        !self.proven.proof.is_proven() && entry.is_some_and(|entry| entry.facts.proof == Some(Proof::Claimed))
    }

    fn entry(&self) -> JournalEntry {
        let Proven { digest, proof, etag, .. } = self.proven.clone();
        let Item { id, size_bytes, .. } = &self.item;
        let key = Some(self.key.to_string());
        JournalEntry::Uploaded { chunk: id.chunk, sha256: digest, size_bytes: *size_bytes, proof, etag, key }
    }
}

impl Engine {
    /// Takes in a chunk of an upload that the store has, and ends the upload with its mark. Who comes first of a recording
    /// writes for all that come until nobody does.
    pub(super) async fn land(self: &Arc<Self>, landed: StoredChunk) {
        let name = landed.item.id.recording.clone();
        {
            let mut state = self.state();
            state.queue.arrived(&landed.item.id);
            if let Some(waiting) = state.landing.get_mut(&name) {
                waiting.push(landed);
                return;
            }
            state.landing.insert(name.clone(), vec![landed]);
        }
        self.changed.notify_one();
        loop {
            if self.state().queue.is_sending() {
                tokio::time::sleep(GATHERING).await;
            }
            let (engine, of) = (Arc::clone(self), name.clone());
            match spawn_blocking(move || engine.mark_landed(&of)).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(recording = %name, %error, "writing marks ended abnormally: those chunks are sent again");
                    return self.give_back(&name);
                }
            }
        }
    }

    /// Lets what arrived of a recording and has no mark be sent again, which finds it at the store.
    fn give_back(&self, name: &RecordingName) {
        let mut state = self.state();
        state.landing.remove(name);
        let left: Vec<_> = state.queue.arrivals().filter(|id| id.recording == *name).cloned().collect();
        for id in left {
            self.finish_in(&mut state, &id, Outcome::Halted);
        }
    }

    /// Marks what has landed of a recording by now, and returns whether more landed meanwhile, which is the caller's to
    /// have marked.
    fn mark_landed(&self, name: &RecordingName) -> bool {
        let landed = self.state().landing.get_mut(name).map(std::mem::take).unwrap_or_default();
        let is_any_proven = self.mark_all(name, &landed);
        let mut state = self.state();
        for landed in &landed {
            self.finish_in(&mut state, &landed.item.id, landed.outcome());
        }
        // Behind the last of them: whether anything waits tells when the manifest is written.
        if is_any_proven {
            state.publisher.want(name, self.deps.clock.tick());
        }
        let has_more = state.landing.get(name).is_some_and(|landed| !landed.is_empty());
        if !has_more {
            state.landing.remove(name);
        }
        drop(state);
        self.changed.notify_one();
        has_more
    }

    /// Marks a chunk that is no upload's, and returns whether it is proven by that.
    pub(super) async fn settle(self: &Arc<Self>, landed: StoredChunk) -> bool {
        let engine = Arc::clone(self);
        let mark = move || engine.mark_all(&landed.item.id.recording, std::slice::from_ref(&landed));
        spawn_blocking(mark).await.unwrap_or_else(|error| {
            tracing::error!(%error, "writing a mark ended abnormally");
            false
        })
    }

    /// Writes marks of one recording to its journal, then takes them into the view and tells them. Returns whether any
    /// chunk is proven by it. It blocks.
    ///
    /// A disk that is full loses no upload: the marks stay in memory, and after a restart the chunks are found at the store.
    fn mark_all(&self, name: &RecordingName, landed: &[StoredChunk]) -> bool {
        let known = self.recording(name);
        let new: Vec<_> = landed.iter().filter(|landed| !landed.is_known_claim(known.as_deref())).collect();
        // Held on to, it would be copied at the first change.
        drop(known);
        if new.is_empty() {
            return false;
        }
        let at_ns = self.journal_all(name, new.iter().map(|landed| landed.entry()));
        let now = self.deps.clock.tick();
        let mut state = self.state();
        new.into_iter().filter(|landed| self.take_mark(&mut state, landed, at_ns, now)).count() > 0
    }

    /// Takes a written mark into the view, and returns whether the chunk is proven by it.
    fn take_mark(&self, state: &mut State, landed: &StoredChunk, at_ns: UnixNs, now: Tick) -> bool {
        let StoredChunk { item: Item { id, size_bytes, .. }, proven, began, .. } = landed;
        let Proven { digest, proof, etag, sent_bytes } = proven;
        let pass = state.pass;
        let Some(recording) = state.recording_mut(&id.recording) else { return false };
        if !landed.is_key_of(recording) {
            // Its manifest spells the machine in another way by now: under that key it goes up once more.
            return false;
        }
        let is_proven = proof.is_proven();
        recording.is_folded &= !is_proven;
        if let Some(chunk) = recording.chunk_mut(id.chunk) {
            chunk.digest = Some(*digest);
            chunk.seen_in_pass = pass;
            chunk.facts.proof = Some(*proof);
            chunk.marked_at_ns = is_proven.then_some(at_ns);
            chunk.etag = is_proven.then(|| etag.as_str().into());
        }
        if is_proven {
            state.note_sent(*sent_bytes, *began, now);
            let (recording, sha256, etag) = (id.recording.clone(), digest.to_string(), etag.clone());
            let (chunk, size_bytes, proof) = (id.chunk, *size_bytes, *proof);
            self.deps.facts.emit(Fact::ChunkUploaded { recording, chunk, size_bytes, sha256, proof, etag });
        }
        is_proven
    }

    /// Appends one fact to a recording's journal and returns its time. A journal that can't be written is told by
    /// `is_durable`.
    pub(super) fn journal(&self, recording: &RecordingName, entry: JournalEntry) -> UnixNs {
        self.journal_all(recording, [entry])
    }

    fn journal_all(&self, recording: &RecordingName, entries: impl IntoIterator<Item = JournalEntry>) -> UnixNs {
        let at_ns = self.deps.clock.wall();
        let line = |entry| JournalLine { at_ns, store_id: self.deps.store_id.clone(), entry };
        self.journals.append(recording, entries.into_iter().map(line));
        self.note_own_line(recording);
        at_ns
    }

    /// Takes in how a recording's folder looks after a line was written to its journal.
    pub(super) fn note_own_line(&self, recording: &RecordingName) {
        let seen = OwnLine::look(&self.deps.recordings, recording);
        if let Some(found) = self.state().recording_mut(recording) {
            found.fingerprint.note_own_line(seen);
        }
    }

    pub(super) fn change(&self, id: &ChunkId, change: impl FnOnce(&mut ChunkEntry)) {
        let mut state = self.state();
        if let Some(chunk) = state.recording_mut(&id.recording).and_then(|recording| recording.chunk_mut(id.chunk)) {
            change(chunk);
        }
    }
}
