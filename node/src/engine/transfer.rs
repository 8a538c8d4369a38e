//! One chunk: from its file to a proven object.

use bubbaloop_storage_schemas::{
    Digest,
    keys::ObjectKey,
    limits::BLOCK_BYTES,
    reply::{Probe, Proof},
};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::{
    multipart::{self, Sent},
    request::{Large, UploadRequest},
};
use crate::{
    content::{self, ContentError},
    policy::{
        parts::{PUT_BYTES_MAX, PartLayout},
        queue::Outcome,
    },
    store::{
        Body, MultipartStore, ObjectMeta, ObjectStore, PartSupport, PartsDigest, PutMode, StoreError, StoreErrorKind,
        Stored,
    },
};

/// A chunk that is known to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The digest of the chunk that is there.
    pub digest: Digest,
    /// How it is known.
    pub proof: Proof,
    /// The object's ETag.
    pub etag: String,
    /// Bytes that were sent for it in one piece; those of parts were told one by one.
    pub sent_bytes: u64,
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
                StoreErrorKind::Halted => Self::Halted,
                // Too many open files, a disk that stumbles: nothing is wrong with the chunk before it is read.
                StoreErrorKind::Content(ContentError::Unreadable { .. }) => Self::Unreadable(message),
                StoreErrorKind::Rejected
                | StoreErrorKind::BadDigest
                | StoreErrorKind::Corrupt
                | StoreErrorKind::Content(
                    ContentError::Gone(_) | ContentError::Damaged { .. } | ContentError::Misnamed { .. },
                ) => Self::Dead(message),
            },
        }
    }
}

/// Sends a chunk, unless it is there already, and tells how it is known to be there. Idempotent.
///
/// The proof is the cheapest that the store allows. A store that tells a digest which it did not find itself proves
/// nothing by it; where it can neither be made to check nor be read, the chunk is `Claimed`.
///
/// # Errors
/// As [`TransferError`] tells; the object is whole or not there.
///
/// # Cancellation
/// The object may be there: the next try finds it.
pub async fn send(store: &dyn ObjectStore, probe: Probe, parcel: &UploadRequest) -> Result<Proven, TransferError> {
    match try_send(store, probe, parcel).await {
        Err(TransferError::Store(error)) if error.may_concern_one_object() => {
            store.probe().await?;
            Err(of_this_object(parcel, error).into())
        }
        result => result,
    }
}

/// Says of a refusal that it is of this object, as the store takes others: no reason to stop those. What is refused by
/// something that is no store may pass later.
fn of_this_object(parcel: &UploadRequest, error: StoreError) -> StoreError {
    let kind = if error.is_denied() { StoreErrorKind::Rejected } else { StoreErrorKind::Retry { after: None } };
    let hint = match error.kind {
        StoreErrorKind::Blocked(block) => format!("; {}", block.hint),
        _ => String::new(),
    };
    StoreError::new(kind, format!("{} while the store takes others: {}{hint}", parcel.key, error.message))
}

/// Puts a chunk in the place of whatever stands under its key, and tells how it is known to be there. Idempotent.
///
/// The put gives away the last block only when the file has the chunk's digest: no other bytes get there.
///
/// # Errors
/// As [`TransferError`] tells; what stood there stands then.
///
/// # Cancellation
/// The one or the other stands there.
pub async fn replace(store: &dyn ObjectStore, probe: Probe, parcel: &UploadRequest) -> Result<Proven, TransferError> {
    let body = Body::File { path: parcel.path.clone(), digest: parcel.digest };
    let stored = store.put(&parcel.key, &body, PutMode::Overwrite).await?;
    prove_stored(store, probe, parcel, stored).await
}

/// Tells how it is known that an accepted put left the chunk there.
async fn prove_stored(
    store: &dyn ObjectStore,
    probe: Probe,
    parcel: &UploadRequest,
    stored: Stored,
) -> Result<Proven, TransferError> {
    let Stored { etag, etag_is_md5 } = stored;
    let proven = |proof, etag| Ok(Proven { digest: parcel.digest, proof, etag, sent_bytes: 0 });
    if probe.enforces_sha256 {
        proven(Proof::Enforced, etag)
    } else if etag_is_md5 {
        proven(Proof::EtagMd5, etag)
    } else if probe.rights.get {
        look(store, probe, parcel).await
    } else {
        proven(Proof::Claimed, etag)
    }
}

