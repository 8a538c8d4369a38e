//! What of a plan fetches from the store: chunks, each verified before it has its name, and the manifest.
//!
//! Nothing is overwritten: what is in the way of a sound chunk is put aside and told.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
    vec,
};

use bubbaloop_storage_schemas::{
    ChunkName, RecordingName,
    limits::FETCHES_AT_ONCE_MAX,
    reconcile::{Action, ActionKind, FindingKind},
    reply::{ChunkLocal, Progress, Proof},
};
use tokio::task::{JoinSet, spawn_blocking};

use super::run::{Reconcile, ReconcileError, chunk_of};
use crate::{
    durable::{self, Replace, Staged},
    engine::{
        driver::Engine,
        fetch::{self, FetchError, Fetched, RemoteManifest, Wanted},
    },
    library::{
        disk::{self, Space},
        scan::{Folder, ReadReason},
    },
    policy::{
        self, listing,
        reconcile::{self, Evidence, Failure, Local, LocalManifest, Mark, Remote, Step},
    },
    store::{PROBE_FOLDER, StoreError},
};

/// Between two words of how far it is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Returns how many chunks are to be fetched, and their bytes.
pub(super) fn planned(evidence: &Evidence) -> (u64, u64) {
    let is_planned = |step: Option<Step>| step == Some(Step::Restore);
    let chunks = evidence.chunks.iter().filter(|chunk| is_planned(reconcile::step(chunk, evidence.means)));
    chunks.fold((0, 0), |(chunks, bytes), chunk| (chunks + 1, bytes.saturating_add(chunk.size_bytes)))
}

/// Returns the names of this machine's recordings in the store that match a glob.
///
/// # Errors
/// The store does not list them.
pub async fn names_in_store(engine: &Engine, glob: &str) -> Result<BTreeSet<RecordingName>, StoreError> {
    let parts = engine.parts();
    let mut names = BTreeSet::new();
    for machine in parts.machine_id.spellings() {
        let found = parts.store.list_folders(&format!("{machine}/")).await?;
        let recordings = found.iter().filter(|name| **name != PROBE_FOLDER);
        names.extend(recordings.filter_map(|name| name.parse::<RecordingName>().ok()));
    }
    names.retain(|name| listing::matches(glob, name.as_str()));
    Ok(names)
}

