//! Large objects in parts.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_s3::{
    primitives::ByteStream,
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use aws_smithy_types::base64;
use bubbaloop_storage_schemas::{Digest, keys::ObjectKey};

use super::{
    S3Store, body,
    errors::{self, Failure, Request},
    requests::{Condition, Failed, METADATA_SHA256, etag, no_version},
};
use crate::{
    content,
    policy::parts::{ListedPart, SentPart, composite},
    store::{FilePart, MultipartStore, PartSupport, StoreError, StoreErrorKind, Stored},
};

/// A part of the probe, and the bytes whose digest it is sent with.
const CONTENT: &[u8] = b"bubbaloop-storage probe of parts\n";
const OTHER_CONTENT: &[u8] = b"bubbaloop-storage probe of parts, other bytes\n";

/// Longest id of an upload that is taken for one: stores give some hundred bytes, and each is kept in the journal.
const UPLOAD_ID_BYTES_MAX: usize = 2048;

/// Parts that a store lists on one page.
const PARTS_PAGE: i32 = 1000;

/// Returns the ETag that a store gives an object of such parts when it makes ETags of MD5s; `None` where a part's is none.
fn md5_of_parts(parts: &BTreeMap<u32, SentPart>) -> Option<String> {
    let md5 = |part: &SentPart| content::md5_bytes(&part.etag).filter(|_| part.etag_is_md5);
    let md5s: Option<Vec<_>> = parts.values().map(md5).collect();
    md5s.map(|md5s| content::md5_of_parts(&md5s))
}

