//! A simulated machine with recorders, a store and a network, in simulated time.

mod bucket;
mod recorder;
mod runtime;
mod script;
mod store;
mod weather;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, iter,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bubbaloop_storage::{
    clock::Clock,
    config::LiveSettings,
    engine::{
        driver::{Deps, Engine, Handover, Tuning},
        events::{Events, Run},
        reconcile::{ReconcileOptions, reconcile},
    },
    library::{identity::Identity, journal},
    policy::queue::{ChunkId, Order, Stage},
    store::throttle::Throttle,
};
use bubbaloop_storage_schemas::{
    Digest,
    event::{Fact, StorageEvent},
    keys::ObjectKey,
    reply::Proof,
};
use bytesize::ByteSize;
use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::{Notify, broadcast::Receiver, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use self::{
    bucket::{Bucket, Kind},
    recorder::{Capture, MACHINE, Made, OnDisk},
    runtime::{SimClock, runtime},
    script::{Action, Script, Word},
    store::Port,
    weather::Weather,
};

const STORE_ID: &str = "s";

/// Longest time until everything is uploaded after the last fault: dead letters wait a day, and so does the next
/// comparison of marks and store.
const PATIENCE: Duration = Duration::from_secs(4 * 24 * 3600);

/// Result of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Digest of the trace: the same for the same seed.
    pub fingerprint: (u64, Option<Digest>),
    /// Number of recorded chunks.
    pub chunks: usize,
    /// Number of starts of the node.
    pub lives: usize,
}

/// Tells whether a run evicts and restores. A restored file has a time of the real clock. Several files may have the
/// same time, so the upload order of such runs may differ.
pub(crate) fn makes_room(seed: u64) -> bool {
    seed.is_multiple_of(3)
}

/// Runs a seed to its end. With `large`, chunks are uploaded in parts, and threads run in parallel.
///
/// # Errors
/// The violations, and the last lines of the trace.
pub(crate) fn run(seed: u64, large: bool) -> Result<Outcome, String> {
    let (runtime, turns) = runtime(!large);
    fastrand::seed(seed);
    let result = runtime.block_on(async {
        let mut simulation = Simulation::new(seed, large);
        let result = simulation.run().await;
        let bucket = simulation.bucket.lock().unwrap();
        let chunks = simulation.captures.iter().map(|capture| capture.chunks.len()).sum();
        let outcome = Outcome { fingerprint: bucket.trace.fingerprint(), chunks, lives: simulation.lives };
        result.map(|()| outcome).map_err(|wrong| format!("seed {seed}: {wrong}\n{}", bucket.trace.shown()))
    });
    turns.end();
    result
}

/// How a run of the node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Crash { loses_work: bool },
    Restart,
}

struct Simulation {
    seed: u64,
    random: Rng,
    folder: TempDir,
    clock: Arc<SimClock>,
    bucket: Arc<Mutex<Bucket>>,
    captures: Vec<Capture>,
    actions: iter::Peekable<std::vec::IntoIter<(Duration, Action)>>,
    tuning: Tuning,
    crash: Arc<Notify>,
    lives: usize,
    large: bool,
    are_journals_blocked: bool,
    /// When the store last lost a chunk's object.
    lost_at: BTreeMap<String, Duration>,
    /// Chunks whose files existed for a while after that: their last copies.
    last_copies: BTreeSet<String>,
}

/// Eviction asks the store just before: it knows of a loss that is older than this.
const LOOKED_BEFORE: Duration = Duration::from_secs(600);

/// A running node.
struct Node {
    engine: Arc<Engine>,
    port: Arc<Port>,
    running: Pin<Box<dyn Future<Output = ()>>>,
    stop: Option<oneshot::Sender<()>>,
    heard: Receiver<StorageEvent>,
    /// The jobs of people.
    reconciles: JoinSet<()>,
}

