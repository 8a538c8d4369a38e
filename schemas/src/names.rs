//! Names that become parts of paths and keys. A path or a key is only ever built from these.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    digest::{Digest, Hex, read_hex, shorten},
    limits::NAME_BYTES_MAX,
};

/// Machine ids that would make the short key space ambiguous with other parts of the fleet's.
pub const RESERVED_MACHINE_IDS: [&str; 5] = ["global", "local", "nodes", "agent", "daemon"];

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is not made of the allowed characters, or empty, too long, `.` or `..`.
    #[error("illegal {kind} name {name:?}: a name is 1 to 128 of A-Z a-z 0-9 . _ - and neither . nor ..")]
    Illegal {
        /// What the name is for.
        kind: &'static str,
        /// The refused text, shortened.
        name: String,
    },
    /// It is a machine id that the fleet's key space keeps for something else.
    #[error("the machine id {0:?} is reserved: choose another than global, local, nodes, agent, daemon")]
    Reserved(String),
    /// It is not `chunk-{index:06}-{first 8 hex digits of the digest}.mcap`.
    #[error("illegal chunk name {0:?}: it is chunk-, six digits, -, eight lower-case hexadecimal digits, .mcap")]
    Chunk(String),
}

/// Tells whether `text` is 1 to 128 of `[A-Za-z0-9._-]` and neither `.` nor `..`.
pub fn is_legal(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && text != "."
        && text != ".."
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if is_legal(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError::Illegal { kind: $kind, name: shorten(text) })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9._-]+$" })
            }
        }
    };
}

name_type!(
    /// The name of a recording: its folder on disk and a part of its objects' keys.
    RecordingName,
    "recording"
);
name_type!(
    /// The id of a machine: the second part of its keys on the bus and the first of its objects' keys.
    MachineId,
    "machine"
);

impl MachineId {
    /// Makes the id of this machine from a configured or a host name: every `-` becomes `_`.
    ///
    /// # Errors
    /// The result is illegal or reserved: another id must be configured.
    pub fn of_host(text: &str) -> Result<Self, NameError> {
        let id: Self = text.replace('-', "_").parse()?;
        if RESERVED_MACHINE_IDS.contains(&id.as_str()) {
            return Err(NameError::Reserved(id.to_string()));
        }
        Ok(id)
    }

    /// Tells whether both name one machine: recorders spell the host name with `-` or with `_`.
    pub fn is_same_machine(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.bytes().zip(other.0.bytes()).all(|(a, b)| a == b || (b"-_".contains(&a) && b"-_".contains(&b)))
    }

    /// Returns the spellings under which other nodes may publish for this machine: with `_` and with `-`.
    pub fn spellings(&self) -> Vec<Self> {
        let mut spellings = vec![self.clone()];
        for text in [self.0.replace('-', "_"), self.0.replace('_', "-")] {
            if spellings.iter().all(|known| *known.0 != *text) {
                spellings.push(Self(text.into()));
            }
        }
        spellings
    }
}

/// The name of a chunk's file and object: `chunk-{index:06}-{first 8 hex digits of the digest}.mcap`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkName {
    index: u32,
    prefix: [u8; 4],
}

impl ChunkName {
    /// Builds the one name that a chunk with this index and digest has.
    pub const fn new(index: u32, digest: &Digest) -> Self {
        Self { index, prefix: digest.prefix() }
    }

    /// Returns the chunk's place in its recording, from 0.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Tells whether a chunk of this name may have `digest`.
    pub fn fits(self, digest: &Digest) -> bool {
        self.prefix == digest.prefix()
    }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk-{:06}-{}.mcap", self.index, Hex(&self.prefix))
    }
}

impl fmt::Debug for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChunkName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let (index, prefix) = text.strip_prefix("chunk-")?.strip_suffix(".mcap")?.split_once('-')?;
            let canonical = index.len() == 6 || (index.len() > 6 && !index.starts_with('0'));
            if !canonical || !index.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            Some(Self { index: index.parse().ok()?, prefix: read_hex(prefix)? })
        };
        parse().ok_or_else(|| NameError::Chunk(shorten(text)))
    }
}

impl Serialize for ChunkName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChunkName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ChunkName {
    fn schema_name() -> Cow<'static, str> {
        "ChunkName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^chunk-[0-9]{6,}-[0-9a-f]{8}\\.mcap$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_or_split_a_key_are_refused() {
        for text in
            ["", ".", "..", "../x", "a/b", "a\\b", "a b", "a*", "ä", "a\0", "a\n", "$x", "x#", "x?", &"a".repeat(129)]
        {
            assert!(text.parse::<RecordingName>().is_err(), "{text:?}");
        }
        for text in ["a", "...", ".hidden", "drive_1", "A-1.b", &"a".repeat(128)] {
            assert_eq!(text.parse::<RecordingName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_machine_id_never_collides_with_the_fleets_own_key_parts() {
        for text in RESERVED_MACHINE_IDS {
            assert!(matches!(MachineId::of_host(text), Err(NameError::Reserved(_))), "{text}");
        }
        assert_eq!(MachineId::of_host("robot-1.lan").unwrap().as_str(), "robot_1.lan");
        assert!(MachineId::of_host("").is_err());
    }

    #[test]
    fn a_machine_answers_to_both_spellings_of_its_name() {
        let id: MachineId = "a-b_c".parse().unwrap();
        let spellings: Vec<_> = id.spellings().iter().map(ToString::to_string).collect();
        assert_eq!(spellings, ["a-b_c", "a_b_c", "a-b-c"]);
        assert!(id.is_same_machine(&"a_b-c".parse().unwrap()));
        assert!(!id.is_same_machine(&"a_b.c".parse().unwrap()));
        assert!(!id.is_same_machine(&"a-b_".parse().unwrap()));
    }

    #[test]
    fn a_chunk_has_exactly_one_name() {
        let digest = Digest::of(b"x");
        let name = ChunkName::new(7, &digest);
        assert_eq!(name.to_string(), "chunk-000007-2d711642.mcap");
        assert_eq!(name.to_string().parse::<ChunkName>().unwrap(), name);
        assert_eq!(ChunkName::new(1_234_567, &digest).to_string().parse::<ChunkName>().unwrap().index(), 1_234_567);
        for text in [
            "chunk-7-2d711642.mcap",
            "chunk-0000007-2d711642.mcap",
            "chunk-000007-2D711642.mcap",
            "chunk-+00007-2d711642.mcap",
            "chunk-000007-2d711642.mcap.active",
            "chunk-99999999999-2d711642.mcap",
            ".chunk-000007-2d711642.mcap",
            "../chunk-000007-2d711642.mcap",
        ] {
            assert!(text.parse::<ChunkName>().is_err(), "{text}");
        }
    }
}
