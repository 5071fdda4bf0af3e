//! Why a master does not start, and why a running one gave up.

use std::path::PathBuf;

use distrifs_engine::checkpoint::CheckpointError;
use distrifs_engine::log::{LogError, RecoverError};
use distrifs_proto::types::{Epoch, HostPort};

/// Why a master does not start. Each is one line that names the place.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value that no master can work with.
    #[error("{what}: {why}")]
    Config {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system refused something in the master's folder.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// Another master holds the lock.
    #[error("{}: another master leads on this folder: stop it first", path.display())]
    InUse {
        /// The lock.
        path: PathBuf,
    },
    /// A folder that holds something, but no master's identity.
    #[error("{}: not empty and not a master's folder: give an empty folder", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// A file of ours that does not read as one.
    #[error("{}: damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file written by a newer version.
    #[error("{}: written by a newer version (layout {found}, this one reads up to {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u32,
        /// The newest that is read here.
        known: u32,
    },
    /// The log is not readable to its end; nothing of it was changed.
    #[error("the log: {0}")]
    Recover(#[from] RecoverError),
    /// Checkpoints and log together are not everything that was acknowledged; nothing was changed.
    #[error("{}: {why}", path.display())]
    Refused {
        /// The folder in question.
        path: PathBuf,
        /// What is missing, what can be saved, and how.
        why: String,
    },
    /// A checkpoint cannot be read or written.
    #[error("the checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The log is read, but cannot be continued.
    #[error("the log: {0}")]
    Log(#[from] LogError),
    /// A loss was accepted as of an epoch that this start does not have: the one before was cut off in between.
    #[error(
        "{}: a data loss was accepted as of epoch {history}, but the epoch is {found}: it was raised; start the master \
         again",
        path.display()
    )]
    EpochRaised {
        /// The folder.
        path: PathBuf,
        /// As of this epoch.
        history: Epoch,
        /// The epoch of this start.
        found: Epoch,
    },
    /// A thread of the start died: a bug.
    #[error("the start broke off: {0}")]
    Broken(String),
    /// Somebody else has taken over meanwhile.
    #[error("{0}")]
    Deposed(MasterFailure),
    /// The thread that renews the lease could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: HostPort,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Why a running master gave up. The process must exit non-zero; the next start recovers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MasterFailure {
    /// The log failed under an append: what was in flight is unknown, nothing more is acknowledged.
    #[error("the log failed: {why}")]
    Log {
        /// What the log said.
        why: String,
    },
    /// The token is no longer this master's: another one leads.
    #[error("epoch {found} has taken over from {ours}")]
    Deposed {
        /// The epoch of this master.
        ours: Epoch,
        /// The one in the file now.
        found: Epoch,
    },
    /// The lease could not be renewed until it ran out: another one may lead.
    #[error("the leader's lease ran out and cannot be renewed: {why}")]
    LeaseRanOut {
        /// What was found.
        why: String,
    },
    /// The token is not there any more: leadership cannot be proved.
    #[error("leadership cannot be proved: {why}")]
    EpochUnreadable {
        /// What was found.
        why: String,
    },
    /// With [`accept_data_loss`](crate::MasterConfig::accept_data_loss): a datanode was shown this master's epoch or a
    /// higher one, by a master that this folder knows nothing of. The loss is accepted, and the next start has a higher
    /// epoch.
    #[error(
        "a datanode was shown epoch {seen} by a master that this folder (epoch {ours}) knows nothing of: the loss is \
         accepted and the epoch raised; start the master again to go on"
    )]
    EpochRaised {
        /// The epoch of this master.
        ours: Epoch,
        /// What the datanode was shown.
        seen: Epoch,
    },
    /// A task of the master ended that never should.
    #[error("{task} ended by itself: {why}")]
    Task {
        /// Which one.
        task: &'static str,
        /// What is known.
        why: String,
    },
}
