//! What adopt did, as a job's result, and what an adopted recording's manifest says of where it came from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    digest::Digest, lenient, limits::RECONCILE_ROWS_MAX, manifest::Manifest, names::RecordingName, reconcile::cut,
    time::UnixNs,
};

/// The field of a manifest that tells where its recording came from.
pub const ADOPTED_FROM: &str = "adopted_from";

/// Where an adopted recording came from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct AdoptedFrom {
    /// What was adopted, as `list` told it; outside of the library the name of the file or folder.
    pub source: String,
    /// The machine that recorded it, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// When it was adopted.
    #[serde(deserialize_with = "lenient::u64")]
    pub adopted_at_ns: UnixNs,
    /// The files, chunk by chunk.
    #[serde(default, deserialize_with = "lenient::list", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<AdoptedFile>,
}

/// A file that became a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptedFile {
    /// Its path under the folder of recordings; outside of it, its name.
    pub file: String,
    /// Its size.
    #[serde(deserialize_with = "lenient::u64")]
    pub size_bytes: u64,
    /// When it was written last.
    #[serde(deserialize_with = "lenient::u64")]
    pub mtime_ns: UnixNs,
    /// Its digest: the chunk's, unless it was recovered.
    pub sha256: Digest,
    /// It lay outside the folder of recordings: no file there is it, whatever its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
    /// It was cut off or damaged, and the chunk holds what was whole in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
}

impl AdoptedFrom {
    /// Reads it from a manifest; `None` where the recording was not adopted, or what stands there is something else.
    pub fn of(manifest: &Manifest) -> Option<Self> {
        serde_json::from_value(manifest.other.get(ADOPTED_FROM)?.clone()).ok()
    }

    /// Returns it as a manifest's field.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// What adopt saw and a person should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdoptFindingKind {
    /// It was not adopted.
    Refused,
    /// Something of it could not be recovered.
    Lost,
    /// A file of it was left where it is.
    LeftOut,
    /// A chunk that its manifest names is not here.
    Missing,
    /// A chunk has other bytes than its manifest says.
    Damaged,
}

/// What adopt does. A source is never changed nor removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdoptActionKind {
    /// The file has a second name, as a chunk: no bytes were copied.
    Link,
    /// The file was copied.
    Copy,
    /// What was whole in the file was written anew.
    Recover,
    /// A chunk that was there is named by the manifest now.
    Name,
    /// The manifest was written.
    WriteManifest,
}

/// One thing that adopt saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptFinding {
    /// What it is.
    pub kind: AdoptFindingKind,
    /// What was to be adopted, as `list` tells it.
    pub source: String,
    /// The file; null where it is about all of it.
    pub file: Option<String>,
    /// What is so, and what a person can do.
    pub message: String,
}

/// One thing that adopt did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptAction {
    /// What it is.
    pub kind: AdoptActionKind,
    /// The recording that it became part of.
    pub recording: RecordingName,
    /// The file that was taken; null where it is about the recording.
    pub file: Option<String>,
    /// What came of it.
    pub message: String,
}

/// How many findings of a kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptFindingCount {
    /// The kind.
    pub kind: AdoptFindingKind,
    /// How many.
    pub count: u64,
}

/// How many actions of a kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptActionCount {
    /// The kind.
    pub kind: AdoptActionKind,
    /// How many.
    pub count: u64,
}

/// How much was taken in, seen and done. All of it counts, the rows that a reply has no room for too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct AdoptCounts {
    /// Recordings that hold what was asked for.
    pub recordings: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Messages in files that were recovered.
    pub recovered_messages: u64,
    /// Bytes of those files that could not be recovered.
    pub lost_bytes: u64,
    /// Findings by kind; kinds without any are left out.
    pub findings: Vec<AdoptFindingCount>,
    /// Actions by kind; kinds without any are left out.
    pub actions: Vec<AdoptActionCount>,
}

/// What came of an adopt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct AdoptResult {
    /// The recordings that hold what was asked for: the first ones.
    pub adopted: Vec<RecordingName>,
    /// What it saw: the first ones.
    pub findings: Vec<AdoptFinding>,
    /// What it did: the first ones, in their order.
    pub actions: Vec<AdoptAction>,
    /// How many of each there are.
    pub counts: AdoptCounts,
}

