//! The settings of a node, each with its source; the one room, beside `main`, that reads the environment.
//!
//! A wrong setting never keeps the node from starting: its default is used, and the problem is told. Only a wrong
//! store section stops uploads, because guessing where recordings go would be worse.

mod keys;
mod layers;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use bubbaloop_storage_schemas::reply::ConfigProblem;
use bubbaloop_storage_schemas::{MachineId, error::nearest, reply::Setting};
use serde_json::Value;

use self::{
    keys::{KEYS, Key},
    layers::Merged,
};

/// Where uploads go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// Nowhere: nothing is configured.
    Unset,
    /// Nowhere: what is configured can't be used, for this reason.
    Invalid(String),
    /// Into a folder that behaves like a store.
    Local {
        /// The folder.
        path: PathBuf,
    },
}

/// How the node joins the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZenohSettings {
    /// As a client of a router; otherwise as a peer.
    pub is_client: bool,
    /// Endpoints to dial.
    pub connect: Vec<String>,
    /// Endpoints to listen on.
    pub listen: Vec<String>,
    /// The keys of these settings that some source sets. `listen` not among them may be any free port, and a
    /// `config_file` gives way to these only.
    pub explicit: BTreeSet<&'static str>,
    /// Peers on this machine are looked for by multicast.
    pub multicast: bool,
    /// A full Zenoh configuration, on which the above is laid.
    pub config_file: Option<PathBuf>,
}

/// The settings that the node obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The machine's id, where one is configured.
    pub machine_id: Option<MachineId>,
    /// The folder of recordings.
    pub recordings_dir: PathBuf,
    /// Where uploads go.
    pub store: StoreSettings,
    /// Chunks go up by themselves.
    pub auto_upload: bool,
    /// Uploads at once.
    pub concurrency: usize,
    /// How long a chunk may fail while the store takes others.
    pub give_up_after: Duration,
    /// Between two looks at the whole library.
    pub rescan_interval: Duration,
    /// Between two comparisons of all marks with the store.
    pub verify_interval: Duration,
    /// For what is on its way when the node ends.
    pub shutdown_grace: Duration,
    /// How the node joins the bus.
    pub zenoh: ZenohSettings,
}

/// The settings, where each comes from, and what is wrong with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What the node obeys.
    pub settings: Settings,
    /// Every setting with its source, as `config` tells it.
    pub listed: Vec<Setting>,
    /// Everything that is wrong, at once.
    pub problems: Vec<ConfigProblem>,
}

/// There is no home.
#[derive(Debug, thiserror::Error)]
#[error("neither BUBBALOOP_HOME nor HOME is set: set BUBBALOOP_HOME to the folder that holds recordings and settings")]
pub struct NoHome;

/// Returns the environment as text; what is no text is no setting of ours.
#[expect(clippy::disallowed_methods, reason = "this is the room")]
fn environment() -> BTreeMap<String, String> {
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Returns the home: `flag`, else `BUBBALOOP_HOME`, else `~/.bubbaloop`.
///
/// # Errors
/// None of them is there.
pub fn home(flag: Option<PathBuf>) -> Result<PathBuf, NoHome> {
    let env = environment();
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty());
    let home = flag
        .or_else(|| set("BUBBALOOP_HOME").map(PathBuf::from))
        .or_else(|| set("HOME").map(|home| Path::new(home).join(".bubbaloop")));
    let home = home.ok_or(NoHome)?;
    Ok(std::path::absolute(&home).unwrap_or(home))
}

