//! Reconcile on real files and real stores, row by row: what it finds, what it heals, and what it leaves unchanged.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bubbaloop_storage::{
    engine::{
        driver::Engine,
        reconcile::{ReconcileError, ReconcileOptions, reconcile},
    },
    library::scan::Recording,
    policy::queue::Block,
    store::{
        Body, ObjectBody, ObjectMeta, ObjectStore, Page, PutMode, StoreError, StoreErrorKind, Stored, local::LocalStore,
    },
};
use bubbaloop_storage_schemas::{
    BlockReason, RecordingName,
    keys::ObjectKey,
    reconcile::{ActionKind, FindingKind, ReconcileResult},
    reply::{ChunkLocal, Probe, Progress, Proof},
};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::{
    s3_store,
    support::{
        robot::{Robot, sync_once},
        servers::Server,
    },
};

const POLL: Duration = Duration::from_millis(2);
const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const DEEP: ReconcileOptions = ReconcileOptions { deep: true, dry_run: false, restore: false };
pub(crate) const SHALLOW: ReconcileOptions = ReconcileOptions { deep: false, dry_run: false, restore: false };

pub(crate) fn drive() -> RecordingName {
    "drive".parse().unwrap()
}

pub(crate) fn view(engine: &Engine) -> Arc<Recording> {
    engine.recording(&drive()).unwrap()
}

/// Which requests a store refuses, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    ListUnreachable,
    ReadsDenied,
    OverwriteDenied,
    HeadDenied,
    EtagsUntold,
    /// Not a fault of the store, but of the node.
    Panics,
}

/// The local store. It counts requests and refuses some of them.
#[derive(Debug)]
pub(crate) struct Watched {
    store: LocalStore,
    fault: Mutex<Option<Fault>>,
    lists: AtomicUsize,
    others: AtomicUsize,
    puts: AtomicUsize,
}

impl Watched {
    pub(crate) fn of(robot: &Robot) -> Arc<Self> {
        let store = LocalStore::new(robot.folder.path().join("mnt/bucket"));
        let (lists, others, puts) = Default::default();
        Arc::new(Self { store, fault: Mutex::default(), lists, others, puts })
    }

