//! A large library: start, memory, idle cost and latency of answers.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bubbaloop_storage::library::identity::HomeLock;
use bubbaloop_storage_schemas::{Verb, params::Params};

use crate::{
    Arguments, BUCKET, bus,
    library::{Library, Shape},
    measure::{self, percentile, table},
    node::{Node, Running},
    proxy::Proxy,
    support::servers::Server,
};

const MACHINE: &str = "bench_start";

const CHUNK_BYTES: usize = 100;

/// Between two checks of a working node.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Longest wait for an answer.
const ANSWERS_IN: Duration = Duration::from_secs(300);

/// Marks are written into manifests a minute after the last change of these.
const SETTLES_IN: Duration = Duration::from_secs(150);

const IDLE: Duration = Duration::from_secs(60);

/// Starts a node. Returns the seconds until it lists its recordings.
async fn start(node: &mut Node) -> (Running, f64) {
    let started = Instant::now();
    let running = node.start().await;
    let one = Params::default().with("limit", 1_u64);
    while running.try_ask(Verb::List, &one).await.is_none() {
        assert!(started.elapsed() < ANSWERS_IN, "the node does not answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (running, started.elapsed().as_secs_f64())
}

fn row(name: impl Into<String>, value: String) -> Vec<String> {
    vec![name.into(), value]
}

/// Returns the peak memory of a node that sends a small library.
async fn small_peak_mib(arguments: &Arguments, chunks: usize) -> f64 {
    let server = arguments.server().start().await;
    let library = Library::make(MACHINE, Shape { recordings: 1, chunks, chunk_bytes: CHUNK_BYTES });
    let mut node = Node::new(MACHINE, &server, &library, "");
    node.pause();
    let running = node.start().await;
    running.is_ready().await;
    running.resume_until_proven(chunks).await;
    measure::memory(running.pid, "VmHWM").unwrap()
}

pub(crate) async fn run(arguments: &Arguments) {
    let (few, many) = (10, arguments.scaled(10_000));
    let (few_mib, many_mib) = (small_peak_mib(arguments, few).await, small_peak_mib(arguments, many).await);
    let library = Library::make(MACHINE, Shape { recordings: many, chunks: 10, chunk_bytes: CHUNK_BYTES });
    let count = library.chunks().count();
    let kind = arguments.server();
    let server = kind.start().await;
    let mut node = Node::new(MACHINE, &server, &library, "");
    let mut rows = vec![
        row(format!("most memory, sending {few} chunks of one recording"), format!("{few_mib:.0} MiB")),
        row(format!("most memory, sending {many} chunks of one recording"), format!("{many_mib:.0} MiB")),
    ];

    let began = Instant::now();
    let (running, ready_s) = start(&mut node).await;
    rows.push(row("start with nothing sent: answers after", format!("{ready_s:.2} s")));
    running.until("all is proven", LOOK_EVERY, |status| status["library"]["uploaded_chunks"] == count).await;
    rows.push(row(format!("all {count} chunks proven after"), format!("{:.0} s", began.elapsed().as_secs_f64())));
    while manifests(&server) < many {
        tokio::time::sleep(LOOK_EVERY).await;
        assert!(began.elapsed() < Duration::from_secs(1800), "manifests are missing");
    }
    rows.push(row("their remote manifests written after", format!("{:.0} s", began.elapsed().as_secs_f64())));
    tokio::time::sleep(SETTLES_IN).await;
    let peak = measure::memory(running.pid, "VmHWM").unwrap();
    rows.push(row("most memory meanwhile", format!("{peak:.0} MiB")));
    drop(running);

    let mut starts = Vec::new();
    for _ in 0..arguments.rounds {
        node.machine.terminate();
        let (running, ready_s) = start(&mut node).await;
        running.is_ready().await;
        starts.push(ready_s);
    }
    let ready_s = percentile(&starts, 50);
    rows.push(row("start with all of it sent: answers after (median)", format!("{ready_s:.2} s")));
    rows.extend(idle(&node).await);
    println!("\n### {many} recordings × 10 chunks, {}\n", kind.name());
    println!("{}", table(&["", "this node"], rows));

    let holder = HomeLock::holder(&node.machine.home()).unwrap();
    let space = format!("bubbaloop/{MACHINE}/storage");
    let latencies = bus::latencies(&holder.endpoints[0], &space, 300).await;
    measure::print_latencies(&format!("Questions over the bus, {many} recordings"), &latencies);
    let p50 = |place: usize| percentile(&latencies[place].1, 50);
    println!("p50 beside an empty get: help {:.2}×, list {:.2}×", p50(1) / p50(0), p50(2) / p50(0));
}

/// Counts the remote manifests in an s3s-fs, whose objects are files.
fn manifests(server: &Server) -> usize {
    let machine = server.data().join(BUCKET).join(MACHINE);
    let Ok(recordings) = std::fs::read_dir(machine) else { return 0 };
    recordings.filter(|entry| entry.as_ref().unwrap().path().join("manifest.json").is_file()).count()
}

/// Returns the cost of an idle node with a client that receives everything.
async fn idle(node: &Node) -> Vec<Vec<String>> {
    let holder = HomeLock::holder(&node.machine.home()).unwrap();
    let proxy = Proxy::start(holder.endpoints[0].trim_start_matches("tcp/").to_owned(), 0.0).await;
    let session = bus::client_of(&format!("tcp/{}", proxy.address)).await;
    let _hearing = session.declare_subscriber("bubbaloop/**").callback(|_| {}).await.unwrap();
    tokio::time::sleep(LOOK_EVERY).await;
    let look = || (measure::cpu(holder.pid).as_secs_f64(), proxy.counted.bytes.load(Ordering::Relaxed));
    let (cpu, bytes) = look();
    tokio::time::sleep(IDLE).await;
    let (cpu_after, bytes_after) = look();
    let seconds = IDLE.as_secs_f64();
    let rss = measure::memory(holder.pid, "VmRSS").unwrap();
    vec![
        row("memory when idle", format!("{rss:.0} MiB")),
        row("CPU when idle", format!("{:.2} % of a core", (cpu_after - cpu) / seconds * 100.0)),
        row(
            "on the bus when idle, to a client that hears all",
            format!("{:.0} B/s", (bytes_after - bytes) as f64 / seconds),
        ),
    ]
}
