//! The definition of a verb: everything that other code needs to know about it, in one place.

use std::{fmt::Debug, time::Duration};

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::Refusal,
    job_status::JobReply,
    parameter::{Parameters, check_names},
    params::Params,
    verb::{Role, Verb},
};

/// The kind of a verb's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyShape {
    /// One reply holds everything.
    Whole,
    /// A reply holds one page; `next_after` of the reply is the parameter `after` of the next request.
    Paged {
        /// The field of the reply that holds the rows.
        rows: &'static str,
    },
    /// The verb starts a job. The reply holds its state after the time `wait`, or at its end.
    Job {
        /// The job waits for uploads. Without a running node, they run until it ends.
        uploads: bool,
    },
}

/// One verb. Its type has no values: it stands for the verb in type parameters.
///
/// Parsing, help, JSON Schema, the client and the command line are made from these items.
pub trait VerbDefinition: Debug + Send + Sync + 'static {
    /// The verb.
    const VERB: Verb;
    /// Who may ask.
    const ROLE: Role;
    /// What the verb does, in one line of the help.
    const SUMMARY: &'static str;
    /// What the verb does, in one line of the command line's help.
    const ABOUT: &'static str;
    /// The kind of the reply.
    const SHAPE: ReplyShape;
    /// The parameters.
    type Request: Parameters;
    /// The reply. One of an older or a newer node decodes too.
    type Reply: Debug + Clone + PartialEq + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// Checks parameters against each other.
    ///
    /// # Errors
    /// Two of them contradict each other, or one is missing.
    fn check(_request: &Self::Request) -> Result<(), Refusal> {
        Ok(())
    }

    /// Reads a request from its parameters.
    ///
    /// # Errors
    /// A name is unknown, a value is wrong, or the parameters contradict each other.
    fn parse(params: &Params) -> Result<Self::Request, Refusal> {
        check_names(params, Self::VERB.name(), <Self::Request as Parameters>::PARAMETERS)?;
        let request = <Self::Request as Parameters>::read(params)?;
        Self::check(&request)?;
        Ok(request)
    }
}

/// A verb that starts a job.
pub trait JobVerb: VerbDefinition<Reply = JobReply> {
    /// Sets how long the reply waits for the end of the job.
    fn set_wait(request: &mut Self::Request, wait: Duration);
}
