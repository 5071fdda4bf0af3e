//! Whether io_uring works here: not by version, but by doing it. Containers deny it by seccomp, hosts by
//! sysctl, and old kernels know only some of its operations.

use std::io;
use std::path::Path;
use std::thread;

use monoio::fs::File;
use monoio::{IoUringDriver, RuntimeBuilder};
use rustix::fs::{MemfdFlags, memfd_create};

/// A small ring: the probe only has one operation at a time.
const PROBE_ENTRIES: u32 = 256;
const PROBE_BYTES: &[u8] = b"io_uring";

/// Builds a ring, writes, syncs and reads a file of memory through it, and asks for each operation on paths
/// that the seam needs; the error is a one-line reason.
pub fn probe_uring() -> Result<(), String> {
    // On a thread of its own: the caller's may already have a runtime.
    let probe = thread::Builder::new().name("io-probe".to_owned()).spawn(probe_here);
    let probe = probe.map_err(|error| format!("no thread to probe io_uring on: {error}"))?;
    probe.join().unwrap_or_else(|_| Err("the probe of io_uring panicked".to_owned()))
}

fn probe_here() -> Result<(), String> {
    let runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(PROBE_ENTRIES).build();
    let mut runtime = runtime.map_err(|error| format!("io_uring_setup: {error}{}", hint(&error)))?;
    runtime.block_on(async {
        probe_bytes().await.map_err(|error| format!("a write and a read through io_uring: {error}"))?;
        probe_paths().await
    })
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (denied by seccomp, as in containers by default, or by the sysctl kernel.io_uring_disabled)"
        }
        io::ErrorKind::Unsupported => " (this kernel has no io_uring)",
        _ => "",
    }
}

async fn probe_bytes() -> io::Result<()> {
    let memory = std::fs::File::from(memfd_create("distrifs-probe", MemfdFlags::CLOEXEC)?);
    let file = File::from_std(memory)?;
    let (written, _) = file.write_all_at(PROBE_BYTES, 0).await;
    written?;
    file.sync_data().await?;
    let (read, bytes) = file.read_exact_at(vec![0; PROBE_BYTES.len()], 0).await;
    read?;
    file.close().await?;
    if bytes == PROBE_BYTES { Ok(()) } else { Err(io::Error::other("the bytes came back changed")) }
}

/// An operation that the kernel knows says that there is no such file; one that it does not know, that the
/// request is invalid.
async fn probe_paths() -> Result<(), String> {
    let nowhere = Path::new("/proc/self/fd/no-such-directory/file");
    let open = File::open(nowhere).await.map(drop);
    let known = [
        ("openat", open),
        ("renameat", monoio::fs::rename(nowhere, nowhere).await),
        ("unlinkat", monoio::fs::remove_file(nowhere).await),
        ("mkdirat", monoio::fs::create_dir(nowhere).await),
    ];
    for (operation, result) in known {
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{operation} through io_uring: {error}")),
            Ok(()) => return Err(format!("{operation} through io_uring worked where nothing is")),
        }
    }
    Ok(())
}
