//! Datanodes over real sockets and files, under a scripted master: the pipeline, reads, refusals, restarts.
//! Each promise is checked on every I/O body that works here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake_master;
mod folders;
mod journal;
mod misbehaviour;
mod page_cache;
mod reads;
mod upkeep;
mod wire;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use distrifs_datanode::{Datanode, DatanodeConfig};
use distrifs_engine::io::probe_uring;
use distrifs_proto::ErrorCode;
use distrifs_proto::frame::Hop;
use distrifs_proto::types::{ChunkId, Crc32c, Epoch, GenerationStamp, HostPort, NodeId};
use fake_master::{FakeMaster, deletions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::{Answer, Peer, WriteRequest};

/// How long anything may take to happen before the test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

fn bodies() -> Vec<&'static str> {
    match probe_uring() {
        Ok(()) => vec!["posix", "uring"],
        Err(reason) => {
            println!("io_uring does not work here ({reason}): only posix is tested");
            vec!["posix"]
        }
    }
}

async fn launch(io: &str, root: &Path, master: &FakeMaster, http: Option<HostPort>) -> Datanode {
    Datanode::start(config(io, &[root], master, http)).await.unwrap()
}

fn config(io: &str, roots: &[&Path], master: &FakeMaster, http: Option<HostPort>) -> DatanodeConfig {
    DatanodeConfig {
        advertise: None,
        data_dirs: roots.iter().map(|&root| root.to_owned()).collect(),
        masters: vec![master.address()],
        listen: "127.0.0.1:0".parse().unwrap(),
        http,
        rack: "r1".into(),
        shards: Some(2),
        io: io.parse().unwrap(),
        scrub_interval: Duration::from_secs(3600),
        socket_timeout: Duration::from_secs(3),
        delays: Vec::new(),
    }
}

async fn start(io: &str, root: &Path, master: &FakeMaster) -> Datanode {
    start_with_http(io, root, master, None).await
}

async fn start_with_http(io: &str, root: &Path, master: &FakeMaster, http: Option<HostPort>) -> Datanode {
    let node = launch(io, root, master, http).await;
    master.wait_for_report(node.node_id()).await;
    node
}

/// A node that holds chunks, under a master of its own.
struct Holder {
    node: Datanode,
    /// The connection that wrote them.
    peer: Peer,
    /// What is in each of them.
    content: Vec<u8>,
    dir: tempfile::TempDir,
    _master: FakeMaster,
}

impl Holder {
    async fn start(io: &str, chunks: &[u64], length: usize) -> Self {
        Self::start_with(io, chunks, length, |_| {}).await
    }

    async fn start_with(
        io: &str,
        chunks: &[u64],
        length: usize,
        configure: impl FnOnce(&mut DatanodeConfig),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let mut config = config(io, &[dir.path()], &master, None);
        configure(&mut config);
        let node = Datanode::start(config).await.unwrap();
        master.wait_for_report(node.node_id()).await;
        let content = bytes(length);
        let mut peer = Peer::connect(&hop(&node)).await;
        for &chunk in chunks {
            assert!(matches!(peer.write(&request(chunk, &content, &[])).await, Answer::Acked(_)));
        }
        Self { node, peer, content, dir, _master: master }
    }

    /// One more connection.
    async fn connect(&self) -> Peer {
        Peer::connect(&hop(&self.node)).await
    }

    fn data_file(&self, chunk: u64) -> PathBuf {
        self.dir.path().join(format!("chunks/00/chunk-{}", ChunkId(chunk)))
    }

    async fn stop(self) {
        self.node.stop().await;
    }
}

fn hop(node: &Datanode) -> Hop {
    Hop { node: node.node_id(), address: node.data_address().into() }
}

