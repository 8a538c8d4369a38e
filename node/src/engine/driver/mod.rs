//! From the library to the object store: scans feed the queue, and what the queue says next is carried out.
//!
//! `intake` takes in what comes, `library` knows whether the folder is the one that it was, `upload` sends one chunk,
//! `marks` writes down that the store has it, `letters` remembers those that were given up, `pause` a person's word,
//! `publish` writes remote manifests, `verify` compares marks and store, `heal` is what reconcile changes, `removal` what a
//! removal does; here is the state that they share and the loop that drives them.

mod adopted;
mod doubt;
mod evict;
mod heal;
mod intake;
mod letters;
mod library;
mod marks;
mod parts;
mod pause;
mod publish;
mod removal;
mod tuning;
mod upload;
mod verify;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bubbaloop_storage_schemas::{
    Digest, MachineId, RecordingName, UnixNs,
    event::Fact,
    journal::StoreId,
    manifest::Manifest,
    reply::{Failing, Probe, RefusedEvents},
};
use tokio::{
    sync::{Notify, Semaphore},
    task::{JoinError, JoinHandle, JoinSet, spawn_blocking},
};

use self::doubt::NeedsVerification;
pub use self::{
    heal::ManifestDue,
    intake::{Handover, RequestedChunk, UploadOutcome},
    library::LibraryUnavailable,
    tuning::Tuning,
};
use super::events::Events;
use crate::{
    clock::Clock,
    library::{
        dead_letters::DeadLetterRecord,
        journals::Journals,
        scan::{self, Recording},
        unmanaged::AllUnmanaged,
    },
    policy::{
        Tick, listing,
        pace::Pace,
        publish::Publisher,
        queue::{Block, ChunkId, Next, Queue, Stage},
        rate::{Filling, Throughput},
    },
    store::{ObjectStore, throttle::Throttle},
};

/// What a sync works with.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The folder of recordings.
    pub recordings: PathBuf,
    /// This machine.
    pub machine_id: MachineId,
    /// Where chunks go.
    pub store: Arc<dyn ObjectStore>,
    /// Its id in the journal.
    pub store_id: StoreId,
    /// Its folder, where it is one.
    pub store_folder: Option<PathBuf>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Tells what changed.
    pub facts: Arc<Events>,
    /// Where the uploads that were given up are written down.
    pub dead_letters: PathBuf,
    /// What the node remembers over a restart.
    pub state: PathBuf,
    /// The digest of the settings: with others, what was given up is tried again.
    pub settings: Digest,
    /// Lets the bytes of uploads go no faster than it says.
    pub throttle: Arc<Throttle>,
}

/// The library in memory, the queue, and what joins them to disk and store.
#[derive(Debug)]
pub struct Engine {
    deps: Deps,
    started_at_ns: UnixNs,
    state: Mutex<State>,
    /// Shared with the sync before: a mark of its that hangs in the disk must not meet another writer.
    journals: Arc<Journals>,
    is_scanned: AtomicBool,
    has_heard: AtomicBool,
    /// Held while dead letters are written, so that no older ones replace newer ones.
    saving: Mutex<()>,
    /// Wakes the running sync when something was queued.
    changed: Notify,
    /// Wakes whoever waits for a remote manifest when the writing of one ended.
    published: Notify,
}

#[derive(Debug)]
struct State {
    tuning: Tuning,
    /// Places for parts of large chunks that are on their way.
    places: Arc<Semaphore>,
    queue: Queue,
    /// Shared with whoever reads one for a while: it is copied only where it changes meanwhile.
    recordings: BTreeMap<RecordingName, Arc<Recording>>,
    /// Chunks that wait for their marks, by the recordings of which marks are being written.
    landing: BTreeMap<RecordingName, Vec<marks::StoredChunk>>,
    unmanaged: AllUnmanaged,
    /// Folders that can't be read, with the reason.
    unreadable: BTreeMap<String, String>,
    /// Why the folder of recordings is not the library, and since when.
    away: Option<(LibraryUnavailable, UnixNs)>,
    /// The mark of the library's folder, once it has one.
    mark: Option<String>,
    /// Where it is, if it can have none.
    place_without_mark: Option<(u64, u64)>,
    doubt: NeedsVerification,
    /// The chunks that were given up, until they are proven.
    letters: BTreeMap<ChunkId, DeadLetterRecord>,
    are_letters_changed: bool,
    /// A person stopped uploads.
    paused: Option<pause::Pause>,
    /// Other libraries that go by this machine's id.
    twins: BTreeSet<String>,
    /// Counts the comparisons of marks and store; none is 0.
    pass: u32,
    publisher: Publisher,
    /// Recordings that somebody asked for, as long as anything of them waits.
    asked: BTreeSet<RecordingName>,
    probe: Option<Probe>,
    /// Why the last try failed, and since when nothing succeeded.
    failing: Option<Failing>,
    /// The fact that stops uploads as it was told last, and since when.
    block: Option<(Block, UnixNs)>,
    refused: RefusedEvents,
    throughput: Throughput,
    pace: Pace,
    filling: Filling,
    leases: evict::Leases,
    /// Recordings that are being removed: nothing of them goes up.
    held: BTreeSet<RecordingName>,
    /// How much less is free than the settings want.
    disk_low_bytes: u64,
}

