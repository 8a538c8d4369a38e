//! Remote manifests name only stored chunks, only grow, and never replace the manifest of another capture.

use std::{fs, time::Duration};

use bubbaloop_storage_schemas::event::Fact;
use serde_json::{Value, json};

use crate::support::robot::{Robot, sync_once};

fn remote(robot: &Robot, name: &str) -> Value {
    serde_json::from_slice(&fs::read(robot.remote(name)).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_recording_is_published_once_its_chunks_are_stored() {
    let robot = Robot::new();
    let mut facts = robot.facts.listen();
    let chunks = [robot.chunk(0), robot.chunk(1)];
    robot.manifest_with(&chunks, &json!({"ended_at_ns": 9, "mine": {"kept": true}}));
    let engine = robot.started();
    sync_once(&engine).await;
    let manifest = remote(&robot, "manifest.json");
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0, 1]));
    assert_eq!(manifest["mine"], json!({"kept": true}));
    assert!(manifest["chunks"][0]["uploaded_at_ns"].is_u64() && manifest["chunks"][0]["remote_etag"].is_string());
    let mut complete = 0;
    while let Ok(event) = facts.try_recv() {
        complete += usize::from(matches!(event.fact, Fact::RecordingComplete { chunks: 2, .. }));
    }
    assert_eq!(complete, 1);

    fs::remove_file(robot.remote("manifest.json")).unwrap();
    sync_once(&robot.started()).await;
    assert!(!robot.remote("manifest.json").exists(), "what the journal says is published is not written again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_recording_is_published_after_a_while_and_grows() {
    let robot = Robot::new();
    let chunks = [robot.chunk(0), robot.chunk(1)];
    robot.manifest(&chunks[..1]);
    let engine = robot.started();
    sync_once(&engine).await;
    assert_eq!(robot.remote_indices("manifest.json"), None);
    robot.pass(Duration::from_secs(3));
    engine.drain().await;
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0]));
    robot.manifest(&chunks);
    sync_once(&engine).await;
    robot.pass(Duration::from_secs(30));
    engine.drain().await;
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0]), "at most once a minute");
    robot.pass(Duration::from_secs(60));
    engine.drain().await;
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0, 1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_only_the_remote_manifest_names_stays_in_it() {
    let robot = Robot::new();
    let chunks = [robot.chunk(0), robot.chunk(1), robot.chunk(2)];
    robot.ended(&chunks);
    sync_once(&robot.started()).await;
    fs::remove_file(robot.recording().join("uploads.jsonl")).unwrap();
    robot.ended(&chunks[..2]);
    let engine = robot.started();
    sync_once(&engine).await;
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0, 1, 2]), "it only grows");
    let more = robot.chunk(3);
    robot.ended(&[&chunks[..], &[more]].concat());
    sync_once(&engine).await;
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0, 1, 2, 3]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_capture_of_the_name_keeps_its_manifest() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(std::slice::from_ref(&chunk));
    fs::create_dir_all(robot.remote("chunks")).unwrap();
    for theirs in [
        json!({"schema_version": 1, "name": "drive", "machine_id": "robot_1", "started_at_ns": 77, "chunks": []})
            .to_string(),
        "no manifest at all".to_owned(),
    ] {
        fs::write(robot.remote("manifest.json"), &theirs).unwrap();
        fs::remove_file(robot.recording().join("uploads.jsonl")).ok();
        let engine = robot.started();
        sync_once(&engine).await;
        assert_eq!(fs::read_to_string(robot.remote("manifest.json")).unwrap(), theirs);
        assert_eq!(robot.remote_indices("manifest.5.json"), Some(vec![0]), "ours has a name of its own");
        assert!(robot.is_stored(&chunk));
        let more = robot.chunk(1);
        robot.ended(&[chunk.clone(), more]);
        sync_once(&engine).await;
        assert_eq!(robot.remote_indices("manifest.5.json"), Some(vec![0, 1]));
        robot.ended(std::slice::from_ref(&chunk));
        fs::remove_file(robot.remote("manifest.5.json")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_are_folded_into_an_ended_manifest_and_nothing_is_published_again_for_it() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(&[chunk]);
    let path = robot.recording().join("manifest.json");
    let engine = robot.started();
    sync_once(&engine).await;
    let published = fs::metadata(robot.remote("manifest.json")).unwrap().modified().unwrap();
    for file in [&path, &robot.recording(), &robot.recording().join("chunks"), &robot.recording().join("uploads.jsonl")]
    {
        robot.age(file, Duration::from_secs(120));
    }
    for _ in 0..3 {
        sync_once(&engine).await;
    }
    let local: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(local["chunks"][0]["uploaded_at_ns"].is_u64(), "{local}");
    assert_eq!(fs::metadata(robot.remote("manifest.json")).unwrap().modified().unwrap(), published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_library_of_the_same_machine_is_reported_and_loses_nothing() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(&[chunk]);
    fs::create_dir_all(robot.remote("chunks")).unwrap();
    let theirs = json!({
        "schema_version": 1, "name": "drive", "machine_id": "robot_1", "started_at_ns": 77, "library_id": "other", "chunks": []
    });
    fs::write(robot.remote("manifest.json"), theirs.to_string()).unwrap();
    let mut facts = robot.facts.listen();
    let engine = robot.started();
    sync_once(&engine).await;
    assert_eq!(engine.twins(), ["other"]);
    let is_twin = |fact: &Fact| matches!(fact, Fact::Twin { twin_library_id, .. } if twin_library_id == "other");
    let mut told = 0;
    while let Ok(event) = facts.try_recv() {
        told += usize::from(is_twin(&event.fact));
    }
    assert_eq!(told, 1);
    assert_eq!(remote(&robot, "manifest.json"), theirs);
    assert_eq!(remote(&robot, "manifest.5.json")["library_id"], "l");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_manifest_that_shrinks_takes_nothing_from_the_remote_one() {
    let robot = Robot::new();
    let chunks: Vec<_> = (0..6).map(|index| robot.chunk(index)).collect();
    robot.ended(&chunks);
    let engine = robot.started();
    sync_once(&engine).await;
    robot.ended(&chunks[..2]);
    sync_once(&engine).await;
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0, 1, 2, 3, 4, 5]));
    sync_once(&robot.started()).await;
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0, 1, 2, 3, 4, 5]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_names_only_chunks_that_stand_beside_it_however_the_machine_is_spelled() {
    let robot = Robot::new();
    let chunks = [robot.chunk(0), robot.chunk(1)];
    let engine = robot.started();
    sync_once(&engine).await;
    sync_once(&engine).await;
    assert!(robot.is_stored(&chunks[0]), "before there is a manifest the node's own spelling holds");
    robot.manifest_with(&chunks, &json!({"machine_id": "robot-1", "ended_at_ns": 9}));
    sync_once(&engine).await;
    let folder = robot.folder.path().join("mnt/bucket/robot-1/drive");
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    for chunk in manifest["chunks"].as_array().unwrap() {
        assert!(folder.join("chunks").join(chunk["name"].as_str().unwrap()).exists(), "{chunk}");
    }
    assert_eq!(manifest["chunks"].as_array().unwrap().len(), 2);
    let puts = robot.puts();
    sync_once(&robot.started()).await;
    assert_eq!(robot.puts(), puts, "a restart sends nothing again");
}
