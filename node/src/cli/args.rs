//! What the command line takes.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use bubbaloop_storage_schemas::{MachineId, RecordingName, Timestamp, Verb, params::Params};
use clap::{Args, Parser, Subcommand};

/// Gets finished recording chunks from this robot's disk to the object store, and answers for it on the Zenoh bus.
#[derive(Debug, Parser)]
#[command(name = "bubbaloop-storage", version, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What goes before or after any verb.
#[derive(Debug, Clone, Args)]
pub(super) struct Global {
    /// The folder that holds recordings and settings [default: $BUBBALOOP_HOME, else ~/.bubbaloop]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) home: Option<PathBuf>,
    /// Set a key of the storage table, for example --set zenoh.mode=client
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = setting)]
    pub(super) set: Vec<(String, String)>,
    /// Ask the node of this machine; '*' asks every machine [default: the node of this home]
    #[arg(long, global = true, value_name = "NAME", value_parser = machine)]
    pub(super) machine: Option<Asked>,
    /// Answer in this process, for a home in which no node runs
    #[arg(long, global = true, conflicts_with = "machine")]
    pub(super) offline: bool,
    /// Print the reply as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// How long to wait for an answer
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
}

/// Which nodes are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    One(MachineId),
    All,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the node
    Serve {
        /// A YAML file of settings, as Bubbaloop's daemon hands one over; they count as --set, which wins
        #[arg(short, long = "config", value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Look for what is wrong: one line for each thing, with what to do
    Doctor,
    /// What flows in the fleet: machines, their nodes, and the topics of each
    Topics {
        /// Only topics that contain this text
        #[arg(long, value_name = "TEXT")]
        grep: Option<String>,
    },
    /// Show the whole way from a recorder to the store, with a real node in a temporary folder
    Demo(Demo),
    /// Follow what changes, live
    Events,
    /// Set, or with KEY= remove, settings of this home; a node that runs takes them up
    Configure {
        /// KEY=VALUE; a secret is asked for by its KEY alone, without showing it
        #[arg(required = true, value_name = "KEY=VALUE")]
        changes: Vec<String>,
    },
    /// Print a script that completes commands for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Copy a recording from the store to a folder, with this home's access to the store; no node is asked
    Download(Download),
    #[command(flatten)]
    Ask(Ask),
}

