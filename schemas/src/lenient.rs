//! Reading what other languages and other versions write.
//!
//! JavaScript and its CBOR libraries send `3` as `3.0`. Such a number is accepted if it is whole and not negative.
//! Everything else is an error. Some writers send null for "no value". A newer node may use words that this version
//! does not know: [`OrUnknown`] keeps them.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IntoDeserializer, value::StrDeserializer},
};

/// A value of a closed set, or a word that only a newer version knows.
///
/// On the wire it is the word. A reply with an unknown word decodes, and is written again with the same word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OrUnknown<T> {
    /// A value that this version knows.
    Known(T),
    /// A word that it does not know.
    Unknown(String),
}

impl<T> OrUnknown<T> {
    /// Returns the value if this version knows it.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

impl<T> From<T> for OrUnknown<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: PartialEq> PartialEq<T> for OrUnknown<T> {
    fn eq(&self, other: &T) -> bool {
        self.known() == Some(other)
    }
}

impl<T: Serialize> fmt::Display for OrUnknown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => {
                let word = serde_json::to_value(value).map_err(|_| fmt::Error)?;
                f.write_str(word.as_str().unwrap_or_default())
            }
            Self::Unknown(word) => f.write_str(word),
        }
    }
}

impl<T: Serialize> Serialize for OrUnknown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(value) => value.serialize(serializer),
            Self::Unknown(word) => serializer.serialize_str(word),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrUnknown<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let known: StrDeserializer<'_, de::value::Error> = word.as_str().into_deserializer();
        Ok(match T::deserialize(known) {
            Ok(value) => Self::Known(value),
            Err(_) => Self::Unknown(word),
        })
    }
}

/// The schema is that of the known values.
impl<T: JsonSchema> JsonSchema for OrUnknown<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// A whole number that may be written as a float.
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number that is not negative")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Whole, E> {
                Ok(Whole(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Whole, E> {
                u64::try_from(value).map(Whole).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Whole, E> {
                whole(value).map(Whole).ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Returns `value` as a whole number if it is one.
///
/// Times in nanoseconds are beyond 2^53: they are taken too, as whatever whole number the float is,
/// because a sender that has only floats has no better one.
pub fn whole(value: f64) -> Option<u64> {
    const U64_END: f64 = 18_446_744_073_709_551_616.0;
    let is_whole = value.fract() == 0.0 && (0.0..U64_END).contains(&value);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range and whole, as just checked")]
    is_whole.then_some(value as u64)
}

/// Deserializes a `u64` that may arrive as a float.
///
/// # Errors
/// It is not a whole number or negative.
pub fn u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Whole::deserialize(deserializer).map(|whole| whole.0)
}

/// Deserializes a `u32` that may arrive as a float.
///
/// # Errors
/// It is not a whole number, negative, or above `u32::MAX`.
pub fn u32<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = u64(deserializer)?;
    u32::try_from(number)
        .map_err(|_| de::Error::invalid_value(de::Unexpected::Unsigned(number), &"a number below 2^32"))
}

/// Deserializes an optional `u64` that may arrive as a float or as null.
///
/// # Errors
/// It is there and not a whole number, or negative.
pub fn option_u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<Whole>::deserialize(deserializer)?.map(|whole| whole.0))
}

/// Deserializes a list that may arrive as null.
///
/// # Errors
/// It is something else than a list or null.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{OrUnknown, whole};
    use crate::recording::RecordingState;

    #[test]
    fn a_word_of_a_newer_version_is_kept() {
        let words = json!(["ended", "dreaming"]);
        let states: Vec<OrUnknown<RecordingState>> = serde_json::from_value(words.clone()).unwrap();
        assert_eq!(states[0], RecordingState::Ended);
        assert_eq!((states[1].known(), states[1].to_string().as_str()), (None, "dreaming"));
        assert_eq!(serde_json::to_value(&states).unwrap(), words);
        serde_json::from_value::<OrUnknown<RecordingState>>(json!(7)).unwrap_err();
    }

    #[test]
    fn only_whole_numbers_in_range_are_taken_from_floats() {
        assert_eq!(whole(3.0), Some(3));
        assert_eq!((whole(0.0), whole(-0.0)), (Some(0), Some(0)));
        assert_eq!(whole(18_446_744_073_709_549_568.0), Some(u64::MAX - 2047));
        assert_eq!(whole(1.7e18), Some(1_700_000_000_000_000_000));
        for value in [0.5, -1.0, f64::NAN, f64::INFINITY, 18_446_744_073_709_551_616.0] {
            assert_eq!(whole(value), None, "{value}");
        }
    }
}
