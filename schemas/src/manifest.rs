//! `manifest.json`: what a recording consists of, version 1.
//!
//! The names are shared with Bubbaloop's own recorder. Fields that are not known here survive a load
//! and a save, at every level.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    digest::{Digest, shorten, shorten_message},
    lenient,
    limits::CHUNK_BYTES_MAX,
    names::{ChunkName, MachineId, RecordingName},
    time::UnixNs,
};

/// The version that this crate reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// A recording's manifest as it stands in the file; [`Manifest::check`] tells what it is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// The version of the format: 1.
    #[serde(deserialize_with = "lenient::u32")]
    pub schema_version: u32,
    /// The recording's name: that of its folder.
    pub name: String,
    /// The machine that recorded it.
    pub machine_id: String,
    /// When it began.
    #[serde(deserialize_with = "lenient::u64")]
    pub started_at_ns: UnixNs,
    /// When it ended. Until it is there the file belongs to the recorder.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub ended_at_ns: Option<UnixNs>,
    /// How long it took.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// The size of all chunks.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// `streaming` or `ring_buffer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The ring buffer's length in seconds.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub window_secs: Option<u64>,
    /// `manual` or `on-event`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Which topics were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// The profile that it was recorded with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_name: Option<String>,
    /// The digest of that profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_sha256: Option<String>,
    /// The recorder's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorder_version: Option<String>,
    /// A person's labels.
    #[serde(default, deserialize_with = "lenient::list", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The router of the fleet that it was recorded through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet_router: Option<String>,
    /// Nothing here can heal it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<bool>,
    /// The recorded channels.
    #[serde(default, deserialize_with = "lenient::list", skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Channel>,
    /// The chunks, by index from 0.
    #[serde(default, deserialize_with = "lenient::list")]
    pub chunks: Vec<ManifestChunk>,
    /// Fields of other writers.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Which topics a recording takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Selection {
    /// Key expressions that are recorded.
    #[serde(default, deserialize_with = "lenient::list")]
    pub topics: Vec<String>,
    /// A regular expression over topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// What is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Value>,
    /// Whether topics that never leave the machine are taken too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_local: Option<bool>,
    /// Fields of other writers.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One recorded channel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Channel {
    /// The topic that was recorded.
    pub topic: String,
    /// Its id in the MCAP files.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<u64>,
    /// MCAP's message encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_encoding: Option<String>,
    /// Zenoh's encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zenoh_encoding: Option<String>,
    /// Messages in all chunks.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub message_count: Option<u64>,
    /// The messages' schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_name: Option<String>,
    /// When the first message was published.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub publish_time_first_ns: Option<UnixNs>,
    /// When the last message was published.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub publish_time_last_ns: Option<UnixNs>,
    /// Fields of other writers.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One chunk as a manifest or an event names it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ManifestChunk {
    /// `chunk-{index:06}-{first 8 hex digits of the digest}.mcap`.
    pub name: String,
    /// The chunk's place in its recording, from 0.
    #[serde(deserialize_with = "lenient::u32")]
    pub index: u32,
    /// The file's size.
    #[serde(deserialize_with = "lenient::u64")]
    pub size_bytes: u64,
    /// The digest: 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The first log time in the file.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub log_time_first_ns: Option<UnixNs>,
    /// The last log time in the file.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub log_time_last_ns: Option<UnixNs>,
    /// When the chunk was proven in an object store. Without a journal line it is a claim.
    #[serde(default, deserialize_with = "lenient::option_u64", skip_serializing_if = "Option::is_none")]
    pub uploaded_at_ns: Option<UnixNs>,
    /// The object's ETag in that store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_etag: Option<String>,
    /// Fields of other writers.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A chunk whose name, index and digest agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Its one name.
    pub name: ChunkName,
    /// What its bytes hash to.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// The first log time in the file, where told.
    pub log_time_first_ns: Option<UnixNs>,
    /// The last log time in the file, where told.
    pub log_time_last_ns: Option<UnixNs>,
}

/// What a manifest says once it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The recording's name.
    pub name: RecordingName,
    /// Whose it is.
    pub machine_id: MachineId,
    /// The chunks, by index.
    pub chunks: Vec<Chunk>,
}

/// Whether a manifest may leave out indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indices {
    /// From 0 without a gap: a recorder's manifest.
    Contiguous,
    /// Rising: a remote manifest, which names only the chunks that are there.
    Rising,
}

/// Why one chunk of a manifest or an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A part is not what it must look like.
    #[error("{0}")]
    Illegal(String),
    /// The parts are well formed and contradict each other.
    #[error("chunk name {name} does not fit index {index} and digest {digest}")]
    Mismatch {
        /// The name it has.
        name: ChunkName,
        /// The index it has.
        index: u32,
        /// The digest it has.
        digest: Digest,
    },
    /// No object is so large.
    #[error("chunk {name} has {size_bytes} bytes: more than {CHUNK_BYTES_MAX} are in no object")]
    Large {
        /// Its name.
        name: ChunkName,
        /// What is told as its size.
        size_bytes: u64,
    },
}

