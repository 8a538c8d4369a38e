//! One method per verb: the only door to the engine. It does not know who asks.

mod admin;
mod adopt;
mod base;
mod contract;
mod control;
mod listing;
mod pending;
mod reconcile;
mod removal;
mod status;
mod upload;

use std::fmt;

use bubbaloop_storage_schemas::{
    Role, Verb,
    codec::{self, DecodeError, Format},
    definition::{JobVerb, VerbDefinition},
    digest,
    error::Refusal,
    keys::{self, Space},
    parameter::Param,
    params::Params,
    reply::{ConfigReply, HelpReply, ParameterHelp, VerbHelp},
    verbs::{
        adopt::Adopt, cancel::Cancel, config::Config, dead_letters::DeadLetters, help::Help, info::Info, jobs::Jobs,
        list::List, pause::Pause, reconcile::Reconcile, resume::Resume, rm::Rm, status::Status, upload::Upload,
    },
};
use serde::Serialize;
use serde_json::Value;

pub use self::{
    admin::AdminToken,
    adopt::Tried,
    base::{Service, Setup},
    pending::Pending,
};
use crate::secret::Secret;

/// The reply of some verb.
pub struct Reply(Box<dyn Encode + Send>);

/// A value that can be encoded, whatever its type.
trait Encode {
    fn encode(&self, format: Format) -> Result<Vec<u8>, DecodeError>;
    fn to_json(&self) -> serde_json::Result<Value>;
}

impl<T: Serialize> Encode for T {
    fn encode(&self, format: Format) -> Result<Vec<u8>, DecodeError> {
        codec::encode(self, format)
    }

    fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}

impl Reply {
    /// Makes a reply.
    pub fn new(reply: impl Serialize + Send + 'static) -> Self {
        Self(Box::new(reply))
    }

    /// Encodes it.
    ///
    /// # Errors
    /// It can't be encoded.
    pub fn encode(&self, format: Format) -> Result<Vec<u8>, DecodeError> {
        self.0.encode(format)
    }

    /// Returns it as JSON.
    ///
    /// # Errors
    /// It can't be encoded.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        self.0.to_json()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").field(&self.to_json().ok()).finish()
    }
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// It is here.
    Now(Reply),
    /// It comes when a job ends, or after the asker's `wait`.
    Later(Pending),
}

impl Service {
    /// Answers a request of somebody who shows no token, as [`Service::ask_with`] does.
    ///
    /// # Errors
    /// The request is refused, and nothing was started.
    pub fn ask(&self, verb: Verb, space: Space, params: &Params) -> Result<Answer, Refusal> {
        self.ask_with(verb, space, params, None)
    }

    /// Answers a request. `space` is the one that it came in by: help names its keys. What acts leaves an audit line.
    ///
    /// It may read the disk: call it where blocking is allowed, inside of a runtime.
    ///
    /// # Errors
    /// The request is refused, and nothing was started.
    pub fn ask_with(
        &self,
        verb: Verb,
        space: Space,
        params: &Params,
        token: Option<&Secret>,
    ) -> Result<Answer, Refusal> {
        if verb.role() == Role::Viewer {
            return self.answer(verb, space, params, token);
        }
        let parameters = digest::shorten(&Value::from(params.to_fields()).to_string());
        tracing::info!(target: "audit", %verb, parameters, "asked for");
        let answer = self.answer(verb, space, params, token);
        if let Err(refusal) = &answer {
            tracing::info!(target: "audit", %verb, parameters, code = %refusal.code, "refused");
        }
        answer
    }

    fn answer(&self, verb: Verb, space: Space, params: &Params, token: Option<&Secret>) -> Result<Answer, Refusal> {
        // Whoever may not ask is not told what is wrong with the parameters.
        if verb.role() == Role::Admin {
            self.admin(verb, token)?;
        }
        match verb {
            Verb::Help => now::<Help>(params, |_| Ok(self.help(space))),
            Verb::List => now::<List>(params, |request| self.list(request)),
            Verb::Info => now::<Info>(params, |request| self.info(request)),
            Verb::Status => now::<Status>(params, |_| Ok(self.status())),
            Verb::Config => now::<Config>(params, |_| Ok(self.config())),
            Verb::DeadLetters => now::<DeadLetters>(params, |request| Ok(self.dead_letters(request))),
            Verb::Jobs => now::<Jobs>(params, |request| self.jobs(request)),
            Verb::Cancel => now::<Cancel>(params, |request| self.cancel(request)),
            Verb::Pause => now::<Pause>(params, |request| self.pause(request)),
            Verb::Resume => now::<Resume>(params, |_| self.resume()),
            Verb::Upload => later::<Upload>(params, |request| self.upload(request)),
            Verb::Reconcile => later::<Reconcile>(params, |request| self.reconcile(request)),
            Verb::Adopt => later::<Adopt>(params, |request| self.adopt(request)),
            Verb::Rm => later::<Rm>(params, |request| self.rm(request)),
        }
    }

    /// Returns what can be asked, with the keys of one space.
    pub fn help(&self, space: Space) -> HelpReply {
        let help = |param: &Param| ParameterHelp {
            name: param.name.into(),
            kind: param.kind.into(),
            summary: param.description(),
        };
        let verbs = Verb::ALL.map(|verb| VerbHelp {
            name: verb.into(),
            key: keys::verb(space, &self.identity.machine_id, verb),
            role: verb.role().into(),
            summary: verb.summary().into(),
            parameters: verb.parameters().iter().map(help).collect(),
        });
        HelpReply { head: self.head(Verb::Help), verbs: verbs.into() }
    }

    /// Returns every setting with its source.
    pub fn config(&self) -> ConfigReply {
        ConfigReply { head: self.head(Verb::Config), settings: self.setup.current.borrow().listed.clone() }
    }
}

/// Reads the request of a verb and answers it at once.
fn now<V: VerbDefinition>(
    params: &Params,
    answer: impl FnOnce(&V::Request) -> Result<V::Reply, Refusal>,
) -> Result<Answer, Refusal> {
    Ok(Answer::Now(Reply::new(answer(&V::parse(params)?)?)))
}

/// Reads the request of a verb and starts its job.
fn later<V: JobVerb>(
    params: &Params,
    start: impl FnOnce(&V::Request) -> Result<Pending, Refusal>,
) -> Result<Answer, Refusal> {
    start(&V::parse(params)?).map(Answer::Later)
}
