//! Shared test code: real clusters of real processes, each in a folder of its own, on free ports.
//!
//! - [`Cluster`]: start it, run commands against it, kill and restart its daemons, look at its disks.
//! - [`Local`]: the same as a user starts it, for benchmarks.
//! - [`Outcome`]: what a command printed and how it ended.
//! - [`CountingAllocator`]: what threads allocate.
//! - [`wait_until`]: for what takes a moment; its deadline is generous, and no test asserts on time.
//!
//! A cluster takes everything with it when it is dropped: processes first, then its folder.

mod allocations;
mod bytes;
mod cluster;
mod command;
mod daemon;
mod local;
mod replica;
mod tree;
mod wait;

pub use allocations::{CountingAllocator, allocations, allocations_of_threads};
pub use bytes::random_bytes;
pub use cluster::{Cluster, ClusterOptions};
pub use command::{Outcome, bare_command, run};
pub use daemon::{Daemon, free_port};
pub use local::Local;
pub use replica::ReplicaFile;
pub use tree::{Entry, files_below, tree_of};
pub use wait::{DEADLINE, wait_until};