impl ManifestChunk {
    /// Checks that name, index and digest are well formed and agree, and that the size is one that a chunk can have: sums of
    /// sizes then stay within their type.
    ///
    /// # Errors
    /// `Illegal` where a part is not well formed, `Mismatch` where the name is another chunk's, `Large` where the size is absurd.
    pub fn check(&self) -> Result<Chunk, ChunkError> {
        let name = ChunkName::from_str(&self.name).map_err(|error| ChunkError::Illegal(error.to_string()))?;
        let digest = Digest::from_str(&self.sha256)
            .map_err(|error| ChunkError::Illegal(format!("sha256 of chunk {name}: {error}")))?;
        if name != ChunkName::new(self.index, &digest) {
            return Err(ChunkError::Mismatch { name, index: self.index, digest });
        }
        if self.size_bytes > CHUNK_BYTES_MAX {
            return Err(ChunkError::Large { name, size_bytes: self.size_bytes });
        }
        Ok(Chunk {
            name,
            digest,
            size_bytes: self.size_bytes,
            log_time_first_ns: self.log_time_first_ns,
            log_time_last_ns: self.log_time_last_ns,
        })
    }
}

/// Most reasons that are told of one manifest; the rest are counted.
const REASONS_MAX: usize = 16;

/// Gathers every reason against a manifest, bounded.
#[derive(Default)]
struct Reasons {
    told: Vec<String>,
    more: usize,
}

impl Reasons {
    fn add(&mut self, reason: impl Into<String>) {
        if self.told.len() < REASONS_MAX {
            self.told.push(reason.into());
        } else {
            self.more += 1;
        }
    }

    fn into_result<T>(mut self, value: Option<T>) -> Result<T, Vec<String>> {
        if self.more > 0 {
            self.told.push(format!("and {} more", self.more));
        }
        match value {
            Some(value) if self.told.is_empty() => Ok(value),
            _ => Err(self.told),
        }
    }
}

fn unknown_version(version: impl fmt::Display) -> String {
    format!("unknown schema_version {version}: this node reads version {SCHEMA_VERSION}")
}

impl Manifest {
    /// Reads a manifest's text and checks it.
    ///
    /// # Errors
    /// Every reason at once: not JSON, an unknown version, fields of the wrong type, names, digests, indices.
    pub fn parse(text: &[u8], indices: Indices) -> Result<(Self, Checked), Vec<String>> {
        let manifest = Self::read(text)?;
        let checked = manifest.check(indices)?;
        Ok((manifest, checked))
    }

    /// Reads a manifest's text without checking what it says.
    ///
    /// # Errors
    /// Not JSON, an unknown version, fields of the wrong type.
    pub fn read(text: &[u8]) -> Result<Self, Vec<String>> {
        // Straight into the types: by way of a `Value` a large manifest takes nearly three times as long.
        let manifest: Self =
            serde_json::from_slice(text).map_err(|error| vec![Self::refusal_of_shape(text, &error)])?;
        if manifest.schema_version != SCHEMA_VERSION {
            return Err(vec![unknown_version(manifest.schema_version)]);
        }
        Ok(manifest)
    }

    /// Tells whether text is a manifest of another version: a recorder's that is ahead of this crate, and no broken one.
    pub fn is_of_other_version(text: &[u8]) -> bool {
        Self::version_of(text).is_some_and(|version| version.as_f64() != Some(f64::from(SCHEMA_VERSION)))
    }

    fn version_of(text: &[u8]) -> Option<Value> {
        #[derive(Deserialize)]
        struct Version {
            schema_version: Value,
        }
        serde_json::from_slice::<Version>(text).ok().map(|Version { schema_version }| schema_version)
    }

    /// Tells why text is no manifest; that another version has another shape is no fault of its fields.
    fn refusal_of_shape(text: &[u8], error: &serde_json::Error) -> String {
        if !error.is_data() {
            return format!("not JSON: {error}");
        }
        match Self::version_of(text) {
            Some(version) if version.as_f64() != Some(f64::from(SCHEMA_VERSION)) => {
                unknown_version(shorten(&version.to_string()))
            }
            _ => shorten_message(error),
        }
    }

