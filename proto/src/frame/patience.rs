//! How long a silent hop is waited for before it is blamed.

use std::time::Duration;

/// How often a hop says that it is at work on a chunk, from its opening until it is acknowledged, whatever its disk does.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// A hop that says nothing for so many intervals is not at work.
const SILENT_INTERVALS: u32 = 3;

/// The patience with a hop that has `hops_behind` further ones behind it: three times [`PROGRESS_INTERVAL`], or
/// `timeout` where that is less, and a quarter of it more for each of them. A hop that is silent because of the one
/// behind it then speaks up, naming that one, before it is blamed itself.
#[must_use]
pub fn patience(timeout: Duration, hops_behind: usize) -> Duration {
    let own = timeout.min(PROGRESS_INTERVAL * SILENT_INTERVALS);
    let behind = u32::try_from(hops_behind).unwrap_or(u32::MAX);
    own.saturating_add((own / 4).saturating_mul(behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_nearer_to_the_client_waits_longer() {
        for (timeout_ms, expected_ms) in [(12_000, [3000, 3750, 4500]), (2000, [2000, 2500, 3000])] {
            let timeout = Duration::from_millis(timeout_ms);
            let of_three: Vec<u128> = (0..3).map(|behind| patience(timeout, behind).as_millis()).collect();
            assert_eq!(of_three, expected_ms);
        }
        assert!(patience(Duration::MAX, usize::MAX) > Duration::from_secs(1 << 31), "no overflow");
    }
}
