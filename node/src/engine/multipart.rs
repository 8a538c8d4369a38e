//! One large chunk in parts: what was sent before a crash or a broken link is not sent again.
//!
//! The file is read in order, each part hashed just before it goes, and the object is made of the parts only when all of
//! the file has the chunk's digest. What the store checks of a part says nothing of the file as it is read later.

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::request::{Large, UploadRequest};
use crate::{
    content::{ContentError, PartDigests},
    policy::parts::{BegunUpload, PUT_BYTES_MAX, PartLayout, SentPart},
    store::{FilePart, MultipartStore, PartSupport, StoreError, StoreErrorKind, Stored},
};

/// PartLayout of one chunk that are hashed and on their way or wait for a place.
const PARTS_AHEAD_MAX: usize = 4;

/// What came of sending a chunk in parts.
#[derive(Debug)]
pub(super) enum Sent {
    /// The store can't: it goes up in one piece.
    InOnePiece,
    /// The object is made, and the store checks parts, or does not.
    Made(Stored, PartSupport),
}

/// Sends a chunk in parts and makes the object of them. Idempotent: what was sent before is not sent again.
///
/// # Errors
/// As `StoreErrorKind` tells; nothing of the object is visible then. `AlreadyExists`: something stands under its key.
/// `Changed`: the store forgot the upload, and the next try begins anew. `Halted`: it may not go on now, and the next try
/// does.
///
/// # Cancellation
/// The parts that were sent are kept; the object may be there: look before trying again.
pub(super) async fn send(
    multi: &dyn MultipartStore,
    parcel: &UploadRequest,
    large: &Large,
) -> Result<Sent, StoreError> {
    let support = multi.support().await?;
    match support {
        PartSupport::Unknown if parcel.size_bytes > PUT_BYTES_MAX || large.begun.is_some() => {
            let message = format!("{} needs an upload in parts, and the store took none just now", parcel.key);
            return Err(StoreError::new(StoreErrorKind::Retry { after: None }, message));
        }
        PartSupport::None | PartSupport::Unknown => return Ok(Sent::InOnePiece),
        PartSupport::Unchecked | PartSupport::Checked => {}
    }
    let (mut upload, parts) = match resume(multi, parcel, large).await? {
        Some(resumed) => resumed,
        None => begin(multi, parcel, large).await?,
    };
    if let Err(error) = send_parts(multi, parcel, large, &mut upload, parts).await {
        if is_useless(&error) {
            give_up(multi, parcel, large, &upload).await;
        }
        return Err(error);
    }
    let made = multi.complete(&parcel.key, &upload.upload_id, &upload.sent).await;
    match made {
        Ok(stored) => {
            large.log.ended(&upload.upload_id).await;
            Ok(Sent::Made(stored, support))
        }
        Err(error) => {
            if is_useless(&error) || matches!(error.kind, StoreErrorKind::AlreadyExists) {
                give_up(multi, parcel, large, &upload).await;
            }
            Err(error)
        }
    }
}

/// Tells whether no further try can go on with the same upload.
const fn is_useless(error: &StoreError) -> bool {
    matches!(
        error.kind,
        StoreErrorKind::Content(ContentError::Damaged { .. } | ContentError::Gone(_))
            | StoreErrorKind::Changed
            | StoreErrorKind::BadDigest
    )
}

/// Ends an upload at the store. Where that fails it stays in the journal, and is tried again when marks are compared.
pub(super) async fn give_up(multi: &dyn MultipartStore, parcel: &UploadRequest, large: &Large, upload: &BegunUpload) {
    match multi.abort(&parcel.key, &upload.upload_id).await {
        Ok(()) => large.log.ended(&upload.upload_id).await,
        Err(error) => tracing::warn!(key = %parcel.key, %error, "an upload in parts can't be given up"),
    }
}

