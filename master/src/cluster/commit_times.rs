//! The median of all datanodes' commit times, kept while each changes. Pure.

/// Steps in which a time doubles: the median is exact to an eighth.
const STEPS: u32 = 8;
/// Buckets for all times of 64 bits.
const BUCKETS: usize = (64 * STEPS) as usize;

/// Nodes by how long their commits take.
#[derive(Debug)]
pub(super) struct CommitTimes {
    nodes: Vec<u32>,
    all: u32,
}

impl Default for CommitTimes {
    fn default() -> Self {
        Self { nodes: vec![0; BUCKETS], all: 0 }
    }
}

/// The bucket of a time, and back: the shortest time of a bucket.
fn bucket(us: u64) -> usize {
    let power = us.ilog2();
    let step = if power >= 3 { us >> (power - 3) & 7 } else { us << (3 - power) & 7 };
    (power * STEPS) as usize + step as usize
}

fn shortest(bucket: usize) -> u64 {
    let (power, step) = (bucket as u32 / STEPS, u64::from(bucket as u32 % STEPS));
    if power >= 3 { (8 + step) << (power - 3) } else { (8 + step) >> (3 - power) }
}

impl CommitTimes {
    /// A node's time has changed; 0: nothing is known of it.
    pub(super) fn replace(&mut self, before_us: u64, after_us: u64) {
        if before_us > 0 {
            self.nodes[bucket(before_us)] -= 1;
            self.all -= 1;
        }
        if after_us > 0 {
            self.nodes[bucket(after_us)] += 1;
            self.all += 1;
        }
    }

    /// The median in microseconds; 0 where nothing is known.
    pub(super) fn median(&self) -> u64 {
        if self.all == 0 {
            return 0;
        }
        let mut left = self.all / 2;
        for (at, nodes) in self.nodes.iter().enumerate() {
            if *nodes > left {
                return shortest(at);
            }
            left -= nodes;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_exact_to_an_eighth() {
        for times in
            [&[1][..], &[0, 0], &[5, 6, 7], &[900_000, 100_000, 100_000, 100_000], &[1, 2, 3, u64::MAX]]
        {
            let mut kept = CommitTimes::default();
            times.iter().for_each(|us| kept.replace(0, *us));
            let mut sorted: Vec<u64> = times.iter().copied().filter(|us| *us > 0).collect();
            sorted.sort_unstable();
            let exact = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
            let found = kept.median();
            assert!(found <= exact && exact - found <= exact / 8, "{times:?}: {found}");
            times.iter().for_each(|us| kept.replace(*us, 0));
            assert_eq!(kept.median(), 0);
        }
    }
}
