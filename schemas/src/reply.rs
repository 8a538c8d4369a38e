//! What replies hold. More fields may follow; none of these goes.
//!
//! Times stand twice, as `*_ns` and in RFC 3339, because a browser's whole numbers end at 2^53.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::adopt::{
    AdoptAction, AdoptActionKind, AdoptCounts, AdoptFinding, AdoptFindingKind, AdoptResult, AdoptedFile, AdoptedFrom,
};
pub use crate::job::{JobResult, UploadResult};
pub use crate::reconcile::{Action, ActionKind, Finding, FindingKind, ReconcileCounts, ReconcileResult};
pub use crate::removal::{
    RemovalAction, RemovalActionKind, RemovalCounts, RemovalFinding, RemovalFindingKind, RemovalResult, RemoveFrom,
};
use crate::{
    block::BlockReason,
    error::Refusal,
    names::{ChunkName, MachineId, RecordingName},
    time::UnixNs,
    verb::{ParamKind, Role, Verb},
};

/// Who answers what: the first fields of every reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplyHead {
    /// The machine that answers.
    pub machine_id: MachineId,
    /// Its library.
    pub library_id: String,
    /// The verb that is answered.
    pub verb: Verb,
}

/// The answer to one verb.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Reply {
    /// To `help`.
    Help(HelpReply),
    /// To `list`.
    List(ListReply),
    /// To `info`.
    Info(Box<InfoReply>),
    /// To `status`.
    Status(Box<StatusReply>),
    /// To `config`.
    Config(ConfigReply),
    /// To `dead_letters`.
    DeadLetters(DeadLettersReply),
    /// To `jobs`.
    Jobs(JobsReply),
    /// To `upload`, `cancel` and other jobs' verbs.
    Job(JobReply),
    /// To `pause` and `resume`.
    Pause(PauseReply),
}

/// How an upload is known to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The store checks digests, and took ours.
    Enforced,
    /// The store's ETag is the MD5 of the bytes that were sent.
    EtagMd5,
    /// It was fetched and hashed.
    ReadBack,
    /// Something says so. Never counts as uploaded.
    Claimed,
}

impl Proof {
    /// Tells whether it counts as uploaded.
    pub const fn is_proven(self) -> bool {
        !matches!(self, Self::Claimed)
    }
}

/// What a recording is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordingState {
    /// It goes on.
    Recording,
    /// It has no end, and its folder has been still for a day.
    Interrupted,
    /// It has ended.
    Ended,
    /// Chunks of it are in no manifest.
    Unlisted,
    /// Its manifest is refused.
    Invalid,
    /// Another machine recorded it.
    Foreign,
    /// It is laid out in another way.
    Unmanaged,
}

impl RecordingState {
    /// All states, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Recording,
        Self::Interrupted,
        Self::Ended,
        Self::Unlisted,
        Self::Invalid,
        Self::Foreign,
        Self::Unmanaged,
    ];

    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Interrupted => "interrupted",
            Self::Ended => "ended",
            Self::Unlisted => "unlisted",
            Self::Invalid => "invalid",
            Self::Foreign => "foreign",
            Self::Unmanaged => "unmanaged",
        }
    }
}

/// How much of a recording is proven in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// No chunk.
    None,
    /// Some chunks.
    Partial,
    /// Every chunk.
    Complete,
}

/// Where a chunk is on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChunkLocal {
    /// Its file is there.
    Present,
    /// A manifest names it, and there is no file.
    Missing,
    /// The file has other bytes than its digest says.
    Damaged,
    /// It was removed to make room, being proven in a store.
    Evicted,
}

/// How far a chunk's upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChunkUpload {
    /// Not proven yet.
    Pending,
    /// On its way.
    InFlight,
    /// Proven in the store.
    Uploaded,
    /// Something says that it is there.
    Claimed,
    /// Given up until something changes.
    DeadLetter,
}

