//! Whether so many datanodes vanished at once that repair waits for them. Pure.
//!
//! Of a rack that lost its power, or a tenth of the nodes, the missing copies are made at once. When more than a third of
//! the nodes or several whole racks vanish within one heartbeat timeout, the network or the power is at fault and they come
//! back together: copying then would move most of the data for nothing, onto nodes that are too few to take it (MooseFS and
//! HDFS had such storms). So repair waits for five timeouts from the last such loss, or until enough of them are back.

use std::collections::{BTreeMap, VecDeque};

/// Fewer nodes than this are never an outage: a small cluster repairs at once.
const NODES_MIN: u64 = 3;
/// More than one in so many nodes is an outage.
const SHARE: u64 = 3;
/// So many whole racks are one.
const RACKS: usize = 2;
/// Heartbeat timeouts that repair waits.
pub(super) const TIMEOUTS: u64 = 5;

/// Nodes and racks that vanished of late.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Nodes that are still away, by the time at which they were declared dead.
    deaths: BTreeMap<u64, u64>,
    /// All of these.
    dead: u64,
    /// Racks whose last live node went, and when.
    racks: VecDeque<(u64, u32)>,
    paused: Option<Paused>,
}

/// Repair waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Paused {
    /// Deaths from here on count.
    since_ms: u64,
    until_ms: u64,
}

/// The cluster as it is when the rule is applied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Membership {
    /// Nodes that are not dead.
    pub(super) present: u64,
    /// Those of them that are late or without a session: they vanished with the others, as a rule.
    pub(super) suspects: u64,
}

impl Outage {
    /// A node was declared dead.
    pub(super) fn died(&mut self, now_ms: u64) {
        *self.deaths.entry(now_ms).or_default() += 1;
        self.dead += 1;
    }

    /// The last live node of a rack is suspect or dead.
    pub(super) fn rack_vanished(&mut self, now_ms: u64, rack: u32) {
        self.racks.retain(|(_, of)| *of != rack);
        self.racks.push_back((now_ms, rack));
    }

    /// A rack has a live node again.
    pub(super) fn rack_returned(&mut self, rack: u32) {
        self.racks.retain(|(_, of)| *of != rack);
    }

    /// A node that was declared dead at `died_ms` is back.
    pub(super) fn returned(&mut self, died_ms: u64) {
        if let Some(nodes) = self.deaths.get_mut(&died_ms) {
            *nodes -= 1;
            self.dead -= 1;
            if *nodes == 0 {
                self.deaths.remove(&died_ms);
            }
        }
    }

    /// Applies the rule; the counts and the milliseconds for which repair waits, if it does.
    pub(super) fn look(&mut self, now_ms: u64, timeout_ms: u64, now: Membership) -> Option<(Missing, u64)> {
        let window_ms = self.paused.map_or(now_ms.saturating_sub(timeout_ms), |paused| paused.since_ms);
        while let Some(oldest) = self.deaths.first_entry().filter(|oldest| *oldest.key() < window_ms) {
            self.dead -= oldest.remove();
        }
        while self.racks.front().is_some_and(|(vanished, _)| *vanished < window_ms.saturating_sub(timeout_ms))
        {
            self.racks.pop_front();
        }
        if self.deaths.is_empty() {
            self.paused = None;
            return None;
        }
        let missing = Missing { nodes: self.dead + now.suspects, racks: self.racks.len() };
        let share = missing.nodes.saturating_mul(SHARE) > now.present + self.dead;
        if missing.nodes < NODES_MIN || !(share || missing.racks >= RACKS) {
            self.paused = None;
            return None;
        }
        let last = self.deaths.last_key_value().map_or(now_ms, |(died, _)| *died);
        let until_ms = last.saturating_add(TIMEOUTS.saturating_mul(timeout_ms));
        self.paused = (now_ms < until_ms).then_some(Paused { since_ms: window_ms, until_ms });
        match self.paused {
            Some(paused) => Some((missing, paused.until_ms - now_ms)),
            None => {
                // Waited long enough: what is missing now is lost, and is no outage any more.
                *self = Self::default();
                None
            }
        }
    }
}

/// How much is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    /// Nodes, dead or about to be.
    pub(super) nodes: u64,
    /// Racks without a live node.
    pub(super) racks: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: u64 = 100;

    #[test]
    fn a_rack_is_repaired_at_once_and_an_outage_is_waited_for() {
        // Deaths, suspects, nodes that there are, racks that vanished, whether repair waits.
        for (name, deaths, suspects, nodes, racks, waits) in [
            ("one of three", 1, 0, 3, 1, false),
            ("two of three: a small cluster", 2, 0, 3, 2, false),
            ("three of four", 3, 0, 4, 1, true),
            ("a tenth", 10, 0, 100, 0, false),
            ("a rack of a fifth", 20, 0, 100, 1, false),
            ("two racks", 20, 0, 100, 2, true),
            ("a third", 33, 0, 99, 0, false),
            ("more than a third", 34, 0, 99, 0, true),
            ("one dead, and those that are late make it a third", 1, 33, 99, 0, true),
            ("nodes that are late alone", 0, 90, 99, 5, false),
        ] {
            let mut outage = Outage::default();
            (0..deaths).for_each(|_| outage.died(1000));
            (0..racks).for_each(|rack| outage.rack_vanished(1000, rack));
            let found = outage.look(1000, TIMEOUT, Membership { present: nodes - deaths, suspects });
            assert_eq!(found.is_some(), waits, "{name}: {found:?}");
        }
    }

    #[test]
    fn the_wait_ends_with_the_return_or_after_five_timeouts() {
        let now = Membership { present: 6, suspects: 0 };
        let outage = || {
            let mut outage = Outage::default();
            for died in [1000, 1000, 1050, 1090] {
                outage.died(died);
                outage.look(died, TIMEOUT, now);
            }
            assert_eq!(outage.look(1090, TIMEOUT, now), Some((Missing { nodes: 4, racks: 0 }, 500)));
            outage
        };
        let mut waited = outage();
        assert!(
            waited.look(1589, TIMEOUT, now).is_some(),
            "deaths of the outage count for as long as it lasts"
        );
        assert_eq!(waited.look(1590, TIMEOUT, now), None);
        assert_eq!(waited.look(1591, TIMEOUT, now), None, "it does not begin again");
        let mut back = outage();
        back.returned(1050);
        assert_eq!(back.look(1200, TIMEOUT, now), None, "three of ten are no outage");
    }

    #[test]
    fn losses_one_by_one_are_no_outage() {
        let mut outage = Outage::default();
        for turn in 0..8 {
            outage.died(turn * 2 * TIMEOUT);
            let now = Membership { present: 9 - turn, suspects: 0 };
            assert_eq!(outage.look(turn * 2 * TIMEOUT, TIMEOUT, now), None, "{turn}");
        }
    }
}
