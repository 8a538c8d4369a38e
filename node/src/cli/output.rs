//! What every command writes with: exit codes, errors, notes and results.

use std::{
    fmt,
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// How a command ended, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exit {
    /// Done.
    Done = 0,
    /// Failed or refused.
    Failed = 1,
    /// Wrong usage or parameters.
    Usage = 2,
    /// What it names is not there.
    NotFound = 3,
    /// No answer.
    NoAnswer = 4,
}

/// Prints an error in one line, and what to do in a second one. Returns the exit code of a failure.
pub(super) fn failed(message: &str, hint: Option<&str>) -> Exit {
    note(format_args!("error: {message}"));
    if let Some(hint) = hint {
        note(format_args!("hint: {hint}"));
    }
    Exit::Failed
}

/// Writes a line for people to stderr.
pub(super) fn note(line: fmt::Arguments<'_>) {
    // A closed stderr is no reason to fail.
    writeln!(io::stderr(), "{line}").ok();
}

/// Notified when nobody reads the results any more.
pub(super) static READER_GONE: Notify = Notify::const_new();

/// Whether a result could not be written.
static IS_RESULT_LOST: AtomicBool = AtomicBool::new(false);

/// Tells whether a result could not be written.
pub(super) fn is_result_lost() -> bool {
    IS_RESULT_LOST.load(Ordering::Relaxed)
}

/// Writes a result to stdout. A closed pipe ends the output quietly; any other error makes the command fail.
pub(super) fn result(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => READER_GONE.notify_one(),
        Err(error) => {
            note(format_args!("error: the result can't be written: {error}"));
            IS_RESULT_LOST.store(true, Ordering::Relaxed);
        }
        Ok(()) => {}
    }
}
