//! The main job on the real binary: a recorder writes, a Python client publishes and asks, and the store is complete at
//! the end.

use std::{fs, os::unix::fs::MetadataExt};

use serde_json::{Value, json};

use crate::support::{
    node::{Machine, Recorder, until},
    python::{Get, Python},
};

fn status(python: &mut Python, machine: &Machine) -> Value {
    python.ask(&machine.key("status")).value()
}

fn info(python: &mut Python, machine: &Machine, recording: &str) -> Value {
    python.ask(&format!("{}?recording={recording};limit=1000", machine.key("info"))).value()
}

fn row(python: &mut Python, machine: &Machine, recording: &str) -> Value {
    let list = python.ask(&machine.key("list")).value();
    list["recordings"].as_array().unwrap().iter().find(|row| row["recording"] == recording).cloned().unwrap_or_default()
}

fn is_stored_whole(machine: &Machine, recorder: &Recorder) -> bool {
    recorder.chunks.iter().all(|chunk| machine.is_stored(&recorder.name, chunk))
}

fn publish(python: &mut Python, machine: &Machine, event: &Value) {
    let key = format!("bubbaloop/global/{}/recorder/chunk_finalized", machine.id);
    python.publish(&key, event.to_string().as_bytes(), "application/json");
}

#[test]
fn fifty_chunks_survive_a_kill_and_no_proven_one_is_sent_again() {
    let mut machine = Machine::started("job_1");
    let mut python = machine.python();
    python.subscribe(&machine.key("events/*"));
    let mut recorder = machine.recorder("drive");
    for _ in 0..25 {
        let chunk = recorder.finalize();
        publish(&mut python, &machine, &recorder.event(&chunk));
    }
    until("some chunks are proven", || recorder.journal().len() > 5);
    machine.kill();
    let proven: Vec<_> =
        recorder.journal().iter().filter_map(|line| line["chunk"].as_str().map(String::from)).collect();
    let inode = |name: &String| fs::metadata(machine.object("drive", name)).unwrap().ino();
    let before: Vec<_> = proven.iter().map(inode).collect();

    for _ in 25..40 {
        recorder.finalize();
    }
    machine.start();
    let mut python = machine.python();
    python.subscribe(&machine.key("events/*"));
    for _ in 40..50 {
        let chunk = recorder.finalize();
        publish(&mut python, &machine, &recorder.event(&chunk));
    }
    recorder.end();
    until("every chunk is stored", || is_stored_whole(&machine, &recorder));
    until("the list says so", || row(&mut python, &machine, "drive")["uploaded_chunks"] == 50);
    until("the remote manifest names all", || {
        machine.remote_manifest("drive").is_some_and(|manifest| manifest["chunks"].as_array().unwrap().len() == 50)
    });

    let after: Vec<_> = proven.iter().map(|name| fs::metadata(machine.object("drive", name)).unwrap().ino()).collect();
    assert_eq!(after, before, "what was proven is left as it is");
    let mut marks: Vec<_> = recorder
        .journal()
        .iter()
        .filter(|line| line["kind"] == "uploaded")
        .map(|line| line["chunk"].to_string())
        .collect();
    marks.sort();
    marks.dedup();
    assert_eq!(marks.len(), 50);

    let list = row(&mut python, &machine, "drive");
    let info = info(&mut python, &machine, "drive");
    let status = status(&mut python, &machine);
    for field in ["uploaded_chunks", "size_bytes", "uploaded_bytes", "upload", "state"] {
        assert_eq!(list[field], info[field], "{field}");
    }
    assert_eq!((&list["upload"], &list["state"]), (&json!("complete"), &json!("ended")));
    assert_eq!((&status["library"]["chunks"], &status["library"]["uploaded_chunks"]), (&json!(50), &json!(50)));
    assert_eq!((&status["queue"]["waiting"], &status["dead_letters"]), (&json!(0), &json!(0)));
    assert_eq!((&status["store"]["same_disk"], &status["safe"]), (&json!(true), &json!(false)), "one disk is not safe");
    for (chunk, told) in recorder.chunks.iter().zip(info["chunks"].as_array().unwrap()) {
        assert_eq!((&told["sha256"], &told["upload"]), (&chunk["sha256"], &json!("uploaded")));
    }
    until("it is told that the recording is complete", || {
        python.heard().iter().any(|event| event.value()["kind"] == "recording_complete")
    });
    assert_eq!(machine.terminate(), Some(0), "SIGTERM ends the node in order");
}

#[test]
fn a_node_that_is_stopped_during_its_start_ends_in_order() {
    for _ in 0..20 {
        let mut machine = Machine::new("early_1", "");
        machine.spawn();
        let started = std::time::Instant::now();
        while !machine.home().join("storage/lock").exists() {
            assert!(started.elapsed() < std::time::Duration::from_secs(60), "the node takes its home");
            std::thread::yield_now();
        }
        assert_eq!(machine.terminate(), Some(0), "{}", machine.log());
    }
}

#[test]
fn a_recorder_that_rewrites_its_manifest_loses_no_mark_and_hides_no_chunk() {
    let machine = Machine::started("job_2");
    let mut python = machine.python();
    let mut recorder = machine.recorder("drive");
    for count in 1..=5 {
        let chunk = recorder.finalize();
        publish(&mut python, &machine, &recorder.event(&chunk));
        until("the chunk is proven", || row(&mut python, &machine, "drive")["uploaded_chunks"] == count);
    }
    let before = recorder.manifest();
    recorder.save(&json!({}));
    assert_eq!(recorder.manifest(), before, "the manifest stays the recorder's while it records");
    let info = info(&mut python, &machine, "drive");
    assert_eq!((&info["uploaded_chunks"], &info["state"]), (&json!(5), &json!("recording")));
}

