//! Grants that are taken ahead, so that of many small files each costs one call to the master. Pure: time is an
//! argument.
//!
//! The first file takes one grant, and each call after it twice as many as the one before, as long as files follow each
//! other. What is left over ends by itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use distrifs_proto::limits::GRANTS_PER_CALL_MAX;
use distrifs_proto::types::{Epoch, NodeId};

use crate::config::ClientConfig;
use crate::plan::Plan;
use crate::transfer::PutOptions;

/// Grants are not kept for longer, nor for more than half of what they last: what was known of nodes grows old.
const KEPT_MAX: Duration = Duration::from_secs(10);

/// What a client asks of a grant; 0 leaves it to the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shape {
    pub(crate) replication: u32,
    pub(crate) chunk_size: u64,
}

impl Shape {
    /// What a put with these options asks for.
    pub(crate) fn asked(options: &PutOptions, config: &ClientConfig) -> Self {
        Self {
            replication: options.replication.or(config.replication).unwrap_or(0),
            chunk_size: options.chunk_size.or(config.chunk_size).unwrap_or(0),
        }
    }
}

/// A chunk that may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) plan: Plan,
    /// What the file is to be: the master's defaults where they were asked for.
    pub(crate) made: Shape,
}

/// Where a grant comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It was kept.
    Kept(Box<Granted>),
    /// So many are to be asked for.
    Ask(u32),
}

/// The grants that a client keeps.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    asked: Shape,
    /// Until when each may be used.
    kept: VecDeque<(Instant, Granted)>,
    last: Option<Instant>,
    count: u32,
    /// Since when several are being asked for: others ask for themselves.
    asking: Option<Instant>,
}

impl Grants {
    /// A grant for a file like this, under a leader of this epoch or a later one.
    pub(crate) fn next(&mut self, now: Instant, asked: Shape, epoch: Epoch) -> Next {
        let young = |since: &Instant| now.saturating_duration_since(*since) < KEPT_MAX;
        if asked != self.asked || !self.last.as_ref().is_some_and(young) {
            (self.asked, self.count, self.asking) = (asked, 0, None);
            self.kept.clear();
        }
        self.last = Some(now);
        self.kept.retain(|(until, granted)| now < *until && granted.plan.epoch >= epoch);
        if let Some((_, granted)) = self.kept.pop_front() {
            return Next::Kept(Box::new(granted));
        }
        if self.asking.as_ref().is_some_and(young) {
            return Next::Ask(1);
        }
        self.count = (self.count * 2).clamp(1, GRANTS_PER_CALL_MAX);
        self.asking = (self.count > 1).then_some(now);
        Next::Ask(self.count)
    }

    /// More was granted than is needed now, and lasts for so long.
    pub(crate) fn keep(
        &mut self,
        now: Instant,
        lasts: Duration,
        asked: Shape,
        granted: impl Iterator<Item = Granted>,
    ) {
        if asked == self.asked {
            let until = now + (lasts / 2).min(KEPT_MAX);
            self.asking = None;
            let room = (GRANTS_PER_CALL_MAX as usize).saturating_sub(self.kept.len());
            self.kept.extend(granted.take(room).map(|granted| (until, granted)));
        }
    }

    /// A pipeline failed at this node: nothing is written over it that could go elsewhere.
    pub(crate) fn node_failed(&mut self, node: NodeId) {
        self.kept.retain(|(_, granted)| !granted.plan.nodes().contains(&node));
    }

