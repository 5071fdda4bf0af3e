//! `put`: store a file, a tree or standard input.

mod tree;

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use clap::Args;
use distrifs_client::{Client, FileKind, FileStatus, PutOptions, PutSource};
use distrifs_proto::ErrorCode;
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};

use super::explain::{self, explain_help};
use crate::context::Context;
use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::output::Output;
use crate::progress::TransferBar;
use crate::remote_path::RemotePath;

/// Permission bits of new files.
const FILE_MODE: u32 = 0o644;

/// What a pipe that is put should take, as much as anybody may have by default.
const PIPE_BYTES: usize = 1 << 20;

/// Store a file, a tree or standard input.
#[derive(Debug, Args)]
#[command(
    after_help = concat!(
        "If REMOTE is a directory, LOCAL goes into it under its own name. A file appears once it is whole \
    and on as many disks as asked for; until then, and after a failure, what was there before stays.\n\n\
    With -r a tree keeps its permission bits, and a file or entry that cannot be stored (no permission, a \
    symbolic link, socket, fifo or device) is told on standard error; the rest goes on, the status is 1.\n\n",
        explain_help!(),
        "\n\nExample:\n  distrifs put -f backup.tar /backups/\n  distrifs put -r ./photos /photos\n  \
    tar c /etc | distrifs put - /backups/etc.tar"
    )
)]
pub(crate) struct Put {
    /// Replace files that are there
    #[arg(short, long)]
    force: bool,
    /// Store a whole tree
    #[arg(short, long)]
    recursive: bool,
    /// Show where the time went, hop by hop
    #[arg(long, conflicts_with = "recursive")]
    explain: bool,
    /// A file, a directory with -r, or `-` for standard input
    local: PathBuf,
    /// The path it gets, or a directory to put it into
    remote: RemotePath,
}

impl Put {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let client = context.client();
        if self.local.as_os_str() == "-" {
            return self.put_standard_input(&client, context, output).await;
        }
        let metadata = look_at(&self.local)?;
        if metadata.is_dir() {
            if !self.recursive {
                let why = "is a directory: -r stores it with everything below";
                return Err(CommandError::LocalTarget { path: self.local, why });
            }
            return tree::put(&client, &self, context).await;
        }
        let bar = TransferBar::new(context.options.quiet, &self.local.to_string_lossy());
        let target = match directory(&client, &self.remote).await? {
            Some(_) => self.remote.join(local_name(&self.local)?.unwrap_or_default()),
            None if self.remote.trailing_slash() => return Err(no_such_directory(&self.remote)),
            None => self.remote.to_string(),
        };
        let source = open(&self.local, &metadata)?;
        self.store(&client, source, &target, bar, output).await
    }

    async fn store(
        &self,
        client: &Client,
        source: PutSource,
        target: &str,
        bar: TransferBar,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let options = self.options(FILE_MODE);
        if !self.explain {
            let done = client.put(source, target, options, &bar).await;
            bar.finish();
            return Ok(done.map(drop)?);
        }
        let done = client.put_explained(source, target, options, &bar).await;
        bar.finish();
        explain::print(output, "put", target, &done?.1)
    }

    async fn put_standard_input(
        &self,
        client: &Client,
        context: &Context,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        if directory(client, &self.remote).await?.is_some() {
            return Err(CommandError::Remote {
                path: self.remote.to_string(),
                status: ExitStatus::WrongKind,
                why: "is a directory: standard input has no name, give the whole path".to_owned(),
            });
        }
        if self.remote.trailing_slash() {
            return Err(no_such_directory(&self.remote));
        }
        let stdin = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| CommandError::local(Path::new("-"), "read standard input", e))?;
        let bar = TransferBar::new(context.options.quiet, "-");
        self.store(client, stream_of(File::from(stdin)), self.remote.as_str(), bar, output).await
    }

    fn options(&self, mode: u32) -> PutOptions {
        PutOptions { overwrite: self.force, mode, ..PutOptions::default() }
    }
}

