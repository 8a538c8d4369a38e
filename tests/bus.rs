//! Every verb over real Zenoh sessions: exact and wildcard keys, both key spaces, both formats, and input that is no
//! request.

use bubbaloop_storage_schemas::{
    Verb,
    codec::{self, Format},
};
use serde_json::{Value, json};

use crate::support::{
    node::{Machine, until},
    python::{Get, Python, Reply},
};

/// Each verb with a request that it answers.
const REQUESTS: [(Verb, &str); 12] = [
    (Verb::Help, ""),
    (Verb::List, ""),
    (Verb::Info, "recording=drive"),
    (Verb::Status, ""),
    (Verb::Config, ""),
    (Verb::DeadLetters, ""),
    (Verb::Jobs, ""),
    (Verb::Upload, "recording=drive"),
    (Verb::Reconcile, "recording=drive"),
    (Verb::Adopt, "all=true"),
    (Verb::Pause, "for=1ms"),
    (Verb::Resume, ""),
];

/// Returns a machine with one uploaded recording.
fn machine(id: &str) -> (Machine, Python) {
    let machine = Machine::started(id);
    let mut recorder = machine.recorder("drive");
    let chunk = recorder.finalize();
    recorder.end();
    let python = machine.python();
    until("the chunk is stored", || machine.is_stored("drive", &chunk));
    (machine, python)
}

fn spaces(id: &str) -> [String; 2] {
    [format!("bubbaloop/{id}/storage"), format!("bubbaloop/global/{id}/storage")]
}

fn refused(reply: &Reply, code: &str) -> Value {
    assert!(!reply.is_ok, "{reply:?}");
    let error = reply.value();
    assert_eq!(error["code"], code, "{error}");
    for field in ["machine_id", "library_id", "message", "hint"] {
        assert!(error[field].is_string(), "{field}: {error}");
    }
    assert!(error["retryable"].is_boolean(), "{error}");
    error
}

#[test]
fn every_verb_answers_in_both_spaces_and_both_formats() {
    let (machine, mut python) = machine("bus_1");
    for root in spaces(&machine.id) {
        for (verb, parameters) in REQUESTS {
            let plain = python.ask(&format!("{root}/{verb}?{parameters}"));
            assert!(plain.is_ok, "{verb}: {}", String::from_utf8_lossy(&plain.bytes));
            assert_eq!(
                (plain.key.as_str(), plain.encoding.as_str()),
                (format!("{root}/{verb}").as_str(), "application/json")
            );
            let value = plain.value();
            assert_eq!((&value["machine_id"], &value["verb"]), (&json!("bus_1"), &json!(verb)));
            assert!(value["library_id"].is_string());

            let cbor = python.ask(&format!("{root}/{verb}?{parameters};format=cbor"));
            assert_eq!(cbor.encoding, "application/cbor");
            assert_eq!(cbor.value()["verb"], json!(verb));

            let fields: serde_json::Map<_, _> =
                parameters.split_once('=').map(|(name, value)| (name.to_owned(), json!(value))).into_iter().collect();
            for (format, sent) in [
                (Format::Json, Some("application/json")),
                (Format::Cbor, Some("application/cbor")),
                (Format::Json, None),
                (Format::Cbor, None),
            ] {
                let payload = codec::encode(&fields, format).unwrap();
                let selector = format!("{root}/{verb}");
                let replies =
                    python.get(&Get { selector: &selector, payload: Some(&payload), encoding: sent, all: false });
                assert_eq!(replies.len(), 1, "{verb} {format:?}");
                assert_eq!(replies[0].encoding, format.encoding(), "{verb}: a CBOR question gets a CBOR answer");
                assert_eq!(replies[0].value()["verb"], json!(verb));
            }
        }
    }
    assert_eq!(python.alive("bubbaloop/global/**").len(), 1);
    assert_eq!(python.alive("bubbaloop/*/storage/liveliness"), [machine.key("liveliness")]);
}

