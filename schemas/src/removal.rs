//! What a removal saw and did, as rows of its reply.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{limits::REMOVAL_ROWS_MAX, names::ChunkName, reconcile::cut};

/// Where a recording is removed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RemoveFrom {
    /// This machine's disk.
    Local,
    /// The store.
    Remote,
    /// Both.
    Both,
}

impl RemoveFrom {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Local, Self::Remote, Self::Both];

    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Both => "both",
        }
    }

    /// Tells whether the disk is meant.
    pub const fn is_local(self) -> bool {
        matches!(self, Self::Local | Self::Both)
    }

    /// Tells whether the store is meant.
    pub const fn is_remote(self) -> bool {
        matches!(self, Self::Remote | Self::Both)
    }
}

impl fmt::Display for RemoveFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RemoveFrom {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|from| from.name() == text).ok_or(())
    }
}

/// What a removal saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RemovalFindingKind {
    /// The store is not known to hold the chunk on another disk just now.
    Unproven,
    /// What the store holds is not known to be whole on this disk just now.
    NotIntact,
    /// It is none of this recording's and stays.
    Stays,
    /// It could not be removed.
    Failed,
}

/// One thing that a removal saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovalFinding {
    /// What it is.
    pub kind: RemovalFindingKind,
    /// The chunk; null where it is about something else.
    pub chunk: Option<ChunkName>,
    /// The file, from the recording's folder on, or the object's key; null where it is about the recording.
    pub path: Option<String>,
    /// What is so, and what a person can do.
    pub message: String,
}

/// What a removal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RemovalActionKind {
    /// Write into the journal that nothing of the recording goes up by itself any more.
    Withdraw,
    /// Write down that a file that it was adopted from is not adopted by itself again.
    LeaveSource,
    /// Give up an upload in parts that was begun, so that the store drops its parts.
    AbortUpload,
    /// Remove an object of the store.
    RemoveObject,
    /// Remove a file.
    RemoveFile,
    /// Remove an empty folder.
    RemoveFolder,
}

/// One thing that a removal did, or with `dry_run` would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovalAction {
    /// What it is.
    pub kind: RemovalActionKind,
    /// The file or folder, from the recording's folder on, the object's key, or the file that it was adopted from.
    pub path: String,
}

/// How many findings of one kind there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovalFindingCount {
    /// The kind.
    pub kind: RemovalFindingKind,
    /// How many.
    pub count: u64,
}

/// How many actions of one kind there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovalActionCount {
    /// The kind.
    pub kind: RemovalActionKind,
    /// How many.
    pub count: u64,
}

/// How much was removed and seen. All of it counts, the rows that a reply has no room for too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RemovalCounts {
    /// Chunks' files that were removed.
    pub removed_files: u64,
    /// Their size.
    pub removed_file_bytes: u64,
    /// Chunks' objects that were removed.
    pub removed_objects: u64,
    /// Their size.
    pub removed_object_bytes: u64,
    /// Findings by kind; kinds without any are left out.
    pub findings: Vec<RemovalFindingCount>,
    /// Actions by kind; kinds without any are left out.
    pub actions: Vec<RemovalActionCount>,
}

/// What came of a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovalResult {
    /// Where it was removed from.
    pub from: RemoveFrom,
    /// It was only told what would be done.
    pub dry_run: bool,
    /// What it saw: the first ones.
    pub findings: Vec<RemovalFinding>,
    /// What it did: the first ones, in their order.
    pub actions: Vec<RemovalAction>,
    /// How many of each there are.
    pub counts: RemovalCounts,
}

impl RemovalResult {
    /// Begins with nothing seen and nothing done.
    pub fn new(from: RemoveFrom, dry_run: bool) -> Self {
        Self { from, dry_run, findings: Vec::new(), actions: Vec::new(), counts: RemovalCounts::default() }
    }

    /// Adds what was seen. Beyond [`REMOVAL_ROWS_MAX`] findings are counted only; a long message is cut.
    pub fn find(&mut self, mut finding: RemovalFinding) {
        let rows = &mut self.counts.findings;
        match rows.binary_search_by_key(&finding.kind, |row| row.kind) {
            Ok(place) => rows[place].count += 1,
            Err(place) => rows.insert(place, RemovalFindingCount { kind: finding.kind, count: 1 }),
        }
        if self.findings.len() < REMOVAL_ROWS_MAX {
            finding.message = cut(finding.message);
            self.findings.push(finding);
        }
    }

    /// Adds what was done, as [`RemovalResult::find`] does.
    pub fn act(&mut self, kind: RemovalActionKind, path: impl Into<String>) {
        let rows = &mut self.counts.actions;
        match rows.binary_search_by_key(&kind, |row| row.kind) {
            Ok(place) => rows[place].count += 1,
            Err(place) => rows.insert(place, RemovalActionCount { kind, count: 1 }),
        }
        if self.actions.len() < REMOVAL_ROWS_MAX {
            self.actions.push(RemovalAction { kind, path: path.into() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{RECONCILE_MESSAGE_BYTES_MAX, REPLY_BYTES_MAX};

    #[test]
    fn rows_are_bounded_and_counts_are_whole() {
        let many = REMOVAL_ROWS_MAX as u64 + 7;
        let mut result = RemovalResult::new(RemoveFrom::Both, false);
        let path = format!("{0}/{0}/chunks/chunk-000000-00000000.mcap", "r".repeat(128));
        for _ in 0..many {
            let message = "ö".repeat(RECONCILE_MESSAGE_BYTES_MAX);
            let kind = RemovalFindingKind::Stays;
            result.find(RemovalFinding { kind, chunk: None, path: Some(path.clone()), message });
            result.act(RemovalActionKind::RemoveFile, path.clone());
        }
        result.act(RemovalActionKind::Withdraw, "r");
        let counts: Vec<_> = result.counts.actions.iter().map(|row| (row.kind, row.count)).collect();
        assert_eq!(counts, [(RemovalActionKind::Withdraw, 1), (RemovalActionKind::RemoveFile, many)]);
        assert_eq!((result.findings.len(), result.actions.len()), (REMOVAL_ROWS_MAX, REMOVAL_ROWS_MAX));
        assert!(serde_json::to_vec(&result).unwrap().len() < REPLY_BYTES_MAX / 2, "both fit a reply");
    }

    #[test]
    fn where_it_is_removed_from_is_one_of_three_words() {
        for from in RemoveFrom::ALL {
            assert_eq!(from.name().parse(), Ok(from));
            assert_eq!(serde_json::to_value(from).unwrap(), from.name());
        }
        assert_eq!("all".parse::<RemoveFrom>(), Err(()));
    }
}
