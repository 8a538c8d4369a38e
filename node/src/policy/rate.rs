//! How fast bytes go up, how fast they may, and how fast the disk fills.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::Tick;

/// What the upload rate is taken over.
const UPLOAD_WINDOW: Duration = Duration::from_secs(60);

/// What the disk's filling is taken over.
const DISK_WINDOW: Duration = Duration::from_secs(600);

/// Between two samples of the disk that are kept.
const DISK_STEP: Duration = Duration::from_secs(10);

/// Below this nothing is said of the disk: one chunk more or less would decide.
const DISK_WINDOW_MIN: Duration = Duration::from_secs(30);

/// Bytes over the last minute.
#[derive(Debug, Default)]
pub struct Throughput {
    /// Per second, so that its size is bounded.
    seconds: BTreeMap<u64, u64>,
}

impl Throughput {
    /// Adds bytes of this instant.
    pub fn add(&mut self, bytes: u64, now: Tick) {
        self.add_over(bytes, now, now);
    }

    /// Adds bytes that came evenly since `began`. What of them came before the last minute does not count.
    pub fn add_over(&mut self, bytes: u64, began: Tick, now: Tick) {
        self.expire(now);
        let (first, last) = (began.0.as_secs().min(now.0.as_secs()), now.0.as_secs());
        let each = bytes / (last - first + 1);
        for second in first.max(Self::oldest(now))..last {
            *self.seconds.entry(second).or_default() += each;
        }
        *self.seconds.entry(last).or_default() += bytes - each * (last - first);
    }

    fn oldest(now: Tick) -> u64 {
        now.0.saturating_sub(UPLOAD_WINDOW).as_secs()
    }

    /// Returns the mean since the first bytes of the last minute; zero without any.
    pub fn bytes_per_s(&mut self, now: Tick) -> u64 {
        self.expire(now);
        let Some((first, _)) = self.seconds.first_key_value() else { return 0 };
        let lasted = now.0.as_secs().saturating_sub(*first) + 1;
        self.seconds.values().sum::<u64>() / lasted
    }

    fn expire(&mut self, now: Tick) {
        let oldest = Self::oldest(now);
        while self.seconds.first_key_value().is_some_and(|(second, _)| *second < oldest) {
            self.seconds.pop_first();
        }
    }
}

/// Pieces of a second in which a limited link is given bytes: smaller ones cost, larger ones come in bursts.
const PIECES_PER_S: u64 = 4;

/// Smallest piece that is given to a limited link.
const PIECE_BYTES_MIN: u64 = 1024;

/// A limit to the bytes of a second. A reservation is for later where the link is busy until then.
#[derive(Debug, Default)]
pub struct Bucket {
    /// `None` without a limit.
    bytes_per_s: Option<u64>,
    free_at: Tick,
}

impl Bucket {
    /// Changes the limit; what was reserved stays so.
    pub fn set(&mut self, bytes_per_s: Option<u64>, now: Tick) {
        if bytes_per_s.is_none() || self.bytes_per_s.is_none() {
            self.free_at = now;
        }
        self.bytes_per_s = bytes_per_s.map(|bytes| bytes.max(1));
    }

    /// Returns how many bytes go at a time; `None` without a limit.
    pub fn piece_bytes(&self) -> Option<u64> {
        self.bytes_per_s.map(|bytes| (bytes / PIECES_PER_S).max(PIECE_BYTES_MIN))
    }

    /// Reserves bytes, and returns how long to wait before they may go.
    pub fn reserve(&mut self, bytes: u64, now: Tick) -> Duration {
        let Some(bytes_per_s) = self.bytes_per_s else { return Duration::ZERO };
        let start = self.free_at.max(now);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_s);
        self.free_at = start.after(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        start.since(now)
    }
}

/// The free space of a disk over the last minutes.
#[derive(Debug, Default)]
pub struct Filling {
    samples: VecDeque<(Tick, u64)>,
}

