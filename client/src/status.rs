//! What the master says about files, chunks and nodes, in types; its messages are checked here and nowhere else.

use std::time::Duration;

use distrifs_proto::grpc::v1;
use distrifs_proto::limits::{CHUNK_BYTES_MAX, REPLICATION_MAX};
use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, FileId, GenerationStamp, HostPort, NodeId};

/// File or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// How much there is at and below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Files.
    pub files: u64,
    /// Directories, with the path itself.
    pub directories: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes with every replica that is wanted.
    pub stored_bytes: u64,
}

/// What the namespace knows of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// The last name of the path in listings, the whole path elsewhere.
    pub path: String,
    /// File or directory.
    pub kind: FileKind,
    /// In bytes; 0 for directories.
    pub size: u64,
    /// The owner's name.
    pub owner: String,
    /// The group's name.
    pub group: String,
    /// Permission bits.
    pub mode: u32,
    /// Last modification, milliseconds since 1970.
    pub mtime_ms: i64,
    /// How many replicas are wanted.
    pub replication: u32,
    /// The size of all chunks but the last.
    pub chunk_size: u64,
    /// Of the whole file; `None` for directories.
    pub crc32c: Option<Crc32c>,
    /// The file's identity, whatever its path.
    pub file_id: FileId,
    /// Chunks of the file.
    pub chunk_count: u64,
}

/// A datanode and its data plane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Its data plane.
    pub address: HostPort,
}

/// A committed chunk of a file and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkLocation {
    /// Its place in the file, from 0.
    pub index: u64,
    /// Its identity.
    pub id: ChunkId,
    /// Its version.
    pub generation: GenerationStamp,
    /// In bytes, never 0.
    pub length: u64,
    /// Of the whole chunk.
    pub crc32c: Crc32c,
    /// Who has it, best first; empty when no live datanode has reported it.
    pub replicas: Vec<Node>,
    /// Which of them have a damaged replica, of which single blocks may be good.
    pub damaged: Vec<NodeId>,
    /// Further replicas, good as far as is known, on datanodes that are not there now.
    pub away: u32,
}

/// What the master thinks of a datanode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// In use.
    Live,
    /// Late: out of placement, last for reads.
    Suspect,
    /// Gone.
    Dead,
    /// A state that a newer master knows.
    Unknown,
}

/// A folder of a datanode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    /// Its path on that machine.
    pub path: String,
    /// Bytes of its file system.
    pub capacity_bytes: u64,
    /// Bytes free there.
    pub free_bytes: u64,
    /// Bytes of chunks there.
    pub used_bytes: u64,
    /// False once a sync failed: nothing new is written there.
    pub healthy: bool,
    /// How long the commits of late took; zero before the first one.
    pub commit: Duration,
}

/// A datanode as the master sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its identity.
    pub id: NodeId,
    /// Its data plane, as it registered it.
    pub address: String,
    /// Its rack; empty where there are none.
    pub rack: String,
    /// What the master thinks of it.
    pub state: NodeState,
    /// Replicas it holds.
    pub chunks: u64,
    /// Bytes of them.
    pub used_bytes: u64,
    /// Bytes free.
    pub free_bytes: u64,
    /// Its folders.
    pub data_dirs: Vec<DataDir>,
    /// `io_uring` or `posix`.
    pub io_body: String,
    /// Since it was heard of.
    pub since_heartbeat: Duration,
    /// Whether its full block report of this session is in.
    pub reported: bool,
    /// How far it has checked its replicas.
    pub scrub: ScrubStatus,
    /// Why it is suspect; empty when it is not.
    pub why_suspect: String,
    /// Chunks moved out of the way there, for a person to look at.
    pub chunks_in_quarantine: u64,
}

/// How far a datanode has read its replicas whole, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubStatus {
    /// Replicas.
    pub replicas_checked: u64,
    /// Bytes.
    pub bytes_checked: u64,
    /// Damaged ones.
    pub found_corrupt: u64,
    /// For how long the replica that was read longest ago has not been read.
    pub oldest_unchecked: Duration,
    /// Of 1000, how much of the present pass over all replicas is done.
    pub pass_permille: u32,
}

/// The cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Bytes of all live nodes.
    pub capacity_bytes: u64,
    /// Bytes of chunks.
    pub used_bytes: u64,
    /// Bytes free.
    pub free_bytes: u64,
    /// Datanodes in use.
    pub live_nodes: u32,
    /// Datanodes gone.
    pub dead_nodes: u32,
    /// Whether a put with the default replication would be taken now.
    pub writable: bool,
    /// Why not; empty when it would.
    pub why_not_writable: String,
    /// Replicas of a file that asks for no number.
    pub default_replication: u32,
    /// Chunk size of a file that asks for none.
    pub default_chunk_size: u64,
    /// Files in the namespace.
    pub files: u64,
    /// Chunks in the namespace.
    pub chunks: u64,
    /// Chunks whose replicas are still to be deleted.
    pub chunks_to_delete: u64,
    /// Chunks that lacked good replicas at the last look.
    pub chunks_to_repair: u64,
    /// Chunks that had surplus or damaged ones.
    pub chunks_to_trim: u64,
    /// Copies on their way.
    pub repairs_running: u64,
    /// Copies made since the master's start.
    pub repairs_done: u64,
    /// Copies that failed or were given up since then.
    pub repairs_failed: u64,
    /// Copies that are still to be made.
    pub copies_missing: u64,
    /// How long they take at the pace of the last minute; `None`: none was made in it.
    pub repair_time_left: Option<Duration>,
    /// Chunks that datanodes hold and the namespace does not know.
    pub orphans: u64,
    /// Why nothing is repaired; empty: it is.
    pub safe_mode: String,
    /// The cluster's identity.
    pub cluster_id: ClusterId,
}

