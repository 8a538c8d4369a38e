//! Latency from a finalize event to `chunk_uploaded`, and of a bare PUT of the same file.

use std::{fs, time::Instant};

use bubbaloop_storage_schemas::{RecordingName, event::FinalizeEvent};
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    Arguments, bare,
    library::{Library, Shape, write_chunk, write_manifest},
    measure,
    node::Node,
};

const MACHINE: &str = "bench_latency";
const RECORDING: &str = "live";

const CHUNK_BYTES: usize = 9 * 1024 * 1024;

/// The first requests open connections and are not counted.
const WARM_UP: usize = 5;

fn ms_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}

pub(crate) async fn run(arguments: &Arguments) {
    let library = Library::make(MACHINE, Shape { recordings: 0, chunks: 0, chunk_bytes: 0 });
    let kind = arguments.server();
    let server = kind.start().await;
    let folder = library.folder.path().join(RECORDING);
    fs::create_dir_all(folder.join("chunks")).unwrap();
    let mut node = Node::new(MACHINE, &server, &library, "");
    let running = node.start().await;
    running.is_ready().await;
    let (told, mut events) = mpsc::channel(1024);
    let hear = move |event: Value| {
        if event["kind"] == "chunk_uploaded" {
            told.try_send(event["chunk"].clone()).unwrap();
        }
    };
    let _events = running.client.listen(Some(&running.id), hear).await.unwrap();
    let (signer, sender) = (bare::signer(&server), bare::Sender::new());
    let (mut of_node, mut of_put, mut over) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rng, mut chunks) = (Rng::with_seed(11), Vec::new());
    let recording: RecordingName = RECORDING.parse().unwrap();
    for index in 0..WARM_UP + arguments.scaled(200) {
        let made = write_chunk(&folder.join("chunks"), index, CHUNK_BYTES, &mut rng);
        // A careful recorder syncs its chunk to the disk before the event.
        fs::File::open(&made.path).unwrap().sync_all().unwrap();
        chunks.push(made.clone());
        write_manifest(&folder, MACHINE, &chunks, &json!({}));
        let put = bare::put_of(&signer, &made, "bare/").await;
        let event = FinalizeEvent {
            recording: recording.to_string(),
            machine_id: MACHINE.into(),
            chunk: serde_json::from_value(made.row.clone()).unwrap(),
        };
        let started = Instant::now();
        running.client.finalize(&running.id, "recorder", &event).await.unwrap();
        let uploaded = events.recv().await.unwrap();
        let node_ms = ms_since(started);
        assert_eq!(uploaded, made.row["name"]);
        let started = Instant::now();
        sender.send(&put).await;
        let put_ms = ms_since(started);
        if index >= WARM_UP {
            of_node.push(node_ms);
            of_put.push(put_ms);
            over.push(node_ms - put_ms);
        }
    }
    let title = format!("Finalize event to chunk_uploaded, 9 MiB, {}", kind.name());
    let rows = [
        ("this node, event to event", of_node),
        ("bare read + SHA-256 + PUT of the same file", of_put),
        ("difference of each pair", over),
    ];
    measure::print_latencies(&title, &rows);
}
