//! Which node holds which replica, and which ones readers complained of.
//!
//! Nearly always up to three nodes hold the same bytes of a chunk: that is kept in 20 bytes. Whatever is different
//! (more replicas, one that is stale or damaged) is kept in a list, for as long as it is different.

use std::collections::{HashMap, VecDeque};

use distrifs_proto::InventoryDigest;
use distrifs_proto::types::{ChunkId, Crc32c, GenerationStamp};

use super::{NODES_MAX, Replica};
use crate::chunk_map::ChunkMap;

/// Complaints remembered at once; the oldest is forgotten first.
const BLAMES_MAX: usize = 4096;
/// How long a complaint counts.
const BLAME_MS: u64 = 60_000;

/// A replica on a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Held {
    /// The node's index.
    pub(super) node: u32,
    /// As reported.
    pub(super) replica: Replica,
}

impl Held {
    fn digest(&self) -> InventoryDigest {
        let it = &self.replica;
        InventoryDigest::of(it.chunk, it.generation, it.length, it.crc, it.corrupt)
    }

    /// Whether it is what the namespace expects: undamaged, not stale, the same bytes.
    pub(super) fn is_good(&self, generation: GenerationStamp, length: u64, crc: Crc32c) -> bool {
        let it = &self.replica;
        !it.corrupt && it.generation == generation && it.length == length && it.crc == crc
    }
}

/// Nodes of one chunk that are kept in short.
const ALIKE_MAX: usize = 3;
/// In the place of a count: the replicas are in the list.
const LISTED: u8 = u8::MAX;
const _: () = assert!(NODES_MAX <= u16::MAX as usize + 1);

/// Replicas of one chunk that are the same.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Alike {
    generation: u32,
    length: u32,
    crc: Crc32c,
    nodes: [u16; ALIKE_MAX],
    count: u8,
}

const _: () = assert!(size_of::<Alike>() <= 20);

impl Alike {
    const LISTED: Self =
        Self { generation: 0, length: 0, crc: Crc32c(0), nodes: [0; ALIKE_MAX], count: LISTED };

    /// Of these replicas, if they can be kept in short.
    fn of(list: &[Held]) -> Option<Self> {
        let first = list.first()?.replica;
        let same = list.iter().all(|held| held.replica == first);
        if !same || first.corrupt || list.len() > ALIKE_MAX {
            return None;
        }
        let mut nodes = [0; ALIKE_MAX];
        for (place, held) in nodes.iter_mut().zip(list) {
            *place = u16::try_from(held.node).ok()?;
        }
        let generation = u32::try_from(first.generation.0).ok()?;
        let length = u32::try_from(first.length).ok()?;
        Some(Self { generation, length, crc: first.crc, nodes, count: list.len() as u8 })
    }

    fn held(self, chunk: ChunkId) -> impl Iterator<Item = Held> {
        let replica = Replica {
            chunk,
            generation: GenerationStamp(u64::from(self.generation)),
            length: u64::from(self.length),
            crc: self.crc,
            corrupt: false,
        };
        let count = if self.count == LISTED { 0 } else { usize::from(self.count) };
        self.nodes.into_iter().take(count).map(move |node| Held { node: u32::from(node), replica })
    }
}

/// All replicas by chunk.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    alike: ChunkMap<Alike>,
    /// Those that cannot be kept in short; `alike` says which.
    listed: HashMap<ChunkId, Vec<Held>>,
    total: u64,
    /// Of the replicas of each node.
    digests: HashMap<u32, InventoryDigest>,
    /// Complaints of readers, and until when each counts.
    blames: HashMap<(ChunkId, u32), u64>,
    /// The same, the oldest first; of one that was repeated the older entry is void.
    blames_order: VecDeque<(ChunkId, u32, u64)>,
}

