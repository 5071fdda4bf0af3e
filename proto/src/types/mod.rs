//! Identities and checksums as types, so that a chunk's id cannot be passed where its generation is meant.

mod address;
mod crc32c;
mod id;

pub use address::{BadAddress, HostPort};
pub use crc32c::{Crc32c, block_crcs};
pub use id::{BadId, ChunkId, ClusterId, Epoch, FileId, GenerationStamp, Lsn, NodeId, RequestId};
