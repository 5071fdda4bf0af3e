//! `inspect`: what is in a file of the master's log or a checkpoint, and whether it is whole.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use distrifs_engine::checkpoint::{self, CheckpointError};
use distrifs_engine::log::{self, Inspection, RecoverError, SegmentVerdict};
use distrifs_master::describe_record;
use serde::Serialize;

use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::output::{Output, human_bytes, utc_time};

/// Show what is in a segment of the master's log or a checkpoint.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is changed. The exit status is 7 when a file is damaged. A master that runs keeps \
    its newest segment to itself: stop it first, or look at the others.\n\n\
    Example:\n  distrifs inspect wal /var/lib/distrifs/wal\n  \
    distrifs inspect --json checkpoint /var/lib/distrifs/checkpoints"
)]
pub(crate) struct Inspect {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// The records of a log segment, or of all segments of the log in a folder
    Wal {
        /// A file `wal-*.log`, or the log's folder: its newest fork, if it was forked, is shown
        file: PathBuf,
    },
    /// The facts of a checkpoint, or of all in a folder
    Checkpoint {
        /// A file `checkpoint-*.ckpt`, or the folder of them
        file: PathBuf,
    },
}

/// The stable keys of `--json`, told apart by `kind`.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Row<'a> {
    Segment {
        file: &'a Path,
        bytes: u64,
        cluster: String,
        sequence: u64,
        first_lsn: u64,
        epoch: u64,
    },
    Group {
        file: &'a Path,
        offset: u64,
        bytes: u64,
        first_lsn: u64,
        records: u64,
        epoch: u64,
    },
    Record {
        file: &'a Path,
        lsn: u64,
        epoch: u64,
        at_ms: Option<i64>,
        text: &'a str,
    },
    Verdict {
        file: &'a Path,
        verdict: &'static str,
        offset: u64,
        lsn: u64,
        text: &'a str,
    },
    Checkpoint {
        file: &'a Path,
        bytes: u64,
        cluster: String,
        lsn: u64,
        epoch: u64,
        blocks: u64,
        payload_bytes: u64,
        verified: bool,
    },
    Damage {
        file: &'a Path,
        offset: u64,
        lsn: Option<u64>,
        text: &'a str,
    },
}

impl Inspect {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), CommandError> {
        let (file, prefix, suffix, show): (_, _, _, Show) = match &self.kind {
            Kind::Wal { file } => (current(file)?, "wal-", ".log", segment),
            Kind::Checkpoint { file } => (file.clone(), "checkpoint-", ".ckpt", one_checkpoint),
        };
        let mut damaged = Vec::new();
        for path in files(&file, prefix, suffix)? {
            damaged.extend(show(&path, output)?);
        }
        // The first is named; all of them were printed.
        match damaged.into_iter().next() {
            None => Ok(()),
            Some(Damage { path, why }) => {
                output.flush()?;
                Err(CommandError::Remote {
                    path: path.display().to_string(),
                    status: ExitStatus::Corrupt,
                    why,
                })
            }
        }
    }
}

/// Prints one file.
type Show = fn(&Path, &mut Output) -> Result<Option<Damage>, CommandError>;

/// A file that is not whole.
struct Damage {
    path: PathBuf,
    /// Offset, LSN and what is wrong.
    why: String,
}

/// The file itself, or the folder in which the segments of this log are: it may have been forked.
fn current(path: &Path) -> Result<PathBuf, CommandError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    log::current_folder(path).map_err(|source| CommandError::local(path, "list", source))
}

/// The file itself, or all of its kind in the folder, in order.
fn files(path: &Path, prefix: &str, suffix: &str) -> Result<Vec<PathBuf>, CommandError> {
    let metadata = std::fs::metadata(path).map_err(|source| CommandError::local(path, "read", source))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let listed = || {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix)) {
                found.push(entry.path());
            }
        }
        // The names have as many digits each: their order is that of the numbers.
        found.sort();
        Ok(found)
    };
    let found: Vec<PathBuf> = listed().map_err(|source| CommandError::local(path, "list", source))?;
    if found.is_empty() {
        let why = format!("no file {prefix}*{suffix} is in this folder");
        return Err(CommandError::Remote {
            path: path.display().to_string(),
            status: ExitStatus::NotFound,
            why,
        });
    }
    Ok(found)
}

/// Prints one segment.
fn segment(path: &Path, output: &mut Output) -> Result<Option<Damage>, CommandError> {
    let found = log::inspect(path).map_err(|error| match error {
        RecoverError::Io { path, doing, source } => CommandError::Local { path, doing, source },
        other => CommandError::Check(other.to_string()),
    })?;
    if output.json() {
        segment_rows(&found, output)?;
    } else {
        segment_lines(&found, output)?;
    }
    Ok(match found.verdict {
        SegmentVerdict::Corrupt { .. } => Some(Damage { path: found.path, why: found.verdict.to_string() }),
        SegmentVerdict::Unused | SegmentVerdict::Clean { .. } | SegmentVerdict::Torn { .. } => None,
    })
}

