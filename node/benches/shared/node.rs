//! The measured node: the real binary in its own home.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bubbaloop_storage::{
    bus::client::Client,
    config::Config,
    library::{identity::HomeLock, state::NodeState},
};
use bubbaloop_storage_schemas::{MachineId, Verb, params::Params, reply::Paused};
use serde_json::Value;
use tokio::sync::Notify;

use super::{
    BUCKET,
    library::Library,
    measure::{self, Cost},
};
use crate::support::{
    node::Machine,
    servers::{KEY, SECRET, Server},
};

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(600);

/// Between two checks of a node without events.
const POLL: Duration = Duration::from_millis(5);

/// Between two requests while waiting for events, which a slow listener may miss.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A node's home, and the node if it runs.
pub(crate) struct Node {
    pub machine: Machine,
}

/// A running node and a client of it.
pub(crate) struct Running {
    pub id: MachineId,
    pub pid: u32,
    pub client: Client,
}

/// Returns the settings for a server.
fn settings(endpoint: &str) -> String {
    format!("backend = \"s3\"\nendpoint = {endpoint:?}\nbucket = {BUCKET:?}\n")
}

impl Node {
    /// Returns a node, not running, that uploads a library to a server.
    pub(crate) fn new(id: &str, server: &Server, library: &Library, more: &str) -> Self {
        Self::of_endpoint(id, &server.endpoint, library, more)
    }

    /// Returns a node that reaches its server through another address.
    pub(crate) fn of_endpoint(id: &str, endpoint: &str, library: &Library, more: &str) -> Self {
        let machine = Machine::new(id, "");
        machine.set(&format!("{}{}{more}", settings(endpoint), library.setting()));
        machine.set_secrets(KEY, SECRET);
        Self { machine }
    }

    /// Pauses uploads before the start.
    pub(crate) fn pause(&self) {
        let state = self.machine.home().join("storage/state.json");
        std::fs::create_dir_all(state.parent().unwrap()).unwrap();
        let paused = Paused { since_ns: 1, until_ns: None };
        NodeState::update(&state, |state| state.paused = Some(paused)).unwrap();
    }

    /// Starts the node and connects to its bus.
    pub(crate) async fn start(&mut self) -> Running {
        self.machine.start();
        self.join().await
    }

    /// Connects to the bus of the running node.
    pub(crate) async fn join(&self) -> Running {
        let home = self.machine.home();
        let holder = HomeLock::holder(&home).unwrap();
        let client = Client::connect(&Config::load(&home, &[]).settings.zenoh, &holder.endpoints).await.unwrap();
        Running { id: holder.machine_id, pid: holder.pid, client }
    }
}

impl Running {
    /// Asks the node. Returns `None` if it refuses, as before its first scan.
    pub(crate) async fn try_ask(&self, verb: Verb, params: &Params) -> Option<Value> {
        let told = self.client.ask_untyped(Some(&self.id), verb, params, DEADLINE).await.unwrap();
        told.into_iter().next().and_then(Result::ok)
    }

    pub(crate) async fn ask(&self, verb: Verb, params: &Params) -> Value {
        let told = self.client.ask_untyped(Some(&self.id), verb, params, DEADLINE).await.unwrap();
        match told.into_iter().next() {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => panic!("{verb:?}: {error:?}"),
            None => panic!("{verb:?}: no answer"),
        }
    }

    pub(crate) async fn status(&self) -> Value {
        self.ask(Verb::Status, &Params::default()).await
    }

    /// Waits until the node has scanned its library and probed its store.
    pub(crate) async fn is_ready(&self) {
        self.until("it is ready", POLL, |status| {
            status["library"]["scanned"] == true && !status["store"]["probe"].is_null()
        })
        .await;
    }

    /// Asks for the status until it satisfies the condition.
    pub(crate) async fn until(&self, what: &str, every: Duration, is_so: impl Fn(&Value) -> bool) {
        let started = Instant::now();
        loop {
            let status = self.status().await;
            if is_so(&status) {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "not in time: {what}: {status}");
            tokio::time::sleep(every).await;
        }
    }

    /// Runs a function and returns what it cost the node.
    pub(crate) async fn cost_of(&self, work: impl Future<Output = ()>) -> Cost {
        let (cpu, started) = (measure::cpu(self.pid), Instant::now());
        work.await;
        let wall = started.elapsed();
        Cost { wall, cpu: measure::cpu(self.pid) - cpu, peak_mib: measure::memory(self.pid, "VmHWM").unwrap() }
    }

    /// Resumes a paused node, and waits by its events until this many chunks are proven.
    pub(crate) async fn resume_until_proven(&self, chunks: usize) {
        let chunks = chunks as u64;
        let (heard, all) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let (hearing, notify) = (Arc::clone(&heard), Arc::clone(&all));
        let hear = move |event: Value| {
            if event["kind"] == "chunk_uploaded" && hearing.fetch_add(1, Ordering::Relaxed) + 1 == chunks {
                notify.notify_one();
            }
        };
        let events = self.client.listen(Some(&self.id), hear).await.unwrap();
        self.ask(Verb::Resume, &Params::default()).await;
        let asked =
            self.until("all chunks are proven", ASK_EVERY, |status| status["library"]["uploaded_chunks"] == chunks);
        tokio::select! {
            () = all.notified() => {}
            () = asked => {}
        }
        drop(events);
    }
}
