//! The health of files, in slices: what `fsck` asks.

use std::sync::Arc;

use distrifs_proto::grpc::v1;
use distrifs_proto::types::ChunkId;
use tonic::Status;

use super::{Api, path};
use crate::cluster::{Cluster, Problem};
use crate::namespace::{Chunk, Status as FileStatus};
use crate::permission::Caller;
use crate::refusal::Refusal;

/// Unhealthy chunks of one file that are told one by one.
const CHUNKS_TOLD_MAX: usize = 8;
/// With so many chunks a slice ends behind the file that they are of: the locks are held meanwhile. A single file of very
/// many chunks is checked in one hold: the price of a summary that is of one moment.
const CHUNKS_PER_SLICE: usize = 256;
/// Entries of one slice.
const ENTRIES_PER_SLICE: usize = 256;

impl Api {
    pub(super) async fn check_files(
        &self,
        caller: Arc<Caller>,
        ask: v1::CheckFilesRequest,
    ) -> Result<v1::CheckFilesReply, Status> {
        let path = path(&ask.path)?;
        let now_ms = self.state.clock.now_ms();
        let mut reply = v1::CheckFilesReply { epoch: self.state.epoch.0, ..Default::default() };
        let (page, itself, files) = {
            let namespace = self.state.namespace();
            let page = namespace.list(&caller, &path, true, &ask.start_after, ENTRIES_PER_SLICE);
            let page = page.map_err(Refusal::Namespace)?;
            let itself = namespace.stat(&caller, &path).is_ok_and(|status| status.body.is_some());
            let mut left = CHUNKS_PER_SLICE;
            let mut files = Vec::with_capacity(page.entries.len());
            for entry in &page.entries {
                if left == 0 {
                    break;
                }
                let chunks = namespace.chunks_of(entry.file);
                let file = chunks.map(|(wanted, chunks)| (u32::from(wanted), chunks.collect::<Vec<_>>()));
                left = left.saturating_sub(file.as_ref().map_or(0, |(_, chunks)| chunks.len()));
                files.push(file);
            }
            (page, itself, files)
        };
        let cluster = self.state.cluster();
        let slice = page.entries.iter().zip(files);
        let is_cut = slice.len() < page.entries.len();
        for (entry, file) in slice {
            reply.continue_after.clone_from(&entry.path);
            let Some((wanted, chunks)) = file else { continue };
            if let Some(mut unhealthy) = check(&mut reply, &cluster, now_ms, entry, (wanted, chunks)) {
                if itself {
                    unhealthy.path.clear();
                }
                reply.unhealthy.push(unhealthy);
            }
        }
        reply.more = page.more || is_cut;
        Ok(reply)
    }
}

/// Counts one file; what is wrong with it.
fn check(
    reply: &mut v1::CheckFilesReply,
    cluster: &Cluster,
    now_ms: u64,
    entry: &FileStatus,
    (wanted, chunks): (u32, Vec<(ChunkId, Chunk)>),
) -> Option<v1::UnhealthyFile> {
    reply.files += 1;
    let mut worst = None;
    let mut file = v1::UnhealthyFile { path: entry.path.clone(), ..Default::default() };
    for (index, (id, chunk)) in chunks.into_iter().enumerate() {
        reply.chunks += 1;
        let health = cluster.health(now_ms, id, &chunk);
        let Some(problem) = health.problem(wanted) else { continue };
        worst = worst.max(Some(problem));
        file.unhealthy_chunks += 1;
        if file.chunks.len() < CHUNKS_TOLD_MAX {
            file.chunks.push(v1::UnhealthyChunk {
                index: index as u64,
                chunk_id: id.0,
                problem: convert(problem).into(),
                wanted,
                good: health.good,
                damaged: health.damaged,
                why: cluster.why_unrepaired(now_ms, id),
            });
        }
    }
    match worst {
        None => reply.healthy += 1,
        Some(Problem::UnderReplicated) => reply.under_replicated += 1,
        Some(Problem::Corrupt) => reply.corrupt += 1,
        Some(Problem::Missing) => reply.missing += 1,
    }
    file.problem = convert(worst?).into();
    Some(file)
}

fn convert(problem: Problem) -> v1::FileProblem {
    match problem {
        Problem::UnderReplicated => v1::FileProblem::UnderReplicated,
        Problem::Corrupt => v1::FileProblem::Corrupt,
        Problem::Missing => v1::FileProblem::Missing,
    }
}
