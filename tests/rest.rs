//! REST clients: `curl` at a router that the node is connected to.

use bubbaloop_storage_schemas::{Role, Verb};
use serde_json::{Value, json};

use crate::support::{
    node::{Machine, until},
    router::Router,
    tools::program,
};

/// Returns a router, a node in this mode that sends nothing by itself, and a recording of two chunks.
fn joined(id: &str, mode: &str) -> (Router, Machine, [Value; 2]) {
    let router = Router::started();
    let mut machine = Machine::new(id, "auto_upload = false\nrescan_interval = \"1s\"");
    router.is_joined_by(&machine, mode);
    let mut recorder = machine.recorder("drive");
    let chunks = [recorder.finalize(), recorder.finalize()];
    recorder.end();
    machine.start_and(|_| true);
    router.wait_for(&machine);
    (router, machine, chunks)
}

/// Asks one verb and returns its reply.
fn told(router: &Router, selector: &str, more: &[&str]) -> Value {
    let rows = router.get(selector, more);
    assert_eq!(rows.len(), 1, "{selector}: {rows:?}");
    assert_eq!(rows[0]["encoding"], "application/json", "{selector}: {rows:?}");
    assert_eq!(rows[0]["key"], selector.split('?').next().unwrap(), "{rows:?}");
    rows[0]["value"].clone()
}

/// Sends a request that is refused and returns the refusal. In REST only the key says that it is an error.
fn refused(router: &Router, selector: &str, more: &[&str]) -> Value {
    let rows = router.get(selector, more);
    assert_eq!((rows.len(), &rows[0]["key"]), (1, &json!("ERROR")), "{selector}: {rows:?}");
    assert_eq!(rows[0]["encoding"], "application/json", "{selector}: {rows:?}");
    rows[0]["value"].clone()
}

fn every_verb_answers(id: &str, mode: &str) {
    let (router, machine, chunks) = joined(id, mode);
    for root in [format!("bubbaloop/{id}/storage"), format!("bubbaloop/global/{id}/storage")] {
        for verb in Verb::ALL.into_iter().filter(|verb| verb.role() == Role::Viewer) {
            let parameters = if verb == Verb::Info { "recording=drive" } else { "" };
            let value = told(&router, &format!("{root}/{verb}?{parameters}"), &[]);
            assert_eq!((&value["machine_id"], &value["verb"]), (&json!(id), &json!(verb)), "{value}");
            let selector = format!("{root}/{verb}?{parameters};_raw");
            let raw = router.curl(&selector, &["--write-out", "\n%{content_type}"]);
            let (raw, content_type) = raw.rsplit_once('\n').unwrap();
            assert_eq!(content_type, "application/json");
            assert_eq!(serde_json::from_str::<Value>(raw).unwrap()["verb"], json!(verb));
        }
    }
    let pages = told(&router, &machine.key("list?name=dr*;limit=1"), &[]);
    assert_eq!(pages["recordings"][0]["chunks"], 2);
    until("a question to the fleet is answered", || {
        let rows = router.get("bubbaloop/*/storage/list", &[]);
        rows.len() == 1 && rows[0]["key"] == machine.key("list")
    });

    let upload = told(&router, &machine.key("upload?recording=drive;wait=0s"), &["--request", "POST"]);
    assert_eq!(upload["verb"], "upload", "{upload}");
    let job = format!("{}?job={}", machine.key("jobs"), upload["job"].as_str().unwrap());
    until("the upload ends", || told(&router, &job, &[])["jobs"][0]["state"] == "done");
    assert!(chunks.iter().all(|chunk| machine.is_stored("drive", chunk)));

    let reconcile = told(&router, &machine.key("reconcile?recording=drive;wait=8s"), &[]);
    let job = format!("{}?job={}", machine.key("jobs"), reconcile["job"].as_str().unwrap());
    until("the reconcile ends", || told(&router, &job, &[])["jobs"][0]["state"] == "done");
    let again = told(&router, &machine.key("reconcile?recording=drive;wait=8s"), &[]);
    assert_eq!((&again["state"], &again["result"]["counts"]["proven_chunks"]), (&json!("done"), &json!(2)), "{again}");
}

