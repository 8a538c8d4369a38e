//! What the queue remembers of one chunk, and the position that follows from it.

use std::time::Duration;

use bubbaloop_storage_schemas::UnixNs;

use super::types::{ChunkId, Item, Order};
use crate::policy::Tick;

/// A chunk that waits or is in flight.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub item: Item,
    /// A person asked for it.
    pub is_urgent: bool,
    /// Counts the tries that have begun.
    pub attempts: u32,
    /// Parts of it arrived in the current try.
    pub has_progressed: bool,
    /// All of it arrived in the current try, and only its mark is still to be written.
    pub has_arrived: bool,
    /// The gate's era in which the current try began: the failure of an older try says nothing about the gate.
    pub era: u64,
    /// In a box, because few of many thousand chunks have any.
    pub failures: Option<Box<Failures>>,
}

/// How a chunk has failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures {
    /// The value of [`StoreRecord::served`](super::record::StoreRecord::served) at its first failure.
    pub failing_since: Option<Duration>,
    /// How many chunks had been uploaded at its last failure.
    pub failed_after: Option<u64>,
    /// How often it failed while others were uploaded: that is its own fault and not the store's.
    pub strikes: u32,
    /// Why its file could not be read in the last try.
    pub unreadable: Option<String>,
    /// Since when its file could not be read.
    pub unreadable_since: Option<Tick>,
    /// It is not tried before this time, although others are.
    pub delayed_until: Option<Tick>,
}

impl Entry {
    /// Makes the entry of a chunk that was never tried.
    pub(super) const fn new(item: Item) -> Self {
        Self { item, is_urgent: false, attempts: 0, has_progressed: false, has_arrived: false, era: 0, failures: None }
    }

    /// Begins the next try.
    pub(super) fn begin(&mut self, era: u64) {
        (self.era, self.has_progressed, self.has_arrived) = (era, false, false);
        self.clear_unreadable();
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Returns its failures, to be changed.
    pub(super) fn failures_mut(&mut self) -> &mut Failures {
        self.failures.get_or_insert_default()
    }

    /// Returns why its file could not be read in the last try.
    pub(super) fn unreadable(&self) -> Option<&str> {
        self.failures.as_ref()?.unreadable.as_deref()
    }

    /// Forgets why its file could not be read, and keeps since when.
    pub(super) fn clear_unreadable(&mut self) {
        if let Some(failures) = &mut self.failures {
            failures.unreadable = None;
        }
    }

    /// Notes that its file could be read.
    pub(super) fn was_read(&mut self) {
        if let Some(failures) = &mut self.failures {
            failures.unreadable_since = None;
        }
    }

    /// Returns the time before which it is not tried.
    pub(super) fn delayed_until(&self) -> Option<Tick> {
        self.failures.as_ref()?.delayed_until
    }

    /// Ends its delay, if it has one.
    pub(super) fn end_delay(&mut self) {
        if let Some(failures) = &mut self.failures {
            failures.delayed_until = None;
        }
    }

    /// Returns its position among those that wait.
    pub(super) fn position(&self, order: Order) -> Position {
        let Item { finalized_at_ns, rank, .. } = self.item;
        let age = match order {
            Order::Oldest => finalized_at_ns,
            Order::Newest => UnixNs::MAX - finalized_at_ns,
        };
        Position { is_not_urgent: !self.is_urgent, attempts: self.attempts, rank, age, id: self.item.id.clone() }
    }
}

/// The order of waiting: urgent ones first, then those with fewer attempts, then by rank, then by age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub is_not_urgent: bool,
    pub attempts: u32,
    pub rank: u32,
    /// Nanoseconds since 1970, or counted down from the largest value if the newest chunk goes first.
    pub age: UnixNs,
    pub id: ChunkId,
}
