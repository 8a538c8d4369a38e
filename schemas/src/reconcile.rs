//! What reconcile saw and what it did, as rows of its reply.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    limits::{RECONCILE_MESSAGE_BYTES_MAX, RECONCILE_ROWS_MAX},
    names::{ChunkName, RecordingName},
};

/// What reconcile saw and does not mend by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The file is damaged, and the store holds the chunk.
    Damaged,
    /// The file is missing, and the store holds the chunk.
    Missing,
    /// The chunk is neither here nor in the store.
    Lost,
    /// The file can't be read.
    Unreadable,
    /// The store seems to hold the chunk, and it is not here to be sent again.
    Claimed,
    /// The chunk is here, and the store gives no means to prove that it holds it.
    Unproven,
    /// What the store holds could not be found out: that is not "absent".
    Unknown,
    /// A file that no manifest names.
    OrphanFile,
    /// An object that no manifest names.
    OrphanObject,
    /// The store holds other bytes and does not let the node replace them.
    NeedsOwner,
    /// An action was tried and did not pass.
    Failed,
    /// Another machine recorded it.
    Foreign,
    /// Another capture has its name in the store.
    NameTaken,
    /// Its manifest is absent or refused.
    ManifestUnreadable,
    /// Its remote manifest is not written yet; it is tried again by itself.
    ManifestWaits,
    /// What stands in the store as its manifest can't be one.
    ManifestRefused,
    /// A person removed it from the store: it is left alone.
    Withdrawn,
}

/// What reconcile does. Nothing is ever removed: what is in the way of a sound chunk is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Take back what the journal says of the chunk's upload.
    Unmark,
    /// Write into the journal that the store is known to hold the chunk.
    Mark,
    /// Find out whether what stands under the chunk's name is the chunk.
    Prove,
    /// Send the chunk.
    Upload,
    /// Put the chunk in the place of other bytes.
    Replace,
    /// Note that nothing here can heal the recording.
    MarkCorrupt,
    /// Note that the recording is healed.
    ClearCorrupt,
    /// Write the remote manifest.
    Publish,
    /// Write the store's manifest beside the recording's chunks.
    RestoreManifest,
    /// Fetch the chunk from the store.
    Restore,
}

/// One thing that reconcile saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The recording.
    pub recording: RecordingName,
    /// The chunk; null where it is about the recording.
    pub chunk: Option<ChunkName>,
    /// What is so, and what a person can do.
    pub message: String,
}

impl Finding {
    /// Makes a finding; a long message is cut.
    pub fn new(kind: FindingKind, recording: &RecordingName, chunk: Option<ChunkName>, message: String) -> Self {
        Self { kind, recording: recording.clone(), chunk, message: cut(message) }
    }
}

/// One thing that reconcile did, or with `dry_run` would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Action {
    /// What it is.
    pub kind: ActionKind,
    /// The recording.
    pub recording: RecordingName,
    /// The chunk; null where it is about the recording.
    pub chunk: Option<ChunkName>,
    /// Why.
    pub message: String,
}

impl Action {
    /// Makes an action; a long message is cut.
    pub fn new(kind: ActionKind, recording: &RecordingName, chunk: Option<ChunkName>, message: String) -> Self {
        Self { kind, recording: recording.clone(), chunk, message: cut(message) }
    }
}

pub(crate) fn cut(mut message: String) -> String {
    if message.len() > RECONCILE_MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(RECONCILE_MESSAGE_BYTES_MAX - '…'.len_utf8()));
        message.push('…');
    }
    message
}

/// How many findings of a kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FindingCount {
    /// The kind.
    pub kind: FindingKind,
    /// How many.
    pub count: u64,
}

/// How many actions of a kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActionCount {
    /// The kind.
    pub kind: ActionKind,
    /// How many.
    pub count: u64,
}

/// How much was looked at, seen and done. All of it counts, the rows that a reply has no room for too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ReconcileCounts {
    /// Recordings that were looked at.
    pub recordings: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Chunks that are proven in the store at the end.
    pub proven_chunks: u64,
    /// With `restore`: chunks that were fetched from the store, or with `dry_run` would be.
    #[serde(default)]
    pub restored_chunks: u64,
    /// Their bytes.
    #[serde(default)]
    pub restored_bytes: u64,
    /// With `restore`: chunks that are not sound here at the end.
    #[serde(default)]
    pub unrestored_chunks: u64,
    /// Findings by kind; kinds without any are left out.
    pub findings: Vec<FindingCount>,
    /// Actions by kind; kinds without any are left out.
    pub actions: Vec<ActionCount>,
}

