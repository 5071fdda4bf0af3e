//! `why`: what is wrong with a chunk, a file or a datanode, and why it is not repaired yet.

use clap::{Args, Subcommand};
use distrifs_proto::types::{ChunkId, NodeId};
use serde::Serialize;

use super::fsck::{chunk_line, problem_name, repair_line, whole_path};
use super::nodes::{Row as NodeRow, state_name};
use crate::context::Context;
use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::output::Output;
use crate::remote_path::RemotePath;

/// Explain the state of a chunk, a file or a datanode.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  distrifs why file /backups/home.tar\n  distrifs why chunk 00000000000004d2\n  \
    distrifs why node 89abcdef01234567"
)]
pub(crate) struct Why {
    #[command(subcommand)]
    of: Of,
}

#[derive(Debug, Subcommand)]
enum Of {
    /// A chunk, by its id as `stat --chunks` shows it
    Chunk {
        /// Sixteen hex digits
        #[arg(value_parser = hex)]
        id: u64,
    },
    /// The files at or below a path
    File {
        /// A file or directory
        path: RemotePath,
    },
    /// A datanode, by its id as `nodes` shows it
    Node {
        /// Sixteen hex digits
        #[arg(value_parser = hex)]
        id: u64,
    },
}

fn hex(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| "an id is up to sixteen hex digits".to_owned())
}

#[derive(Serialize)]
struct ChunkObject<'a> {
    id: String,
    state: &'a str,
    generation: u64,
    length: u64,
    crc32c: String,
    references: u32,
    why: &'a str,
    replicas: Vec<ReplicaObject<'a>>,
}

#[derive(Serialize)]
struct ReplicaObject<'a> {
    node: String,
    address: &'a str,
    node_state: &'static str,
    state: &'a str,
    blamed: bool,
}

#[derive(Serialize)]
struct FileObject<'a> {
    path: &'a str,
    problem: &'static str,
    unhealthy_chunks: u64,
    why: Vec<&'a str>,
}

impl Why {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        match self.of {
            Of::Chunk { id } => chunk(context, output, ChunkId(id)).await,
            Of::File { path } => file(context, output, &path).await,
            Of::Node { id } => node(context, output, NodeId(id)).await,
        }
    }
}

async fn chunk(context: &Context, output: &mut Output, id: ChunkId) -> Result<(), CommandError> {
    let story = context.client().explain_chunk(id).await?;
    if output.json() {
        let replicas = story
            .replicas
            .iter()
            .map(|it| ReplicaObject {
                node: it.node.to_string(),
                address: &it.address,
                node_state: state_name(it.node_state),
                state: &it.state,
                blamed: it.blamed,
            })
            .collect();
        return output.object(&ChunkObject {
            id: id.to_string(),
            state: &story.state,
            generation: story.generation.0,
            length: story.length,
            crc32c: story.crc32c.to_string(),
            references: story.references,
            why: &story.why,
            replicas,
        });
    }
    output.line(match story.state.as_str() {
        "referenced" => format!(
            "chunk {id}: {} bytes, generation {}, CRC32C {}, in {} files",
            story.length, story.generation, story.crc32c, story.references
        ),
        "unfinished" => format!("chunk {id}: of a file that is being written"),
        "dereferenced" => format!("chunk {id}: no file needs it any more: its replicas are being deleted"),
        _ => format!("chunk {id}: not known: never handed out, or deleted long ago"),
    })?;
    for replica in &story.replicas {
        let blamed = if replica.blamed { ", readers complained of it" } else { "" };
        output.line(format_args!(
            "  {} on {} at {} ({}){blamed}",
            replica.state,
            replica.node,
            replica.address,
            state_name(replica.node_state)
        ))?;
    }
    if story.state == "referenced" {
        let why = if story.why.is_empty() { "nothing is to be done about it" } else { &story.why };
        output.line(format_args!("  {why}"))?;
    }
    Ok(())
}

async fn file(context: &Context, output: &mut Output, path: &RemotePath) -> Result<(), CommandError> {
    let client = context.client();
    let mut printed = Ok(());
    let sums = client
        .check_files(path.as_str(), |file| {
            if printed.is_err() {
                return;
            }
            let whole = whole_path(path, &file.path);
            printed = if output.json() {
                output.object(&FileObject {
                    path: &whole,
                    problem: problem_name(file.problem),
                    unhealthy_chunks: file.unhealthy_chunks,
                    why: file.chunks.iter().map(|chunk| chunk.why.as_str()).collect(),
                })
            } else {
                let shown = output.name(&whole).into_owned();
                let head = format!("{shown}: {}", problem_name(file.problem));
                let chunks = file.chunks.iter().map(|chunk| format!("  {}", chunk_line(chunk)));
                std::iter::once(head).chain(chunks).try_for_each(|line| output.line(line))
            };
        })
        .await?;
    printed?;
    if output.json() {
        return Ok(());
    }
    if sums.healthy == sums.files {
        return output.line(format_args!("{}: all {} files are healthy", path.as_str(), sums.files));
    }
    output.line(repair_line(&client.cluster_status().await?))
}

async fn node(context: &Context, output: &mut Output, id: NodeId) -> Result<(), CommandError> {
    let client = context.client();
    let nodes = client.nodes().await?;
    let Some(node) = nodes.iter().find(|node| node.id == id) else {
        let why = format!("no datanode with this id has registered; {} are known", nodes.len());
        return Err(CommandError::Remote { path: id.to_string(), status: ExitStatus::NotFound, why });
    };
    if output.json() {
        return output.object(&NodeRow::new(node));
    }
    let heard = node.since_heartbeat.as_secs_f64();
    output.line(format_args!(
        "datanode {id} at {}: {}, heard {heard:.1} s ago, {} replicas",
        node.address,
        state_name(node.state),
        node.chunks
    ))?;
    if !node.why_suspect.is_empty() {
        output.line(format_args!("  suspect: {}", node.why_suspect))?;
    }
    if !node.reported {
        output.line("  its block report is not in yet")?;
    }
    for dir in node.data_dirs.iter().filter(|dir| !dir.healthy) {
        output
            .line(format_args!("  {}: lost bytes: takes no writes, its replicas are made anew", dir.path))?;
    }
    if node.chunks_in_quarantine > 0 {
        let count = node.chunks_in_quarantine;
        output.line(format_args!("  {count} chunks lie in `quarantine` below its data folders: nobody needs them or they do not fit together; look at them and remove them"))?;
    }
    let scrub = &node.scrub;
    output.line(format_args!(
        "  scrub: {} replicas read whole, {} found corrupt, {} of 1000 of this pass",
        scrub.replicas_checked, scrub.found_corrupt, scrub.pass_permille
    ))
}
