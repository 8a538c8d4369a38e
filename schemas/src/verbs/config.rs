//! `config`: the settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    definition::{ReplyShape, VerbDefinition},
    head::ReplyHead,
    parameter::NoParameters,
    verb::{Role, Verb},
};

/// Defines `config`.
#[derive(Debug)]
pub enum Config {}

impl VerbDefinition for Config {
    const VERB: Verb = Verb::Config;
    const ROLE: Role = Role::Viewer;
    const SUMMARY: &'static str = "every setting with its source; secrets only as set or not";
    const ABOUT: &'static str = "Every setting with its source";
    const SHAPE: ReplyShape = ReplyShape::Whole;
    type Request = NoParameters;
    type Reply = ConfigReply;
}

/// The answer to `config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// Every setting.
    pub settings: Vec<Setting>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Setting {
    /// Its key in `[storage]`.
    pub key: String,
    /// Its value; of a secret only `"set"` or null.
    pub value: Value,
    /// Where it comes from: `default`, the file, an environment variable, or a flag.
    pub source: String,
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigProblem {
    /// The setting.
    pub key: String,
    /// Where it comes from.
    pub source: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}
