//! Whether io_uring works here: not by version, but by doing it. Containers deny it by seccomp, hosts by
//! sysctl, and old kernels know only some of its operations.

/// Builds a small ring and uses it; the error is a one-line reason.
pub fn probe_uring() -> Result<(), String> {
    Err("this build has no io_uring body".to_owned())
}
