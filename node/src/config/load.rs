//! Reading the settings of a home.

use std::{collections::BTreeMap, path::Path};

use bubbaloop_storage_schemas::{
    BlockReason, Digest, MachineId,
    error::nearest,
    reply::{ConfigProblem, Setting},
};

use super::{
    definition::Scope,
    environment::environment,
    files::{File, Files},
    layers::Merged,
    settings::{LiveSettings, Settings, definition, definitions, store_definitions},
    store::StoreChoice,
    values::Values,
};
use crate::policy::queue::Block;

/// The settings, where each comes from, and what is wrong with them.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the node obeys.
    pub settings: Settings,
    /// Every setting with its source, as `config` lists it.
    pub listed: Vec<Setting>,
    /// Everything that is wrong, at once.
    pub problems: Vec<ConfigProblem>,
    /// A file can't be read or is no TOML, so that it is not known what is meant. A running node keeps what it had.
    pub is_unreadable: bool,
    /// The settings don't say which machine this is: its name is refused, or a file can't be read.
    pub is_machine_unclear: bool,
    /// A digest of all settings and problems, secrets and the content of `ca_file` included. It is kept in memory only.
    pub digest: Digest,
    /// A digest of the settings whose change rebuilds the components.
    pub restart_digest: Digest,
}

impl Config {
    /// Reads the settings of a home. Never fails: what is wrong is a problem, and its default is used.
    pub fn load(home: &Path, flags: &[(String, String)]) -> Self {
        let files = Files {
            config: File::read(&home.join("config.toml")),
            secrets: File::read_secrets(&home.join("secrets.toml")),
        };
        Self::of(home, &files, &environment(), flags)
    }

    /// Merges the sources. `flags` are dotted names with values.
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
        let is_exposed = matches!(files.secrets, File::Exposed(_));
        let unusable = problems.first().map(|problem| {
            let reason = if is_exposed { BlockReason::SecretsReadable } else { BlockReason::Config };
            Block::new(reason, format!("{}: {}", problem.source, problem.message))
        });
        problems.extend(merged.keys().into_iter().filter_map(|(name, source)| unknown(name, source)));
        let mut values = Values::default();
        for definition in definitions() {
            values.take(home, definition, &merged, &mut problems);
        }
        let is_unusable = unusable.is_some();
        // A file that can't be read may name another store.
        let store = match unusable {
            Some(block) => StoreChoice::Invalid(block),
            None => StoreChoice::of(&values, store_definitions(), &mut problems),
        };
        let restart_digest = values.restart_digest(definitions());
        Self {
            settings: Settings::of(&values, store),
            digest: values.digest(&problems, &restart_digest),
            restart_digest,
            is_machine_unclear: is_unusable || values.is_wrong("machine_id"),
            is_unreadable: is_unusable && !is_exposed,
            listed: values.listed,
            problems,
        }
    }

    /// Reports that the library has another machine id than the settings name: the library's is used.
    pub fn told_other_machine(&mut self, id: &MachineId) {
        let source = self.listed.iter().find(|setting| setting.key == "machine_id").map(|found| found.source.clone());
        self.problems.push(ConfigProblem {
            key: "machine_id".into(),
            source: source.unwrap_or_default(),
            message: format!("this library was created as {id} and keeps that name"),
            hint: "remove the setting, or create a new library in another home".into(),
        });
    }
}

/// The settings as they are followed and shown now: the value of the one channel by which live settings reach their
/// readers.
#[derive(Debug, Clone)]
pub struct CurrentSettings {
    /// What running components follow.
    pub live: LiveSettings,
    /// Every setting with its source.
    pub listed: Vec<Setting>,
    /// What is wrong with them.
    pub problems: Vec<ConfigProblem>,
}

impl From<&Config> for CurrentSettings {
    fn from(config: &Config) -> Self {
        Self { live: config.settings.live.clone(), listed: config.listed.clone(), problems: config.problems.clone() }
    }
}

/// Returns the settings whose change rebuilds the components.
pub fn restart_settings(listed: &[Setting]) -> impl Iterator<Item = &Setting> {
    let is_restart = |setting: &Setting| definition(&setting.key).is_some_and(|found| found.scope == Scope::Restart);
    listed.iter().filter(move |setting| is_restart(setting))
}

fn file_problem(path: &Path, reason: &str) -> ConfigProblem {
    ConfigProblem {
        key: "storage".into(),
        source: path.display().to_string(),
        message: format!("the file is not used: {reason}"),
        hint: "correct the file; a node that starts with it uploads nothing".into(),
    }
}

fn unknown(name: String, source: String) -> Option<ConfigProblem> {
    if definition(&name).is_some() {
        return None;
    }
    let hint = match nearest(&name, definitions().map(|definition| definition.name)) {
        Some(near) => format!("did you mean {near}?"),
        None => "remove it; `config` lists all settings".into(),
    };
    Some(ConfigProblem { key: name, source, message: "there is no such setting".into(), hint })
}
