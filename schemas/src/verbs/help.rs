//! `help`: the verbs and their parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    definition::{ReplyShape, VerbDefinition},
    head::ReplyHead,
    lenient::OrUnknown,
    parameter::{NoParameters, ParamKind},
    verb::{Role, Verb},
};

/// Defines `help`.
#[derive(Debug)]
pub enum Help {}

impl VerbDefinition for Help {
    const VERB: Verb = Verb::Help;
    const ROLE: Role = Role::Viewer;
    const SUMMARY: &'static str = "what can be asked of this node";
    const ABOUT: &'static str = "What can be asked of the node";
    const SHAPE: ReplyShape = ReplyShape::Whole;
    type Request = NoParameters;
    type Reply = HelpReply;
}

/// The answer to `help`, and to a query that meets several verbs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelpReply {
    /// Who answers.
    #[serde(flatten)]
    pub head: ReplyHead,
    /// Every verb.
    pub verbs: Vec<VerbHelp>,
}

/// One verb in the help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerbHelp {
    /// Its name.
    #[serde(rename = "verb")]
    pub name: OrUnknown<Verb>,
    /// The key to ask.
    pub key: String,
    /// Who may ask.
    pub role: OrUnknown<Role>,
    /// What it does.
    pub summary: String,
    /// What it takes.
    pub parameters: Vec<ParameterHelp>,
}

/// One parameter in the help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParameterHelp {
    /// Its name.
    pub name: String,
    /// What its value looks like.
    pub kind: OrUnknown<ParamKind>,
    /// What it does.
    pub summary: String,
}
