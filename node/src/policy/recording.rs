//! What a recording is at the moment, and which of its chunks are to go up.

use std::time::Duration;

use bubbaloop_storage_schemas::{
    UnixNs,
    reply::{ChunkLocal, Proof, RecordingState, UploadState},
};

/// How long a folder without an end may be still before its recording counts as interrupted.
const STILL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How many scans in a row must see a chunk that no manifest names before it counts as finalized: a recorder
/// names a chunk moments after the rename.
pub const SIGHTINGS_MIN: u8 = 2;

/// What is known of a recording's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestFacts {
    /// There is none.
    Absent,
    /// It is refused, for these reasons.
    Refused(Vec<String>),
    /// It holds.
    Readable {
        /// It is of this machine.
        is_ours: bool,
        /// It names an end.
        has_ended: bool,
    },
}

/// What decides a recording's state.
#[derive(Debug, Clone)]
pub struct RecordingEvidence<'a> {
    /// Its manifest.
    pub manifest: &'a ManifestFacts,
    /// Chunks that no manifest names and that were seen often enough.
    pub unlisted_chunks: usize,
    /// Files among its chunks whose names are no chunk's.
    pub strays: u64,
    /// When its folder changed last.
    pub touched_at_ns: UnixNs,
    /// The wall time now.
    pub now_ns: UnixNs,
}

/// Returns a recording's state and, where that wants one, the reason.
pub fn state(facts: &RecordingEvidence<'_>) -> (RecordingState, Option<String>) {
    let chunks = facts.unlisted_chunks;
    match facts.manifest {
        ManifestFacts::Refused(reasons) => (RecordingState::Invalid, Some(reasons.join("; "))),
        ManifestFacts::Absent => {
            let strays = strays(facts.strays).map(|strays| format!("; {strays}")).unwrap_or_default();
            (RecordingState::Unlisted, Some(format!("there is no manifest.json{strays}")))
        }
        ManifestFacts::Readable { is_ours: false, .. } => {
            (RecordingState::Foreign, Some("another machine recorded it".into()))
        }
        ManifestFacts::Readable { .. } if chunks > 0 => (
            RecordingState::Unlisted,
            Some(format!("manifest.json does not name {chunks} of its chunks, or with another digest")),
        ),
        ManifestFacts::Readable { has_ended: true, .. } => (RecordingState::Ended, strays(facts.strays)),
        ManifestFacts::Readable { has_ended: false, .. } => {
            if is_still(facts.touched_at_ns, facts.now_ns) {
                (RecordingState::Interrupted, Some("it has no end and its folder has been still for a day".into()))
            } else {
                (RecordingState::Recording, strays(facts.strays))
            }
        }
    }
}

fn strays(count: u64) -> Option<String> {
    (count > 0)
        .then(|| format!("{count} MCAP files in chunks/ have names that are no chunk's: they stay where they are"))
}

/// Tells whether a folder has been still so long that nobody records into it any more.
pub const fn is_still(touched_at_ns: UnixNs, now_ns: UnixNs) -> bool {
    now_ns.saturating_sub(touched_at_ns) as u128 >= STILL_MAX.as_nanos()
}

/// Tells whether a recording's folder may still change, so that it is looked at often.
pub const fn is_open(manifest: &ManifestFacts) -> bool {
    !matches!(manifest, ManifestFacts::Readable { has_ended: true, .. })
}

/// What decides whether a chunk goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkFacts {
    /// A readable manifest names it.
    pub is_listed: bool,
    /// A finalize event named it with its digest.
    pub is_announced: bool,
    /// Scans in a row that saw its file.
    pub sightings: u8,
    /// Where it is on this machine.
    pub local: ChunkLocal,
    /// How its upload is known.
    pub proof: Option<Proof>,
}

/// Tells whether a chunk is complete: a manifest or an event names it, or it has been there long enough.
pub const fn is_finalized(chunk: &ChunkFacts) -> bool {
    chunk.is_listed || chunk.is_announced || chunk.sightings >= SIGHTINGS_MIN
}

/// Tells whether a chunk of a recording that is not foreign is to be uploaded.
pub fn is_pending(chunk: &ChunkFacts) -> bool {
    is_finalized(chunk) && chunk.local == ChunkLocal::Present && !chunk.proof.is_some_and(Proof::is_proven)
}

/// Returns how much of a recording is proven.
pub const fn upload_state(chunks: u64, proven: u64) -> UploadState {
    if proven == 0 {
        UploadState::None
    } else if proven < chunks {
        UploadState::Partial
    } else {
        UploadState::Complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_NS: u64 = 86_400_000_000_000;

    fn state_of(manifest: &ManifestFacts, unlisted_chunks: usize, still_ns: u64) -> RecordingState {
        state(&RecordingEvidence {
            manifest,
            unlisted_chunks,
            strays: 0,
            touched_at_ns: 5 * DAY_NS,
            now_ns: 5 * DAY_NS + still_ns,
        })
        .0
    }

    #[test]
    fn every_state_has_its_facts() {
        let readable = |is_ours, has_ended| ManifestFacts::Readable { is_ours, has_ended };
        assert_eq!(state_of(&readable(true, false), 0, 0), RecordingState::Recording);
        assert_eq!(state_of(&readable(true, false), 0, DAY_NS), RecordingState::Interrupted);
        assert_eq!(state_of(&readable(true, true), 0, DAY_NS), RecordingState::Ended);
        assert_eq!(state_of(&readable(true, true), 1, 0), RecordingState::Unlisted);
        assert_eq!(state_of(&readable(false, true), 1, 0), RecordingState::Foreign);
        assert_eq!(state_of(&ManifestFacts::Absent, 0, 0), RecordingState::Unlisted);
        assert_eq!(state_of(&ManifestFacts::Refused(vec!["x".into()]), 0, 0), RecordingState::Invalid);
    }

    #[test]
    fn a_clock_that_jumped_back_interrupts_nothing() {
        let manifest = ManifestFacts::Readable { is_ours: true, has_ended: false };
        let facts = RecordingEvidence {
            manifest: &manifest,
            unlisted_chunks: 0,
            strays: 0,
            touched_at_ns: 5 * DAY_NS,
            now_ns: 0,
        };
        assert_eq!(state(&facts).0, RecordingState::Recording);
    }

    #[test]
    fn a_chunk_goes_up_once_it_is_finalized_there_and_not_proven() {
        let listed =
            ChunkFacts { is_listed: true, is_announced: false, sightings: 1, local: ChunkLocal::Present, proof: None };
        assert!(is_pending(&listed));
        assert!(is_pending(&ChunkFacts { proof: Some(Proof::Claimed), ..listed }));
        assert!(!is_pending(&ChunkFacts { proof: Some(Proof::Enforced), ..listed }));
        for local in [ChunkLocal::Missing, ChunkLocal::Damaged, ChunkLocal::Evicted] {
            assert!(!is_pending(&ChunkFacts { local, ..listed }));
        }
        let unlisted = ChunkFacts { is_listed: false, ..listed };
        assert!(!is_pending(&unlisted));
        assert!(is_pending(&ChunkFacts { sightings: 2, ..unlisted }));
        assert!(is_pending(&ChunkFacts { is_announced: true, ..unlisted }));
    }
}
