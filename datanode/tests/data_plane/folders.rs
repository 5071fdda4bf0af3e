//! Several data folders, one of which fails: the others serve on.

use std::path::{Path, PathBuf};

use distrifs_datanode::Datanode;
use distrifs_proto::types::{ChunkId, ClusterId, GenerationStamp};

use crate::fake_master::FakeMaster;
use crate::wire::{Answer, Peer};
use crate::{PATIENCE, bodies, bytes, config, files_below, hop, request, until};

/// Nothing can be made there, by nobody.
const BROKEN: &str = "/proc/self/distrifs";

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_fails_at_the_start_is_left_out_and_told() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let master = FakeMaster::start(1).await;
        let content = bytes(10_000);
        let node = Datanode::start(config(io, &[&a, &b], &master, None)).await.unwrap();
        let id = node.node_id();
        master.wait_for_report(id).await;
        let mut peer = Peer::connect(&hop(&node)).await;
        assert!(matches!(peer.write(&request(1, &content, &[])).await, Answer::Acked(_)));
        node.stop().await;

        let dirs = [Path::new(BROKEN), &a, &b];
        let node = Datanode::start(config(io, &dirs, &master, None)).await.unwrap();
        assert_eq!(node.node_id(), id, "{io}");
        master.wait_for_report(id).await;
        let mut peer = Peer::connect(&hop(&node)).await;
        assert_eq!(peer.read(ChunkId(1), 0, 10_000).await.unwrap(), content, "{io}");
        assert!(matches!(peer.write(&request(2, &content, &[])).await, Answer::Acked(_)), "{io}");
        until("a heartbeat", || !master.data_dirs(id).is_empty()).await;
        let told: Vec<(PathBuf, bool, bool)> = master
            .data_dirs(id)
            .into_iter()
            .map(|it| (it.path.into(), it.healthy, it.capacity_bytes + it.free_bytes > 0))
            .collect();
        let real = |dir: &Path| dir.canonicalize().unwrap();
        assert_eq!(
            told,
            [(real(&a), true, true), (real(&b), true, true), (BROKEN.into(), false, false)],
            "{io}"
        );
        node.stop().await;

        let none = Datanode::start(config(io, &[Path::new(BROKEN)], &master, None)).await;
        assert!(none.err().unwrap().to_string().contains(BROKEN), "{io}");
    }
}

/// A folder of another cluster is a mistake: nothing is written to it, nothing in it deleted.
#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_folder_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let masters = [FakeMaster::start(1).await, FakeMaster::start_for(ClusterId(0xc2), 1).await];
    for (root, master) in [(&a, &masters[0]), (&b, &masters[1])] {
        let node = Datanode::start(config("posix", &[root], master, None)).await.unwrap();
        master.wait_for_report(node.node_id()).await;
        let mut peer = Peer::connect(&hop(&node)).await;
        assert!(matches!(peer.write(&request(1, b"precious", &[])).await, Answer::Acked(_)));
        node.stop().await;
    }
    let before = files_below(&b);
    // Beside a folder of our own.
    let both = Datanode::start(config("posix", &[&a, &b], &masters[0], None)).await;
    let text = both.err().unwrap().to_string();
    assert!(text.contains("belongs to node"), "{text}");
    // And alone, under the master of another cluster: the datanode ends.
    let mut node = Datanode::start(config("posix", &[&b], &masters[0], None)).await.unwrap();
    let why = tokio::time::timeout(PATIENCE, node.failed()).await.expect("it gives up");
    assert!(why.contains("belongs to cluster"), "{why}");
    node.stop().await;
    assert_eq!(files_below(&b), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_fails_later_goes_alone_and_the_last_one_takes_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let master = FakeMaster::start(1).await;
    let mut node = Datanode::start(config("posix", &[&a, &b], &master, None)).await.unwrap();
    let id = node.node_id();
    master.wait_for_report(id).await;
    let break_witness = |root: &Path| {
        std::fs::create_dir(root.join("WITNESS.new")).unwrap();
        std::fs::remove_file(root.join("WITNESS")).unwrap();
    };
    let healthy = || -> Vec<bool> { master.data_dirs(id).iter().map(|it| it.healthy).collect() };
    break_witness(&b);
    master.order_deletion(id, ChunkId(9), GenerationStamp(1)).await;
    until("the broken folder is told", || healthy() == [true, false]).await;
    let mut peer = Peer::connect(&hop(&node)).await;
    assert!(matches!(peer.write(&request(1, b"still serving", &[])).await, Answer::Acked(_)));
    assert!(a.join("chunks/00/chunk-0000000000000001").exists());
    break_witness(&a);
    // A later master has more to show.
    let later = FakeMaster::start_for(master.cluster(), 2).await;
    node.stop().await;
    node = Datanode::start(config("posix", &[&a, &b], &later, None)).await.unwrap();
    let why = tokio::time::timeout(PATIENCE, node.failed()).await.expect("it gives up");
    assert!(why.contains("WITNESS"), "{why}");
    node.stop().await;
}
