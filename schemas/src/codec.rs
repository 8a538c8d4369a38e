//! JSON and CBOR, both ways. Bytes from outside either decode whole or give an error that says why.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::digest::{Hex, shorten_message};

/// How a payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`: the default, because `z_get` and REST show text.
    Json,
    /// `application/cbor`.
    Cbor,
}

impl Format {
    /// Returns the encoding's name on the wire, exactly: REST inlines `application/json` and nothing near it.
    pub const fn encoding(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }

    /// Reads an encoding's name, a schema suffix aside.
    ///
    /// `Ok(None)` means that the name says nothing of the content and it must be looked at.
    ///
    /// # Errors
    /// The encoding is neither: it is returned without its suffix.
    pub fn of_encoding(encoding: &str) -> Result<Option<Self>, &str> {
        match encoding.split(';').next().unwrap_or_default().trim_end() {
            "application/json" | "text/json" => Ok(Some(Self::Json)),
            "application/cbor" => Ok(Some(Self::Cbor)),
            "" | "zenoh/bytes" | "zenoh/string" | "text/plain" | "application/octet-stream" => Ok(None),
            other => Err(other),
        }
    }
}

/// Why bytes are no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// They are not CBOR.
    #[error("not CBOR: {0}")]
    Cbor(String),
    /// They are neither.
    #[error("neither JSON nor CBOR")]
    Neither,
    /// They are a value of another shape.
    #[error("{0}")]
    Shape(String),
}

/// How deep a CBOR value may be nested: `ciborium` stops there instead of using up the stack.
const CBOR_DEPTH_MAX: usize = 64;

/// Encodes a value.
///
/// # Errors
/// The value can't be represented: a fault of the caller's type.
pub fn encode<T: Serialize + ?Sized>(value: &T, format: Format) -> Result<Vec<u8>, DecodeError> {
    match format {
        Format::Json => serde_json::to_vec(value).map_err(|error| DecodeError::Json(error.to_string())),
        Format::Cbor => {
            let mut bytes = Vec::new();
            ciborium::into_writer(value, &mut bytes).map_err(|error| DecodeError::Cbor(error.to_string()))?;
            Ok(bytes)
        }
    }
}

/// Decodes a value of a known type and format; trailing bytes are an error.
///
/// # Errors
/// The bytes are not of the format, or the value is of another shape.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], format: Format) -> Result<T, DecodeError> {
    match format {
        Format::Json => serde_json::from_slice(bytes).map_err(|error| {
            let message = shorten_message(&error);
            if error.is_data() { DecodeError::Shape(message) } else { DecodeError::Json(message) }
        }),
        Format::Cbor => {
            let mut rest = bytes;
            let value =
                ciborium::de::from_reader_with_recursion_limit(&mut rest, CBOR_DEPTH_MAX).map_err(cbor_error)?;
            if rest.is_empty() { Ok(value) } else { Err(DecodeError::Cbor(format!("{} trailing bytes", rest.len()))) }
        }
    }
}

fn cbor_error<E>(error: ciborium::de::Error<E>) -> DecodeError {
    use ciborium::de::Error;
    match error {
        Error::Io(_) => DecodeError::Cbor("it ends too early".into()),
        Error::Syntax(offset) => DecodeError::Cbor(format!("malformed at byte {offset}")),
        Error::RecursionLimitExceeded => DecodeError::Cbor(format!("nested deeper than {CBOR_DEPTH_MAX}")),
        Error::Semantic(_, message) => DecodeError::Shape(shorten_message(&message)),
    }
}

/// Decodes any value; without a format, JSON is tried first and then CBOR.
///
/// CBOR that JSON has no word for is no reason to refuse what stands beside it: tags are passed over, byte strings
/// become lower-case hexadecimal digits, keys become text and whole numbers below -2^63 floats. A field whose key is a list or
/// a map is left out.
///
/// # Errors
/// The bytes are not of the format, or of neither.
pub fn decode_value(bytes: &[u8], format: Option<Format>) -> Result<Value, DecodeError> {
    match format {
        Some(Format::Json) => decode(bytes, Format::Json),
        Some(Format::Cbor) => decode(bytes, Format::Cbor).map(json_of),
        None => decode_value(bytes, Some(Format::Json))
            .or_else(|_| decode_value(bytes, Some(Format::Cbor)))
            .map_err(|_| DecodeError::Neither),
    }
}

