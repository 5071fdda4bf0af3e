//! A master over real gRPC on free ports, with datanodes played by the test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{Header, Op};
use distrifs_proto::grpc::v1::admin_service_client::AdminServiceClient;
use distrifs_proto::grpc::v1::client_service_client::ClientServiceClient;
use distrifs_proto::grpc::v1::datanode_service_client::DatanodeServiceClient;
use distrifs_proto::grpc::v1::from_datanode::Body;
use distrifs_proto::grpc::v1::to_datanode;
use distrifs_proto::grpc::{USER_KEY, code_of, text_of, v1};
use distrifs_proto::types::{Crc32c, HostPort, RequestId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::{Master, MasterConfig, MasterFailure, StartError};

const CHUNK: u64 = 64 << 10;

pub(crate) fn config(dir: &Path) -> MasterConfig {
    let free = || HostPort { host: "127.0.0.1".to_owned(), port: 0 };
    MasterConfig {
        listen: free(),
        http: Some(free()),
        chunk_size: CHUNK,
        replication: 2,
        heartbeat_interval: Duration::from_millis(50),
        heartbeat_timeout: Duration::from_secs(2),
        gc_interval: Duration::from_millis(50),
        gc_delay: Duration::ZERO,
        pending_timeout: Duration::from_secs(60),
        ..MasterConfig::new(dir, "op")
    }
}

pub(crate) async fn start(config: MasterConfig) -> Master {
    // After a crash within one process the old tasks let go of the folder a little later.
    for _ in 0..200 {
        match Master::start(config.clone()).await {
            Ok(master) => return master,
            Err(error)
                if error.to_string().contains("in use") || matches!(error, StartError::InUse { .. }) =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("the master does not start: {error}"),
        }
    }
    panic!("the folder stays in use");
}

pub(crate) fn id() -> Option<v1::RequestId> {
    Some(RequestId(rand::random()).into())
}

/// Asks as one user.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) channel: Channel,
    pub(crate) name: &'static str,
}

impl User {
    pub(crate) async fn new(master: &Master, name: &'static str) -> Self {
        let uri = format!("http://{}", master.grpc_address());
        let channel = Channel::from_shared(uri).expect("an address").connect().await.expect("connects");
        Self { channel, name }
    }

    pub(crate) fn api(&self) -> ClientServiceClient<Channel> {
        ClientServiceClient::new(self.channel.clone())
    }

    pub(crate) fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(USER_KEY, self.name.parse().expect("a name"));
        request
    }

    pub(crate) async fn mkdir(&self, path: &str) -> Result<(), Status> {
        let message = v1::MkdirRequest { request_id: id(), path: path.into(), parents: false, mode: 0o755 };
        self.api().mkdir(self.ask(message)).await.map(|_| ())
    }

    pub(crate) async fn stat(&self, path: &str) -> Result<v1::FileStatus, Status> {
        let reply = self.api().stat(self.ask(v1::StatRequest { path: path.into() })).await?;
        Ok(reply.into_inner().status.expect("a status"))
    }

    pub(crate) async fn create(&self, message: v1::CreateRequest) -> Result<v1::CreateReply, Status> {
        Ok(self.api().create(self.ask(message)).await?.into_inner())
    }

    pub(crate) async fn complete(
        &self,
        file_id: u64,
        chunks: Vec<v1::WrittenChunk>,
    ) -> Result<v1::FileStatus, Status> {
        let message = v1::CompleteRequest { request_id: id(), file_id, chunks };
        let reply = self.api().complete(self.ask(message)).await?.into_inner();
        Ok(reply.status.expect("a status"))
    }

    pub(crate) async fn put(
        &self,
        path: &str,
        bytes: &[u8],
    ) -> Result<(v1::FileStatus, v1::WrittenChunk), Status> {
        let created = self.create(create(path)).await?;
        let chunk = written(created.first_chunk.as_ref().expect("a plan"), bytes);
        Ok((self.complete(created.file_id, vec![chunk.clone()]).await?, chunk))
    }

    pub(crate) async fn read_plan(&self, path: &str) -> Result<v1::ReadPlanReply, Status> {
        let message = v1::ReadPlanRequest { path: path.into(), ..v1::ReadPlanRequest::default() };
        Ok(self.api().read_plan(self.ask(message)).await?.into_inner())
    }

    pub(crate) async fn status(&self) -> v1::ClusterStatusReply {
        let mut api = AdminServiceClient::new(self.channel.clone());
        api.cluster_status(v1::ClusterStatusRequest {}).await.expect("answers").into_inner()
    }
}

