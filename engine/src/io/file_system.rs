//! [`FileSystem`]: everything on a file system made durable at once, over any body.

use std::io;

use super::{posix, sim, uring};

/// An open file system.
pub struct FileSystem {
    kind: Kind,
}

enum Kind {
    Uring(uring::UringFileSystem),
    Posix(posix::PosixFileSystem),
    Sim(sim::SimFileSystem),
}

impl FileSystem {
    pub(super) fn uring(it: uring::UringFileSystem) -> Self {
        Self { kind: Kind::Uring(it) }
    }

    pub(super) fn posix(it: posix::PosixFileSystem) -> Self {
        Self { kind: Kind::Posix(it) }
    }

    pub(super) fn sim(it: sim::SimFileSystem) -> Self {
        Self { kind: Kind::Sim(it) }
    }

    /// Makes everything durable that was written or renamed on it before: every file, every name.
    ///
    /// # Errors
    /// As the system says. A write-back of any of its files that failed **since it was opened** is told, once: open
    /// it before the first write that counts, and do not try again. (Linux before 5.8 does not tell.)
    pub async fn sync(&self) -> io::Result<()> {
        match &self.kind {
            Kind::Uring(it) => it.sync().await,
            Kind::Posix(it) => it.sync().await,
            Kind::Sim(it) => it.sync().await,
        }
    }
}
