//! `--hgrm`: percentiles as text, laid out as HdrHistogram's own `outputPercentileDistribution` does.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;

use super::snapshot::Snapshot;
use crate::error::CommandError;

/// Lines for each halving of the distance to 100 %, as HdrHistogram's tools have it.
const TICKS_PER_HALF: u32 = 5;

/// Writes a file for each stage of all nodes together; with one stage under the very name.
pub(super) fn write(file: &Path, snapshot: &Snapshot) -> Result<(), CommandError> {
    let stages = snapshot.stages();
    for stage in &stages {
        let path = if stages.len() == 1 { file.to_owned() } else { path_of(file, stage) };
        let text = distribution(&snapshot.merged(stage));
        std::fs::write(&path, text).map_err(|e| CommandError::local(&path, "write the percentiles", e))?;
    }
    Ok(())
}

/// The stage's name before the extension.
fn path_of(file: &Path, stage: &str) -> PathBuf {
    let extension = file.extension().map_or_else(|| "hgrm".into(), |it| it.to_string_lossy());
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    // A name of a stage is a peer's word: it must not lead elsewhere.
    let stage: String =
        stage.chars().map(|c| if c.is_alphanumeric() || c == '.' { c } else { '_' }).collect();
    file.with_file_name(format!("{stem}.{stage}.{extension}"))
}

/// Value in microseconds, percentile, count up to there, 1/(1-percentile).
fn distribution(histogram: &Histogram<u64>) -> String {
    let digits = usize::from(histogram.sigfig());
    let mut out =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64, step.quantile_iterated_to());
        // Writing to a string does not fail.
        let _ = write!(out, "{value:12.digits$} {quantile:.12} {count:10}");
        let _ = match quantile < 1.0 {
            true => writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(out),
        };
    }
    let (mean, deviation) = (histogram.mean(), histogram.stdev());
    let _ = writeln!(out, "#[Mean    = {mean:12.digits$}, StdDeviation   = {deviation:12.digits$}]");
    let (max, total) = (histogram.max() as f64, histogram.len());
    let _ = writeln!(out, "#[Max     = {max:12.digits$}, Total count    = {total:12}]");
    let (buckets, steps) =
        (histogram.buckets(), (2 * 10u64.pow(u32::from(histogram.sigfig()))).next_power_of_two());
    let _ = writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {steps:12}]");
    out
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::cell;
    use super::*;

    #[test]
    fn the_layout_is_that_of_hdrhistogram() {
        let text = distribution(&cell("a", "1", &[10, 20, 30, 40]).histogram);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[2], "       10.00 0.000000000000          1           1.00");
        let last = lines.iter().rposition(|line| !line.starts_with('#')).unwrap();
        assert_eq!(lines[last], "       40.00 1.000000000000          4");
        assert_eq!(lines[last + 1], "#[Mean    =        25.00, StdDeviation   =        11.18]");
        assert_eq!(lines[last + 2], "#[Max     =        40.00, Total count    =            4]");
        assert_eq!(lines[last + 3], "#[Buckets =           19, SubBuckets     =          256]");
    }

    #[test]
    fn each_of_several_stages_has_its_file() {
        assert_eq!(path_of(Path::new("/a/b.hgrm"), "write.sync"), Path::new("/a/b.write.sync.hgrm"));
        assert_eq!(path_of(Path::new("b"), "../x"), Path::new("b..._x.hgrm"));
    }
}
