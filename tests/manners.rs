//! Limits on uploads: bandwidth, hours and pause, from the moment that they are set.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    node::{Machine, Recorder, until},
    python::{Get, Python},
    servers::{KEY, SECRET, Server},
};

const LOCAL: &str = "backend = \"local\"\nlocal_path = \"../store\"\nrescan_interval = \"1s\"\n";

/// Returns an hour that begins half a day from now, in the machine's time zone.
fn other_hours() -> String {
    let date = std::process::Command::new("date").arg("+%H").output().unwrap();
    let hour: u32 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
    format!("{:02}:00-{:02}:00", (hour + 12) % 24, (hour + 13) % 24)
}

fn status(python: &mut Python, machine: &Machine) -> Value {
    let replies = python.get(&Get { selector: &machine.key("status"), ..Get::default() });
    replies.first().map(|reply| reply.value()).unwrap_or_default()
}

fn window(python: &mut Python, machine: &Machine) -> Value {
    status(python, machine)["upload_window"].clone()
}

fn is_uploaded(recorder: &Recorder, chunk: &Value) -> bool {
    recorder.journal().iter().any(|line| line["kind"] == "uploaded" && line["chunk"] == chunk["name"])
}

fn uploaded_at(recorder: &Recorder) -> u64 {
    let journal = recorder.journal();
    journal.iter().find(|line| line["kind"] == "uploaded").unwrap()["at_ns"].as_u64().unwrap()
}

