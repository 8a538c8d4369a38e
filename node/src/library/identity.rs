//! Who this library is: made at first start, and stronger than a later host name.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use bubbaloop_storage_schemas::MachineId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    content::{self, ContentError},
    durable,
};

/// Largest identity or lock file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// `storage/identity.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The machine, as it was named at first start.
    pub machine_id: MachineId,
    /// Random: tells two machines of one name apart.
    pub library_id: String,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is there and can't be used.
    #[error("{} can't be used: {reason}; restore it, or remove it to begin as a new library", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It can't be written.
    #[error("can't write {}: {source}; make the home writable for the node", path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Identity {
    /// Reads the identity of a home; `None` where there is none that can be used.
    pub fn load(home: &Path) -> Option<Self> {
        serde_json::from_slice(&content::read(&home.join("storage/identity.json"), FILE_BYTES_MAX).ok()?).ok()
    }

    /// Makes an identity that is not written down: what the settings say of the machine can't be used, and the host
    /// name that stands in for it is not to last.
    pub fn passing(machine_id: &MachineId) -> Self {
        Self { machine_id: machine_id.clone(), library_id: Uuid::new_v4().simple().to_string() }
    }

    /// Reads the identity of a home, or makes it from `machine_id`.
    ///
    /// # Errors
    /// The file is broken, or can't be written: the node does not start.
    pub fn load_or_make(home: &Path, machine_id: &MachineId) -> Result<Self, IdentityError> {
        let path = home.join("storage/identity.json");
        match content::read(&path, FILE_BYTES_MAX) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| IdentityError::Unusable { path, reason: error.to_string() }),
            Err(ContentError::Gone(_)) => {
                let identity = Self::passing(machine_id);
                let write = || {
                    durable::create_folder(&home.join("storage"))?;
                    durable::replace(&path, &serde_json::to_vec_pretty(&identity)?)
                };
                write().map_err(|source| IdentityError::NotWritable { path: path.clone(), source })?;
                Ok(identity)
            }
            Err(error) => Err(IdentityError::Unusable { path, reason: error.to_string() }),
        }
    }
}

/// What a running node writes into `storage/lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its machine.
    pub machine_id: MachineId,
    /// Where it listens: the command line dials this.
    pub endpoints: Vec<String>,
}

/// The lock of a home: one node per home. It ends with the process.
#[derive(Debug)]
pub struct HomeLock(File);

impl HomeLock {
    /// Locks a home.
    ///
    /// # Errors
    /// `WouldBlock` where a node runs there; otherwise the home is not writable.
    pub fn take(home: &Path) -> io::Result<Self> {
        durable::create_folder(&home.join("storage"))?;
        durable::lock(&home.join("storage/lock")).map(Self)
    }

    /// Writes down who holds it.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn describe(&mut self, holder: &Holder) -> io::Result<()> {
        durable::describe_lock(&mut self.0, &serde_json::to_string(holder)?)
    }

    /// Reads who holds the lock of a home; `None` where nobody wrote it down.
    pub fn holder(home: &Path) -> Option<Holder> {
        serde_json::from_slice(&content::read(&home.join("storage/lock"), FILE_BYTES_MAX).ok()?).ok()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make broken files")]
mod tests {
    use super::*;

    #[test]
    fn a_library_keeps_its_identity_when_the_host_is_renamed() {
        let home = tempfile::tempdir().unwrap();
        let first = Identity::load_or_make(home.path(), &"robot_1".parse().unwrap()).unwrap();
        let second = Identity::load_or_make(home.path(), &"renamed".parse().unwrap()).unwrap();
        assert_eq!(second, first);
        let other = tempfile::tempdir().unwrap();
        let twin = Identity::load_or_make(other.path(), &"robot_1".parse().unwrap()).unwrap();
        assert_ne!(twin.library_id, first.library_id);
    }

    #[test]
    fn a_broken_identity_is_told_and_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("storage/identity.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "{").unwrap();
        let error = Identity::load_or_make(home.path(), &"robot_1".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("identity.json"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{");
    }

    #[test]
    fn one_node_per_home_and_it_says_where_it_listens() {
        let home = tempfile::tempdir().unwrap();
        let mut lock = HomeLock::take(home.path()).unwrap();
        let holder = Holder { pid: 7, machine_id: "m".parse().unwrap(), endpoints: vec!["tcp/127.0.0.1:1".into()] };
        lock.describe(&holder).unwrap();
        assert_eq!(HomeLock::take(home.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(HomeLock::holder(home.path()), Some(holder));
    }
}
