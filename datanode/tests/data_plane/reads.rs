//! Many small reads on one connection, asked for at once, among other requests.

use std::collections::HashMap;

use distrifs_datanode::DatanodeConfig;
use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{self, ErrorBody, Header, LatencyReport, Op, PAYLOAD_START, Placement};
use distrifs_proto::types::ChunkId;

use crate::wire::{Answer, Peer};
use crate::{Holder, PATIENCE, bodies, request};

const BLOCK: usize = 4096;
const LEN: usize = 600_000;

fn ask(request: u64, chunk: u64, offset: usize, length: usize) -> Header {
    Header {
        chunk: ChunkId(chunk),
        offset: offset as u64,
        length: length as u32,
        ..Header::new(Op::Read, request)
    }
}

/// What came of each request: the blocks, or the refusal; in as many frames as are to be expected.
async fn answers(peer: &mut Peer, frames: usize) -> HashMap<u64, Result<Vec<u8>, ErrorCode>> {
    let mut all: HashMap<u64, Result<Vec<u8>, ErrorCode>> = HashMap::new();
    for _ in 0..frames {
        let (header, body) = peer.raw_answer().await.expect("an answer");
        frame::verify(&body, &Placement::of(header.payload_bytes())).expect("it is sound");
        let payload = body[PAYLOAD_START..].to_vec();
        let outcome = match header.op {
            Op::Error => Err(ErrorBody::decode(&payload).expect("a refusal").code),
            Op::ReadData => Ok(payload),
            Op::Pong => Ok(Vec::new()),
            op => panic!("{op:?} in answer to a read"),
        };
        match (all.get_mut(&header.request_id), outcome) {
            (Some(Ok(blocks)), Ok(more)) => blocks.extend(more),
            (Some(_), _) => panic!("request {} was answered twice", header.request_id),
            (None, outcome) => drop(all.insert(header.request_id, outcome)),
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_come_together_are_all_answered_and_a_refused_one_spoils_no_other() {
    for io in bodies() {
        let mut holder = Holder::start(io, &[5], LEN).await;
        let (peer, content) = (&mut holder.peer, &holder.content);
        // The first round opens the chunk, the second finds it open and its bytes in the page cache.
        for direct in [0, 0, Header::DIRECT] {
            let small = |n: u64| ask(n, 5, n as usize * 5_000 % (LEN - 9_000), n as usize * 97 % 9_000 + 1);
            let mut asks: Vec<Header> = (1..=150).map(small).collect();
            asks[40].chunk = ChunkId(6);
            asks[80].offset = LEN as u64;
            asks[90].length = 64 << 10;
            asks[91].length = 300_000;
            asks[120] = Header::new(Op::Ping, 121);
            asks[149] = ask(150, 5, LEN - 1, 1);
            asks.iter_mut().filter(|it| it.op == Op::Read).for_each(|it| it.flags = direct);
            peer.ask_all(&asks).await;
            let all = answers(peer, asks.len()).await;
            for ask in &asks {
                let expected = match ask.request_id {
                    41 => Err(ErrorCode::NoSuchChunk),
                    81 => Err(ErrorCode::InvalidArgument),
                    121 => Ok(Vec::new()),
                    _ => {
                        let (from, to) = (ask.offset as usize, (ask.offset + u64::from(ask.length)) as usize);
                        Ok(content[from / BLOCK * BLOCK..to.next_multiple_of(BLOCK).min(LEN)].to_vec())
                    }
                };
                assert!(all[&ask.request_id] == expected, "{io}: {ask:?}");
            }
        }
        // The connection goes on with a write, and the reads that follow at once.
        let Answer::Acked(_) = peer.write(&request(7, &content[..10_000], &[])).await else {
            panic!("refused")
        };
        peer.ask_all(&[ask(1, 7, 4096, 1), ask(2, 7, 0, 10_000)]).await;
        let all = answers(peer, 2).await;
        assert!(all[&1] == Ok(content[4096..8192].to_vec()) && all[&2] == Ok(content[..10_000].to_vec()));
        holder.stop().await;
    }
}

/// R1: what a test wants to see of a stage is seen in a batch too, and reads do not wait for each other's stages.
#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_is_held_up_is_passed_by_each_read() {
    for io in bodies() {
        let delay = |config: &mut DatanodeConfig| config.delays = vec!["read.disk=30".parse().unwrap()];
        let mut holder = Holder::start_with(io, &[5], LEN, delay).await;
        let peer = &mut holder.peer;
        let asks: Vec<Header> = (1..=20).map(|n| ask(n, 5, 0, 4096)).collect();
        let began = std::time::Instant::now();
        peer.ask_all(&asks).await;
        assert_eq!(answers(peer, 20).await.len(), 20);
        assert!(began.elapsed().as_millis() >= 30, "none passed it unseen");
        peer.ask_all(&[Header::new(Op::Latency, 99)]).await;
        let (header, body) = peer.raw_answer().await.unwrap();
        assert_eq!(header.op, Op::LatencyReport);
        let report = LatencyReport::decode(&body[PAYLOAD_START..]).unwrap();
        assert!(report.stages.iter().any(|stage| stage.name == "read.disk"));
        holder.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_ask_and_do_not_read_keep_no_others_from_reading() {
    for io in bodies() {
        let holder = Holder::start(io, &[5], LEN).await;
        let content = &holder.content;
        // Past the page cache, more than the sockets take.
        let asks: Vec<Header> =
            (1..=200).map(|n| Header { flags: Header::DIRECT, ..ask(n, 5, 0, 64 << 10) }).collect();
        let mut stalled = Vec::new();
        // Twelve on each of the two shards.
        for _ in 0..24 {
            let mut peer = holder.connect().await;
            peer.ask_all(&asks).await;
            stalled.push(peer);
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        for _ in 0..2 {
            let mut peer = holder.connect().await;
            peer.ask_all(&asks[..40]).await;
            let all = tokio::time::timeout(PATIENCE, answers(&mut peer, 40)).await.expect("it is read");
            assert!(all.values().all(|got| *got == Ok(content[..64 << 10].to_vec())), "{io}");
        }
        // Those who do not read are served on when they do.
        let all = answers(&mut stalled[0], asks.len()).await;
        assert!(all.values().all(|got| *got == Ok(content[..64 << 10].to_vec())), "{io}");
        drop(stalled);
        holder.stop().await;
    }
}
