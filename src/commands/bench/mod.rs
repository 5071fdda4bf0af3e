//! `bench`: what a cluster can do, against what the machine can do in the same run.

mod blocking;
mod calls;
mod ceiling;
mod content;
mod cost;
mod device;
mod disk;
mod figures;
mod get;
mod lanes;
mod load;
mod meta;
mod mix;
mod mixed;
mod page_cache;
mod pump;
#[cfg(test)]
mod pump_test;
mod put;
mod read;
mod small;
mod swarm;
mod syncs;
mod target;
mod workload;

use std::ops::ControlFlow;

use clap::{Args, Subcommand};

use self::target::Target;
use crate::commands::demo::require_space;
use crate::context::Context;
use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::output::Output;
use crate::signals::EndSignals;

/// The hidden subcommand that makes this program a hop of the bare chain.
const PUMP_HOP: &str = "pump-hop";

/// Measure what a cluster can do.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --master and --running it starts a cluster of its own in a temporary folder (TMPDIR), which it \
    removes. Otherwise it works in a directory of its own below /, which it removes, also after an error and at Ctrl-C; \
    what was overwritten there stays on the disks until the cluster's DISTRIFS_GC_DELAY is over.\n\
    Latencies are corrected for coordinated omission. With --rate the loop is open: each operation is timed from its \
    intended start. Without it the loop is closed: one that took longer than the mean stands also for those that would \
    have been asked meanwhile, at the pace of the mean.\n\n\
    Example:\n  distrifs bench put --clients 2 --ceiling\n  distrifs bench small --duration 10 --get\n  \
    distrifs bench meta --master 10.0.0.1:9000 --clients 256 --json"
)]
pub(crate) struct Bench {
    #[command(subcommand)]
    kind: Kind,
    /// Measure the cluster that the environment or the configuration names, not one of its own
    #[arg(long, global = true)]
    running: bool,
}

/// What is measured.
#[derive(Debug, Subcommand)]
enum Kind {
    /// Puts of large files, durable on all replicas, against the bare chain and the raw disk
    Put(put::Put),
    /// Gets of large files, from the page cache or the disk
    Get(get::Get),
    /// Reads of random ranges
    Read(read::Read),
    /// Puts, and gets, of many small files
    Small(small::Small),
    /// Operations of the namespace: mkdir, create, stat, read plans, rename, rm, against an empty call
    Meta(meta::Meta),
    /// Range reads, small puts, stats and removes at once
    Mixed(mixed::Mixed),
    /// Thousands of simulated datanodes against one master: reports, failures, repair, restart, deletes
    Swarm(swarm::Swarm),
    /// Fills the folder of a master that `swarm` starts
    #[command(name = swarm::PLANT, hide = true)]
    SwarmPlant(swarm::Plant),
    /// A hop of the bare chain
    #[command(name = PUMP_HOP, hide = true)]
    PumpHop(PumpHop),
}

