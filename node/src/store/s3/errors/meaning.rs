//! The one table from a failed request to what the failure means. It is pure.
//!
//! Stores name the same fault in different ways: the code decides where it is known, and the status otherwise.

use bubbaloop_storage_schemas::BlockReason;

use super::{
    codes::{Fault, fault_of, has_code},
    failure::{Failure, Transport},
};
use crate::{policy::queue::Block, store::StoreErrorKind};

/// The kind of a request, as far as the meaning of a failure depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::s3) enum Request {
    /// A put that must not replace anything.
    Create,
    /// A put that must replace one version.
    Update,
    /// A put that may replace anything.
    Overwrite,
    /// A request for one object's metadata or bytes.
    Read,
    /// A listing.
    List,
    /// A removal.
    Delete,
}

/// The names that hints contain.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::s3) struct StoreNames<'a> {
    pub bucket: &'a str,
    pub endpoint: &'a str,
}

/// Returns what a failure means; `None` means that the object does not exist, which is no error.
pub(in crate::store::s3) fn meaning(
    request: Request,
    failure: &Failure,
    names: StoreNames<'_>,
) -> Option<StoreErrorKind> {
    if let Some(transport) = &failure.transport {
        return Some(of_transport(transport, names));
    }
    match (fault_of(failure), failure.status) {
        (Some(Fault::NoKey), _) => of_absent(request),
        (Some(fault), _) => Some(of_fault(fault, request, failure, names)),
        (None, Some(404)) if has_code(failure) || request == Request::Read => of_absent(request),
        // Some stores answer the removal of a missing object so.
        (None, Some(404)) if request == Request::Delete && failure.code.is_some() => None,
        (None, status) => Some(of_status(status, request, failure, names)),
    }
}

/// Returns whether a wrong clock may be the cause of a refusal.
pub(in crate::store::s3) fn may_be_skew(failure: &Failure) -> bool {
    let is_refusal = matches!(failure.status, Some(400 | 403));
    is_refusal && (failure.code.is_none() || matches!(fault_of(failure), Some(Fault::Skew | Fault::Denied)))
}

/// Returns whether a store that sends no error codes may mean that the bytes had another digest.
pub(in crate::store::s3) fn is_plain_refusal(failure: &Failure) -> bool {
    !has_code(failure) && matches!(failure.status, Some(400 | 422))
}

/// Returns whether the store does not support conditions on a put.
pub(in crate::store::s3) fn is_unsupported(failure: &Failure) -> bool {
    failure.status == Some(501) || failure.code.as_deref() == Some("NotImplemented")
}

/// Returns whether the store does not know a multipart upload, or not all of its parts.
pub(in crate::store::s3) fn is_unknown_upload(failure: &Failure) -> bool {
    fault_of(failure) == Some(Fault::NoUpload)
}

/// Returns whether the store received other bytes than the digest says.
pub(in crate::store::s3) fn is_bad_digest(failure: &Failure) -> bool {
    fault_of(failure) == Some(Fault::Digest)
}

/// Returns whether the answer to the start of a multipart upload means that the store has no multipart uploads: the
/// request is unknown, it is denied although other puts are allowed, or S3 would not answer so.
pub(in crate::store::s3) fn can_no_parts(failure: &Failure) -> bool {
    let is_of_them_all = matches!(
        fault_of(failure),
        Some(Fault::Busy | Fault::NoBucket | Fault::Credentials | Fault::Expired | Fault::Region | Fault::Skew)
    );
    !is_of_them_all
        && failure.transport.is_none()
        && matches!(failure.status, Some(200..=299 | 400 | 403 | 404 | 405 | 501))
}

/// Returns whether the answer means that the store never takes multipart uploads.
pub(in crate::store::s3) fn is_final(failure: &Failure) -> bool {
    has_code(failure) || failure.status == Some(501)
}

fn of_absent(request: Request) -> Option<StoreErrorKind> {
    match request {
        Request::Read | Request::Delete => None,
        Request::Update => Some(StoreErrorKind::Changed),
        Request::Create | Request::Overwrite | Request::List => Some(StoreErrorKind::Rejected),
    }
}