/// Tells whether the library's disk has room for all that is to be fetched. A disk that does not tell is tried.
///
/// # Errors
/// `NoRoom`: it has not.
pub async fn has_room(engine: &Engine, needed_bytes: u64) -> Result<(), ReconcileError> {
    let recordings = engine.parts().recordings.clone();
    // On a new disk the folder of recordings is made by what comes first.
    match spawn_blocking(move || recordings.ancestors().find_map(|folder| disk::space(folder).ok())).await {
        Ok(Some(Space { free_bytes, disk_bytes })) => Ok(policy::fetch::room(needed_bytes, free_bytes, disk_bytes)?),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// One chunk that is being fetched.
struct PendingFetch {
    action: Action,
    name: ChunkName,
    size_bytes: u64,
    /// What of it is here.
    here_bytes: Arc<AtomicU64>,
}

impl Reconcile<'_> {
    fn folder(&self) -> Folder {
        Folder::new(&self.engine.parts().recordings, &self.name)
    }

    /// Writes the store's manifest here, where that is planned. It comes before the chunks: a crash then leaves a
    /// recording that misses chunks, which is so, and not files that nothing names.
    pub(super) async fn restore_manifest(&mut self, evidence: &mut Evidence) {
        let Some(theirs) = self.fetching.restorable.take() else { return };
        let planned = reconcile::plan(evidence).actions.into_iter();
        let mut planned = planned.filter(|action| action.kind == ActionKind::RestoreManifest);
        let Some(mut action) = planned.next() else { return };
        let folder = self.folder();
        let written = spawn_blocking(move || write_manifest(&folder, &theirs)).await;
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(aside) => {
                if let Some(aside) = aside {
                    action.message = with_aside(&aside, &action.message);
                }
                self.report.done.push(Action::new(action.kind, &self.name, None, action.message));
                self.look_again(evidence).await;
                evidence.local_manifest = LocalManifest::Kept;
                evidence.is_named = true;
                evidence.is_corrupt = self.engine.recording(&self.name).is_some_and(|recording| recording.is_corrupt);
                evidence.manifest = reconcile::RemoteManifest::Due;
            }
            Err(error) => {
                evidence.local_manifest = LocalManifest::Kept;
                let message = format!("manifest.json can't be written: {error}: mend that, then reconcile again");
                self.find(FindingKind::Failed, message);
            }
        }
    }

    /// Has the library read what was written, and finds the journal's place for chunks that had none.
    async fn look_again(&self, evidence: &mut Evidence) {
        let (engine, name) = (Arc::clone(self.engine), self.name.clone());
        let read = spawn_blocking(move || {
            if let Err(error) = engine.refresh(&name, ReadReason::OnDemand) {
                tracing::warn!(recording = %name, %error, "a recording can't be read");
            }
            engine.recording(&name)
        });
        let Ok(Some(recording)) = read.await else { return };
        for chunk in evidence.chunks.iter_mut().filter(|chunk| chunk.mark == Mark::NoPlace) {
            if let Some(entry) = recording.chunk(chunk.name) {
                let is_proven = entry.facts.proof.is_some_and(Proof::is_proven);
                chunk.mark = if is_proven { Mark::Current } else { Mark::None };
            }
        }
    }

    /// Fetches chunks, a few at once.
    pub(super) async fn restore_all(&mut self, evidence: &mut Evidence, actions: Vec<Action>) {
        let folder = self.folder();
        let wanted: BTreeSet<_> = actions.iter().filter_map(|action| action.chunk).collect();
        let made = spawn_blocking(move || {
            durable::create_folder(&folder.chunks())?;
            sweep(&folder, &wanted)
        });
        if let Err(error) = made.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(recording = %self.name, %error, "what earlier tries left can't be looked at");
        }
        let at_once = FETCHES_AT_ONCE_MAX.min(self.engine.concurrency()).max(1);
        let mut waiting = actions.into_iter();
        let mut fetches = JoinSet::new();
        let mut under_way: Vec<(ChunkName, Arc<AtomicU64>)> = Vec::new();
        loop {
            while fetches.len() < at_once
                && let Some(errand) = self.next(evidence, &mut waiting).await
            {
                under_way.push((errand.name, Arc::clone(&errand.here_bytes)));
                self.spawn(&mut fetches, errand);
            }
            tokio::select! {
                ended = fetches.join_next() => match ended {
                    None => break,
                    Some(Ok((errand, fetched))) => {
                        under_way.retain(|(name, _)| *name != errand.name);
                        self.take_home(evidence, errand, fetched).await;
                    }
                    Some(Err(error)) => tracing::error!(%error, "the fetching of a chunk ended abnormally"),
                },
                () = tokio::time::sleep(TELL_EVERY) => {}
            }
            let here_bytes: u64 = under_way.iter().map(|(_, here)| here.load(Ordering::Relaxed)).sum();
            (self.meter.told)(Progress {
                bytes_done: self.meter.progress.bytes_done + here_bytes,
                ..self.meter.progress
            });
        }
        self.look_again(evidence).await;
    }

    /// Returns the next chunk to fetch; those for which that makes no sense now have failed.
    async fn next(&mut self, evidence: &mut Evidence, waiting: &mut vec::IntoIter<Action>) -> Option<PendingFetch> {
        for action in waiting.by_ref() {
            let Some(chunk) = action.chunk.and_then(|name| chunk_of(evidence, name)) else { continue };
            let (name, size_bytes) = (chunk.name, chunk.size_bytes);
            let reason = match (&self.fetching.is_full, &self.silent) {
                (Some(reason), _) | (None, Some(reason)) => Some(reason.clone()),
                // A recorder goes on writing meanwhile.
                (None, None) => has_room(self.engine, size_bytes).await.err().map(|error| error.to_string()),
            };
            if let Some(reason) = reason {
                self.failed(evidence, name, reason, false);
                continue;
            }
            return Some(PendingFetch { action, name, size_bytes, here_bytes: Arc::default() });
        }
        None
    }

    fn spawn(&self, fetches: &mut JoinSet<(PendingFetch, Result<Fetched, FetchError>)>, errand: PendingFetch) {
        let (store, folder, key) = (Arc::clone(&self.store), self.folder(), self.key(errand.name));
        let digest = self.digests.get(&errand.name).copied();
        fetches.spawn(async move {
            let Some(digest) = digest else {
                let reason = "its whole digest is not known".to_owned();
                return (errand, Err(FetchError::Wrong { key, reason }));
            };
            let wanted = Wanted { key, digest, size_bytes: errand.size_bytes, part: folder.part(errand.name) };
            let here_bytes = Arc::clone(&errand.here_bytes);
            let fetched = fetch::fetch(&*store, &wanted, &|bytes| here_bytes.store(bytes, Ordering::Relaxed)).await;
            (errand, fetched)
        });
    }

    /// Gives a chunk that was fetched its name, or takes in why it was not.
    async fn take_home(&mut self, evidence: &mut Evidence, errand: PendingFetch, fetched: Result<Fetched, FetchError>) {
        let PendingFetch { mut action, name, size_bytes, .. } = errand;
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return self.not_fetched(evidence, name, &error),
        };
        let etag = fetched.etag.clone();
        let is_damaged = chunk_of(evidence, name).is_some_and(|chunk| chunk.local == Local::Damaged);
        match self.place(fetched, name, is_damaged).await {
            Err(error) => {
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                    self.fetching.is_full = Some(error.to_string());
                }
                return self.failed(evidence, name, format!("it can't get its name: {error}"), false);
            }
            Ok(Some(aside)) => action.message = with_aside(&aside, &action.message),
            Ok(None) => {}
        }
        self.engine.note_local(&self.id(name), ChunkLocal::Present);
        self.fetching.restored = (self.fetching.restored.0 + 1, self.fetching.restored.1 + size_bytes);
        self.report.done.push(Action::new(action.kind, &self.name, Some(name), action.message));
        if let Some(chunk) = chunk_of(evidence, name) {
            chunk.local = Local::Intact;
            // It was fetched and hashed.
            if let (Remote::Claimed, Some(etag)) = (&chunk.remote, etag) {
                chunk.remote = Remote::Same { proof: Proof::ReadBack, etag };
            }
        }
        self.settled(size_bytes);
    }

    /// Puts aside what is in the way, writes down that the chunk is pinned, and gives it its name. Returns where that is.
    async fn place(&self, fetched: Fetched, name: ChunkName, is_damaged: bool) -> io::Result<Option<PathBuf>> {
        let (target, engine, id) = (self.folder().chunk(name), Arc::clone(self.engine), self.id(name));
        let path = target.clone();
        let prepared = spawn_blocking(move || {
            let aside = match fs::symlink_metadata(&path) {
                // A file that came meanwhile is left alone: the name is taken then.
                Ok(found) if is_damaged || !found.is_file() => Some(durable::put_aside(&path)?),
                _ => None,
            };
            engine.note_restored(&id);
            Ok::<_, io::Error>(aside)
        });
        let aside = prepared.await.map_err(io::Error::other)??;
        fetched.name(target).await?;
        Ok(aside)
    }

    fn not_fetched(&mut self, evidence: &mut Evidence, name: ChunkName, error: &FetchError) {
        if error.is_disk_full() {
            self.fetching.is_full = Some(error.to_string());
        } else if error.is_no_answer() {
            self.silent.get_or_insert_with(|| error.to_string());
        }
        let found = match error {
            FetchError::Wrong { .. } => Some(Remote::Other),
            FetchError::Absent(_) => Some(Remote::Absent),
            FetchError::Store(_) | FetchError::Disk { .. } => None,
        };
        let is_denied = matches!(error, FetchError::Store(error) if error.is_denied());
        self.failed(evidence, name, error.to_string(), is_denied);
        if let (Some(chunk), Some(found)) = (chunk_of(evidence, name), found) {
            chunk.remote = found;
        }
    }

    fn failed(&mut self, evidence: &mut Evidence, name: ChunkName, reason: String, is_denied: bool) {
        let Some(chunk) = chunk_of(evidence, name) else { return };
        chunk.failure = Some(Failure { step: Step::Restore, reason, is_denied });
        let size_bytes = chunk.size_bytes;
        self.settled(size_bytes);
    }
}

