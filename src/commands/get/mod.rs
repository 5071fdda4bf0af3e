//! `get`: fetch a file or a tree.

mod tree;

use std::path::{Path, PathBuf};

use clap::Args;
use distrifs_client::{Client, FileKind};

use super::explain::{self, explain_help};
use crate::context::Context;
use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::local_target::LocalTarget;
use crate::output::Output;
use crate::progress::TransferBar;
use crate::remote_path::RemotePath;

/// How many files of a tree travel at once.
pub(crate) const FILES_IN_FLIGHT_MAX: usize = 8;

/// Fetch a file or a tree.
#[derive(Debug, Args)]
#[command(
    after_help = concat!(
        "If LOCAL is a directory, REMOTE goes into it under its own name. A file is written under a temporary \
    name beside its target and appears once it is whole and verified; a failure leaves nothing of it. \
    With -r, permission bits are kept within your umask.\n\n",
        explain_help!(),
        "\n\nExample:\n  distrifs get /backups/home.tar .\n  distrifs get -r /photos ./photos\n  \
    distrifs get /backups/etc.tar - | tar t"
    )
)]
pub(crate) struct Get {
    /// Replace files that are there
    #[arg(short, long)]
    force: bool,
    /// Fetch a whole tree
    #[arg(short, long)]
    recursive: bool,
    /// Show where the time went, hop by hop
    #[arg(long, conflicts_with = "recursive")]
    explain: bool,
    /// A file, or a directory with -r
    remote: RemotePath,
    /// A file, a directory to put it into, or `-` for standard output
    local: PathBuf,
}

impl Get {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        if self.explain && self.local.as_os_str() == "-" {
            let why = "--explain tells on standard output: give a file, such as /dev/null with -f";
            return Err(CommandError::Usage(why.to_owned()));
        }
        let client = context.client();
        let status = client.stat(self.remote.as_str()).await?;
        let bar = TransferBar::new(context.options.quiet, self.remote.as_str());
        if status.kind == FileKind::Directory {
            if !self.recursive {
                return Err(is_directory(
                    self.remote.as_str(),
                    "is a directory: -r fetches it with everything below",
                ));
            }
            if self.local.as_os_str() == "-" {
                return Err(is_directory(
                    self.remote.as_str(),
                    "is a directory: it cannot go to standard output",
                ));
            }
            return tree::get(&client, &self, &status, bar).await;
        }
        let target = LocalTarget::decide(&self.local, self.remote.name(), self.force, status.mode)?;
        if !self.explain {
            return fetch(&client, self.remote.as_str(), target, &bar).await;
        }
        let done = client.get_explained(self.remote.as_str(), None, target.writer()?, &bar).await;
        bar.finish();
        let (_, explanation) = done?;
        target.publish()?;
        explain::print(output, "get", self.remote.as_str(), &explanation)
    }
}

/// Fetches a whole file; the target appears at the end or not at all.
pub(crate) async fn fetch(
    client: &Client,
    remote: &str,
    target: LocalTarget,
    bar: &TransferBar,
) -> Result<(), CommandError> {
    let done = client.get(remote, None, target.writer()?, bar).await;
    done?;
    target.publish()
}

/// A directory where a file is meant.
pub(crate) fn is_directory(path: &str, why: &str) -> CommandError {
    CommandError::Remote { path: path.to_owned(), status: ExitStatus::WrongKind, why: why.to_owned() }
}

/// Where the tree `remote` goes: into a directory that is there, else to the name given.
fn tree_root(local: &Path, remote: &RemotePath) -> PathBuf {
    match (local.is_dir(), remote.name()) {
        (true, "") | (false, _) => local.to_owned(),
        (true, name) => local.join(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_goes_into_a_directory_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let root = |remote: &str, local: &Path| tree_root(local, &remote.parse().unwrap());
        assert_eq!(root("/a/b", folder.path()), folder.path().join("b"));
        assert_eq!(root("/", folder.path()), folder.path());
        assert_eq!(root("/a/b", &folder.path().join("new")), folder.path().join("new"));
    }
}
