//! What was measured: one object for scripts, a row and a few sentences for people.

use serde::Serialize;

use super::cost::Cost;
use super::load::{Pace, Sample};
use crate::error::CommandError;
use crate::output::{Output, Table, human_bytes};
use crate::usage::ProcessUsage;

const GIB: f64 = (1u64 << 30) as f64;

/// The stable keys of `--json`, for help.
pub(super) const KEYS: &str = "--json prints an object for each row: bench, phase, clients, replication, size_bytes, \
    rate, ops, bytes, seconds, ops_per_second, gb_per_second, p50_us, p90_us, p99_us, p999_us, max_us, \
    uncorrected_p99_us, fairness (the slowest client's pace as a share of the fastest's), cpu_seconds_per_gib, cpu_seconds_per_1000_ops, \
    log_syncs_per_op, syncs_per_op (those of the datanodes too), processes (name, cpu_seconds, peak_bytes) and ceiling (name, ops_per_second, gb_per_second, p50_us, cpu_seconds_per_gib, cpu_seconds_per_1000_ops, \
    ratio, p50_ratio, cpu_ratio). What is not known is null; CPU is that of all processes together.";

/// One load: a row.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    bench: &'static str,
    phase: &'static str,
    clients: u64,
    replication: Option<u32>,
    /// Bytes of one operation.
    size_bytes: u64,
    /// What an open loop was asked for.
    rate: Option<f64>,
    ops: u64,
    bytes: u64,
    seconds: f64,
    ops_per_second: f64,
    /// 10^9 bytes.
    gb_per_second: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    uncorrected_p99_us: f64,
    fairness: Option<f64>,
    cpu_seconds_per_gib: Option<f64>,
    cpu_seconds_per_1000_ops: Option<f64>,
    /// Durable writes of the master's log.
    log_syncs_per_op: Option<f64>,
    /// The same and those of all datanodes.
    syncs_per_op: Option<f64>,
    processes: Vec<ProcessUsage>,
    pub(super) ceiling: Vec<Bare>,
}

impl Figures {
    /// Of operations of `size` bytes each, without what they cost.
    pub(super) fn new(
        bench: &'static str,
        phase: &'static str,
        pace: &Pace,
        size: u64,
        sample: &Sample,
    ) -> Self {
        let times = sample.corrected();
        let us = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1000.0;
        let bytes = sample.ops * size;
        Self {
            bench,
            phase,
            clients: pace.clients,
            replication: None,
            size_bytes: size,
            rate: pace.rate,
            ops: sample.ops,
            bytes,
            seconds: sample.seconds,
            ops_per_second: sample.rate(),
            gb_per_second: bytes as f64 / sample.seconds.max(1e-9) / 1e9,
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: times.max() as f64 / 1000.0,
            uncorrected_p99_us: sample.times.value_at_quantile(0.99) as f64 / 1000.0,
            fairness: sample.fairness,
            cpu_seconds_per_gib: None,
            cpu_seconds_per_1000_ops: None,
            log_syncs_per_op: None,
            syncs_per_op: None,
            processes: Vec::new(),
            ceiling: Vec::new(),
        }
    }

    /// With so many replicas, or as many as the cluster keeps.
    pub(super) fn replicated(self, replication: Option<u32>) -> Self {
        Self { replication, ..self }
    }

    /// With what it cost.
    pub(super) fn at_cost(mut self, cost: Cost) -> Self {
        (self.cpu_seconds_per_gib, self.cpu_seconds_per_1000_ops) = shares(cost.cpu, self.bytes, self.ops);
        let per_op = |syncs: u64| syncs as f64 / self.ops.max(1) as f64;
        self.log_syncs_per_op = cost.log_syncs.map(per_op);
        self.syncs_per_op = cost.log_syncs.zip(cost.datanode_syncs).map(|(log, data)| per_op(log + data));
        self.processes = cost.processes;
        self
    }
}

/// CPU seconds for each GiB and for 1,000 operations.
fn shares(cpu: Option<f64>, bytes: u64, ops: u64) -> (Option<f64>, Option<f64>) {
    let per = |amount: f64| cpu.filter(|_| amount > 0.0).map(|cpu| cpu / amount);
    (per(bytes as f64 / GIB), per(ops as f64 / 1000.0))
}

/// What a ratio is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Bytes a second.
    Bytes,
    /// Operations a second.
    Ops,
    /// Only the time of one: the loads are not the same.
    Time,
}

/// What the machine did.
pub(super) struct BareSample {
    /// As in "of the ...".
    pub(super) name: String,
    /// Times are empty where nothing was timed by itself.
    pub(super) sample: Sample,
    /// In all.
    pub(super) bytes: u64,
    /// CPU seconds, where they mean anything.
    pub(super) cpu: Option<f64>,
    /// How it is compared.
    pub(super) by: By,
}