/// Returns a folder in memory if the system has one: the cost of disk syncs is not simulated.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn tuning(random: &mut Rng, large: bool, makes_room: bool) -> Tuning {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let upload_window = (random.u32(0..4) == 0).then(|| "21:00-05:00".parse().unwrap());
    let mut settings = LiveSettings {
        rescan_interval: minutes(6 * 60),
        verify_interval: minutes(24 * 60),
        upload_window,
        concurrency: random.usize(1..6),
        order: if random.bool() { Order::Oldest } else { Order::Newest },
        ..LiveSettings::default()
    };
    let mut queue_chunks_max = Tuning::default().queue_chunks_max;
    if random.u32(0..4) == 0 {
        // If the queue is full, the chunk is found by the next full scan.
        queue_chunks_max = 3;
        settings.rescan_interval = minutes(30);
        settings.upload_window = None;
    }
    if makes_room && random.bool() {
        let quota_bytes = if large { 12 << 20 } else { random.u64(1..20_000) };
        settings.disk_quota_gb = Some(ByteSize(quota_bytes));
    }
    if large {
        (settings.multipart_threshold, settings.part_size) = (ByteSize::mib(5), ByteSize::mib(5));
    }
    Tuning { settings, queue_chunks_max, rescan_open_max: minutes(20) }
}