    pub(crate) fn fails(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    fn refused(&self, by: &[Fault]) -> Result<(), StoreError> {
        let fault = self.fault.lock().unwrap().filter(|fault| by.contains(fault));
        let denied = || StoreErrorKind::Blocked(Block::new(BlockReason::AccessDenied, "grant it"));
        match fault {
            None => Ok(()),
            Some(Fault::Panics) => panic!("this is what a fault of ours does"),
            Some(Fault::ListUnreachable) => {
                Err(StoreError::new(StoreErrorKind::Retry { after: None }, "connection refused"))
            }
            Some(Fault::ReadsDenied | Fault::OverwriteDenied | Fault::HeadDenied | Fault::EtagsUntold) => {
                Err(StoreError::new(denied(), "access denied"))
            }
        }
    }

    fn told(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if *self.fault.lock().unwrap() == Some(Fault::EtagsUntold) {
            (meta.etag, meta.digest) = (String::new(), None);
        }
        meta
    }

    fn requests(&self) -> (usize, usize) {
        (self.lists.swap(0, Ordering::Relaxed), self.others.swap(0, Ordering::Relaxed))
    }
}

#[async_trait::async_trait]
impl ObjectStore for Watched {
    async fn put(&self, key: &ObjectKey, body: &Body, mode: PutMode) -> Result<Stored, StoreError> {
        self.others.fetch_add(1, Ordering::Relaxed);
        self.puts.fetch_add(1, Ordering::Relaxed);
        if mode == PutMode::Overwrite {
            self.refused(&[Fault::OverwriteDenied])?;
        }
        self.store.put(key, body, mode).await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<ObjectBody>, StoreError> {
        self.others.fetch_add(1, Ordering::Relaxed);
        self.refused(&[Fault::ReadsDenied])?;
        let object = self.store.get(key, range).await?;
        Ok(object.map(|mut object| {
            object.meta = self.told(object.meta);
            object
        }))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.others.fetch_add(1, Ordering::Relaxed);
        self.refused(&[Fault::ReadsDenied, Fault::HeadDenied])?;
        Ok(self.store.head(key).await?.map(|meta| self.told(meta)))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.refused(&[Fault::ListUnreachable, Fault::ReadsDenied, Fault::Panics])?;
        let mut page = self.store.list(prefix, after, limit).await?;
        page.objects = page.objects.into_iter().map(|meta| self.told(meta)).collect();
        Ok(page)
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.refused(&[Fault::ListUnreachable, Fault::ReadsDenied])?;
        self.store.list_folders(prefix).await
    }

    async fn delete(&self, _: &ObjectKey) -> Result<(), StoreError> {
        unreachable!("reconcile removes nothing")
    }

    async fn probe(&self) -> Result<Probe, StoreError> {
        self.store.probe().await
    }
}

/// Carries out queued work as a running node does.
struct Driver(AbortHandle);

impl Driver {
    fn of(engine: &Arc<Engine>) -> Self {
        let engine = Arc::clone(engine);
        let driving = async move {
            loop {
                engine.drain().await;
                tokio::time::sleep(POLL).await;
            }
        };
        Self(tokio::spawn(driving).abort_handle())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn run(engine: &Arc<Engine>, options: ReconcileOptions) -> ReconcileResult {
    let _driver = (!options.dry_run).then(|| Driver::of(engine));
    let heard = Mutex::new(Progress::default());
    let name = drive();
    let progress = |progress| *heard.lock().unwrap() = progress;
    let ended = reconcile(engine, &name, options, &progress);
    let result = tokio::time::timeout(DEADLINE, ended).await.unwrap().unwrap().result;
    let last = *heard.lock().unwrap();
    assert_eq!((last.chunks_done, last.bytes_done), (last.chunks_total, last.bytes_total), "all of it is told as done");
    assert_eq!(last.chunks_total, result.counts.chunks);
    result
}

pub(crate) fn findings(result: &ReconcileResult) -> Vec<FindingKind> {
    result.findings.iter().map(|finding| finding.kind).collect()
}

pub(crate) fn actions(result: &ReconcileResult) -> Vec<ActionKind> {
    result.actions.iter().map(|action| action.kind).collect()
}

/// Returns every file below a folder with its bytes.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Checks that a dry run reports the plan and changes nothing, that the run does it, and that a second run finds
/// nothing to do.
async fn heals(robot: &Robot, deep: bool, wanted: (&[FindingKind], &[ActionKind])) -> Arc<Engine> {
    let options = if deep { DEEP } else { SHALLOW };
    let engine = robot.started_and_scanned();
    engine.scan().unwrap();
    // A running node has probed its store before the first request.
    reconcile(&engine, &"never".parse().unwrap(), SHALLOW, &|_| {}).await.unwrap_err();
    let folder = robot.folder.path();
    let before = snapshot(folder);
    let planned = run(&engine, ReconcileOptions { dry_run: true, ..options }).await;
    assert_eq!((findings(&planned), actions(&planned)), (wanted.0.to_vec(), wanted.1.to_vec()), "{planned:#?}");
    assert!(snapshot(folder) == before, "a dry run changes nothing on either side");
    let done = run(&engine, options).await;
    assert_eq!((findings(&done), actions(&done)), (wanted.0.to_vec(), wanted.1.to_vec()), "{done:#?}");
    for engine in [engine, robot.started_and_scanned()] {
        engine.scan().unwrap();
        let again = run(&engine, options).await;
        assert_eq!((findings(&again), actions(&again)), (wanted.0.to_vec(), vec![]), "{again:#?}");
    }
    robot.started_and_scanned()
}

/// Returns a robot with an ended recording of one chunk, which is in the store or not.
pub(crate) async fn robot_with_chunk(is_stored: bool) -> (Robot, Value) {
    let mut robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(std::slice::from_ref(&chunk));
    if is_stored {
        sync_once(&robot.started()).await;
        assert!(robot.is_stored(&chunk));
    }
    robot.tuning.settings.auto_upload = false;
    (robot, chunk)
}

pub(crate) fn file(robot: &Robot, chunk: &Value) -> std::path::PathBuf {
    robot.recording().join("chunks").join(chunk["name"].as_str().unwrap())
}

pub(crate) fn damage(robot: &Robot, chunk: &Value) {
    let mut bytes = fs::read(file(robot, chunk)).unwrap();
    bytes[1000] ^= 1;
    fs::write(file(robot, chunk), bytes).unwrap();
}

pub(crate) fn plant(robot: &Robot, chunk: &Value) {
    fs::create_dir_all(robot.object(chunk).parent().unwrap()).unwrap();
    fs::write(robot.object(chunk), "planted").unwrap();
}

fn forget_journal(robot: &Robot) {
    fs::remove_file(robot.recording().join("uploads.jsonl")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intact_chunk_is_stored_whatever_stands_under_its_key() {
    let (robot, chunk) = robot_with_chunk(false).await;
    let engine = heals(&robot, false, (&[], &[ActionKind::Upload, ActionKind::Publish])).await;
    assert!(robot.is_stored(&chunk) && robot.remote_indices("manifest.json") == Some(vec![0]));
    assert_eq!(view(&engine).chunks[0].facts.proof, Some(Proof::Enforced));

    forget_journal(&robot);
    heals(&robot, false, (&[], &[ActionKind::Mark, ActionKind::Publish])).await;

    // The object is removed outside the node. The journal still says that it is there.
    fs::remove_file(robot.object(&chunk)).unwrap();
    heals(&robot, false, (&[], &[ActionKind::Unmark, ActionKind::Upload, ActionKind::Publish])).await;
    assert!(robot.is_stored(&chunk));

    plant(&robot, &chunk);
    heals(&robot, false, (&[], &[ActionKind::Unmark, ActionKind::Replace, ActionKind::Publish])).await;
    assert!(robot.is_stored(&chunk), "the planted bytes are replaced by the chunk's own");

    fs::remove_file(robot.remote("manifest.json")).unwrap();
    heals(&robot, false, (&[], &[ActionKind::Publish])).await;
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_chunk_is_never_sent_and_a_recording_that_cannot_be_healed_is_corrupt() {
    let (robot, chunk) = robot_with_chunk(false).await;
    damage(&robot, &chunk);
    heals(&robot, true, (&[FindingKind::Lost], &[ActionKind::MarkCorrupt])).await;
    assert!(!robot.object(&chunk).exists());

    plant(&robot, &chunk);
    let engine = heals(&robot, true, (&[FindingKind::Lost], &[])).await;
    assert_eq!(fs::read(robot.object(&chunk)).unwrap(), b"planted", "only proven bytes replace");
    assert!(view(&engine).is_corrupt);

    let (robot, chunk) = robot_with_chunk(true).await;
    damage(&robot, &chunk);
    let engine = heals(&robot, true, (&[FindingKind::Damaged], &[])).await;
    assert!(!view(&engine).is_corrupt, "the store can heal it");
    forget_journal(&robot);
    heals(&robot, true, (&[FindingKind::Damaged], &[ActionKind::Mark, ActionKind::Publish])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_chunk_is_reported_by_whether_the_store_has_it() {
    let (robot, chunk) = robot_with_chunk(true).await;
    fs::remove_file(file(&robot, &chunk)).unwrap();
    heals(&robot, false, (&[FindingKind::Missing], &[])).await;
    forget_journal(&robot);
    let engine = heals(&robot, false, (&[FindingKind::Missing], &[ActionKind::Mark, ActionKind::Publish])).await;
    assert!(view(&engine).chunks[0].facts.proof.is_some_and(Proof::is_proven));

    plant(&robot, &chunk);
    let lost = [ActionKind::Unmark, ActionKind::MarkCorrupt, ActionKind::Publish];
    let engine = heals(&robot, false, (&[FindingKind::Lost], &lost)).await;
    assert_eq!((view(&engine).chunks[0].facts.proof, view(&engine).is_corrupt), (None, true), "no mark lies on");

    let (robot, chunk) = robot_with_chunk(false).await;
    fs::remove_file(file(&robot, &chunk)).unwrap();
    heals(&robot, false, (&[FindingKind::Lost], &[ActionKind::MarkCorrupt])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_no_manifest_names_are_reported_and_left_alone() {
    let (robot, chunk) = robot_with_chunk(true).await;
    let orphan = robot.chunk(1);
    heals(&robot, false, (&[FindingKind::OrphanFile], &[])).await;
    assert!(!robot.object(&orphan).exists());
    plant(&robot, &orphan);
    heals(&robot, false, (&[FindingKind::OrphanFile, FindingKind::OrphanObject], &[])).await;
    fs::remove_file(file(&robot, &orphan)).unwrap();
    heals(&robot, false, (&[FindingKind::OrphanObject], &[])).await;
    assert_eq!(fs::read(robot.object(&orphan)).unwrap(), b"planted");
    assert!(robot.is_stored(&chunk));

    fs::write(robot.recording().join("chunks/odd.mcap"), "x").unwrap();
    heals(&robot, false, (&[FindingKind::OrphanFile, FindingKind::OrphanObject], &[])).await;

    fs::remove_file(robot.remote("manifest.json")).unwrap();
    fs::write(robot.remote("manifest.json"), "no manifest at all").unwrap();
    let engine = robot.started_and_scanned();
    let told = run(&engine, ReconcileOptions { dry_run: true, ..SHALLOW }).await;
    assert!(findings(&told).contains(&FindingKind::Unknown), "what can't be read names nobody knows what: {told:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unproven_claim_of_the_store_is_proven() {
    let (robot, chunk) = robot_with_chunk(true).await;
    forget_journal(&robot);
    let store = LocalStore::new(robot.folder.path().join("mnt/bucket"));
    let probe = Probe { enforces_sha256: false, ..store.probe().await.unwrap() };
    robot.is_found_to_be(probe);
    let engine = robot.started_and_scanned();
    let done = run(&engine, SHALLOW).await;
    assert_eq!((findings(&done), actions(&done)), (vec![], vec![ActionKind::Prove, ActionKind::Publish]));
    assert_eq!(view(&engine).chunks[0].facts.proof, Some(Proof::ReadBack));
    assert_eq!(actions(&run(&engine, SHALLOW).await), []);

    // An object that turns out to be different is replaced in the second round.
    forget_journal(&robot);
    plant(&robot, &chunk);
    let engine = robot.started_and_scanned();
    let done = run(&engine, SHALLOW).await;
    assert_eq!((findings(&done), actions(&done)), (vec![], vec![ActionKind::Replace, ActionKind::Publish]));
    assert!(robot.is_stored(&chunk));
    assert_eq!((actions(&run(&engine, SHALLOW).await), engine.dead_letters()), (vec![], vec![]));

    // If a chunk can't be sent again, an unproven claim neither helps nor counts as a loss.
    forget_journal(&robot);
    fs::remove_file(file(&robot, &chunk)).unwrap();
    let engine = robot.started_and_scanned();
    let told = run(&engine, SHALLOW).await;
    assert_eq!((findings(&told), actions(&told)), (vec![FindingKind::Claimed], vec![]));
    assert_eq!(actions(&run(&engine, DEEP).await), [ActionKind::Mark, ActionKind::Publish], "deep fetches and hashes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_gives_no_answer_is_never_taken_for_empty() {
    for (is_stored, fault) in [
        (true, Fault::ListUnreachable),
        (true, Fault::ReadsDenied),
        (false, Fault::ListUnreachable),
        (false, Fault::ReadsDenied),
    ] {
        let (robot, chunk) = robot_with_chunk(is_stored).await;
        for is_missing in [false, true] {
            if is_missing {
                fs::remove_file(file(&robot, &chunk)).unwrap();
            }
            let store = Watched::of(&robot);
            store.fails(Some(fault));
            let engine = robot.started_with(Arc::<Watched>::clone(&store), "s");
            let before = (snapshot(&robot.recording()), snapshot(&robot.remote("")));
            for options in [SHALLOW, DEEP] {
                let told = run(&engine, options).await;
                assert!(findings(&told).iter().all(|kind| *kind == FindingKind::Unknown), "{fault:?} {told:#?}");
                assert!(!told.findings.is_empty() && told.actions.is_empty(), "{fault:?} {told:#?}");
            }
            assert!((snapshot(&robot.recording()), snapshot(&robot.remote(""))) == before);
            store.fails(None);
            let told = run(&engine, ReconcileOptions { dry_run: true, ..SHALLOW }).await;
            assert!(!findings(&told).contains(&FindingKind::Unknown), "it is asked again: {told:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_look_at_an_object_leaves_its_mark() {
    let (robot, chunk) = robot_with_chunk(true).await;
    plant(&robot, &chunk);
    let store = Watched::of(&robot);
    store.fails(Some(Fault::HeadDenied));
    let engine = robot.started_with(Arc::<Watched>::clone(&store), "s");
    let told = run(&engine, SHALLOW).await;
    assert_eq!((findings(&told), actions(&told)), (vec![FindingKind::Unknown], vec![]));
    assert!(view(&engine).chunks[0].facts.proof.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_etags_is_written_to_only_if_something_is_missing() {
    let (robot, chunk) = robot_with_chunk(true).await;
    let store = Watched::of(&robot);
    store.fails(Some(Fault::EtagsUntold));
    let engine = robot.started_with(Arc::<Watched>::clone(&store), "s");
    engine.scan().unwrap();
    for options in [SHALLOW, SHALLOW, DEEP] {
        let told = run(&engine, options).await;
        assert_eq!((findings(&told), actions(&told)), (vec![], vec![]));
        assert_eq!(engine.verify().await.unwrap(), 0);
        engine.drain().await;
    }
    assert_eq!(store.puts.load(Ordering::Relaxed), 0, "what stands there is as it was written");

    fs::remove_file(robot.remote("manifest.json")).unwrap();
    assert_eq!(actions(&run(&engine, SHALLOW).await), [ActionKind::Publish]);
    fs::remove_file(robot.remote("manifest.json")).unwrap();
    fs::remove_file(robot.object(&chunk)).unwrap();
    assert_eq!(engine.verify().await.unwrap(), 1);
    assert_eq!(actions(&run(&engine, SHALLOW).await), [ActionKind::Upload, ActionKind::Publish]);
    assert!(robot.is_stored(&chunk) && robot.remote_indices("manifest.json") == Some(vec![0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forbids_replacement_needs_its_owner() {
    let (robot, chunk) = robot_with_chunk(false).await;
    plant(&robot, &chunk);
    let store = Watched::of(&robot);
    store.fails(Some(Fault::OverwriteDenied));
    let engine = robot.started_with(Arc::<Watched>::clone(&store), "s");
    for _ in 0..2 {
        let told = run(&engine, SHALLOW).await;
        assert_eq!((findings(&told), actions(&told)), (vec![FindingKind::NeedsOwner], vec![]));
        assert_eq!(fs::read(robot.object(&chunk)).unwrap(), b"planted");
    }
    store.fails(None);
    assert_eq!(actions(&run(&engine, SHALLOW).await), [ActionKind::Replace, ActionKind::Publish]);
    assert!(robot.is_stored(&chunk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_with_other_bytes_stays_if_the_local_bytes_are_damaged_too() {
    let (robot, chunk) = robot_with_chunk(true).await;
    plant(&robot, &chunk);
    damage(&robot, &chunk);
    let engine = robot.started_and_scanned();
    let told = run(&engine, SHALLOW).await;
    let done = [ActionKind::Unmark, ActionKind::MarkCorrupt, ActionKind::Publish];
    assert_eq!((findings(&told), actions(&told)), (vec![FindingKind::Lost], done.to_vec()));
    assert_eq!(fs::read(robot.object(&chunk)).unwrap(), b"planted");
    assert_eq!(view(&engine).chunks[0].facts.local, ChunkLocal::Damaged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupt_lasts_over_a_restart_and_ends_when_it_is_healed() {
    let (robot, chunk) = robot_with_chunk(false).await;
    let sound = fs::read(file(&robot, &chunk)).unwrap();
    damage(&robot, &chunk);
    let engine = robot.started_and_scanned();
    assert!(!view(&engine).is_corrupt);
    // Without `deep`, the damage is found when the chunk is sent.
    let told = run(&engine, SHALLOW).await;
    assert_eq!((findings(&told), actions(&told)), (vec![FindingKind::Lost], vec![ActionKind::MarkCorrupt]));
    assert!(view(&engine).is_corrupt);
    let engine = robot.started_and_scanned();
    assert!(view(&engine).is_corrupt, "the journal says so");
    let told = run(&engine, SHALLOW).await;
    assert_eq!((findings(&told), actions(&told)), (vec![FindingKind::Lost], vec![]), "its files are looked at");

    fs::write(file(&robot, &chunk), sound).unwrap();
    let told = run(&engine, SHALLOW).await;
    assert_eq!(actions(&told), [ActionKind::Upload, ActionKind::ClearCorrupt, ActionKind::Publish]);
    assert!(!view(&engine).is_corrupt && robot.is_stored(&chunk) && engine.dead_letters().is_empty());
    assert!(!view(&robot.started_and_scanned()).is_corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_tried_again() {
    let (robot, chunk) = robot_with_chunk(false).await;
    plant(&robot, &chunk);
    let engine = robot.started_and_scanned();
    engine.ask(Some(&drive()));
    engine.drain().await;
    assert_eq!(engine.dead_letters().len(), 1);
    fs::remove_file(robot.object(&chunk)).unwrap();
    assert_eq!(actions(&run(&engine, SHALLOW).await), [ActionKind::Upload, ActionKind::Publish]);
    assert_eq!(engine.dead_letters(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_run_is_completed_by_the_next_one() {
    let (robot, chunk) = robot_with_chunk(false).await;
    let engine = robot.started_and_scanned();
    // Nothing drives the queue, so the job waits for its upload when it is dropped.
    let name = drive();
    let dropped = tokio::time::timeout(Duration::from_millis(200), reconcile(&engine, &name, SHALLOW, &|_| {})).await;
    assert!(dropped.is_err() && !robot.is_stored(&chunk));
    engine.drain().await;
    assert!(robot.is_stored(&chunk), "what was handed to the queue goes up all the same");
    assert_eq!(findings(&run(&engine, SHALLOW).await), []);
    assert_eq!(actions(&run(&robot.started_and_scanned(), DEEP).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proven_chunks_cost_listings_only() {
    let robot = Robot::new();
    let chunks: Vec<_> = (0..255).map(|index| robot.chunk(index)).collect();
    robot.ended(&chunks);
    let store = Watched::of(&robot);
    let engine = robot.started_with(Arc::<Watched>::clone(&store), "s");
    sync_once(&engine).await;
    store.requests();
    let told = run(&engine, SHALLOW).await;
    assert_eq!((told.counts.chunks, told.counts.proven_chunks), (255, 255));
    assert_eq!((findings(&told), actions(&told), store.requests()), (vec![], vec![], (1, 0)));
    run(&engine, DEEP).await;
    assert_eq!(store.requests(), (1, 255), "deep fetches each object");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corruption_in_the_store_is_found_by_deep_and_healed() {
    let (robot, chunk) = robot_with_chunk(true).await;
    let mut bytes = fs::read(robot.object(&chunk)).unwrap();
    bytes[7] ^= 1;
    let modified = fs::metadata(robot.object(&chunk)).unwrap().modified().unwrap();
    fs::write(robot.object(&chunk), bytes).unwrap();
    fs::File::options().write(true).open(robot.object(&chunk)).unwrap().set_modified(modified).unwrap();
    let engine = robot.started_and_scanned();
    assert_eq!(actions(&run(&engine, SHALLOW).await), [], "a listing does not show it");
    let done = [ActionKind::Unmark, ActionKind::Replace, ActionKind::Publish];
    assert_eq!(actions(&run(&engine, DEEP).await), done);
    assert!(robot.is_stored(&chunk));
    assert_eq!(actions(&run(&engine, DEEP).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_local_manifest_the_remote_one_says_which_chunks_belong_to_it() {
    let (robot, _) = robot_with_chunk(true).await;
    let manifest = fs::read(robot.recording().join("manifest.json")).unwrap();
    fs::remove_file(robot.recording().join("manifest.json")).unwrap();
    heals(&robot, false, (&[FindingKind::ManifestUnreadable], &[])).await;
    fs::write(robot.recording().join("manifest.json"), "{").unwrap();
    heals(&robot, false, (&[FindingKind::ManifestUnreadable], &[])).await;

    fs::remove_dir_all(robot.recording()).unwrap();
    let engine = robot.started_and_scanned();
    let told = run(&engine, SHALLOW).await;
    let kinds = [FindingKind::ManifestUnreadable, FindingKind::Missing];
    assert_eq!((findings(&told), actions(&told)), (kinds.to_vec(), vec![]));
    assert!(!robot.recording().exists(), "nothing is made of what is only in the store");
    let none = reconcile(&engine, &"never".parse().unwrap(), SHALLOW, &|_| {}).await;
    assert!(matches!(none, Err(ReconcileError::NotFound)));

    fs::create_dir_all(robot.recording().join("chunks")).unwrap();
    let theirs = String::from_utf8(manifest).unwrap().replace("robot_1", "robot_2");
    fs::write(robot.recording().join("manifest.json"), theirs).unwrap();
    heals(&robot, false, (&[FindingKind::Foreign], &[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_captures_objects_are_no_orphans() {
    let (robot, chunk) = robot_with_chunk(true).await;
    let other = robot.chunk(1);
    fs::rename(file(&robot, &other), robot.object(&other)).unwrap();
    let theirs = json!({
        "schema_version": 1, "name": "drive", "machine_id": "robot_1", "started_at_ns": 77, "chunks": [other]
    });
    fs::write(robot.remote("manifest.json"), theirs.to_string()).unwrap();
    heals(&robot, false, (&[FindingKind::NameTaken], &[ActionKind::Publish])).await;
    assert_eq!(fs::read_to_string(robot.remote("manifest.json")).unwrap(), theirs.to_string());
    assert_eq!(robot.remote_indices("manifest.5.json"), Some(vec![0]));
    assert!(robot.is_stored(&chunk) && robot.is_stored(&other));
}

/// The most important rows on a server that checks what it receives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_on_a_real_server() {
    let server = Server::seaweedfs().await;
    server.bucket("reconcile").await;
    let store = s3_store::opened(&s3_store::settings(&server.endpoint, "reconcile")).await;
    let mut robot = Robot::new();
    robot.tuning.settings.auto_upload = false;
    let chunks: Vec<_> = (0..4).map(|index| robot.chunk(index)).collect();
    robot.ended(&chunks);
    let started = || robot.started_with(Arc::clone(&store) as Arc<dyn ObjectStore>, "s");
    let key = |index: usize| format!("reconcile/robot_1/drive/chunks/{}", chunks[index]["name"].as_str().unwrap());
    let engine = started();
    let done = run(&engine, SHALLOW).await;
    let uploads = [ActionKind::Upload; 4].into_iter().chain([ActionKind::Publish]);
    assert_eq!((findings(&done), actions(&done)), (vec![], uploads.collect::<Vec<_>>()));
    for options in [SHALLOW, DEEP] {
        assert_eq!(actions(&run(&engine, options).await), [], "{options:?}");
    }

    server.remove(&key(0)).await;
    server.request("PUT", &key(1), &[], b"planted").await.unwrap();
    server.remove(&key(2)).await;
    fs::remove_file(file(&robot, &chunks[2])).unwrap();
    fs::remove_file(file(&robot, &chunks[3])).unwrap();
    server.remove("reconcile/robot_1/drive/manifest.json").await;
    let engine = started();
    let before = (snapshot(robot.folder.path()), server.content(&key(1)).await);
    let planned = run(&engine, ReconcileOptions { dry_run: true, ..DEEP }).await;
    assert!((snapshot(robot.folder.path()), server.content(&key(1)).await) == before, "a dry run changes nothing");
    assert!(server.content(&key(0)).await.is_none() && !planned.actions.is_empty());
    let done = run(&engine, DEEP).await;
    assert_eq!(findings(&done), [FindingKind::Lost, FindingKind::Missing], "{done:#?}");
    let kinds: BTreeMap<_, _> = done.counts.actions.iter().map(|row| (row.kind, row.count)).collect();
    let wanted = [
        (ActionKind::Unmark, 3),
        (ActionKind::Upload, 1),
        (ActionKind::Replace, 1),
        (ActionKind::MarkCorrupt, 1),
        (ActionKind::Publish, 1),
    ];
    assert_eq!(kinds, BTreeMap::from(wanted), "{done:#?}");
    for index in [0, 1] {
        assert_eq!(server.content(&key(index)).await.unwrap(), fs::read(file(&robot, &chunks[index])).unwrap());
    }
    assert!(server.content("reconcile/robot_1/drive/manifest.json").await.is_some());
    let again = run(&started(), DEEP).await;
    assert_eq!((findings(&again), actions(&again)), (vec![FindingKind::Lost, FindingKind::Missing], vec![]));

    forget_journal(&robot);
    let done = run(&started(), SHALLOW).await;
    assert!(actions(&done).contains(&ActionKind::Mark) || actions(&done).contains(&ActionKind::Prove), "{done:#?}");
    assert_eq!(actions(&run(&started(), SHALLOW).await), []);
}