#[test]
fn chunks_are_uploaded_whatever_their_manifest_says() {
    let machine = Machine::started("job_3");
    let mut python = machine.python();
    let mut crashed = machine.recorder("crashed");
    crashed.finalize();
    crashed.rename();
    let mut newer = machine.recorder("newer");
    newer.finalize();
    newer.save(&json!({"schema_version": 7}));
    let mut endless = machine.recorder("endless");
    endless.finalize();
    for recorder in [&crashed, &newer, &endless] {
        until("every chunk is stored", || is_stored_whole(&machine, recorder));
    }
    for (recording, state, reason) in [
        ("crashed", "unlisted", "does not name 1 of its chunks"),
        ("newer", "invalid", "schema_version"),
        ("endless", "recording", ""),
    ] {
        until("the list tells the state", || row(&mut python, &machine, recording)["upload"] == "complete");
        let row = row(&mut python, &machine, recording);
        assert_eq!(row["state"], state, "{row}");
        assert!(row["reason"].as_str().unwrap_or_default().contains(reason), "{row}");
    }
    until("the readable ones are published", || {
        machine.remote_manifest("crashed").is_some_and(|manifest| manifest["chunks"].as_array().unwrap().len() == 1)
    });
    assert_eq!(machine.remote_manifest("newer"), None, "a manifest that is refused is not published");
}

#[test]
fn wrong_events_are_counted_and_have_no_other_effect() {
    let machine = Machine::started("job_4");
    let mut python = machine.python();
    let mut recorder = machine.recorder("drive");
    let chunks = [recorder.finalize(), recorder.finalize()];
    let key = format!("bubbaloop/{}/recorder/chunk_finalized", machine.id);
    let good = recorder.event(&chunks[0]);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut event = good.clone();
        change(&mut event);
        event.to_string().into_bytes()
    };
    for bytes in [
        changed(&|_| ()),
        changed(&|_| ()),
        json!({"header": {"monotonic_seq": 1}, "body": recorder.event(&chunks[1])}).to_string().into_bytes(),
        changed(&|event| event["chunk"]["size_bytes"] = json!(good["chunk"]["size_bytes"].as_f64().unwrap())),
        changed(&|event| event["machine_id"] = json!("another")),
        changed(&|event| event["recording"] = json!("../../x")),
        changed(&|event| event["chunk"]["sha256"] = json!("0".repeat(64))),
        b"garbage".to_vec(),
        vec![0xff; 1024 * 1024],
    ] {
        python.put(&key, &bytes, "application/json");
    }
    let dashed = format!("bubbaloop/global/{}/recorder/chunk_finalized", machine.id.replace('_', "-"));
    let cbor = bubbaloop_storage_schemas::codec::encode(&good, bubbaloop_storage_schemas::codec::Format::Cbor).unwrap();
    python.put(&dashed, &cbor, "application/cbor");
    python.put(&dashed, &cbor, "zenoh/bytes");
    let missing = changed(&|event| {
        event["chunk"]["sha256"] = json!(format!("00000000{}", "1".repeat(56)));
        event["chunk"]["name"] = json!("chunk-000000-00000000.mcap");
    });
    python.put(&key, &missing, "application/json");
    let wanted = json!({"total": 6, "foreign": 1, "illegal": 1, "missing": 1, "mismatch": 1, "undecodable": 2});
    until("every refused event is counted", || status(&mut python, &machine)["refused_events"] == wanted);
    until("the good ones are stored", || is_stored_whole(&machine, &recorder));
    assert_eq!(recorder.journal().iter().filter(|line| line["kind"] == "uploaded").count(), 2);
    machine.set("backend = \"local\"\nlocal_path = \"../store\"\nconcurrency = 9");
    until("other settings are taken up", || {
        // While the components are rebuilt, nobody answers for a moment.
        let replies = python.get(&Get { selector: &machine.key("config"), ..Get::default() });
        replies.first().is_some_and(|reply| {
            let config = reply.value();
            config["settings"].as_array().unwrap().iter().any(|it| it["key"] == "concurrency" && it["value"] == 9)
        })
    });
    assert_eq!(status(&mut python, &machine)["refused_events"], wanted, "the counts outlive other settings");
}

#[test]
fn an_event_that_is_ahead_of_its_file_is_waited_for() {
    let mut machine = Machine::new("job_5", "rescan_interval = \"1h\"");
    machine.start();
    let mut python = machine.python();
    let mut recorder = machine.recorder("drive");
    let chunk = recorder.rename();
    let (path, away) = (recorder.path(&chunk), machine.folder.path().join("away"));
    fs::rename(&path, &away).unwrap();
    publish(&mut python, &machine, &recorder.event(&chunk));
    assert_eq!(status(&mut python, &machine)["refused_events"]["total"], 0);
    fs::rename(&away, &path).unwrap();
    until("the chunk is stored", || machine.is_stored("drive", &chunk));
    assert_eq!(status(&mut python, &machine)["refused_events"]["total"], 0);
}
