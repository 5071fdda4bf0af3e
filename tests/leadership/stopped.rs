//! A leader that stands still (SIGSTOP) keeps its lock; its lease runs out, another one leads, and it does no harm.

use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use distrifs_testkit::{Cluster, Daemon, random_bytes, run, wait_until};

use super::relay::Relay;
use super::{CHUNK, Pair, health, masters};

/// The lease of these tests, in seconds.
const LEASE: (&str, &str) = ("DISTRIFS_LEADER_LEASE", "1");

fn lease() -> (&'static str, String) {
    (LEASE.0, LEASE.1.to_owned())
}

/// A command that knows one master alone and asks it once.
fn ask_only(cluster: &Cluster, master: u16, arguments: &[&str]) -> Child {
    let mut command = cluster.command();
    command.env("DISTRIFS_MASTERS", format!("127.0.0.1:{master}")).env("DISTRIFS_CLIENT_RETRY", "0");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the client's process")
}

fn names(cluster: &Cluster) -> Vec<String> {
    cluster.run(&["ls", "/"]).ok().text().lines().map(str::to_owned).collect()
}

/// Ends by itself, refused, and says why.
fn assert_deposed(old: Daemon, log: &std::path::Path, epoch: u64) {
    assert_eq!(old.wait_end().code(), Some(1));
    let said = std::fs::read_to_string(log).expect("a log");
    let why = format!("has taken over from {epoch}");
    assert!(said.lines().any(|line| line.ends_with(&why)), "{why}: {said}");
}

fn epoch(master: &Daemon) -> u64 {
    master.field("epoch").parse().expect("a number")
}

#[test]
fn a_leader_that_stands_still_is_replaced_and_changes_nothing_any_more() {
    let mut pair = Pair::start_with(|ports| vec![("DISTRIFS_MASTERS", masters(ports)), lease()]);
    let kept = random_bytes(3 * CHUNK + 7, 1);
    let _ = pair.cluster.run_with_stdin(&["put", "-", "/kept"], &kept).ok();
    let _ = pair.cluster.run_with_stdin(&["put", "-", "/removed"], b"bytes").ok();
    let old = pair.cluster.take_master();
    let before = epoch(&old);
    let mut next = pair.master(1);
    assert!(next.is_standby());

    old.stop();
    // These reach it when it goes on: the kernel takes them in for it.
    let late = [&["mkdir", "/late"][..], &["rm", "/kept"], &["ls", "/"]];
    let late = late.map(|arguments| ask_only(&pair.cluster, pair.ports[0], arguments));
    next.wait_ready();
    assert!(epoch(&next) > before);
    assert!(health(next.field("http")).contains("200 OK"));
    let new = random_bytes(2 * CHUNK, 2);
    let _ = pair.cluster.run_with_stdin(&["put", "-", "/new"], &new).ok();
    let _ = pair.cluster.run(&["rm", "/removed"]).ok();
    // One that has forgotten what it heard since its start, but not what it was shown before.
    pair.cluster.kill_datanode(0);
    pair.cluster.restart_datanode(0);
    pair.cluster.wait_for(3);

    old.go_on();
    assert_deposed(old, &pair.cluster.folder().join("master.log"), before);
    for child in late {
        let output = child.wait_with_output().expect("its output");
        assert_ne!(output.status.code(), Some(0), "the old leader answered: {output:?}");
    }
    assert_eq!(names(&pair.cluster), ["kept", "new"]);

    // The log is that of the new leader, also for those after it.
    let mut third = pair.master(0);
    assert!(third.is_standby());
    next.kill_and_wait();
    third.wait_ready();
    assert_eq!(names(&pair.cluster), ["kept", "new"]);
    assert!(pair.cluster.run(&["cat", "/kept"]).ok().stdout == kept);
    assert!(pair.cluster.run(&["cat", "/new"]).ok().stdout == new);
    let _ = pair.cluster.run(&["mkdir", "/later"]).ok();
}

/// Nobody takes over: it goes on as if nothing had been.
#[test]
fn a_leader_that_stood_still_alone_goes_on() {
    let mut pair = Pair::start_with(|ports| vec![("DISTRIFS_MASTERS", masters(ports)), lease()]);
    let master = pair.cluster.take_master();
    master.stop();
    let late = pair.cluster.spawn(&["mkdir", "/late"]);
    std::thread::sleep(Duration::from_millis(2500));
    master.go_on();
    assert!(late.wait_with_output().expect("its output").status.success());
    assert_eq!(names(&pair.cluster), ["late"]);
    assert!(health(master.field("http")).contains("200 OK"));
    assert!(master.terminate().success());
}

