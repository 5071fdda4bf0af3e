//! A master that confirms every registration, remembers reports and gives orders on command.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use distrifs_proto::grpc::status;
use distrifs_proto::grpc::v1::datanode_service_server::{DatanodeService, DatanodeServiceServer};
use distrifs_proto::grpc::v1::from_datanode::Body as Heard;
use distrifs_proto::grpc::v1::to_datanode::Body as Said;
use distrifs_proto::grpc::v1::{self, FromDatanode, ToDatanode};
use distrifs_proto::types::{ChunkId, ClusterId, GenerationStamp, HostPort, NodeId};
use distrifs_proto::{ErrorCode, InventoryDigest};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

#[derive(Default)]
struct Node {
    chunks: BTreeSet<ChunkId>,
    corrupt: BTreeSet<ChunkId>,
    /// Replicas that were read whole, and whether they were found damaged.
    verified: Vec<(ChunkId, bool)>,
    /// Copies that have ended: chunk, target, code.
    copied: Vec<(ChunkId, NodeId, u32)>,
    scrubbed: u64,
    /// As the last heartbeat told them.
    dirs: Vec<v1::DataDir>,
    /// Full reports, and digests in their place.
    lists: u32,
    digests: Vec<InventoryDigest>,
    reported: bool,
    orders: Option<mpsc::Sender<Result<ToDatanode, Status>>>,
}

type Nodes = Arc<Mutex<BTreeMap<NodeId, Node>>>;

pub(crate) struct FakeMaster {
    address: HostPort,
    cluster: ClusterId,
    epoch: u64,
    nodes: Nodes,
    refusals: Arc<AtomicU32>,
    registrations: Arc<AtomicU32>,
    server: tokio::task::JoinHandle<()>,
}

struct Service {
    cluster: ClusterId,
    epoch: u64,
    nodes: Nodes,
    /// Registrations still to be refused as that of a node that is alive elsewhere.
    refusals: Arc<AtomicU32>,
    registrations: Arc<AtomicU32>,
}

impl FakeMaster {
    pub(crate) async fn start(epoch: u64) -> Self {
        Self::start_for(ClusterId(0xc1), epoch).await
    }

    pub(crate) async fn start_for(cluster: ClusterId, epoch: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().into();
        let nodes = Nodes::default();
        let refusals = Arc::new(AtomicU32::new(0));
        let registrations = Arc::new(AtomicU32::new(0));
        let service = Service {
            cluster,
            epoch,
            nodes: nodes.clone(),
            refusals: refusals.clone(),
            registrations: registrations.clone(),
        };
        let service = DatanodeServiceServer::new(service);
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self { address, cluster, epoch, nodes, refusals, registrations, server }
    }

    pub(crate) fn address(&self) -> HostPort {
        self.address.clone()
    }

    /// The next so many registrations are refused as if the node were alive at another address.
    pub(crate) fn refuse(&self, count: u32) {
        self.refusals.store(count, Ordering::SeqCst);
    }

