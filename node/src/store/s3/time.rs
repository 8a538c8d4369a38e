//! The time that requests are signed with: this machine's, corrected where the store is known to see another one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_smithy_async::time::TimeSource;

use super::errors::Failure;
use crate::clock::Clock;

/// How far a store's `Date` may be from the signing time before that is taken for the reason of a refusal. S3 itself
/// allows 15 minutes; others allow less.
const SKEW_MAX_S: i64 = 5 * 60;

/// Stands for an offset that is not known.
const UNKNOWN: i64 = i64::MIN;

/// This machine's clock as the store needs to see it. Cloning it is cheap and shares what was learned.
#[derive(Debug, Clone)]
pub(super) struct StoreTime {
    clock: Arc<dyn Clock>,
    /// What is added when signing. Learned only from refusals: any portal's answer has a `Date` too.
    correction_s: Arc<AtomicI64>,
    /// The last `Date` minus our ticks at that moment: so our wall clock may jump meanwhile.
    date_at_tick_0_ms: Arc<AtomicI64>,
}

impl StoreTime {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, correction_s: Arc::default(), date_at_tick_0_ms: Arc::new(AtomicI64::new(UNKNOWN)) }
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.clock.wall())
    }

    /// Takes in the `Date` of an answer.
    pub(super) fn note(&self, date_s: i64) {
        // A `Date` has whole seconds, cut off: half a second is the middle of what it may mean.
        let theirs_ms = date_s.saturating_mul(1000).saturating_add(500);
        self.date_at_tick_0_ms.store(theirs_ms.saturating_sub(self.tick_ms()), Ordering::Relaxed);
    }

    fn tick_ms(&self) -> i64 {
        i64::try_from(self.clock.tick().0.as_millis()).unwrap_or(i64::MAX)
    }

    /// Returns the store's clock minus ours now, in milliseconds, by its last answer, to within a second.
    pub(super) fn offset_ms(&self) -> Option<i64> {
        let then_ms = Some(self.date_at_tick_0_ms.load(Ordering::Relaxed)).filter(|then_ms| *then_ms != UNKNOWN)?;
        let ours_ms = i64::try_from(self.clock.wall() / 1_000_000).unwrap_or(i64::MAX);
        Some(then_ms.saturating_add(self.tick_ms()).saturating_sub(ours_ms))
    }

    /// Returns what is added to the clock when signing now.
    pub(super) fn correction_s(&self) -> i64 {
        self.correction_s.load(Ordering::Relaxed)
    }

    /// Tells whether a refusal may come from the time that the request was signed with, and takes up the store's.
    /// `used_s` is the correction that the request was made with: requests on their way together learn it once.
    pub(super) fn correct(&self, used_s: i64, failure: &Failure) -> bool {
        let Some(date_s) = failure.date_s.filter(|_| matches!(failure.status, Some(400 | 403))) else { return false };
        let offset_s = date_s.saturating_sub(seconds(self.wall()));
        let is_off = offset_s.saturating_sub(used_s).abs() > SKEW_MAX_S;
        if is_off {
            self.correction_s.store(offset_s, Ordering::Relaxed);
        }
        is_off
    }

    /// Takes a correction back that did not help.
    pub(super) fn forget(&self) {
        self.correction_s.store(0, Ordering::Relaxed);
    }
}

impl TimeSource for StoreTime {
    fn now(&self) -> SystemTime {
        let wall = self.wall();
        let correction = self.correction_s();
        let by = Duration::from_secs(correction.unsigned_abs());
        let corrected = if correction < 0 { wall.checked_sub(by) } else { wall.checked_add(by) };
        corrected.unwrap_or(wall)
    }
}

/// Returns a wall time in whole seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Tick;

    #[derive(Debug)]
    struct Stopped(u64);

    impl Clock for Stopped {
        fn tick(&self) -> Tick {
            Tick::default()
        }

        fn wall(&self) -> u64 {
            self.0 * 1_000_000_000
        }
    }

    fn refused(date_s: i64) -> Failure {
        Failure { status: Some(403), date_s: Some(date_s), ..Failure::default() }
    }

    #[test]
    fn a_refusal_by_a_store_of_another_time_corrects_ours_once() {
        for date_s in [6_400, 13_600] {
            let time = StoreTime::new(Arc::new(Stopped(10_000)));
            assert!(time.correct(0, &refused(date_s)));
            assert_eq!(seconds(time.now()), date_s);
            assert!(!time.correct(time.correction_s(), &refused(date_s)), "the store's own time was used");
            assert!(time.correct(0, &refused(date_s)), "one that was on its way is tried again too");
            time.forget();
            assert_eq!(seconds(time.now()), 10_000);
        }
    }

    #[test]
    fn nothing_else_corrects_the_time() {
        let time = StoreTime::new(Arc::new(Stopped(10_000)));
        for failure in [
            refused(10_300),
            refused(9_700),
            Failure { date_s: None, ..refused(0) },
            Failure { status: Some(500), ..refused(0) },
            Failure { status: Some(200), ..refused(0) },
        ] {
            assert!(!time.correct(0, &failure), "{failure:?}");
        }
        assert_eq!(time.correction_s(), 0);
    }

    #[test]
    fn the_offset_is_the_stores_clock_minus_ours() {
        let time = StoreTime::new(Arc::new(Stopped(10_000)));
        assert_eq!(time.offset_ms(), None);
        time.note(9_990);
        assert_eq!(time.offset_ms(), Some(-9_500));
    }

    /// A clock that can be set.
    #[derive(Debug, Default)]
    struct Settable {
        wall_s: AtomicI64,
        tick_s: AtomicI64,
    }

    impl Clock for Settable {
        fn tick(&self) -> Tick {
            Tick(Duration::from_secs(self.tick_s.load(Ordering::Relaxed).unsigned_abs()))
        }

        fn wall(&self) -> u64 {
            self.wall_s.load(Ordering::Relaxed).unsigned_abs() * 1_000_000_000
        }
    }

    #[test]
    fn a_clock_that_is_set_meanwhile_shows_in_the_offset_at_once() {
        let clock = Arc::new(Settable::default());
        clock.wall_s.store(10_000, Ordering::Relaxed);
        let time = StoreTime::new(Arc::clone(&clock) as Arc<dyn Clock>);
        time.note(10_000);
        assert_eq!(time.offset_ms(), Some(500));
        clock.wall_s.store(13_605, Ordering::Relaxed);
        clock.tick_s.store(5, Ordering::Relaxed);
        assert_eq!(time.offset_ms(), Some(500 - 3_600_000));
    }
}
