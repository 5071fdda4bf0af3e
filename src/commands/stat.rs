//! `stat`: what is known of a path, with `--chunks` down to its replicas.

use clap::Args;
use distrifs_client::{ChunkLocation, FileKind, FileStatus};
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Output, Table, human_bytes, mode_letters, utc_time};
use crate::remote_path::RemotePath;

/// Show what is known of a path.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  distrifs stat --chunks /backups/home.tar\n  \
    distrifs stat --json /backups/home.tar | jq -r .crc32c")]
pub(crate) struct Stat {
    /// Also each chunk and the datanodes that hold it
    #[arg(long)]
    chunks: bool,
    /// A file or directory
    path: RemotePath,
}

/// The stable keys of `--json`, for `stat` and `ls`.
#[derive(Serialize)]
pub(crate) struct StatRow<'a> {
    path: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    owner: &'a str,
    group: &'a str,
    mode: String,
    mtime_ms: i64,
    replication: u32,
    chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    crc32c: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks: Option<Vec<ChunkRow>>,
}

#[derive(Serialize)]
struct ChunkRow {
    index: u64,
    id: String,
    generation: u64,
    length: u64,
    crc32c: String,
    replicas: Vec<String>,
}

impl Stat {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let client = context.client();
        let mut status = client.stat(self.path.as_str()).await?;
        let chunks = match (self.chunks, status.kind) {
            (true, FileKind::File) => {
                let (same_moment, mut chunks) = client.chunks(self.path.as_str()).await?;
                status = same_moment;
                // A plan turns the replicas so that reads spread; what is shown stays as long as the truth does.
                for chunk in &mut chunks {
                    chunk.replicas.retain(|node| !chunk.damaged.contains(&node.id));
                    chunk.replicas.sort_unstable_by_key(|node| node.id);
                }
                Some(chunks)
            }
            (true, FileKind::Directory) => Some(Vec::new()),
            (false, _) => None,
        };
        if output.json() {
            let mut row = StatRow::new(self.path.as_str(), &status);
            row.chunks = chunks.map(|chunks| chunks.iter().map(ChunkRow::new).collect());
            return output.object(&row);
        }
        print(output, self.path.as_str(), &status)?;
        if let Some(chunks) = chunks.filter(|chunks| !chunks.is_empty()) {
            print_chunks(output, &chunks)?;
        }
        Ok(())
    }
}

impl<'a> StatRow<'a> {
    /// A file or directory under its whole path.
    pub(crate) fn new(path: &'a str, status: &'a FileStatus) -> Self {
        Self {
            path,
            kind: match status.kind {
                FileKind::File => "file",
                FileKind::Directory => "dir",
            },
            size: status.size,
            owner: &status.owner,
            group: &status.group,
            mode: format!("{:04o}", status.mode),
            mtime_ms: status.mtime_ms,
            replication: status.replication,
            chunk_size: status.chunk_size,
            crc32c: status.crc32c.map(|crc| crc.to_string()),
            chunks: None,
        }
    }
}

impl ChunkRow {
    fn new(chunk: &ChunkLocation) -> Self {
        Self {
            index: chunk.index,
            id: chunk.id.to_string(),
            generation: chunk.generation.0,
            length: chunk.length,
            crc32c: chunk.crc32c.to_string(),
            replicas: chunk.replicas.iter().map(|node| node.id.to_string()).collect(),
        }
    }
}

fn print(output: &mut Output, path: &str, status: &FileStatus) -> Result<(), CommandError> {
    let mut table = Table::new(&[]);
    let mut row = |key: &str, value: String| table.row([key.to_owned(), value]);
    row("path", output.name(path).into_owned());
    match status.kind {
        FileKind::File => {
            row("type", "file".to_owned());
            row("size", format!("{} ({})", status.size, human_bytes(status.size)));
        }
        FileKind::Directory => row("type", "directory".to_owned()),
    }
    row("owner", format!("{}:{}", status.owner, status.group));
    row("mode", format!("{:04o} ({})", status.mode, mode_letters(status.mode)));
    row("modified", format!("{} UTC", utc_time(status.mtime_ms)));
    if status.kind == FileKind::File {
        row("replicas", status.replication.to_string());
        row("chunks", format!("{} of up to {}", status.chunk_count, human_bytes(status.chunk_size)));
    }
    if let Some(crc) = status.crc32c {
        row("crc32c", crc.to_string());
    }
    table.lines().try_for_each(|line| output.line(line))
}

fn print_chunks(output: &mut Output, chunks: &[ChunkLocation]) -> Result<(), CommandError> {
    let mut table = Table::new(&[0, 2, 3]);
    table.row(["chunk", "id", "gen", "length", "crc32c", "replicas"].map(str::to_owned));
    for chunk in chunks {
        let replicas: Vec<String> =
            chunk.replicas.iter().map(|node| format!("{}@{}", node.id, node.address)).collect();
        table.row([
            chunk.index.to_string(),
            chunk.id.to_string(),
            chunk.generation.to_string(),
            chunk.length.to_string(),
            chunk.crc32c.to_string(),
            if replicas.is_empty() { "none within reach".to_owned() } else { replicas.join(" ") },
        ]);
    }
    output.line("")?;
    table.lines().try_for_each(|line| output.line(line))
}