/// Returns this machine's host name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl Config {
    /// Reads the settings of a home. Never fails: what is wrong is a problem, and the default holds.
    pub fn load(home: &Path, flags: &[(String, String)]) -> Self {
        let path = home.join("config.toml");
        let (text, unreadable) = match fs::read_to_string(&path) {
            Ok(text) => (Some(text), None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let mut config = Self::of(home, text.as_deref(), &environment(), flags);
        config.problems.extend(unreadable.map(|reason| file_problem(&path, &reason)));
        config
    }

    /// Merges the sources. `file` is the text of `config.toml`; `flags` are dotted keys with values.
    pub fn of(home: &Path, file: Option<&str>, env: &BTreeMap<String, String>, flags: &[(String, String)]) -> Self {
        let path = home.join("config.toml");
        let (merged, broken) = Merged::of(file.map(|text| (path.as_path(), text)), env, flags);
        let mut problems: Vec<_> = broken.iter().map(|reason| file_problem(&path, reason)).collect();
        problems.extend(merged.keys().into_iter().filter_map(|(key, source)| unknown(key, source)));
        let mut values = Values::default();
        for key in KEYS {
            let (value, source) = match merged.get(key.name) {
                None => (key.default_value(home), DEFAULT.to_owned()),
                Some((raw, source)) => match key.read(home, &raw) {
                    Ok(value) => (value, source),
                    Err(message) => {
                        problems.push(wrong(key, source, message));
                        values.wrong.push(key.name);
                        (key.default_value(home), DEFAULT.to_owned())
                    }
                },
            };
            values.listed.push(Setting { key: key.name.into(), value, source });
        }
        // A file that can't be read may name a store that is meant.
        let store = if broken.is_some() { StoreSettings::Invalid(problems[0].message.clone()) } else { values.store() };
        if let (StoreSettings::Invalid(reason), true) = (&store, problems.is_empty()) {
            problems.push(ConfigProblem {
                key: "local_path".into(),
                source: values.source("backend"),
                message: reason.clone(),
                hint: "set local_path to the folder that uploads go to".into(),
            });
        }
        let settings = values.settings(store);
        Self { settings, listed: values.listed, problems }
    }
}

impl Config {
    /// Takes in that the library has another machine id than the settings name: the library's wins.
    pub fn told_other_machine(&mut self, id: &MachineId) {
        let source = self.listed.iter().find(|setting| setting.key == "machine_id").map(|found| found.source.clone());
        self.problems.push(ConfigProblem {
            key: "machine_id".into(),
            source: source.unwrap_or_default(),
            message: format!("this library was begun as {id} and stays it"),
            hint: "remove the setting, or begin a new library in another home".into(),
        });
    }
}

const DEFAULT: &str = "default";

fn file_problem(path: &Path, reason: &str) -> ConfigProblem {
    ConfigProblem {
        key: "storage".into(),
        source: path.display().to_string(),
        message: format!("the file can't be used: {reason}"),
        hint: "mend the file; until then the defaults hold and nothing is uploaded".into(),
    }
}

fn unknown(key: String, source: String) -> Option<ConfigProblem> {
    if KEYS.iter().any(|known| known.name == key) {
        return None;
    }
    let hint = match nearest(&key, KEYS.iter().map(|known| known.name)) {
        Some(near) => format!("did you mean {near}?"),
        None => "remove it; `config` tells all settings".into(),
    };
    Some(ConfigProblem { key, source, message: "there is no such setting".into(), hint })
}

fn wrong(key: &Key, source: String, message: String) -> ConfigProblem {
    let hint = match key.default {
        Some(default) => format!("mend it; until then {default} holds"),
        None => "mend or remove it".into(),
    };
    ConfigProblem { key: key.name.into(), source, message, hint }
}

/// The values as they were read, with what was wrong.
#[derive(Default)]
struct Values {
    listed: Vec<Setting>,
    wrong: Vec<&'static str>,
}

impl Values {
    fn get(&self, key: &str) -> &Value {
        self.listed.iter().find(|setting| setting.key == key).map_or(&Value::Null, |setting| &setting.value)
    }

    fn source(&self, key: &str) -> String {
        self.listed.iter().find(|setting| setting.key == key).map(|setting| setting.source.clone()).unwrap_or_default()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key).as_str()
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    fn flag(&self, key: &str) -> bool {
        self.get(key).as_bool().unwrap_or_default()
    }

    fn duration(&self, key: &str) -> Duration {
        self.text(key).and_then(|text| humantime::parse_duration(text).ok()).unwrap_or_default()
    }

    fn list(&self, key: &str) -> Vec<String> {
        let parts = self.get(key).as_array().into_iter().flatten();
        parts.filter_map(|part| part.as_str().map(str::to_owned)).collect()
    }

    fn store(&self) -> StoreSettings {
        if let Some(key) = ["backend", "local_path"].into_iter().find(|key| self.wrong.contains(key)) {
            return StoreSettings::Invalid(format!("the setting {key} is wrong"));
        }
        match (self.text("backend"), self.path("local_path")) {
            (None, _) => StoreSettings::Unset,
            (Some(_), Some(path)) => StoreSettings::Local { path },
            (Some(_), None) => StoreSettings::Invalid("backend is local and local_path is not set".into()),
        }
    }

    fn settings(&self, store: StoreSettings) -> Settings {
        let concurrency = self.get("concurrency").as_u64().and_then(|number| usize::try_from(number).ok());
        Settings {
            machine_id: self.text("machine_id").and_then(|text| text.parse().ok()),
            recordings_dir: self.path("recordings_dir").unwrap_or_default(),
            store,
            auto_upload: self.flag("auto_upload"),
            concurrency: concurrency.unwrap_or(1),
            give_up_after: self.duration("give_up_after"),
            rescan_interval: self.duration("rescan_interval"),
            verify_interval: self.duration("verify_interval"),
            shutdown_grace: self.duration("shutdown_grace"),
            zenoh: ZenohSettings {
                is_client: self.text("zenoh.mode") == Some("client"),
                connect: self.list("zenoh.connect"),
                listen: self.list("zenoh.listen"),
                explicit: KEYS.iter().map(|key| key.name).filter(|name| self.source(name) != DEFAULT).collect(),
                multicast: self.flag("zenoh.multicast"),
                config_file: self.path("zenoh.config_file"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
