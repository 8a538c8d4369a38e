//! `list`: the recordings of the library.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    definition::{ReplyShape, VerbDefinition},
    error::{ErrorCode, Refusal, nearest},
    head::ReplyHead,
    lenient::OrUnknown,
    parameter::{Limit, Param, ParamKind, ParameterValue, request},
    params::Params,
    recording::{RecordingState, UploadState},
    time::{Timestamp, UnixNs},
    verb::{Role, Verb},
};

/// Defines `list`.
#[derive(Debug)]
pub enum List {}

impl VerbDefinition for List {
    const VERB: Verb = Verb::List;
    const ROLE: Role = Role::Viewer;
    const SUMMARY: &'static str = "the recordings of this machine, page by page";
    const ABOUT: &'static str = "The recordings of a machine";
    const SHAPE: ReplyShape = ReplyShape::Paged { rows: "recordings" };
    type Request = ListRequest;
    type Reply = ListReply;
}

request! {
    /// Which recordings are listed: those that pass every filter.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct ListRequest {
        /// only names that match this glob (* and ?)
        name: Option<String> = Param::new("name").option("name", "NAME");
        /// only recordings with this tag
        tag: Option<String> = Param::new("tag").option("tag", "TAG");
        /// only recordings that were going on at or after this time
        since: Option<Timestamp> = Param::new("since").option("since", "TIME");
        /// only recordings that began at or before this time
        until: Option<Timestamp> = Param::new("until").option("until", "TIME");
        /// only recordings in this state
        state: Option<RecordingState> = Param::new("state").option("state", "STATE");
        /// rows of a page, 1 to 1000
        limit: Limit = Param::new("limit").default_of("100");
        /// the next_after of the page before
        after: Option<String> = Param::new("after");
    }
}

impl ParameterValue for RecordingState {
    const KIND: ParamKind = ParamKind::Text;

    fn read(params: &Params, name: &str) -> Result<Option<Self>, Refusal> {
        let Some(text) = params.text(name)? else { return Ok(None) };
        let known = Self::ALL.into_iter().find(|state| state.name() == text);
        known.map(Some).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            let hint = match nearest(text, names) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the states are {}", names.join(", ")),
            };
            Refusal::new(ErrorCode::InvalidParams, format!("{name}: there is no such state")).hint(hint)
        })
    }

    fn to_value(&self) -> serde_json::Value {
        self.name().into()
    }
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

/// One recording in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordingRow {
    /// Its name.
    pub recording: String,
    /// The machine that recorded it.
    pub machine_id: String,
    /// What it is at the moment.
    pub state: OrUnknown<RecordingState>,
    /// Nothing here can heal it.
    pub corrupt: bool,
    /// How much is proven in the store.
    pub upload: OrUnknown<UploadState>,
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
