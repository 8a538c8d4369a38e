//! The S3 store and answers that no real server gives on demand.

use std::{fs, sync::Arc, time::Duration};

use bubbaloop_storage::{
    engine::{request::UploadRequest, transfer},
    policy::queue::Outcome,
    store::{
        Body, ObjectStore, PutMode, StoreError, StoreErrorKind, Stored,
        s3::{
            S3Store,
            settings::{Patience, S3Settings},
        },
    },
};
use bubbaloop_storage_schemas::{
    Digest,
    limits::BLOCK_BYTES,
    reply::{Probe, Rights},
};

use crate::{
    s3_store::{WrongClock, blocked, opened, parcel, settings},
    support::{
        conformance::manifest_key,
        http::{Act, Fake, Head},
    },
};

/// A long timeout, to see that a shorter one ends the request.
const DEADLINE: Duration = Duration::from_secs(20);

fn error(status: u16, code: &str) -> Act {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
    Act::Answer(status, vec![("Content-Type", "application/xml".into())], body)
}

fn with(act: Act, name: &'static str, value: &str) -> Act {
    match act {
        Act::Answer(status, mut headers, body) => {
            headers.push((name, value.into()));
            Act::Answer(status, headers, body)
        }
        other => other,
    }
}

fn fine() -> Act {
    Act::Answer(200, vec![("ETag", "\"e\"".into())], String::new())
}

/// Long enough for a busy machine, and short enough to wait for it in a test.
const PATIENCE: Patience = every_wait(Duration::from_secs(5));

/// The timeout for answers that never come.
const IMPATIENCE: Patience = every_wait(Duration::from_millis(300));

const fn every_wait(wait: Duration) -> Patience {
    Patience { connect: wait, stall: wait, reply: wait, request: wait }
}

async fn put_with(patience: Patience, endpoint: &str, body: &Body) -> Result<Stored, StoreError> {
    let store = opened(&S3Settings { patience, ..settings(endpoint, "bucket") }).await;
    let key = manifest_key("x");
    let put = store.put(&key, body, PutMode::Create);
    tokio::time::timeout(DEADLINE, put).await.expect("every wait ends")
}

async fn put(endpoint: &str, body: &Body) -> Result<Stored, StoreError> {
    put_with(PATIENCE, endpoint, body).await
}