/// A leader that stands still again and again, each time in the middle of what writers do.
#[test]
fn what_is_acknowledged_while_leaders_stand_still_stays() {
    const TAKE_OVERS: usize = 4;
    let mut pair = Pair::start_with(|ports| vec![("DISTRIFS_MASTERS", masters(ports)), lease()]);
    let mut leader = pair.cluster.take_master();
    let mut log = pair.cluster.folder().join("master.log");
    let writers = super::Writers::new();
    let (acknowledged, _leader) = std::thread::scope(|scope| {
        let _end = writers.end_with_this();
        let threads = writers.spawn(scope, &pair.cluster);
        for turn in 0..TAKE_OVERS {
            let mut next = pair.master((turn + 1) % 2);
            assert!(next.is_standby());
            let before = epoch(&leader);
            leader.stop();
            next.wait_ready();
            let so_far = writers.acknowledged();
            wait_until("writers go on", || writers.acknowledged() > so_far);
            leader.go_on();
            assert_deposed(leader, &log, before);
            (leader, log) = (next, pair.log((turn + 1) % 2));
        }
        (writers.end(threads), leader)
    });
    assert!(acknowledged.len() >= TAKE_OVERS, "{} puts", acknowledged.len());
    for (path, bytes) in &acknowledged {
        assert!(pair.cluster.run(&["cat", path]).ok().stdout == *bytes, "{path}");
    }
}

/// The leader's orders to delete the replicas of a removed file are on the wire when it is replaced, and come when the
/// datanodes have been shown the new leader.
#[test]
fn orders_that_were_held_on_the_wire_do_no_harm() {
    let relay = Relay::start();
    let through = relay.address();
    let mut pair = Pair::start_with(|ports| {
        relay.lead_to(ports[0]);
        // Clients and datanodes reach the first master through the relay.
        vec![("DISTRIFS_MASTERS", format!("{through},127.0.0.1:{}", ports[1])), lease()]
    });
    let bytes = random_bytes(2 * CHUNK, 3);
    for name in ["/a", "/b"] {
        let _ = pair.cluster.run_with_stdin(&["put", "-", name], &bytes).ok();
    }
    let old = pair.cluster.take_master();
    let before = epoch(&old);
    let mut next = pair.master(1);
    assert!(next.is_standby());

    relay.hold(true);
    let removed =
        ask_only(&pair.cluster, pair.ports[0], &["rm", "/a"]).wait_with_output().expect("its output");
    assert!(removed.status.success(), "{removed:?}");
    // Heartbeats are not answered: what is held here are orders.
    wait_until("orders are on the wire", || relay.held() > 0);
    let chunks = pair.cluster.chunk_files().len();
    assert_eq!(chunks, 12, "nothing is deleted yet");
    old.stop();
    next.wait_ready();
    let more = random_bytes(2 * CHUNK, 4);
    let _ = pair.cluster.run_with_stdin(&["put", "-", "/c"], &more).ok();
    relay.hold(false);
    old.go_on();
    assert_deposed(old, &pair.cluster.folder().join("master.log"), before);
    // The new leader has the deletion done, and nothing else was.
    wait_until("the removed file's replicas go", || pair.cluster.chunk_files().len() == 12);
    assert!(pair.cluster.run(&["cat", "/b"]).ok().stdout == bytes);
    assert!(pair.cluster.run(&["cat", "/c"]).ok().stdout == more);
    let _ = pair.cluster.run(&["fsck", "/"]).ok();
}

/// Clients try the next master when one takes their connection in and says nothing.
#[test]
fn a_port_of_a_leader_that_stands_still_keeps_nobody_waiting() {
    let mut pair = Pair::start_with(|ports| vec![("DISTRIFS_MASTERS", masters(ports)), lease()]);
    let old = pair.cluster.take_master();
    let mut next = pair.master(1);
    old.stop();
    // The kernel still takes connections in for it.
    assert!(TcpStream::connect(("127.0.0.1", pair.ports[0])).is_ok());
    next.wait_ready();
    let _ = pair.cluster.run(&["mkdir", "/d"]).ok();
    let mut refused = pair.cluster.master_command(&pair.cluster.master_folder(), "127.0.0.1:0");
    let _ = run(refused.arg("--no-standby"), b"").fails_with(1);
}
