//! `storage/state.json`: what the node must not forget over a restart and nobody else may write.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use bubbaloop_storage_schemas::{UnixNs, journal::StoreId, reply::Paused};
use serde::{Deserialize, Serialize};

use crate::{
    content::{self, ContentError},
    durable,
};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The node's memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeState {
    /// A person stopped uploads.
    pub paused: Option<Paused>,
    /// The last pass that compared marks and store.
    pub verified: Option<Verified>,
    /// The stores of which a fact was met that may mean that what was proven is not there any more, until marks and store
    /// were compared.
    pub doubted: BTreeSet<StoreId>,
    /// The marks of the local stores that were used, by folder.
    pub local_stores: BTreeMap<PathBuf, String>,
    /// The marks of the folders of recordings, by folder.
    pub libraries: BTreeMap<PathBuf, String>,
}

/// A pass that compared the marks with what the store lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The store.
    pub store_id: StoreId,
    /// When the pass ended.
    pub at_ns: UnixNs,
}

impl NodeState {
    /// Reads the state; a file that is absent or broken remembers nothing.
    pub fn load(path: &Path) -> Self {
        let text = content::read(path, FILE_BYTES_MAX).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Changes the state. One at a time: the file has one writer.
    ///
    /// # Errors
    /// The disk is full or not writable, or what stands there can't be read; the old state stands.
    pub fn update(path: &Path, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        static ONE_WRITER: Mutex<()> = Mutex::new(());
        let _one_writer = ONE_WRITER.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match content::read(path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(ContentError::Gone(_)) => Vec::new(),
            // What stands there must not be lost for want of a look at it.
            Err(error) => return Err(io::Error::other(error.to_string())),
        };
        let mut state = serde_json::from_slice(&text).unwrap_or_default();
        change(&mut state);
        durable::replace(path, &serde_json::to_vec_pretty(&state)?)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make broken files")]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_back_and_a_broken_one_remembers_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(NodeState::load(&path), NodeState::default());
        let verified = Verified { store_id: "s".into(), at_ns: 7 };
        NodeState::update(&path, |state| state.verified = Some(verified.clone())).unwrap();
        NodeState::update(&path, |state| drop(state.local_stores.insert("a".into(), "b".into()))).unwrap();
        let state = NodeState::load(&path);
        assert_eq!((state.verified, state.local_stores.len()), (Some(verified), 1));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(NodeState::load(&path), NodeState::default());
    }
}
