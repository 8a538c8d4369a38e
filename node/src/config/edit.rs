//! Changing `config.toml` and `secrets.toml`: comments, other tables and the order of lines stay.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;
use toml_edit::{Array, DocumentMut, Item, Table};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    definition::Definition,
    environment::environment,
    files::{File, Files},
    kind::Kind,
    load::Config,
    settings::{definition, definitions},
};
use crate::durable;

/// A setting that is to have another value; without one it is removed.
pub type Change = (String, Option<String>);

/// Why settings are not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// What is to be set is wrong: everything at once.
    #[error("{}", .0.join("; "))]
    Wrong(Vec<String>),
    /// A file can't be read or is no TOML.
    #[error("{0}; mend it first")]
    Broken(String),
    /// A file can't be written.
    #[error("can't write {0}: {1}")]
    NotWritable(String, io::Error),
}

/// Tells whether a setting is a secret, which is asked for without showing it.
pub fn is_secret(key: &str) -> bool {
    definition(key).is_some_and(Definition::is_secret)
}

/// Tells whether there is a setting of this name.
pub fn is_setting(key: &str) -> bool {
    definition(key).is_some()
}

/// Changes that are not written yet, with the settings before and after them.
#[derive(Debug)]
pub struct Edit {
    /// The settings as they are.
    pub before: Config,
    /// The settings as they would be.
    pub after: Config,
    texts: Vec<(PathBuf, Zeroizing<String>, bool)>,
}

/// Works out changes of a home's settings: secrets in `secrets.toml`, all others in `config.toml`.
///
/// # Errors
/// A value is wrong by itself, or a file can't be used.
pub fn edit(home: &Path, changes: &[Change]) -> Result<Edit, EditError> {
    let wrong: Vec<_> = changes.iter().filter_map(|change| fault(home, change)).collect();
    if !wrong.is_empty() {
        return Err(EditError::Wrong(wrong));
    }
    let (secret, plain): (Vec<_>, Vec<_>) = changes.iter().cloned().partition(|(key, _)| is_secret(key));
    let paths = (home.join("config.toml"), home.join("secrets.toml"));
    let config = edited(&paths.0, &File::read(&paths.0), &plain)?;
    let hidden = edited(&paths.1, &File::read_secrets(&paths.1), &secret)?;
    let files = Files { config: File::Text(config.clone().into()), secrets: File::Text(hidden.clone().into()) };
    let (before, after) = (Config::load(home, &[]), Config::of(home, &files, &environment(), &[]));
    let written =
        [(paths.1, hidden.into(), true, secret.is_empty()), (paths.0, config.into(), false, plain.is_empty())];
    let texts = written.into_iter().filter(|(.., is_same)| !is_same).map(|(path, text, hides, _)| (path, text, hides));
    Ok(Edit { before, after, texts: texts.collect() })
}

impl Edit {
    /// Writes the changes, one file after the other. A node that runs takes them up.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn write(self, home: &Path) -> Result<(), EditError> {
        let not_writable = |path: &Path| {
            let path = path.display().to_string();
            move |error| EditError::NotWritable(path, error)
        };
        durable::create_folder(home).map_err(not_writable(home))?;
        for (path, text, hides) in self.texts {
            let write = if hides { durable::replace_private } else { durable::replace };
            write(&path, text.as_bytes()).map_err(not_writable(&path))?;
        }
        Ok(())
    }
}

/// Writes an admin token that nobody can guess into `secrets.toml`. A node that runs takes it up.
///
/// # Errors
/// As [`edit`]; nothing is changed.
pub fn make_admin_token(home: &Path) -> Result<(), EditError> {
    // Two times 122 bits of the system's own randomness.
    let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    edit(home, &[("admin_token".into(), Some(token))])?.write(home)
}

fn fault(home: &Path, (name, value): &Change) -> Option<String> {
    let Some(found) = definition(name) else {
        let near = bubbaloop_storage_schemas::error::nearest(name, definitions().map(|found| found.name));
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        return Some(format!("there is no setting {name}{hint}"));
    };
    let read = found.read(home, &Value::from(value.clone()?));
    read.err().map(|message| format!("{name}: {message}"))
}

fn edited(path: &Path, file: &File, changes: &[Change]) -> Result<String, EditError> {
    if let Some(reason) = file.fault() {
        return Err(EditError::Broken(format!("{} can't be used: {reason}", path.display())));
    }
    let text = file.text().unwrap_or_default();
    let broken = |reason: String| EditError::Broken(format!("{} is no TOML: {reason}", path.display()));
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| broken(error.message().to_owned()))?;
    for (name, value) in changes {
        let mut parts: Vec<_> = name.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        let mut table =
            table(document.as_table_mut(), "storage").ok_or_else(|| broken("storage is no table".into()))?;
        for part in parts {
            table = self::table(table, part).ok_or_else(|| broken(format!("storage.{part} is no table")))?;
        }
        match value {
            None => drop(table.remove(last)),
            Some(value) => set(table, last, item(name, value)),
        }
    }
    Ok(document.to_string())
}

