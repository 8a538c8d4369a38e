//! Removal of recordings: it needs the admin token, it removes nothing that is not known to be elsewhere, and repeating
//! the request ends an interrupted removal.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, process::Output, sync::Arc, time::Duration};

use bubbaloop_storage::{
    engine::{driver::Engine, reconcile::reconcile, removal::remove},
    policy::removal::RemovalOptions,
};
use bubbaloop_storage_schemas::{Digest, RecordingName, error::ErrorCode, removal::RemoveFrom};
use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::{
    crash,
    reconcile::{Fault, SHALLOW, Watched, damage, file},
    support::{
        node::{Machine, Recorder, until},
        proxy::Proxy,
        python::{Get, Python, Reply},
        robot::{Robot, sync_once},
        servers::{KEY, SECRET, Server},
    },
};

fn token(machine: &Machine) -> String {
    let text = fs::read_to_string(machine.home().join("secrets.toml")).unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix("admin_token = ")).unwrap();
    found.trim_matches('"').to_owned()
}

fn rm(machine: &Machine, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = machine.run(&[&["rm"], arguments, &["--json"]].concat());
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!(told(&output)));
    (output.status.code(), value)
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn asked(python: &mut Python, selector: &str, payload: &Value) -> Reply {
    let bytes = payload.to_string().into_bytes();
    let replies =
        python.get(&Get { selector, payload: Some(&bytes), encoding: Some("application/json"), ..Get::default() });
    assert_eq!(replies.len(), 1, "{selector}: {replies:?}");
    replies.into_iter().next().unwrap()
}

fn is_refused(reply: &Reply, code: &str, secrets: &[&str]) {
    let text = String::from_utf8_lossy(&reply.bytes);
    assert!(!reply.is_ok && reply.value()["code"] == code, "{text}");
    assert!(secrets.iter().all(|secret| !text.contains(secret)), "a token is echoed: {text}");
}

#[test]
fn removal_needs_the_token_of_one_machine_and_nothing_ever_shows_it() {
    let machine = Machine::started("rm_1");
    let mut recorder = machine.recorder("drive");
    recorder.finalize();
    recorder.end();
    let mut python = machine.python();
    until("it is in the store", || machine.remote_manifest("drive").is_some());
    until("its manifest is noted", || recorder.journal().iter().any(|line| line["kind"] == "published"));
    let (key, token) = (machine.key("rm"), token(&machine));
    assert!(token.len() >= 32);
    let mode = fs::metadata(machine.home().join("secrets.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let hidden = [token.as_str(), "guess4711"];
    let wanted = json!({"recording": "drive", "from": "local", "force": true});
    let with = |token: &str| {
        let mut wanted = wanted.clone();
        wanted["token"] = json!(token);
        wanted
    };
    is_refused(&asked(&mut python, &key, &wanted), "E_DENIED", &hidden);
    for wrong in ["guess4711", "", &token[1..], &format!("{token}x")] {
        is_refused(&asked(&mut python, &key, &with(wrong)), "E_DENIED", &hidden);
    }
    for selector in [format!("{key}?token={token}"), format!("{key}?recording=drive&token={token}")] {
        let reply = asked(&mut python, &selector, &wanted);
        is_refused(&reply, "E_INVALID_PARAMS", &hidden);
        assert!(reply.value()["hint"].as_str().unwrap().contains("attachment"));
    }
    for wild in ["bubbaloop/*/storage/rm", "bubbaloop/rm_1/storage/r$*m"] {
        is_refused(&asked(&mut python, wild, &with(&token)), "E_INVALID_PARAMS", &hidden);
    }
    is_refused(&asked(&mut python, &machine.key("list"), &json!({"token": token})), "E_INVALID_PARAMS", &hidden);
    let command = json!({"command": "rm", "params": with(&token)});
    let answer = asked(&mut python, "bubbaloop/global/rm_1/storage/command", &command);
    let answer = String::from_utf8_lossy(&answer.bytes).into_owned();
    assert!(answer.contains("E_DENIED") && !answer.contains(&token), "{answer}");

    let guess = machine.folder.path().join("guess");
    fs::write(&guess, "guess4711\n").unwrap();
    let (exit, refused) = rm(&machine, &["drive", "--from", "local", "--token-file", guess.to_str().unwrap()]);
    assert_eq!((exit, &refused["code"]), (Some(1), &json!("E_DENIED")));
    assert_eq!(rm(&machine, &["drive", "--from", "local", "--machine", "*"]).0, Some(2));
    assert!(recorder.path(&recorder.chunks[0]).exists(), "nothing was removed");

    let done = asked(&mut python, &key, &with(&token));
    assert!(done.is_ok && done.value()["state"] == "done", "{}", done.value());
    let config = python.ask(&machine.key("config")).value();
    let settings = config["settings"].as_array().unwrap().clone();
    let told = settings.iter().find(|setting| setting["key"] == "admin_token").unwrap();
    assert_eq!(told["value"], "set");
    for verb in ["help", "status", "jobs", "config"] {
        assert!(!String::from_utf8_lossy(&python.ask(&machine.key(verb)).bytes).contains(&token), "{verb}");
    }
    let log = machine.log();
    assert!(hidden.iter().all(|secret| !log.contains(secret)), "the log shows a token");
    let audit = |part: &str| log.lines().filter(|line| line.contains("verb=rm") && line.contains(part)).count();
    assert!(audit("asked for") >= 6 && audit("E_DENIED") >= 5, "{log}");
}

#[test]
fn a_home_that_cannot_keep_a_token_has_a_node_without_admin_verbs() {
    let mut machine = Machine::new("rm_2", "");
    let secrets = machine.home().join("secrets.toml");
    fs::write(&secrets, "# mine\n").unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o644)).unwrap();
    machine.start();
    let mut python = machine.python();
    let wanted = json!({"recording": "drive", "from": "local", "token": "x"});
    let reply = asked(&mut python, &machine.key("rm"), &wanted);
    is_refused(&reply, "E_DENIED", &[]);
    assert!(reply.value()["message"].as_str().unwrap().contains("others can read it"), "{}", reply.value());
    assert_eq!(fs::read_to_string(&secrets).unwrap(), "# mine\n");
    machine.terminate();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    machine.start();
    let first = token(&machine);
    assert!(fs::read_to_string(&secrets).unwrap().contains("# mine\n"), "what stood there stays");
    machine.terminate();
    machine.start();
    assert_eq!(token(&machine), first, "it is made once");
}

