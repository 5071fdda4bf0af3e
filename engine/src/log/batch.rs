//! Which waiting appends share one write: all that wait, in order, as long as they fit.

use super::limits::GROUP_RECORDS_MAX;

/// The size of a group while it is put together. An append is never split over two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    bytes: usize,
    records: usize,
    bytes_max: usize,
}

impl Batch {
    /// An empty one that takes `bytes_max` encoded bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: 0, records: 0, bytes_max }
    }

    /// Takes an append, or says that it has to wait for the next group.
    pub(super) fn take(&mut self, bytes: usize, records: usize) -> bool {
        let fits = self.bytes + bytes <= self.bytes_max && self.records + records <= GROUP_RECORDS_MAX;
        if fits {
            self.bytes += bytes;
            self.records += records;
        }
        fits
    }

    /// Encoded bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of records.
    pub(super) fn records(&self) -> usize {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{Batch, GROUP_RECORDS_MAX};

    #[test]
    fn a_batch_is_full_to_the_byte_and_to_the_record() {
        let cases = [
            (100, vec![(100, 1, true), (1, 1, false)]),
            (100, vec![(60, 1, true), (41, 1, false), (40, 1, true)]),
            (100, vec![(101, 1, false)]),
            (1 << 20, vec![(9, GROUP_RECORDS_MAX, true), (1, 1, false)]),
            (1 << 20, vec![(9, GROUP_RECORDS_MAX + 1, false)]),
        ];
        for (max, appends) in cases {
            let mut batch = Batch::new(max);
            for (bytes, records, taken) in appends {
                assert_eq!(batch.take(bytes, records), taken, "{max} {bytes} {records}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bound_is_passed_and_nothing_is_forgotten(
            max in 1usize..5000, appends in proptest::collection::vec((0usize..600, 1usize..50), 0..100)
        ) {
            let mut batch = Batch::new(max);
            let mut sum = (0, 0);
            for (bytes, records) in appends {
                if batch.take(bytes, records) {
                    sum = (sum.0 + bytes, sum.1 + records);
                } else {
                    prop_assert!(sum.0 + bytes > max || sum.1 + records > GROUP_RECORDS_MAX);
                }
                prop_assert!(batch.bytes() <= max);
            }
            prop_assert_eq!(sum, (batch.bytes(), batch.records()));
        }
    }
}