impl AdoptResult {
    /// Adds a recording that holds what was asked for.
    pub fn adopted(&mut self, recording: &RecordingName, chunks: u64) {
        self.counts.recordings += 1;
        self.counts.chunks += chunks;
        if self.adopted.len() < RECONCILE_ROWS_MAX {
            self.adopted.push(recording.clone());
        }
    }

    /// Adds what was seen. Beyond [`RECONCILE_ROWS_MAX`] findings are counted only; a long message is cut.
    pub fn find(&mut self, mut finding: AdoptFinding) {
        self.count_findings(finding.kind, 1);
        if self.findings.len() < RECONCILE_ROWS_MAX {
            finding.message = cut(finding.message);
            self.findings.push(finding);
        }
    }

    /// Adds what was done, as [`AdoptResult::find`] does.
    pub fn act(&mut self, mut action: AdoptAction) {
        self.count_actions(action.kind, 1);
        if self.actions.len() < RECONCILE_ROWS_MAX {
            action.message = cut(action.message);
            self.actions.push(action);
        }
    }

    /// Joins what came of further sources to it.
    pub fn join(&mut self, other: Self) {
        let Self { adopted, findings, actions, counts } = other;
        let room = |rows: usize| RECONCILE_ROWS_MAX.saturating_sub(rows);
        self.adopted.extend(adopted.into_iter().take(room(self.adopted.len())));
        self.findings.extend(findings.into_iter().take(room(self.findings.len())));
        self.actions.extend(actions.into_iter().take(room(self.actions.len())));
        self.counts.recordings += counts.recordings;
        self.counts.chunks += counts.chunks;
        self.counts.recovered_messages += counts.recovered_messages;
        self.counts.lost_bytes += counts.lost_bytes;
        for row in counts.findings {
            self.count_findings(row.kind, row.count);
        }
        for row in counts.actions {
            self.count_actions(row.kind, row.count);
        }
    }

    fn count_findings(&mut self, kind: AdoptFindingKind, more: u64) {
        let rows = &mut self.counts.findings;
        match rows.binary_search_by_key(&kind, |row| row.kind) {
            Ok(place) => rows[place].count += more,
            Err(place) => rows.insert(place, AdoptFindingCount { kind, count: more }),
        }
    }

    fn count_actions(&mut self, kind: AdoptActionKind, more: u64) {
        let rows = &mut self.counts.actions;
        match rows.binary_search_by_key(&kind, |row| row.kind) {
            Ok(place) => rows[place].count += more,
            Err(place) => rows.insert(place, AdoptActionCount { kind, count: more }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{RECONCILE_MESSAGE_BYTES_MAX, REPLY_BYTES_MAX};

    fn finding(kind: AdoptFindingKind) -> AdoptFinding {
        let message = "ö".repeat(RECONCILE_MESSAGE_BYTES_MAX);
        AdoptFinding { kind, source: "session".into(), file: Some("session_chunk_000.mcap".into()), message }
    }

    #[test]
    fn rows_are_bounded_and_counts_are_whole() {
        let many = RECONCILE_ROWS_MAX as u64 + 7;
        let (mut result, mut other) = (AdoptResult::default(), AdoptResult::default());
        for _ in 0..many {
            result.find(finding(AdoptFindingKind::Lost));
            result.adopted(&"r".repeat(128).parse().unwrap(), 1);
        }
        other.find(finding(AdoptFindingKind::Refused));
        other.find(finding(AdoptFindingKind::Lost));
        result.join(other);
        let counts: Vec<_> = result.counts.findings.iter().map(|row| (row.kind, row.count)).collect();
        assert_eq!(counts, [(AdoptFindingKind::Refused, 1), (AdoptFindingKind::Lost, many + 1)]);
        assert_eq!((result.findings.len(), result.counts.recordings), (RECONCILE_ROWS_MAX, many));
        assert!(serde_json::to_vec(&result).unwrap().len() < REPLY_BYTES_MAX / 2, "both fit a reply");
    }
}
