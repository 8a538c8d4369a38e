//! Remote bytes: one small port, and what stands behind it.
//!
//! What every adapter guarantees: readers see all of an object or nothing of it; a create-only put leaves
//! an object that is there untouched; an absent object is data, not an error; a page of a listing is
//! ordered by key and goes on after the last key of the page before; no key leaves the store's root.

use std::{collections::BTreeMap, ops::Range, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bubbaloop_storage_schemas::{BlockReason, Digest, keys::ObjectKey, reply::Probe};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    content::ContentError,
    policy::{
        parts::{ListedPart, SentPart},
        queue::Block,
    },
};

pub mod local;
pub mod s3;
pub mod throttle;
pub mod unset;

/// The folder of a machine where a store is found out about: the name of no recording.
pub const PROBE_FOLDER: &str = ".probe";

/// What is stored under a key.
#[derive(Debug, Clone)]
pub enum Body {
    /// Bytes in memory: a manifest.
    Bytes(Bytes),
    /// A chunk's file, of which no whole copy is ever made visible unless it has this digest.
    File {
        /// Where it is.
        path: PathBuf,
        /// What its bytes must hash to.
        digest: Digest,
    },
}

impl Body {
    /// Returns what the bytes hash to.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Bytes(bytes) => Digest::of(bytes),
            Self::File { digest, .. } => *digest,
        }
    }
}

/// Whether an object may be there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutMode {
    /// An object that is there is left untouched: `AlreadyExists`. Compare digests before calling that a conflict.
    Create,
    /// An object that is there is replaced.
    Overwrite,
    /// Only the version with this ETag is replaced: `Changed` otherwise.
    Update(String),
}

/// What the store says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: ObjectKey,
    /// Its size.
    pub size_bytes: u64,
    /// Its version.
    pub etag: String,
    /// Its digest as the store itself found it; `None` where it tells none.
    pub digest: Option<Digest>,
    /// The digest over the digests of its parts as the store itself found it, where it went up in parts.
    pub parts: Option<PartsDigest>,
}

/// How an object stands to what was proven of one under its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// It is that one.
    Same,
    /// It is another one.
    Other,
    /// The store tells neither a version nor a digest: nothing is for it, and nothing against it.
    Unverifiable,
}

impl ObjectMeta {
    /// Compares the object with the version and the digest of what was proven. A version that is not told is never equal to
    /// another.
    pub fn compare(&self, etag: &str, digest: Option<Digest>) -> Compared {
        let is_same = match self.digest.zip(digest) {
            _ if !self.etag.is_empty() => self.etag == etag,
            Some((told, wanted)) => told == wanted,
            None => return Compared::Unverifiable,
        };
        if is_same { Compared::Same } else { Compared::Other }
    }
}

/// What a store tells of an object that went up in parts instead of its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartsDigest {
    /// The digest of the parts' digests, one after the other.
    pub digest: Digest,
    /// How many parts there are.
    pub count: u32,
}

/// A part of a chunk's file, which is never stored with other bytes.
#[derive(Debug, Clone)]
pub struct FilePart {
    /// Where the file is.
    pub path: PathBuf,
    /// Which of its bytes.
    pub range: Range<u64>,
    /// What they must hash to.
    pub digest: Digest,
    /// The store refused them: they are hashed here too, which tells whether the file changed.
    pub is_suspect: bool,
}

/// What the store does with uploads in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartSupport {
    /// Nothing: large objects go up in one piece.
    None,
    /// It took none just now and did not say that it never does: it is asked again.
    Unknown,
    /// It takes them, and checks no part's digest.
    Unchecked,
    /// It takes them, and refuses a part with other bytes than its digest says.
    Checked,
}

/// What a put left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The new object's version.
    pub etag: String,
    /// The ETag is the MD5 of the bytes that were sent. Found out only where the store's probe says that it may be
    /// and no better proof is to be had.
    pub etag_is_md5: bool,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The objects, by key. Objects whose keys are not of this project are left out.
    pub objects: Vec<ObjectMeta>,
    /// Hand it back as `after`; `None` at the end. It may be a key that was left out.
    pub next_after: Option<String>,
}

/// An object that is being read, block by block.
#[derive(Debug)]
pub struct ObjectBody {
    /// What the store says of it.
    pub meta: ObjectMeta,
    blocks: mpsc::Receiver<Result<Bytes, StoreError>>,
}

impl ObjectBody {
    /// Wraps what an adapter reads; `blocks` ends after the last block or the first error.
    pub const fn new(meta: ObjectMeta, blocks: mpsc::Receiver<Result<Bytes, StoreError>>) -> Self {
        Self { meta, blocks }
    }

    /// Returns the next block; `None` at the end.
    ///
    /// # Errors
    /// The store broke off, or the bytes are not those that were stored. What came before is worth nothing.
    pub async fn next_block(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.blocks.recv().await.transpose()
    }

