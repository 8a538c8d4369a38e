//! Restore from the store: a file gets its name only after it is verified, nothing is overwritten, and the request can
//! be repeated.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bubbaloop_storage::{
    engine::{
        driver::Engine,
        jobs::{Jobs, Scope, Work},
        reconcile::{ReconcileError, ReconcileOptions, reconcile},
    },
    store::{
        Body, ObjectBody, ObjectMeta, ObjectStore, Page, PutMode, StoreError, StoreErrorKind, Stored, local::LocalStore,
    },
};
use bubbaloop_storage_schemas::{
    ChunkName, Digest,
    error::{ErrorCode, Refusal},
    keys::ObjectKey,
    reconcile::{ActionKind, FindingKind, ReconcileResult},
    reply::{JobState, Probe},
    verbs::list::ListRequest,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    reconcile::{DEEP, SHALLOW, actions, damage, drive, file, findings, plant, run, snapshot, view},
    support::robot::{Robot, sync_once},
};

const RESTORE: ReconcileOptions = ReconcileOptions { deep: false, dry_run: false, restore: true };

/// Returns a robot with an ended recording that is completely in the store.
async fn robot(chunks: u32) -> (Robot, Vec<Value>) {
    let mut robot = Robot::new();
    let chunks: Vec<_> = (0..chunks).map(|index| robot.chunk(index)).collect();
    robot.ended(&chunks);
    sync_once(&robot.started()).await;
    assert!(chunks.iter().all(|chunk| robot.is_stored(chunk)));
    robot.tuning.settings.auto_upload = false;
    (robot, chunks)
}

fn recordings(robot: &Robot) -> PathBuf {
    robot.folder.path().join("recordings")
}

fn wipe(robot: &Robot) {
    fs::remove_dir_all(robot.recording()).unwrap();
}

/// Starts a node that has probed its store and scanned its library.
async fn started(robot: &Robot) -> Arc<Engine> {
    let engine = robot.started_and_scanned();
    reconcile(&engine, &"never".parse().unwrap(), SHALLOW, &|_| {}).await.unwrap_err();
    engine
}

/// Checks that a dry run reports the plan and changes nothing, that the run does it, and that further runs find nothing
/// to do.
async fn restores(robot: &Robot, wanted: &[ActionKind], chunks: u64) -> ReconcileResult {
    let engine = started(robot).await;
    let before = snapshot(robot.folder.path());
    let planned = run(&engine, ReconcileOptions { dry_run: true, ..RESTORE }).await;
    assert!(snapshot(robot.folder.path()) == before, "a dry run changes nothing");
    let counted = |result: &ReconcileResult| (result.counts.restored_chunks, result.counts.restored_bytes);
    assert_eq!(counted(&planned), (chunks, chunks * 300_000), "{planned:#?}");
    let done = run(&engine, RESTORE).await;
    assert_eq!((actions(&done), counted(&done)), (wanted.to_vec(), counted(&planned)), "{done:#?}");
    let restored = |kinds: Vec<ActionKind>| {
        kinds.into_iter().filter(|kind| matches!(kind, ActionKind::Restore | ActionKind::RestoreManifest)).count()
    };
    assert_eq!(restored(actions(&planned)), restored(actions(&done)));
    for engine in [engine, started(robot).await] {
        for options in [RESTORE, ReconcileOptions { deep: true, ..RESTORE }, DEEP] {
            let again = run(&engine, options).await;
            assert_eq!((actions(&again), counted(&again)), (vec![], (0, 0)), "{again:#?}");
            assert_eq!(again.counts.unrestored_chunks, done.counts.unrestored_chunks * u64::from(options.restore));
        }
    }
    done
}

fn is_whole(robot: &Robot, chunks: &[Value]) -> bool {
    chunks.iter().all(|chunk| fs::read(file(robot, chunk)).is_ok_and(|it| json!(Digest::of(&it)) == chunk["sha256"]))
}

