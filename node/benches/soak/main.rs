//! A long run with a recorder and a link on which some exchanges break: no resource may grow.
//!
//! `cargo bench -p bubbaloop-storage --bench soak -- --hours 12` prints a line each interval, and fails when memory,
//! descriptors or threads grow, when the queue does not keep up, or when anything is lost.
#![expect(clippy::disallowed_methods, reason = "it makes files, waits and looks at the time on purpose")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a soak that can't go on has failed")]
#![expect(clippy::print_stdout, reason = "the lines are what it is for")]

#[path = "../shared/mod.rs"]
#[expect(dead_code, reason = "the other benchmarks use the rest")]
mod shared;
#[path = "../../../tests/support/mod.rs"]
#[expect(dead_code, clippy::print_stderr, reason = "the tests use all of it")]
mod support;

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use bubbaloop_storage_schemas::event::FinalizeEvent;
use clap::Parser;
use fastrand::Rng;
use serde_json::{Value, json};

use self::{
    shared::{
        BUCKET, RAM_DISK,
        library::{self, Library, Made, Shape},
        measure,
        node::{Node, Running},
        proxy::Proxy,
    },
    support::servers::{self, Server},
};

const MACHINE: &str = "soak";

/// Four of these per second are 17 MB/s.
const CHUNK_BYTES: usize = 4 * 1024 * 1024 + 256 * 1024;
const CHUNK_EVERY: Duration = Duration::from_millis(262);

/// Half a minute each.
const CHUNKS_PER_RECORDING: usize = 120;

/// Number of recordings that the robot keeps. Older ones that are safe are removed, from the robot and the store.
const RECORDINGS_KEPT: usize = 4;

/// Number of waiting recordings beyond those at which the node counts as too slow.
const RECORDINGS_LATE_MAX: usize = 8;

/// Permitted growth of memory after the first quarter.
const MEMORY_GROWTH_MAX: f64 = 24.0;
const DESCRIPTORS_GROWTH_MAX: usize = 32;
const THREADS_GROWTH_MAX: usize = 16;

#[derive(Debug, Parser)]
struct Arguments {
    /// How long, in hours.
    #[arg(long, default_value_t = 0.0)]
    hours: f64,
    /// How long, in minutes.
    #[arg(long, default_value_t = 0.0)]
    minutes: f64,
    /// Percentage of exchanges with the store that break.
    #[arg(long, default_value_t = 1.0)]
    faults: f64,
    /// Cargo passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Resources of the node at one moment.
#[derive(Debug, Clone, Copy)]
struct Taken {
    memory_mib: f64,
    descriptors: usize,
    threads: usize,
}

impl Taken {
    fn now(pid: u32) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        Self { memory_mib: measure::memory(pid, "VmRSS").unwrap(), descriptors: count("fd"), threads: count("task") }
    }

    fn most(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.max(other.memory_mib),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
        }
    }

    fn is_within(self, first: Self) -> bool {
        self.memory_mib <= first.memory_mib + MEMORY_GROWTH_MAX
            && self.descriptors <= first.descriptors + DESCRIPTORS_GROWTH_MAX
            && self.threads <= first.threads + THREADS_GROWTH_MAX
    }
}

/// The robot's recorder.
struct Recorder {
    root: PathBuf,
    rng: Rng,
    /// The open recording.
    name: String,
    chunks: Vec<Made>,
    recordings: usize,
    /// Ended recordings, oldest first.
    ended: VecDeque<String>,
}

impl Recorder {
    fn new(root: &Path) -> Self {
        let (root, rng) = (root.to_owned(), Rng::with_seed(3));
        let mut recorder =
            Self { root, rng, name: String::new(), chunks: Vec::new(), recordings: 0, ended: VecDeque::new() };
        recorder.begin();
        recorder
    }

    fn begin(&mut self) {
        self.name = format!("drive_{:06}", self.recordings);
        self.recordings += 1;
        self.chunks.clear();
        fs::create_dir_all(self.folder().join("chunks")).unwrap();
    }

