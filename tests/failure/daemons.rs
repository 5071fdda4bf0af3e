//! Daemons that cannot start say why in one line; those that run stop cleanly.

use distrifs_testkit::{Cluster, ClusterOptions, Daemon, run};

use crate::BINARY;

#[test]
fn what_is_in_use_is_refused_and_a_signal_stops_cleanly() {
    let mut cluster =
        Cluster::start_with(BINARY, &ClusterOptions { datanodes: 1, ..ClusterOptions::default() });
    let (other_master, other_datanode) = (cluster.scratch("master"), cluster.scratch("datanode"));
    let data = cluster.datanode(0).field("data").to_owned();
    let refused = [
        (cluster.master_command(&other_master, &cluster.master_address()), cluster.master_address()),
        (cluster.datanode_command(&other_datanode, &data), data),
        (
            cluster.datanode_command(&cluster.datanode_folder(0), "127.0.0.1:0"),
            cluster.datanode_folder(0).display().to_string(),
        ),
    ];
    for (mut command, named) in refused {
        let outcome = run(&mut command, b"");
        let last = outcome.stderr.lines().last().unwrap_or_default();
        assert_eq!(outcome.status, 1, "{}", outcome.stderr);
        assert!(last.starts_with("distrifs: ") && last.contains(&named), "{last}");
        assert!(outcome.stdout.is_empty(), "it said that it serves");
    }
    assert!(cluster.master().runs() && cluster.datanode(0).runs());

    let folder = cluster.scratch("stopped");
    let log = cluster.scratch("stopped.log");
    let datanode = Daemon::start(cluster.datanode_command(&folder, "127.0.0.1:0"), &log).expect("it serves");
    assert!(datanode.terminate().success());
    let master =
        Daemon::start(cluster.master_command(&other_master, "127.0.0.1:0"), &log).expect("it serves");
    assert!(master.terminate().success());
}
