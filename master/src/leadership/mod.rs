//! Who leads, and why one that was replaced can do no harm.
//!
//! **What there is**, in the master's folder: the [`token`], a file whose name is the epoch and which is raised by a
//! rename; the [`lock`] of the operating system, which is free as soon as its holder's process is gone; the [`lease`],
//! which its holder renews; the log, in a folder that its writer has locked as long as it lives.
//!
//! **The order.** Who finds the leader's lock free, or the lease run out,
//! 1. raises the token, durably: this is the fence, and of several that try, one succeeds;
//! 2. takes the log over. Who gets the lock of the log's folder, and finds nobody about to fork it, knows that whoever wrote
//!    there is gone, and goes on in place. Who does not, *forks* the log: reads it regardless of locks, and copies it into
//!    a folder of this epoch, which the old writer cannot reach and which is the log from then on. It locks that folder
//!    while it is unfinished, and proves the token after that and before it reads;
//! 3. replays it, and leads: appends a group of changes, syncs it, *proves* that the token still has its name, applies
//!    and answers.
//!
//! **Why nothing that was acknowledged is lost.** Let L acknowledge a change, and M be the first to raise the token after
//! L raised it. L proved its token after the sync and found its name, so the change was durable before M raised the token,
//! and M reads after that. M reads the log that L wrote: a fork that somebody else finished late, who was replaced before L
//! came or is replaced by M, would have had to prove a token that was gone, or was seen by L, which then forked it away, or
//! is older than M's. M's log begins with the change, and so does that of everybody after M.
//!
//! **Why a leader that was replaced acknowledges nothing.** Once M has raised the token, no proof of L succeeds. What L
//! proved before is in M's log, even if L is stopped between the proof and the answer. What L still writes goes into files
//! that are not of M's log; M goes on in L's files only after L's process is gone and its last write has come to rest.
//!
//! **Why its orders do no harm.** Each carries the epoch. A datanode writes down the highest one it was shown before it
//! obeys, and refuses lower ones, also after a restart. One that obeys L all the same was not shown M's yet, so M counts
//! on none of its replicas; and what L has it delete was removed by a change in L's log, which M has, too.
//!
//! **Why it answers no reads from the past.** L answers only while its own lease holds. M waits for the end of a lease
//! that it saw renewed after it had judged it to have run out, and for nothing if L's process is gone.
//!
//! `model_test.rs` goes through it step by step, and checks a model in which every step can be followed by a stop of any
//! length or the end of the process; each rule that is left out there loses something.

mod epoch_file;
mod keeper;
pub(crate) mod lease;
mod lock;
#[cfg(test)]
mod model_test;
pub(crate) mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use distrifs_proto::types::Epoch;

pub(crate) use keeper::Keeper;
pub(crate) use lock::LeaderLock;

use crate::error::{MasterFailure, StartError};

/// How often a claim begins again that somebody else was faster with.
const CLAIMS_MAX: u32 = 64;

/// The leadership of one start: its epoch, and the way to prove it.
#[derive(Debug, Clone)]
pub(crate) struct Leadership {
    data_dir: Arc<Path>,
    token: Arc<Path>,
    epoch: Epoch,
}

impl Leadership {
    /// Puts epoch 0 into a new folder. For the holder of the leader's lock.
    ///
    /// # Errors
    /// [`StartError::Folder`].
    pub(crate) fn format(data_dir: &Path) -> Result<(), StartError> {
        epoch_file::format(data_dir)
    }

    /// Raises the epoch durably, whoever leads. For the holder of the leader's lock.
    ///
    /// # Errors
    /// [`StartError::Damaged`] when the epoch of a formatted folder is missing or unreadable; [`StartError::Folder`].
    pub(crate) fn begin(data_dir: &Path) -> Result<Self, StartError> {
        let written = epoch_file::read(data_dir)?;
        if token::find(data_dir)?.is_none() {
            token::create(data_dir, written)?;
        }
        for _ in 0..CLAIMS_MAX {
            if let Some(token) = token::find(data_dir)?
                && let Some(leadership) = Self::claim(data_dir, token)?
            {
                return Ok(leadership);
            }
        }
        let why = "others raise the epoch again and again: start fewer masters";
        Err(StartError::Damaged { path: data_dir.join(token::FENCE), why: why.to_owned() })
    }

