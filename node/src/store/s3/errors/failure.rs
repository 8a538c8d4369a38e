//! What is known of a failed request: gathered from the error of the SDK.

use std::{error::Error, io, time::Duration};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::{DateTime, date_time::Format};
use rustls::CertificateError;

/// Longest part of a store's message that is repeated, in characters.
const WORDS_MAX: usize = 200;

/// Longest wait that is accepted from a store: a proxy that names a wrong one must not stop a robot for days.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);

/// Why the store gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::s3) enum Transport {
    /// It took too long.
    Timeout,
    /// The connection failed or broke.
    Broken,
    /// Its certificate is from an unknown CA.
    UnknownCa,
    /// Its certificate is not valid for another reason.
    Certificate,
    /// There are no credentials to sign with.
    NoCredentials,
    /// The request could not be made from the settings.
    Unmade,
}

/// What is known of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::store::s3) struct Failure {
    /// The HTTP status; `None` without an answer.
    pub status: Option<u16>,
    /// The S3 error code; `None` if the answer has none.
    pub code: Option<String>,
    /// The message of the store or of the system.
    pub words: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The region that the answer names.
    pub region: Option<String>,
    /// The answer's `Date`, in seconds since 1970; `None` if a cache answered.
    pub date_s: Option<i64>,
    /// Why there was no answer; `None` with an answer.
    pub transport: Option<Transport>,
}

impl Failure {
    /// Makes the failure of a request that took too long.
    pub(in crate::store::s3) fn timeout(words: &str) -> Self {
        Self { transport: Some(Transport::Timeout), words: words.into(), ..Self::default() }
    }

    /// Gathers what an error of the SDK contains.
    pub(in crate::store::s3) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let mut failure = Self::default();
        if let Some(response) = error.raw_response() {
            let header = |name| response.headers().get(name);
            failure.status = Some(response.status().as_u16());
            failure.retry_after = header("retry-after").and_then(|text| retry_after(text, header("date")));
            failure.region = header("x-amz-bucket-region").map(in_one_line);
            failure.date_s = header("date").filter(|_| header("age").is_none()).and_then(date_s);
        }
        match error {
            SdkError::ServiceError(service) => {
                failure.code = service.err().code().map(in_one_line);
                failure.words = service.err().message().unwrap_or_default().to_owned();
            }
            SdkError::ConstructionFailure(_) => failure.transport = Some(Transport::Unmade),
            SdkError::TimeoutError(_) => failure.transport = Some(Transport::Timeout),
            SdkError::DispatchFailure(_) => failure.transport = Some(transport(error)),
            // The SDK reports a HEAD without an error code as a response that it can't parse.
            _ => {}
        }
        if failure.transport.is_some() {
            failure.words = cause(error);
        }
        // Some stores name the right region only in the message.
        failure.words = in_one_line(&failure.words);
        failure
    }

    /// Returns one line that says what happened. `endpoint` names the store.
    pub(in crate::store::s3) fn message(&self, doing: &str, endpoint: &str) -> String {
        if self.status.is_none() && matches!(self.transport, Some(Transport::Timeout | Transport::Broken)) {
            let words = if self.words.is_empty() { "the connection broke" } else { &self.words };
            return format!("no answer from {endpoint}: {words}; look at the network and at the setting endpoint");
        }
        let status = self.status.map(|status| format!(" {status}")).unwrap_or_default();
        let code = self.code.as_deref().map(|code| format!(" {code}")).unwrap_or_default();
        let words = if self.words.is_empty() { String::new() } else { format!(": {}", self.words) };
        format!("can't {doing}:{}{code}{words}", if self.status.is_some() { status } else { " no answer".into() })
    }
}

/// Shortens a store's message and removes control characters, so that it fits into one line.
fn in_one_line(text: &str) -> String {
    text.chars().take(WORDS_MAX).filter(|letter| !letter.is_control()).collect()
}

/// Returns the text of an error's last cause: those before it only name the library that noticed it.
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

/// Returns the cause of an error. `source` leaves out what an I/O error wraps.
fn wrapped<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
}

/// Parses the `Date` header of an answer, in seconds since 1970.
pub(in crate::store::s3) fn date_s(text: &str) -> Option<i64> {
    DateTime::from_str(text, Format::HttpDate).ok().map(|date| date.secs())
}

/// Parses `Retry-After`: seconds, or a time by the store's clock, which `Date` shows too.
pub(super) fn retry_after(text: &str, date: Option<&str>) -> Option<Duration> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_gives_no_answer_is_told_in_one_clause_with_what_to_do() {
        let refused = io::Error::from_raw_os_error(111);
        let words = cause(&io::Error::other(io::Error::other(refused)));
        let failure = Failure { transport: Some(Transport::Broken), words, ..Failure::default() };
        assert_eq!(
            failure.message("put robot_1/drive/manifest.json", "https://s3.example.com"),
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
