//! Bits that flip on disks.

use distrifs_testkit::{Cluster, ClusterOptions, random_bytes};

use crate::{BINARY, CHUNK};

#[test]
fn a_flipped_replica_is_passed_over_and_when_all_are_flipped_nothing_is_served() {
    // What is damaged stays damaged while this looks at it.
    let environment = vec![("DISTRIFS_RECOVERY_INTERVAL", "3600".to_owned())];
    let cluster = Cluster::start_with(BINARY, &ClusterOptions { environment, ..ClusterOptions::default() });
    let bytes = random_bytes(2 * CHUNK + 5000, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    let replicas = cluster.replica_files("/f");
    assert_eq!(replicas.len(), 9);

    // Each chunk loses another replica.
    for replica in replicas.iter().filter(|replica| replica.index == replica.datanode as u64) {
        replica.flip_byte(17);
    }
    let target = cluster.scratch("target");
    let target_text = target.to_str().expect("UTF-8");
    let _ = cluster.run(&["get", "/f", target_text]).ok();
    assert!(std::fs::read(&target).expect("the file") == bytes, "wrong bytes were served");

    // The last chunk loses the same block of them all; what is before it is still good.
    for replica in replicas.iter().filter(|replica| replica.index == 2 && replica.datanode != 2) {
        replica.flip_byte(17);
    }
    std::fs::write(&target, b"mine").expect("a file");
    let _ = cluster.run(&["get", "-f", "/f", target_text]).fails_with(7);
    assert_eq!(std::fs::read(&target).expect("it stays"), b"mine");
    std::fs::remove_file(&target).expect("it is there");
    let _ = cluster.run(&["get", "/f", target_text]).fails_with(7);
    let left: Vec<_> = std::fs::read_dir(cluster.scratch("")).expect("a folder").collect();
    assert!(left.is_empty(), "a failed get left {left:?}");
    let cat = cluster.run(&["cat", "/f"]).fails_with(7);
    assert!(bytes.starts_with(&cat.stdout), "wrong bytes were served");
    let tree = cluster.run(&["get", "-r", "/", target_text]);
    assert_eq!(tree.status, 7, "{}", tree.stderr);
    assert!(!target.join("f").exists());
    let first = cluster.run(&["getrange", "/f", "0", "1000", "-"]).ok();
    assert!(first.stdout == bytes[..1000], "a range that avoids the damage is served");
}

#[test]
fn what_may_be_good_on_a_datanode_that_is_away_is_unavailable_and_not_corrupt() {
    let environment = vec![
        ("DISTRIFS_RECOVERY_INTERVAL", "3600".to_owned()),
        ("DISTRIFS_SCRUB_INTERVAL", "0".to_owned()),
        ("DISTRIFS_SOCKET_TIMEOUT", "2".to_owned()),
    ];
    let mut cluster =
        Cluster::start_with(BINARY, &ClusterOptions { environment, ..ClusterOptions::default() });
    let bytes = random_bytes(5000, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    for replica in cluster.replica_files("/f").iter().filter(|replica| replica.datanode != 2) {
        replica.flip_byte(17);
    }
    cluster.kill_datanode(2);
    cluster.wait_for_live(2);
    let refused = cluster.run(&["cat", "/f"]).fails_with(8);
    assert!(refused.stderr.contains("expected checksum"), "{}", refused.stderr);
    cluster.restart_datanode(2);
    cluster.wait_for_live(3);
    assert!(cluster.run(&["cat", "/f"]).ok().stdout == bytes);
}
