//! Median of paired ratios, with its bootstrap confidence interval.

use distrifs_proto::SplitMix;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;
/// The tail that a two-sided 95 % interval leaves out on each side.
const TAIL: f64 = 0.025;

/// A median and the interval that holds it in 95 % of the resamples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval {
    /// Percentile bootstrap of the median (Efron, 1979); the same seed gives the same interval. `None` without values.
    pub(super) fn of_median(values: &[f64], seed: u64) -> Option<Self> {
        let center = median(values.to_vec())?;
        let mut random = SplitMix::new(seed);
        let mut resample = || {
            let drawn = values.iter().map(|_| values[(random.next() % values.len() as u64) as usize]);
            median(drawn.collect()).unwrap_or(center)
        };
        let mut medians: Vec<f64> = (0..RESAMPLES).map(|_| resample()).collect();
        medians.sort_by(f64::total_cmp);
        let tail = (RESAMPLES as f64 * TAIL) as usize;
        Some(Self { median: center, low: medians[tail], high: medians[RESAMPLES - 1 - tail] })
    }
}

/// The middle value, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        for (values, expected) in [
            (vec![], None),
            (vec![3.0], Some(3.0)),
            (vec![3.0, 1.0], Some(2.0)),
            (vec![9.0, 1.0, 2.0], Some(2.0)),
        ] {
            assert_eq!(median(values), expected);
        }
    }

    #[test]
    fn the_interval_encloses_the_median_and_is_reproducible() {
        let values: Vec<f64> = (0..11).map(|it| 0.7 + f64::from(it) * 0.02).collect();
        let interval = Interval::of_median(&values, 3).expect("values");
        assert!((interval.median - 0.8).abs() < 1e-9);
        assert!(values[0] <= interval.low && interval.low < interval.median, "{interval:?}");
        assert!(interval.median < interval.high && interval.high <= values[10], "{interval:?}");
        assert_eq!(Interval::of_median(&values, 3), Some(interval));
        let same = Interval::of_median(&[0.5; 11], 1).expect("values");
        assert_eq!((same.low, same.median, same.high), (0.5, 0.5, 0.5));
        assert_eq!(Interval::of_median(&[], 1), None);
    }
}
