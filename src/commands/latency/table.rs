//! The table: a line for each stage, and below it one for each node.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::snapshot::{ALL, Snapshot};
use crate::error::CommandError;
use crate::output::{Output, Table};

/// The stable keys of `--json`.
#[derive(Serialize)]
struct Row<'a> {
    stage: &'a str,
    node: &'a str,
    count: u64,
    mean_us: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p99_9_us: u64,
    max_us: u64,
}

impl<'a> Row<'a> {
    fn new(stage: &'a str, node: &'a str, histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            stage,
            node,
            count: histogram.len(),
            mean_us: (histogram.mean() * 10.0).round() / 10.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: histogram.max(),
        }
    }
}

/// Prints a snapshot.
pub(super) fn print(snapshot: &Snapshot, output: &mut Output) -> Result<(), CommandError> {
    let mut table = Table::new(&[2, 3, 4, 5, 6, 7, 8]);
    let heads = ["stage", "node", "count", "mean", "p50", "p90", "p99", "p99.9", "max"];
    table.row(heads.map(str::to_owned));
    for stage in snapshot.stages() {
        let merged = snapshot.merged(stage);
        let of_nodes = snapshot.of_stage(stage).map(|cell| (cell.node.as_str(), &cell.histogram));
        for (node, histogram) in std::iter::once((ALL, &merged)).chain(of_nodes) {
            let row = Row::new(stage, node, histogram);
            if output.json() {
                output.object(&row)?;
                continue;
            }
            let name = if node == ALL { stage } else { "" };
            let mut cells = [name.to_owned(), node.to_owned(), row.count.to_string()].to_vec();
            let times = [row.mean_us, row.p50_us as f64, row.p90_us as f64, row.p99_us as f64];
            let times = times.into_iter().chain([row.p99_9_us as f64, row.max_us as f64]);
            cells.extend(times.map(|us| if row.count == 0 { "-".to_owned() } else { human_us(us) }));
            table.row::<9>(cells.try_into().expect("nine cells"));
        }
    }
    if output.json() {
        return Ok(());
    }
    table.lines().try_for_each(|line| output.line(line))
}

/// Microseconds with three digits and their unit.
pub(crate) fn human_us(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 999.5 => (us, "us"),
        us if us < 999_500.0 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let decimals = match value {
        value if value >= 99.95 || unit == "us" && value.fract() == 0.0 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (us, text) in [
            (0.0, "0 us"),
            (7.25, "7.25 us"),
            (340.0, "340 us"),
            (999.9, "1.00 ms"),
            (12_340.0, "12.3 ms"),
            (207_000.0, "207 ms"),
            (1_500_000.0, "1.50 s"),
        ] {
            assert_eq!(human_us(us), text);
        }
    }
}
