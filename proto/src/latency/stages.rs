//! The recorders of one thread or process, one for each stage.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::time::Duration;

use super::delay::{BadDelay, Delay};
use super::recorder::{Recorder, encode_merged};

/// A part of the way that an operation takes through a process.
pub trait Stage: Copy + 'static {
    /// All of them, each at its [`index`](Self::index).
    const ALL: &'static [Self];

    /// Its name, such as `write.sync`: what the operation is, and the part of it.
    fn name(self) -> &'static str;

    /// Its place in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

/// A stage's name and its histogram in HdrHistogram's encoding V2, of microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageHistogram {
    /// The stage.
    pub name: Cow<'static, str>,
    /// The histogram.
    pub v2: Vec<u8>,
}

/// A recorder for each stage, and what a test has each of them held up by.
#[derive(Debug)]
pub struct Stages<S> {
    recorders: Box<[Recorder]>,
    delays: Box<[Duration]>,
    stages: PhantomData<S>,
}

impl<S: Stage> Default for Stages<S> {
    fn default() -> Self {
        let recorders = S::ALL.iter().map(|_| Recorder::default()).collect();
        Self { recorders, delays: S::ALL.iter().map(|_| Duration::ZERO).collect(), stages: PhantomData }
    }
}

impl<S: Stage> Stages<S> {
    /// With these stages held up.
    ///
    /// # Errors
    /// [`BadDelay::Stage`] for a name that is none of these stages.
    pub fn with_delays(delays: &[Delay]) -> Result<Self, BadDelay> {
        let mut stages = Self::default();
        for delay in delays {
            let at = S::ALL.iter().position(|stage| stage.name() == delay.stage).ok_or_else(|| {
                let known: Vec<&str> = S::ALL.iter().map(|stage| stage.name()).collect();
                BadDelay::Stage { stage: delay.stage.clone(), known: known.join(", ") }
            })?;
            stages.delays[at] = delay.by;
        }
        Ok(stages)
    }

    /// A stage took so long.
    pub fn record(&self, stage: S, took: Duration) {
        self.recorders[stage.index()].record(took);
    }

    /// For how long a stage is to be held up; `None` but in tests.
    #[must_use]
    pub fn delay(&self, stage: S) -> Option<Duration> {
        Some(self.delays[stage.index()]).filter(|delay| !delay.is_zero())
    }

    /// The histograms of several threads as one for each stage.
    #[must_use]
    pub fn report(threads: &[&Self]) -> Vec<StageHistogram> {
        let of_stage = |stage: &S| {
            let at = stage.index();
            let v2 = encode_merged(threads.iter().map(|stages| &stages.recorders[at]));
            StageHistogram { name: stage.name().into(), v2 }
        };
        S::ALL.iter().map(of_stage).collect()
    }
}