async fn try_send(store: &dyn ObjectStore, probe: Probe, parcel: &UploadRequest) -> Result<Proven, TransferError> {
    let begun = parcel.large.as_ref().and_then(|large| large.begun.as_ref());
    let is_asked_first = begun.is_some() || parcel.may_be_there && !is_sent_unasked(probe, parcel);
    if is_asked_first
        && probe.rights.head
        && let Some(found) = find(store, probe, parcel).await?
    {
        if let (Some(large), Some(begun), Some(multi)) = (&parcel.large, begun, store.multipart()) {
            multipart::give_up(multi, parcel, large, begun).await;
        }
        return Ok(found);
    }
    if let (Some(large), Some(multi)) = (&parcel.large, store.multipart())
        && let Some(proven) = send_in_parts(store, multi, probe, parcel, large).await?
    {
        return Ok(proven);
    }
    if parcel.size_bytes > PUT_BYTES_MAX {
        let message = format!("{} is larger than one put may be, and the store takes no uploads in parts", parcel.key);
        return Err(StoreError::new(StoreErrorKind::Rejected, message).into());
    }
    match put(store, parcel).await {
        Ok(stored) => {
            let proven = prove_stored(store, probe, parcel, stored).await?;
            Ok(Proven { sent_bytes: parcel.size_bytes, ..proven })
        }
        Err(error) if matches!(error.kind, StoreErrorKind::AlreadyExists) && !probe.rights.head => {
            Ok(claimed(parcel, String::new()))
        }
        // What is wrong with the file says nothing of the object.
        Err(error) if matches!(error.kind, StoreErrorKind::Content(_)) && parcel.may_be_there && !is_asked_first => {
            if probe.rights.head
                && let Some(found) = find(store, probe, parcel).await?
            {
                return Ok(found);
            }
            Err(error.into())
        }
        Err(error) if !matches!(error.kind, StoreErrorKind::AlreadyExists) => Err(error.into()),
        Err(_) => look(store, probe, parcel).await,
    }
}

/// Tells whether a chunk that may be there is sent without a look: so small a one costs no more than the question, and
/// the store refuses it where something stands.
const fn is_sent_unasked(probe: Probe, parcel: &UploadRequest) -> bool {
    probe.honours_create_only && parcel.size_bytes <= BLOCK_BYTES as u64
}

