//! What is known just then: the store by its listing and a look at each object, the disk by every byte.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use bubbaloop_storage_schemas::{
    ChunkName, MachineId,
    adopt::AdoptedFile,
    error::{ErrorCode, Refusal},
    limits::PAGE_ROWS_MAX,
    manifest::Manifest,
    reply::ChunkLocal,
};
use tokio::task::spawn_blocking;

use super::run::{Removal, ended};
use crate::{
    content,
    engine::fetch::{self, ManifestError},
    library::{
        contents::Contents,
        left_alone,
        scan::{ChunkEntry, Folder, Recording},
    },
    policy::{
        manifest::{self, Merged},
        parts::BegunUpload,
        queue::ChunkId,
        recording::ManifestFacts,
        removal::{Chunk, Evidence, Object, Upload},
    },
    store::{ObjectMeta, StoreError},
};

impl Removal<'_> {
    /// Finds out what there is, and as far as it matters where else it is.
    pub(super) async fn gather(&self) -> Result<Evidence, Refusal> {
        let recording = self.engine.recording(self.name);
        let contents = self.contents().await?;
        let objects = match self.options.from.is_remote() {
            true => self.objects(recording.as_deref()).await?,
            false => Vec::new(),
        };
        if recording.is_none() && objects.is_empty() && contents.is_none() {
            return Err(self.engine.no_such(self.name.as_str()));
        }
        let Contents { chunks, files, folders } = contents.unwrap_or_default();
        let doubts = match &recording {
            Some(recording) if self.must_prove() => {
                self.engine.doubts(recording).await.map_err(|error| silent(&error))?
            }
            Some(_) | None => BTreeMap::new(),
        };
        let known =
            recording.iter().flat_map(|recording| &recording.chunks).map(|chunk| (chunk.name, chunk.size_bytes));
        let here: BTreeMap<_, _> = chunks.into_iter().collect();
        let sizes: BTreeMap<_, _> = known.chain(here.clone()).collect();
        let unknown = || Some("nothing is known of it yet".to_owned());
        let chunks = sizes.into_iter().map(|(name, size_bytes)| Chunk {
            name,
            size_bytes,
            is_here: here.contains_key(&name),
            unproven: doubts.get(&name).cloned().unwrap_or_else(unknown).filter(|_| self.must_prove()),
        });
        let is_offered = recording.as_ref().is_some_and(|recording| !recording.is_withdrawn());
        let chunks = chunks.collect();
        let (uploads, sources) = (self.uploads(recording.as_deref()), self.sources(recording.as_deref()).await?);
        Ok(Evidence { is_offered, chunks, files, folders, objects, uploads, sources })
    }

    /// Returns the uploads in parts that the journal knows as begun.
    fn uploads(&self, recording: Option<&Recording>) -> Vec<Upload> {
        let is_known = self.engine.parts().store.multipart().is_some();
        let begun = recording.filter(|_| is_known).into_iter().flat_map(|recording| &recording.begun);
        let upload = |(chunk, begun): (&ChunkName, &BegunUpload)| Upload {
            chunk: *chunk,
            key: begun.key.clone(),
            upload_id: begun.upload_id.clone(),
        };
        begun.map(upload).collect()
    }

    /// Returns the files that the recording was made of and that still lie there.
    async fn sources(&self, recording: Option<&Recording>) -> Result<Vec<AdoptedFile>, Refusal> {
        let from = recording.and_then(|recording| recording.adopted_from.clone());
        let Some(from) = from.filter(|_| self.options.from.is_local()) else { return Ok(Vec::new()) };
        let recordings = self.engine.parts().recordings.clone();
        let found = spawn_blocking(move || {
            from.files.iter().filter(|file| left_alone::is_as_adopted(&recordings, file)).cloned().collect()
        });
        found.await.map_err(|error| ended(&error))
    }

    fn must_prove(&self) -> bool {
        self.options.from.is_local() && !self.options.force
    }

    async fn contents(&self) -> Result<Option<Contents>, Refusal> {
        let (recordings, name) = (self.engine.parts().recordings.clone(), self.name.clone());
        let read = spawn_blocking(move || Contents::read(&recordings, &name)).await.map_err(|error| ended(&error))?;
        read.map_err(|error| {
            let refusal =
                Refusal::new(ErrorCode::Unavailable, format!("recording {} can't be read: {error}", self.name));
            refusal.hint("make its folder readable for the node")
        })
    }

    /// Lists what stands below the recording's name; where the library does not have it, under any spelling of the
    /// machine.
    async fn objects(&self, recording: Option<&Recording>) -> Result<Vec<Object>, Refusal> {
        let machines = match recording {
            Some(recording) => vec![recording.machine_id.clone()],
            None => self.engine.parts().machine_id.spellings(),
        };
        let mut found = Vec::new();
        for machine in machines {
            found.extend(self.list(&machine).await.map_err(|error| silent(&error))?);
        }
        let local = match recording {
            Some(_) => self.engine.manifest(self.name),
            None => None,
        };
        let others = match local.as_ref().zip(recording) {
            Some((local, recording)) => {
                self.of_others(local, recording, &found).await.map_err(|error| silent(&error))?
            }
            None => Others::default(),
        };
        let mut objects = Vec::new();
        for meta in found {
            let chunk = meta.key.parts().and_then(|(_, chunk)| chunk);
            let is_of_other = match chunk {
                Some(chunk) => others.chunks.contains(&chunk),
                None => others.manifests.contains(meta.key.as_str()),
            };
            let not_intact = match (self.options.force || is_of_other, chunk) {
                (true, _) => None,
                (false, None) => self.manifest_doubt(recording),
                (false, Some(chunk)) => self.local_doubt(recording, chunk).await?,
            };
            objects.push(Object { key: meta.key, chunk, size_bytes: meta.size_bytes, is_of_other, not_intact });
        }
        Ok(objects)
    }

    async fn list(&self, machine: &MachineId) -> Result<Vec<ObjectMeta>, StoreError> {
        let (prefix, store) = (format!("{machine}/{}/", self.name), &self.engine.parts().store);
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(&prefix, after.as_deref(), PAGE_ROWS_MAX).await?;
            found.extend(page.objects);
            after = page.next_after;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    /// Finds the manifests of other captures of this name, and the chunks that they name.
    async fn of_others(
        &self,
        local: &Manifest,
        recording: &Recording,
        found: &[ObjectMeta],
    ) -> Result<Others, StoreError> {
        let mut others = Others::default();
        let store = &*self.engine.parts().store;
        for meta in found.iter().filter(|meta| meta.key.parts().is_some_and(|(_, chunk)| chunk.is_none())) {
            match fetch::manifest(store, &meta.key, &recording.machine_id, self.name).await {
                Ok(None) => {}
                Ok(Some(theirs)) if manifest::merge(local, &theirs.manifest) == Merged::NameTaken => {
                    others.manifests.insert(meta.key.to_string());
                    others.chunks.extend(theirs.checked.chunks.iter().map(|chunk| chunk.name));
                }
                Ok(Some(_)) => {}
                Err(ManifestError::Refused { key, .. }) => {
                    if recording.published.as_ref().is_none_or(|published| published.key != key.as_str()) {
                        others.manifests.insert(key.to_string());
                    }
                }
                Err(ManifestError::Store(error)) => return Err(error),
            }
        }
        Ok(others)
    }

    fn manifest_doubt(&self, recording: Option<&Recording>) -> Option<String> {
        let is_here = recording.is_some_and(|it| matches!(it.manifest, ManifestFacts::Readable { is_ours: true, .. }));
        (!is_here).then(|| "there is no readable manifest here".into())
    }

    /// Tells why an object's chunk is not known to be whole here; its file is hashed for that.
    async fn local_doubt(&self, recording: Option<&Recording>, name: ChunkName) -> Result<Option<String>, Refusal> {
        let Some(entry) = recording.and_then(|recording| recording.chunk(name)) else {
            return Ok(Some("it is not here".into()));
        };
        let path = Folder::new(&self.engine.parts().recordings, self.name).chunk(name);
        let entry = entry.clone();
        let id = ChunkId { recording: self.name.clone(), chunk: name };
        let (doubt, is_damaged) = spawn_blocking(move || doubt(&path, &entry)).await.map_err(|error| ended(&error))?;
        if is_damaged {
            self.engine.note_local(&id, ChunkLocal::Damaged);
        }
        Ok(doubt)
    }
}

/// What of a name is another capture's.
#[derive(Default)]
struct Others {
    manifests: BTreeSet<String>,
    chunks: BTreeSet<ChunkName>,
}

fn doubt(path: &Path, entry: &ChunkEntry) -> (Option<String>, bool) {
    match content::hash(path) {
        Err(error) => (Some(error.to_string()), false),
        Ok((found, _)) if entry.digest.map_or_else(|| entry.name.fits(&found), |digest| digest == found) => {
            (None, false)
        }
        Ok(_) => (Some("its file here is damaged".into()), true),
    }
}

fn silent(error: &StoreError) -> Refusal {
    let refusal =
        Refusal::new(ErrorCode::Unavailable, format!("nothing is removed: the store gives no answer: {error}"));
    refusal.hint("ask again when the reason has ended; status tells how the store is")
}
