//! One method per verb: the only door to the engine. It does not know who asks.

mod adopt;
mod contract;
mod control;
mod listing;
mod reconcile;
mod removal;
mod status;
mod upload;

use std::{path::PathBuf, sync::Arc};

use bubbaloop_storage_schemas::{
    Role, Verb, digest,
    error::Refusal,
    journal::StoreId,
    keys::{self, Space},
    params::Params,
    reply::{ConfigProblem, ConfigReply, HelpReply, ParameterHelp, Reply, ReplyHead, VerbHelp},
    verb::Param,
};
use serde_json::Value;
use tokio::sync::watch;

pub use self::{adopt::Tried, removal::AdminToken, upload::Pending};
use crate::{
    clock::Clock,
    config::CurrentSettings,
    engine::{facts::Facts, jobs::Jobs, sync::Sync},
    library::identity::Identity,
    secret::Secret,
};

/// What a node was started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The folder of recordings.
    pub recordings: PathBuf,
    /// The kind of store; `None` where none is configured.
    pub backend: Option<String>,
    /// Its id in the journal.
    pub store_id: Option<StoreId>,
    /// Its folder, where it is one.
    pub store_folder: Option<PathBuf>,
    /// Commands of the node contract may act, not only look.
    pub commands_act: bool,
    /// What tells who may ask for what an admin may.
    pub admin_token: AdminToken,
    /// The settings as they are now: some change while the node runs.
    pub current: watch::Receiver<CurrentSettings>,
    /// What is wrong with the store that they name.
    pub store_problems: Vec<ConfigProblem>,
}

/// Answers for one library.
#[derive(Debug)]
pub struct Service {
    identity: Identity,
    sync: Arc<Sync>,
    jobs: Jobs,
    facts: Arc<Facts>,
    clock: Arc<dyn Clock>,
    setup: Setup,
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
    /// Makes the service of one library.
    pub const fn new(
        identity: Identity,
        sync: Arc<Sync>,
        jobs: Jobs,
        facts: Arc<Facts>,
        clock: Arc<dyn Clock>,
        setup: Setup,
    ) -> Self {
        Self { identity, sync, jobs, facts, clock, setup }
    }

    /// Ends the jobs: the node, or this putting together of it, is ending. Whoever waits for one is told its state.
    pub fn stop_jobs(&self) {
        self.jobs.stop();
    }

    /// Returns whose library it is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

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

    fn head(&self, verb: Verb) -> ReplyHead {
        let Identity { machine_id, library_id } = self.identity.clone();
        ReplyHead { machine_id, library_id, verb }
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
