//! What a kind of object store offers beside the port: its settings, and how it is opened.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bubbaloop_storage_schemas::{MachineId, journal::StoreId};

use super::{port::ObjectStore, throttle::Throttle};
use crate::{clock::Clock, policy::queue::Block, secret::Secret};

/// A kind of object store. It is registered in [`BACKENDS`](super::BACKENDS).
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// Returns the values of the `backend` setting that select it.
    fn names(&self) -> &'static [&'static str];

    /// Returns the settings without which it can't be used, each with a hint. Finer rules belong into [`Backend::check`].
    fn required(&self) -> &'static [(&'static str, &'static str)];

    /// Checks the settings and reports everything at once, without I/O.
    fn check(&self, settings: &StoreSettings, machine_id: &MachineId) -> Checked;

    /// Opens the store.
    ///
    /// # Errors
    /// A setting is wrong, or a fact keeps the store from being opened now.
    async fn open(&self, settings: &StoreSettings, request: &OpenRequest<'_>) -> Result<Opened, OpenError>;

    /// Returns the folder of the store: the node checks whether it is on the library's own disk. `None` if the store is not
    /// on this machine.
    fn folder(&self, settings: &StoreSettings) -> Option<PathBuf>;

    /// Returns a text that changes when another store appears at the same place, as with another disk; `None` if that
    /// can't happen. It may do I/O.
    fn place(&self, settings: &StoreSettings) -> Option<String>;
}

/// What a store is opened with, beside its settings.
#[derive(Debug, Clone)]
pub struct OpenRequest<'a> {
    /// Below whose name this program writes.
    pub machine_id: &'a MachineId,
    /// The time.
    pub clock: &'a Arc<dyn Clock>,
    /// The limit of upload bandwidth.
    pub throttle: &'a Arc<Throttle>,
    /// What the store is opened for.
    pub purpose: Purpose,
}

/// What a store is opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A node uploads to it: a new store may be initialized.
    Upload {
        /// The mark of the store that was used here before; `None` if none was.
        known_mark: Option<String>,
    },
    /// A command reads it: nothing is created or changed.
    Read,
}

/// An opened store.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Its id in the journal: marks of another id count for nothing.
    pub id: StoreId,
    /// Its mark, to be remembered as `known_mark`; `None` if it has none.
    pub mark: Option<String>,
}

/// Why a store is not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Settings are wrong: all of them at once.
    Settings(Vec<Problem>),
    /// A fact keeps it from being opened now.
    Blocked(Block),
}

/// One thing about the settings that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Problem {
    /// Makes a problem of one setting.
    pub fn new(key: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { key, message: message.into(), hint: hint.into() }
    }
}

/// The result of a check of settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// What keeps the store from being used.
    pub problems: Vec<Problem>,
    /// What works and should be different.
    pub warnings: Vec<Problem>,
}

/// The settings of a store, by name. `config` fills it with every setting that its definitions mark as a store's.
#[derive(Debug, Clone, Default)]
pub struct StoreSettings {
    backend: String,
    texts: BTreeMap<&'static str, String>,
    secrets: BTreeMap<&'static str, Secret>,
}

impl StoreSettings {
    /// Makes the settings of a backend.
    pub fn new(
        backend: impl Into<String>,
        texts: BTreeMap<&'static str, String>,
        secrets: BTreeMap<&'static str, Secret>,
    ) -> Self {
        Self { backend: backend.into(), texts, secrets }
    }

    /// Returns the value of the `backend` setting.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Returns a text; `None` if it is not set or a secret.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// Returns an absolute path; `None` if it is not set.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// Returns a secret; `None` if it is not set.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name)
    }
}
