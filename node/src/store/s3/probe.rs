//! What the store really does, found out by doing it.
//!
//! ```text
//! <prefix>/<machine>/.probe/right   put with its right digest, again, and under conditions
//! <prefix>/<machine>/.probe/wrong   put with a wrong digest only, so that its being there is an answer
//! ```
//!
//! The names are fixed: where the key may not remove them, one object of some bytes stays and every later probe uses it
//! again. They are keys of no recording, so no listing shows them. Each finding comes from the difference between two
//! requests that differ in one thing; what can't be found out counts as not kept. A key that may only put is enough:
//! what it may not do is told in the rights.

use bubbaloop_storage_schemas::{
    BlockReason, Digest,
    reply::{Probe, Rights},
};
use bytes::Bytes;

use super::{
    S3Store,
    body::md5_of,
    errors::{self, Failure},
    requests::{Condition, Failed},
};
use crate::store::port::{Body, StoreError, StoreErrorKind};

const CONTENT: &[u8] = b"bubbaloop-storage probe\n";
const OTHER_CONTENT: &[u8] = b"bubbaloop-storage probe, other bytes\n";

/// An ETag that no object has.
const NO_VERSION: &str = "00000000000000000000000000000000";

/// What came of a put of the probe.
#[derive(Debug)]
enum Put {
    /// It is there, with this ETag.
    Stored(String),
    /// The condition did not hold.
    ConditionFailed,
    /// The store knows no conditions.
    Unsupported,
    /// It was refused for another reason, by the store itself.
    Refused(StoreError),
}

/// What stands under the right name.
#[derive(Debug, Default)]
struct ProbeObject {
    /// Its ETag, where it is known.
    etag: Option<String>,
    /// Its bytes, where they are known.
    content: Option<&'static [u8]>,
}

impl ProbeObject {
    fn new(etag: String, content: &'static [u8]) -> Self {
        Self { etag: Some(etag), content: Some(content) }
    }
}

fn is_allowed<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_denied() => Ok(None),
        Err(error) => Err(error),
    }
}

impl S3Store {
    /// Finds out what the store does.
    ///
    /// # Errors
    /// The store can't be used at all, or can't be asked now.
    pub(super) async fn find_out(&self) -> Result<Probe, StoreError> {
        let found = self.ask_all().await;
        if found.as_ref().is_err_and(|error| !matches!(error.kind, StoreErrorKind::Retry { .. })) {
            // A store that does not answer is not asked once more: the next probe removes what this one left.
            self.removed(&self.probe_key("right")).await.ok();
        }
        let probe = found?;
        if !probe.honours_create_only && !probe.rights.head {
            let hint = "this store overwrites even when told not to, so the node has to look first: grant s3:GetObject";
            let kind = errors::block(BlockReason::AccessDenied, hint);
            return Err(StoreError::new(kind, "the store can't be kept from overwriting"));
        }
        Ok(probe)
    }

    async fn ask_all(&self) -> Result<Probe, StoreError> {
        let (mut standing, honours_create_only) = self.find_create_only().await?;
        let honours_if_match = self.find_if_match(&mut standing).await?;
        let right = self.probe_key("right");
        let seen = is_allowed(self.seen(&right).await)?;
        let is_seen = seen.is_some();
        let seen = seen.flatten();
        let etag = standing.etag.as_deref().or(seen.as_ref().map(|seen| seen.etag.as_str()));
        let etag_is_md5 = match (etag, standing.content) {
            (Some(etag), Some(content)) => etag.eq_ignore_ascii_case(&md5_of(content)),
            _ => false,
        };
        let told = seen.and_then(|seen| seen.told_digest);
        let tells_right = told.is_some() && told == standing.content.map(Digest::of);
        let get = self.find_get(&right).await?;
        let wrong = self.find_enforcement(honours_create_only).await?;
        let prefix = self.probe_key("");
        let list = is_allowed(self.listed(&prefix, None, 1).await)?.is_some();
        let mut delete = is_allowed(self.removed(&right).await)?.is_some();
        if wrong.may_stand {
            delete &= is_allowed(self.removed(&self.probe_key("wrong")).await)?.is_some();
        }
        Ok(Probe {
            enforces_sha256: wrong.is_refused,
            tells_sha256: wrong.is_refused && !wrong.may_stand && tells_right,
            etag_is_md5,
            honours_create_only,
            honours_if_match,
            clock_offset_ms: self.time.offset_ms(),
            rights: Rights { put: true, get, head: is_seen, list, delete },
        })
    }

    /// Puts small bytes, saying that they have the digest of `claimed`.
    async fn try_put(
        &self,
        name: &str,
        content: &'static [u8],
        claimed: &[u8],
        condition: Condition<'_>,
    ) -> Result<Put, StoreError> {
        let (key, body) = (self.probe_key(name), Body::Bytes(Bytes::from_static(content)));
        let digest = Digest::of(claimed);
        let sent = self.timed(|| self.put_once(&key, &body, digest, condition, false)).await;
        let failed = match sent {
            Ok(stored) => return Ok(Put::Stored(stored.etag)),
            Err(failed) => failed,
        };
        let is_plain_refusal = matches!(&failed, Failed::Request(failure) if errors::is_plain_refusal(failure));
        let is_unsupported = matches!(&failed, Failed::Request(failure) if errors::is_unsupported(failure));
        let has_answered = matches!(&failed, Failed::Request(Failure { transport: None, .. }) | Failed::Known(_));
        let doing = format!("probe with {key}");
        let Some(error) = self.told(condition.request(), &doing, failed) else { return Ok(Put::ConditionFailed) };
        match &error.kind {
            StoreErrorKind::AlreadyExists | StoreErrorKind::Changed => Ok(Put::ConditionFailed),
            _ if is_unsupported && condition != Condition::None => Ok(Put::Unsupported),
            StoreErrorKind::Rejected | StoreErrorKind::BadDigest if has_answered => Ok(Put::Refused(error)),
            StoreErrorKind::Blocked(_) if error.is_denied() || is_plain_refusal => Ok(Put::Refused(error)),
            _ => Err(error),
        }
    }

