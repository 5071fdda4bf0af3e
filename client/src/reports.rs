//! Tells the master about bad replicas, beside the reading that found them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::v1;
use distrifs_proto::types::{ChunkId, NodeId};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::context::Context;

/// Reports under way; more are dropped, for the next reader finds the same.
const UNDER_WAY_MAX: usize = 16;
/// How long the end of a get waits for them, so that a process that ends then has told.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// The reports under way.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    tasks: Mutex<JoinSet<()>>,
}

impl Context {
    /// Reports a replica in the background.
    pub(crate) fn report_bad_replica(self: &Arc<Self>, chunk: ChunkId, node: NodeId, code: ErrorCode) {
        let mut tasks = self.reports.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= UNDER_WAY_MAX {
            return;
        }
        let context = self.clone();
        tasks.spawn(async move {
            let code = u32::from(code.number());
            let message = v1::ReportBadReplicaRequest { chunk_id: chunk.0, node_id: node.0, code };
            if let Err(error) = context.master.report_bad_replica("bad replica", message).await {
                tracing::debug!(%chunk, %node, %error, "the master did not take a report");
            }
        });
    }

    /// Waits a little for the reports under way.
    pub(crate) async fn flush_reports(&self) {
        let mut tasks = {
            let mut tasks = self.reports.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        let all = async { while tasks.join_next().await.is_some() {} };
        let in_time = timeout(FLUSH_PATIENCE, all).await.is_ok();
        if !in_time {
            tasks.detach_all();
        }
    }
}
