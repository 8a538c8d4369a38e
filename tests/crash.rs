//! The real binary is killed at random times, and after each of its steps on disk and network. Nothing is lost, falsely
//! marked or half-written.
//!
//! `BUBBALOOP_TEST_KILLS` and `BUBBALOOP_TEST_SEED` set the number of kills and the seed. `BUBBALOOP_TEST_STEPS` sets
//! how many steps are tried, spread over all of them. Without it all are tried.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    thread,
    time::{Duration, SystemTime},
};

use bubbaloop_storage_schemas::{
    Digest,
    manifest::{Indices, Manifest},
};
use serde_json::{Value, json};

use crate::support::{
    node::{Machine, Recorder, until},
    servers::{KEY, SECRET, Server},
    steps::{DISK, DISK_AND_NETWORK, RunOutcome},
};

pub(crate) fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_lose_nothing_and_mark_nothing_falsely() {
    let (kills, seed) = (number("BUBBALOOP_TEST_KILLS", 200), number("BUBBALOOP_TEST_SEED", 7));
    println!("{kills} kills with seed {seed}");
    let server = Server::seaweedfs().await;
    server.bucket("kills").await;
    let runtime = tokio::runtime::Handle::current();
    let (server, runtime) = (&server, &runtime);
    tokio::task::block_in_place(|| {
        thread::scope(|scope| {
            for place in 0..AT_ONCE as u64 {
                let kills = kills / AT_ONCE as u64 + u64::from(place < kills % AT_ONCE as u64);
                scope.spawn(move || {
                    let machine = Machine::new(&format!("crash_{place}"), "rescan_interval = \"1s\"");
                    if place.is_multiple_of(2) {
                        let store = machine.folder.path().join("store");
                        kill_at_random(machine, kills, seed + place, &|key| fs::read(store.join(key)).ok());
                        return;
                    }
                    machine.set(&remote("kills", &server.endpoint));
                    machine.set_secrets(KEY, SECRET);
                    kill_at_random(machine, kills, seed + place, &|key| {
                        runtime.block_on(server.content(&format!("kills/{key}")))
                    });
                });
            }
        });
    });
}

/// Returns the settings of a machine whose store is a bucket of a server.
pub(crate) fn remote(bucket: &str, endpoint: &str) -> String {
    format!("backend = \"s3\"\nendpoint = {endpoint:?}\nbucket = {bucket:?}\nrescan_interval = \"1s\"")
}

/// Kills one machine's node repeatedly while its recorders write. Checks the marks of each run at once, and all marks
/// at the end.
fn kill_at_random(mut machine: Machine, kills: u64, seed: u64, stored: Stored<'_>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut recorders: Vec<_> = (0..3).map(|number| machine.recorder(&format!("drive_{number}"))).collect();
    let mut seen = [0; 3];
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
        // The moment of the crash is the subject of this test. Nothing has to be finished by then.
        thread::sleep(Duration::from_millis(random.u64(0..400)));
        machine.kill();
        for (recorder, seen) in recorders.iter().zip(&mut seen) {
            let marks = lines(recorder, "uploaded");
            assert!(marks.len() >= *seen, "a journal only grows");
            for line in marks.iter().skip(*seen) {
                let chunk = recorder.chunks.iter().find(|chunk| chunk["name"] == line["chunk"]).unwrap();
                assert!(is_stored(stored, &machine, recorder, chunk), "marked and not there: {line}");
            }
            *seen = marks.len();
        }
    }
    recorders.iter().for_each(|recorder| recorder.end());
    machine.start();
    until("every mark is written", || {
        let marks = |recorder: &Recorder| {
            let mut marks = BTreeMap::<String, usize>::new();
            for line in lines(recorder, "uploaded") {
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
            let manifest = stored(&format!("{}/{}/manifest.json", machine.id, recorder.name));
            let manifest = manifest.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            manifest.is_some_and(|manifest| manifest["chunks"].as_array().unwrap().len() == recorder.chunks.len())
        })
    });
    check(stored, &machine, &recorders);
    assert_eq!(machine.terminate(), Some(0));
    let staging = machine.folder.path().join("store/.bubbaloop/staging");
    if let Ok(left) = fs::read_dir(staging) {
        assert!(left.count() <= usize::try_from(kills).unwrap() * 4, "what crashes leave is bounded");
    }
}

/// Returns a machine with two ended recordings of a few chunks, not uploaded.
fn machine(id: &str, storage: &str, sizes: &[usize]) -> (Machine, Vec<Recorder>) {
    let machine = Machine::new(id, "");
    machine.set(storage);
    machine.set_secrets(KEY, SECRET);
    let mut recorders = Vec::new();
    for name in ["drive_a", "drive_b"] {
        let mut recorder = machine.recorder(name);
        sizes.iter().for_each(|size| drop(recorder.finalize_of(*size)));
        recorder.end();
        // The manifest is old enough that the node writes marks into it.
        let past = SystemTime::now() - Duration::from_secs(120);
        File::open(machine.home().join("recordings").join(name).join("manifest.json"))
            .unwrap()
            .set_modified(past)
            .unwrap();
        recorders.push(recorder);
    }
    (machine, recorders)
}

fn lines(recorder: &Recorder, kind: &str) -> Vec<Value> {
    recorder.journal().into_iter().filter(|line| line["kind"] == kind).collect()
}

