//! The storage engine: everything of DistriFS that touches a disk.
//!
//! - [`io`]: the seam over the operating system, with three bodies: io_uring, POSIX threads, simulated.
//! - [`store`]: the chunk store of a datanode's data folder.
//! - [`log`]: the write-ahead log of the master, with group commit.
//! - [`checkpoint`]: the store of the master's checkpoints.
//! - [`durable_file`]: replacing a small file safely.
//!
//! The engine knows nothing of gRPC, of the namespace, or of who asked.

pub mod checkpoint;
pub mod durable_file;
mod folder;
pub mod io;
pub mod log;
pub mod store;
