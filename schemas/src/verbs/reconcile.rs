//! `reconcile`: compares manifest, files and objects, then repairs.

use std::time::Duration;

use crate::{
    definition::{JobVerb, ReplyShape, VerbDefinition},
    error::{ErrorCode, Refusal},
    job_status::JobReply,
    names::RecordingName,
    parameter::{Param, Wait, request},
    verb::{Role, Verb},
};

/// Defines `reconcile`.
#[derive(Debug)]
pub enum Reconcile {}

impl VerbDefinition for Reconcile {
    const VERB: Verb = Verb::Reconcile;
    const ROLE: Role = Role::Operator;
    const SUMMARY: &'static str =
        "look at manifest, local files and remote objects, then heal; nothing is ever removed";
    const ABOUT: &'static str = "Look at manifest, local files and remote objects, then heal; nothing is ever removed";
    const SHAPE: ReplyShape = ReplyShape::Job { uploads: true };
    type Request = ReconcileRequest;
    type Reply = JobReply;

    fn check(request: &ReconcileRequest) -> Result<(), Refusal> {
        request.target().map(drop)
    }
}

impl JobVerb for Reconcile {
    fn set_wait(request: &mut ReconcileRequest, wait: Duration) {
        request.wait = Wait::new(wait);
    }
}

request! {
    /// What is reconciled, and how.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct ReconcileRequest {
        /// the recording's name
        recording: Option<RecordingName> = Param::new("recording")
            .positional("RECORDING")
            .about("the recording's name, or a glob (* and ?)");
        /// every recording whose name matches this glob (* and ?)
        name: Option<String> = Param::new("name");
        /// every recording of this machine
        all: bool = Param::new("all").switch("all").about("every recording of the machine");
        /// tell what would be done and change nothing
        dry_run: bool = Param::new("dry_run").switch("dry-run");
        /// hash every local file, and fetch and hash every object
        deep: bool = Param::new("deep").switch("deep");
        /// fetch from the store what is damaged, missing or evicted here; not with all
        restore: bool = Param::new("restore")
            .switch("restore")
            .about("fetch from the store what is damaged, missing or evicted here");
        /// how long the reply may wait for the end
        wait: Wait = Param::new("wait")
            .default_of("2s")
            .option("wait", "TIME")
            .about("how long to wait for the end; the job goes on after it");
    }
}

/// Which recordings a reconcile is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconcileTarget<'a> {
    /// One recording.
    One(&'a RecordingName),
    /// Those whose names match a glob.
    Matching(&'a str),
    /// All of this machine.
    All,
}

impl ReconcileRequest {
    /// Returns which recordings it is about.
    ///
    /// # Errors
    /// None or more than one of `recording`, `name` and `all` is given, or `restore` is given with `all`.
    pub fn target(&self) -> Result<ReconcileTarget<'_>, Refusal> {
        let refused = |message: &str, hint: &str| Err(Refusal::new(ErrorCode::InvalidParams, message).hint(hint));
        match (&self.recording, &self.name, self.all) {
            (Some(recording), None, false) => Ok(ReconcileTarget::One(recording)),
            (None, Some(glob), false) => Ok(ReconcileTarget::Matching(glob)),
            (None, None, true) if self.restore => refused(
                "restore does not go with all: a whole library may not be meant to be fetched",
                "give a recording, or name=GLOB",
            ),
            (None, None, true) => Ok(ReconcileTarget::All),
            (None, None, false) => refused(
                "reconcile needs a recording",
                "ask reconcile?recording=NAME, ?name=GLOB, or ?all=true for every recording",
            ),
            (Some(_), Some(_), _) | (Some(_), None, true) | (None, Some(_), true) => {
                refused("more than one of recording, name and all is given", "give one of them")
            }
        }
    }
}