/// What came of reconcile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ReconcileResult {
    /// What it saw and does not mend: the first ones, by recording and chunk.
    pub findings: Vec<Finding>,
    /// What it did, or with `dry_run` would do: the first ones, in their order.
    pub actions: Vec<Action>,
    /// How many of each there are.
    pub counts: ReconcileCounts,
}

impl ReconcileResult {
    /// Adds findings and actions. Beyond [`RECONCILE_ROWS_MAX`] of each they are counted only.
    pub fn add(&mut self, findings: Vec<Finding>, actions: Vec<Action>) {
        let mut counted: BTreeMap<_, _> = self.counts.findings.iter().map(|row| (row.kind, row.count)).collect();
        for finding in &findings {
            *counted.entry(finding.kind).or_default() += 1;
        }
        self.counts.findings = counted.into_iter().map(|(kind, count)| FindingCount { kind, count }).collect();
        let mut counted: BTreeMap<_, _> = self.counts.actions.iter().map(|row| (row.kind, row.count)).collect();
        for action in &actions {
            *counted.entry(action.kind).or_default() += 1;
        }
        self.counts.actions = counted.into_iter().map(|(kind, count)| ActionCount { kind, count }).collect();
        let room = |rows: usize| RECONCILE_ROWS_MAX.saturating_sub(rows);
        self.findings.extend(findings.into_iter().take(room(self.findings.len())));
        self.actions.extend(actions.into_iter().take(room(self.actions.len())));
    }

    /// Joins what came of further recordings to it.
    pub fn join(&mut self, other: Self) {
        let Self { findings, actions, counts } = other;
        self.counts.recordings += counts.recordings;
        self.counts.chunks += counts.chunks;
        self.counts.proven_chunks += counts.proven_chunks;
        self.counts.restored_chunks += counts.restored_chunks;
        self.counts.restored_bytes = self.counts.restored_bytes.saturating_add(counts.restored_bytes);
        self.counts.unrestored_chunks += counts.unrestored_chunks;
        let (shown_findings, shown_actions) = (self.findings.len(), self.actions.len());
        self.findings.extend(findings.into_iter().take(RECONCILE_ROWS_MAX.saturating_sub(shown_findings)));
        self.actions.extend(actions.into_iter().take(RECONCILE_ROWS_MAX.saturating_sub(shown_actions)));
        for row in counts.findings {
            match self.counts.findings.binary_search_by_key(&row.kind, |known| known.kind) {
                Ok(place) => self.counts.findings[place].count += row.count,
                Err(place) => self.counts.findings.insert(place, row),
            }
        }
        for row in counts.actions {
            match self.counts.actions.binary_search_by_key(&row.kind, |known| known.kind) {
                Ok(place) => self.counts.actions[place].count += row.count,
                Err(place) => self.counts.actions.insert(place, row),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kind: FindingKind, message: &str) -> Finding {
        Finding::new(kind, &"drive".parse().unwrap(), None, message.into())
    }

    #[test]
    fn rows_are_bounded_and_counts_are_whole() {
        let many = RECONCILE_ROWS_MAX + 7;
        let rows = |count| vec![finding(FindingKind::Lost, &"ö".repeat(RECONCILE_MESSAGE_BYTES_MAX)); count];
        let mut result = ReconcileResult::default();
        result.add(rows(many), Vec::new());
        let mut other = ReconcileResult::default();
        other.add([rows(2), vec![finding(FindingKind::Damaged, "x")]].concat(), Vec::new());
        result.join(other);
        assert_eq!(result.findings.len(), RECONCILE_ROWS_MAX);
        assert!(result.findings.iter().all(|row| row.message.len() <= RECONCILE_MESSAGE_BYTES_MAX));
        let counts: Vec<_> = result.counts.findings.iter().map(|row| (row.kind, row.count)).collect();
        assert_eq!(counts, [(FindingKind::Damaged, 1), (FindingKind::Lost, many as u64 + 2)]);
        let bytes = serde_json::to_vec(&result).unwrap().len();
        assert!(bytes < crate::limits::REPLY_BYTES_MAX / 2, "findings and actions fit a reply: {bytes}");
    }
}