/// Looks whether the chunk is there.
async fn find(store: &dyn ObjectStore, probe: Probe, parcel: &UploadRequest) -> Result<Option<Proven>, TransferError> {
    match store.head(&parcel.key).await {
        Ok(Some(meta)) => identify(store, probe, parcel, meta).await.map(Some),
        Ok(None) => Ok(None),
        // A key that may not list is told "denied" of what is not there. A create-only put finds out.
        Err(error) if error.is_denied() && probe.honours_create_only => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends a chunk in parts; `None` where the store takes none.
///
/// A store that passes conditions over would overwrite what stands there: so a look comes first.
async fn send_in_parts(
    store: &dyn ObjectStore,
    multi: &dyn MultipartStore,
    probe: Probe,
    parcel: &UploadRequest,
    large: &Large,
) -> Result<Option<Proven>, TransferError> {
    if !parcel.may_be_there
        && probe.rights.head
        && let Some(meta) = store.head(&parcel.key).await?
    {
        return identify(store, probe, parcel, meta).await.map(Some);
    }
    match multipart::send(multi, parcel, large).await {
        Ok(Sent::InOnePiece) => Ok(None),
        Ok(Sent::Made(stored, support)) => {
            let probe = Probe { enforces_sha256: support == PartSupport::Checked, ..probe };
            prove_stored(store, probe, parcel, stored).await.map(Some)
        }
        Err(error) if matches!(error.kind, StoreErrorKind::AlreadyExists) && probe.rights.head => {
            look(store, probe, parcel).await.map(Some)
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts a chunk. Bytes that arrived wrong are sent one more time: the network may have changed them. A refusal that
/// may be of this object only is tried one more time after a probe: if that passes and this does not, it is the object.
async fn put(store: &dyn ObjectStore, parcel: &UploadRequest) -> Result<Stored, StoreError> {
    let body = Body::File { path: parcel.path.clone(), digest: parcel.digest };
    let error = match store.put(&parcel.key, &body, PutMode::Create).await {
        Ok(stored) => return Ok(stored),
        Err(error) => error,
    };
    if matches!(error.kind, StoreErrorKind::BadDigest) {
        return store.put(&parcel.key, &body, PutMode::Create).await;
    }
    if !error.may_concern_one_object() {
        return Err(error);
    }
    store.probe().await?;
    match store.put(&parcel.key, &body, PutMode::Create).await {
        Err(error) if error.may_concern_one_object() => Err(of_this_object(parcel, error)),
        other => other,
    }
}

const fn claimed(parcel: &UploadRequest, etag: String) -> Proven {
    Proven { digest: parcel.digest, proof: Proof::Claimed, etag, sent_bytes: 0 }
}

async fn look(store: &dyn ObjectStore, probe: Probe, parcel: &UploadRequest) -> Result<Proven, TransferError> {
    match store.head(&parcel.key).await? {
        Some(meta) => identify(store, probe, parcel, meta).await,
        None => {
            let message = format!("object {} is not there after it was put", parcel.key);
            Err(StoreError::new(StoreErrorKind::Retry { after: None }, message).into())
        }
    }
}

/// Tells whether what stands under the chunk's key is the chunk. What an enforcing store itself says of the
/// digest is believed, and an ETag that is the MD5 of the file; otherwise the object is fetched and hashed.
async fn identify(
    store: &dyn ObjectStore,
    probe: Probe,
    parcel: &UploadRequest,
    meta: ObjectMeta,
) -> Result<Proven, TransferError> {
    let ObjectMeta { etag, digest, parts, .. } = meta;
    if let (None, Some(large)) = (digest, &parcel.large)
        && let Some(proof) = prove_by_parts(probe, parcel, large, &etag, parts).await?
    {
        return Ok(Proven { digest: parcel.digest, proof, etag, sent_bytes: 0 });
    }
    let (found, proof) = match digest {
        Some(digest) if probe.enforces_sha256 => (Some(digest), Proof::Enforced),
        Some(_) | None if probe.etag_is_md5 && is_md5_of_file(parcel, &etag).await? => {
            (Some(parcel.digest), Proof::EtagMd5)
        }
        Some(_) | None if !probe.rights.get => return Ok(claimed(parcel, etag)),
        Some(_) | None => (read_back(store, &parcel.key).await?, Proof::ReadBack),
    };
    match found {
        Some(digest) if digest == parcel.digest => Ok(Proven { digest, proof, etag, sent_bytes: 0 }),
        Some(_) => Err(TransferError::Conflict { key: parcel.key.clone() }),
        None => {
            let message = format!("object {} vanished while it was looked at", parcel.key);
            Err(StoreError::new(StoreErrorKind::Retry { after: None }, message).into())
        }
    }
}

async fn is_md5_of_file(parcel: &UploadRequest, etag: &str) -> Result<bool, StoreError> {
    let (path, digest) = (parcel.path.clone(), parcel.digest);
    let md5 = spawn_blocking(move || content::md5(&path, digest)).await;
    let ended = |error| StoreError::new(StoreErrorKind::Retry { after: None }, format!("hashing ended: {error}"));
    Ok(etag.eq_ignore_ascii_case(&md5.map_err(ended)??))
}

/// Tells how an object that went up in parts is known to be the chunk, by the digests of the file's parts; `None` where
/// that tells nothing. Fetching a large object is the last resort of a robot's link.
async fn prove_by_parts(
    probe: Probe,
    parcel: &UploadRequest,
    large: &Large,
    etag: &str,
    told: Option<PartsDigest>,
) -> Result<Option<Proof>, StoreError> {
    let count = etag.rsplit_once('-').and_then(|(_, count)| count.parse().ok());
    let begun = large.begun.as_ref().and_then(|begun| PartLayout::of_begun(parcel.size_bytes, begun.part_bytes));
    let parts = begun.unwrap_or(large.parts);
    let is_told = told.is_some_and(|told| told.count == parts.count());
    let is_md5 = probe.etag_is_md5 && count == Some(parts.count());
    if !is_told && !is_md5 {
        return Ok(None);
    }
    let (path, digest, part_bytes) = (parcel.path.clone(), parcel.digest, parts.part_bytes());
    let hashed = spawn_blocking(move || content::digests_of_parts(&path, digest, part_bytes));
    let ended = |error| StoreError::new(StoreErrorKind::Retry { after: None }, format!("hashing ended: {error}"));
    let (sha256, md5) = hashed.await.map_err(ended)??;
    Ok(match told {
        Some(told) if is_told && told.digest == sha256 => Some(Proof::Enforced),
        _ if is_md5 && etag.eq_ignore_ascii_case(&md5) => Some(Proof::EtagMd5),
        _ => None,
    })
}

async fn read_back(store: &dyn ObjectStore, key: &ObjectKey) -> Result<Option<Digest>, StoreError> {
    let Some(mut object) = store.get(key, None).await? else { return Ok(None) };
    let mut hasher = Sha256::new();
    while let Some(block) = object.next_block().await? {
        hasher.update(&block);
    }
    Ok(Some(Digest::from_bytes(hasher.finalize().into())))
}