async fn metric(node: &Datanode, name: &str) -> u64 {
    let mut socket = TcpStream::connect(node.http_address().unwrap()).await.unwrap();
    let ask = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("distrifs_datanode_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
}

fn request(chunk: u64, content: &[u8], hops: &[Hop]) -> WriteRequest {
    WriteRequest {
        chunk: ChunkId(chunk),
        generation: GenerationStamp(1),
        epoch: Epoch(1),
        content: content.to_vec(),
        hops: hops.to_vec(),
    }
}

fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_travels_down_the_pipeline_and_is_read_from_every_hop() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let mut nodes = Vec::new();
        for i in 0..3 {
            nodes.push(start(io, &dir.path().join(i.to_string()), &master).await);
        }
        let hops: Vec<_> = nodes.iter().map(hop).collect();
        let ids: Vec<_> = hops.iter().map(|h| h.node).collect();
        let mut first = Peer::connect(&hops[0]).await;
        for (chunk, len) in [(1, 1), (2, 4096), (3, 4097), (4, 1 << 20), (5, (3 << 20) + 17)] {
            let content = bytes(len);
            // The same connection again and again: its pipeline behind is used again too.
            let answer = first.write(&request(chunk, &content, &hops[1..])).await;
            let Answer::Acked(ack) = answer else { panic!("{io}: {len} bytes: {answer:?}") };
            assert_eq!((ack.length, ack.crc), (len as u64, Crc32c::of(&content)));
            assert_eq!(ack.nodes, ids);
            for at in &hops {
                let mut reader = Peer::connect(at).await;
                assert_eq!(reader.read(ChunkId(chunk), 0, len).await.unwrap(), content, "{io}: {len} bytes");
                let (from, n) = (len / 3, (len / 2).max(1));
                let part = reader.read(ChunkId(chunk), from as u64, n).await.unwrap();
                assert_eq!(part, content[from..(from + n).min(len)]);
            }
            master.wait_for_chunk(ChunkId(chunk), &ids).await;
        }
        // On the disk a chunk is exactly its bytes.
        let data = dir.path().join("2/chunks/00/chunk-0000000000000005");
        assert_eq!(std::fs::read(data).unwrap(), bytes((3 << 20) + 17));
        for node in nodes {
            node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_reports_what_it_has_and_obeys_deletions() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let node = start(io, dir.path(), &master).await;
        let id = node.node_id();
        let content = bytes(10_000);
        for chunk in [7, 8] {
            let mut peer = Peer::connect(&hop(&node)).await;
            assert!(matches!(peer.write(&request(chunk, &content, &[])).await, Answer::Acked(_)));
        }
        node.stop().await;
        // What a crash leaves: an unfinished chunk, and one whose sidecar is gone.
        std::fs::write(dir.path().join("tmp/chunk-0000000000000009"), "unfinished").unwrap();
        std::fs::write(dir.path().join("chunks/00/chunk-000000000000000a"), "alone").unwrap();

        let master = FakeMaster::start_for(master.cluster(), 2).await;
        let node = start(io, dir.path(), &master).await;
        assert_eq!(node.node_id(), id);
        assert_eq!(master.chunks_of(id), [ChunkId(7), ChunkId(8)]);
        assert!(!dir.path().join("tmp/chunk-0000000000000009").exists());
        assert!(dir.path().join("quarantine/chunk-000000000000000a").exists(), "{io}: never deleted");

        master.order_deletion(id, ChunkId(7), GenerationStamp(1)).await;
        master.wait_for_removal(id, ChunkId(7)).await;
        let mut peer = Peer::connect(&hop(&node)).await;
        assert_eq!(peer.read(ChunkId(7), 0, 1).await.unwrap_err(), ErrorCode::NoSuchChunk);
        let mut peer = Peer::connect(&hop(&node)).await;
        assert_eq!(peer.read(ChunkId(8), 0, 10_000).await.unwrap(), content);
        // The master of before is back: its writers and its orders are refused.
        let stale = request(11, &content, &[]);
        assert!(matches!(peer.write(&stale).await, Answer::Refused(e) if e.code == ErrorCode::StaleEpoch));
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_read_while_it_is_deleted_is_gone_for_every_reader() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let node = start(io, dir.path(), &master).await;
        let id = node.node_id();
        let chunks: Vec<_> = (1..=16).map(ChunkId).collect();
        let mut peer = Peer::connect(&hop(&node)).await;
        for chunk in &chunks {
            assert!(matches!(peer.write(&request(chunk.0, &bytes(10_000), &[])).await, Answer::Acked(_)));
        }
        let mut readers = Vec::new();
        for &chunk in chunks.iter().chain(&chunks) {
            let mut peer = Peer::connect(&hop(&node)).await;
            readers.push(tokio::spawn(async move {
                loop {
                    if let Err(code) = peer.read(chunk, 0, 10_000).await {
                        return code;
                    }
                }
            }));
        }
        master.order_deletions(id, &chunks, GenerationStamp(1)).await;
        for reader in readers {
            let ended = tokio::time::timeout(PATIENCE, reader).await.expect("it is read no more").unwrap();
            assert_eq!(ended, ErrorCode::NoSuchChunk, "{io}");
        }
        node.stop().await;
    }
}