    /// Checks all that the types do not.
    ///
    /// # Errors
    /// Every reason at once: unknown version, illegal names, digests that are none, chunk names that index
    /// and digest do not give, absurd sizes, indices that are not as `indices` wants them.
    pub fn check(&self, indices: Indices) -> Result<Checked, Vec<String>> {
        let mut reasons = Reasons::default();
        if self.schema_version != SCHEMA_VERSION {
            reasons.add(unknown_version(self.schema_version));
        }
        let name = RecordingName::from_str(&self.name).map_err(|error| reasons.add(error.to_string())).ok();
        let machine_id = MachineId::from_str(&self.machine_id).map_err(|error| reasons.add(error.to_string())).ok();
        let mut chunks = Vec::with_capacity(self.chunks.len());
        let mut next_index = 0_u64;
        for (place, chunk) in (0_u32..).zip(&self.chunks) {
            let in_order = match indices {
                Indices::Contiguous => chunk.index == place,
                Indices::Rising => u64::from(chunk.index) >= next_index,
            };
            if !in_order {
                reasons.add(
                    format!("chunk {} stands at place {place}: indices must be {indices:?}", chunk.index)
                        .to_lowercase(),
                );
            }
            next_index = u64::from(chunk.index) + 1;
            match chunk.check() {
                Ok(chunk) => chunks.push(chunk),
                Err(error) => reasons.add(error.to_string()),
            }
        }
        reasons.into_result(name.zip(machine_id).map(|(name, machine_id)| Checked { name, machine_id, chunks }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(index: u32, content: &str) -> ManifestChunk {
        let digest = Digest::of(content.as_bytes());
        ManifestChunk {
            name: ChunkName::new(index, &digest).to_string(),
            index,
            size_bytes: content.len() as u64,
            sha256: digest.to_string(),
            ..ManifestChunk::default()
        }
    }

    fn manifest(chunks: Vec<ManifestChunk>) -> Manifest {
        let head =
            serde_json::json!({ "schema_version": 1, "name": "drive_1", "machine_id": "robot_1", "started_at_ns": 5 });
        Manifest { chunks, ..serde_json::from_value(head).unwrap() }
    }

    #[test]
    fn unknown_fields_survive_a_load_and_a_save_at_every_level() {
        let text = serde_json::json!({
            "schema_version": 1, "name": "r", "machine_id": "m", "started_at_ns": 1, "new": {"a": [1, 2.5]},
            "selection": {"topics": ["a/**"], "rate": 3},
            "channels": [{"topic": "t", "x": null}],
            "chunks": [
                {"name": chunk(0, "a").name, "index": 0, "size_bytes": 1, "sha256": chunk(0, "a").sha256, "crc": 7}
            ],
        });
        let (loaded, _) = Manifest::parse(text.to_string().as_bytes(), Indices::Contiguous).unwrap();
        assert_eq!(serde_json::to_value(loaded).unwrap(), text);
    }

    #[test]
    fn every_reason_is_told_at_once() {
        let mut bad = manifest(vec![chunk(0, "a"), chunk(2, "b"), chunk(2, "c")]);
        bad.name = "../x".into();
        bad.machine_id = "a/b".into();
        bad.chunks[0].sha256 = "XYZ".into();
        bad.chunks[2].name = chunk(7, "c").name;
        let reasons = bad.check(Indices::Contiguous).unwrap_err();
        for part in ["../x", "a/b", "XYZ", "chunk 2 stands at place 1", "does not fit index 2"] {
            assert!(reasons.iter().any(|reason| reason.contains(part)), "{part}: {reasons:?}");
        }
    }

    #[test]
    fn a_thousand_bad_chunks_give_a_bounded_answer() {
        let bad = manifest((0..1000).map(|_| ManifestChunk::default()).collect());
        let reasons = bad.check(Indices::Contiguous).unwrap_err();
        assert_eq!(reasons.len(), REASONS_MAX + 1);
        assert!(reasons[REASONS_MAX].starts_with("and "), "{reasons:?}");
    }

    #[test]
    fn only_a_remote_manifest_may_leave_out_indices() {
        let gap = manifest(vec![chunk(1, "a"), chunk(4, "b")]);
        assert!(gap.check(Indices::Contiguous).is_err());
        assert_eq!(gap.check(Indices::Rising).unwrap().chunks.len(), 2);
        for index in [1, u32::MAX] {
            let twice = manifest(vec![chunk(index, "a"), chunk(index, "b")]);
            assert!(twice.check(Indices::Rising).is_err(), "{index}");
        }
    }

    #[test]
    fn versions_and_shapes_of_others_are_refused_with_a_reason() {
        for (text, part) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[]", "invalid type"),
            ("{}", "schema_version"),
            (r#"{"schema_version":2}"#, "unknown schema_version 2"),
            (r#"{"schema_version":"1"}"#, "unknown schema_version"),
            (r#"{"schema_version":2,"name":"a","machine_id":"m","started_at_ns":1}"#, "unknown schema_version 2"),
            (r#"{"schema_version":1,"name":"a","machine_id":"m","started_at_ns":-1}"#, "not negative"),
        ] {
            let reasons = Manifest::parse(text.as_bytes(), Indices::Contiguous).unwrap_err();
            assert!(reasons[0].contains(part), "{text}: {reasons:?}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_all_of_what_it_refuses() {
        let long = "x".repeat(1_000_000);
        for text in [
            format!(r#"{{"schema_version":1,"name":"a","machine_id":"m","started_at_ns":"{long}"}}"#),
            format!(r#"{{"schema_version":"{long}"}}"#),
            format!(r#"{{"schema_version":1,"name":"{long}","machine_id":"{long}","started_at_ns":1}}"#),
        ] {
            let reasons = Manifest::parse(text.as_bytes(), Indices::Contiguous).unwrap_err();
            assert!(reasons.iter().all(|reason| reason.len() < 300), "{reasons:?}");
        }
    }
}
