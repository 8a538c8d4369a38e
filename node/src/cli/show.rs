//! What was answered, as people or programs read it, and how the command ends.

use std::collections::BTreeSet;

use bubbaloop_storage_schemas::{
    MachineId,
    error::{ErrorCode, ErrorReply},
};
use serde_json::{Value, json};

use super::{
    args::{Ask, Asked, Global},
    output::{Exit, note, result},
    screen::Screen,
    table::{self, Unheard},
};
use crate::bus::client::JsonReply as Told;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Text(Screen),
    /// The reply, indented.
    Json,
    /// The reply in a line.
    JsonLine,
}

impl Form {
    /// Returns how a command's result is written.
    pub(super) fn of(global: &Global) -> Self {
        if global.json { Self::Json } else { Self::Text(Screen::of_stdout()) }
    }
}

/// What a command has to say.
#[derive(Debug)]
pub(super) struct Shown {
    /// Results.
    pub(super) out: Vec<String>,
    /// Errors with their hints.
    pub(super) errors: Vec<String>,
    /// How the command ends.
    pub(super) exit: Exit,
}

impl Shown {
    /// Says that nothing came of it.
    pub(super) fn failure(message: &str, hint: Option<&str>, exit: Exit) -> Self {
        let mut shown = Self { out: Vec::new(), errors: Vec::new(), exit };
        shown.fail(message, hint, exit);
        shown
    }

    fn fail(&mut self, message: &str, hint: Option<&str>, exit: Exit) {
        self.errors.push(format!("error: {message}"));
        self.errors.extend(hint.map(|hint| format!("hint: {hint}")));
        self.exit = self.exit.max(exit);
    }

    /// Writes results to stdout and errors to stderr.
    pub(super) fn print(&self) -> Exit {
        for text in &self.out {
            result(format_args!("{text}"));
        }
        for line in &self.errors {
            note(format_args!("{line}"));
        }
        self.exit
    }
}

/// Returns a field's text.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// What came of a question.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Replies and refusals.
    pub(super) told: Vec<Told>,
    /// The machine that was asked; none where all were.
    pub(super) machine: Option<MachineId>,
    /// Machines that were alive when all were asked.
    pub(super) alive: BTreeSet<String>,
    /// Machines of which the store held something when all were asked.
    pub(super) stored: Vec<MachineId>,
    /// Machines that answered, and did not answer when they were asked how it goes.
    pub(super) silent: BTreeSet<String>,
}

impl Answers {
    /// Returns the machines that did not answer: those that were alive, and those of which only the store knows.
    fn unheard(&self) -> (Vec<Unheard>, Vec<Unheard>) {
        let heard = |told: &Told| match told {
            Ok(reply) => text(reply, "machine_id").parse::<MachineId>().ok(),
            Err(refusal) => refusal.machine_id.parse().ok(),
        };
        let heard: Vec<_> = self.told.iter().filter_map(heard).collect();
        let is_in = |machines: &[MachineId], wanted: &MachineId| machines.iter().any(|it| it.is_same_machine(wanted));
        let alive: Vec<_> = self.alive.iter().filter_map(|machine| machine.parse::<MachineId>().ok()).collect();
        let silent = |machine: &MachineId, known| Unheard { machine: machine.to_string(), known };
        let of_alive = alive.iter().filter(|machine| !is_in(&heard, machine));
        let of_store = self.stored.iter().filter(|machine| !is_in(&heard, machine) && !is_in(&alive, machine));
        (
            of_alive.map(|machine| silent(machine, "it is alive")).collect(),
            of_store.map(|machine| silent(machine, "it is not on the bus; the store holds recordings of it")).collect(),
        )
    }
}

