//! What a run found, as one JSON object or as a table with the goals.

use serde::Serialize;

use crate::error::CommandError;
use crate::output::{Output, Table};

/// Goals, beside which the table shows the values. None of them decides the exit status.
const HOLD_MS_GOAL: f64 = 5.0;
const CALL_MS_GOAL: f64 = 50.0;
const FIRST_COPY_MS_GOAL: f64 = 1000.0;
const CREATE_RATIO_GOAL: f64 = 0.8;
const DELETE_RATIO_GOAL: f64 = 0.5;
const REGISTERED_GOAL: u64 = 65_536;

/// Every figure of a run; `null` where there is none.
#[derive(Debug, Default, Serialize)]
pub(super) struct SwarmReport {
    pub(super) nodes: u64,
    /// On all nodes together.
    pub(super) replicas: u64,
    pub(super) files: u64,
    pub(super) bytes_per_replica: f64,
    pub(super) longest_hold_ms: Option<f64>,
    pub(super) longest_hold_lock: Option<String>,
    pub(super) longest_hold_items: Option<u64>,
    pub(super) longest_hold_phase: Option<&'static str>,
    /// Processor time of the longest hold whose processor time was taken, one in 16.
    pub(super) longest_hold_cpu_ms: Option<f64>,
    /// Of all locks and phases.
    pub(super) most_hold_items: Option<u64>,
    /// Most nodes at a time that were shown as dead and were not.
    pub(super) false_dead: u64,
    /// From when the first killed node was silent for the heartbeat timeout.
    pub(super) first_copy_order_ms: Option<f64>,
    /// The same from the kill.
    pub(super) first_copy_after_kill_ms: Option<f64>,
    pub(super) first_dead_after_kill_ms: Option<f64>,
    pub(super) stat_p99_ms: Option<f64>,
    pub(super) stat_max_ms: Option<f64>,
    pub(super) stat_errors: u64,
    pub(super) mkdir_p99_ms: Option<f64>,
    pub(super) mkdir_max_ms: Option<f64>,
    pub(super) mkdir_errors: u64,
    pub(super) register_s: f64,
    pub(super) report_s: f64,
    pub(super) creates_per_s: f64,
    pub(super) creates_per_s_3_nodes: f64,
    pub(super) create_ratio: f64,
    pub(super) create_ratio_low: f64,
    pub(super) create_ratio_high: f64,
    pub(super) create_errors: u64,
    pub(super) killed: u64,
    pub(super) declared_dead: u64,
    /// For how long the cluster was watched after the kill.
    pub(super) kill_seconds: f64,
    pub(super) copies_ordered: u64,
    /// Holds of all locks while the killed nodes were watched, and those beyond 5 ms.
    pub(super) kill_holds: u64,
    pub(super) kill_holds_beyond_5_ms: u64,
    /// Killed nodes that came back and reported.
    pub(super) returned: u64,
    pub(super) return_s: f64,
    pub(super) needless_copies: u64,
    pub(super) restart_ready_s: f64,
    pub(super) restart_s: f64,
    pub(super) restart_stat_p99_ms: Option<f64>,
    pub(super) restart_stat_errors: u64,
    pub(super) delete_creates_per_s: f64,
    pub(super) deletes_per_s: f64,
    pub(super) delete_ratio: f64,
    pub(super) delete_errors: u64,
    /// `null` unless asked for.
    pub(super) registered: Option<u64>,
    /// How late a timer of the simulated nodes was at most, for want of processor time.
    pub(super) driver_lag_ms: f64,
    /// Before the run.
    pub(super) load_average: Option<f64>,
    pub(super) master_cpu_s: f64,
}

