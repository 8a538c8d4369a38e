//! Uploads that were given up: written down, so that a restart knows them, and taken back when a file changes.

use std::sync::{Arc, PoisonError};

use bubbaloop_storage_schemas::reply::ChunkLocal;
use tokio::task::JoinSet;

use super::{Engine, State};
use crate::{
    library::{
        dead_letters::{self, DeadLetterRecord, FileSeen},
        scan::ChunkEntry,
    },
    policy::queue::{self, ChunkId, DeadLetter, Item, Stage},
};

impl State {
    /// Takes down or takes back what became of a chunk.
    pub(super) fn note_letter(&mut self, id: &ChunkId, store_id: &str, at_ns: u64) {
        let dead = self.queue.dead_letter(id).cloned();
        let recording = self.recordings.get(&id.recording);
        let chunk = recording.and_then(|recording| recording.chunk(id.chunk));
        match (dead, chunk) {
            (Some(DeadLetter { reason, attempts, .. }), Some(chunk)) => {
                let letter = DeadLetterRecord {
                    recording: id.recording.clone(),
                    chunk: id.chunk,
                    store_id: store_id.to_owned(),
                    reason,
                    attempts,
                    last_tried_at_ns: at_ns,
                    is_damaged: chunk.facts.local == ChunkLocal::Damaged,
                    file: FileSeen::of(chunk),
                };
                self.letters.insert(id.clone(), letter);
                self.are_letters_changed = true;
            }
            (Some(_), None) | (None, _) => {
                let is_settled = self.queue.stage(id).is_none();
                self.are_letters_changed |= is_settled && self.letters.remove(id).is_some();
            }
        }
    }

    /// Tells whether a chunk was given up as it is now. One whose file or digest changed is worth another try.
    pub(super) fn is_given_up(&mut self, id: &ChunkId, chunk: &ChunkEntry) -> bool {
        let Some(letter) = self.letters.get(id) else { return false };
        if letter.file == FileSeen::of(chunk) {
            return true;
        }
        if matches!(self.queue.stage(id), Some(Stage::Dead(_))) {
            self.queue.forget(id);
        }
        self.letters.remove(id);
        self.are_letters_changed = true;
        false
    }
}

impl Engine {
    /// Takes in what an earlier run gave up.
    pub fn restore_letters(&self) {
        let letters = dead_letters::load(&self.deps.dead_letters, &self.deps.settings);
        let ours = letters.into_iter().filter(|letter| letter.store_id == self.deps.store_id);
        let mut state = self.state();
        for letter in ours {
            state.letters.insert(ChunkId { recording: letter.recording.clone(), chunk: letter.chunk }, letter);
        }
    }

    /// Puts a chunk that an earlier run gave up where it was, with what is left of its day.
    pub(super) fn restore_letter(&self, state: &mut State, item: Item) {
        let Some(letter) = state.letters.get(&item.id).cloned() else { return };
        // A clock that was set back makes the day no longer than a day.
        let passed = self.deps.clock.wall().saturating_sub(letter.last_tried_at_ns);
        let left = queue::DEAD_LETTER_RETRY.saturating_sub(std::time::Duration::from_nanos(passed));
        let (id, retry_at) = (item.id.clone(), self.deps.clock.tick().after(left));
        state.queue.restore(DeadLetter { item, reason: letter.reason, attempts: letter.attempts, retry_at });
        if !letter.is_damaged {
            return;
        }
        if let Some(chunk) = state.recording_mut(&id.recording).and_then(|recording| recording.chunk_mut(id.chunk)) {
            chunk.facts.local = ChunkLocal::Damaged;
        }
    }

    /// Writes the letters down if they changed.
    pub(super) fn save_letters(&self) {
        let _one_writer = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let letters = {
            let mut state = self.state();
            if !std::mem::take(&mut state.are_letters_changed) {
                return;
            }
            state.letters.clone()
        };
        if let Err(error) = dead_letters::save(&self.deps.dead_letters, &self.deps.settings, letters.values()) {
            tracing::warn!(%error, "the dead letters can't be written: after a restart those chunks are tried again");
        }
    }

    /// Writes the letters down without holding up the loop.
    pub(super) fn save_letters_later(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        if self.state().are_letters_changed {
            let engine = Arc::clone(self);
            tasks.spawn_blocking(move || engine.save_letters());
        }
    }
}