fn number_of(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// What an answer means that takes no parts: a portal's is no word of the store's.
fn none(failure: &Failure) -> PartSupport {
    if errors::is_final(failure) { PartSupport::None } else { PartSupport::Unknown }
}

fn is_unknown_upload(failed: &Failed) -> bool {
    matches!(failed, Failed::Request(failure) if errors::is_unknown_upload(failure))
}

impl S3Store {
    async fn begin_once(&self, key: &str, digest: Digest) -> Result<String, Failed> {
        let create = self.client.create_multipart_upload().bucket(&self.bucket).key(key);
        let create = create.checksum_algorithm(ChecksumAlgorithm::Sha256).metadata(METADATA_SHA256, digest.to_string());
        let answer = self.within(async { Ok(create.send().await?) }).await?;
        let no_id = || Failed::Request(Failure { status: Some(200), ..Failure::default() });
        let is_one = |id: &&str| !id.is_empty() && id.len() <= UPLOAD_ID_BYTES_MAX;
        answer.upload_id().filter(is_one).map(str::to_owned).ok_or_else(no_id)
    }

    async fn part_once(
        &self,
        at: (&str, &str, u32),
        claimed: Digest,
        length: u64,
        stream: ByteStream,
    ) -> Result<String, Failed> {
        let (key, upload_id, number) = at;
        let checksum = base64::encode(claimed.as_bytes());
        let put = self.client.upload_part().bucket(&self.bucket).key(key).upload_id(upload_id);
        let put = put.part_number(number_of(number)).checksum_sha256(&checksum).body(stream);
        let put = put.content_length(i64::try_from(length).unwrap_or(i64::MAX));
        let answer = put.send().await.map_err(Failed::from)?;
        if answer.checksum_sha256().is_some_and(|told| told != checksum) {
            let message = format!("the store found another digest in part {number} of {key} than was sent");
            return Err(Failed::Known(StoreError::new(StoreErrorKind::BadDigest, message)));
        }
        let etag = answer.e_tag().and_then(etag);
        etag.ok_or_else(|| Failed::Known(no_version(&format!("part {number} of {key}"))))
    }

    async fn abort_once(&self, key: &str, upload_id: &str) -> Result<(), Failed> {
        let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload_id);
        self.within(async { Ok(abort.send().await?) }).await.map(drop)
    }

    async fn complete_once(
        &self,
        key: &str,
        upload_id: &str,
        parts: &BTreeMap<u32, SentPart>,
        condition: Condition<'_>,
    ) -> Result<Stored, Failed> {
        let completed = parts.iter().map(|(number, part)| {
            let checksum = base64::encode(part.digest.as_bytes());
            CompletedPart::builder().part_number(number_of(*number)).e_tag(&part.etag).checksum_sha256(checksum).build()
        });
        let completed = CompletedMultipartUpload::builder().set_parts(Some(completed.collect())).build();
        let complete = self.client.complete_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload_id);
        let complete = complete.multipart_upload(completed);
        let complete = if condition == Condition::Absent { complete.if_none_match("*") } else { complete };
        // A store may take its time to put large parts together.
        let sent = tokio::time::timeout(self.patience.reply, Box::pin(complete.send())).await;
        let answer =
            sent.map_err(|_| Failed::Request(Failure::timeout("no answer came in time")))?.map_err(Failed::from)?;
        let told = answer.checksum_sha256().and_then(|text| text.split('-').next());
        let whole = composite(parts.values().map(|part| part.digest));
        if told.is_some_and(|told| told != base64::encode(whole.as_bytes())) {
            let message = format!("the store found another digest in {key} than its parts were sent with");
            return Err(Failed::Known(StoreError::new(StoreErrorKind::BadDigest, message)));
        }
        let etag = answer.e_tag().and_then(etag).ok_or_else(|| Failed::Known(no_version(key)))?;
        let etag_is_md5 = md5_of_parts(parts).is_some_and(|md5| md5.eq_ignore_ascii_case(&etag));
        Ok(Stored { etag, etag_is_md5 })
    }

    /// Begins an upload, sends a part with a wrong digest, and aborts.
    async fn find_parts(&self) -> Result<PartSupport, StoreError> {
        let key = self.probe_key("parts");
        let upload_id = match self.timed(|| self.begin_once(&key, Digest::of(CONTENT))).await {
            Ok(upload_id) => upload_id,
            Err(Failed::Request(failure)) if errors::can_no_parts(&failure) => return Ok(none(&failure)),
            Err(failed) => return Err(self.told_of_parts(Request::Overwrite, &format!("begin {key}"), failed)),
        };
        let stream = || ByteStream::from_static(CONTENT);
        let at = (key.as_str(), upload_id.as_str(), 1);
        let sent = self
            .timed(|| async {
                let part = self.part_once(at, Digest::of(OTHER_CONTENT), CONTENT.len() as u64, stream());
                self.within(part).await
            })
            .await;
        // What can't be removed costs some bytes, once.
        self.abort_once(&key, &upload_id).await.ok();
        match sent {
            Ok(_) => Ok(PartSupport::Unchecked),
            Err(Failed::Request(failure)) if errors::can_no_parts(&failure) && !errors::is_bad_digest(&failure) => {
                Ok(none(&failure))
            }
            Err(failed) => match self.told_of_parts(Request::Overwrite, &format!("probe with {key}"), failed) {
                error if matches!(error.kind, StoreErrorKind::BadDigest | StoreErrorKind::Rejected) => {
                    Ok(PartSupport::Checked)
                }
                error => Err(error),
            },
        }
    }

    fn told_of_parts(&self, request: Request, doing: &str, failed: Failed) -> StoreError {
        if is_unknown_upload(&failed) {
            let message = format!("can't {doing}: the store does not know the upload any more");
            return StoreError::new(StoreErrorKind::Changed, message);
        }
        let absent = || StoreError::new(StoreErrorKind::Changed, format!("can't {doing}: it is not there"));
        self.told(request, doing, failed).unwrap_or_else(absent)
    }
}

#[async_trait]
impl MultipartStore for S3Store {
    async fn support(&self) -> Result<PartSupport, StoreError> {
        let _one_at_a_time = self.finding_parts.lock().await;
        if let Some(support) = self.parts_found() {
            return Ok(support);
        }
        let support = self.find_parts().await?;
        if support != PartSupport::Unknown {
            self.note_parts(Some(support));
        }
        Ok(support)
    }

