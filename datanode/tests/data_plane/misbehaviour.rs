//! Hops, clients and masters that stall, lie or ask for much at once: the datanode serves on.

use std::time::{Duration, Instant};

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{Header, Op, WriteAck};
use distrifs_proto::types::{ChunkId, Crc32c, GenerationStamp, NodeId};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fake_master::FakeMaster;
use crate::wire::{Answer, FakeHop, Peer};
use crate::{PATIENCE, bodies, bytes, hop, request, start, start_with_http};

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_that_takes_nothing_is_blamed_and_keeps_no_buffers() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let node = start(io, dir.path(), &master).await;
        let stalled = FakeHop::start(NodeId(77)).await;
        // More than all socket buffers on the way take.
        let to_it = request(1, &bytes(24 << 20), std::slice::from_ref(&stalled.hop));
        let mut peer = Peer::connect(&hop(&node)).await;
        let (_held, answer) = tokio::join!(stalled.accept(), peer.write(&to_it));
        assert!(
            matches!(&answer, Answer::Refused(e) if e.code == ErrorCode::HopFailed && e.node == NodeId(77)),
            "{io}: {answer:?}"
        );
        // On both shards, while the stalled connection is still there.
        for chunk in [2, 3] {
            let mut peer = Peer::connect(&hop(&node)).await;
            let alone = request(chunk, &bytes(8 << 20), &[]);
            let answer = timeout(PATIENCE, peer.write(&alone)).await;
            assert!(matches!(&answer, Ok(Answer::Acked(_))), "{io}: {answer:?}");
        }
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hop_that_works_is_heard_of() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let node = start(io, dir.path(), &master).await;
        let slow = FakeHop::start(NodeId(77)).await;
        let content = bytes(5000);
        let through = request(1, &content, std::slice::from_ref(&slow.hop));
        let mut peer = Peer::connect(&hop(&node)).await;
        let syncing = async {
            let (mut upstream, open) = slow.take_chunk().await;
            // A little more often than the node before speaks.
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(800)).await;
                upstream.send(open.answer(Op::WriteProgress), &[], false).await;
            }
            let ack = WriteAck { length: 5000, crc: Crc32c::of(&content), nodes: vec![NodeId(77)] };
            upstream.send(open.answer(Op::WriteAck), &ack.encode(), false).await;
            upstream
        };
        let (_upstream, (answer, progress)) = tokio::join!(syncing, peer.write_watched(&through));
        assert!(matches!(&answer, Answer::Acked(ack) if ack.nodes == [node.node_id(), NodeId(77)]));
        assert!(progress.contains(&0), "{io}: nothing was heard of the last hop: {progress:?}");
        assert!(progress.contains(&1), "{io}: nothing was heard of the first hop: {progress:?}");
        node.stop().await;
    }
}

/// What becomes of the header that is answered.
type Disguise = fn(Header) -> Header;

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_that_acknowledges_something_else_is_not_believed() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let node = start(io, dir.path(), &master).await;
        let content = bytes(5000);
        let crc = Crc32c::of(&content);
        let ack = |nodes: Vec<NodeId>| WriteAck { length: 5000, crc, nodes };
        let own = |open: Header| open;
        let other_chunk = |open: Header| Header { chunk: ChunkId(999), ..open };
        let other_request = |open: Header| Header { request_id: open.request_id + 1, ..open };
        let lies: [(Disguise, WriteAck); 4] = [
            (own, ack((1..=16).map(NodeId).collect())),
            (own, ack(vec![])),
            (other_chunk, ack(vec![NodeId(77)])),
            (other_request, ack(vec![NodeId(77)])),
        ];
        for (chunk, (header, ack)) in (1..).zip(lies) {
            let liar = FakeHop::start(NodeId(77)).await;
            let through = request(chunk, &content, std::slice::from_ref(&liar.hop));
            let mut peer = Peer::connect(&hop(&node)).await;
            let lying = async {
                let (mut upstream, open) = liar.take_chunk().await;
                upstream.send(header(open).answer(Op::WriteAck), &ack.encode(), false).await;
                upstream
            };
            let (_upstream, answer) = tokio::join!(lying, peer.write(&through));
            assert!(
                matches!(&answer, Answer::Refused(e) if e.node == NodeId(77)),
                "{io}: {ack:?}: {answer:?}"
            );
        }
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_deletions_leaves_room_for_connections() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let node = start(io, dir.path(), &master).await;
        // More than a shard's queue takes.
        let chunks: Vec<_> = (1..=700).map(ChunkId).collect();
        let mut peer = Peer::connect(&hop(&node)).await;
        for chunk in &chunks {
            assert!(matches!(peer.write(&request(chunk.0, b"x", &[])).await, Answer::Acked(_)));
        }
        assert!(matches!(peer.write(&request(5000, b"kept", &[])).await, Answer::Acked(_)));
        master.wait_for_chunk(ChunkId(5000), &[node.node_id()]).await;
        master.order_deletions(node.node_id(), &chunks, GenerationStamp(1)).await;
        for _ in 0..8 {
            let mut reader = Peer::connect(&hop(&node)).await;
            assert_eq!(reader.read(ChunkId(5000), 0, 4).await.unwrap(), b"kept", "{io}");
        }
        // What found no place is done when the order comes again, as a master's orders do.
        let deadline = Instant::now() + PATIENCE;
        while master.chunks_of(node.node_id()) != [ChunkId(5000)] {
            assert!(Instant::now() < deadline, "{io}: {} are left", master.chunks_of(node.node_id()).len());
            tokio::time::sleep(Duration::from_millis(200)).await;
            master.order_deletions(node.node_id(), &chunks, GenerationStamp(1)).await;
        }
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_keeps_a_datanode_from_stopping() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let node = start_with_http(io, dir.path(), &master, Some("127.0.0.1:0".parse().unwrap())).await;
        let mut half_asked = TcpStream::connect(node.http_address().unwrap()).await.unwrap();
        half_asked.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
        let _silent = TcpStream::connect(node.data_address()).await.unwrap();
        let _greeted = Peer::connect(&hop(&node)).await;
        let mut writing = Peer::connect(&hop(&node)).await;
        writing.begin(&request(1, &bytes(2 << 20), &[]), 1 << 20).await;
        assert!(timeout(PATIENCE, node.stop()).await.is_ok(), "{io}: still there");
    }
}
