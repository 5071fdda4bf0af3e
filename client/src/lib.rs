//! The client SDK: everything that users of DistriFS do goes through [`Client`], the command line included.
//!
//! - Namespace calls go to the master that leads ([`ClientConfig::masters`] may name several); bytes go straight to
//!   and from the datanodes.
//! - A [`put`](Client::put) that returned is durable on as many nodes as were asked for; one that failed left
//!   nothing visible. Memory is bounded whatever the size of the file.
//! - A [`get`](Client::get) writes only bytes that passed their checksums, whatever the replicas send.
//! - Every call ends within deadlines that derive from [`ClientConfig::socket_timeout`].
//!
//! Map: `master_link` speaks to the masters, `connection` and `pool` to the datanodes. `put` drives
//! `chunk_writer`, which follows the pure `writer_state`; `get` drives `chunk_reader`, which follows the pure
//! `reader_state`.

mod client;
mod config;
mod error;
mod progress;
mod status;
mod transfer;

pub use client::Client;
pub use config::ClientConfig;
pub use error::{ClientError, Result};
pub use progress::{NoProgress, Progress};
pub use status::{ChunkLocation, ClusterStatus, DataDir, FileKind, FileStatus, Node, NodeState, NodeStatus};
pub use transfer::{GetTarget, PutOptions, PutSource};
