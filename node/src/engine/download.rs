//! A copy of a recording for a person: from the store to a folder of theirs, laid out as in a library.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bubbaloop_storage_schemas::{
    ChunkName, MachineId, RecordingName, UnixNs,
    keys::ObjectKey,
    limits::{FETCHES_AT_ONCE_MAX, MANIFEST_BYTES_MAX, PAGE_ROWS_MAX},
    manifest::{Chunk, Indices, Manifest},
};
use tokio::task::{JoinSet, spawn_blocking};

use super::{
    fetch::{self, FetchError, ManifestError, RemoteManifest, Wanted},
    holdings,
};
use crate::{
    content::{self, ContentError},
    durable,
    library::{disk, scan::Folder},
    policy::{
        self,
        fetch::{NoRoom, Selection},
        manifest::{self, Merged},
    },
    store::{ObjectStore, StoreError},
};

/// What is to be copied, and where to.
#[derive(Debug, Clone)]
pub struct Order {
    /// From where.
    pub store: Arc<dyn ObjectStore>,
    /// The machine that recorded it.
    pub machine: MachineId,
    /// The recording.
    pub recording: RecordingName,
    /// Which of the captures that had its name, by when it began; `None` for the one with the usual manifest.
    pub started_at_ns: Option<UnixNs>,
    /// Which of its chunks.
    pub selection: Selection,
    /// To which folder.
    pub folder: PathBuf,
}

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not hold it.
    #[error("the store holds no recording {recording} of {machine}")]
    NotFound {
        /// The recording.
        recording: RecordingName,
        /// The machine.
        machine: MachineId,
    },
    /// Several captures had its name, and the one that is meant is not among them, or not told.
    #[error("none of the captures of {recording} in the store is known to be meant")]
    NoSuchCapture {
        /// The recording.
        recording: RecordingName,
        /// When those began that the store holds.
        captures: Vec<UnixNs>,
    },
    /// There is no manifest that tells what belongs to it.
    #[error("the store holds {chunks} chunks of {recording} and no manifest that tells what belongs to it")]
    NoManifest {
        /// The recording.
        recording: RecordingName,
        /// Its chunks in the store.
        chunks: u64,
    },
    /// What stands there as its manifest is not taken for one.
    #[error("the manifest {key} is refused")]
    Refused {
        /// The object.
        key: ObjectKey,
        /// Every reason.
        reasons: Vec<String>,
    },
    /// None of its chunks is meant.
    #[error("none of the {chunks} chunks is in the range that is asked for")]
    NothingMeant {
        /// How many the manifest names.
        chunks: usize,
    },
    /// The disk has not the room.
    #[error("the disk of {} has not the room: {no_room}", folder.display())]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// How much is missing.
        no_room: NoRoom,
    },
    /// The folder holds something else.
    #[error("{} is of another recording and is not overwritten", .0.display())]
    OtherManifest(PathBuf),
    /// The folder can't be used.
    #[error("{} can't be used: {source}", path.display())]
    Folder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// How it went with one chunk.
#[derive(Debug)]
pub enum Fate {
    /// It was fetched.
    Fetched,
    /// It was there already.
    There,
    /// It is not there.
    Failed(ChunkError),
}

/// Why a chunk is not there.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// It could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Its place is taken.
    #[error("{} has other bytes and is not overwritten", .0.display())]
    Taken(PathBuf),
    /// Its file can't be looked at or named.
    #[error("{} can't be used: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another chunk had to be given up for a reason that holds for all.
    #[error("not tried: {0}")]
    NotTried(String),
}

/// What is told while it goes on.
#[derive(Debug)]
pub enum Told<'a> {
    /// So much is meant.
    Planned {
        /// The chunks.
        chunks: usize,
        /// Their bytes.
        size_bytes: u64,
    },
    /// A chunk is done with.
    Chunk {
        /// Its name.
        name: ChunkName,
        /// Its size.
        size_bytes: u64,
        /// How it went.
        fate: &'a Fate,
    },
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Downloaded {
    /// Chunks that were fetched.
    pub fetched_chunks: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Chunks that were there already.
    pub there_chunks: u64,
    /// Chunks that are not there.
    pub failed: Vec<(ChunkName, ChunkError)>,
    /// When other captures of the name began that the store holds too.
    pub other_captures: Vec<UnixNs>,
}

impl Downloaded {
    fn add(&mut self, chunk: &Chunk, fate: Fate) {
        match fate {
            Fate::Fetched => {
                self.fetched_chunks += 1;
                self.fetched_bytes += chunk.size_bytes;
            }
            Fate::There => self.there_chunks += 1,
            Fate::Failed(error) => self.failed.push((chunk.name, error)),
        }
    }
}