pub(crate) fn create(path: &str) -> v1::CreateRequest {
    v1::CreateRequest {
        request_id: id(),
        path: path.into(),
        first_chunk: true,
        mode: 0o644,
        ..v1::CreateRequest::default()
    }
}

pub(crate) fn written(plan: &v1::WritePlan, bytes: &[u8]) -> v1::WrittenChunk {
    v1::WrittenChunk {
        chunk_id: plan.chunk_id,
        generation: plan.generation,
        length: bytes.len() as u64,
        crc32c: Crc32c::of(bytes).0,
        nodes: plan.hops.iter().map(|hop| hop.node_id).collect(),
    }
}

/// A datanode that says what it is told to say, and heartbeats.
pub(crate) struct Node {
    out: mpsc::Sender<v1::FromDatanode>,
    messages: mpsc::Receiver<v1::ToDatanode>,
}

impl Node {
    pub(crate) async fn join(master: &Master, node_id: u64, seen: u64, has: Vec<v1::Replica>) -> Self {
        let (out, receiver) = mpsc::channel(64);
        let (inbox, messages) = mpsc::channel(1024);
        let (cluster_id_high, cluster_id_low) = master.cluster_id().to_halves();
        let data_port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let data_address = data_port.local_addr().expect("bound").to_string();
        tokio::spawn(give_signs_of_life(data_port));
        let register = v1::Register {
            cluster_id_high,
            cluster_id_low,
            node_id,
            data_address,
            lsn_seen: seen,
            ..v1::Register::default()
        };
        for body in [
            Body::Register(register),
            Body::BlockReport(v1::BlockReport { replicas: has, first: true, last: true, digest: None }),
        ] {
            out.send(v1::FromDatanode { body: Some(body) }).await.expect("open");
        }
        let uri = format!("http://{}", master.grpc_address());
        let mut api = DatanodeServiceClient::connect(uri).await.expect("connects");
        let mut inbound = api.session(ReceiverStream::new(receiver)).await.expect("registers").into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbound.message().await {
                if inbox.send(message).await.is_err() {
                    break;
                }
            }
        });
        let beats = out.downgrade();
        tokio::spawn(async move {
            while let Some(out) = beats.upgrade() {
                let dir = v1::DataDir { free_bytes: 1 << 30, healthy: true, ..v1::DataDir::default() };
                let beat = v1::Heartbeat { data_dirs: vec![dir], ..v1::Heartbeat::default() };
                if out.send(v1::FromDatanode { body: Some(Body::Heartbeat(beat)) }).await.is_err() {
                    break;
                }
                drop(out);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { out, messages }
    }

    pub(crate) async fn changed(&self, added: Vec<v1::Replica>, removed: Vec<u64>) {
        let body =
            Some(Body::Changes(v1::ReplicaChanges { added, removed, ..v1::ReplicaChanges::default() }));
        self.out.send(v1::FromDatanode { body }).await.expect("open");
    }

    /// The next order to delete something.
    pub(crate) async fn order(&mut self) -> (u64, v1::DeleteReplica) {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(30), self.messages.recv());
            let message = message.await.expect("an order in time").expect("open");
            if let Some(to_datanode::Body::Orders(orders)) = message.body
                && let Some(first) = orders.delete.first()
            {
                return (message.epoch, *first);
            }
        }
    }
}

