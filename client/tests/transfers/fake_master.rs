//! A master in memory: plans what it is told, remembers what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::v1::client_service_server::{ClientService, ClientServiceServer};
use distrifs_proto::grpc::{status, v1};
use distrifs_proto::types::{Crc32c, HostPort};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// What the tests set and look at.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Candidates for pipelines, in order.
    pub(crate) nodes: Vec<v1::Node>,
    pub(crate) replication: u32,
    pub(crate) chunk_size: u64,
    pub(crate) files: HashMap<String, File>,
    pub(crate) open: HashMap<u64, (String, bool)>,
    pub(crate) abandoned: Vec<u64>,
    /// `(exclude, abandon_chunk)` of each plan asked for.
    pub(crate) plans: Vec<(Vec<u64>, Option<u64>)>,
    /// How each of the excluded failed, of the last plan asked for.
    pub(crate) exclude_codes: Vec<u32>,
    pub(crate) renewals: usize,
    /// Files opened.
    pub(crate) created: usize,
    /// Grants asked for.
    pub(crate) granted: usize,
    /// Chunks whose grants were given up.
    pub(crate) given_up: Vec<u64>,
    /// So many of the next files are told that their grant has ended.
    pub(crate) ended_grants: u32,
    /// So many of the next files are refused when they are written.
    pub(crate) refused_files: u32,
    /// `(node, code)`.
    pub(crate) reports: Vec<(u64, u32)>,
    /// Request ids of `mkdir`.
    pub(crate) mkdir_ids: Vec<v1::RequestId>,
    /// How many of the next calls of `mkdir` are answered with Unavailable.
    pub(crate) mkdir_failures: u32,
    /// Answers to read plans name no replicas so many times.
    pub(crate) unknown_replicas: u32,
    pub(crate) read_plans: usize,
    next_id: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) status: v1::FileStatus,
    pub(crate) chunks: Vec<v1::ChunkLocation>,
}

impl State {
    fn plan(&mut self, exclude: &[u64]) -> Result<v1::WritePlan, Status> {
        let free = self.nodes.iter().filter(|node| !exclude.contains(&node.node_id));
        let hops: Vec<v1::Node> = free.take(self.replication as usize).cloned().collect();
        if hops.len() < self.replication as usize {
            return Err(status(ErrorCode::NotEnoughDatanodes, "not enough datanodes"));
        }
        self.next_id += 1;
        Ok(v1::WritePlan { chunk_id: self.next_id, generation: 1, hops })
    }

    fn appear(&mut self, path: String, file_id: u64, written: Vec<v1::WrittenChunk>) -> v1::FileStatus {
        let (mut size, mut crc) = (0, Crc32c::default());
        let mut chunks = Vec::new();
        for (index, chunk) in written.into_iter().enumerate() {
            assert_eq!(size, index as u64 * self.chunk_size, "all chunks but the last are full");
            size += chunk.length;
            crc = crc.concat(Crc32c(chunk.crc32c), chunk.length);
            let replica = |id: &u64| self.nodes.iter().find(|node| node.node_id == *id).unwrap().clone();
            chunks.push(v1::ChunkLocation {
                index: index as u64,
                chunk_id: chunk.chunk_id,
                generation: chunk.generation,
                length: chunk.length,
                crc32c: chunk.crc32c,
                replicas: chunk.nodes.iter().map(replica).collect(),
                damaged: Vec::new(),
                away: 0,
            });
        }
        let file_status = v1::FileStatus {
            path: path.clone(),
            r#type: v1::FileType::File as i32,
            size,
            crc32c: crc.0,
            chunk_size: self.chunk_size,
            replication: self.replication,
            file_id,
            chunk_count: chunks.len() as u64,
            ..v1::FileStatus::default()
        };
        self.files.insert(path, File { status: file_status.clone(), chunks });
        file_status
    }
}

#[derive(Clone)]
pub(crate) struct FakeMaster {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) address: HostPort,
}

