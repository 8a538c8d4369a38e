//! The real binary is killed after each of its steps on disk (and on the network, if a server takes part) while it
//! restores, adopts, removes and evicts. The same request, or only the restart, completes the work. The result is the
//! same as without a crash.
//!
//! `BUBBALOOP_TEST_STEPS` sets how many steps are tried, spread over all of them. Without it all are tried.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use bubbaloop_storage::library::identity::HomeLock;
use bubbaloop_storage_schemas::{
    Digest,
    manifest::{Indices, Manifest},
};
use serde_json::{Value, json};

use crate::{
    adopt::{mcap, still, write},
    crash::{number, remote},
    evict::SmallDisk,
    reconcile::snapshot,
    support::{
        node::{Machine, Recorder, until},
        servers::{KEY, SECRET, Server},
        steps::{DISK, DISK_AND_NETWORK, RunOutcome},
        tools::run,
    },
};

const BINARY: &str = env!("CARGO_BIN_EXE_bubbaloop-storage");

/// Number of machines at once. Each waits most of the time.
const AT_ONCE: usize = 4;

/// What a test does with a machine, and how it knows the result.
struct Errand<'a> {
    /// Makes a machine that is ready.
    make: &'a (dyn Fn() -> Tried + Sync),
    /// The system calls after which the node is killed.
    calls: &'a str,
    /// The command of a person; empty if the node acts by itself.
    verb: &'a [&'a str],
    is_done: &'a (dyn Fn(&Path) -> bool + Sync),
    /// Checks what must be true at any time.
    check: &'a (dyn Fn(&Machine) + Sync),
}

/// A running command, killed on drop.
struct Asking(Child);