impl BareSample {
    /// Another part of the same, which came behind it.
    pub(super) fn and(mut self, next: &Self) -> Self {
        self.sample.merge(&next.sample, false);
        self.bytes += next.bytes;
        self.cpu = self.cpu.zip(next.cpu).map(|(own, next)| own + next);
        self
    }
}

/// What the machine did, and what was measured as a share of that.
#[derive(Debug, Serialize)]
pub(super) struct Bare {
    name: String,
    ops_per_second: f64,
    gb_per_second: f64,
    p50_us: Option<f64>,
    cpu_seconds_per_gib: Option<f64>,
    cpu_seconds_per_1000_ops: Option<f64>,
    ratio: Option<f64>,
    p50_ratio: Option<f64>,
    cpu_ratio: Option<f64>,
}

impl Bare {
    /// Beside these figures.
    pub(super) fn beside(figures: &Figures, bare: &BareSample) -> Self {
        let times = bare.sample.corrected();
        let p50_us = (!times.is_empty()).then(|| times.value_at_quantile(0.5) as f64 / 1000.0);
        let gb_per_second = bare.bytes as f64 / bare.sample.seconds.max(1e-9) / 1e9;
        let (per_gib, per_1000_ops) = shares(bare.cpu, bare.bytes, bare.sample.ops);
        let share = |one: f64, of: f64| (of > 0.0).then(|| one / of);
        let cpu = |one: Option<f64>, of: Option<f64>| one.zip(of).and_then(|(one, of)| share(one, of));
        Self {
            name: bare.name.clone(),
            ops_per_second: bare.sample.rate(),
            gb_per_second,
            p50_us,
            cpu_seconds_per_gib: per_gib,
            cpu_seconds_per_1000_ops: per_1000_ops,
            ratio: match bare.by {
                By::Bytes => share(figures.gb_per_second, gb_per_second),
                By::Ops => share(figures.ops_per_second, bare.sample.rate()),
                By::Time => None,
            },
            p50_ratio: p50_us.and_then(|us| share(figures.p50_us, us)),
            cpu_ratio: match bare.by {
                By::Bytes => cpu(figures.cpu_seconds_per_gib, per_gib),
                By::Ops | By::Time => cpu(figures.cpu_seconds_per_1000_ops, per_1000_ops),
            },
        }
    }

    /// Such as `put: 0.87 of the bare chain of 3 (0.55 GB/s), CPU 1.1 times its`.
    fn sentence(&self, phase: &str) -> String {
        let speed = match self.size_of_one() {
            size if size >= 1e6 => format!("{:.2} GB/s", self.gb_per_second),
            _ => format!("{:.0} ops/s", self.ops_per_second),
        };
        let mut parts = Vec::new();
        parts.extend(self.ratio.map(|ratio| format!("{ratio:.2} of the {} ({speed})", self.name)));
        if let Some((ratio, us)) = self.p50_ratio.zip(self.p50_us) {
            let of = if parts.is_empty() { format!("that of the {}", self.name) } else { "its".to_owned() };
            parts.push(format!("p50 {ratio:.1} times {of} ({us:.0} us)"));
        }
        parts.extend(self.cpu_ratio.map(|ratio| format!("CPU {ratio:.1} times its")));
        format!("{phase}: {}", parts.join(", "))
    }

    fn size_of_one(&self) -> f64 {
        self.gb_per_second * 1e9 / self.ops_per_second.max(1e-9)
    }
}

/// Prints all rows of a bench.
pub(super) fn report(output: &mut Output, all: &[Figures]) -> Result<(), CommandError> {
    if output.json() {
        return all.iter().try_for_each(|row| output.object(row));
    }
    table(all).lines().try_for_each(|line| output.line(line))?;
    for row in all {
        if !row.processes.is_empty() {
            output.line(processes(row))?;
        }
        row.ceiling.iter().try_for_each(|bare| output.line(bare.sentence(row.phase)))?;
    }
    Ok(())
}

fn table(all: &[Figures]) -> Table {
    let mut table = Table::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    table.row(
        [
            "",
            "in flight",
            "ops",
            "ops/s",
            "GB/s",
            "p50 us",
            "p90 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "fair",
            "CPU s/GiB",
            "CPU s/1000 ops",
            "log syncs/op",
            "syncs/op",
        ]
        .map(str::to_owned),
    );
    let optional = |value: Option<f64>| value.map_or_else(String::new, |it| format!("{it:.2}"));
    for row in all {
        // Of large operations there are few in a second, of small ones few bytes.
        let digits = if row.ops_per_second < 100.0 { 2 } else { 0 };
        let us = [row.p50_us, row.p90_us, row.p99_us, row.p999_us, row.max_us].map(|us| format!("{us:.0}"));
        let [p50, p90, p99, p999, max] = us;
        table.row([
            row.phase.to_owned(),
            row.clients.to_string(),
            row.ops.to_string(),
            format!("{:.digits$}", row.ops_per_second),
            if row.bytes > 0 { format!("{:.3}", row.gb_per_second) } else { String::new() },
            p50,
            p90,
            p99,
            p999,
            max,
            optional(row.fairness),
            // A GiB of small operations says nothing to anybody.
            optional(row.cpu_seconds_per_gib.filter(|_| row.size_bytes >= 1 << 20)),
            optional(row.cpu_seconds_per_1000_ops),
            optional(row.log_syncs_per_op),
            optional(row.syncs_per_op),
        ]);
    }
    table
}