#[test]
fn outside_the_window_only_requested_chunks_are_sent_and_then_all_in_the_set_order() {
    let mut machine = Machine::new("manners_1", "rescan_interval = \"1s\"");
    machine.start();
    let mut python = machine.python();
    let started = status(&mut python, &machine)["started_at_ns"].clone();
    let hours = other_hours();
    let closed = format!("{LOCAL}concurrency = 1\nupload_window = {hours:?}\n");
    machine.set(&format!("{closed}order = \"newest\"\npriority_tags = [\"incident\", \"night\"]"));
    until("the hours are taken up", || window(&mut python, &machine)["is_open"] == json!(false));

    let mut recorders = Vec::new();
    for (name, tags) in [
        ("a_old", json!([])),
        ("b_night", json!(["night", "x"])),
        ("c_new", json!([])),
        ("d_incident", json!(["incident"])),
    ] {
        let mut recorder = machine.recorder(name);
        let chunk = recorder.rename();
        recorder.save(&json!({"tags": tags}));
        // Files with the same time have no order.
        let age = Duration::from_secs(if name == "c_new" { 10 } else { 100 });
        let file = std::fs::File::options().append(true).open(recorder.path(&chunk)).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
        recorders.push((recorder, chunk));
    }
    until("they wait", || status(&mut python, &machine)["queue"]["waiting"] == json!(4));
    let asked = machine.run(&["upload", "a_old"]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert_eq!(status(&mut python, &machine)["queue"]["waiting"], json!(3));
    assert_eq!(status(&mut python, &machine)["safe"], json!(false));

    machine.set(&format!("{LOCAL}concurrency = 1\norder = \"newest\"\npriority_tags = [\"incident\", \"night\"]"));
    until("all is uploaded", || recorders.iter().all(|(recorder, chunk)| is_uploaded(recorder, chunk)));
    recorders.sort_by_key(|(recorder, _)| uploaded_at(recorder));
    let order: Vec<_> = recorders.iter().map(|(recorder, _)| recorder.name.as_str()).collect();
    assert_eq!(order, ["a_old", "d_incident", "b_night", "c_new"]);
    assert_eq!(window(&mut python, &machine), Value::Null);
    assert_eq!(status(&mut python, &machine)["started_at_ns"], started, "nothing was made anew for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_for_all_uploads_and_its_removal_takes_effect_during_an_upload() {
    let server = Server::seaweedfs().await;
    server.bucket("limited").await;
    let s3 =
        format!("backend = \"s3\"\nendpoint = {:?}\nbucket = \"limited\"\nrescan_interval = \"1s\"\n", server.endpoint);
    let mut machine = Machine::new("manners_2", "");
    machine.set(&format!("{s3}bandwidth_limit = \"4 Mbit/s\""));
    machine.set_secrets(KEY, SECRET);
    let mut recorder = machine.recorder("drive");
    let small: Vec<_> = (0..4).map(|_| recorder.finalize_of(300_000)).collect();
    machine.start();
    let began = Instant::now();
    until("the small ones are there", || small.iter().all(|chunk| is_uploaded(&recorder, chunk)));
    // 1.2 MB at 0.5 MB/s, minus the burst of a quarter of a second.
    assert!(began.elapsed() > Duration::from_millis(2000), "{:?}", began.elapsed());
    // At this limit the upload would take four hours.
    machine.set(&format!("{s3}bandwidth_limit = \"2 kB/s\""));
    let mut python = machine.python();
    let limit = |python: &mut Python| {
        let config = python.ask(&machine.key("config")).value();
        let settings = config["settings"].as_array().unwrap().clone();
        settings.into_iter().find(|setting| setting["key"] == "bandwidth_limit").unwrap()["value"].clone()
    };
    until("the limit is taken up", || limit(&mut python) == json!("2 kB/s"));
    let large = recorder.finalize_of(30_000_000);
    until("it is on its way", || status(&mut python, &machine)["queue"]["in_flight"] == json!(1));
    machine.set(&s3);
    until("it is there", || is_uploaded(&recorder, &large));
    assert!(status(&mut python, &machine)["upload_rate_bytes_per_s"].as_u64().unwrap() > 100_000);
}

/// Returns a machine that uploads a large chunk at 0.5 MB/s.
async fn slow(
    server: &Server,
    id: &str,
    bucket: &str,
    (size, more): (usize, &str),
) -> (Machine, Recorder, Value, String) {
    server.bucket(bucket).await;
    let fast = format!(
        "backend = \"s3\"\nendpoint = {:?}\nbucket = {bucket:?}\nrescan_interval = \"1s\"\n{more}\n",
        server.endpoint
    );
    let mut machine = Machine::new(id, "");
    machine.set(&format!("{fast}bandwidth_limit = \"4 Mbit/s\""));
    machine.set_secrets(KEY, SECRET);
    let mut recorder = machine.recorder("drive");
    let large = recorder.finalize_of(size);
    machine.start();
    (machine, recorder, large, fast)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stops_a_large_chunk_between_two_parts_and_nothing_is_sent_twice() {
    let server = Server::seaweedfs().await;
    let (machine, recorder, large, fast) =
        slow(&server, "manners_4", "paused", (30_000_000, "part_size = \"5 MiB\"")).await;
    let parts = || -> Vec<u64> {
        let journal = recorder.journal();
        journal.iter().filter(|line| line["kind"] == "part_sent").map(|line| line["number"].as_u64().unwrap()).collect()
    };
    let mut python = machine.python();
    until("a part is there", || !parts().is_empty());
    python.ask(&machine.key("pause"));
    until("nothing is on its way", || {
        let queue = status(&mut python, &machine)["queue"].clone();
        queue["in_flight"] == 0 && queue["waiting"] == 1
    });
    assert!(!is_uploaded(&recorder, &large) && parts().len() < 6, "{:?}", parts());
    assert_eq!(status(&mut python, &machine)["failing"], Value::Null, "that is no failure");
    machine.set(&fast);
    python.ask(&machine.key("resume"));
    until("it is there", || is_uploaded(&recorder, &large));
    let mut numbers = parts();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_is_correct_during_a_large_chunk_and_after_it() {
    let server = Server::seaweedfs().await;
    let (machine, recorder, large, _) =
        slow(&server, "manners_5", "rated", (12_000_000, "multipart_threshold = \"1 GiB\"")).await;
    let mut python = machine.python();
    let mut rates = Vec::new();
    until("it is there", || {
        let rate = status(&mut python, &machine)["upload_rate_bytes_per_s"].as_u64();
        rates.extend(rate.filter(|rate| *rate > 0));
        is_uploaded(&recorder, &large)
    });
    // The first seconds show only that the upload makes progress. A busy machine is slower than the limit, never
    // faster.
    let later = &rates[rates.len() / 4..];
    assert!(later.len() > 1 && later.iter().all(|rate| *rate <= 750_000), "{rates:?}");
    let after = status(&mut python, &machine)["upload_rate_bytes_per_s"].as_u64().unwrap();
    assert!((1..=600_000).contains(&after), "{after}");
}

#[test]
fn a_wrong_rate_size_or_window_is_reported_and_stops_nothing() {
    let mut machine = Machine::new(
        "manners_3",
        "bandwidth_limit = \"fast\"\nupload_window = \"25:00-6\"\npart_size = \"1 kB\"\norder = \"best\"\nrescan_interval = \"1s\"",
    );
    let mut recorder = machine.recorder("drive");
    let chunk = recorder.finalize();
    machine.start();
    let mut python = machine.python();
    let problems = status(&mut python, &machine)["config_problems"].clone();
    let found: Vec<_> = problems.as_array().unwrap().iter().map(|problem| problem["key"].as_str().unwrap()).collect();
    assert_eq!(found, ["order", "bandwidth_limit", "upload_window", "part_size"]);
    until("it is uploaded", || is_uploaded(&recorder, &chunk));
}
