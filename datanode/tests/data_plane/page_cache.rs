//! Which way a read takes to the disk.

use std::path::Path;

use distrifs_engine::io::{Body, Open, block_on};
use distrifs_proto::frame::{Header, Op};
use distrifs_proto::types::ChunkId;

use crate::{Holder, bodies};

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
        let mut holder = Holder::start(io, &[5], (3 << 20) + 17).await;
        let path = holder.data_file(5);
        // One connection is one shard.
        let (peer, content) = (&mut holder.peer, &holder.content);
        // In memory file systems, and before Linux 6.5, all seems to be there.
        let can_tell = !is_cached(&path).await;
        for cached_after in [false, true, true] {
            assert_eq!(peer.read(ChunkId(5), 0, content.len()).await.unwrap(), *content, "{io}");
            assert_eq!(is_cached(&path).await, cached_after || !can_tell, "{io}");
        }
        holder.stop().await;
    }
}

/// R6: bytes that cannot be had any more while they are on their way end the connection and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_cut_while_it_is_sent_ends_that_connection_only() {
    // More than what two sockets hold.
    const LEN: usize = 32 << 20;
    for io in bodies() {
        let mut holder = Holder::start(io, &[5, 6], LEN).await;
        let mut slow = holder.connect().await;
        let data = holder.data_file(5);
        let (peer, content) = (&mut holder.peer, &holder.content);
        for chunk in [5, 6] {
            // Past the page cache, then into it.
            for _ in 0..2 {
                assert!(peer.read(ChunkId(chunk), 0, LEN).await.unwrap() == *content);
            }
        }
        let whole = Header { chunk: ChunkId(5), length: LEN as u32, ..Header::new(Op::Read, 1) };
        slow.ask_all(&[whole]).await;
        let (first, _) = slow.raw_answer().await.expect("the first piece");
        assert_eq!(first.op, Op::ReadData);
        std::fs::File::options().write(true).open(data).unwrap().set_len(1 << 20).unwrap();
        let mut pieces = 1;
        let refused = loop {
            match slow.raw_answer().await {
                Some((header, _)) if header.op == Op::ReadData => pieces += 1,
                // Found by the piece that was to be sent next.
                Some((header, _)) => break header.op == Op::Error,
                None => break true,
            }
        };
        assert!(refused && pieces < LEN >> 20, "{io}: {pieces} pieces");
        assert!(peer.read(ChunkId(5), 0, LEN).await.is_err());
        assert!(peer.read(ChunkId(6), 0, LEN).await.unwrap() == *content, "{io}");
        holder.stop().await;
    }
}
