//! How fast bytes go up, and how fast the disk fills.

use std::{collections::VecDeque, time::Duration};

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
    seconds: VecDeque<(u64, u64)>,
}

impl Throughput {
    /// Adds bytes that were just proven.
    pub fn add(&mut self, bytes: u64, now: Tick) {
        self.expire(now);
        let second = now.0.as_secs();
        match self.seconds.back_mut() {
            Some((last, sum)) if *last == second => *sum += bytes,
            _ => self.seconds.push_back((second, bytes)),
        }
    }

    /// Returns the mean since the first bytes of the last minute; zero without any.
    pub fn bytes_per_s(&mut self, now: Tick) -> u64 {
        self.expire(now);
        let Some((first, _)) = self.seconds.front() else { return 0 };
        let lasted = now.0.as_secs().saturating_sub(*first) + 1;
        self.seconds.iter().map(|(_, bytes)| bytes).sum::<u64>() / lasted
    }

    fn expire(&mut self, now: Tick) {
        let oldest = now.0.saturating_sub(UPLOAD_WINDOW).as_secs();
        while self.seconds.front().is_some_and(|(second, _)| *second < oldest) {
            self.seconds.pop_front();
        }
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