/// The status of a remote directory; `None` where there is a file or nothing.
async fn directory(client: &Client, path: &RemotePath) -> Result<Option<FileStatus>, CommandError> {
    match client.stat(path.as_str()).await {
        Ok(status) => Ok(Some(status).filter(|status| status.kind == FileKind::Directory)),
        Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn no_such_directory(path: &RemotePath) -> CommandError {
    CommandError::Remote {
        path: path.to_string(),
        status: ExitStatus::NotFound,
        why: "no such directory: `distrifs mkdir` makes one".to_owned(),
    }
}

/// What is at a path named on the command line, symbolic links followed.
fn look_at(path: &Path) -> Result<Metadata, CommandError> {
    std::fs::metadata(path).map_err(|e| CommandError::local(path, "read it", e))
}

/// The name under which a file goes into a directory; `None` for `.`, `..` and `/`, whose contents go there.
fn local_name(path: &Path) -> Result<Option<&str>, CommandError> {
    if path.as_os_str().as_encoded_bytes().ends_with(b"/.") {
        return Ok(None);
    }
    match path.file_name().map(|name| name.to_str()) {
        None => Ok(None),
        Some(Some(name)) => Ok(Some(name)),
        Some(None) => Err(CommandError::LocalSource {
            path: path.to_owned(),
            why: "the name is not UTF-8, as remote names are: put it under a name of your choice",
        }),
    }
}

/// What the client reads: a regular file at offsets, anything else as a stream.
fn open(path: &Path, metadata: &Metadata) -> Result<PutSource, CommandError> {
    let file = File::open(path).map_err(|e| CommandError::local(path, "open it", e))?;
    // Files of /proc say that they are empty and are not.
    let says_nothing = metadata.len() == 0 && file.read_at(&mut [0], 0).is_ok_and(|read| read > 0);
    if metadata.is_file() && !says_nothing {
        // The length of what was opened, should the path have changed hands since.
        let len = file.metadata().map_err(|e| CommandError::local(path, "read it", e))?.len();
        return Ok(PutSource::File(file, len));
    }
    Ok(stream_of(file))
}

/// All that comes. A pipe takes as much as one frame has where it may: each turn of reading has its price.
fn stream_of(file: File) -> PutSource {
    if fcntl_getpipe_size(&file).is_ok_and(|size| size < PIPE_BYTES) {
        // Who may not have so much reads in smaller pieces.
        let _ = fcntl_setpipe_size(&file, PIPE_BYTES);
    }
    PutSource::Stream(Box::new(tokio::fs::File::from_std(file)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn names_are_taken_as_cp_takes_them() {
        for (path, name) in [
            ("/a/b", Some("b")),
            ("b/", Some("b")),
            ("-x", Some("-x")),
            (".", None),
            ("a/.", None),
            ("..", None),
            ("/", None),
        ] {
            assert_eq!(local_name(Path::new(path)).expect(path), name, "{path}");
        }
        assert!(local_name(Path::new(OsStr::from_bytes(b"a/\xff"))).is_err());
    }

    #[test]
    fn a_pipe_that_is_put_grows_and_never_shrinks() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let pipe = File::from(read);
        let put = || drop(stream_of(pipe.try_clone().unwrap()));
        let size = || fcntl_getpipe_size(&pipe).unwrap();
        let may_grow = fcntl_setpipe_size(&pipe, PIPE_BYTES).is_ok();
        fcntl_setpipe_size(&pipe, 4096).unwrap();
        put();
        assert_eq!(size() >= PIPE_BYTES, may_grow);
        // Who may have more, has it still.
        if fcntl_setpipe_size(&pipe, 2 * PIPE_BYTES).is_ok() {
            put();
            assert_eq!(size(), 2 * PIPE_BYTES);
        }
        // What is no pipe stays as it is.
        drop(stream_of(tempfile::tempfile().unwrap()));
    }

    #[test]
    fn a_file_that_lies_about_its_length_is_read_as_a_stream() {
        let path = Path::new("/proc/self/status");
        assert!(matches!(open(path, &look_at(path).unwrap()).unwrap(), PutSource::Stream(_)));
        let empty = tempfile::NamedTempFile::new().unwrap();
        let source = open(empty.path(), &look_at(empty.path()).unwrap()).unwrap();
        assert!(matches!(source, PutSource::File(_, 0)));
    }
}
