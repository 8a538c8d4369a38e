//! Asking a node and showing what it answers.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use bubbaloop_storage_schemas::{
    MachineId, Verb,
    error::ErrorCode,
    limits::{TOKEN_BYTES_MAX, WAIT_MAX},
    params::Params,
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    args::{Ask, Asked, Global},
    output::{Exit, READER_GONE, failed, note, result},
    progress::JobBar,
    remote,
    screen::Screen,
    show::{Answers, Form, Shown, show, text},
    table,
};
use crate::{
    bus::client::{Client, JsonReply as Told},
    clock::{Clock, SystemClock},
    config::Config,
    content,
    library::identity::{HomeLock, Identity},
    secret::Secret,
    serve::offline,
};

/// How long the first question waits for a job's end.
const JOB_WAIT: Duration = Duration::from_secs(2);

/// Between two looks at a job that goes on.
const JOB_LOOK: Duration = Duration::from_secs(1);

/// Between two looks at a job whose bar is drawn.
const BAR_LOOK: Duration = Duration::from_millis(300);

/// A client, and whom it asks.
pub(super) struct Asker {
    pub(super) client: Client,
    pub(super) machine: Option<MachineId>,
    pub(super) timeout: Duration,
    /// Whose settings tell the store.
    home: PathBuf,
    set: Vec<(String, String)>,
    /// The machines that the store knew when they were asked for first.
    stored: OnceCell<Vec<MachineId>>,
}

/// Why nobody is reached.
#[derive(Debug)]
pub(super) struct Unreached {
    pub(super) message: String,
    pub(super) hint: &'static str,
}

impl Unreached {
    /// Tells it.
    pub(super) fn told(&self) -> Exit {
        failed(&self.message, Some(self.hint));
        Exit::NoAnswer
    }
}

/// Asks a verb of the node of this home, of another machine, or of all of them.
pub(super) async fn run(home: &Path, global: &Global, ask: &Ask, stop: impl Future<Output = ()>) -> Exit {
    let mut stop = pin!(stop);
    let token = match token(home, global, ask) {
        Ok(token) => token,
        Err(exit) => return exit,
    };
    if global.offline {
        return tokio::select! {
            exit = offline(home, global, ask, token) => exit,
            () = &mut stop => Exit::Failed,
        };
    }
    let asker = match Asker::connect(home, global).await {
        Ok(asker) => Asker { client: asker.client.showing(token), ..asker },
        Err(unreached) => return unreached.told(),
    };
    tokio::select! {
        shown = asker.answer(global, ask, Form::of(global)) => shown.print(),
        () = &mut stop => interrupted(ask),
    }
}

/// Reads the admin token for what needs it: of the file that is named, else of the environment or this home. What is
/// for one machine only is not asked of all.
fn token(home: &Path, global: &Global, ask: &Ask) -> Result<Option<Secret>, Exit> {
    let Ask::Rm { token_file, .. } = ask else { return Ok(None) };
    if global.machine == Some(Asked::All) {
        failed("rm is for one machine", Some("name it with --machine NAME"));
        return Err(Exit::Usage);
    }
    let Some(path) = token_file else { return Ok(Config::load(home, &global.set).settings.admin_token) };
    match content::read(path, TOKEN_BYTES_MAX as u64).map(String::from_utf8) {
        Ok(Ok(text)) => Ok(Some(Secret::new(text.trim().to_owned()))),
        Ok(Err(_)) => Err(failed(&format!("{} is no text", path.display()), None)),
        Err(error) => Err(failed(&error.to_string(), Some("--token-file names the file that holds the token alone"))),
    }
}

/// Answers in this process.
async fn offline(home: &Path, global: &Global, ask: &Ask, token: Option<Secret>) -> Exit {
    let (verb, mut params) = ask.request();
    if let Some(wait) = ask.job_wait() {
        params = params.with("wait", wait.unwrap_or(WAIT_MAX).as_secs_f64());
    }
    match offline::ask(home, &global.set, verb, params, token).await {
        Ok(told) => {
            let told = vec![told];
            show(ask, global, Form::of(global), Answers { told, ..Answers::default() }).print()
        }
        Err(error) => failed(&error.to_string(), None),
    }
}

fn interrupted(ask: &Ask) -> Exit {
    if ask.job_wait().is_some() {
        note(format_args!("the job goes on in the node; `jobs` tells how it goes, `cancel` stops it"));
    }
    Exit::Failed
}

