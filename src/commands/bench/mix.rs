//! What a lane of `bench mixed` does next: of 100 operations 70 are range reads, 20 small puts, 5 stats and 5 removes, by
//! the seed.

use distrifs_proto::SplitMix;

/// Range reads of a hundred operations.
const READS: u64 = 70;
/// Small puts.
const PUTS: u64 = 20;
/// Stats; the rest are removes.
const STATS: u64 = 5;

/// One operation; files are numbers of this lane's own small ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// A range that begins here, of the large file.
    Read(u64),
    /// A small file that is not there yet.
    Put(u64),
    /// One that is there.
    Stat(u64),
    /// The oldest one that is there.
    Remove(u64),
}

/// The sequence of one lane. Two lanes share no small file: what one does fails nothing of another's.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    random: SplitMix,
    starts: u64,
    made: u64,
    removed: u64,
}

impl Mix {
    /// Of this lane, with ranges that may begin at 0 to `starts - 1`.
    pub(super) fn new(seed: u64, lane: u64, starts: u64) -> Self {
        // Mixed twice: neither a sum nor the same done to both would tell lane 2 of seed 1 from lane 1 of seed 2.
        let seed = SplitMix::new(SplitMix::new(seed).next() ^ lane).next();
        Self { random: SplitMix::new(seed), starts: starts.max(1), made: 0, removed: 0 }
    }

    /// The next operation. Where there is no small file to ask for or to remove, one is put.
    pub(super) fn next(&mut self) -> Operation {
        let (share, number) = (self.random.next() % 100, self.random.next());
        let there = self.made - self.removed;
        match share {
            _ if share < READS => Operation::Read(number % self.starts),
            _ if share < READS + PUTS || there == 0 => {
                self.made += 1;
                Operation::Put(self.made - 1)
            }
            _ if share < READS + PUTS + STATS => Operation::Stat(self.removed + number % there),
            _ => {
                self.removed += 1;
                Operation::Remove(self.removed - 1)
            }
        }
    }
}

/// Where a range of `length` bytes of `size` may begin, at multiples of `align`: so many places.
pub(super) fn starts(size: u64, length: u64, align: u64) -> u64 {
    size.saturating_sub(length) / align + 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_mix_has_its_shares_and_never_asks_for_what_is_not_there() {
        let mut mix = Mix::new(7, 3, starts(1000, 10, 1));
        let (mut there, mut counts) = (BTreeSet::new(), [0u64; 4]);
        for _ in 0..20_000 {
            let kind = match mix.next() {
                Operation::Read(at) => {
                    assert!(at + 10 <= 1000);
                    0
                }
                Operation::Put(number) => {
                    assert!(there.insert(number));
                    1
                }
                Operation::Stat(number) => {
                    assert!(there.contains(&number));
                    2
                }
                Operation::Remove(number) => {
                    assert!(there.remove(&number));
                    3
                }
            };
            counts[kind] += 1;
        }
        for (count, expected) in counts.into_iter().zip([14_000u64, 4_000, 1_000, 1_000]) {
            assert!(count.abs_diff(expected) < expected / 5, "{counts:?}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_again_and_lanes_differ() {
        let first = |seed, lane| {
            let mut mix = Mix::new(seed, lane, 1 << 20);
            (0..50).map(|_| mix.next()).collect::<Vec<_>>()
        };
        assert_eq!(first(1, 2), first(1, 2));
        assert_ne!(first(1, 2), first(1, 3));
        assert_ne!(first(1, 2), first(2, 2));
        assert_ne!(first(1, 2), first(2, 1));
        assert_eq!(starts(5, 5, 1), 1);
        assert_eq!(starts(3, 5, 1), 1);
    }
}
