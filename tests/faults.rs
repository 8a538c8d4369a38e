//! The real binary behind a link that breaks in every way. Nothing is lost or falsely marked, `status` says what is
//! wrong, and in the end everything is uploaded without help.

use std::{sync::Arc, time::Duration};

use bubbaloop_storage::store::{
    ObjectStore,
    s3::settings::{Patience, S3Settings},
};
use bubbaloop_storage_schemas::Digest;
use serde_json::{Value, json};

use crate::{
    s3_node::{is_stored_whole, status},
    s3_store::{opened, settings},
    support::{
        http::{Act, Fake},
        node::{Machine, Recorder, until},
        proxy::Proxy,
        python::Python,
        robot::Robot,
        servers::{KEY, SECRET, Server},
    },
};

const MIB: usize = 1024 * 1024;

/// A machine that reaches its bucket only through a proxy, and that has used the bucket already.
struct Behind {
    machine: Machine,
    python: Python,
    recorder: Recorder,
    bucket: String,
}

impl Behind {
    async fn start(server: &Server, proxy: &Proxy, id: &str, more: &str) -> Self {
        let bucket = id.replace('_', "-");
        server.bucket(&bucket).await;
        let mut machine = Machine::new(id, "");
        machine.set(&format!(
            "backend = \"s3\"\nendpoint = {:?}\nbucket = {bucket:?}\nrescan_interval = \"1s\"\n{more}",
            proxy.endpoint
        ));
        machine.set_secrets(KEY, SECRET);
        machine.start();
        let (python, recorder) = (machine.python(), machine.recorder("drive"));
        let mut behind = Self { machine, python, recorder, bucket };
        behind.recorder.finalize();
        behind.until_safe(server).await;
        behind.python.subscribe(&behind.machine.key("events/*"));
        behind
    }

    fn status(&mut self) -> Value {
        status(&mut self.python, &self.machine)
    }

    fn marks(&self) -> usize {
        self.recorder.journal().iter().filter(|line| line["kind"] == "uploaded").count()
    }

    /// Checks the state while the link is broken: the failure is reported with its reason, uploads are not blocked, no
    /// chunk is given up, and none is marked.
    fn fails_with(&mut self, reason: &str) {
        let chunks = self.recorder.chunks.len();
        until("the failure is told", || {
            let status = status(&mut self.python, &self.machine);
            status["failing"]["message"].as_str().is_some_and(|message| message.contains(reason))
        });
        let status = self.status();
        let told =
            [&status["safe"], &status["blocked"], &status["dead_letters"], &status["library"]["uploaded_chunks"]];
        assert_eq!(told, [&json!(false), &json!(null), &json!(0), &json!(chunks - 1)], "{status}");
        assert_eq!(self.marks(), chunks - 1, "what did not arrive is not marked");
    }

