//! Where settings come from: defaults, `config.toml`, `secrets.toml`, the environment, flags; later ones win.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use figment::{
    Error, Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

/// What every variable of the environment begins with.
const PREFIX: &str = "BUBBALOOP_STORAGE_";

/// The variable that the fleet's other nodes read too.
const MACHINE_ID: &str = "BUBBALOOP_MACHINE_ID";

/// One source of settings.
struct Layer {
    source: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// Nests a dotted key.
fn nest(key: &str, value: Value) -> Dict {
    match key.split_once('.') {
        None => Dict::from([(key.to_owned(), value)]),
        Some((first, rest)) => Dict::from([(first.to_owned(), Value::from(nest(rest, value)))]),
    }
}

/// The settings of all sources, merged, each knowing where it comes from.
pub(super) struct Merged(Figment);

impl Merged {
    /// Merges the sources. `files` are texts of TOML files with their paths; `flags` are dotted keys with values.
    ///
    /// Returns with it the files that are no TOML or whose `[storage]` is no table, and why: they are passed over.
    pub(super) fn of(
        files: &[(&Path, &str)],
        env: &BTreeMap<String, String>,
        flags: &[(String, String)],
    ) -> (Self, Vec<(PathBuf, String)>) {
        let mut figment = Figment::new();
        let mut problems = Vec::new();
        for (path, text) in files {
            match table(text) {
                Ok(values) => figment = figment.merge(Layer { source: path.display().to_string(), values }),
                Err(reason) => problems.push(((*path).to_owned(), reason)),
            }
        }
        let text = |text: &String| Value::from(text.clone());
        if let Some(machine) = env.get(MACHINE_ID).filter(|machine| !machine.is_empty()) {
            figment = figment.merge(Layer { source: MACHINE_ID.into(), values: nest("machine_id", text(machine)) });
        }
        for (name, value) in env {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            let key = key.to_ascii_lowercase().replace("__", ".");
            figment = figment.merge(Layer { source: name.clone(), values: nest(&key, text(value)) });
        }
        for (key, value) in flags {
            figment = figment.merge(Layer { source: format!("--set {key}"), values: nest(key, text(value)) });
        }
        (Self(figment), problems)
    }

    /// Returns a setting's value and source.
    pub(super) fn get(&self, key: &str) -> Option<(serde_json::Value, String)> {
        let value = self.0.find_value(key).ok()?;
        let source = self.0.get_metadata(value.tag()).map(|metadata| metadata.name.to_string());
        Some((serde_json::to_value(&value).ok()?, source.unwrap_or_default()))
    }

    /// Returns every key that is set, dotted, with its source.
    pub(super) fn keys(&self) -> Vec<(String, String)> {
        let Ok(all) = self.0.extract::<Dict>() else { return Vec::new() };
        let mut found = Vec::new();
        let mut open = vec![(String::new(), all)];
        while let Some((base, dict)) = open.pop() {
            for (name, value) in dict {
                let key = if base.is_empty() { name } else { format!("{base}.{name}") };
                match value {
                    Value::Dict(_, inner) => open.push((key, inner)),
                    _ => {
                        let source = self.get(&key).map(|(_, source)| source).unwrap_or_default();
                        found.push((key, source));
                    }
                }
            }
        }
        found.sort();
        found
    }
}

fn table(text: &str) -> Result<Dict, String> {
    let all: toml::Table = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    match all.get("storage") {
        None => Ok(Dict::new()),
        Some(storage) => match Value::serialize(storage) {
            Ok(Value::Dict(_, values)) => Ok(values),
            Ok(_) | Err(_) => Err("[storage] is not a table".into()),
        },
    }
}