/// Copies a recording, or a part of it, to a folder. Idempotent: what is there already is kept, what was begun is gone on
/// with, and nothing else is overwritten. The manifest is written last, as it is stored, once all that is meant is there.
///
/// # Errors
/// Nothing was copied, as [`DownloadError`] tells.
///
/// # Cancellation
/// What was fetched stays, and the next call goes on.
pub async fn download(order: &Order, tell: &mut (dyn FnMut(Told<'_>) + Send)) -> Result<Downloaded, DownloadError> {
    let (theirs, other_captures) = read_manifest(order).await?;
    let chunks: Vec<_> = theirs.checked.chunks.iter().copied().filter(|chunk| order.selection.takes(chunk)).collect();
    if chunks.is_empty() && !theirs.checked.chunks.is_empty() {
        return Err(DownloadError::NothingMeant { chunks: theirs.checked.chunks.len() });
    }
    let (folder, meant) = (order.folder.clone(), chunks.clone());
    let theirs = Arc::new(theirs);
    let stored = Arc::clone(&theirs);
    blocking(&order.folder, move || prepare(&folder, &stored, &meant)).await?;
    let size_bytes = chunks.iter().map(|chunk| chunk.size_bytes).sum();
    tell(Told::Planned { chunks: chunks.len(), size_bytes });
    let machine = theirs.checked.machine_id.clone();
    let copied = copy(order, &machine, chunks, tell).await;
    let mut done = Downloaded { other_captures, ..copied };
    if done.failed.is_empty() {
        let path = Folder::at(&order.folder).manifest();
        blocking(&order.folder, move || {
            durable::replace(&path, &theirs.text).map_err(|source| DownloadError::Folder { path, source })
        })
        .await?;
    }
    done.failed.sort_by_key(|(name, _)| *name);
    Ok(done)
}

async fn blocking<T: Send + 'static>(
    folder: &Path,
    work: impl FnOnce() -> Result<T, DownloadError> + Send + 'static,
) -> Result<T, DownloadError> {
    let ended = |error| DownloadError::Folder { path: folder.to_owned(), source: io::Error::other(error) };
    spawn_blocking(work).await.map_err(ended)?
}

/// Reads the manifest that is meant, which stands under one of the machine's spellings, and finds the other captures of
/// the name.
async fn read_manifest(order: &Order) -> Result<(RemoteManifest, Vec<UnixNs>), DownloadError> {
    let Order { store, recording, .. } = order;
    let mut captures = BTreeSet::new();
    for machine in order.machine.spellings() {
        let theirs = read_under(order, &machine, ObjectKey::manifest(&machine, recording)).await?;
        let own = own_manifests(&**store, &machine, recording).await?;
        captures.extend(theirs.iter().map(|theirs| theirs.manifest.started_at_ns).chain(own.iter().copied()));
        let is_meant = |theirs: &RemoteManifest| {
            order.started_at_ns.is_none_or(|started_at_ns| theirs.manifest.started_at_ns == started_at_ns)
        };
        let found = match (theirs.filter(is_meant), order.started_at_ns) {
            (None, Some(started_at_ns)) if own.contains(&started_at_ns) => {
                let key = ObjectKey::manifest_of_capture(&machine, recording, started_at_ns);
                read_under(order, &machine, key).await?
            }
            (found, _) => found,
        };
        if let Some(theirs) = found {
            captures.remove(&theirs.manifest.started_at_ns);
            return Ok((theirs, captures.into_iter().collect()));
        }
    }
    if !captures.is_empty() {
        let captures = captures.into_iter().collect();
        return Err(DownloadError::NoSuchCapture { recording: recording.clone(), captures });
    }
    for machine in order.machine.spellings() {
        if let Some(held) = holdings::of_recording(&**store, &machine, recording).await? {
            return Err(DownloadError::NoManifest { recording: recording.clone(), chunks: held.chunks });
        }
    }
    Err(DownloadError::NotFound { recording: recording.clone(), machine: order.machine.clone() })
}

async fn read_under(
    order: &Order,
    machine: &MachineId,
    key: ObjectKey,
) -> Result<Option<RemoteManifest>, DownloadError> {
    match fetch::manifest(&*order.store, &key, machine, &order.recording).await {
        Ok(theirs) => Ok(theirs.map(|mut theirs| {
            // Its objects stand beside it, however it spells the machine.
            theirs.checked.machine_id = machine.clone();
            theirs
        })),
        Err(ManifestError::Store(error)) => Err(error.into()),
        Err(ManifestError::Refused { key, reasons }) => Err(DownloadError::Refused { key, reasons }),
    }
}

/// Returns when the captures began whose manifests have names of their own, because another had the usual one. A key
/// that may not list knows of none.
async fn own_manifests(
    store: &dyn ObjectStore,
    machine: &MachineId,
    recording: &RecordingName,
) -> Result<BTreeSet<UnixNs>, StoreError> {
    let prefix = format!("{machine}/{recording}/manifest.");
    let page = match store.list(&prefix, None, PAGE_ROWS_MAX).await {
        Err(error) if error.is_denied() => return Ok(BTreeSet::new()),
        page => page?,
    };
    let began = |text: &str| text.strip_prefix(&*prefix)?.strip_suffix(".json")?.parse().ok();
    Ok(page.objects.iter().filter_map(|meta| began(meta.key.as_str())).collect())
}

/// Makes the folder, and looks whether it holds something else and whether there is room.
fn prepare(folder: &Path, theirs: &RemoteManifest, chunks: &[Chunk]) -> Result<(), DownloadError> {
    let failed = |source| DownloadError::Folder { path: folder.to_owned(), source };
    let at = Folder::at(folder);
    durable::create_folder(&at.chunks()).map_err(failed)?;
    match content::read(&at.manifest(), MANIFEST_BYTES_MAX) {
        Err(ContentError::Gone(_)) => {}
        Ok(text) if text == theirs.text || is_earlier(&text, &theirs.manifest) => {}
        Ok(_) | Err(_) => return Err(DownloadError::OtherManifest(at.manifest())),
    }
    let length = |path: PathBuf| fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
    let missing = |chunk: &Chunk| {
        let here = length(at.chunk(chunk.name)).max(length(at.part(chunk.name)));
        chunk.size_bytes.saturating_sub(here)
    };
    let needed_bytes = chunks.iter().map(missing).fold(0, u64::saturating_add);
    let space = disk::space(folder).map_err(failed)?;
    policy::fetch::room(needed_bytes, space.free_bytes, space.disk_bytes)
        .map_err(|no_room| DownloadError::NoRoom { folder: folder.to_owned(), no_room })
}

/// Tells whether a manifest is an earlier one of the same capture: all that it names is named by the one that is stored.
fn is_earlier(text: &[u8], theirs: &Manifest) -> bool {
    let Ok((here, _)) = Manifest::parse(text, Indices::Rising) else { return false };
    manifest::merge(theirs, &here) == Merged::Ours
}

/// Copies chunks, a few at once. After a reason that holds for all, no further one is begun.
async fn copy(
    order: &Order,
    machine: &MachineId,
    chunks: Vec<Chunk>,
    tell: &mut (dyn FnMut(Told<'_>) + Send),
) -> Downloaded {
    let mut done = Downloaded::default();
    let mut waiting = chunks.into_iter();
    let mut copies = JoinSet::new();
    let mut is_over = None;
    loop {
        while copies.len() < FETCHES_AT_ONCE_MAX
            && is_over.is_none()
            && let Some(chunk) = waiting.next()
        {
            let (store, at) = (Arc::clone(&order.store), Folder::at(&order.folder));
            let key = ObjectKey::chunk(machine, &order.recording, chunk.name);
            copies.spawn(async move { (chunk, copy_one(&*store, key, &at, chunk).await) });
        }
        let (chunk, fate) = match (copies.join_next().await, &is_over) {
            (Some(Ok(copied)), _) => copied,
            (Some(Err(error)), _) => {
                tracing::error!(%error, "the copying of a chunk ended abnormally");
                continue;
            }
            (None, Some(reason)) => match waiting.next() {
                None => return done,
                Some(chunk) => (chunk, Fate::Failed(ChunkError::NotTried(String::clone(reason)))),
            },
            (None, None) => return done,
        };
        if let Fate::Failed(ChunkError::Fetch(error)) = &fate
            && (error.is_no_answer() || error.is_disk_full())
        {
            is_over.get_or_insert_with(|| error.to_string());
        }
        tell(Told::Chunk { name: chunk.name, size_bytes: chunk.size_bytes, fate: &fate });
        done.add(&chunk, fate);
    }
}

async fn copy_one(store: &dyn ObjectStore, key: ObjectKey, at: &Folder, chunk: Chunk) -> Fate {
    let target = at.chunk(chunk.name);
    let path = target.clone();
    let unusable = |reason: String| Fate::Failed(ChunkError::File { path: target.clone(), reason });
    match spawn_blocking(move || content::hash(&path)).await {
        Ok(Ok((found, _))) if found == chunk.digest => return Fate::There,
        Ok(Ok(_)) => return Fate::Failed(ChunkError::Taken(target)),
        Ok(Err(ContentError::Gone(_))) => {}
        Ok(Err(error)) => return unusable(error.to_string()),
        Err(error) => return unusable(error.to_string()),
    }
    let wanted = Wanted { key, digest: chunk.digest, size_bytes: chunk.size_bytes, part: at.part(chunk.name) };
    match fetch::fetch(store, &wanted, &|_| {}).await {
        Ok(fetched) => match fetched.name(target.clone()).await {
            Ok(()) => Fate::Fetched,
            Err(error) => unusable(error.to_string()),
        },
        Err(error) => Fate::Failed(error.into()),
    }
}
