//! What the queue knows about how the store has served uploads.

use std::time::Duration;

use crate::policy::Tick;

/// The most that one success adds to the time in which the store is known to serve.
const SERVED_STEP_MAX: Duration = Duration::from_secs(60);

/// Unreadable local files in a row from which on the machine is at fault and not the files: then one chunk at a time is
/// tried, as if the store failed.
const UNREADABLE_MAX: u32 = 8;

/// Successes, and failures to read local files between them.
#[derive(Debug, Default)]
pub(super) struct StoreRecord {
    successes: u64,
    served: Duration,
    last_success: Option<Tick>,
    unreadable_in_a_row: u32,
}

impl StoreRecord {
    /// Returns how many requests succeeded.
    pub(super) const fn successes(&self) -> u64 {
        self.successes
    }

    /// Returns for how long the store was seen to serve. An outage does not count.
    pub(super) const fn served(&self) -> Duration {
        self.served
    }

    /// Notes a success.
    pub(super) fn succeeded(&mut self, now: Tick) {
        self.successes += 1;
        self.unreadable_in_a_row = 0;
        if let Some(last) = self.last_success.replace(now) {
            self.served += now.since(last).min(SERVED_STEP_MAX);
        }
    }

    /// Notes that a local file could not be read. Returns whether the machine is at fault.
    pub(super) const fn could_not_read(&mut self) -> bool {
        self.unreadable_in_a_row = self.unreadable_in_a_row.saturating_add(1);
        self.unreadable_in_a_row > UNREADABLE_MAX
    }
}
