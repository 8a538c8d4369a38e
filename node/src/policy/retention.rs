//! Which chunks make room: only what is proven elsewhere, the oldest first, and no more than is needed.

use std::time::Duration;

use bubbaloop_storage_schemas::UnixNs;

use super::queue::ChunkId;

/// When room is made. Without any limit it never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Chunks that are older go, whatever room there is.
    pub age: Option<Duration>,
    /// What the library may take of the disk.
    pub quota_bytes: Option<u64>,
    /// What is to stay free on the disk, whoever takes it.
    pub free_bytes_min: Option<u64>,
}

impl Retention {
    /// Tells whether room is ever made.
    pub const fn is_set(&self) -> bool {
        self.age.is_some() || self.quota_bytes.is_some() || self.free_bytes_min.is_some()
    }
}

/// How the disk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// What the library takes.
    pub library_bytes: u64,
    /// What is free; `None` where that is not known.
    pub free_bytes: Option<u64>,
    /// The store's time, by our clock and its offset. Nothing goes for its age where that is not known.
    pub now_ns: UnixNs,
}

/// A chunk that may go: its file is here, it is proven in a store that is not this disk, the published remote manifest
/// names it, and nobody pinned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub id: ChunkId,
    /// Its size.
    pub size_bytes: u64,
    /// When it was finalized.
    pub finalized_at_ns: UnixNs,
}

/// What is to go, and what is missing all the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The chunks that go, in this order.
    pub evict: Vec<Candidate>,
    /// Bytes that are to be made free and can't be: what is left is not proven elsewhere, or in use.
    pub short_bytes: u64,
}

/// Plans what goes. Pure; the same facts give the same plan, whatever the order of the candidates.
pub fn plan(mut candidates: Vec<Candidate>, retention: Retention, disk: Disk) -> Plan {
    candidates.sort_by(|one, other| (one.finalized_at_ns, &one.id).cmp(&(other.finalized_at_ns, &other.id)));
    let over_quota = retention.quota_bytes.map_or(0, |quota| disk.library_bytes.saturating_sub(quota));
    let over_free = match (retention.free_bytes_min, disk.free_bytes) {
        (Some(min), Some(free)) => min.saturating_sub(free),
        (Some(_) | None, _) => 0,
    };
    let needed = over_quota.max(over_free);
    let is_old = |candidate: &Candidate| {
        retention
            .age
            .is_some_and(|age| u128::from(disk.now_ns.saturating_sub(candidate.finalized_at_ns)) > age.as_nanos())
    };
    let mut plan = Plan::default();
    let mut freed = 0_u64;
    for candidate in candidates {
        if freed >= needed && !is_old(&candidate) {
            break;
        }
        freed = freed.saturating_add(candidate.size_bytes);
        plan.evict.push(candidate);
    }
    plan.short_bytes = needed.saturating_sub(freed);
    plan
}

#[cfg(test)]
mod tests {
    use bubbaloop_storage_schemas::{ChunkName, Digest};
    use proptest::prelude::*;

    use super::*;

    const DAY_NS: u64 = 24 * 3_600_000_000_000;

    fn candidate(index: u32, size_bytes: u64, day: u64) -> Candidate {
        let chunk = ChunkName::new(index, &Digest::of(&index.to_be_bytes()));
        let id = ChunkId { recording: "r".parse().unwrap(), chunk };
        Candidate { id, size_bytes, finalized_at_ns: day * DAY_NS }
    }

    fn indices(plan: &Plan) -> Vec<u32> {
        plan.evict.iter().map(|candidate| candidate.id.chunk.index()).collect()
    }

    const DISK: Disk = Disk { library_bytes: 40, free_bytes: Some(100), now_ns: 10 * DAY_NS };

    #[test]
    fn without_a_limit_nothing_goes() {
        let all = vec![candidate(0, 10, 0)];
        assert_eq!(plan(all, Retention::default(), DISK), Plan::default());
        assert!(!Retention::default().is_set());
    }

    #[test]
    fn the_oldest_go_until_there_is_room() {
        let all = || (0..4).map(|index| candidate(index, 10, u64::from(9 - index))).collect::<Vec<_>>();
        let quota = |quota| Retention { quota_bytes: Some(quota), ..Retention::default() };
        assert_eq!(indices(&plan(all(), quota(40), DISK)), [0_u32; 0]);
        assert_eq!(indices(&plan(all(), quota(39), DISK)), [3]);
        assert_eq!(indices(&plan(all(), quota(20), DISK)), [3, 2]);
        let free = |min| Retention { free_bytes_min: Some(min), ..Retention::default() };
        assert_eq!(indices(&plan(all(), free(115), DISK)), [3, 2]);
        let short = plan(all(), free(1000), DISK);
        assert_eq!((short.evict.len(), short.short_bytes), (4, 860));
        assert_eq!(plan(all(), free(1000), Disk { free_bytes: None, ..DISK }), Plan::default());
        let both = Retention { quota_bytes: Some(30), free_bytes_min: Some(125), age: None };
        assert_eq!(indices(&plan(all(), both, DISK)), [3, 2, 1], "the greater need decides");
    }

    #[test]
    fn what_is_too_old_goes_although_there_is_room() {
        let all = (0..4).map(|index| candidate(index, 10, u64::from(index) + 6)).collect();
        let age = Retention { age: Some(Duration::from_secs(3 * 24 * 3600)), ..Retention::default() };
        assert_eq!(indices(&plan(all, age, DISK)), [0], "of exactly that age it stays");
    }

    proptest! {
        #[test]
        fn no_more_goes_than_is_needed_and_the_order_does_not_matter(
            sizes in proptest::collection::vec((1_u64..50, 0_u64..20), 0..12),
            quota in 0_u64..300,
            free in 0_u64..300,
            seed in 0_usize..12,
        ) {
            let all: Vec<_> = (0..).zip(&sizes).map(|(index, (size, day))| candidate(index, *size, *day)).collect();
            let retention = Retention { age: None, quota_bytes: Some(quota), free_bytes_min: Some(free) };
            let library_bytes = sizes.iter().map(|(size, _)| size).sum::<u64>() + 20;
            let disk = Disk { library_bytes, ..DISK };
            let planned = plan(all.clone(), retention, disk);
            let mut turned = all;
            if !turned.is_empty() {
                let middle = seed % turned.len();
                turned.rotate_left(middle);
            }
            prop_assert_eq!(&plan(turned, retention, disk), &planned);
            let freed: u64 = planned.evict.iter().map(|candidate| candidate.size_bytes).sum();
            let needed = library_bytes.saturating_sub(quota).max(free.saturating_sub(100));
            prop_assert_eq!(planned.short_bytes, needed.saturating_sub(freed));
            if let Some((last, _)) = planned.evict.split_last() {
                prop_assert!(freed - last.size_bytes < needed, "one would have been enough");
            }
        }
    }
}
