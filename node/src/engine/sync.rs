//! From the library to the object store: scans feed the queue, and what the queue says next is carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    pin::pin,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bubbaloop_storage_schemas::{
    ChunkName, Digest, MachineId, RecordingName, UnixNs,
    codec::Format,
    event::FinalizeEvent,
    journal::{JournalEntry, JournalLine, StoreId},
    keys::ObjectKey,
    limits::EVENT_BYTES_MAX,
    manifest::Manifest,
    reply::{ChunkLocal, Probe, RefusedEvents},
};
use tokio::{
    sync::Notify,
    task::{JoinError, JoinHandle, JoinSet, spawn_blocking},
};

use super::transfer::{self, Parcel, Proven, TransferError};
use crate::{
    clock::Clock,
    content::{self, ContentError},
    library::{
        journal,
        scan::{self, ChunkEntry, Folder, Look, Recording},
    },
    policy::{
        Tick,
        intake::{self, Announced, OnDisk, Refused},
        queue::{Block, ChunkId, Item, Limits, Next, Offered, Outcome, Queue},
        recording::{self, ManifestFacts},
    },
    store::{ObjectStore, StoreError, StoreErrorKind},
};

/// What a sync works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The folder of recordings.
    pub recordings: PathBuf,
    /// This machine.
    pub machine_id: MachineId,
    /// Where chunks go.
    pub store: Arc<dyn ObjectStore>,
    /// Its id in the journal.
    pub store_id: StoreId,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// The library in memory, the queue, and what joins them to disk and store.
#[derive(Debug)]
pub struct Sync {
    parts: Parts,
    started_at_ns: UnixNs,
    state: Mutex<State>,
    /// Held while a journal is appended to: two appends to one file would cut each other's line off.
    journals: Mutex<()>,
    is_durable: AtomicBool,
    is_scanned: AtomicBool,
    /// Wakes the running sync when something was queued.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    recordings: BTreeMap<RecordingName, Recording>,
    probe: Option<Probe>,
    refused: RefusedEvents,
}

/// How often the running sync looks, and how long it may take to end.
#[derive(Debug, Clone, Copy)]
pub struct Timers {
    /// Between looks at recordings that go on.
    pub rescan_open: Duration,
    /// Between looks at the whole library.
    pub rescan_all: Duration,
    /// For what is on its way when it ends.
    pub shutdown_grace: Duration,
}

/// The shortest wait of the running sync: a timer that is just due does not spin it.
const WAKE_MIN: Duration = Duration::from_millis(1);

fn told(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an upload ended abnormally");
    }
}

