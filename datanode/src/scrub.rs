//! What the scrub reads next and how fast. Pure.
//!
//! All replicas are read whole once in an interval, in order of their ids, one after the other: the rate is what the
//! bytes that there are need for that, within [`RATE_MIN`] and [`RATE_MAX`].

use std::time::Duration;

use distrifs_proto::types::ChunkId;

/// No slower, in bytes a second: what little there is is read soon.
const RATE_MIN: u64 = 1 << 20;
/// No faster: the disk is for users.
const RATE_MAX: u64 = 200 << 20;
/// A check that does not end (its order was lost, or its disk stands still) is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Between two replicas, or two looks at an empty folder.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the scrub is. Times are since any moment, the same for all.
#[derive(Debug)]
pub(crate) struct Scrub {
    interval: Duration,
    after: ChunkId,
    /// Bytes of the replicas before `after`, in this pass.
    passed: u64,
    pass_began: Duration,
    /// When the last whole pass began: everything was read since.
    covered_since: Option<Duration>,
    running: Option<(ChunkId, Duration)>,
    not_before: Duration,
    replicas: u64,
    bytes: u64,
    corrupt: u64,
}

/// For heartbeats and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ScrubStatus {
    pub(crate) replicas_checked: u64,
    pub(crate) bytes_checked: u64,
    pub(crate) found_corrupt: u64,
    pub(crate) oldest_unchecked: Duration,
    pub(crate) pass_permille: u32,
}

impl Scrub {
    /// Everything within `interval`, from now on; zero: nothing is read.
    pub(crate) fn new(interval: Duration, now: Duration) -> Self {
        Self {
            interval,
            after: ChunkId(0),
            passed: 0,
            pass_began: now,
            covered_since: None,
            running: None,
            not_before: now,
            replicas: 0,
            bytes: 0,
            corrupt: 0,
        }
    }

    /// When something is to be done next.
    pub(crate) fn due(&self) -> Duration {
        self.running.map_or(self.not_before, |(_, until)| until)
    }

    /// The replica to be read now, and how fast, when it is time: the first behind the last one, of `next`.
    pub(crate) fn next(
        &mut self,
        now: Duration,
        total_bytes: u64,
        next: impl Fn(ChunkId) -> Option<ChunkId>,
    ) -> Option<(ChunkId, u64)> {
        if now < self.due() {
            return None;
        }
        self.running = None;
        if self.interval.is_zero() {
            self.not_before = now + PATIENCE;
            return None;
        }
        let Some(chunk) = next(self.after) else {
            if self.after != ChunkId(0) {
                self.covered_since = Some(self.pass_began);
            }
            (self.after, self.passed, self.pass_began) = (ChunkId(0), 0, now);
            self.not_before = now + PAUSE;
            return None;
        };
        let seconds = self.interval.as_secs().max(1);
        let rate = (total_bytes / seconds).clamp(RATE_MIN, RATE_MAX);
        self.running = Some((chunk, now + PATIENCE));
        Some((chunk, rate))
    }

    /// The order could not be given: the same one a little later.
    pub(crate) fn put_off(&mut self, now: Duration) {
        self.running = None;
        self.not_before = now + PAUSE;
    }

    /// A replica was read, by whatever order.
    pub(crate) fn checked(&mut self, now: Duration, chunk: ChunkId, bytes: u64, length: u64, corrupt: bool) {
        self.replicas += 1;
        self.bytes += bytes;
        self.corrupt += u64::from(corrupt);
        if self.running.is_some_and(|(running, _)| running == chunk) {
            self.running = None;
            self.after = chunk;
            self.passed = self.passed.saturating_add(length);
            self.not_before = now + PAUSE;
        }
    }

    /// How far it is, of `total_bytes`.
    pub(crate) fn status(&self, now: Duration, total_bytes: u64) -> ScrubStatus {
        let permille = self.passed.saturating_mul(1000).checked_div(total_bytes).unwrap_or(1000).min(1000);
        ScrubStatus {
            replicas_checked: self.replicas,
            bytes_checked: self.bytes,
            found_corrupt: self.corrupt,
            // What stands last in this pass was read in the one before, or not since the start.
            oldest_unchecked: now.saturating_sub(self.covered_since.unwrap_or_default()),
            pass_permille: permille as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn everything_is_read_in_order_and_again() {
        let all: BTreeSet<ChunkId> = [3, 5, 9].map(ChunkId).into();
        let next = |after: ChunkId| all.range(ChunkId(after.0 + 1)..).next().copied();
        let mut scrub = Scrub::new(HOUR, Duration::ZERO);
        let (mut now, mut read) = (Duration::ZERO, Vec::new());
        while read.len() < 7 {
            if let Some((chunk, _)) = scrub.next(now, 300, next) {
                assert_eq!(scrub.next(now, 300, next), None, "one at a time");
                read.push(chunk.0);
                scrub.checked(now, ChunkId(1), 5, 5, false);
                assert_eq!(scrub.next(now + PAUSE, 300, next), None, "another's end is not this one's");
                scrub.checked(now, chunk, 100, 100, chunk.0 == 5);
            }
            now += PAUSE;
        }
        assert_eq!(read, [3, 5, 9, 3, 5, 9, 3]);
        let status = scrub.status(now, 300);
        assert_eq!((status.replicas_checked, status.bytes_checked, status.found_corrupt), (14, 735, 2));
        assert_eq!(status.pass_permille, 333);
        assert!(status.oldest_unchecked < now, "a whole pass was made");
    }

    #[test]
    fn the_rate_covers_everything_within_the_interval_and_its_bounds() {
        for (total, interval, rate) in [
            (0, HOUR, RATE_MIN),
            (3600 << 21, HOUR, 2 << 20),
            (u64::MAX, HOUR, RATE_MAX),
            (1 << 30, Duration::from_millis(1), RATE_MAX),
        ] {
            let mut scrub = Scrub::new(interval, Duration::ZERO);
            let next = scrub.next(Duration::ZERO, total, |_| Some(ChunkId(1)));
            assert_eq!(next, Some((ChunkId(1), rate)), "{total} bytes in {interval:?}");
        }
    }

    #[test]
    fn without_an_interval_nothing_is_read() {
        let mut scrub = Scrub::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(scrub.next(Duration::ZERO, 1, |_| Some(ChunkId(1))), None);
        assert!(scrub.due() > Duration::from_secs(60), "and nobody is woken for it");
    }

    #[test]
    fn what_is_put_off_or_never_ends_comes_again() {
        let next = |after: ChunkId| (after < ChunkId(1)).then_some(ChunkId(1));
        let mut scrub = Scrub::new(HOUR, Duration::ZERO);
        assert!(scrub.next(Duration::ZERO, 1, next).is_some());
        scrub.put_off(Duration::ZERO);
        assert_eq!(scrub.next(Duration::ZERO, 1, next), None);
        assert!(scrub.next(PAUSE, 1, next).is_some());
        assert_eq!(scrub.next(PAUSE + PATIENCE - PAUSE / 2, 1, next), None);
        assert!(scrub.next(PAUSE + PATIENCE, 1, next).is_some());
    }
}
