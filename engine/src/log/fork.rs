//! Forking the log: taking it over from a writer that may still live.
//!
//! A leader that was replaced may be stopped in the middle of anything: of a write to the segment in use, of the header
//! of the next one, of a rename, of an unlink, all of them in the folder where its log is. It acknowledges nothing more,
//! since it proves its epoch after each sync, but nothing can keep it from going on where it stopped. So the new leader
//! goes where the old one does not reach, a folder with new files:
//! - Of the segments that it takes along, only the last was ever to be written again. That one is copied, from the bytes
//!   that were read and up to the end of the last whole group. Nobody writes to the others, ever: they get a second name
//!   in the fork, which unlinking the first one leaves alone.
//! - The segment that was made ready stays behind: the old writer may write its header.
//! - The fork is built under a temporary name, read back as a whole, synced, and renamed: it is the log from then on, or
//!   nothing.
//!
//! So the newest fork holds all that was ever acknowledged. Whoever makes one reads after its epoch was made known, when
//! no older leader acknowledges anything any more. A newer leader makes a newer fork, or goes on in place, and that is
//! refused to it while somebody makes a fork: see [`Home`](super::home::Home).
//!
//! Nothing in the old log is changed before. What it has left behind is removed afterwards; the old writer that comes
//! back finds its segments gone or writes into what nobody reads.

use std::io;
use std::path::Path;
use std::time::Duration;

use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use super::error::{RecoverError, ReplayError};
use super::format::{WITNESS_NAME, fork_name, segment_name, unfinished_fork_name};
use super::home::{empty, folder_of, newest_fork, remove_remains, remove_whole, unfinished};
use super::prepare::{prepare_segment, write_witness};
use super::recovery::{CutTail, Recovered, Replay, check, failed, open_root, recover_folder};
use crate::folder::{Folder, FolderLock};

/// How often a log is read again that does not look sound: the old writer may be in the middle of a write or of
/// letting go of segments. It has no more than one of each on its way.
pub(super) const REREADS_MAX: u32 = 8;
/// The rest before it is read again.
const REREAD_AFTER: Duration = Duration::from_millis(50);

/// Says whether the caller still leads; an error ends the fork.
pub type Prove<'a> = dyn FnMut() -> Result<(), ReplayError> + 'a;

/// Reads the log of `cluster` in `dir` as [`recover`](super::recover) does, but without regard for whoever may still
/// write it, and continues it in a fork of its own, named after `epoch`, that the old writer cannot reach. From when
/// this returns the fork is the log for everybody. It takes as much room on the disk as one segment, where the file
/// system has hard links; it blocks, and keeps two segments in memory at a time.
///
/// The caller leads in `epoch`, and has made that known durably, so that the old writer acknowledges nothing more.
/// `prove` is called once, before anything is read, and must say whether that still holds: by then the fork is locked,
/// so that a later leader sees it or this proof fails. Otherwise a leader that was replaced in the middle of a fork
/// could finish it later, beneath the one that continued the old log.
///
/// `replay` gets exactly the records that are in the fork. A write of the old writer that is not whole is left out.
///
/// # Errors
/// As [`recover`](super::recover), without [`RecoverError::InUse`] for the old writer. [`RecoverError::StaleFork`] when
/// a fork of this or a newer epoch is there; [`RecoverError::NotLeading`] when the proof failed. The old log is as it
/// was, and what was built is removed again.
pub fn recover_forked(
    dir: &Path,
    cluster: ClusterId,
    after: Lsn,
    epoch: Epoch,
    prove: &mut Prove<'_>,
    replay: &mut Replay<'_>,
) -> Result<Recovered, RecoverError> {
    let mut rest = || std::thread::sleep(REREAD_AFTER);
    let forking = Forking { root: open_root(dir)?, cluster, after, epoch };
    forking.run(prove, &mut rest, replay)
}

