//! Things that disappear under a running node: the library's disk, one file, the correct time.

use std::{fs, os::unix::fs::symlink, sync::Arc, time::Duration};

use bubbaloop_storage::{
    engine::driver::{Engine, UploadOutcome},
    policy::queue::Stage,
};
use bubbaloop_storage_schemas::verbs::list::ListRequest;
use serde_json::{Value, json};

use crate::{
    service::{json_of, service},
    support::{
        node::{Machine, until},
        robot::{Robot, sync_once},
    },
};

/// A robot whose chunk can't be uploaded because its store is missing. Its library can be removed too.
fn robot() -> (Robot, Value) {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(std::slice::from_ref(&chunk));
    fs::remove_dir(robot.folder.path().join("mnt")).unwrap();
    (robot, chunk)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_folder_in_the_place_of_the_library_is_not_safe_running_or_at_a_start() {
    let (robot, chunk) = robot();
    let (root, away) = (robot.folder.path().join("recordings"), robot.folder.path().join("away"));
    let engine = robot.started_and_scanned();
    let told = |engine: &Arc<Engine>| json_of(service(&robot, engine).status());
    assert_eq!((&told(&engine)["at_risk_chunks"], &told(&engine)["blocked"]), (&json!(1), &json!(null)));

    fs::rename(&root, &away).unwrap();
    fs::create_dir(&root).unwrap();
    engine.scan().unwrap();
    let unmounted = told(&engine);
    assert_eq!((&unmounted["safe"], &unmounted["at_risk_chunks"]), (&json!(false), &json!(1)), "{unmounted:#}");
    assert_eq!(unmounted["blocked"]["reason"], "recordings_changed");
    assert_eq!(unmounted["queue"]["waiting"], 0, "what is not there is not tried");
    assert!(fs::read_dir(&root).unwrap().next().is_none(), "the robot's own disk is left alone");

    let restarted = robot.started_and_scanned();
    let blind = told(&restarted);
    assert_eq!((&blind["safe"], &blind["blocked"]["reason"]), (&json!(false), &json!("recordings_changed")));

    fs::create_dir(robot.folder.path().join("mnt")).unwrap();
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    for engine in [&engine, &restarted] {
        sync_once(engine).await;
        let back = told(engine);
        assert_eq!(back["blocked"], json!(null));
        assert_eq!(back["library"]["uploaded_chunks"], 1);
    }
    assert!(robot.is_stored(&chunk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_on_a_separate_disk_that_disappears_stays_at_risk() {
    let (robot, chunk) = robot();
    let (folder, disk) = (robot.recording(), robot.folder.path().join("disk"));
    let off = robot.folder.path().join("off");
    fs::rename(&folder, &disk).unwrap();
    symlink(&disk, &folder).unwrap();
    let engine = robot.started_and_scanned();
    let told = |engine: &Arc<Engine>| json_of(service(&robot, engine).status());
    assert_eq!(told(&engine)["at_risk_chunks"], 1);

    // The link leads nowhere, or to the empty mount point of a disk.
    for is_empty in [false, true] {
        fs::rename(&disk, &off).unwrap();
        if is_empty {
            fs::create_dir(&disk).unwrap();
        }
        sync_once(&engine).await;
        assert_eq!(
            (&told(&engine)["safe"], &told(&engine)["at_risk_chunks"]),
            (&json!(false), &json!(1)),
            "{is_empty}"
        );
        assert_eq!(told(&engine)["dead_letters"], 0, "{is_empty}");
        if !is_empty {
            let restarted = robot.started_and_scanned();
            assert_eq!(told(&restarted)["safe"], false, "what can't be looked at is not called safe");
            let list = json_of(service(&robot, &restarted).list(&ListRequest::default()).unwrap());
            assert!(list["recordings"][0]["reason"].to_string().contains("No such file"), "{list:#}");
        } else {
            fs::remove_dir(&disk).unwrap();
        }
        fs::rename(&off, &disk).unwrap();
        engine.scan().unwrap();
        assert!(engine.unreadable().is_empty());
    }
    fs::create_dir(robot.folder.path().join("mnt")).unwrap();
    robot.pass(Duration::from_secs(120));
    sync_once(&engine).await;
    assert!(robot.is_stored(&chunk));
}

#[test]
fn a_library_that_can_have_no_mark_is_distinguished_from_another_while_the_node_runs() {
    let (robot, _) = robot();
    let (root, away) = (robot.folder.path().join("recordings"), robot.folder.path().join("away"));
    // A folder stands in the mark's place. Not even root can write a file there.
    fs::create_dir(root.join(".library.json")).unwrap();
    let engine = robot.started_and_scanned();
    fs::rename(&root, &away).unwrap();
    fs::create_dir(&root).unwrap();
    engine.scan().unwrap();
    let told = json_of(service(&robot, &engine).status());
    assert_eq!((&told["safe"], &told["at_risk_chunks"]), (&json!(false), &json!(1)), "{told:#}");
    assert_eq!(told["blocked"]["reason"], "recordings_changed");
    // Other settings rebuild the components. The node stays the same.
    let tuned = robot.started_after(&engine, "s");
    let elsewhere = robot.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let moved = robot.started_in(&elsewhere, &engine);
    moved.scan().unwrap();
    let told = json_of(service(&robot, &moved).status());
    assert_eq!((&told["blocked"], &told["at_risk_chunks"]), (&json!(null), &json!(0)), "another library is another");
    tuned.scan().unwrap();
    let told = json_of(service(&robot, &tuned).status());
    assert_eq!((&told["safe"], &told["at_risk_chunks"]), (&json!(false), &json!(1)), "{told:#}");
    fs::write(root.join(".library.json"), "").unwrap();
    tuned.scan().unwrap();
    assert_eq!(json_of(service(&robot, &tuned).status())["blocked"], json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_of_a_missing_library_wait_and_their_requester_is_told() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(std::slice::from_ref(&chunk));
    let (root, away) = (robot.folder.path().join("recordings"), robot.folder.path().join("away"));
    let engine = robot.started_and_scanned();
    fs::rename(&root, &away).unwrap();
    engine.drain().await;
    let told = json_of(service(&robot, &engine).status());
    assert_eq!((&told["dead_letters"], &told["queue"]["waiting"]), (&json!(0), &json!(0)), "{told:#}");
    fs::create_dir(&root).unwrap();
    engine.scan().unwrap();
    let errands = engine.ask(None);
    assert_eq!(errands.len(), 1);
    for errand in errands {
        assert!(matches!(engine.standing(&errand.id), UploadOutcome::Failed { is_corrupt: false, .. }));
    }
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    sync_once(&engine).await;
    assert!(robot.is_stored(&chunk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_recordings_on_another_disk_are_uploaded_and_a_person_confirms_the_replacement() {
    let (robot, _) = robot();
    fs::create_dir(robot.folder.path().join("mnt")).unwrap();
    let root = robot.folder.path().join("recordings");
    let engine = robot.started_and_scanned();
    fs::rename(&root, robot.folder.path().join("away")).unwrap();
    fs::create_dir_all(robot.recording().join("chunks")).unwrap();
    let chunk = robot.chunk(7);
    let told = || json_of(service(&robot, &engine).status());
    for _ in 0..2 {
        sync_once(&engine).await;
    }
    assert!(robot.is_stored(&chunk), "no upload waits for a person");
    assert_eq!(told()["blocked"]["reason"], "recordings_changed");
    fs::write(root.join(".library.json"), "").unwrap();
    sync_once(&engine).await;
    assert_eq!(told()["blocked"], json!(null));
    let restarted = robot.started_and_scanned();
    assert_eq!(json_of(service(&robot, &restarted).status())["blocked"], json!(null));
}

#[test]
fn a_library_that_is_missing_at_the_start_is_reported_and_comes_back_as_a_folder_or_a_link() {
    let mut machine = Machine::new("away_1", "rescan_interval = \"1s\"");
    machine.recorder("drive").finalize();
    let (root, away) = (machine.home().join("recordings"), machine.folder.path().join("away"));
    machine.start();
    // A node that is killed before it stores the mark would know of no library.
    let remembered = || fs::read_to_string(machine.home().join("storage/state.json")).unwrap_or_default();
    until("its mark is remembered", || remembered().contains(root.to_str().unwrap()));
    machine.kill();
    fs::rename(&root, &away).unwrap();
    machine.start();
    let status = || -> Value { serde_json::from_slice(&machine.run(&["status", "--json"]).stdout).unwrap_or_default() };
    until("that it is away is told", || status()["blocked"]["reason"] == "recordings_changed");
    assert_eq!(status()["safe"], false);
    fs::rename(&away, &root).unwrap();
    until("it is back", || status()["library"]["uploaded_chunks"] == 1 && status()["blocked"] == json!(null));

    machine.kill();
    fs::rename(&root, &away).unwrap();
    symlink(machine.folder.path().join("mount"), &root).unwrap();
    machine.start();
    let status = || -> Value { serde_json::from_slice(&machine.run(&["status", "--json"]).stdout).unwrap_or_default() };
    until("that it leads nowhere is told", || status()["blocked"]["reason"] == "recordings_unreadable");
    fs::rename(&away, machine.folder.path().join("mount")).unwrap();
    until("it is mounted", || status()["library"]["uploaded_chunks"] == 1 && status()["blocked"] == json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_whose_file_comes_back_is_uploaded_without_help_also_after_a_restart() {
    for is_restarted in [false, true] {
        let robot = Robot::new();
        let chunk = robot.chunk(0);
        robot.ended(std::slice::from_ref(&chunk));
        let folder = robot.recording().join("chunks");
        let away = robot.folder.path().join("chunks");
        // The folder is moved as a mount would do it, so that the recording's folder looks the same when it is back.
        fs::rename(&folder, &away).unwrap();
        symlink(&away, &folder).unwrap();
        let engine = robot.started_and_scanned();
        fs::rename(&away, away.with_extension("off")).unwrap();
        engine.drain().await;
        assert!(engine.dead_letters()[0].reason.contains("not there"), "{:?}", engine.dead_letters());
        fs::rename(away.with_extension("off"), &away).unwrap();
        let engine = if is_restarted { robot.started() } else { engine };
        if is_restarted {
            engine.restore_letters();
        }
        sync_once(&engine).await;
        assert!(robot.is_stored(&chunk) && engine.dead_letters().is_empty(), "{:?}", engine.dead_letters());
    }
}

#[test]
fn a_file_in_the_place_of_a_recording_folder_is_no_recording() {
    let (robot, _) = robot();
    let engine = robot.started_and_scanned();
    fs::remove_dir_all(robot.recording()).unwrap();
    fs::write(robot.recording(), "").unwrap();
    engine.scan().unwrap();
    let told = json_of(service(&robot, &engine).status());
    assert_eq!((&told["at_risk_chunks"], &told["library"]["recordings"]), (&json!(0), &json!(0)), "{told:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_was_deleted_by_hand_leaves_neither_dead_letters_nor_a_failure() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(std::slice::from_ref(&chunk));
    fs::write(robot.recording().join("chunks").join(chunk["name"].as_str().unwrap()), "damaged").unwrap();
    let engine = robot.started();
    sync_once(&engine).await;
    assert_eq!(engine.dead_letters().len(), 1);
    fs::remove_dir_all(robot.recording()).unwrap();
    sync_once(&engine).await;
    let told = json_of(service(&robot, &engine).status());
    assert_eq!(
        (&told["dead_letters"], &told["failing"], &told["at_risk_chunks"]),
        (&json!(0), &json!(null), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_unreadable_for_a_moment_is_not_given_up_and_its_requester_is_told() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(std::slice::from_ref(&chunk));
    let path = robot.recording().join("chunks").join(chunk["name"].as_str().unwrap());
    let engine = robot.started_and_scanned();
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    // A folder has a name and no bytes. Not even root can read it as a file.
    fs::create_dir(&path).unwrap();
    engine.drain().await;
    let told = json_of(service(&robot, &engine).status());
    assert_eq!((&told["dead_letters"], &told["queue"]["waiting"]), (&json!(0), &json!(1)), "{told:#}");
    assert!(told["failing"]["message"].as_str().unwrap().contains(chunk["name"].as_str().unwrap()), "{told:#}");
    fs::remove_dir(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    robot.pass(Duration::from_secs(60));
    engine.drain().await;
    assert!(robot.is_stored(&chunk));
    let is_waiting = engine.read(|_, queue| queue.waiting() > 0 || queue.dead_letters().len() > 0);
    let told = json_of(service(&robot, &engine).status());
    assert!(!is_waiting && told["failing"] == json!(null), "{told:#}");
}

#[test]
fn a_chunk_that_is_a_link_and_a_name_that_is_no_text_are_at_risk() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(&[]);
    let path = robot.recording().join("chunks").join(chunk["name"].as_str().unwrap());
    let target = robot.folder.path().join("elsewhere.mcap");
    fs::rename(&path, &target).unwrap();
    symlink(&target, &path).unwrap();
    fs::write(robot.recording().join("chunks").join(OsStr::from_bytes(b"\xff.mcap")), "12345").unwrap();
    let engine = robot.started_and_scanned();
    let told = json_of(service(&robot, &engine).status());
    assert_eq!((&told["at_risk_chunks"], &told["at_risk_bytes"]), (&json!(2), &json!(300_005)), "{told:#}");
}

#[test]
fn a_pause_ends_at_its_time_on_a_machine_whose_clock_is_set_after_each_start() {
    let hour = Duration::from_secs(3600);
    let robot = Robot::new();
    robot.set_wall_ahead(hour * 1000);
    robot.started().pause(Some(hour * 12)).unwrap();
    // The machine was off for eight hours and started without the correct time.
    robot.set_wall_ahead(Duration::ZERO);
    let engine = robot.started();
    engine.restore_pause();
    assert!(engine.paused().is_some());
    robot.set_wall_ahead(hour * 1008);
    robot.pass(Duration::from_secs(60));
    engine.scan().unwrap();
    engine.follow_clock();
    let left = engine.paused().unwrap().until_ns.unwrap() - bubbaloop_storage::clock::Clock::wall(&*robot.clock);
    assert!((3..=4).contains(&(left / 3_600_000_000_000)), "{left}");
    robot.pass(hour * 4);
    assert_eq!(engine.paused(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_lasts_as_long_as_requested_whatever_the_clock_does() {
    let hour = Duration::from_secs(3600);
    for (ahead_before, ahead_after) in [(hour * 10, Duration::ZERO), (Duration::ZERO, hour * 10)] {
        let robot = Robot::new();
        let chunk = robot.chunk(0);
        robot.ended(std::slice::from_ref(&chunk));
        let engine = robot.started_and_scanned();
        let id = engine.read(|recordings, _| {
            let recording = recordings.values().next().unwrap();
            bubbaloop_storage::policy::queue::ChunkId {
                recording: recording.name.clone(),
                chunk: recording.chunks[0].name,
            }
        });
        let waits = || engine.read(|_, queue| matches!(queue.stage(&id), Some(Stage::Waiting)));
        robot.set_wall_ahead(ahead_before);
        engine.pause(Some(hour)).unwrap();
        robot.set_wall_ahead(ahead_after);
        robot.pass(hour - Duration::from_secs(60));
        engine.drain().await;
        assert!(waits() && engine.paused().is_some(), "it ended early");
        let now_ns = bubbaloop_storage::clock::Clock::wall(&*robot.clock);
        let left = Duration::from_nanos(engine.paused().unwrap().until_ns.unwrap() - now_ns);
        assert!((58..=60).contains(&left.as_secs()), "its end is told by the clock as it is: {left:?}");

        let restarted = robot.started_and_scanned();
        restarted.restore_pause();
        assert_eq!(restarted.paused(), engine.paused(), "a restart knows the end that is told");
        robot.pass(Duration::from_secs(61));
        assert_eq!((restarted.paused(), engine.paused()), (None, None), "it lasts longer than was said");
        engine.drain().await;
        assert!(robot.is_stored(&chunk));
    }
}
