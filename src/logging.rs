//! Logs on standard error. `RUST_LOG` wins over `-q` and `-v`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Who logs: a command is silent unless asked, a daemon tells what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// A command that ends.
    Command,
    /// A process that serves.
    Daemon,
}

/// Starts logging for the life of the process.
pub(crate) fn start(speaker: Speaker, quiet: bool, verbose: u8) {
    let level = match (speaker, quiet, verbose) {
        (Speaker::Command, true, _) => "off",
        (Speaker::Command, false, 0) | (Speaker::Daemon, true, _) => "error",
        (Speaker::Command, false, 1) | (Speaker::Daemon, false, 0) => "info",
        _ => "debug",
    };
    // The libraries below speak at `info` of what only their authors want to know.
    let default = if level == "off" { level.to_owned() } else { format!("error,{}", ours(level)) };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn ours(level: &str) -> String {
    [
        "distrifs",
        "distrifs_client",
        "distrifs_datanode",
        "distrifs_engine",
        "distrifs_master",
        "distrifs_proto",
    ]
    .map(|krate| format!("{krate}={level}"))
    .join(",")
}
