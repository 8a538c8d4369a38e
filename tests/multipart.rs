//! Large chunks are uploaded in parts, and no part is sent twice.

use std::{collections::BTreeMap, fs, sync::Arc};

use bubbaloop_storage::{
    engine::{
        request::{Large, PartsLog, UploadRequest},
        transfer::{self},
    },
    policy::{
        parts::{BegunUpload, PartLayout, PartLimits, SentPart},
        queue::Outcome,
    },
    store::{ObjectStore, PartSupport, StoreErrorKind},
};
use bubbaloop_storage_schemas::reply::{Probe, Proof, Rights};
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use crate::{
    s3_store::{opened, parcel, settings},
    support::{
        http::{Act, Fake},
        node::{Machine, Recorder, until},
        proxy::Proxy,
        servers::{KEY, SECRET, Server},
    },
};

const MIB: usize = 1024 * 1024;
const LIMITS: PartLimits = PartLimits { threshold_bytes: 5 << 20, part_bytes: 5 << 20 };

/// A journal in memory.
#[derive(Debug, Default)]
struct Memory(Mutex<Option<BegunUpload>>);

#[async_trait::async_trait]
impl PartsLog for Memory {
    async fn begun(&self, upload: BegunUpload) {
        *self.0.lock().await = Some(upload);
    }

    async fn sent(&self, upload_id: &str, number: u32, part: SentPart) {
        let mut begun = self.0.lock().await;
        let begun = begun.as_mut().filter(|begun| begun.upload_id == upload_id).expect("it was begun");
        assert!(begun.sent.insert(number, part).is_none(), "part {number} was sent twice");
    }

    async fn ended(&self, upload_id: &str) {
        self.0.lock().await.take_if(|begun| begun.upload_id == upload_id);
    }

    fn may_go_on(&self) -> bool {
        true
    }
}

fn large(log: &Arc<Memory>, size: usize, begun: Option<BegunUpload>) -> Option<Large> {
    let log: Arc<dyn PartsLog> = Arc::<Memory>::clone(log);
    Some(Large {
        parts: PartLayout::of(size as u64, LIMITS).unwrap(),
        begun,
        log,
        places: Arc::new(Semaphore::new(4)),
        weight: 1,
    })
}

