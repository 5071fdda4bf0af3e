//! What to do where the log cannot be read on: the decision table of recovery.
//!
//! A segment is zero-filled before use, one write is in flight at a time, and it is followed by the next only
//! once it is durable. So after a crash only the very last group of the log can be incomplete, what it lacks
//! is zero, and nothing stands behind it. Everything else is damage, and damage is never cut.

use super::super::error::Corruption;

/// The place where the next group should begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupState {
    /// None of its sectors is there.
    Absent,
    /// Some of its sectors are there, the others are zero.
    Partial,
    /// It is there, but contradicts itself or what stands before it.
    Contradictory,
}

/// What is known about the first place of a segment that holds no whole group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupFacts {
    pub(crate) group: GroupState,
    /// A sector of this segment from here on is neither zero nor as written.
    pub(crate) rotten: bool,
    /// A sector of another group is here or further on in this segment.
    pub(crate) beyond: bool,
    /// A later segment was in use.
    pub(crate) later: bool,
}

/// What to do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupVerdict {
    /// The log ends here.
    End,
    /// This segment ends here, the log goes on in the next one.
    NextSegment,
    /// The last write was torn: its remains are removed, and the log ends here.
    Cut,
    /// Damage.
    Refuse(Corruption),
}

/// A fact that a row asks for; `None` takes any.
type Ask = Option<bool>;

struct GroupRow {
    group: Option<GroupState>,
    rotten: Ask,
    beyond: Ask,
    later: Ask,
    verdict: GroupVerdict,
}

const fn row(
    group: Option<GroupState>,
    rotten: Ask,
    beyond: Ask,
    later: Ask,
    verdict: GroupVerdict,
) -> GroupRow {
    GroupRow { group, rotten, beyond, later, verdict }
}

const YES: Ask = Some(true);
const NO: Ask = Some(false);
const ABSENT: Option<GroupState> = Some(GroupState::Absent);
const PARTIAL: Option<GroupState> = Some(GroupState::Partial);
const CONTRADICTORY: Option<GroupState> = Some(GroupState::Contradictory);

#[rustfmt::skip]
const GROUP_ROWS: [GroupRow; 8] = [
    //  group          rotten beyond later
    row(None,          YES,   None,  None, GroupVerdict::Refuse(Corruption::RottenSector)),
    row(CONTRADICTORY, NO,    None,  None, GroupVerdict::Refuse(Corruption::Contradiction)),
    row(ABSENT,        NO,    YES,   None, GroupVerdict::Refuse(Corruption::Hole)),
    row(ABSENT,        NO,    NO,    YES,  GroupVerdict::NextSegment),
    row(ABSENT,        NO,    NO,    NO,   GroupVerdict::End),
    row(PARTIAL,       NO,    YES,   None, GroupVerdict::Refuse(Corruption::IncompleteBeforeOthers)),
    row(PARTIAL,       NO,    NO,    YES,  GroupVerdict::Refuse(Corruption::IncompleteBeforeOthers)),
    row(PARTIAL,       NO,    NO,    NO,   GroupVerdict::Cut),
];

impl GroupRow {
    fn matches(&self, facts: GroupFacts) -> bool {
        self.group.is_none_or(|group| group == facts.group)
            && self.rotten.is_none_or(|rotten| rotten == facts.rotten)
            && self.beyond.is_none_or(|beyond| beyond == facts.beyond)
            && self.later.is_none_or(|later| later == facts.later)
    }
}

/// The verdict of the one row that matches.
pub(crate) fn classify_group(facts: GroupFacts) -> GroupVerdict {
    let found = GROUP_ROWS.iter().find(|row| row.matches(facts));
    found.expect("every combination of facts has its row: see the test").verdict
}

/// A segment's header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderState {
    /// All zero.
    Zero,
    /// Some sectors are zero, the others as written.
    Partial,
    /// As written.
    Whole,
    /// A sector is neither.
    Rotten,
}

