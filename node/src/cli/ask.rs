//! Asking a node and showing what it answers.

use std::{collections::BTreeSet, path::Path, pin::pin, time::Duration};

use bubbaloop_storage_schemas::{
    MachineId, Verb,
    error::{ErrorCode, ErrorReply},
    limits::{TOKEN_BYTES_MAX, WAIT_MAX},
    params::Params,
};
use serde_json::{Value, json};

use super::{
    Exit,
    args::{Ask, Asked, Global},
    failed, note, result, table,
};
use crate::{
    bus::client::{Client, Told},
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

/// Pages of a list or of a recording's chunks that are put together; more are cut off and told.
const PAGES_MAX: usize = 1000;

/// A client, and whom it asks.
struct Asker {
    client: Client,
    machine: Option<MachineId>,
    timeout: Duration,
}

/// What came of a question.
#[derive(Default)]
struct Answers {
    told: Vec<Told>,
    /// The machine that was asked; none where all were.
    machine: Option<MachineId>,
    /// Machines that were alive when all were asked.
    alive: BTreeSet<String>,
    /// Machines that answered, and did not answer when they were asked how it goes.
    silent: BTreeSet<String>,
}

/// Between two questions of a status that is watched.
const WATCH_EVERY: Duration = Duration::from_secs(2);

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
        Err(exit) => return exit,
    };
    let is_watched = matches!(ask, Ask::Status { watch: true });
    loop {
        let exit = tokio::select! {
            exit = asker.answer(global, ask) => exit,
            () = &mut stop => return interrupted(ask),
        };
        if !is_watched {
            return exit;
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => result(format_args!("")),
            () = &mut stop => return exit,
        }
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

/// Rows of a page where nobody shares the answer's way.
const OFFLINE_ROWS: u64 = bubbaloop_storage_schemas::limits::PAGE_ROWS_MAX as u64;

/// Answers in this process.
async fn offline(home: &Path, global: &Global, ask: &Ask, token: Option<Secret>) -> Exit {
    let (verb, mut params) = ask.request();
    if let Some(wait) = ask.job_wait() {
        params = params.with("wait", wait.unwrap_or(WAIT_MAX).as_secs_f64());
    }
    if matches!(ask, Ask::List { .. } | Ask::Info { .. }) {
        params = params.with("limit", OFFLINE_ROWS);
    }
    match offline::ask(home, &global.set, verb, params, token).await {
        Ok(told) => {
            let told = vec![told.map(|reply| json!(reply))];
            show(ask, global, Answers { told, ..Answers::default() })
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
        Err(exit) => return exit,
    };
    let is_json = global.json;
    let show = move |event: Value| match is_json {
        true => result(format_args!("{event}")),
        false => result(format_args!("{}", table::event(&event))),
    };
    match asker.client.listen(asker.machine.as_ref(), show).await {
        Ok(_listening) => {
            stop.await;
            Exit::Done
        }
        Err(error) => failed(&error.to_string(), None),
    }
}

impl Asker {
    /// Reaches the node of this home, or whatever the settings dial.
    async fn connect(home: &Path, global: &Global) -> Result<Self, Exit> {
        let config = Config::load(home, &global.set);
        let holder = HomeLock::holder(home).filter(|_| HomeLock::take(home).is_err());
        let mut endpoints: Vec<_> = holder.iter().flat_map(|holder| holder.endpoints.clone()).collect();
        endpoints.extend(config.settings.zenoh.connect.iter().cloned());
        let own = || holder.map(|holder| holder.machine_id).or_else(|| Identity::load(home).map(|it| it.machine_id));
        let machine = match &global.machine {
            Some(Asked::All) => None,
            Some(Asked::One(machine)) => Some(machine.clone()),
            None => Some(own().ok_or_else(|| {
                let message = format!("no node was ever started in {}", home.display());
                failed(&message, Some("start one with `bubbaloop-storage serve`, or name another with --machine"));
                Exit::NoAnswer
            })?),
        };
        let client = Client::connect(&config.settings.zenoh, &endpoints).await.map_err(|_| {
            let message = match endpoints.is_empty() {
                true => "the node is not on the bus, and zenoh.connect names no endpoint".to_owned(),
                false => format!("nothing answers on {}", endpoints.join(", ")),
            };
            failed(&message, Some("is the node running? start it with `bubbaloop-storage serve`"));
            Exit::NoAnswer
        })?;
        Ok(Self { client, machine, timeout: global.timeout })
    }

    async fn answer(&self, global: &Global, ask: &Ask) -> Exit {
        let alive = match self.machine {
            Some(_) => BTreeSet::new(),
            None => self.client.alive(global.timeout).await.unwrap_or_default(),
        };
        let told = match ask.job_wait() {
            Some(wait) => self.job(ask, wait).await,
            None => self.pages(ask).await.map(|told| (told, BTreeSet::new())),
        };
        match told {
            Ok((told, silent)) => show(ask, global, Answers { told, machine: self.machine.clone(), alive, silent }),
            Err(error) => failed(&error.to_string(), None),
        }
    }

    async fn ask(&self, verb: Verb, params: &Params, wait: Duration) -> Result<Vec<Told>, crate::bus::BusError> {
        self.client.ask(self.machine.as_ref(), verb, params, self.timeout + wait).await
    }

    /// Asks for every page and puts each machine's together.
    async fn pages(&self, ask: &Ask) -> Result<Vec<Told>, crate::bus::BusError> {
        let (verb, params) = ask.request();
        let mut whole = Vec::new();
        for first in self.ask(verb, &params, Duration::ZERO).await? {
            let Ok(mut first) = first else {
                whole.push(first);
                continue;
            };
            let machine: Option<MachineId> = first["machine_id"].as_str().and_then(|id| id.parse().ok());
            let rows = match verb {
                Verb::List => "recordings",
                Verb::DeadLetters => "dead_letters",
                Verb::Jobs => "jobs",
                _ => "chunks",
            };
            for page in 1.. {
                let after = first["next_after"].take();
                if after.is_null() {
                    break;
                }
                if page == PAGES_MAX {
                    note(format_args!("only the first {PAGES_MAX} pages are shown"));
                    break;
                }
                let params = params.clone().with("after", after);
                let more = self.client.ask(machine.as_ref(), verb, &params, self.timeout).await?;
                let Some(Ok(mut more)) = more.into_iter().next() else { break };
                first["next_after"] = more["next_after"].take();
                if let (Some(all), Some(more)) = (first[rows].as_array_mut(), more[rows].as_array_mut()) {
                    all.append(more);
                }
            }
            whole.push(Ok(first));
        }
        Ok(whole)
    }

    /// Asks for a job, then how it goes until it ends, the time is up, or its machine stops answering. Returns what was
    /// told last, and the machines that stopped.
    async fn job(
        &self,
        ask: &Ask,
        wait: Option<Duration>,
    ) -> Result<(Vec<Told>, BTreeSet<String>), crate::bus::BusError> {
        let clock = SystemClock::start();
        let began = clock.tick();
        let (verb, params) = ask.request();
        let wait = wait.unwrap_or(Duration::MAX);
        let step = wait.min(JOB_WAIT);
        let mut told = self.ask(verb, &params.with("wait", json!(step.as_secs_f64())), step).await?;
        let mut heard_at = vec![clock.tick(); told.len()];
        let mut silent = BTreeSet::new();
        let mut shown = String::new();
        loop {
            let left = wait.saturating_sub(clock.tick().since(began));
            if left.is_zero() || !told.iter().any(|told| goes_on(told, &silent)) {
                return Ok((told, silent));
            }
            let line = told.iter().filter_map(|told| told.as_ref().ok()).map(table::job_line).collect::<Vec<_>>();
            let line = line.join("\n");
            if line != shown {
                note(format_args!("{line}"));
                shown = line;
            }
            tokio::time::sleep(left.min(JOB_LOOK)).await;
            for (told, heard_at) in told.iter_mut().zip(&mut heard_at) {
                let has_ended = !goes_on(told, &silent);
                let Ok(job) = told else { continue };
                if has_ended {
                    continue;
                }
                if self.look_at(job).await? {
                    *heard_at = clock.tick();
                } else if clock.tick().since(*heard_at) >= self.timeout {
                    silent.insert(text(job, "machine_id").to_owned());
                }
            }
        }
    }

    /// Asks the machine of a job how it goes, and tells whether it answered.
    async fn look_at(&self, job: &mut Value) -> Result<bool, crate::bus::BusError> {
        let machine: Option<MachineId> = job["machine_id"].as_str().and_then(|id| id.parse().ok());
        let params = Params::default().with("job", text(job, "job"));
        match self.client.ask(machine.as_ref(), Verb::Jobs, &params, self.timeout).await?.into_iter().next() {
            Some(Ok(jobs)) => {
                for (name, value) in jobs["jobs"][0].as_object().into_iter().flatten() {
                    job[name] = value.clone();
                }
            }
            // The node was started again and knows nothing of it: what it did stays done.
            Some(Err(error)) if error.refusal.code == ErrorCode::NotFound => job["state"] = json!("cancelled"),
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

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Shows what was answered, and by whom it was not.
fn show(ask: &Ask, global: &Global, answers: Answers) -> Exit {
    let Answers { told, machine, mut alive, silent } = answers;
    for told in &told {
        match told {
            Ok(reply) => alive.remove(text(reply, "machine_id")),
            Err(refusal) => alive.remove(&refusal.machine_id),
        };
    }
    if told.is_empty() && alive.is_empty() {
        let whom = machine.map_or_else(|| "any node".to_owned(), |machine| format!("the node of {machine}"));
        failed(&format!("no answer from {whom}"), None);
        note(format_args!("hint: is it running and on this bus? an access rule that denies looks the same"));
        return Exit::NoAnswer;
    }
    let (replies, refused): (Vec<_>, Vec<_>) = told.into_iter().partition(Result::is_ok);
    let replies: Vec<_> = replies.into_iter().filter_map(Result::ok).collect();
    let refused: Vec<_> = refused.into_iter().filter_map(Result::err).collect();
    let is_fleet = global.machine == Some(Asked::All);
    if global.json {
        show_json(is_fleet, &replies, &refused);
    } else if !replies.is_empty() {
        show_text(ask, is_fleet, &replies);
    }
    let mut exit = Exit::Done;
    for machine in &alive {
        failed(&format!("{machine}: alive, and no answer in time"), None);
        exit = Exit::NoAnswer;
    }
    for machine in &silent {
        let hint = "is it running and on this bus? asking again joins the job, or starts what is left of it";
        failed(&format!("{machine}: answers no more, and this is what it told last"), Some(hint));
        exit = Exit::NoAnswer;
    }
    for refusal in &refused {
        let whom = if is_fleet { format!("{}: ", refusal.machine_id) } else { String::new() };
        failed(&format!("{whom}{}", refusal.refusal.message), refusal.refusal.hint.as_deref());
        exit = exit.max(exit_of(refusal));
    }
    if ask.job_wait().is_some() { replies.iter().map(exit_of_job).fold(exit, Exit::max) } else { exit }
}

fn exit_of_job(reply: &Value) -> Exit {
    let is_not_there = reply["error"]["code"] == json!(ErrorCode::NotFound);
    match text(reply, "state") {
        "failed" if is_not_there => Exit::NotFound,
        "failed" | "cancelled" => Exit::Failed,
        _ => Exit::Done,
    }
}

fn exit_of(refusal: &ErrorReply) -> Exit {
    exit_of_code(refusal.refusal.code)
}

pub(super) const fn exit_of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::InvalidParams => Exit::Usage,
        ErrorCode::NotFound => Exit::NotFound,
        ErrorCode::Conflict
        | ErrorCode::Corrupt
        | ErrorCode::Denied
        | ErrorCode::Unavailable
        | ErrorCode::Limit
        | ErrorCode::Internal => Exit::Failed,
    }
}

/// One object for one node; for the fleet an array, a refusal being an object with its code.
fn show_json(is_fleet: bool, replies: &[Value], refused: &[ErrorReply]) {
    let refused = refused.iter().map(|refusal| json!(refusal));
    if is_fleet {
        let all: Vec<_> = replies.iter().cloned().chain(refused).collect();
        return result(format_args!("{:#}", json!(all)));
    }
    for reply in replies.iter().cloned().chain(refused) {
        result(format_args!("{reply:#}"));
    }
}

fn show_text(ask: &Ask, is_fleet: bool, replies: &[Value]) {
    if let Ask::List { .. } = ask {
        return result(format_args!("{}", table::recordings(replies, is_fleet)));
    }
    for reply in replies {
        let text = match ask {
            Ask::Info { .. } => table::recording(reply),
            Ask::Status { .. } => table::status(reply),
            Ask::Config { .. } => table::settings(&reply["settings"]),
            Ask::Upload { .. } | Ask::Cancel { .. } => table::job_line(reply),
            Ask::Reconcile { .. } => table::reconciled(reply),
            Ask::Adopt { .. } => table::adopted(reply),
            Ask::Rm { .. } => table::removed(reply),
            Ask::Jobs { .. } => table::jobs(reply),
            Ask::Pause { .. } | Ask::Resume => table::pause(reply),
            Ask::DeadLetters => table::dead_letters(reply),
            Ask::List { .. } => continue,
        };
        result(format_args!("{text}"));
    }
}
