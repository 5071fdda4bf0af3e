//! Puts: what is stored, and what is left when it fails.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use distrifs_client::{ClientError, NoProgress, PutOptions, PutSource};
use distrifs_proto::ErrorCode;
use distrifs_proto::limits::SMALL_CHUNK_BYTES_MAX;
use futures_util::future::try_join_all;
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::Barrier;

use crate::fake_datanode::Manners;
use crate::{CHUNK, Cluster, Counter, bytes_of, file_of, stream_of};

#[tokio::test]
async fn files_of_every_size_are_stored_whole() {
    const SMALL: u64 = SMALL_CHUNK_BYTES_MAX;
    let cluster = Cluster::start(3).await;
    for len in [0, 1, 4096, SMALL, SMALL + 1, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK + 17] {
        let bytes = bytes_of(len);
        for (name, source) in [("file", file_of(&bytes)), ("stream", stream_of(&bytes))] {
            let path = format!("/{name}-{len}");
            let progress = Counter::default();
            let status = cluster.client.put(source, &path, PutOptions::default(), &progress).await;
            assert_eq!(status.expect("the put").size, len, "{path}");
            assert!(cluster.stored(&path) == bytes, "{path} holds other bytes");
            assert_eq!(progress.0.load(Ordering::Relaxed), len, "{path}");
        }
    }
    let mut hops = cluster.nodes[0].state.lock().unwrap().hops.clone().into_iter().collect::<Vec<_>>();
    hops.sort_unstable();
    assert_eq!(hops, [0, 2], "small chunks go to each node, large ones from node to node");
    assert!(cluster.master.state.lock().unwrap().abandoned.is_empty());
}

#[tokio::test]
async fn chunks_of_several_frames_are_stored_whole_and_connections_are_used_again() {
    let cluster = Cluster::start(3).await;
    cluster.master.state.lock().unwrap().chunk_size = 5 << 19;
    let bytes = bytes_of(12_000_001);
    for (name, source) in [("/file", file_of(&bytes)), ("/stream", stream_of(&bytes))] {
        cluster.client.put(source, name, PutOptions::default(), &NoProgress).await.expect("the put");
        assert!(cluster.stored(name) == bytes, "{name} holds other bytes");
    }
    let connections = cluster.nodes[0].state.lock().unwrap().connections;
    assert!(connections <= 8, "{connections} connections for 10 chunks, at most 4 at once");
}

#[tokio::test]
async fn many_small_puts_at_once_open_their_connections_once() {
    const AT_ONCE: usize = 40;
    let cluster = Cluster::start(3).await;
    for node in &cluster.nodes {
        node.state.lock().unwrap().together = Some(Arc::new(Barrier::new(AT_ONCE)));
    }
    let bytes = bytes_of(1000);
    for round in 0..3 {
        let paths: Vec<String> = (0..AT_ONCE).map(|number| format!("/{round}-{number}")).collect();
        try_join_all(paths.iter().map(|path| cluster.put(path, &bytes))).await.expect("the puts");
        for node in &cluster.nodes {
            assert_eq!(node.state.lock().unwrap().connections, AT_ONCE, "after round {round}");
        }
    }
}

#[tokio::test]
async fn a_chunk_whose_hop_fails_goes_to_other_nodes() {
    let (small, large) = (3000, CHUNK);
    // A node that is no hop of the pipeline may be named: then the one that names it is left out. A node that is sent a
    // small chunk has nobody behind it whom it could name.
    let cases = [(small, 1, 1), (small, 2, 1), (large, 1, 1), (large, 2, 2), (large, 99, 1)];
    for (length, blamed, excluded) in cases {
        for stream in [false, true] {
            let cluster = Cluster::start(4).await;
            cluster.nodes[0].behave(Manners::FailsOnce(blamed));
            let bytes = bytes_of(length);
            let source = if stream { stream_of(&bytes) } else { file_of(&bytes) };
            let progress = Counter::default();
            let status = cluster.client.put(source, "/a", PutOptions::default(), &progress).await;
            status.expect("there are nodes enough");
            assert!(cluster.stored("/a") == bytes);
            assert_eq!(progress.0.load(Ordering::Relaxed), length, "replayed bytes count once");
            let plans = cluster.master.state.lock().unwrap().plans.clone();
            assert_eq!(plans, [(vec![excluded], Some(101))], "{blamed} was blamed for {length} bytes");
            let codes = cluster.master.state.lock().unwrap().exclude_codes.clone();
            assert_eq!(codes, [u32::from(ErrorCode::HopFailed.number())], "the master is told how it failed");
        }
    }
}