/// Returns the keys of the uploads in a bucket that are neither completed nor aborted.
async fn open_uploads(server: &Server, bucket: &str) -> Vec<String> {
    let listed = server.request("GET", &format!("{bucket}?uploads"), &[], b"").await.unwrap();
    let text = String::from_utf8(listed.body).unwrap();
    assert!(text.contains("ListMultipartUploadsResult"), "{text}");
    text.split("<Key>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_checks_parts_proves_the_object_and_one_without_parts_gets_one_piece() {
    let files = tempfile::tempdir().unwrap();
    let size = 12 * MIB + 7;
    let seaweedfs = Server::seaweedfs().await;
    let rclone = Server::rclone(None).await;
    for (server, support, proof) in
        [(&*seaweedfs, PartSupport::Checked, Proof::Enforced), (&rclone, PartSupport::Unknown, Proof::EtagMd5)]
    {
        server.bucket("parts").await;
        let store = opened(&settings(&server.endpoint, "parts")).await;
        let probe = store.probe().await.unwrap();
        let multi = store.multipart().unwrap();
        assert_eq!(multi.support().await.unwrap(), support);
        let log = Arc::new(Memory::default());
        let parcel = UploadRequest { large: large(&log, size, None), ..parcel(files.path(), "large", size) };
        let proven = transfer::send(&*store, probe, &parcel).await.unwrap();
        assert_eq!((proven.proof, proven.digest), (proof, parcel.digest));
        let stored = server.content(&format!("parts/{}", parcel.key)).await.unwrap();
        assert!(stored == fs::read(&parcel.path).unwrap(), "the object has the chunk's bytes");
        assert_eq!(*log.0.lock().await, None, "the upload has ended");

        // As after a crash before the journal line: the object is recognised without reading it.
        let again = UploadRequest { may_be_there: true, ..parcel };
        let found = transfer::send(&*store, probe, &again).await.unwrap();
        assert_eq!((found.proof, found.etag), (proof, proven.etag));
        let blind = Probe { rights: Rights { get: false, ..probe.rights }, ..probe };
        assert_eq!(transfer::send(&*store, blind, &again).await.unwrap().proof, proof, "nothing was fetched");
    }
    assert_eq!(open_uploads(&seaweedfs, "parts").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_try_sends_only_what_is_missing_and_another_object_is_left_alone() {
    let files = tempfile::tempdir().unwrap();
    let size = 22 * MIB;
    let server = Server::seaweedfs().await;
    server.bucket("resumed").await;
    let proxy = Proxy::start(&server.endpoint).await;
    let store = opened(&settings(&proxy.endpoint, "resumed")).await;
    let probe = store.probe().await.unwrap();
    store.multipart().unwrap().support().await.unwrap();
    let log = Arc::new(Memory::default());
    let whole = UploadRequest { large: large(&log, size, None), ..parcel(files.path(), "large", size) };
    proxy.cut_after(Some(8 * MIB as u64));
    let before = proxy.sent();
    // Each connection carries one part and breaks in the next one, so several attempts are needed.
    let mut tries = 0;
    let proven = loop {
        tries += 1;
        let begun = log.0.lock().await.clone();
        let parcel = UploadRequest { large: large(&log, size, begun), ..whole.clone() };
        match transfer::send(&*store, probe, &parcel).await {
            Ok(proven) => break proven,
            Err(error) => {
                assert!(matches!(Outcome::from(error), Outcome::Retry { .. }));
                assert!(tries < 20, "it gets nowhere");
                if tries == 4 {
                    proxy.cut_after(None);
                }
            }
        }
    };
    assert_eq!(proven.proof, Proof::Enforced);
    assert!(proxy.sent() - before < 60 * MIB as u64);
    let stored = server.content(&format!("resumed/{}", whole.key)).await.unwrap();
    assert!(stored == fs::read(&whole.path).unwrap());

    // Another object under the key stays unchanged, and no part is left.
    let other = UploadRequest { large: large(&log, size, None), ..parcel(files.path(), "other", size) };
    server.request("PUT", &format!("resumed/{}", other.key), &[], b"other").await.unwrap();
    let error = transfer::send(&*store, probe, &other).await.unwrap_err();
    assert!(error.to_string().contains("has other bytes than the chunk"), "{error}");
    assert_eq!(server.content(&format!("resumed/{}", other.key)).await.unwrap(), b"other");
    assert_eq!(open_uploads(&server, "resumed").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_large_file_becomes_no_object_and_leaves_no_part_behind() {
    let files = tempfile::tempdir().unwrap();
    let size = 11 * MIB;
    let server = Server::seaweedfs().await;
    server.bucket("damaged-parts").await;
    let store = opened(&settings(&server.endpoint, "damaged-parts")).await;
    let probe = store.probe().await.unwrap();
    let log = Arc::new(Memory::default());
    let parcel = UploadRequest { large: large(&log, size, None), ..parcel(files.path(), "large", size) };
    let mut bytes = fs::read(&parcel.path).unwrap();
    bytes[6 * MIB] ^= 1;
    fs::write(&parcel.path, bytes).unwrap();
    let error = transfer::send(&*store, probe, &parcel).await.unwrap_err();
    let transfer::TransferError::Store(error) = error else { panic!("{error}") };
    assert!(matches!(error.kind, StoreErrorKind::Content(_)), "{error}");
    assert_eq!(server.content(&format!("damaged-parts/{}", parcel.key)).await, None);
    assert_eq!(open_uploads(&server, "damaged-parts").await, [""; 0]);
    assert_eq!(*log.0.lock().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_the_store_forgot_begins_anew_and_a_lying_store_proves_nothing() {
    let files = tempfile::tempdir().unwrap();
    let size = 11 * MIB;
    let server = Server::seaweedfs().await;
    server.bucket("forgotten").await;
    let store = opened(&settings(&server.endpoint, "forgotten")).await;
    let probe = store.probe().await.unwrap();
    let log = Arc::new(Memory::default());
    let parcel = UploadRequest { ..parcel(files.path(), "large", size) };
    let begun = BegunUpload {
        upload_id: "0123456789abcdef0123456789abcdef_never".into(),
        key: parcel.key.to_string(),
        part_bytes: LIMITS.part_bytes,
        sent: BTreeMap::new(),
    };
    let parcel = UploadRequest { large: large(&log, size, Some(begun)), ..parcel };
    let proven = transfer::send(&*store, probe, &parcel).await.unwrap();
    assert_eq!(proven.proof, Proof::Enforced);

    // A store that answers 200 and an ETag to everything has no uploads in parts, and proves nothing.
    let fake = Fake::start(|_| Act::Answer(200, vec![("ETag", "\"e\"".into())], String::new())).await;
    let store = opened(&settings(&fake.endpoint, "bucket")).await;
    assert_eq!(store.multipart().unwrap().support().await.unwrap(), PartSupport::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_stores_own_answer_that_it_takes_no_parts_is_remembered() {
    let html = || "<html>log in</html>".to_owned();
    let told = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    for (status, body, support) in [
        (501, told("NotImplemented"), PartSupport::None),
        (405, told("MethodNotAllowed"), PartSupport::None),
        (404, html(), PartSupport::Unknown),
        (404, String::new(), PartSupport::Unknown),
        (400, html(), PartSupport::Unknown),
    ] {
        let fake = Fake::start(move |_| Act::Answer(status, vec![], body.clone())).await;
        let store = opened(&settings(&fake.endpoint, "bucket")).await;
        let multi = store.multipart().unwrap();
        assert_eq!(multi.support().await.unwrap(), support, "{status}");
        let asked = fake.requests();
        multi.support().await.unwrap();
        assert_eq!(fake.requests() == asked, support == PartSupport::None, "{status}");
    }
}

fn machine(id: &str, endpoint: &str, bucket: &str, more: &str) -> Machine {
    let machine = Machine::new(id, "");
    machine.set(&format!(
        "backend = \"s3\"\nendpoint = {endpoint:?}\nbucket = {bucket:?}\nrescan_interval = \"1s\"\n\
         multipart_threshold = \"5 MiB\"\npart_size = \"5 MiB\"\n{more}"
    ));
    machine.set_secrets(KEY, SECRET);
    machine
}

fn parts_sent(recorder: &Recorder) -> usize {
    recorder.journal().iter().filter(|line| line["kind"] == "part_sent").count()
}

fn is_uploaded(recorder: &Recorder, chunk: &Value) -> bool {
    recorder.journal().iter().any(|line| line["kind"] == "uploaded" && line["chunk"] == chunk["name"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_during_a_large_chunk_continues_where_it_was() {
    let server = Server::seaweedfs().await;
    server.bucket("killed").await;
    let proxy = Proxy::start(&server.endpoint).await;
    let mut machine = machine("parts_1", &proxy.endpoint, "killed", "concurrency = 1");
    let mut recorder = machine.recorder("drive");
    let size = 32 * MIB;
    let chunk = recorder.finalize_of(size);
    proxy.limit(16 * MIB as u64);
    machine.start();
    for parts in [1, 3] {
        until("parts are there", || parts_sent(&recorder) >= parts);
        machine.kill();
        machine.start();
    }
    until("it is uploaded", || is_uploaded(&recorder, &chunk));
    let key = format!("killed/{}/drive/chunks/{}", machine.id, chunk["name"].as_str().unwrap());
    assert!(server.content(&key).await.unwrap() == fs::read(recorder.path(&chunk)).unwrap());
    let numbers: Vec<_> = recorder
        .journal()
        .iter()
        .filter(|line| line["kind"] == "part_sent")
        .map(|line| line["number"].as_u64().unwrap())
        .collect();
    let mut once = numbers.clone();
    once.dedup();
    assert_eq!((once, numbers.len()), ((1..=7).collect(), 7), "no part that was written down is sent again");
    // Each kill costs at most the part in flight, and what the link had already taken of it.
    assert!(proxy.sent() < (size + 12 * MIB) as u64, "{} bytes were sent", proxy.sent());
    assert_eq!(open_uploads(&server, "killed").await, [""; 0]);
    assert_eq!(recorder.journal().iter().filter(|line| line["kind"] == "upload_ended").count(), 1);
}

fn removed(machine: &Machine, arguments: &[&str]) -> Value {
    let output = machine.run(&[&["rm", "drive", "--force", "--json"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn paths_of<'a>(result: &'a Value, kind: &str) -> Vec<&'a str> {
    let rows = result["actions"].as_array().unwrap().iter().filter(|row| row["kind"] == kind);
    rows.map(|row| row["path"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_aborts_begun_uploads_and_reports_them_if_the_store_is_silent() {
    let server = Server::seaweedfs().await;
    server.bucket("removed").await;
    let proxy = Proxy::start(&server.endpoint).await;
    for (id, from) in [("parts_5", "local"), ("parts_6", "both"), ("parts_7", "silent")] {
        let mut machine = machine(id, &proxy.endpoint, "removed", "concurrency = 1");
        let mut recorder = machine.recorder("drive");
        let chunk = recorder.finalize_of(32 * MIB);
        recorder.end();
        proxy.limit(16 * MIB as u64);
        machine.start();
        until("parts are there", || parts_sent(&recorder) >= 1);
        machine.kill();
        let key = format!("{id}/drive/chunks/{}", chunk["name"].as_str().unwrap());
        assert_eq!(open_uploads(&server, "removed").await, [&*key]);
        // With `auto_upload` off, nothing continues the upload.
        let endpoint = &proxy.endpoint;
        machine.set(&format!(
            "backend = \"s3\"\nendpoint = {endpoint:?}\nbucket = \"removed\"\nauto_upload = false\nrescan_interval = \"1s\""
        ));
        proxy.down(from == "silent");
        machine.start();
        until("the recording is seen", || machine.run(&["info", "drive"]).status.success());
        let place = if from == "both" { "both" } else { "local" };
        let dry = removed(&machine, &["--from", place, "--dry-run"]);
        assert_eq!(paths_of(&dry["result"], "abort_upload"), [&*key], "a dry run tells it: {dry:#}");
        assert!(from == "silent" || open_uploads(&server, "removed").await == [&*key], "and does nothing");
        let done = removed(&machine, &["--from", place]);
        assert!(!machine.home().join("recordings/drive").exists(), "{done:#}");
        if from == "silent" {
            let finding = &done["result"]["findings"][0];
            assert_eq!((&finding["kind"], &finding["path"]), (&json!("failed"), &json!(key)), "{done:#}");
            assert!(finding["message"].as_str().unwrap().contains("stay in the store, as upload"), "{done:#}");
        } else {
            assert_eq!(paths_of(&done["result"], "abort_upload"), [&*key]);
            assert_eq!(open_uploads(&server, "removed").await, [""; 0], "no part of it is left");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobs_progress_grows_with_each_part_and_never_shrinks() {
    let server = Server::seaweedfs().await;
    server.bucket("moving").await;
    let proxy = Proxy::start(&server.endpoint).await;
    let mut machine = machine("parts_3", &proxy.endpoint, "moving", "concurrency = 1");
    let mut recorder = machine.recorder("drive");
    let size = 32 * MIB as u64;
    recorder.finalize_of(32 * MIB);
    recorder.end();
    proxy.limit(8 * MIB as u64);
    machine.start();
    until("the recording is seen", || machine.run(&["info", "drive"]).status.success());
    let asked = machine.run(&["upload", "drive", "--wait", "0s", "--json"]);
    let asked: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let job = || -> Value {
        let jobs: Value = serde_json::from_slice(&machine.run(&["jobs", "--json"]).stdout).unwrap_or_default();
        let found = jobs["jobs"].as_array().and_then(|jobs| jobs.iter().find(|job| job["job"] == asked["job"]));
        found.cloned().unwrap_or_default()
    };
    let mut told = vec![0];
    until("the job is done", || {
        let job = job();
        let progress = &job["progress"];
        // On a busy machine an answer may be late.
        let Some(bytes_done) = progress["bytes_done"].as_u64() else { return false };
        assert!(bytes_done >= *told.last().unwrap(), "it moves back: {told:?} {bytes_done}");
        if job["state"] == "running" {
            assert_eq!((&progress["chunks_done"], &progress["bytes_total"]), (&json!(0), &json!(size)));
        }
        told.push(bytes_done);
        job["state"] == "done"
    });
    told.dedup();
    assert!(told.len() > 3, "it moves on in steps: {told:?}");
    assert_eq!(told.last(), Some(&size));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_whose_chunk_vanished_is_given_up_and_those_of_others_are_left_alone() {
    let server = Server::seaweedfs().await;
    server.bucket("vanished").await;
    let begun = server.request("POST", "vanished/parts_2/drive/chunks/other?uploads", &[], b"").await.unwrap();
    assert_eq!(begun.status, 200);
    let proxy = Proxy::start(&server.endpoint).await;
    let mut machine = machine("parts_2", &proxy.endpoint, "vanished", "concurrency = 1\nverify_interval = \"1s\"");
    let mut recorder = machine.recorder("drive");
    let chunk = recorder.finalize_of(32 * MIB);
    proxy.limit(16 * MIB as u64);
    machine.start();
    until("parts are there", || parts_sent(&recorder) >= 1);
    machine.kill();
    assert_eq!(open_uploads(&server, "vanished").await.len(), 2);
    fs::remove_file(recorder.path(&chunk)).unwrap();
    machine.start();
    until("the upload is given up", || recorder.journal().iter().any(|line| line["kind"] == "upload_ended"));
    assert_eq!(open_uploads(&server, "vanished").await, ["parts_2/drive/chunks/other"]);
    assert_eq!(json!(recorder.chunks.len()), json!(1));
}
