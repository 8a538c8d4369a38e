//! The browser as a client: a page in Chromium, over zenoh-ts and a router's WebSocket.

use bubbaloop_storage_schemas::{Role, Verb};
use serde_json::{Value, json};

use crate::support::{browser::visit, node::Machine, router::Router};

/// Returns the only reply to a question in this form.
fn only<'a>(asked: &'a Value, form: &str) -> &'a Value {
    let replies = asked[form].as_array().unwrap();
    assert_eq!(replies.len(), 1, "{form}: {asked}");
    let encoding = if form.starts_with("cbor") { "application/cbor" } else { "application/json" };
    assert_eq!(replies[0]["encoding"], encoding, "{form}: {asked}");
    &replies[0]
}

/// Number of chunks: enough that an upload does not end while a page asks for a pause.
const CHUNKS: usize = 40;

const FORMS: [&str; 4] = ["plain", "cbor", "json_payload", "cbor_payload"];

/// Returns what a page received about a job, in order, as `reply running`, `event chunk_uploaded` and so on.
fn story(followed: &Value) -> Vec<String> {
    let text = |it: &Value, name: &str| it[name].as_str().unwrap_or_default().to_owned();
    let line = |it: &Value| match (text(it, "from").as_str(), text(it, "kind").as_str()) {
        ("event", "job") => format!("job {}", text(it, "state")),
        ("event", kind) => format!("event {kind}"),
        (from, _) => format!("{from} {}", text(it, "state")),
    };
    followed["seen"].as_array().unwrap().iter().map(line).collect()
}

/// Checks that `first` comes before `second`.
fn comes_before(story: &[String], first: &str, second: &str) {
    let place =
        |what: &str| story.iter().position(|line| line == what).unwrap_or_else(|| panic!("no {what}: {story:?}"));
    assert!(place(first) < place(second), "{first} before {second}: {story:?}");
}

#[test]
fn a_page_in_a_browser_asks_every_verb_and_follows_a_job() {
    let router = Router::started();
    let mut machine = Machine::new("browser_1", "auto_upload = false\nconcurrency = 1\nrescan_interval = \"1s\"");
    router.is_joined_by(&machine, "client");
    let mut recorder = machine.recorder("drive");
    for _ in 0..CHUNKS {
        recorder.finalize();
    }
    recorder.end();
    machine.start_and(|_| true);
    router.wait_for(&machine);

    let viewers: Vec<_> = Verb::ALL.into_iter().filter(|verb| verb.role() == Role::Viewer).collect();
    let asked = json!({"websocket": router.websocket, "machine": machine.id, "viewers": viewers});
    let found = visit(&asked);

    for verb in &viewers {
        for form in FORMS {
            let reply = only(&found["verbs"][verb.name()], form);
            assert_eq!((&reply["is_ok"], &reply["key"]), (&json!(true), &json!(machine.key(verb.name()))), "{reply}");
            let value = &reply["value"];
            assert_eq!((&value["machine_id"], &value["verb"]), (&json!("browser_1"), &json!(verb)), "{reply}");
        }
    }
    for form in ["plain", "cbor"] {
        let recordings = &only(&found["verbs"]["list"], form)["value"]["recordings"];
        assert_eq!((&recordings[0]["recording"], &recordings[0]["chunks"]), (&json!("drive"), &json!(CHUNKS)));
    }
    for form in FORMS {
        let refused = only(&found["refused"], form);
        assert_eq!((&refused["is_ok"], &refused["value"]["code"]), (&json!(false), &json!("E_NOT_FOUND")), "{refused}");
        assert!(refused["value"]["hint"].as_str().unwrap().contains("did you mean drive?"), "{refused}");
    }
    assert_eq!((&found["fleet"][0]["key"], &found["nobody"]), (&json!(machine.key("status")), &json!([])));

    let upload = story(&found["upload"]);
    comes_before(&upload, "event chunk_uploaded", "event paused");
    comes_before(&upload, "event paused", "event resumed");
    comes_before(&upload, "event resumed", "job done");
    comes_before(&upload, "job running", "job done");
    comes_before(&upload, "jobs running", "jobs done");
    assert_eq!(upload.iter().filter(|line| *line == "event chunk_uploaded").count(), CHUNKS, "{upload:?}");
    let halfway =
        |it: &Value| it["progress"]["chunks_done"].as_u64().is_some_and(|done| (1..CHUNKS as u64).contains(&done));
    assert!(found["upload"]["seen"].as_array().unwrap().iter().any(halfway), "{}", found["upload"]);
    assert_eq!(found["upload"]["shown"], format!("upload: done, {CHUNKS} of {CHUNKS} chunks"));
    let last = |name: &str| found[name]["seen"].as_array().unwrap().iter().rfind(|it| it["from"] == "jobs").unwrap();
    assert_eq!(last("upload")["result"], json!({"uploaded_chunks": CHUNKS, "failed_chunks": 0}));
    assert_eq!(last("reconcile")["result"]["counts"]["proven_chunks"], CHUNKS, "{found}");
    assert_eq!(found["reconcile"]["shown"], format!("reconcile: done, {CHUNKS} of {CHUNKS} chunks"));
}
