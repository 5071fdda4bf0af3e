//! The names of forks: folders within the log's folder.

use distrifs_proto::types::Epoch;

use super::TEMPORARY_SUFFIX;

/// The name of the fork that this leadership has made.
pub(crate) fn fork_name(epoch: Epoch) -> String {
    format!("fork-{:016x}", epoch.0)
}

/// Its name while it is being made.
pub(crate) fn unfinished_fork_name(epoch: Epoch) -> String {
    fork_name(epoch) + TEMPORARY_SUFFIX
}

/// The epoch in the name of a finished fork; `None` for any other name.
pub(crate) fn fork_epoch(name: &str) -> Option<Epoch> {
    let epoch = Epoch(u64::from_str_radix(name.strip_prefix("fork-")?, 16).ok()?);
    (fork_name(epoch) == name).then_some(epoch)
}

/// The epoch in the name of an unfinished fork; `None` for any other name.
pub(crate) fn unfinished_fork_epoch(name: &str) -> Option<Epoch> {
    fork_epoch(name.strip_suffix(TEMPORARY_SUFFIX)?)
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::Epoch;

    use super::{fork_epoch, fork_name, unfinished_fork_epoch, unfinished_fork_name};

    #[test]
    fn names_and_epochs_are_one_to_one() {
        assert_eq!(fork_name(Epoch(0xabc)), "fork-0000000000000abc");
        for epoch in [Epoch(0), Epoch(1), Epoch(0xabc), Epoch(u64::MAX)] {
            assert_eq!(fork_epoch(&fork_name(epoch)), Some(epoch));
            assert_eq!(unfinished_fork_epoch(&unfinished_fork_name(epoch)), Some(epoch));
            assert_eq!(fork_epoch(&unfinished_fork_name(epoch)), None);
            assert_eq!(unfinished_fork_epoch(&fork_name(epoch)), None);
        }
        for name in ["fork-1", "fork-000000000000000A", "fork-+000000000000001", "fork-", "lost+found"] {
            assert_eq!((fork_epoch(name), unfinished_fork_epoch(name)), (None, None), "{name}");
        }
    }
}
