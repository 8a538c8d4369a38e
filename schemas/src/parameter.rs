//! The parameters of a verb: their definition, and the types of their values.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ulid::Ulid;

use crate::{
    digest::shorten,
    error::{ErrorCode, Refusal, nearest},
    limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX, WAIT_DEFAULT, WAIT_MAX},
    names::RecordingName,
    params::{Params, wrong},
    time::Timestamp,
};

/// What a parameter's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// Any text.
    Text,
    /// The name of a recording.
    Recording,
    /// A whole number.
    Number,
    /// `true` or `false`; without a value it is true.
    Flag,
    /// A length of time: `2s`, `12h`.
    Duration,
    /// A point in time: RFC 3339, a date, or Unix nanoseconds.
    Time,
}

/// How the command line takes a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// Not at all: the command line sets it itself, or has no use for it.
    None,
    /// As an argument without a flag.
    Positional {
        /// The name of the value in the help.
        value: &'static str,
    },
    /// As a flag with a value.
    Option {
        /// The flag, without `--`.
        flag: &'static str,
        /// The name of the value in the help.
        value: &'static str,
    },
    /// As a flag without a value.
    Switch {
        /// The flag, without `--`.
        flag: &'static str,
    },
}

/// One parameter of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Its name in a selector and in a payload.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: ParamKind,
    /// What it does.
    pub summary: &'static str,
    /// The value that it has when it is not given, for the help.
    pub default: Option<&'static str>,
    /// How the command line takes it.
    pub argument: Argument,
    /// What it does, in the command line's help.
    pub about: &'static str,
    /// The message and the hint of the refusal when it is required and not given.
    missing: (&'static str, &'static str),
}

impl Param {
    /// How the reply is encoded. Every verb takes it.
    pub const FORMAT: Self =
        Self::new("format").describe(ParamKind::Text, "json (default) or cbor: how the reply is encoded");
    /// The token that admin verbs need. It is taken out of the payload before parameters are read.
    pub const TOKEN: Self = Self::new("token")
        .describe(ParamKind::Text, "the admin token: only in the payload, or as the query's attachment");

    /// Begins the definition of a parameter.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            kind: ParamKind::Text,
            summary: "",
            default: None,
            argument: Argument::None,
            about: "",
            missing: ("a parameter is missing", "help lists the parameters of each verb"),
        }
    }

    /// Sets the kind, and the summary from a documentation comment.
    #[must_use]
    pub const fn describe(self, kind: ParamKind, summary: &'static str) -> Self {
        let summary = summary.trim_ascii_start();
        let about = if self.about.is_empty() { summary } else { self.about };
        Self { kind, summary, about, ..self }
    }

    /// Sets the default that the help names.
    #[must_use]
    pub const fn default_of(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// Makes the command line take it without a flag.
    #[must_use]
    pub const fn positional(self, value: &'static str) -> Self {
        Self { argument: Argument::Positional { value }, ..self }
    }

    /// Makes the command line take it as a flag with a value.
    #[must_use]
    pub const fn option(self, flag: &'static str, value: &'static str) -> Self {
        Self { argument: Argument::Option { flag, value }, ..self }
    }

    /// Makes the command line take it as a flag without a value.
    #[must_use]
    pub const fn switch(self, flag: &'static str) -> Self {
        Self { argument: Argument::Switch { flag }, ..self }
    }

    /// Sets another text for the command line's help than the summary.
    #[must_use]
    pub const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// Sets the message and the hint of the refusal when it is not given.
    #[must_use]
    pub const fn required(self, message: &'static str, hint: &'static str) -> Self {
        Self { missing: (message, hint), ..self }
    }

    /// Returns what it does and its default, in one line.
    pub fn description(&self) -> String {
        match self.default {
            Some(default) => format!("{} (default {default})", self.summary),
            None => self.summary.to_owned(),
        }
    }

    fn missing(&self) -> Refusal {
        let (message, hint) = self.missing;
        Refusal::new(ErrorCode::InvalidParams, message).hint(hint)
    }
}

