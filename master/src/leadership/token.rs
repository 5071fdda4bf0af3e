//! The token: one file whose *name* is the epoch of who leads, `fence/epoch-<16 hex digits>`.
//!
//! Raising the epoch is a rename of this file. A file system does a rename once: of several that rename the same name,
//! one succeeds, and the others find that it is gone. An old name never comes back. So whoever sees its own name leads,
//! or did until a moment ago, and nobody has to trust a lock or a clock for that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use distrifs_engine::durable_file;
use distrifs_proto::types::Epoch;

use crate::error::StartError;

/// The folder of the token, in the master's folder.
pub(crate) const FENCE: &str = "fence";
/// Looks for a token that is just being renamed: a listing may miss both names.
const LOOKS_MAX: u32 = 16;
const CONTENT: &[u8] = b"distrifs-leader 1: the name of this file is the epoch\n";

/// Where the token of an epoch is.
pub(super) fn path(data_dir: &Path, epoch: Epoch) -> PathBuf {
    data_dir.join(FENCE).join(format!("epoch-{:016x}", epoch.0))
}

fn epoch_of(name: &str) -> Option<Epoch> {
    let digits = name.strip_prefix("epoch-").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|epoch| *epoch < u64::MAX).map(Epoch)
}

/// The epoch in the token's name; `None` where there never was a token.
///
/// # Errors
/// [`StartError::Folder`]; [`StartError::Damaged`] when there is a fence without a token.
pub(super) fn find(data_dir: &Path) -> Result<Option<Epoch>, StartError> {
    let fence = data_dir.join(FENCE);
    let failed = |source| StartError::Folder { path: fence.clone(), doing: "list", source };
    for _ in 0..LOOKS_MAX {
        let entries = match fs::read_dir(&fence) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut newest = None;
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            newest = newest.max(name.to_str().and_then(epoch_of));
        }
        if newest.is_some() {
            return Ok(newest);
        }
        std::thread::yield_now();
    }
    let why = "the token of the leader is not there: bring the file epoch-* back, or remove the empty folder if no \
               other master runs on this folder";
    Err(StartError::Damaged { path: fence, why: why.to_owned() })
}

/// Makes the first token, in a folder that never had one. For the holder of the leader's lock alone.
///
/// # Errors
/// [`StartError::Folder`].
pub(super) fn create(data_dir: &Path, epoch: Epoch) -> Result<(), StartError> {
    // Whole or not at all: a fence without its token would be taken for a loss.
    let (fence, building) = (data_dir.join(FENCE), data_dir.join("fence.new"));
    let failed = |source| StartError::Folder { path: fence.clone(), doing: "make", source };
    match fs::remove_dir_all(&building) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::create_dir(&building).map_err(failed)?;
    let name = path(data_dir, epoch);
    let name = name.file_name().map(|name| building.join(name)).unwrap_or_default();
    durable_file::replace(&name, CONTENT).map_err(failed)?;
    fs::rename(&building, &fence).map_err(failed)?;
    durable_file::sync_dir(data_dir).map_err(failed)
}

/// Renames the token, durably. `false`: it is no longer of the epoch `from`, and somebody else was faster.
///
/// # Errors
/// [`StartError::Folder`]; whether the token was renamed is unknown when it is the folder's sync that failed.
pub(super) fn raise(data_dir: &Path, from: Epoch, to: Epoch) -> Result<bool, StartError> {
    assert!(from < to, "an epoch never goes back");
    let (old, new) = (path(data_dir, from), path(data_dir, to));
    match fs::rename(&old, &new) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(StartError::Folder { path: old, doing: "rename", source }),
    }
    let fence = data_dir.join(FENCE);
    durable_file::sync_dir(&fence).map_err(|source| StartError::Folder {
        path: fence.clone(),
        doing: "sync",
        source,
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_that_raise_it_one_succeeds() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(find(dir.path()).expect("looked"), None);
        create(dir.path(), Epoch(4)).expect("made");
        for from in 4..20 {
            let won = std::thread::scope(|scope| {
                let claims =
                    [(); 8].map(|()| scope.spawn(|| raise(dir.path(), Epoch(from), Epoch(from + 1))));
                claims.map(|claim| claim.join().expect("ends").expect("renamed or not"))
            });
            assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
            assert_eq!(find(dir.path()).expect("looked"), Some(Epoch(from + 1)));
        }
        assert!(!raise(dir.path(), Epoch(4), Epoch(100)).expect("looked"), "an old name never comes back");
    }

    #[test]
    fn a_fence_without_a_token_is_damage_and_other_files_are_none() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join(FENCE)).expect("made");
        for name in ["epoch-1", "epoch-zzzzzzzzzzzzzzzz", "epoch-ffffffffffffffff", "lost+found"] {
            fs::write(dir.path().join(FENCE).join(name), b"").expect("written");
        }
        assert!(matches!(find(dir.path()), Err(StartError::Damaged { .. })));
        fs::write(path(dir.path(), Epoch(2)), b"").expect("written");
        assert_eq!(find(dir.path()).expect("looked"), Some(Epoch(2)));
    }

    #[test]
    fn an_interrupted_making_is_begun_again() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("fence.new")).expect("made");
        fs::write(dir.path().join("fence.new/x"), b"").expect("written");
        create(dir.path(), Epoch(1)).expect("made");
        assert_eq!(find(dir.path()).expect("looked"), Some(Epoch(1)));
    }
}
