//! A machine with a recorder and a local store.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bubbaloop_storage::{
    clock::{Clock, SystemClock},
    engine::{
        driver::{Deps, Engine, Handover, Tuning},
        events::{Events, Run},
    },
    library::identity::Identity,
    policy::Tick,
    store::{
        Body, ObjectBody, ObjectMeta, ObjectStore, Page, PutMode, StoreError, Stored, local::LocalStore,
        throttle::Throttle,
    },
};
use bubbaloop_storage_schemas::{ChunkName, Digest, UnixNs, keys::ObjectKey, reply::Probe};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The machine's clock. Ticks can be advanced or sped up, and wall time can be set ahead.
#[derive(Debug)]
pub(crate) struct MovedClock {
    clock: SystemClock,
    moved: Mutex<Duration>,
    speed: AtomicU32,
    ahead: Mutex<Duration>,
}

impl Clock for MovedClock {
    fn tick(&self) -> Tick {
        Tick(self.clock.tick().0 * self.speed.load(Ordering::Relaxed)).after(*self.moved.lock().unwrap())
    }

    fn wall(&self) -> UnixNs {
        self.clock.wall() + u64::try_from(self.ahead.lock().unwrap().as_nanos()).unwrap()
    }
}

/// The local store. It counts puts of chunks and can report another probe result.
#[derive(Debug)]
pub(crate) struct CountedStore(LocalStore, AtomicUsize, Mutex<Option<Probe>>);

