//! How `list` and `info` show the states of a library.

use std::{fs, time::Duration};

use bubbaloop_storage_schemas::{
    parameter::Limit,
    recording::RecordingState,
    verbs::{info::InfoRequest, list::ListRequest, upload::UploadRequest},
};
use serde_json::{Value, json};

use crate::{
    service::{json_of, service},
    support::robot::{Robot, sync_once},
};

fn unmanaged() -> ListRequest {
    ListRequest { state: Some(RecordingState::Unmanaged), ..ListRequest::default() }
}

fn rows(robot: &Robot, request: &ListRequest) -> Vec<Value> {
    let engine = robot.started_and_scanned();
    json_of(service(robot, &engine).list(request).unwrap())["recordings"].as_array().unwrap().clone()
}

#[test]
fn files_of_other_tools_are_listed_and_never_touched() {
    let robot = Robot::new();
    let root = robot.folder.path().join("recordings");
    for name in ["a_chunk_000.mcap", "a_chunk_001.mcap", "z.mcap"] {
        fs::write(root.join(name), "12345").unwrap();
    }
    fs::create_dir(root.join("bag")).unwrap();
    fs::write(root.join("bag/metadata.yaml"), "").unwrap();
    fs::write(root.join("bag/bag_0.mcap"), "123").unwrap();
    robot.manifest(&[robot.chunk(0)]);
    let names: Vec<_> = rows(&robot, &ListRequest::default()).iter().map(|row| row["recording"].clone()).collect();
    assert_eq!(names, ["a", "bag", "drive", "z"]);
    let unmanaged = rows(&robot, &unmanaged());
    let told: Vec<_> = unmanaged.iter().map(|row| (&row["chunks"], &row["size_bytes"], &row["upload"])).collect();
    let none = json!("none");
    assert_eq!(told, [(&json!(2), &json!(10), &none), (&json!(1), &json!(3), &none), (&json!(1), &json!(5), &none)]);
    assert!(unmanaged[1]["reason"].as_str().unwrap().contains("rosbag2"));

    let engine = robot.started_and_scanned();
    let mut found = Vec::new();
    let mut request = ListRequest { limit: Limit::new(1), ..ListRequest::default() };
    loop {
        let page = json_of(service(&robot, &engine).list(&request).unwrap());
        found.extend(page["recordings"].as_array().unwrap().iter().map(|row| row["recording"].clone()));
        if page["next_after"].is_null() {
            break;
        }
        request.after = page["next_after"].as_str().map(str::to_owned);
    }
    assert_eq!(found, names, "pages go through both kinds");
    let status = json_of(service(&robot, &engine).status());
    assert_eq!(
        (&status["safe"], &status["at_risk_chunks"]),
        (&json!(false), &json!(5)),
        "what is not ours is not safe"
    );
    assert_eq!(
        json_of(service(&robot, &engine).info(&InfoRequest::new("bag".parse().unwrap())).unwrap())["state"],
        "unmanaged"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_recording_without_changes_for_a_day_counts_as_ended_and_keeps_its_manifest() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.manifest(&[chunk]);
    let path = robot.recording().join("manifest.json");
    let before = fs::read(&path).unwrap();
    for file in [&path, &robot.recording(), &robot.recording().join("chunks")] {
        robot.age(file, Duration::from_secs(90_000));
    }
    let engine = robot.started();
    sync_once(&engine).await;
    assert_eq!(rows(&robot, &ListRequest::default())[0]["state"], "interrupted");
    assert_eq!(robot.remote_indices("manifest.json"), Some(vec![0]), "it is published at once, as an ended one");
    for _ in 0..3 {
        sync_once(&engine).await;
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_recording_is_listed_and_not_uploaded() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.manifest_with(&[chunk], &json!({"machine_id": "robot_2"}));
    let engine = robot.started();
    sync_once(&engine).await;
    assert_eq!(robot.puts(), 0);
    let service = service(&robot, &engine);
    assert_eq!(json_of(service.list(&ListRequest::default()).unwrap())["recordings"][0]["state"], "foreign");
    let refusal = service
        .upload(&UploadRequest { recording: Some("drive".parse().unwrap()), ..UploadRequest::default() })
        .unwrap_err();
    assert!(refusal.message.contains("another machine"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_safe_on_the_librarys_own_disk_or_without_a_store() {
    let robot = Robot::new();
    robot.ended(&[robot.chunk(0)]);
    let engine = robot.started();
    sync_once(&engine).await;
    let status = json_of(service(&robot, &engine).status());
    assert_eq!((&status["safe"], &status["at_risk_bytes"]), (&json!(true), &json!(0)), "proven, in another place");
    let local = crate::service::service_with(&robot, &engine, Some(robot.folder.path().join("mnt/bucket")));
    let status = json_of(local.status());
    assert_eq!((&status["safe"], &status["store"]["same_disk"]), (&json!(false), &json!(true)));
    assert_eq!(status["at_risk_bytes"], 300_000);
}

fn status(robot: &Robot) -> Value {
    json_of(service(robot, &robot.started_and_scanned()).status())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_not_uploaded_are_reported_and_never_called_safe() {
    let robot = Robot::new();
    robot.ended(&[robot.chunk(0)]);
    sync_once(&robot.started()).await;
    assert_eq!(status(&robot)["safe"], true);
    let root = robot.folder.path().join("recordings");
    let chunks = robot.recording().join("chunks");

    fs::write(chunks.join("foo.mcap"), "stray").unwrap();
    assert_eq!((&status(&robot)["safe"], &status(&robot)["at_risk_bytes"]), (&json!(false), &json!(5)));
    let row = &rows(&robot, &ListRequest::default())[0];
    assert!(row["reason"].as_str().unwrap().contains("no chunk's"), "{row}");
    fs::remove_file(chunks.join("foo.mcap")).unwrap();
    assert_eq!(status(&robot)["safe"], true);

    let illegal = root.join("sp ace/chunks");
    fs::create_dir_all(&illegal).unwrap();
    fs::write(illegal.join("chunk-000000-00000000.mcap"), "x").unwrap();
    assert_eq!(status(&robot)["safe"], false);
    let row = &rows(&robot, &unmanaged())[0];
    assert_eq!((&row["recording"], &row["chunks"]), (&json!("sp ace"), &json!(1)));
    fs::remove_dir_all(root.join("sp ace")).unwrap();

    robot.manifest_with(&[robot.chunk(0)], &json!({"ended_at_ns": 9, "corrupt": true}));
    assert_eq!(status(&robot)["safe"], false, "what can't be healed is not safe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_behind_a_link_is_treated_like_any_other() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(std::slice::from_ref(&chunk));
    let elsewhere = robot.folder.path().join("elsewhere");
    fs::rename(robot.recording(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, robot.recording()).unwrap();
    let engine = robot.started();
    sync_once(&engine).await;
    assert!(robot.is_stored(&chunk));
    assert_eq!(
        json_of(service(&robot, &engine).list(&ListRequest::default()).unwrap())["recordings"][0]["upload"],
        "complete"
    );
}

#[test]
fn a_missing_recordings_folder_is_reported_and_comes_back() {
    let robot = Robot::new();
    robot.ended(&[robot.chunk(0)]);
    let (root, away) = (robot.folder.path().join("recordings"), robot.folder.path().join("away"));
    let engine = robot.started();
    let service = service(&robot, &engine);
    fs::rename(&root, &away).unwrap();
    engine.scan().unwrap_err();
    let refusal = service.list(&ListRequest::default()).unwrap_err();
    assert!(refusal.message.contains("recordings") && refusal.hint.is_some(), "{refusal:?}");
    let told = json_of(service.status());
    assert_eq!((&told["blocked"]["reason"], &told["safe"]), (&json!("recordings_unreadable"), &json!(false)));
    fs::rename(&away, &root).unwrap();
    engine.scan().unwrap();
    assert_eq!(json_of(service.status())["blocked"], json!(null));
    assert_eq!(json_of(service.list(&ListRequest::default()).unwrap())["recordings"].as_array().unwrap().len(), 1);
}
