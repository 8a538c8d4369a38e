//! What a store holds, as its listings tell it.

use std::collections::BTreeMap;

use bubbaloop_storage_schemas::{MachineId, RecordingName, limits::PAGE_ROWS_MAX};
use serde::Serialize;

use crate::store::{ObjectStore, StoreError};

/// One recording in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// The machine under whose name it stands.
    pub machine_id: MachineId,
    /// Its name.
    pub recording: RecordingName,
    /// Its chunks.
    pub chunks: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// A manifest tells what it consists of.
    pub has_manifest: bool,
}

/// Returns the machines of which a store holds something. Nothing below their folders is listed.
///
/// # Errors
/// As the store tells.
pub async fn machines(store: &dyn ObjectStore) -> Result<Vec<MachineId>, StoreError> {
    let folders = store.list_folders("").await?;
    Ok(folders.iter().filter_map(|folder| folder.parse().ok()).collect())
}

/// Returns what a store holds of a machine, by recording. Nothing of others is listed.
///
/// # Errors
/// As the store tells.
pub async fn of_machine(store: &dyn ObjectStore, machine: &MachineId) -> Result<Vec<Holding>, StoreError> {
    under(store, machine, &format!("{machine}/")).await
}

/// Returns what a store holds under the name of a recording of a machine.
///
/// # Errors
/// As the store tells.
pub async fn of_recording(
    store: &dyn ObjectStore,
    machine: &MachineId,
    name: &RecordingName,
) -> Result<Option<Holding>, StoreError> {
    Ok(under(store, machine, &format!("{machine}/{name}/")).await?.pop())
}

async fn under(store: &dyn ObjectStore, machine: &MachineId, prefix: &str) -> Result<Vec<Holding>, StoreError> {
    let mut found = BTreeMap::<RecordingName, Holding>::new();
    let mut after = None;
    loop {
        let page = store.list(prefix, after.as_deref(), PAGE_ROWS_MAX).await?;
        for meta in page.objects {
            let Some((recording, chunk)) = meta.key.parts() else { continue };
            let holding = found.entry(recording.clone()).or_insert_with(|| Holding {
                machine_id: machine.clone(),
                recording,
                chunks: 0,
                size_bytes: 0,
                has_manifest: false,
            });
            if chunk.is_some() {
                holding.chunks += 1;
                holding.size_bytes = holding.size_bytes.saturating_add(meta.size_bytes);
            } else {
                holding.has_manifest = true;
            }
        }
        after = page.next_after;
        if after.is_none() {
            return Ok(found.into_values().collect());
        }
    }
}
