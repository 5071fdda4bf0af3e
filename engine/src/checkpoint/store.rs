//! The folder of the checkpoints.

use std::io;
use std::path::{Path, PathBuf};

use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use super::error::CheckpointError;
use super::format::{CheckpointHeader, LSN_MAX, is_abandoned, name_lsn};
use super::writer::CheckpointWriter;
use crate::folder::{Folder, RealFolder};

/// A checkpoint in the folder, as its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its LSN.
    pub lsn: Lsn,
    /// The file.
    pub path: PathBuf,
    /// The length of the file.
    pub bytes: u64,
}

/// The folder of the checkpoints.
#[derive(Clone)]
pub struct CheckpointFolder {
    folder: Folder,
}

impl CheckpointFolder {
    /// The folder `dir`, which is made, durably, when it is missing; its parent must exist.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let real = RealFolder::new(dir.to_owned());
        real.create_if_missing().map_err(|source| CheckpointError::Io {
            path: dir.to_owned(),
            doing: "make the folder",
            source,
        })?;
        Ok(Self::within(Folder::Real(real)))
    }

    pub(super) fn within(folder: Folder) -> Self {
        Self { folder }
    }

    /// All finished checkpoints, the newest first. Only the names were looked at.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn list(&self) -> Result<Vec<Listed>, CheckpointError> {
        let named = |(name, bytes): (String, u64)| {
            name_lsn(&name).map(|lsn| Listed { lsn, path: self.folder.file(&name), bytes })
        };
        let mut listed: Vec<_> = self.names()?.into_iter().filter_map(named).collect();
        listed.sort_unstable_by_key(|checkpoint| std::cmp::Reverse(checkpoint.lsn));
        Ok(listed)
    }

    /// Begins a checkpoint of the state at `lsn`.
    ///
    /// # Errors
    /// [`CheckpointError::Io`]; [`CheckpointError::BadLsn`] for one above 2^62.
    pub fn create(
        &self,
        cluster: ClusterId,
        lsn: Lsn,
        epoch: Epoch,
    ) -> Result<CheckpointWriter, CheckpointError> {
        if lsn > LSN_MAX {
            return Err(CheckpointError::BadLsn { lsn });
        }
        CheckpointWriter::create(&self.folder, CheckpointHeader { cluster, lsn, epoch })
    }

    /// Removes all finished checkpoints but the newest `keep`, of which it always leaves one, and the unfinished ones of
    /// this epoch and of older ones; then syncs the folder. Not while this leader writes one. A leader that was replaced
    /// and still writes one cannot finish it then. Returns how many finished ones went.
    ///
    /// # Errors
    /// [`CheckpointError::Io`]; some may be gone then.
    pub fn retain(&self, keep: usize, epoch: Epoch) -> Result<usize, CheckpointError> {
        let names = self.names()?;
        let mut finished: Vec<_> =
            names.iter().filter_map(|(name, _)| name_lsn(name).map(|lsn| (lsn, name))).collect();
        finished.sort_unstable_by_key(|(lsn, _)| *lsn);
        finished.truncate(finished.len().saturating_sub(keep.max(1)));
        let gone = finished.len();
        let stale = names.iter().map(|(name, _)| name).filter(|name| is_abandoned(name, epoch));
        // The oldest first: at every moment the newest are there.
        for name in finished.into_iter().map(|(_, name)| name).chain(stale) {
            match self.folder.remove(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.failed(name, "remove", error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        self.folder.sync_folder().map_err(|source| self.failed("", "sync", source))?;
        Ok(gone)
    }

    fn names(&self) -> Result<Vec<(String, u64)>, CheckpointError> {
        self.folder.list().map_err(|source| self.failed("", "list", source))
    }

    fn failed(&self, name: &str, doing: &'static str, source: io::Error) -> CheckpointError {
        let path = if name.is_empty() { self.folder.path().to_owned() } else { self.folder.file(name) };
        CheckpointError::Io { path, doing, source }
    }
}
