//! The one table from what the SDK tells of a failure to what the failure means.
//!
//! [`Facts`] are gathered from the SDK's error; [`meaning`] is pure. Stores name the same fault in different ways, so a
//! code decides where it is known and the status otherwise.

use std::{
    error::Error,
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::{DateTime, date_time::Format};
use rustls::CertificateError;

use crate::{
    policy::queue::Block,
    store::{ACCESS_DENIED, NOT_AN_OBJECT_STORE, StoreErrorKind},
};

/// Longest part of a store's own words that is repeated.
const WORDS_MAX: usize = 200;

/// A store that names a longer wait is asked again after this one: a proxy's nonsense must not stop a robot for days.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);

/// What is asked, as far as a failure's meaning depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// A put that must find nothing.
    Create,
    /// A put that must find one version.
    Update,
    /// A put whatever is there.
    Overwrite,
    /// A look at one object, or its bytes.
    Read,
    /// A listing.
    List,
    /// A removal.
    Delete,
}

/// Why no answer of the store came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    /// It took too long.
    Timeout,
    /// The connection failed or broke.
    Broken,
    /// Its certificate is of a CA that is not known here.
    UnknownCa,
    /// Its certificate does not hold for another reason.
    Certificate,
    /// There are no credentials to sign with.
    NoCredentials,
    /// The request could not be made from the settings.
    Unmade,
}

/// What is known of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Facts {
    /// The HTTP status, where an answer came.
    pub status: Option<u16>,
    /// S3's code, where the answer had one.
    pub code: Option<String>,
    /// What the store or the system says.
    pub words: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The region that the store names.
    pub region: Option<String>,
    /// The answer's `Date`, in seconds since 1970. Absent where a cache answered.
    pub date_s: Option<i64>,
    /// Why no answer came.
    pub transport: Option<Transport>,
}

impl Facts {
    /// Says that a wait was over.
    pub(super) fn timeout(words: &str) -> Self {
        Self { transport: Some(Transport::Timeout), words: words.into(), ..Self::default() }
    }

    /// Gathers what an SDK error tells.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let mut facts = Self::default();
        if let Some(response) = error.raw_response() {
            let header = |name| response.headers().get(name);
            facts.status = Some(response.status().as_u16());
            facts.retry_after = header("retry-after").and_then(|text| retry_after(text, header("date")));
            facts.region = header("x-amz-bucket-region").map(in_one_line);
            facts.date_s = header("date").filter(|_| header("age").is_none()).and_then(date_s);
        }
        match error {
            SdkError::ServiceError(service) => {
                facts.code = service.err().code().map(in_one_line);
                facts.words = service.err().message().unwrap_or_default().to_owned();
            }
            SdkError::ConstructionFailure(_) => facts.transport = Some(Transport::Unmade),
            SdkError::TimeoutError(_) => facts.transport = Some(Transport::Timeout),
            SdkError::DispatchFailure(_) => facts.transport = Some(transport(error)),
            // A head without an error's code comes as a response that can't be read.
            _ => {}
        }
        if facts.transport.is_some() {
            facts.words = cause(error);
        }
        // Some stores tell the right region only in their words.
        facts.words = in_one_line(&facts.words);
        facts
    }

    /// Says in one line what happened. `endpoint` is who gave no answer.
    pub(super) fn message(&self, doing: &str, endpoint: &str) -> String {
        if self.status.is_none() && matches!(self.transport, Some(Transport::Timeout | Transport::Broken)) {
            let words = if self.words.is_empty() { "it broke off" } else { &self.words };
            return format!("no answer from {endpoint}: {words}; look at the network and at the setting endpoint");
        }
        let status = self.status.map(|status| format!(" {status}")).unwrap_or_default();
        let code = self.code.as_deref().map(|code| format!(" {code}")).unwrap_or_default();
        let words = if self.words.is_empty() { String::new() } else { format!(": {}", self.words) };
        format!("can't {doing}:{}{code}{words}", if self.status.is_some() { status } else { " no answer".into() })
    }
}

/// Makes what a store says fit to be repeated in a line of ours.
fn in_one_line(text: &str) -> String {
    text.chars().take(WORDS_MAX).filter(|letter| !letter.is_control()).collect()
}

