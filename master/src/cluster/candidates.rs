//! The datanodes that may get replicas, by rack, in a table that heartbeats keep current. Pure.
//!
//! Placement used to filter and sort all nodes for each chunk, which cost 2.2 ms at 10,000 nodes under the lock that
//! heartbeats wait for. Here a draw costs O(log nodes): a tree over racks and, in each rack, a tree over its nodes, in
//! two shares: nodes that are trusted, and those whose data port others complained of. A draw that must avoid a node or a
//! rack hides it in the trees and shows it again at its end.

use std::collections::HashMap;

use super::weights::{Leaf, WeightTree};
use crate::hold;

/// Which of the two shares a node is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Nothing speaks against it.
    Trusted,
    /// Others could not reach it: see `trust`.
    Distrusted,
}

/// Both, in the order of the trees.
const SHARES: [Share; 2] = [Share::Trusted, Share::Distrusted];

/// The nodes of one rack.
#[derive(Debug, Default)]
struct Rack {
    name: String,
    /// By slot; `None` where a node has left.
    members: Vec<Option<u32>>,
    free: Vec<u32>,
    shares: [WeightTree; 2],
    /// Live nodes.
    live: u32,
}

/// Where a node stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    rack: u32,
    slot: u32,
    /// Whether it is one of [`Rack::live`].
    is_live: bool,
}

/// All nodes that may be drawn.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    racks: Vec<Rack>,
    free_racks: Vec<u32>,
    by_name: HashMap<String, u32>,
    /// By share, over the racks.
    shares: [WeightTree; 2],
    /// By the index of the node.
    places: Vec<Option<Place>>,
}

impl Candidates {
    /// Puts a node into a rack, without weight; takes it out of the one it was in.
    pub(super) fn join(&mut self, node: u32, rack: &str) {
        if self.rack_of(node).is_some_and(|now| self.racks[now as usize].name == rack) {
            return;
        }
        self.leave(node);
        let number = match self.by_name.get(rack) {
            Some(number) => *number,
            None => {
                let number = self.free_racks.pop().unwrap_or(self.racks.len() as u32);
                if number as usize == self.racks.len() {
                    self.racks.push(Rack::default());
                }
                self.racks[number as usize] = Rack { name: rack.to_owned(), ..Rack::default() };
                self.by_name.insert(rack.to_owned(), number);
                number
            }
        };
        let members = &mut self.racks[number as usize];
        let slot = members.free.pop().unwrap_or(members.members.len() as u32);
        if slot as usize == members.members.len() {
            members.members.push(None);
        }
        members.members[slot as usize] = Some(node);
        if self.places.len() <= node as usize {
            self.places.resize(node as usize + 1, None);
        }
        self.places[node as usize] = Some(Place { rack: number, slot, is_live: false });
    }

    /// Takes a node out.
    pub(super) fn leave(&mut self, node: u32) {
        self.set(node, None);
        self.count_live(node, false);
        let Some(place) = self.places.get_mut(node as usize).and_then(Option::take) else { return };
        let rack = &mut self.racks[place.rack as usize];
        rack.members[place.slot as usize] = None;
        rack.free.push(place.slot);
        if rack.free.len() == rack.members.len() {
            self.by_name.remove(&rack.name);
            *rack = Rack::default();
            self.free_racks.push(place.rack);
        }
    }

    /// The number of a node's rack.
    pub(super) fn rack_of(&self, node: u32) -> Option<u32> {
        self.places.get(node as usize).copied().flatten().map(|place| place.rack)
    }

    /// Whether a node is live from now on. Says whether its rack has got its first live node thereby, or lost its last.
    pub(super) fn count_live(&mut self, node: u32, is_live: bool) -> Option<(u32, bool)> {
        let place = self.places.get_mut(node as usize)?.as_mut()?;
        if std::mem::replace(&mut place.is_live, is_live) == is_live {
            return None;
        }
        let (number, rack) = (place.rack, &mut self.racks[place.rack as usize]);
        if is_live {
            rack.live += 1;
            (rack.live == 1).then_some((number, true))
        } else {
            rack.live -= 1;
            (rack.live == 0).then_some((number, false))
        }
    }

    /// How a node may be drawn from now on; `None`: not at all.
    pub(super) fn set(&mut self, node: u32, leaf: Option<(Share, Leaf)>) {
        let Some(place) = self.places.get(node as usize).copied().flatten() else { return };
        for share in SHARES {
            let leaf = leaf.filter(|(of, _)| *of == share).map_or(Leaf::default(), |(_, leaf)| leaf);
            self.set_leaf(share, place, leaf);
        }
    }