    /// A grant had ended before its time: others may have, too.
    pub(crate) fn forget(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::{ChunkId, GenerationStamp};

    use super::*;
    use crate::status::Node;

    const LASTS: Duration = Duration::from_secs(60);
    const ASKED: Shape = Shape { replication: 0, chunk_size: 0 };

    fn granted(chunk: u64, epoch: u64) -> Granted {
        let hops = vec![Node { id: NodeId(chunk % 3), address: "127.0.0.1:1".parse().expect("one") }];
        let (chunk, epoch) = (ChunkId(chunk), Epoch(epoch));
        let plan = Plan { chunk, generation: GenerationStamp(1), epoch, hops };
        Granted { plan, made: Shape { replication: 1, chunk_size: 1 << 20 } }
    }

    fn kept(next: Next) -> Option<u64> {
        match next {
            Next::Kept(granted) => Some(granted.plan.chunk.0),
            Next::Ask(_) => None,
        }
    }

    #[test]
    fn the_more_files_follow_each_other_the_more_is_asked_for() {
        let (start, mut grants) = (Instant::now(), Grants::default());
        let (mut asked, mut chunk) = (Vec::new(), 0);
        for file in 0..100 {
            let now = start + Duration::from_millis(file);
            if let Next::Ask(count) = grants.next(now, ASKED, Epoch(1)) {
                asked.push(count);
                grants.keep(now, LASTS, ASKED, (1..count).map(|i| granted(chunk + u64::from(i), 1)));
                chunk += u64::from(count);
            }
        }
        assert_eq!(asked, [1, 2, 4, 8, 16, 16, 16, 16, 16, 16]);
        let late = start + Duration::from_secs(60);
        assert_eq!(grants.next(late, ASKED, Epoch(1)), Next::Ask(1), "the others are too old");
    }

    #[test]
    fn what_is_kept_is_young_of_this_leader_and_as_it_was_asked_for() {
        let now = Instant::now();
        let filled = || {
            let mut grants = Grants::default();
            grants.next(now, ASKED, Epoch(1));
            grants.next(now, ASKED, Epoch(1));
            grants.keep(now, LASTS, ASKED, (1..4).map(|chunk| granted(chunk, 1)));
            grants
        };
        let mut grants = filled();
        assert_eq!(
            [(); 4].map(|()| kept(grants.next(now, ASKED, Epoch(1)))),
            [Some(1), Some(2), Some(3), None]
        );
        assert_eq!(kept(filled().next(now, ASKED, Epoch(2))), None, "of an earlier leader");
        let other = Shape { replication: 2, ..ASKED };
        assert_eq!(kept(filled().next(now, other, Epoch(1))), None, "asked for otherwise");
        let mut grants = filled();
        grants.node_failed(NodeId(1));
        assert_eq!(
            kept(grants.next(now, ASKED, Epoch(1))),
            Some(2),
            "the first was for the node that failed"
        );
        grants.forget();
        assert_eq!(kept(grants.next(now, ASKED, Epoch(1))), None);
        let mut grants = filled();
        let (middle, late) = (now + KEPT_MAX / 2, now + KEPT_MAX);
        assert_eq!(kept(grants.next(middle, ASKED, Epoch(1))), Some(1));
        assert_eq!(
            kept(grants.next(late, ASKED, Epoch(1))),
            None,
            "too old, although files follow each other"
        );
        grants.keep(late, Duration::from_secs(2), ASKED, (1..4).map(|chunk| granted(chunk, 1)));
        let soon = late + Duration::from_secs(1);
        assert_eq!(kept(grants.next(soon, ASKED, Epoch(1))), None, "the master lets it last no longer");
    }

    #[test]
    fn one_asks_for_many_and_no_more_are_kept_than_that() {
        let (now, mut grants) = (Instant::now(), Grants::default());
        for expected in [1, 2, 1, 1] {
            assert_eq!(grants.next(now, ASKED, Epoch(1)), Next::Ask(expected));
        }
        grants.keep(now, LASTS, ASKED, (0..100).map(|chunk| granted(chunk, 1)));
        let mut left = 0;
        while kept(grants.next(now, ASKED, Epoch(1))).is_some() {
            left += 1;
        }
        assert_eq!(left, GRANTS_PER_CALL_MAX);
        // Whoever asked may never come back.
        let later = now + KEPT_MAX / 2;
        assert_eq!(grants.next(later, ASKED, Epoch(1)), Next::Ask(1));
        let much_later = now + KEPT_MAX;
        assert_eq!(grants.next(much_later, ASKED, Epoch(1)), Next::Ask(8));
    }
}
