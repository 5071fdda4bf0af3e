//! What the scrub reads next, when and how fast. Pure.
//!
//! All replicas are read whole, in order of their ids, one after the other and then again, so that none is left unread
//! for longer than the interval. A pass has two thirds of the interval, and each replica a time on that way. It is read
//! before while users are away, up to a quarter of the interval; where they never are, at its time. So a replica is
//! read again at the latest 11/12 of the interval later; the rest is for what goes wrong.
//!
//! The bytes that are still to be read are counted anew each time: chunks come and go during a pass.

use std::time::Duration;

use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_proto::types::ChunkId;

use crate::pace::{Pace, RATE_MAX, RATE_MIN, time_for};

/// How much faster than needed it may be while users are away.
const ALONE_FACTOR: u64 = 4;
/// A check that does not end (its order was lost, or its disk stands still) is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Between two looks at a folder that is empty or read far enough, or at users who are busy.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the scrub is. Times are since any moment, the same for all.
#[derive(Debug)]
pub(crate) struct Scrub {
    interval: Duration,
    after: ChunkId,
    pass_began: Duration,
    /// When it is to be over.
    deadline: Duration,
    /// When the last whole pass began: everything was read since.
    covered_since: Option<Duration>,
    running: Option<Running>,
    not_before: Duration,
    replicas: u64,
    bytes: u64,
    corrupt: u64,
}

/// The replica that is being read.
#[derive(Debug, Clone, Copy)]
struct Running {
    chunk: ChunkId,
    began: Duration,
    /// Bytes a second.
    rate: u64,
    /// The least time from its end to the next one.
    pause: Duration,
}