/// Returns what was answered, and by whom it was not.
pub(super) fn show(ask: &Ask, global: &Global, form: Form, answers: Answers) -> Shown {
    let (alive, stored) = answers.unheard();
    let Answers { told, machine, silent, .. } = answers;
    let is_silent = told.is_empty() && alive.is_empty();
    let (replies, refused): (Vec<_>, Vec<_>) = told.into_iter().partition(Result::is_ok);
    let replies: Vec<_> = replies.into_iter().filter_map(Result::ok).collect();
    let refused: Vec<_> = refused.into_iter().filter_map(Result::err).map(|refused| *refused).collect();
    let is_fleet = global.machine == Some(Asked::All);
    let alive_names: Vec<_> = alive.iter().map(|silent| silent.machine.clone()).collect();
    let unheard: Vec<_> = alive.into_iter().chain(stored).collect();
    let out = match form {
        Form::Text(screen) => texts(screen, ask, is_fleet, &replies, &unheard),
        // Nobody answered: there is no reply to show.
        Form::Json | Form::JsonLine if is_silent && unheard.is_empty() => Vec::new(),
        Form::Json | Form::JsonLine => jsons(form, is_fleet, &replies, &refused, &unheard),
    };
    let mut shown = Shown { out, errors: Vec::new(), exit: Exit::Done };
    if is_silent {
        let whom = machine.map_or_else(|| "any node".to_owned(), |machine| format!("the node of {machine}"));
        let hint = "is it running and on this bus? an access rule that denies looks the same";
        shown.fail(&format!("no answer from {whom}"), Some(hint), Exit::NoAnswer);
    }
    for machine in &alive_names {
        shown.fail(&format!("{machine}: alive, and no answer in time"), None, Exit::NoAnswer);
    }
    for machine in &silent {
        let hint = "is it running and on this bus? asking again joins the job, or starts what is left of it";
        let message = format!("{machine}: answers no more, and this is what it told last");
        shown.fail(&message, Some(hint), Exit::NoAnswer);
    }
    for refusal in &refused {
        let whom = if is_fleet { format!("{}: ", refusal.machine_id) } else { String::new() };
        let message = format!("{whom}{}", refusal.refusal.message);
        shown.fail(&message, refusal.refusal.hint.as_deref(), exit_of(refusal));
    }
    if ask.job_wait().is_some() {
        shown.exit = replies.iter().map(exit_of_job).fold(shown.exit, Exit::max);
    }
    shown
}

fn exit_of_job(job: &Value) -> Exit {
    match (text(job, "state"), text(&job["error"], "code")) {
        ("failed", "E_NOT_FOUND") => Exit::NotFound,
        ("failed" | "cancelled", _) => Exit::Failed,
        _ => Exit::Done,
    }
}

fn exit_of(refusal: &ErrorReply) -> Exit {
    exit_of_code(refusal.refusal.code)
}

/// Returns how a command ends that was refused.
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

/// One object for one node; for the fleet an array, a refusal being an object with its code, and a machine that did not
/// answer one that tells how it is known.
fn jsons(form: Form, is_fleet: bool, replies: &[Value], refused: &[ErrorReply], unheard: &[Unheard]) -> Vec<String> {
    let unheard = unheard.iter().map(|it| json!({ "machine_id": it.machine, "no_answer": it.known }));
    let all = replies.iter().cloned().chain(refused.iter().map(|refusal| json!(refusal))).chain(unheard);
    let all: Vec<_> = all.collect();
    let all = if is_fleet { vec![json!(all)] } else { all };
    let written = |value: &Value| if form == Form::JsonLine { value.to_string() } else { format!("{value:#}") };
    all.iter().map(written).collect()
}

fn texts(screen: Screen, ask: &Ask, is_fleet: bool, replies: &[Value], unheard: &[Unheard]) -> Vec<String> {
    let text = |reply: &Value| match ask {
        Ask::Info { .. } => table::recording(screen, reply),
        Ask::Status { .. } => table::status(screen, reply),
        Ask::Config { .. } => table::settings(screen, &reply["settings"]),
        Ask::Upload { .. } | Ask::Cancel { .. } => table::job_line(screen, reply),
        Ask::Reconcile { .. } => table::reconciled(screen, reply),
        Ask::Adopt { .. } => table::adopted(screen, reply),
        Ask::Rm { .. } => table::removed(screen, reply),
        Ask::Jobs { .. } => table::jobs(screen, reply),
        Ask::Pause { .. } | Ask::Resume => table::pause(screen, reply),
        Ask::DeadLetters => table::dead_letters(screen, reply),
        Ask::List { .. } => String::new(),
    };
    match ask {
        Ask::List { .. } if replies.is_empty() && unheard.is_empty() => Vec::new(),
        Ask::List { .. } => vec![table::recordings(screen, replies, is_fleet, unheard)],
        _ => {
            let silent = |it: &Unheard| screen.lines(&format!("{}: no answer; {}", it.machine, it.known));
            replies.iter().map(text).chain(unheard.iter().map(silent)).collect()
        }
    }
}