/// One line of the table: what, value, goal.
type Row = (&'static str, String, String);

impl SwarmReport {
    pub(super) fn print(&self, output: &mut Output) -> Result<(), CommandError> {
        if output.json() {
            return output.object(self);
        }
        let mut table = Table::new(&[1, 2]);
        table.row([String::new(), "value".to_owned(), "goal".to_owned()]);
        for (what, value, goal) in self.rows() {
            table.row([what.to_owned(), value, goal]);
        }
        table.lines().try_for_each(|line| output.line(line))
    }

    fn rows(&self) -> Vec<Row> {
        let number = |value: Option<f64>, digits: usize| match value {
            Some(value) => format!("{value:.digits$}"),
            None => "none".to_owned(),
        };
        let plain = |what, value: f64, digits| (what, number(Some(value), digits), String::new());
        let count = |what, value: u64| (what, value.to_string(), String::new());
        let most = |what, value, goal: f64| (what, number(value, 1), format!("<= {goal:.0}"));
        let least = |what, value, goal: f64| (what, number(Some(value), 2), format!(">= {goal}"));
        let lock = self.longest_hold_lock.clone().unwrap_or_else(|| "none".to_owned());
        let mut rows = vec![
            count("datanodes", self.nodes),
            count("replicas", self.replicas),
            plain("master memory, bytes per replica", self.bytes_per_replica, 1),
            plain("registration of all, s", self.register_s, 1),
            plain("block reports of all, s", self.report_s, 1),
            most("longest lock hold, ms", self.longest_hold_ms, HOLD_MS_GOAL),
            ("  by the lock", lock, String::new()),
            ("  processor time, one hold in 16, ms", number(self.longest_hold_cpu_ms, 2), String::new()),
            ("  most items in one hold", number(self.most_hold_items.map(|it| it as f64), 0), String::new()),
            plain("creates/s", self.creates_per_s, 0),
            plain("creates/s with 3 datanodes", self.creates_per_s_3_nodes, 0),
            least("ratio of creates", self.create_ratio, CREATE_RATIO_GOAL),
            plain("  95 % interval from", self.create_ratio_low, 2),
            plain("  95 % interval to", self.create_ratio_high, 2),
            count("killed", self.killed),
            count("declared dead of these", self.declared_dead),
            ("live ones declared dead", self.false_dead.to_string(), "0".to_owned()),
            most("first copy order, ms", self.first_copy_order_ms, FIRST_COPY_MS_GOAL),
            most("stat p99 after the kill, ms", self.stat_p99_ms, CALL_MS_GOAL),
            most("mkdir p99 after the kill, ms", self.mkdir_p99_ms, CALL_MS_GOAL),
            count("copies ordered", self.copies_ordered),
            count("lock holds meanwhile", self.kill_holds),
            count("  of these beyond 5 ms", self.kill_holds_beyond_5_ms),
            count("returned", self.returned),
            count("copies ordered after the return", self.needless_copies),
            plain("restart until all reported, s", self.restart_s, 1),
            most("stat p99 after the restart, ms", self.restart_stat_p99_ms, CALL_MS_GOAL),
            plain("puts/s beside removes", self.delete_creates_per_s, 0),
            plain("deletes/s", self.deletes_per_s, 0),
            least("ratio of deletes", self.delete_ratio, DELETE_RATIO_GOAL),
        ];
        if let Some(registered) = self.registered {
            rows.push(("registrations taken", registered.to_string(), format!(">= {REGISTERED_GOAL}")));
        }
        rows.push(plain("largest delay of the driver, ms", self.driver_lag_ms, 0));
        rows.push(plain("CPU of the master, s", self.master_cpu_s, 1));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_stand_beside_their_values_and_what_is_unknown_is_none() {
        let report = SwarmReport { false_dead: 2, create_ratio: 0.9, ..SwarmReport::default() };
        let rows = report.rows();
        let row = |what: &str| rows.iter().find(|row| row.0 == what).cloned().expect("a row");
        assert_eq!(row("live ones declared dead"), ("live ones declared dead", "2".into(), "0".into()));
        assert_eq!(row("ratio of creates").1, "0.90");
        assert_eq!(row("ratio of creates").2, ">= 0.8");
        assert_eq!(row("longest lock hold, ms").1, "none");
        assert_eq!(row("longest lock hold, ms").2, "<= 5");
        assert!(!rows.iter().any(|row| row.0 == "registrations taken"));
    }
}
