//! The file `epoch`: the newest epoch, for people, for restores and for versions of the program that know nothing else.
//!
//! ```text
//! magic "DFSEPOCH" | version u32 = 1 | epoch u64 | CRC32C u32 of all before     (little-endian, 24 bytes)
//! ```
//! What decides is the [`token`](super::token); a start takes the higher of both.

use std::path::{Path, PathBuf};

use distrifs_proto::types::{Crc32c, Epoch};

use crate::error::StartError;
use crate::folder::{read_small, write_durably, write_durably_in_any_room};

const MAGIC: &[u8; 8] = b"DFSEPOCH";
const VERSION: u32 = 1;
const BYTES: usize = 24;

/// Where it is.
fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("epoch")
}

/// Puts epoch 0 into a new folder.
///
/// # Errors
/// [`StartError::Folder`].
pub(super) fn format(data_dir: &Path) -> Result<(), StartError> {
    write_durably(&path(data_dir), &encode(Epoch(0)))
}

/// What it says.
///
/// # Errors
/// [`StartError::Damaged`] when the file of a formatted folder is missing or unreadable: guessing an epoch would break
/// the fence.
pub(super) fn read(data_dir: &Path) -> Result<Epoch, StartError> {
    let path = path(data_dir);
    match read_small(&path)? {
        Some(bytes) => decode(&path, &bytes),
        None => Err(StartError::Damaged { path, why: "missing".to_owned() }),
    }
}

/// Writes it durably; on a full disk over the old one.
///
/// # Errors
/// [`StartError::Folder`].
pub(super) fn write(data_dir: &Path, epoch: Epoch) -> Result<(), StartError> {
    write_durably_in_any_room(&path(data_dir), &encode(epoch))
}

fn encode(epoch: Epoch) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&epoch.0.to_le_bytes());
    let crc = Crc32c::of(&bytes[..20]);
    bytes[20..].copy_from_slice(&crc.0.to_le_bytes());
    bytes
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Epoch, StartError> {
    let damaged = |why: &str| StartError::Damaged { path: path.to_owned(), why: why.to_owned() };
    let (Some(magic), Some(version)) = (bytes.first_chunk::<8>(), bytes.get(8..12)) else {
        return Err(damaged("too short"));
    };
    if magic != MAGIC {
        return Err(damaged("not an epoch file"));
    }
    let found = u32::from_le_bytes(version.try_into().unwrap_or_default());
    if found > VERSION {
        return Err(StartError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    let Ok(bytes) = <&[u8; BYTES]>::try_from(bytes) else {
        return Err(damaged("another length"));
    };
    let epoch = Epoch(u64::from_le_bytes(bytes[12..20].try_into().unwrap_or_default()));
    if *bytes != encode(epoch) || epoch.0 == u64::MAX {
        return Err(damaged("checksum mismatch"));
    }
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_version_1() {
        let golden = *b"DFSEPOCH\x01\0\0\0\x2a\0\0\0\0\0\0\0";
        let bytes = encode(Epoch(42));
        assert_eq!(bytes[..20], golden);
        assert_eq!(bytes[20..], Crc32c::of(&golden).0.to_le_bytes());
        assert!(matches!(decode(Path::new("e"), &bytes), Ok(Epoch(42))));
    }

    #[test]
    fn damage_is_found() {
        let good = encode(Epoch(7));
        for at in 0..BYTES {
            let mut bytes = good;
            bytes[at] ^= 1;
            assert!(decode(Path::new("e"), &bytes).is_err(), "byte {at}");
        }
        for length in 0..BYTES {
            assert!(decode(Path::new("e"), &good[..length]).is_err(), "length {length}");
        }
    }
}
