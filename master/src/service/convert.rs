//! Between messages and the cores' types.

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::v1;
use distrifs_proto::limits::ERROR_TEXT_BYTES_MAX;
use distrifs_proto::types::{ChunkId, Crc32c, GenerationStamp, NodeId};

use crate::cluster::{
    CopyFailure, Dir, Endpoint, NodeState, NodeView, Replica, ReplicaState, ReplicaView, Scrub, Space,
};
use crate::namespace::{Status, WrittenChunk};

pub(super) fn file_status(status: &Status) -> v1::FileStatus {
    let body = status.body.as_ref();
    let kind = if body.is_some() { v1::FileType::File } else { v1::FileType::Directory };
    v1::FileStatus {
        path: status.path.clone(),
        r#type: kind.into(),
        size: body.map_or(0, |body| body.size),
        owner: status.owner.clone(),
        group: status.group.clone(),
        mode: u32::from(status.mode),
        mtime_ms: status.mtime_ms,
        replication: body.map_or(0, |body| u32::from(body.replication)),
        chunk_size: body.map_or(0, |body| u64::from(body.chunk_size)),
        crc32c: body.map_or(0, |body| body.crc.0),
        file_id: status.file.0,
        chunk_count: body.map_or(0, |body| body.chunks),
    }
}

pub(super) fn node(place: Endpoint) -> v1::Node {
    v1::Node { node_id: place.node.0, data_address: place.address }
}

pub(super) fn written(chunk: &v1::WrittenChunk) -> WrittenChunk {
    WrittenChunk {
        chunk: ChunkId(chunk.chunk_id),
        generation: GenerationStamp(chunk.generation),
        length: chunk.length,
        crc: Crc32c(chunk.crc32c),
    }
}

pub(super) fn replica(replica: &v1::Replica) -> Replica {
    Replica {
        chunk: ChunkId(replica.chunk_id),
        generation: GenerationStamp(replica.generation),
        length: replica.length,
        crc: Crc32c(replica.crc32c),
        corrupt: replica.corrupt,
    }
}

/// What came of an order to replicate.
pub(super) fn copied(end: &v1::Replicated) -> Result<(), CopyFailure> {
    if end.code == 0 {
        return Ok(());
    }
    let number = u16::try_from(end.code).unwrap_or(u16::MAX);
    let code = ErrorCode::from_number(number).unwrap_or(ErrorCode::Internal);
    let text: String = end.text.chars().take(ERROR_TEXT_BYTES_MAX).collect();
    Err(CopyFailure { code, node: NodeId(end.failed_node_id), text })
}

pub(super) fn dir(dir: v1::DataDir) -> Dir {
    Dir {
        path: dir.path,
        capacity_bytes: dir.capacity_bytes,
        free_bytes: dir.free_bytes,
        used_bytes: dir.used_bytes,
        healthy: dir.healthy,
        commit_us: dir.commit_us,
    }
}

pub(super) fn scrub(scrub: v1::Scrub) -> Scrub {
    Scrub {
        replicas_checked: scrub.replicas_checked,
        bytes_checked: scrub.bytes_checked,
        found_corrupt: scrub.found_corrupt,
        oldest_unchecked_ms: scrub.oldest_unchecked_ms,
        pass_permille: scrub.pass_permille,
    }
}

fn node_state(state: NodeState) -> v1::NodeState {
    match state {
        NodeState::Live => v1::NodeState::Live,
        NodeState::Suspect => v1::NodeState::Suspect,
        NodeState::Dead => v1::NodeState::Dead,
    }
}

pub(super) fn explained_replica(view: ReplicaView) -> v1::ExplainedReplica {
    let state = match view.state {
        ReplicaState::Good => "good",
        ReplicaState::Corrupt => "corrupt",
        ReplicaState::Stale => "stale",
        ReplicaState::Differs => "differs",
    };
    v1::ExplainedReplica {
        node_id: view.node.0,
        data_address: view.address,
        node_state: node_state(view.node_state).into(),
        state: state.to_owned(),
        blamed: view.blamed,
    }
}

pub(super) fn node_status(view: NodeView) -> v1::NodeStatus {
    let state = node_state(view.state);
    let Space { used_bytes, free_bytes, .. } = Space::of(&view.load);
    let scrub = view.load.scrub;
    let data_dirs = view
        .load
        .dirs
        .into_iter()
        .map(|dir| v1::DataDir {
            path: dir.path,
            capacity_bytes: dir.capacity_bytes,
            free_bytes: dir.free_bytes,
            used_bytes: dir.used_bytes,
            healthy: dir.healthy,
            commit_us: dir.commit_us,
        })
        .collect();
    v1::NodeStatus {
        node_id: view.id.0,
        data_address: view.address,
        rack: view.rack,
        state: state.into(),
        chunks: view.chunks,
        used_bytes,
        free_bytes,
        data_dirs,
        io_body: view.load.io_body,
        since_heartbeat_ms: view.silent_ms,
        reported: view.reported,
        scrub: Some(v1::Scrub {
            replicas_checked: scrub.replicas_checked,
            bytes_checked: scrub.bytes_checked,
            found_corrupt: scrub.found_corrupt,
            oldest_unchecked_ms: scrub.oldest_unchecked_ms,
            pass_permille: scrub.pass_permille,
        }),
        why_suspect: view.why_suspect,
        chunks_in_quarantine: view.load.chunks_in_quarantine,
    }
}