    async fn begin(&self, key: &ObjectKey, digest: Digest) -> Result<String, StoreError> {
        let full = self.full(key);
        let begun = self.timed(|| self.begin_once(&full, digest)).await;
        begun.map_err(|failed| self.told_of_parts(Request::Overwrite, &format!("begin {full}"), failed))
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        number: u32,
        part: &FilePart,
    ) -> Result<SentPart, StoreError> {
        let full = self.full(key);
        let is_checked = self.parts_found() == Some(PartSupport::Checked);
        let wants_md5 = !is_checked && self.found().is_some_and(|found| found.etag_is_md5);
        let sent = self
            .timed(|| async {
                let opened =
                    body::open_part(part, is_checked, wants_md5, &self.throttle).await.map_err(Failed::Known)?;
                let sending = opened.sending;
                let at = (full.as_str(), upload_id, number);
                let sent = tokio::select! {
                    sent = Box::pin(self.part_once(at, part.digest, opened.size_bytes, opened.stream)) => sent,
                    words = sending.stalled(self.patience) => Err(Failed::Request(Failure::timeout(words))),
                };
                if let Some(error) = sending.failure() {
                    return Err(Failed::Known(error.into()));
                }
                let etag = sent?;
                let (size_bytes, digest, etag_is_md5) = (opened.size_bytes, part.digest, sending.is_md5(&etag));
                Ok(SentPart { size_bytes, digest, etag, etag_is_md5 })
            })
            .await;
        let doing = || format!("store part {number} of {full}");
        sent.map_err(|failed| self.told_of_parts(Request::Overwrite, &doing(), failed))
    }

    async fn parts(&self, key: &ObjectKey, upload_id: &str) -> Result<Option<Vec<ListedPart>>, StoreError> {
        let full = self.full(key);
        let mut found: Vec<ListedPart> = Vec::new();
        let mut after = None;
        loop {
            let send = || async {
                let list = self.client.list_parts().bucket(&self.bucket).key(&full).upload_id(upload_id);
                let list = list.max_parts(PARTS_PAGE).set_part_number_marker(after.clone());
                self.within(async { Ok(list.send().await?) }).await
            };
            let page = match self.timed(send).await {
                Ok(page) => page,
                Err(failed) if is_unknown_upload(&failed) => return Ok(None),
                Err(failed) => {
                    return match self.told(Request::Read, &format!("list the parts of {full}"), failed) {
                        Some(error) => Err(error),
                        None => Ok(None),
                    };
                }
            };
            found.extend(page.parts().iter().filter_map(|part| {
                let (number, size_bytes) =
                    (u32::try_from(part.part_number()?).ok()?, u64::try_from(part.size()?).ok()?);
                Some(ListedPart { number, size_bytes, etag: part.e_tag().and_then(etag) })
            }));
            let last = found.iter().map(|part| part.number).max().map(|number| number.to_string());
            if page.is_truncated() != Some(true) || last <= after {
                return Ok(Some(found));
            }
            after = last;
        }
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        parts: &BTreeMap<u32, SentPart>,
    ) -> Result<Stored, StoreError> {
        let full = self.full(key);
        let mut condition = match self.found() {
            Some(found) if !found.honours_create_only => Condition::None,
            _ => Condition::Absent,
        };
        let mut sent = self.timed(|| self.complete_once(&full, upload_id, parts, condition)).await;
        if matches!(&sent, Err(Failed::Request(failure)) if errors::is_unsupported(failure))
            && condition == Condition::Absent
        {
            condition = Condition::None;
            sent = self.timed(|| self.complete_once(&full, upload_id, parts, condition)).await;
        }
        sent.map_err(|failed| self.told_of_parts(condition.request(), &format!("complete {full}"), failed))
    }

    async fn abort(&self, key: &ObjectKey, upload_id: &str) -> Result<(), StoreError> {
        let full = self.full(key);
        match self.timed(|| self.abort_once(&full, upload_id)).await {
            Err(failed) if !is_unknown_upload(&failed) => {
                let error = self.told(Request::Delete, &format!("abort the upload of {full}"), failed);
                error.map_or(Ok(()), Err)
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_etag_is_the_md5_of_its_parts_md5s_only_where_each_of_them_is_one() {
        let part = |bytes: &[u8], etag_is_md5| SentPart {
            size_bytes: bytes.len() as u64,
            digest: Digest::of(bytes),
            etag: body::md5_of(bytes),
            etag_is_md5,
        };
        let parts = BTreeMap::from([(1, part(b"a", true)), (2, part(b"b", true))]);
        // `(printf a | openssl md5 -binary; printf b | openssl md5 -binary) | md5sum`
        assert_eq!(md5_of_parts(&parts).unwrap(), "96e024ba2074fe77e8e965ba43a704be-2");
        assert_eq!(md5_of_parts(&BTreeMap::from([(1, part(b"a", true)), (2, part(b"b", false))])), None);
        let other = SentPart { etag: "not an md5".into(), ..part(b"a", true) };
        assert_eq!(md5_of_parts(&BTreeMap::from([(1, other)])), None);
    }
}
