//! What was acknowledged survives the death of every process at the same instant.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use distrifs_testkit::{Cluster, ClusterOptions, random_bytes, run, wait_until};

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");

#[test]
fn after_a_kill_of_every_process_at_once_all_that_was_acknowledged_is_there() {
    let mut cluster = Cluster::start(BINARY);
    let _ = cluster.run(&["mkdir", "-p", "/a/b"]).ok();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (number, size) in [0, 1, 70_000, 262_144, 1_000_000].into_iter().enumerate() {
        let (path, bytes) = (format!("/a/b/{number}"), random_bytes(size, number as u64));
        let _ = cluster.run_with_stdin(&["put", "-", &path], &bytes).ok();
        files.push((path, bytes));
    }
    let _ = cluster.run(&["mv", "/a/b/1", "/moved"]).ok();
    files[1].0 = "/moved".to_owned();
    let _ = cluster.run(&["rm", "/a/b/0"]).ok();
    files.remove(0);
    // Every round adds one file right before the lights go out, and the log grows over several epochs.
    for round in 0..3u64 {
        let (path, bytes) = (format!("/round-{round}"), random_bytes(300_000, 100 + round));
        let _ = cluster.run_with_stdin(&["put", "-", &path], &bytes).ok();
        files.push((path, bytes));
        let before = cluster.run(&["ls", "-R", "--json", "/"]).ok();
        cluster.kill_all();
        cluster.restart_all();
        assert_eq!(cluster.run(&["ls", "-R", "--json", "/"]).ok().text(), before.text(), "round {round}");
        for (path, bytes) in &files {
            assert!(cluster.run(&["cat", path]).ok().stdout == *bytes, "{path} in round {round}");
        }
    }
    let _ = cluster.run(&["stat", "/a/b/0"]).fails_with(3);
}

#[test]
fn a_replacing_put_that_fails_leaves_the_old_file() {
    let mut cluster = Cluster::start(BINARY);
    let old = random_bytes(600_000, 1);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &old).ok();
    cluster.kill_datanode(0);
    cluster.wait_for_live(2);
    let _ = cluster.run_with_stdin(&["put", "-f", "-", "/f"], b"new").fails_with(6);
    let _ = cluster.run_with_stdin(&["put", "-", "/new"], b"new").fails_with(6);
    assert!(cluster.run(&["cat", "/f"]).ok().stdout == old, "read with a dead datanode");
    assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "f\n");
    cluster.restart_all();
    assert!(cluster.run(&["cat", "/f"]).ok().stdout == old, "read with all of them");
    let _ = cluster.run_with_stdin(&["put", "-f", "-", "/f"], b"new").ok();
    assert_eq!(cluster.run(&["cat", "/f"]).ok().stdout, b"new");
}

#[test]
fn a_kill_in_the_middle_of_many_puts_takes_none_that_was_acknowledged() {
    const WRITERS: u64 = 3;
    const PUTS_EACH: u64 = 200;
    const ACKNOWLEDGED_BEFORE_THE_KILL: usize = 20;

    let mut cluster = Cluster::start(BINARY);
    let acknowledged: Mutex<Vec<(String, Vec<u8>)>> = Mutex::new(Vec::new());
    let killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let puts: Vec<_> = (0..PUTS_EACH)
                .map(|number| {
                    let path = format!("/{writer}-{number}");
                    let bytes = random_bytes(usize::try_from(number % 7).expect("small") * 50_000, number);
                    let mut command = cluster.command();
                    // Once all is dead, nobody waits for it to come back.
                    command.envs([("DISTRIFS_SOCKET_TIMEOUT", "1"), ("DISTRIFS_CLIENT_RETRY", "0")]);
                    command.args(["put", "-", &path]);
                    (path, bytes, command)
                })
                .collect();
            let (acknowledged, killed) = (&acknowledged, &killed);
            scope.spawn(move || {
                for (path, bytes, mut command) in puts {
                    if run(&mut command, &bytes).status == 0 {
                        acknowledged.lock().expect("no writer panicked").push((path, bytes));
                    } else if killed.load(Ordering::Relaxed) {
                        return;
                    }
                    // Else a busy machine took longer than this impatient command waits.
                }
            });
        }
        let count = || acknowledged.lock().expect("no writer panicked").len();
        wait_until("some puts are acknowledged", || count() >= ACKNOWLEDGED_BEFORE_THE_KILL);
        killed.store(true, Ordering::Relaxed);
        cluster.kill_all();
    });
    let acknowledged = acknowledged.into_inner().expect("no writer panicked");
    let all = usize::try_from(WRITERS * PUTS_EACH).expect("small");
    assert!(acknowledged.len() < all, "the kill came in the middle");
    cluster.restart_all();
    for (path, bytes) in &acknowledged {
        assert!(cluster.run(&["cat", path]).ok().stdout == *bytes, "{path} was acknowledged");
    }
    // A file whose put was cut off is there whole, or it is not there.
    for entry in cluster.run(&["ls", "--json", "/"]).ok().json() {
        let path = entry["path"].as_str().expect("a path");
        let whole = cluster.run(&["cat", path]).ok().stdout;
        assert_eq!(entry["crc32c"], format!("{:08x}", crc32c::crc32c(&whole)), "{path}");
    }
}

/// Files in the master's folder of checkpoints that are finished.
fn checkpoints(cluster: &Cluster) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(cluster.master_folder().join("checkpoints")) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".ckpt")).collect();
    names.sort();
    names
}

/// Checkpoints are taken every few changes while the master is killed again and again; nothing is lost, whether the
/// newest one is used, or the older one because the newest is damaged.
#[test]
fn kills_between_checkpoints_take_nothing_and_a_damaged_checkpoint_neither() {
    let environment = vec![("DISTRIFS_CHECKPOINT_LOG_BYTES", "20480".to_owned())];
    let mut cluster =
        Cluster::start_with(BINARY, &ClusterOptions { environment, ..ClusterOptions::default() });
    let bytes = random_bytes(300_000, 5);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    let _ = cluster.run(&["cp", "/f", "/copy"]).ok();
    let _ = cluster.run(&["rm", "/f"]).ok();
    for round in 0..3 {
        let before = checkpoints(&cluster);
        for number in 0..8 {
            let _ = cluster.run(&["mkdir", &format!("/d-{round}-{number}")]).ok();
        }
        let _ = cluster.run(&["chmod", "0750", &format!("/d-{round}-0")]).ok();
        wait_until("another checkpoint", || checkpoints(&cluster) != before);
        let _ = cluster.run(&["mkdir", &format!("/behind-{round}")]).ok();
        let expected = cluster.run(&["ls", "-R", "--json", "/"]).ok();
        cluster.kill_all();
        if round > 0 {
            let newest = checkpoints(&cluster).pop().expect("there were some");
            let path = cluster.master_folder().join("checkpoints").join(newest);
            let mut image = std::fs::read(&path).expect("read");
            let middle = image.len() / 2;
            image[middle] ^= 4;
            std::fs::write(&path, image).expect("damaged");
        }
        cluster.restart_all();
        assert_eq!(cluster.run(&["ls", "-R", "--json", "/"]).ok().text(), expected.text(), "round {round}");
        assert!(cluster.run(&["cat", "/copy"]).ok().stdout == bytes, "round {round}");
    }
}
