//! Why a request is refused: `{code, message, hint, retryable}`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{lenient::OrUnknown, limits::NAME_BYTES_MAX};

/// The few codes that a program tells apart. They are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ErrorCode {
    /// The request is wrong: correct it.
    #[serde(rename = "E_INVALID_PARAMS")]
    InvalidParams,
    /// What it names is not here.
    #[serde(rename = "E_NOT_FOUND")]
    NotFound,
    /// Something else holds it back: end that first.
    #[serde(rename = "E_CONFLICT")]
    Conflict,
    /// The recording is damaged beyond what this node can heal.
    #[serde(rename = "E_CORRUPT")]
    Corrupt,
    /// The asker may not.
    #[serde(rename = "E_DENIED")]
    Denied,
    /// It can't be done now: ask again later.
    #[serde(rename = "E_UNAVAILABLE")]
    Unavailable,
    /// Too much at once: ask again, or for less.
    #[serde(rename = "E_LIMIT")]
    Limit,
    /// A fault of the node.
    #[serde(rename = "E_INTERNAL")]
    Internal,
}

impl ErrorCode {
    /// Tells whether the same request may succeed later without a person's doing.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Limit)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidParams => "E_INVALID_PARAMS",
            Self::NotFound => "E_NOT_FOUND",
            Self::Conflict => "E_CONFLICT",
            Self::Corrupt => "E_CORRUPT",
            Self::Denied => "E_DENIED",
            Self::Unavailable => "E_UNAVAILABLE",
            Self::Limit => "E_LIMIT",
            Self::Internal => "E_INTERNAL",
        })
    }
}

/// What went wrong and what to do next, before it is known who tells whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The class, for programs. A class that only a newer node knows is read as `E_INTERNAL`.
    #[serde(deserialize_with = "code_or_internal")]
    pub code: ErrorCode,
    /// What happened and to which recording or key, for people.
    pub message: String,
    /// What to do next; null where there is nothing to advise.
    pub hint: Option<String>,
    /// Whether the same request may succeed later without a person's doing.
    pub retryable: bool,
}

fn code_or_internal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
    Ok(OrUnknown::deserialize(deserializer)?.known().copied().unwrap_or(ErrorCode::Internal))
}

impl Refusal {
    /// Makes a refusal without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, retryable: code.is_retryable() }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The payload of a `reply_err`: refused, and nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorReply {
    /// The machine that refuses.
    pub machine_id: String,
    /// Its library.
    pub library_id: String,
    /// The verb that was asked for; null where none was met.
    pub verb: Option<String>,
    /// What went wrong and what to do next.
    #[serde(flatten)]
    pub refusal: Refusal,
}

/// Returns the known name that is nearest to `text`, if one is near enough to be meant.
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR_ENOUGH: f64 = 0.6;
    // The distance costs memory by the product of both lengths, and a key or a parameter may be of any length.
    if text.len() > NAME_BYTES_MAX {
        return None;
    }
    known
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(text, name).max(prefix_likeness(text, name)), name))
        .filter(|(likeness, _)| *likeness >= NEAR_ENOUGH)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// A beginning of at least three letters is as good as a near miss.
fn prefix_likeness(text: &str, name: &str) -> f64 {
    if text.len() >= 3 && (name.starts_with(text) || text.starts_with(name)) { 0.7 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_nonsense_finds_none() {
        let verbs = ["help", "list", "info", "status", "config", "upload"];
        assert_eq!(nearest("lst", verbs), Some("list"));
        assert_eq!(nearest("uplaod", verbs), Some("upload"));
        assert_eq!(nearest("conf", verbs), Some("config"));
        assert_eq!(nearest("zzz", verbs), None);
        assert_eq!(nearest("", verbs), None);
        assert_eq!(nearest(&"list".repeat(10_000), verbs), None);
    }

    #[test]
    fn the_code_reads_the_same_in_text_and_on_the_wire() {
        for code in [ErrorCode::InvalidParams, ErrorCode::Limit, ErrorCode::Internal] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.to_string());
        }
    }
}