/// Returns what an error is about in the end: the links before it tell which library noticed it.
fn cause(error: &(dyn Error + 'static)) -> String {
    let (mut last, mut next) = (error.to_string(), Some(error));
    while let Some(error) = next {
        last = error.to_string();
        next = wrapped(error);
    }
    let text = last.split(" (os error").next().unwrap_or_default().trim();
    let mut letters = text.chars();
    let begin = letters.next().map(|letter| letter.to_ascii_lowercase());
    begin.into_iter().chain(letters).collect()
}

/// Returns what an error stands on. An I/O error hides what it wraps from `source`.
fn wrapped<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
}

/// Reads the `Date` header of an answer.
pub(super) fn date_s(text: &str) -> Option<i64> {
    DateTime::from_str(text, Format::HttpDate).ok().map(|date| date.secs())
}

/// Reads `Retry-After`: seconds, or a time, which is the store's as its `Date` is.
fn retry_after(text: &str, date: Option<&str>) -> Option<Duration> {
    let until = || u64::try_from(date_s(text)?.saturating_sub(date.and_then(date_s)?)).ok();
    let wait = text.trim().parse().ok().or_else(until).map(Duration::from_secs);
    wait.map(|wait| wait.min(RETRY_AFTER_MAX))
}

fn transport(error: &(dyn Error + 'static)) -> Transport {
    let mut next = Some(error);
    let mut transport = Transport::Broken;
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return match error {
                rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Transport::UnknownCa,
                rustls::Error::InvalidCertificate(_) => Transport::Certificate,
                _ => Transport::Broken,
            };
        }
        if error.downcast_ref::<CredentialsError>().is_some() {
            return Transport::NoCredentials;
        }
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            transport = Transport::Timeout;
        }
        next = wrapped(error);
    }
    transport
}

/// What a code means, whatever was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Busy,
    NoBucket,
    Credentials,
    Expired,
    Region,
    Denied,
    Skew,
    Digest,
    Refused,
    NoKey,
    /// An upload in parts is not known, or not all of its parts are.
    NoUpload,
    Condition,
}

const CODES: [(&str, Fault); 59] = [
    ("SlowDown", Fault::Busy),
    ("SlowDownRead", Fault::Busy),
    ("SlowDownWrite", Fault::Busy),
    ("ServiceUnavailable", Fault::Busy),
    ("InternalError", Fault::Busy),
    ("RequestTimeout", Fault::Busy),
    ("RequestTimeoutException", Fault::Busy),
    ("OperationAborted", Fault::Busy),
    ("IncompleteBody", Fault::Busy),
    ("Throttling", Fault::Busy),
    ("ThrottlingException", Fault::Busy),
    ("TooManyRequests", Fault::Busy),
    ("RequestLimitExceeded", Fault::Busy),
    ("BandwidthLimitExceeded", Fault::Busy),
    // A quota is raised, or what is old expires: that passes as an outage does.
    ("QuotaExceeded", Fault::Busy),
    ("QuotaExceededException", Fault::Busy),
    ("StorageCapExceeded", Fault::Busy),
    ("XMinioAdminBucketQuotaExceeded", Fault::Busy),
    ("XMinioStorageFull", Fault::Busy),
    ("NoSuchBucket", Fault::NoBucket),
    ("InvalidBucketName", Fault::NoBucket),
    ("InvalidAccessKeyId", Fault::Credentials),
    ("SignatureDoesNotMatch", Fault::Credentials),
    ("NotSignedUp", Fault::Credentials),
    ("InvalidToken", Fault::Credentials),
    ("InvalidSecurity", Fault::Credentials),
    ("InvalidClientTokenId", Fault::Credentials),
    ("UnrecognizedClientException", Fault::Credentials),
    ("Unauthorized", Fault::Credentials),
    ("MissingSecurityHeader", Fault::Credentials),
    ("ExpiredToken", Fault::Expired),
    ("ExpiredTokenException", Fault::Expired),
    ("TokenRefreshRequired", Fault::Expired),
    ("PermanentRedirect", Fault::Region),
    ("TemporaryRedirect", Fault::Region),
    ("Redirect", Fault::Region),
    ("AuthorizationHeaderMalformed", Fault::Region),
    ("AuthorizationQueryParametersError", Fault::Region),
    ("IllegalLocationConstraintException", Fault::Region),
    ("InvalidRegion", Fault::Region),
    ("AccessDenied", Fault::Denied),
    ("AccessDeniedException", Fault::Denied),
    ("AllAccessDisabled", Fault::Denied),
    ("AccountProblem", Fault::Denied),
    ("RequestTimeTooSkewed", Fault::Skew),
    ("RequestExpired", Fault::Skew),
    ("BadDigest", Fault::Digest),
    ("InvalidDigest", Fault::Digest),
    ("XAmzContentSHA256Mismatch", Fault::Digest),
    ("XAmzContentChecksumMismatch", Fault::Digest),
    ("EntityTooLarge", Fault::Refused),
    ("NotImplemented", Fault::Refused),
    ("NoSuchKey", Fault::NoKey),
    ("NoSuchUpload", Fault::NoUpload),
    ("InvalidPart", Fault::NoUpload),
    ("InvalidPartOrder", Fault::NoUpload),
    ("EntityTooSmall", Fault::Refused),
    ("PreconditionFailed", Fault::Condition),
    ("ConditionalRequestConflict", Fault::Condition),
];