fn of_transport(transport: &Transport, names: StoreNames<'_>) -> StoreErrorKind {
    let endpoint = names.endpoint;
    match transport {
        Transport::Timeout | Transport::Broken => StoreErrorKind::Retry { after: None },
        Transport::UnknownCa => block(
            BlockReason::UnknownCa,
            format!("the certificate of {endpoint} is from an unknown CA: set ca_file to the PEM file of the CA"),
        ),
        Transport::Certificate => block(
            BlockReason::BadCertificate,
            format!(
                "the certificate of {endpoint} is not valid: check its name, its dates and the clock of this machine"
            ),
        ),
        Transport::NoCredentials => block(
            BlockReason::NoCredentials,
            "this machine offers no credentials: set access_key_id and secret_access_key in secrets.toml",
        ),
        Transport::Unmade => {
            block(BlockReason::Config, "these settings give no valid request: check endpoint, region and bucket")
        }
    }
}

fn of_fault(fault: Fault, request: Request, failure: &Failure, names: StoreNames<'_>) -> StoreErrorKind {
    let StoreNames { bucket, endpoint } = names;
    match fault {
        Fault::Busy => StoreErrorKind::Retry { after: failure.retry_after },
        Fault::NoBucket => block(
            BlockReason::NoSuchBucket,
            format!("there is no bucket {bucket:?} at {endpoint}: create it, or set bucket to another one"),
        ),
        Fault::Credentials => block(
            BlockReason::BadCredentials,
            format!("{endpoint} does not accept this key: correct access_key_id and secret_access_key in secrets.toml"),
        ),
        Fault::Expired => block(
            BlockReason::ExpiredCredentials,
            "the credentials have expired: put new ones into secrets.toml, session_token included",
        ),
        Fault::Region => {
            let told = failure.region.as_deref().map(|region| format!(" to {region:?}")).unwrap_or_default();
            let words = if told.is_empty() { format!(" ({})", failure.words) } else { String::new() };
            block(BlockReason::WrongRegion, format!("bucket {bucket:?} is in another region: set region{told}{words}"))
        }
        Fault::Denied => denied(request, bucket),
        Fault::Skew => skew(None),
        Fault::Digest => StoreErrorKind::BadDigest,
        Fault::Condition => match request {
            Request::Create => StoreErrorKind::AlreadyExists,
            Request::Update => StoreErrorKind::Changed,
            _ => StoreErrorKind::Retry { after: None },
        },
        Fault::NoUpload => StoreErrorKind::Changed,
        Fault::Refused | Fault::NoKey => StoreErrorKind::Rejected,
    }
}

fn of_status(status: Option<u16>, request: Request, failure: &Failure, names: StoreNames<'_>) -> StoreErrorKind {
    match status {
        Some(401) => of_fault(Fault::Credentials, request, failure, names),
        Some(403) => of_fault(Fault::Denied, request, failure, names),
        Some(301 | 307 | 308) if failure.region.is_some() => of_fault(Fault::Region, request, failure, names),
        Some(409 | 412) => of_fault(Fault::Condition, request, failure, names),
        None | Some(..=299 | 408 | 425 | 429 | 500..) => StoreErrorKind::Retry { after: failure.retry_after },
        // An answer without an S3 code came from something else: a portal, a proxy, a wrong endpoint.
        Some(status) if !has_code(failure) => no_store(status, names),
        Some(300..=399) => StoreErrorKind::Retry { after: failure.retry_after },
        Some(400..=499) => StoreErrorKind::Rejected,
    }
}

fn no_store(status: u16, names: StoreNames<'_>) -> StoreErrorKind {
    let endpoint = names.endpoint;
    let hint = match status {
        413 => format!("a proxy before {endpoint} refuses a body of this size: raise its limit"),
        _ => {
            format!("no S3 store answers at {endpoint}: check endpoint, and whether a captive portal stands before it")
        }
    };
    block(BlockReason::NotAnObjectStore, hint)
}

