//! A histogram that counts without locks and without allocation, and leaves as HdrHistogram's own bytes.
//!
//! The counts lie as in an HdrHistogram of microseconds with two significant digits: exact below 256, then 128 steps
//! to each doubling. They are atomics: whoever counts adds to one of them, with no order beside it, and whoever asks
//! reads them one by one, so that neither a mutex nor a message to the counting thread stands in between. A reading
//! may miss what is counted while it is taken; it never sees a count go back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is longer counts as this: 67 s, beyond every patience of a data path.
pub const MICROS_MAX: u64 = (1 << RANGE_BITS) - 1;
const RANGE_BITS: u32 = 26;
/// Values differ by less than 1 %.
const SIGNIFICANT_DIGITS: u32 = 2;
/// The first power of two that holds two of 10^digits: HdrHistogram's number of steps in its first bucket.
const STEPS: u64 = 256;
const STEP_BITS: u32 = STEPS.trailing_zeros();
const STEPS_HALF: usize = STEPS as usize / 2;
/// Counts in all, 20 KiB.
const COUNTS: usize = (RANGE_BITS - STEP_BITS + 2) as usize * STEPS_HALF;
/// HdrHistogram's mark of its encoding, version 2.
const COOKIE: u32 = 0x1c84_9303 | 0x10;
const HEADER_BYTES: usize = 40;
/// A count takes at most so many bytes.
const COUNT_BYTES_MAX: usize = 9;
/// A histogram on the wire takes at most this.
pub const HISTOGRAM_BYTES_MAX: usize = HEADER_BYTES + COUNTS * COUNT_BYTES_MAX;

/// The durations of one stage since the start.
#[derive(Debug)]
pub struct Recorder {
    counts: Box<[AtomicU64]>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { counts: (0..COUNTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Recorder {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(MICROS_MAX).min(MICROS_MAX);
        self.counts[index_of(micros)].fetch_add(1, Ordering::Relaxed);
    }
}

fn index_of(micros: u64) -> usize {
    let bucket = (u64::BITS - (micros | (STEPS - 1)).leading_zeros()) - STEP_BITS;
    bucket as usize * STEPS_HALF + (micros >> bucket) as usize
}

/// Several recorders as one histogram, in HdrHistogram's encoding V2 without compression.
#[must_use]
pub fn encode_merged<'a>(recorders: impl Iterator<Item = &'a Recorder>) -> Vec<u8> {
    let mut counts = vec![0u64; COUNTS];
    for recorder in recorders {
        for (sum, count) in counts.iter_mut().zip(&recorder.counts) {
            *sum = sum.saturating_add(count.load(Ordering::Relaxed));
        }
    }
    encode(&counts)
}

fn encode(counts: &[u64]) -> Vec<u8> {
    let mut body = Vec::new();
    let used = counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
    let mut zeros = 0i64;
    for &count in &counts[..used] {
        if count == 0 {
            zeros += 1;
            continue;
        }
        if zeros > 0 {
            // A negative count is that many zeros.
            put_zig_zag(&mut body, -zeros);
            zeros = 0;
        }
        put_zig_zag(&mut body, i64::try_from(count).unwrap_or(i64::MAX));
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend(COOKIE.to_be_bytes());
    out.extend((body.len() as u32).to_be_bytes());
    out.extend(0u32.to_be_bytes());
    out.extend(SIGNIFICANT_DIGITS.to_be_bytes());
    out.extend(1u64.to_be_bytes());
    out.extend(MICROS_MAX.to_be_bytes());
    out.extend(1f64.to_be_bytes());
    out.extend(body);
    out
}

/// LEB128 of the zig-zagged number; a ninth byte has all its eight bits.
fn put_zig_zag(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    for _ in 0..COUNT_BYTES_MAX - 1 {
        if left < 0x80 {
            out.push(left as u8);
            return;
        }
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use proptest::prelude::*;

    fn read_back(recorders: &[Recorder]) -> Histogram<u64> {
        let bytes = encode_merged(recorders.iter());
        assert!(bytes.len() <= HISTOGRAM_BYTES_MAX);
        Deserializer::new().deserialize(&mut bytes.as_slice()).expect("HdrHistogram reads it")
    }

    #[test]
    fn an_empty_one_is_a_histogram_too() {
        assert_eq!(read_back(&[Recorder::default()]).len(), 0);
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let recorder = Recorder::default();
        recorder.record(Duration::MAX);
        recorder.record(Duration::from_micros(MICROS_MAX));
        let histogram = read_back(&[recorder]);
        assert_eq!((histogram.len(), histogram.max()), (2, MICROS_MAX));
    }

    #[test]
    fn the_largest_counts_travel() {
        for count in [1, 127, 1 << 20, 1 << 55, 1 << 62, i64::MAX as u64] {
            let recorder = Recorder::default();
            recorder.counts[index_of(1000)].store(count, Ordering::Relaxed);
            assert_eq!(read_back(&[recorder]).count_at(1000), count);
        }
    }

    proptest! {
        #[test]
        fn hdrhistogram_counts_the_same(values in prop::collection::vec(0..=MICROS_MAX, 1..200), at in 0..200usize) {
            let recorders = [Recorder::default(), Recorder::default()];
            let mut expected = Histogram::<u64>::new_with_bounds(1, MICROS_MAX, SIGNIFICANT_DIGITS as u8).unwrap();
            for (i, &value) in values.iter().enumerate() {
                recorders[usize::from(i < at)].record(Duration::from_micros(value));
                expected.record(value).unwrap();
            }
            let got = read_back(&recorders);
            prop_assert_eq!(got.len(), values.len() as u64);
            prop_assert!(got == expected);
        }
    }
}
