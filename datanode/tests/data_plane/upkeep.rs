//! What datanodes do so that no replica is lost: they check, copy and drop as they are told, and scrub by themselves.

use std::path::{Path, PathBuf};

use distrifs_datanode::Datanode;
use distrifs_proto::grpc::v1;
use distrifs_proto::types::{ChunkId, Crc32c, GenerationStamp, NodeId};
use distrifs_proto::{ErrorCode, InventoryDigest};

use crate::fake_master::FakeMaster;
use crate::wire::{Answer, Peer};
use crate::{bodies, bytes, files_below, hop, request, start, until};

/// More than one piece, and not whole blocks.
const LENGTH: usize = (2 << 20) + 777;

/// Two nodes; the first holds chunk 1.
struct Pair {
    master: FakeMaster,
    nodes: Vec<Datanode>,
    dir: tempfile::TempDir,
    content: Vec<u8>,
}

impl Pair {
    async fn start(io: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let source = start(io, &dir.path().join("0"), &master).await;
        let target = start(io, &dir.path().join("1"), &master).await;
        let content = bytes(LENGTH);
        let answer = Peer::connect(&hop(&source)).await.write(&request(1, &content, &[])).await;
        assert!(matches!(answer, Answer::Acked(_)), "{answer:?}");
        let it = Self { master, nodes: vec![source, target], dir, content };
        it.master.wait_for_chunk(ChunkId(1), &[it.id(0)]).await;
        it
    }

    fn id(&self, at: usize) -> NodeId {
        self.nodes[at].node_id()
    }

    fn folder(&self, at: usize) -> PathBuf {
        self.dir.path().join(at.to_string())
    }

    fn order(&self) -> v1::ReplicateChunk {
        v1::ReplicateChunk {
            chunk_id: 1,
            generation: 1,
            length: LENGTH as u64,
            crc32c: Crc32c::of(&self.content).0,
            target_node_id: self.id(1).0,
            target_address: hop(&self.nodes[1]).address.to_string(),
        }
    }

    async fn replicate(&self, order: v1::ReplicateChunk) -> u32 {
        let orders = v1::Orders { replicate: vec![order], ..v1::Orders::default() };
        self.master.order(self.id(0), orders).await;
        self.master.wait_for_copy(self.id(0), ChunkId(1), self.id(1)).await
    }

    async fn verify(&self) -> bool {
        let orders = v1::Orders { verify: vec![1], ..v1::Orders::default() };
        self.master.order(self.id(0), orders).await;
        self.master.wait_for_check(self.id(0), ChunkId(1)).await
    }

    /// Checks until the node finds this: the scrub's look of before may still be told first.
    async fn verify_until(&self, corrupt: bool) {
        for _ in 0..100 {
            if self.verify().await == corrupt {
                return;
            }
        }
        panic!("a hundred checks did not find it corrupt: {corrupt}");
    }

    /// Stops the first node and starts it again on what it had.
    async fn restart_source(&mut self, io: &str) {
        let id = self.id(0);
        self.nodes.remove(0).stop().await;
        self.master.forget(id);
        self.nodes.insert(0, start(io, &self.folder(0), &self.master).await);
    }

    async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }
}

fn chunk_file(folder: &Path) -> PathBuf {
    folder.join("chunks/00/chunk-0000000000000001")
}

fn flip(folder: &Path, at: usize) {
    let path = chunk_file(folder);
    let mut content = std::fs::read(&path).unwrap();
    content[at] ^= 1;
    std::fs::write(&path, content).unwrap();
}

