//! The rate of file creations of the main master, with all its datanodes, as a share of that of a small one.

use std::time::Duration;

use super::closed_loop::{Lanes, run_until};
use super::interval::{Interval, median};
use super::namespace_calls::NamespaceCalls;
use crate::error::CommandError;

/// Pairs of windows.
const PAIRS: u64 = 11;

/// What the two masters did.
pub(super) struct CreateRates {
    /// Files opened and abandoned a second, medians of the windows.
    pub(super) main: f64,
    pub(super) reference: f64,
    /// Of the main master's rate to the other's in each pair of windows.
    pub(super) ratio: Interval,
    /// Calls that failed, on both.
    pub(super) errors: u64,
}

/// Measures both in turns, in the order ABBA: a machine that becomes slower or faster over time favours neither.
pub(super) async fn compare(
    main: &NamespaceCalls,
    reference: &NamespaceCalls,
    lanes: u64,
    window: Duration,
    seed: u64,
) -> Result<CreateRates, CommandError> {
    let (mut mains, mut references, mut errors) = (Vec::new(), Vec::new(), 0);
    for pair in 0..PAIRS {
        let order = [pair % 2 == 0, pair % 2 == 1];
        for is_main in order {
            let calls = if is_main { main } else { reference }.clone();
            let create = move |lane: u64, number: u64| {
                let calls = calls.clone();
                async move { calls.create_and_abandon(lane, format!("/create-{lane}-{number}")).await }
            };
            let (done, ()) = run_until(Lanes::closed(lanes), create, tokio::time::sleep(window)).await?;
            let done = done.some_succeeded()?;
            errors += done.errors;
            if is_main { &mut mains } else { &mut references }.push(done.sample.rate());
        }
    }
    let ratios: Vec<f64> =
        mains.iter().zip(&references).map(|(main, other)| main / other.max(1e-9)).collect();
    let nothing = || CommandError::Check("no window was measured".to_owned());
    Ok(CreateRates {
        main: median(mains).ok_or_else(nothing)?,
        reference: median(references).ok_or_else(nothing)?,
        ratio: Interval::of_median(&ratios, seed).ok_or_else(nothing)?,
        errors,
    })
}