/// What is wrong with a message of the master.
pub(crate) type Malformed = String;

impl TryFrom<v1::FileStatus> for FileStatus {
    type Error = Malformed;
    fn try_from(message: v1::FileStatus) -> Result<Self, Malformed> {
        let kind = match message.r#type() {
            v1::FileType::File => FileKind::File,
            v1::FileType::Directory => FileKind::Directory,
            v1::FileType::Unspecified => return Err(format!("a status without a type: {:?}", message.path)),
        };
        Ok(Self {
            kind,
            path: message.path,
            size: message.size,
            owner: message.owner,
            group: message.group,
            mode: message.mode,
            mtime_ms: message.mtime_ms,
            replication: message.replication,
            chunk_size: message.chunk_size,
            crc32c: (kind == FileKind::File).then_some(Crc32c(message.crc32c)),
            file_id: FileId(message.file_id),
            chunk_count: message.chunk_count,
        })
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = Malformed;
    fn try_from(message: v1::Node) -> Result<Self, Malformed> {
        let id = NodeId(message.node_id);
        let address = message.data_address.parse().map_err(|e| format!("node {id}: {e}"))?;
        Ok(Self { id, address })
    }
}

/// The nodes of one chunk, within the limit of replication.
pub(crate) fn nodes_of(messages: Vec<v1::Node>) -> Result<Vec<Node>, Malformed> {
    if messages.len() > REPLICATION_MAX as usize {
        return Err(format!("a chunk on {} nodes: the limit is {REPLICATION_MAX}", messages.len()));
    }
    messages.into_iter().map(Node::try_from).collect()
}

impl TryFrom<v1::ChunkLocation> for ChunkLocation {
    type Error = Malformed;
    fn try_from(message: v1::ChunkLocation) -> Result<Self, Malformed> {
        let id = ChunkId(message.chunk_id);
        if message.length == 0 || message.length > CHUNK_BYTES_MAX {
            return Err(format!("chunk {id} of {} bytes", message.length));
        }
        Ok(Self {
            index: message.index,
            id,
            generation: GenerationStamp(message.generation),
            length: message.length,
            crc32c: Crc32c(message.crc32c),
            replicas: nodes_of(message.replicas)?,
            damaged: message.damaged.into_iter().map(NodeId).collect(),
            away: message.away,
        })
    }
}

impl From<v1::NodeState> for NodeState {
    fn from(state: v1::NodeState) -> Self {
        match state {
            v1::NodeState::Live => Self::Live,
            v1::NodeState::Suspect => Self::Suspect,
            v1::NodeState::Dead => Self::Dead,
            v1::NodeState::Unspecified => Self::Unknown,
        }
    }
}

impl From<v1::Scrub> for ScrubStatus {
    fn from(message: v1::Scrub) -> Self {
        Self {
            replicas_checked: message.replicas_checked,
            bytes_checked: message.bytes_checked,
            found_corrupt: message.found_corrupt,
            oldest_unchecked: Duration::from_millis(message.oldest_unchecked_ms),
            pass_permille: message.pass_permille,
        }
    }
}

impl From<v1::NodeStatus> for NodeStatus {
    fn from(message: v1::NodeStatus) -> Self {
        let state = message.state().into();
        let data_dirs = message.data_dirs.into_iter().map(|dir| DataDir {
            path: dir.path,
            capacity_bytes: dir.capacity_bytes,
            free_bytes: dir.free_bytes,
            used_bytes: dir.used_bytes,
            healthy: dir.healthy,
            commit: Duration::from_micros(dir.commit_us),
        });
        Self {
            id: NodeId(message.node_id),
            address: message.data_address,
            rack: message.rack,
            state,
            chunks: message.chunks,
            used_bytes: message.used_bytes,
            free_bytes: message.free_bytes,
            data_dirs: data_dirs.collect(),
            io_body: message.io_body,
            since_heartbeat: Duration::from_millis(message.since_heartbeat_ms),
            reported: message.reported,
            scrub: message.scrub.map(ScrubStatus::from).unwrap_or_default(),
            why_suspect: message.why_suspect,
            chunks_in_quarantine: message.chunks_in_quarantine,
        }
    }
}

impl From<v1::ClusterStatusReply> for ClusterStatus {
    fn from(message: v1::ClusterStatusReply) -> Self {
        Self {
            capacity_bytes: message.capacity_bytes,
            used_bytes: message.used_bytes,
            free_bytes: message.free_bytes,
            live_nodes: message.live_nodes,
            dead_nodes: message.dead_nodes,
            writable: message.writable,
            why_not_writable: message.why_not_writable,
            default_replication: message.default_replication,
            default_chunk_size: message.default_chunk_size,
            files: message.files,
            chunks: message.chunks,
            chunks_to_delete: message.chunks_to_delete,
            chunks_to_repair: message.chunks_to_repair,
            chunks_to_trim: message.chunks_to_trim,
            repairs_running: message.repairs_running,
            repairs_done: message.repairs_done,
            repairs_failed: message.repairs_failed,
            copies_missing: message.copies_missing,
            repair_time_left: message.repair_seconds_left.map(Duration::from_secs),
            orphans: message.orphans,
            safe_mode: message.safe_mode,
            cluster_id: ClusterId::from_halves(message.cluster_id_high, message.cluster_id_low),
        }
    }
}
