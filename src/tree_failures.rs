//! Failures in the middle of a tree: each is told at once, the rest goes on, the end is not a success.

use crate::error::{CommandError, report};
use crate::exit_status::ExitStatus;
use crate::progress::TransferBar;

/// What became of the entries of a tree so far.
pub(crate) struct TreeFailures {
    command: &'static str,
    bar: TransferBar,
    total: u64,
    failed: u64,
    corrupt: bool,
}

impl TreeFailures {
    /// Nothing has happened yet.
    pub(crate) fn new(command: &'static str, bar: TransferBar) -> Self {
        Self { command, bar, total: 0, failed: 0, corrupt: false }
    }

    /// Counts one entry. A failure is reported; one that the other entries will meet too is handed back.
    pub(crate) fn count(&mut self, outcome: Result<(), CommandError>) -> Result<(), CommandError> {
        self.total += 1;
        let Err(error) = outcome else { return Ok(()) };
        let hopeless = matches!(error.status(), ExitStatus::Unavailable | ExitStatus::WriteDenied)
            || matches!(error, CommandError::Output(_));
        if hopeless {
            return Err(error);
        }
        self.failed += 1;
        self.corrupt |= error.status() == ExitStatus::Corrupt;
        self.bar.suspend(|| report(self.command, &error));
        Ok(())
    }

    /// The outcome of the whole: corruption is told by its own status, anything else by the general one.
    pub(crate) fn finish(self) -> Result<(), CommandError> {
        let status = if self.corrupt { ExitStatus::Corrupt } else { ExitStatus::Failed };
        match self.failed {
            0 => Ok(()),
            count => Err(CommandError::Several { count, total: self.total, status }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_goes_on_but_the_end_is_a_failure() {
        let mut failures = TreeFailures::new("put", TransferBar::new(true, ""));
        assert!(failures.count(Ok(())).is_ok());
        assert!(failures.count(Err(CommandError::Usage("bad".into()))).is_ok());
        let end = failures.finish().expect_err("one failed");
        assert_eq!(end.status(), ExitStatus::Failed);
        assert_eq!(end.to_string(), "1 of 2 could not be transferred");
    }

    #[test]
    fn a_cluster_that_is_gone_ends_the_walk() {
        let mut failures = TreeFailures::new("put", TransferBar::new(true, ""));
        let gone = failures.count(Err(CommandError::TimedOut("gone".into()))).expect_err("it ends");
        assert_eq!(gone.status(), ExitStatus::Unavailable);
    }
}