impl FakeMaster {
    pub(crate) async fn start() -> Self {
        let state = State { chunk_size: crate::CHUNK, replication: 3, next_id: 100, ..State::default() };
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap().into();
        let master = Self { state: Arc::new(Mutex::new(state)), address };
        let service = ClientServiceServer::new(master.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        master
    }
}

type Reply<T> = Result<Response<T>, Status>;

fn not_here<T>() -> Reply<T> {
    Err(status(ErrorCode::Internal, "not part of these tests"))
}

#[tonic::async_trait]
impl ClientService for FakeMaster {
    async fn mkdir(&self, request: Request<v1::MkdirRequest>) -> Reply<v1::MkdirReply> {
        let mut state = self.state.lock().unwrap();
        assert_eq!(request.metadata().get("x-user").unwrap(), "tester");
        state.mkdir_ids.push(request.into_inner().request_id.unwrap());
        if state.mkdir_failures > 0 {
            state.mkdir_failures -= 1;
            return Err(status(ErrorCode::Unavailable, "taking over"));
        }
        Ok(Response::new(v1::MkdirReply { epoch: 1 }))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Reply<v1::ListReply> {
        not_here()
    }

    async fn stat(&self, request: Request<v1::StatRequest>) -> Reply<v1::StatReply> {
        let path = request.into_inner().path;
        match self.state.lock().unwrap().files.get(&path) {
            Some(file) => Ok(Response::new(v1::StatReply { epoch: 1, status: Some(file.status.clone()) })),
            None => Err(status(ErrorCode::NotFound, format!("{path}: no such file or directory"))),
        }
    }

    async fn rename(&self, _: Request<v1::RenameRequest>) -> Reply<v1::RenameReply> {
        not_here()
    }

    async fn remove(&self, _: Request<v1::RemoveRequest>) -> Reply<v1::RemoveReply> {
        not_here()
    }

    async fn copy(&self, _: Request<v1::CopyRequest>) -> Reply<v1::CopyReply> {
        not_here()
    }

    async fn set_mode(&self, _: Request<v1::SetModeRequest>) -> Reply<v1::SetModeReply> {
        not_here()
    }

    async fn set_owner(&self, _: Request<v1::SetOwnerRequest>) -> Reply<v1::SetOwnerReply> {
        not_here()
    }

    async fn set_replication(&self, _: Request<v1::SetReplicationRequest>) -> Reply<v1::SetReplicationReply> {
        not_here()
    }

    async fn usage(&self, _: Request<v1::UsageRequest>) -> Reply<v1::UsageReply> {
        not_here()
    }

    async fn create(&self, request: Request<v1::CreateRequest>) -> Reply<v1::CreateReply> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        state.created += 1;
        let first_chunk = if request.first_chunk { Some(state.plan(&[])?) } else { None };
        state.next_id += 1;
        let file_id = state.next_id;
        state.open.insert(file_id, (request.path, request.first_chunk));
        let (replication, chunk_size) = (state.replication, state.chunk_size);
        Ok(Response::new(v1::CreateReply {
            epoch: 1,
            file_id,
            replication,
            chunk_size,
            lease_ms: 300,
            first_chunk,
        }))
    }

    async fn allocate_chunk(
        &self,
        request: Request<v1::AllocateChunkRequest>,
    ) -> Reply<v1::AllocateChunkReply> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        state.plans.push((request.exclude.clone(), request.abandon_chunk));
        state.exclude_codes = request.exclude_codes;
        let plan = state.plan(&request.exclude)?;
        Ok(Response::new(v1::AllocateChunkReply { epoch: 1, plan: Some(plan) }))
    }