    /// As if the node had never been here.
    pub(crate) fn forget(&self, node: NodeId) {
        self.nodes.lock().unwrap().remove(&node);
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub(crate) fn chunks_of(&self, node: NodeId) -> Vec<ChunkId> {
        let nodes = self.nodes.lock().unwrap();
        nodes.get(&node).map(|n| n.chunks.iter().copied().collect()).unwrap_or_default()
    }

    pub(crate) async fn wait_for_report(&self, node: NodeId) {
        self.wait("a full report", |nodes| nodes.get(&node).is_some_and(|n| n.reported)).await;
    }

    pub(crate) async fn wait_for_chunk(&self, chunk: ChunkId, on: &[NodeId]) {
        let all = |nodes: &BTreeMap<NodeId, Node>| on.iter().all(|id| nodes[id].chunks.contains(&chunk));
        self.wait("a reported replica", all).await;
    }

    pub(crate) async fn wait_for_removal(&self, node: NodeId, chunk: ChunkId) {
        self.wait("a reported removal", |nodes| !nodes[&node].chunks.contains(&chunk)).await;
    }

    pub(crate) async fn order_deletion(&self, node: NodeId, chunk: ChunkId, generation: GenerationStamp) {
        self.order_deletions(node, &[chunk], generation).await;
    }

    pub(crate) async fn order_deletions(
        &self,
        node: NodeId,
        chunks: &[ChunkId],
        generation: GenerationStamp,
    ) {
        self.order(node, deletions(chunks, generation)).await;
    }

    pub(crate) async fn order(&self, node: NodeId, orders: v1::Orders) {
        self.order_in(self.epoch, node, orders).await;
    }

    /// As if the leader of another epoch had given the orders.
    pub(crate) async fn order_in(&self, epoch: u64, node: NodeId, orders: v1::Orders) {
        let body = Some(Said::Orders(orders));
        let orders = self.nodes.lock().unwrap()[&node].orders.clone().unwrap();
        // The node may have ended the session meanwhile.
        let _ = orders.send(Ok(ToDatanode { epoch, lsn: 5, body, history: 0 })).await;
    }

    /// Waits until nodes have registered so often.
    pub(crate) async fn wait_for_registrations(&self, count: u32) {
        self.wait("a registration", |_| self.registrations.load(Ordering::SeqCst) >= count).await;
    }

    /// Waits until the node has read a replica whole once more; whether it found it damaged.
    pub(crate) async fn wait_for_check(&self, node: NodeId, chunk: ChunkId) -> bool {
        self.wait("a checked replica", |nodes| nodes[&node].verified.iter().any(|it| it.0 == chunk)).await;
        let mut nodes = self.nodes.lock().unwrap();
        let verified = &mut nodes.get_mut(&node).unwrap().verified;
        let at = verified.iter().position(|it| it.0 == chunk).unwrap();
        verified.remove(at).1
    }

    /// Waits for the end of a copy; its code.
    pub(crate) async fn wait_for_copy(&self, source: NodeId, chunk: ChunkId, target: NodeId) -> u32 {
        let is_it = |it: &(ChunkId, NodeId, u32)| (it.0, it.1) == (chunk, target);
        self.wait("the end of a copy", |nodes| nodes[&source].copied.iter().any(is_it)).await;
        let mut nodes = self.nodes.lock().unwrap();
        let copied = &mut nodes.get_mut(&source).unwrap().copied;
        let at = copied.iter().position(is_it).unwrap();
        copied.remove(at).2
    }

    pub(crate) fn is_corrupt(&self, node: NodeId, chunk: ChunkId) -> bool {
        self.nodes.lock().unwrap()[&node].corrupt.contains(&chunk)
    }

    /// How many full reports came, and the last digest.
    pub(crate) fn reports(&self, node: NodeId) -> (u32, Option<InventoryDigest>) {
        let nodes = self.nodes.lock().unwrap();
        (nodes[&node].lists, nodes[&node].digests.last().copied())
    }

    /// Replicas that the node's heartbeats say it has checked.
    pub(crate) fn scrubbed(&self, node: NodeId) -> u64 {
        self.nodes.lock().unwrap()[&node].scrubbed
    }

    /// The data folders as the last heartbeat told them; none before the first.
    pub(crate) fn data_dirs(&self, node: NodeId) -> Vec<v1::DataDir> {
        self.nodes.lock().unwrap()[&node].dirs.clone()
    }

    async fn wait(&self, what: &str, holds: impl Fn(&BTreeMap<NodeId, Node>) -> bool) {
        let deadline = Instant::now() + crate::PATIENCE;
        while !holds(&self.nodes.lock().unwrap()) {
            assert!(Instant::now() < deadline, "{what} did not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Orders to delete these replicas.
pub(crate) fn deletions(chunks: &[ChunkId], generation: GenerationStamp) -> v1::Orders {
    let delete = |chunk: &ChunkId| v1::DeleteReplica { chunk_id: chunk.0, generation: generation.0 };
    v1::Orders { delete: chunks.iter().map(delete).collect(), ..v1::Orders::default() }
}

impl Drop for FakeMaster {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tonic::async_trait]
impl DatanodeService for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ToDatanode, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<FromDatanode>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut hear = request.into_inner();
        let Some(Heard::Register(register)) = hear.message().await?.and_then(|m| m.body) else {
            return Err(Status::invalid_argument("no registration"));
        };
        let id = NodeId(register.node_id);
        let refuse = |left: u32| left.checked_sub(1);
        if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok() {
            return Err(status(ErrorCode::AlreadyExists, "alive elsewhere"));
        }
        let (say, said) = mpsc::channel(16);
        let (high, low) = self.cluster.to_halves();
        let registered = v1::Registered {
            cluster_id_high: high,
            cluster_id_low: low,
            heartbeat_interval_ms: 50,
            block_report_interval_ms: 100,
        };
        let body = Some(Said::Registered(registered));
        say.send(Ok(ToDatanode { epoch: self.epoch, lsn: 1, body, history: 0 })).await.unwrap();
        let orders = Some(say);
        self.nodes.lock().unwrap().insert(id, Node { orders, ..Node::default() });
        self.registrations.fetch_add(1, Ordering::SeqCst);
        let nodes = self.nodes.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = hear.message().await {
                let mut nodes = nodes.lock().unwrap();
                let node = nodes.entry(id).or_default();
                match message.body {
                    Some(Heard::BlockReport(v1::BlockReport { digest: Some(digest), .. })) => {
                        node.digests.push(InventoryDigest { count: digest.count, sum: digest.sum });
                    }
                    Some(Heard::BlockReport(part)) => {
                        node.lists += u32::from(part.last);
                        node.chunks.extend(part.replicas.iter().map(|r| ChunkId(r.chunk_id)));
                        let corrupt = part.replicas.iter().filter(|r| r.corrupt);
                        node.corrupt.extend(corrupt.map(|r| ChunkId(r.chunk_id)));
                        node.reported |= part.last;
                    }
                    Some(Heard::Changes(changes)) => {
                        node.chunks.extend(changes.added.iter().map(|r| ChunkId(r.chunk_id)));
                        node.chunks.retain(|chunk| !changes.removed.contains(&chunk.0));
                        for replica in changes.added {
                            let chunk = ChunkId(replica.chunk_id);
                            if replica.corrupt {
                                node.corrupt.insert(chunk);
                            } else {
                                node.corrupt.remove(&chunk);
                            }
                        }
                        let verified = changes.verified.iter().map(|r| (ChunkId(r.chunk_id), r.corrupt));
                        node.verified.extend(verified);
                        node.copied.extend(
                            changes
                                .replicated
                                .iter()
                                .map(|end| (ChunkId(end.chunk_id), NodeId(end.target_node_id), end.code)),
                        );
                    }
                    Some(Heard::Heartbeat(beat)) => {
                        node.dirs = beat.data_dirs;
                        node.scrubbed = beat.scrub.unwrap_or_default().replicas_checked;
                    }
                    _ => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(said))))
    }
}
