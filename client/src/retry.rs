//! When to try again: growing, jittered pauses within a total deadline. Time and chance are arguments.

use std::time::Duration;

/// The pause after the first failed round; each further round doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The tries of one call.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    total: Duration,
    /// Tries that make a round: between them there is no pause, for each goes to another peer.
    round: u32,
    failed: u32,
}

impl Retry {
    /// Tries for `total`, over `round` peers in turn.
    pub(crate) fn new(total: Duration, round: usize) -> Self {
        Self { total, round: u32::try_from(round).unwrap_or(u32::MAX).max(1), failed: 0 }
    }

    /// After a failure, `elapsed` into the call: how long to pause before the next try; `None` to give up.
    /// `chance` is drawn evenly from 0 to 1.
    pub(crate) fn after_failure(&mut self, elapsed: Duration, chance: f64) -> Option<Duration> {
        self.failed = self.failed.saturating_add(1);
        let left = self.total.checked_sub(elapsed).filter(|left| !left.is_zero())?;
        if !self.failed.is_multiple_of(self.round) {
            return Some(Duration::ZERO);
        }
        let doublings = (self.failed / self.round - 1).min(10);
        let full = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
        // Half of it is chance, so that many clients do not come back in step.
        let pause = full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        (pause < left).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_end_with_the_deadline() {
        let mut retry = Retry::new(Duration::from_secs(3600), 1);
        let pauses: Vec<u128> = (0..7)
            .map(|_| retry.after_failure(Duration::ZERO, 1.0).expect("time is left").as_millis())
            .collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(retry.after_failure(Duration::from_secs(3600), 1.0), None);
        assert_eq!(retry.after_failure(Duration::from_millis(3_599_500), 1.0), None, "no pause past the end");
    }

    #[test]
    fn all_peers_are_asked_before_the_first_pause() {
        let mut retry = Retry::new(Duration::from_secs(10), 3);
        let pauses: Vec<u128> = (0..6)
            .map(|_| retry.after_failure(Duration::ZERO, 0.0).expect("time is left").as_millis())
            .collect();
        assert_eq!(pauses, [0, 0, 25, 0, 0, 50]);
    }
}
