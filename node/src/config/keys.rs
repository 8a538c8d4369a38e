//! The settings: one table of what may stand in `[storage]`, with kinds and defaults.

use std::{path::Path, time::Duration};

use bubbaloop_storage_schemas::{MachineId, limits::CONCURRENCY_MAX};
use serde_json::{Value, json};

/// What a setting's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text, all digits too.
    Text,
    /// As a text, and told only as set or not.
    Secret,
    /// The id of a machine.
    Machine,
    /// A path; a relative one starts at the home.
    Path,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds.
    Number(u64, u64),
    /// `2s`, `12h`; a bare number counts seconds. At least the first, at most the second.
    Duration(Duration, Duration),
    /// Zenoh endpoints.
    Endpoints,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Its name in `[storage]`, dotted where it is in a table of it.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// Its default as it would be written; `None` without one.
    pub default: Option<&'static str>,
}

const fn key(name: &'static str, kind: Kind, default: Option<&'static str>) -> Key {
    Key { name, kind, default }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// All settings, in the order in which `config` tells them.
pub(super) const KEYS: &[Key] = &[
    key("machine_id", Kind::Machine, None),
    key("recordings_dir", Kind::Path, Some("recordings")),
    key("backend", Kind::Choice(&["local", "s3", "r2", "gcs", "minio"]), None),
    key("local_path", Kind::Path, None),
    key("endpoint", Kind::Text, None),
    key("region", Kind::Text, None),
    key("bucket", Kind::Text, None),
    key("prefix", Kind::Text, None),
    key("ca_file", Kind::Path, None),
    key("credentials", Kind::Choice(&["static", "ambient"]), Some("static")),
    key("auto_upload", Kind::Flag, Some("true")),
    key("concurrency", Kind::Number(1, CONCURRENCY_MAX as u64), Some("4")),
    key("give_up_after", Kind::Duration(SECOND, YEAR), Some("12h")),
    key("rescan_interval", Kind::Duration(SECOND, HOUR), Some("60s")),
    key("verify_interval", Kind::Duration(SECOND, YEAR), Some("7d")),
    key("shutdown_grace", Kind::Duration(Duration::ZERO, HOUR), Some("10s")),
    key("command_verbs", Kind::Choice(&["viewer", "operator"]), Some("viewer")),
    key("zenoh.mode", Kind::Choice(&["peer", "client"]), Some("peer")),
    key("zenoh.connect", Kind::Endpoints, Some("[\"tcp/127.0.0.1:7447\"]")),
    key("zenoh.listen", Kind::Endpoints, Some("[\"tcp/127.0.0.1:7448\"]")),
    key("zenoh.multicast", Kind::Flag, Some("true")),
    key("zenoh.config_file", Kind::Path, None),
    key("access_key_id", Kind::Secret, None),
    key("secret_access_key", Kind::Secret, None),
    key("session_token", Kind::Secret, None),
];

impl Key {
    /// Reads a value in any of the spellings of a file, an environment variable or a flag.
    ///
    /// # Errors
    /// It is none: what it should look like.
    pub(super) fn read(&self, home: &Path, value: &Value) -> Result<Value, String> {
        let text = value.as_str();
        // An empty text sets an optional setting to nothing, over what another source says.
        if text == Some("") && self.default.is_none() && matches!(self.kind, Kind::Text | Kind::Secret | Kind::Path) {
            return Ok(Value::Null);
        }
        match self.kind {
            Kind::Text | Kind::Secret => spelled(value).map(Value::from).ok_or_else(|| "not text".into()),
            Kind::Machine => match spelled(value).map(|text| MachineId::of_host(&text)) {
                Some(Ok(id)) => Ok(json!(id)),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("not a name".into()),
            },
            Kind::Path => match text {
                Some(text) if !text.is_empty() => Ok(json!(home.join(text))),
                Some(_) | None => Err("not a path".into()),
            },
            Kind::Flag => match (value.as_bool(), text) {
                (Some(flag), _) => Ok(json!(flag)),
                (None, Some("true")) => Ok(json!(true)),
                (None, Some("false")) => Ok(json!(false)),
                (None, _) => Err("neither true nor false".into()),
            },
            Kind::Number(min, max) => {
                let number = value.as_u64().or_else(|| text?.trim().parse().ok());
                let wanted = || format!("not a whole number from {min} to {max}");
                number.filter(|number| (min..=max).contains(number)).map(Value::from).ok_or_else(wanted)
            }
            Kind::Duration(min, max) => read_duration(value, min, max),
            Kind::Endpoints => read_endpoints(value),
            Kind::Choice(words) => match text {
                Some(text) if words.contains(&text) => Ok(json!(text)),
                Some(_) | None => Err(format!("not one of {}", words.join(", "))),
            },
        }
    }

    /// Returns the default as it is read.
    pub(super) fn default_value(&self, home: &Path) -> Value {
        let read = |text: &str| self.read(home, &json!(text)).unwrap_or_default();
        self.default.map(read).unwrap_or_default()
    }
}

/// Names may be all digits, and TOML reads those as numbers.
fn spelled(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn read_duration(value: &Value, min: Duration, max: Duration) -> Result<Value, String> {
    let seconds = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
    let duration = match seconds {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => value.as_str().and_then(|text| humantime::parse_duration(text).ok()),
    };
    let duration = duration.ok_or("not a length of time such as 30s or 12h")?;
    if !(min..=max).contains(&duration) {
        let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
        return Err(format!("not from {min} to {max}"));
    }
    Ok(json!(humantime::format_duration(duration).to_string()))
}

fn read_endpoints(value: &Value) -> Result<Value, String> {
    #[derive(serde::Deserialize)]
    struct Written {
        list: Vec<String>,
    }
    let texts: Option<Vec<String>> = match value {
        Value::Array(parts) => parts.iter().map(|part| part.as_str().map(str::to_owned)).collect(),
        Value::String(text) if text.trim_start().starts_with('[') => {
            toml::from_str::<Written>(&format!("list = {text}")).ok().map(|written| written.list)
        }
        Value::String(text) if text.is_empty() => Some(Vec::new()),
        Value::String(text) => Some(text.split(',').map(|part| part.trim().to_owned()).collect()),
        _ => None,
    };
    let texts = texts.ok_or("not a list such as [\"tcp/127.0.0.1:7447\"]")?;
    let is_endpoint = |text: &String| {
        let has_parts =
            text.split_once('/').is_some_and(|(protocol, address)| !protocol.is_empty() && !address.is_empty());
        has_parts
            && text.chars().all(|letter| !letter.is_control() && !letter.is_whitespace() && !"\"'\\".contains(letter))
    };
    match texts.iter().find(|text| !is_endpoint(text)) {
        Some(wrong) => Err(format!("{wrong:?} is not an endpoint such as tcp/127.0.0.1:7447")),
        None => Ok(json!(texts)),
    }
}
