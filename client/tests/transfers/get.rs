//! Gets: the bytes, and nothing but sound ones.

use std::sync::atomic::Ordering;
use std::time::Duration;

use distrifs_client::{ClientError, GetTarget, NoProgress, READ_BYTES_MAX};
use distrifs_proto::ErrorCode;
use distrifs_proto::types::Crc32c;

use crate::fake_datanode::Manners;
use crate::{CHUNK, Cluster, Counter, bytes_of};

#[tokio::test]
async fn files_of_every_size_come_back_whole() {
    let cluster = Cluster::start(3).await;
    for len in [0, 1, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK + 17] {
        let (path, bytes) = (format!("/{len}"), bytes_of(len));
        cluster.put(&path, &bytes).await.expect("the put");
        for (outcome, got) in [cluster.get_file(&path, None).await, cluster.get_stream(&path, None).await] {
            assert_eq!(outcome.expect("the get").size, len);
            assert!(got == bytes, "{path} came back as other bytes");
        }
        let (status, chunks) = cluster.client.chunks(&path).await.expect("its chunks");
        assert_eq!(chunks.len() as u64, len.div_ceil(CHUNK));
        assert_eq!(status.crc32c, Some(Crc32c::of(&bytes)));
    }
}

#[tokio::test]
async fn ranges_are_cut_from_whole_blocks() {
    let cluster = Cluster::start(3).await;
    let len = 4 * CHUNK + 100;
    let bytes = bytes_of(len);
    cluster.put("/a", &bytes).await.expect("the put");
    let cases = [
        (0, 1),
        (4095, 2),
        (CHUNK - 1, 2),
        (100, 3 * CHUNK),
        (len - 1, 1),
        (len - 5, 500),
        (3, u64::MAX),
        (7, 0),
        (len, 10),
    ];
    for (offset, length) in cases {
        let expected = &bytes[offset as usize..offset.saturating_add(length).min(len) as usize];
        let range = Some((offset, length));
        for (outcome, got) in [cluster.get_file("/a", range).await, cluster.get_stream("/a", range).await] {
            outcome.expect("the get");
            assert!(got == expected, "{length} bytes at {offset} came back as {} others", got.len());
        }
    }
    let (outcome, _) = cluster.get_file("/a", Some((len + 1, 1))).await;
    assert!(matches!(outcome, Err(ClientError::Invalid { .. })), "{outcome:?}");
}

/// A file that was opened is read at many places, from whichever replica is good, and the master is asked once.
#[tokio::test]
async fn an_open_file_is_read_at_many_places() {
    let cluster = Cluster::start(3).await;
    let len = 3 * CHUNK + 100;
    let bytes = bytes_of(len);
    cluster.put_everywhere("/a", &bytes).await;
    let file = cluster.client.open("/a").await.expect("opened");
    assert_eq!(file.status().size, len);
    let cases = [
        (0, 1),
        (4095, 2),
        (CHUNK - 1, 2),
        (100, 3 * CHUNK),
        (len - 5, 500),
        (7, 0),
        (len, 10),
        (len + 9, 1),
    ];
    for manners in [Manners::Good, Manners::Damages(100), Manners::HangsUp] {
        cluster.nodes[0].behave(manners);
        for (offset, length) in cases {
            let end = (offset + length).min(len);
            let expected = &bytes[offset.min(end) as usize..end as usize];
            let got = file.read_at(offset, length).await.expect("the read");
            assert!(
                got == expected,
                "{manners:?}: {length} bytes at {offset} came back as {} others",
                got.len()
            );
        }
    }
    let refused = file.read_at(0, READ_BYTES_MAX + 1).await;
    assert!(matches!(refused, Err(ClientError::Invalid { .. })), "{refused:?}");
    cluster.master.state.lock().unwrap().files.clear();
    assert_eq!(file.read_at(CHUNK, 3).await.expect("known"), bytes[CHUNK as usize..][..3]);
    let missing = cluster.client.open("/a").await;
    assert!(matches!(missing, Err(ClientError::Refused { code: ErrorCode::NotFound, .. })), "{missing:?}");
    for node in &cluster.nodes {
        node.behave(Manners::Empty);
    }
    let gone = file.read_at(CHUNK, 3).await;
    assert!(matches!(gone, Err(ClientError::Replaced { .. })), "{gone:?}");
}

