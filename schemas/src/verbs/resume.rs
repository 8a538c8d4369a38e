//! `resume`: continues uploads.

use crate::{
    definition::{ReplyShape, VerbDefinition},
    parameter::NoParameters,
    verb::{Role, Verb},
    verbs::pause::PauseReply,
};

/// Defines `resume`.
#[derive(Debug)]
pub enum Resume {}

impl VerbDefinition for Resume {
    const VERB: Verb = Verb::Resume;
    const ROLE: Role = Role::Operator;
    const SUMMARY: &'static str = "let uploads go on";
    const ABOUT: &'static str = "Let uploads go on";
    const SHAPE: ReplyShape = ReplyShape::Whole;
    type Request = NoParameters;
    type Reply = PauseReply;
}
