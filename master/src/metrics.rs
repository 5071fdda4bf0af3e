//! Counts of requests, and everything as Prometheus text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use distrifs_proto::ErrorCode;

use crate::cluster::NodeState;
use crate::hold::{BUCKETS, Holds};
use crate::state::State;

/// Requests by method and outcome. The methods are those of the services, so the map is small.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, Option<u16>), u64>>,
    forgotten: AtomicU64,
}

impl Metrics {
    /// Tombstones of chunks that are gone everywhere were forgotten.
    pub(crate) fn tombstones_forgotten(&self, tombstones: u64) {
        self.forgotten.fetch_add(tombstones, Ordering::Relaxed);
    }

    /// One request was answered; `None`: with success.
    pub(crate) fn answered(&self, method: &'static str, code: Option<ErrorCode>) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method, code.map(ErrorCode::number))).or_default() += 1;
    }
}

/// How long the shared locks were held, and for how many items.
fn lock_holds(state: &State, out: &mut String) {
    let holds = state.locks.each().map(|(lock, stats)| (lock, stats.read()));
    let name = "distrifs_lock_hold_seconds";
    let _ = write!(out, "# HELP {name} Time for which shared locks were held.\n# TYPE {name} histogram\n");
    for (lock, holds) in &holds {
        for (limit, beyond) in BUCKETS.iter().zip(holds.beyond) {
            let (le, within) = (limit.as_secs_f64(), holds.holds.saturating_sub(beyond));
            let _ = writeln!(out, "{name}_bucket{{lock=\"{lock}\",le=\"{le}\"}} {within}");
        }
        let _ = writeln!(out, "{name}_bucket{{lock=\"{lock}\",le=\"+Inf\"}} {}", holds.holds);
        let _ = writeln!(out, "{name}_sum{{lock=\"{lock}\"}} {}", holds.nanos as f64 / 1e9);
        let _ = writeln!(out, "{name}_count{{lock=\"{lock}\"}} {}", holds.holds);
    }
    type Column = (&'static str, &'static str, &'static str, fn(&Holds) -> f64);
    let columns: [Column; 4] = [
        ("seconds_max", "gauge", "Longest hold since the start.", |it| it.nanos_max as f64 / 1e9),
        ("cpu_seconds_max", "gauge", "Longest processor time of a hold, of one hold in 16.", |it| {
            it.cpu_nanos_max as f64 / 1e9
        }),
        ("items_max", "gauge", "Most nodes, chunks and replicas looked at in one hold.", |it| {
            it.items_max as f64
        }),
        ("items_total", "counter", "Nodes, chunks and replicas looked at in all holds.", |it| {
            it.items as f64
        }),
    ];
    for (name, kind, help, of) in columns {
        let _ =
            write!(out, "# HELP distrifs_lock_hold_{name} {help}\n# TYPE distrifs_lock_hold_{name} {kind}\n");
        for (lock, holds) in &holds {
            let _ = writeln!(out, "distrifs_lock_hold_{name}{{lock=\"{lock}\"}} {}", of(holds));
        }
    }
}

/// All metrics of a master.
pub(crate) fn render(state: &State) -> String {
    let mut out = String::new();
    let mut gauge = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a string does not fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    gauge("distrifs_master_epoch", "gauge", "Epoch of this leader.", state.epoch.0);
    gauge("distrifs_master_durable_lsn", "gauge", "Last durable log position.", state.durable().0);
    {
        let namespace = state.namespace();
        let counts = namespace.counts();
        for (name, help, value) in [
            ("files", "Visible files.", counts.files),
            ("directories", "Directories.", counts.directories),
            ("bytes", "Bytes of visible files.", counts.bytes),
            ("chunks", "Chunks that files refer to.", namespace.chunk_count()),
            ("open_files", "Files being written.", namespace.open_count()),
            ("tombstones", "Chunks that wait for gc.", namespace.tombstone_count()),
        ] {
            gauge(&format!("distrifs_namespace_{name}"), "gauge", help, value);
        }
    }
    if let Some(stats) = state.log_stats() {
        for (name, help, value) in [
            ("appends_total", "Appends acknowledged.", stats.appends),
            ("records_total", "Records acknowledged.", stats.records),
            ("groups_total", "Groups acknowledged, one durable write each.", stats.groups),
            ("syncs_total", "Durable writes.", stats.syncs),
            ("bytes_total", "Bytes written.", stats.bytes),
            ("sync_nanoseconds_total", "Time of all durable writes.", stats.sync_nanos),
            ("no_space_total", "Appends refused for want of space.", stats.no_space),
        ] {
            gauge(&format!("distrifs_log_{name}"), "counter", help, value);
        }
        for (name, help, value) in [
            ("kept_segments", "Segments on the disk.", stats.kept_segments),
            ("kept_bytes", "Bytes of these segments.", stats.kept_bytes),
            ("first_lsn", "First log position that is kept.", stats.first_lsn.0),
        ] {
            gauge(&format!("distrifs_log_{name}"), "gauge", help, value);
        }
    }
    let checkpoints = state.checkpoint_stats();
    for (name, kind, help, value) in [
        ("taken_total", "counter", "Checkpoints since the start.", checkpoints.taken),
        ("failed_total", "counter", "Checkpoints that failed.", checkpoints.failed),
        ("lsn", "gauge", "Log position of the newest checkpoint of this start.", checkpoints.lsn.0),
        ("bytes", "gauge", "Its length.", checkpoints.bytes),
        ("milliseconds", "gauge", "How long it took.", checkpoints.took.as_millis() as u64),
    ] {
        gauge(&format!("distrifs_checkpoint_{name}"), kind, help, value);
    }
    let now_ms = state.clock.now_ms();
    let (sums, (chunks, replicas), behind, deletes, repairs, safe, orphans, grants, stalls) = {
        let cluster = state.cluster();
        let (repairs, safe) = (cluster.repair_stats(now_ms), cluster.safe_mode(now_ms).is_some());
        let (behind, deletes) = (cluster.behind().is_some(), cluster.deletes(now_ms));
        (
            cluster.sums(),
            cluster.replica_counts(),
            behind,
            deletes,
            repairs,
            safe,
            cluster.orphan_count(),
            cluster.grants.count(),
            cluster.stalls(),
        )
    };
    let views = state.node_views();
    let found = state.repair_found();
    for (name, kind, help, value) in [
        ("orphans", "gauge", "Chunks that datanodes hold and the namespace does not know.", orphans),
        ("safe_mode", "gauge", "1 when nothing is repaired.", u64::from(safe)),
        ("chunks_to_repair", "gauge", "Chunks that lack good replicas.", found.to_repair),
        ("chunks_to_trim", "gauge", "Chunks with surplus or damaged replicas.", found.to_trim),
        ("copies_missing", "gauge", "Copies that are still to be made.", repairs.missing),
        ("copies_running", "gauge", "Copies on their way.", repairs.running),
        ("copies_done_total", "counter", "Copies made.", repairs.done),
        ("copies_failed_total", "counter", "Copies that failed or were given up.", repairs.failed),
        ("found_corrupt_total", "counter", "Replicas read whole and found damaged.", repairs.found_corrupt),
        ("dropped_total", "counter", "Surplus and damaged replicas ordered away.", repairs.dropped),
    ] {
        gauge(&format!("distrifs_repair_{name}"), kind, help, value);
    }
    gauge("distrifs_cluster_reported_chunks", "gauge", "Chunks with a reported replica.", chunks);
    gauge("distrifs_cluster_granted_chunks", "gauge", "Chunks granted that no file has yet.", grants);
    gauge("distrifs_cluster_replicas", "gauge", "Reported replicas.", replicas);
    gauge("distrifs_cluster_behind", "gauge", "1 when a datanode has seen more.", u64::from(behind));
    gauge("distrifs_cluster_reports_missing", "gauge", "Datanodes whose report is not in.", sums.unreported);
    gauge("distrifs_cluster_declared_dead_total", "counter", "Datanodes declared dead.", sums.deaths);
    gauge("distrifs_master_stalls_total", "counter", "Times in which this master did not listen.", stalls);
    let forgotten = state.metrics.forgotten.load(Ordering::Relaxed);
    gauge("distrifs_gc_forgotten_total", "counter", "Tombstones forgotten: no replica is left.", forgotten);
    gauge("distrifs_gc_active", "gauge", "1 when replicas may be deleted.", u64::from(deletes));
    let sum = |of: fn(&crate::cluster::NodeView) -> u64| views.iter().map(of).sum::<u64>();
    for (name, help, value) in [
        ("unknown", "Reported replicas of unknown chunks.", sum(|it| it.oddities.unknown)),
        ("stale", "Reported replicas of an older generation.", sum(|it| it.oddities.stale)),
        ("differing", "Reported replicas with other bytes.", sum(|it| it.oddities.differing)),
        ("corrupt", "Reported replicas that are damaged.", sum(|it| it.oddities.corrupt)),
    ] {
        gauge(&format!("distrifs_cluster_replicas_{name}"), "gauge", help, value);
    }
    lock_holds(state, &mut out);
    out.push_str("# HELP distrifs_cluster_nodes Datanodes by state.\n# TYPE distrifs_cluster_nodes gauge\n");
    for (state, name) in
        [(NodeState::Live, "live"), (NodeState::Suspect, "suspect"), (NodeState::Dead, "dead")]
    {
        let count = views.iter().filter(|view| view.state == state).count();
        let _ = writeln!(out, "distrifs_cluster_nodes{{state=\"{name}\"}} {count}");
    }
    out.push_str(
        "# HELP distrifs_requests_total Requests answered.\n# TYPE distrifs_requests_total counter\n",
    );
    let requests = state.metrics.requests.lock().unwrap_or_else(PoisonError::into_inner);
    for ((method, code), count) in requests.iter() {
        let code = code.and_then(ErrorCode::from_number).map_or("ok".to_owned(), |code| code.to_string());
        let _ = writeln!(out, "distrifs_requests_total{{method=\"{method}\",code=\"{code}\"}} {count}");
    }
    out
}
