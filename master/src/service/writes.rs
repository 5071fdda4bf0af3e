//! Changes that clients ask for. Each is checked against the present state before anything is logged; where a
//! chunk is to be written is planned before, too, so that a refusal leaves no trace.

use std::collections::BTreeSet;
use std::sync::Arc;

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::v1;
use distrifs_proto::limits::FILE_CHUNKS_MAX;
use distrifs_proto::types::{ChunkId, FileId, NodeId, RequestId};
use tonic::Status;

use super::{Api, convert, invalid, mismatch, mode, path, request_id};
use crate::cluster::{Endpoint, Replica, Wanted};
use crate::namespace::{
    Answer, Command, Completed, DIRECTORY_MODE, FILE_MODE, FIRST_GENERATION, NsPath, Operation,
};
use crate::permission::Caller;
use crate::refusal::Refusal;

/// Leases renewed, or nodes excluded, in one request.
const IDS_MAX: usize = 4096;
/// Chunks of a file that are looked at in one hold of the cluster.
const CHUNKS_SLICE: usize = 64;
/// A chunk id to be filled in by the writer.
const TO_BE_ASSIGNED: ChunkId = ChunkId(0);

impl Api {
    pub(super) fn command(&self, request: RequestId, caller: Arc<Caller>, operation: Operation) -> Command {
        Command { at_ms: self.state.clock.wall_ms(), request: Some(request), caller, operation }
    }

    pub(super) fn check(&self, command: &Command) -> Result<Option<Answer>, Refusal> {
        Ok(self.state.namespace().check(command)?)
    }

    /// Executes a change whose answer says nothing.
    fn done(&self, command: Command) -> impl Future<Output = Result<(), Status>> + Send + use<> {
        let answered = self.proposer.propose(command);
        async move { answered.await.map(|_| ()).map_err(Status::from) }
    }

    fn lease_until(&self) -> i64 {
        self.state.clock.wall_ms().saturating_add(self.lease_ms())
    }

