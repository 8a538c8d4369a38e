//! The real binary: a node in its own home, and the command line.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use bubbaloop_storage::library::identity::{Holder, HomeLock};
use bubbaloop_storage_schemas::{ChunkName, Digest};
use mcap::{WriteOptions, records::MessageHeader};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    python::Python,
    steps::{self, RunOutcome},
    terminal::Terminal,
};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_bubbaloop-storage");

/// Longest wait for a condition on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Waits for a condition, with a deadline.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::sleep(POLL);
    }
}

/// A machine with a home, a local store, and a node that may run.
pub(crate) struct Machine {
    pub folder: TempDir,
    pub id: String,
    node: Option<Child>,
}

impl Machine {
    /// Returns a machine with a local store. `more` is added to `[storage]`.
    pub(crate) fn new(id: &str, more: &str) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), id: id.into(), node: None };
        fs::create_dir(machine.home()).unwrap();
        machine.set(&format!("backend = \"local\"\nlocal_path = \"../store\"\n{more}"));
        machine
    }

    /// Writes the node's settings. A running node applies them.
    pub(crate) fn set(&self, storage: &str) {
        let settings = format!(
            "[storage]\nmachine_id = \"{}\"\n{storage}\n[storage.zenoh]\nconnect = []\n\
             listen = [\"tcp/127.0.0.1:0\"]\nmulticast = false\n",
            self.id
        );
        let temporary = self.home().join("config.toml.new");
        fs::write(&temporary, settings).unwrap();
        fs::rename(temporary, self.home().join("config.toml")).unwrap();
    }

    /// Writes the node's secrets.
    pub(crate) fn set_secrets(&self, id: &str, secret: &str) {
        let temporary = self.home().join("secrets.toml.new");
        fs::write(&temporary, format!("[storage]\naccess_key_id = {id:?}\nsecret_access_key = {secret:?}\n")).unwrap();
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(temporary, self.home().join("secrets.toml")).unwrap();
    }

    /// Returns a machine with a running node.
    pub(crate) fn started(id: &str) -> Self {
        let mut machine = Self::new(id, "rescan_interval = \"1s\"");
        machine.start();
        machine
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts the node and waits until it is on the bus.
    pub(crate) fn start(&mut self) {
        self.start_and(|holder| !holder.endpoints.is_empty());
    }

    /// Starts the node and waits until its lock file satisfies `is_ready`.
    pub(crate) fn start_and(&mut self, is_ready: impl Fn(&Holder) -> bool) {
        let pid = self.spawn();
        let is_there = || HomeLock::holder(&self.home()).is_some_and(|holder| holder.pid == pid && is_ready(&holder));
        until("the node is on the bus", is_there);
    }

    /// Starts the node without waiting. Returns its process id.
    pub(crate) fn spawn(&mut self) -> u32 {
        let log = File::options().append(true).create(true).open(self.folder.path().join("log")).unwrap();
        let child = Command::new(BINARY)
            .args(["serve", "--home"])
            .arg(self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = child.id();
        self.node = Some(child);
        pid
    }

    /// Runs the node until it has made `kill_after` of these system calls, or is done, and kills it.
    pub(crate) fn run_steps(&mut self, calls: &str, kill_after: usize, is_done: impl FnMut() -> bool) -> RunOutcome {
        let home = self.home();
        let log = File::options().append(true).create(true).open(self.folder.path().join("log")).unwrap();
        let arguments = ["serve", "--home", home.to_str().unwrap()];
        steps::run(Path::new(BINARY), &arguments, log.into(), calls, kill_after, is_done)
    }

    pub(crate) fn endpoint(&self) -> String {
        HomeLock::holder(&self.home()).unwrap().endpoints[0].clone()
    }

    /// Kills the node with SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut node = self.node.take().unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    /// Sends the node a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(self.node.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Ends the node with SIGTERM. Returns its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let mut node = self.node.take().unwrap();
        node.wait().unwrap().code()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.node.as_mut().is_some_and(|node| node.try_wait().unwrap().is_none())
    }

    /// Runs a command for this home on a terminal.
    pub(crate) fn on_terminal(&self, columns: u16, arguments: &[&str]) -> Terminal {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--home").arg(self.home());
        Terminal::run(command, columns)
    }

    /// Runs a command for this home.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        // Files that a command writes to its working folder are removed with the machine.
        command.args(arguments).arg("--home").arg(self.home()).current_dir(self.folder.path());
        command.output().unwrap()
    }

    /// Returns a Python client that is connected to the node.
    pub(crate) fn python(&self) -> Python {
        let mut python = Python::dialling(&[&self.endpoint()]);
        self.wait_for_scan(&mut python);
        python
    }

    /// Waits until the node answers and has scanned its library.
    pub(crate) fn wait_for_scan(&self, python: &mut Python) {
        let selector = self.key("list");
        until("the node answers", || {
            let replies = python.get(&super::python::Get { selector: &selector, ..Default::default() });
            replies.len() == 1 && replies[0].is_ok
        });
    }

    pub(crate) fn key(&self, verb: &str) -> String {
        format!("bubbaloop/{}/storage/{verb}", self.id)
    }

    pub(crate) fn recorder(&self, recording: &str) -> Recorder {
        Recorder::begin(&self.home().join("recordings"), recording, &self.id)
    }

    pub(crate) fn object(&self, recording: &str, name: &str) -> PathBuf {
        self.folder.path().join("store").join(&self.id).join(recording).join("chunks").join(name)
    }

    /// Tells whether the store holds exactly this chunk.
    pub(crate) fn is_stored(&self, recording: &str, chunk: &Value) -> bool {
        let object = self.object(recording, chunk["name"].as_str().unwrap());
        fs::read(object).is_ok_and(|bytes| json!(Digest::of(&bytes)) == chunk["sha256"])
    }

    pub(crate) fn remote_manifest(&self, recording: &str) -> Option<Value> {
        let path = self.folder.path().join("store").join(&self.id).join(recording).join("manifest.json");
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(node) = &mut self.node {
            node.kill().and_then(|()| node.wait()).ok();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Writes real MCAP chunks as a recorder does. It rewrites the manifest from memory after each one.
pub(crate) struct Recorder {
    pub name: String,
    machine: String,
    folder: PathBuf,
    pub chunks: Vec<Value>,
}

impl Recorder {
    fn begin(recordings: &Path, name: &str, machine: &str) -> Self {
        let folder = recordings.join(name);
        fs::create_dir_all(folder.join("chunks")).unwrap();
        let recorder = Self { name: name.into(), machine: machine.into(), folder, chunks: Vec::new() };
        recorder.save(&json!({}));
        recorder
    }

    /// Writes a chunk's file with its final name, without naming it in the manifest.
    pub(crate) fn rename(&mut self) -> Value {
        let index = u32::try_from(self.chunks.len()).unwrap();
        let bytes = mcap_file(index, &self.name);
        self.rename_of(&bytes)
    }

    /// Writes a chunk of this size and the manifest that names it. Its bytes are not MCAP.
    pub(crate) fn finalize_of(&mut self, size: usize) -> Value {
        let seed = self.chunks.len() as u64 + 1;
        let byte = |place: u64| (place.wrapping_mul(seed + place / 251) >> 3).to_le_bytes()[0];
        let bytes: Vec<u8> = (0..size as u64).map(byte).collect();
        let chunk = self.rename_of(&bytes);
        self.save(&json!({}));
        chunk
    }

    fn rename_of(&mut self, bytes: &[u8]) -> Value {
        let index = u32::try_from(self.chunks.len()).unwrap();
        let digest = Digest::of(bytes);
        let name = ChunkName::new(index, &digest).to_string();
        let active = self.folder.join("chunks").join(format!(".chunk-{index:06}.mcap.active"));
        fs::write(&active, bytes).unwrap();
        fs::rename(active, self.folder.join("chunks").join(&name)).unwrap();
        let chunk = json!({"name": name, "index": index, "size_bytes": bytes.len(), "sha256": digest});
        self.chunks.push(chunk.clone());
        chunk
    }

    /// Writes a chunk and the manifest that names it.
    pub(crate) fn finalize(&mut self) -> Value {
        let chunk = self.rename();
        self.save(&json!({}));
        chunk
    }

    /// Writes the manifest from memory, with further fields.
    pub(crate) fn save(&self, more: &Value) {
        let mut manifest = json!({
            "schema_version": 1, "name": self.name, "machine_id": self.machine, "started_at_ns": 1_700_000_000_000_000_000_u64,
            "mode": "streaming", "tags": ["test"], "chunks": self.chunks,
        });
        manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let temporary = self.folder.join(".manifest.json.recorder");
        fs::write(&temporary, manifest.to_string()).unwrap();
        fs::rename(temporary, self.folder.join("manifest.json")).unwrap();
    }

    pub(crate) fn end(&self) {
        self.save(&json!({"ended_at_ns": 1_700_000_100_000_000_000_u64}));
    }

    pub(crate) fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder.join("manifest.json")).unwrap()).unwrap()
    }

    pub(crate) fn path(&self, chunk: &Value) -> PathBuf {
        self.folder.join("chunks").join(chunk["name"].as_str().unwrap())
    }

    /// Returns the lines of the node's journal.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("uploads.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Returns the body of a finalize event.
    pub(crate) fn event(&self, chunk: &Value) -> Value {
        json!({"recording": self.name, "machine_id": self.machine, "chunk": chunk})
    }
}

/// Returns a real MCAP file. Its content depends on index and recording.
fn mcap_file(index: u32, recording: &str) -> Vec<u8> {
    let mut writer = WriteOptions::new().compression(None).create(std::io::Cursor::new(Vec::new())).unwrap();
    let channel_id = writer.add_channel(0, "camera", "application/json", &std::collections::BTreeMap::new()).unwrap();
    for sequence in 0..20 {
        let log_time = u64::from(index) * 1000 + u64::from(sequence);
        let header = MessageHeader { channel_id, sequence, log_time, publish_time: log_time };
        let data = format!("{recording} {index} {sequence} {}", "x".repeat(10_000));
        writer.write_to_known_channel(&header, data.as_bytes()).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}
