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

    /// Whether [`sync`](Self::sync) keeps both of its promises here: not every file system passes it on to what is below
    /// it (FUSE, 9p), or tells of write-backs that failed there (overlayfs), and Linux before 5.8 tells of none.
    #[must_use]
    pub fn keeps_its_word(&self) -> bool {
        match &self.kind {
            Kind::Uring(it) => it.keeps_its_word(),
            Kind::Posix(it) => it.keeps_its_word(),
            Kind::Sim(_) => true,
        }
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

/// File systems by the magic number of `statfs` whose `syncfs` writes all, flushes the device and tells of failures: ext4,
/// XFS, Btrfs, F2FS, ZFS; and tmpfs, of which nothing is to survive.
const SYNCED_WHOLE: [i64; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0x0102_1994];
/// The first Linux whose `syncfs` tells of write-backs that failed.
const TELLS_SINCE: (u32, u32) = (5, 8);

/// Whether a sync of a file system of this kind is to be relied on, under a kernel of this release (`6.18.5-amd64`).
pub(super) fn is_relied_on(magic: i64, release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    SYNCED_WHOLE.contains(&magic) && (next(), next()) >= TELLS_SINCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_sync_whole_and_to_tell_is_relied_on() {
        for (magic, release, expected) in [
            (0xef53, "6.18.5-amd64", true),
            (0xef53, "5.8.0", true),
            (0xef53, "5.7.19", false),
            (0xef53, "4.19.0-27", false),
            (0xef53, "10.0", true),
            (0xef53, "", false),
            (0x5846_5342, "6.1", true),
            // FUSE, 9p, overlayfs, NFS.
            (0x6573_5546, "6.18.5", false),
            (0x0102_1997, "6.18.5", false),
            (0x794c_7630, "6.18.5", false),
            (0x6969, "6.18.5", false),
        ] {
            assert_eq!(is_relied_on(magic, release), expected, "{magic:x} {release}");
        }
    }
}
