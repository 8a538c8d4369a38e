//! The main job on real files: every finalized chunk is stored, proven, once.

use std::{fs, sync::Arc, time::Duration};

use bubbaloop_storage::{engine::driver::Engine, library::scan::Recording, policy::recording::ManifestFacts};
use bubbaloop_storage_schemas::{
    RecordingName,
    codec::Format,
    reply::{ChunkLocal, Probe, Proof, Rights},
};
use serde_json::{Value, json};

use crate::support::robot::{Robot, sync_once};

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

fn view(engine: &Engine) -> Arc<Recording> {
    engine.recording(&"drive".parse::<RecordingName>().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_finalized_chunk_gets_to_the_store_once_whatever_restarts() {
    let robot = Robot::new();
    let chunks: Vec<_> = (0..50).map(|index| robot.chunk(index)).collect();
    robot.manifest(&chunks);
    let engine = robot.started();
    sync_once(&engine).await;
    assert!(chunks.iter().all(|chunk| robot.is_stored(chunk)));
    assert!(view(&engine).chunks.iter().all(|chunk| chunk.facts.proof == Some(Proof::Enforced)));
    assert!(engine.is_durable());
    assert_eq!(robot.puts(), 50);

    let restarted = robot.started();
    sync_once(&restarted).await;
    assert_eq!(robot.puts(), 50, "what is proven is not sent again");
    assert_eq!(view(&restarted).pending().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_put_and_journal_sends_nothing_twice() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.manifest(std::slice::from_ref(&chunk));
    sync_once(&robot.started()).await;
    fs::remove_file(robot.recording().join("uploads.jsonl")).unwrap();
    let engine = robot.started();
    sync_once(&engine).await;
    assert_eq!(robot.puts(), 1);
    assert_eq!(view(&engine).chunks[0].facts.proof, Some(Proof::Enforced));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_that_the_disk_does_not_take_are_written_later_though_the_settings_changed_meanwhile() {
    let robot = Robot::new();
    robot.manifest(&[robot.chunk(0)]);
    let journal = robot.recording().join("uploads.jsonl");
    // A folder in the journal's place: not even root writes a file there.
    fs::create_dir(&journal).unwrap();
    let engine = robot.started();
    sync_once(&engine).await;
    assert!(!engine.is_durable());
    let changed = robot.started_after(&engine, "another bucket");
    assert!(!changed.is_durable(), "what is in memory only is still so");
    fs::remove_dir(&journal).unwrap();
    changed.scan().unwrap();
    assert!(changed.is_durable());
    let back = robot.started();
    back.scan().unwrap();
    assert_eq!(view(&back).chunks[0].facts.proof, Some(Proof::Enforced), "the mark is in the journal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unverified_marks_stay_so_over_a_change_of_settings_and_a_restart_until_they_are_compared_with_the_store() {
    let robot = Robot::new();
    robot.ended(&[robot.chunk(0)]);
    let run = async |engine: &Arc<Engine>, is_done: &dyn Fn(&Engine) -> bool| {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn({
            let engine = Arc::clone(engine);
            async move { engine.run(async { stopped.await.unwrap_or_default() }).await }
        });
        until(|| is_done(engine)).await;
        drop(stop);
        running.await.unwrap();
    };
    let engine = robot.started();
    run(&engine, &|engine| engine.is_scanned() && view(engine).pending().count() == 0).await;
    assert!(!engine.is_in_doubt());

    // The disk is taken out, emptied of all but the store's own mark, and put back.
    let (mount, away) = (robot.folder.path().join("mnt"), robot.folder.path().join("off"));
    fs::rename(&mount, &away).unwrap();
    let blocked = robot.started_after(&engine, "s");
    run(&blocked, &|engine| engine.is_in_doubt()).await;
    fs::remove_dir_all(away.join("bucket/robot_1")).unwrap();
    fs::rename(&away, &mount).unwrap();
    let back = robot.started_after(&blocked, "s");
    let restarted = robot.started();
    assert!(back.is_in_doubt() && restarted.is_in_doubt(), "what was proven may not be there any more");
    let other = robot.started_after(&blocked, "another bucket");
    assert!(!other.is_in_doubt());
    assert_eq!(other.verify().await.unwrap(), 0);
    assert!(robot.started().is_in_doubt(), "another store's comparison answers nothing");
    let puts = robot.puts();
    run(&restarted, &|engine| !engine.is_in_doubt() && robot.puts() > puts).await;
    assert!(!robot.started().is_in_doubt(), "it was found out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_in_no_manifest_is_uploaded_after_two_scans() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    let engine = robot.started();
    sync_once(&engine).await;
    assert!(!robot.is_stored(&chunk));
    sync_once(&engine).await;
    assert!(robot.is_stored(&chunk));
    assert_eq!(json!(view(&engine).chunks[0].digest), chunk["sha256"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_bytes_are_reported_and_never_stored() {
    let robot = Robot::new();
    let chunks = [robot.chunk(0), robot.chunk(1)];
    robot.manifest(&chunks);
    let path = robot.recording().join("chunks").join(chunks[0]["name"].as_str().unwrap());
    let mut content = fs::read(&path).unwrap();
    content[299_999] ^= 1;
    fs::write(&path, &content).unwrap();
    let engine = robot.started();
    sync_once(&engine).await;
    assert!(!robot.object(&chunks[0]).exists() && robot.is_stored(&chunks[1]));
    let view = view(&engine);
    assert_eq!((view.chunks[0].facts.local, view.chunks[0].facts.proof), (ChunkLocal::Damaged, None));
    let letters = engine.dead_letters();
    assert!(letters.len() == 1 && letters[0].reason.contains("damaged"), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_survives_a_restart_until_its_file_is_repaired() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.manifest(std::slice::from_ref(&chunk));
    let path = robot.recording().join("chunks").join(chunk["name"].as_str().unwrap());
    let sound = fs::read(&path).unwrap();
    fs::write(&path, [&sound[1..], b"!"].concat()).unwrap();
    sync_once(&robot.started()).await;

    let engine = robot.started();
    engine.restore_letters();
    sync_once(&engine).await;
    let letters = engine.dead_letters();
    assert_eq!((letters.len(), letters[0].attempts, view(&engine).chunks[0].facts.local), (1, 1, ChunkLocal::Damaged));
    robot.pass(Duration::from_secs(86_400));
    engine.drain().await;
    assert_eq!(engine.dead_letters()[0].attempts, 2, "it is tried again once a day");

    fs::write(&path, &sound).unwrap();
    sync_once(&engine).await;
    assert!(robot.is_stored(&chunk));
    assert_eq!(engine.dead_letters(), []);
    let restarted = robot.started();
    restarted.restore_letters();
    sync_once(&restarted).await;
    assert_eq!(restarted.dead_letters(), [], "a letter ends with its cause");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_with_other_bytes_under_the_name_is_a_conflict_and_left_alone() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.manifest(std::slice::from_ref(&chunk));
    fs::create_dir_all(robot.object(&chunk).parent().unwrap()).unwrap();
    fs::write(robot.object(&chunk), "planted").unwrap();
    let engine = robot.started();
    sync_once(&engine).await;
    assert_eq!(fs::read(robot.object(&chunk)).unwrap(), b"planted");
    assert_eq!(view(&engine).chunks[0].facts.proof, None);
    assert!(engine.dead_letters()[0].reason.contains("other bytes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unmounted_disk_blocks_and_recovers_by_itself() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.manifest(std::slice::from_ref(&chunk));
    fs::remove_dir(robot.folder.path().join("mnt")).unwrap();
    let engine = robot.started();
    sync_once(&engine).await;
    assert_eq!(engine.blocked().unwrap().reason, "local_path_missing");
    fs::create_dir(robot.folder.path().join("mnt")).unwrap();
    robot.pass(Duration::from_secs(60));
    engine.drain().await;
    assert_eq!(engine.blocked(), None);
    assert!(robot.is_stored(&chunk));
    assert_eq!(engine.dead_letters(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_cant_be_written_stops_no_upload_and_loses_no_mark_in_memory() {
    let robot = Robot::new();
    let chunks = [robot.chunk(0), robot.chunk(1)];
    robot.manifest(&chunks[..1]);
    fs::create_dir(robot.recording().join("uploads.jsonl")).unwrap();
    let engine = robot.started();
    sync_once(&engine).await;
    assert!(!engine.is_durable());
    robot.manifest(&chunks);
    sync_once(&engine).await;
    assert!(chunks.iter().all(|chunk| robot.is_stored(chunk)));
    assert_eq!((robot.puts(), view(&engine).pending().count()), (2, 0));

    fs::remove_dir(robot.recording().join("uploads.jsonl")).unwrap();
    let restarted = robot.started();
    sync_once(&restarted).await;
    assert_eq!((robot.puts(), restarted.is_durable()), (2, true), "a restart finds the chunks at the store");
}

fn event(chunk: &Value) -> Vec<u8> {
    json!({"recording": "drive", "machine_id": "robot_1", "chunk": chunk}).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finalize_event_sends_its_chunk_before_any_manifest_names_it() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    let engine = robot.started();
    for _ in 0..3 {
        engine.take_event(&event(&chunk), None).unwrap();
        engine.drain().await;
    }
    assert!(robot.is_stored(&chunk));
    assert_eq!(robot.puts(), 1, "an event that comes again sends nothing again");
    robot.manifest(&[chunk]);
    sync_once(&engine).await;
    assert_eq!((robot.puts(), engine.refused_events().total), (1, 0));
}

/// Returns a robot with an open recording whose only chunk so far is stored.
async fn going_on() -> (Robot, Arc<Engine>, Value) {
    let robot = Robot::new();
    let first = robot.chunk(0);
    robot.manifest(std::slice::from_ref(&first));
    let engine = robot.started();
    sync_once(&engine).await;
    (robot, engine, first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_an_open_recording_sends_its_chunk_and_the_next_scan_reads_the_rest() {
    let (robot, engine, first) = going_on().await;
    let next = robot.chunk(1);
    // An event must not cause a read of the manifest: the cost would grow with the recording.
    fs::write(robot.recording().join("manifest.json"), "{").unwrap();
    engine.take_event(&event(&next), None).unwrap();
    engine.drain().await;
    assert!(robot.is_stored(&next));
    assert!(matches!(view(&engine).manifest, ManifestFacts::Readable { .. }));
    robot.manifest(&[first, next]);
    sync_once(&engine).await;
    assert!(
        view(&engine).chunks.iter().all(|chunk| chunk.facts.is_listed && chunk.facts.proof == Some(Proof::Enforced))
    );
    assert_eq!((robot.puts(), engine.refused_events().total), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_digest_in_an_event_is_found_by_the_bytes_before_any_scan_and_holds_nothing_back() {
    let (robot, engine, first) = going_on().await;
    let next = robot.chunk(1);
    robot.manifest(&[first, next.clone()]);
    let mut lie = next.clone();
    lie["sha256"] = json!(format!("{}{}", &next["sha256"].as_str().unwrap()[..8], "0".repeat(56)));
    engine.take_event(&event(&lie), None).unwrap();
    engine.drain().await;
    assert!(!robot.object(&next).exists());
    assert_eq!((engine.refused_events().mismatch, engine.dead_letters().len()), (1, 0));
    sync_once(&engine).await;
    assert!(robot.is_stored(&next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_the_disk_denies_are_counted_and_send_nothing() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    let engine = robot.started();
    let changed = |name: &str, value: Value| {
        let mut changed = chunk.clone();
        changed[name] = value;
        event(&changed)
    };
    let illegal = json!({"recording": "drive", "machine_id": "robot+1", "chunk": chunk}).to_string().into_bytes();
    for bytes in [
        b"garbage".to_vec(),
        vec![b' '; 1024 * 1024],
        changed("size_bytes", json!(299_999)),
        changed("sha256", json!("0".repeat(64))),
        changed("sha256", json!("0")),
        illegal,
        json!({"recording": "drive", "machine_id": "robot_2", "chunk": chunk}).to_string().into_bytes(),
    ] {
        engine.take_event(&bytes, None).unwrap_err();
    }
    let early = robot.chunk(1);
    fs::remove_file(robot.recording().join("chunks").join(early["name"].as_str().unwrap())).unwrap();
    let (refused, held) = engine.take_event(&event(&early), None).unwrap_err();
    assert!(held.is_some(), "{refused:?}: an early event can be tried again");
    engine.drain().await;
    assert_eq!(robot.puts(), 0);
    let counted = engine.refused_events();
    assert_eq!((counted.undecodable, counted.mismatch, counted.illegal, counted.foreign), (2, 2, 2, 1));
    assert_eq!(counted.total, 7);

    robot.chunk(1);
    engine.announce(&held.unwrap()).unwrap();
    engine.drain().await;
    assert!(robot.is_stored(&early));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_digest_only_begins_like_the_file_is_refused_and_holds_nothing_back() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    let mut lie = chunk.clone();
    let digest = chunk["sha256"].as_str().unwrap();
    lie["sha256"] = json!(format!("{}{}", &digest[..8], "0".repeat(56)));
    let engine = robot.started();
    engine.take_event(&event(&lie), Some(Format::Json)).unwrap();
    engine.drain().await;
    assert!(!robot.object(&chunk).exists());
    assert_eq!((engine.refused_events().mismatch, engine.dead_letters().len()), (1, 0));

    robot.manifest(std::slice::from_ref(&chunk));
    sync_once(&engine).await;
    assert!(robot.is_stored(&chunk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_engine_uploads_new_chunks_and_ends_when_stopped() {
    let mut robot = Robot::new();
    let (every, grace) = (Duration::from_millis(20), Duration::from_secs(5));
    let settings = &mut robot.tuning.settings;
    (settings.rescan_interval, settings.verify_interval, settings.shutdown_grace) = (every, grace, grace);
    let first = robot.chunk(0);
    robot.manifest(std::slice::from_ref(&first));
    let engine = robot.started();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.run(async { stopped.await.unwrap_or_default() }).await }
    });
    until(|| robot.is_stored(&first)).await;

    let announced = robot.chunk(1);
    engine.take_event(&event(&announced), None).unwrap();
    until(|| robot.is_stored(&announced)).await;

    let unannounced = robot.chunk(2);
    robot.manifest(&[first, announced, unannounced.clone()]);
    until(|| robot.is_stored(&unannounced)).await;

    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
    assert_eq!(robot.puts(), 3);
    assert_eq!(view(&robot.started_and_scanned()).pending().count(), 0, "every mark is in the journal");
}

/// Waits for a condition, with a deadline.
async fn until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), poll).await.expect("the condition holds in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_vanish_or_change_are_uploaded_again_or_reported() {
    let robot = Robot::new();
    let chunks = [robot.chunk(0), robot.chunk(1), robot.chunk(2)];
    robot.ended(&chunks);
    let engine = robot.started();
    sync_once(&engine).await;
    assert_eq!(engine.verify().await.unwrap(), 0);
    fs::remove_file(robot.object(&chunks[0])).unwrap();
    fs::remove_file(robot.remote("manifest.json")).unwrap();
    fs::write(robot.object(&chunks[1]), "other bytes").unwrap();
    assert_eq!(engine.verify().await.unwrap(), 2);
    assert_eq!(view(&engine).pending().count(), 2);
    engine.drain().await;
    assert!(robot.is_stored(&chunks[0]) && robot.is_stored(&chunks[2]));
    assert!(engine.dead_letters()[0].reason.contains("other bytes"), "what somebody put there is left alone and told");
    assert!(robot.remote("manifest.json").exists());
    let restarted = robot.started();
    restarted.scan().unwrap();
    assert_eq!(view(&restarted).chunks.iter().filter(|chunk| chunk.facts.proof.is_some()).count(), 2);

    fs::remove_dir_all(robot.folder.path().join("mnt")).unwrap();
    assert!(engine.verify().await.is_err());
    assert_eq!(view(&engine).chunks.iter().filter(|chunk| chunk.facts.proof.is_some()).count(), 2, "away is not gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_with_a_time_in_the_future_is_compared_like_any_other() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.manifest(std::slice::from_ref(&chunk));
    robot.set_wall_ahead(Duration::from_secs(5 * 365 * 24 * 3600));
    let engine = robot.started();
    sync_once(&engine).await;
    robot.set_wall_ahead(Duration::ZERO);
    fs::remove_file(robot.object(&chunk)).unwrap();
    assert_eq!(engine.verify().await.unwrap(), 1);
    sync_once(&engine).await;
    assert!(robot.is_stored(&chunk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_sent_under_another_spelling_of_the_machine_are_sent_again_beside_the_others() {
    let robot = Robot::new();
    let early = robot.chunk(0);
    let engine = robot.started();
    for _ in 0..2 {
        sync_once(&engine).await;
    }
    assert!(robot.is_stored(&early));
    let late = robot.chunk(1);
    let event = json!({"recording": "drive", "machine_id": "robot-1", "chunk": late});
    engine.take_event(event.to_string().as_bytes(), Some(Format::Json)).unwrap();
    let proven = || view(&engine).chunks.iter().filter(|chunk| chunk.facts.proof.is_some()).count();
    assert_eq!(proven(), 0, "nothing is proven under the recorder's keys");
    sync_once(&engine).await;
    assert_eq!(proven(), 2);
    for chunk in [&early, &late] {
        let path = robot.object(chunk).to_string_lossy().replace("/robot_1/", "/robot-1/");
        assert!(fs::metadata(&path).is_ok(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unproven_claim_is_reported_counts_for_nothing_and_is_not_sent_again_each_time() {
    let robot = Robot::new();
    robot.is_found_to_be(Probe {
        enforces_sha256: false,
        tells_sha256: false,
        etag_is_md5: false,
        honours_create_only: true,
        honours_if_match: true,
        clock_offset_ms: None,
        rights: Rights { get: false, head: false, ..Rights::ALL },
    });
    robot.ended(&[robot.chunk(0)]);
    let engine = robot.started();
    for _ in 0..3 {
        sync_once(&engine).await;
    }
    let chunk = &view(&engine).chunks[0];
    assert_eq!((chunk.facts.proof, chunk.marked_at_ns), (Some(Proof::Claimed), None));
    assert_eq!(robot.puts(), 1);
    assert!(engine.dead_letters()[0].reason.contains("nothing proves"));
    assert_eq!(fs::read_to_string(robot.recording().join("uploads.jsonl")).unwrap().lines().count(), 1);
    assert_eq!(robot.remote_indices("manifest.json"), None, "a remote manifest names only what is proven");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_with_a_wrong_digest_for_a_sound_file_keeps_it_from_nothing() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    let mut lie = chunk.clone();
    lie["sha256"] = json!(format!("{}{}", &chunk["sha256"].as_str().unwrap()[..8], "0".repeat(56)));
    robot.ended(&[lie]);
    let engine = robot.started();
    for _ in 0..2 {
        sync_once(&engine).await;
        assert!(robot.is_stored(&chunk));
        assert_eq!(engine.dead_letters(), []);
        assert_eq!(view(&engine).chunks[0].facts.proof, Some(Proof::Enforced));
        assert_eq!(view(&engine).unlisted_chunks(), 1, "the manifest is told to be wrong");
    }
    let restarted = robot.started();
    sync_once(&restarted).await;
    assert_eq!(view(&restarted).chunks[0].facts.proof, Some(Proof::Enforced));
    assert_eq!(robot.puts(), 2, "one that was cut off for the wrong digest, and one");
    assert_eq!(robot.remote_indices("manifest.json"), None, "a wrong digest is not published");
}
