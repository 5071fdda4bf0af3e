//! The two commands of the README, as a newcomer runs them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use distrifs_testkit::{DEADLINE, bare_command, random_bytes, run, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");

fn distrifs(temporary: &Path) -> Command {
    let mut command = bare_command(BINARY);
    command.env("TMPDIR", temporary);
    command
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).expect("it runs");
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn the_demo_checks_its_claims_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = distrifs(folder.path());
    command.env("DISTRIFS_CHUNK_SIZE", "1M").args(["demo", "--size", "5M", "--json"]);
    let report = run(&mut command, b"").ok().json().remove(0);
    assert_eq!((&report["bytes"], &report["replicas_verified"]), (&(5 << 20).into(), &15.into()));
    assert_eq!(report["phases"].as_array().map(Vec::len), Some(3));
    for latency in report["latencies"].as_array().expect("latencies") {
        assert!(
            latency["count"].as_u64() > Some(0) && latency["p50_us"].as_u64() <= latency["max_us"].as_u64()
        );
    }
    assert_eq!(entries(folder.path()), 0);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind_either() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = distrifs(folder.path());
    command.args(["demo", "--size", "64M"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the demo");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("processes") || line.contains("process of its own")));
    interrupt(&child);
    let output = child.wait_with_output().expect("its output");
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(entries(folder.path()), 0);
}

#[test]
fn a_local_cluster_has_all_its_files_when_it_is_started_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let bytes = random_bytes(500_000, 1);
    for round in 0..2 {
        let mut command = distrifs(folder.path());
        command.arg("local").arg("--data-dir").arg(&data).args(["--port", "0", "--json"]);
        let mut cluster = command.stdout(Stdio::piped()).spawn().expect("the cluster");
        let mut line = String::new();
        BufReader::new(cluster.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let serving: Value = serde_json::from_str(&line).expect("JSON");
        let client = |arguments: &[&str], stdin: &[u8]| {
            let master = serving["master"].as_str().expect("an address");
            run(distrifs(folder.path()).args(["--master", master]).args(arguments), stdin)
        };
        assert_eq!(serving["datanodes"].as_array().map(Vec::len), Some(3));
        let _ = client(&["wait", "--datanodes", "3", "--timeout", &DEADLINE.as_secs().to_string()], b"").ok();
        if round == 0 {
            let _ = client(&["put", "-", "/f"], &bytes).ok();
        }
        assert!(client(&["cat", "/f"], b"").ok().stdout == bytes, "round {round}");
        if round == 1 {
            // A datanode dies: the others serve on.
            let pid = serving["datanodes"][0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
            let pid = pid.and_then(Pid::from_raw).expect("a process");
            kill_process(pid, Signal::KILL).expect("it runs");
            wait_until("the cluster has noticed", || !runs(pid.as_raw_pid().unsigned_abs().into()));
            assert!(client(&["cat", "/f"], b"").ok().stdout == bytes, "a datanode is dead");
            assert!(cluster.try_wait().expect("its state").is_none(), "the cluster ended with one datanode");
        }
        if round == 0 {
            interrupt(&cluster);
            assert_eq!(cluster.wait().expect("it ends").code(), Some(0));
        } else {
            // Killed, it takes its daemons with it.
            cluster.kill().expect("it runs");
            let _ = cluster.wait();
        }
        let mut daemons = vec![serving["master_pid"].as_u64().expect("a process")];
        daemons.extend(
            serving["datanodes"].as_array().expect("a list").iter().filter_map(|d| d["pid"].as_u64()),
        );
        assert_eq!(daemons.len(), 4);
        wait_until("its daemons are gone", || daemons.iter().all(|pid| !runs(*pid)));
    }
}

/// Whether a process still does anything; one that nobody has collected yet does not.
fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
}
