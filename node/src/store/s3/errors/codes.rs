//! The error codes of S3 and of stores that speak it, and what each means.

use super::failure::Failure;

/// What a code means, for any request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
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
    /// The store does not know a multipart upload, or not all of its parts.
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
    // A person raises a quota, or old objects expire: it passes as an outage does.
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

/// The code that the SDK makes up for a 404 without a body, as a captive portal or a HEAD request gives it.
const MADE_UP: &str = "NotFound";

/// Returns whether the answer contains a code, as S3's does.
pub(super) fn has_code(failure: &Failure) -> bool {
    failure.code.as_deref().is_some_and(|code| code != MADE_UP)
}

/// Returns what the code of a failure means; `None` for a missing or an unknown code.
pub(super) fn fault_of(failure: &Failure) -> Option<Fault> {
    let code = failure.code.as_deref()?;
    CODES.iter().find(|(name, _)| *name == code).map(|(_, fault)| *fault)
}
