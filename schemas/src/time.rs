//! Wall time for the record: Unix nanoseconds, with an RFC 3339 twin for people and browsers.

use jiff::Timestamp as Instant;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Wall time as nanoseconds since 1970 in UTC. For the record only, never for waiting.
pub type UnixNs = u64;

/// A point of wall time in a reply's field pair `*_at_ns` and `*_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Timestamp(pub UnixNs);

impl Timestamp {
    /// Writes the RFC 3339 form in UTC, exact to the nanosecond.
    pub fn to_rfc3339(self) -> String {
        match Instant::from_nanosecond(i128::from(self.0)) {
            Ok(instant) => instant.to_string(),
            Err(_) => format!("{} ns after 1970", self.0),
        }
    }

    /// Reads nanoseconds since 1970, an RFC 3339 time, or a date (its first instant in UTC).
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(ns) = text.parse() {
            return Some(Self(ns));
        }
        let instant: Instant = text.parse().or_else(|_| format!("{text}T00:00:00Z").parse()).ok()?;
        u64::try_from(instant.as_nanosecond()).ok().map(Self)
    }
}

/// Returns the RFC 3339 twin of an optional time.
pub fn twin(ns: Option<UnixNs>) -> Option<String> {
    ns.map(|ns| Timestamp(ns).to_rfc3339())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_nanoseconds_are_twins() {
        let time = Timestamp(1_764_000_000_123_456_789);
        assert_eq!(time.to_rfc3339(), "2025-11-24T16:00:00.123456789Z");
        assert_eq!(Timestamp::parse(&time.to_rfc3339()), Some(time));
        assert_eq!(Timestamp::parse("1764000000123456789"), Some(time));
        assert_eq!(Timestamp::parse("1970-01-02"), Some(Timestamp(86_400_000_000_000)));
        assert_eq!(Timestamp::parse("1970-01-01T01:00:00+01:00"), Some(Timestamp(0)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "yesterday", "-1", "1969-12-31", "2025-13-01", "1e9"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
        assert!(!Timestamp(u64::MAX).to_rfc3339().is_empty());
    }
}
