//! `distrifs bench`: what it prints, for people and for scripts. No figure is judged here.

use std::process::{Child, Stdio};

use distrifs_testkit::{Cluster, bare_command, run, wait_until};
use rustix::process::{Pid, Signal, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");
const SMALL: [&str; 6] = ["--ops", "40", "--clients", "8", "--rounds", "2"];

#[test]
fn meta_measures_a_cluster_of_its_own_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = std::process::Command::new(BINARY);
    command.args(["bench", "meta", "--json"]).args(SMALL).env("TMPDIR", folder.path());
    let rows = run(&mut command, b"").ok().json();
    let phases: Vec<&str> = rows.iter().map(|row| row["phase"].as_str().expect("a name")).collect();
    assert_eq!(
        phases,
        [
            "empty call",
            "mkdir",
            "create",
            "complete",
            "stat",
            "read plan",
            "rename",
            "rm",
            "empty call, alone",
            "device sync, alone",
            "create, alone"
        ]
    );
    for row in &rows {
        for key in ["ops_per_second", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"] {
            assert!(row[key].as_f64().expect(key) > 0.0, "{row}");
        }
        let (phase, ops) = (row["phase"].as_str().expect("a name"), row["ops"].as_u64().expect("a count"));
        let expected = match phase {
            "empty call" => 3 * 2 * 40,
            _ => 2 * 40,
        };
        assert_eq!(ops, expected, "{row}");
        // What changes something is in the log, and what does not is not.
        let changes = ["mkdir", "create", "complete", "rename", "rm"].contains(&phase);
        assert_eq!(row["syncs_per_op"].as_f64().is_some_and(|syncs| syncs > 0.0), changes, "{row}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0, "nothing is left");
}

#[test]
fn meta_measures_a_running_cluster_and_removes_its_directory() {
    let cluster = Cluster::start(BINARY);
    let master = cluster.master_address();
    let mut arguments = vec!["bench", "meta", "--master", &master];
    arguments.extend(SMALL);
    let shown = cluster.run(&arguments).ok();
    assert!(shown.text().lines().any(|line| line.starts_with("read plan ")), "{}", shown.text());
    assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "");
    let mut nobody = cluster.command();
    nobody.args(["bench", "meta", "--master", "127.0.0.1:1"]);
    nobody.env("DISTRIFS_SOCKET_TIMEOUT", "0.5").env("DISTRIFS_CLIENT_RETRY", "1");
    let _ = run(&mut nobody, b"").fails_with(8);
    let _ = cluster.run(&["bench", "meta", "--clients", "0"]).fails_with(2);
    let _ = cluster.run(&["--user", "bob", "bench", "meta", "--master", &master]).fails_with(5);
}

/// Loads that are done within a moment: name and options.
const LOADS: [(&str, &[&str]); 5] = [
    ("put", &["--size", "300K", "--clients", "2", "--replication", "2", "--ceiling"]),
    ("get", &["--size", "1M", "--replication", "1", "--cold", "--ops", "2", "--ceiling"]),
    ("read", &["--size", "1M", "--range", "3000", "--clients", "3", "--duration", "0.2", "--ceiling"]),
    ("small", &["--ops", "20", "--clients", "4", "--get", "--replication", "1", "--ceiling"]),
    (
        "mixed",
        &[
            "--size",
            "1M",
            "--ops",
            "400",
            "--rate",
            "2000",
            "--clients",
            "2",
            "--replication",
            "1",
            "--ceiling",
        ],
    ),
];

fn phases(rows: &[serde_json::Value]) -> Vec<&str> {
    rows.iter().map(|row| row["phase"].as_str().expect("a name")).collect()
}

#[test]
fn loads_of_files_measure_a_cluster_of_their_own_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut shown = Vec::new();
    for (load, options) in LOADS {
        let mut command = bare_command(BINARY);
        command.args(["bench", load, "--json"]).args(options).env("TMPDIR", folder.path());
        shown.extend(run(&mut command, b"").ok().json());
        let left = std::fs::read_dir(folder.path()).expect("listed").count();
        assert_eq!(left, 0, "{load} leaves nothing");
    }
    let expected = [
        "put",
        "get, cold",
        "read",
        "small put",
        "small get",
        "mixed",
        "range read",
        "small put",
        "stat",
        "remove",
    ];
    assert_eq!(phases(&shown), expected);
    for row in &shown {
        for key in ["ops", "seconds", "ops_per_second", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"] {
            assert!(row[key].as_f64().expect(key) > 0.0, "{key}: {row}");
        }
        for key in ["rate", "cpu_seconds_per_gib", "cpu_seconds_per_1000_ops", "log_syncs_per_op", "ceiling"]
        {
            assert!(row.get(key).is_some(), "{key}: {row}");
        }
    }
    costs_and_ceilings_are_told(&shown);
}

