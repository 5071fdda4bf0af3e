//! What a load costs: CPU time, memory, and durable writes of the master's log.

use super::calls::Calls;
use super::syncs::datanode_syncs;
use super::target::Target;
use crate::error::CommandError;
use crate::usage::{ProcessUsage, Usage};

/// What was spent.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// Each process that is known.
    pub(super) processes: Vec<ProcessUsage>,
    /// CPU seconds of all, where all are known.
    pub(super) cpu: Option<f64>,
    /// Durable writes of the log, where any record was written.
    pub(super) log_syncs: Option<u64>,
    /// Durable writes of all datanodes, where they are known.
    pub(super) datanode_syncs: Option<u64>,
}

impl Cost {
    /// This and that of another span of the same processes.
    pub(super) fn and(mut self, other: Self) -> Self {
        for process in other.processes {
            match self.processes.iter_mut().find(|known| known.name == process.name) {
                Some(known) => {
                    known.cpu_seconds += process.cpu_seconds;
                    known.peak_bytes = known.peak_bytes.max(process.peak_bytes);
                }
                None => self.processes.push(process),
            }
        }
        self.cpu = self.cpu.map_or(other.cpu, |own| Some(own + other.cpu?));
        self.datanode_syncs =
            self.datanode_syncs.map_or(other.datanode_syncs, |own| Some(own + other.datanode_syncs?));
        self.log_syncs =
            self.log_syncs.map_or(other.log_syncs, |own| Some(own + other.log_syncs.unwrap_or(0)));
        self
    }
}

/// From its start on.
pub(super) struct Span<'a> {
    target: &'a Target,
    calls: Calls,
    usage: Usage,
    log: (u64, u64),
    datanode_syncs: Option<u64>,
}

impl<'a> Span<'a> {
    /// Begins now.
    pub(super) async fn begin(target: &'a Target) -> Result<Self, CommandError> {
        let calls = Calls::connect(&target.address, &target.user, "", 1, 0, 0).await?;
        let log = calls.log_counts().await?;
        let datanode_syncs = datanode_syncs(target).await?;
        Ok(Self { target, calls, usage: target.usage(), log, datanode_syncs })
    }

    /// What was spent until now.
    pub(super) async fn end(self) -> Result<Cost, CommandError> {
        let processes = self.target.usage().since(&self.usage);
        let (records, syncs) = self.calls.log_counts().await?;
        // A master that took over meanwhile counts from nothing.
        let log_syncs = (records > self.log.0).then(|| syncs.saturating_sub(self.log.1));
        let cpu = self.target.folder().map(|_| processes.iter().map(|it| it.cpu_seconds).sum());
        let syncs = self.datanode_syncs.zip(datanode_syncs(self.target).await?);
        let datanode_syncs = syncs.map(|(before, now)| now.saturating_sub(before));
        Ok(Cost { processes, cpu, log_syncs, datanode_syncs })
    }
}
