//! Where the log is: in its newest fork, or, when it was never forked, directly in its folder; and the removal of what
//! it has left behind elsewhere.

use std::io;
use std::path::{Path, PathBuf};

use distrifs_proto::types::Epoch;

use super::error::RecoverError;
use super::format::{
    TEMPORARY_SUFFIX, WITNESS_NAME, fork_epoch, fork_name, segment_sequence, unfinished_fork_epoch,
};
use super::recovery::failed;
use crate::folder::{Folder, FolderLock, RealFolder};

/// How often the log may be forked away while it is being locked, before it is called in use.
const MOVES_MAX: usize = 3;

/// Whether there is a log in `dir`, in whichever fork: any segment, used or not. A missing folder has none.
///
/// # Errors
/// As the system says.
pub fn exists(dir: &Path) -> io::Result<bool> {
    let look = || {
        let files = Folder::Real(RealFolder::new(current_folder(dir)?)).list()?;
        Ok(files.iter().any(|(name, _)| segment_sequence(name).is_some()))
    };
    let is_gone =
        |found: &io::Result<bool>| found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let mut found = look();
    for _ in 0..MOVES_MAX {
        if !is_gone(&found) {
            return found;
        }
        if !dir.try_exists()? {
            return Ok(false);
        }
        // A newer fork came, and this one was removed.
        found = look();
    }
    found
}

/// The folder of the segments of the log in `dir`: its newest fork, or `dir` itself.
///
/// # Errors
/// As the system says.
pub fn current_folder(dir: &Path) -> io::Result<PathBuf> {
    let root = Folder::Real(RealFolder::new(dir.to_owned()));
    Ok(folder_of(&root, newest(&root)?).path().to_owned())
}

fn newest(root: &Folder) -> io::Result<Option<Epoch>> {
    Ok(root.folders()?.iter().filter_map(|name| fork_epoch(name)).max())
}

/// The newest finished fork in the log's folder.
pub(super) fn newest_fork(root: &Folder) -> Result<Option<Epoch>, RecoverError> {
    newest(root).map_err(failed(root, "", "list"))
}

/// The folder that the log is in when this is its newest fork.
pub(super) fn folder_of(root: &Folder, fork: Option<Epoch>) -> Folder {
    fork.map_or_else(|| root.clone(), |epoch| root.within(&fork_name(epoch)))
}

/// The folder that the log is in, locked, to be continued there.
///
/// That nobody forks the log away beneath it stands on this: whoever makes a fork holds a lock on the unfinished one
/// from its first moment on, and only then proves that it still leads. So one that proved it before the caller of
/// [`Self::lock`] came to lead is seen there and refuses the caller, and one that comes later fails its proof.
pub(super) struct Home {
    pub(super) folder: Folder,
    fork: Option<Epoch>,
    lock: FolderLock,
    abandoned: Vec<Unfinished>,
}

impl Home {
    /// Finds and locks it.
    pub(super) fn lock(root: &Folder) -> Result<Self, RecoverError> {
        let in_use = || RecoverError::InUse { dir: root.path().to_owned() };
        for _ in 0..MOVES_MAX {
            let fork = newest_fork(root)?;
            let folder = folder_of(root, fork);
            let lock = match folder.lock() {
                Ok(lock) => lock.ok_or_else(in_use)?,
                // A newer fork came, and this one was removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound && fork.is_some() => continue,
                Err(error) => return Err(failed(&folder, "", "lock")(error)),
            };
            let (abandoned, living) = unfinished(root)?;
            if living {
                return Err(in_use());
            }
            // After the look at the unfinished ones: one that was finished meanwhile is seen here.
            if newest_fork(root)? == fork {
                return Ok(Self { folder, fork, lock, abandoned });
            }
        }
        Err(in_use())
    }

    /// To be called once the log was read: removes what it has left elsewhere. Refuses when it was forked meanwhile,
    /// which only happens to a caller that does not lead any more.
    pub(super) fn settle(self, root: &Folder) -> Result<(Option<Epoch>, FolderLock), RecoverError> {
        if newest_fork(root)? != self.fork {
            return Err(RecoverError::InUse { dir: root.path().to_owned() });
        }
        if self.fork.is_some() {
            // Whoever made the fork may have been killed before its name was durable: what is appended to it from now
            // on must not go with it.
            root.sync_folder().map_err(failed(root, "", "sync"))?;
        }
        remove_remains(root, self.fork, &self.abandoned);
        Ok((self.fork, self.lock))
    }
}

/// A fork that was begun and that nobody works on any more.
pub(super) struct Unfinished {
    pub(super) epoch: Epoch,
    name: String,
    /// As long as it is held, nobody can take the fork for its own.
    _lock: FolderLock,
}

/// The forks that nobody works on any more, and whether somebody works on another one.
pub(super) fn unfinished(root: &Folder) -> Result<(Vec<Unfinished>, bool), RecoverError> {
    let mut abandoned = Vec::new();
    let mut living = false;
    for name in root.folders().map_err(failed(root, "", "list"))? {
        let Some(epoch) = unfinished_fork_epoch(&name) else { continue };
        match root.within(&name).lock() {
            Ok(Some(lock)) => abandoned.push(Unfinished { epoch, name, _lock: lock }),
            Ok(None) => living = true,
            // It was finished or removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(root, &name, "lock")(error)),
        }
    }
    Ok((abandoned, living))
}

/// Removes what the log in this fork has left behind: segments and witness beside it, older forks, and unfinished
/// ones. What cannot be removed stays, for the next recovery: it takes room and does no harm.
pub(super) fn remove_remains(root: &Folder, fork: Option<Epoch>, abandoned: &[Unfinished]) {
    let warn = |path: PathBuf, error: io::Error| {
        tracing::warn!(path = %path.display(), %error, "the remains of a log that was forked stay");
    };
    let mut removed = false;
    let mut folders: Vec<_> = abandoned.iter().map(|unfinished| unfinished.name.clone()).collect();
    if let Some(fork) = fork {
        match root.folders() {
            Ok(names) => {
                let older = |name: &String| fork_epoch(name).is_some_and(|epoch| epoch < fork);
                folders.extend(names.into_iter().filter(older));
            }
            Err(error) => warn(root.path().to_owned(), error),
        }
        match root.list() {
            Ok(files) => {
                for (name, _) in files.into_iter().filter(|(name, _)| is_of_a_log(name)) {
                    removed = true;
                    if let Err(error) = unless_gone(root.remove(&name)) {
                        warn(root.file(&name), error);
                    }
                }
            }
            Err(error) => warn(root.path().to_owned(), error),
        }
    }
    for name in folders {
        removed = true;
        if let Err(error) = remove_whole(root, &name) {
            warn(root.file(&name), error);
        }
    }
    if removed && let Err(error) = root.sync_folder() {
        warn(root.path().to_owned(), error);
    }
}

/// Removes a folder with the files in it.
pub(super) fn remove_whole(root: &Folder, name: &str) -> io::Result<()> {
    empty(&root.within(name)).and_then(|()| unless_gone(root.remove_folder(name)))
}

/// Removes all files of a folder.
pub(super) fn empty(folder: &Folder) -> io::Result<()> {
    for (name, _) in folder.list()? {
        unless_gone(folder.remove(&name))?;
    }
    Ok(())
}

fn unless_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether a log makes files of this name.
fn is_of_a_log(name: &str) -> bool {
    let name = name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(name);
    name == WITNESS_NAME || segment_sequence(name).is_some()
}
