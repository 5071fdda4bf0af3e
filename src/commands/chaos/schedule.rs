//! Which faults come when. Pure: the same seed gives the same faults.

use std::time::Duration;

use distrifs_proto::SplitMix;

/// Datanodes that are down, paused, cut off or full at once: one less than the replicas, so that every chunk keeps one
/// that answers, and enough are left to write to.
const AWAY_MAX: usize = 2;
/// Between two faults.
const PAUSE_MS: (u64, u64) = (200, 1500);
/// How long a datanode stays away.
const AWAY_MS: (u64, u64) = (500, 9000);

/// A fault, or the end of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL for a datanode.
    Kill(usize),
    /// It is started again.
    Restart(usize),
    /// SIGSTOP for a datanode.
    Pause(usize),
    /// SIGCONT.
    Resume(usize),
    /// Nothing reaches a datanode or leaves it but what it sends to other datanodes; nobody is told.
    Cut(usize),
    /// Nothing reaches its data port; its heartbeats go on.
    Mute(usize),
    /// Everything passes again.
    Mend(usize),
    /// Its disk is full.
    Fill(usize),
    /// It has room again.
    Empty(usize),
    /// A byte of a replica turns over; the number chooses which.
    Flip(u64),
    /// The files of a replica are gone; the number chooses which.
    Lose(u64),
    /// SIGKILL for the master that leads; the one that waits takes over, and the killed one is started again to wait.
    KillMaster,
    /// SIGSTOP for it, until the one that waits has taken over.
    StopMaster,
}

impl Fault {
    /// Whether it brings a datanode back.
    pub(super) fn is_end(self) -> bool {
        matches!(self, Self::Restart(_) | Self::Resume(_) | Self::Mend(_) | Self::Empty(_))
    }
}

/// How a datanode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Killed,
    Paused,
    Cut,
    Mute,
    Full,
}

/// The faults to come.
#[derive(Debug)]
pub(super) struct Schedule {
    random: SplitMix,
    at: Duration,
    away: Vec<Option<(Away, Duration)>>,
    small: usize,
}

impl Schedule {
    /// For so many datanodes, the first `small` of which have disks that can be filled.
    pub(super) fn new(seed: u64, datanodes: usize, small: usize) -> Self {
        Self { random: SplitMix::new(seed), at: Duration::ZERO, away: vec![None; datanodes], small }
    }

    fn between(&mut self, (low, high): (u64, u64)) -> Duration {
        Duration::from_millis(low + self.random.next() % (high - low))
    }

    /// The next fault, and when, since the start.
    pub(super) fn next(&mut self) -> (Duration, Fault) {
        let pause = self.between(PAUSE_MS);
        self.at += pause;
        let back = self.away.iter().enumerate().filter_map(|(node, away)| Some((away.as_ref()?.1, node)));
        if let Some((until, node)) = back.min()
            && until <= self.at
        {
            return (self.at, self.end(node));
        }
        let node = (self.random.next() % self.away.len() as u64) as usize;
        let free = self.away.iter().flatten().count() < AWAY_MAX && self.away[node].is_none();
        let fault = match self.random.next() % 16 {
            0..=3 if free => self.begin(node, Away::Killed),
            4..=5 if free => self.begin(node, Away::Paused),
            6 if free => self.begin(node, Away::Cut),
            7 if free => self.begin(node, Away::Mute),
            8..=9 if free && node < self.small => self.begin(node, Away::Full),
            10 if self.random.next().is_multiple_of(2) => Fault::KillMaster,
            10 => Fault::StopMaster,
            11 => Fault::Lose(self.random.next()),
            _ => Fault::Flip(self.random.next()),
        };
        (self.at, fault)
    }

    fn begin(&mut self, node: usize, away: Away) -> Fault {
        let until = self.at + self.between(AWAY_MS);
        self.away[node] = Some((away, until));
        match away {
            Away::Killed => Fault::Kill(node),
            Away::Paused => Fault::Pause(node),
            Away::Cut => Fault::Cut(node),
            Away::Mute => Fault::Mute(node),
            Away::Full => Fault::Fill(node),
        }
    }

    fn end(&mut self, node: usize) -> Fault {
        match self.away[node].take() {
            Some((Away::Paused, _)) => Fault::Resume(node),
            Some((Away::Cut | Away::Mute, _)) => Fault::Mend(node),
            Some((Away::Full, _)) => Fault::Empty(node),
            _ => Fault::Restart(node),
        }
    }

    /// What brings everybody back.
    pub(super) fn calm(&mut self) -> Vec<Fault> {
        let away: Vec<usize> = (0..self.away.len()).filter(|node| self.away[*node].is_some()).collect();
        away.into_iter().map(|node| self.end(node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults_and_never_too_many() {
        for seed in 0..20 {
            let (mut one, mut other) = (Schedule::new(seed, 5, 2), Schedule::new(seed, 5, 2));
            let mut away = [false; 5];
            let mut last = Duration::ZERO;
            for _ in 0..500 {
                let (at, fault) = one.next();
                assert_eq!((at, fault), other.next());
                assert!(at > last);
                last = at;
                match fault {
                    Fault::Kill(node)
                    | Fault::Pause(node)
                    | Fault::Cut(node)
                    | Fault::Mute(node)
                    | Fault::Fill(node) => {
                        assert!(!std::mem::replace(&mut away[node], true), "it is away already");
                        assert!(node < 2 || !matches!(fault, Fault::Fill(_)), "its disk is large");
                    }
                    Fault::Restart(node) | Fault::Resume(node) | Fault::Mend(node) | Fault::Empty(node) => {
                        assert!(std::mem::replace(&mut away[node], false), "it was not away");
                    }
                    Fault::Flip(_) | Fault::Lose(_) | Fault::KillMaster | Fault::StopMaster => {}
                }
                assert!(away.iter().filter(|away| **away).count() <= AWAY_MAX);
            }
            assert_eq!(one.calm().len(), away.iter().filter(|away| **away).count());
            assert!(one.calm().is_empty());
        }
        let faults = |seed| {
            let mut schedule = Schedule::new(seed, 5, 0);
            (0..50).map(|_| schedule.next().1).collect::<Vec<_>>()
        };
        assert_ne!(faults(1), faults(2));
    }
}