#[derive(Debug, Clone, Args)]
pub(super) struct Demo {
    /// End when all is shown, instead of waiting for questions
    #[arg(long)]
    pub(super) no_wait: bool,
    /// How many chunks the recorder writes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) chunks: u32,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Download {
    /// The recording's name; of another machine with --machine
    pub(super) recording: RecordingName,
    /// The folder that gets chunks/ and manifest.json
    #[arg(long, value_name = "DIR")]
    pub(super) to: PathBuf,
    /// Of several captures that had the name, the one that began at this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) started_at: Option<Timestamp>,
    /// Only these chunks by index, both ends included: 3..7, 3.., ..7 or 3
    #[arg(long, value_name = "RANGE", value_parser = indices)]
    pub(super) chunks: Option<RangeInclusive<u32>>,
    /// Only chunks with log times at or after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<Timestamp>,
    /// Only chunks with log times at or before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<Timestamp>,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Ask {
    /// The recordings of a machine
    List {
        /// Only names that match this glob (* and ?)
        #[arg(long)]
        name: Option<String>,
        /// Only recordings with this tag
        #[arg(long)]
        tag: Option<String>,
        /// Only recordings that were going on at or after this time
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Only recordings that began at or before this time
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Only recordings in this state
        #[arg(long)]
        state: Option<String>,
        /// What the store holds, with this home's access to it; no node is asked
        #[arg(long, conflicts_with_all = ["tag", "since", "until", "state", "offline"])]
        remote: bool,
    },
    /// One recording and its chunks
    Info {
        /// The recording's name
        recording: RecordingName,
    },
    /// What is safe, what is at risk and what holds uploads back
    Status {
        /// Ask again and again
        #[arg(long)]
        watch: bool,
    },
    /// Every setting with its source
    Config {
        /// Look at the settings of this home without asking a node; fails where something is wrong
        #[arg(long)]
        check: bool,
    },
    /// The uploads that were given up, each with its reason
    DeadLetters,
    /// Look at manifest, local files and remote objects, then heal; nothing is ever removed
    Reconcile {
        /// The recording's name, or a glob (* and ?)
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        recording: Option<String>,
        /// Every recording of the machine
        #[arg(long)]
        all: bool,
        /// Tell what would be done and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Hash every local file, and fetch and hash every object
        #[arg(long)]
        deep: bool,
        /// Fetch from the store what is damaged, missing or evicted here
        #[arg(long, conflicts_with = "all")]
        restore: bool,
        /// How long to wait for the end; the job goes on after it
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
    },
    /// Make a recording of what is laid out in another way; the source stays as it is
    Adopt {
        /// A name that `list` shows, or files and folders of this machine (write ./NAME for one beside you)
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "NAME|PATH")]
        sources: Vec<String>,
        /// Everything that `list` shows as unmanaged
        #[arg(long, conflicts_with = "name")]
        all: bool,
        /// The new recording's name [default: the source's]
        #[arg(long = "as", value_name = "NAME")]
        name: Option<RecordingName>,
        /// Take what is whole in files that were cut off or damaged
        #[arg(long)]
        recover: bool,
        /// Copy the files instead of giving them a second name
        #[arg(long)]
        copy: bool,
        /// How long to wait for the end; the job goes on after it
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
    },
    /// Remove a recording from the node's disk, from the store, or from both
    Rm {
        /// The recording's name
        recording: RecordingName,
        /// Where from; both needs --force
        #[arg(long, value_name = "local|remote|both", value_parser = ["local", "remote", "both"])]
        from: String,
        /// Tell what would be removed and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Remove what is not known to be elsewhere too
        #[arg(long)]
        force: bool,
        /// The file that holds the node's admin token [default: $BUBBALOOP_STORAGE_ADMIN_TOKEN, else this home's secrets.toml]
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// How long to wait for the end; the job goes on after it
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
    },
    /// What people asked for, at work and lately ended
    Jobs {
        /// Only this one
        job: Option<String>,
    },
    /// Stop a job; what it did stays done
    Cancel {
        /// The job's id, as `jobs` tells it
        job: String,
    },
    /// Stop uploads until somebody resumes them, or for a time; it outlives a restart
    Pause {
        /// How long
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        lasts: Option<Duration>,
    },
    /// Let uploads go on
    Resume,
    /// Send now what is known of a recording
    Upload {
        /// The recording's name
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        recording: Option<RecordingName>,
        /// Every recording of the machine
        #[arg(long)]
        all: bool,
        /// How long to wait for the end; the upload goes on after it
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
    },
}

impl Ask {
    /// Returns how long a verb that takes long is waited for at most; `None` for the others.
    pub(super) const fn job_wait(&self) -> Option<Option<Duration>> {
        match self {
            Self::Upload { wait, .. }
            | Self::Reconcile { wait, .. }
            | Self::Adopt { wait, .. }
            | Self::Rm { wait, .. } => Some(*wait),
            _ => None,
        }
    }

