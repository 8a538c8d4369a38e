//! The values of all settings as they were read, and their conversion into types.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bubbaloop_storage_schemas::{
    Digest, MachineId,
    reply::{ConfigProblem, Setting},
};
use bytesize::ByteSize;
use serde_json::Value;

use super::{
    definition::{Definition, Scope},
    kind,
    layers::Merged,
};
use crate::{
    policy::{queue::Order, window::Window},
    secret::Secret,
};

/// The source of a value that no source sets.
const DEFAULT: &str = "default";

const DAY_S: f64 = 24.0 * 3600.0;

/// The value of every setting, with its source and with what was wrong.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// As `config` lists them: without secrets.
    pub(super) listed: Vec<Setting>,
    secrets: BTreeMap<&'static str, Secret>,
    wrong: Vec<&'static str>,
}

impl Values {
    /// Returns the defaults of some settings; a relative path stays relative.
    pub(super) fn defaults(definitions: &[Definition]) -> Self {
        let of = |definition: &Definition| Setting {
            key: definition.name.into(),
            value: definition.default_value(Path::new("")),
            source: DEFAULT.into(),
        };
        Self { listed: definitions.iter().map(of).collect(), ..Self::default() }
    }

    /// Reads one setting. A secret is kept apart and listed as set only.
    pub(super) fn take(
        &mut self,
        home: &Path,
        definition: &'static Definition,
        merged: &Merged,
        problems: &mut Vec<ConfigProblem>,
    ) {
        let name = definition.name;
        let (mut value, source) = match merged.get(name) {
            None => (definition.default_value(home), DEFAULT.to_owned()),
            Some((raw, source)) => match definition.read(home, &raw) {
                Ok(value) => (value, source),
                Err(message) => {
                    problems.push(wrong(definition, source, message));
                    self.wrong.push(name);
                    (definition.default_value(home), DEFAULT.to_owned())
                }
            },
        };
        if definition.is_secret() {
            if source.ends_with("config.toml") || source.starts_with("--") {
                problems.push(ConfigProblem {
                    key: name.into(),
                    source: source.clone(),
                    message: "a secret is where others may read it".into(),
                    hint: "put it into secrets.toml (mode 600) under [storage], or into the environment".into(),
                });
            }
            if let Value::String(text) = std::mem::take(&mut value) {
                self.secrets.insert(name, Secret::new(text));
                value = Value::from("set");
            }
        }
        self.listed.push(Setting { key: name.into(), value, source });
    }

    fn setting(&self, name: &str) -> Option<&Setting> {
        self.listed.iter().find(|setting| setting.key == name)
    }

    /// Returns the value of a setting in its type; the type's default if it has none.
    pub(super) fn get<T: FromValue + Default>(&self, name: &str) -> T {
        self.setting(name).and_then(|setting| T::from_value(&setting.value)).unwrap_or_default()
    }

    /// Returns the value of a setting that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.setting(name)?.value.as_str()
    }

    /// Returns the value of a secret.
    pub(super) fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name)
    }

    /// Returns the source of a setting.
    pub(super) fn source(&self, name: &str) -> &str {
        self.setting(name).map(|setting| setting.source.as_str()).unwrap_or_default()
    }

    /// Returns whether no source sets a setting.
    pub(super) fn is_default(&self, name: &str) -> bool {
        self.source(name) == DEFAULT
    }

    /// Returns whether some source sets a wrong value, so that the default is used.
    pub(super) fn is_wrong(&self, name: &str) -> bool {
        self.wrong.contains(&name)
    }

    /// Returns a digest of all values and problems.
    pub(super) fn digest(&self, problems: &[ConfigProblem], restart: &Digest) -> Digest {
        Digest::of(&serde_json::to_vec(&(&self.listed, problems, restart)).unwrap_or_default())
    }

    /// Returns a digest of the values whose change rebuilds the components, secrets and the content of `ca_file` included.
    pub(super) fn restart_digest(&self, definitions: impl Iterator<Item = &'static Definition>) -> Digest {
        let ca = self.get::<Option<PathBuf>>("ca_file").map(fs::read);
        let ca = Digest::of(&ca.and_then(Result::ok).unwrap_or_default()).to_string();
        let secrets: Vec<_> =
            self.secrets.iter().map(|(name, secret)| (name, Digest::of(secret.expose().as_bytes()))).collect();
        let values: Vec<_> = definitions
            .filter(|definition| definition.scope == Scope::Restart)
            .filter_map(|definition| self.setting(definition.name))
            .map(|setting| (&setting.key, &setting.value, self.is_wrong(&setting.key)))
            .collect();
        Digest::of(&serde_json::to_vec(&(values, ca, secrets)).unwrap_or_default())
    }
}

fn wrong(definition: &Definition, source: String, message: String) -> ConfigProblem {
    let hint = match definition.default {
        Some(default) => format!("correct it; until then the default {default} is used"),
        None => "correct or remove it".into(),
    };
    ConfigProblem { key: definition.name.into(), source, message, hint }
}

/// A type into which a normalized value converts.
pub(super) trait FromValue: Sized {
    /// Converts a value; `None` if it has none or another kind.
    fn from_value(value: &Value) -> Option<Self>;
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        T::from_value(value).map(Some)
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl FromValue for usize {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl FromValue for PathBuf {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }
}

impl FromValue for MachineId {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl FromValue for Window {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl FromValue for Vec<String> {
    fn from_value(value: &Value) -> Option<Self> {
        Some(value.as_array()?.iter().filter_map(|part| part.as_str().map(str::to_owned)).collect())
    }
}

impl FromValue for Order {
    fn from_value(value: &Value) -> Option<Self> {
        Some(if value.as_str()? == "newest" { Self::Newest } else { Self::Oldest })
    }
}

impl FromValue for Duration {
    /// A number counts days.
    fn from_value(value: &Value) -> Option<Self> {
        match value.as_f64() {
            Some(days) => Self::try_from_secs_f64(days * DAY_S).ok(),
            None => humantime::parse_duration(value.as_str()?).ok(),
        }
    }
}

impl FromValue for ByteSize {
    /// A number counts gigabytes.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a decimal is from 0 to a million")]
    fn from_value(value: &Value) -> Option<Self> {
        let bytes = match value.as_f64() {
            Some(gigabytes) => (gigabytes * 1e9) as u64,
            None => kind::bytes(value)?,
        };
        Some(Self(bytes))
    }
}
