//! Gathers the evidence: the library first, then the store's listing, then the objects that the listing does not settle.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bubbaloop_storage_schemas::{
    ChunkName, Digest,
    keys::ObjectKey,
    limits::MANIFEST_BYTES_MAX,
    manifest::{Indices, Manifest},
    reconcile::{Finding, FindingKind},
    reply::{ChunkLocal, Proof},
};
use tokio::task::{JoinSet, spawn_blocking};

use super::{
    listing::{Listing, RemoteNames},
    look::{self, Target},
    run::{Reconcile, ReconcileError},
};
use crate::{
    content::{self, ContentError},
    engine::driver::ManifestDue,
    library::scan::{ChunkEntry, Folder, ReadReason, Recording},
    policy::{
        queue::ChunkId,
        reconcile::{self, ChunkEvidence, Evidence, Local, LocalManifest, Mark, OrphanObject, Remote, RemoteManifest},
        recording::{self, ManifestFacts},
    },
    store::{ObjectMeta, StoreError},
};

/// Left out chunks that are told one by one.
const TOLD_MAX: usize = 10;

/// Objects that are looked at or fetched at once.
const LOOKS_AT_ONCE: usize = 4;

/// A chunk of which evidence is gathered.
#[derive(Debug)]
struct Subject {
    entry: Option<ChunkEntry>,
    target: Target,
    size_bytes: u64,
    /// Why no manifest names it; `None` where one does.
    unnamed: Option<String>,
}

impl Subject {
    fn is_here(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.facts.local == ChunkLocal::Present)
    }
}

/// What the recording's own folder tells.
#[derive(Debug)]
struct Here {
    recording: Option<Arc<Recording>>,
    manifest: Option<Manifest>,
    sizes: BTreeMap<ChunkName, u64>,
}

/// The listing, or why there is none, and whether single objects may be looked at all the same.
type Listed = Result<Listing, (String, bool)>;

