//! A deterministic simulation of weeks of a machine's life: recorders, faults, crashes, wrong clocks and unwritable
//! disks, all from one seed.
//!
//! `BUBBALOOP_TEST_SEEDS` sets the number of seeds, `BUBBALOOP_TEST_SEED` the first one.

use std::thread;

use crate::{crash::number, support::sim};

/// Every seed that is a multiple of this number uploads chunks in parts.
const LARGE_EVERY: u64 = 20;

fn run_all(seeds: impl Iterator<Item = u64>) -> Vec<String> {
    let run = |seed: u64| sim::run(seed, seed.is_multiple_of(LARGE_EVERY));
    seeds.filter_map(|seed| run(seed).err()).collect()
}

#[test]
fn weeks_of_faults_and_crashes_lose_nothing_and_mark_nothing_falsely() {
    let (first, count) = (number("BUBBALOOP_TEST_SEED", 1), number("BUBBALOOP_TEST_SEEDS", 200));
    let wrong: Vec<_> = thread::scope(|scope| {
        let halves = [0, 1].map(|half| scope.spawn(move || run_all((first..first + count).skip(half).step_by(2))));
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of {count} seeds went wrong:\n{}", wrong.len(), wrong[0]);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = number("BUBBALOOP_TEST_SEED", 1);
    for seed in (first..).filter(|seed| !seed.is_multiple_of(LARGE_EVERY) && !sim::makes_room(*seed)).take(5) {
        let runs = [(); 2].map(|()| sim::run(seed, false).unwrap());
        assert!(runs[0] == runs[1], "seed {seed}: {runs:?}");
        assert!(runs[0].lives > 1 && runs[0].chunks > 0);
    }
}
