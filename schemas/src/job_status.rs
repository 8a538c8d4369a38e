//! The state of a job: the reply of every verb that starts one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    block::Blocked,
    error::Refusal,
    job::JobResult,
    lenient::OrUnknown,
    names::{MachineId, RecordingName},
    verb::Verb,
};

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

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobRow {
    /// Its id, a ULID.
    pub job: String,
    /// The verb that was asked for.
    pub verb: OrUnknown<Verb>,
    /// The recording that it is about; null for all of them.
    pub recording: Option<RecordingName>,
    /// Where it stands.
    pub state: OrUnknown<JobState>,
    /// How far it is.
    pub progress: Progress,
    /// What holds it back now; it goes on by itself when that ends.
    pub blocked: Option<Blocked>,
    /// What came of it; null until it ends.
    pub result: Option<JobResult>,
    /// Why it failed; null otherwise.
    pub error: Option<Refusal>,
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
