//! Datanodes and clients that die in the middle of a put.

use std::io::Write;

use distrifs_testkit::{Cluster, ClusterOptions, random_bytes, wait_until};

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