/// As when the datanode was started again between two puts.
#[tokio::test]
async fn a_kept_connection_that_breaks_is_blamed_on_nobody_and_a_new_one_on_its_node() {
    const KEPT: usize = 2;
    for length in [3000, CHUNK] {
        for (manners, excluded) in
            [(Manners::LosesKept, vec![vec![]]), (Manners::LosesAll, vec![vec![], vec![1]])]
        {
            // The first that breaks costs none; none is left for what else was kept.
            let cluster = Cluster::start_with(4, |config| config.retries = 1).await;
            let together = Some(Arc::new(Barrier::new(KEPT)));
            cluster.nodes[0].state.lock().unwrap().together = together;
            let small = bytes_of(1000);
            try_join_all(["/1", "/2"].map(|path| cluster.put(path, &small))).await.expect("the puts");
            cluster.nodes[0].state.lock().unwrap().together = None;
            cluster.nodes[0].behave(manners);
            let bytes = bytes_of(length);
            cluster.put("/a", &bytes).await.expect("at the latest the fourth node takes it");
            assert!(cluster.stored("/a") == bytes);
            let plans = cluster.master.state.lock().unwrap().plans.clone();
            let left_out: Vec<_> = plans.into_iter().map(|(exclude, _)| exclude).collect();
            assert_eq!(left_out, excluded, "{manners:?}, {length} bytes");
        }
    }
}

#[tokio::test]
async fn a_put_that_finds_too_few_nodes_leaves_nothing() {
    let cluster = Cluster::start(3).await;
    cluster.nodes[0].behave(Manners::FailsWrites(3));
    let error =
        cluster.put("/a", &bytes_of(10 * CHUNK)).await.expect_err("two nodes are left for three copies");
    assert_eq!(error.code(), ErrorCode::NotEnoughDatanodes, "{error}");
    let state = cluster.master.state.lock().unwrap();
    assert!(state.files.is_empty() && state.open.is_empty());
    assert_eq!(state.abandoned.len(), 1);
}

#[tokio::test]
async fn a_chunk_is_given_up_after_so_many_pipelines() {
    let cluster = Cluster::start_with(9, |config| config.retries = 2).await;
    for node in &cluster.nodes {
        node.behave(Manners::FailsWrites(node.node.node_id));
    }
    let error = cluster.put("/a", &bytes_of(100)).await.expect_err("nobody takes it");
    assert!(matches!(error, ClientError::NotWritten { tries: 3, index: 0, .. }), "{error:?}");
    assert_eq!(error.code(), ErrorCode::HopFailed);
    let state = cluster.master.state.lock().unwrap();
    assert_eq!(
        (state.given_up.clone(), state.granted),
        (vec![103], 3),
        "the last grant, the others with the next"
    );
}

#[tokio::test]
async fn a_silent_hop_is_blamed_and_a_slow_one_is_not() {
    let patience = Duration::from_secs(2);
    for (length, silent) in [(100, 1), (100, 3), (CHUNK, 1)] {
        let cluster = Cluster::start_with(4, |config| config.socket_timeout = patience).await;
        cluster.nodes[silent - 1].behave(Manners::Silent);
        cluster.put("/a", &bytes_of(length)).await.expect("the other three take it");
        assert_eq!(cluster.master.state.lock().unwrap().plans, [(vec![silent as u64], Some(101))]);
    }

    let cluster = Cluster::start_with(3, |config| config.socket_timeout = patience).await;
    cluster.nodes[0].behave(Manners::Slow(20));
    let options = PutOptions { chunk_size: Some(CHUNK), ..PutOptions::default() };
    let longer = file_of(&bytes_of(CHUNK + 1));
    cluster.client.put(longer, "/a", options, &NoProgress).await.expect("4 s with progress all along");
    let state = cluster.master.state.lock().unwrap();
    assert_eq!(state.plans, [(vec![], None)], "of the second chunk, with nobody left out");
    assert!(state.renewals > 0, "the lease of 300 ms was kept");
}