fn data_files(folder: &Path) -> Vec<PathBuf> {
    let all = files_below(&folder.join("chunks")).into_iter().chain(files_below(&folder.join("tmp")));
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_copied_whole_and_once() {
    for io in bodies() {
        let pair = Pair::start(io).await;
        assert_eq!(pair.replicate(pair.order()).await, 0, "{io}");
        pair.master.wait_for_chunk(ChunkId(1), &[pair.id(1)]).await;
        assert_eq!(std::fs::read(chunk_file(&pair.folder(1))).unwrap(), pair.content, "{io}");
        let read = Peer::connect(&hop(&pair.nodes[1])).await.read(ChunkId(1), 0, LENGTH).await;
        assert_eq!(read.unwrap(), pair.content);
        let again = pair.replicate(pair.order()).await;
        assert_eq!(again, u32::from(ErrorCode::AlreadyExists.number()), "{io}: never over a replica");
        assert_eq!(std::fs::read(chunk_file(&pair.folder(1))).unwrap(), pair.content, "{io}");
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_found_and_never_copied() {
    for io in bodies() {
        for place in [5, (1 << 20) + 5, LENGTH - 1] {
            let pair = Pair::start(io).await;
            assert!(!pair.verify().await, "{io}: sound");
            flip(&pair.folder(0), place);
            let code = pair.replicate(pair.order()).await;
            assert_eq!(code, u32::from(ErrorCode::Corrupt.number()), "{io}: byte {place}");
            until("the node says that it is corrupt", || pair.master.is_corrupt(pair.id(0), ChunkId(1)))
                .await;
            // The next order is refused without a look, and whoever looks finds it again.
            assert_eq!(pair.replicate(pair.order()).await, u32::from(ErrorCode::Corrupt.number()));
            pair.verify_until(true).await;
            until("the target has nothing", || data_files(&pair.folder(1)).is_empty()).await;
            flip(&pair.folder(0), place);
            pair.verify_until(false).await;
            assert!(!pair.master.is_corrupt(pair.id(0), ChunkId(1)), "{io}: it is as it was");
            pair.stop().await;
        }
    }
}

/// A restart does not make a damaged replica a sound one, and a sound one is not held for damaged for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_no_damage() {
    for io in bodies() {
        for by_copy in [false, true] {
            let mut pair = Pair::start(io).await;
            let (id, folder) = (pair.id(0), pair.folder(0));
            let mark = folder.join("chunks/00/chunk-0000000000000001.bad");
            for damaged in [true, false] {
                flip(&folder, LENGTH / 2);
                if damaged && by_copy {
                    let code = pair.replicate(pair.order()).await;
                    assert_eq!(code, u32::from(ErrorCode::Corrupt.number()), "{io}");
                } else {
                    pair.verify_until(damaged).await;
                }
                assert_eq!(mark.exists(), damaged, "{io}");
                pair.restart_source(io).await;
                assert_eq!(pair.master.reports(id).0, 1, "{io}: from the full report");
                assert_eq!(pair.master.is_corrupt(id, ChunkId(1)), damaged, "{io}: at once");
                let code = pair.replicate(pair.order()).await;
                assert_eq!(code == u32::from(ErrorCode::Corrupt.number()), damaged, "{io}: and never copied");
            }
            pair.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_asked_for_is_copied() {
    let pair = Pair::start("posix").await;
    let order = pair.order();
    for (name, wrong) in [
        ("generation", v1::ReplicateChunk { generation: 2, ..order.clone() }),
        ("length", v1::ReplicateChunk { length: 5, ..order.clone() }),
        ("checksum", v1::ReplicateChunk { crc32c: order.crc32c ^ 1, ..order.clone() }),
    ] {
        assert_eq!(pair.replicate(wrong).await, u32::from(ErrorCode::StaleGeneration.number()), "{name}");
    }
    let nowhere = v1::ReplicateChunk { target_address: "127.0.0.1:1".into(), ..order.clone() };
    assert_eq!(pair.replicate(nowhere).await, u32::from(ErrorCode::HopFailed.number()));
    let no_address = v1::ReplicateChunk { target_address: "?".into(), ..order.clone() };
    assert_eq!(pair.replicate(no_address).await, u32::from(ErrorCode::Protocol.number()));
    let missing = v1::Orders {
        replicate: vec![v1::ReplicateChunk { chunk_id: 9, ..order }],
        verify: vec![9],
        ..v1::Orders::default()
    };
    pair.master.order(pair.id(0), missing).await;
    let code = pair.master.wait_for_copy(pair.id(0), ChunkId(9), pair.id(1)).await;
    assert_eq!(code, u32::from(ErrorCode::NoSuchChunk.number()));
    assert!(data_files(&pair.folder(1)).is_empty());
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_needs_the_same_mind_about_the_replica() {
    let pair = Pair::start("posix").await;
    let drop = |generation, corrupt| v1::Orders {
        drop: vec![v1::DropReplica { chunk_id: 1, generation, corrupt }],
        ..v1::Orders::default()
    };
    for refused in [drop(0, false), drop(1, true)] {
        pair.master.order(pair.id(0), refused).await;
        // Orders are obeyed in turn: this one came behind it.
        assert!(!pair.verify().await);
        assert!(chunk_file(&pair.folder(0)).exists());
    }
    flip(&pair.folder(0), 0);
    pair.verify_until(true).await;
    pair.master.order(pair.id(0), drop(1, false)).await;
    pair.verify_until(true).await;
    assert!(chunk_file(&pair.folder(0)).exists());
    pair.master.order(pair.id(0), drop(1, true)).await;
    pair.master.wait_for_removal(pair.id(0), ChunkId(1)).await;
    until("its files go", || data_files(&pair.folder(0)).is_empty()).await;
    // And the place is free for a new one.
    let answer = Peer::connect(&hop(&pair.nodes[0])).await.write(&request(1, &pair.content, &[])).await;
    assert!(matches!(answer, Answer::Acked(_)), "{answer:?}");
    pair.master.wait_for_chunk(ChunkId(1), &[pair.id(0)]).await;
    pair.verify_until(false).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_file_went_is_reported_gone() {
    let pair = Pair::start("posix").await;
    std::fs::remove_file(chunk_file(&pair.folder(0))).unwrap();
    let orders = v1::Orders { verify: vec![1], ..v1::Orders::default() };
    pair.master.order(pair.id(0), orders).await;
    pair.master.wait_for_removal(pair.id(0), ChunkId(1)).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrub_finds_rot_that_nobody_reads() {
    for io in bodies() {
        let pair = Pair::start(io).await;
        until("the scrub has read it", || pair.master.scrubbed(pair.id(0)) > 0).await;
        flip(&pair.folder(0), LENGTH / 2);
        until("the scrub finds it", || pair.master.is_corrupt(pair.id(0), ChunkId(1))).await;
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_is_not_listed_again_unless_it_is_asked_for() {
    let pair = Pair::start("posix").await;
    let (generation, crc) = (GenerationStamp(1), Crc32c::of(&pair.content));
    let expected = InventoryDigest::of(ChunkId(1), generation, LENGTH as u64, crc, false);
    until("the digest is that of its replica", || pair.master.reports(pair.id(0)).1 == Some(expected)).await;
    assert_eq!(pair.master.reports(pair.id(0)).0, 1, "one list, at the beginning");
    pair.master.order(pair.id(0), v1::Orders { report: true, ..v1::Orders::default() }).await;
    until("a list comes when it is asked for", || pair.master.reports(pair.id(0)).0 == 2).await;
    pair.stop().await;
}
