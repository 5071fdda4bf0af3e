//! The seam between DistriFS and the operating system: files, sockets, time and tasks of one thread.
//!
//! Three bodies keep the same promises, checked by one conformance suite (`engine/tests/conformance`):
//! [`Body::Uring`] (io_uring through monoio), [`Body::Posix`] (threads for files, epoll for sockets; where
//! io_uring is denied, as in containers by default) and [`Body::Sim`] (memory, seeded faults, power cuts).
//! Nothing above this module names a runtime.
//!
//! Rules for callers:
//! - Buffers are owned by the operation and come back with its result.
//! - A disk operation is never put under [`Io::timeout`] or in a `select!`: spawn it and drop the handle.
//!   (An operation that was dropped all the same still runs to its end, with its buffer and descriptor.)
//! - A receive that was dropped may have consumed bytes: close that connection.
//! - When `main` ends, so does the body: operations in flight are finished, spawned tasks are dropped at
//!   their next operation.

mod body;
mod buf;
mod drain;
mod file;
mod file_system;
mod handle;
mod net;
mod page_cache;
mod posix;
mod probe;
mod sim;
mod small_files;
mod socket;
mod syscall;
mod tasks;
mod uring;
mod window;

pub use body::{Body, IoMode, IoModeUnknown, block_on, block_on_inline};
pub use buf::{BUF_ALIGN, Buf, BufPool, Shared};
pub use file::{DirEntry, File, Open, Space};
pub use file_system::FileSystem;
pub use handle::{Elapsed, Io};
pub use net::{
    LISTEN_BACKLOG, Listener, RecvHalf, SOCKET_BUFFER_BYTES, SOCKET_USER_TIMEOUT, SendHalf, Stream,
};
pub use probe::probe_uring;
pub use sim::{Faults, SimOperation, SimWorld};
pub(crate) use small_files::is_gone;
pub use small_files::{FileBytes, PathError};
pub use window::Window;