/// Names in hints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub bucket: &'a str,
    pub endpoint: &'a str,
}

/// Tells what a failure means; `None` where it says that the object is not there, which is data.
pub(super) fn meaning(request: Request, facts: &Facts, place: Place<'_>) -> Option<StoreErrorKind> {
    if let Some(transport) = &facts.transport {
        return Some(of_transport(transport, place));
    }
    match (fault_of(facts), facts.status) {
        (Some(Fault::NoKey), _) => of_absent(request),
        (Some(fault), _) => Some(of_fault(fault, request, facts, place)),
        (None, Some(404)) if has_code(facts) || request == Request::Read => of_absent(request),
        // Some stores say so of an object that is not there.
        (None, Some(404)) if request == Request::Delete && facts.code.is_some() => None,
        (None, status) => Some(of_status(status, request, facts, place)),
    }
}

/// Tells whether a wrong clock may be behind a refusal that corrected time did not lift.
pub(super) fn may_be_skew(facts: &Facts) -> bool {
    let is_refusal = matches!(facts.status, Some(400 | 403));
    is_refusal
        && facts.code.as_deref().is_none_or(|code| {
            CODES.iter().any(|(name, fault)| *name == code && matches!(fault, Fault::Skew | Fault::Denied))
        })
}

/// Tells whether it may be a store without words that says so of bytes with another digest.
pub(super) fn is_plain_refusal(facts: &Facts) -> bool {
    !has_code(facts) && matches!(facts.status, Some(400 | 422))
}

/// Tells whether the store does not know conditions on a put.
pub(super) fn is_unsupported(facts: &Facts) -> bool {
    facts.status == Some(501) || facts.code.as_deref() == Some("NotImplemented")
}

/// Tells whether the store does not know an upload in parts, or not all of its parts.
pub(super) fn is_unknown_upload(facts: &Facts) -> bool {
    fault_of(facts) == Some(Fault::NoUpload)
}

/// Tells whether the store found other bytes than the digest says.
pub(super) fn is_bad_digest(facts: &Facts) -> bool {
    fault_of(facts) == Some(Fault::Digest)
}

/// Tells whether the answer to the begin of an upload in parts means that there are none: it is not known, not
/// allowed where other puts are, or an answer that S3 would not give.
pub(super) fn can_no_parts(facts: &Facts) -> bool {
    let is_of_them_all = matches!(
        fault_of(facts),
        Some(Fault::Busy | Fault::NoBucket | Fault::Credentials | Fault::Expired | Fault::Region | Fault::Skew)
    );
    !is_of_them_all
        && facts.transport.is_none()
        && matches!(facts.status, Some(200..=299 | 400 | 403 | 404 | 405 | 501))
}

/// The code that the SDK makes up for a 404 without a body: any portal's, and that of a head.
const MADE_UP: &str = "NotFound";