impl Replicas {
    /// The replicas of a chunk.
    pub(super) fn of(&self, chunk: ChunkId) -> impl Iterator<Item = Held> + '_ {
        let alike = self.alike.get(chunk).copied();
        let listed = alike.filter(|it| it.count == LISTED).and_then(|_| self.listed.get(&chunk));
        alike.into_iter().flat_map(move |it| it.held(chunk)).chain(listed.into_iter().flatten().copied())
    }

    /// Chunks of which there is a replica, in order, behind `after`.
    pub(super) fn chunks_after(&self, after: Option<ChunkId>) -> impl Iterator<Item = ChunkId> + '_ {
        self.alike.iter_after(after).map(|(chunk, _)| chunk)
    }

    /// Whether a node holds one.
    pub(super) fn holds(&self, chunk: ChunkId, node: u32) -> bool {
        self.of(chunk).any(|held| held.node == node)
    }

    /// Keeps a replica of a node; the last word counts.
    pub(super) fn put(&mut self, node: u32, replica: Replica) {
        if self.put_alike(node, replica) {
            return;
        }
        self.change(replica.chunk, |list| match list.iter_mut().find(|held| held.node == node) {
            Some(held) => held.replica = replica,
            None => list.push(Held { node, replica }),
        });
    }

    /// The usual case without a list: one more node holds what the others hold, or the same one reports it again.
    fn put_alike(&mut self, node: u32, replica: Replica) -> bool {
        let Some(alike) = self.alike.get_mut(replica.chunk).filter(|alike| alike.count != LISTED) else {
            return false;
        };
        if alike.held(replica.chunk).next().is_none_or(|held| held.replica != replica) {
            return false;
        }
        let count = usize::from(alike.count);
        if alike.nodes[..count].iter().any(|held| u32::from(*held) == node) {
            return true;
        }
        let Ok(short) = u16::try_from(node) else { return false };
        if count >= ALIKE_MAX {
            return false;
        }
        alike.nodes[count] = short;
        alike.count += 1;
        self.total += 1;
        let digest = self.digests.entry(node).or_default();
        *digest = digest.plus(Held { node, replica }.digest());
        true
    }

    /// Forgets a replica of a node.
    pub(super) fn take(&mut self, node: u32, chunk: ChunkId) {
        self.change(chunk, |list| list.retain(|held| held.node != node));
    }

    fn change(&mut self, chunk: ChunkId, change: impl FnOnce(&mut Vec<Held>)) {
        let mut list: Vec<Held> = match self.alike.get(chunk) {
            Some(alike) if alike.count == LISTED => self.listed.remove(&chunk).unwrap_or_default(),
            Some(alike) => alike.held(chunk).collect(),
            None => Vec::new(),
        };
        self.total -= list.len() as u64;
        for held in &list {
            let digest = self.digests.entry(held.node).or_default();
            *digest = digest.minus(held.digest());
        }
        change(&mut list);
        for held in &list {
            let digest = self.digests.entry(held.node).or_default();
            *digest = digest.plus(held.digest());
        }
        self.total += list.len() as u64;
        if list.is_empty() {
            self.alike.remove(chunk);
        } else if let Some(alike) = Alike::of(&list) {
            self.alike.insert(chunk, alike);
        } else {
            self.alike.insert(chunk, Alike::LISTED);
            self.listed.insert(chunk, list);
        }
    }

    /// Of the replicas of a node.
    pub(super) fn digest(&self, node: u32) -> InventoryDigest {
        self.digests.get(&node).copied().unwrap_or_default()
    }

    /// Remembers a reader's complaint.
    pub(super) fn blame(&mut self, now_ms: u64, chunk: ChunkId, node: u32) {
        if self.blames_order.len() >= BLAMES_MAX
            && let Some((chunk, node, until)) = self.blames_order.pop_front()
            && self.blames.get(&(chunk, node)) == Some(&until)
        {
            self.blames.remove(&(chunk, node));
        }
        let until = now_ms.saturating_add(BLAME_MS);
        self.blames_order.push_back((chunk, node, until));
        self.blames.insert((chunk, node), until);
    }

    /// The replica was found sound.
    pub(super) fn unblame(&mut self, chunk: ChunkId, node: u32) {
        self.blames.remove(&(chunk, node));
    }

    /// Whether readers complained of a replica lately.
    pub(super) fn is_blamed(&self, now_ms: u64, chunk: ChunkId, node: u32) -> bool {
        self.blames.get(&(chunk, node)).is_some_and(|until| *until > now_ms)
    }

    /// Chunks and replicas.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.alike.len() as u64, self.total)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn every_node_has_its_last_word(steps in proptest::collection::vec((0u64..3, 0u32..5, 0u8..8, any::<bool>()), 0..60)) {
            let (mut replicas, mut model) = (Replicas::default(), BTreeMap::new());
            for (chunk, node, what, takes) in steps {
                let chunk = ChunkId(chunk);
                if takes {
                    replicas.take(node, chunk);
                    model.remove(&(chunk, node));
                } else {
                    // Mostly the same, sometimes stale, damaged, of other bytes or beyond what is kept in short.
                    let replica = Replica {
                        chunk,
                        generation: GenerationStamp(if what == 1 { 1 } else { 2 }),
                        length: if what == 2 { u64::MAX } else { 100 },
                        crc: Crc32c(u32::from(what == 3)),
                        corrupt: what == 4,
                    };
                    replicas.put(node, replica);
                    model.insert((chunk, node), replica);
                }
            }
            let mut lists = 0;
            for chunk in (0..3).map(ChunkId) {
                let found: BTreeMap<u32, Replica> = replicas.of(chunk).map(|it| (it.node, it.replica)).collect();
                let expected: BTreeMap<u32, Replica> =
                    model.iter().filter(|((of, _), _)| *of == chunk).map(|((_, node), it)| (*node, *it)).collect();
                let all_alike = expected.values().all(|it| Some(it) == expected.values().next());
                let short = all_alike && expected.len() <= 3 && expected.values().all(|it| !it.corrupt && it.length == 100);
                lists += usize::from(!short);
                prop_assert_eq!(replicas.holds(chunk, 1), expected.contains_key(&1));
                prop_assert_eq!(found, expected);
            }
            let chunks = model.keys().map(|(chunk, _)| chunk).collect::<std::collections::BTreeSet<_>>().len();
            prop_assert_eq!(replicas.counts(), (chunks as u64, model.len() as u64));
            prop_assert_eq!(replicas.listed.len(), lists, "only what is different is listed");
            for node in 0..5 {
                let held = model.iter().filter(|((_, of), _)| *of == node).map(|((_, node), it)| Held { node: *node, replica: *it });
                let digest = held.fold(InventoryDigest::default(), |sum, held| sum.plus(held.digest()));
                prop_assert_eq!(replicas.digest(node), digest);
            }
        }
    }
}