/// The request of a verb: its parameters as typed fields.
pub trait Parameters: std::fmt::Debug + Clone + PartialEq + Send + Sync + Sized + 'static {
    /// The parameters, in the order of the help.
    const PARAMETERS: &'static [Param];

    /// Reads each field from its parameter.
    ///
    /// # Errors
    /// A value is of the wrong kind or out of bounds, or a required one is missing.
    fn read(params: &Params) -> Result<Self, Refusal>;

    /// Returns the parameters that [`Self::read`] reads as this request.
    fn to_params(&self) -> Params;
}

/// The request of a verb that takes no parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoParameters;

impl Parameters for NoParameters {
    const PARAMETERS: &'static [Param] = &[Param::FORMAT];

    fn read(_params: &Params) -> Result<Self, Refusal> {
        Ok(Self)
    }

    fn to_params(&self) -> Params {
        Params::default()
    }
}

/// Checks that a verb has each of these parameters.
///
/// # Errors
/// A name is unknown: the nearest known one is the hint.
pub(crate) fn check_names(params: &Params, verb: &str, parameters: &[Param]) -> Result<(), Refusal> {
    let known = || parameters.iter().map(|param| param.name);
    let Some(unknown) = params.names().find(|name| known().all(|known| known != *name)) else {
        return Ok(());
    };
    let hint = match nearest(unknown, known()) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("{verb} takes {}", known().collect::<Vec<_>>().join(", ")),
    };
    Err(Refusal::new(ErrorCode::InvalidParams, format!("{verb} has no parameter {:?}", shorten(unknown))).hint(hint))
}

/// A value that a parameter can have.
pub trait ParameterValue: Sized {
    /// What it looks like.
    const KIND: ParamKind;

    /// Reads it; `None` if the parameter is not given.
    ///
    /// # Errors
    /// The parameter has another kind of value.
    fn read(params: &Params, name: &str) -> Result<Option<Self>, Refusal>;

    /// Returns it as it is sent.
    fn to_value(&self) -> Value;
}

/// A field of a request.
pub trait ParameterField: Sized {
    /// What the value of its parameter looks like.
    const KIND: ParamKind;

    /// Reads it.
    ///
    /// # Errors
    /// The parameter has another kind of value, or is required and not given.
    fn read(params: &Params, param: &Param) -> Result<Self, Refusal>;

    /// Returns its parameter as it is sent; `None` if it is not given.
    fn to_value(&self) -> Option<Value>;
}

impl<T: ParameterValue> ParameterField for Option<T> {
    const KIND: ParamKind = T::KIND;

    fn read(params: &Params, param: &Param) -> Result<Self, Refusal> {
        T::read(params, param.name)
    }

    fn to_value(&self) -> Option<Value> {
        self.as_ref().map(T::to_value)
    }
}

/// A field that a request must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Required<T>(pub T);

impl<T: ParameterValue> ParameterField for Required<T> {
    const KIND: ParamKind = T::KIND;

    fn read(params: &Params, param: &Param) -> Result<Self, Refusal> {
        T::read(params, param.name)?.map(Self).ok_or_else(|| param.missing())
    }

    fn to_value(&self) -> Option<Value> {
        Some(self.0.to_value())
    }
}

impl<T> std::ops::Deref for Required<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Required<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl ParameterField for bool {
    const KIND: ParamKind = ParamKind::Flag;

    fn read(params: &Params, param: &Param) -> Result<Self, Refusal> {
        params.flag(param.name)
    }

    fn to_value(&self) -> Option<Value> {
        self.then_some(Value::Bool(true))
    }
}

/// The number of rows of a page, from 1 to [`PAGE_ROWS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(usize);

impl Limit {
    /// The largest page.
    pub const MAX: Self = Self(PAGE_ROWS_MAX);

    /// Makes a limit. A number outside the bounds becomes the nearest one inside.
    pub fn new(rows: usize) -> Self {
        Self(rows.clamp(1, PAGE_ROWS_MAX))
    }

    /// Returns the number of rows.
    pub const fn rows(self) -> usize {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(PAGE_ROWS_DEFAULT)
    }
}

impl ParameterField for Limit {
    const KIND: ParamKind = ParamKind::Number;

    fn read(params: &Params, param: &Param) -> Result<Self, Refusal> {
        match params.number(param.name)? {
            None => Ok(Self::default()),
            Some(rows) => match usize::try_from(rows) {
                Ok(rows) if (1..=PAGE_ROWS_MAX).contains(&rows) => Ok(Self(rows)),
                _ => Err(wrong(param.name, &rows.into(), &format!("a number from 1 to {PAGE_ROWS_MAX}"))),
            },
        }
    }

