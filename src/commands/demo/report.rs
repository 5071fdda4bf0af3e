//! What the demo measured, as tables and as JSON.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::CommandError;
use crate::output::{Output, Table, human_bytes};
use crate::usage::Memory;

const MIB: f64 = 1024.0 * 1024.0;

/// All results.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bytes: u64,
    datanodes: u32,
    replicas: u32,
    /// Replicas read whole and found right.
    pub(super) replicas_verified: u64,
    /// Transfers of the whole file.
    pub(super) phases: Vec<Phase>,
    /// Small operations.
    pub(super) latencies: Vec<Latency>,
    /// Peak memory.
    pub(super) memory: Memory,
}

/// One transfer of the whole file.
#[derive(Debug, Serialize)]
pub(super) struct Phase {
    name: &'static str,
    seconds: f64,
    mib_per_second: f64,
    cpu_seconds_per_gib: f64,
}

/// The distribution of one small operation, in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    name: &'static str,
    count: u64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

impl Report {
    /// Nothing measured yet.
    pub(super) fn new(bytes: u64, datanodes: u32, replicas: u32) -> Self {
        Self {
            bytes,
            datanodes,
            replicas,
            replicas_verified: 0,
            phases: Vec::new(),
            latencies: Vec::new(),
            memory: Memory::default(),
        }
    }

    /// The tables.
    pub(super) fn print(&self, output: &mut Output) -> Result<(), CommandError> {
        let mut table = Table::new(&[1, 2, 3]);
        table.row([human_bytes(self.bytes), "seconds".into(), "MiB/s".into(), "CPU s/GiB".into()]);
        for phase in &self.phases {
            table.row([
                phase.name.to_owned(),
                format!("{:.2}", phase.seconds),
                format!("{:.0}", phase.mib_per_second),
                format!("{:.2}", phase.cpu_seconds_per_gib),
            ]);
        }
        print(output, &table)?;
        let mut table = Table::new(&[1, 2, 3, 4, 5, 6]);
        table.row(["latency, ms", "count", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned));
        for latency in &self.latencies {
            let ms = |us: u64| format!("{:.2}", us as f64 / 1000.0);
            table.row([
                latency.name.to_owned(),
                latency.count.to_string(),
                ms(latency.p50_us),
                ms(latency.p90_us),
                ms(latency.p99_us),
                ms(latency.p999_us),
                ms(latency.max_us),
            ]);
        }
        print(output, &table)?;
        let memory = &self.memory;
        output.line(format_args!(
            "\nCPU is that of all processes together: client, master, datanodes. Peak memory: client {}, \
             master {}, datanode {}.\nReads came from the page cache.",
            human_bytes(memory.client_bytes),
            human_bytes(memory.master_bytes),
            human_bytes(memory.datanode_bytes),
        ))
    }
}

fn print(output: &mut Output, table: &Table) -> Result<(), CommandError> {
    output.line("")?;
    table.lines().try_for_each(|line| output.line(line))
}

impl Phase {
    /// `bytes` in `seconds` with so much CPU.
    pub(super) fn new(name: &'static str, bytes: u64, seconds: f64, cpu_seconds: f64) -> Self {
        // Neither nothing to move nor no time to do it in may give a number that is none.
        let mib = bytes as f64 / MIB;
        let seconds = seconds.max(1e-9);
        let cpu_seconds_per_gib = if bytes == 0 { 0.0 } else { cpu_seconds / (mib / 1024.0) };
        Self { name, seconds, mib_per_second: mib / seconds, cpu_seconds_per_gib }
    }
}

impl Latency {
    /// The percentiles of a histogram of microseconds.
    pub(super) fn new(name: &'static str, histogram: &Histogram<u64>) -> Self {
        Self {
            name,
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}