#[test]
fn a_wildcard_query_is_answered_once_by_each_node() {
    let (one, _) = machine("bus_2a");
    let (two, _) = machine("bus_2b");
    let mut python = Python::dialling(&[&one.endpoint(), &two.endpoint()]);
    one.wait_for_scan(&mut python);
    two.wait_for_scan(&mut python);
    let mut ask = |selector: &str, all: bool| {
        let mut replies = python.get(&Get { selector, all, ..Get::default() });
        replies.sort_by(|a, b| a.key.cmp(&b.key));
        replies
    };
    for all in [true, false] {
        for (verb, parameters) in REQUESTS {
            for (selector, root) in [
                (format!("bubbaloop/*/storage/{verb}?{parameters}"), "bubbaloop"),
                (format!("bubbaloop/global/*/storage/{verb}?{parameters}"), "bubbaloop/global"),
                (format!("bubbaloop/**/storage/{verb}?{parameters}"), "bubbaloop/global"),
                (format!("bubbaloop/**/{verb}?{parameters}"), "bubbaloop/global"),
            ] {
                let replies = ask(&selector, all);
                let keys: Vec<_> = replies.iter().map(|reply| reply.key.clone()).collect();
                let wanted = ["bus_2a", "bus_2b"].map(|id| format!("{root}/{id}/storage/{verb}"));
                assert_eq!(keys, wanted, "{selector}");
            }
        }
        for selector in
            ["bubbaloop/**", "**", "bubbaloop/*/storage/**", "bubbaloop/*/storage/*", "bubbaloop/global/*/*/*"]
        {
            let replies = ask(selector, all);
            let verbs: Vec<_> = replies.iter().map(|reply| reply.value()["verb"].clone()).collect();
            assert_eq!(verbs, ["help", "help"], "{selector}: one help each and nothing else");
        }
    }
    let replies = ask("bubbaloop/*/storage/upl$*", true);
    assert_eq!(replies.len(), 2);
    for reply in replies {
        refused(&reply, "E_INVALID_PARAMS");
    }
    assert_eq!(ask("bubbaloop/*/storage/l$*", true).len(), 2, "a pattern may look");
    for selector in ["bubbaloop/**/schema", "bubbaloop/**/health", "bubbaloop/*/storage/none$*"] {
        assert!(ask(selector, true).is_empty(), "{selector}");
    }
}

#[test]
fn input_that_is_no_request_is_refused_clearly_and_the_node_keeps_running() {
    let (mut machine, mut python) = machine("bus_3");
    for root in spaces("bus_3") {
        for (selector, code, hint) in [
            ("lst", "E_NOT_FOUND", "storage/list"),
            ("list/more", "E_NOT_FOUND", "help"),
            ("list?limit=0", "E_INVALID_PARAMS", ""),
            ("list?limt=1", "E_INVALID_PARAMS", "did you mean limit?"),
            ("list?state=endet", "E_INVALID_PARAMS", "did you mean ended?"),
            ("list?format=xml", "E_INVALID_PARAMS", "json and cbor"),
            ("info", "E_INVALID_PARAMS", "info?recording=NAME"),
            ("info?recording=../../x", "E_INVALID_PARAMS", ""),
            ("info?recording=driv", "E_NOT_FOUND", "did you mean drive?"),
            ("upload", "E_INVALID_PARAMS", "all=true"),
            ("upload?recording=drive;all=true", "E_INVALID_PARAMS", "one of them"),
            ("upload?recording=drive;wait=soon", "E_INVALID_PARAMS", ""),
            ("upload?recording=nothing_of_ours", "E_NOT_FOUND", ""),
        ] {
            let error = refused(&python.ask(&format!("{root}/{selector}")), code);
            assert!(error["hint"].as_str().unwrap().contains(hint), "{selector}: {error}");
        }
        let megabyte = vec![0xff; 1024 * 1024];
        let deep = "[".repeat(60_000);
        for (payload, encoding) in [
            (&megabyte[..], None),
            (&megabyte[..], Some("application/json")),
            (&megabyte[..], Some("application/cbor")),
            (deep.as_bytes(), None),
            (b"garbage", Some("application/json")),
            (b"[1, 2]", None),
            (b"\xa1\x61", Some("application/cbor")),
            (b"{}", Some("image/png")),
            (b"{\"limit\": \"x\"}", None),
            (b"{\"recording\": {\"a\": 1}}", None),
        ] {
            let selector = format!("{root}/info");
            let replies = python.get(&Get { selector: &selector, payload: Some(payload), encoding, all: false });
            assert_eq!(replies.len(), 1);
            let is_cbor = encoding == Some("application/cbor");
            let wanted = if is_cbor { "application/cbor" } else { replies[0].encoding.as_str() };
            assert_eq!(replies[0].encoding, wanted, "an error is encoded as the reply would have been");
            assert_eq!(refused(&replies[0], "E_INVALID_PARAMS")["verb"], "info");
        }
        let long = format!("{root}/list?name={}", "x".repeat(200_000));
        refused(&python.ask(&long), "E_INVALID_PARAMS");
    }
    assert!(machine.is_running());
    assert!(python.ask(&machine.key("status")).is_ok);
}

