//! Questions of clients: list, stat, read plan. They see only what is durable and applied.

use std::sync::Arc;

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::v1;
use distrifs_proto::limits::{LIST_PAGE_MAX, PLAN_CHUNKS_MAX};
use distrifs_proto::types::{ChunkId, FileId, NodeId};
use tonic::Status;

use super::{Api, convert, path};
use crate::cluster::WEIGHT_READ;
use crate::namespace::NamespaceError;
use crate::permission::Caller;
use crate::refusal::Refusal;

/// Entries that are listed in one hold of the namespace.
const LIST_SLICE: usize = 128;
/// Chunks that are located in one hold of the cluster.
const LOCATE_SLICE: usize = 64;

fn refused(error: NamespaceError) -> Status {
    Refusal::Namespace(error).into()
}

impl Api {
    pub(super) async fn list(
        &self,
        caller: Arc<Caller>,
        ask: v1::ListRequest,
    ) -> Result<v1::ListReply, Status> {
        let path = path(&ask.path)?;
        let limit = match ask.limit as usize {
            0 => LIST_PAGE_MAX,
            limit => limit.min(LIST_PAGE_MAX),
        };
        let mut entries = Vec::new();
        let mut after = ask.start_after;
        loop {
            let slice = LIST_SLICE.min(limit - entries.len());
            let page = self.state.namespace().list(&caller, &path, ask.recursive, &after, slice);
            let page = page.map_err(refused)?;
            entries.extend(page.entries.iter().map(convert::file_status));
            match page.entries.last() {
                Some(last) if page.more && entries.len() < limit => after.clone_from(&last.path),
                _ => return Ok(v1::ListReply { epoch: self.state.epoch.0, entries, more: page.more }),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Slice by slice: the namespace is free in between.
    pub(super) async fn usage(
        &self,
        caller: Arc<Caller>,
        ask: v1::UsageRequest,
    ) -> Result<v1::UsageReply, Status> {
        let path = path(&ask.path)?;
        let mut reply = v1::UsageReply { epoch: self.state.epoch.0, ..v1::UsageReply::default() };
        let top = self.state.namespace().stat(&caller, &path).map_err(refused)?;
        reply.directories += u64::from(top.body.is_none());
        let mut after = String::new();
        loop {
            let page = self.state.namespace().list(&caller, &path, true, &after, LIST_SLICE);
            let page = page.map_err(refused)?;
            for entry in &page.entries {
                match &entry.body {
                    None => reply.directories += 1,
                    Some(body) => {
                        reply.files += 1;
                        reply.bytes = reply.bytes.saturating_add(body.size);
                        let stored = body.size.saturating_mul(u64::from(body.replication));
                        reply.stored_bytes = reply.stored_bytes.saturating_add(stored);
                    }
                }
            }
            match page.entries.last() {
                Some(last) if page.more => after.clone_from(&last.path),
                _ => return Ok(reply),
            }
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn stat(
        &self,
        caller: Arc<Caller>,
        ask: v1::StatRequest,
    ) -> Result<v1::StatReply, Status> {
        let path = path(&ask.path)?;
        let status = self.state.namespace().stat(&caller, &path).map_err(refused)?;
        let status = Some(convert::file_status(&status));
        Ok(v1::StatReply { epoch: self.state.epoch.0, status })
    }

    pub(super) async fn read_plan(
        &self,
        caller: Arc<Caller>,
        ask: v1::ReadPlanRequest,
    ) -> Result<v1::ReadPlanReply, Status> {
        let path = path(&ask.path)?;
        let expected = (ask.file_id != 0).then_some(FileId(ask.file_id));
        let range = (ask.offset, ask.length);
        let planned = self
            .state
            .namespace()
            .read_plan(&caller, &path, range, expected, PLAN_CHUNKS_MAX)
            .map_err(refused)?;
        let seed: u64 = rand::random();
        let wanted = planned.status.body.map_or(0, |body| u32::from(body.replication));
        let mut chunks = Vec::with_capacity(planned.chunks.len());
        for some in planned.chunks.chunks(LOCATE_SLICE) {
            let now_ms = self.state.clock.now_ms();
            let cluster = self.state.cluster();
            chunks.extend(some.iter().map(|(index, id, chunk)| {
                let length = u64::from(chunk.length);
                let seed = seed.wrapping_add(*index);
                let endpoints = cluster.locate(now_ms, *id, chunk.generation, length, chunk.crc, seed);
                v1::ChunkLocation {
                    index: *index,
                    chunk_id: id.0,
                    generation: chunk.generation.0,
                    length,
                    crc32c: chunk.crc.0,
                    replicas: endpoints.into_iter().map(convert::node).collect(),
                    damaged: cluster.damaged(*id).map(|node| node.0).collect(),
                    away: cluster.away(now_ms, *id, chunk, wanted),
                }
            }));
        }
        let status = Some(convert::file_status(&planned.status));
        Ok(v1::ReadPlanReply { epoch: self.state.epoch.0, status, chunks })
    }

    pub(super) async fn report_bad_replica(
        &self,
        caller: Arc<Caller>,
        ask: v1::ReportBadReplicaRequest,
    ) -> Result<v1::ReportBadReplicaReply, Status> {
        let (chunk, node) = (ChunkId(ask.chunk_id), NodeId(ask.node_id));
        tracing::warn!(%chunk, %node, code = ask.code, user = caller.user, "a reader complains of a replica");
        let now_ms = self.state.clock.now_ms();
        let code = u16::try_from(ask.code).ok().and_then(ErrorCode::from_number);
        let mut cluster = self.state.cluster();
        cluster.blame(now_ms, chunk, node);
        if matches!(code, Some(ErrorCode::Unavailable | ErrorCode::HopFailed)) {
            cluster.complain(now_ms, node, WEIGHT_READ);
        } else {
            // A word against a replica counts once its node has read it whole.
            cluster.claim(chunk, node);
            drop(cluster);
            self.state.wake_repair();
        }
        Ok(v1::ReportBadReplicaReply { epoch: self.state.epoch.0 })
    }
}
