//! The kinds of settings, and how a value of each is read.
//!
//! Reading normalizes: a value is listed, compared and converted in one spelling, however it was written.

use std::{path::Path, time::Duration};

use bubbaloop_storage_schemas::MachineId;
use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::{
    policy::window::{NotAWindow, Window},
    store,
};

/// Largest decimal number: more gigabytes or days than anybody has.
const DECIMAL_MAX: f64 = 1e6;

/// The kind of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text, digits only included.
    Text,
    /// A text that is never shown: `config` lists only whether it is set.
    Secret,
    /// The id of a machine.
    Machine,
    /// A path; a relative one starts at the home.
    Path,
    /// `true` or `false`.
    Flag,
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// `2s` or `12h`, from the first to the second; a bare number counts seconds.
    Duration(Duration, Duration),
    /// `8 MiB`, from the first to the second; a bare number counts bytes.
    Size(u64, u64),
    /// `2 MB/s` or `2 Mbit/s`, at least so many bytes per second.
    Rate(u64),
    /// `22:00-06:00`.
    Window,
    /// A number from 0 to a million, with a fraction or without.
    Decimal,
    /// A list of texts.
    Texts,
    /// A list of Zenoh endpoints.
    Endpoints,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The name of a registered store backend.
    Backend,
}

impl Kind {
    /// Reads a value in any spelling of a file, an environment variable or a flag, and normalizes it.
    ///
    /// # Errors
    /// The value is not of this kind: what a value should look like.
    pub(super) fn read(self, home: &Path, value: &Value) -> Result<Value, String> {
        let text = value.as_str();
        match self {
            Self::Text | Self::Secret => spelled(value).map(Value::from).ok_or_else(|| "not text".into()),
            Self::Machine => match spelled(value).map(|text| MachineId::of_host(&text)) {
                Some(Ok(id)) => Ok(json!(id)),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("not a name".into()),
            },
            Self::Path => match text {
                Some(text) if !text.is_empty() => Ok(json!(home.join(text))),
                Some(_) | None => Err("not a path".into()),
            },
            Self::Flag => match (value.as_bool(), text) {
                (Some(flag), _) => Ok(json!(flag)),
                (None, Some("true")) => Ok(json!(true)),
                (None, Some("false")) => Ok(json!(false)),
                (None, _) => Err("neither true nor false".into()),
            },
            Self::Number(min, max) => {
                let number = value.as_u64().or_else(|| text?.trim().parse().ok());
                let wanted = || format!("not a whole number from {min} to {max}");
                number.filter(|number| (min..=max).contains(number)).map(Value::from).ok_or_else(wanted)
            }
            Self::Duration(min, max) => read_duration(value, min, max),
            Self::Size(min, max) => read_size(value, min, max),
            Self::Rate(min) => read_rate(value, min),
            Self::Window => {
                let window = text.and_then(|text| text.parse::<Window>().ok());
                window.map(|window| json!(window.to_string())).ok_or_else(|| NotAWindow.to_string())
            }
            Self::Decimal => {
                let number = value.as_f64().or_else(|| text?.trim().parse().ok());
                let number = number.filter(|number| number.is_finite() && (0.0..=DECIMAL_MAX).contains(number));
                number.map(Value::from).ok_or_else(|| "not a number such as 7 or 0.5".into())
            }
            Self::Texts => read_texts(value).map(Value::from).ok_or_else(|| "not a list such as [\"a\", \"b\"]".into()),
            Self::Endpoints => read_endpoints(value),
            Self::Choice(words) => read_choice(text, words),
            Self::Backend => read_choice(text, &store::backend_names()),
        }
    }
}

fn read_choice(text: Option<&str>, words: &[&str]) -> Result<Value, String> {
    match text {
        Some(text) if words.contains(&text) => Ok(json!(text)),
        Some(_) | None => Err(format!("not one of {}", words.join(", "))),
    }
}

/// Returns the text of a value. A name may consist of digits only, which TOML reads as a number.
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

/// Reads a number of bytes, with a unit or without.
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
    // Link providers count in bits.
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

/// Spells a size so that it reads back as the same one.
fn spelled_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 6] =
        [("GiB", 1 << 30), ("GB", 1_000_000_000), ("MiB", 1 << 20), ("MB", 1_000_000), ("KiB", 1 << 10), ("kB", 1000)];
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    unit.map_or_else(|| format!("{bytes} B"), |(name, size)| format!("{} {name}", bytes / size))
}

/// Reads a list of texts: a list, or a text that holds one in TOML's spelling or with commas.
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

/// Returns the number of bytes, or of bytes per second, of a normalized size or rate.
pub(super) fn bytes(value: &Value) -> Option<u64> {
    bytes_of(&json!(value.as_str()?.trim_end_matches("/s")))
}
