//! Making room: local files go whose bytes are known to be elsewhere, by a look just before.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bubbaloop_storage_schemas::{
    Digest, RecordingName,
    event::Fact,
    journal::JournalEntry,
    keys::ObjectKey,
    reply::{ChunkLocal, Proof},
};
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    task::spawn_blocking,
};

use super::{Engine, publish};
use crate::{
    durable,
    library::{
        disk,
        scan::{self, ChunkEntry, Folder, Recording},
    },
    policy::{
        queue::ChunkId,
        recording::ManifestFacts,
        retention::{self, Candidate, Disk, Plan},
    },
    store::{Compared, StoreError},
};

/// Keeps what works on a recording's files and what removes them apart.
#[derive(Debug, Default)]
pub(super) struct Leases(HashMap<RecordingName, Arc<RwLock<()>>>);

impl Leases {
    fn of(&mut self, name: &RecordingName) -> Arc<RwLock<()>> {
        self.0.retain(|_, lease| Arc::strong_count(lease) > 1);
        Arc::clone(self.0.entry(name.clone()).or_default())
    }
}

/// A chunk that may go, with what it is proven by.
#[derive(Debug, Clone)]
struct Evictable {
    candidate: Candidate,
    key: ObjectKey,
    etag: Box<str>,
    digest: Option<Digest>,
    path: PathBuf,
}

/// What came of a chunk that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EvictOutcome {
    Gone,
    /// Something is in the way now.
    Kept,
    /// The store does not tell whether it holds it.
    Unverifiable,
}

impl Engine {
    /// Keeps a recording's files where they are as long as the lease is held. Many may hold one.
    pub(in crate::engine) async fn lease(&self, name: &RecordingName) -> OwnedRwLockReadGuard<()> {
        let lease = self.state().leases.of(name);
        lease.read_owned().await
    }

    pub(super) fn try_lease_alone(&self, name: &RecordingName) -> Option<OwnedRwLockWriteGuard<()>> {
        let lease = self.state().leases.of(name);
        lease.try_write_owned().ok()
    }

    /// Makes room as the settings say, and tells when there is less than they want all the same.
    ///
    /// Nothing goes while anything is in doubt: the store's time, its marks, or whether it is another disk.
    pub async fn make_room(self: &Arc<Self>) {
        if !self.state().tuning.settings.retention().is_set() || !self.is_scanned() || self.away().is_some() {
            return;
        }
        let engine = Arc::clone(self);
        let Ok(Some((plan, mut evictable))) = spawn_blocking(move || engine.plan_room()).await else { return };
        let (mut published, mut untold_bytes) = (BTreeMap::new(), 0);
        for (place, candidate) in plan.evict.iter().enumerate() {
            let Some(found) = evictable.remove(&candidate.id) else { continue };
            match self.evict(&found, &mut published).await {
                Ok(EvictOutcome::Unverifiable) => untold_bytes += candidate.size_bytes,
                Ok(EvictOutcome::Gone | EvictOutcome::Kept) => {}
                Err(error) => {
                    tracing::warn!(%error, "no room is made: the store can't be asked");
                    untold_bytes += plan.evict.iter().skip(place).map(|left| left.size_bytes).sum::<u64>();
                    break;
                }
            }
        }
        self.note_low(plan.short_bytes + untold_bytes);
    }