    /// Returns the bus verb and its parameters.
    pub(super) fn request(&self) -> (Verb, Params) {
        let given = |params: Params, name: &str, value: Option<&String>| match value {
            Some(value) => params.with(name, value.clone()),
            None => params,
        };
        let none = Params::default();
        let flag = |params: Params, name: &str, is_set: &bool| match is_set {
            true => params.with(name, true),
            false => params,
        };
        match self {
            Self::List { name, tag, since, until, state, .. } => {
                let pairs = [("name", name), ("tag", tag), ("since", since), ("until", until), ("state", state)];
                let params = pairs.iter().fold(none, |params, (name, value)| given(params, name, value.as_ref()));
                (Verb::List, params)
            }
            Self::Info { recording } => (Verb::Info, none.with("recording", recording.as_str())),
            Self::Status { .. } => (Verb::Status, none),
            Self::Config { .. } => (Verb::Config, none),
            Self::DeadLetters => (Verb::DeadLetters, none),
            Self::Reconcile { recording, dry_run, deep, restore, .. } => {
                let params = match recording {
                    None => none.with("all", true),
                    Some(glob) if glob.contains(['*', '?']) => none.with("name", glob.as_str()),
                    Some(name) => none.with("recording", name.as_str()),
                };
                let params = flag(flag(params, "dry_run", dry_run), "deep", deep);
                (Verb::Reconcile, flag(params, "restore", restore))
            }
            Self::Adopt { sources, all, name, recover, copy, .. } => {
                let params = flag(flag(flag(none, "all", all), "recover", recover), "copy", copy);
                let params = given(params, "recording", sources.first());
                (Verb::Adopt, given(params, "name", name.as_ref().map(ToString::to_string).as_ref()))
            }
            Self::Rm { recording, from, dry_run, force, .. } => {
                let params = none.with("recording", recording.as_str()).with("from", from.as_str());
                (Verb::Rm, flag(flag(params, "dry_run", dry_run), "force", force))
            }
            Self::Jobs { job } => (Verb::Jobs, given(none, "job", job.as_ref())),
            Self::Cancel { job } => (Verb::Cancel, none.with("job", job.as_str())),
            Self::Pause { lasts: None } => (Verb::Pause, none),
            Self::Pause { lasts: Some(lasts) } => (Verb::Pause, none.with("for", lasts.as_secs_f64())),
            Self::Resume => (Verb::Resume, none),
            Self::Upload { recording: Some(recording), .. } => {
                (Verb::Upload, none.with("recording", recording.as_str()))
            }
            Self::Upload { recording: None, .. } => (Verb::Upload, none.with("all", true)),
        }
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn indices(text: &str) -> Result<RangeInclusive<u32>, String> {
    let wrong = || format!("{text:?} is no range of chunks: write 3..7, 3.., ..7 or 3");
    let number = |text: &str, otherwise| match text {
        "" => Ok(otherwise),
        _ => text.parse::<u32>().map_err(|_| wrong()),
    };
    let (first, last) = match text.split_once("..") {
        Some((first, last)) => (number(first, 0)?, number(last.trim_start_matches('='), u32::MAX)?),
        None => (text.parse().map_err(|_| wrong())?, text.parse().map_err(|_| wrong())?),
    };
    if first <= last { Ok(first..=last) } else { Err(wrong()) }
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "not a time such as 2026-01-31, 2026-01-31T08:00:00Z or Unix nanoseconds".to_owned())
}

fn machine(text: &str) -> Result<Asked, String> {
    match text {
        "*" => Ok(Asked::All),
        // Nodes go by `_` where host names have `-`.
        _ => MachineId::of_host(text).map(Asked::One).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_range_of_chunks_has_both_its_ends() {
        for (text, range) in [
            ("3..7", 3..=7),
            ("3..=7", 3..=7),
            ("3..", 3..=u32::MAX),
            ("..7", 0..=7),
            ("3", 3..=3),
            ("..", 0..=u32::MAX),
        ] {
            assert_eq!(indices(text), Ok(range), "{text}");
        }
        for text in ["", "7..3", "-1", "a..b", "1...2", "99999999999"] {
            assert!(indices(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_goes_with_any_verb_goes_before_or_after_it() {
        for line in [["x", "--json", "status"], ["x", "status", "--json"]] {
            assert!(Cli::try_parse_from(line).unwrap().global.json);
        }
        let cli = Cli::try_parse_from(["x", "info", "drive_1", "--machine", "*"]).unwrap();
        assert_eq!(cli.global.machine, Some(Asked::All));
        assert!(Cli::try_parse_from(["x", "info", "../../x"]).is_err());
        assert!(Cli::try_parse_from(["x", "upload"]).is_err());
    }
}
