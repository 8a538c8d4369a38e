//! Whole numbers from languages that have only floating-point ones.
//!
//! JavaScript and its CBOR libraries send `3` as `3.0`. Such a number is taken when it is whole and
//! not negative; everything else is an error. Others write null where there is nothing: that is no value.

use serde::{Deserialize, Deserializer, de};

/// A whole number that may be written as a float.
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Whole;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    use super::whole;

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
