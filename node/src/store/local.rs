//! A folder that behaves like an object store.
//!
//! ```text
//! <root>/robot_1/drive_1/chunks/chunk-000000-1a2b3c4d.mcap   the object
//! <root>/.bubbaloop/seals/robot_1/drive_1/chunks/….json      its seal: digest, size, mtime and inode when it was put
//! <root>/.bubbaloop/staging/                                 what is being written; swept when the store is opened
//! <root>/.bubbaloop/store.json                               the store's mark: another disk in its place has another
//! ```
//!
//! A seal is written before its object gets its name. One that does not fit the file is
//! of an older version, or of a put that a crash cut short or that lost a race: the file is hashed then. So the store never
//! tells a digest that it did not find itself.

use std::{
    fs, io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bubbaloop_storage_schemas::{
    BlockReason, Digest,
    keys::ObjectKey,
    limits::{BLOCK_BYTES, STORE_FOLDERS_MAX},
    reply::{Probe, Rights},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, sync::mpsc, task::spawn_blocking};
use uuid::Uuid;

use super::{
    Body, ObjectBody, ObjectMeta, ObjectStore, Page, PutMode, StoreError, StoreErrorKind, Stored, throttle::Throttle,
};
use crate::{
    content::{self, ContentError, VerifiedBlocks},
    durable::{self, Replace, Staged},
    mark,
    policy::queue::Block,
};

/// Blocks that are read ahead of whoever takes them.
const BLOCKS_AHEAD: usize = 2;

/// Largest seal that is read.
const SEAL_BYTES_MAX: u64 = 4096;

/// Older than this, what stands in staging is of a writer that is no more. Others may write to the folder too.
const STAGED_MAX: Duration = Duration::from_secs(3600);

/// The store in one folder. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: Arc<Path>,
    /// Begins the names of what is staged: other writers to the folder may have the same process id.
    staging: Arc<str>,
    staged: Arc<AtomicU64>,
    /// The mark of the store that this is, once it was opened: requests to another are refused.
    mark: Arc<OnceLock<String>>,
    throttle: Option<Arc<Throttle>>,
}

/// What is kept beside an object.
#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    sha256: Digest,
    size_bytes: u64,
    mtime_ns: i128,
    /// Writers that race for a name may have files of one size and, clocks being coarse, of one mtime.
    inode: u64,
}

impl Seal {
    fn new(digest: Digest, metadata: &fs::Metadata) -> Self {
        Self { sha256: digest, size_bytes: metadata.len(), mtime_ns: mtime_ns(metadata), inode: metadata.ino() }
    }

    fn fits(&self, metadata: &fs::Metadata) -> bool {
        self.size_bytes == metadata.len() && self.mtime_ns == mtime_ns(metadata) && self.inode == metadata.ino()
    }
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "something else than a file has its name")
}