#[async_trait::async_trait]
impl ObjectStore for CountedStore {
    async fn put(&self, key: &ObjectKey, body: &Body, mode: PutMode) -> Result<Stored, StoreError> {
        if key.as_str().contains("/chunks/") {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        self.0.put(key, body, mode).await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<ObjectBody>, StoreError> {
        self.0.get(key, range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.0.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.0.list(prefix, after, limit).await
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.0.list_folders(prefix).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.0.delete(key).await
    }

    async fn probe(&self) -> Result<Probe, StoreError> {
        let found = self.0.probe().await?;
        Ok(self.2.lock().unwrap().unwrap_or(found))
    }
}

fn identity() -> Identity {
    Identity { machine_id: "robot_1".parse().unwrap(), library_id: "l".into() }
}

/// A machine with a recorder and a local store.
pub(crate) struct Robot {
    pub folder: TempDir,
    pub clock: Arc<MovedClock>,
    pub facts: Arc<Events>,
    pub tuning: Tuning,
    pub store_folder: Option<PathBuf>,
    store: Arc<CountedStore>,
}

impl Robot {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("recordings/drive/chunks")).unwrap();
        let store = Arc::new(CountedStore(
            LocalStore::new(folder.path().join("mnt/bucket")),
            AtomicUsize::new(0),
            Mutex::default(),
        ));
        fs::create_dir(folder.path().join("mnt")).unwrap();
        let clock = Arc::new(MovedClock {
            clock: SystemClock::start(),
            moved: Mutex::default(),
            speed: AtomicU32::new(1),
            ahead: Mutex::default(),
        });
        let facts = Arc::new(Events::new(Arc::new(Run::begin(&*clock)), identity(), Arc::<MovedClock>::clone(&clock)));
        Self { folder, clock, facts, tuning: Tuning::default(), store_folder: None, store }
    }

    /// Returns a node with empty memory, as after a crash.
    pub(crate) fn started(&self) -> Arc<Engine> {
        self.started_with(Arc::<CountedStore>::clone(&self.store), "s")
    }

    /// Returns a node with empty memory and another store.
    pub(crate) fn started_with(&self, store: Arc<dyn ObjectStore>, store_id: &str) -> Arc<Engine> {
        self.started_from(Handover::default(), &self.recordings(), store, store_id)
    }

    /// Returns the engine that replaces an earlier one after a change of settings.
    pub(crate) fn started_after(&self, earlier: &Engine, store_id: &str) -> Arc<Engine> {
        self.started_from(earlier.legacy(), &self.recordings(), Arc::<CountedStore>::clone(&self.store), store_id)
    }

    /// Returns the engine that replaces an earlier one after a change of the recordings folder.
    pub(crate) fn started_in(&self, recordings: &Path, earlier: &Engine) -> Arc<Engine> {
        self.started_from(earlier.legacy(), recordings, Arc::<CountedStore>::clone(&self.store), "s")
    }

    fn recordings(&self) -> PathBuf {
        self.folder.path().join("recordings")
    }

    fn started_from(
        &self,
        legacy: Handover,
        recordings: &Path,
        store: Arc<dyn ObjectStore>,
        store_id: &str,
    ) -> Arc<Engine> {
        let parts = Deps {
            recordings: recordings.to_owned(),
            machine_id: "robot_1".parse().unwrap(),
            store,
            store_id: store_id.into(),
            store_folder: self.store_folder.clone(),
            clock: Arc::<MovedClock>::clone(&self.clock),
            facts: Arc::clone(&self.facts),
            dead_letters: self.folder.path().join("dead_letter.json"),
            state: self.folder.path().join("state.json"),
            settings: Digest::of(b"settings"),
            throttle: Arc::new(Throttle::new(Arc::<MovedClock>::clone(&self.clock))),
        };
        Arc::new(Engine::new(parts, self.tuning.clone(), legacy))
    }

    /// Returns a node that has scanned the library and sent nothing.
    pub(crate) fn started_and_scanned(&self) -> Arc<Engine> {
        let engine = self.started();
        engine.scan().unwrap();
        engine
    }

    pub(crate) fn identity(&self) -> Identity {
        identity()
    }

    pub(crate) fn recording(&self) -> PathBuf {
        self.folder.path().join("recordings/drive")
    }

    pub(crate) fn chunk(&self, index: u32) -> Value {
        self.chunk_of(index, 300_000)
    }

    pub(crate) fn chunk_of(&self, index: u32, size: usize) -> Value {
        let content = vec![u8::try_from(index).unwrap(); size];
        let digest = Digest::of(&content);
        let name = ChunkName::new(index, &digest);
        fs::write(self.recording().join("chunks").join(name.to_string()), &content).unwrap();
        json!({"name": name, "index": index, "size_bytes": content.len(), "sha256": digest})
    }

    pub(crate) fn manifest(&self, chunks: &[Value]) {
        self.manifest_with(chunks, &json!({}));
    }

    /// Writes the manifest of an ended recording.
    pub(crate) fn ended(&self, chunks: &[Value]) {
        self.manifest_with(chunks, &json!({"ended_at_ns": 9}));
    }

    pub(crate) fn manifest_with(&self, chunks: &[Value], more: &Value) {
        let mut manifest = json!({
            "schema_version": 1, "name": "drive", "machine_id": "robot_1", "started_at_ns": 5, "chunks": chunks
        });
        manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fs::write(self.recording().join("manifest.json"), manifest.to_string()).unwrap();
    }

    pub(crate) fn object(&self, chunk: &Value) -> PathBuf {
        self.folder.path().join("mnt/bucket/robot_1/drive/chunks").join(chunk["name"].as_str().unwrap())
    }

    pub(crate) fn is_stored(&self, chunk: &Value) -> bool {
        fs::read(self.object(chunk)).is_ok_and(|bytes| json!(Digest::of(&bytes)) == chunk["sha256"])
    }

    /// Returns the path of a file of the recording in the store.
    pub(crate) fn remote(&self, name: &str) -> PathBuf {
        self.folder.path().join("mnt/bucket/robot_1/drive").join(name)
    }

    /// Returns the chunk indices in a remote manifest.
    pub(crate) fn remote_indices(&self, name: &str) -> Option<Vec<u64>> {
        let manifest: Value = serde_json::from_slice(&fs::read(self.remote(name)).ok()?).unwrap();
        Some(manifest["chunks"].as_array().unwrap().iter().map(|chunk| chunk["index"].as_u64().unwrap()).collect())
    }

    /// Sets a file's modification time back by `age`.
    pub(crate) fn age(&self, path: &Path, age: Duration) {
        let time = std::time::SystemTime::now() - age;
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    }

    /// Sets the result of the store's probe.
    pub(crate) fn is_found_to_be(&self, probe: Probe) {
        *self.store.2.lock().unwrap() = Some(probe);
    }

    pub(crate) fn puts(&self) -> usize {
        self.store.1.load(Ordering::Relaxed)
    }

    /// Sets the wall clock ahead by this much; zero is the correct time.
    pub(crate) fn set_wall_ahead(&self, time: Duration) {
        *self.clock.ahead.lock().unwrap() = time;
    }

    pub(crate) fn pass(&self, time: Duration) {
        *self.clock.moved.lock().unwrap() += time;
    }

    /// Makes ticks pass this many times faster.
    pub(crate) fn hurry(&self, times: u32) {
        self.clock.speed.store(times, Ordering::Relaxed);
    }
}

/// Scans once and does all resulting work.
pub(crate) async fn sync_once(engine: &Arc<Engine>) {
    engine.scan().unwrap();
    engine.drain().await;
}
