//! The chunks that wait: in their order, or each until a time of its own.

use std::collections::{BTreeMap, BTreeSet};

use bubbaloop_storage_schemas::RecordingName;

use super::{
    entry::{Entry, Position},
    types::{ChunkId, Item, Order},
};
use crate::policy::Tick;

/// The chunks that wait. Each is either in order or delayed.
#[derive(Debug)]
pub(super) struct Waiting {
    order: Order,
    entries: BTreeMap<ChunkId, Entry>,
    positions: BTreeSet<Position>,
    pub delayed: BTreeSet<(Tick, ChunkId)>,
}

impl Waiting {
    pub(super) const fn new(order: Order) -> Self {
        Self { order, entries: BTreeMap::new(), positions: BTreeSet::new(), delayed: BTreeSet::new() }
    }

    /// Returns how many chunks wait, the delayed ones included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, id: &ChunkId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Returns the chunks of a recording.
    pub(super) fn ids_of(&self, recording: &RecordingName) -> Vec<ChunkId> {
        let from = self.entries.range(ChunkId::first_of(recording)..);
        from.map(|(id, _)| id).take_while(|id| id.recording == *recording).cloned().collect()
    }

    /// Returns the positions of those in order, the first one first.
    pub(super) fn positions(&self) -> impl DoubleEndedIterator<Item = &Position> {
        self.positions.iter()
    }

    /// Returns when the next delay ends.
    pub(super) fn next_delay_end(&self) -> Option<Tick> {
        self.delayed.first().map(|(until, _)| *until)
    }

    /// Returns the position that an entry would have.
    pub(super) fn position_of(&self, entry: &Entry) -> Position {
        entry.position(self.order)
    }

    /// Adds a chunk: in order, or delayed if it has a delay.
    pub(super) fn insert(&mut self, entry: Entry) {
        match entry.delayed_until() {
            Some(until) => drop(self.delayed.insert((until, entry.item.id.clone()))),
            None => drop(self.positions.insert(entry.position(self.order))),
        }
        self.entries.insert(entry.item.id.clone(), entry);
    }

    /// Removes a chunk and returns it, without a delay.
    pub(super) fn remove(&mut self, id: &ChunkId) -> Option<Entry> {
        let mut entry = self.entries.remove(id)?;
        match entry.delayed_until() {
            Some(until) => drop(self.delayed.remove(&(until, id.clone()))),
            None => drop(self.positions.remove(&entry.position(self.order))),
        }
        entry.end_delay();
        Some(entry)
    }

    /// Puts the chunks whose delay has ended in order.
    pub(super) fn end_delays(&mut self, now: Tick) {
        while self.next_delay_end().is_some_and(|until| until <= now)
            && let Some((_, id)) = self.delayed.pop_first()
        {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.end_delay();
                self.positions.insert(entry.position(self.order));
            }
        }
    }

    /// Changes the order and the items, and puts all in order anew.
    pub(super) fn rearrange(&mut self, order: Order, change: impl Fn(&mut Item)) {
        self.order = order;
        self.entries.values_mut().for_each(|entry| change(&mut entry.item));
        let in_order = self.entries.values().filter(|entry| entry.delayed_until().is_none());
        self.positions = in_order.map(|entry| entry.position(order)).collect();
    }
}