    fn set_leaf(&mut self, share: Share, place: Place, leaf: Leaf) {
        let rack = &mut self.racks[place.rack as usize];
        let tree = &mut rack.shares[share as usize];
        if tree.get(place.slot as usize) != leaf {
            tree.set(place.slot as usize, leaf);
            self.shares[share as usize].set(place.rack as usize, tree.all());
        }
    }

    /// Begins a draw that takes nodes with room for `bytes`, of the trusted share, or of both.
    pub(super) fn draw(&mut self, bytes: u64, both: bool) -> Draw<'_> {
        Draw { candidates: self, bytes, both, hidden: Vec::new() }
    }

    fn in_row(&self, share: Share, at: u128) -> Option<u32> {
        let rack = &self.racks[self.shares[share as usize].draw(at)?];
        let tree = &rack.shares[share as usize];
        // Racks are drawn by the sum of their nodes, so any position within it is as good as the rest of `at`.
        let slot = tree.draw(at % tree.all().weight.max(1))?;
        rack.members.get(slot).copied().flatten()
    }

    fn with_room(&self, share: Share, bytes: u64) -> Option<u32> {
        let rack = &self.racks[self.shares[share as usize].with_room(bytes)?];
        let slot = rack.shares[share as usize].with_room(bytes)?;
        rack.members.get(slot).copied().flatten()
    }
}

/// What was hidden, to be shown again.
#[derive(Debug)]
enum Hidden {
    Node { share: Share, place: Place, leaf: Leaf },
    Rack { share: Share, rack: u32 },
}

/// Draws that a room of their own turned down before the tree of rooms is asked.
const DRAWS_WITHOUT_ROOM_MAX: usize = 32;

/// One draw of several nodes. What it hides is shown again when it is dropped.
#[derive(Debug)]
pub(super) struct Draw<'a> {
    candidates: &'a mut Candidates,
    bytes: u64,
    both: bool,
    hidden: Vec<Hidden>,
}

impl Draw<'_> {
    /// The number of a node's rack.
    pub(super) fn rack_of(&self, node: u32) -> Option<u32> {
        self.candidates.rack_of(node)
    }

    /// Leaves a node out.
    pub(super) fn hide(&mut self, node: u32) {
        let Some(place) = self.candidates.places.get(node as usize).copied().flatten() else { return };
        for share in SHARES {
            let leaf =
                self.candidates.racks[place.rack as usize].shares[share as usize].get(place.slot as usize);
            if leaf != Leaf::default() {
                self.candidates.set_leaf(share, place, Leaf::default());
                self.hidden.push(Hidden::Node { share, place, leaf });
            }
        }
    }

    /// Leaves a rack out: after all nodes that are to be hidden as well.
    pub(super) fn hide_rack(&mut self, rack: u32) {
        for share in SHARES {
            self.candidates.shares[share as usize].set(rack as usize, Leaf::default());
            self.hidden.push(Hidden::Rack { share, rack });
        }
    }

    /// Shows all racks that were hidden; nodes stay hidden.
    pub(super) fn show_racks(&mut self) {
        let hidden = std::mem::take(&mut self.hidden);
        for it in hidden {
            match it {
                Hidden::Rack { share, rack } => self.show_rack(share, rack),
                node @ Hidden::Node { .. } => self.hidden.push(node),
            }
        }
    }

    fn show_rack(&mut self, share: Share, rack: u32) {
        let all = self.candidates.racks[rack as usize].shares[share as usize].all();
        self.candidates.shares[share as usize].set(rack as usize, all);
    }

    fn shares(&self) -> &'static [Share] {
        if self.both { &SHARES } else { &SHARES[..1] }
    }

    /// A node with room that is not hidden, in proportion to its weight; `None`: there is none. `takes` may turn down a
    /// node, which is hidden then.
    pub(super) fn next(
        &mut self,
        random: &mut impl FnMut() -> u64,
        mut takes: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let mut without_room = 0;
        loop {
            hold::count(1);
            let node = if without_room < DRAWS_WITHOUT_ROOM_MAX {
                self.weighted(random)?
            } else {
                // Nearly all disks are full: by chance the few others may never be met.
                let shares = self.shares().iter();
                shares.into_iter().find_map(|share| self.candidates.with_room(*share, self.bytes))?
            };
            if self.room_of(node) < self.bytes {
                without_room += 1;
                self.hide(node);
            } else if takes(node) {
                return Some(node);
            } else {
                self.hide(node);
            }
        }
    }

    fn weighted(&self, random: &mut impl FnMut() -> u64) -> Option<u32> {
        let weight = |share: Share| self.candidates.shares[share as usize].all().weight;
        let total: u128 = self.shares().iter().map(|share| weight(*share)).sum();
        if total == 0 {
            return None;
        }
        // Two words: the sum may be beyond 64 bits.
        let mut at = (u128::from(random()) << 64 | u128::from(random())) % total;
        for share in self.shares() {
            if at < weight(*share) {
                return self.candidates.in_row(*share, at);
            }
            at -= weight(*share);
        }
        None
    }

    fn room_of(&self, node: u32) -> u64 {
        let Some(place) = self.candidates.places.get(node as usize).copied().flatten() else { return 0 };
        let trees = &self.candidates.racks[place.rack as usize].shares;
        trees.iter().map(|tree| tree.get(place.slot as usize).room).max().unwrap_or(0)
    }
}

