//! The bytes of a command in the log.
//!
//! ```text
//! version: u8 = 1 | protobuf `Record`
//! ```
//! The log around it keeps length, checksum, LSN and epoch. Field numbers are never reused; a newer version is
//! refused, an older one is read.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use distrifs_proto::types::{ChunkId, Crc32c, Epoch, FileId, GenerationStamp, RequestId};
use prost::Message;

use super::command::{Command, Operation, WrittenChunk};
use super::path::{NsPath, PathError};
use crate::permission::Caller;

const VERSION: u8 = 1;

/// Why bytes are not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// No bytes at all.
    #[error("an empty record")]
    Empty,
    /// Written by a newer version.
    #[error("command version {0}, this one reads up to {VERSION}")]
    Newer(u8),
    /// Not what we write.
    #[error("not a command: {0}")]
    Encoding(#[from] prost::DecodeError),
    /// A path that the namespace does not take.
    #[error("a path: {0}")]
    Path(#[from] PathError),
    /// A field that must be there, or does not fit its type.
    #[error("field {0} is missing or does not fit")]
    Field(&'static str),
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    at_ms: i64,
    #[prost(message, optional, tag = "2")]
    request: Option<Request>,
    #[prost(message, optional, tag = "3")]
    caller: Option<CallerRecord>,
    #[prost(
        oneof = "Body",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28"
    )]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(fixed64, tag = "1")]
    high: u64,
    #[prost(fixed64, tag = "2")]
    low: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CallerRecord {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, repeated, tag = "2")]
    groups: Vec<String>,
    #[prost(bool, tag = "3")]
    superuser: bool,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    #[prost(message, tag = "10")]
    Mkdir(Mkdir),
    #[prost(message, tag = "11")]
    Create(Create),
    #[prost(message, tag = "12")]
    AllocateChunk(AllocateChunk),
    #[prost(message, tag = "13")]
    Complete(Complete),
    #[prost(message, tag = "14")]
    Abandon(Abandon),
    #[prost(message, tag = "15")]
    RenewLeases(RenewLeases),
    #[prost(message, tag = "16")]
    ExpireLeases(ExpireLeases),
    #[prost(message, tag = "17")]
    Rename(Rename),
    #[prost(message, tag = "18")]
    Remove(Remove),
    #[prost(message, tag = "19")]
    ForgetTombstones(ForgetTombstones),
    #[prost(message, tag = "20")]
    Copy(Copy),
    #[prost(message, tag = "21")]
    SetMode(SetMode),
    #[prost(message, tag = "22")]
    SetOwner(SetOwner),
    #[prost(message, tag = "23")]
    SetReplication(SetReplication),
    #[prost(message, tag = "24")]
    AcceptLoss(AcceptLoss),
    #[prost(message, tag = "25")]
    ReserveChunks(ReserveChunks),
    #[prost(message, tag = "26")]
    PutWhole(PutWhole),
    #[prost(message, tag = "27")]
    BuryChunks(BuryChunks),
    #[prost(message, tag = "28")]
    Reap(Reap),
}

