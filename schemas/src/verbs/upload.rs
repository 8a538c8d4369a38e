//! `upload`: uploads a recording now.

use std::time::Duration;

use crate::{
    definition::{JobVerb, ReplyShape, VerbDefinition},
    error::{ErrorCode, Refusal},
    job_status::JobReply,
    names::RecordingName,
    parameter::{Param, Wait, request},
    verb::{Role, Verb},
};

/// Defines `upload`.
#[derive(Debug)]
pub enum Upload {}

impl VerbDefinition for Upload {
    const VERB: Verb = Verb::Upload;
    const ROLE: Role = Role::Operator;
    const SUMMARY: &'static str = "send now what is known of a recording";
    const ABOUT: &'static str = "Send now what is known of a recording";
    const SHAPE: ReplyShape = ReplyShape::Job { uploads: true };
    type Request = UploadRequest;
    type Reply = JobReply;

    fn check(request: &UploadRequest) -> Result<(), Refusal> {
        let refused = |message: &str, hint: &str| Err(Refusal::new(ErrorCode::InvalidParams, message).hint(hint));
        match (&request.recording, request.all) {
            (Some(_), true) => refused("both a recording and all are named", "name one of them"),
            (None, false) => {
                refused("upload needs a recording", "ask upload?recording=NAME, or upload?all=true for every recording")
            }
            (Some(_), false) | (None, true) => Ok(()),
        }
    }
}

impl JobVerb for Upload {
    fn set_wait(request: &mut UploadRequest, wait: Duration) {
        request.wait = Wait::new(wait);
    }
}

request! {
    /// What is uploaded: one recording, or all.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct UploadRequest {
        /// the recording's name
        recording: Option<RecordingName> = Param::new("recording").positional("RECORDING");
        /// every recording of this machine
        all: bool = Param::new("all").switch("all").about("every recording of the machine");
        /// how long the reply may wait for the end
        wait: Wait = Param::new("wait")
            .default_of("2s")
            .option("wait", "TIME")
            .about("how long to wait for the end; the upload goes on after it");
    }
}