#[test]
fn a_requested_upload_is_a_job_that_reports_its_result() {
    let mut machine = Machine::new("bus_4", "auto_upload = false\nrescan_interval = \"1s\"");
    machine.start();
    let mut python = machine.python();
    let mut recorder = machine.recorder("drive");
    let chunks = [recorder.finalize(), recorder.finalize()];
    recorder.end();
    until("the recording is seen", || python.ask(&machine.key("list")).value()["recordings"][0]["chunks"] == 2);
    assert!(!machine.is_stored("drive", &chunks[0]), "nothing goes up by itself");

    let job = python.ask(&format!("{}?recording=drive;wait=30s", machine.key("upload"))).value();
    assert_eq!((&job["state"], &job["error"]), (&json!("done"), &json!(null)), "{job}");
    assert_eq!(job["result"], json!({"uploaded_chunks": 2, "failed_chunks": 0}));
    let progress = &job["progress"];
    assert_eq!(
        (&progress["chunks_done"], &progress["bytes_done"]),
        (&progress["chunks_total"], &progress["bytes_total"])
    );
    assert!(chunks.iter().all(|chunk| machine.is_stored("drive", chunk)));

    let bad = recorder.rename();
    let path = recorder.path(&bad);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    recorder.end();
    let job = python.ask(&format!("{}?all=true;wait=30s", machine.key("upload"))).value();
    assert_eq!(job["state"], "failed", "{job}");
    assert_eq!(job["result"], json!({"uploaded_chunks": 2, "failed_chunks": 1}));
    assert_eq!(job["error"]["code"], "E_CORRUPT");
    assert!(job["error"]["message"].as_str().unwrap().contains(bad["name"].as_str().unwrap()), "{job}");
    assert!(!machine.object("drive", bad["name"].as_str().unwrap()).exists());
}