/// Has the node of this home look at a recording, where one runs: it finds it by itself, if later.
pub(super) async fn point_at(home: &Path, global: &Global, recording: &str) {
    let global = Global { machine: None, ..global.clone() };
    if HomeLock::take(home).is_ok() {
        return;
    }
    if let Ok(asker) = Asker::connect(home, &global).await {
        let params = Params::default().with("recording", recording).with("limit", 1);
        asker.ask(Verb::Info, &params, Duration::ZERO).await.ok();
    }
}

/// Shows events as they come, until `stop`.
pub(super) async fn follow(home: &Path, global: &Global, stop: impl Future<Output = ()>) -> Exit {
    let asker = match Asker::connect(home, global).await {
        Ok(asker) => asker,
        Err(unreached) => return unreached.told(),
    };
    let (is_json, screen) = (global.json, Screen::of_stdout());
    let show = move |event: Value| match is_json {
        true => result(format_args!("{event}")),
        false => result(format_args!("{}", table::event(screen, &event))),
    };
    match asker.client.listen(asker.machine.as_ref(), show).await {
        Ok(_listening) => {
            tokio::select! {
                () = stop => {}
                () = READER_GONE.notified() => {}
            }
            Exit::Done
        }
        Err(error) => failed(&error.to_string(), None),
    }
}

/// Joins the bus where the node of this home listens, or where the settings say.
pub(super) async fn dial(home: &Path, global: &Global) -> Result<Client, Unreached> {
    let config = Config::load(home, &global.set);
    let holder = HomeLock::holder(home).filter(|_| HomeLock::take(home).is_err());
    let mut endpoints: Vec<_> = holder.into_iter().flat_map(|holder| holder.endpoints).collect();
    endpoints.extend(config.settings.zenoh.connect.iter().cloned());
    Client::connect(&config.settings.zenoh, &endpoints).await.map_err(|_| Unreached {
        message: match endpoints.is_empty() {
            true => "the node is not on the bus, and zenoh.connect names no endpoint".to_owned(),
            false => format!("nothing answers on {}", endpoints.join(", ")),
        },
        hint: "is the node running? start it with `bubbaloop-storage serve`",
    })
}

impl Asker {
    /// Reaches the node of this home, or whatever the settings dial.
    pub(super) async fn connect(home: &Path, global: &Global) -> Result<Self, Unreached> {
        let own = || HomeLock::holder(home).map(|holder| holder.machine_id);
        let own = || own().or_else(|| Identity::load(home).map(|identity| identity.machine_id));
        let machine = match &global.machine {
            Some(Asked::All) => None,
            Some(Asked::One(machine)) => Some(machine.clone()),
            None => Some(own().ok_or_else(|| Unreached {
                message: format!("no node was ever started in {}", home.display()),
                hint: "start one with `bubbaloop-storage serve`, or name another with --machine",
            })?),
        };
        Ok(Self {
            client: dial(home, global).await?,
            machine,
            timeout: global.timeout,
            home: home.to_owned(),
            set: global.set.clone(),
            stored: OnceCell::new(),
        })
    }

    /// Returns the machines of which the store of this home holds something: one that is off is still of the fleet.
    async fn stored(&self) -> &[MachineId] {
        let looked = async {
            match tokio::time::timeout(self.timeout, Box::pin(remote::machines(&self.home, &self.set))).await {
                Ok(Ok(machines)) => return machines,
                Ok(Err(reason)) => note(format_args!("which machines the store knows is not told: {reason}")),
                Err(_) => note(format_args!("which machines the store knows is not told: no answer in time")),
            }
            Vec::new()
        };
        self.stored.get_or_init(|| looked).await
    }

    /// Asks and puts together what is to be shown.
    pub(super) async fn answer(&self, global: &Global, ask: &Ask, form: Form) -> Shown {
        let (alive, stored) = match self.machine {
            Some(_) => (BTreeSet::new(), Vec::new()),
            None => {
                let (alive, stored) = tokio::join!(self.client.alive(global.timeout), self.stored());
                (alive.unwrap_or_default(), stored.to_vec())
            }
        };
        let told = match ask.job_wait() {
            Some(wait) => self.job(ask, wait, global.json).await,
            None => self.pages(ask).await.map(|told| (told, BTreeSet::new())),
        };
        match told {
            Ok((told, silent)) => {
                show(ask, global, form, Answers { told, machine: self.machine.clone(), alive, stored, silent })
            }
            Err(error) => Shown::failure(&error.to_string(), None, Exit::Failed),
        }
    }

