//! What a start is built from: the decision table over the checkpoints and the log. Pure.
//!
//! The log's own table (a torn tail, a corrupt middle, a missing segment, a newer format) is in
//! `engine::log`; what it refuses never comes here. Here it is decided which image the log is replayed upon, and
//! whether the two together are everything that was acknowledged. Nothing is ever cut or skipped for want of a
//! better base: what does not fit is refused.

/// One of the two newest checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageState {
    /// There is none.
    Absent,
    /// It was read to its end and verified.
    Good,
    /// It fails a check.
    Damaged,
    /// A newer version of the program has written it.
    Newer,
    /// It was not looked at, since a newer one is good.
    Unread,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The newest checkpoint.
    pub(crate) newest: ImageState,
    /// The one before it.
    pub(crate) older: ImageState,
    /// The log begins at or before the record behind the base: the newest good checkpoint, or nothing.
    pub(crate) joins: bool,
    /// The log goes as far as the base, or further.
    pub(crate) reaches: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The newest checkpoint and the log behind it.
    Newest,
    /// The older checkpoint and the log behind it; the newest is put aside.
    Older,
    /// The log from its first record on; checkpoints that are there are put aside.
    WholeLog,
    /// Start the newer program.
    RefuseNewer,
    /// The log begins too late for the base: records between them are missing.
    RefuseGap,
    /// The log ends before the base: it lost its tail, or it is an older one.
    RefuseLogLost,
    /// There were checkpoints, none can be read, and the log does not go back to the beginning.
    RefuseAllDamaged,
    /// There is no checkpoint, and the log does not go back to the beginning.
    RefuseCheckpointsMissing,
}

struct Row {
    newest: ImageState,
    older: &'static [ImageState],
    joins: Option<bool>,
    reaches: Option<bool>,
    verdict: Verdict,
}

const fn row(
    newest: ImageState,
    older: &'static [ImageState],
    joins: Option<bool>,
    reaches: Option<bool>,
    verdict: Verdict,
) -> Row {
    Row { newest, older, joins, reaches, verdict }
}

use ImageState::{Absent, Damaged, Good, Newer, Unread};

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);
const NOT_LOOKED_AT: &[ImageState] = &[Absent, Unread];
const NO_GOOD: &[ImageState] = &[Absent, Damaged];

#[rustfmt::skip]
const ROWS: [Row; 12] = [
    //  newest   older          joins reaches
    row(Good,    NOT_LOOKED_AT, YES,  YES,  Verdict::Newest),
    row(Good,    NOT_LOOKED_AT, NO,   None, Verdict::RefuseGap),
    row(Good,    NOT_LOOKED_AT, YES,  NO,   Verdict::RefuseLogLost),
    row(Newer,   NOT_LOOKED_AT, None, None, Verdict::RefuseNewer),
    row(Damaged, &[Newer],      None, None, Verdict::RefuseNewer),
    row(Damaged, &[Good],       YES,  YES,  Verdict::Older),
    row(Damaged, &[Good],       NO,   None, Verdict::RefuseGap),
    row(Damaged, &[Good],       YES,  NO,   Verdict::RefuseLogLost),
    row(Damaged, NO_GOOD,       YES,  YES,  Verdict::WholeLog),
    row(Damaged, NO_GOOD,       NO,   None, Verdict::RefuseAllDamaged),
    row(Absent,  &[Absent],     YES,  YES,  Verdict::WholeLog),
    row(Absent,  &[Absent],     NO,   None, Verdict::RefuseCheckpointsMissing),
];

impl Row {
    fn matches(&self, facts: Facts) -> bool {
        self.newest == facts.newest
            && self.older.contains(&facts.older)
            && self.joins.is_none_or(|joins| joins == facts.joins)
            && self.reaches.is_none_or(|reaches| reaches == facts.reaches)
    }
}

/// The verdict of the one row that matches. Facts that no row matches cannot be found on a disk (an older
/// checkpoint without a newer one, say): they are refused as damage.
pub(crate) fn classify(facts: Facts) -> Verdict {
    ROWS.iter().find(|row| row.matches(facts)).map_or(Verdict::RefuseAllDamaged, |row| row.verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [ImageState; 5] = [Absent, Good, Damaged, Newer, Unread];

    /// What the reading of a folder can find: it stops at the first good or newer one.
    fn can_be_found(facts: Facts) -> bool {
        let older = match facts.newest {
            Absent => facts.older == Absent,
            Good | Newer => matches!(facts.older, Absent | Unread),
            Damaged => facts.older != Unread,
            Unread => false,
        };
        // The empty state is reached by every log.
        let based =
            facts.newest == Good || facts.older == Good || facts.newest == Newer || facts.older == Newer;
        older && (facts.reaches || based)
    }

    fn all() -> impl Iterator<Item = Facts> {
        STATES.into_iter().flat_map(|newest| {
            STATES.into_iter().flat_map(move |older| {
                (0..4).map(move |bits: u32| Facts {
                    newest,
                    older,
                    joins: bits & 1 != 0,
                    reaches: bits & 2 != 0,
                })
            })
        })
    }

    #[test]
    fn every_case_matches_exactly_one_row() {
        let found: Vec<Facts> = all().filter(|facts| can_be_found(*facts)).collect();
        assert_eq!(found.len(), 30);
        for facts in found {
            assert_eq!(ROWS.iter().filter(|row| row.matches(facts)).count(), 1, "{facts:?}");
        }
        for facts in all() {
            assert!(ROWS.iter().filter(|row| row.matches(facts)).count() <= 1, "{facts:?}");
        }
    }

    #[test]
    fn only_what_is_whole_is_taken() {
        for facts in all() {
            match classify(facts) {
                Verdict::Newest => assert!(facts.newest == Good && facts.joins && facts.reaches),
                Verdict::Older => assert!(facts.older == Good && facts.joins && facts.reaches),
                Verdict::WholeLog => {
                    assert!(facts.newest != Good && facts.older != Good && facts.joins);
                }
                _ => {}
            }
        }
    }
}
