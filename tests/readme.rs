//! The README and the other pages are correct: their commands run, their settings exist, and their examples do what
//! they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use bubbaloop_storage::config::{Config, File, Files};
use bubbaloop_storage_schemas::{codec::Format, event::FinalizeEvent};
use serde_json::Value;

use crate::support::{
    node::{BINARY, Machine, until},
    pages::{page, pages},
    python,
    router::Router,
};

/// Returns the code blocks of a language, of all pages.
fn blocks(language: &str) -> Vec<String> {
    pages().iter().flat_map(|page| page.blocks(language).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Returns a machine as in the examples.
fn robot() -> Machine {
    let machine = Machine::started("robot_1");
    record(&machine);
    until("the node has scanned", || machine.run(&["list"]).status.success());
    machine
}

/// Records as in the examples.
fn record(machine: &Machine) {
    let mut recorder = machine.recorder("drive_1");
    let chunk = recorder.finalize();
    recorder.end();
    let flat = machine.home().join("recordings/2026-07-26T12-00-00_chunk_000.mcap");
    fs::copy(recorder.path(&chunk), &flat).unwrap();
    fs::File::open(&flat).unwrap().set_modified(SystemTime::now() - Duration::from_secs(600)).unwrap();
    until("the recording is uploaded", || machine.is_stored("drive_1", &chunk));
}

#[test]
fn every_shown_command_runs() {
    let machine = robot();
    let pages = pages();
    let mut shown: Vec<_> = pages.iter().flat_map(|page| page.commands("$ bubbaloop-storage ")).collect();
    assert!(shown.len() >= 15, "{shown:?}");
    let mut seen = BTreeSet::new();
    shown.retain(|line| seen.insert(*line));
    for line in shown {
        let output = machine.run(&line.split_whitespace().collect::<Vec<_>>());
        assert!(output.status.success() && !output.stdout.is_empty(), "{line}: {output:?}");
    }
}

#[test]
fn every_command_that_is_shown_without_its_output_is_understood() {
    let pages = pages();
    let shown: Vec<_> = pages.iter().flat_map(|page| page.commands("bubbaloop-storage ")).collect();
    assert!(shown.len() >= 5, "{shown:?}");
    for line in shown {
        let line = line.split(" #").next().unwrap();
        // A flag or a value that does not exist is an error before the help is given.
        let output = Command::new(BINARY).args(line.split_whitespace()).arg("--help").output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }
}

#[test]
fn the_shown_settings_are_valid() {
    let shown = blocks("toml");
    assert!(shown.len() >= 3);
    for block in shown {
        let is_secret = block.contains("secret_access_key");
        let file = File::Text(block.clone().into());
        let files = match is_secret {
            true => Files { config: File::Absent, secrets: file },
            false => Files { config: file, secrets: File::Absent },
        };
        assert_eq!(Config::of(Path::new("/home"), &files, &BTreeMap::new(), &[]).problems, [], "{block}");
    }
}

#[test]
fn the_shown_event_is_valid_and_the_policy_is_json() {
    let shown = blocks("json");
    let event = shown.iter().find(|block| block.contains("\"chunk\"")).unwrap();
    let event = FinalizeEvent::decode(event.as_bytes(), Some(Format::Json)).unwrap();
    event.chunk.check().unwrap();
    let policy = shown.iter().filter(|block| block.contains("s3:ListBucket"));
    assert_eq!(policy.count(), 1);
    for block in shown {
        serde_json::from_str::<Value>(&block).unwrap();
    }
}

#[test]
fn the_shown_python_code_prints_the_shown_output() {
    let machine = robot();
    let scripts = blocks("python");
    assert!(scripts.len() >= 2 && scripts.iter().all(|script| *script == scripts[0]), "all pages show one script");
    let script = &scripts[0];
    assert!(script.contains("tcp/127.0.0.1:7448"));
    let script = script.replace("tcp/127.0.0.1:7448", &machine.endpoint());
    let output = Command::new(python::python()).arg("-c").arg(script).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for part in
        ["bubbaloop/robot_1/storage/list application/json", "\"recording\":\"drive_1\"", "did you mean recording?"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_shown_curl_command_prints_the_shown_output() {
    let router = Router::started();
    let mut machine = Machine::new("robot_1", "rescan_interval = \"1s\"");
    router.is_joined_by(&machine, "client");
    machine.start_and(|_| true);
    record(&machine);
    router.wait_for(&machine);
    let page = page("node/docs/bus.md");
    let (command, rest) = page.text.split_once("\n$ curl ").unwrap().1.split_once('\n').unwrap();
    let shown: Value = serde_json::from_str(rest.split("```").next().unwrap()).unwrap();
    let selector = command.trim_matches('\'').strip_prefix("-g 'http://127.0.0.1:8000/").unwrap();
    let printed = Value::from(router.get(selector, &[]));
    assert_eq!(printed[0]["value"]["recordings"][0]["recording"], "drive_1", "{printed}");
    assert_eq!(names(&printed), names(&shown), "{printed}");
}

/// Returns the names of fields at all depths, in order.
fn names(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, value)| [vec![name.clone()], names(value)].concat()).collect()
        }
        Value::Array(items) => items.iter().flat_map(names).collect(),
        _ => Vec::new(),
    }
}
