//! `cancel`: stops a job.

use ulid::Ulid;

use crate::{
    definition::{ReplyShape, VerbDefinition},
    job_status::JobReply,
    parameter::{Param, Required, request},
    verb::{Role, Verb},
};

/// Defines `cancel`.
#[derive(Debug)]
pub enum Cancel {}

impl VerbDefinition for Cancel {
    const VERB: Verb = Verb::Cancel;
    const ROLE: Role = Role::Operator;
    const SUMMARY: &'static str = "stop a job; what it did stays done";
    const ABOUT: &'static str = "Stop a job; what it did stays done";
    const SHAPE: ReplyShape = ReplyShape::Whole;
    type Request = CancelRequest;
    type Reply = JobReply;
}

request! {
    /// Which job is stopped.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct CancelRequest {
        /// the job's id
        job: Required<Ulid> = Param::new("job")
            .positional("JOB")
            .about("the job's id, as `jobs` tells it")
            .required("cancel needs a job", "ask cancel?job=ID; jobs tells the ids");
    }
}
