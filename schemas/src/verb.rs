//! The verbs: one table that dispatch, help, parameters and the command line are built from.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What can be asked of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// What can be asked.
    Help,
    /// The library's recordings.
    List,
    /// One recording and its chunks.
    Info,
    /// The state now.
    Status,
    /// The settings and where each comes from.
    Config,
    /// The uploads that were given up.
    DeadLetters,
    /// What people asked for, at work and ended.
    Jobs,
    /// Send now what is known of a recording.
    Upload,
    /// Look at manifest, files and objects, then heal.
    Reconcile,
    /// Make something that is no recording of this machine one.
    Adopt,
    /// Stop uploads until somebody resumes them, or for a time.
    Pause,
    /// Let uploads go on.
    Resume,
    /// Stop a job.
    Cancel,
    /// Remove a recording.
    Rm,
}

/// Who may ask; Zenoh's access rules are by key, and each verb has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Acts.
    Operator,
    /// Removes and configures.
    Admin,
}

/// What a parameter's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// Any text.
    Text,
    /// The name of a recording.
    Recording,
    /// A whole number.
    Number,
    /// `true` or `false`; given without a value it is true.
    Flag,
    /// A length of time: `2s`, `12h`.
    Duration,
    /// A point of time: RFC 3339, a date, or Unix nanoseconds.
    Time,
}

/// One parameter of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Its name in a selector and in a payload.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: ParamKind,
    /// What it does.
    pub summary: &'static str,
}

const fn param(name: &'static str, kind: ParamKind, summary: &'static str) -> Param {
    Param { name, kind, summary }
}

const FORMAT: Param = param("format", ParamKind::Text, "json (default) or cbor: how the reply is encoded");
const LIMIT: Param = param("limit", ParamKind::Number, "rows of a page, 1 to 1000 (default 100)");

const LIST: &[Param] = &[
    param("name", ParamKind::Text, "only names that match this glob (* and ?)"),
    param("tag", ParamKind::Text, "only recordings with this tag"),
    param("since", ParamKind::Time, "only recordings that were going on at or after this time"),
    param("until", ParamKind::Time, "only recordings that began at or before this time"),
    param("state", ParamKind::Text, "only recordings in this state"),
    LIMIT,
    param("after", ParamKind::Text, "the next_after of the page before"),
    FORMAT,
];

const INFO: &[Param] = &[
    param("recording", ParamKind::Recording, "the recording's name"),
    LIMIT,
    param("after", ParamKind::Text, "the next_after of the page before"),
    FORMAT,
];

const DEAD_LETTERS: &[Param] = &[LIMIT, param("after", ParamKind::Text, "the next_after of the page before"), FORMAT];

const JOBS: &[Param] = &[
    param("job", ParamKind::Text, "only the job of this id"),
    LIMIT,
    param("after", ParamKind::Text, "the next_after of the page before"),
    FORMAT,
];

const PAUSE: &[Param] = &[param("for", ParamKind::Duration, "how long; without it until somebody resumes"), FORMAT];

const RECONCILE: &[Param] = &[
    param("recording", ParamKind::Recording, "the recording's name"),
    param("name", ParamKind::Text, "every recording whose name matches this glob (* and ?)"),
    param("all", ParamKind::Flag, "every recording of this machine"),
    param("dry_run", ParamKind::Flag, "tell what would be done and change nothing"),
    param("deep", ParamKind::Flag, "hash every local file, and fetch and hash every object"),
    param("restore", ParamKind::Flag, "fetch from the store what is damaged, missing or evicted here; not with all"),
    param("wait", ParamKind::Duration, "how long the reply may wait for the end (default 2s)"),
    FORMAT,
];

const ADOPT: &[Param] = &[
    param("recording", ParamKind::Text, "what list shows as unmanaged, foreign, unlisted or invalid"),
    param("all", ParamKind::Flag, "everything that list shows as unmanaged"),
    param("name", ParamKind::Recording, "the new recording's name (default: the source's)"),
    param("recover", ParamKind::Flag, "take what is whole in files that were cut off or damaged"),
    param("copy", ParamKind::Flag, "copy the files instead of giving them a second name"),
    param("wait", ParamKind::Duration, "how long the reply may wait for the end (default 2s)"),
    FORMAT,
];

