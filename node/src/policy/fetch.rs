//! What is fetched back from the store: which manifest is taken for one, which chunks are meant, and whether there is room.

use std::{ops::RangeInclusive, time::Duration};

use bubbaloop_storage_schemas::{
    MachineId, RecordingName, UnixNs,
    limits::{MANIFEST_BYTES_MAX, MANIFEST_CHUNKS_MAX},
    manifest::{Checked, Chunk, Indices, Manifest},
};

/// How long a chunk that a person had fetched is not removed to make room.
const PINNED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The most that is left free for others.
const RESERVE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The part of a disk that is left free, where that is less.
const RESERVE_SHARE: u64 = 20;

/// Returns until when a chunk that was fetched at this time is not removed to make room.
pub const fn pinned_until_ns(restored_at_ns: UnixNs) -> UnixNs {
    restored_at_ns.saturating_add(PINNED_FOR.as_secs() * 1_000_000_000)
}

/// Tells whether a manifest is small enough to be taken from a store, and so to be put there.
///
/// # Errors
/// Why it is not.
pub fn size(chunks: usize, bytes: usize) -> Result<(), String> {
    if chunks > MANIFEST_CHUNKS_MAX {
        return Err(format!("it names {chunks} chunks: more than {MANIFEST_CHUNKS_MAX} are taken for none"));
    }
    if bytes as u64 > MANIFEST_BYTES_MAX {
        return Err(format!("it has {bytes} bytes: more than {MANIFEST_BYTES_MAX} are taken for none"));
    }
    Ok(())
}

/// Reads what stands in the store as the manifest of a recording. Whoever may write there may write anything.
///
/// # Errors
/// Every reason at once: what [`Manifest::check`] tells, another recording's name or machine, more chunks or larger ones
/// than there can be.
pub fn accept(text: &[u8], machine: &MachineId, name: &RecordingName) -> Result<(Manifest, Checked), Vec<String>> {
    let manifest = Manifest::read(text)?;
    let count = manifest.chunks.len();
    size(count, text.len()).map_err(|reason| vec![reason])?;
    let (checked, mut reasons) = match manifest.check(Indices::Rising) {
        Ok(checked) => (Some(checked), Vec::new()),
        Err(reasons) => (None, reasons),
    };
    if manifest.name != name.as_str() && manifest.name.parse::<RecordingName>().is_ok() {
        reasons.push(format!("it is the manifest of the recording {}, not of {name}", manifest.name));
    }
    if let Ok(theirs) = manifest.machine_id.parse::<MachineId>()
        && !theirs.is_same_machine(machine)
    {
        reasons.push(format!("it is a manifest of the machine {theirs}, not of {machine}"));
    }
    match checked {
        Some(checked) if reasons.is_empty() => Ok((manifest, checked)),
        Some(_) | None => Err(reasons),
    }
}

/// A disk has not the room for what is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{needed_bytes} bytes are to be written, {free_bytes} are free and {reserve_bytes} of them stay free for others"
)]
pub struct NoRoom {
    /// What is to be written.
    pub needed_bytes: u64,
    /// What is free.
    pub free_bytes: u64,
    /// What is not used of that.
    pub reserve_bytes: u64,
}

/// Tells whether a disk has room, leaving a part of it free: a recorder goes on writing.
///
/// # Errors
/// It has not.
pub fn room(needed_bytes: u64, free_bytes: u64, disk_bytes: u64) -> Result<(), NoRoom> {
    let reserve_bytes = (disk_bytes / RESERVE_SHARE).min(RESERVE_BYTES_MAX);
    if needed_bytes == 0 || needed_bytes <= free_bytes.saturating_sub(reserve_bytes) {
        Ok(())
    } else {
        Err(NoRoom { needed_bytes, free_bytes, reserve_bytes })
    }
}

/// Which chunks of a recording are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// By index.
    pub indices: RangeInclusive<u32>,
    /// Chunks that end before this are left out.
    pub since_ns: Option<UnixNs>,
    /// Chunks that begin after this are left out.
    pub until_ns: Option<UnixNs>,
}

impl Selection {
    /// Means every chunk.
    pub const ALL: Self = Self { indices: 0..=u32::MAX, since_ns: None, until_ns: None };

    /// Tells whether a chunk is meant. One that tells no log times may be in any time.
    pub fn takes(&self, chunk: &Chunk) -> bool {
        let is_over = self.since_ns.zip(chunk.log_time_last_ns).is_some_and(|(since, last)| last < since);
        let is_later = self.until_ns.zip(chunk.log_time_first_ns).is_some_and(|(until, first)| first > until);
        self.indices.contains(&chunk.name.index()) && !is_over && !is_later
    }
}

#[cfg(test)]
mod tests {
    use bubbaloop_storage_schemas::{ChunkName, Digest, manifest::ManifestChunk};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn chunk(index: u32) -> Value {
        let digest = Digest::of(&index.to_be_bytes());
        json!({"name": ChunkName::new(index, &digest), "index": index, "size_bytes": 4, "sha256": digest})
    }

    fn manifest(more: Value) -> Vec<u8> {
        let mut manifest = json!({
            "schema_version": 1, "name": "drive", "machine_id": "robot-1", "started_at_ns": 5, "chunks": [chunk(0), chunk(3)]
        });
        manifest.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        manifest.to_string().into_bytes()
    }