/// How uploads go at one instant.
#[derive(Debug, Clone)]
pub struct UploadStatus {
    /// What the probe found; `None` before it.
    pub probe: Option<Probe>,
    /// Why the last try failed, where none succeeded since.
    pub failing: Option<Failing>,
    /// The fact that stops uploads, and since when.
    pub block: Option<(Block, UnixNs)>,
    /// Bytes that left for the store, per second over the last minute; those that arrived, while nothing is on its way or
    /// it fails.
    pub upload_rate_bytes_per_s: u64,
    /// What is free on the library's disk.
    pub disk_free_bytes: Option<u64>,
    /// When it is full at the rate of the last minutes.
    pub disk_full_in_s: Option<u64>,
}

/// The shortest wait of the running sync: a timer that is just due does not spin it.
const WAKE_MIN: Duration = Duration::from_millis(1);

/// Longest wait between looks whether room is to be made: a robot may write a gigabyte a minute.
const ROOM_LOOK_MAX: Duration = Duration::from_secs(10);

/// Between comparisons of marks and store while there is doubt.
const DOUBT_RETRY: Duration = Duration::from_secs(60);

impl State {
    /// Returns a recording, to be changed.
    fn recording_mut(&mut self, name: &RecordingName) -> Option<&mut Recording> {
        self.recordings.get_mut(name).map(Arc::make_mut)
    }
}

fn note_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an upload ended abnormally");
    }
}

impl Engine {
    /// Makes a sync that knows nothing yet but what the one before left behind.
    pub fn new(parts: Deps, tuning: Tuning, legacy: Handover) -> Self {
        parts.throttle.set(tuning.settings.bandwidth_limit.map(|limit| limit.0));
        let pace = Pace::default();
        let mut queue = Queue::new(tuning.limits());
        queue.set_room(Some(pace.room_bytes()));
        let state = State {
            queue,
            places: Arc::new(Semaphore::new(tuning.places())),
            tuning,
            recordings: BTreeMap::new(),
            landing: BTreeMap::new(),
            unmanaged: AllUnmanaged::new(),
            unreadable: BTreeMap::new(),
            away: None,
            mark: library::known_mark(&parts),
            place_without_mark: None,
            doubt: NeedsVerification::of(&parts),
            letters: BTreeMap::new(),
            are_letters_changed: false,
            paused: None,
            twins: BTreeSet::new(),
            pass: 0,
            publisher: Publisher::default(),
            asked: BTreeSet::new(),
            probe: None,
            failing: None,
            block: None,
            refused: RefusedEvents::default(),
            throughput: Throughput::default(),
            pace,
            filling: Filling::default(),
            leases: evict::Leases::default(),
            held: BTreeSet::new(),
            disk_low_bytes: 0,
        };
        let legacy = legacy.of(&parts.recordings);
        let engine = Self {
            started_at_ns: parts.clock.wall(),
            journals: legacy.journals.clone().unwrap_or_else(|| Arc::new(Journals::new(parts.recordings.clone()))),
            deps: parts,
            state: Mutex::new(state),
            is_scanned: AtomicBool::new(false),
            has_heard: AtomicBool::new(false),
            saving: Mutex::new(()),
            changed: Notify::new(),
            published: Notify::new(),
        };
        engine.inherit(legacy);
        engine
    }

    /// A panic in another task leaves the state between two idempotent steps, so it is used on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether a finalize event came in this run.
    pub fn has_heard(&self) -> bool {
        self.has_heard.load(Ordering::Relaxed)
    }

    /// Tells whether the library was read whole once.
    pub fn is_scanned(&self) -> bool {
        self.is_scanned.load(Ordering::Acquire)
    }

