//! Where bytes from the cluster go on this machine: a file that appears whole or not at all, or a stream.
//!
//! A regular file is written under a temporary name beside its target and takes the target's place at the end.
//! Whatever ends the command before that, the temporary file goes and the target stays as it was.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use distrifs_client::GetTarget;
use tempfile::NamedTempFile;

use crate::error::CommandError;

/// How temporary files are called, with random letters behind.
const TEMPORARY_PREFIX: &str = ".distrifs-get-";

/// Bytes that one write to a stream carries at most.
const STREAM_WRITE_BYTES_MAX: usize = 1 << 20;

/// Where the bytes go.
pub(crate) enum LocalTarget {
    /// A file to be.
    File {
        /// Written meanwhile; removed when dropped.
        temporary: NamedTempFile,
        /// What it becomes.
        path: PathBuf,
        /// Whether it may take the place of a file.
        overwrite: bool,
    },
    /// Standard output, a pipe, a device: what is written is out.
    Stream(File),
}

impl LocalTarget {
    /// Decides where `given` leads: `-` is standard output; a directory takes the file under `name`.
    pub(crate) fn decide(given: &Path, name: &str, overwrite: bool, mode: u32) -> Result<Self, CommandError> {
        if given.as_os_str() == "-" {
            return standard_output().map(Self::Stream).map_err(CommandError::Output);
        }
        match std::fs::metadata(given) {
            Ok(metadata) if metadata.is_dir() => Self::at(&given.join(name), overwrite, mode),
            _ if ends_with_slash(given) => {
                Err(CommandError::local(given, "write into the directory", io::ErrorKind::NotFound.into()))
            }
            _ => Self::at(given, overwrite, mode),
        }
    }

    /// Exactly this path.
    pub(crate) fn at(path: &Path, overwrite: bool, mode: u32) -> Result<Self, CommandError> {
        match existing(path)? {
            Some(metadata) if metadata.is_dir() => {
                Err(CommandError::LocalTarget { path: path.to_owned(), why: "is a directory" })
            }
            // Renaming over a device would replace the device.
            Some(metadata) if !metadata.is_file() => OpenOptions::new()
                .write(true)
                .open(path)
                .map(Self::Stream)
                .map_err(|e| CommandError::local(path, "open it", e)),
            Some(_) if !overwrite => Err(CommandError::LocalTarget {
                path: path.to_owned(),
                why: "already exists: -f replaces it",
            }),
            found => {
                // The file behind a symbolic link is replaced, not the link.
                let path = match found {
                    Some(_) => path.canonicalize().map_err(|e| CommandError::local(path, "resolve it", e))?,
                    None => path.to_owned(),
                };
                let temporary = tempfile::Builder::new()
                    .prefix(TEMPORARY_PREFIX)
                    .permissions(Permissions::from_mode(mode & 0o777))
                    .tempfile_in(parent(&path))
                    .map_err(|e| CommandError::local(&path, "create it", e))?;
                Ok(Self::File { temporary, path, overwrite })
            }
        }
    }

    /// What the client writes.
    pub(crate) fn writer(&self) -> Result<GetTarget, CommandError> {
        match self {
            Self::File { temporary, path, .. } => temporary
                .as_file()
                .try_clone()
                .map(GetTarget::File)
                .map_err(|e| CommandError::local(path, "write it", e)),
            Self::Stream(file) => {
                let file = file.try_clone().map_err(CommandError::Output)?;
                let mut stream = tokio::fs::File::from_std(file);
                stream.set_max_buf_size(STREAM_WRITE_BYTES_MAX);
                Ok(GetTarget::Stream(Box::new(stream)))
            }
        }
    }

    /// All bytes are there: the file takes its name.
    pub(crate) fn publish(self) -> Result<(), CommandError> {
        let Self::File { temporary, path, overwrite } = self else { return Ok(()) };
        let outcome = if overwrite { temporary.persist(&path) } else { temporary.persist_noclobber(&path) };
        match outcome {
            Ok(_) => Ok(()),
            Err(e) => Err(CommandError::local(&path, "give the file its name", e.error)),
        }
    }
}

/// What is at a path, symbolic links followed; `None` where nothing is. A link to nowhere is something.
fn existing(path: &Path) -> Result<Option<Metadata>, CommandError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => match path.symlink_metadata() {
            Ok(_) => Err(CommandError::LocalTarget {
                path: path.to_owned(),
                why: "is a symbolic link to nothing: remove it first",
            }),
            Err(_) => Ok(None),
        },
        Err(e) => Err(CommandError::local(path, "look at it", e)),
    }
}

/// Standard output as a file of its own: large writes go out as they are, without a search for line ends.
fn standard_output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::exit_status::ExitStatus;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_only_when_it_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let target = LocalTarget::decide(folder.path(), "name", false, 0o640).unwrap();
        let LocalTarget::File { temporary, .. } = &target else { panic!("a file was asked for") };
        temporary.as_file().write_all(b"bytes").unwrap();
        assert!(!folder.path().join("name").exists());
        target.publish().unwrap();
        assert_eq!(std::fs::read(folder.path().join("name")).unwrap(), b"bytes");
        assert_eq!(names(folder.path()), ["name"]);
    }

    #[test]
    fn what_is_given_up_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old");
        std::fs::write(&path, b"old").unwrap();
        drop(LocalTarget::at(&path, true, 0o644).unwrap());
        assert_eq!(
            (std::fs::read(&path).unwrap(), names(folder.path())),
            (b"old".to_vec(), vec!["old".into()])
        );
        let refused = LocalTarget::at(&path, false, 0o644).err().expect("it exists");
        assert_eq!(refused.status(), ExitStatus::WrongKind);
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let target = LocalTarget::decide(Path::new("/dev/null"), "x", true, 0o644).unwrap();
        assert!(matches!(target, LocalTarget::Stream(_)));
    }

    #[test]
    fn a_missing_parent_and_a_directory_in_the_way_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let missing = LocalTarget::decide(&folder.path().join("no/file"), "x", false, 0o644).err().unwrap();
        assert_eq!(missing.status(), ExitStatus::NotFound);
        let slash = LocalTarget::decide(&folder.path().join("no/"), "x", false, 0o644).err().unwrap();
        assert_eq!(slash.status(), ExitStatus::NotFound);
        std::fs::create_dir(folder.path().join("x")).unwrap();
        let in_the_way = LocalTarget::decide(folder.path(), "x", true, 0o644).err().unwrap();
        assert_eq!(in_the_way.status(), ExitStatus::WrongKind);
    }
}