#[test]
fn a_missing_store_holds_a_job_which_continues_by_itself() {
    let mut machine = Machine::new("bus_5", "local_path = \"/nonexistent/mount/store\"\nrescan_interval = \"1s\"");
    let config = machine.home().join("config.toml");
    let mount = machine.folder.path().join("mount");
    let settings = std::fs::read_to_string(&config).unwrap().replace("local_path = \"../store\"\n", "");
    let settings = settings.replace("/nonexistent/mount", mount.to_str().unwrap());
    std::fs::write(&config, settings).unwrap();
    machine.start();
    let mut python = machine.python();
    let mut recorder = machine.recorder("drive");
    recorder.finalize();
    until("uploads are blocked", || {
        python.ask(&machine.key("status")).value()["blocked"]["reason"] == "local_path_missing"
    });
    let job = python.ask(&format!("{}?recording=drive;wait=100ms", machine.key("upload"))).value();
    assert_eq!((&job["state"], &job["blocked"]["reason"]), (&json!("running"), &json!("local_path_missing")), "{job}");
    let again = python.ask(&format!("{}?recording=drive;wait=0", machine.key("upload"))).value();
    assert_eq!(again["job"], job["job"], "asking again joins");
    std::fs::create_dir(&mount).unwrap();
    until("asking again tells that it is done", || {
        let selector = format!("{}?recording=drive;wait=5s", machine.key("upload"));
        let replies = python.get(&Get { selector: &selector, ..Get::default() });
        replies.first().is_some_and(|reply| reply.is_ok && reply.value()["state"] == "done")
    });
    assert_eq!(python.ask(&machine.key("status")).value()["blocked"], json!(null));
}

#[test]
fn two_libraries_of_one_machine_id_find_each_other_on_the_bus() {
    let one = Machine::started("bus_6");
    let mut two = Machine::new("bus_6", "");
    let config = two.home().join("config.toml");
    let settings = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, settings.replace("connect = []", &format!("connect = [{:?}]", one.endpoint()))).unwrap();
    two.start();
    for machine in [&one, &two] {
        let mut python = machine.python();
        until("the twin is told", || {
            let selector = machine.key("status");
            let replies = python.get(&Get { selector: &selector, all: true, ..Get::default() });
            replies.len() == 2 && replies.iter().all(|reply| reply.value()["twins"].as_array().unwrap().len() == 1)
        });
    }
}

#[test]
fn another_disk_in_the_stores_place_is_not_used() {
    let (machine, mut python) = machine("bus_7");
    let (store, away) = (machine.folder.path().join("store"), machine.folder.path().join("away"));
    let mut status = |field: &str| {
        let selector = machine.key("status");
        let replies = python.get(&Get { selector: &selector, ..Get::default() });
        replies.first().filter(|reply| reply.is_ok).map(|reply| reply.value()[field].clone()).unwrap_or_default()
    };
    until("the chunk counts", || status("library")["uploaded_chunks"] == 1);
    let first = status("store")["store_id"].clone();
    std::fs::rename(&store, &away).unwrap();
    std::fs::create_dir(&store).unwrap();
    until("the change is told", || status("blocked")["reason"] == "local_path_changed");
    assert_eq!(std::fs::read_dir(&store).unwrap().count(), 0, "nothing is written to the robot's own disk");
    assert_eq!(status("safe"), json!(false));

    std::fs::remove_dir(&store).unwrap();
    std::fs::rename(&away, &store).unwrap();
    until("the store is back", || {
        status("library")["uploaded_chunks"] == 1
            && status("blocked") == json!(null)
            && status("store")["store_id"] == first
    });

    std::fs::rename(&store, &away).unwrap();
    std::fs::create_dir_all(store.join(".bubbaloop")).unwrap();
    until("a new store that a person made is filled", || {
        let id = status("store")["store_id"].clone();
        id.is_string() && id != first && status("library")["uploaded_chunks"] == 1
    });
}

#[test]
fn a_pause_survives_a_restart_and_ends_by_resume_or_at_its_time() {
    let (mut machine, mut python) = machine("bus_8");
    python.subscribe(&machine.key("events/*"));
    let mut recorder = machine.recorder("later");
    let told = python.ask(&machine.key("pause")).value();
    assert!(told["paused"]["since_ns"].is_u64() && told["paused"]["until_ns"].is_null(), "{told}");
    let chunk = recorder.finalize();
    refused(&python.ask(&format!("{}?recording=later", machine.key("upload"))), "E_CONFLICT");
    machine.kill();
    machine.start();
    let mut python = machine.python();
    until("the chunk waits", || python.ask(&machine.key("status")).value()["queue"]["waiting"] == 1);
    let status = python.ask(&machine.key("status")).value();
    assert_eq!(status["paused"]["since_ns"], told["paused"]["since_ns"], "its age is told");
    assert!(!machine.is_stored("later", &chunk));
    assert_eq!(python.ask(&machine.key("resume")).value()["paused"], json!(null));
    until("the chunk is stored", || machine.is_stored("later", &chunk));

    python.ask(&format!("{}?for=300ms", machine.key("pause")));
    let chunk = recorder.finalize();
    until("the pause ends by itself", || machine.is_stored("later", &chunk));
    assert_eq!(python.ask(&machine.key("status")).value()["paused"], json!(null));
}

