//! One object: from the store to a file that has its digest.

use std::{io, path::PathBuf, time::Duration};

use bubbaloop_storage_schemas::{
    Digest, MachineId, RecordingName,
    keys::ObjectKey,
    limits::MANIFEST_BYTES_MAX,
    manifest::{Checked, Manifest},
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::mpsc,
    task::{JoinError, spawn_blocking},
};

use crate::{
    durable::Partial,
    policy::{backoff, fetch},
    store::{ObjectBody, ObjectStore, StoreError, StoreErrorKind},
};

/// Blocks that are read ahead of the disk.
const BLOCKS_AHEAD: usize = 2;

/// Tries in a row that bring no byte.
const TRIES_MAX: u32 = 3;

/// An object that is wanted as a file.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where it is.
    pub key: ObjectKey,
    /// What its bytes must hash to.
    pub digest: Digest,
    /// How many there are.
    pub size_bytes: u64,
    /// Where it is written until it is whole. What an earlier try left there is gone on with.
    pub part: PathBuf,
}

/// Why an object is not had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is none.
    #[error("object {0} is not there")]
    Absent(ObjectKey),
    /// It has other bytes.
    #[error("object {key} has other bytes than the chunk: {reason}")]
    Wrong {
        /// The object.
        key: ObjectKey,
        /// How that is known.
        reason: String,
    },
    /// The disk does not take it.
    #[error("{} can't be written: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl FetchError {
    /// Tells whether the disk is full: nothing else can be fetched either.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if is_full(source))
    }

    /// Tells whether the store gave no answer, rather than one about this object.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::Store(error) if !error.is_denied() && !matches!(error.kind, StoreErrorKind::Rejected))
    }

    /// Tells whether what was written so far is of no use, or in the way of others.
    fn spoils(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::Wrong { .. }) || self.is_disk_full()
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A file that has the wanted digest and no name yet. Dropped, it stays for the next try.
#[derive(Debug)]
pub struct Fetched {
    partial: Partial,
    /// The version that was fetched, where the store was asked.
    pub etag: Option<String>,
}