impl Asking {
    /// Tells whether it still waits for its answer, or succeeded.
    fn goes_on(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none_or(|ended| ended.success())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Returns the files of a library by name, without times: not the journals, not the time fields of manifests, and not
/// the mark, which is random.
fn library(machine: &Machine) -> BTreeMap<String, String> {
    let root = machine.home().join("recordings");
    let of = |(path, bytes): (String, Vec<u8>)| {
        let name = path.strip_prefix(root.to_str().unwrap()).unwrap().to_owned();
        let text = match serde_json::from_slice::<Value>(&bytes) {
            Ok(mut manifest) if name.ends_with("/manifest.json") => {
                if let Some(from) = manifest.get_mut("adopted_from") {
                    from["adopted_at_ns"] = json!(0);
                }
                for chunk in manifest["chunks"].as_array_mut().unwrap() {
                    chunk
                        .as_object_mut()
                        .unwrap()
                        .retain(|field, _| !["uploaded_at_ns", "remote_etag"].contains(&&**field));
                }
                manifest.to_string()
            }
            _ => Digest::of(&bytes).to_string(),
        };
        (name, text)
    };
    let is_compared = |path: &str| ["uploads.jsonl", ".library.json"].iter().all(|name| !path.ends_with(name));
    snapshot(&root).into_iter().filter(|(path, _)| is_compared(path)).map(of).collect()
}

/// A machine under test, and the disk of its library if it has one.
type Tried = (Option<SmallDisk>, Machine);

/// Returns a copy of a machine with other settings.
fn copy(former: &Machine, settings: &str, has_own_disk: bool) -> Tried {
    let machine = Machine::new(&former.id, "");
    let disk = has_own_disk.then(|| SmallDisk::mount(&machine.home().join("recordings"), 32));
    let from = former.folder.path().join(".");
    run(Command::new("cp").arg("-a").arg(from).arg(machine.folder.path()));
    fs::remove_file(machine.home().join("storage/lock")).ok();
    machine.set(settings);
    (disk, machine)
}

impl Errand<'_> {
    /// Sends the request as soon as a node answers, and again if it failed.
    fn ask(&self, home: &Path, asking: &RefCell<Option<Asking>>) {
        let is_up = || HomeLock::holder(home).is_some_and(|holder| !holder.endpoints.is_empty());
        let is_asked = || asking.borrow_mut().as_mut().is_some_and(Asking::goes_on);
        if self.verb.is_empty() || is_asked() || !is_up() {
            return;
        }
        let mut command = Command::new(BINARY);
        command.args(self.verb).arg("--home").arg(home).stdin(Stdio::null()).stdout(Stdio::null());
        asking.replace(Some(Asking(command.stderr(Stdio::null()).spawn().unwrap())));
    }

    fn steps(&self, machine: &mut Machine, kill_after: usize) -> RunOutcome {
        let (home, asking) = (machine.home(), RefCell::default());
        machine.run_steps(self.calls, kill_after, || {
            self.ask(&home, &asking);
            (self.is_done)(&home)
        })
    }

    /// Lets the work end after a crash, and returns the library then.
    fn end(&self, machine: &mut Machine, step: usize) -> BTreeMap<String, String> {
        (self.check)(machine);
        machine.start();
        if !self.verb.is_empty() {
            let mut output = machine.run(self.verb);
            // A node that has just started refuses what needs its first scan, and says so.
            let is_too_early =
                |output: &Output| String::from_utf8_lossy(&output.stderr).contains("first scan is not done");
            until(&format!("the first scan is done after step {step}"), || {
                let is_refused = is_too_early(&output);
                if is_refused {
                    output = machine.run(self.verb);
                }
                !is_refused
            });
            // A removal that was completed says that the recording is not found.
            let is_gone = output.status.code() == Some(3) && self.verb[0] == "rm" && (self.is_done)(&machine.home());
            assert!(output.status.success() || is_gone, "after step {step}: {output:?}");
        }
        until(&format!("it is done after a crash after step {step}"), || (self.is_done)(&machine.home()));
        assert_eq!(machine.terminate(), Some(0));
        (self.check)(machine);
        library(machine)
    }

    /// Tries a crash after each step of a run, each time on a new machine.
    fn is_crashed_after_every_step(&self) {
        let (disk, mut machine) = (self.make)();
        let RunOutcome::Done(steps) = self.steps(&mut machine, usize::MAX) else { unreachable!("nothing kills it") };
        let wanted = self.end(&mut machine, steps);
        drop((machine, disk));
        let tried = usize::try_from(number("BUBBALOOP_TEST_STEPS", u64::MAX)).unwrap().min(steps);
        assert!(steps > 20, "a run has many steps, and not {steps}");
        thread::scope(|scope| {
            for first in 0..AT_ONCE {
                let wanted = &wanted;
                scope.spawn(move || {
                    for place in (first..tried).step_by(AT_ONCE) {
                        let step = 1 + place * steps / tried;
                        let (disk, mut machine) = (self.make)();
                        self.steps(&mut machine, step);
                        assert_eq!(self.end(&mut machine, step), *wanted, "after a crash after step {step}");
                        drop((machine, disk));
                    }
                });
            }
        });
    }
}

const SETTINGS: &str = "backend = \"local\"\nlocal_path = \"../store\"\nrescan_interval = \"1s\"";

/// Returns a machine whose node has uploaded a recording and ended.
fn uploaded(id: &str) -> (Machine, Recorder) {
    let mut machine = Machine::started(id);
    let mut recorder = machine.recorder("drive");
    for size in [1000, 300_000, 300_000, 300_000] {
        recorder.finalize_of(size);
    }
    recorder.end();
    until("all of it is in the store", || {
        recorder.chunks.iter().all(|chunk| machine.is_stored("drive", chunk))
            && machine.remote_manifest("drive").is_some_and(|it| it["chunks"].as_array().unwrap().len() == 4)
            && recorder.journal().iter().any(|line| line["kind"] == "published")
    });
    assert_eq!(machine.terminate(), Some(0));
    (machine, recorder)
}

fn chunks(home: &Path, recording: &str) -> PathBuf {
    home.join("recordings").join(recording).join("chunks")
}

/// Checks that no file with a chunk's name has other bytes, and that the manifest is complete if there is one.
fn is_sound(machine: &Machine, recording: &str) {
    for (path, bytes) in snapshot(&chunks(&machine.home(), recording)) {
        let name = Path::new(&path).file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with('.') || name.contains(&Digest::of(&bytes).to_string()[..8]), "{name}");
    }
    if let Ok(text) = fs::read(machine.home().join("recordings").join(recording).join("manifest.json")) {
        assert!(Manifest::parse(&text, Indices::Contiguous).is_ok(), "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn a_restore_that_is_killed_after_any_step_is_completed_by_the_same_request() {
    let (machine, recorder) = uploaded("step_1");
    fs::remove_dir_all(machine.home().join("recordings/drive")).unwrap();
    let names = || recorder.chunks.iter().map(|chunk| chunk["name"].as_str().unwrap());
    let is_whole = |home: &Path| names().all(|name| chunks(home, "drive").join(name).exists());
    let is_done = |home: &Path| {
        let journal = fs::read_to_string(home.join("recordings/drive/uploads.jsonl")).unwrap_or_default();
        is_whole(home) && journal.contains("\"published\"")
    };
    let check = |machine: &Machine| {
        is_sound(machine, "drive");
        assert!(recorder.chunks.iter().all(|chunk| machine.is_stored("drive", chunk)), "the store keeps all");
    };
    let verb = &["reconcile", "drive", "--restore"][..];
    let make = || copy(&machine, SETTINGS, false);
    Errand { make: &make, calls: DISK, verb, is_done: &is_done, check: &check }.is_crashed_after_every_step();
}

#[test]
fn an_adoption_that_is_killed_after_any_step_is_completed_by_the_same_request() {
    let machine = Machine::new("step_2", "");
    let whole = mcap(9000, 100, None);
    let files = [
        ("a_chunk_000.mcap", mcap(1000, 20, None)),
        ("a_chunk_001.mcap", mcap(2000, 20, None)),
        ("a_chunk_002.mcap", whole[..whole.len() / 2].to_vec()),
    ];
    for (name, bytes) in &files {
        write(&machine.home().join("recordings").join(name), bytes);
    }
    still(&machine.home().join("recordings"));
    let is_done = |home: &Path| {
        let journal = fs::read_to_string(home.join("recordings/a/uploads.jsonl")).unwrap_or_default();
        home.join("recordings/a/manifest.json").exists() && journal.contains("\"published\"")
    };
    let check = |machine: &Machine| {
        is_sound(machine, "a");
        for (name, bytes) in &files {
            assert!(fs::read(machine.home().join("recordings").join(name)).unwrap() == *bytes, "{name} is as it was");
        }
        if let Ok(text) = fs::read(machine.home().join("recordings/a/manifest.json")) {
            let manifest: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(manifest["chunks"].as_array().unwrap().len(), 3, "no half recording is one");
        }
    };
    let verb = &["adopt", "a", "--recover"][..];
    let make = || copy(&machine, SETTINGS, false);
    Errand { make: &make, calls: DISK, verb, is_done: &is_done, check: &check }.is_crashed_after_every_step();
}

#[test]
fn an_eviction_that_is_killed_after_any_step_is_completed_after_the_restart() {
    let (machine, recorder) = uploaded("step_3");
    let here = |home: &Path, chunk: &Value| chunks(home, "drive").join(chunk["name"].as_str().unwrap()).exists();
    let is_done = |home: &Path| recorder.chunks.iter().filter(|chunk| here(home, chunk)).count() <= 1;
    let check = |machine: &Machine| {
        is_sound(machine, "drive");
        for chunk in &recorder.chunks {
            assert!(machine.is_stored("drive", chunk), "{chunk} is there whether it is here or not");
        }
        let journal = machine.home().join("recordings/drive/uploads.jsonl");
        let journal = fs::read_to_string(journal).unwrap();
        for chunk in recorder.chunks.iter().filter(|chunk| !here(&machine.home(), chunk)) {
            let name = chunk["name"].as_str().unwrap();
            let is_told = |line: &str| line.contains("\"evicted\"") && line.contains(name);
            assert!(journal.lines().any(is_told), "{name} looks lost");
        }
    };
    let settings = format!("{SETTINGS}\ndisk_quota_gb = 0.0004");
    let make = || copy(&machine, &settings, true);
    Errand { make: &make, calls: DISK, verb: &[], is_done: &is_done, check: &check }.is_crashed_after_every_step();
}

#[test]
fn a_removal_that_is_killed_after_any_step_is_completed_by_the_same_request_and_nothing_is_adopted_again() {
    let mut machine = Machine::new("step_4", "auto_adopt = true\nrescan_interval = \"1s\"");
    let root = |machine: &Machine| machine.home().join("recordings");
    for (from_ns, name) in [(1, "a_chunk_000.mcap"), (1000, "a_chunk_001.mcap")] {
        write(&root(&machine).join(name), &mcap(from_ns, 20, None));
    }
    machine.start();
    let journal = |home: &Path| fs::read_to_string(home.join("recordings/a/uploads.jsonl")).unwrap_or_default();
    until("it is published", || journal(&machine.home()).contains("\"published\""));
    assert_eq!(machine.terminate(), Some(0));
    let is_done = |home: &Path| !home.join("recordings/a").exists();
    let check = |machine: &Machine| {
        for name in ["a_chunk_000.mcap", "a_chunk_001.mcap"] {
            assert!(root(machine).join(name).exists(), "the source stays");
        }
        // As long as any of it exists, its source is known as adopted or as left alone.
        let is_known = root(machine).join("a/manifest.json").exists();
        assert!(is_known || machine.home().join("storage/left_alone.json").exists(), "it would be made anew");
        assert!(machine.remote_manifest("a").is_some(), "the store keeps what it has");
    };
    let settings = format!("{SETTINGS}\nauto_adopt = true");
    let make = || copy(&machine, &settings, false);
    let verb = &["rm", "a", "--from", "local", "--force"][..];
    Errand { make: &make, calls: DISK, verb, is_done: &is_done, check: &check }.is_crashed_after_every_step();
}

/// Returns the objects of a machine's recording `drive` on a server.
async fn objects(server: &Server, machine: &Machine, recorder: &Recorder) -> Vec<String> {
    let names = recorder.chunks.iter().map(|chunk| format!("chunks/{}", chunk["name"].as_str().unwrap()));
    let mut found = Vec::new();
    for name in names.chain(["manifest.json".to_owned()]) {
        if server.content(&format!("steps-rm/{}/drive/{name}", machine.id)).await.is_some() {
            found.push(name);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_from_both_that_is_killed_after_any_step_never_leaves_a_manifest_that_names_missing_chunks() {
    let server = Server::seaweedfs().await;
    server.bucket("steps-rm").await;
    let (runtime, made) = (tokio::runtime::Handle::current(), AtomicUsize::new(0));
    let settings = remote("steps-rm", &server.endpoint);
    let recorders = Mutex::new(BTreeMap::new());
    let held = |machine: &Machine| {
        let recorders = recorders.lock().unwrap();
        let recorder = recorders.get(&machine.id).unwrap();
        runtime.block_on(objects(&server, machine, recorder))
    };
    // The removed objects are made again for each try.
    let make = || {
        let mut machine = Machine::new(&format!("rm_{}", made.fetch_add(1, Ordering::Relaxed)), "");
        machine.set(&settings);
        machine.set_secrets(KEY, SECRET);
        let mut recorder = machine.recorder("drive");
        for size in [1000, 30_000, 30_000] {
            recorder.finalize_of(size);
        }
        recorder.end();
        machine.start();
        until("it is published", || recorder.journal().iter().any(|line| line["kind"] == "published"));
        assert_eq!(machine.terminate(), Some(0));
        recorders.lock().unwrap().insert(machine.id.clone(), recorder);
        assert_eq!(held(&machine).len(), 4);
        (None, machine)
    };
    let is_done = |home: &Path| !home.join("recordings/drive").exists();
    let check = |machine: &Machine| {
        let held = held(machine);
        assert!(held.len() == 4 || !held.contains(&"manifest.json".to_owned()), "{held:?}");
        if is_done(&machine.home()) {
            assert_eq!(held, [""; 0], "what is here goes last");
        }
    };
    let verb = &["rm", "drive", "--from", "both", "--force"][..];
    let errand = Errand { make: &make, calls: DISK_AND_NETWORK, verb, is_done: &is_done, check: &check };
    tokio::task::block_in_place(|| errand.is_crashed_after_every_step());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_from_a_server_that_is_killed_after_any_step_is_completed_by_the_same_request() {
    let server = Server::seaweedfs().await;
    server.bucket("steps-restore").await;
    let settings = remote("steps-restore", &server.endpoint);
    let mut machine = Machine::new("step_5", "");
    machine.set(&settings);
    machine.set_secrets(KEY, SECRET);
    let mut recorder = machine.recorder("drive");
    for size in [1000, 300_000, 300_000] {
        recorder.finalize_of(size);
    }
    recorder.end();
    machine.start();
    until("it is published", || recorder.journal().iter().any(|line| line["kind"] == "published"));
    assert_eq!(machine.terminate(), Some(0));
    fs::remove_dir_all(machine.home().join("recordings/drive")).unwrap();
    let names = || recorder.chunks.iter().map(|chunk| chunk["name"].as_str().unwrap());
    let is_done = |home: &Path| {
        let journal = fs::read_to_string(home.join("recordings/drive/uploads.jsonl")).unwrap_or_default();
        names().all(|name| chunks(home, "drive").join(name).exists()) && journal.contains("\"published\"")
    };
    let check = |machine: &Machine| is_sound(machine, "drive");
    let make = || copy(&machine, &settings, false);
    let verb = &["reconcile", "drive", "--restore"][..];
    let errand = Errand { make: &make, calls: DISK_AND_NETWORK, verb, is_done: &is_done, check: &check };
    tokio::task::block_in_place(|| errand.is_crashed_after_every_step());
}
