//! `dead_letters`: the uploads that were given up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    definition::{ReplyShape, VerbDefinition},
    error::{ErrorCode, Refusal},
    head::ReplyHead,
    names::{ChunkName, RecordingName},
    parameter::{Limit, Param, ParamKind, ParameterValue, request},
    params::Params,
    time::UnixNs,
    verb::{Role, Verb},
};

/// Defines `dead_letters`.
#[derive(Debug)]
pub enum DeadLetters {}

impl VerbDefinition for DeadLetters {
    const VERB: Verb = Verb::DeadLetters;
    const ROLE: Role = Role::Viewer;
    const SUMMARY: &'static str = "the uploads that were given up, each with its reason";
    const ABOUT: &'static str = "The uploads that were given up, each with its reason";
    const SHAPE: ReplyShape = ReplyShape::Paged { rows: "dead_letters" };
    type Request = DeadLettersRequest;
    type Reply = DeadLettersReply;
}

request! {
    /// Which page of the dead letters is listed.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct DeadLettersRequest {
        /// rows of a page, 1 to 1000
        limit: Limit = Param::new("limit").default_of("100");
        /// the next_after of the page before
        after: Option<DeadLetterPlace> = Param::new("after");
    }
}

/// The position of a dead letter in the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadLetterPlace {
    /// The recording of the chunk.
    pub recording: RecordingName,
    /// The chunk.
    pub chunk: ChunkName,
}

impl std::fmt::Display for DeadLetterPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.recording, self.chunk)
    }
}

impl ParameterValue for DeadLetterPlace {
    const KIND: ParamKind = ParamKind::Text;

    fn read(params: &Params, name: &str) -> Result<Option<Self>, Refusal> {
        let Some(text) = params.text(name)? else { return Ok(None) };
        let place = text.split_once('/').and_then(|(recording, chunk)| {
            Some(Self { recording: recording.parse().ok()?, chunk: chunk.parse().ok()? })
        });
        place.map(Some).ok_or_else(|| {
            Refusal::new(ErrorCode::InvalidParams, format!("{name}: not the place of a dead letter"))
                .hint("hand back next_after as it came")
        })
    }

    fn to_value(&self) -> serde_json::Value {
        self.to_string().into()
    }
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