#[tokio::test]
async fn an_empty_file_is_opened_and_gives_nothing() {
    let cluster = Cluster::start(3).await;
    cluster.put("/empty", &[]).await.expect("the put");
    let file = cluster.client.open("/empty").await.expect("opened");
    assert_eq!((file.status().size, file.read_at(0, 10).await.expect("nothing")), (0, Vec::new()));
}

#[tokio::test]
async fn a_bad_replica_is_left_for_the_next_and_reported() {
    use ErrorCode::{Corrupt, NoSuchChunk, Protocol, Unavailable, WrongCluster};
    let cases = [
        (Manners::Damages(30_000), Corrupt),
        (Manners::Damages(CHUNK - 1), Corrupt),
        (Manners::Diverged, Corrupt),
        (Manners::HangsUp, Unavailable),
        (Manners::Garbage, Protocol),
        (Manners::Empty, NoSuchChunk),
        (Manners::RefusesHello, WrongCluster),
    ];
    let bytes = bytes_of(2 * CHUNK + 5);
    for (manners, code) in cases {
        let cluster = Cluster::start(3).await;
        cluster.put_everywhere("/a", &bytes).await;
        cluster.nodes[0].behave(manners);
        // Past the connections that were greeted before.
        let cluster = cluster.with_new_client();
        for (outcome, got) in [cluster.get_file("/a", None).await, cluster.get_stream("/a", None).await] {
            outcome.expect("two good replicas are left");
            assert!(got == bytes, "{manners:?}: other bytes");
        }
        let reports = cluster.master.state.lock().unwrap().reports.clone();
        assert!(reports.contains(&(1, u32::from(code.number()))), "{manners:?}: {reports:?}");
        assert!(reports.iter().all(|(node, _)| *node == 1), "{manners:?}: {reports:?}");
    }
}

#[tokio::test]
async fn large_frames_are_checked_before_they_are_written_too() {
    let cluster = Cluster::start(3).await;
    let chunk = 5 << 19;
    cluster.master.state.lock().unwrap().chunk_size = chunk;
    let bytes = bytes_of(4 * chunk + 12_345);
    cluster.put_everywhere("/a", &bytes).await;
    // In the second frame of each chunk, and in the last.
    for manners in
        [Manners::Good, Manners::Damages(1_500_000), Manners::Damages(chunk - 1), Manners::Diverged]
    {
        cluster.nodes[0].behave(manners);
        for (outcome, got) in [cluster.get_file("/a", None).await, cluster.get_stream("/a", None).await] {
            outcome.expect("two good replicas are left");
            assert!(got == bytes, "{manners:?}: other bytes");
        }
        let range = (1_000_001, 5_000_000);
        let (outcome, got) = cluster.get_file("/a", Some(range)).await;
        outcome.expect("two good replicas are left");
        if manners != Manners::Diverged {
            assert!(got[..] == bytes[1_000_001..6_000_001], "{manners:?}: other bytes in a range");
        }
    }
}

/// In a stream such a chunk is read in parts, each of which looks sound.
#[tokio::test]
async fn a_chunk_of_several_parts_is_compared_before_its_bytes_go_out() {
    let cluster = Cluster::start(2).await;
    let chunk = 17 << 20;
    {
        let mut master = cluster.master.state.lock().unwrap();
        (master.chunk_size, master.replication) = (chunk, 2);
    }
    let bytes = bytes_of(chunk + 70_000);
    cluster.put_everywhere("/a", &bytes).await;
    cluster.nodes[0].behave(Manners::Diverged);
    let (outcome, got) = cluster.get_stream("/a", None).await;
    outcome.expect("a good replica is left");
    assert!(got == bytes, "other bytes");
    let reports = cluster.master.state.lock().unwrap().reports.clone();
    assert!(!reports.is_empty() && reports.iter().all(|(node, _)| *node == 1), "{reports:?}");
    cluster.nodes[1].behave(Manners::Diverged);
    let (outcome, got) = cluster.get_stream("/a", None).await;
    assert_eq!(outcome.expect_err("no sound replica").code(), ErrorCode::Corrupt);
    assert!(got.is_empty(), "a chunk that is not sound as a whole is held back");
}

