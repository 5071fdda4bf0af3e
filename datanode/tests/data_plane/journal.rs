//! Small chunks and the journal of a datanode that is killed, and of one that is stopped.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use distrifs_datanode::Datanode;
use distrifs_engine::io::{Body, block_on};
use distrifs_engine::store::ChunkStore;
use distrifs_proto::types::{ChunkId, GenerationStamp, NodeId};

use crate::fake_master::FakeMaster;
use crate::wire::{Answer, Peer};
use crate::{bodies, bytes, files_below, hop, metric, request, start, start_with_http};

const CHUNKS: u64 = 20;
/// Well before the files are made durable, and the records void.
const SOON: Duration = Duration::from_secs(10);

fn content(chunk: u64) -> Vec<u8> {
    bytes(100 + chunk as usize * 997)
}

async fn write(node: &Datanode, chunk: u64) {
    let answer = Peer::connect(&hop(node)).await.write(&request(chunk, &content(chunk), &[])).await;
    assert!(matches!(answer, Answer::Acked(_)), "{answer:?}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// How many records a start would bring back; it does.
async fn replayed(root: &Path, id: NodeId, master: &FakeMaster) -> u64 {
    let (root, cluster) = (root.to_owned(), master.cluster());
    let replaying = tokio::task::spawn_blocking(move || {
        let replay = async |io| ChunkStore::attach(io, root, None).replay(id, Some(cluster)).await;
        block_on(Body::Posix, replay).unwrap().unwrap().records
    });
    replaying.await.unwrap()
}

/// Whether small chunks go through a journal there.
async fn has_journal(dir: &Path) -> bool {
    let dir = dir.to_owned();
    let look = move || block_on(Body::Posix, async |io| io.open_fs(&dir).await.unwrap().keeps_its_word());
    tokio::task::spawn_blocking(look).await.unwrap().unwrap()
}

/// What a process that is killed leaves, and then a loss of power: files that were not synced are empty or gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_has_all_small_chunks_that_it_acknowledged() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        if !has_journal(dir.path()).await {
            println!("no journal on this file system: nothing is tested");
            return;
        }
        let killed = dir.path().join("killed");
        let master = FakeMaster::start(1).await;
        let node =
            start_with_http(io, &dir.path().join("0"), &master, Some("127.0.0.1:0".parse().unwrap())).await;
        let mut first = 1;
        // Repeated where the machine is so slow that the files may be durable already.
        loop {
            let began = Instant::now();
            for chunk in first..first + CHUNKS {
                write(&node, chunk).await;
                let path = dir.path().join(format!("0/chunks/00/chunk-{}", ChunkId(chunk)));
                assert_eq!(fs::read(path).unwrap(), content(chunk), "{io}: it is there at once");
            }
            copy(&dir.path().join("0"), &killed);
            if began.elapsed() < SOON {
                break;
            }
            fs::remove_dir_all(&killed).unwrap();
            first += CHUNKS;
        }
        let records = metric(&node, "journal_records_total").await;
        assert_eq!(records, first + CHUNKS - 1);
        let (groups, syncs) =
            (metric(&node, "journal_syncs_total").await, metric(&node, "syncs_total").await);
        assert!((1..=records).contains(&groups) && syncs > groups, "{groups} groups, {syncs} syncs");
        node.stop().await;

        for (chunk, path) in (first..).zip(files_below(&killed.join("chunks"))) {
            match chunk % 3 {
                0 => fs::remove_file(path).unwrap(),
                1 => fs::write(path, "").unwrap(),
                _ => {}
            }
        }
        let master = FakeMaster::start_for(master.cluster(), 2).await;
        let node = start(io, &killed, &master).await;
        for chunk in first..first + CHUNKS {
            let length = content(chunk).len();
            let read = Peer::connect(&hop(&node)).await.read(ChunkId(chunk), 0, length).await;
            assert_eq!(read.unwrap(), content(chunk), "{io}: chunk {chunk}");
        }
        // And it goes on.
        master.order_deletion(node.node_id(), ChunkId(first), GenerationStamp(1)).await;
        master.wait_for_removal(node.node_id(), ChunkId(first)).await;
        let mut late = request(9000, &content(1), &[]);
        late.epoch = distrifs_proto::types::Epoch(2);
        let answer = Peer::connect(&hop(&node)).await.write(&late).await;
        assert!(matches!(answer, Answer::Acked(_)), "{io}: {answer:?}");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_leaves_nothing_to_bring_back_and_no_deleted_chunk() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let (root, seen) = (dir.path().join("0"), dir.path().join("seen"));
        let master = FakeMaster::start(1).await;
        let node = start(io, &root, &master).await;
        for chunk in 1..=CHUNKS {
            write(&node, chunk).await;
        }
        // At once, while its record counts.
        master.order_deletion(node.node_id(), ChunkId(3), GenerationStamp(1)).await;
        master.wait_for_removal(node.node_id(), ChunkId(3)).await;
        let id = node.node_id();
        copy(&root, &seen);
        replayed(&seen, id, &master).await;
        assert!(!seen.join("chunks/00/chunk-0000000000000003").exists(), "{io}: it came back");
        assert_eq!(replayed(&seen, id, &master).await, 0, "{io}: what was brought back is void");
        write(&node, 100).await;
        node.stop().await;
        copy(&root, &dir.path().join("stopped"));
        assert_eq!(replayed(&dir.path().join("stopped"), id, &master).await, 0, "{io}");
        let master = FakeMaster::start_for(master.cluster(), 2).await;
        let node = start(io, &root, &master).await;
        let mut expected: Vec<_> = (1..=CHUNKS).chain([100]).map(ChunkId).collect();
        expected.retain(|chunk| chunk.0 != 3);
        assert_eq!(master.chunks_of(id), expected, "{io}");
        node.stop().await;
    }
}
