//! The limit on open files: each connection and each open chunk is one, and 1024, the usual soft limit, is few.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes all that the system allows this process.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "the limit on open files stays");
    }
}

/// Takes all that the system allows this process, which must be `needed` at least.
///
/// # Errors
/// A line with both numbers.
pub(crate) fn require(needed: u64) -> Result<(), String> {
    raise_limit();
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < needed => {
            Err(format!("{needed} open files are needed, {allowed} are allowed: raise the limit (ulimit -n)"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_files_than_the_system_allows_are_refused() {
        assert_eq!(require(16), Ok(()));
        if getrlimit(Resource::Nofile).maximum.is_some() {
            assert!(require(u64::MAX).is_err_and(|why| why.contains("ulimit -n")));
        }
    }
}