/// Takes up an upload of this journal, as far as the store lists its parts just as they were sent.
async fn resume(
    multi: &dyn MultipartStore,
    parcel: &UploadRequest,
    large: &Large,
) -> Result<Option<(BegunUpload, PartLayout)>, StoreError> {
    let Some(mut upload) = large.begun.clone() else { return Ok(None) };
    let parts = PartLayout::of_begun(parcel.size_bytes, upload.part_bytes);
    let Some(parts) = parts.filter(|_| upload.key == parcel.key.as_str()) else {
        give_up(multi, parcel, large, &upload).await;
        return Ok(None);
    };
    match multi.parts(&parcel.key, &upload.upload_id).await {
        Ok(Some(listed)) => upload.keep_listed(&listed),
        Ok(None) => {
            // Where it was no word of the store's, its parts would stay there for ever.
            match multi.abort(&parcel.key, &upload.upload_id).await {
                Err(error) if error.is_denied() => tracing::warn!(key = %parcel.key, %error, "an upload is forgotten"),
                aborted => aborted?,
            }
            large.log.ended(&upload.upload_id).await;
            return Ok(None);
        }
        // Without the right to list, nothing is known to be there, and all is sent again.
        Err(error) if error.is_denied() => upload.sent.clear(),
        Err(error) => return Err(error),
    }
    Ok(Some((upload, parts)))
}

async fn begin(
    multi: &dyn MultipartStore,
    parcel: &UploadRequest,
    large: &Large,
) -> Result<(BegunUpload, PartLayout), StoreError> {
    let upload = BegunUpload {
        upload_id: multi.begin(&parcel.key, parcel.digest).await?,
        key: parcel.key.to_string(),
        part_bytes: large.parts.part_bytes(),
        sent: Default::default(),
    };
    large.log.begun(upload.clone()).await;
    Ok((upload, large.parts))
}

async fn send_parts(
    multi: &dyn MultipartStore,
    parcel: &UploadRequest,
    large: &Large,
    upload: &mut BegunUpload,
    parts: PartLayout,
) -> Result<(), StoreError> {
    let (hashed, mut next) = mpsc::channel(1);
    let (path, wanted) = (parcel.path.clone(), parcel.digest);
    let hashing = spawn_blocking(move || {
        let mut digests = PartDigests::open(&path)?;
        let mut number = 0;
        while let Some((digest, _)) = digests.next_part(parts.part_bytes(), false)? {
            number += 1;
            if hashed.blocking_send((number, digest)).is_err() {
                return Ok(());
            }
        }
        digests.finish(wanted)
    });
    let mut sending = FuturesUnordered::new();
    let (mut is_hashed, mut is_halted) = (false, false);
    while !(is_hashed || is_halted) || !sending.is_empty() {
        tokio::select! {
            Some(sent) = sending.next(), if !sending.is_empty() => {
                let sent: Option<(u32, SentPart)> = sent?;
                let Some((number, part)) = sent else {
                    is_halted = true;
                    continue;
                };
                large.log.sent(&upload.upload_id, number, part.clone()).await;
                upload.sent.insert(number, part);
            }
            next = next.recv(), if !is_hashed && !is_halted && sending.len() < PARTS_AHEAD_MAX => {
                let Some((number, digest)) = next else {
                    is_hashed = true;
                    continue;
                };
                let range = parts.range(number);
                if !upload.has(number, range.end - range.start, digest) {
                    let part = FilePart { path: parcel.path.clone(), range, digest, is_suspect: false };
                    sending.push(send_part(multi, parcel, large, upload.upload_id.clone(), number, part));
                }
            }
        }
    }
    if is_halted {
        return Err(StoreError::new(StoreErrorKind::Halted, format!("{} is stopped between two parts", parcel.key)));
    }
    let ended = |error| StoreError::new(StoreErrorKind::Retry { after: None }, format!("hashing ended: {error}"));
    hashing.await.map_err(ended)??;
    // A file that shrank and grew again meanwhile may leave more parts behind than it has.
    upload.sent.retain(|number, _| *number <= parts.count());
    Ok(())
}

/// Sends one part when there is a place for it; `None` where it may not go any more. Bytes that arrived wrong are sent one
/// more time, as with a whole chunk.
async fn send_part(
    multi: &dyn MultipartStore,
    parcel: &UploadRequest,
    large: &Large,
    upload_id: String,
    number: u32,
    part: FilePart,
) -> Result<Option<(u32, SentPart)>, StoreError> {
    let closed = |_| StoreError::new(StoreErrorKind::Retry { after: None }, "the node is ending");
    let _place = large.places.acquire_many(large.weight).await.map_err(closed)?;
    if !large.log.may_go_on() {
        return Ok(None);
    }
    let sent = match multi.put_part(&parcel.key, &upload_id, number, &part).await {
        Err(error) if matches!(error.kind, StoreErrorKind::BadDigest) => {
            let part = FilePart { is_suspect: true, ..part };
            multi.put_part(&parcel.key, &upload_id, number, &part).await
        }
        sent => sent,
    };
    sent.map(|sent| Some((number, sent)))
}
