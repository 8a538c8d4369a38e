//! The requests, each sent one time; with another time one more, where the store's clock is why it was refused.

use std::{collections::HashMap, ops::Range};

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    operation::{get_object::GetObjectOutput, list_objects_v2::ListObjectsV2Output},
    types::ChecksumMode,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::base64;
use bubbaloop_storage_schemas::{Digest, limits::STORE_FOLDERS_MAX};

use super::{
    S3Store, body,
    errors::{self, Failure, Request},
};
use crate::store::{Body, PartsDigest, StoreError, StoreErrorKind, Stored};

/// The name of our digest in an object's metadata: for people, and never believed.
pub(super) const METADATA_SHA256: &str = "sha256";

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The store or the network refused it: the meaning depends on the request.
    Request(Failure),
    /// The meaning is known already.
    Known(StoreError),
}

impl<E> From<SdkError<E, HttpResponse>> for Failed
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        Self::Request(Failure::of(&error))
    }
}

/// When a put may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    /// Always.
    None,
    /// When nothing is there.
    Absent,
    /// When this version is there.
    Version(&'a str),
}

impl Condition<'_> {
    pub(super) const fn request(self) -> Request {
        match self {
            Self::None => Request::Overwrite,
            Self::Absent => Request::Create,
            Self::Version(_) => Request::Update,
        }
    }
}

/// What a look at an object tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectInfo {
    pub size_bytes: u64,
    pub etag: String,
    /// What the store says of the digest: perhaps only what it was told.
    pub told_digest: Option<Digest>,
    /// What it says of the digests of the object's parts.
    pub told_parts: Option<PartsDigest>,
}

fn retry(message: String) -> StoreError {
    StoreError::new(StoreErrorKind::Retry { after: None }, message)
}

/// Longest ETag that is taken for one: stores give less than a hundred bytes, and each is kept in memory and journal.
const ETAG_BYTES_MAX: usize = 1024;

/// Reads an ETag, which stores quote or do not. One that is empty or absurdly long is none.
pub(super) fn etag(told: &str) -> Option<String> {
    let etag = told.trim_matches('"');
    (!etag.is_empty() && etag.len() <= ETAG_BYTES_MAX).then(|| etag.to_owned())
}

/// Reads the store's checksum of a whole object; one of parts is of no use here.
pub(super) fn whole_digest(text: &str) -> Option<Digest> {
    let bytes = base64::decode(text).ok()?;
    bytes.try_into().ok().map(Digest::from_bytes)
}

/// Reads the store's checksum of an object that went up in parts.
pub(super) fn parts_digest(text: &str) -> Option<PartsDigest> {
    let (digest, count) = text.rsplit_once('-')?;
    Some(PartsDigest { digest: whole_digest(digest)?, count: count.parse().ok().filter(|count| *count > 0)? })
}

/// Tells of an answer that no store gives.
pub(super) fn no_version(of: &str) -> StoreError {
    retry(format!("the answer for {of} has no ETag, or an absurd one: something else than the store gave it"))
}

/// An answer counts only if a store gave it: a captive portal says 200 to everything. Some stores tell no ETag of an
/// object that they have, but keep the metadata that we sent with it.
fn version(told: Option<&str>, metadata: Option<&HashMap<String, String>>, key: &str) -> Result<String, Failed> {
    let is_ours = || metadata.is_some_and(|found| found.keys().any(|name| name.eq_ignore_ascii_case(METADATA_SHA256)));
    match told.and_then(etag) {
        Some(etag) => Ok(etag),
        None if is_ours() => Ok(String::new()),
        None => Err(Failed::Known(no_version(key))),
    }
}

impl S3Store {
    /// Runs a request, and once more with the store's time where ours may be why it was refused.
    pub(super) async fn timed<T, F>(&self, send: impl Fn() -> F + Send + Sync) -> Result<T, Failed>
    where
        T: Send,
        F: Future<Output = Result<T, Failed>> + Send,
    {
        let used_s = self.time.correction_s();
        let failure = match send().await {
            Err(Failed::Request(failure)) => failure,
            other => return other,
        };
        if !self.time.correct(used_s, &failure) {
            return Err(Failed::Request(failure));
        }
        let offset_s = failure.date_s.map(|_| self.time.correction_s());
        tracing::warn!(offset_s, "the store's clock differs from ours: requests are signed with its time");
        match send().await {
            Err(Failed::Request(failure)) if errors::may_be_skew(&failure) => {
                self.time.forget();
                Err(Failed::Known(StoreError::new(
                    errors::skew(offset_s),
                    failure.message("pass the store's clock", &self.endpoint),
                )))
            }
            other => other,
        }
    }

