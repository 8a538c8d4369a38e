//! What is defined for each setting.

use std::path::Path;

use serde_json::{Value, json};

use super::kind::Kind;

/// When a changed setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// At once, without touching uploads in flight.
    Live,
    /// After the node has ended what is in flight and rebuilt its components.
    Restart,
}

/// The definition of one setting.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Its name in `[storage]`; dotted if it is in a table of it.
    pub name: &'static str,
    /// Its default, as a person would write it; `None` without one.
    pub default: Option<&'static str>,
    /// When a change takes effect.
    pub scope: Scope,
    /// What it means: the line in the documentation.
    pub about: &'static str,
    pub(super) kind: Kind,
}

impl Definition {
    /// Reads a value in any spelling of a file, an environment variable or a flag, and normalizes it.
    ///
    /// # Errors
    /// The value is wrong: what a value should look like.
    pub(super) fn read(&self, home: &Path, value: &Value) -> Result<Value, String> {
        let may_be_empty = self.default.is_none() && matches!(self.kind, Kind::Text | Kind::Secret | Kind::Path);
        // An empty text unsets an optional setting that an earlier source sets.
        if value.as_str() == Some("") && may_be_empty {
            return Ok(Value::Null);
        }
        self.kind.read(home, value)
    }

    /// Returns the normalized default; null without one.
    pub(super) fn default_value(&self, home: &Path) -> Value {
        self.default.and_then(|text| self.read(home, &json!(text)).ok()).unwrap_or_default()
    }

    /// Returns whether the value is never shown.
    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }
}
