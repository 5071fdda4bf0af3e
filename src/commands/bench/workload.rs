//! The options that all loads of files share.

use std::time::Duration;

use clap::Args;

use super::load::{Limit, Pace};
use crate::options::seconds;

/// How a load is made.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Workload {
    /// Operations in flight, each by a client of its own with connections of its own [default: 1 for put and get, else 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    clients: Option<u64>,
    /// How long it lasts
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// How many operations, instead of a time [default: put and get one for each client, read 20000, small 2000, mixed 5000]
    #[arg(long, value_name = "N", conflicts_with = "duration",
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    ops: Option<u64>,
    /// Open loop: so many operations a second are meant to begin, each timed from its intended start; all of them are done
    #[arg(long, value_name = "OPS", value_parser = rate)]
    rate: Option<f64>,
    /// Replicas, and datanodes of an embedded cluster [default: 3; a running cluster's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(super) replication: Option<u32>,
    /// For the bytes, the places and the order of what is done
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Also measure, in the same run, what the machine can do: sockets, checksums and disk alone, below TMPDIR
    #[arg(long)]
    pub(super) ceiling: bool,
}

/// What the options of one load mean.
impl Workload {
    /// Operations in flight.
    pub(super) fn clients(&self, usual: u64) -> u64 {
        self.clients.unwrap_or(usual)
    }

    /// The pace, where `clients` and `ops` are usual.
    pub(super) fn pace(&self, clients: u64, ops: u64) -> Pace {
        let limit = self.duration.map_or(Limit::Ops(self.ops.unwrap_or(ops)), Limit::Time);
        Pace { clients: self.clients(clients), limit, rate: self.rate }
    }

    /// Datanodes that an embedded cluster needs.
    pub(super) fn datanodes(&self) -> u32 {
        self.replication.unwrap_or(3)
    }
}

/// Operations a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("expected operations a second, such as 200 or 0.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_wins_over_the_usual_number_and_rates_are_positive() {
        let given = Workload {
            clients: None,
            duration: None,
            ops: None,
            rate: None,
            replication: None,
            seed: 1,
            ceiling: false,
        };
        assert_eq!(given.pace(3, 9), Pace::closed(3, 9));
        assert_eq!(given.datanodes(), 3);
        let counted = Workload { ops: Some(4), clients: Some(2), ..given };
        assert_eq!(counted.pace(3, 9), Pace::closed(2, 4));
        let timed = Workload { duration: Some(Duration::from_secs(2)), rate: Some(5.0), ..given };
        let expected = Pace { clients: 3, limit: Limit::Time(Duration::from_secs(2)), rate: Some(5.0) };
        assert_eq!(timed.pace(3, 9), expected);
        assert_eq!(rate("0.5"), Ok(0.5));
        for bad in ["0", "-1", "NaN", "inf", "many"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
