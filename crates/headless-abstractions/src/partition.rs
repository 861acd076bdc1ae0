//! Which partition of an ordered topic a key belongs to.

use std::{fmt, num::NonZeroU16};

use crate::{Error, PartitionKey, Result};

/// One partition of an ordered topic, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u16);

impl Partition {
    /// The partition with this number.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How many partitions an ordered topic has: fixed when it is declared, until an operator changes it.
///
/// ```
/// use headless_abstractions::{PartitionKey, Partitions};
///
/// let key = PartitionKey::parse("order-42").unwrap();
/// assert_eq!(Partitions::default().get(), 16);
/// assert!(Partitions::default().of(&key).get() < 16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Partitions(NonZeroU16);

impl Partitions {
    /// The most partitions of one topic.
    pub const MAX: u16 = 1024;

    /// This many partitions.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for 0 and above [`Self::MAX`].
    pub fn new(count: u16) -> Result<Self> {
        match NonZeroU16::new(count) {
            Some(count) if count.get() <= Self::MAX => Ok(Self(count)),
            _ => Err(Error::invalid(format!(
                "partitions are {count}, allowed are 1 to {}",
                Self::MAX
            ))),
        }
    }

    /// How many.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The partition of `key`: its positive murmur2 hash modulo the count, as Kafka's Java client computes it, on
    /// every transport.
    #[must_use]
    pub fn of(self, key: &PartitionKey) -> Partition {
        let positive = murmur2(key.as_str().as_bytes()) & 0x7fff_ffff;
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is below a u16")]
        Partition((positive % u32::from(self.0.get())) as u16)
    }

    /// All of them, in order.
    pub fn iter(self) -> impl Iterator<Item = Partition> {
        (0..self.0.get()).map(Partition)
    }
}

impl Default for Partitions {
    /// 16.
    fn default() -> Self {
        const SIXTEEN: NonZeroU16 = NonZeroU16::new(16).unwrap();
        Self(SIXTEEN)
    }
}

/// 32-bit murmur2 with Kafka's seed.
///
/// Source: Austin Appleby's MurmurHash2 (public domain); seed and constants as in Apache Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    #[expect(clippy::cast_possible_truncation, reason = "keys are at most 512 bytes")]
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (n, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * n);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn should_equal_kafka_when_hashed() {
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, hash) in vectors {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn should_refuse_when_the_count_is_out_of_range() {
        assert!(Partitions::new(0).is_err());
        assert!(Partitions::new(1025).is_err());
        assert_eq!(Partitions::new(3).unwrap().iter().count(), 3);
    }
}
