//! The real binary on real S3 servers: the main job, problems that a person must fix, and recovery without a restart.

use std::fs;

use bubbaloop_storage_schemas::Digest;
use serde_json::{Value, json};

use crate::support::{
    node::{Machine, Recorder, until},
    python::Python,
    servers::{KEY, READER, SECRET, STRANGER, Server, WRITER},
};

fn settings(server: &Server, bucket: &str, more: &str) -> String {
    format!("backend = \"s3\"\nendpoint = {:?}\nbucket = {bucket:?}\nrescan_interval = \"1s\"\n{more}", server.endpoint)
}

fn machine(id: &str, storage: &str) -> Machine {
    let mut machine = Machine::new(id, "");
    machine.set(storage);
    machine.set_secrets(KEY, SECRET);
    machine.start();
    machine
}

pub(crate) fn status(python: &mut Python, machine: &Machine) -> Value {
    let replies = python.get(&crate::support::python::Get { selector: &machine.key("status"), ..Default::default() });
    replies.first().filter(|reply| reply.is_ok).map(crate::support::python::Reply::value).unwrap_or_default()
}

fn chunk_rows(python: &mut Python, machine: &Machine) -> Vec<Value> {
    let info = python.ask(&format!("{}?recording=drive;limit=1000", machine.key("info"))).value();
    info["chunks"].as_array().cloned().unwrap_or_default()
}

/// Returns the content of a chunk's key on the server.
async fn stored(server: &Server, bucket: &str, machine: &Machine, name: &str) -> Option<Vec<u8>> {
    let key = format!("{bucket}/{}/drive/chunks/{name}", machine.id);
    server.content(&key).await
}

pub(crate) async fn is_stored_whole(server: &Server, bucket: &str, machine: &Machine, recorder: &Recorder) -> bool {
    for chunk in &recorder.chunks {
        let found = stored(server, bucket, machine, chunk["name"].as_str().unwrap()).await;
        if found.is_none_or(|bytes| json!(Digest::of(&bytes)) != chunk["sha256"]) {
            return false;
        }
    }
    true
}

/// Checks that no log, reply or event of the machine shows a secret.
fn shows_no_secret(machine: &Machine, python: &mut Python) {
    for verb in ["help", "list", "status", "config", "dead_letters", "info?recording=drive"] {
        let reply = python.ask(&machine.key(verb));
        let text = String::from_utf8_lossy(&reply.bytes).into_owned();
        assert!(!text.contains(SECRET) && !text.contains("wrong-secret"), "{verb}");
    }
    for reply in python.heard() {
        assert!(!String::from_utf8_lossy(&reply.bytes).contains(SECRET));
    }
    assert!(!machine.log().contains(SECRET) && !machine.log().contains("wrong-secret"));
    for file in ["storage/dead_letter.json", "storage/state.json", "storage/identity.json", "storage/lock"] {
        let text = fs::read_to_string(machine.home().join(file)).unwrap_or_default();
        assert!(!text.contains(SECRET), "{file}");
    }
}