#[tokio::test]
async fn a_target_that_takes_nothing_ends_the_get() {
    let cluster = Cluster::start(3).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    for (path, len) in [("/small", 100), ("/large", 3 << 20)] {
        cluster.master.state.lock().unwrap().chunk_size = 4 << 20;
        cluster.put(path, &bytes_of(len)).await.expect("the put");
        let target = GetTarget::File(std::fs::File::open(file.path()).unwrap());
        let outcome = cluster.client.get(path, None, target, &NoProgress).await;
        assert!(matches!(outcome, Err(ClientError::Target { .. })), "{outcome:?}");
    }
    assert!(cluster.master.state.lock().unwrap().reports.is_empty(), "that is no replica's fault");
}

#[tokio::test]
async fn a_silent_replica_is_left_for_the_next() {
    let cluster = Cluster::start_with(3, |config| config.socket_timeout = Duration::from_secs(2)).await;
    let bytes = bytes_of(1000);
    cluster.put_everywhere("/a", &bytes).await;
    cluster.nodes[0].behave(Manners::Silent);
    let (outcome, got) = cluster.get_file("/a", None).await;
    outcome.expect("two good replicas are left");
    assert!(got == bytes);
}

/// The first slow read is hedged and tells nobody; the next has to wait for its node, which is then complained of.
#[tokio::test]
async fn a_slow_replica_is_helped_by_another_but_not_always() {
    let cluster = Cluster::start_with(3, |config| config.socket_timeout = Duration::from_secs(2)).await;
    let bytes = bytes_of(1000);
    cluster.put_everywhere("/a", &bytes).await;
    cluster.nodes[0].behave(Manners::Silent);
    for (hedged, reports) in [(1, 0), (1, 1)] {
        let (outcome, got) = cluster.get_file("/a", None).await;
        outcome.expect("two good replicas are left");
        assert!(got == bytes);
        assert_eq!(cluster.client.read_counts().1, hedged);
        let told = cluster.master.state.lock().unwrap().reports.clone();
        assert_eq!(told, vec![(1, u32::from(ErrorCode::Unavailable.number())); reports]);
    }
}

#[tokio::test]
async fn sound_blocks_are_not_asked_for_again() {
    let cluster = Cluster::start(3).await;
    cluster.put_everywhere("/a", &bytes_of(CHUNK)).await;
    cluster.nodes[0].behave(Manners::Damages(30_000));
    let progress = Counter::default();
    let target = GetTarget::File(tempfile::tempfile().unwrap());
    cluster.client.get("/a", None, target, &progress).await.expect("two good replicas are left");
    assert_eq!(cluster.nodes[0].state.lock().unwrap().reads, [(0, CHUNK as u32)]);
    // Block 7 is damaged, in the middle of a frame.
    assert_eq!(cluster.nodes[1].state.lock().unwrap().reads, [(28_672, CHUNK as u32 - 28_672)]);
    assert_eq!(progress.0.load(Ordering::Relaxed), CHUNK);
}

#[tokio::test]
async fn damage_everywhere_is_corrupt_and_never_written() {
    let bytes = bytes_of(CHUNK);
    for manners in [Manners::Damages(30_000), Manners::Diverged] {
        let cluster = Cluster::start(3).await;
        cluster.put_everywhere("/a", &bytes).await;
        for node in &cluster.nodes {
            node.behave(manners);
        }
        let (outcome, got) = cluster.get_stream("/a", None).await;
        let error = outcome.expect_err("no sound replica");
        assert!(matches!(error, ClientError::Corrupt { .. }), "{error:?}");
        assert!(got.is_empty(), "a part that is not sound as a whole is held back");
        let (outcome, got) = cluster.get_file("/a", None).await;
        assert_eq!(outcome.expect_err("no sound replica").code(), ErrorCode::Corrupt);
        if let Manners::Damages(offset) = manners {
            assert!(got.len() as u64 <= offset && got[..] == bytes[..got.len()], "only sound blocks");
        }
    }
}

#[tokio::test]
async fn replicas_that_are_not_known_yet_are_waited_for() {
    let cluster = Cluster::start(3).await;
    let bytes = bytes_of(1000);
    cluster.put("/a", &bytes).await.expect("the put");
    cluster.master.state.lock().unwrap().unknown_replicas = 4;
    let (outcome, got) = cluster.get_file("/a", None).await;
    outcome.expect("the fifth plan names them");
    assert!(got == bytes);
}

