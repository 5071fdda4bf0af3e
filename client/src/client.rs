//! The face of the crate: one method for each thing a user does.

use std::sync::Arc;

use distrifs_proto::grpc::v1;
use distrifs_proto::latency::StageHistogram;
use distrifs_proto::limits::LIST_PAGE_MAX;
use distrifs_proto::types::{ChunkId, Crc32c};

use crate::ask;
use crate::chunk_reader;
use crate::config::ClientConfig;
use crate::context::Context;
use crate::error::{ClientError, Result};
use crate::explain::{self, Explanation};
use crate::get;
use crate::health::{ChunkStory, HealthSums, UnhealthyFile};
use crate::master_link::new_request_id;
use crate::open_file::OpenFile;
use crate::progress::Progress;
use crate::put;
use crate::status::{ChunkLocation, ClusterStatus, FileStatus, Node, NodeStatus, Usage};
use crate::tracer::Tracer;
use crate::transfer::{GetTarget, PutOptions, PutSource};

/// A user of one cluster. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    context: Arc<Context>,
}

impl Client {
    /// Connects nowhere yet: the first call does.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self { context: Context::new(config) }
    }

    /// Makes a directory; with `parents` also those above it, and one that is there is taken for done.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn mkdir(&self, path: &str, parents: bool, mode: u32) -> Result<()> {
        let message = v1::MkdirRequest { request_id: new_request_id(), path: path.to_owned(), parents, mode };
        self.context.master.mkdir(path, message).await.map(|_| ())
    }

    /// What is at a path.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn stat(&self, path: &str) -> Result<FileStatus> {
        let reply = self.context.master.stat(path, v1::StatRequest { path: path.to_owned() }).await?;
        let status = reply.status.ok_or_else(|| malformed(path, "no status in the answer".into()))?;
        FileStatus::try_from(status).map_err(|what| malformed(path, what))
    }

    /// A page of a directory behind `start_after`, sorted by name, and whether there is more; `recursive`: of the
    /// whole tree, with paths relative to `path`. The next page starts after the last entry's `path`.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn list_page(
        &self,
        path: &str,
        recursive: bool,
        start_after: &str,
    ) -> Result<(Vec<FileStatus>, bool)> {
        let message = v1::ListRequest {
            path: path.to_owned(),
            recursive,
            start_after: start_after.to_owned(),
            limit: 0,
        };
        let reply = self.context.master.list(path, message).await?;
        if reply.entries.len() > LIST_PAGE_MAX || (reply.more && reply.entries.is_empty()) {
            return Err(malformed(path, format!("a page of {} entries", reply.entries.len())));
        }
        let entries = reply.entries.into_iter().map(FileStatus::try_from).collect::<Result<_, _>>();
        Ok((entries.map_err(|what| malformed(path, what))?, reply.more))
    }

    /// Gives a file or directory the exact path `target`.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn rename(&self, source: &str, target: &str, overwrite: bool) -> Result<()> {
        let message = v1::RenameRequest {
            request_id: new_request_id(),
            source: source.to_owned(),
            target: target.to_owned(),
            overwrite,
        };
        self.context.master.rename(source, message).await.map(|_| ())
    }

    /// Removes a file, or with `recursive` a whole tree; a directory without it is refused, even an empty one.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn remove(&self, path: &str, recursive: bool) -> Result<()> {
        let message = v1::RemoveRequest { request_id: new_request_id(), path: path.to_owned(), recursive };
        self.context.master.remove(path, message).await.map(|_| ())
    }

    /// Makes `target` a file that shares the chunks of `source`: no data moves.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn copy(&self, source: &str, target: &str, overwrite: bool) -> Result<()> {
        let message = v1::CopyRequest {
            request_id: new_request_id(),
            source: source.to_owned(),
            target: target.to_owned(),
            overwrite,
        };
        self.context.master.copy(source, message).await.map(|_| ())
    }

    /// Sets all permission bits.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn set_mode(&self, path: &str, mode: u32) -> Result<()> {
        let message = v1::SetModeRequest { request_id: new_request_id(), path: path.to_owned(), mode };
        self.context.master.set_mode(path, message).await.map(|_| ())
    }

    /// Gives a file or directory to another user, another group, or both.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn set_owner(&self, path: &str, owner: Option<&str>, group: Option<&str>) -> Result<()> {
        let message = v1::SetOwnerRequest {
            request_id: new_request_id(),
            path: path.to_owned(),
            owner: owner.map(str::to_owned),
            group: group.map(str::to_owned),
        };
        self.context.master.set_owner(path, message).await.map(|_| ())
    }

    /// Sets how many replicas are wanted of a file.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn set_replication(&self, path: &str, replication: u32) -> Result<()> {
        let message =
            v1::SetReplicationRequest { request_id: new_request_id(), path: path.to_owned(), replication };
        self.context.master.set_replication(path, message).await.map(|_| ())
    }

    /// How much there is at and below a path. What changes while it is counted may count or not.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn usage(&self, path: &str) -> Result<Usage> {
        let reply = self.context.master.usage(path, v1::UsageRequest { path: path.to_owned() }).await?;
        Ok(Usage {
            files: reply.files,
            directories: reply.directories,
            bytes: reply.bytes,
            stored_bytes: reply.stored_bytes,
        })
    }

    /// A file and all its chunks with their replicas.
    ///
    /// # Errors
    /// As the master refuses it, [`ClientError::NoMaster`], or [`ClientError::Replaced`] between two pages.
    pub async fn chunks(&self, path: &str) -> Result<(FileStatus, Vec<ChunkLocation>)> {
        get::chunks(&self.context, path).await
    }

    /// The datanodes, sorted by id.
    ///
    /// # Errors
    /// [`ClientError::NoMaster`].
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>> {
        let reply = self.context.master.list_nodes("nodes", v1::ListNodesRequest {}).await?;
        Ok(reply.nodes.into_iter().map(NodeStatus::from).collect())
    }

    /// The cluster as a whole.
    ///
    /// # Errors
    /// [`ClientError::NoMaster`].
    pub async fn cluster_status(&self) -> Result<ClusterStatus> {
        let reply = self.context.master.cluster_status("cluster", v1::ClusterStatusRequest {}).await?;
        Ok(reply.into())
    }

    /// Has the health of all files at and below a path checked, in bounded memory: each one that is not healthy is given
    /// to `unhealthy`. What changes meanwhile may count or not.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn check_files(
        &self,
        path: &str,
        mut unhealthy: impl FnMut(UnhealthyFile),
    ) -> Result<HealthSums> {
        let mut sums = HealthSums::default();
        let mut start_after = String::new();
        loop {
            let ask = v1::CheckFilesRequest { path: path.to_owned(), start_after: start_after.clone() };
            let slice = self.context.master.check_files(path, ask).await?;
            sums.add(&slice);
            slice.unhealthy.into_iter().map(UnhealthyFile::from).for_each(&mut unhealthy);
            // Each slice must lead further, whatever the master says.
            if !slice.more || slice.continue_after == start_after {
                return Ok(sums);
            }
            start_after = slice.continue_after;
        }
    }

    /// What is known of one chunk, and why it is not repaired.
    ///
    /// # Errors
    /// [`ClientError::NoMaster`].
    pub async fn explain_chunk(&self, chunk: ChunkId) -> Result<ChunkStory> {
        let ask = v1::ExplainChunkRequest { chunk_id: chunk.0 };
        Ok(self.context.master.explain_chunk(&chunk.to_string(), ask).await?.into())
    }

    /// Writes a file. It appears whole, or not at all when this fails. Dropped on the way it leaves an unfinished
    /// file that nobody sees, until its lease ends.
    ///
    /// # Errors
    /// As the master refuses it, [`ClientError::NotWritten`], or an error of the source.
    pub async fn put(
        &self,
        source: PutSource,
        path: &str,
        options: PutOptions,
        progress: &dyn Progress,
    ) -> Result<FileStatus> {
        put::put(&self.context, source, path, &options, progress).await
    }

    /// Reads a file, or `(offset, length)` of it cut at its end. What reaches the target has passed its checksums.
    ///
    /// # Errors
    /// As the master refuses it, [`ClientError::Corrupt`], [`ClientError::Unreachable`],
    /// [`ClientError::Replaced`], or an error of the target.
    pub async fn get(
        &self,
        path: &str,
        range: Option<(u64, u64)>,
        target: GetTarget,
        progress: &dyn Progress,
    ) -> Result<FileStatus> {
        get::get(&self.context, path, range, target, progress).await
    }

    /// Opens a file to read it at many places: the master is not asked for each of them.
    ///
    /// # Errors
    /// As the master refuses it.
    pub async fn open(&self, path: &str) -> Result<OpenFile> {
        OpenFile::open(&self.context, path, false).await
    }

    /// As [`open`](Self::open); the datanodes read from the device, past their page cache: for a file that is larger
    /// than that and read at places nobody reads again soon.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_direct(&self, path: &str) -> Result<OpenFile> {
        OpenFile::open(&self.context, path, true).await
    }

    /// As [`put`](Self::put), over connections of its own, and says where the time went.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_explained(
        &self,
        source: PutSource,
        path: &str,
        options: PutOptions,
        progress: &dyn Progress,
    ) -> Result<(FileStatus, Explanation)> {
        let (context, tracer) = Context::traced(self.context.config.clone());
        let status = put::put(&context, source, path, &options, progress).await?;
        Ok((status, self.explain(&tracer).await))
    }

    /// As [`get`](Self::get), over connections of its own, and says where the time went.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_explained(
        &self,
        path: &str,
        range: Option<(u64, u64)>,
        target: GetTarget,
        progress: &dyn Progress,
    ) -> Result<(FileStatus, Explanation)> {
        let (context, tracer) = Context::traced(self.context.config.clone());
        let status = get::get(&context, path, range, target, progress).await?;
        Ok((status, self.explain(&tracer).await))
    }

    /// Of an operation that has just ended.
    async fn explain(&self, tracer: &Tracer) -> Explanation {
        let wall_us = tracer.now_us();
        let (known, missing) = explain::gather(&self.context, tracer).await;
        explain::explain(&known, wall_us, missing)
    }

    /// How long the stages of the master's calls take, since its start.
    ///
    /// # Errors
    /// [`ClientError::NoMaster`].
    pub async fn master_latency(&self) -> Result<Vec<StageHistogram>> {
        let reply = self.context.master.latency("latency", v1::LatencyRequest {}).await?;
        // A name is shown: nothing that a terminal would obey.
        let name = |name: String| name.replace(|c: char| c.is_control(), " ").into();
        Ok(reply.stages.into_iter().map(|it| StageHistogram { name: name(it.name), v2: it.v2 }).collect())
    }

    /// How long the stages of a datanode take, since its start.
    ///
    /// # Errors
    /// [`ClientError::Datanode`], within a few seconds.
    pub async fn node_latency(&self, node: &Node) -> Result<Vec<StageHistogram>> {
        Ok(ask::latency(&self.context, node).await?.stages)
    }

    /// How many reads of chunks this client began, and of how many of them it asked a second replica because the first
    /// was slow.
    #[must_use]
    pub fn read_counts(&self) -> (u64, u64) {
        self.context.hedge.counts()
    }

    /// Reads one replica whole and checks every block and the checksum of the chunk.
    ///
    /// # Errors
    /// [`ClientError::Replica`].
    pub async fn verify_replica(&self, chunk: &ChunkLocation, node: &Node) -> Result<Crc32c> {
        chunk_reader::verify_replica(&self.context, chunk, node).await
    }
}

fn malformed(path: &str, what: String) -> ClientError {
    ClientError::Protocol { path: path.to_owned(), peer: "the master".into(), what }
}
