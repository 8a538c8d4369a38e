//! A request's parameters, from the selector and from the payload, checked against the verb's table.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use serde_json::{Map, Value};

use crate::{
    digest::shorten,
    error::{ErrorCode, Refusal},
    lenient,
    names::RecordingName,
    time::Timestamp,
};

/// The smallest number of nanoseconds since 1970 that is taken for a time: 1973. Below it are all times of our age in
/// seconds, milliseconds and microseconds.
const UNIX_NS_MIN: u64 = 100_000_000_000_000_000;

/// What a request was given, by name.
///
/// Values of a selector are text, those of a payload JSON; the readers below take both spellings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params(BTreeMap<String, Value>);

pub(crate) fn wrong(name: &str, value: &Value, wanted: &str) -> Refusal {
    let shown = shorten(&value.to_string());
    Refusal::new(ErrorCode::InvalidParams, format!("{name}={shown}: not {wanted}"))
        .hint("help tells what each verb's parameters take")
}

impl Params {
    /// Sets one parameter. Returns the earlier value.
    pub(crate) fn insert(&mut self, name: &str, value: Value) -> Option<Value> {
        self.0.insert(name.to_owned(), value)
    }

    /// Sets one parameter if there is a value.
    pub(crate) fn set(&mut self, name: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.insert(name, value);
        }
    }

    /// Adds the fields of a payload; they win over the selector. Null means not given.
    pub fn overlay(&mut self, fields: Map<String, Value>) {
        for (name, value) in fields {
            if value.is_null() {
                self.0.remove(&name);
            } else {
                self.0.insert(name, value);
            }
        }
    }

    /// Takes the token out, so that nobody shows it with the others; `None` where none is given.
    ///
    /// # Errors
    /// It is something else than text.
    pub fn take_token(&mut self) -> Result<Option<String>, Refusal> {
        match self.0.remove("token") {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::new(ErrorCode::InvalidParams, "token: not text").hint("send the token as text")),
        }
    }

    /// Sets one parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Returns the parameters as a payload's fields.
    pub fn to_fields(&self) -> Map<String, Value> {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Returns the names of the parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Reads a text; an empty one counts as not given.
    ///
    /// # Errors
    /// It is something else than text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok((!text.is_empty()).then_some(text)),
            Some(value) => Err(wrong(name, value, "text")),
        }
    }

    /// Reads a whole number.
    ///
    /// # Errors
    /// It is something else.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let number = match value {
            Value::String(text) => {
                text.parse().ok().or_else(|| text.parse().ok().filter(|_| text.contains('.')).and_then(lenient::whole))
            }
            Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(lenient::whole)),
            _ => None,
        };
        number.map(Some).ok_or_else(|| wrong(name, value, "a whole number"))
    }

    /// Reads a flag; not given is false, given without a value is true.
    ///
    /// # Errors
    /// It is something else than true or false.
    pub fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.0.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text.is_empty() || text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" => Ok(false),
            Some(value) => Err(wrong(name, value, "true or false")),
        }
    }

    /// Reads a length of time: `2s`, `1h 30m`, or a number of seconds.
    ///
    /// # Errors
    /// It is something else.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, Refusal> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let duration = match value {
            Value::String(text) => match text.parse() {
                Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
                Err(_) => humantime::parse_duration(text).ok(),
            },
            Value::Number(number) => number.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            _ => None,
        };
        duration.map(Some).ok_or_else(|| wrong(name, value, "a length of time such as 5s or 2m"))
    }

    /// Reads a point of time. A small number is refused: it is meant in another unit than nanoseconds.
    ///
    /// # Errors
    /// It is something else.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, Refusal> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let (time, is_number) = match value {
            Value::String(text) => (Timestamp::parse(text), text.parse::<u64>().is_ok()),
            Value::Number(number) => {
                (number.as_u64().or_else(|| number.as_f64().and_then(lenient::whole)).map(Timestamp), true)
            }
            _ => (None, false),
        };
        if time.is_some_and(|Timestamp(ns)| is_number && (1..UNIX_NS_MIN).contains(&ns)) {
            let message = format!("{name}={}: too small for nanoseconds since 1970", shorten(&value.to_string()));
            let hint = "give nanoseconds since 1970, or an RFC 3339 time such as 2026-01-31T08:00:00Z";
            return Err(Refusal::new(ErrorCode::InvalidParams, message).hint(hint));
        }
        time.map(Some)
            .ok_or_else(|| wrong(name, value, "a time such as 2026-01-31, 2026-01-31T08:00:00Z or Unix nanoseconds"))
    }

    /// Reads the name of a recording.
    ///
    /// # Errors
    /// It is illegal.
    pub fn recording(&self, name: &str) -> Result<Option<RecordingName>, Refusal> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        RecordingName::from_str(text).map(Some).map_err(|error| {
            Refusal::new(ErrorCode::InvalidParams, error.to_string()).hint("list tells the names of the recordings")
        })
    }
}
