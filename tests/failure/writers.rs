//! Datanodes and clients that die in the middle of a put.

use std::io::Write;

use distrifs_testkit::{Cluster, ClusterOptions, random_bytes, tree_of, wait_until};

use crate::{BINARY, CHUNK};

#[test]
fn with_one_datanode_to_spare_the_death_of_one_fails_no_put() {
    let mut cluster =
        Cluster::start_with(BINARY, &ClusterOptions { datanodes: 4, ..ClusterOptions::default() });
    let bytes = random_bytes(24 * CHUNK, 1);
    let (before, after) = bytes.split_at(6 * CHUNK + 100);
    let mut client = cluster.spawn(&["put", "-", "/f"]);
    let mut stdin = client.stdin.take().expect("a pipe");
    stdin.write_all(before).expect("the client reads");
    wait_until("some chunks are committed", || !cluster.chunk_files().is_empty());
    cluster.kill_datanode(0);
    stdin.write_all(after).expect("the client reads on");
    drop(stdin);
    let output = client.wait_with_output().expect("its output");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(cluster.run(&["cat", "/f"]).ok().stdout == bytes);
}

#[test]
fn the_death_of_a_datanode_fails_no_put_of_a_small_file() {
    const FILES: usize = 150;
    let mut cluster =
        Cluster::start_with(BINARY, &ClusterOptions { datanodes: 4, ..ClusterOptions::default() });
    let tree = cluster.scratch("tree");
    std::fs::create_dir(&tree).expect("a folder");
    for number in 0..FILES {
        std::fs::write(tree.join(number.to_string()), random_bytes(100 * number, number as u64))
            .expect("written");
    }
    let client = cluster.spawn(&["put", "-r", tree.to_str().expect("text"), "/"]);
    wait_until("some files are there", || cluster.chunk_files().len() > 3 * 10);
    cluster.kill_datanode(0);
    let output = client.wait_with_output().expect("its output");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let back = cluster.scratch("back");
    let _ = cluster.run(&["get", "-r", "/tree", back.to_str().expect("text")]).ok();
    assert_eq!(tree_of(&back), tree_of(&tree));
}

fn has_quarantined(cluster: &Cluster, at: usize) -> bool {
    cluster.datanode_folder(at).join("quarantine").read_dir().is_ok_and(|mut it| it.next().is_some())
}

/// The answer of the datanode is held up: the chunk is committed, and nobody makes a file of it.
#[test]
fn a_client_killed_between_the_chunk_of_a_small_file_and_the_file_leaves_nothing() {
    let environment =
        vec![("DISTRIFS_PENDING_TIMEOUT", "2".to_owned()), ("DISTRIFS_REPLICATION_FACTOR", "1".to_owned())];
    let options = ClusterOptions { datanodes: 1, environment, ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with(BINARY, &options);
    cluster.kill_datanode(0);
    cluster.restart_datanode_with(0, &["--delay", "write.answer=60000"]);
    cluster.wait_for(1);
    let source = cluster.scratch_file("small", b"small");
    let mut client = cluster.spawn(&["put", source.to_str().expect("text"), "/small"]);
    wait_until("its chunk is committed", || cluster.chunk_files().len() == 1);
    client.kill().expect("it runs");
    let _ = client.wait();
    wait_until("its space comes back", || cluster.chunk_files().is_empty());
    let _ = cluster.run(&["stat", "/small"]).fails_with(3);
    assert!(!has_quarantined(&cluster, 0));
}

/// A small chunk goes to each of its nodes from the client. Two of them have committed it when the third is lost, or is
/// given up, and commits it when nobody wants it any more.
#[test]
fn what_was_committed_of_a_small_put_that_one_node_failed_is_deleted_and_not_quarantined() {
    const STOPPED: usize = 0;
    for late in [false, true] {
        let environment = vec![
            ("DISTRIFS_SOCKET_TIMEOUT", "2".to_owned()),
            // Longer than a datanode may be silent and yet be live, as by default.
            ("DISTRIFS_PENDING_TIMEOUT", "8".to_owned()),
        ];
        let options = ClusterOptions { environment, ..ClusterOptions::default() };
        let mut cluster = Cluster::start_with(BINARY, &options);
        // How many datanodes have committed anything.
        let committed = |cluster: &Cluster| {
            let nodes = cluster.run(&["nodes", "--json"]).ok().json();
            nodes.iter().filter(|node| node["data_dirs"][0]["commit_us"] != 0).count()
        };
        let source = cluster.scratch_file("small", b"small");
        cluster.datanode(STOPPED).stop();
        let client = cluster.spawn(&["put", source.to_str().expect("text"), "/small"]);
        wait_until("the others have committed it", || committed(&cluster) == 2);
        if !late {
            cluster.kill_datanode(STOPPED);
        }
        let output = client.wait_with_output().expect("its output");
        assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
        wait_until("their space comes back", || cluster.chunk_files().is_empty());
        if late {
            cluster.datanode(STOPPED).go_on();
            wait_until("it is committed late", || committed(&cluster) == 3);
        } else {
            cluster.restart_datanode(STOPPED);
        }
        wait_until("all space has come back", || {
            cluster.chunk_files().is_empty() && cluster.unfinished_files().is_empty()
        });
        let _ = cluster.run(&["stat", "/small"]).fails_with(3);
        for node in cluster.run(&["nodes", "--json"]).ok().json() {
            assert_eq!(
                (&node["chunks_in_quarantine"], &node["scrub"]["found_corrupt"]),
                (&0.into(), &0.into())
            );
        }
        assert!(!(0..3).any(|at| has_quarantined(&cluster, at)));
    }
}

#[test]
fn with_too_few_datanodes_a_put_is_refused_and_leaves_no_trace() {
    let cluster = Cluster::start_with(BINARY, &ClusterOptions { datanodes: 2, ..ClusterOptions::default() });
    let _ = cluster.run(&["mkdir", "/d"]).ok();
    for _ in 0..3 {
        let _ = cluster.run_with_stdin(&["put", "-", "/d/f"], b"bytes").fails_with(6);
    }
    assert_eq!(cluster.run(&["ls", "-R", "/"]).ok().text(), "/d\n");
    assert_eq!((cluster.chunk_files().len(), cluster.unfinished_files().len()), (0, 0));
}

#[test]
fn a_client_killed_in_mid_put_leaves_nothing_visible_and_its_space_comes_back() {
    let cluster = Cluster::start_with(
        BINARY,
        &ClusterOptions {
            environment: vec![("DISTRIFS_PENDING_TIMEOUT", "2".to_owned())],
            ..ClusterOptions::default()
        },
    );
    let old = random_bytes(1000, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/old"], &old).ok();
    for (arguments, path) in [(&["put", "-", "/new"][..], "/new"), (&["put", "-f", "-", "/old"], "/old")] {
        let mut client = cluster.spawn(arguments);
        let mut stdin = client.stdin.take().expect("a pipe");
        stdin.write_all(&random_bytes(6 * CHUNK + 100, 2)).expect("the client reads");
        wait_until("chunks of it are committed", || cluster.chunk_files().len() > 3);
        client.kill().expect("it runs");
        let _ = client.wait();
        drop(stdin);
        if path == "/new" {
            let _ = cluster.run(&["stat", path]).fails_with(3);
        }
        assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "old\n");
        assert!(cluster.run(&["cat", "/old"]).ok().stdout == old);
        wait_until("its space comes back", || {
            cluster.chunk_files().len() == 3 && cluster.unfinished_files().is_empty()
        });
    }
    assert!(cluster.run(&["cat", "/old"]).ok().stdout == old);
}