/// One recording in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordingRow {
    /// Its name.
    pub recording: String,
    /// The machine that recorded it.
    pub machine_id: String,
    /// What it is at the moment.
    pub state: RecordingState,
    /// Nothing here can heal it.
    pub corrupt: bool,
    /// How much is proven in the store.
    pub upload: UploadState,
    /// How many chunks it has.
    pub chunks: u64,
    /// How many of them are proven in the store.
    pub uploaded_chunks: u64,
    /// Their size.
    pub size_bytes: u64,
    /// The size of the proven ones.
    pub uploaded_bytes: u64,
    /// When it began.
    pub started_at: Option<String>,
    /// When it began.
    pub started_at_ns: Option<UnixNs>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// When it ended.
    pub ended_at_ns: Option<UnixNs>,
    /// A person's labels.
    pub tags: Vec<String>,
    /// Why it is in its state, where that wants a reason.
    pub reason: Option<String>,
}

/// The answer to `list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// The recordings, by name.
    pub recordings: Vec<RecordingRow>,
    /// Hand it back as `after` for the next page; null at the end.
    pub next_after: Option<String>,
}

/// The answer to `info`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InfoReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// Its name.
    pub recording: String,
    /// The machine that recorded it; `machine_id` is the one that answers.
    pub recording_machine_id: String,
    /// What it is at the moment.
    pub state: RecordingState,
    /// Nothing here can heal it.
    pub corrupt: bool,
    /// How much is proven in the store.
    pub upload: UploadState,
    /// How many chunks it has on all pages.
    pub chunk_count: u64,
    /// How many of them are proven in the store.
    pub uploaded_chunks: u64,
    /// Their size.
    pub size_bytes: u64,
    /// The size of the proven ones.
    pub uploaded_bytes: u64,
    /// When it began.
    pub started_at: Option<String>,
    /// When it began.
    pub started_at_ns: Option<UnixNs>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// When it ended.
    pub ended_at_ns: Option<UnixNs>,
    /// A person's labels.
    pub tags: Vec<String>,
    /// Why it is in its state, where that wants a reason.
    pub reason: Option<String>,
    /// The manifest's other fields, as they stand there: `mode`, `selection`, `channels` and the like.
    #[serde(flatten)]
    pub manifest_fields: Map<String, Value>,
    /// Fields of the manifest that this version does not know.
    pub other_fields: Vec<OtherField>,
    /// The manifest's other fields are left out: they are too large for a reply, or this is not the first page.
    pub fields_left_out: bool,
    /// The chunks, by index.
    pub chunks: Vec<ChunkRow>,
    /// Hand it back as `after` for the next page; null at the end.
    pub next_after: Option<String>,
}

/// A field of a manifest that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OtherField {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// One chunk of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChunkRow {
    /// Its place in the recording.
    pub index: u32,
    /// Its name.
    pub name: ChunkName,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest; null while only its name's eight digits are known.
    pub sha256: Option<String>,
    /// The first log time in it.
    pub log_time_first_ns: Option<UnixNs>,
    /// The last log time in it.
    pub log_time_last_ns: Option<UnixNs>,
    /// Whether the recording's manifest names it.
    pub listed: bool,
    /// Where it is on this machine.
    pub local: ChunkLocal,
    /// How far its upload is.
    pub upload: ChunkUpload,
    /// How the upload is known; null without one.
    pub proof: Option<Proof>,
    /// When it was proven; only where it is.
    pub uploaded_at_ns: Option<UnixNs>,
    /// When it was proven; only where it is.
    pub uploaded_at: Option<String>,
    /// Why it is damaged or given up.
    pub reason: Option<String>,
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

/// A person stopped uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Paused {
    /// Since when.
    pub since_ns: UnixNs,
    /// Until when; null until somebody resumes.
    pub until_ns: Option<UnixNs>,
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

/// A fact stops uploads; it ends by itself when the fact does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Blocked {
    /// The class of the fact.
    pub reason: BlockReason,
    /// Since when.
    pub since_ns: UnixNs,
    /// What a person can do.
    pub hint: String,
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

/// What a store was found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// It refuses bytes that do not have the digest that they were sent with.
    pub enforces_sha256: bool,
    /// It tells an object's digest, and has found that itself.
    pub tells_sha256: bool,
    /// Its ETag of an object is the MD5 of the object's bytes.
    pub etag_is_md5: bool,
    /// It refuses to overwrite when asked to create only.
    pub honours_create_only: bool,
    /// It refuses to replace another version than the named one.
    pub honours_if_match: bool,
    /// Its clock minus ours, to within a second; null where it told no time.
    pub clock_offset_ms: Option<i64>,
    /// What the node's key may do there.
    pub rights: Rights,
}

