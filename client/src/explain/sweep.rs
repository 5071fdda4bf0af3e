//! Splits the time of an operation among what it was waiting for. Pure.
//!
//! Much happens at once: three nodes sync, while the next chunk is on its way. Every instant is charged to exactly one
//! piece of work: of all that can be under way then, to the one that ends last, because that is the one that holds up
//! the rest. Waiting counts only where nobody works.

use std::collections::BTreeSet;

/// A time in which a row may be charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Who is charged.
    pub(crate) row: usize,
    /// Charged only where no work is under way.
    pub(crate) waits: bool,
    pub(crate) start_us: u64,
    pub(crate) end_us: u64,
    /// When the whole work ends of which this is a part.
    pub(crate) whole_end_us: u64,
}

impl Piece {
    /// A row's work from one time to another.
    pub(crate) fn work(row: usize, (start_us, end_us): (u64, u64)) -> Self {
        Self { row, waits: false, start_us, end_us, whole_end_us: end_us }
    }

    /// A row that only waits for as long.
    pub(crate) fn wait(row: usize, times: (u64, u64)) -> Self {
        Self { waits: true, ..Self::work(row, times) }
    }
}

/// What each of `rows` is charged of the time from 0 to `wall_us`. What is missing to the whole nobody accounts for.
pub(crate) fn charge(pieces: &[Piece], rows: usize, wall_us: u64) -> Vec<u64> {
    let mut borders: Vec<(u64, bool, usize)> = Vec::with_capacity(pieces.len() * 2);
    for (at, piece) in pieces.iter().enumerate() {
        let (start, end) = (piece.start_us.min(wall_us), piece.end_us.min(wall_us));
        if start < end {
            borders.extend([(start, true, at), (end, false, at)]);
        }
    }
    borders.sort_unstable();
    let mut charged = vec![0; rows];
    // The last one is charged.
    let mut under_way: BTreeSet<(bool, u64, usize)> = BTreeSet::new();
    let mut before = 0;
    for (time, begins, at) in borders {
        if let Some(&(_, _, top)) = under_way.last() {
            charged[pieces[top].row] += time - before;
        }
        before = time;
        let key = (!pieces[at].waits, pieces[at].whole_end_us, at);
        if begins {
            under_way.insert(key);
        } else {
            under_way.remove(&key);
        }
    }
    charged
}

/// The parts of `times` that lie in any of `others`.
pub(crate) fn within(times: (u64, u64), others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let common = others.iter().map(|other| (times.0.max(other.0), times.1.min(other.1)));
    let mut common: Vec<(u64, u64)> = common.filter(|(start, end)| start < end).collect();
    common.sort_unstable();
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_ends_last_is_charged() {
        let pieces = [Piece::work(0, (0, 10)), Piece::work(1, (2, 30)), Piece::work(2, (5, 12))];
        assert_eq!(charge(&pieces, 3, 30), [2, 28, 0]);
    }

    #[test]
    fn waiting_counts_where_nobody_works() {
        let pieces = [Piece::wait(0, (0, 100)), Piece::work(1, (10, 20))];
        assert_eq!(charge(&pieces, 2, 90), [80, 10]);
    }

    #[test]
    fn what_nobody_did_is_charged_to_nobody() {
        assert_eq!(charge(&[Piece::work(0, (10, 20)), Piece::work(0, (15, 18))], 1, 50), [10]);
    }

    #[test]
    fn a_part_counts_where_the_other_is_ready() {
        assert_eq!(
            within((10, 20), &[(0, 12), (15, 16), (19, 40), (50, 60)]),
            [(10, 12), (15, 16), (19, 20)]
        );
    }

    proptest! {
        #[test]
        fn no_instant_is_charged_twice(
            times in prop::collection::vec((0..1000u64, 0..1000u64, any::<bool>()), 0..60),
            wall in 0..1200u64,
        ) {
            let piece = |(row, &(a, b, waits)): (usize, &(u64, u64, bool))| {
                Piece { waits, ..Piece::work(row, (a.min(b), a.max(b))) }
            };
            let pieces: Vec<Piece> = times.iter().enumerate().map(piece).collect();
            let covered = (0..wall).filter(|t| pieces.iter().any(|p| (p.start_us..p.end_us).contains(t))).count();
            prop_assert_eq!(charge(&pieces, pieces.len(), wall).iter().sum::<u64>(), covered as u64);
        }
    }
}
