//! Images of a state at a position of the log, which let the log's beginning go.
//!
//! An image is opaque here: bytes, written in order and read back in order. Promises:
//! - A checkpoint that [`CheckpointWriter::finish`] returned is durable, under its own name, and was read back from
//!   the disk and verified. One that was not finished is never listed.
//! - Every flipped bit, every cut, every block in a wrong place is found when it is read.
//!
//! The calls block: they belong on a thread of their own. `folder` below is the log's, with its simulated disk.

mod error;
mod format;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

use distrifs_proto::types::{ClusterId, Epoch, Lsn};

pub use error::CheckpointError;
use error::failed;
pub use format::Header;
use format::{TEMPORARY_SUFFIX, checkpoint_lsn};
pub use reader::CheckpointReader;
pub use writer::{CheckpointWriter, Written};

use crate::folder::{Folder, RealFolder};

/// A folder of checkpoints.
#[derive(Debug, Clone)]
pub struct CheckpointFolder {
    folder: Folder,
}

/// A finished checkpoint, by its name; what is inside was not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The position of the log that it shows.
    pub lsn: Lsn,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

impl CheckpointFolder {
    /// The checkpoints in `dir`, which is made, durably, when it is missing.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let folder = RealFolder::new(dir.to_owned());
        let made = folder.create_if_missing();
        made.map_err(|source| CheckpointError::Io {
            path: dir.to_owned(),
            doing: "make the folder",
            source,
        })?;
        Ok(Self { folder: Folder::Real(folder) })
    }

    #[cfg(test)]
    pub(crate) fn simulated(disk: crate::folder::SimDisk) -> Self {
        Self { folder: Folder::Sim(disk) }
    }

    /// The finished checkpoints, newest first.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn list(&self) -> Result<Vec<Listed>, CheckpointError> {
        let names = self.folder.list().map_err(failed(&self.folder, "", "list"))?;
        let listed = names.into_iter().filter_map(|(name, bytes)| {
            Some(Listed { lsn: checkpoint_lsn(&name)?, path: self.folder.file(&name), bytes })
        });
        let mut listed: Vec<Listed> = listed.collect();
        listed.sort_by_key(|it| std::cmp::Reverse(it.lsn));
        Ok(listed)
    }

    /// Begins a checkpoint of the state at `lsn`.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn create(
        &self,
        cluster: ClusterId,
        lsn: Lsn,
        epoch: Epoch,
    ) -> Result<CheckpointWriter, CheckpointError> {
        CheckpointWriter::begin(self.folder.clone(), Header { cluster, lsn, epoch })
    }

    /// Opens the checkpoint at `lsn`, of `cluster` if that is known.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn read(&self, lsn: Lsn, cluster: Option<ClusterId>) -> Result<CheckpointReader, CheckpointError> {
        CheckpointReader::begin(&self.folder, &format::checkpoint_name(lsn), cluster)
    }

    /// Puts a finished checkpoint aside, under a name that is never listed: it is of no use, but evidence.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn put_aside(&self, lsn: Lsn) -> Result<PathBuf, CheckpointError> {
        let name = format::checkpoint_name(lsn);
        let aside = format!("{name}.damaged");
        self.folder.rename(&name, &aside).map_err(failed(&self.folder, &name, "put aside"))?;
        self.folder.sync_folder().map_err(failed(&self.folder, "", "sync"))?;
        Ok(self.folder.file(&aside))
    }

    /// Removes all finished checkpoints but the newest `keep`, and what unfinished ones left.
    ///
    /// # Errors
    /// [`CheckpointError::Io`]; try again.
    pub fn retain(&self, keep: usize) -> Result<(), CheckpointError> {
        let names = self.folder.list().map_err(failed(&self.folder, "", "list"))?;
        let unfinished = names.iter().map(|(name, _)| name).filter(|name| name.ends_with(TEMPORARY_SUFFIX));
        let old = self.list()?.into_iter().skip(keep).map(|it| format::checkpoint_name(it.lsn));
        let gone: Vec<String> = unfinished.cloned().chain(old).collect();
        for name in &gone {
            self.folder.remove(name).map_err(failed(&self.folder, name, "remove"))?;
        }
        if !gone.is_empty() {
            self.folder.sync_folder().map_err(failed(&self.folder, "", "sync"))?;
        }
        Ok(())
    }
}