fn mtime_ns(metadata: &fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

impl LocalStore {
    /// Names the folder; nothing is touched before [`LocalStore::open`].
    pub fn new(root: impl Into<Arc<Path>>) -> Self {
        let staging = Uuid::new_v4().simple().to_string().into();
        Self { root: root.into(), staging, staged: Arc::default(), mark: Arc::default(), throttle: None }
    }

    /// Lets the bytes of uploads go no faster than `throttle` says.
    #[must_use]
    pub fn throttled(self, throttle: Arc<Throttle>) -> Self {
        Self { throttle: Some(throttle), ..self }
    }

    /// Waits until so many bytes may go. Called where blocking is allowed.
    fn wait_for(&self, bytes: usize) {
        let wait = self.throttle.as_ref().map_or(Duration::ZERO, |throttle| throttle.reserve(bytes));
        if !wait.is_zero() {
            Handle::current().block_on(tokio::time::sleep(wait));
        }
    }

    /// Makes the folder ready and returns the mark that tells this store from any other. `known` is the mark that stood
    /// there before, where one did.
    ///
    /// The folder's last part is made, and what a crash left half-written is swept. The folder above is never made: a
    /// mount point that is not there must not turn into a folder on the robot's own disk. For the same reason a folder
    /// without a mark that had one is not taken for a new store.
    ///
    /// # Errors
    /// `Blocked`: the folder above is not there, the store that was known is not, or it is not writable.
    pub fn open(&self, known: Option<&str>) -> Result<String, StoreError> {
        if !self.root.parent().is_some_and(Path::is_dir) {
            return Err(self.missing());
        }
        let folder = self.root.join(".bubbaloop");
        let id = match self.read_mark() {
            Some(id) => id,
            None if known.is_some() && !folder.is_dir() => return Err(self.changed()),
            None => self.make_mark().map_err(|error| self.failed("open the store", &error))?,
        };
        if self.mark.get_or_init(|| id.clone()) != &id {
            return Err(self.changed());
        }
        self.sweep().map_err(|error| self.failed("open the store", &error))?;
        Ok(id)
    }

    /// Takes the store for the one with this mark, which is away now. Until it is back every request is refused.
    pub fn expect(&self, mark: &str) {
        // A store that was opened keeps its own.
        self.mark.set(mark.to_owned()).ok();
    }

    /// Returns the mark in the folder; `None` where there is none.
    pub fn read_mark(&self) -> Option<String> {
        mark::read(&self.root.join(".bubbaloop/store.json")).ok().flatten()
    }

    fn make_mark(&self) -> io::Result<String> {
        let (id, text) = mark::new()?;
        durable::create_folder(&self.root.join(".bubbaloop/staging"))?;
        let mut staged = self.stage()?;
        staged.write(&text)?;
        staged.sync()?;
        match staged.commit(&self.root.join(".bubbaloop/store.json"), Replace::Refused) {
            Ok(()) => Ok(id),
            // Of nodes that begin a store together one gives it its mark.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.read_mark().ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// Removes what crashed writers left, told by the file system's own clock.
    fn sweep(&self) -> io::Result<()> {
        let mut now = self.stage()?;
        let since = now.sync()?.modified()?.checked_sub(STAGED_MAX);
        since.map_or(Ok(()), |since| durable::sweep(&self.root.join(".bubbaloop/staging"), since))
    }

    /// Refuses requests while another folder, or none, stands in the place of the store.
    fn ready(&self) -> Result<(), StoreError> {
        match (self.mark.get(), self.read_mark()) {
            _ if !self.root.is_dir() => Err(self.missing()),
            (Some(mark), Some(found)) if *mark == found => Ok(()),
            (None, _) => Ok(()),
            (Some(_), _) => Err(self.changed()),
        }
    }

    fn changed(&self) -> StoreError {
        let root = self.root.display();
        let message = format!("{root} is not the store that it was");
        let hint = format!(
            "mount the disk that belongs at {root}; if what is there now is to be a new store, make the folder \
             {root}/.bubbaloop"
        );
        StoreError::new(StoreErrorKind::Blocked(Block::new(BlockReason::LocalPathChanged, hint)), message)
    }

    /// Returns the file system that the folder is on; `None` while it is not there.
    pub fn device(&self) -> Option<u64> {
        fs::metadata(&self.root).ok().map(|metadata| metadata.dev())
    }

    fn object(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn seal(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(format!(".bubbaloop/seals/{key}.json"))
    }

    fn missing(&self) -> StoreError {
        let message = format!("the store's folder {} is not there", self.root.display());
        let hint = format!("mount or make {}, or set local_path to another folder", self.root.display());
        StoreError::new(StoreErrorKind::Blocked(Block::new(BlockReason::LocalPathMissing, hint)), message)
    }

    /// The one table from the system's errors to what they mean.
    fn failed(&self, doing: &str, error: &io::Error) -> StoreError {
        let message = format!("can't {doing}: {error}");
        let block = |reason, hint: String| StoreErrorKind::Blocked(Block::new(reason, hint));
        let root = self.root.display();
        let kind = match error.kind() {
            io::ErrorKind::NotFound if !self.root.is_dir() => return self.missing(),
            io::ErrorKind::PermissionDenied => {
                block(BlockReason::AccessDenied, format!("make {root} writable for the node"))
            }
            io::ErrorKind::ReadOnlyFilesystem => block(BlockReason::AccessDenied, format!("mount {root} for writing")),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                block(BlockReason::StoreFull, format!("make room on the disk of {root}"))
            }
            io::ErrorKind::AlreadyExists => StoreErrorKind::AlreadyExists,
            io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::Unsupported => StoreErrorKind::Rejected,
            _ => StoreErrorKind::Retry { after: None },
        };
        StoreError::new(kind, message)
    }

    fn read_failed(&self, key: &ObjectKey, error: ContentError) -> StoreError {
        match error {
            ContentError::Unreadable { source, .. } => self.failed(&format!("read {key}"), &source),
            ContentError::Gone(_) => StoreError::new(StoreErrorKind::Retry { after: None }, format!("{key} vanished")),
            ContentError::Damaged { .. } | ContentError::Misnamed { .. } => {
                StoreError::new(StoreErrorKind::Corrupt, format!("object {key}: {error}"))
            }
        }
    }

    fn stage(&self) -> io::Result<Staged> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let folder = self.root.join(".bubbaloop/staging");
        let path = folder.join(format!("{}.{number}.tmp", self.staging));
        match Staged::create_new(path.clone()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.join(".bubbaloop").is_dir() => {
                durable::create_folder_below(&self.root.join(".bubbaloop"), &folder)?;
                Staged::create_new(path)
            }
            staged => staged,
        }
    }

    fn put_now(&self, key: &ObjectKey, body: &Body, mode: &PutMode) -> Result<Stored, StoreError> {
        let failed = |error: io::Error| self.failed(&format!("store {key}"), &error);
        self.ready()?;
        let current = if *mode == PutMode::Overwrite { None } else { self.head_now(key)? };
        match (mode, current) {
            (PutMode::Create, Some(_)) => return Err(failed(io::ErrorKind::AlreadyExists.into())),
            (PutMode::Update(etag), current) if current.as_ref().map(|meta| &meta.etag) != Some(etag) => {
                let message = format!("{key} is not the version {etag} any more");
                return Err(StoreError::new(StoreErrorKind::Changed, message));
            }
            _ => {}
        }
        let mut staged = self.stage().map_err(failed)?;
        match body {
            Body::Bytes(bytes) => staged.write(bytes).map_err(failed)?,
            Body::File { path, digest } => {
                let mut blocks = VerifiedBlocks::open(path, Some(*digest))?;
                while let Some(block) = blocks.next_block()? {
                    self.wait_for(block.len());
                    staged.write(&block).map_err(failed)?;
                }
            }
        }
        let digest = body.digest();
        let metadata = staged.sync().map_err(failed)?;
        let replace = if *mode == PutMode::Create { Replace::Refused } else { Replace::Allowed };
        // Copying takes long. Folders made below a mount point whose disk is gone would look like a new store.
        self.ready()?;
        self.name(key, staged, &Seal::new(digest, &metadata), replace).map_err(failed)?;
        Ok(Stored { etag: digest.to_string(), etag_is_md5: false })
    }

    /// Seals what is staged and gives it its name.
    fn name(&self, key: &ObjectKey, staged: Staged, seal: &Seal, replace: Replace) -> io::Result<()> {
        let (object, path) = (self.object(key), self.seal(key));
        // The disk may have been taken away while the object was staged: what stands there now is left without a mark.
        let own = self.root.join(".bubbaloop");
        for (base, folder) in [(&*own, path.parent()), (&*self.root, object.parent())] {
            if let Some(folder) = folder {
                durable::create_folder_below(base, folder)?;
            }
        }
        durable::replace(&path, &serde_json::to_vec(seal)?)?;
        staged.commit(&object, replace)
    }

    fn head_now(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.ready()?;
        let path = self.object(key);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Err(self.failed(&format!("look at {key}"), &not_a_file())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => return Ok(None),
            Err(error) => return Err(self.failed(&format!("look at {key}"), &error)),
        };
        let sealed = content::read(&self.seal(key), SEAL_BYTES_MAX)
            .ok()
            .and_then(|text| serde_json::from_slice::<Seal>(&text).ok())
            .filter(|seal| seal.fits(&metadata));
        let digest = match sealed {
            Some(seal) => seal.sha256,
            None => content::hash(&path).map_err(|error| self.read_failed(key, error))?.0,
        };
        let (size_bytes, etag) = (metadata.len(), digest.to_string());
        Ok(Some(ObjectMeta { key: key.clone(), size_bytes, etag, digest: Some(digest), parts: None }))
    }

    /// Reads a whole object: the last block comes only when the bytes have the digest that was stored.
    fn read_whole(
        &self,
        meta: &ObjectMeta,
        blocks: &mpsc::Sender<Result<Bytes, StoreError>>,
    ) -> Result<(), StoreError> {
        let failed = |error| self.read_failed(&meta.key, error);
        let mut reader = VerifiedBlocks::open(&self.object(&meta.key), meta.digest).map_err(failed)?;
        while let Some(block) = reader.next_block().map_err(failed)? {
            if blocks.blocking_send(Ok(block)).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn read_range(
        &self,
        meta: &ObjectMeta,
        range: Range<u64>,
        blocks: &mpsc::Sender<Result<Bytes, StoreError>>,
    ) -> Result<(), StoreError> {
        let file = content::open(&self.object(&meta.key)).map_err(|error| self.read_failed(&meta.key, error))?;
        let end = range.end.min(meta.size_bytes);
        let mut place = range.start;
        while place < end {
            let length = usize::try_from(end - place).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
            let mut block = vec![0; length];
            file.read_exact_at(&mut block, place)
                .map_err(|error| self.failed(&format!("read {}", meta.key), &error))?;
            place += length as u64;
            if blocks.blocking_send(Ok(block.into())).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn list_now(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.ready()?;
        let mut keys = Vec::new();
        self.walk(&self.root, "", prefix, &mut keys).map_err(|error| self.failed("list the store", &error))?;
        keys.retain(|key| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        keys.sort_unstable();
        let is_last = keys.len() <= limit;
        keys.truncate(limit);
        let mut objects = Vec::with_capacity(keys.len());
        for key in keys.iter().filter_map(|key| ObjectKey::from_str(key).ok()) {
            objects.extend(self.head_now(&key)?);
        }
        Ok(Page { objects, next_after: keys.pop().filter(|_| !is_last) })
    }

    /// Gathers the keys of regular files, passing over folders in which no key can have the prefix.
    fn walk(&self, folder: &Path, base: &str, prefix: &str, keys: &mut Vec<String>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let key = format!("{base}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() && name != ".bubbaloop" {
                let below = format!("{key}/");
                if below.starts_with(prefix) || prefix.starts_with(&below) {
                    self.walk(&entry.path(), &below, prefix, keys)?;
                }
            } else if kind.is_file() {
                keys.push(key);
            }
        }
        Ok(())
    }

    fn folders_now(&self, prefix: &str) -> io::Result<Vec<String>> {
        let is_inside = prefix.split('/').all(|part| !matches!(part, "." | ".."));
        let entries = match fs::read_dir(self.root.join(prefix.trim_start_matches('/'))) {
            Ok(entries) if is_inside => entries,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => return Ok(Vec::new()),
        };
        let mut names = Vec::new();
        for entry in entries.take(STORE_FOLDERS_MAX) {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().filter(|name| name != ".bubbaloop");
            names.extend(name.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Runs blocking work of this store off the runtime's workers.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        spawn_blocking(move || work(&store)).await.unwrap_or_else(|error| {
            Err(StoreError::new(StoreErrorKind::Retry { after: None }, format!("the store's worker ended: {error}")))
        })
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put(&self, key: &ObjectKey, body: &Body, mode: PutMode) -> Result<Stored, StoreError> {
        let (key, body) = (key.clone(), body.clone());
        self.blocking(move |store| store.put_now(&key, &body, &mode)).await
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Option<ObjectBody>, StoreError> {
        let Some(meta) = self.head(key).await? else { return Ok(None) };
        let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
        let (store, read) = (self.clone(), meta.clone());
        spawn_blocking(move || {
            let result = match range {
                None => store.read_whole(&read, &sender),
                Some(range) => store.read_range(&read, range, &sender),
            };
            if let Err(error) = result {
                // A reader that is gone has no use for the error.
                sender.blocking_send(Err(error)).ok();
            }
        });
        Ok(Some(ObjectBody::new(meta, receiver)))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let key = key.clone();
        self.blocking(move |store| store.head_now(&key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |store| store.list_now(&prefix, after.as_deref(), limit)).await
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking(move |store| {
            store.ready()?;
            store.folders_now(&prefix).map_err(|error| store.failed(&format!("list {prefix:?}"), &error))
        })
        .await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.blocking(move |store| {
            store.ready()?;
            durable::remove(&store.object(&key))
                .and_then(|()| durable::remove(&store.seal(&key)))
                .map_err(|error| store.failed(&format!("remove {key}"), &error))
        })
        .await
    }

    fn clock_offset_ms(&self) -> Option<i64> {
        Some(0)
    }

    async fn probe(&self) -> Result<Probe, StoreError> {
        self.blocking(|store| {
            store.open(store.mark.get().map(String::as_str))?;
            let mut staged = store.stage().map_err(|error| store.failed("write to the store", &error))?;
            staged
                .write(b"probe")
                .and_then(|()| staged.sync())
                .map_err(|error| store.failed("write to the store", &error))?;
            Ok(Probe {
                enforces_sha256: true,
                tells_sha256: true,
                etag_is_md5: false,
                honours_create_only: true,
                honours_if_match: true,
                clock_offset_ms: Some(0),
                rights: Rights::ALL,
            })
        })
        .await
    }
}