const RM: &[Param] = &[
    param("recording", ParamKind::Recording, "the recording's name"),
    param("from", ParamKind::Text, "local, remote or both; both needs force"),
    param("dry_run", ParamKind::Flag, "tell what would be removed and change nothing"),
    param("force", ParamKind::Flag, "remove what is nowhere else too"),
    param("wait", ParamKind::Duration, "how long the reply may wait for the end (default 2s)"),
    param("token", ParamKind::Text, "the admin token: only in the payload, or as the query's attachment"),
    FORMAT,
];

const CANCEL: &[Param] = &[param("job", ParamKind::Text, "the job's id"), FORMAT];

const UPLOAD: &[Param] = &[
    param("recording", ParamKind::Recording, "the recording's name"),
    param("all", ParamKind::Flag, "every recording of this machine"),
    param("wait", ParamKind::Duration, "how long the reply may wait for the end (default 2s)"),
    FORMAT,
];

impl Verb {
    /// All verbs, in the order of the help.
    pub const ALL: [Self; 14] = [
        Self::Help,
        Self::List,
        Self::Info,
        Self::Status,
        Self::Config,
        Self::DeadLetters,
        Self::Jobs,
        Self::Upload,
        Self::Reconcile,
        Self::Adopt,
        Self::Pause,
        Self::Resume,
        Self::Cancel,
        Self::Rm,
    ];

    /// Returns the last part of the verb's key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Help => "help",
            Self::List => "list",
            Self::Info => "info",
            Self::Status => "status",
            Self::Config => "config",
            Self::DeadLetters => "dead_letters",
            Self::Jobs => "jobs",
            Self::Upload => "upload",
            Self::Reconcile => "reconcile",
            Self::Adopt => "adopt",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Rm => "rm",
        }
    }

    /// Returns who may ask.
    pub const fn role(self) -> Role {
        match self {
            Self::Help | Self::List | Self::Info | Self::Status | Self::Config | Self::DeadLetters | Self::Jobs => {
                Role::Viewer
            }
            Self::Upload | Self::Reconcile | Self::Adopt | Self::Pause | Self::Resume | Self::Cancel => Role::Operator,
            Self::Rm => Role::Admin,
        }
    }

    /// Returns what it does, in one line.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Help => "what can be asked of this node",
            Self::List => "the recordings of this machine, page by page",
            Self::Info => "one recording, its manifest and its chunks",
            Self::Status => "what is safe, what is at risk and what holds uploads back",
            Self::Config => "every setting with its source; secrets only as set or not",
            Self::DeadLetters => "the uploads that were given up, each with its reason",
            Self::Jobs => "what people asked for, at work and lately ended",
            Self::Upload => "send now what is known of a recording",
            Self::Reconcile => "look at manifest, local files and remote objects, then heal; nothing is ever removed",
            Self::Adopt => "make a recording of what is laid out in another way; the source stays as it is",
            Self::Pause => "stop uploads until somebody resumes them, or for a time; it outlives a restart",
            Self::Resume => "let uploads go on",
            Self::Cancel => "stop a job; what it did stays done",
            Self::Rm => "remove a recording from this disk, the store or both; needs the admin token",
        }
    }

    /// Returns the parameters that it takes; any other is an error.
    pub const fn parameters(self) -> &'static [Param] {
        match self {
            Self::Help | Self::Status | Self::Config | Self::Resume => &[FORMAT],
            Self::Jobs => JOBS,
            Self::Reconcile => RECONCILE,
            Self::Adopt => ADOPT,
            Self::Pause => PAUSE,
            Self::Cancel => CANCEL,
            Self::Rm => RM,
            Self::List => LIST,
            Self::Info => INFO,
            Self::DeadLetters => DEAD_LETTERS,
            Self::Upload => UPLOAD,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Verb {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|verb| verb.name() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_verb_ends_in_a_word_that_fleet_wide_wildcards_catch() {
        for verb in Verb::ALL {
            assert!(!["health", "manifest", "schema", "command", "raw"].contains(&verb.name()));
            assert_eq!(verb.name().parse(), Ok(verb));
            assert_eq!(serde_json::to_value(verb).unwrap(), verb.name());
        }
    }
}
