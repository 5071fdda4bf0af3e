//! The seam between DistriFS and the operating system: files, sockets, time and tasks of one thread.
//!
//! Three bodies keep the same promises, checked by one conformance suite (`engine/tests/conformance`):
//! [`IoMode::Uring`] (io_uring through monoio), [`IoMode::Posix`] (threads for files, epoll for sockets; where
//! io_uring is denied, as in containers by default) and the simulated one (memory, seeded faults, power cuts).
//! Nothing above this module names a runtime.
//!
//! Rules for callers (FINDINGS, "the runtimes' traps"):
//! - Buffers are owned by the operation and come back with its result.
//! - A disk operation is never put under [`Io::timeout`] or in a `select!`: spawn it and drop the handle.
//! - A receive that was dropped may have consumed bytes: close that connection.
