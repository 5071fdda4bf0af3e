//! When a scrub reads and when it leaves the disk to users. Pure.
//!
//! [`Quiet`] says whether users left the node alone for a moment, [`Pace`] when the next piece of a replica is read.

use std::time::Duration;

/// No slower while nobody needs the disk, in bytes a second: what little there is is read soon.
pub(crate) const RATE_MIN: u64 = 1 << 20;
/// No faster: the disk is for users.
pub(crate) const RATE_MAX: u64 = 200 << 20;
/// Users that were silent for so long are taken to be away.
const QUIET_AFTER: Duration = Duration::from_millis(100);
/// How long a replica that was begun makes way for users. Its file is held open meanwhile, so that one that is deleted
/// gives its room back late.
const REST_MAX: Duration = Duration::from_secs(60);

/// What users ask of a node: reads and writes of chunks, those of other nodes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    /// At work now.
    pub(crate) in_flight: u64,
    /// A number that any read or write changes.
    pub(crate) seen: u64,
}

/// Whether users are away, to somebody who looks now and then.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    seen: u64,
    busy_at: Option<Duration>,
}

impl Quiet {
    /// Nothing is in flight, nor came in this while.
    pub(crate) fn look(&mut self, now: Duration, load: Load) -> bool {
        if load.in_flight > 0 || load.seen != self.seen {
            self.seen = load.seen;
            self.busy_at = Some(now);
        }
        self.busy_at.is_none_or(|at| now.saturating_sub(at) >= QUIET_AFTER)
    }
}

/// How fast a replica is read in the course of the scrub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// How long the pass can do without this replica.
    pub(crate) slack: Duration,
    /// Bytes a second with which the pass ends in time.
    pub(crate) needed: u64,
    /// Bytes a second while users are away.
    pub(crate) alone: u64,
}

/// How far a replica is read. Times are since it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub(crate) bytes: u64,
    /// The piece that was read last: when it was begun, and its bytes.
    pub(crate) last: (Duration, u64),
}

impl Pace {
    /// How long the next piece is to wait, as things are `now`.
    pub(crate) fn wait(&self, now: Duration, progress: &Progress, quiet: bool) -> Duration {
        let (began, bytes) = progress.last;
        let next = if quiet {
            began + time_for(bytes, self.alone)
        } else {
            let on_schedule = self.slack + time_for(progress.bytes, self.needed);
            let rested = REST_MAX + time_for(progress.bytes, self.needed.max(RATE_MIN));
            on_schedule.min(rested).max(began + time_for(bytes, RATE_MAX))
        };
        next.saturating_sub(now)
    }
}

/// How long so many bytes take at this rate.
pub(crate) fn time_for(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn users_are_away_once_nothing_came_for_a_while() {
        let mut quiet = Quiet::default();
        let ms = Duration::from_millis;
        for (at, in_flight, seen, expected, what) in [
            (0, 0, 0, true, "nothing yet"),
            (10, 0, 1, false, "one came and went"),
            (109, 0, 1, false, "a moment ago"),
            (110, 0, 1, true, "a while ago"),
            (120, 1, 1, false, "one is in flight"),
            (900, 1, 1, false, "it still is"),
            (910, 0, 1, false, "until a moment ago"),
            (1000, 0, 1, true, "a while ago"),
        ] {
            assert_eq!(quiet.look(ms(at), Load { in_flight, seen }), expected, "{at} ms: {what}");
        }
    }

    #[test]
    fn the_next_piece_waits_for_users_as_long_as_the_schedule_lets_it() {
        let seconds = Duration::from_secs;
        let (hour, none) = (seconds(3600), Duration::ZERO);
        for (slack, needed, quiet, at, bytes, last, expected, what) in [
            (hour, MIB, true, 0, 0, 0, none, "the first, and nobody there"),
            (hour, MIB, true, 5, 8 * MIB, 5, seconds(1) / 4, "as fast as is allowed while nobody is there"),
            (hour, MIB, true, 6, 8 * MIB, 5, none, "not faster than the disk"),
            (seconds(9), MIB, false, 0, 0, 0, seconds(9), "users first, until the schedule wants it"),
            (seconds(9), MIB, false, 5, 8 * MIB, 5, seconds(12), "also in the middle"),
            (seconds(9), MIB, false, 17, 8 * MIB, 5, none, "then it is read beside them"),
            (none, 2 * MIB, false, 3, 8 * MIB, 3, seconds(1), "at the rate that is needed"),
            (none, 2 * MIB, false, 9, 8 * MIB, 3, none, "also when that is late"),
            (none, u64::MAX, false, 3, 8 * MIB, 3, seconds(1) / 200, "never faster than the maximum"),
            (hour, 1, false, 5, 0, 0, seconds(55), "nobody waits for ever"),
            (hour, 1, false, 60, 8 * MIB, 5, seconds(8), "but it goes on in steps"),
            (hour, 4 * MIB, false, 60, 8 * MIB, 5, seconds(2), "larger ones when it is needed"),
        ] {
            let pace = Pace { slack, needed, alone: 4 * MIB };
            let progress = Progress { bytes, last: (seconds(last), MIB.min(bytes)) };
            assert_eq!(pace.wait(seconds(at), &progress, quiet), expected, "{what}");
        }
    }
}