/// What is known about a segment before its groups are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeaderFacts {
    pub(crate) header: HeaderState,
    /// Something stands behind the header block.
    pub(crate) body: bool,
    /// No segment has a higher sequence.
    pub(crate) last: bool,
}

/// What to do with the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderVerdict {
    /// It was in use: read its groups.
    Read,
    /// It was made ready and never used: the log's next segment.
    Unused,
    /// The crash came while its header was being written: remove that, then as `Unused`.
    CutHeader,
    /// Damage.
    Refuse(Corruption),
}

/// The table of headers, as a match: the compiler proves that no combination is missing, and no arm is a
/// catch-all.
pub(crate) fn classify_header(facts: HeaderFacts) -> HeaderVerdict {
    use HeaderState::{Partial, Rotten, Whole, Zero};
    match (facts.header, facts.body, facts.last) {
        (Rotten, true | false, true | false) => HeaderVerdict::Refuse(Corruption::RottenSector),
        (Whole, true | false, true | false) => HeaderVerdict::Read,
        (Zero, false, true) => HeaderVerdict::Unused,
        (Partial, false, true) => HeaderVerdict::CutHeader,
        (Zero | Partial, true, true | false) | (Zero | Partial, false, false) => {
            HeaderVerdict::Refuse(Corruption::HeaderLost)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Corruption, GROUP_ROWS, GroupFacts, GroupState, GroupVerdict, HeaderFacts, HeaderState,
        HeaderVerdict, classify_group, classify_header,
    };

    fn all_group_facts() -> impl Iterator<Item = GroupFacts> {
        let states = [GroupState::Absent, GroupState::Partial, GroupState::Contradictory];
        states.into_iter().flat_map(|group| {
            (0..8).map(move |bits: u32| GroupFacts {
                group,
                rotten: bits & 1 != 0,
                beyond: bits & 2 != 0,
                later: bits & 4 != 0,
            })
        })
    }

    #[test]
    fn every_combination_of_facts_matches_exactly_one_row() {
        assert_eq!(all_group_facts().count(), 24);
        for facts in all_group_facts() {
            let rows = GROUP_ROWS.iter().filter(|row| row.matches(facts)).count();
            assert_eq!(rows, 1, "{facts:?}");
        }
    }

    #[test]
    fn every_row_matches_some_combination() {
        for (i, row) in GROUP_ROWS.iter().enumerate() {
            assert!(all_group_facts().any(|facts| row.matches(facts)), "row {i} is dead");
        }
    }

    /// R7: only what one torn write can leave is ever cut.
    #[test]
    fn nothing_with_anything_behind_it_is_cut() {
        for facts in all_group_facts() {
            let torn = facts.group == GroupState::Partial && !facts.rotten && !facts.beyond && !facts.later;
            assert_eq!(classify_group(facts) == GroupVerdict::Cut, torn, "{facts:?}");
            let goes_on = matches!(classify_group(facts), GroupVerdict::End | GroupVerdict::NextSegment);
            assert!(!goes_on || (facts.group == GroupState::Absent && !facts.rotten && !facts.beyond));
        }
    }

    #[test]
    fn headers_are_used_cut_or_refused() {
        let lost = HeaderVerdict::Refuse(Corruption::HeaderLost);
        let rotten = HeaderVerdict::Refuse(Corruption::RottenSector);
        let cases = [
            (HeaderState::Whole, [HeaderVerdict::Read; 4]),
            (HeaderState::Rotten, [rotten; 4]),
            (HeaderState::Zero, [lost, HeaderVerdict::Unused, lost, lost]),
            (HeaderState::Partial, [lost, HeaderVerdict::CutHeader, lost, lost]),
        ];
        for (header, verdicts) in cases {
            for (bits, verdict) in verdicts.into_iter().enumerate() {
                let facts = HeaderFacts { header, body: bits & 2 != 0, last: bits & 1 != 0 };
                assert_eq!(classify_header(facts), verdict, "{facts:?}");
            }
        }
    }
}
