//! The health of files and chunks, as the master knows it.

use distrifs_proto::grpc::v1;
use distrifs_proto::types::{ChunkId, Crc32c, GenerationStamp, NodeId};

use crate::status::NodeState;

/// What is wrong with a file or chunk, of the worst kind that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Fewer good replicas than are wanted.
    UnderReplicated,
    /// Damaged replicas only.
    Corrupt,
    /// No replica on any datanode that is there.
    Missing,
    /// One that a newer master knows.
    Unknown,
}

impl From<v1::FileProblem> for Problem {
    fn from(problem: v1::FileProblem) -> Self {
        match problem {
            v1::FileProblem::UnderReplicated => Self::UnderReplicated,
            v1::FileProblem::Corrupt => Self::Corrupt,
            v1::FileProblem::Missing => Self::Missing,
            v1::FileProblem::Unspecified => Self::Unknown,
        }
    }
}

/// A file that is not healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnhealthyFile {
    /// Relative to the path that was asked for; empty: the path itself.
    pub path: String,
    /// The worst that is wrong.
    pub problem: Problem,
    /// How many of its chunks are not healthy.
    pub unhealthy_chunks: u64,
    /// The first few of them.
    pub chunks: Vec<UnhealthyChunk>,
}

/// A chunk that is not healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnhealthyChunk {
    /// Its place in the file, from 0.
    pub index: u64,
    /// Its identity.
    pub id: ChunkId,
    /// What is wrong.
    pub problem: Problem,
    /// Replicas that are wanted.
    pub wanted: u32,
    /// Good ones that there are.
    pub good: u32,
    /// Damaged ones beside them.
    pub damaged: u32,
    /// Why it is not repaired yet, in words.
    pub why: String,
}

impl From<v1::UnhealthyFile> for UnhealthyFile {
    fn from(message: v1::UnhealthyFile) -> Self {
        let chunk = |chunk: v1::UnhealthyChunk| UnhealthyChunk {
            index: chunk.index,
            id: ChunkId(chunk.chunk_id),
            problem: chunk.problem().into(),
            wanted: chunk.wanted,
            good: chunk.good,
            damaged: chunk.damaged,
            why: chunk.why,
        };
        Self {
            problem: message.problem().into(),
            path: message.path,
            unhealthy_chunks: message.unhealthy_chunks,
            chunks: message.chunks.into_iter().map(chunk).collect(),
        }
    }
}

/// Sums over all files that were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HealthSums {
    /// Files.
    pub files: u64,
    /// Chunks of them; one that several files share counts for each.
    pub chunks: u64,
    /// Files all of whose chunks have as many good replicas as are wanted.
    pub healthy: u64,
    /// Files whose worst chunk has fewer.
    pub under_replicated: u64,
    /// Files whose worst chunk has damaged replicas only.
    pub corrupt: u64,
    /// Files whose worst chunk has none.
    pub missing: u64,
}

impl HealthSums {
    pub(crate) fn add(&mut self, slice: &v1::CheckFilesReply) {
        self.files += slice.files;
        self.chunks += slice.chunks;
        self.healthy += slice.healthy;
        self.under_replicated += slice.under_replicated;
        self.corrupt += slice.corrupt;
        self.missing += slice.missing;
    }
}

/// What is known of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkStory {
    /// `referenced`, `unfinished`, `dereferenced` or `unknown`.
    pub state: String,
    /// Its version.
    pub generation: GenerationStamp,
    /// In bytes.
    pub length: u64,
    /// Of the whole chunk.
    pub crc32c: Crc32c,
    /// How many files refer to it.
    pub references: u32,
    /// Every replica that is known, also on nodes that are dead.
    pub replicas: Vec<ReplicaStory>,
    /// What repair does or waits for, in words; empty: nothing is to be done.
    pub why: String,
}

/// What is known of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStory {
    /// Where it is.
    pub node: NodeId,
    /// That node's data plane.
    pub address: String,
    /// What the master thinks of that node.
    pub node_state: NodeState,
    /// `good`, `corrupt`, `stale` or `differs`.
    pub state: String,
    /// Readers complained of it lately.
    pub blamed: bool,
}

impl From<v1::ExplainChunkReply> for ChunkStory {
    fn from(message: v1::ExplainChunkReply) -> Self {
        let replica = |it: v1::ExplainedReplica| ReplicaStory {
            node: NodeId(it.node_id),
            node_state: it.node_state().into(),
            address: it.data_address,
            state: it.state,
            blamed: it.blamed,
        };
        Self {
            state: message.state,
            generation: GenerationStamp(message.generation),
            length: message.length,
            crc32c: Crc32c(message.crc32c),
            references: message.references,
            replicas: message.replicas.into_iter().map(replica).collect(),
            why: message.why,
        }
    }
}
