//! Many small reads of an open file at once: over one connection, while all is well.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use distrifs_client::OpenFile;
use distrifs_proto::ErrorCode;

use crate::fake_datanode::Manners;
use crate::{CHUNK, Cluster, bytes_of};

/// Reads at so many places at once, and compares; all lie in the first chunk.
async fn read_many(file: &Arc<OpenFile>, bytes: &[u8], reads: u64) {
    let place = |n: u64| (n * 1_741 % (CHUNK - 5_000), n * 37 % 5_000 + 1);
    let read = |n| {
        let (file, (offset, length)) = (file.clone(), place(n));
        tokio::spawn(async move { file.read_at(offset, length).await })
    };
    let tasks: Vec<_> = (0..reads).map(read).collect();
    for (n, task) in (0..).zip(tasks) {
        let (offset, length) = place(n);
        let got = task.await.unwrap().expect("the read");
        assert!(got == bytes[offset as usize..(offset + length) as usize], "{length} bytes at {offset}");
    }
}

async fn opened(cluster: &Cluster) -> (Arc<OpenFile>, Vec<u8>) {
    let bytes = bytes_of(CHUNK + 100);
    cluster.put_everywhere("/a", &bytes).await;
    (Arc::new(cluster.client.open("/a").await.expect("opened")), bytes)
}

/// To the node that is asked first: on a slow machine others are asked as well.
fn connections(cluster: &Cluster) -> usize {
    cluster.nodes[0].state.lock().unwrap().connections
}

fn reported(cluster: &Cluster) -> BTreeSet<(u64, u32)> {
    cluster.master.state.lock().unwrap().reports.iter().copied().collect()
}

#[tokio::test]
async fn small_reads_share_a_connection_and_large_ones_do_not() {
    let cluster = Cluster::start(3).await;
    let (file, bytes) = opened(&cluster).await;
    let before = connections(&cluster);
    read_many(&file, &bytes, 100).await;
    assert_eq!(connections(&cluster), before + 1);
    assert_eq!(cluster.nodes[0].state.lock().unwrap().reads.len(), 100, "each was asked for once");
    let large = file.read_at(0, CHUNK + 100).await.expect("the read");
    assert!(large == bytes);
}

#[tokio::test]
async fn readers_that_give_up_disturb_no_others() {
    let cluster = Cluster::start(3).await;
    let (file, bytes) = opened(&cluster).await;
    read_many(&file, &bytes, 1).await;
    let before = connections(&cluster);
    for _ in 0..50 {
        let read = file.read_at(5, 5_000);
        // It is polled once: the request is out.
        let polled = tokio::time::timeout(Duration::ZERO, read).await;
        assert!(polled.is_err() || polled.is_ok_and(|read| read.is_ok_and(|got| got == bytes[5..5_005])));
    }
    read_many(&file, &bytes, 50).await;
    assert_eq!(connections(&cluster), before);
}

#[tokio::test]
async fn a_replica_that_is_bad_in_one_of_many_answers_is_left_for_another_and_reported() {
    use ErrorCode::{Corrupt, NoSuchChunk, Protocol};
    let cases = [
        (Manners::Damages(30_000), Some(Corrupt)),
        // After an answer that was whole: that is nobody's fault, but all the others are without one.
        (Manners::HangsUp, None),
        (Manners::Garbage, Some(Protocol)),
        (Manners::Empty, Some(NoSuchChunk)),
    ];
    for (manners, code) in cases {
        let cluster = Cluster::start(3).await;
        let (file, bytes) = opened(&cluster).await;
        read_many(&file, &bytes, 1).await;
        cluster.nodes[0].behave(manners);
        read_many(&file, &bytes, 32).await;
        let expected = code.map(|code| (1, u32::from(code.number())));
        assert_eq!(reported(&cluster), expected.into_iter().collect(), "{manners:?}");
        cluster.nodes[0].behave(Manners::Good);
        read_many(&file, &bytes, 32).await;
    }
}

#[tokio::test]
async fn a_node_that_falls_silent_is_left_for_others_by_all_who_wait() {
    let patience = Duration::from_millis(1500);
    let cluster = Cluster::start_with(3, |config| config.socket_timeout = patience).await;
    let (file, bytes) = opened(&cluster).await;
    read_many(&file, &bytes, 1).await;
    cluster.nodes[0].behave(Manners::Silent);
    read_many(&file, &bytes, 32).await;
    assert_eq!(reported(&cluster), BTreeSet::from([(1, u32::from(ErrorCode::Unavailable.number()))]));
    let asked = cluster.nodes[0].state.lock().unwrap().reads.len();
    read_many(&file, &bytes, 32).await;
    assert_eq!(cluster.nodes[0].state.lock().unwrap().reads.len(), asked, "it is asked last for a while");
}

#[tokio::test]
async fn a_node_that_is_slow_but_steady_is_not_blamed_for_the_queue_before_it() {
    /// The longest read that goes over the link.
    const SMALL: u64 = 64 << 10;
    let cluster = Cluster::start_with(3, |config| config.socket_timeout = Duration::from_secs(3)).await;
    let (file, bytes) = opened(&cluster).await;
    read_many(&file, &bytes, 1).await;
    let before = connections(&cluster);
    cluster.nodes[0].behave(Manners::Steady(40));
    // More than there is room for, and the last of those that have room wait longer than the patience of a second.
    let read = |_| {
        let file = file.clone();
        tokio::spawn(async move { file.read_at(0, SMALL).await })
    };
    let tasks: Vec<_> = (0..48).map(read).collect();
    for task in tasks {
        assert!(task.await.unwrap().expect("the read") == bytes[..SMALL as usize]);
    }
    cluster.nodes[0].behave(Manners::Steady(0));
    read_many(&file, &bytes, 32).await;
    assert_eq!(reported(&cluster), BTreeSet::new());
    assert_eq!(connections(&cluster), before, "the link goes on");
}

#[tokio::test]
async fn reads_past_the_page_cache_say_so() {
    let cluster = Cluster::start(3).await;
    let bytes = bytes_of(2 * CHUNK);
    cluster.put_everywhere("/a", &bytes).await;
    let file = cluster.client.open_direct("/a").await.expect("opened");
    assert!(file.read_at(100, 5_000).await.expect("small") == bytes[100..5_100]);
    assert!(file.read_at(100, CHUNK + 5_000).await.expect("large") == bytes[100..CHUNK as usize + 5_100]);
    let state = cluster.nodes[0].state.lock().unwrap();
    assert!(state.reads.len() >= 3);
    assert_eq!(state.direct_reads, state.reads.len());
}