    fn to_value(&self) -> Option<Value> {
        (*self != Self::default()).then(|| self.0.into())
    }
}

/// How long the reply waits for the end of a job, at most [`WAIT_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(Duration);

impl Wait {
    /// Makes a wait. A longer one than [`WAIT_MAX`] becomes that.
    pub fn new(wait: Duration) -> Self {
        Self(wait.min(WAIT_MAX))
    }

    /// Returns how long it is.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl Default for Wait {
    fn default() -> Self {
        Self(WAIT_DEFAULT)
    }
}

impl ParameterField for Wait {
    const KIND: ParamKind = ParamKind::Duration;

    fn read(params: &Params, param: &Param) -> Result<Self, Refusal> {
        Ok(params.duration(param.name)?.map_or_else(Self::default, Self::new))
    }

    fn to_value(&self) -> Option<Value> {
        (*self != Self::default()).then(|| self.0.to_value())
    }
}

impl ParameterValue for String {
    const KIND: ParamKind = ParamKind::Text;

    fn read(params: &Params, name: &str) -> Result<Option<Self>, Refusal> {
        Ok(params.text(name)?.map(str::to_owned))
    }

    fn to_value(&self) -> Value {
        self.as_str().into()
    }
}

impl ParameterValue for RecordingName {
    const KIND: ParamKind = ParamKind::Recording;

    fn read(params: &Params, name: &str) -> Result<Option<Self>, Refusal> {
        params.recording(name)
    }

    fn to_value(&self) -> Value {
        self.as_str().into()
    }
}

impl ParameterValue for Duration {
    const KIND: ParamKind = ParamKind::Duration;

    fn read(params: &Params, name: &str) -> Result<Option<Self>, Refusal> {
        params.duration(name)
    }

    /// Writes the text form: the number of seconds as a float is not exact.
    fn to_value(&self) -> Value {
        humantime::format_duration(*self).to_string().into()
    }
}

impl ParameterValue for Timestamp {
    const KIND: ParamKind = ParamKind::Time;

    fn read(params: &Params, name: &str) -> Result<Option<Self>, Refusal> {
        params.time(name)
    }

    /// Writes the text form: small numbers of nanoseconds are refused.
    fn to_value(&self) -> Value {
        self.to_rfc3339().into()
    }
}

/// The id of a job.
impl ParameterValue for Ulid {
    const KIND: ParamKind = ParamKind::Text;

    fn read(params: &Params, name: &str) -> Result<Option<Self>, Refusal> {
        let Some(text) = params.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Refusal::new(ErrorCode::InvalidParams, format!("{name}: not the id of a job")).hint("jobs tells the ids")
        })
    }

    fn to_value(&self) -> Value {
        self.to_string().into()
    }
}

/// Defines the request of a verb.
///
/// Each field is written as `/// summary`, `field: Type = Param::new("name")...;`. The documentation comment is the
/// summary in the help, so it begins with a small letter. `takes TOKEN` adds the token to the parameters.
macro_rules! request {
    (
        $(#[$meta:meta])*
        pub struct $request:ident $(takes $extra:ident)? {
            $($(#[doc = $summary:literal])+ $field:ident: $type:ty = $param:expr;)+
        }
    ) => {
        $(#[$meta])*
        pub struct $request {
            $($(#[doc = $summary])+ pub $field: $type,)+
        }

        impl $crate::parameter::Parameters for $request {
            const PARAMETERS: &'static [$crate::parameter::Param] = &[
                $($param.describe(
                    <$type as $crate::parameter::ParameterField>::KIND, concat!($($summary),+)
                ),)+
                $($crate::parameter::Param::$extra,)?
                $crate::parameter::Param::FORMAT,
            ];

            fn read(params: &$crate::params::Params) -> Result<Self, $crate::error::Refusal> {
                Ok(Self {
                    $($field: <$type as $crate::parameter::ParameterField>::read(params, &const { $param })?,)+
                })
            }

            fn to_params(&self) -> $crate::params::Params {
                let mut params = $crate::params::Params::default();
                $(params.set(
                    const { $param.name },
                    $crate::parameter::ParameterField::to_value(&self.$field),
                );)+
                params
            }
        }
    };
}
pub(crate) use request;