impl Fetched {
    /// Gives the file its name, which nothing may have yet, durably.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is taken; otherwise the disk is full or broken.
    pub async fn name(self, target: PathBuf) -> io::Result<()> {
        let named = spawn_blocking(move || self.partial.commit(&target)).await;
        named.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// Hears how many bytes of the object are here.
pub type OnBytes<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Fetches an object: its bytes are hashed while they are written beside its last place. Idempotent.
///
/// A connection that breaks is gone on with where it ended, as long as some bytes come. An object that is larger than it
/// should be is cut off.
///
/// # Errors
/// As [`FetchError`] tells. What may be gone on with stays under `part`.
///
/// # Cancellation
/// What was written stays under `part`.
pub async fn fetch(store: &dyn ObjectStore, wanted: &Wanted, hear: OnBytes<'_>) -> Result<Fetched, FetchError> {
    let mut writing = Writing::open(wanted).await?;
    let mut is_continued = writing.partial.length() > 0;
    let (mut etag, mut failures, mut may_restart) = (None, 0, true);
    loop {
        let before = writing.partial.length();
        hear(before);
        if before < wanted.size_bytes {
            let (returned, poured) = pour(store, wanted, writing, hear).await?;
            writing = returned;
            match poured {
                Ok(found) => etag = Some(found),
                Err(error) => {
                    failures = if writing.partial.length() > before { 1 } else { failures + 1 };
                    let Some(delay) = delay(&error, failures) else { return Err(writing.give_up(error).await) };
                    is_continued = true;
                    tokio::time::sleep(delay).await;
                    continue;
                }
            }
        }
        let found = writing.digest();
        if found == wanted.digest {
            return Ok(Fetched { partial: writing.partial, etag });
        }
        if !(is_continued && may_restart) {
            let reason = format!("its digest is {found}, not {}", wanted.digest);
            return Err(writing.give_up(FetchError::Wrong { key: wanted.key.clone(), reason }).await);
        }
        // What a crash left half-written, or another version's beginning.
        (is_continued, may_restart) = (false, false);
        writing = writing.restarted(wanted).await?;
    }
}

/// Returns how long to wait before it is gone on with; `None` where that makes no sense.
fn delay(error: &FetchError, failures: u32) -> Option<Duration> {
    let FetchError::Store(StoreError { kind: StoreErrorKind::Retry { after }, .. }) = error else { return None };
    let delay = backoff::delay(failures, fastrand::f64()).max(after.unwrap_or_default()).min(backoff::DELAY_MAX);
    (failures < TRIES_MAX).then_some(delay)
}

/// A file that is being written, with what its bytes hash to.
struct Writing {
    partial: Partial,
    hasher: Sha256,
    path: PathBuf,
}

fn ended(error: &JoinError) -> FetchError {
    let message = format!("the writing of a file ended abnormally: {error}");
    StoreError::new(StoreErrorKind::Rejected, message).into()
}

impl Writing {
    /// Opens what an earlier try left, and hashes it.
    async fn open(wanted: &Wanted) -> Result<Self, FetchError> {
        let (path, size_bytes) = (wanted.part.clone(), wanted.size_bytes);
        let failed = |source| FetchError::Disk { path: wanted.part.clone(), source };
        let opened = spawn_blocking(move || {
            let mut partial = Partial::open(path.clone())?;
            let mut hasher = Sha256::new();
            if partial.length() > size_bytes {
                partial.restart()?;
            }
            partial.read(|block| hasher.update(block))?;
            Ok(Self { partial, hasher, path })
        });
        opened.await.map_err(|error| ended(&error))?.map_err(failed)
    }

    /// Throws away what is there and begins again.
    async fn restarted(mut self, wanted: &Wanted) -> Result<Self, FetchError> {
        let failed = |source| FetchError::Disk { path: wanted.part.clone(), source };
        let restarted = spawn_blocking(move || {
            self.partial.restart()?;
            self.hasher = Sha256::new();
            Ok(self)
        });
        restarted.await.map_err(|error| ended(&error))?.map_err(failed)
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(self.hasher.clone().finalize().into())
    }

    /// Takes blocks until there are no more. Its own thread: a slow disk must not hold up others.
    fn take(mut self, mut blocks: mpsc::Receiver<Bytes>) -> (Self, io::Result<()>) {
        while let Some(block) = blocks.blocking_recv() {
            if let Err(error) = self.partial.write(&block) {
                return (self, Err(error));
            }
            self.hasher.update(&block);
        }
        (self, Ok(()))
    }

    /// Leaves what the next try can go on with, and nothing else.
    async fn give_up(self, error: FetchError) -> FetchError {
        if error.spoils() {
            let Self { partial, path, .. } = self;
            let discarded = spawn_blocking(move || partial.discard()).await;
            if let Ok(Err(error)) = discarded {
                tracing::warn!(path = %path.display(), %error, "what was fetched in vain can't be removed");
            }
        }
        error
    }
}

/// Writes what is missing of an object, and returns its version.
async fn pour(
    store: &dyn ObjectStore,
    wanted: &Wanted,
    writing: Writing,
    hear: OnBytes<'_>,
) -> Result<(Writing, Result<String, FetchError>), FetchError> {
    let start = writing.partial.length();
    let range = (start > 0).then_some(start..wanted.size_bytes);
    let object = match store.get(&wanted.key, range).await {
        Ok(Some(object)) => object,
        Ok(None) => return Ok((writing, Err(FetchError::Absent(wanted.key.clone())))),
        Err(error) => return Ok((writing, Err(told(wanted, error)))),
    };
    let (etag, size_bytes) = (object.meta.etag.clone(), object.meta.size_bytes);
    if size_bytes != wanted.size_bytes {
        let reason = format!("it has {size_bytes} bytes, not {}", wanted.size_bytes);
        return Ok((writing, Err(FetchError::Wrong { key: wanted.key.clone(), reason })));
    }
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
    let writer = spawn_blocking(move || writing.take(receiver));
    let read = read(object, wanted, start, sender, hear).await;
    let (writing, written) = writer.await.map_err(|error| ended(&error))?;
    let result = match written {
        Ok(()) => read.map(|()| etag),
        Err(source) => Err(FetchError::Disk { path: writing.path.clone(), source }),
    };
    Ok((writing, result))
}

/// Hands an object's blocks to the writer.
async fn read(
    mut object: ObjectBody,
    wanted: &Wanted,
    start: u64,
    blocks: mpsc::Sender<Bytes>,
    hear: OnBytes<'_>,
) -> Result<(), FetchError> {
    let mut length = start;
    while let Some(block) = object.next_block().await.map_err(|error| told(wanted, error))? {
        length += block.len() as u64;
        if length > wanted.size_bytes {
            let reason = format!("it has more than {} bytes", wanted.size_bytes);
            return Err(FetchError::Wrong { key: wanted.key.clone(), reason });
        }
        if blocks.send(block).await.is_err() {
            // The writer tells why it ended.
            return Ok(());
        }
        hear(length);
    }
    if length < wanted.size_bytes {
        let message = format!("can't read {} to its end: it ends too early", wanted.key);
        return Err(StoreError::new(StoreErrorKind::Retry { after: None }, message).into());
    }
    Ok(())
}

/// A store that finds that an object has other bytes than were put there says so.
fn told(wanted: &Wanted, error: StoreError) -> FetchError {
    match error.kind {
        StoreErrorKind::Corrupt => FetchError::Wrong { key: wanted.key.clone(), reason: error.message },
        _ => error.into(),
    }
}

/// A manifest of the store that is taken for one.
#[derive(Debug, Clone)]
pub struct RemoteManifest {
    /// As it is stored.
    pub text: Vec<u8>,
    /// What it says.
    pub manifest: Manifest,
    /// What that is worth.
    pub checked: Checked,
}

/// Why a manifest of the store is not had.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What stands there is not taken for one, for all of these reasons.
    #[error("the object {key} is refused: {}", reasons.join("; "))]
    Refused {
        /// The object.
        key: ObjectKey,
        /// Why.
        reasons: Vec<String>,
    },
}

/// Reads what stands in the store as the manifest of a recording; `None` where there is nothing.
///
/// # Errors
/// As [`ManifestError`] tells.
pub async fn manifest(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    machine: &MachineId,
    name: &RecordingName,
) -> Result<Option<RemoteManifest>, ManifestError> {
    let refused = |reasons| ManifestError::Refused { key: key.clone(), reasons };
    let Some(object) = store.get(key, None).await? else { return Ok(None) };
    let size_bytes = object.meta.size_bytes;
    if size_bytes > MANIFEST_BYTES_MAX {
        return Err(refused(vec![format!("it has {size_bytes} bytes: more than {MANIFEST_BYTES_MAX} are not read")]));
    }
    let text = match object.collect(MANIFEST_BYTES_MAX).await {
        Ok(text) => text,
        Err(error) if matches!(error.kind, StoreErrorKind::Corrupt) => return Err(refused(vec![error.message])),
        Err(error) => return Err(error.into()),
    };
    let (manifest, checked) = fetch::accept(&text, machine, name).map_err(refused)?;
    Ok(Some(RemoteManifest { text, manifest, checked }))
}
