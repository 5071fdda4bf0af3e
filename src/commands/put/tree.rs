//! `put -r`: a tree, several files in flight. Memory grows with the depth of the tree, not with its size.

use std::fs::{DirEntry, FileType, ReadDir};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use distrifs_client::{Client, PutOptions};
use tokio::task::JoinSet;

use super::{Put, directory, local_name, look_at, open};
use crate::commands::get::FILES_IN_FLIGHT_MAX;
use crate::context::Context;
use crate::error::CommandError;
use crate::progress::TransferBar;
use crate::remote_path::join;
use crate::tree_failures::TreeFailures;

/// The owner may always enter and fill a directory: without this a read-only one could not be stored.
const DIRECTORY_MODE_LEAST: u32 = 0o700;

/// A directory that is being read, and what it is called over there.
struct Level {
    entries: ReadDir,
    local: PathBuf,
    remote: String,
}

/// Stores the tree at `command.local`.
pub(super) async fn put(client: &Client, command: &Put, context: &Context) -> Result<(), CommandError> {
    let bar = TransferBar::new(context.options.quiet, &command.local.to_string_lossy());
    let failures = TreeFailures::new("put", bar.clone());
    let mut walk =
        Walk { client, options: command.options(0), bar: bar.clone(), in_flight: JoinSet::new(), failures };
    let root = match directory(client, &command.remote).await? {
        Some(_) => match local_name(&command.local)? {
            Some(name) => {
                let root = command.remote.join(name);
                client.mkdir(&root, true, mode_of(&command.local)?).await?;
                root
            }
            None => command.remote.to_string(),
        },
        None => {
            client.mkdir(command.remote.as_str(), false, mode_of(&command.local)?).await?;
            command.remote.to_string()
        }
    };
    let done = walk.run(&command.local, root).await;
    bar.finish();
    done?;
    walk.failures.finish()
}

struct Walk<'a> {
    client: &'a Client,
    options: PutOptions,
    bar: TransferBar,
    /// Never more than [`FILES_IN_FLIGHT_MAX`]; dropped, they are given up.
    in_flight: JoinSet<Result<(), CommandError>>,
    failures: TreeFailures,
}

impl Walk<'_> {
    async fn run(&mut self, local: &Path, remote: String) -> Result<(), CommandError> {
        let mut levels = vec![enter(local, remote)?];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.entries.next() else {
                levels.pop();
                continue;
            };
            let found = entry
                .map_err(|e| CommandError::local(&level.local, "list it", e))
                .and_then(|entry| examine(&entry, &level.remote));
            match found {
                Err(error) => self.failures.count(Err(error))?,
                Ok((path, remote, kind)) if kind.is_dir() => {
                    match self.enter_directory(&path, remote).await {
                        Ok(level) => levels.push(level),
                        Err(error) => self.failures.count(Err(error))?,
                    }
                }
                Ok((path, remote, _)) => self.start_file(path, remote).await?,
            }
        }
        while let Some(done) = self.in_flight.join_next().await {
            self.finished(done)?;
        }
        Ok(())
    }

    async fn enter_directory(&mut self, local: &Path, remote: String) -> Result<Level, CommandError> {
        let mode = mode_of(local)?;
        // Listed before it is made, so that one that may not be read leaves no trace.
        let level = enter(local, remote)?;
        self.client.mkdir(&level.remote, true, mode).await?;
        Ok(level)
    }

    async fn start_file(&mut self, local: PathBuf, remote: String) -> Result<(), CommandError> {
        while self.in_flight.len() >= FILES_IN_FLIGHT_MAX {
            if let Some(done) = self.in_flight.join_next().await {
                self.finished(done)?;
            }
        }
        let (client, bar, options) = (self.client.clone(), self.bar.clone(), self.options.clone());
        self.in_flight.spawn(async move {
            let metadata = look_at(&local)?;
            let source = open(&local, &metadata)?;
            let options = PutOptions { mode: metadata.permissions().mode() & 0o777, ..options };
            client.put(source, &remote, options, &bar).await?;
            Ok(())
        });
        Ok(())
    }

    fn finished(
        &mut self,
        done: Result<Result<(), CommandError>, tokio::task::JoinError>,
    ) -> Result<(), CommandError> {
        let outcome = done.unwrap_or_else(|e| Err(CommandError::Check(format!("a transfer broke off: {e}"))));
        self.failures.count(outcome)
    }
}

fn enter(local: &Path, remote: String) -> Result<Level, CommandError> {
    let entries = std::fs::read_dir(local).map_err(|e| CommandError::local(local, "list it", e))?;
    Ok(Level { entries, local: local.to_owned(), remote })
}

/// Where an entry is, what it will be called, and its type, if it can be stored at all.
fn examine(entry: &DirEntry, remote: &str) -> Result<(PathBuf, String, FileType), CommandError> {
    let path = entry.path();
    let kind = entry.file_type().map_err(|e| CommandError::local(&path, "look at it", e))?;
    let refuse = |why| Err(CommandError::LocalSource { path: entry.path(), why });
    if kind.is_symlink() {
        return refuse("skipped: a symbolic link, which DistriFS does not have");
    }
    if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
        return refuse("skipped: neither a file nor a directory");
    }
    match entry.file_name().to_str() {
        Some(name) => Ok((path, join(remote, name), kind)),
        None => refuse("skipped: the name is not UTF-8, as remote names are"),
    }
}

fn mode_of(directory: &Path) -> Result<u32, CommandError> {
    let mode = look_at(directory)?.permissions().mode() & 0o777;
    Ok(mode | DIRECTORY_MODE_LEAST)
}