impl Drop for Draw<'_> {
    fn drop(&mut self) {
        // Nodes first: a rack shows the sum of its nodes.
        let (nodes, racks): (Vec<Hidden>, Vec<Hidden>) =
            std::mem::take(&mut self.hidden).into_iter().partition(|it| matches!(it, Hidden::Node { .. }));
        for it in nodes.into_iter().rev().chain(racks) {
            match it {
                Hidden::Node { share, place, leaf } => self.candidates.set_leaf(share, place, leaf),
                Hidden::Rack { share, rack } => self.show_rack(share, rack),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use distrifs_proto::SplitMix;

    use super::*;

    fn leaf(weight: u128, room: u64) -> Option<(Share, Leaf)> {
        Some((Share::Trusted, Leaf { weight, room }))
    }

    fn candidates(nodes: u32, racks: u32, room: u64) -> Candidates {
        let mut it = Candidates::default();
        for node in 0..nodes {
            it.join(node, &format!("r{}", node % racks));
            it.set(node, leaf(u128::from(room), room));
        }
        it
    }

    #[test]
    fn a_draw_leaves_the_table_as_it_was() {
        let mut it = candidates(12, 4, 100);
        let before: Vec<WeightTree> = it.shares.to_vec();
        let mut random = SplitMix::new(7);
        {
            let mut draw = it.draw(50, false);
            for _ in 0..4 {
                let node = draw.next(&mut || random.next(), |_| true).expect("a node");
                let rack = draw.rack_of(node).expect("a rack");
                draw.hide(node);
                draw.hide_rack(rack);
            }
            assert_eq!(draw.next(&mut || random.next(), |_| true), None, "all racks are hidden");
            draw.show_racks();
            for left in (0..8).rev() {
                let node = draw.next(&mut || random.next(), |_| true).expect("a node");
                draw.hide(node);
                assert_eq!(draw.next(&mut || random.next(), |_| true).is_some(), left > 0);
            }
        }
        assert_eq!(it.shares.to_vec(), before);
    }

    #[test]
    fn the_only_disk_with_room_is_found_among_many_full_ones() {
        let mut it = candidates(5000, 10, 10);
        it.set(4321, leaf(10, 100));
        let mut random = SplitMix::new(1);
        let before = hold::counted();
        assert_eq!(it.draw(50, false).next(&mut || random.next(), |_| true), Some(4321));
        assert_eq!(it.draw(500, false).next(&mut || random.next(), |_| true), None);
        assert!(hold::counted() - before <= 2 * (DRAWS_WITHOUT_ROOM_MAX as u64 + 2), "no walk over all");
    }

    #[test]
    fn nodes_move_between_racks_and_empty_racks_are_used_again() {
        let mut it = candidates(3, 3, 10);
        it.join(0, "r1");
        assert_eq!(it.rack_of(0), it.rack_of(1));
        it.set(0, leaf(10, 10));
        it.join(5, "new");
        assert_eq!(it.racks.len(), 3, "the rack that node 0 left");
        it.leave(2);
        let mut drawn = Vec::new();
        let mut random = SplitMix::new(3);
        let mut draw = it.draw(1, false);
        while let Some(node) = draw.next(&mut || random.next(), |_| true) {
            draw.hide(node);
            drawn.push(node);
        }
        drawn.sort_unstable();
        assert_eq!(drawn, [0, 1], "without weight it is not drawn");
    }

    #[test]
    fn a_rack_says_when_its_last_node_goes() {
        let mut it = candidates(3, 2, 10);
        let rack = it.rack_of(0);
        assert_eq!(it.count_live(0, true).map(|(of, live)| (Some(of), live)), Some((rack, true)));
        assert_eq!((it.count_live(0, true), it.count_live(2, true)), (None, None));
        it.leave(2);
        assert_eq!(it.count_live(0, false).map(|(of, live)| (Some(of), live)), Some((rack, false)));
    }

    #[test]
    fn the_distrusted_are_drawn_only_when_both_shares_are() {
        let mut it = candidates(1, 1, 10);
        it.set(0, Some((Share::Distrusted, Leaf { weight: 1, room: 10 })));
        assert_eq!(it.draw(1, false).next(&mut || 0, |_| true), None);
        assert_eq!(it.draw(1, true).next(&mut || 0, |_| true), Some(0));
    }
}
