//! Small file systems for some datanodes, so that they can be filled: in memory, in a mount namespace of this process,
//! where nobody else sees them and the kernel takes them away with it.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::CommandError;

/// Datanodes that get one.
pub(super) const SMALL_DISKS: usize = 2;
/// The size of each.
const BYTES: u64 = 512 << 20;
/// Tells the second start of this program that it is in its namespace.
const INSIDE: &str = "DISTRIFS_CHAOS_INSIDE";
/// What fills a disk.
const BALLAST: &str = "ballast";
/// The last bytes of a disk are filled in pieces of this size.
const PIECE_BYTES: u64 = 4096;

/// Starts this program once more in a mount namespace of its own, in this process; returns where that is not allowed or
/// done already.
pub(super) fn enter_namespace() -> Result<(), CommandError> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let failed = |what: &str, error: io::Error| CommandError::Check(format!("{what}: {error}"));
    let arguments: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["--mount", "--"],
        false => &["--user", "--map-root-user", "--mount", "--"],
    };
    let mut allowed = Command::new("unshare");
    let allowed = allowed.args(arguments).arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        tracing::warn!("no mount namespace is allowed here (unshare): no disk is filled");
        return Ok(());
    }
    let program = std::env::current_exe().map_err(|error| failed("this program", error))?;
    let mut command = Command::new("unshare");
    command.args(arguments).arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(failed("unshare", command.exec()))
}

/// The small disks that there are, one for each of the first datanodes.
#[derive(Debug, Default)]
pub(super) struct SmallDisks(Vec<PathBuf>);

impl SmallDisks {
    /// Mounts them at `datanode-1` and so on; none where that is not possible.
    pub(super) fn mount(folder: &Path) -> Self {
        let mut disks = Self::default();
        if std::env::var_os(INSIDE).is_none() {
            return disks;
        }
        for number in 1..=SMALL_DISKS {
            let at = folder.join(format!("datanode-{number}"));
            if let Err(error) = mount(&at) {
                tracing::warn!(%error, folder = %at.display(), "no small file system: it is not filled");
                break;
            }
            disks.0.push(at);
        }
        disks
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Leaves no byte free on a disk.
    pub(super) fn fill(&self, at: usize) -> io::Result<()> {
        let file = File::create(self.0[at].join(BALLAST))?;
        let (mut end, mut piece) = (0, BYTES / 4);
        while piece >= PIECE_BYTES {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), end, piece) {
                Ok(()) => end += piece,
                Err(rustix::io::Errno::NOSPC) => piece /= 4,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives the room back.
    pub(super) fn empty(&self, at: usize) -> io::Result<()> {
        std::fs::remove_file(self.0[at].join(BALLAST))
    }
}

impl Drop for SmallDisks {
    fn drop(&mut self) {
        for at in &self.0 {
            // What remains goes with the namespace.
            let _ = rustix::mount::unmount(at, UnmountFlags::DETACH);
        }
    }
}

fn mount(at: &Path) -> io::Result<()> {
    std::fs::create_dir_all(at)?;
    let size = std::ffi::CString::new(format!("size={BYTES}")).map_err(io::Error::other)?;
    rustix::mount::mount(
        "distrifs-chaos",
        at,
        "tmpfs",
        MountFlags::NODEV | MountFlags::NOSUID,
        size.as_c_str(),
    )?;
    // Older kernels have no O_DIRECT there.
    let direct = OFlags::RDWR | OFlags::CREATE | OFlags::DIRECT;
    let probe = at.join(BALLAST);
    let opened = rustix::fs::open(&probe, direct, Mode::RUSR | Mode::WUSR);
    let removed = std::fs::remove_file(&probe);
    match opened {
        Ok(_) => removed,
        Err(error) => {
            rustix::mount::unmount(at, UnmountFlags::DETACH)?;
            Err(error.into())
        }
    }
}
