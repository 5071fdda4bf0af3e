//! What a frame costs a datanode in allocations, written and read: nothing with io_uring; with the POSIX body what its
//! way to a thread of the pool costs. A chunk has its cost, however many frames it has.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../data_plane/fake_master.rs"]
#[allow(dead_code, reason = "it can do more than is needed here")]
mod fake_master;
#[path = "../data_plane/wire.rs"]
#[allow(dead_code, reason = "it can do more than is needed here")]
mod wire;

use std::path::Path;
use std::time::Duration;

use distrifs_datanode::{Datanode, DatanodeConfig};
use distrifs_engine::io::probe_uring;
use distrifs_proto::frame::Hop;
use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_proto::types::{ChunkId, Epoch, GenerationStamp};
use distrifs_testkit::{CountingAllocator, allocations_of_threads};
use fake_master::FakeMaster;
use wire::{Answer, Peer, WriteRequest};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// How long anything may take to happen before the test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Datanodes that a chunk goes through.
const CHAIN: usize = 3;
/// Frames of a short and of a long chunk.
const FEW: usize = 8;
const MANY: usize = 64;
/// Of so many chunks of each length the cheapest counts: what is kept grows with the first ones.
const ROUNDS: usize = 4;
/// What a long chunk may cost beyond a short one: one more task for each of its buffers but one at each of its nodes,
/// of two allocations, where the disk is slow just then, and a few for queues and tables that grow. Less than one
/// allocation for each further frame at one node.
const SLACK: u64 = 40;
const _: () = assert!(SLACK < (MANY - FEW) as u64);

/// Allocations of the shards, by what they did.
#[derive(Debug, Clone, Copy)]
struct Cost {
    written: u64,
    read: u64,
}

struct Chain {
    nodes: Vec<Datanode>,
    peer: Peer,
    chunks: u64,
}

impl Chain {
    async fn start(io: &str, root: &Path, master: &FakeMaster) -> Self {
        let mut nodes = Vec::new();
        for i in 0..CHAIN {
            let config = DatanodeConfig {
                advertise: None,
                data_dirs: vec![root.join(i.to_string())],
                masters: vec![master.address()],
                listen: "127.0.0.1:0".parse().unwrap(),
                http: None,
                rack: "r1".into(),
                shards: Some(1),
                io: io.parse().unwrap(),
                scrub_interval: Duration::from_secs(3600),
                socket_timeout: Duration::from_secs(10),
                delays: Vec::new(),
            };
            let node = Datanode::start(config).await.unwrap();
            master.wait_for_report(node.node_id()).await;
            nodes.push(node);
        }
        let peer = Peer::connect(&hop(&nodes[0])).await;
        Self { nodes, peer, chunks: 0 }
    }

    /// Writes a chunk of so many frames through the chain and reads it at the first node.
    async fn pass(&mut self, frames: usize) -> Cost {
        self.chunks += 1;
        let request = WriteRequest {
            chunk: ChunkId(self.chunks),
            generation: GenerationStamp(1),
            epoch: Epoch(1),
            content: vec![0xa5; frames * FRAME_PAYLOAD_BYTES_MAX],
            hops: self.nodes[1..].iter().map(hop).collect(),
        };
        let before = allocations_of_threads("shard-");
        let answer = self.peer.write(&request).await;
        let written = allocations_of_threads("shard-") - before;
        assert!(matches!(answer, Answer::Acked(_)), "{answer:?}");
        let before = allocations_of_threads("shard-");
        let read = self.peer.read(request.chunk, 0, request.content.len()).await.unwrap();
        assert!(read == request.content);
        Cost { written, read: allocations_of_threads("shard-") - before }
    }

    /// The least that chunks of few and of many frames cost.
    async fn cost(&mut self) -> [Cost; 2] {
        let mut least = [Cost { written: u64::MAX, read: u64::MAX }; 2];
        for _ in 0..ROUNDS {
            for (least, frames) in least.iter_mut().zip([FEW, MANY]) {
                let cost = self.pass(frames).await;
                least.written = least.written.min(cost.written);
                least.read = least.read.min(cost.read);
            }
        }
        least
    }
}

fn hop(node: &Datanode) -> Hop {
    Hop { node: node.node_id(), address: node.data_address().into() }
}

/// `for_a_thread`: what it costs to have a disk operation carried out by a thread of the pool.
async fn check(io: &str, for_a_thread: u64) {
    let dir = tempfile::tempdir().unwrap();
    let master = FakeMaster::start(1).await;
    let mut chain = Chain::start(io, dir.path(), &master).await;
    let [few, many] = chain.cost().await;
    println!("{io}: {FEW} frames: {few:?}, {MANY} frames: {many:?}");
    assert!(few.written > 0 && few.read > 0, "the shards are not counted");
    let further = (MANY - FEW) as u64 * for_a_thread;
    assert!(
        many.written <= few.written + CHAIN as u64 * further + SLACK,
        "{io}: a written frame has its cost"
    );
    assert!(many.read <= few.read + further + SLACK, "{io}: a read frame has its cost");
    for node in chain.nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_costs_a_datanode_no_allocation() {
    check("posix", 1).await;
    match probe_uring() {
        Ok(()) => check("uring", 0).await,
        Err(reason) => println!("io_uring does not work here ({reason}): only posix is tested"),
    }
}
