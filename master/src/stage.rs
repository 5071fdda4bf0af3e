//! The stages of a call's way through the master: the one list of them, and where each begins and ends.

use distrifs_proto::latency::Stage as StageList;

/// A stage. Those of a change are timed once for each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// From the hand-over of a change to the writer until its batch goes to the log.
    ChangeQueue,
    /// From there until the batch is durable: encoded, appended, written and synced.
    ChangeLog,
    /// From there until it is proved that this master still leads.
    ChangeProve,
    /// From there until the whole batch is applied.
    ChangeApply,
    /// From there until the waiting call has its answer.
    ChangeAnswer,
    /// A call that changes something, as a whole.
    Change,
    /// A call that only asks, as a whole.
    Read,
}

impl StageList for Stage {
    const ALL: &'static [Self] = &[
        Self::ChangeQueue,
        Self::ChangeLog,
        Self::ChangeProve,
        Self::ChangeApply,
        Self::ChangeAnswer,
        Self::Change,
        Self::Read,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ChangeQueue => "change.queue",
            Self::ChangeLog => "change.log",
            Self::ChangeProve => "change.prove",
            Self::ChangeApply => "change.apply",
            Self::ChangeAnswer => "change.answer",
            Self::Change => "change",
            Self::Read => "read",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// The durable writes of the log, which are its own to time: several changes may share one.
pub(crate) const LOG_SYNC: &str = "log.sync";

/// The calls that only ask, one of them for a promise that is not logged; of the others all but [`NEITHER`] change something.
const READS: &[&str] = &["List", "Stat", "Usage", "ReadPlan", "CheckFiles", "GrantChunk"];
/// Leases renewed in the background, what is given up, and complaints: nobody waits for them.
const NEITHER: &[&str] = &["RenewLease", "GiveUpGrant", "ReportBadReplica"];

/// What a call counts as.
pub(crate) fn stage_of(method: &str) -> Option<Stage> {
    match method {
        _ if NEITHER.contains(&method) => None,
        _ if READS.contains(&method) => Some(Stage::Read),
        _ => Some(Stage::Change),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_in_its_place() {
        for (at, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(stage.index(), at, "{stage:?}");
        }
    }

    #[test]
    fn calls_count_as_what_they_do() {
        assert_eq!((stage_of("Stat"), stage_of("Create")), (Some(Stage::Read), Some(Stage::Change)));
        assert_eq!(stage_of("RenewLease"), None);
    }
}
