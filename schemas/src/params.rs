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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selector(text: &str) -> Params {
        Params::of_selector(text.split(';').map(|pair| pair.split_once('=').unwrap_or((pair, "")))).unwrap()
    }

    fn payload(value: Value) -> Params {
        let mut params = Params::default();
        params.overlay(value.as_object().cloned().unwrap());
        params
    }

    #[test]
    fn a_selector_and_a_payload_say_the_same() {
        for params in [
            selector("recording=r;all;limit=10;wait=5s;since=2026-01-01"),
            payload(json!({
                "recording": "r", "all": true, "limit": 10.0, "wait": 5, "since": 1_767_225_600_000_000_000_u64
            })),
        ] {
            assert_eq!(params.recording("recording").unwrap().unwrap().as_str(), "r");
            assert!(params.flag("all").unwrap());
            assert_eq!(params.limit().unwrap(), 10);
            assert_eq!(params.duration("wait").unwrap(), Some(Duration::from_secs(5)));
            assert_eq!(params.time("since").unwrap(), Some(Timestamp(1_767_225_600_000_000_000)));
        }
    }

    #[test]
    fn seconds_are_not_taken_for_nanoseconds() {
        for number in [1, 1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000_u64] {
            for params in [selector(&format!("since={number}")), payload(json!({"since": number}))] {
                let refusal = params.time("since").unwrap_err();
                assert_eq!(refusal.code, ErrorCode::InvalidParams);
                assert!(refusal.hint.unwrap().contains("nanoseconds since 1970, or an RFC 3339 time"), "{number}");
            }
        }
        assert_eq!(selector("since=0").time("since").unwrap(), Some(Timestamp(0)));
        assert_eq!(selector("since=1970-01-02").time("since").unwrap(), Some(Timestamp(86_400_000_000_000)));
    }

    #[test]
    fn parameters_that_are_joined_as_in_urls_are_refused_and_a_value_may_have_an_ampersand() {
        for pair in [("name", "a&limit=1"), ("_raw&name", "a"), ("name", "a&_raw"), ("all", "true&dry_run"), ("&", "")]
        {
            let refusal = Params::of_selector([pair]).unwrap_err();
            assert!(refusal.hint.unwrap().contains(';'), "{pair:?}");
        }
        assert_eq!(selector("tag=salt&pepper").text("tag").unwrap(), Some("salt&pepper"));
        assert_eq!(payload(json!({"tag": "a&limit=1"})).text("tag").unwrap(), Some("a&limit=1"));
    }

    #[test]
    fn a_token_is_taken_from_a_payload_only_and_never_shown() {
        for pair in [("token", "hunter2"), ("Token", "hunter2"), ("a", "b&token=hunter2"), ("a&token", "hunter2")] {
            let refusal = Params::of_selector([pair]).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidParams);
            assert!(!format!("{refusal:?}").contains("hunter2") && refusal.hint.unwrap().contains("attachment"));
        }
        let mut params = payload(json!({"recording": "a", "token": "hunter2"}));
        assert_eq!(params.take_token().unwrap().as_deref(), Some("hunter2"));
        assert!(!format!("{params:?}").contains("hunter2"));
        assert_eq!(params.take_token(), Ok(None));
        let refusal = payload(json!({"token": 4711})).take_token().unwrap_err();
        assert!(!format!("{refusal:?}").contains("4711"));
    }

    #[test]
    fn the_payload_wins_and_null_takes_back() {
        let mut params = selector("limit=1;name=a");
        params.overlay(json!({"limit": 2, "name": null}).as_object().cloned().unwrap());
        assert_eq!(params.limit().unwrap(), 2);
        assert_eq!(params.text("name").unwrap(), None);
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        let params = payload(json!({
            "limit": 0, "all": "maybe", "wait": -1, "since": "soon", "recording": "../../x", "name": ["a"], "n": 0.5
        }));
        for (name, result) in [
            ("limit", params.limit().map(drop)),
            ("all", params.flag("all").map(drop)),
            ("wait", params.duration("wait").map(drop)),
            ("since", params.time("since").map(drop)),
            ("../../x", params.recording("recording").map(drop)),
            ("name", params.text("name").map(drop)),
            ("n=", params.number("n").map(drop)),
        ] {
            let refusal = result.unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidParams);
            assert!(refusal.message.contains(name), "{name}: {refusal}");
        }
        for text in ["limit=1001", "limit=-1", "limit=1.5", "limit=99999999999999999999", "wait=x", "limit="] {
            let params = selector(text);
            assert!(params.limit().is_err() || params.duration("wait").is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let refusal = selector("recordin=x").check_names(Verb::Info).unwrap_err();
        assert_eq!(refusal.hint.as_deref(), Some("did you mean recording?"));
        let refusal = selector("zzz=x").check_names(Verb::Help).unwrap_err();
        assert_eq!(refusal.hint.as_deref(), Some("help takes format"));
        assert_eq!(selector("_time=[now(-1h)];format=cbor").check_names(Verb::Help), Ok(()));
    }

    #[test]
    fn a_name_given_twice_is_no_guess() {
        assert!(Params::of_selector([("limit", "1"), ("limit", "2")]).is_err());
        assert!(Params::of_selector([("limit", "1"), ("limit", "1")]).is_ok());
    }
}
