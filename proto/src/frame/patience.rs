//! How long a silent hop is waited for before it is blamed.

use std::time::Duration;

/// The patience with a hop that has `hops_behind` further ones behind it: a quarter of `timeout` more for each.
/// A hop that is silent because of the one behind it then speaks up, naming that one, before it is blamed itself.
#[must_use]
pub fn patience(timeout: Duration, hops_behind: usize) -> Duration {
    let behind = u32::try_from(hops_behind).unwrap_or(u32::MAX);
    timeout.saturating_add((timeout / 4).saturating_mul(behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_nearer_to_the_client_waits_longer() {
        let timeout = Duration::from_secs(12);
        let of_three: Vec<_> = (0..3).map(|behind| patience(timeout, behind).as_secs()).collect();
        assert_eq!(of_three, [12, 15, 18]);
        assert!(patience(Duration::MAX, usize::MAX) == Duration::MAX);
    }
}