    /// Checks that every finalized chunk is in the store with its bytes, is marked once, and that nothing fails.
    async fn until_safe(&mut self, server: &Server) {
        let chunks = self.recorder.chunks.len();
        until("everything is safe", || {
            let status = status(&mut self.python, &self.machine);
            status["library"]["uploaded_chunks"] == chunks && status["safe"] == true
        });
        assert!(is_stored_whole(server, &self.bucket, &self.machine, &self.recorder).await);
        let status = self.status();
        assert_eq!([&status["failing"], &status["blocked"]], [&json!(null); 2], "{status}");
        assert_eq!((self.marks(), &status["dead_letters"]), (chunks, &json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_at_any_byte_lose_nothing() {
    let server = Server::seaweedfs().await;
    let proxy = Proxy::start(&server.endpoint).await;
    let mut behind = Behind::start(&server, &proxy, "faults_cut", "").await;
    // The cut is in the head, in the middle of the body, or in its last bytes. A head has about 900 bytes.
    let size = 3 * MIB;
    for cut_after in [1, size / 2, size + 500] {
        proxy.cut_after(Some(cut_after as u64));
        proxy.cut();
        behind.recorder.finalize_of(size);
        behind.fails_with("");
        proxy.cut_after(None);
        behind.until_safe(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_recover_by_themselves_after_a_link_was_down() {
    let server = Server::seaweedfs().await;
    let proxy = Proxy::start(&server.endpoint).await;
    let mut behind = Behind::start(&server, &proxy, "faults_down", "").await;
    proxy.down(true);
    behind.recorder.finalize();
    behind.fails_with("");
    proxy.down(false);
    behind.until_safe(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_of_2_mbit_per_second_is_slow_but_no_failure() {
    let server = Server::seaweedfs().await;
    let proxy = Proxy::start(&server.endpoint).await;
    let mut behind = Behind::start(&server, &proxy, "faults_drip", "").await;
    proxy.limit(2_000_000 / 8);
    let chunk = behind.recorder.finalize_of(MIB);
    let machine = &behind.machine;
    until("it is on its way", || status(&mut behind.python, machine)["queue"]["in_flight"] == 1);
    behind.until_safe(&server).await;
    let kinds: Vec<_> = behind.python.heard().iter().map(|event| event.value()["kind"].clone()).collect();
    assert!(!kinds.contains(&json!("upload_failed")), "{chunk}: {kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_chunk_is_uploaded_over_a_link_that_is_cut_repeatedly() {
    const CUTS: usize = 3;
    let server = Server::seaweedfs().await;
    let proxy = Proxy::start(&server.endpoint).await;
    let more = "concurrency = 1\nmultipart_threshold = \"5 MiB\"\npart_size = \"5 MiB\"";
    let mut behind = Behind::start(&server, &proxy, "faults_again", more).await;
    let (size, part) = (22 * MIB, 5 * MIB);
    proxy.limit(10 * MIB as u64);
    let before = proxy.sent();
    behind.recorder.finalize_of(size);
    let sent = |recorder: &Recorder| recorder.journal().iter().filter(|line| line["kind"] == "part_sent").count();
    for cut in 1..=CUTS {
        // The cut is in the middle of the part after the next one.
        until("parts are there", || sent(&behind.recorder) >= cut);
        let now = proxy.sent();
        until("another part is on its way", || proxy.sent() > now + MIB as u64);
        proxy.cut();
    }
    behind.until_safe(&server).await;
    let most = size + (CUTS * part) + 2 * MIB;
    assert!(proxy.sent() - before <= most as u64, "{} bytes for {size}", proxy.sent() - before);
    assert_eq!(sent(&behind.recorder), size.div_ceil(part), "each part was sent one time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_comes_back_gets_everything() {
    let mut server = Server::own_seaweedfs().await;
    let proxy = Proxy::start(&server.endpoint).await;
    let mut behind = Behind::start(&server, &proxy, "faults_killed", "").await;
    proxy.limit(4 * MIB as u64);
    behind.recorder.finalize_of(8 * MIB);
    let now = proxy.sent();
    until("it is on its way", || proxy.sent() > now + MIB as u64);
    server.kill();
    behind.fails_with("");
    behind.recorder.finalize();
    proxy.limit(0);
    let server = server.revived().await;
    behind.until_safe(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_retry_after_is_not_asked_earlier() {
    let server = Server::seaweedfs().await;
    let proxy = Proxy::start(&server.endpoint).await;
    let mut behind = Behind::start(&server, &proxy, "faults_busy", "").await;
    for (code, status_code) in [("TooManyRequests", 429), ("SlowDown", 503)] {
        let fake = Fake::start(move |_| {
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
            Act::Answer(status_code, vec![("Retry-After", "8".into())], body)
        })
        .await;
        proxy.lead_to(&fake.endpoint);
        behind.recorder.finalize();
        behind.fails_with(code);
        let (asked, next) = (fake.requests(), behind.status()["queue"]["next_try_in_ms"].as_u64().unwrap());
        assert!((5_000..=8_000).contains(&next), "{next} ms");
        assert_eq!(asked, 1, "it is asked one time and left alone");
        proxy.lead_to(&server.endpoint);
        behind.until_safe(&server).await;
        assert_eq!(fake.requests(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_connection_is_closed_and_tried_again() {
    let server = Server::seaweedfs().await;
    server.bucket("faults-still").await;
    let proxy = Proxy::start(&server.endpoint).await;
    // The default timeout is over a minute, for links that are slow but not dead.
    let short = Duration::from_secs(1);
    let patience = Patience { connect: short, stall: short, reply: short, request: short };
    let store = opened(&S3Settings { patience, ..settings(&proxy.endpoint, "faults-still") }).await;
    let robot = Robot::new();
    let chunks = [robot.chunk(0), robot.chunk(1)];
    robot.ended(&chunks);
    let engine = robot.started_with(Arc::<_>::clone(&store) as Arc<dyn ObjectStore>, "s");
    engine.scan().unwrap();
    store.probe().await.unwrap();
    proxy.stand_still(true);
    tokio::time::timeout(Duration::from_secs(30), engine.drain()).await.expect("a dead link is given up");
    let going = engine.going();
    let waiting = || engine.read(|_, queue| queue.waiting());
    assert_eq!((waiting(), engine.dead_letters().len()), (2, 0), "{going:?}");
    proxy.stand_still(false);
    for _ in 0..10 {
        // This covers the backoff, and the block reason of a store that could not be probed.
        robot.pass(Duration::from_secs(60));
        tokio::time::timeout(Duration::from_secs(60), engine.drain()).await.expect("what moves again ends");
    }
    assert_eq!(waiting(), 0);
    for chunk in &chunks {
        let key = format!("faults-still/robot_1/drive/chunks/{}", chunk["name"].as_str().unwrap());
        let stored = server.content(&key).await.unwrap();
        assert_eq!(json!(Digest::of(&stored)), chunk["sha256"]);
    }
}
