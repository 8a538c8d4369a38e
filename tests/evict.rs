//! Eviction: only a file whose chunk the store holds at that moment is removed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use bubbaloop_storage::engine::driver::Engine;
use bubbaloop_storage_schemas::reply::ChunkLocal;
use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::{
    adopt::{adopt_request, mcap, write},
    reconcile::{Fault, Watched},
    service::service,
    support::{
        node::{Machine, Recorder, until},
        python::{Get, Python},
        robot::{Robot, sync_once},
    },
};

/// A robot with five uploaded chunks, a written remote manifest, and a quota for three chunks.
async fn full_robot() -> (Robot, Vec<Value>, Arc<Engine>) {
    let mut robot = Robot::new();
    robot.tuning.settings.disk_quota_gb = Some(ByteSize(900_000));
    let chunks: Vec<_> = (0..5).map(|index| robot.chunk(index)).collect();
    for (chunk, age) in chunks.iter().zip([40, 50, 30, 20, 10]) {
        let path = robot.recording().join("chunks").join(chunk["name"].as_str().unwrap());
        robot.age(&path, std::time::Duration::from_secs(age));
    }
    robot.ended(&chunks);
    let engine = robot.started_and_scanned();
    sync_once(&engine).await;
    assert!(robot.remote("manifest.json").exists());
    (robot, chunks, engine)
}

fn locals(engine: &Engine) -> Vec<ChunkLocal> {
    engine.read(|recordings, _| {
        recordings.values().flat_map(|found| found.chunks.iter().map(|chunk| chunk.facts.local)).collect()
    })
}

fn files(robot: &Robot) -> usize {
    fs::read_dir(robot.recording().join("chunks")).unwrap().count()
}

