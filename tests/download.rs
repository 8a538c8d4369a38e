//! The real binary fetches recordings: `download`, a restore that is killed, `list --remote`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use bubbaloop_storage_schemas::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    reconcile::snapshot,
    support::{
        node::{Machine, Recorder, until},
        python,
        servers::{KEY, SECRET, Server},
    },
};

const BINARY: &str = env!("CARGO_BIN_EXE_bubbaloop-storage");

/// Returns a machine with a running node, and an ended recording of so many chunks in the store.
fn machine(id: &str, chunks: usize) -> (Machine, Recorder) {
    let machine = Machine::started(id);
    let recorder = recorded(&machine, "drive", chunks);
    (machine, recorder)
}

fn recorded(machine: &Machine, name: &str, chunks: usize) -> Recorder {
    let mut recorder = machine.recorder(name);
    for _ in 0..chunks {
        recorder.finalize();
    }
    recorder.end();
    until("all of it is in the store", || {
        recorder.chunks.iter().all(|chunk| machine.is_stored(name, chunk))
            && machine.remote_manifest(name).is_some_and(|it| it["chunks"].as_array().unwrap().len() == chunks)
    });
    recorder
}

fn remote(machine: &Machine, recording: &str) -> PathBuf {
    machine.folder.path().join("store").join(&machine.id).join(recording)
}

/// Returns a home without a node that has access to the store, as on a person's computer.
struct Person(TempDir);

impl Person {
    fn with(storage: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.toml"), format!("[storage]\n{storage}\n")).unwrap();
        Self(folder)
    }

    fn of(machine: &Machine) -> Self {
        let path = machine.folder.path().join("store");
        Self::with(&format!("backend = \"local\"\nlocal_path = {path:?}"))
    }