    fn folder(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    fn save(&self, more: &Value) {
        library::write_manifest(&self.folder(), MACHINE, &self.chunks, more);
    }

    /// Writes the next chunk and publishes its event.
    fn record(&mut self) -> FinalizeEvent {
        let made = library::write_chunk(&self.folder().join("chunks"), self.chunks.len(), CHUNK_BYTES, &mut self.rng);
        let chunk = serde_json::from_value(made.row.clone()).unwrap();
        self.chunks.push(made);
        self.save(&json!({}));
        let event = FinalizeEvent { recording: self.name.clone(), machine_id: MACHINE.into(), chunk };
        if self.chunks.len() == CHUNKS_PER_RECORDING {
            self.end();
            self.begin();
        }
        event
    }

    fn end(&mut self) {
        self.save(&json!({"ended_at_ns": 1_800_000_000_000_000_000_u64}));
        self.ended.push_back(self.name.clone());
    }

    /// Removes old recordings that are safe, from the robot and from the store's disk.
    fn make_room(&mut self, proven: &Mutex<BTreeMap<String, usize>>, store: &Path) {
        while self.ended.len() > RECORDINGS_KEPT {
            let oldest = &self.ended[0];
            if proven.lock().unwrap().get(oldest).copied().unwrap_or(0) < CHUNKS_PER_RECORDING {
                assert!(self.ended.len() < RECORDINGS_KEPT + RECORDINGS_LATE_MAX, "the node does not keep up");
                return;
            }
            fs::remove_dir_all(self.root.join(oldest)).unwrap();
            fs::remove_dir_all(store.join(oldest)).unwrap();
            proven.lock().unwrap().remove(oldest);
            self.ended.pop_front();
        }
    }
}

fn print_line(seconds: u64, taken: Taken, status: &Value, uploaded: usize, proxy: &Proxy) {
    let Taken { memory_mib, descriptors, threads } = taken;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{seconds:>6} s  memory {memory_mib:.1} MiB, {descriptors} descriptors, {threads} threads; {uploaded} chunks \
         uploaded, {} waiting, {} in flight, {} dead letters; {} of {} exchanges broken",
        status["queue"]["waiting"],
        status["queue"]["in_flight"],
        status["dead_letters"],
        count(&proxy.counted.faults),
        count(&proxy.counted.exchanges),
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments = Arguments::parse();
    let minutes = arguments.hours * 60.0 + arguments.minutes;
    let length = Duration::from_secs_f64(60.0 * if minutes > 0.0 { minutes } else { 10.0 });
    if Path::new(RAM_DISK).is_dir() {
        servers::keep_in(Path::new(RAM_DISK));
    }
    let server = Server::s3s_fs().await;
    server.bucket(BUCKET).await;
    let address = server.endpoint.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(address, arguments.faults / 100.0).await;
    let nothing = Library::make(MACHINE, Shape { recordings: 0, chunks: 0, chunk_bytes: 0 });
    let mut node = Node::of_endpoint(MACHINE, &format!("http://{}", proxy.address), &nothing, "");
    let running = node.start().await;
    let recorder = Recorder::new(nothing.folder.path());
    soak(&running, &proxy, &server, recorder, length).await;
}

async fn soak(running: &Running, proxy: &Proxy, server: &Server, mut recorder: Recorder, length: Duration) {
    let proven = Arc::<Mutex<BTreeMap<String, usize>>>::default();
    let uploaded = Arc::<std::sync::atomic::AtomicUsize>::default();
    let (hearing, counting) = (Arc::clone(&proven), Arc::clone(&uploaded));
    let hear = move |event: Value| {
        if event["kind"] == "chunk_uploaded" {
            counting.fetch_add(1, Ordering::Relaxed);
            *hearing.lock().unwrap().entry(event["recording"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    };
    let _events = running.client.listen(Some(&running.id), hear).await.unwrap();
    let store = server.data().join(BUCKET).join(MACHINE);
    let every = (length / 20).clamp(Duration::from_secs(10), Duration::from_secs(300));
    let (started, mut told, mut first) = (Instant::now(), 0, None::<Taken>);
    let mut next_at = started;
    while started.elapsed() < length {
        let event = recorder.record();
        running.client.finalize(&running.id, "recorder", &event).await.unwrap();
        recorder.make_room(&proven, &store);
        let elapsed = started.elapsed();
        if elapsed >= every * (told + 1) {
            told += 1;
            let (taken, status) = (Taken::now(running.pid), running.status().await);
            print_line(elapsed.as_secs(), taken, &status, uploaded.load(Ordering::Relaxed), proxy);
            match first {
                Some(first) if elapsed > length / 4 => {
                    assert!(taken.is_within(first), "it grows: {first:?} became {taken:?}");
                }
                _ => first = Some(first.map_or(taken, |first| first.most(taken))),
            }
        }
        next_at += CHUNK_EVERY;
        tokio::time::sleep_until(next_at.into()).await;
    }
    recorder.end();
    running.until("all is safe", Duration::from_millis(200), |status| status["safe"] == true).await;
    let status = running.status().await;
    print_line(started.elapsed().as_secs(), Taken::now(running.pid), &status, uploaded.load(Ordering::Relaxed), proxy);
    assert_eq!(status["dead_letters"], 0, "{status}");
    println!("nothing grew and nothing was lost");
}