/// Says first where a person finds what was here: a long message is cut.
fn with_aside(aside: &Path, message: &str) -> String {
    let name = aside.file_name().unwrap_or_default().display();
    format!("what was here is put aside as {name}; {message}")
}

/// Removes what earlier tries left of chunks that are here by now.
fn sweep(folder: &Folder, wanted: &BTreeSet<ChunkName>) -> io::Result<()> {
    for entry in fs::read_dir(folder.chunks())? {
        let name = entry?.file_name();
        let chunk = name.to_str().and_then(Folder::chunk_of_part);
        if let Some(chunk) = chunk.filter(|chunk| !wanted.contains(chunk) && folder.chunk(*chunk).is_file()) {
            durable::remove(&folder.part(chunk))?;
        }
    }
    Ok(())
}

/// Writes the store's manifest as it stands there. Returns where the one that was here is put.
fn write_manifest(folder: &Folder, theirs: &RemoteManifest) -> io::Result<Option<PathBuf>> {
    durable::create_folder(&folder.chunks())?;
    let path = folder.manifest();
    let mut staged = Staged::create(path.with_file_name(".manifest.json.restore"))?;
    staged.write(&theirs.text)?;
    staged.sync()?;
    let aside = match durable::put_aside(&path) {
        Ok(aside) => Some(aside),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    staged.commit(&path, Replace::Refused)?;
    Ok(aside)
}