/// R18: an order that a replaced leader gave comes late, and then that leader itself, to a node that was started again.
#[tokio::test(flavor = "multi_thread")]
async fn orders_of_a_replaced_leader_are_refused_also_after_a_restart() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let leader = FakeMaster::start(6).await;
        let node = start(io, dir.path(), &leader).await;
        let (id, chunk) = (node.node_id(), ChunkId(7));
        let content = bytes(10_000);
        let mut request = request(chunk.0, &content, &[]);
        request.epoch = Epoch(6);
        let mut peer = Peer::connect(&hop(&node)).await;
        assert!(matches!(peer.write(&request).await, Answer::Acked(_)));
        leader.wait_for_chunk(chunk, &[id]).await;
        leader.order_in(5, id, deletions(&[chunk], GenerationStamp(1))).await;
        // It wants to hear no more of that session.
        leader.wait_for_registrations(2).await;
        assert_eq!(Peer::connect(&hop(&node)).await.read(chunk, 0, 10_000).await.unwrap(), content);
        node.stop().await;

        let old = FakeMaster::start_for(leader.cluster(), 5).await;
        let node = launch(io, dir.path(), &old, None).await;
        for count in 1..4 {
            old.wait_for_registrations(count).await;
            old.order_deletion(id, chunk, GenerationStamp(1)).await;
        }
        assert_eq!(Peer::connect(&hop(&node)).await.read(chunk, 0, 10_000).await.unwrap(), content);
        node.stop().await;

        let next = FakeMaster::start_for(leader.cluster(), 7).await;
        let node = start(io, dir.path(), &next).await;
        next.order_deletion(id, chunk, GenerationStamp(1)).await;
        next.wait_for_removal(id, chunk).await;
        node.stop().await;
    }
}

/// R21: on a full disk a node goes on, obeys deletions, and remembers what it was shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_a_full_disk_obeys_deletions() {
    let dir = tempfile::tempdir().unwrap();
    let master = FakeMaster::start(1).await;
    let node = start("posix", dir.path(), &master).await;
    let mut peer = Peer::connect(&hop(&node)).await;
    assert!(matches!(peer.write(&request(7, &bytes(10_000), &[])).await, Answer::Acked(_)));
    master.wait_for_chunk(ChunkId(7), &[node.node_id()]).await;
    // As on a full disk, no new file can be made there.
    std::fs::create_dir(dir.path().join("WITNESS.new")).unwrap();
    master.order_deletion(node.node_id(), ChunkId(7), GenerationStamp(1)).await;
    master.wait_for_removal(node.node_id(), ChunkId(7)).await;
    let witness = std::fs::read_to_string(dir.path().join("WITNESS")).unwrap();
    assert!(witness.contains("lsn 5"), "{witness}");
    node.stop().await;
    start("posix", dir.path(), &master).await.stop().await;
}