#[test]
fn a_local_store_is_no_remote_and_a_last_copy_needs_force() {
    let mut machine = Machine::started("rm_3");
    let mut recorder = machine.recorder("drive_1");
    let chunk = recorder.finalize();
    let mut python = machine.python();
    until("it is stored", || machine.is_stored("drive_1", &chunk));
    let (exit, refused) = rm(&machine, &["drive_1", "--from", "local", "--force"]);
    assert_eq!((exit, &refused["code"]), (Some(1), &json!("E_CONFLICT")), "it is open: {refused:#}");
    recorder.end();
    fs::write(recorder.path(&chunk).with_file_name("notes.txt"), "mine").unwrap();
    for from in ["remote", "both"] {
        let (exit, refused) = rm(&machine, &["drive_1", "--from", from, "--force"]);
        assert_eq!((exit, &refused["code"]), (Some(2), &json!("E_INVALID_PARAMS")));
    }
    let (exit, refused) = rm(&machine, &["drive_2", "--from", "local", "--force"]);
    assert_eq!((exit, &refused["code"]), (Some(3), &json!("E_NOT_FOUND")));
    assert_eq!(refused["hint"], "did you mean drive_1?");
    assert_eq!(rm(&machine, &["drive_*", "--from", "local"]).0, Some(2), "no glob");
    assert_eq!(rm(&machine, &["drive_1"]).0, Some(2), "from is needed");
    until("its end is seen", || {
        python.ask(&format!("{}?recording=drive_1", machine.key("info"))).value()["state"] == "ended"
    });
    until("its manifest is written", || {
        machine.remote_manifest("drive_1").is_some_and(|manifest| manifest["ended_at_ns"].is_u64())
    });
    until("that is noted", || recorder.journal().iter().any(|line| line["kind"] == "published"));
    let (exit, failed) = rm(&machine, &["drive_1", "--from", "local"]);
    assert_eq!((exit, &failed["error"]["code"]), (Some(1), &json!("E_CONFLICT")), "{failed:#}");
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(message.contains(chunk["name"].as_str().unwrap()) && message.contains("own disk"), "{message}");
    assert_eq!(failed["result"]["findings"][0]["kind"], "unproven");
    let (exit, dry) = rm(&machine, &["drive_1", "--from", "local", "--force", "--dry-run"]);
    assert_eq!((exit, &dry["result"]["dry_run"]), (Some(0), &json!(true)));
    assert!(recorder.path(&chunk).exists(), "a dry run removes nothing");
    let output = machine.run(&["rm", "drive_1", "--from", "local", "--force"]);
    let text = told(&output);
    assert!(output.status.success() && text.contains("removed from the disk: 1 chunk"), "{text}");
    assert!(text.contains("remove_file manifest.json") && text.contains("chunks/notes.txt: it is no file"), "{text}");
    let left: Vec<_> = fs::read_dir(machine.home().join("recordings/drive_1/chunks")).unwrap().collect();
    assert_eq!(left.len(), 1, "what is somebody else's stays");
    assert!(!machine.home().join("recordings/drive_1/manifest.json").exists());
    assert!(machine.is_stored("drive_1", &chunk), "the store was not touched");
    assert_eq!(machine.terminate(), Some(0));
}