const PRESENT: ChunkLocal = ChunkLocal::Present;
const EVICTED: ChunkLocal = ChunkLocal::Evicted;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_files_are_evicted_as_far_as_needed_and_stay_known_as_evicted() {
    let (robot, chunks, engine) = full_robot().await;
    let mut heard = robot.facts.listen();
    engine.make_room().await;
    assert_eq!(locals(&engine), [EVICTED, EVICTED, PRESENT, PRESENT, PRESENT]);
    assert_eq!(files(&robot), 3);
    let mut told = Vec::new();
    while let Ok(event) = heard.try_recv() {
        told.push(event.fact.kind());
    }
    assert_eq!(told, ["evicted", "evicted"]);
    assert!(chunks.iter().all(|chunk| robot.is_stored(chunk)));
    engine.make_room().await;
    assert_eq!((files(&robot), engine.disk_low_bytes()), (3, 0), "no more than that");

    let again = robot.started_and_scanned();
    assert_eq!(locals(&again), [EVICTED, EVICTED, PRESENT, PRESENT, PRESENT]);
    again.probe_first().await;
    let puts = robot.puts();
    sync_once(&again).await;
    again.make_room().await;
    assert_eq!((robot.puts(), files(&robot)), (puts, 3), "nothing is sent again and nothing more goes");
    assert_eq!(robot.remote_indices("manifest.json").unwrap(), [0, 1, 2, 3, 4]);
    assert!(again.dead_letters().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_the_store_does_not_hold_stays_and_is_uploaded_again() {
    let (robot, chunks, engine) = full_robot().await;
    fs::remove_file(robot.object(&chunks[0])).unwrap();
    fs::write(robot.object(&chunks[1]), "other").unwrap();
    engine.make_room().await;
    assert_eq!(files(&robot), 5);
    assert_eq!(locals(&engine)[..2], [PRESENT, PRESENT]);
    let pending: usize = engine.read(|recordings, _| recordings.values().map(|found| found.pending().count()).sum());
    assert_eq!(pending, 2, "their marks were lies");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hard_linked_file_makes_no_room_and_the_next_one_is_evicted() {
    let (robot, chunks, engine) = full_robot().await;
    let path = |index: usize| robot.recording().join("chunks").join(chunks[index]["name"].as_str().unwrap());
    fs::hard_link(path(1), robot.folder.path().join("source.mcap")).unwrap();
    engine.make_room().await;
    assert_eq!(locals(&engine), [EVICTED, PRESENT, EVICTED, PRESENT, PRESENT]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_evicted_without_a_remote_manifest_that_names_it() {
    let (robot, _, engine) = full_robot().await;
    fs::remove_file(robot.remote("manifest.json")).unwrap();
    engine.make_room().await;
    assert_eq!(files(&robot), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_unproven_is_evicted_and_the_lack_of_room_is_reported_once() {
    let mut robot = Robot::new();
    robot.tuning.settings.disk_quota_gb = Some(ByteSize(100_000));
    let chunks = [robot.chunk(0), robot.chunk(1)];
    robot.ended(&chunks);
    let engine = robot.started_and_scanned();
    let mut heard = robot.facts.listen();
    engine.make_room().await;
    engine.make_room().await;
    assert_eq!((files(&robot), engine.disk_low_bytes()), (2, 500_000));
    assert_eq!(heard.try_recv().unwrap().fact.kind(), "disk_low");
    assert!(heard.try_recv().is_err());
    sync_once(&engine).await;
    engine.make_room().await;
    assert_eq!((files(&robot), engine.disk_low_bytes()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_on_the_librarys_own_disk_makes_no_room() {
    let (mut robot, _, _) = full_robot().await;
    robot.store_folder = Some(robot.folder.path().join("mnt/bucket"));
    let engine = robot.started_and_scanned();
    engine.probe_first().await;
    engine.make_room().await;
    assert_eq!((engine.is_other_disk(), files(&robot)), (Some(false), 5));
    assert_eq!(engine.disk_low_bytes(), 600_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_evicted_while_the_store_does_not_tell_what_it_holds() {
    let (robot, _, _) = full_robot().await;
    let store = Watched::of(&robot);
    let engine = robot.started_with(Arc::<Watched>::clone(&store), "s");
    engine.scan().unwrap();
    engine.probe_first().await;
    sync_once(&engine).await;
    store.fails(Some(Fault::EtagsUntold));
    engine.make_room().await;
    assert_eq!((files(&robot), engine.disk_low_bytes()), (5, 600_000));
    let pending: usize = engine.read(|recordings, _| recordings.values().map(|found| found.pending().count()).sum());
    assert_eq!(pending, 0, "nothing is known against the marks");
    store.fails(Some(Fault::HeadDenied));
    engine.make_room().await;
    assert_eq!(
        (files(&robot), engine.disk_low_bytes()),
        (5, 600_000),
        "that nothing may go is told, whatever the reason"
    );
    store.fails(None);
    engine.make_room().await;
    assert_eq!((files(&robot), engine.disk_low_bytes()), (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_adopted_by_a_hard_link_counts_once() {
    let (mut robot, _, _) = full_robot().await;
    let root = robot.recording().parent().unwrap().to_owned();
    let source = root.join("a_chunk_000.mcap");
    write(&source, &mcap(1, 400, None));
    let adopted_bytes = fs::metadata(&source).unwrap().len();
    let library_bytes = 1_500_000 + adopted_bytes;
    robot.tuning.settings.disk_quota_gb = Some(ByteSize(library_bytes));
    let engine = robot.started_and_scanned();
    engine.probe_first().await;
    let job = service(&robot, &engine).adopt(&adopt_request("a")).unwrap().reply().await;
    assert_eq!(json!(job)["state"], "done", "{job:?}");
    sync_once(&engine).await;
    engine.make_room().await;
    assert_eq!((files(&robot), engine.disk_low_bytes()), (5, 0));
    robot.tuning.settings.disk_quota_gb = Some(ByteSize(library_bytes - 1));
    let engine = robot.started_and_scanned();
    engine.probe_first().await;
    sync_once(&engine).await;
    engine.make_room().await;
    assert_eq!(files(&robot), 4, "one byte more than that is too much");
}

/// A small disk for one library.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &Path, mebibytes: u32) -> Self {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().unwrap();
        assert!(mounted.status.success(), "a test mounts a small disk: {}", String::from_utf8_lossy(&mounted.stderr));
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

fn free_mib(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    (stat.f_bavail * stat.f_frsize) >> 20
}

fn status(python: &mut Python, machine: &Machine) -> Value {
    let replies = python.get(&Get { selector: &machine.key("status"), ..Get::default() });
    replies.first().filter(|reply| reply.is_ok).map(|reply| reply.value()).unwrap_or_default()
}

/// Returns the size of the disk, and how many times that size is recorded. 512 and 8 are 4 GiB on a disk of 512 MiB.
fn scale() -> (u32, u32) {
    let number = |name, default| u32::try_from(crate::crash::number(name, default)).unwrap();
    (number("BUBBALOOP_TEST_DISK_MIB", 32), number("BUBBALOOP_TEST_DISKS", 4))
}

#[test]
fn a_robot_records_many_times_its_disk_size_and_loses_nothing() {
    let (disk_mib, disks) = scale();
    // The size of a chunk is 1/32 of the disk.
    let chunk_mib = u64::from(disk_mib / 32);
    let min_free_gb = f64::from(disk_mib) * 0.012 / 32.0;
    let mut machine = Machine::new("evict_1", &format!("rescan_interval = \"1s\"\nmin_free_gb = {min_free_gb}"));
    let recordings = machine.home().join("recordings");
    let _disk = SmallDisk::mount(&recordings, disk_mib);
    machine.start();
    let (mut recorders, mut smallest) = (Vec::new(), u64::MAX);
    for number in 0..disks * 4 {
        let mut recorder = machine.recorder(&format!("drive_{number:02}"));
        for _ in 0..8 {
            until("there is room for the next chunk", || free_mib(&recordings) >= 3 * chunk_mib);
            recorder.finalize_of(usize::try_from(chunk_mib << 20).unwrap());
            smallest = smallest.min(free_mib(&recordings));
        }
        recorder.end();
        recorders.push(recorder);
        if number % 6 == 3 {
            machine.kill();
            machine.start();
        }
    }
    assert!(smallest >= chunk_mib, "the disk was never full");
    let mut python = machine.python();
    until("all is safe", || status(&mut python, &machine)["safe"] == json!(true));
    until("there is room", || free_mib(&recordings) >= 11 * chunk_mib);
    let here = |recorder: &Recorder| recorder.chunks.iter().filter(|chunk| recorder.path(chunk).exists()).count();
    let all_here: usize = recorders.iter().map(here).sum();
    assert!((1..32).contains(&all_here), "{all_here} chunks are here");
    for recorder in &recorders {
        let name = recorder.name.as_str();
        assert!(recorder.chunks.iter().all(|chunk| machine.is_stored(name, chunk)));
        assert_eq!(machine.remote_manifest(name).unwrap()["chunks"].as_array().unwrap().len(), 8);
        let info = python.ask(&format!("{}?recording={name}", machine.key("info"))).value();
        let rows = info["chunks"].as_array().unwrap().clone();
        let count = |local: &str| rows.iter().filter(|chunk| chunk["local"] == local).count();
        assert_eq!((count("evicted"), count("present")), (8 - here(recorder), here(recorder)), "{name}");
        let sent = recorder.journal().iter().filter(|line| line["kind"] == "uploaded").count();
        assert_eq!(sent, 8, "each was sent once");
    }
    // A restore that needs more room than the disk has is refused before it fetches any byte.
    let before = free_mib(&recordings);
    let restored = machine.run(&["reconcile", "drive_*", "--restore", "--json"]);
    let told: Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert_eq!((restored.status.code(), &told["error"]["code"]), (Some(1), &json!("E_UNAVAILABLE")), "{told:#}");
    assert!(told["error"]["message"].as_str().unwrap().contains("free"), "{told:#}");
    assert_eq!(free_mib(&recordings), before);
    // A restore that fits succeeds. The restored files stay while the recorder writes more.
    let first = &recorders[0];
    let restored = machine.run(&["reconcile", &first.name, "--restore", "--json"]);
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(here(first), 8);
    let mut last = machine.recorder("drive_last");
    for _ in 0..8 {
        until("there is room for the next chunk", || free_mib(&recordings) >= 3 * chunk_mib);
        last.finalize_of(usize::try_from(chunk_mib << 20).unwrap());
    }
    last.end();
    until("it is in the store", || last.chunks.iter().all(|chunk| machine.is_stored(&last.name, chunk)));
    assert_eq!(here(first), 8, "what a person wanted here is pinned");
}