/// Tells whether the answer names a code of its own, as S3 does.
fn has_code(facts: &Facts) -> bool {
    facts.code.as_deref().is_some_and(|code| code != MADE_UP)
}

/// Tells whether the answer says for good that there are no uploads in parts.
pub(super) fn is_final(facts: &Facts) -> bool {
    has_code(facts) || facts.status == Some(501)
}

fn fault_of(facts: &Facts) -> Option<Fault> {
    let code = facts.code.as_deref()?;
    CODES.iter().find(|(name, _)| *name == code).map(|(_, fault)| *fault)
}

fn of_absent(request: Request) -> Option<StoreErrorKind> {
    match request {
        Request::Read | Request::Delete => None,
        Request::Update => Some(StoreErrorKind::Changed),
        Request::Create | Request::Overwrite | Request::List => Some(StoreErrorKind::Rejected),
    }
}

fn of_transport(transport: &Transport, place: Place<'_>) -> StoreErrorKind {
    let endpoint = place.endpoint;
    match transport {
        Transport::Timeout | Transport::Broken => StoreErrorKind::Retry { after: None },
        Transport::UnknownCa => block(
            "unknown_ca",
            format!("the certificate of {endpoint} is of a CA that is not known here: set ca_file to its PEM file"),
        ),
        Transport::Certificate => block(
            "bad_certificate",
            format!("the certificate of {endpoint} does not hold: look at its name and dates, and at this clock"),
        ),
        Transport::NoCredentials => block(
            "no_credentials",
            "this machine offers no credentials: set access_key_id and secret_access_key in secrets.toml",
        ),
        Transport::Unmade => {
            block("config", "no request can be made of these settings: look at endpoint, region and bucket")
        }
    }
}