fn denied(request: Request, bucket: &str) -> StoreErrorKind {
    let right = match request {
        Request::Create | Request::Update | Request::Overwrite => "s3:PutObject",
        Request::Read => "s3:GetObject",
        Request::List => "s3:ListBucket",
        Request::Delete => "s3:DeleteObject",
    };
    block(BlockReason::AccessDenied, format!("grant this key {right} on bucket {bucket:?}, or use another key"))
}

/// Makes the block for a store that accepts neither this machine's time nor its own.
pub(in crate::store::s3) fn skew(offset_s: Option<i64>) -> StoreErrorKind {
    let by = offset_s.map(|offset| format!(" by {offset} seconds")).unwrap_or_default();
    block(
        BlockReason::ClockSkew,
        format!(
            "this clock differs from the store's{by}: set it, for example with NTP; if it is right, check the rights of the key"
        ),
    )
}

/// Makes the kind of an error that blocks uploads.
pub(in crate::store::s3) fn block(reason: BlockReason, hint: impl Into<String>) -> StoreErrorKind {
    StoreErrorKind::Blocked(Block::new(reason, hint))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::failure::{RETRY_AFTER_MAX, retry_after},
        *,
    };

    const NAMES: StoreNames<'_> = StoreNames { bucket: "b", endpoint: "https://s3.example.com" };

    fn word(request: Request, status: u16, code: &str) -> String {
        let code = (!code.is_empty()).then(|| code.to_owned());
        let failure = Failure { status: Some(status), code, ..Failure::default() };
        word_of(meaning(request, &failure, NAMES))
    }

    fn word_of(meaning: Option<StoreErrorKind>) -> String {
        match meaning {
            None => "absent".into(),
            Some(StoreErrorKind::Blocked(block)) => {
                assert!(block.hint.len() > 10, "{block:?}");
                block.reason.code().to_owned()
            }
            Some(kind) => format!("{kind:?}").split([' ', '(']).next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn each_answer_has_its_meaning() {
        use Request::{Create, Delete, List, Overwrite, Read, Update};
        for (request, status, code, expected) in [
            (Create, 500, "", "Retry"),
            (Create, 500, "InternalError", "Retry"),
            (Create, 502, "", "Retry"),
            (Create, 503, "SlowDown", "Retry"),
            (Create, 507, "", "Retry"),
            (Create, 429, "", "Retry"),
            (Create, 408, "", "Retry"),
            (Create, 400, "RequestTimeout", "Retry"),
            (Create, 200, "InternalError", "Retry"),
            (List, 200, "", "Retry"),
            (Create, 404, "NoSuchBucket", "no_such_bucket"),
            (Read, 404, "NoSuchBucket", "no_such_bucket"),
            (List, 404, "NoSuchBucket", "no_such_bucket"),
            (Create, 403, "InvalidAccessKeyId", "bad_credentials"),
            (Create, 403, "SignatureDoesNotMatch", "bad_credentials"),
            (Create, 401, "", "bad_credentials"),
            (Create, 401, "Unauthorized", "bad_credentials"),
            (Create, 400, "ExpiredToken", "expired_credentials"),
            (Create, 301, "PermanentRedirect", "wrong_region"),
            (Create, 400, "AuthorizationHeaderMalformed", "wrong_region"),
            (Create, 403, "AccessDenied", "access_denied"),
            (Read, 403, "", "access_denied"),
            (List, 403, "SomethingNew", "access_denied"),
            (Create, 403, "RequestTimeTooSkewed", "clock_skew"),
            (Create, 400, "BadDigest", "BadDigest"),
            (Create, 400, "InvalidDigest", "BadDigest"),
            (Create, 400, "XAmzContentSHA256Mismatch", "BadDigest"),
            (Create, 400, "", "not_an_object_store"),
            (Create, 400, "InvalidRequest", "Rejected"),
            (Create, 400, "EntityTooLarge", "Rejected"),
            (Create, 402, "", "not_an_object_store"),
            (Create, 413, "", "not_an_object_store"),
            (Create, 413, "EntityTooLarge", "Rejected"),
            (Create, 421, "", "not_an_object_store"),
            (Create, 431, "", "not_an_object_store"),
            (Read, 451, "", "not_an_object_store"),
            (Create, 416, "", "not_an_object_store"),
            (Read, 416, "InvalidRange", "Rejected"),
            (Create, 404, "NotFound", "not_an_object_store"),
            (Overwrite, 404, "NotFound", "not_an_object_store"),
            (List, 404, "NotFound", "not_an_object_store"),
            (Delete, 404, "NotFound", "absent"),
            (Delete, 404, "", "not_an_object_store"),
            (Create, 403, "QuotaExceeded", "Retry"),
            (Create, 400, "XMinioAdminBucketQuotaExceeded", "Retry"),
            (Create, 507, "XMinioStorageFull", "Retry"),
            (Create, 425, "", "Retry"),
            (Create, 302, "Found", "Retry"),
            (Create, 501, "NotImplemented", "Rejected"),
            (Create, 412, "PreconditionFailed", "AlreadyExists"),
            (Create, 409, "ConditionalRequestConflict", "AlreadyExists"),
            (Create, 409, "", "AlreadyExists"),
            (Update, 412, "PreconditionFailed", "Changed"),
            (Update, 409, "ConditionalRequestConflict", "Changed"),
            (Update, 404, "NoSuchKey", "Changed"),
            (Overwrite, 409, "OperationAborted", "Retry"),
            (Read, 404, "NoSuchKey", "absent"),
            (Read, 404, "NotFound", "absent"),
            (Read, 404, "", "absent"),
            (Delete, 404, "NoSuchKey", "absent"),
            (Create, 404, "", "not_an_object_store"),
            (Create, 302, "", "not_an_object_store"),
            (List, 405, "", "not_an_object_store"),
        ] {
            assert_eq!(word(request, status, code), expected, "{request:?} {status} {code}");
        }
    }

    #[test]
    fn a_connection_that_fails_is_tried_again_and_one_that_cant_be_trusted_is_not() {
        for (transport, expected) in [
            (Transport::Timeout, "Retry"),
            (Transport::Broken, "Retry"),
            (Transport::UnknownCa, "unknown_ca"),
            (Transport::Certificate, "bad_certificate"),
            (Transport::NoCredentials, "no_credentials"),
            (Transport::Unmade, "config"),
        ] {
            let failure = Failure { transport: Some(transport), ..Failure::default() };
            assert_eq!(word_of(meaning(Request::Create, &failure, NAMES)), expected);
        }
    }

    #[test]
    fn the_store_says_when_to_come_back_and_a_time_without_sense_is_cut() {
        let date = Some("Thu, 01 Jan 2015 00:00:00 GMT");
        let after = |text: &str| {
            let failure = Failure { status: Some(503), retry_after: retry_after(text, date), ..Failure::default() };
            match meaning(Request::Create, &failure, NAMES) {
                Some(StoreErrorKind::Retry { after }) => after,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("99999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(after("Thu, 01 Jan 2015 00:00:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(after("Thu, 01 Jan 2014 00:00:09 GMT"), None);
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn a_hint_names_what_a_person_must_set() {
        let failure = |code: &str, region: Option<&str>| Failure {
            status: Some(400),
            code: Some(code.into()),
            region: region.map(str::to_owned),
            ..Failure::default()
        };
        let hint = |failure: &Failure| match meaning(Request::Create, failure, NAMES) {
            Some(StoreErrorKind::Blocked(block)) => block.hint,
            other => panic!("{other:?}"),
        };
        assert!(hint(&failure("PermanentRedirect", Some("eu-west-1"))).contains("set region to \"eu-west-1\""));
        assert!(hint(&failure("NoSuchBucket", None)).contains("bucket \"b\""));
        assert!(hint(&failure("InvalidAccessKeyId", None)).contains("secrets.toml"));
        assert!(hint(&failure("AccessDenied", None)).contains("s3:PutObject"));
    }
}
