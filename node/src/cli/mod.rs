//! The terminal edge: each verb is the bus verb, asked as any other Zenoh client would. Results go to stdout, all
//! else to stderr.

mod adopt;
mod args;
mod ask;
mod configure;
mod demo;
mod doctor;
mod instance;
mod output;
mod progress;
mod remote;
mod screen;
mod show;
mod table;
mod topics;
mod watch;

use std::{
    io::{self, IsTerminal},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use bubbaloop_storage_schemas::limits::{CONCURRENCY_MAX, QUERIES_AT_WORK_MAX, REFUSALS_SENT_MAX, REPLIES_SENT_MAX};
use clap::{CommandFactory, Parser};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

use self::{
    args::{Ask, Cli, Command},
    output::{Exit, failed},
};
use crate::{config, engine::adopt::AdoptOptions, policy::queue::ARRIVED_MAX, serve, store::s3};

/// Threads for what waits: network, timers, requests. Files, hashes of what is large, and listings have threads of their own,
/// and Zenoh has too. What one thread hands to itself wakes no other.
const WORKER_THREADS: usize = 1;

/// Threads for disk and store work and for sending: enough for what `limits` allows at once, and bounded.
const BLOCKING_THREADS_MAX: usize =
    QUERIES_AT_WORK_MAX + REPLIES_SENT_MAX + REFUSALS_SENT_MAX + 2 * CONCURRENCY_MAX + ARRIVED_MAX;

/// Arenas of glibc's allocator. It takes up to eight for each core, of which each keeps what was once used in it.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// Begins the program anew with few arenas, unless somebody set how many: glibc reads that at the begin only. Where that
/// is not possible the node takes more memory.
fn keep_memory_small() {
    let (name, value) = ARENAS;
    if config::is_in_environment(name) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let Some(called) = arguments.next() else { return };
    // A loader that was given the program would be begun without it.
    if Path::new(&called).file_name() != program.file_name() {
        return;
    }
    // It returns only where it failed, and then all goes on as it is.
    drop(process::Command::new(program).arg0(called).args(arguments).env(name, value).exec());
}

/// Runs the program.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let is_node = matches!(cli.command, Command::Serve { .. });
    if is_node {
        keep_memory_small();
    }
    let directives = if is_node {
        format!("info,zenoh=error,zenoh_transport=off,zenoh_link=off,{}", s3::QUIET)
    } else {
        "error,zenoh=off".into()
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives));
    let is_terminal = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(is_terminal && !config::wants_no_colour())
        .with_target(false)
        .init();
    let mut runtime = Builder::new_multi_thread();
    let runtime =
        runtime.worker_threads(WORKER_THREADS).max_blocking_threads(BLOCKING_THREADS_MAX).enable_all().build();
    let exit = match runtime {
        Ok(runtime) => execute(cli, &runtime),
        Err(error) => failed(&format!("can't start: {error}"), None),
    };
    let exit = if output::is_result_lost() { exit.max(Exit::Failed) } else { exit };
    ExitCode::from(exit as u8)
}

fn execute(cli: Cli, runtime: &Runtime) -> Exit {
    let home = match config::home(cli.global.home.clone()) {
        Ok(home) => home,
        Err(error) => return failed(&error.to_string(), None),
    };
    runtime.block_on(async {
        match cli.command {
            Command::Serve { config } => serve(home, config.as_deref(), cli.global.set).await,
            Command::Doctor => doctor::run(&home, &cli.global).await,
            Command::Topics { grep } => topics::run(&home, &cli.global, grep.as_deref()).await,
            Command::Demo(demo) => demo::run(&demo, told_to_stop()).await,
            Command::Events => ask::follow(&home, &cli.global, told_to_stop()).await,
            Command::Configure { changes } => configure::run(&home, &changes).await,
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Cli::command(), "bubbaloop-storage", &mut io::stdout());
                Exit::Done
            }
            Command::Ask(Ask::Config { check: true }) => configure::check(&home, &cli.global).await,
            Command::Ask(Ask::List { remote: true, name, .. }) => {
                remote::list(&home, &cli.global, name.as_deref(), told_to_stop()).await
            }
            Command::Download(asked) => remote::download(&home, &cli.global, &asked, told_to_stop()).await,
            Command::Ask(Ask::Adopt { sources, name, recover, copy, .. }) if adopt::are_paths(&sources) => {
                let options = AdoptOptions { name, recover, copy };
                adopt::run(&home, &cli.global, &sources, options).await
            }
            Command::Ask(verb @ Ask::Status { watch: true }) if !cli.global.offline => {
                Box::pin(watch::run(&home, &cli.global, &verb, told_to_stop())).await
            }
            Command::Ask(verb) => Box::pin(ask::run(&home, &cli.global, &verb, told_to_stop())).await,
        }
    })
}

/// Runs the node with the settings of an instance file below those of `set`.
async fn serve(home: PathBuf, instance: Option<&Path>, set: Vec<(String, String)>) -> Exit {
    // Before anything that takes time, so that from here on a signal ends the node in order.
    let stop = told_to_stop();
    let mut flags = match instance.map(instance::read).transpose() {
        Ok(flags) => flags.unwrap_or_default(),
        Err(message) => return failed(&message, Some("name a YAML file of settings, or leave --config out")),
    };
    flags.extend(set);
    match Box::pin(serve::run(home, &flags, stop)).await {
        Ok(()) => Exit::Done,
        Err(error) => failed(&error.to_string(), None),
    }
}

/// Listens for SIGTERM, SIGINT and SIGHUP from now on, and returns what ends when one comes: a closed terminal ends a node
/// in order too.
fn told_to_stop() -> impl Future<Output = ()> {
    let listening = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = listening else {
            // Without handlers the signals end the process at once, which is always safe.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