fn of_fault(fault: Fault, request: Request, facts: &Facts, place: Place<'_>) -> StoreErrorKind {
    let Place { bucket, endpoint } = place;
    match fault {
        Fault::Busy => StoreErrorKind::Retry { after: facts.retry_after },
        Fault::NoBucket => block(
            "no_such_bucket",
            format!("there is no bucket {bucket:?} at {endpoint}: make it, or set bucket to another one"),
        ),
        Fault::Credentials => block(
            "bad_credentials",
            format!("{endpoint} does not know this key: mend access_key_id and secret_access_key in secrets.toml"),
        ),
        Fault::Expired => block(
            "expired_credentials",
            "the credentials have expired: put fresh ones into secrets.toml, the session_token too",
        ),
        Fault::Region => {
            let told = facts.region.as_deref().map(|region| format!(" to {region:?}")).unwrap_or_default();
            let words = if told.is_empty() { format!(" ({})", facts.words) } else { String::new() };
            block("wrong_region", format!("bucket {bucket:?} is in another region: set region{told}{words}"))
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

fn of_status(status: Option<u16>, request: Request, facts: &Facts, place: Place<'_>) -> StoreErrorKind {
    match status {
        Some(401) => of_fault(Fault::Credentials, request, facts, place),
        Some(403) => of_fault(Fault::Denied, request, facts, place),
        Some(301 | 307 | 308) if facts.region.is_some() => of_fault(Fault::Region, request, facts, place),
        Some(409 | 412) => of_fault(Fault::Condition, request, facts, place),
        None | Some(..=299 | 408 | 425 | 429 | 500..) => StoreErrorKind::Retry { after: facts.retry_after },
        // Without a code of S3's it was something else that answered: a portal, a proxy, a wrong endpoint.
        Some(status) if !has_code(facts) => no_store(status, place),
        Some(300..=399) => StoreErrorKind::Retry { after: facts.retry_after },
        Some(400..=499) => StoreErrorKind::Rejected,
    }
}

fn no_store(status: u16, place: Place<'_>) -> StoreErrorKind {
    let endpoint = place.endpoint;
    let hint = match status {
        413 => format!("what stands before {endpoint} takes no body of this size: raise its limit"),
        _ => format!(
            "what answers at {endpoint} is no S3 store: look at endpoint, and whether a portal stands before it"
        ),
    };
    block(NOT_AN_OBJECT_STORE, hint)
}

fn denied(request: Request, bucket: &str) -> StoreErrorKind {
    let right = match request {
        Request::Create | Request::Update | Request::Overwrite => "s3:PutObject",
        Request::Read => "s3:GetObject",
        Request::List => "s3:ListBucket",
        Request::Delete => "s3:DeleteObject",
    };
    block(ACCESS_DENIED, format!("grant this key {right} on bucket {bucket:?}, or use another key"))
}

/// The store takes no time that this machine can offer.
pub(super) fn skew(offset_s: Option<i64>) -> StoreErrorKind {
    let by = offset_s.map(|offset| format!(" by {offset} seconds")).unwrap_or_default();
    block(
        "clock_skew",
        format!("this clock differs from the store's{by}: set it, as with NTP; else look at the key's rights"),
    )
}

/// Makes a block.
pub(super) fn block(reason: &str, hint: impl Into<String>) -> StoreErrorKind {
    StoreErrorKind::Blocked(Block { reason: reason.into(), hint: hint.into() })
}

/// Returns a wall time in whole seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { bucket: "b", endpoint: "https://s3.example.com" };

    fn word(request: Request, status: u16, code: &str) -> String {
        let code = (!code.is_empty()).then(|| code.to_owned());
        let facts = Facts { status: Some(status), code, ..Facts::default() };
        word_of(meaning(request, &facts, PLACE))
    }

    fn word_of(meaning: Option<StoreErrorKind>) -> String {
        match meaning {
            None => "absent".into(),
            Some(StoreErrorKind::Blocked(block)) => {
                assert!(block.hint.len() > 10, "{block:?}");
                block.reason
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
            let facts = Facts { transport: Some(transport), ..Facts::default() };
            assert_eq!(word_of(meaning(Request::Create, &facts, PLACE)), expected);
        }
    }

    #[test]
    fn the_store_says_when_to_come_back_and_a_time_without_sense_is_cut() {
        let date = Some("Thu, 01 Jan 2015 00:00:00 GMT");
        let after = |text: &str| {
            let facts = Facts { status: Some(503), retry_after: retry_after(text, date), ..Facts::default() };
            match meaning(Request::Create, &facts, PLACE) {
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
        let facts = |code: &str, region: Option<&str>| Facts {
            status: Some(400),
            code: Some(code.into()),
            region: region.map(str::to_owned),
            ..Facts::default()
        };
        let hint = |facts: &Facts| match meaning(Request::Create, facts, PLACE) {
            Some(StoreErrorKind::Blocked(block)) => block.hint,
            other => panic!("{other:?}"),
        };
        assert!(hint(&facts("PermanentRedirect", Some("eu-west-1"))).contains("set region to \"eu-west-1\""));
        assert!(hint(&facts("NoSuchBucket", None)).contains("bucket \"b\""));
        assert!(hint(&facts("InvalidAccessKeyId", None)).contains("secrets.toml"));
        assert!(hint(&facts("AccessDenied", None)).contains("s3:PutObject"));
    }

    #[test]
    fn a_store_that_gives_no_answer_is_told_in_one_clause_with_what_to_do() {
        let refused = io::Error::from_raw_os_error(111);
        let words = cause(&io::Error::other(io::Error::other(refused)));
        let facts = Facts { transport: Some(Transport::Broken), words, ..Facts::default() };
        assert_eq!(
            facts.message("put robot_1/drive/manifest.json", PLACE.endpoint),
            "no answer from https://s3.example.com: connection refused; look at the network and at the setting endpoint"
        );
    }

    #[test]
    fn an_io_error_does_not_hide_the_certificate_behind_it() {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, unknown()));
        assert_eq!(transport(&wrapped), Transport::UnknownCa);
        let expired = io::Error::other(rustls::Error::InvalidCertificate(CertificateError::Expired));
        assert_eq!(transport(&expired), Transport::Certificate);
        assert_eq!(transport(&io::Error::from(io::ErrorKind::ConnectionReset)), Transport::Broken);
        assert_eq!(transport(&io::Error::from(io::ErrorKind::TimedOut)), Transport::Timeout);
    }
}
