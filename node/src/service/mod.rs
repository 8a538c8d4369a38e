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

use bubbaloop_storage_schemas::{
    Role, Verb, digest,
    error::Refusal,
    keys::{self, Space},
    params::Params,
    reply::{ConfigReply, HelpReply, ParameterHelp, Reply, VerbHelp},
    verb::Param,
};
use serde_json::Value;

pub use self::{
    admin::AdminToken,
    adopt::Tried,
    base::{Service, Setup},
    pending::Pending,
};
use crate::secret::Secret;

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
        match verb {
            Verb::Help => params.check_names(verb).map(|()| Answer::Now(self.help(space))),
            Verb::List => self.list(params).map(Answer::Now),
            Verb::Info => self.info(params).map(Answer::Now),
            Verb::Status => self.status(params).map(Answer::Now),
            Verb::Config => self.config(params).map(Answer::Now),
            Verb::DeadLetters => self.dead_letters(params).map(Answer::Now),
            Verb::Jobs => self.jobs(params).map(Answer::Now),
            Verb::Cancel => self.cancel(params).map(Answer::Now),
            Verb::Pause => self.pause(params).map(Answer::Now),
            Verb::Resume => self.resume(params).map(Answer::Now),
            Verb::Upload => self.upload(params).map(Answer::Later),
            Verb::Reconcile => self.reconcile(params).map(Answer::Later),
            Verb::Adopt => self.adopt(params).map(Answer::Later),
            Verb::Rm => self.rm(params, token).map(Answer::Later),
        }
    }

    /// Tells what can be asked, with the keys of one space.
    pub fn help(&self, space: Space) -> Reply {
        let help =
            |param: &Param| ParameterHelp { name: param.name.into(), kind: param.kind, summary: param.summary.into() };
        let verbs = Verb::ALL.map(|verb| VerbHelp {
            name: verb,
            key: keys::verb(space, &self.identity.machine_id, verb),
            role: verb.role(),
            summary: verb.summary().into(),
            parameters: verb.parameters().iter().map(help).collect(),
        });
        Reply::Help(HelpReply { head: self.head(Verb::Help), verbs: verbs.into() })
    }

    /// Tells every setting with its source.
    ///
    /// # Errors
    /// A parameter is unknown.
    pub fn config(&self, params: &Params) -> Result<Reply, Refusal> {
        params.check_names(Verb::Config)?;
        Ok(Reply::Config(ConfigReply {
            head: self.head(Verb::Config),
            settings: self.setup.current.borrow().listed.clone(),
        }))
    }
}
