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
