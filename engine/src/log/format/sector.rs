//! The sector: 512 bytes with a check of their own.
//!
//! A torn write of a zero-filled file leaves each sector wholly written or wholly zero. The check (CRC32C over
//! the segment's salt, the sector's number in the segment and its first 508 bytes) tells a written sector from
//! a rotten one, and one that belongs here from one that was meant for another place or another log. The check
//! is never 0, so a written sector is never all zero. The place says which group a sector belongs to, so that
//! the sectors of a torn group are told from those of a later group even when its header is among the missing.

use distrifs_proto::types::Crc32c;

use super::{BLOCK_BYTES, u32_at};

/// What a torn write leaves whole.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Sectors in a block.
pub(crate) const SECTORS_PER_BLOCK: usize = BLOCK_BYTES / SECTOR_BYTES;
/// What a sector carries for its group.
pub(super) const CONTENT_BYTES: usize = PLACE_AT;

const ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];
const PLACE_AT: usize = SECTOR_BYTES - 8;
const CHECK_AT: usize = SECTOR_BYTES - 4;
const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));

/// What a sector turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sector {
    /// All zero: never written.
    Zero,
    /// Something else than what was written here.
    Rotten,
    /// As written; `place` is its number within its group.
    Written {
        /// 0 for the first sector of the group.
        place: u32,
    },
}

fn check(salt: u64, number: u64, sector: &[u8]) -> u32 {
    let seed = Crc32c::of(&salt.to_le_bytes()).append(&number.to_le_bytes());
    // Never 0: see the head of this file.
    seed.append(&sector[..CHECK_AT]).0.max(1)
}

/// Lays `stream` out over `out`, whole sectors, of which the first is number `first` of its segment.
pub(crate) fn spread(stream: &[u8], salt: u64, first: u64, out: &mut [u8]) {
    assert!(out.len().is_multiple_of(SECTOR_BYTES), "whole sectors");
    assert!(stream.len() <= out.len() / SECTOR_BYTES * CONTENT_BYTES, "room for the stream");
    let mut rest = stream;
    for (place, sector) in out.chunks_exact_mut(SECTOR_BYTES).enumerate() {
        let (here, next) = rest.split_at(rest.len().min(CONTENT_BYTES));
        rest = next;
        sector[..here.len()].copy_from_slice(here);
        sector[here.len()..CONTENT_BYTES].fill(0);
        sector[PLACE_AT..CHECK_AT].copy_from_slice(&(place as u32).to_le_bytes());
        let check = check(salt, first + place as u64, sector);
        sector[CHECK_AT..].copy_from_slice(&check.to_le_bytes());
    }
}

/// The content of these sectors, which were judged before.
pub(crate) fn gather(sectors: &[u8]) -> Vec<u8> {
    let mut stream = Vec::with_capacity(sectors.len() / SECTOR_BYTES * CONTENT_BYTES);
    for sector in sectors.chunks_exact(SECTOR_BYTES) {
        stream.extend_from_slice(&sector[..CONTENT_BYTES]);
    }
    stream
}

/// Whether nothing was ever written to these whole sectors.
pub(crate) fn is_zero(sectors: &[u8]) -> bool {
    sectors.chunks(SECTOR_BYTES).all(|sector| *sector == ZEROS[..sector.len()])
}

/// What the sector with this number is.
pub(crate) fn judge(sector: &[u8], salt: u64, number: u64) -> Sector {
    assert_eq!(sector.len(), SECTOR_BYTES);
    if sector == ZEROS {
        Sector::Zero
    } else if u32_at(sector, CHECK_AT) == check(salt, number, sector) {
        Sector::Written { place: u32_at(sector, PLACE_AT) }
    } else {
        Sector::Rotten
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{CONTENT_BYTES, SECTOR_BYTES, Sector, gather, judge, spread};

    proptest! {
        #[test]
        fn a_stream_survives_the_way_over_sectors(
            stream in proptest::collection::vec(any::<u8>(), 0..3000), salt: u64, first in 0u64..1 << 40
        ) {
            let mut out = vec![0xee; stream.len().div_ceil(CONTENT_BYTES).max(1) * SECTOR_BYTES];
            spread(&stream, salt, first, &mut out);
            for (i, sector) in out.chunks_exact(SECTOR_BYTES).enumerate() {
                prop_assert_eq!(judge(sector, salt, first + i as u64), Sector::Written { place: i as u32 });
            }
            let back = gather(&out);
            prop_assert_eq!(&back[..stream.len()], &stream[..]);
            prop_assert!(back[stream.len()..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn every_flipped_bit_makes_a_sector_rotten() {
        for stream in [&b""[..], &b"some bytes"[..]] {
            let mut out = vec![0; SECTOR_BYTES];
            spread(stream, 7, 99, &mut out);
            for bit in 0..SECTOR_BYTES * 8 {
                out[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(judge(&out, 7, 99), Sector::Rotten, "bit {bit}");
                out[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_sector_of_another_place_or_another_log_is_rotten() {
        let mut out = vec![0; SECTOR_BYTES];
        spread(b"x", 7, 99, &mut out);
        assert_eq!(judge(&out, 7, 98), Sector::Rotten);
        assert_eq!(judge(&out, 8, 99), Sector::Rotten);
        assert_eq!(judge(&[0; SECTOR_BYTES], 7, 99), Sector::Zero);
    }
}
