//! What the queue remembers of a chunk, and where that puts it among the others.

use std::time::Duration;

use bubbaloop_storage_schemas::UnixNs;

use super::types::{ChunkId, Item};
use crate::policy::Tick;

/// How a chunk has fared.
#[derive(Debug, Clone)]
pub(super) struct Try {
    pub item: Item,
    /// A person asked for it.
    pub is_urgent: bool,
    pub attempts: u32,
    /// Parts of it arrived in the running try.
    pub has_progressed: bool,
    /// All of it did in the running try, and only its mark is to be written.
    pub has_arrived: bool,
    /// The gate's era in which the running try began: an older try's failure says nothing of the gate now.
    pub era: u64,
    /// Apart, for few of many thousand chunks have any.
    pub trouble: Option<Box<Trouble>>,
}

/// How a chunk has failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    /// What [`Queue::served`](super::Queue::served) was at its first failure.
    pub failing_since: Option<Duration>,
    /// How many chunks had gone up when it failed last.
    pub failed_after: Option<u64>,
    /// How often it failed while others went up: that is its own fault and not the store's.
    pub strikes: u32,
    /// Why its file could not be read at the last try.
    pub unreadable: Option<String>,
    /// When that began.
    pub unreadable_since: Option<Tick>,
}

impl Try {
    pub const fn first(item: Item) -> Self {
        Self { item, is_urgent: false, attempts: 0, has_progressed: false, has_arrived: false, era: 0, trouble: None }
    }

    /// Begins the next try.
    pub fn begin(&mut self, era: u64) {
        (self.era, self.has_progressed, self.has_arrived) = (era, false, false);
        self.forget_reading();
        self.attempts = self.attempts.saturating_add(1);
    }

    pub fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    /// Returns why its file could not be read at the last try.
    pub fn unreadable(&self) -> Option<&str> {
        self.trouble.as_ref()?.unreadable.as_deref()
    }

    /// Forgets why its file could not be read; it still counts how long that lasts.
    pub fn forget_reading(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.unreadable = None;
        }
    }

    /// Takes in that its file could be read.
    pub fn was_read(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.unreadable_since = None;
        }
    }
}

/// The order of waiting: who was asked for by a person, then who failed least, then by rank, then by age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub is_not_urgent: bool,
    pub attempts: u32,
    pub rank: u32,
    /// Since 1970, or counted down from the end of time where the newest goes first.
    pub age: UnixNs,
    pub id: ChunkId,
}
