//! What an upload of one chunk needs to know.

use std::{fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bubbaloop_storage_schemas::{Digest, keys::ObjectKey};
use tokio::sync::Semaphore;

use crate::policy::parts::{BegunUpload, PartLayout, SentPart};

/// A chunk to upload.
#[derive(Debug, Clone)]
pub struct UploadRequest {
    /// Its file.
    pub path: PathBuf,
    /// The digest that its bytes must have.
    pub digest: Digest,
    /// Its key in the store.
    pub key: ObjectKey,
    /// Its size.
    pub size_bytes: u64,
    /// Whether the store may hold it already: then it is looked up first.
    pub may_be_there: bool,
    /// How it is uploaded in parts, if the store takes parts; `None` for a chunk in one piece.
    pub large: Option<Large>,
}

/// Receives the progress of an upload in parts, so that another attempt, or another run, continues it.
#[async_trait]
pub trait PartsLog: fmt::Debug + Send + Sync {
    /// Records that an upload was begun.
    async fn begun(&self, upload: BegunUpload);

    /// Records that a part was sent.
    async fn sent(&self, upload_id: &str, number: u32, part: SentPart);

    /// Records that an upload was completed or aborted.
    async fn ended(&self, upload_id: &str);

    /// Tells whether the next part may be sent. If not, the upload ends after the parts in flight.
    fn may_go_on(&self) -> bool;
}

/// How a large chunk is uploaded.
#[derive(Debug, Clone)]
pub struct Large {
    /// Its parts, if a new upload is begun.
    pub parts: PartLayout,
    /// The upload to continue.
    pub begun: Option<BegunUpload>,
    /// Receives the progress.
    pub log: Arc<dyn PartsLog>,
    /// Permits for parts in flight, over all chunks.
    pub places: Arc<Semaphore>,
    /// Permits that one of its parts takes; never more than there are.
    pub weight: u32,
}
