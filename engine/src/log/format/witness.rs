//! The witness: a small file beside the segments that says how far the log is known to reach.
//!
//! ```text
//!  0  magic "DFSWIT\r\n"   8  version           12  0             16  cluster id
//! 32  first sequence that must exist            40  last LSN      48  seal of the group that ends with it
//! ```
//! It is replaced as a whole (temporary file, sync, rename, sync of the folder) when a recovery ends and when
//! a log is closed. A log that ends before its witness has lost acknowledged records.

use distrifs_proto::types::{ClusterId, Crc32c, Lsn};

use super::segment::BadHeader;
use super::{SECTOR_BYTES, Sector, VERSION, gather, judge, spread, u32_at, u64_at, u128_at};

/// The name of the file.
pub(crate) const WITNESS_NAME: &str = "witness";

const MAGIC: [u8; 8] = *b"DFSWIT\r\n";
const WITNESS_BYTES: usize = 52;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    pub(crate) cluster: ClusterId,
    /// Segments below may have been removed, this one and those after it may not.
    pub(crate) first_sequence: u64,
    pub(crate) last_lsn: Lsn,
    pub(crate) seal: Crc32c,
}

impl Witness {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = [0; WITNESS_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..32].copy_from_slice(&self.cluster.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[40..48].copy_from_slice(&self.last_lsn.0.to_le_bytes());
        out[48..52].copy_from_slice(&self.seal.0.to_le_bytes());
        let mut sector = vec![0; SECTOR_BYTES];
        spread(&out, 0, 0, &mut sector);
        sector
    }

    /// The outer error: not as it was written. The inner one: not ours.
    pub(crate) fn decode(file: &[u8]) -> Option<Result<Self, BadHeader>> {
        if file.len() != SECTOR_BYTES || judge(file, 0, 0) != (Sector::Written { place: 0 }) {
            return None;
        }
        let stream = gather(file);
        if stream[0..8] != MAGIC {
            return Some(Err(BadHeader::Magic));
        }
        let version = u32_at(&stream, 8);
        if version != VERSION {
            return Some(Err(BadHeader::Version(version)));
        }
        Some(Ok(Self {
            cluster: ClusterId(u128_at(&stream, 16)),
            first_sequence: u64_at(&stream, 32),
            last_lsn: Lsn(u64_at(&stream, 40)),
            seal: Crc32c(u32_at(&stream, 48)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::{ClusterId, Crc32c, Lsn};

    use super::Witness;

    #[test]
    fn a_witness_survives_the_way_through_bytes_and_no_flipped_bit_does() {
        let witness =
            Witness { cluster: ClusterId(5), first_sequence: 1, last_lsn: Lsn(77), seal: Crc32c(9) };
        let mut file = witness.encode();
        assert_eq!(Witness::decode(&file), Some(Ok(witness)));
        for bit in 0..file.len() * 8 {
            file[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Witness::decode(&file), None, "bit {bit}");
            file[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(Witness::decode(&file[..100]), None);
    }
}
