//! `ls`: a directory or a tree, page by page, so that memory stays small whatever its size.

use clap::Args;
use distrifs_client::{FileKind, FileStatus};

use crate::commands::stat::StatRow;
use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Output, Table, human_bytes, mode_letters, utc_time};
use crate::remote_path::{RemotePath, join};

/// List a directory.
#[derive(Debug, Args)]
#[command(
    after_help = "Entries come sorted by name; with -R by path, and each with its whole path. Times are UTC.\n\n\
    Example:\n  distrifs ls -l /backups\n  distrifs ls -R --json / | jq -r .path"
)]
pub(crate) struct Ls {
    /// With type, mode, replicas, owner, size and time
    #[arg(short)]
    long: bool,
    /// Everything below too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// A directory, or a file to list alone
    #[arg(default_value = "/")]
    path: RemotePath,
}

impl Ls {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let client = context.client();
        let status = client.stat(self.path.as_str()).await?;
        if status.kind == FileKind::File {
            let name = self.path.as_str();
            return self.print(output, &[(name.to_owned(), name.to_owned(), status)]);
        }
        let mut start_after = String::new();
        loop {
            let (entries, more) = client.list_page(self.path.as_str(), self.recursive, &start_after).await?;
            let last = entries.last().map(|entry| entry.path.clone());
            let rows: Vec<(String, String, FileStatus)> = entries
                .into_iter()
                .map(|entry| {
                    let whole = join(self.path.as_str(), &entry.path);
                    let shown = if self.recursive { whole.clone() } else { entry.path.clone() };
                    (shown, whole, entry)
                })
                .collect();
            self.print(output, &rows)?;
            match last {
                // Each page must lead further, whatever the master says.
                Some(last) if more && last != start_after => start_after = last,
                _ => return Ok(()),
            }
        }
    }

    /// Prints entries as they are shown, their whole paths and what is known of them.
    fn print(&self, output: &mut Output, rows: &[(String, String, FileStatus)]) -> Result<(), CommandError> {
        if output.json() {
            return rows
                .iter()
                .try_for_each(|(_, whole, status)| output.object(&StatRow::new(whole, status)));
        }
        if !self.long {
            return rows.iter().try_for_each(|(shown, _, _)| {
                let shown = output.name(shown).into_owned();
                output.line(shown)
            });
        }
        let mut table = Table::new(&[1, 4]);
        for (shown, _, status) in rows {
            let directory = status.kind == FileKind::Directory;
            table.row([
                format!("{}{}", if directory { 'd' } else { '-' }, mode_letters(status.mode)),
                if directory { "-".to_owned() } else { status.replication.to_string() },
                status.owner.clone(),
                status.group.clone(),
                if directory { "-".to_owned() } else { human_bytes(status.size) },
                utc_time(status.mtime_ms),
                output.name(shown).into_owned(),
            ]);
        }
        table.lines().try_for_each(|line| output.line(line))
    }
}