fn segment_lines(found: &Inspection, output: &mut Output) -> Result<(), CommandError> {
    let (name, size) = (found.path.display(), human_bytes(found.bytes));
    match found.header {
        Some(header) => output.line(format_args!(
            "{name}: segment {} of cluster {}, {size}, from LSN {} on, epoch {}",
            header.sequence, header.cluster, header.first_lsn, header.epoch
        ))?,
        None => output.line(format_args!("{name}: {size}"))?,
    }
    for group in &found.groups {
        output.line(format_args!(
            "  byte {}: {} records, epoch {}",
            group.offset,
            group.records.len(),
            group.epoch
        ))?;
        for (lsn, record) in (group.first_lsn.0..).zip(&group.records) {
            let line = match describe_record(record) {
                Ok(told) => {
                    let line =
                        format!("    {lsn}  {} at={}", told.text, utc_time(told.at_ms).replace(' ', "T"));
                    output.name(&line).into_owned() + "Z"
                }
                Err(why) => {
                    format!("    {lsn}  {} bytes that are no record of the master: {why}", record.len())
                }
            };
            output.line(line)?;
        }
    }
    output.line(format_args!("  {}", found.verdict))
}

fn segment_rows(found: &Inspection, output: &mut Output) -> Result<(), CommandError> {
    let file = found.path.as_path();
    if let Some(header) = found.header {
        output.object(&Row::Segment {
            file,
            bytes: found.bytes,
            cluster: header.cluster.to_string(),
            sequence: header.sequence,
            first_lsn: header.first_lsn.0,
            epoch: header.epoch.0,
        })?;
    }
    for group in &found.groups {
        output.object(&Row::Group {
            file,
            offset: group.offset,
            bytes: group.bytes,
            first_lsn: group.first_lsn.0,
            records: group.records.len() as u64,
            epoch: group.epoch.0,
        })?;
        for (lsn, record) in (group.first_lsn.0..).zip(&group.records) {
            let (at_ms, text) = match describe_record(record) {
                Ok(told) => (Some(told.at_ms), told.text),
                Err(why) => (None, format!("no record of the master: {why}")),
            };
            output.object(&Row::Record { file, lsn, epoch: group.epoch.0, at_ms, text: &text })?;
        }
    }
    let (verdict, offset, lsn) = match found.verdict {
        SegmentVerdict::Unused => ("unused", 0, 0),
        SegmentVerdict::Clean { offset, next } => ("clean", offset, next.0),
        SegmentVerdict::Torn { offset, next } => ("torn", offset, next.0),
        SegmentVerdict::Corrupt { offset, lsn, .. } => ("corrupt", offset, lsn.0),
    };
    output.object(&Row::Verdict { file, verdict, offset, lsn, text: &found.verdict.to_string() })
}

/// Prints one checkpoint.
fn one_checkpoint(path: &Path, output: &mut Output) -> Result<Option<Damage>, CommandError> {
    let facts = match checkpoint::inspect(path) {
        Ok(facts) => facts,
        Err(CheckpointError::Io { path, doing, source }) => {
            return Err(CommandError::Local { path, doing, source });
        }
        // Not even the header can be read: only the name says which one it was.
        Err(CheckpointError::Corrupt { offset, what, .. }) => {
            return damage(path, offset, lsn_of_name(path), &what.to_string(), output).map(Some);
        }
        Err(other) => return Err(CommandError::Check(other.to_string())),
    };
    let header = facts.header;
    if output.json() {
        output.object(&Row::Checkpoint {
            file: path,
            bytes: facts.bytes,
            cluster: header.cluster.to_string(),
            lsn: header.lsn.0,
            epoch: header.epoch.0,
            blocks: facts.blocks,
            payload_bytes: facts.payload,
            verified: facts.damage.is_none(),
        })?;
    } else {
        output.line(format_args!(
            "{}: state at LSN {} of cluster {}, epoch {}, {}",
            path.display(),
            header.lsn,
            header.cluster,
            header.epoch,
            human_bytes(facts.bytes)
        ))?;
        let end = if facts.damage.is_none() { "all verified" } else { "whole, then damage" };
        let (blocks, payload) = (facts.blocks, human_bytes(facts.payload));
        output.line(format_args!("  {blocks} blocks, {payload} of content: {end}"))?;
    }
    match facts.damage {
        None => Ok(None),
        Some(CheckpointError::Corrupt { offset, what, .. }) => {
            damage(path, offset, Some(header.lsn.0), &what.to_string(), output).map(Some)
        }
        Some(CheckpointError::Io { path, doing, source }) => Err(CommandError::Local { path, doing, source }),
        Some(other) => Err(CommandError::Check(other.to_string())),
    }
}

/// Prints what is wrong with a checkpoint.
fn damage(
    path: &Path,
    offset: u64,
    lsn: Option<u64>,
    what: &str,
    output: &mut Output,
) -> Result<Damage, CommandError> {
    let of = lsn.map_or_else(|| "of unknown LSN".to_owned(), |lsn| format!("of LSN {lsn}"));
    let why = format!("checkpoint {of} is corrupt at byte {offset}: {what}");
    if output.json() {
        output.object(&Row::Damage { file: path, offset, lsn, text: &why })?;
    } else {
        output.line(format_args!("  {why}"))?;
    }
    Ok(Damage { path: path.to_owned(), why })
}

fn lsn_of_name(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    u64::from_str_radix(name.strip_prefix("checkpoint-")?.strip_suffix(".ckpt")?, 16).ok()
}