/// Returns a machine whose store is a server.
async fn remote(server: &Server, id: &str, bucket: &str) -> Machine {
    server.bucket(bucket).await;
    let mut machine = Machine::new(id, "");
    machine.set(&crash::remote(bucket, &server.endpoint));
    machine.set_secrets(KEY, SECRET);
    machine.start();
    machine
}

fn recorded(machine: &Machine, name: &str, chunks: u32) -> Recorder {
    let mut recorder = machine.recorder(name);
    for _ in 0..chunks {
        recorder.finalize_of(50_000);
    }
    recorder.end();
    recorder
}

fn info(python: &mut Python, machine: &Machine, name: &str) -> Value {
    let selector = format!("{}?recording={name};limit=1000", machine.key("info"));
    let replies = python.get(&Get { selector: &selector, ..Get::default() });
    replies.first().map(Reply::value).unwrap_or_default()
}

fn upload(machine: &Machine, name: &str) {
    let output = machine.run(&["upload", name]);
    assert!(output.status.success(), "{}", told(&output));
}

async fn objects(server: &Server, bucket: &str, machine: &Machine, recorder: &Recorder) -> BTreeSet<String> {
    let names = recorder.chunks.iter().map(|chunk| format!("chunks/{}", chunk["name"].as_str().unwrap()));
    let mut found = BTreeSet::new();
    for name in names.chain(["manifest.json".to_owned()]) {
        let key = format!("{bucket}/{}/{}/{name}", machine.id, recorder.name);
        if server.content(&key).await.is_some() {
            found.insert(name);
        }
    }
    found
}

