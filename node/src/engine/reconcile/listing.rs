//! What the store lists of a recording, and what its remote manifests name.

use std::collections::{BTreeMap, BTreeSet};

use bubbaloop_storage_schemas::{
    ChunkName, Digest, MachineId, RecordingName, keys::ObjectKey, limits::PAGE_ROWS_MAX, manifest::Manifest,
    reply::Proof,
};

use crate::{
    engine::fetch::{self, ManifestError, RemoteManifest},
    library::scan::Recording,
    policy::manifest::{self, Merged},
    store::{ObjectMeta, ObjectStore, StoreError},
};

/// Remote manifests of one recording that are read at most.
const MANIFESTS_MAX: usize = 64;

/// What the store lists of a recording.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The chunks whose objects stand there as the journal proves them.
    pub seen: BTreeSet<ChunkName>,
    /// The other chunks' objects.
    pub others: BTreeMap<ChunkName, ObjectMeta>,
    /// The manifests.
    pub manifests: Vec<ObjectMeta>,
}

impl Listing {
    /// Lists a recording page by page. `sizes` is what the recording's manifest names.
    pub(super) async fn read(
        store: &dyn ObjectStore,
        machine: &MachineId,
        name: &RecordingName,
        known: Option<&Recording>,
        sizes: &BTreeMap<ChunkName, u64>,
    ) -> Result<Self, StoreError> {
        let prefix = format!("{machine}/{name}/");
        let mut listing = Self::default();
        let mut after = None;
        loop {
            let page = store.list(&prefix, after.as_deref(), PAGE_ROWS_MAX).await?;
            for meta in page.objects {
                listing.add(meta, known, sizes);
            }
            after = page.next_after;
            if after.is_none() {
                return Ok(listing);
            }
        }
    }

    fn add(&mut self, meta: ObjectMeta, known: Option<&Recording>, sizes: &BTreeMap<ChunkName, u64>) {
        let Some((_, chunk)) = meta.key.parts() else { return };
        let Some(chunk) = chunk else { return self.manifests.push(meta) };
        let is_proven = known.and_then(|recording| recording.chunk(chunk)).is_some_and(|entry| {
            let size_bytes = sizes.get(&chunk).copied().unwrap_or(entry.size_bytes);
            // Without an ETag there is nothing but a size that looks the same.
            !meta.etag.is_empty()
                && entry.facts.proof.is_some_and(Proof::is_proven)
                && entry.etag.as_deref() == Some(&*meta.etag)
                && size_bytes == meta.size_bytes
        });
        if is_proven {
            self.seen.insert(chunk);
        } else {
            self.others.insert(chunk, meta);
        }
    }

    /// Tells whether an object stands there.
    pub(super) fn has(&self, chunk: ChunkName) -> bool {
        self.seen.contains(&chunk) || self.others.contains_key(&chunk)
    }
}

/// What the remote manifests of a recording name.
#[derive(Debug, Default)]
pub(super) struct RemoteNames {
    /// The chunks of this capture, with digest and size.
    pub ours: BTreeMap<ChunkName, (Digest, u64)>,
    /// The chunks of other captures of the name.
    pub others: BTreeSet<ChunkName>,
    /// Another capture's manifest stands under the usual key.
    pub is_name_taken: bool,
    /// A manifest of this capture was read.
    pub is_named: bool,
    /// Why that may not be all.
    pub doubt: Option<String>,
    /// The one under the usual key, where it is this capture's.
    pub usual: Option<RemoteManifest>,
    /// Why what stands under the usual key is not taken for a manifest.
    pub refused: Vec<String>,
}

impl RemoteNames {
    /// Reads the manifests that stand there. Without a local one, the one under the usual key is this capture's.
    pub(super) async fn read(
        store: &dyn ObjectStore,
        (machine, name): (&MachineId, &RecordingName),
        keys: &[ObjectKey],
        local: Option<&Manifest>,
    ) -> Self {
        let usual = ObjectKey::manifest(machine, name);
        let mut names = Self::default();
        if keys.len() > MANIFESTS_MAX {
            names.doubt = Some(format!("there are {} remote manifests", keys.len()));
        }
        for key in keys.iter().take(MANIFESTS_MAX) {
            match fetch::manifest(store, key, machine, name).await {
                Ok(Some(theirs)) => names.add(theirs, local, *key == usual),
                Ok(None) => {}
                Err(error) => {
                    names.doubt = Some(error.to_string());
                    if let ManifestError::Refused { key, reasons } = error
                        && key == usual
                    {
                        names.refused = reasons;
                    }
                }
            }
        }
        names
    }

    fn add(&mut self, theirs: RemoteManifest, local: Option<&Manifest>, is_usual: bool) {
        let is_ours = match local {
            Some(local) => manifest::merge(local, &theirs.manifest) != Merged::NameTaken,
            None => is_usual,
        };
        self.is_name_taken |= is_usual && !is_ours;
        self.is_named |= is_ours;
        for chunk in &theirs.checked.chunks {
            if is_ours {
                self.ours.insert(chunk.name, (chunk.digest, chunk.size_bytes));
            } else {
                self.others.insert(chunk.name);
            }
        }
        self.usual = Some(theirs).filter(|_| is_usual && is_ours).or(self.usual.take());
    }
}
