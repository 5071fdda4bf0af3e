//! `distrifs latency`, and `--explain`: what is slow is named, whichever stage of whichever process it is.

use std::path::PathBuf;

use distrifs_testkit::{Cluster, ClusterOptions, random_bytes};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");
/// What a stage is held up by, in milliseconds.
const DELAY_MS: u64 = 200;
/// Of a delay, so much is charged to its stage at least: what the clocks of two processes differ by, up to a part of a
/// message's way, goes to the neighbour.
const CHARGED_US_MIN: u64 = DELAY_MS * 1000 * 98 / 100;
/// Puts until the slow datanode is the one in the middle.
const PUTS_MAX: usize = 60;
/// Operations in a row in which a busy machine may hold up something for longer than that.
const BUSY_MAX: usize = 10;
/// Of one frame, so that it passes each stage once.
const BYTES: usize = 100_000;

const WRITE_STAGES: &[&str] = &[
    "write.queue",
    "write.create",
    "write.link",
    "write.receive",
    "write.crc",
    "write.disk",
    "write.forward",
    "write.sync",
    "write.publish",
    "write.ack",
    "write.answer",
];
const READ_STAGES: &[&str] = &["read.open", "read.queue", "read.disk", "read.seal", "read.send"];
const CHANGE_STAGES: &[&str] =
    &["change.queue", "change.log", "change.prove", "change.apply", "change.answer", "change"];

fn delay(stage: &str) -> [String; 2] {
    ["--delay".to_owned(), format!("{stage}={DELAY_MS}")]
}

fn source(cluster: &Cluster, bytes: usize) -> PathBuf {
    cluster.scratch_file("source", &random_bytes(bytes, 7))
}

/// One operation, explained.
fn explained(cluster: &Cluster, arguments: &[&str]) -> Value {
    let mut explained = cluster.run(&[arguments, &["--explain", "--json"]].concat()).ok().json();
    assert_eq!(explained.len(), 1, "one object");
    explained.remove(0)
}

fn put(cluster: &Cluster) -> Value {
    put_of(cluster, BYTES)
}

fn put_of(cluster: &Cluster, bytes: usize) -> Value {
    let source = source(cluster, bytes);
    explained(cluster, &["put", "-f", source.to_str().expect("text"), "/file"])
}

fn get(cluster: &Cluster) -> Value {
    let target = cluster.scratch("target");
    explained(cluster, &["get", "-f", "/file", target.to_str().expect("text")])
}

/// That the stage is named, with all its delay, and that the time is accounted for, each time. Where a busy machine held up
/// something else for longer, that is what is to be named: then the operation is done again.
fn assert_named(mut explain: impl FnMut() -> Value, who: &str, stage: &str, at: Option<(&str, u64)>) {
    let is_it = |row: &Value| {
        let placed = at.is_none_or(|(node, hop)| row["node"] == node && row["hop"] == hop);
        row["who"] == who && row["stage"] == stage && placed
    };
    for _ in 0..BUSY_MAX {
        let explained = explain();
        let rows = explained["stages"].as_array().expect("a list");
        let charged =
            rows.iter().filter(|row| is_it(row)).filter_map(|row| row["charged_us"].as_u64()).sum::<u64>();
        assert!(charged >= CHARGED_US_MIN, "{stage}: {explained:#}");
        let (wall, accounted) = (explained["wall_us"].as_u64(), explained["accounted_us"].as_u64());
        assert!(accounted.unwrap_or(0) * 100 >= wall.expect("a number") * 95, "{stage}: {explained:#}");
        assert_eq!(explained["missing"], Value::Array(Vec::new()), "{stage}");
        let largest = &explained["largest"];
        if is_it(largest) {
            return;
        }
        assert!(largest["charged_us"].as_u64() > Some(charged), "{stage}: {explained:#}");
    }
    panic!("{stage}: something else took longer than {DELAY_MS} ms, {BUSY_MAX} times in a row");
}

/// Whether this node stands second in the pipeline.
fn is_in_the_middle(explained: &Value, node: &str) -> bool {
    let stages = explained["stages"].as_array().expect("a list");
    stages.iter().any(|row| row["hop"] == 2 && row["node"] == node)
}

/// Each stage of a write, slow on the node in the middle of three.
#[test]
fn a_slow_stage_of_a_write_is_named_with_its_node() {
    let mut cluster = Cluster::start(BINARY);
    for stage in WRITE_STAGES {
        cluster.kill_datanode(1);
        let [option, value] = delay(stage);
        // Alone in its rack it comes second whenever it is not the first: slow as it is, it would seldom be chosen before
        // the last one.
        cluster.restart_datanode_with(1, &[&option, &value, "--rack", "apart"]);
        cluster.wait_for(3);
        let node = cluster.datanode(1).field("id").to_owned();
        let in_the_middle = || {
            let found = (0..PUTS_MAX).map(|_| put(&cluster)).find(|it| is_in_the_middle(it, &node));
            found.unwrap_or_else(|| panic!("{stage}: node {node} was never in the middle"))
        };
        assert_named(in_the_middle, "datanode", stage, Some((&node, 2)));
    }
}