impl Sync {
    /// Makes a sync that knows nothing yet.
    pub fn new(parts: Parts, limits: Limits) -> Self {
        let state = State {
            queue: Queue::new(limits),
            recordings: BTreeMap::new(),
            probe: None,
            refused: RefusedEvents::default(),
        };
        Self {
            started_at_ns: parts.clock.wall(),
            parts,
            state: Mutex::new(state),
            journals: Mutex::new(()),
            is_durable: AtomicBool::new(true),
            is_scanned: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// A panic in another task leaves the state between two idempotent steps, so it is used on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the whole library and offers what is pending. A recording that can't be read keeps what was known of it.
    ///
    /// # Errors
    /// The folder of recordings can't be read: nothing is forgotten.
    pub fn scan(&self) -> io::Result<()> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.parts.recordings)? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(|name| RecordingName::from_str(name).ok()));
        }
        self.state().recordings.retain(|name, _| names.contains(name));
        self.scan_each(names);
        self.is_scanned.store(true, Ordering::Release);
        Ok(())
    }

    /// Reads the recordings that may still change and offers what is pending.
    fn scan_open(&self) {
        let is_open = |recording: &&Recording| recording::is_open(&recording.manifest);
        let names: Vec<_> = self.state().recordings.values().filter(is_open).map(|found| found.name.clone()).collect();
        self.scan_each(names);
    }

    fn scan_each(&self, names: impl IntoIterator<Item = RecordingName>) {
        for name in names {
            if let Err(error) = self.refresh(&name, Look::Scan) {
                tracing::warn!(recording = %name, %error, "a recording can't be read");
            }
        }
    }

    /// Reads one recording and offers what is pending of it.
    ///
    /// # Errors
    /// It can't be read: what was known of it stays.
    pub fn refresh(&self, name: &RecordingName, look: Look) -> Result<(), ContentError> {
        let Parts { recordings, machine_id, store_id, .. } = &self.parts;
        let earlier = self.state().recordings.get(name).cloned();
        let loaded = scan::load(recordings, name, machine_id, store_id, earlier.as_ref(), look)?;
        let mut state = self.state();
        let Some(mut recording) = loaded else {
            state.recordings.remove(name);
            return Ok(());
        };
        if let Some(known) = state.recordings.get(name) {
            recording.keep_from(known);
        }
        for chunk in recording.pending() {
            if state.queue.offer(item(name, chunk, self.started_at_ns)) == Offered::Full {
                break;
            }
        }
        state.recordings.insert(name.clone(), recording);
        Ok(())
    }

    /// Takes in the bytes of a finalize event: what the disk confirms is queued at once.
    ///
    /// Idempotent. What is refused is counted, save `Missing`, which the caller may hold a while and give to
    /// [`Sync::announce`] again before it counts it with [`Sync::refuse`].
    ///
    /// # Errors
    /// Why the event is refused.
    pub fn take_event(&self, bytes: &[u8], format: Option<Format>) -> Result<(), (Refused, Option<Announced>)> {
        let decoded = if bytes.len() > EVENT_BYTES_MAX { None } else { FinalizeEvent::decode(bytes, format).ok() };
        let announced =
            decoded.ok_or(Refused::Undecodable).and_then(|event| intake::check(&event, &self.parts.machine_id));
        let announced = announced.map_err(|refused| (self.refuse(refused), None))?;
        match self.announce(&announced) {
            Ok(()) => Ok(()),
            Err(Refused::Missing) => Err((Refused::Missing, Some(announced))),
            Err(refused) => Err((self.refuse(refused), None)),
        }
    }

    /// Queues an announced chunk if the disk confirms it. Nothing is counted.
    ///
    /// # Errors
    /// Why the disk does not.
    pub fn announce(&self, announced: &Announced) -> Result<(), Refused> {
        let Announced { recording: name, chunk } = announced;
        self.refresh(name, Look::Glance).map_err(|_| Refused::Missing)?;
        let mut guard = self.state();
        let state = &mut *guard;
        let recording = state.recordings.get_mut(name).ok_or(Refused::Missing)?;
        let is_foreign = matches!(recording.manifest, ManifestFacts::Readable { is_ours: false, .. });
        let place = recording.chunks.binary_search_by_key(&chunk.name, |entry| entry.name);
        let entry = place.ok().and_then(|place| recording.chunks.get_mut(place)).ok_or(Refused::Missing)?;
        let disk = match entry.facts.local {
            ChunkLocal::Missing | ChunkLocal::Evicted => OnDisk::Absent,
            ChunkLocal::Present | ChunkLocal::Damaged => {
                let is_other_digest = entry.digest.is_some_and(|digest| digest != chunk.digest);
                OnDisk::Present { size_bytes: entry.size_bytes, is_other_digest, is_foreign }
            }
        };
        intake::compare(chunk, disk)?;
        entry.facts.is_announced = true;
        entry.digest = Some(chunk.digest);
        entry.log_time_first_ns = entry.log_time_first_ns.or(chunk.log_time_first_ns);
        entry.log_time_last_ns = entry.log_time_last_ns.or(chunk.log_time_last_ns);
        if recording::is_pending(&entry.facts) {
            state.queue.offer(item(name, entry, self.started_at_ns));
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Counts a refused event.
    pub fn refuse(&self, refused: Refused) -> Refused {
        intake::count(&mut self.state().refused, refused);
        refused
    }

    /// Returns how many events were refused, and why.
    pub fn refused_events(&self) -> RefusedEvents {
        self.state().refused
    }

    /// Tells whether the library was read whole once.
    pub fn is_scanned(&self) -> bool {
        self.is_scanned.load(Ordering::Acquire)
    }

    /// Reads the view and the queue at one instant. `read` does not call this sync.
    pub fn read<T>(&self, read: impl FnOnce(&BTreeMap<RecordingName, Recording>, &Queue) -> T) -> T {
        let state = self.state();
        read(&state.recordings, &state.queue)
    }

    /// Reads a recording's manifest from disk; `None` where none is readable.
    pub fn manifest(&self, name: &RecordingName) -> Option<Manifest> {
        scan::manifest(&self.parts.recordings, name)
    }

    /// Returns what is known of a recording.
    pub fn recording(&self, name: &RecordingName) -> Option<Recording> {
        self.state().recordings.get(name).cloned()
    }

    /// Returns the fact that stops uploads, if one does.
    pub fn blocked(&self) -> Option<Block> {
        self.state().queue.blocked().cloned()
    }

    /// Returns the chunks that were given up, each with the reason.
    pub fn dead_letters(&self) -> Vec<(ChunkId, String)> {
        self.state().queue.dead_letters().map(|letter| (letter.item.id.clone(), letter.reason.clone())).collect()
    }

    /// Tells whether the journal gets to the disk.
    pub fn is_durable(&self) -> bool {
        self.is_durable.load(Ordering::Relaxed)
    }

    /// Runs until `stop`: scans the library, takes up what is told meanwhile, uploads. Then what is on its way may
    /// end within the grace; what does not is dropped, which is always safe.
    pub async fn run(self: &Arc<Self>, timers: Timers, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut tasks = JoinSet::new();
        let mut scan: Option<JoinHandle<()>> = None;
        let (mut open_at, mut all_at) = (Tick::default(), Tick::default());
        loop {
            let now = self.parts.clock.tick();
            if now >= open_at {
                if scan.as_ref().is_none_or(JoinHandle::is_finished) {
                    scan = Some(self.spawn_scan(now >= all_at));
                    all_at = if now >= all_at { now.after(timers.rescan_all) } else { all_at };
                }
                open_at = now.after(timers.rescan_open);
            }
            let next = self.start_all(&mut tasks);
            let wake = next.map_or(open_at, |next| next.min(open_at)).since(now).max(WAKE_MIN);
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => told(ended),
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wake) => {}
            }
        }
        let drained = async {
            while let Some(ended) = tasks.join_next().await {
                told(ended);
            }
        };
        if tokio::time::timeout(timers.shutdown_grace, drained).await.is_err() {
            tracing::warn!("uploads are cut off: they go on at the next start");
        }
    }

    fn spawn_scan(self: &Arc<Self>, all: bool) -> JoinHandle<()> {
        let sync = Arc::clone(self);
        spawn_blocking(move || {
            if !all {
                sync.scan_open();
            } else if let Err(error) = sync.scan() {
                tracing::warn!(%error, "the folder of recordings can't be read");
            }
            sync.changed.notify_one();
        })
    }

    /// Carries out what the queue says until it has nothing to do at this tick.
    ///
    /// # Cancellation
    /// Uploads under way are dropped between two idempotent steps; the next scan takes them up.
    pub async fn drain(self: &Arc<Self>) {
        let mut tasks = JoinSet::new();
        loop {
            self.start_all(&mut tasks);
            match tasks.join_next().await {
                None => return,
                Some(ended) => told(ended),
            }
        }
    }

    /// Starts all that the queue names now, and returns until when it has nothing more, where it knows.
    fn start_all(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Option<Tick> {
        loop {
            let next = self.state().queue.next(self.parts.clock.tick());
            let sync = Arc::clone(self);
            match next {
                Next::Start { item, attempt } => tasks.spawn(async move { sync.upload(item, attempt).await }),
                Next::Probe => tasks.spawn(async move {
                    let found = sync.probe().await.map(drop);
                    sync.state().queue.probed(found, sync.parts.clock.tick());
                }),
                Next::WaitUntil(tick) => return Some(tick),
                Next::Idle => return None,
            };
        }
    }

    async fn upload(self: &Arc<Self>, item: Item, attempt: u32) {
        let outcome = match self.send(&item, attempt).await {
            Ok(proven) => {
                self.settle(item.clone(), proven).await;
                Outcome::Settled
            }
            Err(error) => {
                tracing::warn!(recording = %item.id.recording, chunk = %item.id.chunk, %error, "an upload failed");
                if self.was_misled(&item, &error) {
                    self.refuse(Refused::Mismatch);
                    let mut state = self.state();
                    let (now, reason) = (self.parts.clock.tick(), error.to_string());
                    state.queue.finish(&item.id, Outcome::Dead(reason), now, 0.0);
                    return state.queue.forget(&item.id);
                }
                self.note_damage(&item, &error);
                error.into()
            }
        };
        self.state().queue.finish(&item.id, outcome, self.parts.clock.tick(), fastrand::f64());
    }

    async fn send(&self, item: &Item, attempt: u32) -> Result<Proven, TransferError> {
        let known = self.state().probe;
        let probe = match known {
            Some(probe) => probe,
            None => self.probe().await.map_err(|block| {
                let message = format!("the store can't be used: {}", block.hint);
                StoreError::new(StoreErrorKind::Blocked(block), message)
            })?,
        };
        let parcel = self.parcel(item, attempt).await?;
        transfer::send(&*self.parts.store, probe, &parcel).await
    }

    /// Probes the store and remembers what was found. What is no block is taken for an unreachable store.
    async fn probe(&self) -> Result<Probe, Block> {
        let probe = self.parts.store.probe().await.map_err(|error| match error.kind {
            StoreErrorKind::Blocked(block) => block,
            _ => Block { reason: "unreachable".into(), hint: error.message },
        })?;
        self.state().probe = Some(probe);
        Ok(probe)
    }

    async fn parcel(&self, item: &Item, attempt: u32) -> Result<Parcel, StoreError> {
        let id = &item.id;
        let gone = || StoreError::from(ContentError::Gone(self.parts.recordings.join(id.recording.as_str())));
        let (machine_id, known) = {
            let state = self.state();
            let recording = state.recordings.get(&id.recording).ok_or_else(gone)?;
            (recording.machine_id.clone(), recording.chunk(id.chunk).and_then(|chunk| chunk.digest))
        };
        let path = Folder::new(&self.parts.recordings, &id.recording).chunk(id.chunk);
        let digest = match known {
            Some(digest) => digest,
            None => hash_named(path.clone(), id.chunk).await?,
        };
        let key = ObjectKey::chunk(&machine_id, &id.recording, id.chunk);
        Ok(Parcel { path, digest, key, may_be_there: attempt > 1 || !item.is_fresh })
    }

    /// Writes the mark to the journal, then takes it into the view.
    ///
    /// A disk that is full loses no upload: the mark stays in memory, and after a restart the chunk is found
    /// at the store.
    async fn settle(self: &Arc<Self>, item: Item, proven: Proven) {
        let sync = Arc::clone(self);
        let written = spawn_blocking(move || sync.settle_now(&item, proven)).await;
        if let Err(error) = written {
            tracing::error!(%error, "writing a mark ended abnormally");
        }
    }

    fn settle_now(&self, item: &Item, proven: Proven) {
        let Item { id, size_bytes, .. } = item;
        let Proven { digest, proof, etag } = proven;
        let at_ns = self.parts.clock.wall();
        let entry = JournalEntry::Uploaded { chunk: id.chunk, sha256: digest, size_bytes: *size_bytes, proof, etag };
        let line = JournalLine { at_ns, store_id: self.parts.store_id.clone(), entry };
        let journal = Folder::new(&self.parts.recordings, &id.recording).journal();
        let result = {
            let _one_writer = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
            journal::append(&journal, &line)
        };
        if let Err(error) = &result {
            tracing::error!(recording = %id.recording, chunk = %id.chunk, %error, "the journal can't be written");
        }
        self.is_durable.store(result.is_ok(), Ordering::Relaxed);
        self.change(id, |chunk| {
            chunk.digest = Some(digest);
            chunk.facts.proof = Some(proof);
            chunk.marked_at_ns = Some(at_ns);
        });
    }

    fn change(&self, id: &ChunkId, change: impl FnOnce(&mut ChunkEntry)) {
        let mut state = self.state();
        let Some(recording) = state.recordings.get_mut(&id.recording) else { return };
        if let Ok(place) = recording.chunks.binary_search_by_key(&id.chunk, |chunk| chunk.name) {
            change(&mut recording.chunks[place]);
        }
    }

    /// Tells whether the file is sound and only an event named a digest for it that it does not have. The event's
    /// word is taken back: the file goes up as any other that no manifest names.
    fn was_misled(&self, item: &Item, error: &TransferError) -> bool {
        let TransferError::Store(StoreError { kind: StoreErrorKind::Content(content), .. }) = error else {
            return false;
        };
        let ContentError::Damaged { found, .. } = content else { return false };
        let mut was_misled = false;
        self.change(&item.id, |chunk| {
            was_misled = !chunk.facts.is_listed && chunk.facts.is_announced && chunk.name.fits(found);
            if was_misled {
                chunk.digest = None;
                chunk.facts.is_announced = false;
            }
        });
        was_misled
    }

    fn note_damage(&self, item: &Item, error: &TransferError) {
        let TransferError::Store(StoreError { kind: StoreErrorKind::Content(content), .. }) = error else { return };
        let local = match content {
            ContentError::Damaged { .. } | ContentError::Misnamed { .. } => ChunkLocal::Damaged,
            ContentError::Gone(_) => ChunkLocal::Missing,
            ContentError::Unreadable { .. } => return,
        };
        self.change(&item.id, |chunk| chunk.facts.local = local);
    }
}

/// A chunk that was finalized since the run started can't have been sent by an earlier one.
fn item(recording: &RecordingName, chunk: &ChunkEntry, started_at_ns: UnixNs) -> Item {
    Item {
        id: ChunkId { recording: recording.clone(), chunk: chunk.name },
        size_bytes: chunk.size_bytes,
        finalized_at_ns: chunk.finalized_at_ns,
        is_fresh: chunk.finalized_at_ns >= started_at_ns,
    }
}

/// Hashes a chunk of which only the name is known; bytes that do not fit the name are damaged.
async fn hash_named(path: PathBuf, name: ChunkName) -> Result<Digest, StoreError> {
    let hashed = spawn_blocking(move || {
        let (found, size_bytes) = content::hash(&path)?;
        if name.fits(&found) { Ok(found) } else { Err(ContentError::Misnamed { path, size_bytes, found }) }
    });
    let ended = |error| StoreError::new(StoreErrorKind::Retry { after: None }, format!("hashing ended: {error}"));
    Ok(hashed.await.map_err(ended)??)
}
