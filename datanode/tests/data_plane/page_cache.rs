//! Which way a read takes to the disk.

use std::path::Path;

use distrifs_engine::io::{Body, Open, block_on};
use distrifs_proto::types::ChunkId;

use crate::fake_master::FakeMaster;
use crate::wire::{Answer, Peer};
use crate::{bodies, bytes, hop, request, start};

async fn is_cached(path: &Path) -> bool {
    let path = path.to_owned();
    let look = move || {
        block_on(Body::Posix, |io| async move {
            let file = io.open(&path, Open::READ).await.unwrap();
            let length = file.len().await.unwrap();
            file.is_cached(&(0..length))
        })
    };
    tokio::task::spawn_blocking(look).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_read_fills_the_page_cache_only_when_it_comes_again() {
    for io in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let master = FakeMaster::start(1).await;
        let node = start(io, dir.path(), &master).await;
        let content = bytes((3 << 20) + 17);
        // One connection is one shard.
        let mut peer = Peer::connect(&hop(&node)).await;
        assert!(matches!(peer.write(&request(5, &content, &[])).await, Answer::Acked(_)));
        let path = dir.path().join("chunks/00/chunk-0000000000000005");
        // In memory file systems, and before Linux 6.5, all seems to be there.
        let can_tell = !is_cached(&path).await;
        for cached_after in [false, true, true] {
            assert_eq!(peer.read(ChunkId(5), 0, content.len()).await.unwrap(), content, "{io}");
            assert_eq!(is_cached(&path).await, cached_after || !can_tell, "{io}");
        }
        node.stop().await;
    }
}
