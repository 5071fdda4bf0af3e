//! What the measured clients call, straight over gRPC: the client library's retries would hide the master's answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use distrifs_master::bench_support::{PlantedChunk, planted_chunk};
use distrifs_proto::grpc::v1::admin_service_client::AdminServiceClient;
use distrifs_proto::grpc::v1::client_service_client::ClientServiceClient;
use distrifs_proto::grpc::{USER_KEY, code_of, text_of, v1};
use distrifs_proto::types::{ChunkId, HostPort, RequestId};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::layout::REPLICATION;
use crate::context::system_user;
use crate::error::CommandError;
use crate::exit_status::ExitStatus;

/// Connections to a master; HTTP/2 carries many calls on each.
const CONNECTIONS: u64 = 4;
/// How long one call may take, so that no lane waits for ever.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Chunk size of the files that are made.
const CHUNK_BYTES: u64 = 64 << 10;

/// The connections of a load to one master.
#[derive(Clone)]
pub(super) struct NamespaceCalls {
    channels: Arc<[Channel]>,
    user: MetadataValue<Ascii>,
    /// The high half of request ids, and the next low one.
    requests: Arc<(u64, AtomicU64)>,
}

impl NamespaceCalls {
    /// Connects as the user that runs the master. Request ids begin with `seed`.
    pub(super) async fn connect(master: &HostPort, seed: u64) -> Result<Self, CommandError> {
        let failed = |status, why: String| CommandError::Remote { path: master.to_string(), status, why };
        let user = system_user().parse();
        let user = user.map_err(|_| failed(ExitStatus::Usage, "the user's name is not ASCII".to_owned()))?;
        let endpoint = Endpoint::from_shared(format!("http://{master}"));
        let endpoint = endpoint.map_err(|error| failed(ExitStatus::Usage, error.to_string()))?;
        let endpoint = endpoint.tcp_nodelay(true).connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            let channel = endpoint.connect().await;
            channels.push(channel.map_err(|error| failed(ExitStatus::Unavailable, error.to_string()))?);
        }
        Ok(Self { channels: channels.into(), user, requests: Arc::new((seed, AtomicU64::new(1))) })
    }

    fn client(&self, lane: u64) -> ClientServiceClient<Channel> {
        ClientServiceClient::new(self.channels[(lane % CONNECTIONS) as usize].clone())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(USER_KEY, self.user.clone());
        request
    }

    fn id(&self) -> Option<v1::RequestId> {
        let (run, next) = &*self.requests;
        Some(RequestId(u128::from(*run) << 64 | u128::from(next.fetch_add(1, Ordering::Relaxed))).into())
    }

    fn checked<T>(path: &str, outcome: Result<tonic::Response<T>, Status>) -> Result<T, CommandError> {
        outcome.map(tonic::Response::into_inner).map_err(|status| CommandError::Remote {
            path: path.to_owned(),
            status: ExitStatus::of(code_of(&status)),
            why: text_of(&status),
        })
    }

    pub(super) async fn stat(&self, lane: u64, path: String) -> Result<(), CommandError> {
        let message = v1::StatRequest { path: path.clone() };
        Self::checked(&path, self.client(lane).stat(self.request(message)).await).map(drop)
    }

    pub(super) async fn mkdir(&self, lane: u64, path: String) -> Result<(), CommandError> {
        let message =
            v1::MkdirRequest { request_id: self.id(), path: path.clone(), parents: false, mode: 0o755 };
        Self::checked(&path, self.client(lane).mkdir(self.request(message)).await).map(drop)
    }

    /// Opens a file with the plan of its first chunk, and abandons it.
    pub(super) async fn create_and_abandon(&self, lane: u64, path: String) -> Result<(), CommandError> {
        let message = v1::CreateRequest {
            request_id: self.id(),
            path: path.clone(),
            mode: 0o644,
            replication: REPLICATION as u32,
            chunk_size: CHUNK_BYTES,
            first_chunk: true,
            ..v1::CreateRequest::default()
        };
        let created = Self::checked(&path, self.client(lane).create(self.request(message)).await)?;
        let message = v1::AbandonRequest { request_id: self.id(), file_id: created.file_id };
        Self::checked(&path, self.client(lane).abandon(self.request(message)).await).map(drop)
    }

    /// Write plans of `count` small files.
    pub(super) async fn grant(
        &self,
        lane: u64,
        path: &str,
        count: u32,
    ) -> Result<v1::GrantChunkReply, CommandError> {
        let message = v1::GrantChunkRequest {
            path: path.to_owned(),
            mode: 0o644,
            replication: REPLICATION as u32,
            chunk_size: CHUNK_BYTES,
            length: 1,
            count,
            ..v1::GrantChunkRequest::default()
        };
        Self::checked(path, self.client(lane).grant_chunk(self.request(message)).await)
    }

    /// Makes a file of a chunk that all nodes of its plan have committed.
    pub(super) async fn put(
        &self,
        lane: u64,
        path: &str,
        epoch: u64,
        plan: v1::WritePlan,
    ) -> Result<(), CommandError> {
        let PlantedChunk { length, crc, .. } = planted_chunk(ChunkId(plan.chunk_id));
        let chunk = v1::WrittenChunk {
            chunk_id: plan.chunk_id,
            generation: plan.generation,
            length,
            crc32c: crc.0,
            nodes: plan.hops.into_iter().map(|hop| hop.node_id).collect(),
        };
        let message = v1::PutWholeRequest {
            request_id: self.id(),
            path: path.to_owned(),
            overwrite: false,
            mode: 0o644,
            replication: REPLICATION as u32,
            chunk_size: CHUNK_BYTES,
            chunk: Some(chunk),
            grant_epoch: epoch,
        };
        Self::checked(path, self.client(lane).put_whole(self.request(message)).await).map(drop)
    }

    pub(super) async fn remove(&self, lane: u64, path: &str) -> Result<(), CommandError> {
        let message = v1::RemoveRequest { request_id: self.id(), path: path.to_owned(), recursive: false };
        Self::checked(path, self.client(lane).remove(self.request(message)).await).map(drop)
    }

    /// All datanodes as the master sees them.
    pub(super) async fn nodes(&self) -> Result<Vec<v1::NodeStatus>, CommandError> {
        let mut admin = AdminServiceClient::new(self.channels[0].clone());
        let reply = admin.list_nodes(self.request(v1::ListNodesRequest {})).await;
        Self::checked("nodes", reply).map(|reply| reply.nodes)
    }
}
