//! `fsck`: which files are not healthy, and why they are not repaired yet.

use clap::Args;
use distrifs_client::{ClusterStatus, HealthSums, Problem, UnhealthyChunk, UnhealthyFile};
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::output::Output;
use crate::remote_path::{RemotePath, join};

/// Check the health of files.
#[derive(Debug, Args)]
#[command(
    after_help = "A file is under-replicated when a chunk has fewer good replicas than are wanted, corrupt when one has \
    damaged replicas only, missing when no datanode that is there has any. The cluster repairs the first by itself.\n\
    The status is 0 when all are healthy, 7 when one is corrupt or missing, otherwise 1.\n\n\
    Example:\n  distrifs fsck --chunks /backups\n  distrifs fsck --json | tail -1 | jq .healthy"
)]
pub(crate) struct Fsck {
    /// Also the first chunks of each, and why they are not repaired yet
    #[arg(long)]
    chunks: bool,
    /// A file or directory
    #[arg(default_value = "/")]
    path: RemotePath,
}

/// The stable keys of `--json`.
#[derive(Serialize)]
struct FileRow<'a> {
    path: &'a str,
    problem: &'static str,
    unhealthy_chunks: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks: Option<Vec<ChunkRow<'a>>>,
}

#[derive(Serialize)]
struct ChunkRow<'a> {
    index: u64,
    id: String,
    problem: &'static str,
    wanted: u32,
    good: u32,
    damaged: u32,
    why: &'a str,
}

/// The last line of `--json`.
#[derive(Serialize)]
struct SumsRow {
    files: u64,
    chunks: u64,
    healthy: u64,
    under_replicated: u64,
    corrupt: u64,
    missing: u64,
}

impl Fsck {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let client = context.client();
        let mut printed = Ok(());
        let sums = client
            .check_files(self.path.as_str(), |file| {
                if printed.is_ok() {
                    printed = self.print(output, &file);
                }
            })
            .await?;
        printed?;
        let HealthSums { files, chunks, healthy, under_replicated, corrupt, missing } = sums;
        if output.json() {
            output.object(&SumsRow { files, chunks, healthy, under_replicated, corrupt, missing })?;
        } else {
            output.line(format_args!(
                "{files} files, {chunks} chunks: {healthy} healthy, {under_replicated} under-replicated, \
                 {corrupt} corrupt, {missing} missing"
            ))?;
            if healthy < files {
                output.line(repair_line(&client.cluster_status().await?))?;
            }
        }
        output.flush()?;
        let (status, count) = match (corrupt + missing, under_replicated) {
            (0, 0) => return Ok(()),
            (0, count) => (ExitStatus::Failed, count),
            (count, _) => (ExitStatus::Corrupt, count),
        };
        let what = if status == ExitStatus::Corrupt { "corrupt or missing" } else { "under-replicated" };
        let why = format!("{count} of {files} files are {what}");
        Err(CommandError::Remote { path: self.path.as_str().to_owned(), status, why })
    }

    fn print(&self, output: &mut Output, file: &UnhealthyFile) -> Result<(), CommandError> {
        let path = whole_path(&self.path, &file.path);
        if output.json() {
            let chunks = self.chunks.then(|| file.chunks.iter().map(ChunkRow::new).collect());
            let problem = problem_name(file.problem);
            return output.object(&FileRow {
                path: &path,
                problem,
                unhealthy_chunks: file.unhealthy_chunks,
                chunks,
            });
        }
        let shown = output.name(&path).into_owned();
        output.line(format_args!(
            "{shown}: {}, {} chunks",
            problem_name(file.problem),
            file.unhealthy_chunks
        ))?;
        let told = if self.chunks { file.chunks.as_slice() } else { &[] };
        told.iter().try_for_each(|chunk| output.line(format_args!("  {}", chunk_line(chunk))))
    }
}

impl<'a> ChunkRow<'a> {
    fn new(chunk: &'a UnhealthyChunk) -> Self {
        Self {
            index: chunk.index,
            id: chunk.id.to_string(),
            problem: problem_name(chunk.problem),
            wanted: chunk.wanted,
            good: chunk.good,
            damaged: chunk.damaged,
            why: &chunk.why,
        }
    }
}

/// The absolute path of what is at `relative` below `path`.
pub(super) fn whole_path(path: &RemotePath, relative: &str) -> String {
    if relative.is_empty() { path.as_str().to_owned() } else { join(path.as_str(), relative) }
}

/// A chunk for people.
pub(super) fn chunk_line(chunk: &UnhealthyChunk) -> String {
    let UnhealthyChunk { index, id, wanted, good, damaged, why, .. } = chunk;
    let problem = problem_name(chunk.problem);
    format!("chunk {index} ({id}): {problem}: {good} good of {wanted} wanted, {damaged} damaged; {why}")
}

/// What repair is doing.
pub(super) fn repair_line(status: &ClusterStatus) -> String {
    if !status.safe_mode.is_empty() {
        return format!("repair waits: {}", status.safe_mode);
    }
    let left = match (status.copies_missing, status.repair_time_left) {
        (0, _) => String::new(),
        (copies, Some(left)) => {
            format!("{copies} copies to make, {} s at the pace of the last minute; ", left.as_secs())
        }
        (copies, None) => format!("{copies} copies to make, none made in the last minute; "),
    };
    format!(
        "repair: {left}{} copies running, {} chunks to repair, {} to trim; {} copies made and {} failed since the \
         master's start",
        status.repairs_running,
        status.chunks_to_repair,
        status.chunks_to_trim,
        status.repairs_done,
        status.repairs_failed
    )
}

/// The stable name of a problem.
pub(super) fn problem_name(problem: Problem) -> &'static str {
    match problem {
        Problem::UnderReplicated => "under-replicated",
        Problem::Corrupt => "corrupt",
        Problem::Missing => "missing",
        Problem::Unknown => "unknown",
    }
}