    /// Reads the view and the queue at one instant. `read` does not call this sync.
    pub fn read<T>(&self, read: impl FnOnce(&BTreeMap<RecordingName, Arc<Recording>>, &Queue) -> T) -> T {
        let state = self.state();
        read(&state.recordings, &state.queue)
    }

    /// Returns what stands beside the recordings and is laid out in another way, as the last scan saw it.
    pub fn unmanaged(&self) -> AllUnmanaged {
        self.state().unmanaged.clone()
    }

    /// Takes in that a library of this machine's id was met, on the `bus` or in the `bucket`. Another than ours is a
    /// twin, which is told once.
    pub fn note_library(&self, library_id: &str, met: &str) {
        if library_id == self.deps.facts.library_id() || !self.state().twins.insert(library_id.to_owned()) {
            return;
        }
        tracing::warn!(twin = library_id, met, "another library goes by this machine's id: give one of them another");
        self.deps.facts.emit(Fact::Twin { twin_library_id: library_id.to_owned(), met: met.to_owned() });
    }

    /// Returns the other libraries that go by this machine's id.
    pub fn twins(&self) -> Vec<String> {
        self.state().twins.iter().cloned().collect()
    }

    /// Returns the folders that can't be read, each with the reason.
    pub fn unreadable(&self) -> BTreeMap<String, String> {
        self.state().unreadable.clone()
    }

    /// Returns why the folder of recordings is not the library, and since when; `None` where it is.
    pub fn away(&self) -> Option<(LibraryUnavailable, UnixNs)> {
        self.state().away.clone()
    }

