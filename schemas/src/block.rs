//! Why uploads are blocked: one row for each reason.

use std::{convert::Infallible, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::UnixNs;

/// Defines [`BlockReason`] from its rows: variant, wire string, meaning, hint, and what else follows from it.
macro_rules! block_reasons {
    ($($variant:ident $code:literal: $meaning:literal, $hint:literal $(, $flag:ident)*;)+) => {
        /// The class of a fact that stops all uploads. On the wire it is a string.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum BlockReason {
            $(#[doc = concat!("`", $code, "`: ", $meaning, ".")] $variant,)+
            /// A reason that this version does not know: a newer node sent it.
            Other(String),
        }

        impl BlockReason {
            /// All reasons that this version knows, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            const fn row(&self) -> Row<'_> {
                match self {
                    $(Self::$variant => Row { $($flag: true,)* ..Row::new($code, $meaning, $hint) },)+
                    Self::Other(code) => Row::new(code.as_str(), "a newer node reports it", "update this program to learn more"),
                }
            }
        }
    };
}

/// What is known of one reason.
struct Row<'a> {
    code: &'a str,
    meaning: &'static str,
    hint: &'static str,
    leaves_marks_unproven: bool,
    may_concern_one_object: bool,
}

impl<'a> Row<'a> {
    const fn new(code: &'a str, meaning: &'static str, hint: &'static str) -> Self {
        Self { code, meaning, hint, leaves_marks_unproven: false, may_concern_one_object: false }
    }
}

block_reasons! {
    NoStore "no_store":
        "no store is configured", "set backend in [storage] of config.toml";
    Config "config":
        "a setting of the store is wrong", "correct what config_problems names";
    SecretsReadable "secrets_readable":
        "other users can read secrets.toml", "run chmod 600 on it";
    LocalPathMissing "local_path_missing":
        "the folder of the local store is missing", "mount its disk, or set local_path to another folder",
        leaves_marks_unproven;
    LocalPathChanged "local_path_changed":
        "another folder is in the place of the local store", "mount the right disk",
        leaves_marks_unproven;
    NoSuchBucket "no_such_bucket":
        "the bucket does not exist", "create it, or set bucket to another one",
        leaves_marks_unproven;
    WrongRegion "wrong_region":
        "the bucket is in another region", "set region to the region of the bucket";
    NoCredentials "no_credentials":
        "the machine offers no credentials", "set access_key_id and secret_access_key in secrets.toml";
    BadCredentials "bad_credentials":
        "the store does not accept the key", "correct access_key_id and secret_access_key in secrets.toml";
    ExpiredCredentials "expired_credentials":
        "the credentials have expired", "put new ones into secrets.toml, session_token included";
    AccessDenied "access_denied":
        "the key lacks a right", "grant the right that the hint names, or use another key",
        may_concern_one_object;
    ClockSkew "clock_skew":
        "the machine's clock is wrong, and signing with the store's time did not help", "set the clock, for example with NTP";
    UnknownCa "unknown_ca":
        "the store's certificate is from an unknown CA", "set ca_file to the PEM file of the CA";
    BadCertificate "bad_certificate":
        "the store's certificate is not valid", "check the name in endpoint, the certificate's dates and the machine's clock";
    NotAnObjectStore "not_an_object_store":
        "something else than an object store answers, for example a captive portal", "check endpoint and the network",
        may_concern_one_object;
    Unreachable "unreachable":
        "the folder of the local store cannot be opened", "do what the hint says";
    StoreFull "store_full":
        "the disk of the local store is full", "make room on it";
    StoreAltersBytes "store_alters_bytes":
        "the store returned other bytes than were sent", "check the proxy before the store, and the store";
    ProbeRefused "probe_refused":
        "the store refuses the node's own small test objects", "do what the hint says";
    RecordingsUnreadable "recordings_unreadable":
        "the folder of recordings cannot be read", "mount or create it, or set recordings_dir";
    RecordingsChanged "recordings_changed":
        "another folder is in the place of the folder of recordings", "mount the right disk";
}

impl BlockReason {
    /// Returns the string that stands for it on the wire. It never changes.
    pub const fn code(&self) -> &str {
        self.row().code
    }

    /// Returns what has happened, as a clause without a full stop.
    pub const fn meaning(&self) -> &'static str {
        self.row().meaning
    }

    /// Returns what a person can do, as a clause without a full stop.
    pub const fn hint(&self) -> &'static str {
        self.row().hint
    }

    /// Returns whether the store may be another one, or an empty one, when the block ends: what was proven in it must be
    /// verified again.
    pub const fn leaves_marks_unproven(&self) -> bool {
        self.row().leaves_marks_unproven
    }

    /// Returns whether the reason may concern one object only. A probe of the store decides.
    pub const fn may_concern_one_object(&self) -> bool {
        self.row().may_concern_one_object
    }
}

impl fmt::Display for BlockReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl From<&str> for BlockReason {
    fn from(code: &str) -> Self {
        let known = Self::ALL.iter().find(|reason| reason.code() == code);
        known.cloned().unwrap_or_else(|| Self::Other(code.to_owned()))
    }
}

impl FromStr for BlockReason {
    type Err = Infallible;

    fn from_str(code: &str) -> Result<Self, Infallible> {
        Ok(Self::from(code))
    }
}

impl PartialEq<str> for BlockReason {
    fn eq(&self, code: &str) -> bool {
        self.code() == code
    }
}

impl PartialEq<&str> for BlockReason {
    fn eq(&self, code: &&str) -> bool {
        self.code() == *code
    }
}

impl Serialize for BlockReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for BlockReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|code| Self::from(code.as_str()))
    }
}

impl JsonSchema for BlockReason {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

/// A fact stops uploads; it ends by itself when the fact does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Blocked {
    /// The class of the fact.
    pub reason: BlockReason,
    /// Since when.
    pub since_ns: UnixNs,
    /// What a person can do.
    pub hint: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_reason_is_read_as_it_is_written_and_an_unknown_one_is_kept() {
        let newer = BlockReason::Other("of_a_newer_node".into());
        for reason in BlockReason::ALL.iter().chain([&newer]) {
            let text = serde_json::to_string(reason).unwrap();
            assert_eq!(text, format!("\"{}\"", reason.code()));
            assert_eq!(&serde_json::from_str::<BlockReason>(&text).unwrap(), reason);
            assert!(!reason.meaning().is_empty() && !reason.hint().is_empty(), "{reason}");
        }
        let codes: BTreeSet<_> = BlockReason::ALL.iter().map(BlockReason::code).collect();
        assert_eq!(codes.len(), BlockReason::ALL.len());
    }

    #[test]
    fn only_a_store_that_may_be_another_one_afterwards_leaves_marks_unproven() {
        let found = |is: fn(&BlockReason) -> bool| -> Vec<_> {
            BlockReason::ALL.iter().filter(|reason| is(reason)).map(BlockReason::code).collect()
        };
        let unproven = found(BlockReason::leaves_marks_unproven);
        assert_eq!(unproven, ["local_path_missing", "local_path_changed", "no_such_bucket"]);
        assert_eq!(found(BlockReason::may_concern_one_object), ["access_denied", "not_an_object_store"]);
    }
}
