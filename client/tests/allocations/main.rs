//! What a frame costs the client in allocations, put from a file, got into a file and into a stream: nothing. A chunk has
//! its cost, however many frames it has.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../transfers/fake_datanode.rs"]
#[allow(dead_code, reason = "it can do more than is needed here")]
mod fake_datanode;
#[path = "../transfers/fake_master.rs"]
#[allow(dead_code, reason = "it can do more than is needed here")]
mod fake_master;

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use distrifs_client::{Client, ClientConfig, GetTarget, NoProgress, PutOptions, PutSource};
use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_testkit::{CountingAllocator, allocations, allocations_of_threads};
use fake_datanode::FakeDatanode;
use fake_master::FakeMaster;
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// As the master has it: all that is put here fits one chunk.
const CHUNK: u64 = 16 << 20;
/// Frames of a short and of a long chunk. Into a stream this is one part, which has its cost, too.
const FEW: usize = 2;
const MANY: usize = 16;
/// Of so many chunks of each length the cheapest counts: what is kept grows with the first ones.
const ROUNDS: usize = 6;
/// What a long chunk may cost beyond a short one, for queues that grow; less than one allocation for each further frame.
const SLACK: u64 = 12;
const _: () = assert!(SLACK < (MANY - FEW) as u64);
const _: () = assert!((MANY * FRAME_PAYLOAD_BYTES_MAX) as u64 <= CHUNK);

/// The threads of those whom the client speaks to; they are not counted.
const OTHERS: &str = "others";

fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().unwrap()
}

/// What the client allocates while this runs to its end on its runtime.
fn cost(client: &Runtime, work: impl Future<Output = ()> + Send + 'static) -> u64 {
    let counted = || allocations() - allocations_of_threads(OTHERS);
    let before = counted();
    client.block_on(async { tokio::spawn(work).await.unwrap() });
    counted() - before
}

#[test]
fn a_frame_costs_the_client_no_allocation() {
    let (others, ours) = (runtime(OTHERS), runtime("client"));
    let client = others.block_on(async {
        let (master, mut nodes) = (FakeMaster::start().await, Vec::new());
        for id in 1..=3 {
            nodes.push(FakeDatanode::start(id).await.node);
        }
        master.state.lock().unwrap().nodes = nodes;
        let mut config = ClientConfig::new(vec![master.address.clone()], "tester");
        config.socket_timeout = Duration::from_secs(30);
        Client::new(config)
    });
    let file = |frames: usize| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![0xa5; frames * FRAME_PAYLOAD_BYTES_MAX]).unwrap();
        file
    };
    let files: [(usize, File); 2] = [FEW, MANY].map(|frames| (frames, file(frames)));
    let mut least = [[u64::MAX; 3]; 2];
    for round in 0..ROUNDS {
        for (least, (frames, file)) in least.iter_mut().zip(&files) {
            let path = format!("/{frames}-{round}");
            let length = (frames * FRAME_PAYLOAD_BYTES_MAX) as u64;
            let (own, source) = ((client.clone(), path.clone()), file.try_clone().unwrap());
            let put = cost(&ours, async move {
                let source = PutSource::File(source, length);
                own.0.put(source, &own.1, PutOptions::default(), &NoProgress).await.unwrap();
            });
            let (own, target) = ((client.clone(), path.clone()), tempfile::tempfile().unwrap());
            let get = cost(&ours, async move {
                own.0.get(&own.1, None, GetTarget::File(target), &NoProgress).await.unwrap();
            });
            let own = (client.clone(), path);
            let stream = cost(&ours, async move {
                let target = GetTarget::Stream(Box::new(tokio::io::sink()));
                own.0.get(&own.1, None, target, &NoProgress).await.unwrap();
            });
            for (least, seen) in least.iter_mut().zip([put, get, stream]) {
                *least = seen.min(*least);
            }
        }
    }
    println!(
        "put, got into a file, into a stream: {FEW} frames {:?}, {MANY} frames {:?}",
        least[0], least[1]
    );
    let [few, many] = least;
    assert!(few.iter().all(|cost| *cost > 0), "the client is not counted");
    for (few, many) in few.into_iter().zip(many) {
        assert!(many <= few + SLACK, "a frame has its cost");
    }
}