/// Such as `put: client 1.20 s CPU, peak 23.0 MiB; master ...`.
fn processes(row: &Figures) -> String {
    let one = |it: &ProcessUsage| {
        format!("{} {:.2} s CPU, peak {}", it.name, it.cpu_seconds, human_bytes(it.peak_bytes))
    };
    format!("{}: {}", row.phase, row.processes.iter().map(one).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(ops: u64, seconds: f64, each: Duration) -> Sample {
        let mut sample = Sample { ops, seconds, ..Sample::default() };
        sample.times.record_n(each.as_nanos() as u64, ops).unwrap();
        sample
    }

    fn figures() -> Figures {
        let cost = Cost {
            processes: vec![ProcessUsage { name: "client".into(), cpu_seconds: 2.0, peak_bytes: 1 << 20 }],
            cpu: Some(2.0),
            log_syncs: Some(8),
            datanode_syncs: Some(16),
        };
        let sample = sample(4, 2.0, Duration::from_millis(500));
        let figures = Figures::new("put", "put", &Pace::closed(1, 4), 1 << 28, &sample);
        figures.replicated(Some(3)).at_cost(cost)
    }

    fn bare(by: By) -> BareSample {
        let sample = sample(4, 1.0, Duration::from_millis(250));
        BareSample { name: "bare chain of 3".into(), sample, bytes: 1 << 30, cpu: Some(1.0), by }
    }

    #[test]
    fn the_keys_of_json_are_those_that_help_names() {
        let mut figures = figures();
        figures.ceiling.push(Bare::beside(&figures, &bare(By::Bytes)));
        let json = serde_json::to_value(&figures).unwrap();
        let mut keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        for nested in ["processes", "ceiling"] {
            keys.extend(json[nested][0].as_object().unwrap().keys());
        }
        assert_eq!(keys.len(), 24 + 3 + 9);
        let told: Vec<&str> = KEYS.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let untold: Vec<_> = keys.iter().filter(|key| !told.contains(&key.as_str())).collect();
        assert!(untold.is_empty(), "{untold:?}");
        assert_eq!(json["gb_per_second"], (1u64 << 30) as f64 / 2e9);
        assert_eq!((&json["cpu_seconds_per_gib"], &json["log_syncs_per_op"]), (&2.0.into(), &2.0.into()));
        assert_eq!(json["cpu_seconds_per_1000_ops"], 500.0);
    }

    #[test]
    fn ratios_are_of_what_is_alike() {
        let told = |by| Bare::beside(&figures(), &bare(by)).sentence("put");
        let expected =
            "put: 0.50 of the bare chain of 3 (1.07 GB/s), p50 2.0 times its (250085 us), CPU 2.0 times its";
        let rounded = |text: String| text.replace(|c: char| c.is_ascii_digit(), "9");
        assert_eq!(rounded(told(By::Bytes)), rounded(expected.to_owned()));
        assert!(
            told(By::Bytes).starts_with("put: 0.50 of the bare chain of 3 (1.07 GB/s), p50 2.0 times its")
        );
        assert!(told(By::Time).starts_with("put: p50 2.0 times that of the bare chain of 3"));
        let untimed = BareSample {
            sample: Sample { ops: 4, seconds: 1.0, ..Sample::default() },
            cpu: None,
            ..bare(By::Ops)
        };
        assert_eq!(
            Bare::beside(&figures(), &untimed).sentence("x"),
            "x: 0.50 of the bare chain of 3 (1.07 GB/s)"
        );
    }

    #[test]
    fn a_row_shows_what_is_known() {
        let lines: Vec<String> = table(&[figures()]).lines().collect();
        assert_eq!(lines.len(), 2);
        let cells: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!((cells.len(), &cells[..5]), (14, ["put", "1", "4", "2.00", "0.537"].as_slice()));
        assert_eq!(cells[10..], ["2.00", "500.00", "2.00", "6.00"]);
        assert_eq!(processes(&figures()), "put: client 2.00 s CPU, peak 1.0 MiB");
        let unknown = Figures::new(
            "read",
            "read",
            &Pace::closed(1, 1),
            4096,
            &sample(1, 1.0, Duration::from_millis(1)),
        );
        assert_eq!(table(&[unknown]).lines().nth(1).unwrap().split_whitespace().count(), 10);
    }
}