#[tokio::test]
async fn replicas_out_of_reach_are_unavailable_in_the_end() {
    let patience = Duration::from_millis(1500);
    let cluster = Cluster::start_with(3, |config| config.socket_timeout = patience).await;
    cluster.put_everywhere("/a", &bytes_of(1000)).await;
    cluster.nodes[0].behave(Manners::Silent);
    cluster.nodes[1].behave(Manners::Damages(0));
    cluster.nodes[2].behave(Manners::Empty);
    let (outcome, got) = cluster.get_stream("/a", None).await;
    let error = outcome.expect_err("nobody delivers");
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    assert_eq!((error.code(), got.len()), (ErrorCode::Unavailable, 0));

    cluster.master.state.lock().unwrap().unknown_replicas = u32::MAX;
    let (outcome, _) = cluster.get_stream("/a", None).await;
    let error = outcome.expect_err("nobody is known");
    assert!(error.to_string().contains("no live datanode has reported one"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_replaced_meanwhile_is_told_apart() {
    let cluster = Cluster::start(3).await;
    cluster.put("/a", &bytes_of(1000)).await.expect("the put");
    // Plans of the file as it was, whose chunk is gone from the nodes.
    cluster.nodes.iter().for_each(|node| node.behave(Manners::Empty));
    let state = cluster.master.state.clone();
    let replaced = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut state = state.lock().unwrap();
            if state.read_plans > 0 {
                state.files.get_mut("/a").unwrap().status.file_id = 999;
                return;
            }
        }
    });
    let (outcome, _) = cluster.get_file("/a", None).await;
    replaced.await.unwrap();
    assert!(matches!(outcome, Err(ClientError::Replaced { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_replica_is_verified_by_itself() {
    let cluster = Cluster::start(3).await;
    let bytes = bytes_of(CHUNK);
    cluster.put_everywhere("/a", &bytes).await;
    let (_, chunks) = cluster.client.chunks("/a").await.expect("its chunks");
    let node = &chunks[0].replicas[1];
    assert_eq!(cluster.client.verify_replica(&chunks[0], node).await.expect("sound"), Crc32c::of(&bytes));
    let cases = [
        (Manners::Damages(5), ErrorCode::Corrupt),
        (Manners::Diverged, ErrorCode::Corrupt),
        (Manners::Empty, ErrorCode::NoSuchChunk),
        (Manners::Garbage, ErrorCode::Protocol),
    ];
    for (manners, code) in cases {
        cluster.nodes[1].behave(manners);
        let error = cluster.client.verify_replica(&chunks[0], node).await.expect_err("not sound");
        assert_eq!(error.code(), code, "{manners:?}: {error}");
    }
}

/// Two chunks changed places: each is what the plan says, the file is not.
#[tokio::test]
async fn a_file_whose_chunks_are_not_its_own_is_refused() {
    let cluster = Cluster::start(3).await;
    let bytes = bytes_of(2 * CHUNK + 5);
    cluster.put_everywhere("/a", &bytes).await;
    {
        let mut state = cluster.master.state.lock().unwrap();
        let file = state.files.get_mut("/a").expect("the file");
        let (first, second) = (file.chunks[0].clone(), file.chunks[1].clone());
        file.chunks[0] = distrifs_proto::grpc::v1::ChunkLocation { index: 0, ..second };
        file.chunks[1] = distrifs_proto::grpc::v1::ChunkLocation { index: 1, ..first };
    }
    for (outcome, _) in [cluster.get_file("/a", None).await, cluster.get_stream("/a", None).await] {
        let error = outcome.expect_err("refused");
        assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
    }
}

#[tokio::test]
async fn the_health_of_files_comes_slice_by_slice() {
    let cluster = Cluster::start(1).await;
    let mut unhealthy = Vec::new();
    let sums = cluster.client.check_files("/", |file| unhealthy.push(file.path)).await.expect("it answers");
    assert_eq!((sums.files, sums.healthy), (3, 2));
    assert_eq!(unhealthy, ["2"]);
}
