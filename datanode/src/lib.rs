//! The datanode: stores chunks, forwards them down the pipeline, serves reads, and keeps the master informed.
//!
//! - `datanode`: starts and stops everything; `acceptor` hands connections to the shards.
//! - `folders`: whose the data folders are, what they hold, and which are left out.
//! - `shard`: the data plane, a thread per core on the I/O seam; `pipeline` decides what a hop answers.
//! - `control`: the session with the master, and the inventory that reports are cut from.
//! - `scrub`: which replica is read whole next, so that rot is found before it is met; `pace`: when it makes way for
//!   users. Pure, both.
//! - `stage`: the stages of a chunk's way through this node, which are timed.
//! - `node`: the few things that all threads share.
//!
//! It does not know paths, files or users, and decides nothing about where chunks go.

mod acceptor;
mod config;
mod control;
mod datanode;
mod folders;
mod http;
mod node;
mod pace;
mod pipeline;
mod scrub;
mod shard;
mod stage;

pub use config::DatanodeConfig;
pub use datanode::{Datanode, StartError};
pub use distrifs_engine::io::IoMode;