#[tokio::test]
async fn an_unsound_acknowledgement_is_no_commit() {
    for manners in [Manners::LiesAboutChecksum, Manners::ForgetsHops, Manners::Garbage] {
        let cluster = Cluster::start(4).await;
        cluster.nodes[0].behave(manners);
        cluster.put("/a", &bytes_of(CHUNK)).await.expect("the other three take it");
        let state = cluster.master.state.lock().unwrap();
        assert_eq!(state.plans, [(vec![1], Some(101))], "{manners:?}");
    }
    let (small, large) = (100, CHUNK);
    for (manners, length, code) in [
        (Manners::Garbage, small, ErrorCode::Protocol),
        (Manners::Garbage, large, ErrorCode::Protocol),
        (Manners::ForgetsHops, large, ErrorCode::Protocol),
        (Manners::LiesAboutChecksum, small, ErrorCode::Corrupt),
        (Manners::LiesAboutChecksum, large, ErrorCode::Corrupt),
        (Manners::RefusesHello, small, ErrorCode::WrongCluster),
        (Manners::RefusesHello, large, ErrorCode::WrongCluster),
    ] {
        let cluster = Cluster::start_with(3, |config| config.retries = 0).await;
        cluster.nodes[0].behave(manners);
        let error = cluster.put("/a", &bytes_of(length)).await.expect_err("no sound acknowledgement");
        assert_eq!(error.code(), code, "{manners:?}: {error}");
        assert!(cluster.master.state.lock().unwrap().files.is_empty(), "{manners:?}");
    }
}

#[tokio::test]
async fn a_node_that_nobody_listens_for_is_left_out() {
    let cluster = Cluster::start(4).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    cluster.master.state.lock().unwrap().nodes[0].data_address = gone.local_addr().unwrap().to_string();
    drop(gone);
    let bytes = bytes_of(9 * CHUNK);
    cluster.put("/a", &bytes).await.expect("the other three take it");
    assert!(cluster.stored("/a") == bytes);
}

#[tokio::test]
async fn a_small_file_is_granted_and_put_and_no_other_is() {
    let mut cluster = Cluster::start(3).await;
    cluster.master.state.lock().unwrap().chunk_size = 4 << 20;
    let small = 1 << 20;
    for (len, granted, opened) in [(0, 0, 0), (1, 1, 0), (small, 1, 0), (small + 1, 0, 1), (4 << 20, 0, 1)] {
        for (name, source) in [("file", file_of(&bytes_of(len))), ("stream", stream_of(&bytes_of(len)))] {
            let before = {
                let state = cluster.master.state.lock().unwrap();
                (state.granted, state.created)
            };
            // One that keeps nothing.
            cluster = cluster.with_new_client();
            cluster.client.put(source, "/a", PutOptions::default(), &NoProgress).await.expect("the put");
            assert!(cluster.stored("/a") == bytes_of(len), "{name} {len}");
            let state = cluster.master.state.lock().unwrap();
            assert_eq!(
                (state.granted - before.0, state.created - before.1),
                (granted, opened),
                "{name} {len}"
            );
        }
    }
}

#[tokio::test]
async fn many_small_files_take_few_calls_and_a_kept_grant_is_no_worse() {
    let cluster = Cluster::start(4).await;
    let bytes = bytes_of(1000);
    for number in 0..40 {
        cluster.put(&format!("/{number}"), &bytes).await.expect("the put");
    }
    // 1, 2, 4, 8, 16 and 16, of which 7 are left.
    assert_eq!(cluster.master.state.lock().unwrap().granted, 6);
    // All that is kept goes over this one.
    cluster.nodes[0].behave(Manners::FailsWrites(1));
    for number in 40..60 {
        cluster.put(&format!("/{number}"), &bytes).await.expect("the other three take it");
    }
    let state = cluster.master.state.lock().unwrap();
    assert_eq!((state.files.len(), &state.plans[0].0), (60, &vec![1]));
    drop(state);
    for number in 0..60 {
        assert!(cluster.stored(&format!("/{number}")) == bytes, "{number}");
    }
}

