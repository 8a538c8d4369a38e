//! `pause`: stops uploads.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    definition::{ReplyShape, VerbDefinition},
    head::ReplyHead,
    parameter::{Param, request},
    time::UnixNs,
    verb::{Role, Verb},
};

/// Defines `pause`.
#[derive(Debug)]
pub enum Pause {}

impl VerbDefinition for Pause {
    const VERB: Verb = Verb::Pause;
    const ROLE: Role = Role::Operator;
    const SUMMARY: &'static str = "stop uploads until somebody resumes them, or for a time; it outlives a restart";
    const ABOUT: &'static str = "Stop uploads until somebody resumes them, or for a time; it outlives a restart";
    const SHAPE: ReplyShape = ReplyShape::Whole;
    type Request = PauseRequest;
    type Reply = PauseReply;
}

request! {
    /// How long uploads are stopped.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct PauseRequest {
        /// how long; without it until somebody resumes
        duration: Option<Duration> = Param::new("for").option("for", "TIME").about("how long");
    }
}

/// The answer to `pause` and `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PauseReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// How uploads are paused now; null where they are not.
    pub paused: Option<Paused>,
}

/// A person stopped uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Paused {
    /// Since when.
    pub since_ns: UnixNs,
    /// Until when; null until somebody resumes.
    pub until_ns: Option<UnixNs>,
}
