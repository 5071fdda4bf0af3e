//! A sorted table that can be read as it was at one moment, in pages, while it goes on changing.
//!
//! From [`Table::freeze`] on, the first change of an entry that no page has handed out yet keeps what the entry
//! was. That costs memory for what changes during a snapshot only, and nobody ever waits for more than a page.
//! (The idea is that of read views by copy on write, as in databases of the main memory.)

use std::collections::BTreeMap;

use distrifs_proto::types::ChunkId;

use crate::chunk_map::ChunkMap;

/// Entries that one page passes over because they are newer than the snapshot: they fill no page, and there may be
/// millions of them in a row.
pub(super) const PAGE_SKIPS_MAX: usize = 4096;

/// A sorted map.
pub(super) trait Ordered {
    /// By which it is sorted.
    type Key: Ord + Copy;
    /// What is kept.
    type Value: Clone;
    /// How many entries there are.
    fn len(&self) -> usize;
    /// What is kept of `key`.
    fn get(&self, key: Self::Key) -> Option<&Self::Value>;
    /// To be changed.
    fn get_mut(&mut self, key: Self::Key) -> Option<&mut Self::Value>;
    /// Keeps a value, gives back the one before.
    fn insert(&mut self, key: Self::Key, value: Self::Value) -> Option<Self::Value>;
    /// Forgets an entry.
    fn remove(&mut self, key: Self::Key) -> Option<Self::Value>;
    /// The entries behind `after`.
    fn iter_after(&self, after: Option<Self::Key>) -> impl Iterator<Item = (Self::Key, &Self::Value)>;
}

impl<K: Ord + Copy, V: Clone> Ordered for BTreeMap<K, V> {
    type Key = K;
    type Value = V;

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn get(&self, key: K) -> Option<&V> {
        Self::get(self, &key)
    }

    fn get_mut(&mut self, key: K) -> Option<&mut V> {
        Self::get_mut(self, &key)
    }

    fn insert(&mut self, key: K, value: V) -> Option<V> {
        Self::insert(self, key, value)
    }

    fn remove(&mut self, key: K) -> Option<V> {
        Self::remove(self, &key)
    }

    fn iter_after(&self, after: Option<K>) -> impl Iterator<Item = (K, &V)> {
        behind(self, after)
    }
}

impl<V: Clone> Ordered for ChunkMap<V> {
    type Key = ChunkId;
    type Value = V;

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn get(&self, key: ChunkId) -> Option<&V> {
        Self::get(self, key)
    }

    fn get_mut(&mut self, key: ChunkId) -> Option<&mut V> {
        Self::get_mut(self, key)
    }

    fn insert(&mut self, key: ChunkId, value: V) -> Option<V> {
        Self::insert(self, key, value)
    }

    fn remove(&mut self, key: ChunkId) -> Option<V> {
        Self::remove(self, key)
    }

    fn iter_after(&self, after: Option<ChunkId>) -> impl Iterator<Item = (ChunkId, &V)> {
        Self::iter_after(self, after)
    }
}

fn behind<K: Ord + Copy, V>(map: &BTreeMap<K, V>, after: Option<K>) -> impl Iterator<Item = (K, &V)> {
    use std::ops::Bound::{Excluded, Unbounded};
    map.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(key, value)| (*key, value))
}

/// What entries were when the snapshot began, as far as they have changed since and were not handed out.
#[derive(Debug, Clone)]
struct Frozen<K, V> {
    /// Handed out up to here.
    done: Option<K>,
    old: BTreeMap<K, Option<V>>,
}

/// A sorted map with at most one snapshot.
#[derive(Debug, Clone)]
pub(super) struct Table<M: Ordered> {
    map: M,
    frozen: Option<Frozen<M::Key, M::Value>>,
}

impl<M: Ordered + Default> Default for Table<M> {
    fn default() -> Self {
        Self { map: M::default(), frozen: None }
    }
}

