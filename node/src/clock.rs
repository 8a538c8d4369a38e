//! The one room where time is read.

use std::{
    fmt::Debug,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bubbaloop_storage_schemas::UnixNs;

use crate::policy::Tick;

/// Tells the time, for waiting and for the record.
pub trait Clock: Debug + Send + Sync {
    /// Returns the monotonic time since some start.
    fn tick(&self) -> Tick;

    /// Returns the wall time. It may jump; zero when it is before 1970.
    fn wall(&self) -> UnixNs;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// Starts counting ticks.
    #[expect(clippy::disallowed_methods, reason = "this is the room")]
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the room")]
    fn tick(&self) -> Tick {
        Tick(Instant::now().duration_since(self.0))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the room")]
    fn wall(&self) -> UnixNs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