    /// Raises the epoch durably if the token is still that of `from`. `None`: somebody else has raised it.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(crate) fn claim(data_dir: &Path, from: Epoch) -> Result<Option<Self>, StartError> {
        let epoch = epoch_file::read(data_dir)?.max(from).next();
        if !token::raise(data_dir, from, epoch)? {
            return Ok(None);
        }
        epoch_file::write(data_dir, epoch)?;
        let token: PathBuf = token::path(data_dir, epoch);
        Ok(Some(Self { data_dir: data_dir.into(), token: token.into(), epoch }))
    }

    /// Sees to it, durably, that the next start on the folder has an epoch above `seen`. For a leader whose epoch is not,
    /// and which ends then.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(crate) fn raise(data_dir: &Path, seen: Epoch) -> Result<(), StartError> {
        let raised = epoch_file::read(data_dir)?.max(seen);
        epoch_file::write(data_dir, raised)
    }

    /// The epoch of this start.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Whether this start still leads. One look at a name: called after every sync.
    ///
    /// # Errors
    /// Another one leads, or nobody can say.
    pub(crate) fn prove(&self) -> Result<(), MasterFailure> {
        let unreadable = |why: String| MasterFailure::EpochUnreadable { why };
        match self.token.try_exists() {
            Ok(true) => Ok(()),
            Ok(false) => match token::find(&self.data_dir) {
                Ok(Some(found)) => Err(MasterFailure::Deposed { ours: self.epoch, found }),
                Ok(None) => Err(unreadable(format!("{}: missing", self.token.display()))),
                Err(error) => Err(unreadable(error.to_string())),
            },
            Err(error) => Err(unreadable(format!("{}: {error}", self.token.display()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(Leadership::claim(dir.path(), Epoch(1)).expect("looked").is_none());
        let third = Leadership::claim(dir.path(), Epoch(2)).expect("looked").expect("leads");
        assert!(third.prove().is_ok() && second.prove().is_err());
        std::fs::remove_dir_all(dir.path().join("fence")).expect("removed");
        assert!(matches!(third.prove(), Err(MasterFailure::EpochUnreadable { .. })));
    }

    /// Of a version that knew no token, and after one that was stopped before it could write down what it had claimed.
    #[test]
    fn the_higher_of_token_and_file_counts() {
        let dir = tempfile::tempdir().expect("a folder");
        epoch_file::write(dir.path(), Epoch(41)).expect("written");
        assert_eq!(Leadership::begin(dir.path()).expect("leads").epoch(), Epoch(42));
        epoch_file::write(dir.path(), Epoch(7)).expect("written late");
        let leader = Leadership::begin(dir.path()).expect("leads");
        assert_eq!((leader.epoch(), epoch_file::read(dir.path()).expect("read")), (Epoch(43), Epoch(43)));
        epoch_file::write(dir.path(), Epoch(7)).expect("written late");
        assert!(leader.prove().is_ok());
        epoch_file::write(dir.path(), Epoch(100)).expect("restored");
        assert_eq!(Leadership::begin(dir.path()).expect("leads").epoch(), Epoch(101));
    }

    #[test]
    fn the_next_start_is_above_an_epoch_that_was_seen() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(Leadership::raise(dir.path(), Epoch(9)).is_err(), "there is no file");
        Leadership::format(dir.path()).expect("formatted");
        assert_eq!(Leadership::begin(dir.path()).expect("leads").epoch(), Epoch(1));
        for (seen, next) in [(0, 2), (2, 3), (9, 10), (4, 11)] {
            Leadership::raise(dir.path(), Epoch(seen)).expect("raised");
            assert_eq!(Leadership::begin(dir.path()).expect("leads").epoch(), Epoch(next), "{seen}");
        }
    }

    /// As on a full disk: there is no place for a new file beside the old one.
    #[test]
    fn a_start_leads_where_no_new_file_can_be_made() {
        let dir = tempfile::tempdir().expect("a folder");
        Leadership::format(dir.path()).expect("formatted");
        let first = Leadership::begin(dir.path()).expect("leads");
        std::fs::create_dir_all(dir.path().join("epoch.new/in-the-way")).expect("made");
        let second = Leadership::begin(dir.path()).expect("leads");
        assert_eq!((first.epoch(), second.epoch(), second.prove()), (Epoch(1), Epoch(2), Ok(())));
    }
}
