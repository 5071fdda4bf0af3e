//! How fast copies were made of late, and so how long the rest will take. Pure.

/// What is counted: the last minute, in ticks of so many milliseconds.
const TICK_MS: u64 = 100;
const TICKS: u64 = 60_000 / TICK_MS;

/// Copies by the tick in which they were made.
#[derive(Debug)]
pub(super) struct Pace {
    /// The tick and its copies, at the tick's place in the minute.
    made: [(u64, u64); TICKS as usize],
    /// Copies that were missing when all chunks were last looked at.
    missing: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { made: [(0, 0); TICKS as usize], missing: 0 }
    }
}

impl Pace {
    /// A copy was made.
    pub(super) fn made(&mut self, now_ms: u64) {
        let tick = now_ms / TICK_MS;
        let place = &mut self.made[(tick % TICKS) as usize];
        if place.0 != tick {
            *place = (tick, 0);
        }
        place.1 += 1;
        self.missing = self.missing.saturating_sub(1);
    }

    /// All chunks were looked at: so many copies are missing.
    pub(super) fn set_missing(&mut self, copies: u64) {
        self.missing = copies;
    }

    /// Copies that are missing, as far as is known.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// Seconds until all are made at the pace of the last minute; `None`: none was made in it.
    pub(super) fn seconds_left(&self, now_ms: u64) -> Option<u64> {
        let now = now_ms / TICK_MS;
        let recent = self.made.iter().filter(|(tick, made)| *made > 0 && now.saturating_sub(*tick) < TICKS);
        let (first, made) =
            recent.fold((now, 0), |(first, sum), (tick, made)| (first.min(*tick), sum + made));
        (made > 0).then(|| (self.missing * (now - first + 1) * TICK_MS).div_ceil(made * 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_last_minute_says() {
        for (name, made, now_ms, missing, expected) in [
            ("none made", &[][..], 5_000, 10, None),
            ("ten at once", &[(5_000, 10)], 5_099, 200, Some(2)),
            ("ten in a second", &[(5_000, 10)], 5_900, 20, Some(2)),
            ("ten in ten seconds", &[(5_000, 5), (14_000, 5)], 14_900, 7, Some(7)),
            ("nothing is missing", &[(5_000, 10)], 5_900, 0, Some(0)),
            ("long ago", &[(5_000, 10)], 65_000, 20, None),
            ("what is old does not count", &[(5_000, 100), (66_000, 1)], 66_000, 30, Some(3)),
        ] {
            let mut pace = Pace::default();
            for (at, count) in made {
                (0..*count).for_each(|_| pace.made(*at));
            }
            pace.set_missing(missing);
            assert_eq!(pace.seconds_left(now_ms), expected, "{name}");
        }
    }

    #[test]
    fn each_copy_leaves_one_less() {
        let mut pace = Pace::default();
        pace.set_missing(1);
        pace.made(1_000);
        pace.made(1_000);
        assert_eq!(pace.missing(), 0);
    }
}