fn json_of(value: ciborium::Value) -> Value {
    use ciborium::Value as Cbor;
    match value {
        Cbor::Integer(number) => {
            let number = i128::from(number);
            u64::try_from(number)
                .map(Value::from)
                .or_else(|_| i64::try_from(number).map(Value::from))
                .unwrap_or_else(|_| Value::from(number as f64))
        }
        Cbor::Float(number) => Value::from(number),
        Cbor::Bool(flag) => Value::from(flag),
        Cbor::Text(text) => Value::from(text),
        Cbor::Bytes(bytes) => Value::from(Hex(&bytes).to_string()),
        Cbor::Tag(_, value) => json_of(*value),
        Cbor::Array(values) => values.into_iter().map(json_of).collect(),
        Cbor::Map(fields) => fields
            .into_iter()
            .filter_map(|(key, value)| {
                let key = match json_of(key) {
                    Value::String(text) => text,
                    // As text within text its marks double with each level: a few bytes would become gigabytes.
                    Value::Array(_) | Value::Object(_) => return None,
                    other => other.to_string(),
                };
                Some((key, json_of(value)))
            })
            .collect(),
        _ => Value::Null,
    }
}

/// Tells which format bytes of an unnamed encoding are in: CBOR only where they are not JSON text.
pub fn sniff(bytes: &[u8]) -> Format {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{' | b'[' | b'"') | None => Format::Json,
        Some(_) if std::str::from_utf8(bytes).is_ok() => Format::Json,
        Some(_) => Format::Cbor,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn trailing_and_missing_bytes_are_errors_in_both_formats() {
        let value = json!({"a": [1, 2, {"b": null}], "c": "d"});
        for format in [Format::Json, Format::Cbor] {
            let bytes = encode(&value, format).unwrap();
            assert_eq!(decode_value(&bytes, Some(format)).unwrap(), value);
            assert_eq!(decode_value(&bytes, None).unwrap(), value);
            let mut longer = bytes.clone();
            longer.push(b'0');
            assert!(decode::<Value>(&longer, format).is_err());
            for end in 0..bytes.len() {
                assert!(decode::<Value>(&bytes[..end], format).is_err(), "{format:?} {end}");
            }
        }
    }

    #[test]
    fn nesting_without_end_is_an_error_and_not_a_crash() {
        let deep_json = "[".repeat(60_000);
        let deep_cbor = vec![0x81; 60_000];
        assert!(decode_value(deep_json.as_bytes(), None).is_err());
        assert!(decode_value(&deep_cbor, None).is_err());
    }

    #[test]
    fn keys_within_keys_cost_nothing() {
        let mut bytes = vec![0xa1; 60];
        bytes.extend([0; 61]);
        assert_eq!(decode_value(&bytes, Some(Format::Cbor)).unwrap(), json!({}));
    }

    #[test]
    fn an_array_that_claims_to_be_huge_costs_nothing() {
        assert!(decode::<Value>(&[0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Format::Cbor).is_err());
    }

    #[test]
    fn cbor_that_json_has_no_word_for_is_no_reason_to_refuse_the_rest() {
        for (cbor, json) in [
            (&[0xd9, 0xd9, 0xf7, 0xa1, 0x61, b'a', 0xc0, 0x61, b'x'][..], json!({"a": "x"})),
            (&[0x43, 0x01, 0xab, 0xff], json!("01abff")),
            (&[0xa2, 0x01, 0x02, 0x61, b'b', 0x03], json!({"1": 2, "b": 3})),
            (&[0x82, 0xf7, 0xf9, 0x7e, 0x00], json!([null, null])),
            (&[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], json!(-18_446_744_073_709_551_616.0)),
            (&[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], json!(u64::MAX)),
            (&[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], json!(i64::MIN)),
            (&[0xbf, 0x61, b'a', 0x7f, 0x61, b'b', 0x61, b'c', 0xff, 0xff], json!({"a": "bc"})),
        ] {
            assert_eq!(decode_value(cbor, Some(Format::Cbor)), Ok(json), "{cbor:02x?}");
        }
    }

    #[test]
    fn an_error_says_why_and_does_not_repeat_all_of_the_input() {
        for (bytes, part) in [
            (&[0xa1, 0x61][..], "ends too early"),
            (&[0x61, 0xff], "malformed at byte"),
            (&[0x81; 100], "nested deeper"),
            (&[0x00, 0x00], "1 trailing bytes"),
        ] {
            let error = decode_value(bytes, Some(Format::Cbor)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        for format in [Format::Json, Format::Cbor] {
            let bytes = encode(&"x".repeat(100_000), format).unwrap();
            let error = decode::<u64>(&bytes, format).unwrap_err();
            assert!(matches!(&error, DecodeError::Shape(message) if message.len() < 300), "{format:?}");
        }
    }

    #[test]
    fn encodings_are_told_apart_by_name() {
        assert_eq!(Format::of_encoding("application/json;storage.List"), Ok(Some(Format::Json)));
        assert_eq!(Format::of_encoding("application/json ; charset=utf-8"), Ok(Some(Format::Json)));
        assert_eq!(Format::of_encoding("application/cbor"), Ok(Some(Format::Cbor)));
        assert_eq!(Format::of_encoding("zenoh/bytes"), Ok(None));
        assert_eq!(Format::of_encoding("image/png"), Err("image/png"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode_value(&bytes, None);
            let _ = decode_value(&bytes, Some(sniff(&bytes)));
        }
    }
}
