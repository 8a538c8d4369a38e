//! What may go wrong between a node and its store, and how likely each of it is at a time.

use std::time::Duration;

use fastrand::Rng;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection breaks before the store has heard anything.
    ResetBefore,
    /// The store did it, and the answer is lost.
    ResetAfter,
    /// The store did it, and says 500.
    FailedAfter,
    /// The body breaks off somewhere.
    Cut,
    /// Nothing moves until patience ends.
    Stall,
    /// 429 with a Retry-After.
    TooMany,
    /// 503.
    Unavailable,
    /// The bytes change on their way.
    WrongBytes,
    /// The key may do nothing for a while.
    Denied,
    /// The key may not touch this one object.
    DeniedOne,
    /// There is no such bucket.
    BucketGone,
    /// A look tells that what is there is not.
    SaysAbsent,
    /// A look tells another digest and another ETag than the object has.
    SaysOther,
}

/// How likely each fault is, of a thousand requests, and how long the store takes for one.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    pub faults: Vec<(Fault, u32)>,
    pub slowest: Duration,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) fn calm() -> Self {
        Self { faults: Vec::new(), slowest: Duration::from_millis(400) }
    }

    /// One request of fifty fails in some way.
    pub(crate) fn fair() -> Self {
        use Fault::*;
        let some = [ResetBefore, ResetAfter, FailedAfter, Cut, Stall, TooMany, Unavailable, WrongBytes];
        Self { faults: some.map(|fault| (fault, 2)).to_vec(), ..Self::calm() }
    }

    /// Something of its own for a while, and for how long.
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

    /// Returns what goes wrong with a request, if anything does.
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
