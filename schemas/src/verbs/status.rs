//! `status`: what is safe, what is at risk, and what holds uploads back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    block::Blocked,
    definition::{ReplyShape, VerbDefinition},
    head::ReplyHead,
    parameter::NoParameters,
    probe::Probe,
    time::UnixNs,
    verb::{Role, Verb},
    verbs::{config::ConfigProblem, pause::Paused},
};

/// Defines `status`.
#[derive(Debug)]
pub enum Status {}

impl VerbDefinition for Status {
    const VERB: Verb = Verb::Status;
    const ROLE: Role = Role::Viewer;
    const SUMMARY: &'static str = "what is safe, what is at risk and what holds uploads back";
    const ABOUT: &'static str = "What is safe, what is at risk and what holds uploads back";
    const SHAPE: ReplyShape = ReplyShape::Whole;
    type Request = NoParameters;
    type Reply = StatusReply;
}

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// Every finalized chunk of this machine is proven in a store that is not this disk.
    pub safe: bool,
    /// The size of those that are not.
    pub at_risk_bytes: u64,
    /// How many they are.
    pub at_risk_chunks: u64,
    /// Since when the oldest of them exists.
    pub oldest_at_risk_at_ns: Option<UnixNs>,
    /// Since when the oldest of them exists.
    pub oldest_at_risk_at: Option<String>,
    /// What left for the store, over the last minute; what arrived, while nothing is on its way or the store fails.
    pub upload_rate_bytes_per_s: u64,
    /// When the disk will be full at the rate of the last minutes; null when it is not filling.
    pub disk_full_in_s: Option<u64>,
    /// What is free on the library's disk.
    pub disk_free_bytes: Option<u64>,
    /// How much less is free than the settings want, although all that may be removed was.
    #[serde(default)]
    pub disk_low_bytes: u64,
    /// A person stopped uploads.
    pub paused: Option<Paused>,
    /// A fact stops uploads.
    pub blocked: Option<Blocked>,
    /// The hours in which uploads go by themselves; null at all hours.
    #[serde(default)]
    pub upload_window: Option<UploadWindow>,
    /// Why the last try failed, while no other succeeded since; it is tried again by itself.
    pub failing: Option<Failing>,
    /// What waits and what is on its way.
    pub queue: QueueStatus,
    /// Chunks that were given up.
    pub dead_letters: u64,
    /// Finalize events that were refused.
    pub refused_events: RefusedEvents,
    /// The store's clock minus ours; null while it is not known.
    pub clock_offset_ms: Option<i64>,
    /// Other libraries that go by this machine's id: one of them needs another.
    pub twins: Vec<String>,
    /// What the node writes for itself gets to the disk.
    pub durable: bool,
    /// Where uploads go.
    pub store: StoreStatus,
    /// The library's recordings.
    pub library: LibraryStatus,
    /// What is wrong with the settings.
    pub config_problems: Vec<ConfigProblem>,
    /// The node's version.
    pub version: String,
    /// When the node started.
    pub started_at: String,
    /// When the node started.
    pub started_at_ns: UnixNs,
}

/// The hours in which uploads go by themselves, as `upload_window` is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UploadWindow {
    /// The hours, in the machine's own time.
    pub hours: String,
    /// These are they.
    pub is_open: bool,
    /// When that changes.
    pub changes_in_s: u64,
}

/// Tries fail, and no fact is known that stops them all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failing {
    /// What went wrong at the last try.
    pub message: String,
    /// Since when nothing succeeded.
    pub since_ns: UnixNs,
}

/// The upload queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct QueueStatus {
    /// Chunks that wait.
    pub waiting: u64,
    /// Chunks on their way, and those that arrived and of which the mark is being written.
    pub in_flight: u64,
    /// Their size.
    pub in_flight_bytes: u64,
    /// When the next try is due; null when none waits for a time.
    pub next_try_in_ms: Option<u64>,
}

/// Finalize events that were refused, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RefusedEvents {
    /// All of them.
    pub total: u64,
    /// Of another machine.
    pub foreign: u64,
    /// With an illegal name or digest.
    pub illegal: u64,
    /// Of a chunk that is not there.
    pub missing: u64,
    /// Of a chunk that has other bytes or another name.
    pub mismatch: u64,
    /// Not an event at all.
    pub undecodable: u64,
}

/// Where uploads go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StoreStatus {
    /// The kind of store; null where none is configured.
    pub backend: Option<String>,
    /// Its id in the journal.
    pub store_id: Option<String>,
    /// It is on the library's own disk, so nothing in it is safe; null while it is not known.
    pub same_disk: Option<bool>,
    /// What the probe found; null before it.
    pub probe: Option<Probe>,
}

/// The library's recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LibraryStatus {
    /// The first scan is done.
    pub scanned: bool,
    /// Recordings seen so far.
    pub recordings: u64,
    /// Chunks of this machine's recordings.
    pub chunks: u64,
    /// Those that are proven in the store.
    pub uploaded_chunks: u64,
}