/// Waits until a recording is in the store with its manifest.
async fn is_published(server: &Server, bucket: &str, machine: &Machine, recorder: &Recorder) {
    upload(machine, &recorder.name);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while objects(server, bucket, machine, recorder).await.len() <= recorder.chunks.len() {
        assert!(std::time::Instant::now() < deadline, "not in time: the manifest is there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let journaled = || recorder.journal().iter().any(|line| line["kind"] == "published");
    until("its manifest is noted", journaled);
}

fn files(machine: &Machine, name: &str) -> usize {
    fs::read_dir(machine.home().join("recordings").join(name).join("chunks")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_removed_if_the_store_holds_them_and_objects_if_the_disk_does() {
    let server = Server::seaweedfs().await;
    let machine = remote(&server, "rm_4", "rm-rules").await;
    let mut python = machine.python();
    let recorder = recorded(&machine, "drive", 3);
    is_published(&server, "rm-rules", &machine, &recorder).await;

    // An object that was removed outside the node forbids the removal, and the message names it.
    let name = |index: usize| recorder.chunks[index]["name"].as_str().unwrap();
    server.remove(&format!("rm-rules/rm_4/drive/chunks/{}", name(1))).await;
    let (exit, failed) = rm(&machine, &["drive", "--from", "local"]);
    assert_eq!((exit, &failed["error"]["code"]), (Some(1), &json!("E_CONFLICT")), "{failed:#}");
    assert!(failed["error"]["message"].as_str().unwrap().contains(name(1)));
    assert_eq!(files(&machine, "drive"), 3, "nothing of it went");
    is_published(&server, "rm-rules", &machine, &recorder).await;

    // A damaged file forbids the removal of the objects.
    let sound = fs::read(recorder.path(&recorder.chunks[2])).unwrap();
    let mut damaged = sound.clone();
    damaged[9] ^= 1;
    fs::write(recorder.path(&recorder.chunks[2]), &damaged).unwrap();
    let (exit, failed) = rm(&machine, &["drive", "--from", "remote"]);
    assert_eq!((exit, &failed["error"]["code"]), (Some(1), &json!("E_CONFLICT")), "{failed:#}");
    let kinds: Vec<_> = failed["result"]["findings"].as_array().unwrap().iter().map(|row| &row["chunk"]).collect();
    assert_eq!(kinds, [&json!(name(2))]);
    assert_eq!(objects(&server, "rm-rules", &machine, &recorder).await.len(), 4);
    fs::write(recorder.path(&recorder.chunks[2]), &sound).unwrap();

    // If all files are intact, the objects may be removed. The recording is not uploaded again until somebody asks for
    // it, and counts as at risk.
    let (exit, done) = rm(&machine, &["drive", "--from", "remote"]);
    assert_eq!((exit, &done["result"]["counts"]["removed_objects"]), (Some(0), &json!(3)), "{done:#}");
    let kinds: Vec<_> = done["result"]["actions"].as_array().unwrap().iter().map(|row| &row["kind"]).collect();
    assert_eq!((kinds[0], kinds.len()), (&json!("withdraw"), 5));
    assert!(
        done["result"]["actions"][1]["path"].as_str().unwrap().ends_with("manifest.json"),
        "the manifest goes first"
    );
    assert!(objects(&server, "rm-rules", &machine, &recorder).await.is_empty());
    for words in [&["reconcile", "drive"][..], &["upload", "--all"], &["rm", "drive", "--from", "remote"]] {
        let output = machine.run(words);
        assert!(output.status.success(), "{words:?}: {}", told(&output));
    }
    let status = python.ask(&machine.key("status")).value();
    assert_eq!((&status["safe"], &status["at_risk_chunks"]), (&json!(false), &json!(3)));
    assert!(info(&mut python, &machine, "drive")["reason"].as_str().unwrap().contains("removed from the store"));
    let (exit, failed) = rm(&machine, &["drive", "--from", "local"]);
    assert_eq!((exit, files(&machine, "drive")), (Some(1), 3), "the last copy: {failed:#}");
    assert!(objects(&server, "rm-rules", &machine, &recorder).await.is_empty(), "nothing goes up by itself");
    is_published(&server, "rm-rules", &machine, &recorder).await;

    // If the store is proven to hold all chunks, the files may be removed.
    let (exit, done) = rm(&machine, &["drive", "--from", "local"]);
    assert_eq!((exit, &done["result"]["counts"]["removed_files"]), (Some(0), &json!(3)), "{done:#}");
    assert!(!machine.home().join("recordings/drive").exists());
    assert_eq!(objects(&server, "rm-rules", &machine, &recorder).await.len(), 4);
    assert_eq!(rm(&machine, &["drive", "--from", "local"]).0, Some(3), "it is not there any more");
    assert_eq!(rm(&machine, &["drive", "--from", "remote"]).0, Some(3), "without force only what is here");
    let (exit, done) = rm(&machine, &["drive", "--from", "remote", "--force"]);
    assert_eq!((exit, &done["result"]["counts"]["removed_objects"]), (Some(0), &json!(3)), "{done:#}");
    assert_eq!(rm(&machine, &["drive", "--from", "remote", "--force"]).0, Some(3), "nothing of it is anywhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_is_killed_at_any_moment_is_completed_by_the_same_request_and_nothing_comes_back() {
    let server = Server::seaweedfs().await;
    let mut machine = remote(&server, "rm_5", "rm-kill").await;
    let mut random = fastrand::Rng::with_seed(11);
    for (round, from) in ["remote", "both", "local", "both"].into_iter().enumerate() {
        let recorder = recorded(&machine, &format!("drive_{round}"), 40);
        is_published(&server, "rm-kill", &machine, &recorder).await;
        let mut before = objects(&server, "rm-kill", &machine, &recorder).await;
        for _ in 0..4 {
            let mut python = machine.python();
            if info(&mut python, &machine, &recorder.name)["code"] == "E_NOT_FOUND" {
                break;
            }
            let wanted = json!({
                "recording": recorder.name, "from": from, "force": from == "both", "wait": 0, "token": token(&machine)
            });
            let reply = asked(&mut python, &machine.key("rm"), &wanted);
            assert!(reply.is_ok, "{}", reply.value());
            // The moment of the crash is the subject of this test. Nothing has to be finished by then.
            tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await;
            machine.kill();
            let now = objects(&server, "rm-kill", &machine, &recorder).await;
            assert!(now.is_subset(&before), "{:?} came back", now.difference(&before));
            if now.len() < before.len() {
                assert!(!now.contains("manifest.json"), "the manifest names what is not there");
            }
            before = now;
            machine.start();
        }
        let mut arguments = vec![recorder.name.as_str(), "--from", from];
        if from == "both" {
            arguments.push("--force");
        }
        let (exit, told) = rm(&machine, &arguments);
        let is_gone = exit == Some(3) && from != "remote";
        assert!(exit == Some(0) || is_gone, "{told:#}");
        let there = objects(&server, "rm-kill", &machine, &recorder).await;
        assert_eq!(there.len(), if from == "local" { 41 } else { 0 });
        assert_eq!(files(&machine, &recorder.name), if from == "remote" { 40 } else { 0 });
        assert_eq!(machine.home().join("recordings").join(&recorder.name).exists(), from == "remote");
        let sent = recorder.journal().iter().filter(|line| line["kind"] == "uploaded").count();
        assert_eq!(sent, if from == "remote" { 40 } else { 0 }, "nothing is sent again");
    }
}

/// Returns a machine whose store is behind a proxy, and that uploads one chunk at a time.
fn behind(proxy: &Proxy, id: &str, bucket: &str) -> Machine {
    let machine = Machine::new(id, "");
    machine.set(&format!("{}\nconcurrency = 1", crash::remote(bucket, &proxy.endpoint)));
    machine.set_secrets(KEY, SECRET);
    machine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_removal_is_refused_with_its_reason_also_with_force() {
    let server = Server::seaweedfs().await;
    server.bucket("rm-refused").await;
    let proxy = Proxy::start(&server.endpoint).await;
    let mut machine = behind(&proxy, "rm_6", "rm-refused");
    let root = machine.home().join("recordings");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("flat_chunk_000.mcap"), "mcap").unwrap();
    let mut foreign = machine.recorder("foreign");
    foreign.finalize();
    foreign.save(&json!({"machine_id": "robot_2", "ended_at_ns": 7}));
    let mut open = machine.recorder("open");
    open.finalize();
    machine.start();
    let mut python = machine.python();
    machine.wait_for_scan(&mut python);
    for from in ["local", "remote", "both"] {
        for (name, why) in [("flat", "another way"), ("foreign", "another machine"), ("open", "is open")] {
            let (exit, code, is_retryable, message) = refusal(&machine, name, from);
            assert_eq!((exit, code, is_retryable), (Some(1), json!("E_CONFLICT"), false), "{name} {from}: {message}");
            assert!(message.contains(why), "{message}");
        }
    }
    let (exit, _) = rm(&machine, &["foreign", "--from", "lokal"]);
    assert_eq!(exit, Some(2), "a misspelt place is an error");
    let wanted = json!({"recording": "foreign", "from": "lokal", "token": token(&machine)});
    is_refused(&asked(&mut python, &machine.key("rm"), &wanted), "E_INVALID_PARAMS", &[]);
    let wanted = json!({"recording": "foreign", "form": "local", "from": "local", "token": token(&machine)});
    is_refused(&asked(&mut python, &machine.key("rm"), &wanted), "E_INVALID_PARAMS", &[]);
    for (recorder, chunk) in [(&foreign, &foreign.chunks[0]), (&open, &open.chunks[0])] {
        assert!(recorder.path(chunk).exists());
    }
    assert!(root.join("flat_chunk_000.mcap").exists());
}

/// Returns how a removal is refused: exit code, error code, whether a retry helps, and the message.
fn refusal(machine: &Machine, name: &str, from: &str) -> (Option<i32>, Value, bool, String) {
    let (exit, told) = rm(machine, &[name, "--from", from, "--force"]);
    let message = told["message"].as_str().unwrap_or_default().to_owned();
    (exit, told["code"].clone(), told["retryable"] == true, message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_is_refused_during_uploads_and_jobs_and_waits_for_a_manifest() {
    let server = Server::seaweedfs().await;
    server.bucket("rm-busy").await;
    let proxy = Proxy::start(&server.endpoint).await;
    let mut machine = behind(&proxy, "rm_9", "rm-busy");
    machine.start();
    let mut python = machine.python();
    let root = machine.home().join("recordings");
    // A recording with a chunk in flight is refused. It may be removed once the chunk is stored.
    proxy.stand_still(true);
    let recorder = recorded(&machine, "drive", 2);
    let going = || python.ask(&machine.key("status")).value()["queue"]["in_flight"].as_u64();
    let mut going = going;
    until("it is on its way", || going() == Some(1) && machine.run(&["info", "drive"]).status.success());
    let (exit, code, is_retryable, message) = refusal(&machine, "drive", "both");
    assert_eq!((exit, code, is_retryable), (Some(1), json!("E_CONFLICT"), true), "{message}");
    assert!(message.contains("is being uploaded: chunk-000"), "{message}");
    assert_eq!(files(&machine, "drive"), 2);
    proxy.stand_still(false);

    // If a job works on the recording, a retry helps.
    is_published(&server, "rm-busy", &machine, &recorder).await;
    proxy.stand_still(true);
    let reconciling = asked(&mut python, &machine.key("reconcile"), &json!({"recording": "drive", "wait": 0})).value();
    let is_held = || rm(&machine, &["drive", "--from", "local", "--force", "--dry-run"]).0 == Some(1);
    until("the job is at work", is_held);
    let (exit, code, is_retryable, message) = refusal(&machine, "drive", "local");
    assert_eq!((exit, code, is_retryable), (Some(1), json!("E_CONFLICT"), true), "{message}");
    assert!(message.contains("worked on by another job"), "{message}");
    proxy.stand_still(false);
    let mut has_ended = || {
        let jobs = python.ask(&machine.key("jobs")).value();
        jobs["jobs"].as_array().unwrap().iter().any(|row| row["job"] == reconciling["job"] && row["state"] == "done")
    };
    until("the job has ended", &mut has_ended);
    // A pending or running write of its manifest is no reason to refuse.
    recorded(&machine, "drive_2", 2);
    upload(&machine, "drive_2");
    let (exit, done) = rm(&machine, &["drive_2", "--from", "local"]);
    assert_eq!((exit, &done["state"]), (Some(0), &json!("done")), "{done:#}");
    let (exit, done) = rm(&machine, &["drive", "--from", "local"]);
    assert_eq!((exit, &done["state"]), (Some(0), &json!("done")), "{done:#}");
    assert!(!root.join("drive").exists());
    assert_eq!(objects(&server, "rm-busy", &machine, &recorder).await.len(), 3);
}

fn drive() -> RecordingName {
    "drive".parse().unwrap()
}

async fn removed(engine: &Arc<Engine>, from: RemoveFrom, force: bool) -> Option<ErrorCode> {
    let options = RemovalOptions { from, dry_run: false, force };
    remove(engine, &drive(), options, &|_| {}).await.1.map(|refusal| refusal.code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_captures_objects_and_another_machines_recording_stay() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(std::slice::from_ref(&chunk));
    sync_once(&robot.started()).await;
    // The same name was used for an earlier capture.
    fs::rename(robot.remote("manifest.json"), robot.remote("manifest.5.json")).unwrap();
    let theirs = Digest::of(b"theirs");
    let name = format!("chunk-000000-{}.mcap", &theirs.to_string()[..8]);
    let row = json!({"name": name, "index": 0, "size_bytes": 6, "sha256": theirs});
    fs::write(robot.remote("chunks").join(&name), "theirs").unwrap();
    let manifest = json!({
        "schema_version": 1, "name": "drive", "machine_id": "robot_1", "started_at_ns": 1, "ended_at_ns": 2, "chunks": [row]
    });
    fs::write(robot.remote("manifest.json"), manifest.to_string()).unwrap();
    let engine = robot.started_and_scanned();
    assert_eq!(removed(&engine, RemoveFrom::Both, true).await, None);
    assert!(robot.remote("manifest.json").exists() && robot.remote("chunks").join(&name).exists());
    assert!(!robot.remote("manifest.5.json").exists() && !robot.is_stored(&chunk) && !robot.recording().exists());

    let robot = Robot::new();
    robot.manifest_with(&[robot.chunk(0)], &json!({"machine_id": "robot_2", "ended_at_ns": 9}));
    let engine = robot.started_and_scanned();
    for from in RemoveFrom::ALL {
        assert_eq!(removed(&engine, from, true).await, Some(ErrorCode::Conflict));
    }
    assert!(robot.recording().join("manifest.json").exists());
}

#[test]
fn a_recording_with_linked_chunks_is_removed_completely_and_the_other_folder_stays() {
    let mut machine = Machine::started("rm_8");
    let (root, elsewhere) = (machine.home().join("recordings/linked"), machine.folder.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir_all(&root).unwrap();
    std::os::unix::fs::symlink(&elsewhere, root.join("chunks")).unwrap();
    let recorder = recorded(&machine, "linked", 2);
    until("it is uploaded", || recorder.chunks.iter().all(|chunk| machine.is_stored("linked", chunk)));
    until("its end is seen", || machine.run(&["rm", "linked", "--from", "local", "--force"]).status.success());
    assert!(!root.exists() && elsewhere.exists());
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert_eq!(machine.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sequence_of_verbs_and_crashes_removes_the_last_copy_without_force() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut robot = Robot::new();
        robot.tuning.settings.disk_quota_gb = Some(ByteSize(1));
        let chunks: Vec<_> = (0..3).map(|index| robot.chunk_of(index, 5000 + index as usize)).collect();
        robot.ended(&chunks);
        let is_whole = |path: std::path::PathBuf, chunk: &Value| {
            fs::read(path).is_ok_and(|bytes| json!(Digest::of(&bytes)) == chunk["sha256"])
        };
        let mut engine = robot.started_and_scanned();
        let mut said = Vec::new();
        for _ in 0..25 {
            let from = if random.bool() { RemoveFrom::Local } else { RemoveFrom::Remote };
            let verb = random.u8(0..8);
            said.push((verb, from));
            let crash_after = Duration::from_micros(random.u64(0..30_000));
            let act = async {
                match verb {
                    0 => sync_once(&engine).await,
                    1 => {
                        engine.ask(Some(&drive()));
                        engine.drain().await;
                    }
                    2 => engine.make_room().await,
                    3 => {
                        let restore =
                            bubbaloop_storage::engine::reconcile::ReconcileOptions { restore: true, ..SHALLOW };
                        reconcile(&engine, &drive(), restore, &|_| {}).await.ok();
                    }
                    4 => {
                        engine.verify().await.ok();
                    }
                    _ => {
                        removed(&engine, from, false).await;
                    }
                }
            };
            // Reconcile waits for a running engine; here none runs.
            let limit = if verb == 3 || random.bool() { crash_after } else { Duration::from_secs(60) };
            let is_cut = tokio::time::timeout(limit, act).await.is_err();
            if is_cut || random.u8(0..4) == 0 {
                engine = robot.started_and_scanned();
                engine.probe_first().await;
            }
            for chunk in &chunks {
                let (here, there) = (is_whole(file(&robot, chunk), chunk), robot.is_stored(chunk));
                assert!(here || there, "seed {seed}: {said:?} took {chunk}");
            }
        }
        // A damaged file is no copy, so the objects must stay.
        if chunks.iter().all(|chunk| file(&robot, chunk).exists() && robot.is_stored(chunk)) {
            damage(&robot, &chunks[0]);
            let refused = removed(&robot.started_and_scanned(), RemoveFrom::Remote, false).await;
            assert_eq!(refused, Some(ErrorCode::Conflict));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_is_removed_while_the_store_does_not_tell_what_it_holds() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    robot.ended(std::slice::from_ref(&chunk));
    sync_once(&robot.started()).await;
    let store = Watched::of(&robot);
    let engine = robot.started_with(Arc::<Watched>::clone(&store), "s");
    engine.scan().unwrap();
    sync_once(&engine).await;
    let file = robot.recording().join("chunks").join(chunk["name"].as_str().unwrap());
    store.fails(Some(Fault::EtagsUntold));
    assert_eq!(removed(&engine, RemoveFrom::Local, false).await, Some(ErrorCode::Conflict));
    assert!(file.exists() && robot.is_stored(&chunk));
    store.fails(None);
    assert_eq!(removed(&engine, RemoveFrom::Local, false).await, None);
    assert!(!file.exists() && robot.is_stored(&chunk));
}
