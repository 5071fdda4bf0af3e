//! Why a command failed: one line for the user and a status for the shell.

use std::path::{Path, PathBuf};

use distrifs_client::ClientError;

use crate::exit_status::ExitStatus;
use crate::options::OptionsError;

/// Why a command failed. `Display` is the line behind `distrifs: COMMAND: `.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The cluster refused, or could not be reached; the text names the path.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operating system refused something here.
    #[error("{}: cannot {doing}: {}", path.display(), io_text(source))]
    Local {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// A target that exists here and was not to be replaced, or is of the wrong kind.
    #[error("{}: {why}", path.display())]
    LocalTarget {
        /// The target.
        path: PathBuf,
        /// What is in the way, and the way out.
        why: &'static str,
    },
    /// A source that cannot be stored.
    #[error("{}: {why}", path.display())]
    LocalSource {
        /// The source.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// A remote path of a kind that the command does not take.
    #[error("{path}: {why}")]
    Remote {
        /// The path.
        path: String,
        /// The status that fits.
        status: ExitStatus,
        /// What is wrong, and the way out.
        why: String,
    },
    /// The command line is wrong in a way that only the command sees.
    #[error("{0}")]
    Usage(String),
    /// Settings that cannot be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Standard output cannot be written.
    #[error("standard output: {}", io_text(.0))]
    Output(std::io::Error),
    /// A daemon that did not start, or gave up.
    #[error("{0}")]
    Daemon(String),
    /// What was waited for did not come in time.
    #[error("{0}")]
    TimedOut(String),
    /// A check that did not hold.
    #[error("{0}")]
    Check(String),
    /// Each failure was already reported by a line of its own.
    #[error("{count} of {total} could not be transferred")]
    Several {
        /// How many failed.
        count: u64,
        /// How many there were.
        total: u64,
        /// The status of all together.
        status: ExitStatus,
    },
}

impl CommandError {
    /// An error of the operating system about a path here.
    pub(crate) fn local(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        Self::Local { path: path.to_owned(), doing, source }
    }

    /// The status for the shell.
    pub(crate) fn status(&self) -> ExitStatus {
        match self {
            // The command line was right: only the world moved under it.
            Self::Client(ClientError::SourceChanged { .. }) => ExitStatus::Failed,
            Self::Client(source) => ExitStatus::of(source.code()),
            Self::Local { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => ExitStatus::NotFound,
                std::io::ErrorKind::PermissionDenied => ExitStatus::PermissionDenied,
                std::io::ErrorKind::AlreadyExists
                | std::io::ErrorKind::IsADirectory
                | std::io::ErrorKind::NotADirectory
                | std::io::ErrorKind::DirectoryNotEmpty => ExitStatus::WrongKind,
                _ => ExitStatus::Failed,
            },
            Self::LocalTarget { .. } => ExitStatus::WrongKind,
            Self::Remote { status, .. } | Self::Several { status, .. } => *status,
            Self::Usage(_) | Self::Options(_) => ExitStatus::Usage,
            Self::TimedOut(_) => ExitStatus::Unavailable,
            Self::LocalSource { .. } | Self::Output(_) | Self::Daemon(_) | Self::Check(_) => {
                ExitStatus::Failed
            }
        }
    }

    /// Whether only the reader of our output went away, as in `... | head`: nothing to complain about.
    pub(crate) fn is_closed_output(&self) -> bool {
        let cause = match self {
            Self::Output(cause) | Self::Client(ClientError::Target { cause, .. }) => cause,
            _ => return false,
        };
        cause.kind() == std::io::ErrorKind::BrokenPipe
    }
}

/// What the operating system said, without Rust's `(os error N)`.
pub(crate) fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let short = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = short.chars();
    // "Permission denied" inside a sentence.
    letters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().collect::<String>() + letters.as_str())
}

/// Prints an error as its one line: control characters, which a path may hold, cannot break it.
pub(crate) fn report(command: &str, error: &CommandError) {
    let line: String = error.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    // Nobody is left to tell when standard error is closed.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("distrifs: {command}: {line}\n").as_bytes(),
    );
}
