//! The client SDK: everything that users of DistriFS do goes through [`Client`], the command line included.
//!
//! - Namespace calls go to the master that leads ([`ClientConfig::masters`] may name several); bytes go straight to
//!   and from the datanodes.
//! - A [`put`](Client::put) that returned is durable on as many nodes as were asked for; one that failed left
//!   nothing visible. Memory is bounded whatever the size of the file.
//! - A [`get`](Client::get) writes only bytes that passed their checksums, whatever the replicas send.
//! - Every call ends within deadlines that derive from [`ClientConfig::socket_timeout`].
//!
//! | where is ...? | |
//! |---|---|
//! | the leader found, a call tried again | `master_link`, `retry` |
//! | a TCP connection, frames off it, idle ones kept | `connection`, `pool`, `buffer` |
//! | one connection for many small reads; those of a client; what is sound of it (pure) | `read_link`; `read_links`; `link_state` |
//! | whom to blame, when to plan anew (pure) | `writer_state` |
//! | one chunk written, a small one to all nodes at once; a whole file; a small one, in one step | `chunk_writer`, `fan_out`, `source`; `put`, `plan`, `lease`; `whole` |
//! | how many grants are taken ahead (pure) | `grants` |
//! | which replica next, which frame is sound (pure) | `reader_state` |
//! | when a second replica is asked as well (pure) | `hedge` |
//! | where the time of an operation goes | `tracer` notes, `ask` asks, `explain` says |
//! | the health of files and chunks | `health` |
//! | one chunk read; a whole file; a file read at many places | `chunk_reader`, `sink`, `reports`; `get`, `read_plan`; `open_file`, `small_read` |

mod ask;
mod buffer;
mod chunk_reader;
mod chunk_writer;
mod client;
mod config;
mod connection;
mod context;
mod error;
mod explain;
mod fan_out;
mod file_thread;
mod get;
mod grants;
mod health;
mod hedge;
mod lease;
mod link_state;
mod master_link;
mod meter;
mod open_file;
mod plan;
mod pool;
mod progress;
mod put;
mod read_link;
mod read_links;
mod read_plan;
mod reader_state;
mod reports;
mod retry;
mod sink;
mod small_read;
mod source;
mod status;
mod tracer;
mod transfer;
mod whole;
mod writer_state;

pub use client::Client;
pub use config::ClientConfig;
pub use error::{ClientError, Result};
pub use explain::{Explanation, Row, Who};
pub use health::{ChunkStory, HealthSums, Problem, ReplicaStory, UnhealthyChunk, UnhealthyFile};
pub use open_file::{OpenFile, READ_BYTES_MAX};
pub use progress::{NoProgress, Progress};
pub use status::{
    ChunkLocation, ClusterStatus, DataDir, FileKind, FileStatus, Node, NodeState, NodeStatus, ScrubStatus,
    Usage,
};
pub use transfer::{GetTarget, PutOptions, PutSource};
