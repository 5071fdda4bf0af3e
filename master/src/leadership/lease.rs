//! The leader's lease: a file that the leader writes again and again, so that one that is stopped is noticed.
//!
//! ```text
//! magic "DFSLEASE" | version u32 = 1 | 0 u32 | epoch u64 | renewals u64 | milliseconds u64 | CRC32C u32 of all before
//! ```
//! (little-endian, 44 bytes, written over in place: a reader that meets half of it takes it for a change.)
//!
//! No clock is compared with another: the leader counts from *before* it writes, the others from when they first *saw*
//! what it wrote, each by its own clock, which goes on while the machine sleeps. So the leader's time is over before that
//! of anybody who watches it. (Gray, Cheriton: "Leases", 1989.) The lease never decides about a change: that is the
//! [`token`](super::token)'s. It bounds for how long a leader that was replaced may answer reads.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use distrifs_proto::types::{Crc32c, Epoch};
use rustix::time::{ClockId, clock_gettime};

use crate::error::StartError;
use crate::folder::read_small;

const MAGIC: &[u8; 8] = b"DFSLEASE";
const VERSION: u32 = 1;
const BYTES: usize = 44;
/// The part of a lease by which a watcher waits longer than its holder may believe in it.
const MARGIN: u32 = 4;
/// How often the lease is written, in parts of its length.
pub(super) const RENEWALS_PER_LEASE: u32 = 4;

/// Time that goes on while a process is stopped and while the machine sleeps, from an unknown start on.
pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// What a renewal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) epoch: Epoch,
    /// Grows with each renewal.
    pub(super) renewals: u64,
    /// Zero: there is no lease, and only the lock says when the leader is gone.
    pub(super) length: Duration,
}

impl Lease {
    fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.renewals.to_le_bytes());
        let ms = u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX);
        bytes[32..40].copy_from_slice(&ms.to_le_bytes());
        let crc = Crc32c::of(&bytes[..BYTES - 4]);
        bytes[BYTES - 4..].copy_from_slice(&crc.0.to_le_bytes());
        bytes
    }

    /// `None` for what is not one that is known here: half of one, damage, a newer version.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let length = Duration::from_millis(number(32)?);
        let lease = Self { epoch: Epoch(number(16)?), renewals: number(24)?, length };
        (*bytes == lease.encode()).then_some(lease)
    }

    /// Writes it so that others see it. It is not synced: after a power cut nobody leads.
    ///
    /// # Errors
    /// [`StartError::Folder`].
    pub(super) fn write(&self, data_dir: &Path) -> Result<(), StartError> {
        let path = path(data_dir);
        let written = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(&self.encode(), 0));
        written.map_err(|source| StartError::Folder { path, doing: "renew the lease", source })
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("lease")
}

/// What a watcher sees: whose token is there, and the bytes of the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) token: Option<Epoch>,
    lease: Option<Vec<u8>>,
}

impl Sight {
    /// Looks.
    ///
    /// # Errors
    /// As the folder has it.
    pub(crate) fn of(data_dir: &Path) -> Result<Self, StartError> {
        Ok(Self { token: super::token::find(data_dir)?, lease: read_small(&path(data_dir))? })
    }

    /// Whether the lease was written again after `before`.
    pub(crate) fn is_renewal_of(&self, before: &Self) -> bool {
        self.lease != before.lease
    }

    fn length(&self) -> Option<Duration> {
        let lease = Lease::decode(self.lease.as_deref()?)?;
        (!lease.length.is_zero()).then_some(lease.length)
    }

    /// For how long a leader may still believe in what was seen, from the sight of it on.
    pub(crate) fn believed(&self) -> Duration {
        self.length().map_or(Duration::ZERO, |length| length + length / MARGIN)
    }
}

/// Watches a lease. Pure: sights and time in.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// What was seen last, since when it is the same, and when it was looked at last.
    seen: Option<(Sight, Duration, Duration)>,
}

impl Watch {
    /// Takes in what is seen at `now`, and says whether the lease has run out: neither it nor the token has changed for
    /// its length and a margin, and this watcher was awake all the while. Who was stopped itself has seen nothing, and
    /// begins again: the leader may have been stopped by the same hand.
    pub(crate) fn look(&mut self, now: Duration, sight: Sight) -> bool {
        let Some((seen, since, looked)) = &mut self.seen else {
            self.seen = Some((sight, now, now));
            return false;
        };
        let length = sight.length();
        let asleep = length.is_some_and(|length| now.saturating_sub(*looked) > length / MARGIN);
        if *seen != sight || asleep {
            self.seen = Some((sight, now, now));
            return false;
        }
        *looked = now;
        length.is_some() && now.saturating_sub(*since) > sight.believed()
    }
}

/// Until when a leader may answer, by its own clock. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    /// Nanoseconds of [`now`].
    until: Arc<AtomicU64>,
}

