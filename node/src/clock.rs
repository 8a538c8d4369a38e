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

    /// Returns how many seconds of the day have passed where the machine stands; in UTC where that is not known.
    fn second_of_day(&self) -> u32 {
        u32::try_from(self.wall() / 1_000_000_000 % (24 * 3600)).unwrap_or(0)
    }
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

    fn second_of_day(&self) -> u32 {
        let now = jiff::Timestamp::from_nanosecond(self.wall().into()).unwrap_or_default();
        let time = jiff::tz::TimeZone::system().to_datetime(now).time();
        let parts = [(time.hour(), 3600), (time.minute(), 60), (time.second(), 1)];
        parts.into_iter().map(|(part, seconds)| u32::try_from(part).unwrap_or(0) * seconds).sum()
    }
}
