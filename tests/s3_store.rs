//! The S3 store on real servers: the conformance suite, the findings of the probe, and the value of each proof.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bubbaloop_storage::{
    clock::{Clock, SystemClock},
    engine::{
        driver::Engine,
        request::UploadRequest,
        transfer::{self, TransferError},
    },
    policy::{Tick, queue::Block},
    secret::Secret,
    store::{
        Body, ObjectStore, PutMode, StoreError, StoreErrorKind,
        s3::{
            S3Store,
            settings::{Credentials, Patience, Provider, S3Settings},
        },
    },
};
use bubbaloop_storage_schemas::{
    ChunkName, Digest, UnixNs,
    keys::ObjectKey,
    limits::BLOCK_BYTES,
    reply::{Probe, Proof, Rights},
};
use tempfile::TempDir;

use crate::support::{
    conformance::{Subject, machine, manifest_key, recording},
    robot::{Robot, sync_once},
    servers::{KEY, READER, SECRET, STRANGER, Server, WRITER},
};

/// The machine's clock with an offset.
#[derive(Debug)]
pub(crate) struct WrongClock(SystemClock, AtomicI64);

impl WrongClock {
    pub(crate) fn off_by(seconds: i64) -> Arc<Self> {
        Arc::new(Self(SystemClock::start(), AtomicI64::new(seconds)))
    }
}

impl Clock for WrongClock {
    fn tick(&self) -> Tick {
        self.0.tick()
    }

    fn wall(&self) -> UnixNs {
        self.0.wall().saturating_add_signed(self.1.load(Ordering::Relaxed) * 1_000_000_000)
    }
}

pub(crate) fn settings(endpoint: &str, bucket: &str) -> S3Settings {
    S3Settings {
        provider: Provider::S3,
        endpoint: Some(endpoint.into()),
        region: None,
        bucket: bucket.into(),
        prefix: String::new(),
        ca_file: None,
        credentials: keys(KEY, SECRET),
        machine_id: machine(),
        patience: Patience::default(),
    }
}

fn keys(id: &str, secret: &str) -> Credentials {
    Credentials::Static { access_key_id: id.into(), secret_access_key: Secret::new(secret.into()), session_token: None }
}

pub(crate) async fn opened(settings: &S3Settings) -> Arc<S3Store> {
    Arc::new(S3Store::open(settings, WrongClock::off_by(0)).await.unwrap())
}

pub(crate) fn blocked<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Block {
    match result.unwrap_err().kind {
        StoreErrorKind::Blocked(block) => block,
        kind => unreachable!("not blocked: {kind:?}"),
    }
}

/// Writes a chunk's file and returns its upload.
pub(crate) fn parcel(folder: &Path, name: &str, size: usize) -> UploadRequest {
    let content: Vec<u8> = name.bytes().cycle().take(size).collect();
    let digest = Digest::of(&content);
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    let key = ObjectKey::chunk(&machine(), &recording(name), ChunkName::new(0, &digest));
    UploadRequest { path, digest, key, size_bytes: size as u64, may_be_there: false, large: None }
}

