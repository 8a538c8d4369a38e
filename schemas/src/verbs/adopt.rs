//! `adopt`: makes a recording of files that are none of this machine's recordings.

use std::time::Duration;

use crate::{
    definition::{JobVerb, ReplyShape, VerbDefinition},
    error::{ErrorCode, Refusal},
    job_status::JobReply,
    names::RecordingName,
    parameter::{Param, Wait, request},
    verb::{Role, Verb},
};

/// Defines `adopt`.
#[derive(Debug)]
pub enum Adopt {}

impl VerbDefinition for Adopt {
    const VERB: Verb = Verb::Adopt;
    const ROLE: Role = Role::Operator;
    const SUMMARY: &'static str = "make a recording of what is laid out in another way; the source stays as it is";
    const ABOUT: &'static str = "Make a recording of what is laid out in another way; the source stays as it is";
    const SHAPE: ReplyShape = ReplyShape::Job { uploads: false };
    type Request = AdoptRequest;
    type Reply = JobReply;

    fn check(request: &AdoptRequest) -> Result<(), Refusal> {
        let refused = |message: &str, hint: &str| Err(Refusal::new(ErrorCode::InvalidParams, message).hint(hint));
        match (&request.recording, request.all, &request.name) {
            (Some(_), true, _) => refused("both a recording and all are named", "name one of them"),
            (None, true, Some(_)) => refused("all can't have one name", "leave out name, or adopt them one by one"),
            (None, false, _) => refused(
                "adopt needs a recording",
                "ask adopt?recording=NAME, or adopt?all=true for everything that list shows as unmanaged",
            ),
            (Some(_), false, _) | (None, true, None) => Ok(()),
        }
    }
}

impl JobVerb for Adopt {
    fn set_wait(request: &mut AdoptRequest, wait: Duration) {
        request.wait = Wait::new(wait);
    }
}

request! {
    /// What is adopted, and how.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct AdoptRequest {
        /// what list shows as unmanaged, foreign, unlisted or invalid
        recording: Option<String> = Param::new("recording")
            .positional("NAME|PATH")
            .about("a name that `list` shows, or files and folders of this machine (write ./NAME for one beside you)");
        /// everything that list shows as unmanaged
        all: bool = Param::new("all").switch("all").about("everything that `list` shows as unmanaged");
        /// the new recording's name (default: the source's)
        name: Option<RecordingName> = Param::new("name")
            .option("as", "NAME")
            .about("the new recording's name [default: the source's]");
        /// take what is whole in files that were cut off or damaged
        recover: bool = Param::new("recover").switch("recover");
        /// copy the files instead of giving them a second name
        copy: bool = Param::new("copy").switch("copy");
        /// how long the reply may wait for the end
        wait: Wait = Param::new("wait")
            .default_of("2s")
            .option("wait", "TIME")
            .about("how long to wait for the end; the job goes on after it");
    }
}