    fn accepted(text: &[u8]) -> Result<usize, Vec<String>> {
        let accepted = accept(text, &"robot_1".parse().unwrap(), &"drive".parse().unwrap());
        accepted.map(|(_, checked)| checked.chunks.len())
    }

    #[test]
    fn a_remote_manifest_may_leave_out_indices_and_spell_the_machine_in_its_own_way() {
        assert_eq!(accepted(&manifest(json!({}))), Ok(2));
    }

    #[test]
    fn a_tampered_manifest_is_refused_with_every_reason() {
        let with = |index: usize, field: &str, value: Value| {
            let mut chunk = chunk(u32::try_from(index).unwrap());
            chunk[field] = value;
            chunk
        };
        let chunks = json!([
            with(0, "name", json!("../../../etc/passwd")),
            with(1, "sha256", json!("ABC")),
            with(2, "sha256", json!(Digest::of(b"other"))),
            with(3, "size_bytes", json!(u64::MAX)),
            chunk(3),
        ]);
        let reasons = accepted(&manifest(json!({"name": "other", "machine_id": "evil", "chunks": chunks})));
        let reasons = reasons.unwrap_err().join("\n");
        for part in [
            "illegal chunk name \"../../../etc/passwd\"",
            "sha256 of chunk",
            "does not fit index 2",
            "indices must be rising",
            "of the recording other, not of drive",
            "of the machine evil, not of robot_1",
            "has 18446744073709551615 bytes: more than",
        ] {
            assert!(reasons.contains(part), "{part}: {reasons}");
        }
        for (more, part) in [
            (json!({"name": "../x"}), "illegal recording name"),
            (json!({"machine_id": ".."}), "illegal machine name"),
            (json!({"schema_version": 2}), "unknown schema_version 2"),
            (json!({"chunks": 7}), "invalid type"),
        ] {
            let reasons = accepted(&manifest(more)).unwrap_err().join("\n");
            assert!(reasons.contains(part), "{part}: {reasons}");
        }
    }

    #[test]
    fn a_manifest_of_too_many_chunks_is_refused_and_reasons_are_bounded() {
        let many = |count: u32| (0..count).map(chunk).collect::<Vec<_>>();
        let chunks = u32::try_from(MANIFEST_CHUNKS_MAX).unwrap();
        assert_eq!(accepted(&manifest(json!({"chunks": many(chunks)}))), Ok(MANIFEST_CHUNKS_MAX));
        let reasons = accepted(&manifest(json!({"chunks": many(chunks + 1)}))).unwrap_err();
        assert!(reasons.len() == 1 && reasons[0].contains("names 100001 chunks"), "{reasons:?}");
        let mut large = many(1000);
        large.iter_mut().for_each(|chunk| chunk["size_bytes"] = json!(u64::MAX));
        let reasons = accepted(&manifest(json!({"chunks": large}))).unwrap_err();
        assert_eq!((reasons.len(), &*reasons[16]), (17, "and 984 more"));
    }

    #[test]
    fn a_part_of_the_disk_stays_free() {
        const GIB: u64 = 1024 * 1024 * 1024;
        assert_eq!(room(0, 0, 100 * GIB), Ok(()), "nothing to fetch needs nothing");
        assert_eq!(room(9 * GIB, 10 * GIB, 100 * GIB), Ok(()));
        let refused = room(9 * GIB + 1, 10 * GIB, 100 * GIB).unwrap_err();
        assert_eq!((refused.needed_bytes, refused.reserve_bytes), (9 * GIB + 1, GIB));
        assert_eq!(room(95, 100, 100), Ok(()), "a small disk has a small reserve");
        assert!(room(96, 100, 100).is_err());
        assert!(room(u64::MAX, u64::MAX, u64::MAX).is_err());
    }

    #[test]
    fn chunks_are_meant_by_index_and_by_the_times_that_they_overlap() {
        let timed = |index: u32, times: Option<(u64, u64)>| {
            let digest = Digest::of(&index.to_be_bytes());
            let (log_time_first_ns, log_time_last_ns) = times.unzip();
            let chunk = ManifestChunk {
                name: ChunkName::new(index, &digest).to_string(),
                index,
                sha256: digest.to_string(),
                log_time_first_ns,
                log_time_last_ns,
                ..ManifestChunk::default()
            };
            chunk.check().unwrap()
        };
        let chunks = [timed(0, Some((0, 9))), timed(1, Some((10, 19))), timed(2, None), timed(3, Some((20, 29)))];
        let meant = |selection: Selection| {
            let taken = chunks.iter().filter(|chunk| selection.takes(chunk));
            taken.map(|chunk| chunk.name.index()).collect::<Vec<_>>()
        };
        assert_eq!(meant(Selection::ALL), [0, 1, 2, 3]);
        assert_eq!(meant(Selection { indices: 1..=2, ..Selection::ALL }), [1, 2]);
        assert_eq!(meant(Selection { since_ns: Some(10), ..Selection::ALL }), [1, 2, 3]);
        assert_eq!(meant(Selection { until_ns: Some(10), ..Selection::ALL }), [0, 1, 2]);
        assert_eq!(meant(Selection { since_ns: Some(9), until_ns: Some(9), ..Selection::ALL }), [0, 2]);
        assert_eq!(meant(Selection { since_ns: Some(30), ..Selection::ALL }), [2], "it may be in any time");
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(accepted(&text).is_err());
        }
    }
}
