//! The settings of a node, each with its source; the one room, beside `main`, that reads the environment.
//!
//! A wrong setting never keeps the node from starting: its default is used, and the problem is told. Only a wrong
//! store section stops uploads, because guessing where recordings go would be worse.

pub mod edit;
mod keys;
mod layers;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

pub use bubbaloop_storage_schemas::reply::ConfigProblem;
use bubbaloop_storage_schemas::{BlockReason, Digest, MachineId, error::nearest, reply::Setting};
use serde_json::Value;
use zeroize::Zeroizing;

use self::{
    keys::{KEYS, Key, Kind},
    layers::Merged,
};
use crate::{
    policy::{
        parts::{PART_BYTES_MIN, PartLimits},
        queue::Block,
        retention::Retention,
        window::Window,
    },
    secret::Secret,
};

/// Where uploads go.
#[derive(Debug, Clone)]
pub enum StoreSettings {
    /// Nowhere: nothing is configured.
    Unset,
    /// Nowhere: what is configured can't be used.
    Invalid(Block),
    /// Into a folder that behaves like a store.
    Local {
        /// The folder.
        path: PathBuf,
    },
    /// To an S3-compatible store.
    Remote(RemoteSettings),
}

/// An S3-compatible store as it is configured, not yet looked at.
#[derive(Debug, Clone)]
pub struct RemoteSettings {
    /// The `backend` setting.
    pub backend: String,
    /// The store's address, where one is set.
    pub endpoint: Option<String>,
    /// Its region, where one is set.
    pub region: Option<String>,
    /// The bucket; empty where none is set.
    pub bucket: String,
    /// What all keys begin with.
    pub prefix: String,
    /// Certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Whatever the machine offers is taken for credentials.
    pub is_ambient: bool,
    /// The key's public part; empty where none is set.
    pub access_key_id: String,
    /// Its secret part.
    pub secret_access_key: Secret,
    /// The token of a temporary key.
    pub session_token: Option<Secret>,
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
#[derive(Debug, Clone)]
pub struct Settings {
    /// The machine's id, where one is configured.
    pub machine_id: Option<MachineId>,
    /// The folder of recordings.
    pub recordings_dir: PathBuf,
    /// Where uploads go.
    pub store: StoreSettings,
    /// Chunks go up by themselves.
    pub auto_upload: bool,
    /// What is laid out in another way becomes a recording by itself.
    pub auto_adopt: bool,
    /// Uploads at once.
    pub concurrency: usize,
    /// The newest chunk goes first.
    pub is_newest_first: bool,
    /// Recordings with these tags go first, in this order.
    pub priority_tags: Vec<String>,
    /// Bytes per second over all uploads.
    pub bandwidth_limit_bytes_per_s: Option<u64>,
    /// The hours in which uploads go by themselves.
    pub upload_window: Option<Window>,
    /// Which chunks go up in parts.
    pub parts: PartLimits,
    /// When files make room that are proven elsewhere.
    pub retention: Retention,
    /// How long a chunk may fail while the store takes others.
    pub give_up_after: Duration,
    /// Between two looks at the whole library.
    pub rescan_interval: Duration,
    /// Between two comparisons of all marks with the store.
    pub verify_interval: Duration,
    /// For what is on its way when the node ends.
    pub shutdown_grace: Duration,
    /// Commands of the node contract may act, not only look.
    pub commands_act: bool,
    /// What tells who may ask for what an admin may.
    pub admin_token: Option<Secret>,
    /// How the node joins the bus.
    pub zenoh: ZenohSettings,
}

/// The settings, where each comes from, and what is wrong with them.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the node obeys.
    pub settings: Settings,
    /// Every setting with its source, as `config` tells it.
    pub listed: Vec<Setting>,
    /// Everything that is wrong, at once.
    pub problems: Vec<ConfigProblem>,
    /// A file can't be read or is no TOML, so that what is meant is not known. A node that runs keeps what it had.
    pub is_unreadable: bool,
    /// Which machine this is can't be told from the settings: a name that is refused, or a file that can't be read.
    pub is_machine_unclear: bool,
    /// Tells these settings from others, secrets and the content of `ca_file` too. It is kept in memory only.
    pub digest: Digest,
    /// The same without the settings that the parts take up as they run, and with nothing of what is wrong.
    pub parts_digest: Digest,
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

/// Tells whether the environment has a variable.
pub fn is_in_environment(name: &str) -> bool {
    environment().contains_key(name)
}

/// Tells whether a person wants no colours: `NO_COLOR` is set.
pub fn wants_no_colour() -> bool {
    environment().get("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Returns this machine's host name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl Config {
    /// Reads the settings of a home. Never fails: what is wrong is a problem, and the default holds.
    pub fn load(home: &Path, flags: &[(String, String)]) -> Self {
        let files =
            Files { config: File::read(&home.join("config.toml")), secrets: secrets(&home.join("secrets.toml")) };
        Self::of(home, &files, &environment(), flags)
    }

    /// Merges the sources. `flags` are dotted keys with values.
    pub fn of(home: &Path, files: &Files, env: &BTreeMap<String, String>, flags: &[(String, String)]) -> Self {
        let paths = [home.join("config.toml"), home.join("secrets.toml")];
        let texts: Vec<_> = paths
            .iter()
            .zip([&files.config, &files.secrets])
            .filter_map(|(path, file)| file.text().map(|text| (path.as_path(), text)))
            .collect();
        let (merged, broken) = Merged::of(&texts, env, flags);
        let mut problems: Vec<_> = broken.iter().map(|(path, reason)| file_problem(path, reason)).collect();
        for (path, file) in paths.iter().zip([&files.config, &files.secrets]) {
            problems.extend(file.fault().map(|reason| file_problem(path, &reason)));
        }
        let unusable = problems.first().map(|problem| {
            let is_exposed = matches!(files.secrets, File::Exposed(_));
            let reason = if is_exposed { BlockReason::SecretsReadable } else { BlockReason::Config };
            Block::new(reason, format!("{}: {}", problem.source, problem.message))
        });
        problems.extend(merged.keys().into_iter().filter_map(|(key, source)| unknown(key, source)));
        let mut values = Values::default();
        for key in KEYS {
            values.take(home, key, &merged, &mut problems);
        }
        // A file that can't be read may name a store that is meant.
        let is_unusable = unusable.is_some();
        let store = unusable.map_or_else(|| values.store(&mut problems), StoreSettings::Invalid);
        let settings = values.settings(store);
        let (digest, parts_digest) = (values.digest(&problems), values.parts_digest());
        let is_machine_unclear = is_unusable || values.wrong.contains(&"machine_id");
        let is_unreadable = is_unusable && !matches!(files.secrets, File::Exposed(_));
        Self { settings, listed: values.listed, problems, is_unreadable, is_machine_unclear, digest, parts_digest }
    }
}

/// Returns the settings that the parts are made anew for.
pub fn lasting(listed: &[Setting]) -> impl Iterator<Item = &Setting> {
    let is_live = |setting: &Setting| KEYS.iter().any(|key| key.is_live && key.name == setting.key);
    listed.iter().filter(move |setting| !is_live(setting))
}

/// A file of settings.
#[derive(Debug, Clone, Default)]
pub enum File {
    /// There is none.
    #[default]
    Absent,
    /// Its text.
    Text(Zeroizing<String>),
    /// It can't be used, for this reason.
    Unusable(String),
    /// It holds secrets and others can read it: its mode.
    Exposed(u32),
}

/// The files of a home.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// `config.toml`.
    pub config: File,
    /// `secrets.toml`.
    pub secrets: File,
}

impl File {
    fn read(path: &Path) -> Self {
        match fs::read_to_string(path) {
            Ok(text) => Self::Text(text.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Absent,
            Err(error) => Self::Unusable(error.to_string()),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Unusable(_) | Self::Exposed(_) => None,
        }
    }

    fn fault(&self) -> Option<String> {
        match self {
            Self::Absent | Self::Text(_) => None,
            Self::Unusable(reason) => Some(reason.clone()),
            Self::Exposed(mode) => Some(format!("group or others can read it (mode {mode:o}): chmod 600 it")),
        }
    }
}

/// Reads the file of secrets; one that others can read is not used.
fn secrets(path: &Path) -> File {
    match fs::metadata(path).map(|metadata| metadata.permissions().mode()) {
        Ok(mode) if mode & 0o077 != 0 => File::Exposed(mode & 0o777),
        _ => File::read(path),
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

const DAY_S: f64 = 24.0 * 3600.0;

/// Returns so many gigabytes, of which the settings allow no more than fit.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "settings are from 0 to a million")]
fn gigabytes(gigabytes: f64) -> u64 {
    (gigabytes * 1e9) as u64
}

fn file_problem(path: &Path, reason: &str) -> ConfigProblem {
    ConfigProblem {
        key: "storage".into(),
        source: path.display().to_string(),
        message: format!("the file is not used: {reason}"),
        hint: "mend the file; a node that starts with it uploads nothing".into(),
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
    secrets: BTreeMap<&'static str, Secret>,
    wrong: Vec<&'static str>,
}

impl Values {
    /// Reads one setting; a secret is kept apart and listed as set only.
    fn take(&mut self, home: &Path, key: &'static Key, merged: &Merged, problems: &mut Vec<ConfigProblem>) {
        let (mut value, source) = match merged.get(key.name) {
            None => (key.default_value(home), DEFAULT.to_owned()),
            Some((raw, source)) => match key.read(home, &raw) {
                Ok(value) => (value, source),
                Err(message) => {
                    problems.push(wrong(key, source, message));
                    self.wrong.push(key.name);
                    (key.default_value(home), DEFAULT.to_owned())
                }
            },
        };
        if key.kind == Kind::Secret {
            if source.ends_with("config.toml") || source.starts_with("--") {
                problems.push(ConfigProblem {
                    key: key.name.into(),
                    source: source.clone(),
                    message: "a secret stands where others may read it".into(),
                    hint: "put it into secrets.toml (mode 600) under [storage], or into the environment".into(),
                });
            }
            if let Value::String(text) = std::mem::take(&mut value) {
                self.secrets.insert(key.name, Secret::new(text));
                value = Value::from("set");
            }
        }
        self.listed.push(Setting { key: key.name.into(), value, source });
    }

    fn digest(&self, problems: &[ConfigProblem]) -> Digest {
        Digest::of(&serde_json::to_vec(&(&self.listed, problems, self.parts_digest())).unwrap_or_default())
    }

    fn parts_digest(&self) -> Digest {
        let ca = self.path("ca_file").map(fs::read);
        let ca = Digest::of(&ca.and_then(Result::ok).unwrap_or_default()).to_string();
        let secrets: Vec<_> =
            self.secrets.iter().map(|(key, secret)| (key, Digest::of(secret.expose().as_bytes()))).collect();
        let lasting: Vec<_> = lasting(&self.listed)
            .map(|setting| (&setting.key, &setting.value, self.wrong.contains(&setting.key.as_str())))
            .collect();
        Digest::of(&serde_json::to_vec(&(lasting, ca, secrets)).unwrap_or_default())
    }

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

    fn decimal(&self, key: &str) -> Option<f64> {
        self.get(key).as_f64()
    }

    fn list(&self, key: &str) -> Vec<String> {
        let parts = self.get(key).as_array().into_iter().flatten();
        parts.filter_map(|part| part.as_str().map(str::to_owned)).collect()
    }

    fn store(&self, problems: &mut Vec<ConfigProblem>) -> StoreSettings {
        const STORE: [&str; 12] = [
            "machine_id",
            "backend",
            "local_path",
            "endpoint",
            "region",
            "bucket",
            "prefix",
            "ca_file",
            "credentials",
            "access_key_id",
            "secret_access_key",
            "session_token",
        ];
        let invalid = |hint: String| StoreSettings::Invalid(Block::new(BlockReason::Config, hint));
        if let Some(key) = STORE.into_iter().find(|key| self.wrong.contains(key)) {
            return invalid(format!("the setting {key} is wrong: mend it"));
        }
        match (self.text("backend"), self.path("local_path")) {
            (None, _) => StoreSettings::Unset,
            (Some("local"), Some(path)) => StoreSettings::Local { path },
            (Some("local"), None) => {
                let (message, hint) = ("backend is local and local_path is not set", "set local_path to a folder");
                problems.push(ConfigProblem {
                    key: "local_path".into(),
                    source: self.source("backend"),
                    message: message.into(),
                    hint: hint.into(),
                });
                invalid(format!("{message}: {hint}"))
            }
            (Some(backend), _) => StoreSettings::Remote(self.remote(backend)),
        }
    }

    fn remote(&self, backend: &str) -> RemoteSettings {
        let text = |key: &str| self.text(key).map(str::to_owned);
        let secret = |key: &str| self.secrets.get(key).cloned();
        RemoteSettings {
            backend: backend.to_owned(),
            endpoint: text("endpoint"),
            region: text("region"),
            bucket: text("bucket").unwrap_or_default(),
            prefix: text("prefix").unwrap_or_default(),
            ca_file: self.path("ca_file"),
            is_ambient: self.text("credentials") == Some("ambient"),
            access_key_id: secret("access_key_id").map(|id| id.expose().to_owned()).unwrap_or_default(),
            secret_access_key: secret("secret_access_key").unwrap_or_else(|| Secret::new(String::new())),
            session_token: secret("session_token"),
        }
    }

    fn settings(&self, store: StoreSettings) -> Settings {
        let concurrency = self.get("concurrency").as_u64().and_then(|number| usize::try_from(number).ok());
        Settings {
            machine_id: self.text("machine_id").and_then(|text| text.parse().ok()),
            recordings_dir: self.path("recordings_dir").unwrap_or_default(),
            store,
            auto_upload: self.flag("auto_upload"),
            auto_adopt: self.flag("auto_adopt"),
            concurrency: concurrency.unwrap_or(1),
            is_newest_first: self.text("order") == Some("newest"),
            priority_tags: self.list("priority_tags"),
            bandwidth_limit_bytes_per_s: keys::bytes(self.get("bandwidth_limit")),
            upload_window: self.text("upload_window").and_then(|text| text.parse().ok()),
            parts: PartLimits {
                threshold_bytes: keys::bytes(self.get("multipart_threshold")).unwrap_or(PART_BYTES_MIN),
                part_bytes: keys::bytes(self.get("part_size")).unwrap_or(PART_BYTES_MIN),
            },
            retention: Retention {
                age: self.decimal("retention_days_local").map(|days| Duration::from_secs_f64(days * DAY_S)),
                quota_bytes: self.decimal("disk_quota_gb").map(gigabytes),
                free_bytes_min: self.decimal("min_free_gb").map(gigabytes),
            },
            give_up_after: self.duration("give_up_after"),
            rescan_interval: self.duration("rescan_interval"),
            verify_interval: self.duration("verify_interval"),
            shutdown_grace: self.duration("shutdown_grace"),
            commands_act: self.text("command_verbs") == Some("operator"),
            admin_token: self.secrets.get("admin_token").cloned(),
            zenoh: ZenohSettings {
                is_client: self.text("zenoh.mode") == Some("client"),
                connect: self.list("zenoh.connect"),
                listen: self.list("zenoh.listen"),
                explicit: KEYS
                    .iter()
                    .map(|key| key.name)
                    .filter(|name| name.starts_with("zenoh.") && self.source(name) != DEFAULT)
                    .collect(),
                multicast: self.flag("zenoh.multicast"),
                config_file: self.path("zenoh.config_file"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
