//! `jobs`: the jobs that run, and those that ended lately.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::{
    definition::{ReplyShape, VerbDefinition},
    head::ReplyHead,
    job_status::JobRow,
    parameter::{Limit, Param, request},
    verb::{Role, Verb},
};

/// Defines `jobs`.
#[derive(Debug)]
pub enum Jobs {}

impl VerbDefinition for Jobs {
    const VERB: Verb = Verb::Jobs;
    const ROLE: Role = Role::Viewer;
    const SUMMARY: &'static str = "what people asked for, at work and lately ended";
    const ABOUT: &'static str = "What people asked for, at work and lately ended";
    const SHAPE: ReplyShape = ReplyShape::Paged { rows: "jobs" };
    type Request = JobsRequest;
    type Reply = JobsReply;
}

request! {
    /// Which jobs are listed.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct JobsRequest {
        /// only the job of this id
        job: Option<Ulid> = Param::new("job").positional("JOB").about("only this one");
        /// rows of a page, 1 to 1000
        limit: Limit = Param::new("limit").default_of("100");
        /// the next_after of the page before
        after: Option<Ulid> = Param::new("after");
    }
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
