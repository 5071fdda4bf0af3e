//! Lost and damaged replicas come back by themselves, surplus ones go, and nothing that was acknowledged is lost.

use distrifs_testkit::{Cluster, ClusterOptions, random_bytes, wait_until};

use crate::{BINARY, CHUNK};

fn cluster(datanodes: usize) -> Cluster {
    Cluster::start_with(
        BINARY,
        &ClusterOptions {
            datanodes,
            environment: vec![
                ("DISTRIFS_HEARTBEAT_TIMEOUT", "2".to_owned()),
                ("DISTRIFS_RECOVERY_INTERVAL", "0.2".to_owned()),
                // The scrub is not to find first what the tests want found otherwise.
                ("DISTRIFS_SCRUB_INTERVAL", "0".to_owned()),
            ],
            ..ClusterOptions::default()
        },
    )
}

/// The status of fsck, and its last line.
fn fsck(cluster: &Cluster, path: &str) -> (i32, serde_json::Value) {
    let outcome = cluster.run(&["fsck", "--json", path]);
    let status = outcome.status;
    (status, outcome.json().pop().expect("the sums"))
}

fn wait_until_healthy(cluster: &Cluster) {
    wait_until("everything is healthy", || fsck(cluster, "/").0 == 0);
}

/// How many replicas each chunk of a file has on the disks, whoever knows of them.
fn replicas_on_disks(cluster: &Cluster, path: &str) -> Vec<usize> {
    let stat = cluster.run(&["stat", "--chunks", "--json", path]).ok().json().remove(0);
    let files = cluster.chunk_files();
    let count = |chunk: &serde_json::Value| {
        let name = format!("chunk-{}", chunk["id"].as_str().expect("an id"));
        files.iter().filter(|file| file.ends_with(&name)).count()
    };
    stat["chunks"].as_array().expect("chunks").iter().map(count).collect()
}