/// The bytes of a node's replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Of all.
    pub(crate) total: u64,
    /// Of those behind [`Scrub::after`].
    pub(crate) unread: u64,
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
            pass_began: now,
            deadline: now + pass_of(interval),
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
        self.running.map_or(self.not_before, |running| running.began + PATIENCE)
    }

    /// The last replica that was read in this pass.
    pub(crate) fn after(&self) -> ChunkId {
        self.after
    }

    /// The replica to be read now, and how fast, when it is time: the first behind the last one, of `next`. `quiet`:
    /// users are away.
    pub(crate) fn next(
        &mut self,
        now: Duration,
        quiet: bool,
        volume: Volume,
        next: impl Fn(ChunkId) -> Option<ChunkId>,
    ) -> Option<(ChunkId, Pace)> {
        if now < self.due() {
            return None;
        }
        self.running = None;
        self.not_before = now + PAUSE;
        if self.interval.is_zero() {
            self.not_before = now + PATIENCE;
            return None;
        }
        let Some(chunk) = next(self.after) else {
            if self.after != ChunkId(0) {
                self.covered_since = Some(self.pass_began);
            }
            self.after = ChunkId(0);
            self.pass_began = now;
            self.deadline = self.deadline.clamp(now, now + lead_of(self.interval)) + pass_of(self.interval);
            return None;
        };
        let unread = (volume.unread as f64 / volume.total.max(1) as f64).min(1.0);
        let mut slack = self.deadline.saturating_sub(now + pass_of(self.interval).mul_f64(unread));
        // Further ahead does not count: the turn of what is read now comes again a pass after this one.
        let excess = slack.saturating_sub(lead_of(self.interval));
        self.deadline -= excess;
        slack -= excess;
        if !quiet && !slack.is_zero() {
            return None;
        }
        let left = self.deadline.saturating_sub(now).as_secs_f64();
        let needed = ((volume.unread as f64 / left) as u64).clamp(1, RATE_MAX);
        // As far ahead as is of use: slowly, so that what is little is read often all the same.
        let ahead = !excess.is_zero();
        let alone = if ahead { RATE_MIN } else { (needed * ALONE_FACTOR).clamp(RATE_MIN, RATE_MAX) };
        let rate = if quiet { alone } else { needed.max(RATE_MIN) };
        let pause = if ahead { PAUSE } else { Duration::ZERO };
        self.running = Some(Running { chunk, began: now, rate, pause });
        Some((chunk, Pace { slack, needed, alone }))
    }

    /// The order could not be given: the same one a little later.
    pub(crate) fn put_off(&mut self, now: Duration) {
        self.running = None;
        self.not_before = now + PAUSE;
    }

    /// A replica was read, by whatever order.
    pub(crate) fn checked(&mut self, now: Duration, chunk: ChunkId, bytes: u64, corrupt: bool) {
        self.replicas += 1;
        self.bytes += bytes;
        self.corrupt += u64::from(corrupt);
        if let Some(running) = self.running.take_if(|running| running.chunk == chunk) {
            self.after = chunk;
            // The pieces of a large one kept their pace themselves.
            let piece = bytes.min(FRAME_PAYLOAD_BYTES_MAX as u64);
            self.not_before = (running.began + time_for(piece, running.rate)).max(now + running.pause);
        }
    }

    /// How far it is.
    pub(crate) fn status(&self, now: Duration, volume: Volume) -> ScrubStatus {
        let read = volume.total.saturating_sub(volume.unread);
        let permille = read.saturating_mul(1000).checked_div(volume.total).unwrap_or(1000).min(1000);
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

/// What a pass may take.
fn pass_of(interval: Duration) -> Duration {
    interval * 2 / 3
}

/// How far ahead of its time a replica may be read.
fn lead_of(interval: Duration) -> Duration {
    interval / 4
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Bound;

    use distrifs_proto::SplitMix;

    use super::*;
    use crate::pace::{Load, Progress, Quiet};

    const HOUR: Duration = Duration::from_secs(3600);
    const MIB: u64 = 1 << 20;
    const BUSY: bool = false;
    const QUIET: bool = true;

    /// Replicas and their lengths.
    type Replicas = BTreeMap<ChunkId, u64>;

    fn next_of(all: &Replicas) -> impl Fn(ChunkId) -> Option<ChunkId> {
        |after| all.range((Bound::Excluded(after), Bound::Unbounded)).next().map(|(chunk, _)| *chunk)
    }

    fn volume_of(all: &Replicas, scrub: &Scrub) -> Volume {
        let unread = all.range((Bound::Excluded(scrub.after()), Bound::Unbounded)).map(|(_, length)| length);
        Volume { total: all.values().sum(), unread: unread.sum() }
    }

    #[test]
    fn everything_is_read_in_order_and_again() {
        let all: Replicas = [3, 5, 9].map(|id| (ChunkId(id), 100)).into();
        let mut scrub = Scrub::new(HOUR, Duration::ZERO);
        let (mut now, mut read) = (Duration::ZERO, Vec::new());
        while read.len() < 7 {
            let volume = volume_of(&all, &scrub);
            if let Some((chunk, _)) = scrub.next(now, QUIET, volume, next_of(&all)) {
                assert_eq!(scrub.next(now, QUIET, volume, next_of(&all)), None, "one at a time");
                read.push(chunk.0);
                scrub.checked(now, ChunkId(1), 5, false);
                let later = now + PAUSE;
                assert_eq!(
                    scrub.next(later, QUIET, volume, next_of(&all)),
                    None,
                    "another's end is not this one's"
                );
                scrub.checked(now, chunk, 100, chunk.0 == 5);
            }
            now += PAUSE;
        }
        assert_eq!(read, [3, 5, 9, 3, 5, 9, 3]);
        let status = scrub.status(now, volume_of(&all, &scrub));
        assert_eq!((status.replicas_checked, status.bytes_checked, status.found_corrupt), (14, 735, 2));
        assert_eq!(status.pass_permille, 333);
        assert!(status.oldest_unchecked < now, "a whole pass was made");
    }

    #[test]
    fn when_and_how_fast() {
        // A pass of 1200 s, and 450 s ahead at most.
        let interval = Duration::from_secs(1800);
        let (total, seconds) = (1200 * MIB, Duration::from_secs);
        for (read, at, quiet, expected, what) in [
            (0, 0, BUSY, Some((0, MIB, 4 * MIB)), "the schedule begins at once"),
            (
                0,
                400,
                BUSY,
                Some((0, 3 * MIB / 2, 6 * MIB)),
                "late: faster, to be done in time, whoever is busy",
            ),
            (0, 400, QUIET, Some((0, 3 * MIB / 2, 6 * MIB)), "and faster still while nobody is there"),
            (600, 1190, BUSY, Some((0, 60 * MIB, RATE_MAX)), "never faster than the maximum"),
            (600, 9000, BUSY, Some((0, RATE_MAX, RATE_MAX)), "even after its time"),
            (600, 300, BUSY, None, "early: users first"),
            (600, 599, BUSY, None, "as long as it is early"),
            (600, 600, BUSY, Some((0, MIB, 4 * MIB)), "and no longer"),
            (
                600,
                300,
                QUIET,
                Some((300, 2 * MIB / 3, 4 * (2 * MIB / 3))),
                "early, and nobody there: further ahead",
            ),
            (600, 150, QUIET, Some((450, 600 * MIB / 1050, 4 * (600 * MIB / 1050))), "as far as is of use"),
            (600, 0, QUIET, Some((450, 600 * MIB / 1050, MIB)), "beyond that slowly"),
            (600, 0, BUSY, None, "and never beside users"),
            (1200, 1100, BUSY, None, "nothing but empty replicas is left: no hurry"),
            (1200, 1200, BUSY, Some((0, 1, MIB)), "until the pass is to be over"),
        ] {
            let mut scrub = Scrub::new(interval, Duration::ZERO);
            let volume = Volume { total, unread: total - read * MIB };
            let found = scrub.next(seconds(at), quiet, volume, |_| Some(ChunkId(1)));
            let expected = expected
                .map(|(slack, needed, alone)| (ChunkId(1), Pace { slack: seconds(slack), needed, alone }));
            assert_eq!(found, expected, "{read} MiB read at {at} s: {what}");
        }
    }

    #[test]
    fn rates_have_their_bounds() {
        for (total, interval, needed, alone) in [
            (0, HOUR, 1, RATE_MIN),
            (2400 << 20, HOUR, MIB, 4 * MIB),
            (u64::MAX, HOUR, RATE_MAX, RATE_MAX),
            (1 << 30, Duration::from_millis(1), RATE_MAX, RATE_MAX),
        ] {
            let mut scrub = Scrub::new(interval, Duration::ZERO);
            let volume = Volume { total, unread: total };
            let (_, pace) = scrub.next(Duration::ZERO, QUIET, volume, |_| Some(ChunkId(1))).unwrap();
            assert_eq!((pace.needed, pace.alone), (needed, alone), "{total} bytes in {interval:?}");
        }
    }

    #[test]
    fn without_an_interval_nothing_is_read() {
        let mut scrub = Scrub::new(Duration::ZERO, Duration::ZERO);
        let volume = Volume { total: 1, unread: 1 };
        assert_eq!(scrub.next(Duration::ZERO, QUIET, volume, |_| Some(ChunkId(1))), None);
        assert!(scrub.due() > Duration::from_secs(60), "and nobody is woken for it");
    }

    #[test]
    fn what_is_put_off_or_never_ends_comes_again() {
        let next = |after: ChunkId| (after < ChunkId(1)).then_some(ChunkId(1));
        let volume = Volume { total: 1, unread: 1 };
        let mut scrub = Scrub::new(HOUR, Duration::ZERO);
        assert!(scrub.next(Duration::ZERO, QUIET, volume, next).is_some());
        scrub.put_off(Duration::ZERO);
        assert_eq!(scrub.next(Duration::ZERO, QUIET, volume, next), None);
        assert!(scrub.next(PAUSE, QUIET, volume, next).is_some());
        assert_eq!(scrub.next(PAUSE + PATIENCE - PAUSE / 2, QUIET, volume, next), None);
        assert!(scrub.next(PAUSE + PATIENCE, QUIET, volume, next).is_some());
    }

    /// A node on a disk that reads a piece in 10 ms.
    struct Node<L> {
        scrub: Scrub,
        replicas: Replicas,
        quiet: Quiet,
        now: Duration,
        /// Whether users are busy at a time.
        busy: L,
        /// When each replica was read last, or came.
        read: BTreeMap<ChunkId, Duration>,
        /// The longest that one went unread.
        longest: Duration,
        /// Bytes read while users were busy, and while they were away.
        beside_users: u64,
        alone: u64,
    }

    impl<L: Fn(Duration) -> bool> Node<L> {
        fn new(interval: Duration, lengths: impl IntoIterator<Item = u64>, busy: L) -> Self {
            let replicas: Replicas = (1..).map(ChunkId).zip(lengths).collect();
            Self {
                scrub: Scrub::new(interval, Duration::ZERO),
                read: replicas.keys().map(|&chunk| (chunk, Duration::ZERO)).collect(),
                replicas,
                quiet: Quiet::default(),
                now: Duration::ZERO,
                busy,
                longest: Duration::ZERO,
                beside_users: 0,
                alone: 0,
            }
        }

        fn look(&mut self) -> bool {
            let in_flight = u64::from((self.busy)(self.now));
            self.quiet.look(self.now, Load { in_flight, seen: 0 })
        }

        /// Lets time pass. Who waits looks at users seldom, so that months pass in a moment.
        fn run_until(&mut self, end: Duration) {
            let look = self.scrub.interval / 1000;
            while self.now < end {
                let (quiet, volume) = (self.look(), volume_of(&self.replicas, &self.scrub));
                let next = self.scrub.next(self.now, quiet, volume, next_of(&self.replicas));
                let Some((chunk, pace)) = next else {
                    self.now = self.scrub.due().max(self.now + look);
                    continue;
                };
                let (began, length, mut progress) = (self.now, self.replicas[&chunk], Progress::default());
                while progress.bytes < length {
                    let quiet = self.look();
                    let wait = pace.wait(self.now - began, &progress, quiet);
                    if !wait.is_zero() {
                        self.now += wait.min(look);
                        continue;
                    }
                    let piece = MIB.min(length - progress.bytes);
                    *(if (self.busy)(self.now) { &mut self.beside_users } else { &mut self.alone }) += piece;
                    progress.bytes += piece;
                    progress.last = (self.now - began, piece);
                    self.now += Duration::from_millis(10);
                }
                self.scrub.checked(self.now, chunk, length, false);
                let before = self.read.insert(chunk, self.now).unwrap();
                self.longest = self.longest.max(self.now - before);
            }
            let oldest = self.read.values().min().unwrap();
            self.longest = self.longest.max(self.now - *oldest);
        }
    }

    /// Some number for a seed and a step.
    fn some(seed: u64, step: u64) -> u64 {
        SplitMix::new(seed << 32 | step).next()
    }

    #[test]
    fn nothing_is_unread_for_longer_than_the_interval_whatever_users_do() {
        for seed in 0..45 {
            let interval = [HOUR / 2, 5 * HOUR, 100 * HOUR][seed as usize % 3];
            let lengths = (0..100).map(|n| match some(seed, n) % 4 {
                0 => 4096,
                1 => some(seed, n + 1000) % MIB,
                _ => some(seed, n + 1000) % (64 * MIB),
            });
            // Users come and go for an eighth of the interval, a minute, or a second, in this many of 4 cases.
            let (span, share) = ([interval / 8, HOUR / 60, HOUR / 3600][seed as usize / 3 % 3], seed / 9 % 5);
            let busy = move |at: Duration| some(seed, (at.as_millis() / span.as_millis()) as u64) % 4 < share;
            let mut node = Node::new(interval, lengths, busy);
            for step in 1..=40 {
                node.run_until(interval * step / 8);
                // Chunks come, and the first ones go.
                let (new, first) = (ChunkId(100 + u64::from(step)), *node.replicas.keys().next().unwrap());
                node.replicas.insert(new, some(seed, new.0) % (64 * MIB));
                node.read.insert(new, node.now);
                node.replicas.remove(&first);
                node.read.remove(&first);
            }
            assert!(node.longest <= interval, "seed {seed}: {:?} of {interval:?}", node.longest);
            if share == 0 {
                assert_eq!(node.beside_users, 0);
            }
        }
    }

    #[test]
    fn users_have_the_disk_for_themselves_while_the_scrub_is_early() {
        let day = 24 * HOUR;
        // 100 GiB of chunks; nobody there by night, and always somebody by day.
        let mut node = Node::new(7 * day, vec![64 * MIB; 1600], |at| at.as_secs() % 86_400 >= 8 * 3600);
        node.run_until(7 * HOUR);
        assert_eq!(node.beside_users, 0, "nobody is there yet");
        node.run_until(day);
        assert!(node.beside_users <= 64 * MIB, "no more than what was begun: {}", node.beside_users);
        node.run_until(28 * day);
        assert!(node.beside_users <= 28 * 64 * MIB, "every day: {}", node.beside_users);
        assert!(node.alone >= 4 * 1600 * 64 * MIB, "and all is read: {}", node.alone);
        assert!(node.longest <= 7 * day);
    }
}