    /// Says what a failure means; `None` where the object is not there.
    pub(super) fn told(&self, request: Request, doing: &str, failed: Failed) -> Option<StoreError> {
        match failed {
            Failed::Known(error) => Some(error),
            Failed::Request(failure) => {
                let kind = errors::meaning(request, &failure, self.names())?;
                Some(StoreError::new(kind, failure.message(doing, &self.endpoint)))
            }
        }
    }

    /// Runs a request; `None` where the object is not there.
    async fn ask<T, F>(
        &self,
        request: Request,
        doing: &str,
        send: impl Fn() -> F + Send + Sync,
    ) -> Result<Option<T>, StoreError>
    where
        T: Send,
        F: Future<Output = Result<T, Failed>> + Send,
    {
        match self.timed(send).await {
            Ok(answer) => Ok(Some(answer)),
            Err(failed) => self.told(request, doing, failed).map_or(Ok(None), Err),
        }
    }

    /// Waits for an answer without a body of ours, not for ever.
    pub(super) async fn within<T>(&self, request: impl Future<Output = Result<T, Failed>> + Send) -> Result<T, Failed> {
        let answer = tokio::time::timeout(self.patience.request, Box::pin(request)).await;
        answer.unwrap_or_else(|_| Err(Failed::Request(Failure::timeout("no answer came in time"))))
    }

    /// Puts a body, saying that it has the digest `claimed`.
    pub(super) async fn put_once(
        &self,
        key: &str,
        body: &Body,
        claimed: Digest,
        condition: Condition<'_>,
        wants_md5: bool,
    ) -> Result<Stored, Failed> {
        let opened = body::open(body, wants_md5, &self.throttle).await.map_err(Failed::Known)?;
        let length = i64::try_from(opened.size_bytes).unwrap_or(i64::MAX);
        let checksum = base64::encode(claimed.as_bytes());
        let put = self.client.put_object().bucket(&self.bucket).key(key).content_length(length);
        let put = put.checksum_sha256(&checksum).metadata(METADATA_SHA256, claimed.to_string()).body(opened.stream);
        let put = match condition {
            Condition::None => put,
            Condition::Absent => put.if_none_match("*"),
            Condition::Version(etag) => put.if_match(format!("\"{etag}\"")),
        };
        let answer = tokio::select! {
            answer = Box::pin(put.send()) => answer.map_err(Failed::from),
            words = opened.sending.stalled(self.patience) => Err(Failed::Request(Failure::timeout(words))),
        };
        if let Some(error) = opened.sending.failure() {
            return Err(Failed::Known(error.into()));
        }
        let answer = answer?;
        let etag = version(answer.e_tag(), None, key)?;
        if answer.checksum_sha256().is_some_and(|told| told != checksum) {
            let message = format!("the store found another digest in {key} than was sent");
            return Err(Failed::Known(StoreError::new(StoreErrorKind::BadDigest, message)));
        }
        Ok(Stored { etag_is_md5: opened.sending.is_md5(&etag), etag })
    }

    async fn head_once(&self, key: &str) -> Result<ObjectInfo, Failed> {
        let head = self.client.head_object().bucket(&self.bucket).key(key).checksum_mode(ChecksumMode::Enabled);
        let answer = self.within(async { Ok(head.send().await?) }).await?;
        Ok(ObjectInfo {
            size_bytes: answer.content_length().and_then(super::size_of).unwrap_or(0),
            etag: version(answer.e_tag(), answer.metadata(), key)?,
            told_digest: answer.checksum_sha256().and_then(whole_digest),
            told_parts: answer.checksum_sha256().and_then(parts_digest),
        })
    }

    async fn get_once(&self, key: &str, range: Option<&Range<u64>>) -> Result<(GetObjectOutput, String), Failed> {
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        let get = self.client.get_object().bucket(&self.bucket).key(key).set_range(range);
        let answer = self.within(async { Ok(get.send().await?) }).await?;
        let etag = version(answer.e_tag(), answer.metadata(), key)?;
        Ok((answer, etag))
    }

