//! The real binary killed at random in the middle of work, again and again: nothing is lost, falsely marked or torn.
//!
//! `BUBBALOOP_TEST_KILLS` and `BUBBALOOP_TEST_SEED` make longer or other runs.

use std::{collections::BTreeMap, env, fs, time::Duration};

use serde_json::Value;

use crate::support::node::{Machine, until};

pub fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn kills_at_random_moments_lose_nothing_and_mark_nothing_falsely() {
    let (kills, seed) = (number("BUBBALOOP_TEST_KILLS", 12), number("BUBBALOOP_TEST_SEED", 7));
    println!("{kills} kills with seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut machine = Machine::new("crash_1", "rescan_interval = \"1s\"");
    let mut recorders: Vec<_> = (0..3).map(|number| machine.recorder(&format!("drive_{number}"))).collect();
    for _ in 0..kills {
        machine.start();
        for _ in 0..random.usize(2..8) {
            let recorder = &mut recorders[random.usize(0..3)];
            if random.bool() {
                recorder.finalize()
            } else {
                recorder.rename()
            };
        }
        // The moment of the crash is what is tried here, not anything that has to be over by then.
        std::thread::sleep(Duration::from_millis(random.u64(0..400)));
        machine.kill();
        for recorder in &recorders {
            for line in recorder.journal().iter().filter(|line| line["kind"] == "uploaded") {
                let chunk = recorder.chunks.iter().find(|chunk| chunk["name"] == line["chunk"]).unwrap();
                assert!(machine.is_stored(&recorder.name, chunk), "marked and not there: {line}");
            }
        }
    }
    recorders.iter().for_each(|recorder| recorder.end());
    machine.start();
    until("every chunk is stored", || {
        recorders.iter().all(|recorder| recorder.chunks.iter().all(|chunk| machine.is_stored(&recorder.name, chunk)))
    });
    until("every mark is written", || {
        let marks = |recorder: &crate::support::node::Recorder| {
            let mut marks = BTreeMap::<String, usize>::new();
            for line in recorder.journal().iter().filter(|line| line["kind"] == "uploaded") {
                *marks.entry(line["chunk"].to_string()).or_default() += 1;
            }
            marks
        };
        recorders.iter().all(|recorder| {
            let marks = marks(recorder);
            assert!(marks.values().all(|lines| *lines == 1), "a proven chunk was marked again: {marks:?}");
            marks.len() == recorder.chunks.len()
        })
    });
    until("every remote manifest names all", || {
        recorders.iter().filter(|recorder| !recorder.chunks.is_empty()).all(|recorder| {
            let names = |manifest: Value| manifest["chunks"].as_array().unwrap().len();
            machine.remote_manifest(&recorder.name).is_some_and(|manifest| names(manifest) == recorder.chunks.len())
        })
    });
    assert_eq!(machine.terminate(), Some(0));
    let staging = machine.folder.path().join("store/.bubbaloop/staging");
    assert!(
        fs::read_dir(staging).unwrap().count() <= usize::try_from(kills).unwrap() * 4,
        "what crashes leave is bounded"
    );
}