#[derive(Clone, PartialEq, Message)]
struct Mkdir {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(bool, tag = "2")]
    parents: bool,
    #[prost(uint32, tag = "3")]
    mode: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Create {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(bool, tag = "2")]
    overwrite: bool,
    #[prost(uint32, tag = "3")]
    mode: u32,
    #[prost(uint32, tag = "4")]
    replication: u32,
    #[prost(uint32, tag = "5")]
    chunk_size: u32,
    #[prost(int64, tag = "6")]
    lease_until_ms: i64,
    #[prost(fixed64, optional, tag = "7")]
    chunk: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct AllocateChunk {
    #[prost(fixed64, tag = "1")]
    file: u64,
    #[prost(fixed64, tag = "2")]
    chunk: u64,
    #[prost(fixed64, optional, tag = "3")]
    abandon: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Complete {
    #[prost(fixed64, tag = "1")]
    file: u64,
    /// Each less the one before: ids grow slowly, so most take a byte.
    #[prost(sint64, repeated, tag = "2")]
    chunk_steps: Vec<i64>,
    #[prost(uint64, repeated, tag = "3")]
    generations: Vec<u64>,
    /// Each less the one before: nearly all are 0.
    #[prost(sint64, repeated, tag = "4")]
    length_steps: Vec<i64>,
    #[prost(fixed32, repeated, tag = "5")]
    crc32cs: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Abandon {
    #[prost(fixed64, tag = "1")]
    file: u64,
}

#[derive(Clone, PartialEq, Message)]
struct RenewLeases {
    #[prost(fixed64, repeated, tag = "1")]
    files: Vec<u64>,
    #[prost(int64, tag = "2")]
    until_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ExpireLeases {
    #[prost(int64, tag = "1")]
    before_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Rename {
    #[prost(string, tag = "1")]
    source: String,
    #[prost(string, tag = "2")]
    target: String,
    #[prost(bool, tag = "3")]
    overwrite: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Remove {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(bool, tag = "2")]
    recursive: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ForgetTombstones {
    #[prost(fixed64, repeated, tag = "1")]
    chunks: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Copy {
    #[prost(string, tag = "1")]
    source: String,
    #[prost(string, tag = "2")]
    target: String,
    #[prost(bool, tag = "3")]
    overwrite: bool,
}

#[derive(Clone, PartialEq, Message)]
struct SetMode {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(uint32, tag = "2")]
    mode: u32,
}

#[derive(Clone, PartialEq, Message)]
struct SetOwner {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(string, optional, tag = "2")]
    owner: Option<String>,
    #[prost(string, optional, tag = "3")]
    group: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct SetReplication {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(uint32, tag = "2")]
    replication: u32,
}

#[derive(Clone, PartialEq, Message)]
struct AcceptLoss {
    #[prost(uint64, tag = "1")]
    epoch: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ReserveChunks {
    #[prost(uint32, tag = "1")]
    count: u32,
}

#[derive(Clone, PartialEq, Message)]
struct PutWhole {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(bool, tag = "2")]
    overwrite: bool,
    #[prost(uint32, tag = "3")]
    mode: u32,
    #[prost(uint32, tag = "4")]
    replication: u32,
    #[prost(uint32, tag = "5")]
    chunk_size: u32,
    #[prost(message, optional, tag = "6")]
    chunk: Option<Written>,
}

/// A single chunk; of those of a completion see [`Complete`].
#[derive(Clone, PartialEq, Message)]
struct Written {
    #[prost(uint64, tag = "1")]
    chunk: u64,
    #[prost(uint64, tag = "2")]
    generation: u64,
    #[prost(uint64, tag = "3")]
    length: u64,
    #[prost(fixed32, tag = "4")]
    crc32c: u32,
}

#[derive(Clone, PartialEq, Message)]
struct BuryChunks {
    /// Each less the one before: most take a byte.
    #[prost(sint64, repeated, tag = "1")]
    chunk_steps: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Reap {
    #[prost(uint32, tag = "1")]
    items: u32,
}

/// The bytes of a command.
pub(crate) fn encode(command: &Command) -> Bytes {
    let record = Record {
        at_ms: command.at_ms,
        request: command.request.map(|id| Request { high: (id.0 >> 64) as u64, low: id.0 as u64 }),
        caller: Some(CallerRecord {
            user: command.caller.user.clone(),
            groups: command.caller.groups.clone(),
            superuser: command.caller.superuser,
        }),
        body: Some(body_of(&command.operation)),
    };
    let mut bytes = BytesMut::with_capacity(1 + record.encoded_len());
    bytes.put_u8(VERSION);
    record.encode_raw(&mut bytes);
    bytes.freeze()
}

/// The command of these bytes.
///
/// # Errors
/// [`FormatError`]; whatever the bytes are, never a panic.
pub(crate) fn decode(bytes: &[u8]) -> Result<Command, FormatError> {
    let (version, rest) = bytes.split_first().ok_or(FormatError::Empty)?;
    if *version > VERSION {
        return Err(FormatError::Newer(*version));
    }
    if *version == 0 {
        return Err(FormatError::Field("version"));
    }
    let record = Record::decode(rest)?;
    let caller = record.caller.ok_or(FormatError::Field("caller"))?;
    Ok(Command {
        at_ms: record.at_ms,
        request: record.request.map(|id| RequestId(u128::from(id.high) << 64 | u128::from(id.low))),
        caller: Arc::new(Caller { user: caller.user, groups: caller.groups, superuser: caller.superuser }),
        operation: operation_of(record.body.ok_or(FormatError::Field("body"))?)?,
    })
}

fn body_of(operation: &Operation) -> Body {
    match operation {
        Operation::Mkdir { path, parents, mode } => {
            Body::Mkdir(Mkdir { path: path.to_string(), parents: *parents, mode: u32::from(*mode) })
        }
        Operation::Create { path, overwrite, mode, replication, chunk_size, lease_until_ms, chunk } => {
            Body::Create(Create {
                path: path.to_string(),
                overwrite: *overwrite,
                mode: u32::from(*mode),
                replication: u32::from(*replication),
                chunk_size: *chunk_size,
                lease_until_ms: *lease_until_ms,
                chunk: chunk.map(|id| id.0),
            })
        }
        Operation::AllocateChunk { file, chunk, abandon } => Body::AllocateChunk(AllocateChunk {
            file: file.0,
            chunk: chunk.0,
            abandon: abandon.map(|id| id.0),
        }),
        Operation::Complete { file, chunks } => Body::Complete(Complete {
            file: file.0,
            chunk_steps: steps(chunks.iter().map(|it| it.chunk.0)),
            generations: chunks.iter().map(|it| it.generation.0).collect(),
            length_steps: steps(chunks.iter().map(|it| it.length)),
            crc32cs: chunks.iter().map(|it| it.crc.0).collect(),
        }),
        Operation::Abandon { file } => Body::Abandon(Abandon { file: file.0 }),
        Operation::RenewLeases { files, until_ms } => Body::RenewLeases(RenewLeases {
            files: files.iter().map(|id| id.0).collect(),
            until_ms: *until_ms,
        }),
        Operation::ExpireLeases { before_ms } => Body::ExpireLeases(ExpireLeases { before_ms: *before_ms }),
        Operation::Rename { source, target, overwrite } => Body::Rename(Rename {
            source: source.to_string(),
            target: target.to_string(),
            overwrite: *overwrite,
        }),
        Operation::Remove { path, recursive } => {
            Body::Remove(Remove { path: path.to_string(), recursive: *recursive })
        }
        Operation::Copy { source, target, overwrite } => {
            Body::Copy(Copy { source: source.to_string(), target: target.to_string(), overwrite: *overwrite })
        }
        Operation::SetMode { path, mode } => {
            Body::SetMode(SetMode { path: path.to_string(), mode: u32::from(*mode) })
        }
        Operation::SetOwner { path, owner, group } => {
            Body::SetOwner(SetOwner { path: path.to_string(), owner: owner.clone(), group: group.clone() })
        }
        Operation::SetReplication { path, replication } => Body::SetReplication(SetReplication {
            path: path.to_string(),
            replication: u32::from(*replication),
        }),
        Operation::ForgetTombstones { chunks } => {
            Body::ForgetTombstones(ForgetTombstones { chunks: chunks.iter().map(|id| id.0).collect() })
        }
        Operation::AcceptLoss { epoch } => Body::AcceptLoss(AcceptLoss { epoch: epoch.0 }),
        Operation::ReserveChunks { count } => Body::ReserveChunks(ReserveChunks { count: *count }),
        Operation::PutWhole { path, overwrite, mode, replication, chunk_size, chunk } => {
            Body::PutWhole(PutWhole {
                path: path.to_string(),
                overwrite: *overwrite,
                mode: u32::from(*mode),
                replication: u32::from(*replication),
                chunk_size: *chunk_size,
                chunk: chunk.map(|it| Written {
                    chunk: it.chunk.0,
                    generation: it.generation.0,
                    length: it.length,
                    crc32c: it.crc.0,
                }),
            })
        }
        Operation::BuryChunks { chunks } => {
            Body::BuryChunks(BuryChunks { chunk_steps: steps(chunks.iter().map(|it| it.0)) })
        }
        Operation::Reap { items } => Body::Reap(Reap { items: *items }),
    }
}

fn operation_of(body: Body) -> Result<Operation, FormatError> {
    Ok(match body {
        Body::Mkdir(it) => Operation::Mkdir {
            path: NsPath::parse(&it.path)?,
            parents: it.parents,
            mode: u16::try_from(it.mode).map_err(|_| FormatError::Field("mode"))?,
        },
        Body::Create(it) => Operation::Create {
            path: NsPath::parse(&it.path)?,
            overwrite: it.overwrite,
            mode: u16::try_from(it.mode).map_err(|_| FormatError::Field("mode"))?,
            replication: u8::try_from(it.replication).map_err(|_| FormatError::Field("replication"))?,
            chunk_size: it.chunk_size,
            lease_until_ms: it.lease_until_ms,
            chunk: it.chunk.map(ChunkId),
        },
        Body::AllocateChunk(it) => Operation::AllocateChunk {
            file: FileId(it.file),
            chunk: ChunkId(it.chunk),
            abandon: it.abandon.map(ChunkId),
        },
        Body::Complete(it) => Operation::Complete { file: FileId(it.file), chunks: written_of(&it)? },
        Body::Abandon(it) => Operation::Abandon { file: FileId(it.file) },
        Body::RenewLeases(it) => Operation::RenewLeases {
            files: it.files.into_iter().map(FileId).collect(),
            until_ms: it.until_ms,
        },
        Body::ExpireLeases(it) => Operation::ExpireLeases { before_ms: it.before_ms },
        Body::Rename(it) => Operation::Rename {
            source: NsPath::parse(&it.source)?,
            target: NsPath::parse(&it.target)?,
            overwrite: it.overwrite,
        },
        Body::Remove(it) => Operation::Remove { path: NsPath::parse(&it.path)?, recursive: it.recursive },
        Body::Copy(it) => Operation::Copy {
            source: NsPath::parse(&it.source)?,
            target: NsPath::parse(&it.target)?,
            overwrite: it.overwrite,
        },
        Body::SetMode(it) => Operation::SetMode {
            path: NsPath::parse(&it.path)?,
            mode: u16::try_from(it.mode).map_err(|_| FormatError::Field("mode"))?,
        },
        Body::SetOwner(it) => {
            Operation::SetOwner { path: NsPath::parse(&it.path)?, owner: it.owner, group: it.group }
        }
        Body::SetReplication(it) => Operation::SetReplication {
            path: NsPath::parse(&it.path)?,
            replication: u8::try_from(it.replication).map_err(|_| FormatError::Field("replication"))?,
        },
        Body::ForgetTombstones(it) => {
            Operation::ForgetTombstones { chunks: it.chunks.into_iter().map(ChunkId).collect() }
        }
        Body::AcceptLoss(it) => Operation::AcceptLoss { epoch: Epoch(it.epoch) },
        Body::ReserveChunks(it) => Operation::ReserveChunks { count: it.count },
        Body::PutWhole(it) => Operation::PutWhole {
            path: NsPath::parse(&it.path)?,
            overwrite: it.overwrite,
            mode: u16::try_from(it.mode).map_err(|_| FormatError::Field("mode"))?,
            replication: u8::try_from(it.replication).map_err(|_| FormatError::Field("replication"))?,
            chunk_size: it.chunk_size,
            chunk: it.chunk.map(|it| WrittenChunk {
                chunk: ChunkId(it.chunk),
                generation: GenerationStamp(it.generation),
                length: it.length,
                crc: Crc32c(it.crc32c),
            }),
        },
        Body::BuryChunks(it) => {
            Operation::BuryChunks { chunks: summed(&it.chunk_steps).map(ChunkId).collect() }
        }
        Body::Reap(it) => Operation::Reap { items: it.items },
    })
}

/// The difference of each to the one before, the first to 0.
fn steps(values: impl Iterator<Item = u64>) -> Vec<i64> {
    let mut before = 0;
    values
        .map(|value| {
            let step = value.wrapping_sub(before) as i64;
            before = value;
            step
        })
        .collect()
}

/// The values of [`steps`].
fn summed(steps: &[i64]) -> impl Iterator<Item = u64> + '_ {
    steps.iter().scan(0u64, |value, step| {
        *value = value.wrapping_add(*step as u64);
        Some(*value)
    })
}

fn written_of(it: &Complete) -> Result<Vec<WrittenChunk>, FormatError> {
    let count = it.chunk_steps.len();
    if [it.generations.len(), it.length_steps.len(), it.crc32cs.len()] != [count; 3] {
        return Err(FormatError::Field("chunks"));
    }
    let values = summed(&it.chunk_steps).zip(summed(&it.length_steps));
    let rest = it.generations.iter().zip(&it.crc32cs);
    let chunks = values.zip(rest).map(|((chunk, length), (generation, crc))| WrittenChunk {
        chunk: ChunkId(chunk),
        generation: GenerationStamp(*generation),
        length,
        crc: Crc32c(*crc),
    });
    Ok(chunks.collect())
}

#[cfg(test)]
#[path = "format_test.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::samples;
