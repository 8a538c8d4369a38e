//! What was answered, as people or programs read it, and how the command ends.

use std::collections::BTreeSet;

use bubbaloop_storage_schemas::{
    MachineId,
    error::{ErrorCode, ErrorReply},
};
use serde_json::{Value, json};

use super::{
    Exit,
    args::{Ask, Asked, Global},
    note, result,
    screen::Screen,
    table,
};
use crate::bus::client::Told;

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
    /// Machines that answered, and did not answer when they were asked how it goes.
    pub(super) silent: BTreeSet<String>,
}

/// Returns what was answered, and by whom it was not.
pub(super) fn show(ask: &Ask, global: &Global, form: Form, answers: Answers) -> Shown {
    let Answers { told, machine, mut alive, silent } = answers;
    for told in &told {
        match told {
            Ok(reply) => alive.remove(text(reply, "machine_id")),
            Err(refusal) => alive.remove(&refusal.machine_id),
        };
    }
    if told.is_empty() && alive.is_empty() {
        let whom = machine.map_or_else(|| "any node".to_owned(), |machine| format!("the node of {machine}"));
        let hint = "is it running and on this bus? an access rule that denies looks the same";
        return Shown::failure(&format!("no answer from {whom}"), Some(hint), Exit::NoAnswer);
    }
    let (replies, refused): (Vec<_>, Vec<_>) = told.into_iter().partition(Result::is_ok);
    let replies: Vec<_> = replies.into_iter().filter_map(Result::ok).collect();
    let refused: Vec<_> = refused.into_iter().filter_map(Result::err).collect();
    let is_fleet = global.machine == Some(Asked::All);
    let out = match form {
        Form::Text(screen) => texts(screen, ask, is_fleet, &replies),
        Form::Json | Form::JsonLine => jsons(form, is_fleet, &replies, &refused),
    };
    let mut shown = Shown { out, errors: Vec::new(), exit: Exit::Done };
    for machine in &alive {
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

/// One object for one node; for the fleet an array, a refusal being an object with its code.
fn jsons(form: Form, is_fleet: bool, replies: &[Value], refused: &[ErrorReply]) -> Vec<String> {
    let all: Vec<_> = replies.iter().cloned().chain(refused.iter().map(|refusal| json!(refusal))).collect();
    let all = if is_fleet { vec![json!(all)] } else { all };
    let written = |value: &Value| if form == Form::JsonLine { value.to_string() } else { format!("{value:#}") };
    all.iter().map(written).collect()
}

fn texts(screen: Screen, ask: &Ask, is_fleet: bool, replies: &[Value]) -> Vec<String> {
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
        Ask::List { .. } if replies.is_empty() => Vec::new(),
        Ask::List { .. } => vec![table::recordings(screen, replies, is_fleet)],
        _ => replies.iter().map(text).collect(),
    }
}
