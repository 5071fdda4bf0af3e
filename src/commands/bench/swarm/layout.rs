//! Which simulated datanode stands in which rack and holds which chunks: pure functions of the index.
//!
//! Chunk `c` belongs to round `c / nodes`. In each round every node is once the first, once the second and once the
//! third holder of a chunk, so that all nodes hold equally many. The distances between the holders differ from round to
//! round: when nodes fail, the surviving copies of their chunks are spread over the whole cluster, as random placement
//! would have them.

use distrifs_proto::SplitMix;

/// Replicas of each chunk.
pub(super) const REPLICATION: u64 = 3;

/// Nodes, racks and chunks of a simulated cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    nodes: u64,
    racks: u64,
    chunks: u64,
    seed: u64,
}

impl Layout {
    /// `nodes` nodes in `racks` racks that hold about `per_node` replicas each.
    pub(super) fn new(nodes: u64, racks: u64, per_node: u64, seed: u64) -> Self {
        assert!(nodes >= REPLICATION, "{nodes} nodes cannot hold {REPLICATION} replicas");
        assert!((1..=nodes).contains(&racks), "{racks} racks of {nodes} nodes");
        Self { nodes, racks, chunks: (nodes * per_node / REPLICATION).max(1), seed }
    }

    pub(super) fn nodes(&self) -> u64 {
        self.nodes
    }

    /// Chunks, of [`REPLICATION`] replicas each.
    pub(super) fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Replicas on all nodes together.
    pub(super) fn replicas(&self) -> u64 {
        self.chunks * REPLICATION
    }

    /// Rack of a node. Racks are runs of neighbours, so that the first nodes, which are killed, are whole racks.
    pub(super) fn rack_of(&self, node: u64) -> u64 {
        node * self.racks / self.nodes
    }

    /// How many of the first nodes are killed with `percent`.
    pub(super) fn killed(&self, percent: u64) -> u64 {
        self.nodes * percent / 100
    }

    /// Distances, in nodes, from the first to the second and third holder of the chunks of a round.
    fn distances(&self, round: u64) -> [u64; 2] {
        // A rack has at most this many nodes: at this distance in both directions two nodes are in different racks.
        let gap = self.nodes.div_ceil(self.racks).min(self.nodes / REPLICATION);
        let slack = self.nodes - REPLICATION * gap;
        let mut random = SplitMix::new(self.seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let first = random.next() % (slack + 1);
        let second = random.next() % (slack - first + 1);
        [gap + first, 2 * gap + first + second]
    }

    /// The chunks on a node, sorted.
    pub(super) fn chunks_on(&self, node: u64) -> Vec<u64> {
        let rounds = self.chunks.div_ceil(self.nodes);
        let mut chunks = Vec::with_capacity((rounds * REPLICATION) as usize);
        for round in 0..rounds {
            let [second, third] = self.distances(round);
            for distance in [0, second, third] {
                let chunk = round * self.nodes + (node + self.nodes - distance) % self.nodes;
                if chunk < self.chunks {
                    chunks.push(chunk);
                }
            }
        }
        chunks.sort_unstable();
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Layout {
        /// The nodes that hold a chunk: the other direction of [`Layout::chunks_on`].
        fn holders(&self, chunk: u64) -> [u64; REPLICATION as usize] {
            let (round, first) = (chunk / self.nodes, chunk % self.nodes);
            let [second, third] = self.distances(round);
            [first, (first + second) % self.nodes, (first + third) % self.nodes]
        }
    }

    #[test]
    fn replicas_of_a_chunk_are_in_different_racks_and_nodes_hold_equally_many() {
        for (nodes, racks, per_node) in
            [(40, 10, 30), (500, 10, 300), (1000, 7, 99), (17, 4, 30), (300, 60, 3)]
        {
            let layout = Layout::new(nodes, racks, per_node, 7);
            let mut held = vec![Vec::new(); nodes as usize];
            for chunk in 0..layout.chunks() {
                let holders = layout.holders(chunk);
                let mut in_racks = holders.map(|node| layout.rack_of(node));
                in_racks.sort_unstable();
                assert!(in_racks.windows(2).all(|pair| pair[0] < pair[1]), "{nodes} {racks}: {holders:?}");
                holders.iter().for_each(|node| held[*node as usize].push(chunk));
            }
            for (node, chunks) in held.iter().enumerate() {
                assert_eq!(*chunks, layout.chunks_on(node as u64), "the two directions agree");
                assert!((per_node.saturating_sub(3)..=per_node + 3).contains(&(chunks.len() as u64)));
            }
            let total: u64 = held.iter().map(|chunks| chunks.len() as u64).sum();
            assert_eq!(total, layout.replicas());
        }
    }

    #[test]
    fn survivors_of_a_failed_rack_are_spread_over_the_others() {
        let layout = Layout::new(100, 10, 300, 1);
        let mut sources = std::collections::HashSet::new();
        for chunk in 0..layout.chunks() {
            let holders = layout.holders(chunk);
            if holders.iter().any(|node| layout.rack_of(*node) == 0) {
                sources.extend(holders.into_iter().filter(|node| layout.rack_of(*node) != 0));
            }
        }
        assert_eq!(sources.len(), 90, "each survivor has something to copy");
    }

    #[test]
    fn the_killed_nodes_are_whole_racks() {
        let layout = Layout::new(300, 10, 300, 1);
        assert_eq!(layout.killed(10), 30);
        assert_eq!((layout.rack_of(29), layout.rack_of(30), layout.rack_of(299)), (0, 1, 9));
        assert_eq!(layout.killed(0), 0);
        assert_eq!(Layout::new(3, 3, 1, 1).killed(10), 0);
    }

    #[test]
    fn three_nodes_hold_all_chunks() {
        let layout = Layout::new(3, 3, 10, 1);
        for node in 0..3 {
            assert_eq!(layout.chunks_on(node), (0..10).collect::<Vec<_>>());
        }
    }
}