/// A small file goes to each node from the client: the slow one is named among them.
#[test]
fn a_slow_node_of_a_small_put_is_named() {
    let mut cluster = Cluster::start(BINARY);
    for stage in ["write.receive", "write.sync", "write.answer"] {
        cluster.kill_datanode(1);
        let [option, value] = delay(stage);
        cluster.restart_datanode_with(1, &[&option, &value]);
        cluster.wait_for(3);
        let node = cluster.datanode(1).field("id").to_owned();
        assert_named(|| put_of(&cluster, 4096), "datanode", stage, Some((&node, 1)));
    }
}

/// Each stage of a read. With one replica: another one would be asked instead of a slow one.
#[test]
fn a_slow_stage_of_a_read_is_named_with_its_node() {
    let environment = vec![("DISTRIFS_REPLICATION_FACTOR", "1".to_owned())];
    let options = ClusterOptions { datanodes: 1, environment, ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with(BINARY, &options);
    put(&cluster);
    for stage in READ_STAGES {
        cluster.kill_datanode(0);
        let [option, value] = delay(stage);
        cluster.restart_datanode_with(0, &[&option, &value]);
        cluster.wait_for(1);
        let node = cluster.datanode(0).field("id").to_owned();
        assert_named(|| get(&cluster), "datanode", stage, Some((&node, 1)));
    }
}

/// Each stage of the master, its log among them.
#[test]
fn a_slow_stage_of_the_master_is_named() {
    let environment = vec![("DISTRIFS_REPLICATION_FACTOR", "1".to_owned())];
    let options = ClusterOptions { datanodes: 1, environment, ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with(BINARY, &options);
    put(&cluster);
    for stage in CHANGE_STAGES {
        let [option, value] = delay(stage);
        cluster.restart_master_with(&[&option, &value]);
        assert_named(|| put(&cluster), "master", stage, None);
    }
    let [option, value] = delay("read");
    cluster.restart_master_with(&[&option, &value]);
    assert_named(|| get(&cluster), "master", "read", None);
}

/// After a put and a get every stage was passed, and the files are there for whoever wants them.
#[test]
fn every_stage_is_counted_and_shown() {
    let mut cluster = Cluster::start(BINARY);
    // Of several frames and chunks, so that nothing is left out.
    let file = cluster.scratch_file("large", &random_bytes(3 << 20, 1));
    let (file, target) = (file.to_str().expect("text").to_owned(), cluster.scratch("back"));
    let _ = cluster.run(&["put", &file, "/large"]).ok();
    let _ = cluster.run(&["get", "/large", target.to_str().expect("text")]).ok();
    let rows = cluster.run(&["latency", "--json"]).ok().json();
    let count = |stage: &str, node: &str| {
        let row = rows.iter().find(|row| row["stage"] == stage && row["node"] == node);
        row.unwrap_or_else(|| panic!("no {stage} of {node}"))["count"].as_u64().expect("a number")
    };
    for stage in [WRITE_STAGES, READ_STAGES, CHANGE_STAGES, &["read", "log.sync"]].concat() {
        assert!(count(stage, "all") > 0, "{stage}");
    }
    let node = cluster.datanode(0).field("id").to_owned();
    assert!(count("write.sync", &node) > 0 && count("change.log", "master") > 0);

    let path = |name: &str| cluster.scratch(name).to_str().expect("text").to_owned();
    let (hgrm, hlog, html) = (path("l.hgrm"), path("l.hlog"), path("l.html"));
    let files = ["latency", "--stage", "write.sync", "--hgrm", &hgrm, "--hlog", &hlog, "--html", &html];
    let _ = cluster.run(&files).ok();
    let text = |file: &str| std::fs::read_to_string(file).expect("it is written");
    assert!(text(&hgrm).contains("1/(1-Percentile)") && text(&html).contains("<svg"));
    assert!(text(&hlog).contains(&format!("Tag=write.sync@{node},")), "{}", text(&hlog));
    let _ = cluster.run(&["latency", "--stage", "write", "--hgrm", &hgrm]).ok();
    assert!(text(&path("l.write.crc.hgrm")).contains("#[Max"));

    // One that is gone does not keep the others from telling.
    cluster.kill_datanode(0);
    let outcome = cluster.run(&["latency", "--json"]).ok();
    assert!(outcome.stderr.contains(&node), "{}", outcome.stderr);
    assert!(outcome.json().iter().all(|row| row["node"] != *node));
    assert_eq!(cluster.run(&["latency", "--node", "nobody"]).status, 2);
    assert_eq!(cluster.run(&["latency", "--stage", "nothing"]).status, 2);
}

/// A stage that is none is refused at the start, by name.
#[test]
fn an_unknown_stage_cannot_be_held_up() {
    let cluster = Cluster::start_with(BINARY, &ClusterOptions { datanodes: 0, ..ClusterOptions::default() });
    let mut command = cluster.datanode_command(&cluster.scratch("node"), "127.0.0.1:0");
    let output = command.args(["--delay", "write.nothing=5"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("write.sync"), "{text}");
}