    fn to(&self) -> PathBuf {
        self.0.path().join("copy")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--home").arg(self.0.path()).current_dir(self.0.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn download(&self, machine: &Machine, more: &[&str]) -> Output {
        self.run(&[&["download", "drive", "--to", "copy", "--machine", &machine.id], more].concat())
    }
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn exits(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

fn is_there(folder: &Path, chunk: &Value) -> bool {
    let file = folder.join("chunks").join(chunk["name"].as_str().unwrap());
    fs::read(file).is_ok_and(|bytes| json!(Digest::of(&bytes)) == chunk["sha256"])
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_download_continues_where_it_ended_and_overwrites_nothing() {
    let (machine, recorder) = machine("download_1", 5);
    let person = Person::of(&machine);
    let stored = fs::read(remote(&machine, "drive").join("manifest.json")).unwrap();
    let before = snapshot(machine.folder.path());

    let output = person.download(&machine, &["--json"]);
    exits(&output, 0, &[]);
    assert!(output.stderr.is_empty(), "a program reads no progress");
    let told = json_of(&output);
    assert_eq!((&told["fetched_chunks"], &told["there_chunks"], &told["failed"]), (&json!(5), &json!(0), &json!([])));
    assert!(recorder.chunks.iter().all(|chunk| is_there(&person.to(), chunk)));
    assert_eq!(fs::read(person.to().join("manifest.json")).unwrap(), stored, "as it is stored");
    assert_eq!(snapshot(&person.to()).len(), 6, "nothing else");
    exits(&person.download(&machine, &[]), 0, &["5 chunks", "5/5 chunk-00000"]);

    let file = |index: usize| person.to().join("chunks").join(recorder.chunks[index]["name"].as_str().unwrap());
    let part =
        |index: usize| person.to().join(format!("chunks/.{}.part", recorder.chunks[index]["name"].as_str().unwrap()));
    let begun = fs::read(file(1)).unwrap()[..50_000].to_vec();
    fs::remove_file(file(0)).unwrap();
    fs::remove_file(file(1)).unwrap();
    fs::write(part(1), begun).unwrap();
    let told = json_of(&person.download(&machine, &["--json"]));
    assert_eq!((&told["fetched_chunks"], &told["there_chunks"]), (&json!(2), &json!(3)));
    assert_eq!(snapshot(&person.to()).len(), 6);

    fs::write(file(2), "mine").unwrap();
    fs::remove_file(file(3)).unwrap();
    fs::remove_file(person.to().join("manifest.json")).unwrap();
    let output = person.download(&machine, &["--json"]);
    exits(&output, 1, &["is not overwritten", "1 chunk failed"]);
    assert_eq!(json_of(&output)["failed"][0]["chunk"], recorder.chunks[2]["name"]);
    assert_eq!(fs::read_to_string(file(2)).unwrap(), "mine");
    assert!(is_there(&person.to(), &recorder.chunks[3]), "one does not stop the others");
    assert!(!person.to().join("manifest.json").exists(), "the manifest comes last");
    fs::write(person.to().join("manifest.json"), "{}").unwrap();
    exits(&person.download(&machine, &[]), 1, &["another recording", "hint: choose another folder"]);

    let left = |mut files: std::collections::BTreeMap<String, Vec<u8>>| {
        files.retain(|name, _| !name.contains("/home/"));
        files
    };
    assert!(left(snapshot(machine.folder.path())) == left(before), "nothing is changed in the store");
}

#[test]
fn a_part_of_a_recording_is_chosen_by_index_and_by_log_time() {
    let (machine, recorder) = machine("download_2", 6);
    let person = Person::of(&machine);
    let path = remote(&machine, "drive").join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (index, chunk) in manifest["chunks"].as_array_mut().unwrap().iter_mut().enumerate() {
        let first = 1_700_000_000_000_000_000 + index as u64 * 10_000_000_000;
        chunk["log_time_first_ns"] = json!(first);
        chunk["log_time_last_ns"] = json!(first + 9_999_999_999);
    }
    fs::write(&path, manifest.to_string()).unwrap();
    let there = |wanted: &[usize]| {
        let found: Vec<_> = (0..6).filter(|index| is_there(&person.to(), &recorder.chunks[*index])).collect();
        assert_eq!(found, wanted);
        fs::remove_dir_all(person.to()).unwrap();
    };
    for (more, wanted) in [
        (&["--chunks", "1..3"][..], &[1, 2, 3][..]),
        (&["--chunks", "4.."], &[4, 5]),
        (&["--chunks", "2"], &[2]),
        // The recording begins at 2023-11-14T22:13:20Z.
        (&["--since", "2023-11-14T22:14:00Z"], &[4, 5]),
        (&["--since", "2023-11-14T22:13:35Z", "--until", "2023-11-14T22:13:45Z"], &[1, 2]),
        (&["--until", "2023-11-14T22:13:45Z", "--chunks", "2.."], &[2]),
    ] {
        exits(&person.download(&machine, more), 0, &[]);
        there(wanted);
    }
    exits(&person.download(&machine, &["--chunks", "7.."]), 3, &["none of the 6 chunks"]);
    for wrong in ["7..3", "x", ""] {
        exits(&person.download(&machine, &["--chunks", wrong]), 2, &["--chunks"]);
    }
    exits(&person.download(&machine, &["--since", "yesterday"]), 2, &["--since"]);
}

#[test]
fn a_download_that_is_impossible_ends_with_its_exit_code_and_what_to_do() {
    let (machine, _) = machine("download_3", 1);
    let person = Person::of(&machine);
    let download = |name: &str, of: &str| person.run(&["download", name, "--to", "copy", "--machine", of]);
    exits(&download("drives", "download_3"), 3, &["no recording drives", "did you mean drive?"]);
    exits(&download("nothing", "download_3"), 3, &["it holds drive"]);
    exits(&download("drive", "other"), 3, &["recordings of download_3: choose with --machine"]);
    exits(&download("../x", "download_3"), 2, &[]);
    exits(&download("drive", "*"), 2, &["of one machine"]);
    assert!(!person.to().exists(), "nothing is begun");
    exits(&person.run(&["download", "drive", "--to", "copy"]), 2, &["--machine"]);
    // The default is the machine of this home.
    let own = person.0.path().join("own");
    let output = machine.run(&["download", "drive", "--to", own.to_str().unwrap()]);
    exits(&output, 0, &[]);
    assert!(output.stdout.starts_with(b"drive of download_3: 1 chunk fetched"), "{output:?}");

    let set = |storage: &str| fs::write(person.0.path().join("config.toml"), format!("[storage]\n{storage}")).unwrap();
    set("");
    exits(&download("drive", "download_3"), 1, &["no_store", "hint: set backend"]);
    set("backend = \"local\"\nlocal_path = \"nowhere\"");
    exits(&download("drive", "download_3"), 1, &["nowhere", "is its disk mounted?"]);
    assert!(!person.0.path().join("nowhere").exists(), "no store is made");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    set(&format!("backend = \"s3\"\nendpoint = \"http://{free}\"\nbucket = \"b\"\nregion = \"us-east-1\""));
    let download = |verb: &[&str]| {
        let mut command = person.command(verb);
        command.env("BUBBALOOP_STORAGE_ACCESS_KEY_ID", "k").env("BUBBALOOP_STORAGE_SECRET_ACCESS_KEY", "s");
        command.output().unwrap()
    };
    exits(&download(&["download", "drive", "--to", "copy", "--machine", "m"]), 4, &["reachable from here"]);
    exits(&download(&["list", "--remote", "--machine", "*"]), 4, &["reachable from here"]);
}

#[test]
fn a_tampered_manifest_is_refused_with_its_reasons_and_wrong_bytes_get_no_name() {
    let (machine, recorder) = machine("download_4", 2);
    let person = Person::of(&machine);
    let path = remote(&machine, "drive").join("manifest.json");
    let stored: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut bad = stored.clone();
    bad["chunks"][0]["name"] = json!("../../../evil.mcap");
    bad["chunks"][1]["size_bytes"] = json!(u64::MAX);
    bad["machine_id"] = json!("thief");
    fs::write(&path, bad.to_string()).unwrap();
    let before = snapshot(person.0.path());
    let words = ["is refused", "illegal chunk name", "bytes: more than", "machine thief"];
    exits(&person.download(&machine, &[]), 1, &words);
    assert!(snapshot(person.0.path()) == before && !person.to().exists(), "nothing is written");

    let mut large = stored.clone();
    large["chunks"][0]["size_bytes"] = json!(4_u64 << 40);
    fs::write(&path, large.to_string()).unwrap();
    exits(&person.download(&machine, &[]), 1, &["has not the room", "hint: make room"]);

    fs::write(&path, stored.to_string()).unwrap();
    let object = machine.object("drive", recorder.chunks[0]["name"].as_str().unwrap());
    let mut bytes = fs::read(&object).unwrap();
    bytes[1000] ^= 1;
    fs::write(&object, bytes).unwrap();
    exits(&person.download(&machine, &[]), 1, &["has other bytes than the chunk"]);
    assert!(!is_there(&person.to(), &recorder.chunks[0]) && is_there(&person.to(), &recorder.chunks[1]));
    assert_eq!(snapshot(&person.to()).len(), 1, "wrong bytes leave nothing");
}

#[test]
fn the_stores_content_is_listed_by_machine_without_a_node() {
    let (mut machine, recorder) = machine("list_1", 3);
    recorded(&machine, "night", 1);
    assert_eq!(machine.terminate(), Some(0));
    let store = machine.folder.path().join("store");
    fs::create_dir_all(store.join("other_1/walk/chunks")).unwrap();
    fs::write(store.join("other_1/walk/chunks").join(recorder.chunks[0]["name"].as_str().unwrap()), "x").unwrap();
    fs::create_dir_all(store.join("not a machine/x")).unwrap();
    let listed = |arguments: &[&str]| {
        let output = machine.run(&[&["list", "--remote", "--json"], arguments].concat());
        exits(&output, 0, &[]);
        let rows = json_of(&output)["recordings"].as_array().unwrap().clone();
        let row = |row: &Value| {
            format!("{}/{} {} {}", row["machine_id"], row["recording"], row["chunks"], row["has_manifest"])
        };
        rows.iter().map(|it| row(it).replace('"', "")).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), ["list_1/drive 3 true", "list_1/night 1 true"]);
    assert_eq!(listed(&["--name", "n*"]), ["list_1/night 1 true"]);
    assert_eq!(listed(&["--machine", "other-1"]), ["other_1/walk 1 false"]);
    assert_eq!(listed(&["--machine", "*"]), ["list_1/drive 3 true", "list_1/night 1 true", "other_1/walk 1 false"]);
    assert_eq!(listed(&["--name", "x*"]), [""; 0], "a glob is a question");
    let run = |arguments: &[&str]| machine.run(&[&["list", "--remote"], arguments].concat());
    exits(&run(&["--machine", "nobody"]), 3, &["nothing of machine nobody", "recordings of list_1, other_1"]);
    exits(&run(&["--name", "drvie"]), 3, &["no recording drvie"]);
    let text = String::from_utf8(machine.run(&["list", "--remote"]).stdout).unwrap();
    assert!(text.contains("MACHINE") && text.contains("drive") && text.contains("KiB"), "{text}");
    exits(&machine.run(&["list", "--remote", "--tag", "x"]), 2, &[]);
}

#[test]
fn a_killed_restore_or_download_is_completed_by_the_same_request() {
    let (kills, seed) = (number("BUBBALOOP_TEST_KILLS", 12), number("BUBBALOOP_TEST_SEED", 7));
    println!("{kills} kills with seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut machine, recorder) = machine("restore_1", 24);
    let chunks = machine.home().join("recordings/drive/chunks");
    let original = snapshot(&chunks);
    let person = Person::of(&machine);
    let manifest = fs::read(remote(&machine, "drive").join("manifest.json")).unwrap();
    machine.terminate();
    // A new disk does not have the folder.
    fs::remove_dir_all(machine.home().join("recordings")).unwrap();
    for _ in 0..kills {
        machine.start();
        let mut asking = Command::new(BINARY)
            .args(["reconcile", "drive", "--restore", "--home"])
            .arg(machine.home())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let download = ["download", "drive", "--to", "copy", "--machine", "restore_1"];
        let mut copying = person.command(&download).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The moment of the crash is the subject of this test. Nothing has to be finished by then.
        std::thread::sleep(Duration::from_millis(random.u64(0..200)));
        machine.kill();
        for child in [&mut asking, &mut copying] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        for folder in [&machine.home().join("recordings/drive"), &person.to()] {
            for (name, bytes) in snapshot(&folder.join("chunks")) {
                let file = Path::new(&name).file_name().unwrap().to_str().unwrap();
                let chunk = recorder.chunks.iter().find(|chunk| chunk["name"] == file);
                let is_sound = chunk.is_some_and(|it| json!(Digest::of(&bytes)) == it["sha256"]);
                assert!(file.starts_with('.') || is_sound || bytes == b"damaged", "{name}");
            }
        }
        let restored = recorder.chunks.iter().filter(|chunk| recorder.path(chunk).exists()).count();
        let copied = recorder.chunks.iter().filter(|chunk| is_there(&person.to(), chunk)).count();
        println!("killed with {restored} restored and {copied} copied");
        if restored == recorder.chunks.len() {
            // The restore ended before the crash. The next round starts from the beginning.
            fs::remove_dir_all(machine.home().join("recordings/drive")).unwrap();
            fs::remove_dir_all(person.to()).ok();
        } else if let Some(chunk) = recorder.chunks.iter().find(|chunk| recorder.path(chunk).exists())
            && random.bool()
        {
            fs::write(recorder.path(chunk), "damaged").unwrap();
        }
    }
    machine.start();
    let output = machine.run(&["reconcile", "drive", "--restore", "--json"]);
    exits(&output, 0, &[]);
    let mut found = snapshot(&chunks);
    found.retain(|name, bytes| !name.contains("/.damaged-") || bytes != b"damaged");
    assert!(found == original, "byte by byte, and nothing else but what was put aside");
    let again = json_of(&machine.run(&["reconcile", "drive", "--restore", "--deep", "--json"]));
    assert_eq!((&again["result"]["actions"], &again["result"]["findings"]), (&json!([]), &json!([])), "{again:#}");
    let stored: Value = serde_json::from_slice(&manifest).unwrap();
    let names = |manifest: &Value| {
        manifest["chunks"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&stored), &stored["ended_at_ns"]),
        (names(&recorder.manifest()), &recorder.manifest()["ended_at_ns"])
    );
    exits(&person.download(&machine, &[]), 0, &[]);
    assert!(recorder.chunks.iter().all(|chunk| is_there(&person.to(), chunk)));
    assert_eq!(snapshot(&person.to()).len(), 25);
    assert!(recorder.chunks.iter().all(|chunk| machine.is_stored("drive", chunk)), "the store lost nothing");
}

/// Wipes a machine's library, restores all of it, and checks it with external tools.
fn comes_back(machine: &mut Machine, recorder: &Recorder) {
    let library = machine.home().join("recordings");
    let kept = machine.folder.path().join("kept");
    fs::rename(&library, &kept).unwrap();
    fs::create_dir(&library).unwrap();
    until("the node saw that it is gone", || machine.run(&["info", "drive"]).status.code() == Some(3));
    let planned = machine.run(&["reconcile", "drive", "--restore", "--dry-run", "--json"]);
    exits(&planned, 0, &[]);
    let bytes: u64 = recorder.chunks.iter().map(|chunk| chunk["size_bytes"].as_u64().unwrap()).sum();
    assert_eq!(json_of(&planned)["result"]["counts"]["restored_bytes"], bytes);
    assert!(!library.join("drive").exists(), "a dry run changes nothing");
    exits(&machine.run(&["reconcile", "d*", "--restore"]), 0, &[]);
    let mut messages = 0;
    for chunk in &recorder.chunks {
        let original = kept.join("drive/chunks").join(chunk["name"].as_str().unwrap());
        assert_eq!(fs::read(recorder.path(chunk)).unwrap(), fs::read(&original).unwrap());
        messages += python::judge(&original, &recorder.path(chunk));
    }
    assert_eq!(messages, 20 * recorder.chunks.len() as u64);
    let info = json_of(&machine.run(&["info", "drive", "--json"]));
    assert_eq!((&info["state"], &info["upload"]), (&json!("ended"), &json!("complete")), "{info:#}");
    let again = json_of(&machine.run(&["reconcile", "drive", "--restore", "--json"]));
    assert_eq!(again["result"]["actions"], json!([]), "{again:#}");
    exits(&machine.run(&["reconcile", "--all", "--restore"]), 2, &[]);
    exits(&machine.run(&["reconcile", "nothing", "--restore"]), 3, &[]);
}

#[test]
fn a_wiped_library_is_restored_from_a_folder_as_external_tools_confirm() {
    let (mut machine, recorder) = machine("wiped_1", 3);
    comes_back(&mut machine, &recorder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_library_is_restored_from_a_bucket_as_external_tools_confirm() {
    let server: Arc<Server> = Server::seaweedfs().await;
    server.bucket("back").await;
    let mut machine = Machine::new("wiped_2", "");
    let storage = format!(
        "backend = \"s3\"\nendpoint = {:?}\nbucket = \"back\"\nprefix = \"north\"\nrescan_interval = \"1s\"",
        server.endpoint
    );
    machine.set(&storage);
    machine.set_secrets(KEY, SECRET);
    machine.start();
    let mut recorder = machine.recorder("drive");
    for _ in 0..3 {
        recorder.finalize();
    }
    recorder.end();
    let is_complete = || {
        let output = machine.run(&["info", "drive", "--json"]);
        output.status.success() && json_of(&output)["upload"] == "complete"
    };
    until("all of it is in the bucket", is_complete);
    until("the bucket's manifest names it", || {
        machine.run(&["list", "--remote", "--json"]).stdout.windows(20).any(|it| it == b"\"has_manifest\": true")
    });
    tokio::task::block_in_place(|| comes_back(&mut machine, &recorder));

    let person = Person::with(&storage);
    let run = |arguments: &[&str]| {
        let mut command = person.command(arguments);
        command.env("BUBBALOOP_STORAGE_ACCESS_KEY_ID", KEY).env("BUBBALOOP_STORAGE_SECRET_ACCESS_KEY", SECRET);
        command.output().unwrap()
    };
    let output = run(&["download", "drive", "--to", "copy", "--machine", "wiped-2", "--chunks", "1.."]);
    exits(&output, 0, &["2 chunks"]);
    assert!(is_there(&person.to(), &recorder.chunks[1]) && is_there(&person.to(), &recorder.chunks[2]));
    let whole = fs::read(person.to().join("chunks").join(recorder.chunks[2]["name"].as_str().unwrap())).unwrap();
    let name = recorder.chunks[0]["name"].as_str().unwrap();
    let begun = fs::read(recorder.path(&recorder.chunks[0])).unwrap()[..77_777].to_vec();
    fs::write(person.to().join(format!("chunks/.{name}.part")), begun).unwrap();
    exits(&run(&["download", "drive", "--to", "copy", "--machine", "wiped-2"]), 0, &["3 chunks"]);
    assert!(is_there(&person.to(), &recorder.chunks[0]), "a part is gone on with");
    assert!(!whole.is_empty());
    let listed = run(&["list", "--remote", "--machine", "*", "--json"]);
    assert_eq!(json_of(&listed)["recordings"][0]["machine_id"], "wiped_2");
    exits(&run(&["download", "nothing", "--to", "copy", "--machine", "wiped-2"]), 3, &["it holds drive"]);
}

#[test]
fn a_second_capture_of_a_name_is_reported_and_can_be_chosen() {
    let (mut machine, first) = machine("captures_1", 2);
    machine.kill();
    fs::remove_dir_all(machine.home().join("recordings/drive")).unwrap();
    let mut second = machine.recorder("drive");
    for size in [1000, 2000, 3000] {
        second.finalize_of(size);
    }
    let began = 1_800_000_000_000_000_000_u64;
    second.save(&json!({"started_at_ns": began, "ended_at_ns": began + 1}));
    machine.start();
    let own = remote(&machine, "drive").join(format!("manifest.{began}.json"));
    until("it has a manifest of its own", || own.exists());

    let person = Person::of(&machine);
    exits(&person.download(&machine, &[]), 0, &["2 chunks", "other captures", "--started-at 2027-01-15T08:00:00Z"]);
    assert!(first.chunks.iter().all(|chunk| is_there(&person.to(), chunk)));
    let told = json_of(&person.download(&machine, &["--json"]));
    assert_eq!((&told["there_chunks"], &told["other_captures_ns"]), (&json!(2), &json!([began])));
    exits(&person.download(&machine, &["--started-at", "2027-01-15T08:00:00Z"]), 1, &["is of another recording"]);

    fs::remove_dir_all(person.to()).unwrap();
    let unknown = person.download(&machine, &["--started-at", "2020-01-01"]);
    exits(&unknown, 3, &["--started-at 2023-11-14T22:13:20Z", "--started-at 2027-01-15T08:00:00Z"]);
    assert!(!person.to().exists());
    exits(&person.download(&machine, &["--started-at", &began.to_string()]), 0, &["3 chunks"]);
    assert!(second.chunks.iter().all(|chunk| is_there(&person.to(), chunk)));
    assert_eq!(fs::read(person.to().join("manifest.json")).unwrap(), fs::read(&own).unwrap());

    // The downloaded copy is a recording of the library again when it is put there.
    machine.kill();
    let library = machine.home().join("recordings/drive");
    fs::remove_dir_all(&library).unwrap();
    fs::rename(person.to(), &library).unwrap();
    machine.start();
    let info = || json_of(&machine.run(&["info", "drive", "--json"]));
    until("it is known as uploaded", || info()["upload"] == "complete");
    assert_eq!((&info()["state"], &info()["chunk_count"]), (&json!("ended"), &json!(3)));
}
