//! What operators ask.

use distrifs_proto::frame::TraceReport;
use distrifs_proto::grpc::v1;
use distrifs_proto::grpc::v1::admin_service_server::AdminService;
use distrifs_proto::latency::{StageHistogram, Stages};
use distrifs_proto::types::ChunkId;
use tonic::{Request, Response, Status};

use super::{Api, convert};
use crate::cluster::Wanted;
use crate::namespace::ChunkState;
use crate::stage::LOG_SYNC;

/// The service of operators. It only tells; anybody may ask.
#[derive(Debug, Clone)]
pub(crate) struct AdminApi(pub(crate) Api);

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn ping(&self, _request: Request<v1::PingRequest>) -> Result<Response<v1::PingReply>, Status> {
        self.0.counted("Ping", Ok(v1::PingReply { epoch: self.0.state.epoch.0 }))
    }

    async fn list_nodes(
        &self,
        _request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesReply>, Status> {
        let state = &self.0.state;
        let nodes = state.node_views().into_iter().map(convert::node_status).collect();
        self.0.counted("ListNodes", Ok(v1::ListNodesReply { epoch: state.epoch.0, nodes }))
    }

    async fn cluster_status(
        &self,
        _request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusReply>, Status> {
        let reply = self.status();
        self.0.counted("ClusterStatus", Ok(reply))
    }

    async fn explain_chunk(
        &self,
        request: Request<v1::ExplainChunkRequest>,
    ) -> Result<Response<v1::ExplainChunkReply>, Status> {
        let reply = self.explain(ChunkId(request.into_inner().chunk_id));
        self.0.counted("ExplainChunk", Ok(reply))
    }

    async fn latency(
        &self,
        _request: Request<v1::LatencyRequest>,
    ) -> Result<Response<v1::LatencyReply>, Status> {
        let state = &self.0.state;
        let mut stages = Stages::report(&[&state.latency]);
        stages.extend(state.log_syncs().map(|v2| StageHistogram { name: LOG_SYNC.into(), v2 }));
        let message = |it: StageHistogram| v1::StageHistogram { name: it.name.into_owned(), v2: it.v2 };
        let stages = stages.into_iter().map(message).collect();
        self.0.counted("Latency", Ok(v1::LatencyReply { epoch: state.epoch.0, stages }))
    }

    async fn trace(&self, request: Request<v1::TraceRequest>) -> Result<Response<v1::TraceReply>, Status> {
        let state = &self.0.state;
        let operations = state.traces().of(request.into_inner().trace_id);
        let report = TraceReport { operations }.encode();
        self.0.counted("Trace", Ok(v1::TraceReply { epoch: state.epoch.0, report }))
    }
}

impl AdminApi {
    fn explain(&self, id: ChunkId) -> v1::ExplainChunkReply {
        let state = &self.0.state;
        let now_ms = state.clock.now_ms();
        let namespace = state.namespace();
        let cluster = state.cluster();
        let mut reply = v1::ExplainChunkReply { epoch: state.epoch.0, ..Default::default() };
        let chunk = match namespace.chunk(id) {
            ChunkState::Referenced(chunk) => chunk,
            other => {
                reply.state = match other {
                    ChunkState::Unfinished => "unfinished",
                    ChunkState::Dereferenced(_) => "dereferenced",
                    _ if cluster.grants.holds(id) => "unfinished",
                    _ => "unknown",
                }
                .to_owned();
                return reply;
            }
        };
        reply.state = "referenced".to_owned();
        reply.generation = chunk.generation.0;
        reply.length = u64::from(chunk.length);
        reply.crc32c = chunk.crc.0;
        reply.references = chunk.refs;
        reply.why = cluster.why_waiting(id).unwrap_or_default();
        reply.replicas =
            cluster.replica_views(now_ms, id, &chunk).into_iter().map(convert::explained_replica).collect();
        reply
    }

    fn status(&self) -> v1::ClusterStatusReply {
        let state = &self.0.state;
        let config = &state.config;
        let now_ms = state.clock.now_ms();
        let (files, chunks, chunks_to_delete) = {
            let namespace = state.namespace();
            (namespace.counts().files, namespace.chunk_count(), namespace.tombstone_count())
        };
        let mut cluster = state.cluster();
        let wanted = Wanted { replicas: config.replication as usize, bytes: config.chunk_size, exclude: &[] };
        let placeable = cluster.placeable(now_ms, wanted);
        let why_not_writable = match (cluster.behind(), placeable) {
            (Some(behind), _) => behind.to_string(),
            (None, Err(refusal)) => refusal.to_string(),
            (None, Ok(())) => String::new(),
        };
        let (sums, live) = (cluster.sums(), cluster.trusted_live());
        let (repairs, found) = (cluster.repair_stats(now_ms), state.repair_found());
        let safe_mode = cluster.safe_mode(now_ms).unwrap_or_default();
        let orphans = cluster.orphan_count();
        drop(cluster);
        let space = sums.space();
        let (cluster_id_high, cluster_id_low) = state.cluster_id.to_halves();
        let log = state.log_stats();
        v1::ClusterStatusReply {
            log_records: log.map_or(0, |log| log.records),
            log_syncs: log.map_or(0, |log| log.syncs),
            epoch: state.epoch.0,
            capacity_bytes: space.capacity_bytes,
            used_bytes: space.used_bytes,
            free_bytes: space.free_bytes,
            live_nodes: live as u32,
            dead_nodes: sums.dead as u32,
            writable: why_not_writable.is_empty(),
            why_not_writable,
            default_replication: config.replication,
            default_chunk_size: config.chunk_size,
            files,
            chunks,
            chunks_to_delete,
            cluster_id_high,
            cluster_id_low,
            chunks_to_repair: found.to_repair,
            chunks_to_trim: found.to_trim,
            repairs_running: repairs.running,
            repairs_done: repairs.done,
            repairs_failed: repairs.failed,
            safe_mode,
            copies_missing: repairs.missing,
            repair_seconds_left: repairs.seconds_left,
            orphans,
        }
    }
}
