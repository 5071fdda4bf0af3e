//! CRC32C (Castagnoli, RFC 3720 appendix B.4), and the composition of a long checksum from short ones.
//!
//! Bytes are checked in blocks of 4 KiB. A chunk's own checksum, and a file's, are composed from those of its
//! parts without reading the bytes again: for every pair of byte strings,
//! `crc(a ++ b) = shift(crc(a), len(b)) ^ crc(b)`, where `shift` is linear over GF(2). For whole blocks the
//! shift is four table look-ups.

use std::fmt;
use std::sync::LazyLock;

use crate::limits::BLOCK_BYTES;

/// A finished CRC32C. The default, 0, is the checksum of no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Crc32c(pub u32);

/// What `len` zero bytes more make of a checksum is linear in it: this is the matrix, by columns, of 2^n bytes for each n.
/// The first is the `crc32c` crate's own combination, each further one the square of the one before. (After Mark
/// Adler's `crc32_combine` in zlib, which squares anew at each call: tens of microseconds for a megabyte.)
static SHIFTS: LazyLock<[[u32; 32]; 64]> = LazyLock::new(|| {
    let mut shifts = [[0; 32]; 64];
    for (i, column) in shifts[0].iter_mut().enumerate() {
        *column = ::crc32c::crc32c_combine(1 << i, 0, 1);
    }
    for n in 1..shifts.len() {
        shifts[n] = shifts[n - 1].map(|column| times(&shifts[n - 1], column));
    }
    shifts
});

fn times(columns: &[u32; 32], vector: u32) -> u32 {
    let one = |(i, column): (usize, &u32)| if vector >> i & 1 == 1 { *column } else { 0 };
    columns.iter().enumerate().map(one).fold(0, |sum, column| sum ^ column)
}

/// What `len` zero bytes more make of a checksum.
fn shifted(crc: u32, len: u64) -> u32 {
    (0..u64::BITS as usize).filter(|n| len >> n & 1 == 1).fold(crc, |crc, n| times(&SHIFTS[n], crc))
}

/// By one whole block, split by input byte.
static SHIFT_BLOCK: LazyLock<[[u32; 256]; 4]> = LazyLock::new(|| {
    let mut tables = [[0u32; 256]; 4];
    for (byte, table) in tables.iter_mut().enumerate() {
        for (value, entry) in table.iter_mut().enumerate() {
            *entry = shifted((value as u32) << (8 * byte), BLOCK_BYTES as u64);
        }
    }
    tables
});

impl Crc32c {
    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(::crc32c::crc32c(bytes))
    }

    /// The checksum of what `self` covers followed by `bytes`.
    #[must_use]
    pub fn append(self, bytes: &[u8]) -> Self {
        Self(::crc32c::crc32c_append(self.0, bytes))
    }

    /// The checksum of what `self` covers followed by `next_len` bytes whose checksum is `next`.
    #[must_use]
    pub fn concat(self, next: Self, next_len: u64) -> Self {
        if next_len == BLOCK_BYTES as u64 {
            let t = &*SHIFT_BLOCK;
            let [a, b, c, d] = self.0.to_le_bytes();
            let shifted =
                t[0][usize::from(a)] ^ t[1][usize::from(b)] ^ t[2][usize::from(c)] ^ t[3][usize::from(d)];
            return Self(shifted ^ next.0);
        }
        Self(shifted(self.0, next_len) ^ next.0)
    }

    /// The checksum of `len` bytes whose blocks have these checksums; the last block may be short.
    ///
    /// # Panics
    /// When the number of blocks is not that of `len` bytes: the caller's mistake.
    #[must_use]
    pub fn of_blocks(blocks: impl ExactSizeIterator<Item = Self>, len: u64) -> Self {
        let block = BLOCK_BYTES as u64;
        assert_eq!(blocks.len() as u64, len.div_ceil(block), "as many checksums as blocks");
        let mut left = len;
        blocks.fold(Self::default(), |sum, next| {
            let n = left.min(block);
            left -= n;
            sum.concat(next, n)
        })
    }
}

impl fmt::Display for Crc32c {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The checksums of the 4 KiB blocks of `bytes`, in order; the last block may be short.
pub fn block_crcs(bytes: &[u8]) -> impl ExactSizeIterator<Item = Crc32c> + '_ {
    bytes.chunks(BLOCK_BYTES).map(Crc32c::of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_answers_of_rfc_3720() {
        assert_eq!(Crc32c::of(&[0; 32]), Crc32c(0x8a91_36aa));
        assert_eq!(Crc32c::of(&[0xff; 32]), Crc32c(0x62a8_ab43));
        assert_eq!(Crc32c::of(b"123456789"), Crc32c(0xe306_9283));
        assert_eq!(Crc32c::of(b""), Crc32c(0));
    }

    #[test]
    fn long_ones_are_composed_as_the_crate_does() {
        for len in [0, 1, 511, 4096, 1 << 20, (1 << 20) + 4095, 64 << 20, 10_000_000_001] {
            for (first, next) in [(0, 0), (1, 2), (0xdead_beef, 0x0bad_cafe), (u32::MAX, u32::MAX)] {
                // The checksum of no bytes is 0.
                let next = if len == 0 { 0 } else { next };
                let expected = Crc32c(::crc32c::crc32c_combine(first, next, len as usize));
                assert_eq!(Crc32c(first).concat(Crc32c(next), len), expected, "{len}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn composing_blocks_equals_one_pass(len in 0usize..40_000, seed: u8) {
            let bytes: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed ^ (i >> 8) as u8).collect();
            let composed = Crc32c::of_blocks(block_crcs(&bytes), len as u64);
            prop_assert_eq!(composed, Crc32c::of(&bytes));
        }

        #[test]
        fn concat_equals_one_pass(a in proptest::collection::vec(any::<u8>(), 0..9000),
                                  b in proptest::collection::vec(any::<u8>(), 0..9000)) {
            let whole = Crc32c::of(&a).append(&b);
            prop_assert_eq!(Crc32c::of(&a).concat(Crc32c::of(&b), b.len() as u64), whole);
        }
    }
}