async fn does_the_main_job(server: &Server, id: &str, bucket: &str) {
    let mut machine = machine(id, &settings(server, bucket, ""));
    let mut python = machine.python();
    python.subscribe(&machine.key("events/*"));
    let mut recorder = machine.recorder("drive");
    for _ in 0..20 {
        let chunk = recorder.finalize();
        let key = format!("bubbaloop/{}/recorder/chunk_finalized", machine.id);
        python.publish(&key, recorder.event(&chunk).to_string().as_bytes(), "application/json");
    }
    until("some chunks are proven", || recorder.journal().len() > 3);
    machine.kill();
    for _ in 20..30 {
        recorder.finalize();
    }
    recorder.end();
    machine.start();
    let mut python = machine.python();
    until("it is safe", || {
        let status = status(&mut python, &machine);
        status["library"]["chunks"] == 30 && status["safe"] == true
    });
    assert!(is_stored_whole(server, bucket, &machine, &recorder).await);
    for row in chunk_rows(&mut python, &machine) {
        assert_eq!(row["upload"], "uploaded", "{row}");
        assert!(["enforced", "etag_md5", "read_back"].contains(&row["proof"].as_str().unwrap()), "{row}");
    }
    let status = status(&mut python, &machine);
    assert_eq!((&status["at_risk_bytes"], &status["store"]["same_disk"]), (&json!(0), &json!(false)));
    let key = format!("{bucket}/{}/drive/manifest.json", machine.id);
    // The manifest is written after the chunks that it names.
    let has_all = |text: Option<Vec<u8>>| {
        let manifest: Value = serde_json::from_slice(&text.unwrap_or_default()).unwrap_or_default();
        manifest["chunks"].as_array().is_some_and(|chunks| chunks.len() == 30)
    };
    let published = async {
        while !has_all(server.content(&key).await) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), published).await.expect("it is published");
    shows_no_secret(&machine, &mut python);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_job_is_done_on_a_store_that_checks() {
    let server = Server::seaweedfs().await;
    server.bucket("node-main").await;
    does_the_main_job(&server, "s3_1", "node-main").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_job_is_done_on_a_naive_store() {
    let server = Server::rclone(None).await;
    server.bucket("naive").await;
    does_the_main_job(&server, "s3_2", "naive").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn problems_for_a_person_are_reported_with_their_remedy_and_recover_without_a_restart() {
    let server = Server::seaweedfs().await;
    server.bucket("node-mend").await;
    server.bucket("node-strange").await;
    let machine = machine("s3_3", &settings(&server, "node-mend-later", ""));
    let mut python = machine.python();
    python.subscribe(&machine.key("events/*"));
    let mut recorder = machine.recorder("drive");
    let chunk = recorder.finalize();
    let good = settings(&server, "node-mend", "");
    until("the chunk is seen", || status(&mut python, &machine)["library"]["chunks"] == 1);
    let mut blocked = |reason: &str, hint: &str| {
        until(reason, || status(&mut python, &machine)["blocked"]["reason"] == reason);
        let status = status(&mut python, &machine);
        assert!(status["blocked"]["hint"].as_str().unwrap().contains(hint), "{status}");
        assert_eq!(status["safe"], false);
    };
    blocked("no_such_bucket", "node-mend-later");

    machine.set_secrets(KEY, "wrong-secret");
    machine.set(&good);
    blocked("bad_credentials", "secret_access_key");
    machine.set_secrets("nobody", SECRET);
    blocked("bad_credentials", "access_key_id");
    machine.set_secrets(READER, SECRET);
    blocked("access_denied", "node-mend");
    machine.set_secrets(STRANGER, SECRET);
    blocked("access_denied", "node-mend");
    machine.set("backend = \"s3\"\nendpoint = \"ftp://x\"\nbucket = \"b\"");
    blocked("config", "endpoint");

    machine.set(&good);
    machine.set_secrets(KEY, SECRET);
    until("it is mended", || status(&mut python, &machine)["safe"] == true);
    assert!(stored(&server, "node-mend", &machine, chunk["name"].as_str().unwrap()).await.is_some());
    assert_eq!(status(&mut python, &machine)["blocked"], json!(null));
    shows_no_secret(&machine, &mut python);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_another_bucket_chunks_are_at_risk_again_and_vanished_objects_are_uploaded_again() {
    let server = Server::seaweedfs().await;
    server.bucket("node-one").await;
    server.bucket("node-two").await;
    let machine = machine("s3_4", &settings(&server, "node-one", ""));
    let mut python = machine.python();
    let mut recorder = machine.recorder("drive");
    let chunks = [recorder.finalize(), recorder.finalize()];
    recorder.end();
    until("it is safe", || {
        let status = status(&mut python, &machine);
        status["library"]["chunks"] == 2 && status["safe"] == true
    });
    let first = status(&mut python, &machine)["store"]["store_id"].clone();

    machine.set(&settings(&server, "node-two", "verify_interval = \"1s\""));
    until("the other bucket is in use", || {
        let status = status(&mut python, &machine);
        status["store"]["store_id"].is_string() && status["store"]["store_id"] != first && status["safe"] == true
    });
    assert!(is_stored_whole(&server, "node-two", &machine, &recorder).await);

    let name = chunks[0]["name"].as_str().unwrap();
    server.remove(&format!("node-two/{}/drive/chunks/{name}", machine.id)).await;
    let marks = || recorder.journal().iter().filter(|line| line["chunk"] == chunks[0]["name"]).count();
    until("the loss is found and mended", || marks() == 4);
    assert!(is_stored_whole(&server, "node-two", &machine, &recorder).await);
    let kinds: Vec<_> = recorder
        .journal()
        .iter()
        .filter(|line| line["chunk"] == chunks[0]["name"])
        .map(|line| line["kind"].clone())
        .collect();
    assert_eq!(kinds, ["uploaded", "uploaded", "gone", "uploaded"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_ca_is_requested_and_the_node_continues_once_it_is_set() {
    let certificates = crate::s3_store::certificates();
    let file = |name: &str| certificates.path().join(name);
    let server = Server::rclone(Some((&file("leaf.pem"), &file("leaf.key")))).await;
    server.bucket("node-tls").await;
    let machine = machine("s3_5", &settings(&server, "node-tls", ""));
    let mut python = machine.python();
    machine.recorder("drive").finalize();
    until("the unknown CA is told", || status(&mut python, &machine)["blocked"]["reason"] == "unknown_ca");
    assert!(status(&mut python, &machine)["blocked"]["hint"].as_str().unwrap().contains("ca_file"));
    machine.set(&settings(&server, "node-tls", &format!("ca_file = {:?}", file("ca.pem"))));
    until("it is safe", || {
        let status = status(&mut python, &machine);
        status["library"]["uploaded_chunks"] == 1 && status["safe"] == true
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_off_loopback_and_an_address_that_is_no_store_are_reported() {
    let machine = machine("s3_6", "backend = \"minio\"\nendpoint = \"http://192.0.2.1:9000\"\nbucket = \"b\"");
    let mut python = machine.python();
    let problems = status(&mut python, &machine)["config_problems"].clone();
    assert_eq!((problems.as_array().unwrap().len(), &problems[0]["key"]), (1, &json!("endpoint")), "{problems}");
    assert!(problems[0]["message"].as_str().unwrap().contains("in the clear"), "{problems}");

    let portal = crate::support::http::Fake::start(|_| {
        crate::support::http::Act::Answer(302, vec![("location", "http://portal.invalid/".into())], String::new())
    })
    .await;
    let endpoint = format!("backend = \"s3\"\nendpoint = {:?}\nbucket = \"b\"\nregion = \"x\"", portal.endpoint);
    machine.set(&endpoint);
    machine.recorder("drive").finalize();
    until("the portal is told", || status(&mut python, &machine)["blocked"]["reason"] == "not_an_object_store");
    assert_eq!(status(&mut python, &machine)["dead_letters"], 0, "a portal makes no dead letters");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captive_portal_causes_no_dead_letter_whatever_it_answers() {
    let server = Server::seaweedfs().await;
    server.bucket("node-portal").await;
    let proxy = crate::support::proxy::Proxy::start(&server.endpoint).await;
    let mut machine = Machine::new("s3_10", "");
    machine.set(&format!(
        "backend = \"s3\"\nendpoint = {:?}\nbucket = \"node-portal\"\nrescan_interval = \"1s\"",
        proxy.endpoint
    ));
    machine.set_secrets(KEY, SECRET);
    machine.start();
    let mut python = machine.python();
    let mut recorder = machine.recorder("drive");
    let mut chunks = vec![recorder.finalize()];
    until("one is proven", || status(&mut python, &machine)["library"]["uploaded_chunks"] == 1);
    for portal_status in [400, 421, 451] {
        let portal = crate::support::http::Fake::start(move |_| {
            crate::support::http::Act::Answer(portal_status, vec![], "<html>log in</html>".into())
        })
        .await;
        proxy.lead_to(&portal.endpoint);
        proxy.cut();
        chunks.push(recorder.finalize());
        until("the portal is told", || {
            let status = status(&mut python, &machine);
            assert_eq!(status["dead_letters"], 0, "{portal_status}: {status:#}");
            status["blocked"]["reason"] == "not_an_object_store"
        });
        proxy.lead_to(&server.endpoint);
        proxy.cut();
        until("it went up with nobody's help", || {
            status(&mut python, &machine)["library"]["uploaded_chunks"] == chunks.len()
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_before_the_first_chunk_is_honoured_and_blocks_nothing() {
    let busy = crate::support::http::Fake::start(|_| {
        crate::support::http::Act::Answer(503, vec![("Retry-After", "600".into())], String::new())
    })
    .await;
    let mut machine = Machine::new("s3_11", "");
    machine.set(&format!(
        "backend = \"s3\"\nendpoint = {:?}\nbucket = \"b\"\nregion = \"x\"\nrescan_interval = \"1s\"",
        busy.endpoint
    ));
    machine.set_secrets(KEY, SECRET);
    machine.recorder("drive").finalize();
    machine.start();
    let mut python = machine.python();
    until("it waits as long as the store says", || {
        let status = status(&mut python, &machine);
        assert_eq!(status["blocked"], json!(null), "{status:#}");
        status["failing"].is_object() && status["queue"]["next_try_in_ms"].as_u64().is_some_and(|ms| ms > 500_000)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_of_a_bucket_that_vanished_and_came_back_empty_are_not_trusted() {
    let server = Server::rclone(None).await;
    server.bucket("node-gone").await;
    let machine = machine("s3_7", &settings(&server, "node-gone", ""));
    let mut python = machine.python();
    let mut recorder = machine.recorder("drive");
    recorder.finalize();
    until("it is safe", || {
        let status = status(&mut python, &machine);
        status["library"]["uploaded_chunks"] == 1 && status["safe"] == true
    });
    fs::remove_dir_all(server.data().join("node-gone")).unwrap();
    recorder.finalize();
    until("the bucket is missed", || status(&mut python, &machine)["blocked"]["reason"] == "no_such_bucket");
    assert_eq!(status(&mut python, &machine)["safe"], false);
    fs::create_dir(server.data().join("node-gone")).unwrap();
    until("it is safe again", || status(&mut python, &machine)["safe"] == true);
    assert!(is_stored_whole(&server, "node-gone", &machine, &recorder).await, "safe is said of what is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_store_is_reported_with_the_reason() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let machine = machine(
        "s3_8",
        &format!("backend = \"minio\"\nendpoint = \"http://{nobody}\"\nbucket = \"bucket\"\nrescan_interval = \"1s\""),
    );
    let mut python = machine.python();
    machine.recorder("drive").finalize();
    until("why it fails is told", || {
        let status = status(&mut python, &machine);
        let told =
            |field: &str, name: &str| status[field][name].as_str().is_some_and(|text| text.contains("no answer"));
        told("failing", "message") || told("blocked", "hint")
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_only_key_sends_chunks_and_manifests_stop_none() {
    let server = Server::seaweedfs().await;
    server.bucket("node-writer").await;
    let mut machine = Machine::new("s3_9", "");
    machine.set(&settings(&server, "node-writer", ""));
    machine.set_secrets(WRITER, SECRET);
    machine.start();
    let mut python = machine.python();
    let mut recorder = machine.recorder("drive");
    for count in 1..=3 {
        recorder.finalize();
        recorder.end();
        until("the chunk is proven", || status(&mut python, &machine)["library"]["uploaded_chunks"] == count);
    }
    assert!(is_stored_whole(&server, "node-writer", &machine, &recorder).await);
    until("a manifest could not be replaced", || machine.log().contains("a remote manifest can't be written"));
    assert_eq!(status(&mut python, &machine)["blocked"], json!(null));
    assert!(!machine.log().contains("uploads are blocked"), "{}", machine.log());
}
