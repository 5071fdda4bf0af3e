//! A map from chunk ids, ordered, for very many of them. Pure.
//!
//! Ids are handed out in sequence, so live ones stand close together: they are kept in pages of
//! [`PAGE_IDS`] ids, each a bitmap of which ids are there and their values without gaps. A dense page costs half
//! a byte an entry beside the value itself, where a hash table costs its load (1.1 to 2.3 times) and a rehash of
//! millions of entries at once. A page with a single entry costs about 100 bytes.

use std::collections::BTreeMap;

use distrifs_proto::types::ChunkId;

/// Ids in one page.
const PAGE_IDS: u64 = 256;
const WORDS: usize = (PAGE_IDS / 64) as usize;

/// Chunks and what is kept of each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChunkMap<V> {
    pages: BTreeMap<u64, Page<V>>,
    len: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Page<V> {
    present: [u64; WORDS],
    /// In the order of ids.
    values: Vec<V>,
}

impl<V> Default for ChunkMap<V> {
    fn default() -> Self {
        Self { pages: BTreeMap::new(), len: 0 }
    }
}

fn split(id: ChunkId) -> (u64, usize) {
    (id.0 / PAGE_IDS, (id.0 % PAGE_IDS) as usize)
}

impl<V> Page<V> {
    fn has(&self, at: usize) -> bool {
        self.present[at / 64] >> (at % 64) & 1 != 0
    }

    /// How many ids before `at` are there.
    fn rank(&self, at: usize) -> usize {
        let whole: u32 = self.present[..at / 64].iter().map(|word| word.count_ones()).sum();
        let below = self.present[at / 64] & ((1 << (at % 64)) - 1);
        (whole + below.count_ones()) as usize
    }

    /// The ids from `from` on, with their values.
    fn iter_from(&self, from: usize) -> impl Iterator<Item = (usize, &V)> {
        let rank = if from < PAGE_IDS as usize { self.rank(from) } else { self.values.len() };
        (from..PAGE_IDS as usize).filter(|at| self.has(*at)).zip(&self.values[rank..])
    }
}

impl<V> ChunkMap<V> {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is kept of `id`.
    pub(crate) fn get(&self, id: ChunkId) -> Option<&V> {
        let (page, at) = split(id);
        let page = self.pages.get(&page)?;
        if page.has(at) { page.values.get(page.rank(at)) } else { None }
    }

    /// What is kept of `id`, to be changed.
    pub(crate) fn get_mut(&mut self, id: ChunkId) -> Option<&mut V> {
        let (page, at) = split(id);
        let page = self.pages.get_mut(&page)?;
        let rank = page.rank(at);
        if page.has(at) { page.values.get_mut(rank) } else { None }
    }

    /// Keeps `value` and gives back what was kept before.
    pub(crate) fn insert(&mut self, id: ChunkId, value: V) -> Option<V> {
        let (page, at) = split(id);
        let empty = || Page { present: [0; WORDS], values: Vec::new() };
        let page = self.pages.entry(page).or_insert_with(empty);
        let rank = page.rank(at);
        if page.has(at) {
            return page.values.get_mut(rank).map(|kept| std::mem::replace(kept, value));
        }
        page.present[at / 64] |= 1 << (at % 64);
        page.values.insert(rank, value);
        self.len += 1;
        None
    }

    /// Forgets `id`.
    pub(crate) fn remove(&mut self, id: ChunkId) -> Option<V> {
        let (number, at) = split(id);
        let page = self.pages.get_mut(&number)?;
        if !page.has(at) {
            return None;
        }
        let value = page.values.remove(page.rank(at));
        page.present[at / 64] &= !(1 << (at % 64));
        self.len -= 1;
        if page.values.is_empty() {
            self.pages.remove(&number);
        } else if page.values.len() * 4 <= page.values.capacity() {
            // A page that has become sparse gives its room back.
            page.values.shrink_to(page.values.len() * 2);
        }
        Some(value)
    }

    /// The entries behind `after` (all of them: `None`), in order.
    pub(crate) fn iter_after(&self, after: Option<ChunkId>) -> impl Iterator<Item = (ChunkId, &V)> {
        let first = after.map_or(Some(0), |after| after.0.checked_add(1));
        first.into_iter().flat_map(move |first| {
            let (page, at) = split(ChunkId(first));
            self.pages.range(page..).flat_map(move |(number, it)| {
                let from = if *number == page { at } else { 0 };
                it.iter_from(from).map(move |(at, value)| (ChunkId(number * PAGE_IDS + at as u64), value))
            })
        })
    }

    /// All entries in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ChunkId, &V)> {
        self.iter_after(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_map(steps in proptest::collection::vec((any::<bool>(), 0u64..1100, any::<u32>()), 0..300)) {
            let (mut map, mut model) = (ChunkMap::default(), BTreeMap::new());
            for (insert, id, value) in steps {
                // Some at the very end of the ids.
                let id = ChunkId(if id >= 1000 { u64::MAX - (id - 1000) } else { id });
                if insert {
                    prop_assert_eq!(map.insert(id, value), model.insert(id, value));
                } else {
                    prop_assert_eq!(map.remove(id), model.remove(&id));
                }
                prop_assert_eq!(map.get(id), model.get(&id));
                prop_assert_eq!(map.get_mut(id).copied(), model.get(&id).copied());
                prop_assert_eq!(map.len(), model.len());
                let behind: Vec<_> = map.iter_after(Some(id)).collect();
                let expected: Vec<_> = model.iter().filter(|(at, _)| **at > id).map(|(at, it)| (*at, it)).collect();
                prop_assert_eq!(behind, expected);
            }
            prop_assert!(map.iter().map(|(id, value)| (id, *value)).eq(model.iter().map(|(id, value)| (*id, *value))));
            let pages: std::collections::BTreeSet<u64> = model.keys().map(|id| split(*id).0).collect();
            prop_assert_eq!(map.pages.len(), pages.len(), "empty pages go");
        }
    }
}
