//! Which way a read takes to the disk.

use std::path::Path;
use std::time::Duration;

use distrifs_engine::io::{Body, Open, block_on};
use distrifs_proto::frame::{Header, Op};
use distrifs_proto::types::ChunkId;

use crate::{Holder, PATIENCE, bodies, metric};

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

/// R6: those whose pieces can no longer be read do not wait for each other's buffers.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_chunk_that_is_cut_all_get_an_error_and_others_are_served() {
    const PIECE: usize = 1 << 20;
    // More than what two sockets hold.
    const LEN: usize = 16 * PIECE;
    /// As many as a shard has buffers for large pieces.
    const READERS: usize = 16;
    for io in bodies() {
        let holder = Holder::start_with(io, &[5, 6], LEN, |config| {
            config.shards = Some(1);
            config.delays = vec!["read.send=1000".parse().unwrap()];
            config.http = Some("127.0.0.1:0".parse().unwrap());
        });
        let mut holder = holder.await;
        let whole = |chunk, length| Header {
            chunk: ChunkId(chunk),
            length: length as u32,
            ..Header::new(Op::Read, 1)
        };
        for chunk in [5, 6] {
            // Into the page cache: a piece is sent from there.
            assert_eq!(std::fs::read(holder.data_file(chunk)).unwrap(), holder.content);
        }
        let (mut first, mut readers) = (Vec::new(), Vec::new());
        for _ in 0..READERS {
            first.push(holder.connect().await);
            readers.push(holder.connect().await);
        }
        // While these have all buffers, the others queue for their first pieces: each then has one, and waits for its
        // next while that is held up on its way.
        for peer in &mut first {
            peer.ask_all(&[whole(6, PIECE)]).await;
        }
        has_sent(&holder, READERS * PIECE).await;
        for peer in &mut readers {
            peer.ask_all(&[whole(5, LEN)]).await;
        }
        has_sent(&holder, 2 * READERS * PIECE).await;
        let data = std::fs::File::options().write(true).open(holder.data_file(5));
        data.unwrap().set_len(PIECE as u64 / 2).unwrap();
        for mut peer in readers {
            let ended = async {
                while let Some((header, _)) = peer.raw_answer().await {
                    assert!(!header.is_last(), "{io}: the end of what is not there");
                    if header.op == Op::Error {
                        break;
                    }
                }
            };
            tokio::time::timeout(PATIENCE, ended).await.expect("an answer, or the end");
        }
        let sound = tokio::time::timeout(PATIENCE, holder.peer.read(ChunkId(6), 0, PIECE)).await;
        assert!(sound.expect("others are served").unwrap() == holder.content[..PIECE], "{io}");
        holder.stop().await;
    }
}

/// Waits until pieces of so many bytes were at hand.
async fn has_sent(holder: &Holder, bytes: usize) {
    let sent = async {
        while metric(&holder.node, "bytes_sent_total").await < bytes as u64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, sent).await.expect("it is sent");
}