impl Simulation {
    fn new(seed: u64, large: bool) -> Self {
        let mut random = Rng::with_seed(seed);
        let folder = folder();
        fs::create_dir_all(folder.path().join("home/recordings")).unwrap();
        let kind = [Kind::Checking, Kind::Checking, Kind::Md5, Kind::Naive][random.usize(0..4)];
        let Script { captures, actions } = script::write(&mut random, large);
        let tuning = tuning(&mut random, large, makes_room(seed));
        let mut bucket = Bucket::new(kind);
        bucket.trace.folder = folder.path().display().to_string();
        Self {
            seed,
            folder,
            clock: Arc::new(SimClock::start()),
            bucket: Arc::new(Mutex::new(bucket)),
            captures: Vec::with_capacity(captures),
            actions: actions.into_iter().peekable(),
            tuning,
            crash: Arc::default(),
            lives: 0,
            large,
            are_journals_blocked: false,
            lost_at: BTreeMap::new(),
            last_copies: BTreeSet::new(),
            random,
        }
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn recordings(&self) -> PathBuf {
        self.home().join("recordings")
    }

    /// Starts a node with empty memory.
    fn start(&mut self) -> Node {
        self.lives += 1;
        self.bucket.lock().unwrap().node_starts();
        self.bucket.lock().unwrap().trace.add(format!("{:?} the node starts", self.clock.passed()));
        let clock: Arc<dyn Clock> = Arc::<SimClock>::clone(&self.clock);
        let identity = Identity { machine_id: MACHINE.parse().unwrap(), library_id: "l".into() };
        let facts = Arc::new(Events::new(Arc::new(Run::begin(&*clock)), identity, Arc::clone(&clock)));
        let heard = facts.listen();
        let (bucket, sim_clock, crash) = (Arc::clone(&self.bucket), Arc::clone(&self.clock), Arc::clone(&self.crash));
        let port = Arc::new(Port::new(bucket, sim_clock, self.seed, self.large, crash));
        let parts = Deps {
            recordings: self.recordings(),
            machine_id: MACHINE.parse().unwrap(),
            store: Arc::<Port>::clone(&port),
            store_id: STORE_ID.into(),
            store_folder: None,
            throttle: Arc::new(Throttle::new(Arc::clone(&clock))),
            clock,
            facts,
            dead_letters: self.home().join("dead_letter.json"),
            state: self.home().join("state.json"),
            settings: Digest::of(b"settings"),
        };
        let engine = Arc::new(Engine::new(parts, self.tuning.clone(), Handover::default()));
        port.belongs_to(&engine);
        let (stop, stopped) = oneshot::channel();
        let runs = Arc::clone(&engine);
        let running = Box::pin(async move { runs.run(async { stopped.await.unwrap_or_default() }).await });
        Node { engine, port, running, stop: Some(stop), heard, reconciles: JoinSet::new() }
    }

    /// Ends a node. Its pending writes are completed or lost, and a journal line may be half written.
    async fn end(&mut self, mut node: Node, end: End) {
        if end == End::Restart {
            node.stop.take();
            node.running.as_mut().await;
        }
        node.port.cut();
        node.reconciles.abort_all();
        drop(node);
        let (home, aside) = (self.home(), self.folder.path().join("aside"));
        let loses_work = end == End::Crash { loses_work: true };
        if loses_work {
            fs::rename(&home, &aside).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        if loses_work {
            fs::rename(&aside, &home).unwrap();
            if let Some(capture) = self.captures.first() {
                capture.tear_journal();
            }
        }
        self.bucket.lock().unwrap().is_replacing = false;
    }

    async fn run(&mut self) -> Result<(), String> {
        let mut node = self.start();
        while let Some((at, action)) = self.actions.next() {
            let end = self.until(&mut node, at, action).await?;
            if let Some(end) = end {
                self.end(node, end).await;
                self.check_journals()?;
                node = self.start();
            }
        }
        self.bucket.lock().unwrap().weather = Weather::calm();
        self.bucket.lock().unwrap().crash_in = None;
        self.block_journals(false);
        self.end(node, End::Restart).await;
        let node = self.start();
        self.settle(node).await
    }

    /// Runs the node until an action is due, and does it. Returns how the node's run ends, if it does.
    async fn until(&mut self, node: &mut Node, at: Duration, action: Action) -> Result<Option<End>, String> {
        let crash = Arc::clone(&self.crash);
        let started = Instant::now() - self.clock.passed();
        let has_crashed = tokio::select! {
            biased;
            () = crash.notified() => true,
            () = &mut node.running => return Err("the node ended by itself".into()),
            () = sleep_until(started + at) => false,
        };
        let end = self.act(node, action);
        self.check(node)?;
        self.check_copies()?;
        Ok(if has_crashed { Some(End::Crash { loses_work: self.random.bool() }) } else { end })
    }

    fn act(&mut self, node: &mut Node, action: Action) -> Option<End> {
        let wall = self.clock.wall();
        self.bucket.lock().unwrap().trace.add(format!("{:?} {action:?}", self.clock.passed()));
        match action {
            Action::Begin(number) => {
                // Half of the recorders use another spelling of the machine.
                let machine = if number % 2 == 0 { MACHINE } else { "robot-1" };
                let capture = Capture::begin(&self.recordings(), &format!("drive_{number}"), machine, wall);
                self.captures.push(capture);
            }
            Action::Finalize(number, size) => self.with(number, |capture, random| capture.finalize(random, size, wall)),
            Action::Save(number) => self.with(number, |capture, _| capture.save(wall)),
            Action::TearManifest(number) => self.with(number, |capture, _| capture.tear_manifest(wall)),
            Action::End(number) => self.with(number, |capture, _| {
                capture.has_ended = true;
                capture.save(wall);
            }),
            Action::ChangeFile(number, file) => self.with(number, |capture, random| {
                let bad = capture.chunks.iter().position(|chunk| chunk.file != OnDisk::Intact);
                let any = (!capture.chunks.is_empty()).then(|| random.usize(0..capture.chunks.len()));
                if let Some(place) = if file == OnDisk::Intact { bad } else { any } {
                    capture.change_file(place, file, wall);
                }
            }),
            Action::Event(number, word) => self.event(node, number, word),
            Action::Weather(weather) => self.bucket.lock().unwrap().weather = weather,
            Action::Crash { loses_work } => return Some(End::Crash { loses_work }),
            Action::CrashAtRequest(requests) => self.bucket.lock().unwrap().crash_in = Some(requests),
            Action::Restart => return Some(End::Restart),
            Action::Clock(wrong_by) => self.clock.set_wrong_by(wrong_by),
            Action::Journals { are_blocked } => self.block_journals(are_blocked),
            Action::Lose => self.lose(1),
            Action::LoseAll => self.lose(usize::MAX),
            Action::Pause(_)
            | Action::Resume
            | Action::Tune(_)
            | Action::Ask(_)
            | Action::Reconcile(_)
            | Action::Restore(_) => self.person(node, &action),
        }
        None
    }

    /// Carries out a person's request.
    fn person(&mut self, node: &mut Node, action: &Action) {
        let name = |capture: &Capture| capture.name.parse().unwrap();
        match action {
            Action::Pause(lasts) => drop(node.engine.pause(*lasts)),
            Action::Resume => drop(node.engine.resume()),
            Action::Tune(seed) => {
                self.tuning = tuning(&mut Rng::with_seed(*seed), self.large, makes_room(self.seed));
                node.engine.tune(self.tuning.clone());
            }
            Action::Ask(number) => {
                let place = self.place(*number);
                self.note_asked(place);
                let asked = place.map(|place| name(&self.captures[place]));
                drop(node.engine.ask(asked.as_ref()));
            }
            Action::Reconcile(number) => {
                if let Some(place) = self.place(*number) {
                    self.reconcile(node, place, ReconcileOptions::default());
                }
            }
            Action::Restore(number) => {
                if let Some(place) = self.place(*number) {
                    self.reconcile(
                        node,
                        place,
                        ReconcileOptions { restore: makes_room(self.seed), ..ReconcileOptions::default() },
                    );
                }
            }
            _ => {}
        }
    }

    fn reconcile(&self, node: &mut Node, place: usize, options: ReconcileOptions) {
        self.note_asked(Some(place));
        self.bucket.lock().unwrap().is_replacing = true;
        let (engine, name) = (Arc::clone(&node.engine), self.captures[place].name.parse().unwrap());
        node.reconciles.spawn(async move {
            // A recording that can't be checked now is left to the next comparison.
            reconcile(&engine, &name, options, &|_| ()).await.ok();
        });
    }

    /// A requested recording may be uploaded at any time. Without a place in the queue, that is all that is known of
    /// it.
    fn note_asked(&self, place: Option<usize>) {
        let asked = place.map_or(&self.captures[..], |place| &self.captures[place..=place]);
        self.bucket.lock().unwrap().asked.extend(asked.iter().map(|capture| capture.name.clone()));
    }

    fn place(&self, number: usize) -> Option<usize> {
        self.captures.iter().position(|capture| capture.name == format!("drive_{number}"))
    }

    fn with(&mut self, number: usize, change: impl FnOnce(&mut Capture, &mut Rng)) {
        if let Some(place) = self.place(number) {
            change(&mut self.captures[place], &mut self.random);
        }
    }

    fn event(&mut self, node: &Node, number: usize, word: Word) {
        let Some(capture) = self.place(number).map(|place| &self.captures[place]) else { return };
        let Some(newest) = capture.chunks.last() else { return };
        let mut event = capture.event(newest);
        match word {
            Word::True => {}
            Word::Old => event = capture.event(&capture.chunks[self.random.usize(0..capture.chunks.len())]),
            Word::WrongDigest => {
                let text = newest.digest.to_string();
                event["chunk"]["sha256"] = json!(format!("{}{}", &text[..8], "0".repeat(56)));
            }
            Word::Foreign => event["machine_id"] = json!("other"),
            Word::Garbage => event = json!(["garbage"]),
        }
        let taken = node.engine.take_event(event.to_string().as_bytes(), None);
        self.bucket.lock().unwrap().trace.add(format!("event: {:?}", taken.map_err(|(refused, _)| refused)));
    }

    fn block_journals(&mut self, are_blocked: bool) {
        self.are_journals_blocked = are_blocked;
        self.captures.iter().for_each(|capture| capture.block_journal(are_blocked));
        // The node's own files can't be written either.
        for file in ["dead_letter.json", "state.json"] {
            recorder::block(&self.home().join(file), &self.home().join(format!("{file}.aside")), are_blocked);
        }
    }

    fn lose(&mut self, most: usize) {
        let mut bucket = self.bucket.lock().unwrap();
        for _ in 0..most.min(bucket.objects.len()) {
            let place = self.random.usize(0..bucket.objects.len());
            let key = bucket.objects.keys().nth(place).unwrap().clone();
            bucket.lose(&key);
            self.lost_at.insert(key, self.clock.passed());
        }
    }

    /// Checks what must be true at any time.
    fn check(&self, node: &mut Node) -> Result<(), String> {
        while node.reconciles.try_join_next().is_some() {}
        let mut bucket = self.bucket.lock().unwrap();
        bucket.is_replacing = !node.reconciles.is_empty();
        if let Some(wrong) = bucket.wrong.first() {
            return Err(wrong.clone());
        }
        while let Ok(event) = node.heard.try_recv() {
            if let Fact::ChunkUploaded { recording, chunk, sha256, proof, .. } = &event.fact {
                let is_there = |machine: &str| {
                    let key = format!("{machine}/{recording}/chunks/{chunk}");
                    let found = bucket.objects.get(&key).is_some_and(|object| object.digest.to_string() == *sha256);
                    found || bucket.vanished.contains(&key)
                };
                if proof.is_proven() && !is_there(MACHINE) && !is_there("robot-1") {
                    return Err(format!("told as uploaded and not there: {recording} {chunk}"));
                }
            }
        }
        node.engine.read(|recordings, queue| {
            let mut waiting = 0;
            for recording in recordings.values() {
                for chunk in &recording.chunks {
                    let id = ChunkId { recording: recording.name.clone(), chunk: chunk.name };
                    waiting += usize::from(matches!(queue.stage(&id), Some(Stage::Waiting)));
                    let key = ObjectKey::chunk(&recording.machine_id, &recording.name, chunk.name);
                    let is_there =
                        bucket.objects.get(key.as_str()).is_some_and(|object| Some(object.digest) == chunk.digest);
                    let is_lost = bucket.vanished.contains(key.as_str());
                    if chunk.facts.proof.is_some_and(Proof::is_proven) && !is_there && !is_lost {
                        return Err(format!("proven and not there: {key}"));
                    }
                }
            }
            let in_flight: BTreeSet<_> = queue.in_flight().map(|item| &item.id).collect();
            if queue.dead_letters().any(|letter| in_flight.contains(&letter.item.id)) {
                return Err("a chunk is in flight and dead".into());
            }
            if waiting > queue.waiting() {
                return Err("a chunk waits that does not wait".into());
            }
            Ok(())
        })
    }

    /// Checks that the last copy of a chunk was never removed: a chunk that is not here is in the store, or was lost
    /// there after its eviction.
    fn check_copies(&mut self) -> Result<(), String> {
        let (bucket, now) = (self.bucket.lock().unwrap(), self.clock.passed());
        for capture in &self.captures {
            for chunk in capture.chunks.iter().filter(|chunk| chunk.file == OnDisk::Intact) {
                let keys = [MACHINE, "robot-1"].map(|id| format!("{id}/{}/chunks/{}", capture.name, chunk.name));
                let has = |key: &String| bucket.objects.get(key).is_some_and(|object| object.digest == chunk.digest);
                let lost_at = keys.iter().filter_map(|key| self.lost_at.get(key)).max();
                let is_here = capture.chunk_path(chunk).exists();
                if keys.iter().any(has) {
                    self.last_copies.remove(&keys[0]);
                } else if is_here && lost_at.is_some_and(|at| now > *at + LOOKED_BEFORE) {
                    self.last_copies.insert(keys[0].clone());
                } else if !is_here && (lost_at.is_none() || self.last_copies.contains(&keys[0])) {
                    return Err(format!("the last copy of {} was removed", keys[0]));
                }
            }
        }
        Ok(())
    }

    /// Checks that all journal lines are true and readable.
    fn check_journals(&self) -> Result<(), String> {
        let bucket = self.bucket.lock().unwrap();
        for capture in self.captures.iter().filter(|_| !self.are_journals_blocked) {
            let fold = journal::load(&capture.journal(), STORE_ID).map_err(|error| error.to_string())?;
            if fold.bad_lines > 0 {
                return Err(format!("{}: {} lines can't be read", capture.name, fold.bad_lines));
            }
            for (chunk, mark) in fold.marks.iter().filter(|(_, mark)| mark.proof.is_proven()) {
                let key = mark.key.clone().ok_or("a mark without a key")?;
                let is_there = bucket.objects.get(&key).is_some_and(|object| object.digest == mark.digest);
                if !is_there && !bucket.vanished.contains(&key) {
                    return Err(format!("marked and not there: {key} {chunk}"));
                }
            }
        }
        Ok(())
    }

    /// Lets everything be uploaded, without help except for problems that need a person.
    async fn settle(&mut self, mut node: Node) -> Result<(), String> {
        node.engine.resume().ok();
        let mut left = self.wait_until_done(&mut node).await?;
        // A store that accepts wrong bytes keeps them under a chunk's name until a reconcile.
        if left.is_some() && self.bucket.lock().unwrap().kind != Kind::Checking {
            (0..self.captures.len()).for_each(|place| self.reconcile(&mut node, place, ReconcileOptions::default()));
            left = self.wait_until_done(&mut node).await?;
        }
        if left.is_none() && !node.engine.is_durable() {
            left = Some("what is known is in memory only".into());
        }
        self.end(node, End::Restart).await;
        self.check_journals()?;
        left.map_or(Ok(()), Err)
    }

    /// Returns what is not done at the end.
    async fn wait_until_done(&mut self, node: &mut Node) -> Result<Option<String>, String> {
        let until = self.clock.passed() + PATIENCE;
        loop {
            let at = self.clock.passed() + Duration::from_secs(3600);
            self.until(node, at, Action::Weather(Weather::calm())).await?;
            let left = self.captures.iter().find_map(|capture| self.what_is_left(node, capture));
            if left.is_none() || self.clock.passed() > until {
                return Ok(left);
            }
        }
    }

    fn what_is_left(&self, node: &Node, capture: &Capture) -> Option<String> {
        let bucket = self.bucket.lock().unwrap();
        let recording = node.engine.recording(&capture.name.parse().unwrap());
        let manifest = node.engine.manifest(&capture.name.parse().unwrap());
        let key_of = |chunk: &Made| match &manifest {
            Some(_) => capture.key(chunk),
            None => recording.as_ref().map_or_else(String::new, |recording| {
                ObjectKey::chunk(&recording.machine_id, &recording.name, chunk.name).to_string()
            }),
        };
        // An evicted chunk that the store lost afterwards is nowhere.
        let is_here = |chunk: &&Made| chunk.file == OnDisk::Intact && capture.chunk_path(chunk).exists();
        for chunk in capture.chunks.iter().filter(is_here) {
            let key = key_of(chunk);
            let id = ChunkId { recording: capture.name.parse().unwrap(), chunk: chunk.name };
            let entry = recording.as_ref().and_then(|recording| recording.chunk(chunk.name).cloned());
            let known = node.engine.read(|_, queue| format!("{:?}, {:?}", queue.stage(&id), queue.dead_letter(&id)));
            let known = format!(
                "{known}, {entry:?}, blocked {:?}, failing {:?}",
                node.engine.blocked(),
                node.engine.going().failing
            );
            if bucket.objects.get(&key).is_none_or(|object| object.digest != chunk.digest) {
                return Some(format!("{key} is not in the store: {known}"));
            }
            if !entry.is_some_and(|entry| entry.facts.proof.is_some_and(Proof::is_proven)) {
                return Some(format!("{key} is not marked: {known}"));
            }
            let is_named = manifest.as_ref().is_none_or(|manifest| {
                let is_local = manifest.chunks.iter().any(|named| named.name == chunk.name.to_string());
                !is_local || remote_names(&bucket, capture, chunk)
            });
            if !is_named {
                return Some(format!("{key} is not named by the remote manifest: {known}"));
            }
        }
        None
    }
}

fn remote_names(bucket: &Bucket, capture: &Capture, chunk: &Made) -> bool {
    let folder = capture.remote_folder();
    let keys = [format!("{folder}/manifest.json"), format!("{folder}/manifest.{}.json", capture.started_at_ns)];
    keys.iter().filter_map(|key| bucket.objects.get(key)).any(|object| {
        let manifest: Value = serde_json::from_slice(&object.bytes).unwrap_or_default();
        let chunks = manifest["chunks"].as_array().cloned().unwrap_or_default();
        chunks.iter().any(|named| named["name"] == json!(chunk.name))
    })
}