async fn conforms(server: &Server, bucket: &str, prefix: &str) {
    let files = tempfile::tempdir().unwrap();
    server.bucket(bucket).await;
    let store = opened(&S3Settings { prefix: prefix.into(), ..settings(&server.endpoint, bucket) }).await;
    Subject { store, files: files.path() }.conforms().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_conforms() {
    let server = Server::seaweedfs().await;
    conforms(&server, "conforms", "").await;
    let listed = server.request("GET", "conforms?list-type=2&prefix=robot_1/.probe", &[], b"").await.unwrap();
    let text = String::from_utf8(listed.body).unwrap();
    assert!(text.contains("ListBucketResult") && !text.contains("<Contents>"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_conforms_under_a_prefix_among_keys_of_others() {
    let server = Server::seaweedfs().await;
    server.bucket("prefixed").await;
    for key in ["robot_1/list/manifest.json", "fleet/north/robot_1/list/chunks/note.txt", "fleet/northern/x"] {
        let answer = server.request("PUT", &format!("prefixed/{key}"), &[], b"other").await.unwrap();
        assert_eq!(answer.status, 200);
    }
    let files = tempfile::tempdir().unwrap();
    let settings = S3Settings { prefix: "fleet/north".into(), ..settings(&server.endpoint, "prefixed") };
    Subject { store: opened(&settings).await, files: files.path() }.conforms().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_naive_store_conforms_as_far_as_its_probe_claims() {
    let server = Server::rclone(None).await;
    conforms(&server, "conforms", "fleet").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_recognises_a_checking_store_whose_digests_are_proof() {
    let server = Server::seaweedfs().await;
    server.bucket("checks").await;
    let store = opened(&settings(&server.endpoint, "checks")).await;
    let probe = store.probe().await.unwrap();
    assert!(probe.enforces_sha256 && probe.tells_sha256 && probe.honours_create_only, "{probe:?}");
    assert_eq!(probe.rights, Rights::ALL);
    assert!(probe.clock_offset_ms.unwrap().abs() < 5000, "{probe:?}");

    let mut probers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        probers.spawn(async move { store.probe().await.unwrap() });
    }
    let as_one = |found: &Probe| Probe { clock_offset_ms: None, ..*found } == Probe { clock_offset_ms: None, ..probe };
    assert!(probers.join_all().await.iter().all(as_one), "probes at once do not meet");

    let files = tempfile::tempdir().unwrap();
    for (name, size) in [("small", 10), ("large", 5 * BLOCK_BYTES + 3)] {
        let mut parcel = parcel(files.path(), name, size);
        let first = transfer::send(&*store, probe, &parcel).await.unwrap();
        assert_eq!((first.proof, first.digest), (Proof::Enforced, parcel.digest));
        parcel.may_be_there = true;
        assert_eq!(first.sent_bytes, size as u64);
        let found = transfer::Proven { sent_bytes: 0, ..first };
        assert_eq!(transfer::send(&*store, probe, &parcel).await.unwrap(), found, "{name} is found, not sent again");
        parcel.may_be_there = false;
        assert_eq!(transfer::send(&*store, probe, &parcel).await.unwrap(), found);
        parcel.may_be_there = true;
        fs::write(&parcel.path, "damaged").unwrap();
        assert_eq!(transfer::send(&*store, probe, &parcel).await.unwrap(), found, "{name}: the object is sound");
        fs::remove_file(&parcel.path).unwrap();
        assert_eq!(transfer::send(&*store, probe, &parcel).await.unwrap(), found, "{name}: the object is there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_recognises_a_naive_store_whose_digests_prove_nothing() {
    let server = Server::rclone(None).await;
    server.bucket("naive").await;
    let store = opened(&settings(&server.endpoint, "naive")).await;
    let probe = store.probe().await.unwrap();
    assert!(!probe.enforces_sha256 && !probe.tells_sha256 && !probe.honours_create_only, "{probe:?}");
    assert!(probe.etag_is_md5 && probe.rights == Rights::ALL, "{probe:?}");
    let left: Vec<_> = fs::read_dir(server.data().join("naive/robot_1/.probe")).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");

    let files = tempfile::tempdir().unwrap();
    for (name, size) in [("small", 10), ("large", 5 * BLOCK_BYTES + 3)] {
        let mut parcel = parcel(files.path(), name, size);
        assert_eq!(transfer::send(&*store, probe, &parcel).await.unwrap().proof, Proof::EtagMd5);
        assert_eq!(store.head(&parcel.key).await.unwrap().unwrap().digest, None, "its echo is not handed on");
        parcel.may_be_there = true;
        assert_eq!(transfer::send(&*store, probe, &parcel).await.unwrap().proof, Proof::EtagMd5);
        let without_md5 = Probe { etag_is_md5: false, ..probe };
        assert_eq!(transfer::send(&*store, without_md5, &parcel).await.unwrap().proof, Proof::ReadBack);
        let mut blind = without_md5;
        blind.rights.get = false;
        assert_eq!(transfer::send(&*store, blind, &parcel).await.unwrap().proof, Proof::Claimed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_under_a_chunks_name_are_a_conflict_whatever_the_store_says_of_them() {
    let files = tempfile::tempdir().unwrap();
    let parcel = |name| UploadRequest { may_be_there: true, ..parcel(files.path(), name, 1000) };

    let checking = Server::seaweedfs().await;
    checking.bucket("planted").await;
    let planted = parcel("planted");
    let path = format!("planted/{}", planted.key);
    let told = [("x-amz-meta-sha256", planted.digest.to_string())];
    let told: Vec<_> = told.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(checking.request("PUT", &path, &told, &[b'x'; 1000]).await.unwrap().status, 200);

    let naive = Server::rclone(None).await;
    naive.bucket("planted").await;
    let rotten = parcel("rotten");
    let store = opened(&settings(&naive.endpoint, "planted")).await;
    let probe = store.probe().await.unwrap();
    transfer::send(&*store, probe, &rotten).await.unwrap();
    fs::write(naive.data().join("planted").join(rotten.key.as_str()), [b'x'; 1000]).unwrap();

    for (server, parcel) in [(&*checking, planted), (&naive, rotten)] {
        let store = opened(&settings(&server.endpoint, "planted")).await;
        let probe = store.probe().await.unwrap();
        for may_be_there in [true, false] {
            let parcel = UploadRequest { may_be_there, ..parcel.clone() };
            let error = transfer::send(&*store, probe, &parcel).await.unwrap_err();
            assert!(matches!(error, TransferError::Conflict { .. }), "{error:?}");
        }
        let kept = store.get(&parcel.key, None).await.unwrap().unwrap().collect(1000).await.unwrap();
        assert_eq!(kept, [b'x'; 1000], "it is left alone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn problems_for_a_person_block_with_their_remedy_and_show_no_secret() {
    const WRONG: &str = "wrong-secret-that-is-never-shown";
    let (seaweedfs, rclone) = (Server::seaweedfs().await, Server::rclone(None).await);
    for (server, bucket) in [(&*seaweedfs, "mended-s"), (&rclone, "mended-r")] {
        let right = settings(&server.endpoint, bucket);
        let wrong_secret = S3Settings { credentials: keys(KEY, WRONG), ..right.clone() };
        let unknown_key = S3Settings { credentials: keys("nobody", WRONG), ..right.clone() };
        let store = opened(&right).await;
        for (settings, reason, remedy) in [
            (&right, "no_such_bucket", "bucket"),
            (&wrong_secret, "bad_credentials", "secret_access_key"),
            (&unknown_key, "bad_credentials", "access_key_id"),
        ] {
            let opened = opened(settings).await;
            let store = if reason == "no_such_bucket" { &store } else { &opened };
            if reason != "no_such_bucket" && !server.data().join(bucket).exists() {
                server.bucket(bucket).await;
            }
            let key = manifest_key("x");
            let errors = [
                store.probe().await.map(drop),
                store.put(&key, &Body::Bytes("x".into()), PutMode::Create).await.map(drop),
                store.head(&key).await.map(drop),
                store.get(&key, None).await.map(drop),
                store.list("", None, 1).await.map(drop),
            ];
            for error in errors {
                let shown = format!("{error:?} {store:?} {settings:?}");
                assert!(!shown.contains(WRONG) && !shown.contains(SECRET), "{shown}");
                let block = blocked(error);
                assert!(block.reason == reason && block.hint.contains(remedy), "{reason}: {shown}");
            }
        }
        let mended = async {
            while store.probe().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mended = tokio::time::timeout(Duration::from_secs(20), mended).await;
        assert!(mended.is_ok(), "the bucket is there now, and nothing was restarted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_used_as_far_as_its_rights_go() {
    let server = Server::seaweedfs().await;
    server.bucket("rights").await;
    let files = tempfile::tempdir().unwrap();
    let with = |key: &str| S3Settings { credentials: keys(key, SECRET), ..settings(&server.endpoint, "rights") };
    for key in [READER, STRANGER] {
        let store = opened(&with(key)).await;
        let block = blocked(store.probe().await);
        assert!(block.reason == "access_denied" && block.hint.contains("s3:PutObject"), "{key}: {block:?}");
        let parcel = parcel(files.path(), key, 10);
        let probe = opened(&with(KEY)).await.probe().await.unwrap();
        let error = transfer::send(&*store, probe, &parcel).await.unwrap_err();
        let TransferError::Store(error) = error else { panic!("{error:?}") };
        assert!(error.is_denied(), "a key that may put nothing blocks all: {error:?}");
    }

    let store = opened(&with(WRITER)).await;
    for _ in 0..2 {
        let probe = store.probe().await.unwrap();
        assert!(probe.enforces_sha256 && probe.honours_create_only, "{probe:?}");
        assert!(!probe.rights.get && !probe.rights.head && !probe.rights.list, "{probe:?}");
    }
    let probe = store.probe().await.unwrap();
    let parcel = UploadRequest { may_be_there: true, ..parcel(files.path(), "written", 10) };
    assert_eq!(transfer::send(&*store, probe, &parcel).await.unwrap().proof, Proof::Enforced);
    assert_eq!(transfer::send(&*store, probe, &parcel).await.unwrap().proof, Proof::Claimed, "it can't be looked at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_an_hour_off_stops_no_upload() {
    let (seaweedfs, rclone) = (Server::seaweedfs().await, Server::rclone(None).await);
    let files = tempfile::tempdir().unwrap();
    for (server, bucket) in [(&*seaweedfs, "skewed"), (&rclone, "skewed")] {
        server.bucket(bucket).await;
        for hour in [-3600, 3600] {
            let clock = WrongClock::off_by(hour);
            let store = S3Store::open(&settings(&server.endpoint, bucket), Arc::<WrongClock>::clone(&clock)).await;
            let store = store.unwrap();
            assert!(store.head(&manifest_key("x")).await.unwrap().is_none());
            let probe = store.probe().await.unwrap();
            let offset_s = probe.clock_offset_ms.unwrap() / 1000;
            assert!((offset_s + hour).abs() < 10, "{offset_s}");
            let parcel = parcel(files.path(), &format!("hour{hour}").replace('-', "m"), 3 * BLOCK_BYTES);
            assert!(transfer::send(&store, probe, &parcel).await.unwrap().proof.is_proven());

            clock.1.store(0, Ordering::Relaxed);
            assert!(store.head(&parcel.key).await.unwrap().is_some(), "a clock that is set right again does no harm");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_job_is_done_on_real_servers_and_again_in_another_bucket() {
    let (seaweedfs, rclone) = (Server::seaweedfs().await, Server::rclone(None).await);
    let robot = Robot::new();
    let chunks: Vec<_> = (0..20).map(|index| robot.chunk(index)).collect();
    robot.manifest(&chunks);
    for (server, bucket, proof) in [
        (&*seaweedfs, "job-one", Proof::Enforced),
        (&seaweedfs, "job-two", Proof::Enforced),
        (&rclone, "job", Proof::EtagMd5),
    ] {
        let settings = settings(&server.endpoint, bucket);
        if bucket == "job-two" {
            server.bucket(bucket).await;
        }
        let engine = robot.started_with(opened(&settings).await, &settings.store_id());
        sync_once(&engine).await;
        if bucket != "job-two" {
            assert_eq!(engine.blocked().unwrap().reason, "no_such_bucket");
            server.bucket(bucket).await;
            let healed = async {
                while engine.blocked().is_some() {
                    robot.pass(Duration::from_secs(60));
                    engine.drain().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), healed).await.expect("it heals by itself");
        }
        let proofs = |engine: &Engine| {
            let view = engine.recording(&recording("drive")).unwrap();
            view.chunks.iter().map(|chunk| chunk.facts.proof).collect::<Vec<_>>()
        };
        assert_eq!(proofs(&engine), vec![Some(proof); 20], "{bucket}");
        assert_eq!(engine.dead_letters(), []);

        fs::remove_file(robot.recording().join("uploads.jsonl")).unwrap();
        let restarted = robot.started_with(opened(&settings).await, &settings.store_id());
        sync_once(&restarted).await;
        assert_eq!(proofs(&restarted), vec![Some(proof); 20], "what is there is found there");
    }
}

/// Writes a CA and a certificate for loopback as PEM files: `ca.pem`, `leaf.pem`, `leaf.key`.
pub(crate) fn certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &rcgen::Issuer::new(ca, ca_key)).unwrap();
    fs::write(folder.path().join("ca.pem"), ca_pem).unwrap();
    fs::write(folder.path().join("leaf.pem"), leaf.pem()).unwrap();
    fs::write(folder.path().join("leaf.key"), leaf_key.serialize_pem()).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_ca_blocks_until_it_is_set() {
    let certificates = certificates();
    let file = |name: &str| certificates.path().join(name);
    let server = Server::rclone(Some((&file("leaf.pem"), &file("leaf.key")))).await;
    server.bucket("tls").await;
    let unknown = settings(&server.endpoint, "tls");
    let block = blocked(opened(&unknown).await.probe().await);
    assert!(block.reason == "unknown_ca" && block.hint.contains("ca_file"), "{block:?}");

    let known = S3Settings { ca_file: Some(file("ca.pem")), ..unknown.clone() };
    let store = opened(&known).await;
    let probe = store.probe().await.unwrap();
    let parcel = parcel(certificates.path(), "chunk", 3 * BLOCK_BYTES);
    assert_eq!(transfer::send(&*store, probe, &parcel).await.unwrap().proof, Proof::EtagMd5);

    let by_name = server.endpoint.replace("127.0.0.1", "localhost");
    let block = blocked(opened(&S3Settings { endpoint: Some(by_name), ..known }).await.probe().await);
    assert_eq!(block.reason, "bad_certificate");

    for (ca_file, words) in [("none.pem", "not there"), ("leaf.key", "no certificate")] {
        let settings = S3Settings { ca_file: Some(file(ca_file)), bucket: String::new(), ..unknown.clone() };
        let problems = S3Store::open(&settings, WrongClock::off_by(0)).await.unwrap_err();
        let keys: Vec<_> = problems.iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["bucket", "ca_file"], "all at once");
        assert!(problems[1].message.contains(words), "{problems:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_damaged_while_it_is_sent_never_becomes_an_object_of_a_naive_store() {
    let server = Server::rclone(None).await;
    server.bucket("damaged").await;
    let store = opened(&settings(&server.endpoint, "damaged")).await;
    let probe = store.probe().await.unwrap();
    let files = tempfile::tempdir().unwrap();
    for size in [0, 10, 40 * BLOCK_BYTES] {
        let parcel = parcel(files.path(), &format!("size{size}"), size.max(1));
        let mut content = vec![b'y'; size];
        if let Some(last) = content.last_mut() {
            *last = b'z';
        }
        fs::write(&parcel.path, content).unwrap();
        let error = transfer::send(&*store, probe, &parcel).await.unwrap_err();
        let TransferError::Store(error) = error else { panic!("{error:?}") };
        assert!(matches!(error.kind, StoreErrorKind::Content(_)), "{error:?}");
        assert!(store.head(&parcel.key).await.unwrap().is_none());
    }
    let deadline = tokio::time::timeout(Duration::from_secs(20), store.list("", None, 10));
    assert_eq!(deadline.await.unwrap().unwrap().objects, []);
}
