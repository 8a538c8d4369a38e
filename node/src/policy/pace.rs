//! How fast the link to the store is, and how much may be on its way over it at once.

use std::time::Duration;

use super::{
    Tick,
    parts::{PART_BYTES_MIN, PartLimits},
};

/// What is on its way should have arrived within so long: more of it at once is no faster on a slow link, and all of it
/// is lost when the link breaks.
const HORIZON: Duration = Duration::from_secs(5);

/// What may be on its way while the link is not known: of a slow one that breaks little is lost then, and of a fast one it
/// arrives in a moment.
const UNKNOWN_BYTES: u64 = 2 * 1024 * 1024;

/// A chunk that would take longer than this goes up in the smallest parts.
const LARGE: Duration = Duration::from_secs(20);

/// A sample is taken of at least so much.
const SAMPLE_BYTES: u64 = 256 * 1024;

/// Or of so long a time, whatever came of it.
const SAMPLE_TIME: Duration = Duration::from_secs(1);

/// The speed of the link, measured by what arrived while something was on its way.
#[derive(Debug, Default)]
pub struct Pace {
    on_its_way: usize,
    busy_since: Tick,
    /// Busy time of the sample that is being taken, up to `busy_since`.
    busy: Duration,
    bytes: u64,
    bytes_per_s: Option<u64>,
}

impl Pace {
    /// An upload begins.
    pub fn begin(&mut self, now: Tick) {
        self.advance(now);
        self.on_its_way += 1;
    }

    /// Bytes were told to have arrived.
    pub fn arrived(&mut self, bytes: u64, now: Tick) {
        self.advance(now);
        self.bytes = self.bytes.saturating_add(bytes);
        if bytes > 0 && (self.bytes >= SAMPLE_BYTES || self.busy >= SAMPLE_TIME) {
            let nanos = self.busy.as_nanos().max(1);
            let sample = u64::try_from(u128::from(self.bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX);
            // Half of what was known: a link that changes is known after a few uploads.
            self.bytes_per_s = Some(self.bytes_per_s.map_or(sample, |known| known / 2 + sample / 2).max(1));
            (self.busy, self.bytes) = (Duration::ZERO, 0);
        }
    }

    /// An upload ended, in whatever way.
    pub fn end(&mut self, now: Tick) {
        self.advance(now);
        self.on_its_way = self.on_its_way.saturating_sub(1);
    }

    fn advance(&mut self, now: Tick) {
        if self.on_its_way > 0 {
            self.busy += now.since(self.busy_since);
        }
        self.busy_since = now;
    }

    /// Returns how many bytes may be on their way at once.
    pub fn room_bytes(&self) -> u64 {
        self.bytes_per_s.map_or(UNKNOWN_BYTES, |bytes| bytes.saturating_mul(HORIZON.as_secs()))
    }

    /// Returns which chunks of such a size go up in parts. On a slow link they do so earlier and in the smallest parts, of
    /// which the least is lost when it breaks.
    pub fn part_limits(&self, size_bytes: u64, limits: PartLimits) -> PartLimits {
        let is_slow = self.bytes_per_s.is_some_and(|bytes| size_bytes / bytes >= LARGE.as_secs());
        if is_slow { PartLimits { threshold_bytes: PART_BYTES_MIN, part_bytes: PART_BYTES_MIN } } else { limits }
    }

    /// Returns how many of `places` a part of such a size takes: on a slow link all of them.
    pub fn places_of(&self, part_bytes: u64, places: usize) -> u32 {
        if self.bytes_per_s.is_none() {
            return 1;
        }
        let at_once = usize::try_from(self.room_bytes() / part_bytes.max(1)).unwrap_or(places).clamp(1, places.max(1));
        u32::try_from(places / at_once.max(1)).unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const LIMITS: PartLimits = PartLimits { threshold_bytes: 16 * MIB, part_bytes: 8 * MIB };

    fn at(millis: u64) -> Tick {
        Tick(Duration::from_millis(millis))
    }

    #[test]
    fn a_link_is_known_by_what_arrives_while_it_is_busy() {
        let mut pace = Pace::default();
        assert_eq!((pace.room_bytes(), pace.places_of(8 * MIB, 4)), (UNKNOWN_BYTES, 1));
        for number in 0..4 {
            pace.begin(at(1000 + number));
        }
        // Four at once over 2 Mbit/s: the first one says a quarter of the truth only as long as nothing else arrives.
        for number in 1..=4 {
            pace.arrived(1_000_000, at(1000 + 4000 * number));
            pace.end(at(1000 + 4000 * number));
        }
        assert_eq!(pace.room_bytes(), 1_250_000);
        pace.begin(at(1_000_000));
        pace.arrived(1_000_000, at(1_004_000));
        pace.end(at(1_004_000));
        assert!((1_245_000..=1_250_000).contains(&pace.room_bytes()), "quiet time is not counted");
    }

    #[test]
    fn small_uploads_tell_little_each_and_enough_together() {
        let mut pace = Pace::default();
        for number in 0..40 {
            pace.begin(at(number * 100));
            pace.arrived(1000, at(number * 100 + 20));
            pace.end(at(number * 100 + 20));
            assert_eq!(pace.room_bytes() != UNKNOWN_BYTES, number == 49, "{number}");
        }
        for number in 40..100 {
            pace.begin(at(number * 100));
            pace.arrived(1000, at(number * 100 + 20));
            pace.end(at(number * 100 + 20));
        }
        assert_eq!(pace.room_bytes(), 250_000);
    }

    #[test]
    fn a_slow_link_gets_one_small_part_at_a_time_and_a_fast_one_what_is_set() {
        let known = |bytes_per_s| Pace { bytes_per_s: Some(bytes_per_s), ..Pace::default() };
        let slow = known(250_000);
        assert_eq!(slow.part_limits(9 * MIB, LIMITS).part_bytes, PART_BYTES_MIN);
        assert_eq!(slow.part_limits(4 * MIB, LIMITS), LIMITS);
        assert_eq!(slow.places_of(PART_BYTES_MIN, 4), 4);
        let fast = known(20_000_000);
        assert_eq!(fast.part_limits(300 * MIB, LIMITS), LIMITS);
        assert_eq!((fast.places_of(8 * MIB, 4), fast.places_of(8 * MIB, 1)), (1, 1));
        assert_eq!(known(4_000_000).places_of(8 * MIB, 4), 2);
    }
}
