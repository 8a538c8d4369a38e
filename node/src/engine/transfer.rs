//! One chunk: from its file to a proven object.

use std::path::PathBuf;

use bubbaloop_storage_schemas::{
    Digest,
    keys::ObjectKey,
    reply::{Probe, Proof},
};
use sha2::{Digest as _, Sha256};

use crate::{
    policy::queue::Outcome,
    store::{Body, ObjectMeta, ObjectStore, PutMode, StoreError, StoreErrorKind},
};

/// A chunk that is to be sent.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Where its file is.
    pub path: PathBuf,
    /// What its bytes must hash to.
    pub digest: Digest,
    /// Where it goes.
    pub key: ObjectKey,
    /// It may be there already, so that a look comes first.
    pub may_be_there: bool,
}

/// A chunk that is known to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The digest of the chunk that is there.
    pub digest: Digest,
    /// How it is known.
    pub proof: Proof,
    /// The object's ETag.
    pub etag: String,
}

/// Why a chunk is not known to be there.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Under the chunk's name stands something else. It is left alone.
    #[error("object {key} has other bytes than the chunk: look at both and remove the wrong one")]
    Conflict {
        /// The object.
        key: ObjectKey,
    },
}

impl From<TransferError> for Outcome {
    /// The one table from what failed to what the queue does.
    fn from(error: TransferError) -> Self {
        let message = error.to_string();
        match error {
            TransferError::Conflict { .. } => Self::Dead(message),
            TransferError::Store(error) => match error.kind {
                StoreErrorKind::Retry { after } => Self::Retry { after, message },
                StoreErrorKind::Blocked(block) => Self::Blocked(block),
                StoreErrorKind::AlreadyExists | StoreErrorKind::Changed => Self::Retry { after: None, message },
                StoreErrorKind::Rejected | StoreErrorKind::Corrupt | StoreErrorKind::Content(_) => Self::Dead(message),
            },
        }
    }
}

/// Sends a chunk, unless it is there already, and tells how it is known to be there. Idempotent.
///
/// # Errors
/// As [`TransferError`] tells; the object is whole or not there.
///
/// # Cancellation
/// The object may be there: the next try finds it.
pub async fn send(store: &dyn ObjectStore, probe: Probe, parcel: &Parcel) -> Result<Proven, TransferError> {
    if parcel.may_be_there
        && let Some(meta) = store.head(&parcel.key).await?
    {
        return identify(store, probe, parcel, meta).await;
    }
    let body = Body::File { path: parcel.path.clone(), digest: parcel.digest };
    match store.put(&parcel.key, &body, PutMode::Create).await {
        Ok(etag) if probe.enforces_sha256 => Ok(Proven { digest: parcel.digest, proof: Proof::Enforced, etag }),
        Ok(_) => look(store, probe, parcel).await,
        Err(error) if matches!(error.kind, StoreErrorKind::AlreadyExists) => look(store, probe, parcel).await,
        Err(error) => Err(error.into()),
    }
}

async fn look(store: &dyn ObjectStore, probe: Probe, parcel: &Parcel) -> Result<Proven, TransferError> {
    match store.head(&parcel.key).await? {
        Some(meta) => identify(store, probe, parcel, meta).await,
        None => {
            let message = format!("object {} is not there after it was put", parcel.key);
            Err(StoreError::new(StoreErrorKind::Retry { after: None }, message).into())
        }
    }
}

/// Tells whether what stands under the chunk's key is the chunk. What an enforcing store itself says of the
/// digest is believed; otherwise the object is fetched and hashed.
async fn identify(
    store: &dyn ObjectStore,
    probe: Probe,
    parcel: &Parcel,
    meta: ObjectMeta,
) -> Result<Proven, TransferError> {
    let (found, proof) = match meta.digest {
        Some(digest) if probe.enforces_sha256 => (Some(digest), Proof::Enforced),
        Some(_) | None => (read_back(store, &parcel.key).await?, Proof::ReadBack),
    };
    match found {
        Some(digest) if digest == parcel.digest => Ok(Proven { digest, proof, etag: meta.etag }),
        Some(_) => Err(TransferError::Conflict { key: parcel.key.clone() }),
        None => {
            let message = format!("object {} vanished while it was looked at", parcel.key);
            Err(StoreError::new(StoreErrorKind::Retry { after: None }, message).into())
        }
    }
}

async fn read_back(store: &dyn ObjectStore, key: &ObjectKey) -> Result<Option<Digest>, StoreError> {
    let Some(mut object) = store.get(key, None).await? else { return Ok(None) };
    let mut hasher = Sha256::new();
    while let Some(block) = object.next_block().await? {
        hasher.update(&block);
    }
    Ok(Some(Digest::from_bytes(hasher.finalize().into())))
}