#[test]
fn rest_asks_every_verb_of_a_node_that_is_the_routers_client() {
    every_verb_answers("rest_1", "client");
}

#[test]
fn rest_asks_every_verb_of_a_node_that_is_a_peer_of_the_router() {
    every_verb_answers("rest_2", "peer");
}

#[test]
fn a_request_may_be_the_body_and_a_refusal_is_reported_as_an_error() {
    let (router, machine, _) = joined("rest_3", "client");
    let info = machine.key("info");
    let body = r#"{"recording": "drive", "limit": 1}"#;
    let json_body = ["--header", "content-type: application/json", "--data", body];
    for method in ["POST", "GET"] {
        let more = [&["--request", method], &json_body[..]].concat();
        assert_eq!(told(&router, &info, &more)["chunks"].as_array().unwrap().len(), 1);
    }
    assert_eq!(told(&router, &format!("{info}?limit=2"), &json_body)["chunks"].as_array().unwrap().len(), 1);

    let cbor = router.get(&format!("{info}?recording=drive;format=cbor"), &[]);
    assert_eq!(cbor[0]["encoding"], "application/cbor");
    assert!(cbor[0]["value"].is_string(), "what is no JSON is told in base64");

    // The content type that HTTP clients send by default.
    let form = refused(&router, &info, &["--data", body]);
    assert!(form["message"].as_str().unwrap().contains("encoding"), "{form}");

    for (selector, code, hint) in [
        ("info?recording=driv", "E_NOT_FOUND", "did you mean drive?"),
        ("info?recordin=drive", "E_INVALID_PARAMS", "did you mean recording?"),
        ("upload", "E_INVALID_PARAMS", "all=true"),
        ("jobs?job=01M86QW7GVQNFH6PSSG32XDVC7", "E_NOT_FOUND", ""),
        ("lst", "E_NOT_FOUND", "storage/list"),
        ("list?name=dr*&limit=1", "E_INVALID_PARAMS", "put ; between parameters"),
        ("list?_max=1&name=nothing", "E_INVALID_PARAMS", "put ; between parameters"),
    ] {
        let error = refused(&router, &machine.key(selector), &[]);
        assert_eq!(error["code"], code, "{selector}: {error}");
        assert!(error["hint"].as_str().unwrap().contains(hint), "{selector}: {error}");
    }
    let raw = router.curl(&machine.key("info?recording=driv;_raw"), &[]);
    assert_eq!(serde_json::from_str::<Value>(&raw).unwrap()["code"], "E_NOT_FOUND");
    assert_eq!(router.curl("bubbaloop/nobody/storage/list", &[]), "[]");
}

#[test]
fn rest_receives_events_as_they_come() {
    use std::io::{BufRead, BufReader};
    let (router, machine, chunks) = joined("rest_4", "client");
    let mut follow = std::process::Command::new(program("curl"))
        .args(["--globoff", "--silent", "--no-buffer", "--noproxy", "*", "--header", "accept: text/event-stream"])
        .arg(format!("{}/{}", router.rest, machine.key("events/*")))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let (heard, events) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some(data) = line.strip_prefix("data:") {
                heard.send(serde_json::from_str::<Value>(data).unwrap()["value"].clone()).ok();
            }
        }
    });
    let mut kinds = Vec::new();
    let mut hear = |kind: &str| {
        kinds.extend(events.try_iter().map(|event| event["kind"].clone()));
        kinds.iter().filter(|found| **found == kind).count()
    };
    until("it listens", || {
        told(&router, &machine.key("pause"), &[]);
        told(&router, &machine.key("resume"), &[]);
        hear("resumed") > 0
    });
    told(&router, &machine.key("upload?recording=drive"), &[]);
    until("the uploads and the job's end are heard", || hear("chunk_uploaded") == chunks.len() && hear("job") > 0);
    follow.kill().unwrap();
    follow.wait().unwrap();
}
