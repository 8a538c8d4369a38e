//! The terminal edge: each verb is the bus verb, asked as any other Zenoh client would. Results go to stdout, all
//! else to stderr.

mod args;
mod ask;
mod demo;
mod table;

use std::{fmt, io::IsTerminal, process::ExitCode};

use clap::Parser;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

use self::args::{Cli, Command};
use crate::{config, serve};

/// How a command ended, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
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

/// Threads for disk and store work: enough for 64 queries and 64 uploads, and bounded.
const BLOCKING_THREADS_MAX: usize = 192;

/// Runs the program.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let is_node = matches!(cli.command, Command::Serve);
    let directives = if is_node { "info,zenoh=error,zenoh_transport=off,zenoh_link=off" } else { "error,zenoh=off" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .with_target(false)
        .init();
    let runtime = Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build();
    let exit = match runtime {
        Ok(runtime) => execute(cli, &runtime),
        Err(error) => failed(&format!("can't start: {error}"), None),
    };
    ExitCode::from(exit as u8)
}

fn execute(cli: Cli, runtime: &Runtime) -> Exit {
    let home = match config::home(cli.global.home.clone()) {
        Ok(home) => home,
        Err(error) => return failed(&error.to_string(), None),
    };
    runtime.block_on(async {
        match cli.command {
            Command::Serve => match serve::run(home, &cli.global.set, told_to_stop()).await {
                Ok(()) => Exit::Done,
                Err(error) => failed(&error.to_string(), None),
            },
            Command::Demo(demo) => demo::run(&demo, told_to_stop()).await,
            Command::Ask(verb) => ask::run(&home, &cli.global, &verb).await,
        }
    })
}

/// Returns when SIGTERM or SIGINT comes.
async fn told_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process at once, which is always safe.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Tells an error in one line, and what to do in a second.
fn failed(message: &str, hint: Option<&str>) -> Exit {
    note(format_args!("error: {message}"));
    if let Some(hint) = hint {
        note(format_args!("hint: {hint}"));
    }
    Exit::Failed
}

/// Writes a line for people to stderr.
fn note(line: fmt::Arguments<'_>) {
    use std::io::Write;
    // Nobody reading is no reason to fail.
    writeln!(std::io::stderr(), "{line}").ok();
}

/// Writes a result to stdout; a reader that went away ends the output quietly.
fn result(text: fmt::Arguments<'_>) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}