    pub(super) fn lease_ms(&self) -> i64 {
        i64::try_from(self.state.config.pending_timeout.as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) async fn mkdir(
        &self,
        caller: Arc<Caller>,
        ask: v1::MkdirRequest,
    ) -> Result<v1::MkdirReply, Status> {
        let request = request_id(ask.request_id)?;
        let path = path(&ask.path)?;
        let mode = mode(ask.mode, DIRECTORY_MODE, &path)?;
        let operation = Operation::Mkdir { path, parents: ask.parents, mode };
        self.done(self.command(request, caller, operation)).await?;
        Ok(v1::MkdirReply { epoch: self.state.epoch.0 })
    }

    pub(super) async fn rename(
        &self,
        caller: Arc<Caller>,
        ask: v1::RenameRequest,
    ) -> Result<v1::RenameReply, Status> {
        let request = request_id(ask.request_id)?;
        let (source, target) = (path(&ask.source)?, path(&ask.target)?);
        let operation = Operation::Rename { source, target, overwrite: ask.overwrite };
        self.done(self.command(request, caller, operation)).await?;
        Ok(v1::RenameReply { epoch: self.state.epoch.0 })
    }

    pub(super) async fn remove(
        &self,
        caller: Arc<Caller>,
        ask: v1::RemoveRequest,
    ) -> Result<v1::RemoveReply, Status> {
        let request = request_id(ask.request_id)?;
        let operation = Operation::Remove { path: path(&ask.path)?, recursive: ask.recursive };
        self.done(self.command(request, caller, operation)).await?;
        Ok(v1::RemoveReply { epoch: self.state.epoch.0 })
    }

    pub(super) async fn copy(
        &self,
        caller: Arc<Caller>,
        ask: v1::CopyRequest,
    ) -> Result<v1::CopyReply, Status> {
        let request = request_id(ask.request_id)?;
        let (source, target) = (path(&ask.source)?, path(&ask.target)?);
        let operation = Operation::Copy { source, target, overwrite: ask.overwrite };
        self.done(self.command(request, caller, operation)).await?;
        Ok(v1::CopyReply { epoch: self.state.epoch.0 })
    }

    pub(super) async fn set_mode(
        &self,
        caller: Arc<Caller>,
        ask: v1::SetModeRequest,
    ) -> Result<v1::SetModeReply, Status> {
        let request = request_id(ask.request_id)?;
        // What does not fit is larger than every mode, and refused as such.
        let mode = u16::try_from(ask.mode).unwrap_or(u16::MAX);
        let operation = Operation::SetMode { path: path(&ask.path)?, mode };
        self.done(self.command(request, caller, operation)).await?;
        Ok(v1::SetModeReply { epoch: self.state.epoch.0 })
    }

    pub(super) async fn set_owner(
        &self,
        caller: Arc<Caller>,
        ask: v1::SetOwnerRequest,
    ) -> Result<v1::SetOwnerReply, Status> {
        let request = request_id(ask.request_id)?;
        let operation = Operation::SetOwner { path: path(&ask.path)?, owner: ask.owner, group: ask.group };
        self.done(self.command(request, caller, operation)).await?;
        Ok(v1::SetOwnerReply { epoch: self.state.epoch.0 })
    }

    pub(super) async fn set_replication(
        &self,
        caller: Arc<Caller>,
        ask: v1::SetReplicationRequest,
    ) -> Result<v1::SetReplicationReply, Status> {
        let request = request_id(ask.request_id)?;
        let replication = u8::try_from(ask.replication).unwrap_or(u8::MAX);
        let operation = Operation::SetReplication { path: path(&ask.path)?, replication };
        self.done(self.command(request, caller, operation)).await?;
        Ok(v1::SetReplicationReply { epoch: self.state.epoch.0 })
    }

    pub(super) async fn abandon(
        &self,
        caller: Arc<Caller>,
        ask: v1::AbandonRequest,
    ) -> Result<v1::AbandonReply, Status> {
        let request = request_id(ask.request_id)?;
        let operation = Operation::Abandon { file: FileId(ask.file_id) };
        self.done(self.command(request, caller, operation)).await?;
        Ok(v1::AbandonReply { epoch: self.state.epoch.0 })
    }

    /// Replicas and chunk size of a new file; 0 stands for the default.
    pub(super) fn shape(&self, replication: u32, chunk_size: u64) -> (u32, u64) {
        let config = &self.state.config;
        let replication = if replication == 0 { config.replication } else { replication };
        (replication, if chunk_size == 0 { config.chunk_size } else { chunk_size })
    }

    pub(super) async fn create(
        &self,
        caller: Arc<Caller>,
        ask: v1::CreateRequest,
    ) -> Result<v1::CreateReply, Status> {
        let request = request_id(ask.request_id)?;
        let path = path(&ask.path)?;
        let (replication, chunk_size) = self.shape(ask.replication, ask.chunk_size);
        // Values that do not fit are out of the limits and refused as such.
        let operation = Operation::Create {
            mode: mode(ask.mode, FILE_MODE, &path)?,
            path: path.clone(),
            overwrite: ask.overwrite,
            replication: u8::try_from(replication).unwrap_or(u8::MAX),
            chunk_size: u32::try_from(chunk_size).unwrap_or(u32::MAX),
            lease_until_ms: self.lease_until(),
            chunk: ask.first_chunk.then_some(TO_BE_ASSIGNED),
        };
        let command = self.command(request, caller, operation);
        let wanted = Wanted { replicas: replication as usize, bytes: chunk_size, exclude: &[] };
        let (answer, hops) = self.planned(command, &path, wanted, ask.first_chunk).await?;
        let Answer::Created { file, chunk } = answer else {
            return Err(mismatch("Create"));
        };
        let first_chunk = match chunk {
            Some(chunk) => Some(self.plan_of(&path, chunk, wanted, hops)?),
            None => None,
        };
        Ok(v1::CreateReply {
            epoch: self.state.epoch.0,
            file_id: file.0,
            replication,
            chunk_size,
            lease_ms: self.lease_ms().unsigned_abs(),
            first_chunk,
        })
    }

    pub(super) async fn allocate_chunk(
        &self,
        caller: Arc<Caller>,
        ask: v1::AllocateChunkRequest,
    ) -> Result<v1::AllocateChunkReply, Status> {
        let request = request_id(ask.request_id)?;
        let exclude = excluded(&ask.exclude)?;
        let file = FileId(ask.file_id);
        let abandon = ask.abandon_chunk.map(ChunkId);
        if abandon.is_some() {
            self.pipeline_failed(&exclude, &ask.exclude_codes);
        }
        let operation = Operation::AllocateChunk { file, chunk: TO_BE_ASSIGNED, abandon };
        let writing = self.state.namespace().writing(&caller, file).map_err(Refusal::Namespace)?;
        let command = self.command(request, caller, operation);
        let wanted = Wanted {
            replicas: usize::from(writing.replication),
            bytes: u64::from(writing.chunk_size),
            exclude: &exclude,
        };
        let (answer, hops) = self.planned(command, &writing.path, wanted, true).await?;
        let Answer::Allocated { chunk, .. } = answer else {
            return Err(mismatch("AllocateChunk"));
        };
        let plan = Some(self.plan_of(&writing.path, chunk, wanted, hops)?);
        Ok(v1::AllocateChunkReply { epoch: self.state.epoch.0, plan })
    }

    /// A client's pipeline failed at these nodes a moment ago, or they failed its file before.
    pub(super) fn pipeline_failed(&self, nodes: &[NodeId], codes: &[u32]) {
        let (mut cluster, now_ms) = (self.state.cluster(), self.state.clock.now_ms());
        let code = |code: &u32| u16::try_from(*code).ok().and_then(ErrorCode::from_number);
        let codes = codes.iter().map(code).chain(std::iter::repeat(None));
        nodes.iter().zip(codes).for_each(|(node, code)| cluster.write_failed(now_ms, *node, code));
    }

    /// Executes a change that needs nodes to write to: without them nothing is logged.
    pub(super) async fn planned(
        &self,
        command: Command,
        path: &NsPath,
        wanted: Wanted<'_>,
        place: bool,
    ) -> Result<(Answer, Option<Vec<Endpoint>>), Refusal> {
        let placed = match place {
            true => self.place(path, wanted).map(Some),
            false => self.placeable(path, wanted).map(|()| None),
        };
        let hops = match placed {
            Ok(hops) => hops,
            // What the namespace says of it comes first, and so does the answer that was given before.
            Err(nowhere) => return self.check(&command)?.map(|answer| (answer, None)).ok_or(nowhere),
        };
        Ok((self.proposer.propose(command).await?, hops))
    }

    /// An empty file needs no node, but a cluster that takes no write takes none of these either.
    fn placeable(&self, path: &NsPath, wanted: Wanted<'_>) -> Result<(), Refusal> {
        let now_ms = self.state.clock.now_ms();
        let mut cluster = self.state.cluster();
        // Said first: datanodes that were shown a higher epoch do not stay, and are missed, too.
        cluster.behind().cloned().map_or(Ok(()), Err)?;
        cluster.placeable(now_ms, wanted).map_err(|source| Refusal::Placement { path: path.clone(), source })
    }

    fn place(&self, path: &NsPath, wanted: Wanted<'_>) -> Result<Vec<Endpoint>, Refusal> {
        let now_ms = self.state.clock.now_ms();
        let mut cluster = self.state.cluster();
        cluster.behind().cloned().map_or(Ok(()), Err)?;
        cluster
            .place(now_ms, wanted, rand::random())
            .map_err(|source| Refusal::Placement { path: path.clone(), source })
    }

    /// The plan of a chunk: the one it has, the one made for it now, or, when its own is forgotten (a retry after
    /// a restart), a new one.
    fn plan_of(
        &self,
        path: &NsPath,
        chunk: ChunkId,
        wanted: Wanted<'_>,
        hops: Option<Vec<Endpoint>>,
    ) -> Result<v1::WritePlan, Refusal> {
        let known: Option<Vec<Endpoint>> = {
            let cluster = self.state.cluster();
            let nodes = cluster.plans.of(chunk);
            nodes.map(|nodes| nodes.iter().filter_map(|node| cluster.endpoint_of(*node)).collect())
        };
        let hops = match (known, hops) {
            (Some(known), _) => known,
            (None, Some(hops)) => hops,
            (None, None) => self.place(path, wanted)?,
        };
        let nodes = hops.iter().map(|hop| hop.node).collect();
        self.state.cluster().plans.remember(chunk, nodes);
        Ok(v1::WritePlan {
            chunk_id: chunk.0,
            generation: FIRST_GENERATION.0,
            hops: hops.into_iter().map(convert::node).collect(),
        })
    }

    pub(super) async fn complete(
        &self,
        caller: Arc<Caller>,
        ask: v1::CompleteRequest,
    ) -> Result<v1::CompleteReply, Status> {
        let request = request_id(ask.request_id)?;
        if ask.chunks.len() > FILE_CHUNKS_MAX {
            return Err(invalid(format!("more than {FILE_CHUNKS_MAX} chunks")));
        }
        let file = FileId(ask.file_id);
        let chunks = ask.chunks.iter().map(convert::written).collect();
        let command = self.command(request, caller.clone(), Operation::Complete { file, chunks });
        let answer = match self.demand_copies(&caller, file, &ask.chunks) {
            Ok(()) => self.proposer.propose(command).await?,
            // What the namespace says of it comes first, and so does the answer that was given before.
            Err(refusal) => self.check(&command)?.ok_or(refusal)?,
        };
        let Answer::Completed(completed) = answer else {
            return Err(mismatch("Complete"));
        };
        let status = Some(self.appeared(&completed, &ask.chunks));
        Ok(v1::CompleteReply { epoch: self.state.epoch.0, status })
    }

    /// A file as it appeared with these chunks, whose replicas can be read from now on.
    pub(super) fn appeared(&self, completed: &Completed, chunks: &[v1::WrittenChunk]) -> v1::FileStatus {
        let status = self.state.namespace().status_when(completed);
        for some in chunks.chunks(CHUNKS_SLICE) {
            let mut cluster = self.state.cluster();
            for written in some {
                let chunk = convert::written(written);
                let (generation, length, crc) = (chunk.generation, chunk.length, chunk.crc);
                let replica = Replica { chunk: chunk.chunk, generation, length, crc, corrupt: false };
                let nodes: Vec<NodeId> = written.nodes.iter().copied().map(NodeId).collect();
                cluster.completed(replica, &nodes);
                cluster.grants.used(chunk.chunk);
                cluster.plans.forget(chunk.chunk);
            }
        }
        convert::file_status(&status)
    }

    /// Refuses a completion unless each chunk is on as many nodes as asked for, all of its plan. After a restart
    /// of the master, whose plans are soft, any node that has registered since will do.
    fn demand_copies(
        &self,
        caller: &Caller,
        file: FileId,
        chunks: &[v1::WrittenChunk],
    ) -> Result<(), Refusal> {
        if chunks.is_empty() {
            return Ok(());
        }
        let writing = self.state.namespace().writing(caller, file)?;
        for some in chunks.chunks(CHUNKS_SLICE) {
            let cluster = self.state.cluster();
            for written in some {
                let (path, wanted) = (&writing.path, usize::from(writing.replication));
                let planned = cluster.plans.of(ChunkId(written.chunk_id));
                let strange = written.nodes.iter().copied().map(NodeId).find(|node| !cluster.knows(*node));
                if let Some(node) = strange.filter(|_| planned.is_none()) {
                    return Err(Refusal::Unregistered { path: path.clone(), node });
                }
                demand_nodes(path, written, planned, wanted)?;
            }
        }
        Ok(())
    }

    pub(super) async fn renew_lease(
        &self,
        caller: Arc<Caller>,
        ask: v1::RenewLeaseRequest,
    ) -> Result<v1::RenewLeaseReply, Status> {
        let request = request_id(ask.request_id)?;
        if ask.file_ids.len() > IDS_MAX {
            return Err(invalid(format!("more than {IDS_MAX} leases in one request")));
        }
        let files = ask.file_ids.iter().copied().map(FileId).collect();
        let operation = Operation::RenewLeases { files, until_ms: self.lease_until() };
        let answer = self.proposer.propose(self.command(request, caller, operation)).await?;
        let Answer::Renewed { expired } = answer else {
            return Err(mismatch("RenewLease"));
        };
        let expired = expired.into_iter().map(|file| file.0).collect();
        Ok(v1::RenewLeaseReply { epoch: self.state.epoch.0, expired })
    }
}

/// The nodes that a client wants left out.
pub(super) fn excluded(ids: &[u64]) -> Result<Vec<NodeId>, Status> {
    if ids.len() > IDS_MAX {
        return Err(invalid(format!("more than {IDS_MAX} nodes to exclude")));
    }
    Ok(ids.iter().copied().map(NodeId).collect())
}

/// Refuses a chunk that is not on as many nodes as wanted, or on others than those of its plan.
pub(super) fn demand_nodes(
    path: &NsPath,
    written: &v1::WrittenChunk,
    planned: Option<&[NodeId]>,
    wanted: usize,
) -> Result<(), Refusal> {
    let chunk = ChunkId(written.chunk_id);
    let nodes: BTreeSet<NodeId> = written.nodes.iter().copied().map(NodeId).collect();
    let strange = |node: &&NodeId| planned.is_some_and(|planned| !planned.contains(node));
    if let Some(node) = nodes.iter().find(strange) {
        let text = format!("{path}: chunk {chunk} was not to be written on datanode {node}");
        return Err(Refusal::Invalid(text));
    }
    if nodes.len() < wanted {
        let text = format!("{path}: chunk {chunk} is on {} nodes, {wanted} are needed", nodes.len());
        return Err(Refusal::Invalid(text));
    }
    Ok(())
}
