//! Whole puts and gets against a master and datanodes that follow a script: what a user gets to see when all is
//! well, and when a peer is slow, silent, damaged or mad.

// A step that fails is a failed test, in the peers and their tools too.
#![allow(clippy::unwrap_used)]

mod fake_datanode;
mod fake_master;
mod get;
mod open_file;
mod put;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use distrifs_client::{
    Client, ClientConfig, ClientError, FileStatus, GetTarget, NoProgress, Progress, PutOptions, PutSource,
};
use distrifs_proto::ErrorCode;
use distrifs_proto::limits::SMALL_CHUNK_BYTES_MAX;
use fake_datanode::FakeDatanode;
use fake_master::FakeMaster;
use tokio::io::AsyncWrite;

const CHUNK: u64 = 128 << 10;

/// A master, datanodes 1 to `n`, and a client.
struct Cluster {
    master: FakeMaster,
    nodes: Vec<FakeDatanode>,
    client: Client,
}

impl Cluster {
    async fn start(nodes: u64) -> Self {
        Self::start_with(nodes, |_| {}).await
    }

    async fn start_with(nodes: u64, configure: impl FnOnce(&mut ClientConfig)) -> Self {
        let master = FakeMaster::start().await;
        let mut running = Vec::new();
        for id in 1..=nodes {
            running.push(FakeDatanode::start(id).await);
        }
        master.state.lock().unwrap().nodes = running.iter().map(|node| node.node.clone()).collect();
        let mut config = ClientConfig::new(vec![master.address.clone()], "tester");
        config.socket_timeout = Duration::from_secs(30);
        configure(&mut config);
        Self { master, nodes: running, client: Client::new(config) }
    }

    /// The same cluster for a client without connections.
    fn with_new_client(self) -> Self {
        let config = ClientConfig::new(vec![self.master.address.clone()], "tester");
        Self { client: Client::new(config), ..self }
    }

    async fn put(&self, path: &str, bytes: &[u8]) -> Result<FileStatus, ClientError> {
        self.client.put(file_of(bytes), path, PutOptions::default(), &NoProgress).await
    }

    /// The file as the master has it, with its bytes as the first hops have them.
    fn stored(&self, path: &str) -> Vec<u8> {
        let file = self.master.state.lock().unwrap().files[path].clone();
        let mut bytes = Vec::new();
        for chunk in file.chunks {
            let of = |at: usize| {
                let node = &self.nodes[chunk.replicas[at].node_id as usize - 1];
                node.state.lock().unwrap().chunks.get(&chunk.chunk_id).cloned()
            };
            let first = of(0).expect("the first node has each chunk");
            if first.len() as u64 <= SMALL_CHUNK_BYTES_MAX {
                let everywhere = (1..chunk.replicas.len()).all(|at| of(at).as_ref() == Some(&first));
                assert!(everywhere, "a small chunk goes to all nodes from the client");
            }
            bytes.extend(first);
        }
        bytes
    }

    /// A put, and every chunk on all of its replicas, as the hops behind the first would have it.
    async fn put_everywhere(&self, path: &str, bytes: &[u8]) {
        self.put(path, bytes).await.expect("the put");
        let file = self.master.state.lock().unwrap().files[path].clone();
        for chunk in file.chunks {
            let at = (chunk.index * file.status.chunk_size) as usize;
            for replica in chunk.replicas {
                let mut node = self.nodes[replica.node_id as usize - 1].state.lock().unwrap();
                node.chunks.insert(chunk.chunk_id, bytes[at..at + chunk.length as usize].to_vec());
            }
        }
    }

    async fn get_file(
        &self,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> (Result<FileStatus, ClientError>, Vec<u8>) {
        let file = tempfile::tempfile().unwrap();
        let target = GetTarget::File(file.try_clone().unwrap());
        let outcome = self.client.get(path, range, target, &NoProgress).await;
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        (outcome, bytes)
    }

    async fn get_stream(
        &self,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> (Result<FileStatus, ClientError>, Vec<u8>) {
        let taken = Taken::default();
        let target = GetTarget::Stream(Box::new(taken.clone()));
        let outcome = self.client.get(path, range, target, &NoProgress).await;
        let bytes = taken.0.lock().unwrap().clone();
        (outcome, bytes)
    }
}

fn bytes_of(len: u64) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect()
}

fn file_of(bytes: &[u8]) -> PutSource {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    PutSource::File(file, bytes.len() as u64)
}

/// A stream that gives its bytes in odd pieces.
struct Pieces(Vec<u8>, usize);

impl tokio::io::AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let n = (self.0.len() - self.1).min(buf.remaining()).min(7919);
        let at = self.1;
        buf.put_slice(&self.0[at..at + n]);
        self.1 += n;
        Poll::Ready(Ok(()))
    }
}

fn stream_of(bytes: &[u8]) -> PutSource {
    PutSource::Stream(Box::new(Pieces(bytes.to_vec(), 0)))
}

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Taken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().unwrap().extend(buf);
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Counts.
#[derive(Default)]
struct Counter(AtomicU64);

impl Progress for Counter {
    fn started(&self, _: Option<u64>) {}
    fn advanced(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_retry_carries_the_same_request_id_and_the_user() {
    let cluster = Cluster::start(0).await;
    cluster.master.state.lock().unwrap().mkdir_failures = 2;
    cluster.client.mkdir("/a", false, 0o755).await.expect("the third try succeeds");
    cluster.client.mkdir("/b", false, 0o755).await.expect("at once");
    let ids = cluster.master.state.lock().unwrap().mkdir_ids.clone();
    assert_eq!(ids.len(), 4);
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
}

#[tokio::test]
async fn the_master_that_answers_is_found_among_several() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = gone.local_addr().unwrap().into();
    drop(gone);
    let cluster = Cluster::start_with(0, |config| config.masters.insert(0, nobody)).await;
    cluster.client.mkdir("/a", false, 0o755).await.expect("the second master answers");
}

#[tokio::test]
async fn a_cluster_without_a_master_is_unavailable_within_the_deadline() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = ClientConfig::new(vec![gone.local_addr().unwrap().into()], "tester");
    drop(gone);
    config.socket_timeout = Duration::from_millis(300);
    let error = Client::new(config).mkdir("/a", false, 0o755).await.expect_err("nobody is there");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.to_string().starts_with("/a: no master answered"), "{error}");
}

#[tokio::test]
async fn the_masters_words_reach_the_user() {
    let cluster = Cluster::start(0).await;
    let error = cluster.client.stat("/none").await.expect_err("no such file");
    assert_eq!(error.code(), ErrorCode::NotFound);
    assert_eq!(error.to_string(), "/none: no such file or directory");
}

#[test]
fn calls_can_run_on_any_thread() {
    fn send<T: Send>(_: &T) {}
    let client = Client::new(ClientConfig::new(Vec::new(), "tester"));
    send(&client.put(file_of(b"x"), "/a", PutOptions::default(), &NoProgress));
    send(&client.get("/a", None, GetTarget::File(tempfile::tempfile().unwrap()), &NoProgress));
    send(&client.list_page("/", true, ""));
}
