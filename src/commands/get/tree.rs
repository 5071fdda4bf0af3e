//! `get -r`: a tree, several files in flight, listed page by page.

use std::fs::{DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use distrifs_client::{Client, FileKind, FileStatus};
use tokio::task::{JoinError, JoinSet};

use super::{FILES_IN_FLIGHT_MAX, Get, fetch, tree_root};
use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::local_target::LocalTarget;
use crate::progress::TransferBar;
use crate::tree_failures::TreeFailures;

/// What the owner needs to fill a directory.
const FILLABLE: u32 = 0o700;

/// Fetches the directory `command.remote`, whose status is `status`, with everything below.
pub(super) async fn get(
    client: &Client,
    command: &Get,
    status: &FileStatus,
    bar: TransferBar,
) -> Result<(), CommandError> {
    let root = tree_root(&command.local, &command.remote);
    let mut fetching = Fetching {
        client,
        command,
        root,
        failures: TreeFailures::new("get", bar.clone()),
        bar: bar.clone(),
        in_flight: JoinSet::new(),
        closed_directories: Vec::new(),
    };
    fetching.make_directory(Path::new(""), status.mode)?;
    let done = fetching.run().await;
    bar.finish();
    done?;
    fetching.failures.finish()
}

struct Fetching<'a> {
    client: &'a Client,
    command: &'a Get,
    root: PathBuf,
    failures: TreeFailures,
    bar: TransferBar,
    /// Never more than [`FILES_IN_FLIGHT_MAX`]; dropped, they are given up.
    in_flight: JoinSet<Result<(), CommandError>>,
    /// Directories that get their bits once they are filled, since these keep even the owner out.
    closed_directories: Vec<(PathBuf, u32)>,
}

impl Fetching<'_> {
    async fn run(&mut self) -> Result<(), CommandError> {
        let mut start_after = String::new();
        loop {
            let remote = self.command.remote.as_str();
            let (entries, more) = self.client.list_page(remote, true, &start_after).await?;
            let last = entries.last().map(|entry| entry.path.clone());
            for entry in entries {
                self.entry(entry).await?;
            }
            match last {
                // Each page must lead further, whatever the master says.
                Some(last) if more && last != start_after => start_after = last,
                _ => break,
            }
        }
        while let Some(done) = self.in_flight.join_next().await {
            self.finished(done)?;
        }
        // The deepest first: their parents may not let us in afterwards.
        for (path, mode) in std::mem::take(&mut self.closed_directories).into_iter().rev() {
            let set = std::fs::set_permissions(&path, Permissions::from_mode(mode))
                .map_err(|e| CommandError::local(&path, "set its mode", e));
            self.failures.count(set)?;
        }
        Ok(())
    }

    async fn entry(&mut self, entry: FileStatus) -> Result<(), CommandError> {
        let relative = Path::new(&entry.path);
        // Nothing that a master says leads out of the target folder.
        if relative.as_os_str().is_empty()
            || !relative.components().all(|part| matches!(part, Component::Normal(_)))
        {
            let why = "not a name that can be fetched".to_owned();
            return self.failures.count(Err(CommandError::Remote {
                path: self.command.remote.join(&entry.path),
                status: ExitStatus::Failed,
                why,
            }));
        }
        if entry.kind == FileKind::Directory {
            let made = self.make_directory(relative, entry.mode);
            return self.failures.count(made);
        }
        while self.in_flight.len() >= FILES_IN_FLIGHT_MAX {
            if let Some(done) = self.in_flight.join_next().await {
                self.finished(done)?;
            }
        }
        let (client, bar, force) = (self.client.clone(), self.bar.clone(), self.command.force);
        let (remote, local) = (self.command.remote.join(&entry.path), self.root.join(relative));
        self.in_flight.spawn(async move {
            fetch(&client, &remote, LocalTarget::at(&local, force, entry.mode)?, &bar).await
        });
        Ok(())
    }

    fn make_directory(&mut self, relative: &Path, mode: u32) -> Result<(), CommandError> {
        let path = if relative == Path::new("") { self.root.clone() } else { self.root.join(relative) };
        let mode = mode & 0o777;
        match DirBuilder::new().mode(mode | FILLABLE).create(&path) {
            Ok(()) if mode & FILLABLE != FILLABLE => {
                self.closed_directories.push((path, mode));
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(e) => Err(CommandError::local(&path, "make the directory", e)),
        }
    }

    fn finished(&mut self, done: Result<Result<(), CommandError>, JoinError>) -> Result<(), CommandError> {
        let outcome = done.unwrap_or_else(|e| Err(CommandError::Check(format!("a transfer broke off: {e}"))));
        self.failures.count(outcome)
    }
}
