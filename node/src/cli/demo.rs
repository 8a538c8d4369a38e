//! The whole way, for newcomers: a real node in a temporary home, a recorder, a store in a folder.

use std::{
    collections::BTreeMap,
    io::{self, Cursor},
    path::{Path, PathBuf},
    process::{Child, Command as Process, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bubbaloop_storage_schemas::{
    ChunkName, Digest, MachineId, RecordingName, UnixNs, Verb, codec::Format, event::FinalizeEvent,
    manifest::ManifestChunk, params::Params,
};
use mcap::{WriteOptions, records::MessageHeader};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    args::Demo,
    output::{Exit, failed, result},
    screen::Screen,
    table,
};
use crate::{
    bus::client::Client,
    clock::{Clock, SystemClock},
    config::Config,
    durable::{self, Replace, Staged},
    library::{
        identity::{Holder, HomeLock},
        scan::Folder,
    },
};

/// How long each step may take on a slow machine.
const STEP_MAX: Duration = Duration::from_secs(30);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Messages in each chunk, and the size of each: some 240 kB a chunk.
const MESSAGES: u32 = 60;
const MESSAGE_BYTES: usize = 4000;

const NANOS_PER_MESSAGE: u64 = 33_333_333;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Shows everything, then waits for questions until `stop`.
pub(super) async fn run(demo: &Demo, stop: impl Future<Output = ()>) -> Exit {
    match show(demo, stop).await {
        Ok(()) => Exit::Done,
        Err(error) => failed(&format!("the demo failed: {error}"), None),
    }
}

async fn show(demo: &Demo, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("bubbaloop-demo-").tempdir()?;
    let stage = Stage::open(folder).await?;
    let (robot, screen) = (&stage.machine, Screen::of_stdout());
    result(format_args!("a node runs for machine {robot}, with a store in {}\n", stage.store.display()));

    let uploaded = Arc::new(AtomicU32::new(0));
    let heard = Arc::clone(&uploaded);
    let _events = stage
        .client
        .listen(Some(robot), move |event| {
            if event["kind"] == "chunk_uploaded" {
                heard.fetch_add(1, Ordering::Relaxed);
                let (chunk, proof) = (&event["chunk"], &event["proof"]);
                result(format_args!("  events/chunk_uploaded    {chunk} proof {proof}"));
            }
        })
        .await?;
    let mut recorder = Recorder::begin(&stage)?;
    for index in 0..demo.chunks {
        let chunk = recorder.finalize(index)?;
        result(format_args!("recorder: {} is finalized, {} bytes", chunk.name, chunk.size_bytes));
        let event = FinalizeEvent { recording: recorder.name.to_string(), machine_id: robot.to_string(), chunk };
        stage.client.finalize(robot, "demo_recorder", &event).await?;
        until("a chunk is uploaded", || uploaded.load(Ordering::Relaxed) > index).await?;
    }
    recorder.end()?;
    let recording = Params::default().with("recording", recorder.name.as_str());
    result(format_args!("recorder: the recording has ended\n\n$ bubbaloop-storage upload drive_demo"));
    for job in stage.ask(Verb::Upload, &recording).await? {
        result(format_args!("{}", table::job_line(screen, &job)));
    }
    let is_published = || stage.store.join(robot.as_str()).join(recorder.name.as_str()).join("manifest.json").is_file();
    until("the remote manifest is written", is_published).await?;

    result(format_args!("\n$ bubbaloop-storage list"));
    result(format_args!(
        "{}",
        table::recordings(screen, &stage.ask(Verb::List, &Params::default()).await?, false, &[])
    ));
    for (line, verb, params) in
        [("info drive_demo", Verb::Info, &recording), ("status", Verb::Status, &Params::default())]
    {
        for reply in stage.ask(verb, params).await? {
            let text =
                if verb == Verb::Info { table::recording(screen, &reply) } else { table::status(screen, &reply) };
            result(format_args!("\n$ bubbaloop-storage {line}\n{text}"));
        }
    }
    if demo.no_wait {
        return Ok(());
    }
    stage.invite();
    stop.await;
    Ok(())
}

/// Waits for a condition, with a deadline.
async fn until(what: &str, condition: impl Fn() -> bool) -> Result<(), Failure> {
    let poll = async {
        while !condition() {
            tokio::time::sleep(POLL).await;
        }
    };
    let passed = tokio::time::timeout(STEP_MAX, poll).await;
    passed.map_err(|_| format!("in {} seconds it did not happen that {what}", STEP_MAX.as_secs()).into())
}

/// The node and what is around it. Dropped, the node is ended and the folder removed.
struct Stage {
    folder: TempDir,
    home: PathBuf,
    store: PathBuf,
    machine: MachineId,
    endpoint: String,
    client: Client,
    _node: Node,
}

/// The node's process. Killing it is always safe.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

impl Stage {
    async fn open(folder: TempDir) -> Result<Self, Failure> {
        let (home, store) = (folder.path().join("home"), folder.path().join("store"));
        durable::create_folder(&home)?;
        let settings = format!(
            "[storage]\nmachine_id = \"demo_robot\"\nbackend = \"local\"\nlocal_path = {:?}\n\n[storage.zenoh]\n\
             connect = []\nlisten = [\"tcp/127.0.0.1:0\"]\nmulticast = false\n",
            store.display().to_string()
        );
        durable::replace(&home.join("config.toml"), settings.as_bytes())?;
        let node = Process::new(std::env::current_exe()?)
            .args(["serve", "--home"])
            .arg(&home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let node = Node(node);
        let holder = || HomeLock::holder(&home).filter(|holder| !holder.endpoints.is_empty());
        until("the node is on the bus", || holder().is_some()).await?;
        let Some(Holder { machine_id, endpoints, .. }) = holder() else { return Err("the node has ended".into()) };
        let client = Client::connect(&Config::load(&home, &[]).settings.zenoh, &endpoints).await?;
        let endpoint = endpoints.into_iter().next().unwrap_or_default();
        let stage = Self { folder, home, store, machine: machine_id, endpoint, client, _node: node };
        stage.wait_for_scan().await?;
        Ok(stage)
    }

    /// A question right after the start may find nobody yet, or a scan that is not done.
    async fn wait_for_scan(&self) -> Result<(), Failure> {
        let poll = async {
            while self.ask(Verb::List, &Params::default()).await.is_err() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(STEP_MAX, poll).await.map_err(|_| "the node does not answer".into())
    }

    async fn ask(&self, verb: Verb, params: &Params) -> Result<Vec<Value>, Failure> {
        let told = self.client.ask_untyped(Some(&self.machine), verb, params, STEP_MAX).await?;
        let replies = told.into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| error.refusal)?;
        if replies.is_empty() { Err("no answer".into()) } else { Ok(replies) }
    }

    fn invite(&self) {
        let Self { endpoint, machine, home, folder, .. } = self;
        result(format_args!(
            "\nThe node goes on. Ask it from another terminal:\n\n  \
             z_get -m client -e {endpoint} -s 'bubbaloop/{machine}/storage/list'\n\n  \
             python3 -m pip install eclipse-zenoh==1.10.2\n  \
             python3 - <<'END'\nimport zenoh\nconfig = zenoh.Config.from_json5('{{mode: \"client\", connect: {{endpoints: \
             [\"{endpoint}\"]}}}}')\nwith zenoh.open(config) as session:\n    for reply in \
             session.get('bubbaloop/{machine}/storage/info?recording=drive_demo'):\n        \
             print(reply.ok.payload.to_string())\nEND\n\n  \
             bubbaloop-storage status --home {}\n\nCtrl-C ends it and removes {}.",
            home.display(),
            folder.path().display(),
        ));
    }
}

/// Writes a recording as a recorder does: chunk by chunk, the manifest anew from memory each time.
struct Recorder {
    name: RecordingName,
    folder: Folder,
    machine: MachineId,
    started_at_ns: UnixNs,
    chunks: Vec<ManifestChunk>,
}

impl Recorder {
    fn begin(stage: &Stage) -> Result<Self, Failure> {
        let name: RecordingName = "drive_demo".parse()?;
        let folder = Folder::new(&stage.home.join("recordings"), &name);
        durable::create_folder(&folder.chunks())?;
        let started_at_ns = SystemClock::start().wall();
        let recorder = Self { name, folder, machine: stage.machine.clone(), started_at_ns, chunks: Vec::new() };
        recorder.save(None)?;
        Ok(recorder)
    }

    fn log_time_ns(&self, message: u32) -> UnixNs {
        self.started_at_ns + u64::from(message) * NANOS_PER_MESSAGE
    }

    fn finalize(&mut self, index: u32) -> Result<ManifestChunk, Failure> {
        let messages = index * MESSAGES..(index + 1) * MESSAGES;
        let bytes = mcap_file(messages.clone().map(|number| (number, self.log_time_ns(number))))?;
        let digest = Digest::of(&bytes);
        let name = ChunkName::new(index, &digest);
        let active: PathBuf = self.folder.chunks().join(format!(".chunk-{index:06}.mcap.active"));
        write(&active, &self.folder.chunk(name), &bytes)?;
        let chunk = ManifestChunk {
            name: name.to_string(),
            index,
            size_bytes: bytes.len() as u64,
            sha256: digest.to_string(),
            log_time_first_ns: Some(self.log_time_ns(messages.start)),
            log_time_last_ns: Some(self.log_time_ns(messages.end - 1)),
            ..ManifestChunk::default()
        };
        self.chunks.push(chunk.clone());
        self.save(None)?;
        Ok(chunk)
    }

    fn end(&self) -> io::Result<()> {
        let last = self.chunks.iter().filter_map(|chunk| chunk.log_time_last_ns).max();
        self.save(last)
    }

    fn save(&self, ended_at_ns: Option<UnixNs>) -> io::Result<()> {
        let mut manifest = json!({
            "schema_version": 1, "name": self.name, "machine_id": self.machine, "started_at_ns": self.started_at_ns,
            "mode": "streaming", "tags": ["demo"], "chunks": self.chunks,
        });
        if let Some(ended_at_ns) = ended_at_ns {
            manifest["ended_at_ns"] = json!(ended_at_ns);
        }
        durable::replace(&self.folder.manifest(), manifest.to_string().as_bytes())
    }
}

fn write(temporary: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut staged = Staged::create(temporary.to_owned())?;
    staged.write(bytes)?;
    staged.sync()?;
    staged.commit(target, Replace::Refused)
}

/// Returns a real MCAP file with one channel.
fn mcap_file(messages: impl Iterator<Item = (u32, UnixNs)>) -> Result<Vec<u8>, Failure> {
    let mut writer = WriteOptions::new().compression(None).create(Cursor::new(Vec::new()))?;
    let channel_id = writer.add_channel(0, "camera/compressed", Format::Json.encoding(), &BTreeMap::new())?;
    for (sequence, log_time) in messages {
        let header = MessageHeader { channel_id, sequence, log_time, publish_time: log_time };
        let data = json!({"frame": sequence, "data": "0123456789abcdef".repeat(MESSAGE_BYTES / 16)}).to_string();
        writer.write_to_known_channel(&header, data.as_bytes())?;
    }
    writer.finish()?;
    Ok(writer.into_inner().into_inner())
}