    pub(super) async fn ask(
        &self,
        verb: Verb,
        params: &Params,
        wait: Duration,
    ) -> Result<Vec<Told>, crate::bus::BusError> {
        self.client.ask_untyped(self.machine.as_ref(), verb, params, self.timeout + wait).await
    }

    /// Asks for every page and joins those of each machine. A machine of which a page is missing is an error.
    async fn pages(&self, ask: &Ask) -> Result<Vec<Told>, crate::bus::BusError> {
        let (verb, params) = ask.request();
        self.client.ask_all_untyped(self.machine.as_ref(), verb, &params, self.timeout).await
    }

    /// Asks for a job, then how it goes until it ends, the time is up, or its machine stops answering. Returns what was
    /// told last, and the machines that stopped.
    async fn job(
        &self,
        ask: &Ask,
        wait: Option<Duration>,
        is_quiet: bool,
    ) -> Result<(Vec<Told>, BTreeSet<String>), crate::bus::BusError> {
        let clock = SystemClock::start();
        let began = clock.tick();
        let (verb, params) = ask.request();
        let mut bar = JobBar::begin(is_quiet);
        let (first, look) = if bar.is_drawn() { (BAR_LOOK, BAR_LOOK) } else { (JOB_WAIT, JOB_LOOK) };
        let wait = wait.unwrap_or(Duration::MAX);
        let step = wait.min(first);
        let mut told = self.ask(verb, &params.with("wait", json!(step.as_secs_f64())), step).await?;
        let mut heard_at = vec![clock.tick(); told.len()];
        let mut silent = BTreeSet::new();
        loop {
            let left = wait.saturating_sub(clock.tick().since(began));
            if left.is_zero() || !told.iter().any(|told| goes_on(told, &silent)) {
                return Ok((told, silent));
            }
            bar.show(told.iter().filter_map(|told| told.as_ref().ok()));
            tokio::time::sleep(left.min(look)).await;
            for (told, heard_at) in told.iter_mut().zip(&mut heard_at) {
                let has_ended = !goes_on(told, &silent);
                let Ok(job) = told else { continue };
                if has_ended {
                    continue;
                }
                if self.look_at(job, ask).await? {
                    *heard_at = clock.tick();
                } else if clock.tick().since(*heard_at) >= self.timeout {
                    silent.insert(text(job, "machine_id").to_owned());
                }
            }
        }
    }

    /// Asks the machine of a job how it goes, and tells whether it answered.
    async fn look_at(&self, job: &mut Value, ask: &Ask) -> Result<bool, crate::bus::BusError> {
        let machine: Option<MachineId> = job["machine_id"].as_str().and_then(|id| id.parse().ok());
        let params = Params::default().with("job", text(job, "job"));
        match self.client.ask_untyped(machine.as_ref(), Verb::Jobs, &params, self.timeout).await?.into_iter().next() {
            Some(Ok(jobs)) => {
                for (name, value) in jobs["jobs"][0].as_object().into_iter().flatten() {
                    job[name] = value.clone();
                }
            }
            // The node was started again, or took up other settings, and knows nothing of it: asking again goes on with it.
            Some(Err(refusal)) if refusal.refusal.code == ErrorCode::NotFound => {
                let (verb, params) = ask.request();
                let told =
                    self.client.ask_untyped(machine.as_ref(), verb, &params.with("wait", 0), self.timeout).await?;
                match told.into_iter().next() {
                    Some(Ok(again)) => *job = again,
                    Some(Err(refusal)) if !refusal.refusal.retryable => {
                        job["state"] = json!("failed");
                        job["error"] = json!(refusal.refusal);
                    }
                    Some(Err(_)) => {}
                    None => return Ok(false),
                }
            }
            // It can't tell just now.
            Some(Err(_)) => {}
            None => return Ok(false),
        }
        Ok(true)
    }
}

/// Tells whether a job goes on on a machine that answers.
fn goes_on(told: &Told, silent: &BTreeSet<String>) -> bool {
    told.as_ref().is_ok_and(|job| {
        ["queued", "running"].contains(&text(job, "state")) && !silent.contains(text(job, "machine_id"))
    })
}
