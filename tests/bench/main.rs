//! `distrifs bench`: what it prints, for people and for scripts. No figure is judged here.

use distrifs_testkit::{Cluster, run};

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
