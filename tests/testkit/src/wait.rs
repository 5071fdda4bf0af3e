//! Waiting for what takes a moment.

use std::time::{Duration, Instant};

/// How long anything may take that will happen: long enough for a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Returns once `done` is true.
///
/// # Panics
/// When it is not within [`DEADLINE`], naming `what` was waited for.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::sleep(POLL);
    }
}
