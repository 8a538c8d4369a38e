//! Faults between a node and its store, and their probabilities.

use std::time::Duration;

use fastrand::Rng;

/// The fault of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection breaks before the store receives anything.
    ResetBefore,
    /// The store carries out the request, and the answer is lost.
    ResetAfter,
    /// The store carries out the request, and answers 500.
    FailedAfter,
    /// The body is cut.
    Cut,
    /// The connection stalls until the timeout.
    Stall,
    /// 429 with a Retry-After.
    TooMany,
    /// 503.
    Unavailable,
    /// The bytes are corrupted in transit.
    WrongBytes,
    /// Access is denied for a while.
    Denied,
    /// Access to this object is denied.
    DeniedOne,
    /// The bucket does not exist.
    BucketGone,
    /// A HEAD answers that an existing object is missing.
    SaysAbsent,
    /// A HEAD answers with a wrong digest and a wrong ETag.
    SaysOther,
}

/// Probability of each fault per 1,000 requests, and the duration of a request.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    pub faults: Vec<(Fault, u32)>,
    pub slowest: Duration,
}

impl Weather {
    /// No faults.
    pub(crate) fn calm() -> Self {
        Self { faults: Vec::new(), slowest: Duration::from_millis(400) }
    }

    /// One request in fifty fails.
    pub(crate) fn fair() -> Self {
        use Fault::*;
        let some = [ResetBefore, ResetAfter, FailedAfter, Cut, Stall, TooMany, Unavailable, WrongBytes];
        Self { faults: some.map(|fault| (fault, 2)).to_vec(), ..Self::calm() }
    }

    /// Returns a phase with faults of one kind, and its duration.
    pub(crate) fn bad(random: &mut Rng) -> (Self, Duration) {
        use Fault::*;
        let minutes = |random: &mut Rng, most: u64| Duration::from_secs(60 * random.u64(1..most));
        let all = |fault| vec![(fault, 1000)];
        let (faults, lasts) = match random.u32(0..12) {
            0 => (all(ResetBefore), minutes(random, 3000)),
            1 => (all(Denied), minutes(random, 600)),
            2 => (all(BucketGone), minutes(random, 600)),
            3 => (vec![(SaysAbsent, 500)], minutes(random, 2000)),
            4 => (vec![(SaysOther, 500)], minutes(random, 2000)),
            5 => (vec![(Stall, 300), (Cut, 500)], minutes(random, 600)),
            6 => (vec![(TooMany, 400), (Unavailable, 400)], minutes(random, 600)),
            7 => (vec![(FailedAfter, 500), (ResetAfter, 300)], minutes(random, 600)),
            8 => (vec![(WrongBytes, 300)], minutes(random, 600)),
            9 => (vec![(DeniedOne, 150)], minutes(random, 2000)),
            10 => {
                let slow = Self { slowest: Duration::from_secs(1200), ..Self::fair() };
                return (slow, minutes(random, 2000));
            }
            _ => (vec![(ResetBefore, 300), (ResetAfter, 200), (Unavailable, 100)], minutes(random, 2000)),
        };
        (Self { faults, ..Self::calm() }, lasts)
    }

    /// Returns the fault of a request, if any.
    pub(crate) fn strikes(&self, random: &mut Rng) -> Option<Fault> {
        let mut left = random.u32(0..1000);
        for (fault, share) in &self.faults {
            match left.checked_sub(*share) {
                None => return Some(*fault),
                Some(rest) => left = rest,
            }
        }
        None
    }
}
