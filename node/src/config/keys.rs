//! The settings: one table of what may stand in `[storage]`, with kinds and defaults.

use std::{path::Path, time::Duration};

use bubbaloop_storage_schemas::{MachineId, limits::CONCURRENCY_MAX};
use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::policy::{
    parts::{PART_BYTES_MAX, PART_BYTES_MIN, PUT_BYTES_MAX},
    window::{NotAWindow, Window},
};

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
    /// `8 MiB`; a bare number counts bytes. At least the first, at most the second.
    Size(u64, u64),
    /// `2 MB/s` or `2 Mbit/s`, at least so many bytes per second.
    Rate(u64),
    /// `22:00-06:00`.
    Window,
    /// A number that is not negative, with a fraction or not.
    Decimal,
    /// A list of texts.
    Texts,
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
    /// It is taken up by the parts as they run; others are made anew for it.
    pub is_live: bool,
}

const fn key(name: &'static str, kind: Kind, default: Option<&'static str>) -> Key {
    Key { name, kind, default, is_live: false }
}

const fn live(name: &'static str, kind: Kind, default: Option<&'static str>) -> Key {
    Key { name, kind, default, is_live: true }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// Largest decimal: more gigabytes or days than anybody has.
const DECIMAL_MAX: f64 = 1e6;
/// Slowest limit: below it a block would wait longer than a connection is kept.
const RATE_MIN: u64 = 1024;
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
    live("auto_upload", Kind::Flag, Some("true")),
    key("auto_adopt", Kind::Flag, Some("false")),
    live("concurrency", Kind::Number(1, CONCURRENCY_MAX as u64), Some("4")),
    live("order", Kind::Choice(&["oldest", "newest"]), Some("oldest")),
    live("priority_tags", Kind::Texts, Some("[]")),
    live("bandwidth_limit", Kind::Rate(RATE_MIN), None),
    live("upload_window", Kind::Window, None),
    live("multipart_threshold", Kind::Size(PART_BYTES_MIN, PUT_BYTES_MAX), Some("16 MiB")),
    live("part_size", Kind::Size(PART_BYTES_MIN, PART_BYTES_MAX), Some("8 MiB")),
    live("retention_days_local", Kind::Decimal, None),
    live("disk_quota_gb", Kind::Decimal, None),
    live("min_free_gb", Kind::Decimal, None),
    live("give_up_after", Kind::Duration(SECOND, YEAR), Some("12h")),
    live("rescan_interval", Kind::Duration(SECOND, HOUR), Some("60s")),
    live("verify_interval", Kind::Duration(SECOND, YEAR), Some("7d")),
    live("shutdown_grace", Kind::Duration(Duration::ZERO, HOUR), Some("10s")),
    key("command_verbs", Kind::Choice(&["viewer", "operator"]), Some("viewer")),
    key("zenoh.mode", Kind::Choice(&["peer", "client"]), Some("peer")),
    key("zenoh.connect", Kind::Endpoints, Some("[\"tcp/127.0.0.1:7447\"]")),
    key("zenoh.listen", Kind::Endpoints, Some("[\"tcp/127.0.0.1:7448\"]")),
    key("zenoh.multicast", Kind::Flag, Some("true")),
    key("zenoh.config_file", Kind::Path, None),
    key("access_key_id", Kind::Secret, None),
    key("secret_access_key", Kind::Secret, None),
    key("session_token", Kind::Secret, None),
    key("admin_token", Kind::Secret, None),
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
            Kind::Size(min, max) => read_size(value, min, max),
            Kind::Rate(min) => read_rate(value, min),
            Kind::Window => {
                let window = text.and_then(|text| text.parse::<Window>().ok());
                window.map(|window| json!(window.to_string())).ok_or_else(|| NotAWindow.to_string())
            }
            Kind::Decimal => {
                let number = value.as_f64().or_else(|| text?.trim().parse().ok());
                let number = number.filter(|number| number.is_finite() && (0.0..=DECIMAL_MAX).contains(number));
                number.map(Value::from).ok_or_else(|| "not a number such as 7 or 0.5".into())
            }
            Kind::Texts => read_texts(value).map(Value::from).ok_or_else(|| "not a list such as [\"a\", \"b\"]".into()),
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

/// Reads so many bytes: a number, or one with a unit.
fn bytes_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| Some(value.as_str()?.trim().parse::<ByteSize>().ok()?.as_u64()))
}

fn read_size(value: &Value, min: u64, max: u64) -> Result<Value, String> {
    let size = bytes_of(value).ok_or("not a size such as 8 MiB")?;
    if !(min..=max).contains(&size) {
        return Err(format!("not from {} to {}", ByteSize(min), ByteSize(max)));
    }
    Ok(json!(spelled_size(size)))
}

fn read_rate(value: &Value, min: u64) -> Result<Value, String> {
    let text = value.as_str().map(|text| text.trim().to_ascii_lowercase());
    let text = text.map(|text| ["/s", "ps"].iter().find_map(|end| text.strip_suffix(end)).unwrap_or(&text).to_owned());
    // Links are sold in bits.
    let bits = text.as_ref().and_then(|text| text.strip_suffix("bit").or_else(|| text.strip_suffix("bits")));
    let rate = match (bits, &text) {
        (Some(bits), _) => bytes_of(&json!(format!("{bits}b"))).map(|bits| bits / 8),
        (None, Some(text)) => bytes_of(&json!(text)),
        (None, None) => bytes_of(value),
    };
    let rate = rate.ok_or("not a rate such as 2 MB/s or 2 Mbit/s")?;
    if rate < min {
        return Err(format!("less than {}/s", ByteSize(min)));
    }
    Ok(json!(format!("{}/s", spelled_size(rate))))
}

/// Writes a size so that it is read as the same one.
fn spelled_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 6] =
        [("GiB", 1 << 30), ("GB", 1_000_000_000), ("MiB", 1 << 20), ("MB", 1_000_000), ("KiB", 1 << 10), ("kB", 1000)];
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    unit.map_or_else(|| format!("{bytes} B"), |(name, size)| format!("{} {name}", bytes / size))
}

/// Reads a list of texts, one of TOML's in a text too.
fn read_texts(value: &Value) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Written {
        list: Vec<String>,
    }
    match value {
        Value::Array(parts) => parts.iter().map(|part| part.as_str().map(str::to_owned)).collect(),
        Value::String(text) if text.trim_start().starts_with('[') => {
            toml::from_str::<Written>(&format!("list = {text}")).ok().map(|written| written.list)
        }
        Value::String(text) if text.is_empty() => Some(Vec::new()),
        Value::String(text) => Some(text.split(',').map(|part| part.trim().to_owned()).collect()),
        _ => None,
    }
}

fn read_endpoints(value: &Value) -> Result<Value, String> {
    let texts = read_texts(value).ok_or("not a list such as [\"tcp/127.0.0.1:7447\"]")?;
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

/// Returns how many bytes a setting of a size or a rate stands for, as it was read.
pub(super) fn bytes(value: &Value) -> Option<u64> {
    bytes_of(&json!(value.as_str()?.trim_end_matches("/s")))
}