/// Tells whether all chunks are marked, the remote manifests are written, and the marks are in the local manifests.
fn is_done(recorder: &Recorder) -> bool {
    let is_marked = lines(recorder, "uploaded").len() == recorder.chunks.len();
    let is_folded = || {
        let chunks = recorder.manifest()["chunks"].as_array().cloned().unwrap_or_default();
        chunks.iter().all(|chunk| chunk["uploaded_at_ns"].is_u64())
    };
    is_marked && !lines(recorder, "published").is_empty() && is_folded()
}

/// Returns the content of a key in the store.
type Stored<'a> = &'a (dyn Fn(&str) -> Option<Vec<u8>> + Sync);

fn is_stored(stored: Stored<'_>, machine: &Machine, recorder: &Recorder, chunk: &Value) -> bool {
    let key = format!("{}/{}/chunks/{}", machine.id, recorder.name, chunk["name"].as_str().unwrap());
    stored(&key).is_some_and(|bytes| json!(Digest::of(&bytes)) == chunk["sha256"])
}

/// Checks what must be true after any crash: every marked chunk and every chunk in a manifest is in the store, and all
/// files are readable.
fn check(stored: Stored<'_>, machine: &Machine, recorders: &[Recorder]) {
    for recorder in recorders {
        let chunk_of = |name: &Value| recorder.chunks.iter().find(|chunk| chunk["name"] == *name).unwrap();
        for line in lines(recorder, "uploaded") {
            assert!(is_stored(stored, machine, recorder, chunk_of(&line["chunk"])), "marked and not there: {line}");
        }
        let local = recorder.manifest().to_string();
        assert!(Manifest::parse(local.as_bytes(), Indices::Contiguous).is_ok(), "{local}");
        if let Some(remote) = stored(&format!("{}/{}/manifest.json", machine.id, recorder.name)) {
            let (remote, _) = Manifest::parse(&remote, Indices::Rising).unwrap();
            for chunk in &remote.chunks {
                let chunk = chunk_of(&json!(chunk.name));
                assert!(is_stored(stored, machine, recorder, chunk), "named and not there: {chunk}");
            }
        }
    }
    for file in ["identity.json", "state.json", "dead_letter.json"] {
        if let Ok(text) = fs::read(machine.home().join("storage").join(file)) {
            assert!(serde_json::from_slice::<Value>(&text).is_ok(), "{file}");
        }
    }
}

type Make<'a> = &'a (dyn Fn(usize) -> (Machine, Vec<Recorder>) + Sync);

/// Number of machines at once. Each waits most of the time.
const AT_ONCE: usize = 4;

/// Tries a crash after each step of a run, each time on a new machine.
fn crash_after_every_step(calls: &str, make: Make<'_>, stored: Stored<'_>) {
    let (mut machine, recorders) = make(0);
    let went = machine.run_steps(calls, usize::MAX, || recorders.iter().all(is_done));
    let RunOutcome::Done(steps) = went else { unreachable!("nothing kills it") };
    let tried = usize::try_from(number("BUBBALOOP_TEST_STEPS", u64::MAX)).unwrap().min(steps);
    assert!(steps > 20, "a run has many steps, and not {steps}");
    thread::scope(|scope| {
        for first in 0..AT_ONCE {
            scope.spawn(move || {
                for place in (first..tried).step_by(AT_ONCE) {
                    crash_after_step(calls, 1 + place * steps / tried, make(1 + place), stored);
                }
            });
        }
    });
}

fn crash_after_step(calls: &str, step: usize, (mut machine, recorders): (Machine, Vec<Recorder>), stored: Stored<'_>) {
    machine.run_steps(calls, step, || recorders.iter().all(is_done));
    check(stored, &machine, &recorders);
    machine.start();
    until(&format!("all is done after a crash after step {step}"), || {
        recorders.iter().all(|recorder| is_done(recorder) && lines(recorder, "published").len() == 1)
    });
    check(stored, &machine, &recorders);
    for recorder in &recorders {
        assert_eq!(lines(recorder, "uploaded").len(), recorder.chunks.len(), "each is marked one time");
        assert!(recorder.chunks.iter().all(|chunk| is_stored(stored, &machine, recorder, chunk)));
    }
    assert_eq!(machine.terminate(), Some(0));
}

#[test]
fn a_crash_after_any_step_on_disk_loses_nothing() {
    let machines = tempfile::tempdir().unwrap();
    let local = |number: usize| {
        let path = machines.path().join("store");
        machine(
            &format!("step_{number}"),
            &format!("backend = \"local\"\nlocal_path = {path:?}\nrescan_interval = \"1s\""),
            &[1000, 300_000],
        )
    };
    crash_after_every_step(DISK, &local, &|key| fs::read(machines.path().join("store").join(key)).ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_any_step_on_the_network_loses_nothing() {
    let server = Server::seaweedfs().await;
    server.bucket("steps").await;
    let runtime = tokio::runtime::Handle::current();
    let stored = |key: &str| runtime.block_on(server.content(&format!("steps/{key}")));
    let sending = |number: usize| {
        machine(
            &format!("net_{number}"),
            &format!("{}\nmultipart_threshold = \"5 MiB\"\npart_size = \"5 MiB\"", remote("steps", &server.endpoint)),
            &[1000, 6 << 20],
        )
    };
    tokio::task::block_in_place(|| crash_after_every_step(DISK_AND_NETWORK, &sending, &stored));
}
