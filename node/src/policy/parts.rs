//! How a large chunk is cut into parts, and which of them need not be sent again.

use std::{collections::BTreeMap, ops::Range};

use bubbaloop_storage_schemas::Digest;

/// Smallest part that is no last one, by S3's rules.
pub const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;

/// Largest part, by S3's rules.
pub const PART_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// Most parts of one object, by S3's rules.
pub const PARTS_MAX: u64 = 10_000;

/// Largest object that one put may carry, by S3's rules.
pub const PUT_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// From which size on a chunk goes up in parts, and how large they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLimits {
    /// A larger chunk goes up in parts.
    pub threshold_bytes: u64,
    /// The size of a part, grown where there would be more than 10,000.
    pub part_bytes: u64,
}

/// A chunk's equal parts; the last one may be smaller. R2 takes no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLayout {
    size_bytes: u64,
    part_bytes: u64,
}

impl PartLayout {
    /// Cuts a chunk into parts; `None` where it goes up in one piece.
    pub fn of(size_bytes: u64, limits: PartLimits) -> Option<Self> {
        let part_bytes = limits.part_bytes.clamp(PART_BYTES_MIN, PART_BYTES_MAX).max(size_bytes.div_ceil(PARTS_MAX));
        let is_large = size_bytes > limits.threshold_bytes && size_bytes > part_bytes;
        is_large.then_some(Self { size_bytes, part_bytes })
    }

    /// Names parts of a size that was chosen before; `None` where it gives none that S3 takes.
    pub const fn of_begun(size_bytes: u64, part_bytes: u64) -> Option<Self> {
        let is_right =
            part_bytes >= PART_BYTES_MIN && part_bytes < size_bytes && size_bytes.div_ceil(part_bytes) <= PARTS_MAX;
        if is_right { Some(Self { size_bytes, part_bytes }) } else { None }
    }

    /// Returns the size of a part that is not the last.
    pub const fn part_bytes(&self) -> u64 {
        self.part_bytes
    }

    /// Returns how many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.size_bytes.div_ceil(self.part_bytes)).unwrap_or(u32::MAX)
    }

    /// Returns the bytes of a part; they count from 1.
    pub fn range(&self, number: u32) -> Range<u64> {
        let start = u64::from(number.saturating_sub(1)) * self.part_bytes;
        start.min(self.size_bytes)..start.saturating_add(self.part_bytes).min(self.size_bytes)
    }
}

/// A part that was sent, as the journal records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentPart {
    /// Its size.
    pub size_bytes: u64,
    /// What its bytes hash to.
    pub digest: Digest,
    /// What the store calls it.
    pub etag: String,
    /// That is the MD5 of the bytes that were sent.
    pub etag_is_md5: bool,
}

/// Returns the digest over the digests of parts, in their order: what S3 tells of an object that went up in parts.
pub fn composite(digests: impl IntoIterator<Item = Digest>) -> Digest {
    let bytes: Vec<u8> = digests.into_iter().flat_map(|digest| *digest.as_bytes()).collect();
    Digest::of(&bytes)
}

/// A part as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPart {
    /// Its number, from 1.
    pub number: u32,
    /// Its size.
    pub size_bytes: u64,
    /// What the store calls it; `None` where it does not tell.
    pub etag: Option<String>,
}

/// An upload in parts that was begun and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunUpload {
    /// The store's name for it.
    pub upload_id: String,
    /// The object's key.
    pub key: String,
    /// The size of its parts.
    pub part_bytes: u64,
    /// What was sent, by number.
    pub sent: BTreeMap<u32, SentPart>,
}

impl BegunUpload {
    /// Keeps the sent parts that the store lists just as they were sent: all others are sent again.
    pub fn keep_listed(&mut self, listed: &[ListedPart]) {
        let listed: BTreeMap<_, _> = listed.iter().map(|part| (part.number, part)).collect();
        self.sent.retain(|number, sent| {
            listed
                .get(number)
                .is_some_and(|part| part.size_bytes == sent.size_bytes && part.etag.as_ref() == Some(&sent.etag))
        });
    }

    /// Tells whether a part with these bytes was sent already.
    pub fn has(&self, number: u32, size_bytes: u64, digest: Digest) -> bool {
        self.sent.get(&number).is_some_and(|sent| sent.size_bytes == size_bytes && sent.digest == digest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;
    const LIMITS: PartLimits = PartLimits { threshold_bytes: 16 * MIB, part_bytes: 8 * MIB };

    proptest! {
        #[test]
        fn parts_are_equal_cover_the_chunk_and_are_what_s3_takes(size in 0_u64..5 << 40, part in 0_u64..1 << 34) {
            let Some(parts) = PartLayout::of(size, PartLimits { threshold_bytes: 0, part_bytes: part }) else {
                prop_assert!(size <= part.clamp(PART_BYTES_MIN, PART_BYTES_MAX));
                return Ok(());
            };
            prop_assert!(u64::from(parts.count()) <= PARTS_MAX);
            let (first, last) = (parts.range(1), parts.range(parts.count()));
            prop_assert_eq!(first, 0..parts.part_bytes());
            prop_assert!(!last.is_empty() && last.end == size);
            let middle = parts.count() / 2 + 1;
            prop_assert_eq!(parts.range(middle).start, u64::from(middle - 1) * parts.part_bytes());
            prop_assert!(parts.range(parts.count() + 1).is_empty());
            prop_assert_eq!(PartLayout::of_begun(size, parts.part_bytes()), Some(parts));
        }
    }

    #[test]
    fn a_chunk_up_to_the_threshold_goes_up_in_one_piece() {
        assert_eq!(PartLayout::of(16 * MIB, LIMITS), None);
        let parts = PartLayout::of(16 * MIB + 1, LIMITS).unwrap();
        assert_eq!((parts.count(), parts.range(3)), (3, 16 * MIB..16 * MIB + 1));
        for wrong in [0, PART_BYTES_MIN - 1, 20 * MIB] {
            assert_eq!(PartLayout::of_begun(20 * MIB, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_part_counts_as_sent_only_if_the_store_lists_it_as_the_journal_has_it() {
        let sent =
            |etag: &str| SentPart { size_bytes: 9, digest: Digest::of(b"x"), etag: etag.into(), etag_is_md5: false };
        let listed =
            |number, size_bytes, etag: Option<&str>| ListedPart { number, size_bytes, etag: etag.map(Into::into) };
        let mut begun = BegunUpload {
            upload_id: "u".into(),
            key: "k".into(),
            part_bytes: 9,
            sent: (1..=5).map(|number| (number, sent("a"))).collect(),
        };
        begun.keep_listed(&[
            listed(1, 9, Some("a")),
            listed(2, 9, Some("b")),
            listed(3, 8, Some("a")),
            listed(4, 9, None),
            listed(6, 9, Some("a")),
        ]);
        assert_eq!(begun.sent.keys().copied().collect::<Vec<_>>(), [1]);
        assert!(begun.has(1, 9, Digest::of(b"x")));
        assert!(!begun.has(1, 9, Digest::of(b"y")) && !begun.has(2, 9, Digest::of(b"x")));
    }
}
