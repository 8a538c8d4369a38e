//! Broken recordings of many kinds, and every verb on each of them. Each answer is clear, no chunk file changes,
//! nothing false is stored, and the node keeps running.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use bubbaloop_storage_schemas::{ChunkName, Digest};
use serde_json::{Value, json};

use crate::support::node::{Machine, Recorder};

/// Number of chunks in the largest permitted manifest.
const MANY: u32 = 100_000;

/// A broken recording.
struct Broken {
    name: &'static str,
    /// Its state in `list`.
    state: &'static str,
    /// Text that `list`, `info` or `reconcile` must contain.
    told: &'static str,
}

const KIT: [Broken; 14] = [
    Broken { name: "truncated", state: "ended", told: "damaged" },
    Broken { name: "emptied", state: "ended", told: "damaged" },
    Broken { name: "empty_chunk", state: "ended", told: "" },
    Broken { name: "swapped", state: "invalid", told: "does not fit" },
    Broken { name: "gap", state: "invalid", told: "contiguous" },
    Broken { name: "twice", state: "invalid", told: "contiguous" },
    Broken { name: "foreign", state: "foreign", told: "another machine" },
    Broken { name: "future", state: "invalid", told: "schema_version" },
    Broken { name: "traversal", state: "invalid", told: "illegal chunk name" },
    Broken { name: "absurd_size", state: "invalid", told: "are in no object" },
    Broken { name: "torn", state: "invalid", told: "not JSON" },
    Broken { name: "unreadable", state: "ended", told: "Input/output error" },
    Broken { name: "astray", state: "ended", told: "missing" },
    Broken { name: "many", state: "ended", told: "missing" },
];

/// Changes a manifest's rows and ends the recording with them.
fn with_rows(recorder: &Recorder, change: impl FnOnce(&mut Vec<Value>)) {
    let mut rows = recorder.chunks.clone();
    change(&mut rows);
    recorder.save(&json!({"ended_at_ns": 1_700_000_100_000_000_000_u64, "chunks": rows}));
}

