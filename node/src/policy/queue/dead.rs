//! The chunks that were given up, with the time at which each is tried again.

use std::collections::{BTreeMap, BTreeSet};

use bubbaloop_storage_schemas::RecordingName;

use super::types::{ChunkId, DeadLetter};
use crate::policy::Tick;

/// The dead letters. The next retry is found without a walk over all of them.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    letters: BTreeMap<ChunkId, DeadLetter>,
    retries: BTreeSet<(Tick, ChunkId)>,
}

impl DeadLetters {
    pub(super) fn get(&self, id: &ChunkId) -> Option<&DeadLetter> {
        self.letters.get(id)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &DeadLetter> {
        self.letters.values()
    }

    /// Returns the chunks of a recording.
    pub(super) fn ids_of(&self, recording: &RecordingName) -> Vec<ChunkId> {
        let from = self.letters.range(ChunkId::first_of(recording)..);
        from.map(|(id, _)| id).take_while(|id| id.recording == *recording).cloned().collect()
    }

    pub(super) fn insert(&mut self, letter: DeadLetter) {
        self.remove(&letter.item.id);
        self.retries.insert((letter.retry_at, letter.item.id.clone()));
        self.letters.insert(letter.item.id.clone(), letter);
    }

    pub(super) fn remove(&mut self, id: &ChunkId) -> Option<DeadLetter> {
        let letter = self.letters.remove(id)?;
        self.retries.remove(&(letter.retry_at, id.clone()));
        Some(letter)
    }

    /// Returns when the next one is tried again.
    pub(super) fn next_retry_at(&self) -> Option<Tick> {
        self.retries.first().map(|(retry_at, _)| *retry_at)
    }

    /// Removes and returns one that is due; `None` if none is.
    pub(super) fn pop_due(&mut self, now: Tick) -> Option<DeadLetter> {
        let (retry_at, id) = self.retries.first()?;
        if *retry_at > now {
            return None;
        }
        let id = id.clone();
        self.remove(&id)
    }
}
