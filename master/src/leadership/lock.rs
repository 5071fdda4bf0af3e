//! The leader's lock: the operating system's, which gives it back the moment its holder's process is gone.
//!
//! It says when to take over at once, and nothing else: a process that is stopped keeps its lock, so that what proves
//! leadership is the [`token`](super::token). Who takes over from a stopped leader puts a lock file of its own in the
//! place of the old one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::StartError;

/// How often a lock that was replaced while it was being taken is tried again.
const TRIES_MAX: u32 = 16;

/// The lock of the leader, held while this lives.
#[derive(Debug)]
pub(crate) struct LeaderLock {
    path: PathBuf,
    file: File,
}

impl LeaderLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`StartError::InUse`] when another master has it.
    pub(crate) fn take(path: &Path) -> Result<Self, StartError> {
        for _ in 0..TRIES_MAX {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .map_err(|source| refused(path, "open the lock", source))?;
            let lock = Self::lock(path, file)?;
            if lock.is_in_place()? {
                return Ok(lock);
            }
        }
        Err(StartError::InUse { path: path.to_owned() })
    }

    /// Puts a new lock file in the place of the one that is there, whoever holds that. For the holder of the token alone.
    ///
    /// # Errors
    /// [`StartError::Folder`].
    pub(crate) fn replace(path: &Path) -> Result<Self, StartError> {
        let mut building = path.as_os_str().to_owned();
        building.push(".new");
        let building = PathBuf::from(building);
        match fs::remove_file(&building) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(refused(&building, "remove", error));
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&building)
            .map_err(|source| refused(&building, "make the lock", source))?;
        let mut lock = Self::lock(&building, file)?;
        fs::rename(&building, path).map_err(|source| refused(path, "replace the lock", source))?;
        path.clone_into(&mut lock.path);
        Ok(lock)
    }

    fn lock(path: &Path, file: File) -> Result<Self, StartError> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse { path: path.to_owned() }),
            Err(error) => Err(refused(path, "lock", error.into())),
        }
    }

    /// Whether this is still the file that others try to lock.
    ///
    /// # Errors
    /// [`StartError::Folder`].
    pub(crate) fn is_in_place(&self) -> Result<bool, StartError> {
        let held = self.file.metadata().map_err(|source| refused(&self.path, "look at the lock", source))?;
        match fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(refused(&self.path, "look at the lock", source)),
        }
    }

    /// Puts a lock of its own there when somebody has removed or replaced it. For the holder of the token alone.
    ///
    /// # Errors
    /// [`StartError::Folder`].
    pub(super) fn keep_in_place(&mut self) -> Result<(), StartError> {
        if !self.is_in_place()? {
            *self = Self::replace(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for LeaderLock {
    fn drop(&mut self) {
        // By word and not only by closing: a child that is just being started has a copy of every open file.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn refused(path: &Path, doing: &'static str, source: io::Error) -> StartError {
    StartError::Folder { path: path.to_owned(), doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(path: &Path) -> bool {
        matches!(LeaderLock::take(path), Err(StartError::InUse { .. }))
    }

    #[test]
    fn the_lock_is_for_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("leader.lock");
        let held = LeaderLock::take(&path).expect("free");
        assert!(in_use(&path));
        drop(held);
        assert!(LeaderLock::take(&path).is_ok());
    }

    #[test]
    fn a_lock_that_was_replaced_counts_no_more() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("leader.lock");
        let mut old = LeaderLock::take(&path).expect("free");
        let new = LeaderLock::replace(&path).expect("replaced");
        assert!(in_use(&path));
        assert!(!old.is_in_place().expect("looked") && new.is_in_place().expect("looked"));
        old.keep_in_place().expect("put there");
        assert!(old.is_in_place().expect("looked") && !new.is_in_place().expect("looked"));
        drop(new);
        assert!(in_use(&path));
        fs::remove_file(&path).expect("removed by somebody");
        old.keep_in_place().expect("put there");
        assert!(in_use(&path));
        drop(old);
        assert!(LeaderLock::take(&path).is_ok());
    }
}