    /// Creates, and creates again with other bytes.
    async fn find_create_only(&self) -> Result<(ProbeObject, bool), StoreError> {
        match self.try_put("right", CONTENT, CONTENT, Condition::Absent).await? {
            Put::Refused(error) => Err(error),
            Put::Unsupported => match self.try_put("right", CONTENT, CONTENT, Condition::None).await? {
                Put::Stored(etag) => Ok((ProbeObject::new(etag, CONTENT), false)),
                Put::Refused(error) => Err(error),
                Put::ConditionFailed | Put::Unsupported => Ok((ProbeObject::default(), false)),
            },
            // An earlier probe's is there, so the condition was honoured. Our own bytes are put where that is allowed.
            Put::ConditionFailed => match self.try_put("right", CONTENT, CONTENT, Condition::None).await? {
                Put::Stored(etag) => Ok((ProbeObject::new(etag, CONTENT), true)),
                _ => Ok((ProbeObject::default(), true)),
            },
            Put::Stored(first) => match self.try_put("right", OTHER_CONTENT, OTHER_CONTENT, Condition::Absent).await? {
                Put::Stored(etag) => Ok((ProbeObject::new(etag, OTHER_CONTENT), false)),
                Put::Unsupported => Ok((ProbeObject::new(first, CONTENT), false)),
                Put::ConditionFailed | Put::Refused(_) => Ok((ProbeObject::new(first, CONTENT), true)),
            },
        }
    }

    /// Updates a version that is not there, then the one that is: a store keeps the claim if it refuses the one and
    /// takes the other.
    async fn find_if_match(&self, standing: &mut ProbeObject) -> Result<bool, StoreError> {
        let Some(etag) = standing.etag.clone() else { return Ok(false) };
        match self.try_put("right", OTHER_CONTENT, OTHER_CONTENT, Condition::Version(NO_VERSION)).await? {
            Put::ConditionFailed => {}
            Put::Stored(etag) => {
                *standing = ProbeObject::new(etag, OTHER_CONTENT);
                return Ok(false);
            }
            Put::Unsupported | Put::Refused(_) => return Ok(false),
        }
        match self.try_put("right", CONTENT, CONTENT, Condition::Version(&etag)).await? {
            Put::Stored(etag) => {
                *standing = ProbeObject::new(etag, CONTENT);
                Ok(true)
            }
            Put::ConditionFailed | Put::Unsupported | Put::Refused(_) => Ok(false),
        }
    }

    /// Reads what was put. Other bytes than were put are the end of all trust.
    async fn find_get(&self, key: &str) -> Result<bool, StoreError> {
        let Some(found) = is_allowed(self.opened(key, None).await)? else { return Ok(false) };
        let Some((answer, _)) = found else {
            let message = format!("{key} vanished: another node of this name may probe too");
            return Err(StoreError::new(StoreErrorKind::Retry { after: None }, message));
        };
        let bytes = tokio::time::timeout(self.patience.request, answer.body.collect()).await;
        let message = || format!("can't read {key} to its end");
        let Ok(Ok(bytes)) = bytes else {
            return Err(StoreError::new(StoreErrorKind::Retry { after: None }, message()));
        };
        let bytes = bytes.into_bytes();
        if bytes != CONTENT && bytes != OTHER_CONTENT {
            let hint = "the store gives other bytes than it was sent: use another one, or mend what stands between";
            return Err(StoreError::new(
                errors::block(BlockReason::StoreAltersBytes, hint),
                format!("{key} has other bytes"),
            ));
        }
        Ok(true)
    }

    /// Puts bytes with a digest that they do not have.
    async fn find_enforcement(&self, honours_create_only: bool) -> Result<Enforcement, StoreError> {
        let condition = if honours_create_only { Condition::Absent } else { Condition::None };
        let key = self.probe_key("wrong");
        match self.try_put("wrong", CONTENT, OTHER_CONTENT, condition).await {
            Ok(Put::Refused(error)) if !error.is_denied() => {
                // Some stores refuse and keep the object all the same.
                let may_stand = matches!(self.seen(&key).await, Ok(Some(_)));
                Ok(Enforcement { is_refused: true, may_stand })
            }
            Ok(Put::Refused(_)) => Ok(Enforcement { is_refused: false, may_stand: false }),
            Ok(Put::Stored(_) | Put::ConditionFailed | Put::Unsupported) => {
                Ok(Enforcement { is_refused: false, may_stand: true })
            }
            Err(error) => Err(error),
        }
    }
}

/// What the store made of a wrong digest.
#[derive(Debug, Clone, Copy)]
struct Enforcement {
    is_refused: bool,
    /// The object may be there all the same.
    may_stand: bool,
}
