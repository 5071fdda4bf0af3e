//! A stage that is held up on purpose, so that a test can see whether it is named.

use std::str::FromStr;
use std::time::Duration;

/// What one delay may be at most: beyond it nobody waits.
const DELAY_MS_MAX: u64 = 60_000;

/// `STAGE=MILLISECONDS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// The name of the stage.
    pub stage: String,
    /// How long each pass of it is held up.
    pub by: Duration,
}

/// Why a delay was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDelay {
    /// Not of the form.
    #[error("{0:?}: STAGE=MILLISECONDS is wanted, with 0 to {max} milliseconds", max = DELAY_MS_MAX)]
    Form(String),
    /// A stage that is not there.
    #[error("no stage {stage:?}: there are {known}")]
    Stage {
        /// As it was given.
        stage: String,
        /// Those that are there.
        known: String,
    },
}

impl FromStr for Delay {
    type Err = BadDelay;

    fn from_str(text: &str) -> Result<Self, BadDelay> {
        let bad = || BadDelay::Form(text.to_owned());
        let (stage, ms) = text.split_once('=').ok_or_else(bad)?;
        let ms: u64 = ms.parse().map_err(|_| bad())?;
        if stage.is_empty() || ms > DELAY_MS_MAX {
            return Err(bad());
        }
        Ok(Self { stage: stage.to_owned(), by: Duration::from_millis(ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_a_stage_and_milliseconds() {
        let delay = Delay { stage: "write.sync".into(), by: Duration::from_millis(200) };
        assert_eq!("write.sync=200".parse(), Ok(delay));
        for bad in ["", "write.sync", "=5", "a=b", "a=-1", "a=60001"] {
            assert!(bad.parse::<Delay>().is_err(), "{bad:?} was taken");
        }
    }
}
