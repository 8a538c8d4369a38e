//! The first fields of every reply.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{names::MachineId, verb::Verb};

/// Who answers what: the first fields of every reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplyHead {
    /// The machine that answers.
    pub machine_id: MachineId,
    /// Its library.
    pub library_id: String,
    /// The verb that is answered.
    pub verb: Verb,
}
