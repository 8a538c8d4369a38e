//! Decides. Pure: no async, no I/O, no clock; whoever asks tells the time.

use std::time::Duration;

pub mod adopt;
pub mod backoff;
pub mod early;
pub mod fetch;
pub mod intake;
pub mod listing;
pub mod manifest;
pub mod pace;
pub mod parts;
pub mod publish;
pub mod queue;
pub mod rate;
pub mod reconcile;
pub mod recording;
pub mod removal;
pub mod retention;
pub mod window;

/// Monotonic time since some start, for waiting. Never mixed with wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(pub Duration);

impl Tick {
    /// Returns the tick `delay` later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay))
    }

    /// Returns how long it was since `earlier`; zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