impl Authority {
    /// Of a leader without a lease: it never ends by itself.
    pub(crate) fn unbounded() -> Self {
        Self { until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Of a leader that is to [`extend`](Self::extend) it.
    pub(super) fn over() -> Self {
        Self { until: Arc::new(AtomicU64::new(0)) }
    }

    /// It holds until `until`.
    pub(super) fn extend(&self, until: Duration) {
        self.until.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Whether it still holds.
    pub(crate) fn holds(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == u64::MAX || now() < Duration::from_nanos(until)
    }
}

/// Tells a folder's watchers that its leader has no lease.
///
/// # Errors
/// [`StartError::Folder`].
pub(super) fn give_up(data_dir: &Path, epoch: Epoch) -> Result<(), StartError> {
    match std::fs::metadata(path(data_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Lease { epoch, renewals: 0, length: Duration::ZERO }.write(data_dir),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(8);
    const LEASE: Lease = Lease { epoch: Epoch(3), renewals: 7, length: LENGTH };

    #[test]
    fn the_bytes_of_version_1_and_damage() {
        let bytes = LEASE.encode();
        let golden = *b"DFSLEASE\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x40\x1f\0\0\0\0\0\0";
        assert_eq!(bytes[..40], golden);
        assert_eq!(Lease::decode(&bytes), Some(LEASE));
        for at in 0..BYTES {
            let mut flipped = bytes;
            flipped[at] ^= 1;
            assert_eq!(Lease::decode(&flipped), None, "byte {at}");
            assert_eq!(Lease::decode(&bytes[..at]), None, "length {at}");
        }
    }

    #[test]
    fn a_lease_is_seen_as_it_was_written_and_one_that_was_given_up_has_no_length() {
        let dir = tempfile::tempdir().expect("a folder");
        let nothing = Sight::of(dir.path()).expect("looked");
        assert_eq!(nothing, Sight { token: None, lease: None });
        give_up(dir.path(), Epoch(1)).expect("nothing to do");
        assert_eq!(Sight::of(dir.path()).expect("looked"), nothing);
        LEASE.write(dir.path()).expect("written");
        assert_eq!(Sight::of(dir.path()).expect("looked").length(), Some(LENGTH));
        give_up(dir.path(), Epoch(4)).expect("written");
        assert_eq!(Sight::of(dir.path()).expect("looked").length(), None);
    }

    /// One second after the other; what the watcher sees at each, and after which it says that the lease ran out.
    #[test]
    fn a_lease_runs_out_when_nothing_changes_for_its_length_and_a_margin() {
        let sight = |token: u64, renewals: u64| Sight {
            token: Some(Epoch(token)),
            lease: Some(Lease { renewals, ..LEASE }.encode().to_vec()),
        };
        let none = Sight { token: Some(Epoch(3)), lease: None };
        let torn = Sight { lease: Some(vec![1; BYTES]), ..none };
        let off = Lease { length: Duration::ZERO, ..LEASE }.encode().to_vec();
        let off = Sight { lease: Some(off), ..none };
        type At = fn(u64) -> u64;
        let same: At = |_| 0;
        let every_second: At = |second| second;
        let until_five: At = |second| second.min(5);
        let renewals = |at: At| (0..40).map(|second| sight(3, at(second))).collect::<Vec<_>>();
        let mut taken_over = renewals(same);
        taken_over[6..].fill(sight(4, 0));
        let cases: [(&str, Vec<Sight>, Option<u64>); 7] = [
            ("renewed", renewals(every_second), None),
            ("never again", renewals(same), Some(11)),
            ("renewed for five seconds", renewals(until_five), Some(16)),
            ("somebody else claims at six", taken_over, Some(17)),
            ("no lease", vec![none; 40], None),
            ("damaged", vec![torn; 40], None),
            ("given up", vec![off; 40], None),
        ];
        for (name, sights, expected) in cases {
            let mut watch = Watch::default();
            let out = (0..)
                .zip(sights)
                .find(|(second, sight)| watch.look(Duration::from_secs(100 + second), sight.clone()));
            assert_eq!(out.map(|(second, _)| second), expected, "{name}");
        }
    }

    #[test]
    fn a_watcher_that_slept_begins_again() {
        let sight = Sight { token: Some(Epoch(3)), lease: Some(LEASE.encode().to_vec()) };
        let mut watch = Watch::default();
        for at in [0, 1, 60, 61, 70, 71, 72, 74, 76, 78, 79] {
            assert!(!watch.look(Duration::from_secs(at), sight.clone()), "at {at}");
        }
        assert!(watch.look(Duration::from_secs(81), sight));
    }

    #[test]
    fn authority_ends_by_itself() {
        assert!(Authority::unbounded().holds());
        let authority = Authority::over();
        assert!(!authority.holds());
        authority.extend(now() + Duration::from_secs(3600));
        assert!(authority.holds());
        authority.extend(now());
        assert!(!authority.holds());
    }
}