fn cut(path: &Path, bytes: u64) {
    File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

fn make(machine: &Machine) {
    for broken in &KIT {
        let mut recorder = machine.recorder(broken.name);
        for size in [40_000, 50_000] {
            recorder.finalize_of(size);
        }
        recorder.end();
        let second = recorder.path(&recorder.chunks[1]);
        match broken.name {
            "truncated" => cut(&second, 20_000),
            "emptied" => cut(&second, 0),
            "empty_chunk" => {
                recorder.finalize_of(0);
                recorder.end();
            }
            "swapped" => with_rows(&recorder, |rows| {
                let (first, second) = (rows[0]["sha256"].clone(), rows[1]["sha256"].clone());
                (rows[0]["sha256"], rows[1]["sha256"]) = (second, first);
            }),
            "gap" => with_rows(&recorder, |rows| drop(rows.remove(0))),
            "twice" => with_rows(&recorder, |rows| rows.push(rows[1].clone())),
            "foreign" => recorder.save(&json!({"machine_id": "robot_2", "ended_at_ns": 1_700_000_100_000_000_000_u64})),
            "future" => recorder.save(&json!({"schema_version": 99, "ended_at_ns": 1_700_000_100_000_000_000_u64})),
            "traversal" => with_rows(&recorder, |rows| rows[1]["name"] = json!("../../../../outside")),
            "absurd_size" => with_rows(&recorder, |rows| rows[1]["size_bytes"] = json!(u64::MAX)),
            "torn" => cut(&second.parent().unwrap().with_file_name("manifest.json"), 100),
            "astray" => {
                fs::remove_file(&second).unwrap();
                std::os::unix::fs::symlink(&second, &second).unwrap();
            }
            "unreadable" => {}
            "many" => with_rows(&recorder, |rows| {
                for index in 2..MANY {
                    let digest = Digest::of(&index.to_be_bytes());
                    let name = ChunkName::new(index, &digest).to_string();
                    rows.push(json!({"name": name, "index": index, "size_bytes": 4, "sha256": digest}));
                }
            }),
            _ => unreachable!("the kit has no {}", broken.name),
        }
        // The file is old enough to be adopted.
        let past = SystemTime::now() - Duration::from_secs(300);
        let folder = second.parent().unwrap().parent().unwrap();
        for path in [folder.join("manifest.json"), folder.join("chunks")] {
            File::open(path).unwrap().set_modified(past).unwrap();
        }
    }
}

/// A file whose every read fails, also for root, as on a failing disk.
struct Failing(PathBuf);

impl Failing {
    fn make(path: PathBuf) -> Self {
        let memory = format!("/proc/{}/mem", std::process::id());
        let mounted = Command::new("mount").args(["--bind", &memory]).arg(&path).output().unwrap();
        assert!(mounted.status.success(), "a test makes a file that can't be read: {mounted:?}");
        assert_eq!(fs::read(&path).unwrap_err().raw_os_error(), Some(5));
        Self(path)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// Returns every chunk file below a folder with its bytes. An unreadable file has none.
fn chunks(root: &Path) -> BTreeMap<PathBuf, Option<Digest>> {
    let mut found = BTreeMap::new();
    for folder in fs::read_dir(root).into_iter().flatten() {
        for entry in fs::read_dir(folder.unwrap().path().join("chunks")).into_iter().flatten() {
            let path = entry.unwrap().path();
            let digest = fs::read(&path).ok().map(|bytes| Digest::of(&bytes));
            found.insert(path, digest);
        }
    }
    found
}

/// Checks that each object has the bytes that its name says.
fn is_sound(machine: &Machine) {
    for (path, digest) in chunks(&machine.folder.path().join("store").join(&machine.id)) {
        let digest = digest.unwrap().to_string();
        assert!(
            path.file_name().unwrap().to_str().unwrap().contains(&digest[..8]),
            "{} is something else",
            path.display()
        );
    }
}

/// Checks that a verb's answer is done, not found, or a refusal with code, message and hint.
fn answered(verb: &[&str], output: &Output) -> Value {
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{verb:?}: {output:?}"));
    let error = if value["code"].is_string() { &value } else { &value["error"] };
    match output.status.code() {
        Some(0) => assert!(!error["code"].is_string(), "{verb:?}: {value:#}"),
        Some(1..=3) => {
            let (message, hint) = (error["message"].as_str().unwrap(), error["hint"].as_str().unwrap_or_default());
            assert!(
                (message.contains(verb[1]) || value["recording"] == verb[1]) && !hint.is_empty(),
                "{verb:?} tells not of what, or not what to do: {error:#}"
            );
        }
        code => panic!("{verb:?} ended with {code:?}: {output:?}"),
    }
    value
}

#[test]
fn every_verb_reports_every_broken_recording_correctly_and_harms_nothing() {
    let mut machine = Machine::new("kit_1", "rescan_interval = \"1s\"");
    make(&machine);
    let root = machine.home().join("recordings");
    let of_unreadable = |path: &PathBuf| path.starts_with(root.join("unreadable"));
    let _failing = Failing::make(chunks(&root).into_keys().rfind(of_unreadable).unwrap());
    let before = chunks(&root);
    machine.start();
    let mut python = machine.python();
    machine.wait_for_scan(&mut python);
    let mut told = BTreeMap::<&str, String>::new();
    let list = python.ask(&format!("{}?limit=1000", machine.key("list"))).value();
    for broken in &KIT {
        let row = list["recordings"].as_array().unwrap().iter().find(|row| row["recording"] == broken.name).unwrap();
        assert_eq!(row["state"], broken.state, "{row:#}");
        told.entry(broken.name).or_default().push_str(&row.to_string());
    }
    let verbs: [&[&str]; 8] = [
        &["info"],
        &["upload"],
        &["reconcile"],
        &["reconcile", "--dry-run"],
        &["reconcile", "--deep"],
        &["reconcile", "--restore"],
        &["adopt"],
        &["rm", "--from", "local"],
    ];
    for broken in &KIT {
        for verb in verbs {
            let words = [&[verb[0], broken.name, "--json"], &verb[1..]].concat();
            let value = answered(&words, &machine.run(&words));
            told.entry(broken.name).or_default().push_str(&value.to_string());
            if verb[0] == "upload" && broken.state == "invalid" {
                let is_there = |value: &Value| value["result"]["uploaded_chunks"] == 2;
                assert!(is_there(&value), "what no manifest names goes up at a person's word: {value:#}");
            }
            if verb[0] == "rm" {
                assert!(root.join(broken.name).exists(), "{}: {value:#}", broken.name);
            }
        }
        assert!(told[broken.name].contains(broken.told), "{}: {}", broken.name, told[broken.name]);
    }
    let after = chunks(&root);
    for (path, digest) in &before {
        let is_there = after.get(path) == Some(digest);
        assert!(is_there, "{} was changed", path.display());
    }
    is_sound(&machine);
    let outside = machine.home().parent().unwrap().join("outside");
    assert!(!outside.exists() && !machine.folder.path().join("store/outside").exists());
    let status = python.ask(&machine.key("status")).value();
    assert_eq!(status["safe"], false, "{status:#}");
    assert!(!machine.log().contains("panicked"), "{}", machine.log());
    assert_eq!(machine.terminate(), Some(0));
}