/// After a power cut the master believes for a while in the connection that is gone; the node that comes back on
/// another port must not give up before the master does. A copy of a folder in use does give up.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_thought_to_be_alive_elsewhere_waits_before_it_gives_up() {
    let dir = tempfile::tempdir().unwrap();
    let master = FakeMaster::start(1).await;
    master.refuse(2);
    let node = start("posix", dir.path(), &master).await;
    node.stop().await;

    master.refuse(u32::MAX);
    let mut copy = launch("posix", dir.path(), &master, None).await;
    let why = tokio::time::timeout(PATIENCE, copy.failed()).await.expect("it gives up");
    assert!(why.contains("alive elsewhere"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_refused_and_leaves_nothing() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let node = start(io, dir.path(), &master).await;
        let before = files_below(dir.path());
        let content = bytes(2 << 20);
        let at = hop(&node);

        let gone = Hop { node: NodeId(99), address: "127.0.0.1:1".parse().unwrap() };
        let mut peer = Peer::connect(&at).await;
        let answer = peer.write(&request(1, &content, std::slice::from_ref(&gone))).await;
        assert!(
            matches!(&answer, Answer::Refused(e) if e.code == ErrorCode::HopFailed && e.node == gone.node),
            "{io}: {answer:?}"
        );

        let mut peer = Peer::connect(&at).await;
        let answer = peer.write_damaged(&request(2, &content, &[])).await;
        assert!(matches!(&answer, Answer::Refused(e) if e.code == ErrorCode::Corrupt), "{io}: {answer:?}");

        // A writer that dies in the middle of a chunk.
        let mut peer = Peer::connect(&at).await;
        peer.begin(&request(3, &content, &[]), 1 << 20).await;
        until("the unfinished chunk", || dir.path().join("tmp/chunk-0000000000000003").exists()).await;
        // Somebody else may not write the same chunk meanwhile.
        let mut other = Peer::connect(&at).await;
        let answer = other.write(&request(3, &content, &[])).await;
        assert!(matches!(&answer, Answer::Refused(e) if e.code == ErrorCode::AlreadyExists), "{answer:?}");
        drop(peer);
        until("an empty tmp/", || files_below(&dir.path().join("tmp")).is_empty()).await;
        assert_eq!(files_below(dir.path()), before, "{io}: something stayed behind");

        // A committed chunk is never written again.
        let mut peer = Peer::connect(&at).await;
        assert!(matches!(peer.write(&request(4, &content, &[])).await, Answer::Acked(_)));
        let answer = peer.write(&request(4, &bytes(5), &[])).await;
        assert!(matches!(&answer, Answer::Refused(e) if e.code == ErrorCode::AlreadyExists), "{answer:?}");
        let mut peer = Peer::connect(&at).await;
        assert_eq!(peer.read(ChunkId(4), 0, 2 << 20).await.unwrap(), content);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_closes_the_connection_and_nothing_else() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let node = start(io, dir.path(), &master).await;
        let at = hop(&node);
        let garbage: Vec<Vec<u8>> = vec![
            vec![0xff; 64],
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(8),
            vec![0; 4096],
            wire::absurd_length(),
        ];
        for bytes in garbage {
            assert!(wire::is_closed_after(&at, &bytes).await, "{io}: still open after {:?}", &bytes[..8]);
        }
        // A greeting meant for another node, and one frame out of turn.
        let other = Hop { node: NodeId(1), ..at.clone() };
        let mut peer = Peer::connect(&other).await;
        assert_eq!(peer.read(ChunkId(1), 0, 1).await.unwrap_err(), ErrorCode::WrongCluster);

        let mut peer = Peer::connect(&at).await;
        assert!(matches!(peer.write(&request(1, b"still serving", &[])).await, Answer::Acked(_)));
        assert_eq!(peer.read(ChunkId(1), 6, 7).await.unwrap(), b"serving");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_disk_reaches_no_reader() {
    let dir = tempfile::tempdir().unwrap();
    let master = FakeMaster::start(1).await;
    let node = start("posix", dir.path(), &master).await;
    let content = bytes(20_000);
    let data = |chunk: u64| dir.path().join(format!("chunks/00/chunk-{}", ChunkId(chunk)));
    let meta = |chunk: u64| dir.path().join(format!("chunks/00/chunk-{}.meta", ChunkId(chunk)));
    for chunk in 1..=4 {
        let mut peer = Peer::connect(&hop(&node)).await;
        assert!(matches!(peer.write(&request(chunk, &content, &[])).await, Answer::Acked(_)));
    }
    let flip = |path: &Path, at: usize| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    flip(&data(1), 10_000);
    flip(&meta(2), 140);
    std::fs::write(data(3), &content[..19_999]).unwrap();
    // Right bytes under the wrong name.
    std::fs::copy(data(1), data(5)).unwrap();
    std::fs::copy(meta(4), meta(5)).unwrap();
    for chunk in [1, 2, 3, 5] {
        let mut peer = Peer::connect(&hop(&node)).await;
        let read = peer.read(ChunkId(chunk), 0, 20_000).await;
        assert_eq!(read.unwrap_err(), ErrorCode::Corrupt, "chunk {chunk}");
    }
    // The blocks that are whole can still be read.
    let mut peer = Peer::connect(&hop(&node)).await;
    assert_eq!(peer.read(ChunkId(1), 0, 8192).await.unwrap(), content[..8192]);
    node.stop().await;
}