/// Returns the names of the files that were moved aside in a folder.
fn aside(folder: &Path) -> BTreeMap<String, PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    named.filter(|(name, _)| name.starts_with(".damaged-")).collect()
}

/// Checks that no temporary file of a restore is left.
fn is_tidy(robot: &Robot) -> bool {
    let files = snapshot(&recordings(robot));
    files.keys().all(|name| ![".part", ".restore", ".tmp"].iter().any(|ending| name.ends_with(ending)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_and_missing_chunks_are_restored_and_damaged_files_are_moved_aside() {
    let (robot, chunks) = robot(5).await;
    damage(&robot, &chunks[0]);
    fs::remove_file(file(&robot, &chunks[1])).unwrap();
    fs::write(file(&robot, &chunks[2]), "").unwrap();
    let cut = fs::read(file(&robot, &chunks[3])).unwrap()[..1000].to_vec();
    fs::write(file(&robot, &chunks[3]), &cut).unwrap();
    let damaged = fs::read(file(&robot, &chunks[0])).unwrap();
    let done = restores(&robot, &[ActionKind::Restore; 4], 4).await;
    assert_eq!(done.counts.unrestored_chunks, 0);
    assert!(is_whole(&robot, &chunks) && is_tidy(&robot));
    let asides = aside(&robot.recording().join("chunks"));
    assert_eq!(asides.len(), 3, "{asides:?}");
    for (chunk, bytes) in [(0, &damaged[..]), (2, &[]), (3, &cut)] {
        let name = format!(".damaged-{}.1", chunks[chunk]["name"].as_str().unwrap());
        assert_eq!(fs::read(&asides[&name]).unwrap(), bytes);
        assert!(done.actions.iter().any(|action| action.message.contains(&name)), "it is told: {name}");
    }
    let pinned: Vec<_> = view(&*started(&robot).await).chunks.iter().map(|it| it.pinned_until_ns.is_some()).collect();
    assert_eq!(pinned, [true, true, true, true, false], "what a person wanted here stays for a while");
    damage(&robot, &chunks[0]);
    restores(&robot, &[ActionKind::Restore], 1).await;
    assert_eq!(aside(&robot.recording().join("chunks")).len(), 4, "nothing is overwritten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_library_is_restored_byte_by_byte() {
    let (robot, chunks) = robot(4).await;
    let before = snapshot(&robot.recording().join("chunks"));
    wipe(&robot);
    let mut wanted = vec![ActionKind::RestoreManifest];
    wanted.extend([ActionKind::Mark; 4]);
    wanted.extend([ActionKind::Restore; 4]);
    wanted.push(ActionKind::Publish);
    restores(&robot, &wanted, 4).await;
    assert!(snapshot(&robot.recording().join("chunks")) == before && is_tidy(&robot));
    let engine = started(&robot).await;
    assert!(view(&engine).is_proven_whole() && !view(&engine).is_corrupt);
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0, 1, 2, 3]), "the remote manifest is as large");

    fs::remove_file(robot.recording().join("manifest.json")).unwrap();
    fs::remove_file(file(&robot, &chunks[3])).unwrap();
    let wanted = [ActionKind::RestoreManifest, ActionKind::Restore, ActionKind::Publish];
    restores(&robot, &wanted, 1).await;
    assert!(is_whole(&robot, &chunks));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_that_was_on_the_disk_before_is_no_twin() {
    let (robot, chunks) = robot(1).await;
    let stored = fs::read_to_string(robot.remote("manifest.json")).unwrap();
    let older = stored.replace("\"library_id\": \"l\"", "\"library_id\": \"older\"");
    assert_ne!(older, stored);
    fs::write(robot.remote("manifest.json"), &older).unwrap();
    wipe(&robot);
    let engine = started(&robot).await;
    run(&engine, RESTORE).await;
    assert!(is_whole(&robot, &chunks));
    assert_eq!(engine.twins(), [""; 0], "a new disk is no second machine");

    fs::write(robot.remote("manifest.json"), older.replace("older", "stranger")).unwrap();
    let engine = started(&robot).await;
    run(&engine, SHALLOW).await;
    assert_eq!(engine.twins(), ["stranger"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_another_spelling_of_the_machine_names_is_found() {
    let (robot, chunks) = robot(1).await;
    wipe(&robot);
    let bucket = robot.folder.path().join("mnt/bucket");
    fs::rename(bucket.join("robot_1"), bucket.join("robot-1")).unwrap();
    let text = fs::read_to_string(bucket.join("robot-1/drive/manifest.json")).unwrap();
    fs::write(bucket.join("robot-1/drive/manifest.json"), text.replace("robot_1", "robot-1")).unwrap();
    let engine = started(&robot).await;
    run(&engine, RESTORE).await;
    assert!(is_whole(&robot, &chunks));
    assert_eq!(view(&engine).machine_id.as_str(), "robot-1");
    assert!(!bucket.join("robot_1").exists(), "nothing is stored under the other spelling");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_manifest_is_moved_aside_and_one_of_another_version_is_left_alone() {
    let publish = [ActionKind::RestoreManifest, ActionKind::Publish];
    let (robot, chunks) = robot(2).await;
    let manifest = robot.recording().join("manifest.json");
    let stored = fs::read(robot.remote("manifest.json")).unwrap();
    let duplicates = [chunks[0].clone(), chunks[0].clone()];
    let without_first = [chunks[1].clone()];
    for number in 1..=4 {
        fs::remove_file(&manifest).unwrap();
        match number {
            1 => fs::write(&manifest, "{\"schema_version\": 1, \"na").unwrap(),
            2 => robot.ended(&duplicates),
            3 => robot.ended(&without_first),
            _ => fs::create_dir(&manifest).unwrap(),
        }
        let done = restores(&robot, &publish, 0).await;
        assert!(done.actions[0].message.contains(&format!(".damaged-manifest.json.{number}")), "{done:#?}");
        assert_eq!(aside(&robot.recording()).len(), number);
        assert_eq!(view(&*started(&robot).await).chunks.len(), 2);
    }
    assert!(!stored.is_empty());

    robot.manifest_with(&chunks, &json!({"schema_version": 2}));
    let newer = fs::read(&manifest).unwrap();
    fs::remove_file(file(&robot, &chunks[0])).unwrap();
    let done = restores(&robot, &[ActionKind::Restore], 1).await;
    assert_eq!(findings(&done), [FindingKind::ManifestUnreadable]);
    assert_eq!(fs::read(&manifest).unwrap(), newer, "a recorder that is ahead of this node keeps its manifest");
    assert!(is_whole(&robot, &chunks));

    robot.manifest_with(&chunks, &json!({"machine_id": "other"}));
    damage(&robot, &chunks[0]);
    let told = run(&started(&robot).await, RESTORE).await;
    assert_eq!((findings(&told), actions(&told)), (vec![FindingKind::Foreign], vec![]));
    assert!(!is_whole(&robot, &chunks), "another machine's recording is left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incomplete_remote_manifest_is_used_but_not_written_locally() {
    let (robot, chunks) = robot(3).await;
    let mut manifest: Value = serde_json::from_slice(&fs::read(robot.remote("manifest.json")).unwrap()).unwrap();
    manifest["chunks"].as_array_mut().unwrap().remove(0);
    fs::write(robot.remote("manifest.json"), manifest.to_string()).unwrap();
    wipe(&robot);
    let engine = started(&robot).await;
    let done = run(&engine, RESTORE).await;
    assert!(is_whole(&robot, &chunks[1..]) && !file(&robot, &chunks[0]).exists());
    assert_eq!(findings(&done), [FindingKind::ManifestUnreadable, FindingKind::OrphanObject]);
    assert!(!robot.recording().join("manifest.json").exists());
    let again = run(&started(&robot).await, RESTORE).await;
    assert_eq!(actions(&again), [], "{again:#?}");
    let error = failed(&robot, &engine).await;
    assert!(error.message.contains("chunk 0 never came to the store"), "{error}");
}

/// Returns the error of a restore job on the recording.
async fn failed(robot: &Robot, engine: &Arc<Engine>) -> Refusal {
    let clock = Arc::<crate::support::robot::MovedClock>::clone(&robot.clock);
    let jobs = Jobs::new(Arc::clone(engine), Arc::clone(&robot.facts), clock);
    let job = jobs.start(Work::Reconcile { scope: Scope::One(drive()), options: RESTORE }).unwrap();
    let view = job.wait(Duration::from_secs(60)).await;
    assert_eq!(view.state, JobState::Failed, "{view:?}");
    view.error.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorder_that_has_a_chunk_open_keeps_its_manifest() {
    let (robot, _) = robot(2).await;
    let manifest = robot.recording().join("manifest.json");
    fs::write(&manifest, "{\"schema_version\": 1, \"na").unwrap();
    fs::write(robot.recording().join("chunks/.chunk-000002.mcap.active"), "open").unwrap();
    let torn = fs::read(&manifest).unwrap();
    let engine = started(&robot).await;
    let error = failed(&robot, &engine).await;
    assert!(error.message.contains("a recorder has a chunk open"), "{error}");
    assert_eq!(fs::read(&manifest).unwrap(), torn);
    fs::remove_file(robot.recording().join("chunks/.chunk-000002.mcap.active")).unwrap();
    let done = run(&started(&robot).await, RESTORE).await;
    assert!(actions(&done).contains(&ActionKind::RestoreManifest), "{done:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_another_capture_of_the_name_are_not_mixed_into_this_one() {
    let (robot, _) = robot(2).await;
    wipe(&robot);
    fs::create_dir_all(robot.recording().join("chunks")).unwrap();
    // A recorder began again under the same name and has not written its manifest yet.
    let digest = Digest::of(b"new");
    let new = json!({"name": ChunkName::new(0, &digest), "index": 0, "size_bytes": 3, "sha256": digest});
    fs::write(file(&robot, &new), "new").unwrap();
    let before = snapshot(&recordings(&robot));
    let engine = started(&robot).await;
    engine.scan().unwrap();
    let told = run(&engine, RESTORE).await;
    assert!(findings(&told).contains(&FindingKind::NameTaken), "{told:#?}");
    assert!(snapshot(&recordings(&robot)) == before, "{told:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_in_the_place_of_a_file_that_is_no_file_is_moved_aside() {
    let (robot, chunks) = robot(2).await;
    for chunk in &chunks {
        fs::remove_file(file(&robot, chunk)).unwrap();
    }
    fs::create_dir(file(&robot, &chunks[0])).unwrap();
    let outside = robot.folder.path().join("outside");
    fs::write(&outside, "outside").unwrap();
    std::os::unix::fs::symlink(&outside, file(&robot, &chunks[1])).unwrap();
    restores(&robot, &[ActionKind::Restore; 2], 2).await;
    assert!(is_whole(&robot, &chunks));
    assert_eq!(fs::read_to_string(&outside).unwrap(), "outside", "no link is followed");
    assert_eq!(aside(&robot.recording().join("chunks")).len(), 2);
}

/// Overwrites the remote manifest with one that names these chunks.
fn tamper(robot: &Robot, chunks: &[Value], more: &Value) {
    let mut manifest = json!({
        "schema_version": 1, "name": "drive", "machine_id": "robot_1", "started_at_ns": 5, "ended_at_ns": 9, "chunks": chunks
    });
    manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fs::write(robot.remote("manifest.json"), manifest.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tampered_remote_manifest_is_refused_with_all_of_its_reasons_and_nothing_is_written() {
    let (robot, chunks) = robot(2).await;
    wipe(&robot);
    let mut bad = chunks.clone();
    bad[0]["name"] = json!("../../../evil.mcap");
    bad[1]["size_bytes"] = json!(u64::MAX);
    bad.push(json!({"name": "chunk-000002-00000000.mcap", "index": 2, "size_bytes": 1, "sha256": "zz"}));
    let before = snapshot(&recordings(&robot));
    for (chunks, more, parts) in [
        (&bad, json!({}), &["illegal chunk name", "18446744073709551615 bytes", "sha256 of chunk"][..]),
        (&chunks, json!({"name": "../drive"}), &["illegal recording name"]),
        (&chunks, json!({"name": "other", "machine_id": "thief"}), &["of the recording other", "of the machine thief"]),
        (&chunks, json!({"schema_version": 99}), &["unknown schema_version 99"]),
        (&vec![chunks[0].clone(), chunks[0].clone()], json!({}), &["indices must be rising"]),
    ] {
        tamper(&robot, chunks, &more);
        let told = run(&started(&robot).await, RESTORE).await;
        let reasons: Vec<_> = told.findings.iter().filter(|row| row.kind == FindingKind::ManifestRefused).collect();
        for part in parts {
            assert!(reasons.iter().any(|row| row.message.contains(part)), "{part}: {told:#?}");
        }
        assert_eq!(actions(&told), [], "{told:#?}");
        assert!(snapshot(&recordings(&robot)) == before, "nothing is written");
    }
    assert!(!robot.folder.path().join("evil.mcap").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_with_other_bytes_never_gets_a_chunks_name() {
    let content = vec![0_u8; 300_000];
    let flipped: Vec<u8> = content.iter().map(|byte| byte ^ 1).collect();
    let larger = vec![0_u8; 20_000_000];
    for other in [&flipped[..], &larger, &content[..299_999], &[]] {
        let (robot, chunks) = robot(2).await;
        wipe(&robot);
        fs::write(robot.object(&chunks[0]), other).unwrap();
        let engine = started(&robot).await;
        let told = run(&engine, RESTORE).await;
        assert_eq!((findings(&told), told.counts.unrestored_chunks), (vec![FindingKind::Lost], 1), "{told:#?}");
        assert!(!file(&robot, &chunks[0]).exists() && is_whole(&robot, &chunks[1..]) && is_tidy(&robot));
        assert!(view(&engine).is_corrupt);
        let again = run(&started(&robot).await, RESTORE).await;
        assert_eq!(actions(&again), []);
    }
    // The local store computes digests itself. With a store that does not, only the bytes show the difference.
    for other in [&flipped[..], &larger, &content[..299_999]] {
        let (robot, chunks) = robot(1).await;
        let store = Cut::of(&robot, u64::MAX);
        *store.lie.lock().unwrap() = Some(Bytes::copy_from_slice(other));
        let engine = robot.started_with(Arc::<Cut>::clone(&store), "s");
        engine.scan().unwrap();
        fs::remove_file(file(&robot, &chunks[0])).unwrap();
        let told = run(&engine, RESTORE).await;
        assert_eq!((findings(&told), told.counts.unrestored_chunks), (vec![FindingKind::Lost], 1), "{told:#?}");
        assert!(!file(&robot, &chunks[0]).exists() && is_tidy(&robot));
        assert!(store.given.load(Ordering::Relaxed) <= 900_000, "what is too large is cut off");
    }
}

/// The local store on a link that breaks after some bytes, or that gives wrong bytes.
#[derive(Debug)]
struct Cut {
    store: LocalStore,
    left: AtomicU64,
    given: Arc<AtomicU64>,
    lie: Mutex<Option<Bytes>>,
    /// A file that grows until its disk is full, once a chunk is requested.
    ballast: Mutex<Option<PathBuf>>,
}

impl Cut {
    fn of(robot: &Robot, left: u64) -> Arc<Self> {
        let store = LocalStore::new(robot.folder.path().join("mnt/bucket"));
        Arc::new(Self {
            store,
            left: AtomicU64::new(left),
            given: Arc::default(),
            lie: Mutex::default(),
            ballast: Mutex::default(),
        })
    }

    fn broken() -> StoreError {
        StoreError::new(StoreErrorKind::Retry { after: None }, "connection reset")
    }

    fn is_over(&self, bytes: u64) -> bool {
        let take = |left: u64| left.checked_sub(bytes).or(Some(0));
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap() < bytes
    }
}

#[async_trait::async_trait]
impl ObjectStore for Cut {
    async fn put(&self, key: &ObjectKey, body: &Body, mode: PutMode) -> Result<Stored, StoreError> {
        self.store.put(key, body, mode).await
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Option<ObjectBody>, StoreError> {
        if !key.as_str().contains("/chunks/") {
            return self.store.get(key, range).await;
        }
        if self.left.load(Ordering::Relaxed) == 0 {
            return Err(Self::broken());
        }
        if let Some(ballast) = self.ballast.lock().unwrap().take() {
            let mut file = fs::OpenOptions::new().append(true).open(ballast).unwrap();
            while std::io::Write::write_all(&mut file, &[0; 10_000]).is_ok() {}
        }
        let Some(mut object) = self.store.get(key, range).await? else { return Ok(None) };
        let (sender, receiver) = mpsc::channel(1);
        let meta = object.meta.clone();
        let lie = self.lie.lock().unwrap().clone();
        let mut blocks = Vec::new();
        match lie {
            Some(lie) => blocks.extend(lie.chunks(100_000).map(|block| lie.slice_ref(block))),
            None => {
                while let Some(block) = object.next_block().await? {
                    blocks.extend(block.chunks(100_000).map(|part| block.slice_ref(part)));
                }
            }
        }
        let blocks: Vec<_> =
            blocks.into_iter().map(|block| if self.is_over(block.len() as u64) { None } else { Some(block) }).collect();
        let given = Arc::clone(&self.given);
        tokio::spawn(async move {
            for block in blocks {
                let bytes = block.as_ref().map(Bytes::len);
                if sender.send(block.ok_or_else(Self::broken)).await.is_err() || bytes.is_none() {
                    return;
                }
                given.fetch_add(bytes.unwrap_or(0) as u64, Ordering::Relaxed);
            }
        });
        Ok(Some(ObjectBody::new(meta, receiver)))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.store.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.store.list(prefix, after, limit).await
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.store.list_folders(prefix).await
    }

    async fn delete(&self, _: &ObjectKey) -> Result<(), StoreError> {
        unreachable!("restore removes nothing")
    }

    async fn probe(&self) -> Result<Probe, StoreError> {
        self.store.probe().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_fetched_before_a_broken_connection_are_not_fetched_again() {
    let (robot, chunks) = robot(3).await;
    wipe(&robot);
    let store = Cut::of(&robot, 400_000);
    let engine = robot.started_with(Arc::<Cut>::clone(&store), "s");
    engine.scan().unwrap();
    let told = run(&engine, RESTORE).await;
    let restored = told.counts.restored_chunks;
    assert_eq!(restored + told.counts.unrestored_chunks, 3, "{told:#?}");
    assert!(restored < 3 && findings(&told).iter().all(|kind| *kind == FindingKind::Failed), "{told:#?}");
    store.left.store(u64::MAX, Ordering::Relaxed);
    let told = run(&engine, RESTORE).await;
    assert_eq!((told.counts.restored_chunks, told.counts.unrestored_chunks), (3 - restored, 0), "{told:#?}");
    assert!(is_whole(&robot, &chunks) && is_tidy(&robot));
    assert_eq!(store.given.load(Ordering::Relaxed), 900_000, "each byte came one time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_of_an_earlier_try_is_fetched_again() {
    let (robot, chunks) = robot(2).await;
    let part = |chunk: &Value| robot.recording().join(format!("chunks/.{}.part", chunk["name"].as_str().unwrap()));
    for chunk in &chunks {
        fs::remove_file(file(&robot, chunk)).unwrap();
    }
    fs::write(part(&chunks[0]), vec![9_u8; 1000]).unwrap();
    fs::write(part(&chunks[1]), vec![9_u8; 400_000]).unwrap();
    restores(&robot, &[ActionKind::Restore; 2], 2).await;
    assert!(is_whole(&robot, &chunks) && is_tidy(&robot));
    fs::write(part(&chunks[0]), "left").unwrap();
    let begun = fs::read(file(&robot, &chunks[1])).unwrap()[..100_000].to_vec();
    damage(&robot, &chunks[1]);
    fs::write(part(&chunks[1]), begun).unwrap();
    let store = Cut::of(&robot, u64::MAX);
    let engine = robot.started_with(Arc::<Cut>::clone(&store), "s");
    engine.scan().unwrap();
    run(&engine, RESTORE).await;
    assert!(is_whole(&robot, &chunks) && is_tidy(&robot), "what is not gone on with is swept");
    assert_eq!(store.given.load(Ordering::Relaxed), 200_000, "what was begun of a damaged one is gone on with too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_room_is_reported_before_a_byte_is_fetched() {
    const TIB: u64 = 1 << 40;
    let (robot, chunks) = robot(2).await;
    wipe(&robot);
    let mut large = chunks.clone();
    large.iter_mut().for_each(|chunk| chunk["size_bytes"] = json!(4 * TIB));
    tamper(&robot, &large, &json!({}));
    let engine = started(&robot).await;
    let error = reconcile(&engine, &drive(), RESTORE, &|_| {}).await.unwrap_err();
    assert!(matches!(error, ReconcileError::NoRoom(_)));
    let text = error.to_string();
    assert!(text.contains(&(8 * TIB).to_string()) && text.contains("free"), "{text}");
    assert!(!robot.recording().exists(), "nothing is begun");

    let clock = Arc::<crate::support::robot::MovedClock>::clone(&robot.clock);
    let jobs = Jobs::new(Arc::clone(&engine), Arc::clone(&robot.facts), clock);
    for scope in [Scope::One(drive()), Scope::Matching("d*".into())] {
        let job = jobs.start(Work::Reconcile { scope, options: RESTORE }).unwrap();
        let view = job.wait(Duration::from_secs(60)).await;
        assert_eq!(view.state, JobState::Failed);
        let error = view.error.unwrap();
        assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true), "{error}");
    }
}

/// A small disk mounted on a folder; it is unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Returns `None` if this process may not mount.
    fn at(folder: &Path, bytes: u64) -> Option<Self> {
        let mount = ["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"];
        let mounted = Command::new("mount").args(mount).arg(folder).output();
        mounted.is_ok_and(|it| it.status.success()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_a_restore_and_with_room_it_continues() {
    let (robot, chunks) = robot(6).await;
    wipe(&robot);
    let Some(disk) = SmallDisk::at(&recordings(&robot), 3_000_000) else {
        eprintln!("this process may not mount: a disk that is full from the start stands in for one that fills");
        assert!(bubbaloop_storage::policy::fetch::room(1, 0, 3_000_000).is_err());
        return;
    };
    fs::create_dir_all(robot.recording()).unwrap();
    fs::write(disk.0.join("ballast"), vec![0_u8; 1_800_000]).unwrap();
    let engine = started(&robot).await;
    let error = reconcile(&engine, &drive(), RESTORE, &|_| {}).await.unwrap_err();
    assert!(matches!(error, ReconcileError::NoRoom(_)), "{error}");

    // Another process fills the disk meanwhile.
    fs::remove_file(disk.0.join("ballast")).unwrap();
    let filler = Cut::of(&robot, u64::MAX);
    fs::write(disk.0.join("ballast"), "").unwrap();
    *filler.ballast.lock().unwrap() = Some(disk.0.join("ballast"));
    let engine = robot.started_with(Arc::<Cut>::clone(&filler), "s");
    engine.scan().unwrap();
    let told = run(&engine, RESTORE).await;
    assert!(told.counts.unrestored_chunks > 0, "{told:#?}");
    assert!(findings(&told).iter().all(|kind| *kind == FindingKind::Failed), "{told:#?}");
    assert!(is_tidy(&robot), "a full disk is not kept full");

    fs::remove_file(disk.0.join("ballast")).unwrap();
    let told = run(&engine, RESTORE).await;
    assert_eq!(told.counts.unrestored_chunks, 0, "{told:#?}");
    assert!(is_whole(&robot, &chunks) && is_tidy(&robot));
    // The node closes its files on the disk before the disk is unmounted.
    drop((engine, disk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_of_a_hundred_thousand_chunks_is_looked_at_and_a_larger_one_is_refused() {
    let (robot, _) = robot(1).await;
    wipe(&robot);
    let many = |count: u32| {
        let chunk = |index: u32| {
            let digest = Digest::of(&index.to_be_bytes());
            json!({"name": ChunkName::new(index, &digest), "index": index, "size_bytes": 4, "sha256": digest})
        };
        (0..count).map(chunk).collect::<Vec<_>>()
    };
    tamper(&robot, &many(100_000), &json!({}));
    let told = run(&started(&robot).await, ReconcileOptions { dry_run: true, ..RESTORE }).await;
    assert_eq!((told.counts.chunks, told.counts.restored_chunks), (100_000, 0));
    let lost = told.counts.findings.iter().find(|row| row.kind == FindingKind::Lost).unwrap().count;
    assert_eq!(lost, 100_000, "the manifest names what the store does not hold");
    tamper(&robot, &many(100_001), &json!({}));
    let told = run(&started(&robot).await, RESTORE).await;
    assert_eq!(findings(&told)[0], FindingKind::ManifestRefused, "{told:#?}");
    assert!(!robot.recording().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_too_large_to_be_read_back_is_not_published_and_that_is_reported() {
    let (robot, chunks) = robot(1).await;
    let journal = robot.recording().join("uploads.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let line = text.lines().find(|line| line.contains("\"uploaded\"")).unwrap();
    let (name, digest) = (chunks[0]["name"].as_str().unwrap(), chunks[0]["sha256"].as_str().unwrap());
    let (mut all, mut lines) = (chunks.clone(), text.clone());
    for index in 1..=100_000 {
        let found = Digest::of(&u32::to_be_bytes(index));
        let chunk = ChunkName::new(index, &found).to_string();
        lines += &line.replace(name, &chunk).replace(digest, &found.to_string());
        lines.push('\n');
        all.push(json!({"name": chunk, "index": index, "size_bytes": 300_000, "sha256": found}));
    }
    fs::write(&journal, &lines).unwrap();
    robot.ended(&all);
    let engine = started(&robot).await;
    assert!(view(&engine).is_proven_whole() && view(&engine).chunks.len() == 100_001);
    engine.drain().await;
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0]), "what stands there stays");
    let list = crate::service::json_of(crate::service::service(&robot, &engine).list(&ListRequest::default()).unwrap());
    let reason = list["recordings"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("100001 chunks") && reason.contains("100000"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_glob_restores_recordings_that_only_the_store_has() {
    let (robot, chunks) = robot(2).await;
    wipe(&robot);
    let engine = started(&robot).await;
    let clock = Arc::<crate::support::robot::MovedClock>::clone(&robot.clock);
    let jobs = Jobs::new(Arc::clone(&engine), Arc::clone(&robot.facts), clock);
    let restore = async |glob: &str| {
        let work = Work::Reconcile { scope: Scope::Matching(glob.into()), options: RESTORE };
        jobs.start(work).unwrap().wait(Duration::from_secs(60)).await
    };
    let view = restore("x*").await;
    assert_eq!((view.state, view.error.map(|error| error.code)), (JobState::Failed, Some(ErrorCode::NotFound)));
    assert!(!robot.recording().exists());
    let driving = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            loop {
                engine.drain().await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };
    let view = restore("d*").await;
    assert_eq!((view.state, view.error), (JobState::Done, None));
    assert!(is_whole(&robot, &chunks));
    // A wrong object makes the job fail, even if it restored other chunks.
    plant(&robot, &chunks[0]);
    fs::remove_file(file(&robot, &chunks[0])).unwrap();
    let view = restore("drive").await;
    assert_eq!((view.state, view.error.map(|error| error.code)), (JobState::Failed, Some(ErrorCode::Corrupt)));
    driving.abort();
}