/// A fork to be made.
pub(super) struct Forking {
    pub(super) root: Folder,
    pub(super) cluster: ClusterId,
    pub(super) after: Lsn,
    pub(super) epoch: Epoch,
}

impl Forking {
    /// As [`recover_forked`]; `rest` waits for a while.
    pub(super) fn run(
        &self,
        prove: &mut Prove<'_>,
        rest: &mut dyn FnMut(),
        replay: &mut Replay<'_>,
    ) -> Result<Recovered, RecoverError> {
        let lock = self.begin()?;
        let name = unfinished_fork_name(self.epoch);
        let made = self.make(prove, rest, replay).and_then(|recovered| {
            let renamed = self.root.rename(&name, &fork_name(self.epoch));
            renamed.map_err(failed(&self.root, &name, "rename")).map(|()| recovered)
        });
        let recovered = match made {
            Ok(recovered) => recovered,
            Err(error) => {
                // A full disk gets its room back. What stays is removed by the next recovery.
                let _ = remove_whole(&self.root, &name);
                return Err(error);
            }
        };
        self.root.sync_folder().map_err(failed(&self.root, "", "sync"))?;
        self.check_newest()?;
        remove_remains(&self.root, Some(self.epoch), &[]);
        let home = folder_of(&self.root, Some(self.epoch)).path().to_owned();
        let dir = self.root.path().to_owned();
        Ok(Recovered { dir, home, fork: Some(self.epoch), lock: Some(lock), ..recovered })
    }

    /// Makes the fork's folder and locks it.
    fn begin(&self) -> Result<FolderLock, RecoverError> {
        let root = &self.root;
        if let Some(found) = newest_fork(root)?
            && found >= self.epoch
        {
            return Err(self.stale(found));
        }
        // Before anything is made, since they may take the room that is needed. Those of newer epochs are not ours to
        // judge: if somebody is just beginning one, its lock is not there yet.
        let (mut abandoned, living) = unfinished(root)?;
        abandoned.retain(|unfinished| unfinished.epoch <= self.epoch);
        remove_remains(root, None, &abandoned);
        drop(abandoned);
        let name = unfinished_fork_name(self.epoch);
        let in_use = || RecoverError::InUse { dir: root.path().to_owned() };
        match root.create_folder(&name) {
            Err(error) if living && error.kind() == io::ErrorKind::AlreadyExists => return Err(in_use()),
            made => made.map_err(failed(root, &name, FORKING))?,
        }
        root.within(&name).lock().map_err(failed(root, &name, "lock"))?.ok_or_else(in_use)
    }

    /// Fills the fork, syncs it and hands out what is in it.
    fn make(
        &self,
        prove: &mut Prove<'_>,
        rest: &mut dyn FnMut(),
        replay: &mut Replay<'_>,
    ) -> Result<Recovered, RecoverError> {
        let dir = || self.root.path().to_owned();
        prove().map_err(|source| RecoverError::NotLeading { dir: dir(), source })?;
        let fork = self.root.within(&unfinished_fork_name(self.epoch));
        let mut rereads = 0;
        let (cut, last_lsn) = loop {
            match self.fill(&fork) {
                Err(error) if rereads < REREADS_MAX && may_pass(&error) => {
                    tracing::info!(%error, rereads, "the log that is to be forked is read again");
                    empty(&fork).map_err(failed(&fork, "", "empty"))?;
                    rereads += 1;
                    rest();
                }
                filled => break filled?,
            }
        };
        let recovered = recover_folder(&fork.regardless_of_locks(), self.cluster, self.after, replay)?;
        assert_eq!(recovered.last_lsn(), last_lsn, "the fork holds what was read, no more and no less");
        fork.sync_folder().map_err(failed(&fork, "", "sync"))?;
        Ok(Recovered { cut, ..recovered })
    }