    async fn complete(&self, request: Request<v1::CompleteRequest>) -> Reply<v1::CompleteReply> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        let (path, _) = state.open.remove(&request.file_id).expect("an open file");
        let status = Some(state.appear(path, request.file_id, request.chunks));
        Ok(Response::new(v1::CompleteReply { epoch: 1, status }))
    }

    async fn grant_chunk(&self, request: Request<v1::GrantChunkRequest>) -> Reply<v1::GrantChunkReply> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        state.granted += 1;
        if !request.exclude.is_empty() || request.give_up_chunk.is_some() {
            state.plans.push((request.exclude.clone(), request.give_up_chunk));
            state.exclude_codes = request.exclude_codes;
        }
        let (replication, chunk_size) = (state.replication, state.chunk_size);
        if request.length > chunk_size {
            return Err(status(ErrorCode::InvalidArgument, "it does not fit"));
        }
        let plans =
            (0..request.count.max(1)).map(|_| state.plan(&request.exclude)).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::GrantChunkReply { epoch: 1, plans, replication, chunk_size, grant_ms: 60_000 }))
    }

    async fn give_up_grant(&self, request: Request<v1::GiveUpGrantRequest>) -> Reply<v1::GiveUpGrantReply> {
        self.state.lock().unwrap().given_up.push(request.into_inner().chunk_id);
        Ok(Response::new(v1::GiveUpGrantReply { epoch: 1 }))
    }

    async fn put_whole(&self, request: Request<v1::PutWholeRequest>) -> Reply<v1::PutWholeReply> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        assert_eq!(request.grant_epoch, u64::from(request.chunk.is_some()), "as the grant had it");
        if state.ended_grants > 0 && request.chunk.is_some() {
            state.ended_grants -= 1;
            return Err(status(ErrorCode::LeaseExpired, "not granted any more"));
        }
        if state.refused_files > 0 {
            state.refused_files -= 1;
            return Err(status(ErrorCode::AlreadyExists, "already exists"));
        }
        state.next_id += 1;
        let file_id = state.next_id;
        let status = Some(state.appear(request.path, file_id, request.chunk.into_iter().collect()));
        Ok(Response::new(v1::PutWholeReply { epoch: 1, status }))
    }

    async fn abandon(&self, request: Request<v1::AbandonRequest>) -> Reply<v1::AbandonReply> {
        let mut state = self.state.lock().unwrap();
        let id = request.into_inner().file_id;
        state.open.remove(&id);
        state.abandoned.push(id);
        Ok(Response::new(v1::AbandonReply { epoch: 1 }))
    }

    async fn renew_lease(&self, _: Request<v1::RenewLeaseRequest>) -> Reply<v1::RenewLeaseReply> {
        self.state.lock().unwrap().renewals += 1;
        Ok(Response::new(v1::RenewLeaseReply { epoch: 1, expired: Vec::new() }))
    }

    async fn read_plan(&self, request: Request<v1::ReadPlanRequest>) -> Reply<v1::ReadPlanReply> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        state.read_plans += 1;
        let file = state.files.get(&request.path).cloned();
        let same = |file: &File| request.file_id == 0 || request.file_id == file.status.file_id;
        let Some(file) = file.filter(same) else {
            return Err(status(ErrorCode::NotFound, "no such file or directory"));
        };
        let end = if request.length == 0 { file.status.size } else { request.offset + request.length };
        let covers = |chunk: &&v1::ChunkLocation| {
            let start = chunk.index * file.status.chunk_size;
            start < end && start + chunk.length > request.offset
        };
        // Small pages, so that plans have several.
        let mut chunks: Vec<v1::ChunkLocation> = file.chunks.iter().filter(covers).take(3).cloned().collect();
        if state.unknown_replicas > 0 {
            state.unknown_replicas -= 1;
            for chunk in &mut chunks {
                chunk.replicas.clear();
            }
        }
        Ok(Response::new(v1::ReadPlanReply { epoch: 1, status: Some(file.status), chunks }))
    }

    /// Three files, one a slice; the second is not healthy.
    async fn check_files(&self, request: Request<v1::CheckFilesRequest>) -> Reply<v1::CheckFilesReply> {
        let at = match request.into_inner().start_after.as_str() {
            "" => 1,
            "1" => 2,
            _ => 3,
        };
        let unhealthy =
            (at == 2).then(|| v1::UnhealthyFile { path: "2".into(), ..v1::UnhealthyFile::default() });
        Ok(Response::new(v1::CheckFilesReply {
            epoch: 1,
            unhealthy: unhealthy.into_iter().collect(),
            files: 1,
            healthy: u64::from(at != 2),
            continue_after: at.to_string(),
            more: at < 3,
            ..v1::CheckFilesReply::default()
        }))
    }

    async fn report_bad_replica(
        &self,
        request: Request<v1::ReportBadReplicaRequest>,
    ) -> Reply<v1::ReportBadReplicaReply> {
        let request = request.into_inner();
        self.state.lock().unwrap().reports.push((request.node_id, request.code));
        Ok(Response::new(v1::ReportBadReplicaReply { epoch: 1 }))
    }
}
