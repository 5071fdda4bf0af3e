//! The epoch: a number that grows with each start of a leader, durably, before the leader does anything.
//!
//! ```text
//! magic "DFSEPOCH" | version u32 = 1 | epoch u64 | CRC32C u32 of all before     (little-endian, 24 bytes)
//! ```
//! The leader looks at the file after each sync and before each acknowledgement: once another start has raised
//! the number, this one acknowledges nothing more.

use std::path::{Path, PathBuf};

use distrifs_proto::types::{Crc32c, Epoch};

use crate::error::{MasterFailure, StartError};
use crate::folder::{read_small, write_durably, write_durably_in_any_room};

const MAGIC: &[u8; 8] = b"DFSEPOCH";
const VERSION: u32 = 1;
const BYTES: usize = 24;

/// The epoch of this start, and where it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Leadership {
    path: PathBuf,
    epoch: Epoch,
}

impl Leadership {
    /// Raises the epoch durably.
    ///
    /// # Errors
    /// [`StartError::Damaged`] when the file of a formatted folder is missing or unreadable: guessing an epoch
    /// would break the fence.
    pub(crate) fn begin(data_dir: &Path) -> Result<Self, StartError> {
        let path = data_dir.join("epoch");
        let Some(bytes) = read_small(&path)? else {
            return Err(StartError::Damaged { path, why: "missing".to_owned() });
        };
        let epoch = decode(&path, &bytes)?.next();
        write_durably_in_any_room(&path, &encode(epoch))?;
        Ok(Self { path, epoch })
    }

    /// Puts epoch 0 into a new folder.
    ///
    /// # Errors
    /// [`StartError::Folder`].
    pub(crate) fn format(data_dir: &Path) -> Result<(), StartError> {
        write_durably(&data_dir.join("epoch"), &encode(Epoch(0)))
    }

    /// The epoch of this start.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether this start still leads. One small read from the page cache: called after every sync.
    ///
    /// # Errors
    /// Another one leads, or nobody can say.
    pub(crate) fn prove(&self) -> Result<(), MasterFailure> {
        let unreadable = |why: String| MasterFailure::EpochUnreadable { why };
        let bytes = read_small(&self.path).map_err(|error| unreadable(error.to_string()))?;
        let bytes = bytes.ok_or_else(|| unreadable(format!("{}: missing", self.path.display())))?;
        let found = decode(&self.path, &bytes).map_err(|error| unreadable(error.to_string()))?;
        if found != self.epoch {
            return Err(MasterFailure::Deposed { ours: self.epoch, found });
        }
        Ok(())
    }
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
    fn every_start_leads_until_the_next() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(matches!(Leadership::begin(dir.path()), Err(StartError::Damaged { .. })));
        Leadership::format(dir.path()).expect("formatted");
        let first = Leadership::begin(dir.path()).expect("leads");
        assert_eq!((first.epoch(), first.prove()), (Epoch(1), Ok(())));
        let second = Leadership::begin(dir.path()).expect("leads");
        assert_eq!(second.epoch(), Epoch(2));
        assert_eq!(first.prove(), Err(MasterFailure::Deposed { ours: Epoch(1), found: Epoch(2) }));
        std::fs::remove_file(dir.path().join("epoch")).expect("removed");
        assert!(matches!(second.prove(), Err(MasterFailure::EpochUnreadable { .. })));
    }

    /// As on a full disk: there is no place for a new file beside the old one.
    #[test]
    fn a_start_leads_where_no_new_file_can_be_made() {
        let dir = tempfile::tempdir().expect("a folder");
        Leadership::format(dir.path()).expect("formatted");
        std::fs::create_dir_all(dir.path().join("epoch.new/in-the-way")).expect("made");
        let first = Leadership::begin(dir.path()).expect("leads");
        assert_eq!((first.epoch(), first.prove()), (Epoch(1), Ok(())));
        assert_eq!(Leadership::begin(dir.path()).expect("leads").epoch(), Epoch(2));
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