    /// Looks at an object; `None` where there is none.
    ///
    /// The answer to a HEAD has no code, so one that refuses is followed by a GET of one byte: a missing bucket must
    /// not look like a missing object, nor a wrong key like a missing right.
    pub(super) async fn seen(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let doing = format!("look at {key}");
        for _ in 0..2 {
            match self.ask(Request::Read, &doing, || self.head_once(key)).await {
                Ok(None) => {}
                Err(error) if matches!(error.kind, StoreErrorKind::Blocked(_) | StoreErrorKind::Rejected) => {}
                answer => return answer,
            }
            if self.opened(key, Some(0..1)).await?.is_none() {
                return Ok(None);
            }
        }
        Err(retry(format!("the store tells of {key} only now and then")))
    }

    /// Begins to read an object or a range of it.
    pub(super) async fn opened(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Option<(GetObjectOutput, String)>, StoreError> {
        self.ask(Request::Read, &format!("read {key}"), || self.get_once(key, range.as_ref())).await
    }

    /// Lists keys as they stand in the bucket.
    pub(super) async fn listed(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListObjectsV2Output, StoreError> {
        let limit = i32::try_from(limit.clamp(1, 1000)).unwrap_or(1000);
        let send = || async {
            let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).max_keys(limit);
            let list = list.set_start_after(after.map(str::to_owned));
            self.within(async { Ok(list.send().await?) }).await
        };
        let page = self.ask(Request::List, &format!("list {prefix:?}"), send).await?;
        page.ok_or_else(|| retry(format!("the listing of {prefix:?} is not there")))
    }

    /// Lists the folders right below a prefix as they stand in the bucket.
    pub(super) async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (mut folders, mut token) = (Vec::new(), None::<String>);
        loop {
            let send = || async {
                let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).delimiter("/");
                let list = list.set_continuation_token(token.clone());
                self.within(async { Ok(list.send().await?) }).await
            };
            let page = self.ask(Request::List, &format!("list {prefix:?}"), send).await?;
            let page = page.ok_or_else(|| retry(format!("the listing of {prefix:?} is not there")))?;
            folders.extend(page.common_prefixes().iter().filter_map(|found| found.prefix().map(str::to_owned)));
            let next = page.next_continuation_token().filter(|_| page.is_truncated() == Some(true));
            if next.is_some() && next == token.as_deref() {
                return Err(retry(format!("the listing of {prefix:?} does not go on")));
            }
            token = next.map(str::to_owned);
            if token.is_none() || folders.len() >= STORE_FOLDERS_MAX {
                return Ok(folders);
            }
        }
    }

    /// Removes an object.
    pub(super) async fn removed(&self, key: &str) -> Result<(), StoreError> {
        let send = || async {
            let delete = self.client.delete_object().bucket(&self.bucket).key(key);
            self.within(async { Ok(delete.send().await?) }).await
        };
        self.ask(Request::Delete, &format!("remove {key}"), send).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_checksum_of_the_whole_object_is_a_digest() {
        let digest = Digest::of(b"x");
        let text = base64::encode(digest.as_bytes());
        assert_eq!(whole_digest(&text), Some(digest));
        for other in [format!("{text}-3"), String::new(), "AAAA".into(), "?".into()] {
            assert_eq!(whole_digest(&other), None, "{other}");
        }
        assert_eq!(parts_digest(&format!("{text}-3")), Some(PartsDigest { digest, count: 3 }));
        for other in [text.clone(), format!("{text}-0"), format!("{text}-x"), "-1".into()] {
            assert_eq!(parts_digest(&other), None, "{other}");
        }
    }

    #[test]
    fn an_answer_without_a_version_is_no_stores() {
        let ours = HashMap::from([("Sha256".to_owned(), "x".to_owned())]);
        assert!(matches!(version(Some("\"a\""), None, "k"), Ok(etag) if etag == "a"));
        assert!(matches!(version(None, Some(&ours), "k"), Ok(etag) if etag.is_empty()));
        let absurd = "x".repeat(ETAG_BYTES_MAX + 1);
        for etag in [None, Some("\"\""), Some(&*absurd)] {
            let Err(Failed::Known(error)) = version(etag, Some(&HashMap::new()), "k") else { panic!("{etag:?}") };
            assert!(matches!(error.kind, StoreErrorKind::Retry { .. }));
        }
    }
}