/// What a key may do in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rights {
    /// Store an object.
    pub put: bool,
    /// Read an object.
    pub get: bool,
    /// Look at an object.
    pub head: bool,
    /// List objects.
    pub list: bool,
    /// Remove an object.
    pub delete: bool,
}

impl Rights {
    /// All of them.
    pub const ALL: Self = Self { put: true, get: true, head: true, list: true, delete: true };
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

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigProblem {
    /// The setting.
    pub key: String,
    /// Where it comes from.
    pub source: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// The answer to `config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// Every setting.
    pub settings: Vec<Setting>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Setting {
    /// Its key in `[storage]`.
    pub key: String,
    /// Its value; of a secret only `"set"` or null.
    pub value: Value,
    /// Where it comes from: `default`, the file, an environment variable, or a flag.
    pub source: String,
}

/// The answer to `help`, and to a query that meets several verbs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelpReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// Every verb.
    pub verbs: Vec<VerbHelp>,
}

/// One verb in the help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerbHelp {
    /// Its name.
    #[serde(rename = "verb")]
    pub name: Verb,
    /// The key to ask.
    pub key: String,
    /// Who may ask.
    pub role: Role,
    /// What it does.
    pub summary: String,
    /// What it takes.
    pub parameters: Vec<ParameterHelp>,
}

/// One parameter in the help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParameterHelp {
    /// Its name.
    pub name: String,
    /// What its value looks like.
    pub kind: ParamKind,
    /// What it does.
    pub summary: String,
}

/// The answer to `dead_letters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLettersReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// The uploads that were given up, by recording and chunk.
    pub dead_letters: Vec<DeadLetterRow>,
    /// Hand it back as `after` for the next page; null at the end.
    pub next_after: Option<String>,
}

/// An upload that was given up. It is tried again once a day, when its file or the settings change, and by `upload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterRow {
    /// The chunk's recording.
    pub recording: RecordingName,
    /// Its name.
    pub chunk: ChunkName,
    /// Its size.
    pub size_bytes: u64,
    /// Why it was given up.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last.
    pub last_tried_at: String,
    /// When it was tried last.
    pub last_tried_at_ns: UnixNs,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Not begun.
    Queued,
    /// At work.
    Running,
    /// Ended well.
    Done,
    /// Ended with something that was not done.
    Failed,
    /// Stopped by a person.
    Cancelled,
}

/// The answer to a verb that takes long: the same object while it runs and at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobReply {
    /// The machine that answers.
    pub machine_id: MachineId,
    /// Its library.
    pub library_id: String,
    /// The job; its verb is the reply's.
    #[serde(flatten)]
    pub row: JobRow,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobRow {
    /// Its id, a ULID.
    pub job: String,
    /// The verb that was asked for.
    pub verb: Verb,
    /// The recording that it is about; null for all of them.
    pub recording: Option<RecordingName>,
    /// Where it stands.
    pub state: JobState,
    /// How far it is.
    pub progress: Progress,
    /// What holds it back now; it goes on by itself when that ends.
    pub blocked: Option<Blocked>,
    /// What came of it; null until it ends.
    pub result: Option<JobResult>,
    /// Why it failed; null otherwise.
    pub error: Option<Refusal>,
}

/// The answer to `jobs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobsReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// The jobs, the newest first. Those that ended are kept for a while and forgotten by a restart.
    pub jobs: Vec<JobRow>,
    /// Hand it back as `after` for the next page; null at the end.
    pub next_after: Option<String>,
}

/// The answer to `pause` and `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PauseReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// How uploads are paused now; null where they are not.
    pub paused: Option<Paused>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Chunks that are settled.
    pub chunks_done: u64,
    /// Chunks that it is about.
    pub chunks_total: u64,
    /// The size of the settled ones.
    pub bytes_done: u64,
    /// The size of all.
    pub bytes_total: u64,
}
