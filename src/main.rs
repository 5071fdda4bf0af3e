//! `distrifs`: the one binary, daemons and commands.
//!
//! Thin: parse, resolve the settings, run one command, turn its outcome into one line and a status.

mod commands;
mod context;
mod descriptors;
mod error;
mod exit_status;
mod local_cluster;
mod local_target;
mod logging;
mod mode;
mod options;
mod output;
mod progress;
mod random_file;
mod remote_path;
mod remote_target;
mod signals;
mod tree_failures;
mod usage;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::commands::Command;
use crate::context::Context;
use crate::error::{CommandError, report};
use crate::exit_status::ExitStatus;
use crate::logging::Speaker;
use crate::options::{GlobalOptions, Settings};
use crate::signals::EndSignals;

/// A distributed file system: what it acknowledged is on as many disks as you asked for, fsynced.
#[derive(Debug, Parser)]
#[command(name = "distrifs", version, max_term_width = 100)]
#[command(after_help = "Begin with:\n  distrifs demo\n  distrifs local --data-dir DIR\n\n\
    Exit status: 0 done, 1 failed, 2 wrong command line, 3 not found, 4 exists or wrong kind, \
    5 permission denied, 6 write denied (too few datanodes, no space), 7 data corrupt, 8 unavailable.")]
struct Cli {
    #[command(flatten)]
    options: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    let name = cli.command.name();
    match run(cli) {
        Ok(status) => status.into(),
        // The reader of our output has seen enough.
        Err(error) if error.is_closed_output() => ExitStatus::Done.into(),
        Err(error) => {
            report(name, &error);
            error.status().into()
        }
    }
}

/// Of a wrong word of the command line.
const SHOWN_CHARS: usize = 200;

/// Help and version as clap prints them; a wrong command line as one line, like every other error.
fn usage_error(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;

    let help = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || error.kind() == help {
        // A reader that went away has seen enough.
        let _ = error.print();
        let status = if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Done };
        return status.into();
    }
    let known = Cli::command();
    let given: Vec<String> = std::env::args_os().skip(1).filter_map(|word| word.into_string().ok()).collect();
    let name = given.iter().find(|word| known.find_subcommand(word).is_some());
    let text = error.to_string();
    let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let words = first.iter().flat_map(|line| line.split(' ')).map(shortened);
    let what = words.collect::<Vec<_>>().join(" ");
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    let (command, help) = match name {
        Some(name) => (name.as_str(), format!("distrifs help {name}")),
        None => ("command line", "distrifs help".to_owned()),
    };
    report(command, &CommandError::Usage(format!("{what}; see `{help}`")));
    ExitStatus::Usage.into()
}

/// A word of the command line that may be a path of any length, as a person can read it.
fn shortened(word: &str) -> String {
    match word.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &word[..end]),
        None => word.to_owned(),
    }
}

fn run(cli: Cli) -> Result<ExitStatus, CommandError> {
    let settings = Settings::resolve(&cli.options, &|name| std::env::var_os(name))?;
    let speaker = cli.command.speaker();
    logging::start(speaker, cli.options.quiet, cli.options.verbose);
    if speaker == Speaker::Daemon {
        descriptors::raise_limit();
    }
    let context = Context { settings, options: cli.options };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::Daemon(format!("cannot start the runtime: {e}")))?;
    let outcome = runtime.block_on(async {
        let mut signals = EndSignals::listen()?;
        if cli.command.ends_by_itself() {
            tokio::select! {
                done = cli.command.run(&context, None) => done,
                // Dropping the command removes its temporary files and kills its children.
                status = signals.next() => Ok(status),
            }
        } else {
            cli.command.run(&context, Some(&mut signals)).await
        }
    });
    // A read of standard input may never return: it is not waited for.
    runtime.shutdown_background();
    outcome
}