    /// Returns the store's clock minus ours now, in milliseconds; `None` while it is not known.
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.deps.store.clock_offset_ms().or_else(|| self.state().probe?.clock_offset_ms)
    }

    /// Tells how uploads go.
    pub fn going(&self) -> UploadStatus {
        let now = self.deps.clock.tick();
        let left_per_s = self.deps.throttle.bytes_per_s();
        let mut state = self.state();
        // What leaves tells the rate in the midst of a chunk too, and nothing where the store takes none.
        let is_going = state.failing.is_none() && state.block.is_none() && state.queue.in_flight().len() > 0;
        UploadStatus {
            probe: state.probe,
            failing: state.failing.clone(),
            block: state.block.clone(),
            upload_rate_bytes_per_s: if is_going { left_per_s } else { state.throughput.bytes_per_s(now) },
            disk_free_bytes: state.filling.free_bytes(),
            disk_full_in_s: state.filling.full_in_s(),
        }
    }

    /// Reads a recording's manifest from disk; `None` where none is readable.
    pub fn manifest(&self, name: &RecordingName) -> Option<Manifest> {
        scan::manifest(&self.deps.recordings, name)
    }

    /// Returns the names of the recordings that are ours, those that match a glob where one is given.
    pub fn names(&self, glob: Option<&str>) -> Vec<RecordingName> {
        let state = self.state();
        let ours = state.recordings.values().filter(|recording| recording.is_ours());
        let is_meant = |name: &RecordingName| glob.is_none_or(|glob| listing::matches(glob, name.as_str()));
        ours.map(|recording| recording.name.clone()).filter(is_meant).collect()
    }

    /// Tells whether something is known of a recording of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.state().recordings.contains_key(name)
    }

    /// Returns what is known of a recording.
    pub fn recording(&self, name: &RecordingName) -> Option<Arc<Recording>> {
        self.state().recordings.get(name).cloned()
    }

    /// Returns the fact that stops uploads, if one does.
    pub fn blocked(&self) -> Option<Block> {
        self.state().queue.blocked().cloned()
    }

    /// Returns the chunks that are given up now, by recording and chunk.
    pub fn dead_letters(&self) -> Vec<DeadLetterRecord> {
        let state = self.state();
        let is_dead = |(id, _): &(&ChunkId, &DeadLetterRecord)| matches!(state.queue.stage(id), Some(Stage::Dead(_)));
        state.letters.iter().filter(is_dead).map(|(_, letter)| letter.clone()).collect()
    }

    /// Tells whether the journal gets to the disk.
    pub fn is_durable(&self) -> bool {
        self.journals.is_durable()
    }

    /// Runs until `stop`: scans the library, takes up what is told meanwhile, uploads. Then what is on its way may
    /// end within the grace; what does not is dropped, which is always safe.
    pub async fn run(self: &Arc<Self>, stop: impl Future<Output = ()>) {
        self.restore_letters();
        self.restore_pause();
        let mut stop = pin!(stop);
        let mut tasks = JoinSet::new();
        let first = Arc::clone(self);
        tasks.spawn(async move { first.probe_first().await });
        let mut scan: Option<JoinHandle<()>> = None;
        let (mut open_at, mut all_at) = (Tick::default(), Tick::default());
        let mut verify_at = self.verify_at(self.timers().verify);
        let mut verify: Option<JoinHandle<Duration>> = None;
        let mut doubt_at = Tick::default();
        let (mut room_at, mut room): (Tick, Option<JoinHandle<()>>) = (Tick::default(), None);
        loop {
            let (now, timers) = (self.deps.clock.tick(), self.timers());
            if self.state().queue.wants_offers() {
                (open_at, all_at) = (now, now);
            }
            if now >= open_at {
                if scan.as_ref().is_none_or(JoinHandle::is_finished) {
                    scan = Some(self.spawn_scan(now >= all_at));
                    all_at = if now >= all_at { now.after(timers.rescan_all) } else { all_at };
                }
                open_at = now.after(timers.rescan_open);
            }
            if let Some(ended) = verify.take_if(|verify| verify.is_finished()) {
                verify_at = now.after(ended.await.unwrap_or(timers.verify));
            }
            let is_asked = self.is_in_doubt() && self.blocked().is_none() && now >= doubt_at;
            if (now >= verify_at || is_asked) && verify.is_none() && self.is_scanned() {
                doubt_at = now.after(DOUBT_RETRY);
                let engine = Arc::clone(self);
                verify = Some(tokio::spawn(async move { engine.verify_and_note(timers.verify).await }));
            }
            if now >= room_at && self.is_scanned() && room.as_ref().is_none_or(JoinHandle::is_finished) {
                room_at = now.after(timers.rescan_all.min(ROOM_LOOK_MAX));
                let engine = Arc::clone(self);
                room = Some(tokio::spawn(async move { engine.make_room().await }));
            }
            self.save_letters_later(&mut tasks);
            self.save_doubt_later(&mut tasks);
            let next = self.start_all(&mut tasks);
            let wake = next.map_or(open_at, |next| next.min(open_at)).since(now).max(WAKE_MIN);
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => note_end(ended),
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wake) => {}
            }
        }
        let drained = async {
            while let Some(ended) = tasks.join_next().await {
                note_end(ended);
            }
        };
        verify.iter().for_each(JoinHandle::abort);
        room.iter().for_each(JoinHandle::abort);
        if tokio::time::timeout(self.timers().shutdown_grace, drained).await.is_err() {
            tracing::warn!("uploads are cut off: they go on at the next start");
        }
        self.save_letters();
    }

    fn spawn_scan(self: &Arc<Self>, all: bool) -> JoinHandle<()> {
        let engine = Arc::clone(self);
        spawn_blocking(move || {
            if !all {
                engine.scan_open();
            } else {
                // What is wrong with the folder is remembered and told.
                engine.scan().ok();
            }
            engine.changed.notify_one();
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
                None => return self.save_letters(),
                Some(ended) => note_end(ended),
            }
        }
    }

    /// Starts all that the queue names now, and returns until when it has nothing more, where it knows.
    fn start_all(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Option<Tick> {
        if let Some(until) = self.pause_until(tasks) {
            return Some(until);
        }
        let window_changes_at = self.apply_window();
        let next = self.start_now(tasks);
        next.into_iter().chain(window_changes_at).min()
    }

    fn start_now(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Option<Tick> {
        loop {
            let next = self.state().queue.next(self.deps.clock.tick());
            let engine = Arc::clone(self);
            match next {
                Next::Start { item, attempt } => tasks.spawn(async move { engine.upload(item, attempt).await }),
                Next::Probe => tasks.spawn(async move { engine.probe_again().await }),
                Next::WaitUntil(tick) => return self.start_manifests(tasks).into_iter().chain([tick]).min(),
                Next::Idle => return self.start_manifests(tasks),
            };
        }
    }

    /// Starts the writing of the manifests that are due, and returns when to look again.
    fn start_manifests(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Option<Tick> {
        while let Some(name) = self.next_manifest() {
            let engine = Arc::clone(self);
            tasks.spawn(async move { engine.publish(name).await });
        }
        let now = self.deps.clock.tick();
        let state = self.state();
        let look_at = state.publisher.next_look_at()?;
        let opens_at = state.queue.opens_at()?;
        let waits_for_a_chunk = opens_at <= now && !state.queue.admits_other(now);
        (!waits_for_a_chunk).then(|| look_at.max(opens_at))
    }
}
