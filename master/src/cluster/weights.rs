//! A tree over slots that draws one in proportion to its weight, or one with enough free space, in O(log slots). Pure.
//!
//! ```text
//! sums:  inner nodes hold the weight below them        rooms: inner nodes hold the largest room below them
//!           9                                                   70
//!        5     4                                             40    70
//!       2 3   4 0                                          40 10  70 0
//! ```

/// One leaf: how likely it is drawn and how many bytes it takes. Zero weight: never drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Leaf {
    /// In proportion to which it is drawn. Sums of 65,536 disks overflow 64 bits.
    pub(super) weight: u128,
    /// Bytes that it takes.
    pub(super) room: u64,
}

impl Leaf {
    /// Two leaves as one.
    fn merged(self, other: Self) -> Self {
        Self { weight: self.weight + other.weight, room: self.room.max(other.room) }
    }
}

/// Leaves by slot, with sums above them. The root is at 1, the leaves are the second half.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WeightTree {
    tree: Vec<Leaf>,
}

impl Default for WeightTree {
    fn default() -> Self {
        Self { tree: vec![Leaf::default(); 2] }
    }
}

impl WeightTree {
    fn slots(&self) -> usize {
        self.tree.len() / 2
    }

    /// The sum of all weights and the largest room.
    pub(super) fn all(&self) -> Leaf {
        self.tree[1]
    }

    /// The leaf of a slot; an empty one where none was set.
    pub(super) fn get(&self, slot: usize) -> Leaf {
        if slot < self.slots() { self.tree[self.slots() + slot] } else { Leaf::default() }
    }

    /// Sets a leaf. The tree doubles where the slot is beyond it, which costs O(slots) once per doubling.
    pub(super) fn set(&mut self, slot: usize, leaf: Leaf) {
        if slot >= self.slots() {
            if leaf == Leaf::default() {
                return;
            }
            self.grow(slot + 1);
        }
        let mut at = self.slots() + slot;
        self.tree[at] = leaf;
        while at > 1 {
            at /= 2;
            self.tree[at] = self.tree[2 * at].merged(self.tree[2 * at + 1]);
        }
    }

    fn grow(&mut self, slots: usize) {
        let leaves = self.tree.split_off(self.slots());
        let slots = slots.next_power_of_two();
        self.tree = vec![Leaf::default(); slots];
        self.tree.extend(leaves);
        self.tree.resize(2 * slots, Leaf::default());
        for at in (1..slots).rev() {
            self.tree[at] = self.tree[2 * at].merged(self.tree[2 * at + 1]);
        }
    }

    /// The slot in which `at` falls when the weights stand in a row; `at` is below the sum.
    pub(super) fn draw(&self, mut at: u128) -> Option<usize> {
        if at >= self.all().weight {
            return None;
        }
        let mut node = 1;
        while node < self.slots() {
            let left = self.tree[2 * node].weight;
            node *= 2;
            if at >= left {
                at -= left;
                node += 1;
            }
        }
        Some(node - self.slots())
    }

    /// A slot that takes `bytes` and may be drawn: the first one.
    pub(super) fn with_room(&self, bytes: u64) -> Option<usize> {
        let fits = |leaf: Leaf| leaf.weight > 0 && leaf.room >= bytes;
        let mut node = 1;
        if !fits(self.all()) {
            return None;
        }
        while node < self.slots() {
            // A leaf without weight has no room either, so a subtree with room has a leaf that fits.
            node = if fits(self.tree[2 * node]) { 2 * node } else { 2 * node + 1 };
        }
        Some(node - self.slots())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn draws_follow_the_row_of_weights(
            steps in proptest::collection::vec((0usize..40, 0u64..5, 0u64..100), 0..80),
            at in 0u64..200,
            bytes in 1u64..120,
        ) {
            let (mut tree, mut model) = (WeightTree::default(), [Leaf::default(); 40]);
            for (slot, weight, room) in steps {
                let room = if weight == 0 { 0 } else { room };
                model[slot] = Leaf { weight: u128::from(weight), room };
                tree.set(slot, model[slot]);
            }
            let total: u128 = model.iter().map(|leaf| leaf.weight).sum();
            prop_assert_eq!(tree.all().weight, total);
            let mut row = model.iter().enumerate().flat_map(|(slot, leaf)| (0..leaf.weight).map(move |_| slot));
            prop_assert_eq!(tree.draw(u128::from(at)), row.nth(at as usize));
            let fits = model.iter().position(|leaf| leaf.weight > 0 && leaf.room >= bytes);
            prop_assert_eq!(tree.with_room(bytes), fits);
            prop_assert!((0..40).all(|slot| tree.get(slot) == model[slot]));
        }
    }
}