impl Reconcile<'_> {
    /// Gathers all evidence; `None` where the recording is another machine's.
    pub(super) async fn gather(&mut self) -> Result<Option<Evidence>, ReconcileError> {
        let here = self.read_here().await?;
        if let Some(recording) = here.recording.as_ref().filter(|recording| !recording.is_ours()) {
            let message = format!("{} recorded it: {}", recording.machine_id, reconcile::remedy(FindingKind::Foreign));
            self.find(FindingKind::Foreign, message);
            return Ok(None);
        }
        if here.recording.as_deref().is_some_and(Recording::is_withdrawn) {
            let message = format!("a person removed it from the store: {}", reconcile::remedy(FindingKind::Withdrawn));
            self.find(FindingKind::Withdrawn, message);
            return Ok(None);
        }
        if let Some(recording) = &here.recording {
            self.machine = recording.machine_id.clone();
        }
        self.probe = self.engine.known_probe(self.options.dry_run).await;
        let mut listed = self.list(&here).await;
        // What is not here may lie under the recorder's spelling of the machine.
        for machine in self.machine.spellings().into_iter().skip(1).filter(|_| here.recording.is_none()) {
            if listed.as_ref().is_ok_and(|listing| listing.others.is_empty() && listing.manifests.is_empty()) {
                self.machine = machine;
                listed = self.list(&here).await;
            }
        }
        if here.recording.is_none() {
            match &listed {
                Ok(listing) if listing.others.is_empty() && listing.manifests.is_empty() => {
                    return Err(ReconcileError::NotFound);
                }
                Ok(_) => {}
                Err((reason, _)) => return Err(ReconcileError::Unavailable(reason.clone())),
            }
        }
        let mut names = self.remote_names(&here, &listed).await;
        let local_manifest = self.local_manifest(&here, &mut names).await;
        self.tell_manifests(&here, &names);
        let subjects = self.subjects(&here, &names);
        let orphans = orphans(&subjects, &listed, &names, here.recording.as_deref());
        self.begin(subjects.iter().map(|subject| subject.size_bytes));
        let chunks = self.chunks(&here, &listed, subjects).await;
        let manifest = self.remote_manifest(&here, &listed).await;
        let is_here = here.recording.is_some();
        Ok(Some(Evidence {
            recording: self.name.clone(),
            chunks,
            orphans,
            manifest,
            local_manifest,
            // What is not in the library has no journal to be called corrupt in.
            is_corrupt: here.recording.as_ref().is_none_or(|recording| recording.is_corrupt),
            is_named: is_here && (here.manifest.is_some() || names.is_named),
            means: self.means(),
        }))
    }

    async fn read_here(&self) -> Result<Here, ReconcileError> {
        let (engine, name) = (Arc::clone(self.engine), self.name.clone());
        let read = spawn_blocking(move || {
            engine.refresh(&name, ReadReason::OnDemand)?;
            Ok((engine.recording(&name), engine.manifest(&name)))
        });
        let (recording, manifest) = read
            .await
            .map_err(|error| ReconcileError::Unavailable(error.to_string()))?
            .map_err(ReconcileError::Library)?;
        let checked = manifest.as_ref().and_then(|manifest| manifest.check(Indices::Contiguous).ok());
        let sizes = checked.map(|checked| checked.chunks).unwrap_or_default();
        let sizes = sizes.into_iter().map(|chunk| (chunk.name, chunk.size_bytes)).collect();
        Ok(Here { recording, manifest, sizes })
    }

    async fn list(&mut self, here: &Here) -> Listed {
        let listed =
            Listing::read(&*self.store, &self.machine, &self.name, here.recording.as_deref(), &here.sizes).await;
        listed.map_err(|error| {
            let may_look = error.is_denied();
            let reason = format!("the store can't be listed: {error}");
            if !may_look {
                self.silent = Some(reason.clone());
            }
            (reason, may_look)
        })
    }

    /// Reads the remote manifests where something is there that the local one does not explain.
    async fn remote_names(&self, here: &Here, listed: &Listed) -> RemoteNames {
        let usual = ObjectKey::manifest(&self.machine, &self.name);
        let is_listed = |chunk: &ChunkName| {
            let entry = here.recording.as_ref().and_then(|recording| recording.chunk(*chunk));
            entry.is_some_and(|entry| entry.facts.is_listed)
        };
        let keys = match listed {
            Ok(listing) => {
                let is_whole = here.manifest.is_some()
                    && here.recording.iter().flat_map(|recording| &recording.chunks).all(|chunk| chunk.facts.is_listed)
                    && listing.others.keys().all(is_listed);
                if is_whole {
                    return RemoteNames::default();
                }
                listing.manifests.iter().map(|meta| meta.key.clone()).collect()
            }
            Err((_, true)) if here.manifest.is_none() => vec![usual.clone()],
            Err((_, true)) => return RemoteNames::default(),
            Err((reason, false)) => return RemoteNames { doubt: Some(reason.clone()), ..RemoteNames::default() },
        };
        RemoteNames::read(&*self.store, (&self.machine, &self.name), &keys, here.manifest.as_ref()).await
    }

    /// Tells whether the store's manifest is to be written here, and keeps it.
    async fn local_manifest(&mut self, here: &Here, names: &mut RemoteNames) -> LocalManifest {
        for reason in names.refused.drain(..).filter(|_| self.options.restore) {
            let remedy = reconcile::remedy(FindingKind::ManifestRefused);
            let message = format!("the remote manifest is refused: {reason}: {remedy}");
            self.report.found.push(Finding::new(FindingKind::ManifestRefused, &self.name, None, message));
        }
        let usual = names.usual.take().filter(|_| self.options.restore && here.manifest.is_none());
        if usual.is_some() && is_of_other_capture(here, names) {
            names.is_name_taken = true;
            names.is_named = false;
            let theirs = std::mem::take(&mut names.ours);
            names.others.extend(theirs.into_keys());
            return LocalManifest::Kept;
        }
        // What leaves out chunks is no recorder's manifest, and what a newer recorder wrote is no broken one.
        let Some(theirs) = usual else { return LocalManifest::Kept };
        if here.recording.as_ref().is_some_and(|recording| !recording.open_files.is_empty()) {
            let reason =
                "a recorder has a chunk open and writes its manifest itself: reconcile again when it has ended";
            self.fetching.not_restorable = Some(reason.to_owned());
            return LocalManifest::Kept;
        }
        if theirs.manifest.check(Indices::Contiguous).is_err() {
            self.fetching.not_restorable = Some(gap(&theirs.manifest));
            return LocalManifest::Kept;
        }
        let path = Folder::new(&self.engine.parts().recordings, &self.name).manifest();
        let read = spawn_blocking(move || content::read(&path, MANIFEST_BYTES_MAX)).await;
        if matches!(read, Ok(Ok(text)) if Manifest::is_of_other_version(&text)) {
            return LocalManifest::Kept;
        }
        self.fetching.restorable = Some(theirs);
        LocalManifest::Restorable
    }

    fn tell_manifests(&mut self, here: &Here, names: &RemoteNames) {
        let own = |started_at_ns| ObjectKey::manifest_of_capture(&self.machine, &self.name, started_at_ns);
        let published = here.recording.as_ref().and_then(|recording| recording.published.as_ref());
        let is_under_own = here
            .manifest
            .as_ref()
            .zip(published)
            .is_some_and(|(manifest, published)| published.key == own(manifest.started_at_ns).as_str());
        if names.is_name_taken || is_under_own {
            let message = format!(
                "another capture's manifest stands in the store under its name: {}",
                reconcile::remedy(FindingKind::NameTaken)
            );
            self.find(FindingKind::NameTaken, message);
        }
        let strays = here.recording.as_ref().map_or(0, |recording| recording.strays.0);
        if strays > 0 {
            let message =
                format!("{strays} MCAP files in chunks/ have names that are no chunk's: they stay where they are");
            self.find(FindingKind::OrphanFile, message);
        }
        let reason = match here.recording.as_ref().map(|recording| &recording.manifest) {
            _ if self.fetching.restorable.is_some() => return,
            None => "it is not in the library".to_owned(),
            Some(ManifestFacts::Absent) => "there is no manifest.json".to_owned(),
            Some(ManifestFacts::Refused(reasons)) => format!("manifest.json is refused ({})", reasons.join("; ")),
            Some(ManifestFacts::Readable { .. }) => return,
        };
        let remedy = match (&here.recording, names.is_named, &self.fetching.not_restorable) {
            (_, true, Some(reason)) => reason,
            (_, true, None) if self.options.restore => {
                "the remote manifest stands in for it and is not written here: the one here is of another version"
            }
            (_, true, None) => "the remote manifest stands in for it",
            (None, false, _) => "no remote manifest tells what belongs to it",
            (Some(_), false, _) => reconcile::remedy(FindingKind::ManifestUnreadable),
        };
        self.find(FindingKind::ManifestUnreadable, format!("{reason}: {remedy}"));
    }

    /// Returns what evidence is gathered of: the chunks here that are complete, and those that only the store's manifest names.
    fn subjects(&mut self, here: &Here, names: &RemoteNames) -> Vec<Subject> {
        let has_ended = matches!(
            here.recording.as_ref().map(|recording| &recording.manifest),
            Some(ManifestFacts::Readable { has_ended: true, .. })
        );
        let mut subjects = Vec::new();
        for entry in here.recording.iter().flat_map(|recording| &recording.chunks) {
            let is_named_there = names.ours.contains_key(&entry.name) && entry.refused_digest.is_none();
            let is_coming = entry.facts.is_announced && entry.refused_digest.is_none() && !has_ended;
            let unnamed = match (entry.facts.is_listed || is_named_there || is_coming, entry.refused_digest) {
                (true, _) => None,
                (false, Some(_)) => Some("its manifest names it with another digest".to_owned()),
                (false, None) => Some("no manifest names it".to_owned()),
            };
            // A recorder names a chunk moments after its file has its name.
            if unnamed.is_some() && !recording::is_finalized(&entry.facts) {
                continue;
            }
            let digest = entry.digest.or_else(|| names.ours.get(&entry.name).map(|(digest, _)| *digest));
            let proven = entry.facts.proof.filter(|proof| proof.is_proven()).zip(entry.etag.clone());
            let named_bytes = here.sizes.get(&entry.name).or_else(|| names.ours.get(&entry.name).map(|(_, size)| size));
            let size_bytes = named_bytes.copied().unwrap_or(entry.size_bytes);
            let target = Target { name: entry.name, key: self.key(entry.name), digest, size_bytes, proven };
            subjects.push(Subject { entry: Some(entry.clone()), target, size_bytes, unnamed });
        }
        let is_known =
            |chunk: ChunkName| here.recording.as_ref().is_some_and(|recording| recording.chunk(chunk).is_some());
        for (&name, &(digest, size_bytes)) in names.ours.iter().filter(|(name, _)| !is_known(**name)) {
            let target = Target { name, key: self.key(name), digest: Some(digest), size_bytes, proven: None };
            subjects.push(Subject { entry: None, target, size_bytes, unnamed: None });
        }
        subjects.sort_by_key(|subject| subject.target.name);
        self.digests = subjects.iter().filter_map(|it| Some((it.target.name, it.target.digest?))).collect();
        subjects
    }

    async fn chunks(&mut self, here: &Here, listed: &Listed, subjects: Vec<Subject>) -> Vec<ChunkEvidence> {
        let mut chunks = Vec::with_capacity(subjects.len());
        let is_corrupt = here.recording.as_ref().is_some_and(|recording| recording.is_corrupt);
        let mut subjects = subjects.into_iter().peekable();
        while subjects.peek().is_some() {
            let batch: Vec<_> = subjects.by_ref().take(LOOKS_AT_ONCE).collect();
            let remotes = self.remotes(listed, &batch).await;
            for (subject, remote) in batch.into_iter().zip(remotes) {
                // Only what is in the store beyond doubt needs no look at the file.
                let is_doubted = self.options.deep
                    || self.options.restore
                    || matches!(remote, Remote::Other)
                    || (is_corrupt && !matches!(remote, Remote::Same { .. }));
                let local = self.local(here, &subject, is_doubted).await;
                let chunk = self.evidence_of(subject, local, remote);
                self.gathered(&chunk);
                chunks.push(chunk);
            }
        }
        chunks
    }

    fn evidence_of(&self, subject: Subject, local: Local, remote: Remote) -> ChunkEvidence {
        let Subject { entry, target, size_bytes, .. } = subject;
        let mark = match (&entry, target.proven, &remote) {
            (None, _, _) => Mark::NoPlace,
            (Some(_), None, _) => Mark::None,
            (Some(_), Some((_, marked)), Remote::Same { etag, .. }) if !etag.is_empty() && *marked != **etag => {
                Mark::Outdated
            }
            (Some(_), Some(_), _) => Mark::Current,
        };
        ChunkEvidence { name: target.name, size_bytes, local, remote, mark, failure: None }
    }

    /// Finds out what the store holds of a few chunks, in their order.
    async fn remotes(&mut self, listed: &Listed, batch: &[Subject]) -> Vec<Remote> {
        let mut found = BTreeMap::new();
        let mut looks = JoinSet::new();
        for subject in batch {
            let Target { name, proven, .. } = &subject.target;
            match (self.silent.clone(), listed) {
                (Some(reason), _) => drop(found.insert(*name, Remote::Unknown(reason))),
                (None, Ok(listing)) => {
                    let is_seen = listing.seen.contains(name);
                    if let Some((proof, etag)) = proven.as_ref().filter(|_| is_seen && !self.options.deep) {
                        found.insert(*name, Remote::Same { proof: *proof, etag: etag.to_string() });
                    } else if !listing.has(*name) && proven.is_none() && subject.is_here() {
                        // A listing may lag behind, but whoever sends the chunk looks once more.
                        found.insert(*name, Remote::Absent);
                    } else {
                        self.spawn_look(&mut looks, subject);
                    }
                }
                (None, Err(_)) => self.spawn_look(&mut looks, subject),
            }
        }
        while let Some(ended) = looks.join_next().await {
            let Ok((name, result)) = ended else { continue };
            found.insert(name, result.unwrap_or_else(|error| self.no_answer(&error)));
        }
        let ended = || Remote::Unknown("the look at it ended abnormally".into());
        batch.iter().map(|subject| found.remove(&subject.target.name).unwrap_or_else(ended)).collect()
    }

    fn spawn_look(&self, looks: &mut JoinSet<(ChunkName, Result<Remote, StoreError>)>, subject: &Subject) {
        let store = Arc::clone(&self.store);
        looks.spawn(look::at(store, self.probe, subject.target.clone(), self.options.deep));
    }

    /// Finds out how a chunk's file is; its bytes are read where that matters.
    async fn local(&self, here: &Here, subject: &Subject, is_doubted: bool) -> Local {
        let Some(entry) = &subject.entry else { return Local::Missing };
        let is_other_size = here.sizes.get(&entry.name).is_some_and(|size_bytes| *size_bytes != entry.size_bytes);
        match entry.facts.local {
            ChunkLocal::Missing => return Local::Missing,
            ChunkLocal::Evicted => return Local::Evicted,
            // It may have been mended in place.
            ChunkLocal::Damaged => {}
            ChunkLocal::Present if is_doubted || is_other_size => {}
            ChunkLocal::Present => return subject.unnamed.clone().map_or(Local::Intact, Local::Unnamed),
        }
        let path = Folder::new(&self.engine.parts().recordings, &self.name).chunk(entry.name);
        let hashed = spawn_blocking(move || content::hash(&path)).await;
        let id = ChunkId { recording: self.name.clone(), chunk: entry.name };
        let local = match hashed {
            Ok(Ok((found, _))) => self.judge(subject, found),
            Ok(Err(ContentError::Gone(_))) => Local::Missing,
            Ok(Err(error)) => Local::Unreadable(error.to_string()),
            Err(error) => Local::Unreadable(format!("reading it ended: {error}")),
        };
        if !self.options.dry_run {
            match &local {
                Local::Intact => self.engine.note_local(&id, ChunkLocal::Present),
                Local::Damaged => self.engine.note_local(&id, ChunkLocal::Damaged),
                Local::Missing => self.engine.note_local(&id, ChunkLocal::Missing),
                Local::Evicted | Local::Unreadable(_) | Local::Unnamed(_) => {}
            }
        }
        local
    }

    fn judge(&self, subject: &Subject, found: Digest) -> Local {
        let Target { name, digest, .. } = &subject.target;
        match (&subject.unnamed, digest) {
            (Some(reason), _) if !name.fits(&found) => {
                Local::Unnamed(format!("{reason}, nor does it fit its own name"))
            }
            (Some(reason), _) => Local::Unnamed(reason.clone()),
            (None, Some(wanted)) if *wanted == found => Local::Intact,
            (None, Some(_)) if name.fits(&found) => {
                if !self.options.dry_run {
                    let id = ChunkId { recording: self.name.clone(), chunk: *name };
                    self.engine.note_contradiction(&id, found);
                }
                Local::Unnamed("its manifest names it with another digest".into())
            }
            (None, Some(_)) => Local::Damaged,
            (None, None) if name.fits(&found) => Local::Intact,
            (None, None) => Local::Damaged,
        }
    }

    async fn remote_manifest(&mut self, here: &Here, listed: &Listed) -> RemoteManifest {
        let (Some(recording), Some(local)) = (&here.recording, &here.manifest) else { return RemoteManifest::Nothing };
        let (engine, of, local) = (Arc::clone(self.engine), Arc::clone(recording), local.clone());
        let due = spawn_blocking(move || engine.manifest_due(&of, local)).await;
        match due.unwrap_or(ManifestDue::No) {
            ManifestDue::Nothing => return RemoteManifest::Nothing,
            ManifestDue::Yes if recording.has_ended(self.engine.parts().clock.wall()) => return RemoteManifest::Due,
            // That of a recording that goes on is written once a minute without anybody asking.
            ManifestDue::Yes => return RemoteManifest::Current,
            ManifestDue::No => {}
        }
        let Some(published) = &recording.published else { return RemoteManifest::Current };
        let is_uploaded = |chunk: &ChunkEntry| chunk.facts.is_listed && chunk.facts.proof.is_some_and(Proof::is_proven);
        if !recording.chunks.iter().any(is_uploaded) {
            return RemoteManifest::Current;
        }
        let listed = listed.as_ref().ok().and_then(|listing| {
            let is_it = |meta: &&ObjectMeta| meta.key.as_str() == published.key && !meta.etag.is_empty();
            listing.manifests.iter().find(is_it)
        });
        let stands = match (listed, self.silent.clone()) {
            (Some(meta), _) => meta.etag == published.etag,
            (None, Some(reason)) => return RemoteManifest::Unknown(reason),
            (None, None) => match self.engine.still_stands(published).await {
                Ok(stands) => stands,
                Err(error) => {
                    self.note_silence(&error);
                    return RemoteManifest::Unknown(error.to_string());
                }
            },
        };
        self.is_manifest_gone = !stands;
        if self.is_manifest_gone { RemoteManifest::Due } else { RemoteManifest::Current }
    }
}