    /// Plans what goes; `None` while nothing may.
    fn plan_room(&self) -> Option<(Plan, HashMap<ChunkId, Evictable>)> {
        let offset_ms = self.clock_offset_ms();
        let is_safe_to = self.blocked().is_none() && !self.is_in_doubt() && self.is_other_disk() == Some(true);
        let offset = Duration::from_millis(offset_ms.unwrap_or(0).unsigned_abs());
        let offset_ns = u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX);
        let wall = self.deps.clock.wall();
        let now_ns = match offset_ms {
            Some(0..) | None => wall.saturating_add(offset_ns),
            Some(_) => wall.saturating_sub(offset_ns),
        };
        let mut evictable = if is_safe_to && offset_ms.is_some() { self.evictable() } else { HashMap::new() };
        let (retention, library_bytes) = {
            let state = self.state();
            let present = |chunk: &&ChunkEntry| matches!(chunk.facts.local, ChunkLocal::Present | ChunkLocal::Damaged);
            let of = |recording: &Arc<Recording>| {
                recording.strays.1 + recording.chunks.iter().filter(present).map(|chunk| chunk.size_bytes).sum::<u64>()
            };
            let recordings: u64 = state.recordings.values().map(of).sum();
            let unmanaged: u64 = state.unmanaged.values().map(|found| found.size_bytes - found.linked_bytes).sum();
            (state.tuning.settings.retention(), recordings + unmanaged)
        };
        let free_bytes = disk::free_bytes(&self.deps.recordings).ok();
        loop {
            let candidates = evictable.values().map(|found| found.candidate.clone()).collect();
            let plan = retention::plan(candidates, retention, Disk { library_bytes, free_bytes, now_ns });
            // What has another name besides, as that of the file it was adopted from, takes its room all the same.
            let is_alone = |candidate: &Candidate| {
                let path = evictable.get(&candidate.id).map(|found| found.path.as_path());
                path.and_then(|path| fs::symlink_metadata(path).ok()).is_some_and(|metadata| metadata.nlink() == 1)
            };
            let linked: Vec<_> = plan.evict.iter().filter(|one| !is_alone(one)).map(|one| one.id.clone()).collect();
            if linked.is_empty() {
                return Some((plan, evictable));
            }
            evictable.retain(|id, _| !linked.contains(id));
        }
    }

    /// Tells whether the store is on another disk than the library; `None` where that is not known.
    pub fn is_other_disk(&self) -> Option<bool> {
        let Some(folder) = &self.deps.store_folder else { return Some(true) };
        Some(disk::device(folder).ok()? != disk::device(&self.deps.recordings).ok()?)
    }

    fn evictable(&self) -> HashMap<ChunkId, Evictable> {
        let is_whole = |recording: &&Arc<Recording>| {
            matches!(recording.manifest, ManifestFacts::Readable { is_ours: true, .. }) && !recording.is_corrupt
        };
        let now_ns = self.deps.clock.wall();
        let state = self.state();
        let found = state.recordings.values().filter(is_whole).flat_map(|recording| {
            let is_named = recording.published.is_some();
            recording.chunks.iter().filter(move |_| is_named).filter_map(move |chunk| {
                let id = ChunkId { recording: recording.name.clone(), chunk: chunk.name };
                let is_proven = chunk.facts.proof.is_some_and(Proof::is_proven) && chunk.facts.is_listed;
                let is_free = chunk.facts.local == ChunkLocal::Present && !chunk.is_pinned(now_ns);
                let etag = chunk.etag.clone().filter(|_| is_proven && is_free)?;
                let key = ObjectKey::chunk(&recording.machine_id, &recording.name, chunk.name);
                let path = Folder::new(&self.deps.recordings, &recording.name).chunk(chunk.name);
                let (size_bytes, finalized_at_ns) = (chunk.size_bytes, chunk.finalized_at_ns);
                let candidate = Candidate { id: id.clone(), size_bytes, finalized_at_ns };
                Some((id, Evictable { candidate, key, etag, digest: chunk.digest, path }))
            })
        });
        found.collect()
    }

    /// Removes a chunk's file, if the store holds its object just now and the manifest that stands there names it.
    async fn evict(
        self: &Arc<Self>,
        found: &Evictable,
        published: &mut BTreeMap<RecordingName, bool>,
    ) -> Result<EvictOutcome, StoreError> {
        let id = &found.candidate.id;
        let Some(_alone) = self.try_lease_alone(&id.recording) else { return Ok(EvictOutcome::Kept) };
        let is_published = match published.get(&id.recording) {
            Some(is_published) => *is_published,
            None => {
                let is_published = self.is_published(&id.recording).await?;
                published.insert(id.recording.clone(), is_published);
                is_published
            }
        };
        if !is_published {
            return Ok(EvictOutcome::Kept);
        }
        let meta = self.deps.store.head(&found.key).await?.filter(|meta| meta.size_bytes == found.candidate.size_bytes);
        let compared = meta.map(|meta| meta.compare(&found.etag, found.digest));
        if compared == Some(Compared::Unverifiable) {
            return Ok(EvictOutcome::Unverifiable);
        }
        let (engine, found) = (Arc::clone(self), found.clone());
        let done = spawn_blocking(move || {
            let Evictable { candidate, key, path, .. } = &found;
            if compared != Some(Compared::Same) {
                engine.take_back(&candidate.id, key);
                return false;
            }
            engine.remove_file(candidate, path)
        });
        Ok(if done.await.unwrap_or(false) { EvictOutcome::Gone } else { EvictOutcome::Kept })
    }

    fn remove_file(&self, candidate: &Candidate, path: &std::path::Path) -> bool {
        let Candidate { id, size_bytes, .. } = candidate;
        // Before the file goes, so that a crash in between does not make it a missing one. On a full disk the line waits in
        // memory until the file has made room for it.
        self.journal(&id.recording, JournalEntry::Evicted { chunk: id.chunk, size_bytes: *size_bytes });
        if let Err(error) = durable::remove(path) {
            tracing::warn!(path = %path.display(), %error, "a file can't be removed");
            return false;
        }
        self.change(id, |chunk| chunk.facts.local = ChunkLocal::Evicted);
        self.journals.write_kept();
        let (recording, chunk) = (id.recording.clone(), id.chunk);
        tracing::info!(%recording, %chunk, size_bytes, "a file is removed to make room: the store holds it");
        self.deps.facts.emit(Fact::Evicted { recording, chunk, size_bytes: *size_bytes });
        true
    }

    /// Tells whether the remote manifest that names all proven chunks of a recording stands in the store just now.
    pub(super) async fn is_published(&self, name: &RecordingName) -> Result<bool, StoreError> {
        let Some(recording) = self.recording(name) else { return Ok(false) };
        let Some(published) = &recording.published else { return Ok(false) };
        let (recordings, library_id) = (self.deps.recordings.clone(), self.deps.facts.library_id().to_owned());
        let of = Arc::clone(&recording);
        let is_due = spawn_blocking(move || {
            scan::manifest(&recordings, &of.name).is_none_or(|manifest| publish::is_due(&of, manifest, &library_id))
        });
        if is_due.await.unwrap_or(true) {
            return Ok(false);
        }
        self.still_stands(published).await
    }

    /// Remembers how much is missing, and tells when that begins.
    fn note_low(&self, short_bytes: u64) {
        let before = std::mem::replace(&mut self.state().disk_low_bytes, short_bytes);
        if before == 0 && short_bytes > 0 {
            tracing::warn!(short_bytes, "less room is left than the settings want, and nothing more may be removed");
            self.deps.facts.emit(Fact::DiskLow { short_bytes });
        } else if before > 0 && short_bytes == 0 {
            tracing::info!("there is room again");
        }
    }

    /// Returns how many bytes less are free than the settings want, although all that may be removed was.
    pub fn disk_low_bytes(&self) -> u64 {
        self.state().disk_low_bytes
    }
}