/// What [`pump::hop`] is given.
#[derive(Debug, Args)]
struct PumpHop {
    arguments: Vec<String>,
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Put(_) => "put",
            Self::Get(_) => "get",
            Self::Read(_) => "read",
            Self::Small(_) => "small",
            Self::Meta(_) => "meta",
            Self::Mixed(_) => "mixed",
            Self::Swarm(_) => "swarm",
            Self::SwarmPlant(_) => swarm::PLANT,
            Self::PumpHop(_) => PUMP_HOP,
        }
    }

    /// What the command line alone tells to be wrong.
    fn check(&self, running: bool) -> Result<(), CommandError> {
        match self {
            Self::Get(get) => get.check(running),
            Self::Read(read) => read.check(),
            Self::Mixed(mixed) => mixed.check(),
            Self::Swarm(swarm) => swarm.check(running),
            Self::Put(_) | Self::Small(_) | Self::Meta(_) | Self::PumpHop(_) | Self::SwarmPlant(_) => Ok(()),
        }
    }

    /// Datanodes of an embedded cluster, and about how many bytes it will hold at once.
    fn needs(&self) -> (u32, u64) {
        let stored = |load: &workload::Workload, bytes: u64, files: u64| {
            // What was overwritten is there for a moment, and the bare chain takes as much once more.
            let copies = u64::from(load.datanodes());
            (load.datanodes(), bytes.saturating_mul(files).saturating_mul(copies * 3))
        };
        match self {
            Self::Put(put) => (put.load.datanodes(), put.needs()),
            Self::Get(get) => stored(&get.load, get.size, get.load.clients(1)),
            Self::Read(read) => stored(&read.load, read.ranges.size, 1),
            Self::Small(small) => stored(&small.load, small.size, 1),
            Self::Mixed(mixed) => stored(&mixed.load, mixed.ranges.size, 1),
            // The master needs one to take writes, and more only take processor time away.
            Self::Meta(_) | Self::PumpHop(_) | Self::Swarm(_) | Self::SwarmPlant(_) => (1, 0),
        }
    }

    async fn measure(
        self,
        context: &Context,
        target: &Target,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        if let Some(folder) = target.folder() {
            require_space(folder, self.needs().1)?;
        }
        target.client.mkdir(&target.directory, false, 0o755).await?;
        match self {
            Self::Put(put) => put.run(context, target, output).await,
            Self::Get(get) => get.run(context, target, output).await,
            Self::Read(read) => read.run(context, target, output).await,
            Self::Small(small) => small.run(context, target, output).await,
            Self::Meta(meta) => meta.run(context, target, output).await,
            Self::Mixed(mixed) => mixed.run(context, target, output).await,
            Self::Swarm(swarm) => swarm.run(context, output).await,
            Self::SwarmPlant(plant) => plant.run(output).await,
            Self::PumpHop(hop) => hop.run().await,
        }
    }
}

impl PumpHop {
    async fn run(self) -> Result<(), CommandError> {
        let run = move || pump::hop(&self.arguments).map_err(|e| CommandError::Check(e.to_string()));
        tokio::task::spawn_blocking(run).await.unwrap_or_else(|e| Err(CommandError::Check(e.to_string())))
    }
}

impl Bench {
    /// Measures, and leaves nothing behind: neither after an error nor when it is told to end.
    pub(crate) async fn run(
        self,
        context: &Context,
        output: &mut Output,
        mut signals: Option<&mut EndSignals>,
    ) -> Result<ExitStatus, CommandError> {
        match self.kind {
            Kind::PumpHop(hop) => return hop.run().await.map(|()| ExitStatus::Done),
            Kind::SwarmPlant(plant) => return plant.run(output).await.map(|()| ExitStatus::Done),
            _ => {}
        }
        self.kind.check(self.running || !context.options.master.is_empty())?;
        if let Kind::Swarm(swarm) = self.kind {
            // It has masters and a folder of its own, which go with it when it is dropped.
            let done = until_told(&mut signals, swarm.run(context, output)).await?;
            return Ok(match done {
                ControlFlow::Continue(()) => ExitStatus::Done,
                ControlFlow::Break(status) => status,
            });
        }
        let start = Target::start(context, self.running, self.kind.needs().0, self.kind.name());
        let target = match until_told(&mut signals, start).await? {
            ControlFlow::Continue(target) => target,
            ControlFlow::Break(status) => return Ok(status),
        };
        let measured = until_told(&mut signals, self.kind.measure(context, &target, output)).await;
        let stopped = target.stop().await;
        let status = match measured? {
            ControlFlow::Continue(()) => ExitStatus::Done,
            ControlFlow::Break(status) => status,
        };
        stopped.map(|()| status)
    }
}

/// The outcome of the work, or the status of who is told to end before.
async fn until_told<T>(
    signals: &mut Option<&mut EndSignals>,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<ControlFlow<ExitStatus, T>, CommandError> {
    let told = async {
        match signals {
            Some(signals) => signals.next().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        done = work => done.map(ControlFlow::Continue),
        status = told => Ok(ControlFlow::Break(status)),
    }
}