#[tokio::test]
async fn a_stream_that_pauses_is_put_as_a_long_one() {
    let cluster = Cluster::start(3).await;
    let (near, mut far) = tokio::io::duplex(1000);
    let writer = tokio::spawn(async move {
        far.write_all(&bytes_of(100)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        far.write_all(&bytes_of(100)).await.unwrap();
    });
    let source = PutSource::Stream(Box::new(near));
    let status = cluster.client.put(source, "/a", PutOptions::default(), &NoProgress).await.expect("the put");
    writer.await.unwrap();
    assert_eq!((status.size, cluster.stored("/a")), (200, [bytes_of(100), bytes_of(100)].concat()));
    assert_eq!(cluster.master.state.lock().unwrap().created, 1);
}

#[tokio::test]
async fn a_grant_that_ended_is_taken_anew_and_in_the_end_the_file_is_opened() {
    for (ended, granted, opened) in [(1, 2, 0), (2, 2, 1)] {
        for stream in [false, true] {
            let cluster = Cluster::start(3).await;
            cluster.master.state.lock().unwrap().ended_grants = ended;
            let bytes = bytes_of(3000);
            let source = if stream { stream_of(&bytes) } else { file_of(&bytes) };
            let progress = Counter::default();
            cluster.client.put(source, "/a", PutOptions::default(), &progress).await.expect("the put");
            assert!(cluster.stored("/a") == bytes);
            assert_eq!(progress.0.load(Ordering::Relaxed), 3000, "what is sent twice counts once");
            let state = cluster.master.state.lock().unwrap();
            assert_eq!((state.granted, state.created), (granted, opened), "{ended} ended");
        }
    }
}

#[tokio::test]
async fn a_small_file_that_is_refused_or_has_changed_leaves_nothing() {
    let cluster = Cluster::start(3).await;
    cluster.master.state.lock().unwrap().refused_files = 1;
    let error = cluster.put("/a", &bytes_of(100)).await.expect_err("somebody was faster");
    assert_eq!(error.code(), ErrorCode::AlreadyExists);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes_of(1000)).unwrap();
    for (length, what) in [(1001, "shrunk"), (999, "grown"), (0, "grown from nothing")] {
        let source = PutSource::File(file.try_clone().unwrap(), length);
        let outcome = cluster.client.put(source, "/a", PutOptions::default(), &NoProgress).await;
        assert!(matches!(outcome, Err(ClientError::SourceChanged { .. })), "{what}: {outcome:?}");
    }
    let state = cluster.master.state.lock().unwrap();
    assert!(state.files.is_empty());
    assert_eq!(state.given_up.len(), 3);
}

#[tokio::test]
async fn a_source_that_changes_fails_the_put() {
    let cluster = Cluster::start(3).await;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes_of(3 * CHUNK)).unwrap();
    let shrunk = PutSource::File(file.try_clone().unwrap(), 4 * CHUNK);
    let grown = PutSource::File(file.try_clone().unwrap(), 2 * CHUNK);
    for (name, source) in [("shrunk", shrunk), ("grown", grown)] {
        let outcome = cluster.client.put(source, "/a", PutOptions::default(), &NoProgress).await;
        assert!(matches!(outcome, Err(ClientError::SourceChanged { .. })), "{name}: {outcome:?}");
    }
    let state = cluster.master.state.lock().unwrap();
    assert!(state.files.is_empty());
    assert_eq!(state.abandoned.len(), 2);
}

#[tokio::test]
async fn a_stream_that_breaks_leaves_nothing() {
    let cluster = Cluster::start(3).await;
    let (near, mut far) = tokio::io::duplex(1000);
    let writer = tokio::spawn(async move {
        far.write_all(&bytes_of(33 * CHUNK)).await.unwrap();
        far
    });
    let source = PutSource::Stream(Box::new(Breaks(near, 32 * CHUNK as usize)));
    let outcome = cluster.client.put(source, "/a", PutOptions::default(), &NoProgress).await;
    writer.abort();
    assert!(matches!(outcome, Err(ClientError::Source { .. })), "{outcome:?}");
    let state = cluster.master.state.lock().unwrap();
    assert!(state.files.is_empty());
    assert_eq!(state.abandoned.len(), 1);
}

/// Gives an error after so many bytes.
struct Breaks(DuplexStream, usize);

impl AsyncRead for Breaks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        if self.1 == 0 {
            return Poll::Ready(Err(std::io::Error::other("the pipe broke")));
        }
        let polled = Pin::new(&mut self.0).poll_read(cx, buf);
        self.1 = self.1.saturating_sub(buf.filled().len() - before);
        polled
    }
}
