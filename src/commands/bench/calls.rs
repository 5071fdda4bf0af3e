//! The calls that are measured, straight over gRPC: the client library's retries and checks would measure the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use distrifs_proto::grpc::v1::admin_service_client::AdminServiceClient;
use distrifs_proto::grpc::v1::client_service_client::ClientServiceClient;
use distrifs_proto::grpc::{USER_KEY, text_of, v1};
use distrifs_proto::types::{HostPort, RequestId};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::error::CommandError;
use crate::exit_status::ExitStatus;

/// Connections to the master at most: HTTP/2 carries many calls on each.
const CONNECTIONS_MAX: u64 = 4;

/// The connections of a load.
#[derive(Clone)]
pub(super) struct Calls {
    channels: Arc<[Channel]>,
    user: MetadataValue<Ascii>,
    /// Where the load works; no two operations share a path.
    folder: Arc<str>,
    request: Arc<(u64, AtomicU64)>,
    files: Arc<[AtomicU64]>,
}

impl Calls {
    /// Connects, for `clients` operations in flight on up to `files` files below `folder`.
    pub(super) async fn connect(
        master: &HostPort,
        user: &str,
        folder: &str,
        clients: u64,
        files: u64,
        seed: u64,
    ) -> Result<Self, CommandError> {
        let failed = |status, why: String| CommandError::Remote { path: master.to_string(), status, why };
        let user = user
            .parse()
            .map_err(|_| failed(ExitStatus::Usage, "the user name has characters beyond ASCII".to_owned()))?;
        let endpoint = Endpoint::from_shared(format!("http://{master}"));
        let endpoint = endpoint.map_err(|error| failed(ExitStatus::Usage, error.to_string()))?;
        let mut channels = Vec::new();
        for _ in 0..clients.clamp(1, CONNECTIONS_MAX) {
            let channel = endpoint.clone().tcp_nodelay(true).connect().await;
            channels.push(channel.map_err(|error| failed(ExitStatus::Unavailable, error.to_string()))?);
        }
        Ok(Self {
            channels: channels.into(),
            user,
            folder: folder.into(),
            // Another run with the same seed must not get the answers of this one.
            request: Arc::new((seed ^ u64::from(std::process::id()) << 32, AtomicU64::new(1))),
            files: (0..files).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    fn client(&self, lane: u64) -> ClientServiceClient<Channel> {
        ClientServiceClient::new(self.channels[(lane % self.channels.len() as u64) as usize].clone())
    }

    fn admin(&self, lane: u64) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channels[(lane % self.channels.len() as u64) as usize].clone())
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(USER_KEY, self.user.clone());
        request
    }

    fn id(&self) -> Option<v1::RequestId> {
        let (run, next) = &*self.request;
        Some(RequestId(u128::from(*run) << 64 | u128::from(next.fetch_add(1, Ordering::Relaxed))).into())
    }

    fn directory(&self, number: u64) -> String {
        format!("{}/directory-{number}", self.folder)
    }

    fn file(&self, number: u64) -> String {
        format!("{}/file-{number}", self.folder)
    }

    fn checked<T>(path: &str, outcome: Result<T, Status>) -> Result<T, CommandError> {
        outcome.map_err(|status| CommandError::Remote {
            path: path.to_owned(),
            status: ExitStatus::of(distrifs_proto::grpc::code_of(&status)),
            why: text_of(&status),
        })
    }

    /// Nothing: the cost of a call.
    pub(super) async fn ping(self, lane: u64) -> Result<(), CommandError> {
        let outcome = self.admin(lane).ping(self.ask(v1::PingRequest {})).await;
        Self::checked("ping", outcome).map(drop)
    }

    /// A directory.
    pub(super) async fn mkdir(self, lane: u64, number: u64) -> Result<(), CommandError> {
        let path = self.directory(number);
        let message =
            v1::MkdirRequest { request_id: self.id(), path: path.clone(), parents: false, mode: 0o755 };
        Self::checked(&path, self.client(lane).mkdir(self.ask(message)).await).map(drop)
    }

    /// A file is opened, without a chunk.
    pub(super) async fn create(self, lane: u64, number: u64) -> Result<(), CommandError> {
        let path = self.file(number);
        let message = v1::CreateRequest {
            request_id: self.id(),
            path: path.clone(),
            mode: 0o644,
            ..v1::CreateRequest::default()
        };
        let reply = Self::checked(&path, self.client(lane).create(self.ask(message)).await)?.into_inner();
        self.files[number as usize].store(reply.file_id, Ordering::Relaxed);
        Ok(())
    }

    /// It appears, empty.
    pub(super) async fn complete(self, lane: u64, number: u64) -> Result<(), CommandError> {
        let file_id = self.files[number as usize].load(Ordering::Relaxed);
        let message = v1::CompleteRequest { request_id: self.id(), file_id, chunks: Vec::new() };
        Self::checked(&self.file(number), self.client(lane).complete(self.ask(message)).await).map(drop)
    }

    /// What is known of it.
    pub(super) async fn stat(self, lane: u64, number: u64) -> Result<(), CommandError> {
        let path = self.file(number);
        let message = v1::StatRequest { path: path.clone() };
        Self::checked(&path, self.client(lane).stat(self.ask(message)).await).map(drop)
    }

    /// Where its bytes are.
    pub(super) async fn read_plan(self, lane: u64, number: u64) -> Result<(), CommandError> {
        let path = self.file(number);
        let message = v1::ReadPlanRequest { path: path.clone(), ..v1::ReadPlanRequest::default() };
        Self::checked(&path, self.client(lane).read_plan(self.ask(message)).await).map(drop)
    }

    /// It gets another name.
    pub(super) async fn rename(self, lane: u64, number: u64) -> Result<(), CommandError> {
        let source = self.file(number);
        let target = format!("{source}-moved");
        let message =
            v1::RenameRequest { request_id: self.id(), source: source.clone(), target, overwrite: false };
        Self::checked(&source, self.client(lane).rename(self.ask(message)).await).map(drop)
    }

    /// It goes.
    pub(super) async fn remove(self, lane: u64, number: u64) -> Result<(), CommandError> {
        let path = format!("{}-moved", self.file(number));
        let message = v1::RemoveRequest { request_id: self.id(), path: path.clone(), recursive: false };
        Self::checked(&path, self.client(lane).remove(self.ask(message)).await).map(drop)
    }

    /// Records and durable writes of the master's log so far.
    pub(super) async fn log_counts(&self) -> Result<(u64, u64), CommandError> {
        let outcome = self.admin(0).cluster_status(self.ask(v1::ClusterStatusRequest {})).await;
        let status = Self::checked("cluster", outcome)?.into_inner();
        Ok((status.log_records, status.log_syncs))
    }
}