#[test]
fn a_job_is_listed_reports_its_progress_and_can_be_cancelled() {
    let mut machine =
        Machine::new("bus_9", "auto_upload = false\nrescan_interval = \"1s\"\nlocal_path = \"../none/store\"");
    let config = machine.home().join("config.toml");
    let settings = std::fs::read_to_string(&config).unwrap().replace("local_path = \"../store\"\n", "");
    std::fs::write(&config, settings).unwrap();
    machine.start();
    let mut python = machine.python();
    python.subscribe(&machine.key("events/job"));
    machine.recorder("drive").finalize();
    let job = python.ask(&format!("{}?recording=drive;wait=0", machine.key("upload"))).value();
    let id = job["job"].as_str().unwrap().to_owned();
    let listed = python.ask(&machine.key("jobs")).value();
    assert_eq!((&listed["jobs"][0]["job"], &listed["jobs"][0]["verb"]), (&json!(id), &json!("upload")), "{listed}");
    until("it runs", || {
        python.ask(&format!("{}?job={id}", machine.key("jobs"))).value()["jobs"][0]["state"] == "running"
    });
    let cancelled = python.ask(&format!("{}?job={id}", machine.key("cancel"))).value();
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
    assert_eq!(python.ask(&format!("{}?job={id}", machine.key("jobs"))).value()["jobs"][0]["state"], "cancelled");
    let again = python.ask(&format!("{}?recording=drive;wait=0", machine.key("upload"))).value();
    assert_ne!(again["job"], job["job"], "it is a new job");
    refused(&python.ask(&format!("{}?job=01M86QW7GVQNFH6PSSG32XDVC7", machine.key("jobs"))), "E_NOT_FOUND");
    refused(&python.ask(&format!("{}?job=x", machine.key("cancel"))), "E_INVALID_PARAMS");
    refused(&python.ask(&machine.key("cancel")), "E_INVALID_PARAMS");
    let mut told = Vec::new();
    until("its end is told", || {
        told.extend(python.heard().iter().map(|event| event.value()["state"].clone()));
        told.contains(&json!("cancelled"))
    });
}

