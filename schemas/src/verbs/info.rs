//! `info`: one recording and its chunks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    definition::{ReplyShape, VerbDefinition},
    error::{ErrorCode, Refusal},
    head::ReplyHead,
    lenient::OrUnknown,
    names::{ChunkName, RecordingName},
    parameter::{Limit, Param, ParamKind, ParameterValue, Required, request},
    params::Params,
    proof::Proof,
    recording::{ChunkLocal, ChunkUpload, RecordingState, UploadState},
    time::UnixNs,
    verb::{Role, Verb},
};

/// Defines `info`.
#[derive(Debug)]
pub enum Info {}

impl VerbDefinition for Info {
    const VERB: Verb = Verb::Info;
    const ROLE: Role = Role::Viewer;
    const SUMMARY: &'static str = "one recording, its manifest and its chunks";
    const ABOUT: &'static str = "One recording and its chunks";
    const SHAPE: ReplyShape = ReplyShape::Paged { rows: "chunks" };
    type Request = InfoRequest;
    type Reply = InfoReply;
}

request! {
    /// Which recording is described, and from which chunk on.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct InfoRequest {
        /// the recording's name
        recording: Required<RecordingName> = Param::new("recording")
            .positional("RECORDING")
            .required("info needs a recording", "ask info?recording=NAME; list tells the names");
        /// rows of a page, 1 to 1000
        limit: Limit = Param::new("limit").default_of("100");
        /// the next_after of the page before
        after: Option<ChunkName> = Param::new("after");
    }
}

impl InfoRequest {
    /// Asks for a recording from its first chunk on.
    pub fn new(recording: RecordingName) -> Self {
        Self { recording: recording.into(), limit: Limit::default(), after: None }
    }
}

/// The chunk after which a page begins.
impl ParameterValue for ChunkName {
    const KIND: ParamKind = ParamKind::Text;

    fn read(params: &Params, name: &str) -> Result<Option<Self>, Refusal> {
        let Some(text) = params.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|error| {
            Refusal::new(ErrorCode::InvalidParams, format!("{name}: {error}")).hint("hand back next_after as it came")
        })
    }

    fn to_value(&self) -> Value {
        self.to_string().into()
    }
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
    pub state: OrUnknown<RecordingState>,
    /// Nothing here can heal it.
    pub corrupt: bool,
    /// How much is proven in the store.
    pub upload: OrUnknown<UploadState>,
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
    pub local: OrUnknown<ChunkLocal>,
    /// How far its upload is.
    pub upload: OrUnknown<ChunkUpload>,
    /// How the upload is known; null without one.
    pub proof: Option<OrUnknown<Proof>>,
    /// When it was proven; only where it is.
    pub uploaded_at_ns: Option<UnixNs>,
    /// When it was proven; only where it is.
    pub uploaded_at: Option<String>,
    /// Why it is damaged or given up.
    pub reason: Option<String>,
}