/// Tells whether chunks here have the indices of others that the store's manifest names: two captures had the name.
fn is_of_other_capture(here: &Here, names: &RemoteNames) -> bool {
    let indices: BTreeSet<_> = names.ours.keys().map(|chunk| chunk.index()).collect();
    let is_other = |name: ChunkName| indices.contains(&name.index()) && !names.ours.contains_key(&name);
    here.recording.iter().flat_map(|recording| &recording.chunks).any(|chunk| is_other(chunk.name))
}

/// Returns the objects that no manifest names and that are no chunk's here.
fn orphans(subjects: &[Subject], listed: &Listed, names: &RemoteNames, known: Option<&Recording>) -> Vec<OrphanObject> {
    let Ok(listing) = listed else { return Vec::new() };
    let is_explained = |chunk: &ChunkName| {
        subjects.binary_search_by_key(chunk, |subject| subject.target.name).is_ok()
            || known.is_some_and(|recording| recording.chunk(*chunk).is_some())
            || names.ours.contains_key(chunk)
            || names.others.contains(chunk)
    };
    let orphan = |(chunk, meta): (&ChunkName, &ObjectMeta)| OrphanObject {
        key: meta.key.to_string(),
        chunk: Some(*chunk),
        doubt: names.doubt.clone(),
    };
    listing.others.iter().filter(|(chunk, _)| !is_explained(chunk)).map(orphan).collect()
}

/// Tells which chunks a remote manifest leaves out, so that it is none for a recorder.
fn gap(manifest: &Manifest) -> String {
    let named: BTreeSet<_> = manifest.chunks.iter().map(|chunk| chunk.index).collect();
    let last = named.last().copied().unwrap_or_default();
    let missing: Vec<_> = (0..last).filter(|index| !named.contains(index)).take(TOLD_MAX + 1).collect();
    let told = missing.iter().take(TOLD_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let more = if missing.len() > TOLD_MAX { " and more" } else { "" };
    format!(
        "the remote manifest stands in for it and can't be written here, because chunk {told}{more} never came to the store: \
         what it names is here now, and `download` copies it with that manifest"
    )
}