impl Filling {
    /// Takes in how much is free.
    pub fn sample(&mut self, free_bytes: u64, now: Tick) {
        while self.samples.front().is_some_and(|(tick, _)| now.since(*tick) > DISK_WINDOW) {
            self.samples.pop_front();
        }
        if self.samples.len() > 1 && self.samples.iter().rev().nth(1).is_some_and(|(at, _)| now.since(*at) < DISK_STEP)
        {
            self.samples.pop_back();
        }
        self.samples.push_back((now, free_bytes));
    }

    /// Returns what was free last.
    pub fn free_bytes(&self) -> Option<u64> {
        self.samples.back().map(|(_, free)| *free)
    }

    /// Returns after how many seconds the disk is full at the rate of the last minutes; `None` when it does not fill.
    pub fn full_in_s(&self) -> Option<u64> {
        let ((first, before), (last, free)) = (self.samples.front()?, self.samples.back()?);
        let lasted = last.since(*first);
        let filled = before.checked_sub(*free).filter(|filled| *filled > 0)?;
        if lasted < DISK_WINDOW_MIN {
            return None;
        }
        u64::try_from(u128::from(*free) * u128::from(lasted.as_secs()) / u128::from(filled)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick(Duration::from_secs(seconds))
    }

    #[test]
    fn the_rate_is_right_from_the_first_second_and_ends_a_minute_after_the_last() {
        let mut rate = Throughput::default();
        assert_eq!(rate.bytes_per_s(at(0)), 0);
        for second in 100..200 {
            rate.add(600, at(second));
            rate.add(400, at(second));
            assert_eq!(rate.bytes_per_s(at(second)), 1000, "{second}");
        }
        assert!(rate.bytes_per_s(at(230)) < 600);
        assert_eq!(rate.bytes_per_s(at(260)), 0);
        assert!(rate.seconds.is_empty());
    }

    #[test]
    fn what_took_long_counts_over_all_of_its_time_and_no_more_than_the_last_minute_of_it() {
        let mut rate = Throughput::default();
        rate.add_over(1000, at(100), at(109));
        assert_eq!(rate.bytes_per_s(at(109)), 100);
        rate.add_over(105, at(105), at(109));
        assert_eq!(rate.bytes_per_s(at(109)), 110, "beside what came meanwhile");
        let mut slow = Throughput::default();
        slow.add_over(100_000, at(0), at(999));
        assert_eq!((slow.bytes_per_s(at(999)), slow.seconds.len()), (100, 61));
    }

    #[test]
    fn over_any_time_no_more_goes_than_the_limit_and_a_quiet_link_saves_nothing_up() {
        let mut bucket = Bucket::default();
        assert_eq!((bucket.reserve(u64::MAX, at(5)), bucket.piece_bytes()), (Duration::ZERO, None));
        bucket.set(Some(1_000_000), at(10));
        assert_eq!(bucket.piece_bytes(), Some(250_000));
        let (mut now, mut sent) = (at(10), 0);
        while now < at(20) {
            now = now.after(bucket.reserve(250_000, now));
            sent += 250_000;
        }
        assert!((10_000_000..=10_500_000).contains(&sent), "{sent}");
        assert_eq!(bucket.reserve(250_000, at(100)), Duration::ZERO);
        assert_eq!(bucket.reserve(250_000, at(100)), Duration::from_millis(250));
        bucket.set(None, at(100));
        bucket.set(Some(10), at(100));
        assert_eq!((bucket.reserve(1, at(100)), bucket.piece_bytes()), (Duration::ZERO, Some(PIECE_BYTES_MIN)));
    }

    #[test]
    fn a_disk_that_fills_is_told_and_one_that_does_not_is_not() {
        let mut disk = Filling::default();
        disk.sample(10_000, at(0));
        assert_eq!(disk.full_in_s(), None, "one sample tells nothing");
        for second in 1..=1000_u64 {
            disk.sample(10_000 - second * 5, at(second));
        }
        assert_eq!(disk.full_in_s(), Some(1000));
        assert_eq!(disk.free_bytes(), Some(5000));
        assert!(disk.samples.len() < 70, "{}", disk.samples.len());
        for second in 1001..2000 {
            disk.sample(6000, at(second));
        }
        assert_eq!(disk.full_in_s(), None);
    }
}