#[test]
fn the_node_contract_of_the_fleet_is_kept() {
    let (machine, mut python) = machine("bus_10");
    python.subscribe("bubbaloop/*/*/*/health");
    let root = "bubbaloop/global/bus_10/storage";
    let fired = |manifest: &Value| {
        let outputs = manifest["outputs"].as_array().unwrap();
        outputs.iter().any(|it| it["topic"] == "storage/events/chunk_uploaded" && it["ever_fired"] == true)
    };
    until("the output has fired", || fired(&python.ask(&format!("{root}/manifest")).value()));
    let manifests = python.get(&Get { selector: "bubbaloop/**/manifest", all: true, ..Get::default() });
    assert_eq!((manifests.len(), manifests[0].key.as_str()), (1, format!("{root}/manifest").as_str()));
    assert_eq!(manifests[0].encoding, "application/cbor");
    let manifest = manifests[0].value();
    for (field, value) in [("instance_name", json!("storage")), ("role", json!("sink")), ("schema_version", json!(2))] {
        assert_eq!(manifest[field], value);
    }
    let mut command = |payload: Option<&[u8]>| {
        let selector = format!("{root}/command");
        let replies = python.get(&Get { selector: &selector, payload, ..Get::default() });
        assert!(replies.len() == 1 && replies[0].is_ok, "{replies:?}");
        replies[0].value()
    };
    assert!(command(None)["result"]["commands"].as_array().unwrap().iter().any(|it| it["name"] == "list"));
    for payload in
        [&br#"{"command":"info","params":{"recording":"drive"}}"#[..], br#"{"command":"info","recording":"drive"}"#]
    {
        assert_eq!(command(Some(payload))["result"]["recording"], "drive");
    }
    for (payload, part) in [
        (&b"garbage"[..], "JSON"),
        (br#"{"command":"upload","recording":"drive"}"#, "storage/upload"),
        (br#"{"command":"lst"}"#, "did you mean list?"),
        (br#"{"command":"info","recording":"../../x"}"#, "E_INVALID_PARAMS"),
        (b"{}", "needs the field command"),
    ] {
        let answer = command(Some(payload));
        assert!(answer["result"].is_null() && answer["error"].as_str().unwrap().contains(part), "{answer}");
    }
    let health = format!("{root}/health");
    until("a sign of life comes", || python.heard().iter().any(|sign| sign.key == health && sign.bytes == b"ok"));
    drop(machine);
}

#[test]
fn a_reconcile_reports_its_findings_heals_and_then_has_nothing_to_do() {
    let (machine, mut python) = machine("bus_11");
    let ask = |python: &mut Python, more: &str| {
        let job = python.ask(&format!("{}?{more};wait=60s", machine.key("reconcile"))).value();
        assert_eq!(
            (&job["state"], &job["verb"], &job["error"]),
            (&json!("done"), &json!("reconcile"), &json!(null)),
            "{job}"
        );
        job
    };
    until("the recording is complete", || {
        python.ask(&format!("{}?recording=drive", machine.key("info"))).value()["upload"] == "complete"
            && machine.remote_manifest("drive").is_some()
    });
    let whole = ask(&mut python, "recording=drive");
    assert_eq!((&whole["result"]["findings"], &whole["result"]["actions"]), (&json!([]), &json!([])), "{whole}");

    let info = python.ask(&format!("{}?recording=drive", machine.key("info"))).value();
    let object = machine.object("drive", info["chunks"][0]["name"].as_str().unwrap());
    std::fs::remove_file(&object).unwrap();
    let plan = ask(&mut python, "all=true;dry_run=true");
    assert!(plan["result"]["actions"].as_array().unwrap().iter().any(|action| action["kind"] == "upload"), "{plan}");
    assert!(!object.exists(), "a dry run changes nothing");
    let healed = ask(&mut python, "name=dr*");
    assert!(object.exists() && healed["result"]["counts"]["proven_chunks"] == 1, "{healed}");
    let again = ask(&mut python, "all=true;deep=true");
    assert_eq!((&again["result"]["findings"], &again["result"]["actions"]), (&json!([]), &json!([])), "{again}");
    let mut unseen = machine.recorder("unseen");
    let chunk = unseen.finalize();
    ask(&mut python, "name=uns*");
    assert!(machine.is_stored("unseen", &chunk), "what no scan saw yet is meant too");
    for selector in [
        "reconcile",
        "reconcile?recording=drive;all=true",
        "reconcile?recording=drive;deep=maybe",
        "reconcile?all=true;restore=true",
    ] {
        refused(&python.ask(&machine.key(selector)), "E_INVALID_PARAMS");
    }
    let nothing = python.ask(&machine.key("reconcile?recording=nothing;wait=30s")).value();
    assert_eq!((&nothing["state"], &nothing["error"]["code"]), (&json!("failed"), &json!("E_NOT_FOUND")), "{nothing}");
    let told = machine.run(&["reconcile", "drive"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("nothing to do"), "{told:?}");
}