fn table<'a>(parent: &'a mut Table, name: &str) -> Option<&'a mut Table> {
    parent.entry(name).or_insert_with(|| Item::Table(Table::new())).as_table_mut()
}

/// Sets a value where it stands, with the comment behind it.
fn set(table: &mut Table, name: &str, mut item: Item) {
    if let (Some(before), Some(now)) = (table.get(name).and_then(Item::as_value), item.as_value_mut()) {
        *now.decor_mut() = before.decor().clone();
    }
    table.insert(name, item);
}

/// Writes a value as a person would: numbers and flags bare, lists as lists, all else as text.
fn item(name: &str, text: &str) -> Item {
    match definition(name).map(|found| found.kind) {
        Some(Kind::Flag) if text == "true" || text == "false" => toml_edit::value(text == "true"),
        Some(Kind::Number(..)) => match text.trim().parse::<i64>() {
            Ok(number) => toml_edit::value(number),
            Err(_) => toml_edit::value(text),
        },
        Some(Kind::Endpoints) => {
            let list = text.trim().trim_start_matches('[').trim_end_matches(']');
            let parts = list.split(',').map(|part| part.trim().trim_matches('"')).filter(|part| !part.is_empty());
            toml_edit::value(parts.collect::<Array>())
        }
        Some(
            Kind::Flag
            | Kind::Text
            | Kind::Secret
            | Kind::Machine
            | Kind::Path
            | Kind::Duration(..)
            | Kind::Size(..)
            | Kind::Rate(_)
            | Kind::Window
            | Kind::Decimal
            | Kind::Texts
            | Kind::Choice(_)
            | Kind::Backend,
        )
        | None => toml_edit::value(text),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn set(key: &str, value: &str) -> Change {
        (key.into(), Some(value.into()))
    }

    fn change(home: &Path, changes: &[Change]) -> Result<(), EditError> {
        edit(home, changes)?.write(home)
    }

    #[test]
    fn a_change_leaves_comments_and_other_tables_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config.toml");
        let before = "# mine\n[other]\nx = 1 # one\n\n[storage] # ours\nconcurrency = 2 # few\nbackend = \"local\"\nlocal_path = \"a\"\n";
        durable::replace(&path, before.as_bytes()).unwrap();
        let changes =
            [set("concurrency", "8"), set("zenoh.connect", "[\"tcp/127.0.0.1:1\"]"), set("auto_upload", "false")];
        change(home.path(), &changes).unwrap();
        let after = fs::read_to_string(&path).unwrap();
        for part in [
            "# mine",
            "x = 1 # one",
            "[storage] # ours",
            "concurrency = 8 # few",
            "auto_upload = false",
            "[\"tcp/127.0.0.1:1\"]",
        ] {
            assert!(after.contains(part), "{part}: {after}");
        }
        change(home.path(), &[("concurrency".into(), None)]).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("concurrency"));
    }

    #[test]
    fn secrets_go_where_nobody_else_reads() {
        let home = tempfile::tempdir().unwrap();
        change(home.path(), &[set("secret_access_key", "hunter2"), set("bucket", "007")]).unwrap();
        let path = home.path().join("secrets.toml");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(path).unwrap().contains("hunter2"));
        let config = fs::read_to_string(home.path().join("config.toml")).unwrap();
        assert!(config.contains("bucket = \"007\"") && !config.contains("hunter2"), "{config}");
    }

    #[test]
    fn an_admin_token_is_long_new_each_time_and_leaves_the_other_secrets_alone() {
        let home = tempfile::tempdir().unwrap();
        change(home.path(), &[set("secret_access_key", "hunter2")]).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            make_admin_token(home.path()).unwrap();
            let token = Config::load(home.path(), &[]).settings.admin_token.unwrap();
            assert_eq!(token.expose().len(), 64);
            assert!(seen.insert(token.expose().to_owned()));
        }
        let path = home.path().join("secrets.toml");
        assert!(fs::read_to_string(&path).unwrap().contains("hunter2"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = make_admin_token(home.path()).unwrap_err().to_string();
        assert!(error.contains("others can read it") && seen.iter().all(|token| !error.contains(token)), "{error}");
    }

    #[test]
    fn wrong_changes_are_told_all_at_once_and_nothing_is_written() {
        let home = tempfile::tempdir().unwrap();
        let changes = [set("concurrency", "many"), set("bukket", "x"), set("backend", "local")];
        let Err(EditError::Wrong(wrong)) = change(home.path(), &changes) else { panic!("refused") };
        assert!(wrong.len() == 2 && wrong[1].contains("did you mean bucket?"), "{wrong:?}");
        assert!(!home.path().join("config.toml").exists());
        durable::replace(&home.path().join("config.toml"), b"[storage").unwrap();
        assert!(matches!(change(home.path(), &[set("bucket", "x")]), Err(EditError::Broken(_))));
    }
}