    /// Reads the rest into memory.
    ///
    /// # Errors
    /// As [`ObjectBody::next_block`]; more than `bytes_max` is `Rejected`.
    pub async fn collect(mut self, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        while let Some(block) = self.next_block().await? {
            if (bytes.len() + block.len()) as u64 > bytes_max {
                let message = format!("object {} is larger than {bytes_max} bytes", self.meta.key);
                return Err(StoreError::new(StoreErrorKind::Rejected, message));
            }
            bytes.extend_from_slice(&block);
        }
        Ok(bytes)
    }
}

/// What a failure means for what is done next.
#[derive(Debug)]
pub enum StoreErrorKind {
    /// It may pass later; the store may have said when.
    Retry {
        /// Not before this long.
        after: Option<Duration>,
    },
    /// A fact stops every request until it ends.
    Blocked(Block),
    /// A pause, or the end of the hours, came between two parts: no failure, and what was sent stays.
    Halted,
    /// This request will not pass until something changes; others may.
    Rejected,
    /// The bytes that arrived were not those that were sent.
    BadDigest,
    /// A create-only put found an object.
    AlreadyExists,
    /// An update found another version, or none; or an upload in parts is not known any more.
    Changed,
    /// The store holds other bytes than were put there.
    Corrupt,
    /// The local file can't be had or has other bytes.
    Content(ContentError),
}

/// A request to a store failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What it means.
    pub kind: StoreErrorKind,
    /// What happened to which key.
    pub message: String,
}

impl StoreError {
    /// Makes an error.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Tells whether the key may not do what was asked, at least with this object.
    pub fn is_denied(&self) -> bool {
        matches!(&self.kind, StoreErrorKind::Blocked(block) if block.reason == BlockReason::AccessDenied)
    }

    /// Tells whether what blocks may hold for this object only. A probe tells.
    pub fn may_concern_one_object(&self) -> bool {
        matches!(&self.kind, StoreErrorKind::Blocked(block) if block.reason.may_concern_one_object())
    }
}

impl From<ContentError> for StoreError {
    fn from(error: ContentError) -> Self {
        let message = error.to_string();
        Self { kind: StoreErrorKind::Content(error), message }
    }
}

/// The object store.
///
/// No method retries: there is one retry loop, and it is not here.
#[async_trait]
pub trait ObjectStore: std::fmt::Debug + Send + Sync {
    /// Stores a body and tells the new object's version.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells; nothing of the object is visible then.
    ///
    /// # Cancellation
    /// The object may or may not be there afterwards: `head` tells.
    async fn put(&self, key: &ObjectKey, body: &Body, mode: PutMode) -> Result<Stored, StoreError>;

    /// Reads an object, or a range of its bytes; `None` where there is none.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells.
    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Option<ObjectBody>, StoreError>;

    /// Tells what is under a key; `None` where there is nothing.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells. "Not known" is an error, never "absent".
    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError>;

    /// Lists at most `limit` objects whose keys begin with `prefix`, after the key `after`.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Returns the names of the folders right below `prefix`, which is empty or ends with `/`, in order; other prefixes'
    /// objects are not listed for that. They are bounded, in `limits`.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells.
    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Removes an object. An absent one is no error.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Finds out what the store really does, leaving nothing behind where it may remove what it put.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells: `Blocked` names what a person must mend.
    async fn probe(&self) -> Result<Probe, StoreError>;

    /// Returns the store's clock minus ours now, in milliseconds, as far as its answers told it.
    fn clock_offset_ms(&self) -> Option<i64> {
        None
    }

    /// Returns how large objects are sent in parts; `None` where they never are.
    fn multipart(&self) -> Option<&dyn MultipartStore> {
        None
    }
}

/// Sends an object in parts, which a crash or a broken link does not make worthless.
///
/// An upload goes on until it is completed or aborted, and nothing of the object is visible before it is completed.
#[async_trait]
pub trait MultipartStore: Send + Sync {
    /// Finds out, one time, what the store does with parts.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells; it is found out when it is asked again.
    async fn support(&self) -> Result<PartSupport, StoreError>;

    /// Begins an upload and returns the store's name for it.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells.
    async fn begin(&self, key: &ObjectKey, digest: Digest) -> Result<String, StoreError>;

    /// Sends a part; a part of that number that is there is replaced. Parts count from 1.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells: `Changed` means that the store does not know the upload.
    async fn put_part(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        number: u32,
        part: &FilePart,
    ) -> Result<SentPart, StoreError>;

    /// Lists the parts that are there; `None` where the store does not know the upload.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells.
    async fn parts(&self, key: &ObjectKey, upload_id: &str) -> Result<Option<Vec<ListedPart>>, StoreError>;

    /// Makes the object of its parts, where the store honours that only if nothing stands under its key: look before.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells: `Changed` as with a part, `AlreadyExists` as with a create-only put.
    async fn complete(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        parts: &BTreeMap<u32, SentPart>,
    ) -> Result<Stored, StoreError>;

    /// Ends an upload and gives its parts up. One that is not known is no error.
    ///
    /// # Errors
    /// As [`StoreErrorKind`] tells.
    async fn abort(&self, key: &ObjectKey, upload_id: &str) -> Result<(), StoreError>;
}