fn small() -> Body {
    Body::Bytes("x".into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_failure_is_to_be_retried_and_is_sent_once() {
    for (name, act) in [
        ("slow down", error(503, "SlowDown")),
        ("a proxy's page", Act::Answer(502, vec![], "<html>".into())),
        ("nothing at all", Act::Answer(500, vec![], String::new())),
        ("too many", Act::Answer(429, vec![], String::new())),
        ("too slow", error(400, "RequestTimeout")),
        ("a fault under 200", error(200, "InternalError")),
        ("a captive portal", Act::Answer(200, vec![], "<html>sign in</html>".into())),
        ("a connection cut", Act::Cut(0)),
        ("no answer", Act::Silent),
    ] {
        let patience = if matches!(act, Act::Silent) { IMPATIENCE } else { PATIENCE };
        let fake = Fake::start(move |_| act.clone()).await;
        let kind = put_with(patience, &fake.endpoint, &small()).await.unwrap_err().kind;
        assert!(matches!(kind, StoreErrorKind::Retry { after: None }), "{name}: {kind:?}");
        assert_eq!(fake.requests(), 1, "{name}");
    }
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kind = put(&format!("http://{refused}"), &small()).await.unwrap_err().kind;
    assert!(matches!(kind, StoreErrorKind::Retry { .. }), "{kind:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_of_a_store_is_honoured() {
    let fake = Fake::start(|_| with(error(503, "SlowDown"), "Retry-After", "7")).await;
    let kind = put(&fake.endpoint, &small()).await.unwrap_err().kind;
    assert!(matches!(kind, StoreErrorKind::Retry { after: Some(after) } if after.as_secs() == 7), "{kind:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_or_stalls_ends() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("chunk");
    let content = vec![7; 100 * BLOCK_BYTES];
    fs::write(&path, &content).unwrap();
    let large = Body::File { path, digest: Digest::of(&content) };
    for act in [Act::Cut(BLOCK_BYTES), Act::Stall, Act::Silent] {
        let fake = Fake::start({
            let act = act.clone();
            move |_| act.clone()
        })
        .await;
        let kind = put_with(IMPATIENCE, &fake.endpoint, &large).await.unwrap_err().kind;
        assert!(matches!(kind, StoreErrorKind::Retry { .. }), "{act:?}: {kind:?}");
    }
    let fake = Fake::start(|_| error(403, "AccessDenied")).await;
    assert!(put(&fake.endpoint, &large).await.unwrap_err().is_denied());

    let slow = Fake::start(|_| Act::Slow(BLOCK_BYTES, Duration::from_millis(40))).await;
    let patience = Patience { stall: Duration::from_secs(2), ..every_wait(DEADLINE) };
    let mut upload = std::pin::pin!(put_with(patience, &slow.endpoint, &large));
    let early = tokio::time::timeout(patience.stall, &mut upload).await;
    assert!(early.is_err(), "it takes longer than a block may: {early:?}");
    upload.await.expect("a link that is slow and moves is left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_knows_no_conditions_is_looked_at_before_a_put() {
    let puts = Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    let fake = Fake::start(move |head| {
        let mut puts = puts.lock().unwrap();
        let path = head.path.split('?').next().unwrap().to_owned();
        match head.method.as_str() {
            "PUT" if head.header("if-none-match").or(head.header("if-match")).is_some() => error(501, "NotImplemented"),
            "PUT" => {
                puts.insert(path);
                fine()
            }
            "GET" if path.contains(".probe/right") => {
                with(Act::Answer(200, vec![], "bubbaloop-storage probe\n".into()), "ETag", "\"e\"")
            }
            "DELETE" => {
                puts.remove(&path);
                Act::Answer(204, vec![], String::new())
            }
            _ if head.path.contains("list-type=2") => {
                Act::Answer(200, vec![], "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".into())
            }
            _ if puts.contains(&path) => fine(),
            _ => error(404, "NoSuchKey"),
        }
    })
    .await;
    let store = opened(&settings(&fake.endpoint, "bucket")).await;
    let probe = store.probe().await.unwrap();
    assert!(!probe.honours_create_only && !probe.honours_if_match && !probe.enforces_sha256, "{probe:?}");
    let key = manifest_key("x");
    store.put(&key, &small(), PutMode::Create).await.unwrap();
    for (mode, is_changed) in [(PutMode::Create, false), (PutMode::Update("other".into()), true)] {
        let kind = store.put(&key, &small(), mode).await.unwrap_err().kind;
        assert!(matches!(kind, StoreErrorKind::Changed) == is_changed, "{kind:?}");
        assert!(matches!(kind, StoreErrorKind::AlreadyExists) != is_changed, "{kind:?}");
    }
    store.put(&key, &small(), PutMode::Update("e".into())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_problem_that_stops_everything_blocks_with_its_remedy() {
    let redirect = with(error(301, "PermanentRedirect"), "x-amz-bucket-region", "eu-west-1");
    for (act, reason, remedy) in [
        (redirect, "wrong_region", "set region to \"eu-west-1\""),
        (error(400, "AuthorizationHeaderMalformed"), "wrong_region", "set region"),
        (error(400, "ExpiredToken"), "expired_credentials", "session_token"),
        (error(403, "InvalidAccessKeyId"), "bad_credentials", "access_key_id"),
        (error(404, "NoSuchBucket"), "no_such_bucket", "bucket"),
        (Act::Answer(404, vec![], "<html>".into()), "not_an_object_store", "endpoint"),
        (Act::Answer(400, vec![], "<html>".into()), "not_an_object_store", "portal"),
        (Act::Answer(413, vec![], "<html>".into()), "not_an_object_store", "limit"),
        (Act::Answer(451, vec![], "<html>".into()), "not_an_object_store", "portal"),
        (Act::Answer(302, vec![("Location", "http://portal/".into())], String::new()), "not_an_object_store", "portal"),
    ] {
        let fake = Fake::start(move |_| act.clone()).await;
        let block = blocked(put(&fake.endpoint, &small()).await);
        assert!(block.reason == reason && block.hint.contains(remedy), "{block:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_one_object_is_a_rejection() {
    for act in [error(400, "EntityTooLarge"), error(400, "InvalidArgument"), error(413, "EntityTooLarge")] {
        let fake = Fake::start(move |_| act.clone()).await;
        let kind = put(&fake.endpoint, &small()).await.unwrap_err().kind;
        assert!(matches!(kind, StoreErrorKind::Rejected), "{kind:?}");
    }
    for act in [error(412, "PreconditionFailed"), error(409, "ConditionalRequestConflict")] {
        let fake = Fake::start(move |_| act.clone()).await;
        let kind = put(&fake.endpoint, &small()).await.unwrap_err().kind;
        assert!(matches!(kind, StoreErrorKind::AlreadyExists), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_bucket_does_not_look_like_a_missing_object() {
    let fake = Fake::start(|_| error(404, "NoSuchBucket")).await;
    let store = opened(&settings(&fake.endpoint, "bucket")).await;
    assert_eq!(blocked(store.head(&manifest_key("x")).await).reason, "no_such_bucket");
    let portal = Fake::start(|_| Act::Answer(200, vec![], "<html>".into())).await;
    let store = opened(&settings(&portal.endpoint, "bucket")).await;
    let kind = store.head(&manifest_key("x")).await.unwrap_err().kind;
    assert!(matches!(kind, StoreErrorKind::Retry { .. }), "{kind:?}");
}

/// Returns a time that differs from the machine's, in the form of a `Date` header.
const OTHER_DATE: &str = "Thu, 01 Jan 2015 00:00:00 GMT";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_a_store_of_another_time_is_signed_with_that_time_once() {
    let signed_in_2015 = |head: &Head| head.header("x-amz-date").is_some_and(|date| date.starts_with("2015"));
    for refusal in [error(403, "RequestTimeTooSkewed"), error(400, "AccessDenied"), error(403, "SomethingNew")] {
        let fake = Fake::start(move |head| match signed_in_2015(head) {
            true => fine(),
            false => with(refusal.clone(), "Date", OTHER_DATE),
        })
        .await;
        put(&fake.endpoint, &small()).await.unwrap();
        assert_eq!(fake.requests(), 2);
    }

    let stubborn = Fake::start(|_| with(error(403, "RequestTimeTooSkewed"), "Date", OTHER_DATE)).await;
    let block = blocked(put(&stubborn.endpoint, &small()).await);
    assert!(block.reason == "clock_skew" && block.hint.contains("NTP"), "{block:?}");
    assert_eq!(stubborn.requests(), 2);

    let other_fault = Fake::start(move |head| match signed_in_2015(head) {
        true => error(403, "SignatureDoesNotMatch"),
        false => with(error(403, "RequestTimeTooSkewed"), "Date", OTHER_DATE),
    })
    .await;
    assert_eq!(blocked(put(&other_fault.endpoint, &small()).await).reason, "bad_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_date_of_an_answer_that_refuses_nothing_changes_no_signature() {
    let fake = Fake::start(|head| match head.header("x-amz-date").is_some_and(|date| date.starts_with("2015")) {
        true => error(400, "WrongTime"),
        false => with(fine(), "Date", OTHER_DATE),
    })
    .await;
    let store = S3Store::open(&settings(&fake.endpoint, "bucket"), WrongClock::off_by(0)).await.unwrap();
    for _ in 0..3 {
        store.put(&manifest_key("x"), &small(), PutMode::Overwrite).await.unwrap();
    }
}

const ALL_FINE: Probe = Probe {
    enforces_sha256: true,
    tells_sha256: true,
    etag_is_md5: false,
    honours_create_only: true,
    honours_if_match: true,
    clock_offset_ms: None,
    rights: Rights::ALL,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_object_that_is_denied_while_others_pass_stops_no_other() {
    let files = tempfile::tempdir().unwrap();
    let chunk = parcel(files.path(), "denied", 10);
    let fake = Fake::start(|head| match (head.method.as_str(), head.path.as_str()) {
        ("GET", _) => error(403, "AccessDenied"),
        ("PUT", path) if path.contains("/denied/") => error(403, "AccessDenied"),
        ("PUT", path) if path.contains("/.probe/wrong") => error(400, "BadDigest"),
        ("PUT", _) if head.header("if-none-match").is_some() => error(412, "PreconditionFailed"),
        _ => fine(),
    })
    .await;
    let store = opened(&settings(&fake.endpoint, "bucket")).await;
    let outcome = transfer::send(&*store, ALL_FINE, &chunk).await.unwrap_err();
    assert!(outcome.to_string().contains("while the store takes others"), "{outcome}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captive_portals_answer_to_wrong_bytes_does_not_prove_that_the_store_checks_them() {
    for (status, is_proof) in [(404, false), (421, false), (302, false), (400, true)] {
        let fake = Fake::start(move |head| match (head.method.as_str(), head.path.as_str()) {
            ("GET", _) => error(403, "AccessDenied"),
            ("PUT", path) if path.contains("/.probe/wrong") => Act::Answer(status, vec![], "<html>".into()),
            ("PUT", _) if head.header("if-none-match").is_some() => error(412, "PreconditionFailed"),
            _ => fine(),
        })
        .await;
        let store = opened(&settings(&fake.endpoint, "bucket")).await;
        let found = store.probe().await;
        assert_eq!(found.is_ok_and(|probe| probe.enforces_sha256), is_proof, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_object_that_a_proxy_refuses_while_others_pass_is_tried_again_and_stops_no_other() {
    let files = tempfile::tempdir().unwrap();
    let chunk = parcel(files.path(), "large", 10);
    let fake = Fake::start(|head| match (head.method.as_str(), head.path.as_str()) {
        ("GET", _) => error(403, "AccessDenied"),
        ("PUT", path) if path.contains("/large/") => Act::Answer(413, vec![], "<html>".into()),
        ("PUT", path) if path.contains("/.probe/wrong") => error(400, "BadDigest"),
        ("PUT", _) if head.header("if-none-match").is_some() => error(412, "PreconditionFailed"),
        _ => fine(),
    })
    .await;
    let store = opened(&settings(&fake.endpoint, "bucket")).await;
    let error = transfer::send(&*store, ALL_FINE, &chunk).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains("while the store takes others") && told.contains("raise its limit"), "{told}");
    assert!(matches!(Outcome::from(error), Outcome::Retry { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupted_bytes_are_sent_once_more() {
    let files = tempfile::tempdir().unwrap();
    let chunk = parcel(files.path(), "digest", 10);
    for (faults, is_sent) in [(1, true), (2, false)] {
        let left = Arc::new(std::sync::atomic::AtomicUsize::new(faults));
        let fake = Fake::start(move |_| {
            use std::sync::atomic::Ordering::Relaxed;
            match left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
                Ok(_) => error(400, "BadDigest"),
                Err(_) => fine(),
            }
        })
        .await;
        let store = opened(&settings(&fake.endpoint, "bucket")).await;
        assert_eq!(transfer::send(&*store, ALL_FINE, &chunk).await.is_ok(), is_sent);
        assert_eq!(fake.requests(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_chunk_is_sent_without_a_look_where_the_store_overwrites_nothing() {
    let files = tempfile::tempdir().unwrap();
    let probe_of = |honours_create_only| Probe { honours_create_only, ..ALL_FINE };
    for (name, size, probe, is_sent_at_once) in [
        ("block", BLOCK_BYTES, ALL_FINE, true),
        ("blocks", BLOCK_BYTES + 1, ALL_FINE, false),
        ("overwrites", 10, probe_of(false), false),
    ] {
        let chunk = UploadRequest { may_be_there: true, ..parcel(files.path(), name, size) };
        let methods = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&methods);
        let fake = Fake::start(move |head| {
            seen.lock().unwrap().push(head.method.clone());
            if head.method == "PUT" { fine() } else { error(404, "NoSuchKey") }
        })
        .await;
        let store = opened(&settings(&fake.endpoint, "bucket")).await;
        transfer::send(&*store, probe, &chunk).await.unwrap();
        let first = if is_sent_at_once { "PUT" } else { "HEAD" };
        assert_eq!(methods.lock().unwrap()[0], first, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_request_has_exactly_the_needed_headers() {
    let files = tempfile::tempdir().unwrap();
    let chunk = parcel(files.path(), "wire", 3 * BLOCK_BYTES);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let fake = Fake::start({
        let seen = Arc::clone(&seen);
        move |head| {
            seen.lock().unwrap().push(head.clone());
            fine()
        }
    })
    .await;
    let store = opened(&settings(&fake.endpoint, "bucket")).await;
    transfer::send(&*store, ALL_FINE, &chunk).await.unwrap();
    let heads = seen.lock().unwrap();
    let head = &heads[0];
    assert_eq!((heads.len(), head.path.split('?').next().unwrap()), (1, format!("/bucket/{}", chunk.key).as_str()));
    assert_eq!(head.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
    assert_eq!(head.header("content-length"), Some((3 * BLOCK_BYTES).to_string().as_str()));
    assert_eq!(head.header("if-none-match"), Some("*"));
    assert_eq!(head.header("x-amz-meta-sha256"), Some(chunk.digest.to_string().as_str()));
    assert!(head.header("x-amz-checksum-sha256").is_some_and(|text| text.len() == 44));
    for absent in ["transfer-encoding", "x-amz-trailer", "content-encoding", "expect", "x-amz-sdk-checksum-algorithm"] {
        assert_eq!(head.header(absent), None, "{absent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_listing_without_a_continuation_is_not_complete() {
    let body = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    let fake = Fake::start(move |_| Act::Answer(200, vec![], body.into())).await;
    let store = opened(&settings(&fake.endpoint, "bucket")).await;
    let kind = store.list("robot_1/", None, 1000).await.unwrap_err().kind;
    assert!(matches!(kind, StoreErrorKind::Retry { .. }), "{kind:?}");
}