fn costs_and_ceilings_are_told(rows: &[serde_json::Value]) {
    let named = |row: usize, list: &str| -> Vec<String> {
        let all = rows[row][list].as_array().expect("a list").iter();
        all.map(|it| it["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(named(0, "processes"), ["client", "master", "datanode-1", "datanode-2"]);
    for process in rows[0]["processes"].as_array().expect("a list") {
        assert!(process["peak_bytes"].as_u64() > Some(0), "{process}");
    }
    assert_eq!(
        named(0, "ceiling"),
        ["bare chain of 2", "bare chain of 2, fed from the file", "raw disk, 2 copies"]
    );
    assert_eq!(named(1, "ceiling"), ["bare cached read", "raw disk"]);
    assert_eq!(named(2, "ceiling"), ["bare cached read"]);
    assert_eq!(named(3, "ceiling"), ["bare chain of 1", "bare fan of 1 and a log", "device sync, alone"]);
    for key in ["ratio", "p50_us", "p50_ratio", "cpu_ratio"] {
        assert!(rows[3]["ceiling"][1][key].as_f64() > Some(0.0), "{key}: {}", rows[3]);
    }
    assert_eq!((named(6, "ceiling").len(), named(7, "ceiling").len()), (1, 1));
    assert!(rows[0]["ceiling"][0]["ratio"].as_f64() > Some(0.0), "{}", rows[0]);
    assert!(rows[2]["ceiling"][0]["p50_ratio"].as_f64() > Some(0.0), "{}", rows[2]);
    assert!(rows[3]["log_syncs_per_op"].as_f64() > Some(0.0), "{}", rows[3]);
    let count = |row: usize| rows[row]["ops"].as_u64().expect("a count");
    assert_eq!([count(0), count(1), count(3), count(4), count(5)], [2, 2, 20, 20, 400]);
    assert_eq!((6..10).map(count).sum::<u64>(), 400);
}

#[test]
fn loads_of_files_measure_a_running_cluster_and_remove_their_directory() {
    let cluster = Cluster::start(BINARY);
    let master = cluster.master_address();
    for load in ["put", "get", "read", "small", "mixed"] {
        let mut arguments = vec!["bench", load, "--master", &master, "--size", "64K", "--ops", "4"];
        arguments.extend(["--clients", "2", "--json"]);
        let rows = cluster.run(&arguments).ok().json();
        assert_eq!((&rows[0]["bench"], &rows[0]["ops"]), (&load.into(), &4.into()));
        let processes = rows[0]["processes"].as_array().expect("a list");
        assert_eq!((processes.len(), &processes[0]["name"]), (1, &"client".into()));
        assert!(rows[0]["cpu_seconds_per_1000_ops"].is_null(), "of the others nothing is known");
        assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "");
    }
    // The environment alone is not enough to load a cluster, with --running it is.
    let shown = cluster.run(&["bench", "small", "--running", "--ops", "5", "--clients", "1"]).ok();
    assert!(shown.text().lines().any(|line| line.starts_with("small put ")), "{}", shown.text());
    let _ = cluster.run(&["bench", "get", "--running", "--cold"]).fails_with(2);
    let _ = cluster.run(&["bench", "read", "--running", "--size", "1K"]).fails_with(2);
    // After an error too.
    let _ = cluster.run(&["bench", "put", "--running", "--size", "1K", "--replication", "16"]).fails_with(6);
    assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "");
}

/// A swarm that is done within seconds: short heartbeats, windows and waits.
const SWARM: [&str; 13] = [
    "bench",
    "swarm",
    "--nodes",
    "40",
    "--replicas",
    "30",
    "--clients",
    "8",
    "--window",
    "0.5",
    "--watch",
    "4",
    "--json",
];

fn swarm_command(folder: &std::path::Path) -> std::process::Command {
    let mut command = bare_command(BINARY);
    command.env("TMPDIR", folder);
    for (name, seconds) in [("INTERVAL", "0.3"), ("TIMEOUT", "1.5")] {
        command.env(format!("DISTRIFS_HEARTBEAT_{name}"), seconds);
    }
    command.env("DISTRIFS_RECOVERY_INTERVAL", "0.3");
    command
}

#[test]
fn swarm_kills_a_rack_returns_it_restarts_the_master_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = swarm_command(folder.path());
    command.args(SWARM).args(["--kill", "10", "--register", "20"]);
    let rows = run(&mut command, b"").ok().json();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    for (key, expected) in [
        ("nodes", 40),
        ("replicas", 1200),
        ("files", 400),
        ("false_dead", 0),
        ("killed", 4),
        ("declared_dead", 4),
        ("returned", 4),
        ("registered", 20),
        ("create_errors", 0),
        ("delete_errors", 0),
    ] {
        assert_eq!(row[key].as_u64(), Some(expected), "{key}: {row}");
    }
    for key in [
        "copies_ordered",
        "stat_p99_ms",
        "mkdir_p99_ms",
        "creates_per_s",
        "creates_per_s_3_nodes",
        "create_ratio",
        "create_ratio_low",
        "create_ratio_high",
        "report_s",
        "delete_creates_per_s",
        "restart_s",
        "restart_stat_p99_ms",
        "kill_seconds",
        "master_cpu_s",
    ] {
        assert!(row[key].as_f64() > Some(0.0), "{key}: {row}");
    }
    for key in ["bytes_per_replica", "first_copy_order_ms", "deletes_per_s", "needless_copies"] {
        assert!(row[key].as_f64() >= Some(0.0), "{key}: {row}");
    }
    for key in ["longest_hold_ms", "longest_hold_lock", "longest_hold_items", "load_average"] {
        assert!(row.get(key).is_some(), "{key}: {row}");
    }
    // A step that walks over all nodes for each of many chunks looks at thousands while it holds a lock.
    let items = row["most_hold_items"].as_u64();
    assert!(items > Some(0) && items <= Some(1024), "{row}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0, "nothing is left");
}

#[test]
fn swarm_refuses_options_that_do_not_fit_and_leaves_nothing_when_it_is_interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    for options in [&["--master", "127.0.0.1:1"][..], &["--running"], &["--racks", "41"], &["--watch", "1"]] {
        let mut command = swarm_command(folder.path());
        let _ = run(command.args(SWARM).args(options), b"").fails_with(2);
    }
    let mut command = swarm_command(folder.path());
    command.args(["bench", "swarm", "--nodes", "40", "--replicas", "30", "--watch", "60"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    wait_until("its master runs", || {
        let inside = std::fs::read_dir(folder.path()).expect("listed").filter_map(Result::ok);
        inside.into_iter().any(|run| run.path().join("main/logs/master.log").exists())
    });
    end(child);
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0, "nothing is left");
}

#[test]
fn a_bench_that_is_told_to_end_leaves_nothing() {
    let cluster = Cluster::start(BINARY);
    let child = cluster.spawn(&["bench", "small", "--running", "--duration", "60", "-q"]);
    let files = || cluster.run(&["du", "--json", "/"]).ok().json()[0]["files"].as_u64();
    wait_until("files are put", || files() > Some(3));
    end(child);
    assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "");

    let folder = tempfile::tempdir().expect("a folder");
    let mut command = bare_command(BINARY);
    command.args(["bench", "put", "--size", "1M", "--duration", "60"]).env("TMPDIR", folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    wait_until("its folder is there", || std::fs::read_dir(folder.path()).expect("listed").count() > 0);
    end(child);
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
}

fn end(child: Child) {
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
}
