//! A datanode that heartbeats while its data port hangs.

use std::net::TcpListener;

use distrifs_testkit::{Cluster, ClusterOptions, Daemon, random_bytes, wait_until};

use crate::{BINARY, CHUNK};

#[test]
fn a_datanode_whose_data_port_hangs_is_out_of_placement_and_holds_nobody_up() {
    let mut cluster =
        Cluster::start_with(BINARY, &ClusterOptions { datanodes: 4, ..ClusterOptions::default() });
    let old = random_bytes(4 * CHUNK, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/old"], &old).ok();
    let gray = cluster.datanode(0).field("id").to_owned();
    cluster.kill_datanode(0);

    // Who connects is taken by the system and never heard.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let advertised = silent.local_addr().expect("bound").to_string();
    let mut command = cluster.datanode_command(&cluster.datanode_folder(0), "127.0.0.1:0");
    command.args(["--advertise", &advertised]);
    let mut daemon = Daemon::start(command, &cluster.scratch("gray.log")).expect("it serves");
    let of_gray = |cluster: &Cluster| {
        let nodes = cluster.run(&["nodes", "--json"]).ok().json();
        nodes.into_iter().find(|node| node["id"] == gray.as_str()).expect("it is known")
    };
    wait_until("it is heard and yet not trusted", || {
        let node = of_gray(&cluster);
        let why = node["why_suspect"].as_str().unwrap_or_default();
        node["address"] == advertised.as_str() && why.contains("data port did not answer")
    });
    assert!(daemon.runs());

    for at in 0..8 {
        let (path, bytes) = (format!("/new-{at}"), random_bytes(CHUNK + 1, at));
        let _ = cluster.run_with_stdin(&["put", "-", &path], &bytes).ok();
        let stat = cluster.run(&["stat", "--chunks", &path]).ok();
        assert!(!stat.text().contains(&gray), "placed on it: {}", stat.text());
        assert!(cluster.run(&["cat", &path]).ok().stdout == bytes);
    }
    assert!(cluster.run(&["cat", "/old"]).ok().stdout == old, "it holds replicas of it");
    assert_eq!(of_gray(&cluster)["state"], "suspect", "it does not come and go");
    assert!(cluster.run(&["why", "node", &gray]).ok().text().contains("data port did not answer"));
}
