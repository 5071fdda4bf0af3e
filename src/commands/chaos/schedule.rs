//! Which faults come when. Pure: the same seed gives the same faults.

use std::time::Duration;

use distrifs_proto::SplitMix;

/// Datanodes that are down or paused at once: one less than the replicas, so that every chunk keeps one that answers.
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
    /// A byte of a replica turns over; the number chooses which.
    Flip(u64),
    /// SIGKILL for the master, and a start at once.
    RestartMaster,
}

/// How a datanode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Killed,
    Paused,
}

/// The faults to come.
#[derive(Debug)]
pub(super) struct Schedule {
    random: SplitMix,
    at: Duration,
    away: Vec<Option<(Away, Duration)>>,
}

impl Schedule {
    /// For so many datanodes.
    pub(super) fn new(seed: u64, datanodes: usize) -> Self {
        Self { random: SplitMix::new(seed), at: Duration::ZERO, away: vec![None; datanodes] }
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
        let away = self.away.iter().flatten().count();
        let node = (self.random.next() % self.away.len() as u64) as usize;
        let fault = match self.random.next() % 10 {
            0..=3 if away < AWAY_MAX && self.away[node].is_none() => self.begin(node, Away::Killed),
            4..=5 if away < AWAY_MAX && self.away[node].is_none() => self.begin(node, Away::Paused),
            6 => Fault::RestartMaster,
            _ => Fault::Flip(self.random.next()),
        };
        (self.at, fault)
    }

    fn begin(&mut self, node: usize, away: Away) -> Fault {
        let until = self.at + self.between(AWAY_MS);
        self.away[node] = Some((away, until));
        if away == Away::Killed { Fault::Kill(node) } else { Fault::Pause(node) }
    }

    fn end(&mut self, node: usize) -> Fault {
        match self.away[node].take() {
            Some((Away::Paused, _)) => Fault::Resume(node),
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
            let (mut one, mut other) = (Schedule::new(seed, 5), Schedule::new(seed, 5));
            let mut away = [false; 5];
            let mut last = Duration::ZERO;
            for _ in 0..500 {
                let (at, fault) = one.next();
                assert_eq!((at, fault), other.next());
                assert!(at > last);
                last = at;
                match fault {
                    Fault::Kill(node) | Fault::Pause(node) => {
                        assert!(!std::mem::replace(&mut away[node], true), "it is away already");
                    }
                    Fault::Restart(node) | Fault::Resume(node) => {
                        assert!(std::mem::replace(&mut away[node], false), "it was not away");
                    }
                    Fault::Flip(_) | Fault::RestartMaster => {}
                }
                assert!(away.iter().filter(|away| **away).count() <= AWAY_MAX);
            }
            assert_eq!(one.calm().len(), away.iter().filter(|away| **away).count());
            assert!(one.calm().is_empty());
        }
        let faults = |seed| {
            let mut schedule = Schedule::new(seed, 5);
            (0..50).map(|_| schedule.next().1).collect::<Vec<_>>()
        };
        assert_ne!(faults(1), faults(2));
    }
}
