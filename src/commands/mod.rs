//! The commands, one file each: its arguments, its help, what it does.

mod bench;
mod cat;
mod chaos;
mod checksum;
mod chmod;
mod chown;
mod cp;
mod datanode;
mod demo;
mod df;
mod du;
mod explain;
mod fsck;
mod get;
mod getrange;
mod inspect;
mod latency;
mod local;
mod ls;
mod master;
mod mkdir;
mod mv;
mod nodes;
mod put;
mod rm;
mod setrep;
mod stat;
mod wait;
mod why;

use clap::Subcommand;

use crate::context::Context;
use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::logging::Speaker;
use crate::output::Output;
use crate::signals::EndSignals;

/// What `distrifs` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show it all: start a cluster, store a file three times, lose a datanode, read it back, measure
    Demo(demo::Demo),
    /// Run a whole cluster on this machine until Ctrl-C
    Local(local::Local),
    /// Run the metadata daemon
    Master(master::MasterCommand),
    /// Run the storage daemon
    Datanode(datanode::DatanodeCommand),
    /// Make a directory
    Mkdir(mkdir::Mkdir),
    /// List a directory
    Ls(ls::Ls),
    /// Show what is known of a path
    Stat(stat::Stat),
    /// Store a file, a tree or standard input
    Put(put::Put),
    /// Fetch a file or a tree
    Get(get::Get),
    /// Write a file to standard output
    Cat(cat::Cat),
    /// Fetch a range of a file
    Getrange(getrange::Getrange),
    /// Rename or move a file or directory
    Mv(mv::Mv),
    /// Remove a file or a tree
    Rm(rm::Rm),
    /// Copy a file without moving its data
    Cp(cp::Cp),
    /// Change permission bits
    Chmod(chmod::Chmod),
    /// Change owner or group
    Chown(chown::Chown),
    /// Set how many replicas are wanted of a file
    Setrep(setrep::Setrep),
    /// Show how much there is below a path
    Du(du::Du),
    /// Show the CRC32C of a file
    Checksum(checksum::Checksum),
    /// Show what is in a file of the master's log or a checkpoint
    Inspect(inspect::Inspect),
    /// Measure what a cluster can do
    Bench(bench::Bench),
    /// Show how long the stages of operations take, on each node
    Latency(latency::Latency),
    /// Check the health of files
    Fsck(fsck::Fsck),
    /// Explain the state of a chunk, a file or a datanode
    Why(why::Why),
    /// Cause faults by chance and prove that nothing acknowledged is lost
    Chaos(chaos::Chaos),
    /// Show the datanodes
    Nodes(nodes::Nodes),
    /// Wait until the cluster takes writes
    Wait(wait::Wait),
    /// Show how full the cluster is
    Df(df::Df),
}

impl Command {
    /// Its name, as in error lines.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Demo(_) => "demo",
            Self::Local(_) => "local",
            Self::Master(_) => "master",
            Self::Datanode(_) => "datanode",
            Self::Mkdir(_) => "mkdir",
            Self::Ls(_) => "ls",
            Self::Stat(_) => "stat",
            Self::Put(_) => "put",
            Self::Get(_) => "get",
            Self::Cat(_) => "cat",
            Self::Getrange(_) => "getrange",
            Self::Mv(_) => "mv",
            Self::Rm(_) => "rm",
            Self::Cp(_) => "cp",
            Self::Chmod(_) => "chmod",
            Self::Chown(_) => "chown",
            Self::Setrep(_) => "setrep",
            Self::Du(_) => "du",
            Self::Checksum(_) => "checksum",
            Self::Inspect(_) => "inspect",
            Self::Bench(_) => "bench",
            Self::Latency(_) => "latency",
            Self::Fsck(_) => "fsck",
            Self::Why(_) => "why",
            Self::Chaos(_) => "chaos",
            Self::Nodes(_) => "nodes",
            Self::Wait(_) => "wait",
            Self::Df(_) => "df",
        }
    }

    /// Whether it logs as a daemon does.
    pub(crate) fn speaker(&self) -> Speaker {
        if matches!(self, Self::Master(_) | Self::Datanode(_)) { Speaker::Daemon } else { Speaker::Command }
    }

    /// Whether it ends when its work is done, and may be dropped before; the others serve until they are told to stop, or
    /// have something to put in order then.
    pub(crate) fn ends_by_itself(&self) -> bool {
        !matches!(self, Self::Master(_) | Self::Datanode(_) | Self::Local(_) | Self::Bench(_))
    }

    /// Runs it. Those that do not end by themselves are given the signals that end them.
    pub(crate) async fn run(
        self,
        context: &Context,
        signals: Option<&mut EndSignals>,
    ) -> Result<ExitStatus, CommandError> {
        let mut output = Output::new(context.options.json);
        let out = &mut output;
        match self {
            Self::Demo(command) => command.run(context, out).await?,
            Self::Local(command) => command.run(context, out, signals).await?,
            Self::Master(command) => command.run(context, out, signals).await?,
            Self::Datanode(command) => command.run(context, out, signals).await?,
            Self::Mkdir(command) => command.run(context).await?,
            Self::Ls(command) => command.run(context, out).await?,
            Self::Stat(command) => command.run(context, out).await?,
            Self::Put(command) => command.run(context, out).await?,
            Self::Get(command) => command.run(context, out).await?,
            Self::Cat(command) => command.run(context).await?,
            Self::Getrange(command) => command.run(context).await?,
            Self::Mv(command) => command.run(context).await?,
            Self::Rm(command) => command.run(context).await?,
            Self::Cp(command) => command.run(context).await?,
            Self::Chmod(command) => command.run(context).await?,
            Self::Chown(command) => command.run(context).await?,
            Self::Setrep(command) => command.run(context).await?,
            Self::Du(command) => command.run(context, out).await?,
            Self::Checksum(command) => command.run(context, out).await?,
            Self::Inspect(command) => command.run(out)?,
            Self::Bench(command) => {
                let status = command.run(context, out, signals).await?;
                output.flush()?;
                return Ok(status);
            }
            Self::Latency(command) => command.run(context, out).await?,
            Self::Fsck(command) => command.run(context, out).await?,
            Self::Why(command) => command.run(context, out).await?,
            Self::Chaos(command) => command.run(context, out).await?,
            Self::Nodes(command) => command.run(context, out).await?,
            Self::Wait(command) => command.run(context).await?,
            Self::Df(command) => command.run(context, out).await?,
        }
        output.flush()?;
        Ok(ExitStatus::Done)
    }
}
