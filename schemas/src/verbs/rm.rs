//! `rm`: removes a recording.

use std::time::Duration;

use crate::{
    definition::{JobVerb, ReplyShape, VerbDefinition},
    error::{ErrorCode, Refusal},
    job_status::JobReply,
    names::RecordingName,
    parameter::{Param, ParamKind, ParameterValue, Required, Wait, request},
    params::Params,
    removal::RemoveFrom,
    verb::{Role, Verb},
};

/// What `from` can be, for hints.
const FROM: &str = "from=local, from=remote or from=both";

/// Defines `rm`.
#[derive(Debug)]
pub enum Rm {}

impl VerbDefinition for Rm {
    const VERB: Verb = Verb::Rm;
    const ROLE: Role = Role::Admin;
    const SUMMARY: &'static str = "remove a recording from this disk, the store or both; needs the admin token";
    const ABOUT: &'static str = "Remove a recording from the node's disk, from the store, or from both";
    const SHAPE: ReplyShape = ReplyShape::Job { uploads: false };
    type Request = RmRequest;
    type Reply = JobReply;
}

impl JobVerb for Rm {
    fn set_wait(request: &mut RmRequest, wait: Duration) {
        request.wait = Wait::new(wait);
    }
}

request! {
    /// What is removed, and from where.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct RmRequest takes TOKEN {
        /// the recording's name
        recording: Required<RecordingName> = Param::new("recording")
            .positional("RECORDING")
            .required("rm needs a recording", "name one recording: rm takes no glob and never everything");
        /// local, remote or both; both needs force
        from: Required<RemoveFrom> = Param::new("from")
            .option("from", "local|remote|both")
            .about("where from; both needs --force")
            .required("rm needs from", FROM);
        /// tell what would be removed and change nothing
        dry_run: bool = Param::new("dry_run").switch("dry-run");
        /// remove what is nowhere else too
        force: bool = Param::new("force").switch("force").about("remove what is not known to be elsewhere too");
        /// how long the reply may wait for the end
        wait: Wait = Param::new("wait")
            .default_of("2s")
            .option("wait", "TIME")
            .about("how long to wait for the end; the job goes on after it");
    }
}

impl RmRequest {
    /// Asks to remove a recording without force.
    pub fn new(recording: RecordingName, from: RemoveFrom) -> Self {
        Self { recording: recording.into(), from: from.into(), dry_run: false, force: false, wait: Wait::default() }
    }
}

impl ParameterValue for RemoveFrom {
    const KIND: ParamKind = ParamKind::Text;

    fn read(params: &Params, name: &str) -> Result<Option<Self>, Refusal> {
        let Some(text) = params.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|()| {
            let message = format!("{name}: neither local nor remote nor both");
            Refusal::new(ErrorCode::InvalidParams, message).hint(FROM)
        })
    }

    fn to_value(&self) -> serde_json::Value {
        self.name().into()
    }
}