/// A data port that answers pings, and nothing else.
async fn give_signs_of_life(port: TcpListener) {
    while let Ok((mut stream, _)) = port.accept().await {
        tokio::spawn(async move {
            // Whoever asks may have gone.
            let _ = stream.write_all(&Header::new(Op::Pong, 1).encode()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
    }
}

pub(crate) fn replica(chunk: &v1::WrittenChunk) -> v1::Replica {
    v1::Replica {
        chunk_id: chunk.chunk_id,
        generation: chunk.generation,
        length: chunk.length,
        crc32c: chunk.crc32c,
        corrupt: false,
    }
}

pub(crate) async fn with_nodes(master: &Master, count: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    for node_id in 1..=count {
        nodes.push(Node::join(master, node_id, 0, Vec::new()).await);
    }
    let user = User::new(master, "op").await;
    until("the nodes are live", async || u64::from(user.status().await.live_nodes) == count).await;
    until("their room is known", async || user.status().await.free_bytes == count << 30).await;
    nodes
}

pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// The folder of one test. A master that is dropped, as in a crash, lets go of its log a little later, and may
/// make one more file meanwhile: the removal waits for it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for _ in 0..500 {
            // Once the folder is gone, nothing can be made in it any more.
            if std::fs::remove_dir_all(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(crate) fn folder() -> Folder {
    Folder(tempfile::tempdir().expect("a folder").keep())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_is_whole_and_survives_a_clean_stop_and_a_crash() {
    let dir = folder();
    let mut master = start(config(dir.path())).await;
    let nodes = with_nodes(&master, 3).await;
    let op = User::new(&master, "op").await;
    op.mkdir("/d").await.expect("made");
    let created = op.create(create("/d//f")).await.expect("opened");
    assert_eq!(code_of(&op.stat("/d/f").await.expect_err("not yet")), ErrorCode::NotFound);
    let plan = created.first_chunk.expect("a plan");
    assert_eq!((plan.hops.len(), created.replication, created.chunk_size), (2, 2, CHUNK));
    let chunk = written(&plan, b"hello");
    let status = op.complete(created.file_id, vec![chunk.clone()]).await.expect("completed");
    assert_eq!((status.size, status.crc32c), (5, Crc32c::of(b"hello").0));
    assert_eq!((status.path.as_str(), status.owner.as_str(), status.mode), ("/d/f", "op", 0o644));
    let read = op.read_plan("/d/f").await.expect("planned");
    let mut replicas: Vec<u64> = read.chunks[0].replicas.iter().map(|node| node.node_id).collect();
    let mut planned = chunk.nodes.clone();
    replicas.sort_unstable();
    planned.sort_unstable();
    assert_eq!(replicas, planned, "the writer's word is enough to read at once");
    for clean in [true, false] {
        let epoch = master.epoch();
        if clean {
            master.stop().await;
        } else {
            drop(master);
        }
        master = start(config(dir.path())).await;
        assert!(master.epoch() > epoch, "clean {clean}");
        let again = User::new(&master, "op").await;
        assert_eq!(again.stat("/d/f").await.expect("there"), status, "clean {clean}");
        assert!(again.read_plan("/d/f").await.expect("planned").chunks[0].replicas.is_empty());
        let _node = Node::join(&master, 7, 0, vec![replica(&chunk)]).await;
        until("the report is in", async || {
            again.read_plan("/d/f").await.expect("planned").chunks[0].replicas.len() == 1
        })
        .await;
    }
    drop(nodes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_goes_on_across_a_restart() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let nodes = with_nodes(&master, 2).await;
    let op = User::new(&master, "op").await;
    let request = create("/f");
    let created = op.create(request.clone()).await.expect("opened");
    let chunk = written(&created.first_chunk.expect("a plan"), b"late");
    drop(nodes);
    master.stop().await;
    let master = start(config(dir.path())).await;
    let op = User::new(&master, "op").await;
    let early = op.complete(created.file_id, vec![chunk.clone()]).await.expect_err("nobody is back");
    assert!(code_of(&early).retryable(), "{early}");
    let _nodes = with_nodes(&master, 2).await;
    let retried = op.create(request).await.expect("the same file");
    assert_eq!(retried.file_id, created.file_id);
    assert_eq!(retried.first_chunk.expect("planned again").chunk_id, chunk.chunk_id);
    op.complete(created.file_id, vec![chunk]).await.expect("completed");
    assert_eq!(op.stat("/f").await.expect("there").size, 4);
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_file_expires_and_its_chunks_are_deleted() {
    let dir = folder();
    let quick = MasterConfig { pending_timeout: Duration::from_millis(500), ..config(dir.path()) };
    let master = start(quick).await;
    let mut nodes = with_nodes(&master, 2).await;
    let op = User::new(&master, "op").await;
    let created = op.create(create("/f")).await.expect("opened");
    let chunk = written(&created.first_chunk.expect("a plan"), b"half");
    for node in &nodes {
        node.changed(vec![replica(&chunk)], Vec::new()).await;
    }
    for node in &mut nodes {
        let (epoch, order) = node.order().await;
        assert_eq!((epoch, order.chunk_id, order.generation), (1, chunk.chunk_id, chunk.generation));
        assert!(op.status().await.chunks_to_delete == 1);
    }
    let late = op.complete(created.file_id, vec![chunk.clone()]).await.expect_err("too late");
    assert_eq!(code_of(&late), ErrorCode::LeaseExpired);
    for node in &nodes {
        node.changed(Vec::new(), vec![chunk.chunk_id]).await;
    }
    until("the tombstone is forgotten", async || op.status().await.chunks_to_delete == 0).await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file_is_deleted_everywhere_and_renewed_leases_hold() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let mut nodes = with_nodes(&master, 2).await;
    let op = User::new(&master, "op").await;
    let (_, chunk) = op.put("/f", b"gone soon").await.expect("put");
    let open = op.create(create("/open")).await.expect("opened");
    let renew = v1::RenewLeaseRequest { request_id: id(), file_ids: vec![open.file_id, 99] };
    let renewed = op.api().renew_lease(op.ask(renew)).await.expect("renewed").into_inner();
    assert_eq!(renewed.expired, [99]);
    let remove = v1::RemoveRequest { request_id: id(), path: "/f".into(), recursive: false };
    op.api().remove(op.ask(remove)).await.expect("removed");
    for node in &mut nodes {
        assert_eq!(node.order().await.1.chunk_id, chunk.chunk_id);
        node.changed(Vec::new(), vec![chunk.chunk_id]).await;
    }
    until("the tombstone is forgotten", async || op.status().await.chunks_to_delete == 0).await;
    assert_eq!((op.status().await.files, op.status().await.chunks), (0, 0));
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_nodes_than_copies_is_refused_without_trace() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let _nodes = with_nodes(&master, 1).await;
    let op = User::new(&master, "op").await;
    for first_chunk in [true, false] {
        let request = v1::CreateRequest { first_chunk, ..create("/f") };
        let refused = op.create(request).await.expect_err("refused");
        assert_eq!(code_of(&refused), ErrorCode::NotEnoughDatanodes);
        let text = text_of(&refused);
        assert!(text.starts_with("/f: write denied: not enough datanodes: 1 live, 2 needed"), "{text}");
    }
    let state = master.state();
    assert_eq!((state.durable().0, state.namespace().open_count()), (0, 0));
    let status = op.status().await;
    assert!(!status.writable && status.why_not_writable.contains("not enough datanodes"));
    let lone = v1::CreateRequest { replication: 1, ..create("/f") };
    let created = op.create(lone).await.expect("one copy fits");
    let allocate = v1::AllocateChunkRequest {
        request_id: id(),
        file_id: created.file_id,
        exclude: vec![1],
        abandon_chunk: created.first_chunk.map(|plan| plan.chunk_id),
        // More than there are nodes, and none that is known.
        exclude_codes: vec![u32::MAX; 3],
    };
    let plan = op.api().allocate_chunk(op.ask(allocate)).await.expect("the excluded is better than none");
    let mut chunk = written(&plan.into_inner().plan.expect("a plan"), b"x");
    let nodes = std::mem::replace(&mut chunk.nodes, vec![5]);
    let foreign = op.complete(created.file_id, vec![chunk.clone()]).await.expect_err("not of the plan");
    assert_eq!(code_of(&foreign), ErrorCode::InvalidArgument);
    chunk.nodes.clear();
    let few = op.complete(created.file_id, vec![chunk.clone()]).await.expect_err("no copy");
    assert_eq!(code_of(&few), ErrorCode::InvalidArgument);
    chunk.nodes = nodes;
    op.complete(created.file_id, vec![chunk]).await.expect("completed");
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_needed_and_permission_refused_in_words() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let op = User::new(&master, "op").await;
    let bob = User::new(&master, "bob").await;
    op.mkdir("/a").await.expect("made");
    let refused = bob.mkdir("/a/b").await.expect_err("refused");
    assert_eq!(code_of(&refused), ErrorCode::PermissionDenied);
    assert_eq!(text_of(&refused), "/a/b: permission denied: bob needs write on /a");
    let nobody = op.api().stat(v1::StatRequest { path: "/a".into() }).await.expect_err("nobody asks");
    assert_eq!(code_of(&nobody), ErrorCode::InvalidArgument);
    let no_id = v1::MkdirRequest { path: "/c".into(), ..v1::MkdirRequest::default() };
    let no_id = op.api().mkdir(op.ask(no_id)).await.expect_err("no request id");
    assert_eq!(code_of(&no_id), ErrorCode::InvalidArgument);
    let list = v1::ListRequest { path: "/".into(), ..v1::ListRequest::default() };
    let page = bob.api().list(bob.ask(list)).await.expect("listed").into_inner();
    assert_eq!(page.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["a"]);
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_master_is_refused_and_a_deposed_one_gives_up() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let second = Master::start(config(dir.path())).await.expect_err("refused");
    assert!(matches!(second, StartError::InUse { .. }), "{second}");
    let op = User::new(&master, "op").await;
    op.mkdir("/before").await.expect("made");
    crate::leadership::Leadership::begin(dir.path()).expect("another start");
    let unknown = op.mkdir("/after").await.expect_err("not acknowledged");
    assert_eq!(code_of(&unknown), ErrorCode::Unknown);
    assert!(matches!(master.failed().await, MasterFailure::Deposed { .. }));
    assert_eq!(code_of(&op.stat("/after").await.expect_err("not visible")), ErrorCode::NotFound);
    assert!(op.mkdir("/later").await.is_err());
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_behind_is_read_only() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let op = User::new(&master, "op").await;
    op.mkdir("/a").await.expect("made");
    let _witness = Node::join(&master, 1, 1000, Vec::new()).await;
    let refused = op.mkdir("/b").await.expect_err("read-only");
    assert_eq!(code_of(&refused), ErrorCode::SafeMode);
    let text = text_of(&refused);
    assert!(text.contains("is behind datanode") && text.contains("--accept-data-loss"), "{text}");
    assert!(op.stat("/a").await.is_ok());
    let status = op.status().await;
    assert_eq!((status.why_not_writable.as_str(), status.safe_mode.as_str()), (text.as_str(), text.as_str()));
    let health = get(&master, "/health").await;
    assert!(health.contains(" 200 ") && health.contains(&format!("read-only epoch=1: {text}")), "{health}");
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_datanode_folder_is_refused() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let _node = with_nodes(&master, 1).await;
    let register = v1::Register { node_id: 1, data_address: "elsewhere:1".into(), ..v1::Register::default() };
    let stream = tokio_stream::once(v1::FromDatanode { body: Some(Body::Register(register)) });
    let uri = format!("http://{}", master.grpc_address());
    let mut api = DatanodeServiceClient::connect(uri).await.expect("connects");
    let refused = api.session(stream).await.expect_err("refused");
    assert_eq!(code_of(&refused), ErrorCode::AlreadyExists);
    master.stop().await;
}

async fn get(master: &Master, path: &str) -> String {
    let address = master.http_address().expect("served");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("answered");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_served() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let _nodes = with_nodes(&master, 2).await;
    let op = User::new(&master, "op").await;
    op.put("/f", b"12345").await.expect("put");
    let health = get(&master, "/health").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("ok epoch=1"), "{health}");
    let metrics = get(&master, "/metrics").await;
    for line in [
        "distrifs_namespace_files 1",
        "distrifs_namespace_bytes 5",
        "distrifs_cluster_nodes{state=\"live\"} 2",
        "distrifs_requests_total{method=\"Create\",code=\"ok\"} 1",
        "distrifs_log_records_total 2",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in {metrics}");
    }
    master.stop().await;
}

#[tokio::test]
async fn a_master_without_its_log_does_not_start_over() {
    let folder = folder();
    let config = config(folder.path());
    start(config.clone()).await.stop().await;
    let (log, aside) = (config.wal_dir(), folder.path().join("aside"));
    std::fs::rename(&log, &aside).expect("moved away");
    let refused = Master::start(config.clone()).await.expect_err("refused");
    assert!(matches!(&refused, StartError::Damaged { path, .. } if *path == log), "{refused}");
    std::fs::remove_dir(&log).expect("it is empty");
    std::fs::rename(&aside, &log).expect("moved back");
    start(config).await.stop().await;
}