    /// Reads the log where it is now, and makes the files of the fork from it. Returns what was left out at its end, and
    /// its last record.
    ///
    /// Another leader that was replaced may finish a fork late, and remove what it has forked, while that is read here:
    /// half of it looks as sound as the whole. Its fork is finished before it removes anything, so that it is seen.
    fn fill(&self, fork: &Folder) -> Result<(Option<CutTail>, Lsn), RecoverError> {
        let newest = self.check_older()?;
        let end = self.copy(&folder_of(&self.root, newest).regardless_of_locks(), fork)?;
        match self.check_older()? == newest {
            true => Ok(end),
            false => Err(RecoverError::InUse { dir: self.root.path().to_owned() }),
        }
    }

    fn copy(&self, source: &Folder, fork: &Folder) -> Result<(Option<CutTail>, Lsn), RecoverError> {
        let sound = check(source, self.cluster, self.after)?;
        if sound.epoch > self.epoch {
            return Err(self.stale(sound.epoch));
        }
        let tail = sound.tail;
        let end = (sound.cut, sound.end.last_lsn);
        let Some(active) = tail.active else {
            // It has no records. One that is ready says that it exists all the same.
            if let Some((sequence, bytes)) = tail.unused {
                let name = segment_name(sequence);
                prepare_segment(fork, sequence, bytes).map_err(failed(fork, &name, FORKING))?;
            }
            return Ok(end);
        };
        for sealed in tail.kept.iter().filter(|segment| segment.sequence != active.sequence) {
            let name = segment_name(sealed.sequence);
            take_along(source, &name, sealed.bytes, fork)?;
        }
        let name = segment_name(active.sequence);
        let mut bytes = sound.active_bytes.expect("the reader keeps the segment that it says is in use");
        bytes.truncate(usize::try_from(active.end).expect("a segment fits in memory: see limits"));
        let copied = fork.create_zeroed(&name, active.bytes).and_then(|()| {
            fork.write_durably(&name, &bytes, 0)?;
            fork.sync(&name)
        });
        copied.map_err(failed(fork, &name, FORKING))?;
        write_witness(fork, &sound.end).map_err(failed(fork, WITNESS_NAME, FORKING))?;
        Ok(end)
    }

    /// The newest fork, which is an older one.
    fn check_older(&self) -> Result<Option<Epoch>, RecoverError> {
        match newest_fork(&self.root)? {
            Some(found) if found >= self.epoch => Err(self.stale(found)),
            older => Ok(older),
        }
    }

    /// No newer fork has come meanwhile.
    fn check_newest(&self) -> Result<(), RecoverError> {
        match newest_fork(&self.root)? {
            Some(found) if found > self.epoch => Err(self.stale(found)),
            _ => Ok(()),
        }
    }

    fn stale(&self, found: Epoch) -> RecoverError {
        RecoverError::StaleFork { dir: self.root.path().to_owned(), asked: self.epoch, found }
    }
}

/// What was tried, for messages.
const FORKING: &str = "fork the log to";

/// Has a segment that is written no more in the fork as well.
fn take_along(source: &Folder, name: &str, bytes: u64, fork: &Folder) -> Result<(), RecoverError> {
    match source.link(name, fork) {
        Err(error) if has_no_links(&error) => {
            let most = usize::try_from(bytes).expect("a segment fits in memory: see limits");
            let content = source.read(name, most).map_err(failed(source, name, "read"))?;
            let copied = fork.create_zeroed(name, bytes).and_then(|()| fork.write_durably(name, &content, 0));
            copied.map_err(failed(fork, name, FORKING))?;
        }
        linked => linked.map_err(failed(fork, name, FORKING))?,
    }
    fork.sync(name).map_err(failed(fork, name, FORKING))
}

/// Whether a second name is not to be had here, or not for this file.
fn has_no_links(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

/// Whether a reading may be better the next time: torn by a write, or by files that went meanwhile.
fn may_pass(error: &RecoverError) -> bool {
    match error {
        RecoverError::Corrupt { .. } | RecoverError::MissingSegment { .. } | RecoverError::InUse { .. } => {
            true
        }
        RecoverError::Io { source, .. } => {
            matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}