#[test]
fn a_dead_datanode_is_replaced_and_one_that_comes_back_is_trimmed() {
    let mut cluster = cluster(4);
    let bytes = random_bytes(5 * CHUNK + 77, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    assert_eq!(fsck(&cluster, "/").0, 0);
    let held =
        cluster.chunk_files().iter().filter(|path| path.starts_with(cluster.datanode_folder(0))).count();
    cluster.kill_datanode(0);
    cluster.wait_for_live(3);
    if held > 0 {
        wait_until("the dead one's replicas are missed or made anew", || {
            let done = cluster.run(&["fsck", "/"]).text().contains("under-replicated, 0");
            done || replicas_on_disks(&cluster, "/f").iter().sum::<usize>() > 18
        });
    }
    wait_until_healthy(&cluster);
    wait_until("each chunk has its copies on the others", || {
        let stat = cluster.run(&["stat", "--chunks", "--json", "/f"]).ok().json().remove(0);
        let chunks = stat["chunks"].as_array().expect("chunks").clone();
        chunks.iter().all(|chunk| chunk["replicas"].as_array().is_some_and(|all| all.len() == 3))
    });
    assert!(cluster.run(&["cat", "/f"]).ok().stdout == bytes);

    cluster.restart_datanode(0);
    cluster.wait_for_live(4);
    wait_until("the surplus goes", || replicas_on_disks(&cluster, "/f").iter().all(|count| *count == 3));
    assert_eq!(fsck(&cluster, "/").0, 0);
    assert!(cluster.run(&["cat", "/f"]).ok().stdout == bytes);
}

#[test]
fn a_damaged_replica_is_found_by_its_reader_and_replaced() {
    // No node is left over: the bad replica has to go before the good one can come.
    let cluster = cluster(3);
    let bytes = random_bytes(CHUNK, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    let replicas = cluster.replica_files("/f");
    replicas[1].flip_byte(5000);
    let damaged = std::fs::read(&replicas[1].path).expect("it is there");
    wait_until("a reader meets it and it is replaced", || {
        assert!(cluster.run(&["cat", "/f"]).ok().stdout == bytes);
        std::fs::read(&replicas[1].path).is_ok_and(|found| found != damaged)
    });
    wait_until_healthy(&cluster);
    assert_eq!(replicas_on_disks(&cluster, "/f"), [3]);
    for replica in cluster.replica_files("/f") {
        assert!(std::fs::read(&replica.path).expect("it is there") == bytes, "all are alike");
    }
}

#[test]
fn replicas_damaged_at_different_places_still_make_the_file() {
    let cluster = cluster(3);
    let bytes = random_bytes(CHUNK, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    for (at, replica) in cluster.replica_files("/f").iter().enumerate() {
        replica.flip_byte(40_000 + 50_000 * at as u64);
    }
    let got = cluster.run(&["cat", "/f"]).ok();
    assert!(got.stdout == bytes, "block by block");
    wait_until("the master knows that none is whole", || fsck(&cluster, "/f").0 == 7);
    let (_, sums) = fsck(&cluster, "/");
    assert_eq!((sums["corrupt"].as_u64(), sums["healthy"].as_u64()), (Some(1), Some(0)));
    wait_until("it says why nothing comes of it", || {
        let text = cluster.run(&["fsck", "--chunks"]);
        text.text().contains("/f: corrupt") && text.text().contains("3 known replicas are damaged")
    });
    assert!(cluster.run(&["cat", "/f"]).ok().stdout == bytes, "and still when it is known");
}

#[test]
fn setrep_takes_effect_up_and_down() {
    let cluster = cluster(4);
    let bytes = random_bytes(2 * CHUNK + 5, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    for (wanted, text) in [(4, "4"), (2, "2"), (3, "3")] {
        let _ = cluster.run(&["setrep", text, "/f"]).ok();
        wait_until("as many replicas as are wanted", || {
            replicas_on_disks(&cluster, "/f").iter().all(|count| *count == wanted)
        });
        wait_until_healthy(&cluster);
    }
    let _ = cluster.run(&["setrep", "5", "/f"]).ok();
    wait_until("it says why it does not come", || {
        let why = cluster.run(&["why", "file", "/f"]).ok();
        why.text().contains("no datanode for one more replica: 4 live")
    });
    assert_eq!(fsck(&cluster, "/").0, 1);
    assert!(cluster.run(&["cat", "/f"]).ok().stdout == bytes);
}

#[test]
fn of_a_chunk_that_files_share_as_many_stay_as_the_one_wants_that_wants_most() {
    let cluster = cluster(4);
    let bytes = random_bytes(CHUNK, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    let _ = cluster.run(&["cp", "/f", "/g"]).ok();
    for (of_f, of_g, wanted) in [("4", "1", 4), ("2", "3", 3), ("1", "2", 2)] {
        let _ = cluster.run(&["setrep", of_f, "/f"]).ok();
        let _ = cluster.run(&["setrep", of_g, "/g"]).ok();
        wait_until("as many replicas as are wanted", || replicas_on_disks(&cluster, "/f") == [wanted]);
        wait_until_healthy(&cluster);
    }
    assert!(cluster.run(&["cat", "/g"]).ok().stdout == bytes);
}

#[test]
fn a_restarted_master_repairs_nothing_before_it_knows() {
    let mut cluster = cluster(4);
    let bytes = random_bytes(3 * CHUNK, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    cluster.kill_all();
    cluster.restart_all();
    let early = cluster.run(&["df", "--json"]).ok();
    assert!(!early.stdout.is_empty());
    wait_until_healthy(&cluster);
    assert_eq!(replicas_on_disks(&cluster, "/f"), [3, 3, 3], "no copy was made for want of a report");
    assert!(cluster.run(&["cat", "/f"]).ok().stdout == bytes);
}

#[test]
fn what_the_master_does_not_know_is_moved_to_quarantine_and_never_deleted() {
    let mut cluster = Cluster::start_with(
        BINARY,
        &ClusterOptions {
            environment: vec![
                ("DISTRIFS_HEARTBEAT_TIMEOUT", "2".to_owned()),
                ("DISTRIFS_PENDING_TIMEOUT", "1".to_owned()),
            ],
            ..ClusterOptions::default()
        },
    );
    let (bytes, kept) = (random_bytes(CHUNK, 1), random_bytes(CHUNK, 2));
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    let _ = cluster.run_with_stdin(&["put", "-", "/kept"], &kept).ok();
    let replica = cluster.replica_files("/f").remove(0);
    let meta = replica.path.with_extension("meta");
    let saved = (std::fs::read(&replica.path).expect("data"), std::fs::read(&meta).expect("a sidecar"));
    // It is deleted and forgotten; then a disk with it comes back from somewhere.
    let _ = cluster.run(&["rm", "/f"]).ok();
    wait_until("the tombstone is forgotten", || {
        let story = cluster.run(&["why", "chunk", "--json", &replica.chunk]).ok();
        story.json()[0]["state"] == "unknown"
    });
    cluster.kill_datanode(replica.datanode);
    std::fs::write(&replica.path, &saved.0).expect("written");
    std::fs::write(&meta, &saved.1).expect("written");
    cluster.restart_datanode(replica.datanode);
    let quarantine = cluster.datanode_folder(replica.datanode).join("quarantine");
    let name = replica.path.file_name().expect("a name");
    wait_until("it lies in quarantine", || quarantine.join(name).exists() && !replica.path.exists());
    assert!(std::fs::read(quarantine.join(name)).expect("data") == saved.0);
    wait_until("nodes tells of it", || {
        let nodes = cluster.run(&["nodes", "--json"]).ok().json();
        nodes.iter().filter_map(|node| node["chunks_in_quarantine"].as_u64()).sum::<u64>() == 1
    });
    cluster.kill_datanode(replica.datanode);
    cluster.restart_datanode(replica.datanode);
    wait_until("also after a restart", || {
        let nodes = cluster.run(&["nodes", "--json"]).ok().json();
        nodes.iter().filter_map(|node| node["chunks_in_quarantine"].as_u64()).sum::<u64>() == 1
    });
    assert!(cluster.run(&["cat", "/kept"]).ok().stdout == kept, "what is known is where it was");
}