/// A snapshot under way is no part of the state.
impl<M: Ordered + PartialEq> PartialEq for Table<M> {
    fn eq(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

impl<M: Ordered> Table<M> {
    /// A table of what is in `map`.
    pub(super) fn new(map: M) -> Self {
        Self { map, frozen: None }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// What is kept of `key`.
    pub(super) fn get(&self, key: M::Key) -> Option<&M::Value> {
        self.map.get(key)
    }

    /// Whether anything is kept of `key`.
    pub(super) fn contains(&self, key: M::Key) -> bool {
        self.map.get(key).is_some()
    }

    /// To be changed.
    pub(super) fn get_mut(&mut self, key: M::Key) -> Option<&mut M::Value> {
        self.keep(key);
        self.map.get_mut(key)
    }

    /// Keeps a value.
    pub(super) fn insert(&mut self, key: M::Key, value: M::Value) {
        self.keep(key);
        self.map.insert(key, value);
    }

    /// Forgets an entry.
    pub(super) fn remove(&mut self, key: M::Key) -> Option<M::Value> {
        self.keep(key);
        self.map.remove(key)
    }

    /// The entries behind `after`, in order.
    pub(super) fn iter_after(&self, after: Option<M::Key>) -> impl Iterator<Item = (M::Key, &M::Value)> {
        self.map.iter_after(after)
    }

    /// All entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (M::Key, &M::Value)> {
        self.map.iter_after(None)
    }

    fn keep(&mut self, key: M::Key) {
        if let Some(frozen) = &mut self.frozen
            && frozen.done < Some(key)
        {
            frozen.old.entry(key).or_insert_with(|| self.map.get(key).cloned());
        }
    }

    /// From here on pages show what is in the table now.
    pub(super) fn freeze(&mut self) {
        self.frozen = Some(Frozen { done: None, old: BTreeMap::new() });
    }

    /// Ends the snapshot. Gives back what was kept for it, to be dropped without the lock: after an aborted one these
    /// may be millions of entries.
    pub(super) fn thaw(&mut self) -> impl Sized + use<M> {
        self.frozen.take()
    }

    /// Hands out more entries of the snapshot, in order, for as long as `take` wants more, or none at all where many
    /// newer ones lie in between; says whether there may be more.
    pub(super) fn page(&mut self, mut take: impl FnMut(M::Key, &M::Value) -> bool) -> bool {
        let Some(frozen) = &mut self.frozen else { return false };
        let after = frozen.done;
        let mut now = self.map.iter_after(after).peekable();
        let mut old = behind(&frozen.old, after).peekable();
        let (mut wanted, mut more, mut last, mut skips) = (true, true, after, 0);
        while wanted {
            let changed = match (now.peek(), old.peek()) {
                (None, None) => {
                    more = false;
                    break;
                }
                (Some((now, _)), Some((old, _))) => old <= now,
                (now, _) => now.is_none(),
            };
            if changed {
                let Some((key, value)) = old.next() else { break };
                now.next_if(|(now, _)| *now == key);
                last = Some(key);
                match value {
                    Some(value) => wanted = take(key, value),
                    None => {
                        skips += 1;
                        wanted = skips < PAGE_SKIPS_MAX;
                    }
                }
            } else {
                let Some((key, value)) = now.next() else { break };
                last = Some(key);
                wanted = take(key, value);
            }
        }
        drop((now, old));
        if let Some(last) = last {
            // What was handed out need not be kept.
            let rest = frozen.old.split_off(&last);
            frozen.old = rest;
            frozen.old.remove(&last);
        }
        frozen.done = last;
        if !more {
            // Nothing more is kept, else what is added behind the last entry would be until the snapshot ends.
            self.frozen = None;
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn a_page_passes_over_a_bounded_number_of_newer_entries() {
        let mut table = Table::new(BTreeMap::from([(0u32, 'a'), (u32::MAX, 'b')]));
        table.freeze();
        (1..=3 * PAGE_SKIPS_MAX as u32).for_each(|key| table.insert(key, 'n'));
        let (mut shown, mut pages) = (Vec::new(), 0);
        let mut more = true;
        while more {
            let before = table.frozen.as_ref().map_or(0, |it| it.old.len());
            more = table.page(|key, _| {
                shown.push(key);
                true
            });
            let after = table.frozen.as_ref().map_or(0, |it| it.old.len());
            assert!(before - after <= PAGE_SKIPS_MAX, "{} in one page", before - after);
            pages += 1;
        }
        assert_eq!((shown, pages), (vec![0, u32::MAX], 4));
    }

    proptest! {
        #[test]
        fn pages_show_the_moment_of_the_freeze(
            before in proptest::collection::btree_map(0u8..40, any::<u16>(), 0..30),
            steps in proptest::collection::vec((0u8..4, 0u8..40, any::<u16>()), 0..80),
            limit in 1usize..7,
        ) {
            let mut table = Table::new(before.clone());
            table.freeze();
            let mut shown = BTreeMap::new();
            let mut ended = false;
            let mut page = |table: &mut Table<BTreeMap<u8, u16>>| {
                if !ended {
                    let mut left = limit;
                    ended = !table.page(|key, value| {
                        assert_eq!(shown.insert(key, *value), None);
                        left -= 1;
                        left > 0
                    });
                }
                ended
            };
            for (what, key, value) in steps {
                match what {
                    0 => { page(&mut table); }
                    1 => table.insert(key, value),
                    2 => { table.remove(key); }
                    _ => if let Some(it) = table.get_mut(key) { *it = value },
                }
            }
            while !page(&mut table) {}
            prop_assert_eq!(shown, before);
        }
    }
}
