//! Takes over what is laid out as a recording already: chunks that no manifest names, a recording of another machine.

use bubbaloop_storage_schemas::{
    Digest, RecordingName,
    adopt::{ADOPTED_FROM, AdoptActionKind, AdoptFindingKind, AdoptedFrom},
    manifest::Manifest,
    reply::ChunkLocal,
};

use super::run::{AdoptError, Library, Run};
use crate::{
    durable,
    library::{
        mcap_file,
        scan::{self, ChunkEntry, Folder, Loaded, ReadReason},
        source::Stamp,
    },
    policy::{
        adopt::{self, NewChunk},
        recording::ManifestFacts,
    },
};

/// No store's marks are wanted: only what lies here counts.
const NO_STORE: &str = "";

/// Reads a recording's folder.
pub(super) fn view(library: &Library, name: &RecordingName) -> Result<Loaded, AdoptError> {
    let loaded = scan::load(&library.recordings, name, &library.machine_id, NO_STORE, None, ReadReason::OnDemand);
    loaded
        .map_err(|fault| AdoptError::file(name.as_str(), fault))?
        .ok_or_else(|| AdoptError::NotFound(name.to_string()))
}

impl Run<'_> {
    /// Makes what stands in a recording's folder a recording of this machine, whole.
    pub(super) fn take_over(&mut self) -> Result<(), AdoptError> {
        let Loaded { recording, manifest } = view(self.library, &self.name)?;
        match (&recording.manifest, manifest) {
            (ManifestFacts::Readable { is_ours: false, .. }, Some(manifest)) => {
                self.take_foreign(&recording.chunks, *manifest)
            }
            (_, manifest) => self.take_orphans(&recording.chunks, manifest.map(|manifest| *manifest)),
        }
    }

    fn take_foreign(&mut self, chunks: &[ChunkEntry], mut manifest: Manifest) -> Result<(), AdoptError> {
        let folder = self.folder();
        self.begin(chunks.iter().filter(|chunk| is_here(chunk)).map(|chunk| chunk.size_bytes));
        for chunk in chunks.iter().filter(|chunk| chunk.facts.is_listed) {
            if !is_here(chunk) {
                let message = "its manifest names it and it is not here: copy it, or restore it".to_owned();
                self.find(AdoptFindingKind::Missing, Some(&chunk.name.to_string()), message);
                continue;
            }
            let found = self.hash_chunk(&folder, chunk)?;
            if chunk.digest.is_some_and(|wanted| wanted != found) {
                let message = "it has other bytes than its manifest says: copy it again".to_owned();
                self.find(AdoptFindingKind::Damaged, Some(&chunk.name.to_string()), message);
            }
        }
        let former = manifest.machine_id.clone();
        adopt::take_over(&mut manifest, &self.library.machine_id, self.now_ns());
        self.write_manifest(&folder, &manifest)?;
        self.act(AdoptActionKind::Name, None, format!("it was {former}'s and is this machine's now"));
        Ok(())
    }

    /// Names the chunks that no manifest names, behind those that it names.
    fn take_orphans(&mut self, chunks: &[ChunkEntry], manifest: Option<Manifest>) -> Result<(), AdoptError> {
        let named = manifest.as_ref().map_or(0, |manifest| manifest.chunks.len());
        let orphans: Vec<_> = chunks.iter().filter(|chunk| is_here(chunk) && !chunk.facts.is_listed).collect();
        let (behind, others): (Vec<_>, Vec<_>) =
            orphans.into_iter().partition(|chunk| chunk.name.index() as usize >= named);
        for chunk in others {
            let message = "the manifest names another chunk in its place: it goes up and stays unlisted".to_owned();
            self.find(AdoptFindingKind::LeftOut, Some(&chunk.name.to_string()), message);
        }
        if behind.is_empty() && (manifest.is_some() || chunks.is_empty()) {
            return match manifest {
                Some(manifest) => {
                    self.result.adopted(&self.name, manifest.chunks.len() as u64);
                    Ok(())
                }
                None => Err(AdoptError::NotFound(self.name.to_string())),
            };
        }
        for (place, chunk) in (named..).zip(&behind) {
            if chunk.name.index() as usize != place {
                let message = format!(
                    "the chunks of {} have no unbroken row of indices: {} stands at place {place}",
                    self.name, chunk.name
                );
                let hint = "on the command line adopt its folder chunks/ --as another name";
                return Err(AdoptError::Conflict { message, hint });
            }
        }
        let folder = self.folder();
        self.begin(behind.iter().map(|chunk| chunk.size_bytes));
        let (mut taken, mut touched_ns) = (Vec::new(), 0);
        for chunk in behind {
            taken.push(self.take_orphan(&folder, chunk)?);
            touched_ns = chunk.finalized_at_ns.max(touched_ns);
        }
        let from =
            AdoptedFrom { source: self.name.to_string(), adopted_at_ns: self.now_ns(), ..AdoptedFrom::default() };
        let manifest = match manifest {
            Some(mut manifest) => {
                adopt::append(&mut manifest, &taken);
                manifest.other.entry(ADOPTED_FROM).or_insert_with(|| from.to_value());
                manifest
            }
            None => {
                self.put_refused_aside(&folder)?;
                adopt::manifest(&self.name, &self.library.machine_id, &taken, &from, touched_ns)
            }
        };
        self.write_manifest(&folder, &manifest)
    }

    fn take_orphan(&mut self, folder: &Folder, chunk: &ChunkEntry) -> Result<NewChunk, AdoptError> {
        let label = chunk.name.to_string();
        let digest = self.hash_chunk(folder, chunk)?;
        if !chunk.name.fits(&digest) {
            let message = format!("{label} is damaged: its bytes have digest {digest}, which its name does not fit");
            return Err(AdoptError::Conflict { message, hint: "move it away, or restore it, and ask again" });
        }
        // Its name tells that it is as it was finalized: what it holds may be told or not.
        let watch = self.watch;
        let facts = mcap_file::facts(&folder.chunk(chunk.name), &|| !watch.is_cancelled());
        if let Err(fault) = &facts {
            self.find(AdoptFindingKind::Damaged, Some(&label), format!("it was finalized like this: {fault}"));
        }
        self.act(AdoptActionKind::Name, Some(&label), "the manifest names it now".to_owned());
        Ok(NewChunk { digest, size_bytes: chunk.size_bytes, facts: facts.ok() })
    }

    fn hash_chunk(&mut self, folder: &Folder, chunk: &ChunkEntry) -> Result<Digest, AdoptError> {
        let path = folder.chunk(chunk.name);
        let stamp = Stamp::of(&path).map_err(AdoptError::disk(&path))?;
        self.hash(&path, &chunk.name.to_string(), stamp)
    }

    /// Gives a manifest that is refused a second name before another takes its place: nothing of it is lost.
    fn put_refused_aside(&mut self, folder: &Folder) -> Result<(), AdoptError> {
        let path = folder.manifest();
        if !path.exists() {
            return Ok(());
        }
        let aside = path.with_file_name(format!("manifest.json.refused-{}", self.now_ns()));
        durable::link(&path, &aside).map_err(AdoptError::disk(&aside))?;
        let name = aside.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let message = format!("the manifest that is refused stands as {name}");
        self.find(AdoptFindingKind::LeftOut, Some("manifest.json"), message);
        Ok(())
    }
}

fn is_here(chunk: &ChunkEntry) -> bool {
    matches!(chunk.facts.local, ChunkLocal::Present | ChunkLocal::Damaged)
}
