//! A master whose log lost records that the datanodes know of: it stays read-only until it is told to go on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use distrifs_testkit::{Cluster, ClusterOptions, Daemon, Outcome, random_bytes, wait_until};

use super::{BINARY, health};

const FLAG: &str = "--accept-data-loss";
const OLD: usize = 700_000;
const LOST: usize = 300_000;
/// What `--accept-data-loss` skips: no lost record can have handed out so many.
const LOST_CHUNK_IDS: u64 = 1 << 40;

fn start() -> Cluster {
    // Unknown chunks go to quarantine at once.
    let environment = vec![("DISTRIFS_PENDING_TIMEOUT", "1".to_owned())];
    Cluster::start_with(BINARY, &ClusterOptions { environment, ..ClusterOptions::default() })
}

/// A master on the cluster's folder and address, and what it logs.
fn master(cluster: &Cluster, options: &[&str]) -> Daemon {
    let mut command = cluster.master_command(&cluster.master_folder(), &cluster.master_address());
    command.args(options);
    Daemon::start(command, &log(cluster)).expect("it serves")
}

fn log(cluster: &Cluster) -> PathBuf {
    cluster.folder().join("master-again.log")
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).expect("made");
        for entry in std::fs::read_dir(from).expect("listed") {
            let entry = entry.expect("listed").path();
            copy(&entry, &to.join(entry.file_name().expect("a name")));
        }
    } else {
        std::fs::copy(from, to).expect("copied");
    }
}

/// Puts what `copied` has of these names into the master's folder, in the place of what is there.
fn put_back(cluster: &Cluster, copied: &Path, names: &[&str]) {
    for name in names {
        let (from, to) = (copied.join(name), cluster.master_folder().join(name));
        if to.is_dir() {
            std::fs::remove_dir_all(&to).expect("removed");
        } else {
            let _ = std::fs::remove_file(&to);
        }
        if from.exists() {
            copy(&from, &to);
        }
    }
}

/// Every chunk file of the datanodes, wherever it lies, by datanode and name, with its bytes.
fn chunks(cluster: &Cluster, below: &str) -> BTreeSet<(usize, String, Vec<u8>)> {
    let mut all = BTreeSet::new();
    for datanode in 0..3 {
        let mut folders = vec![cluster.datanode_folder(datanode).join(below)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("listed").flatten() {
                let path = entry.path();
                let name = entry.file_name().into_string().expect("text");
                if path.is_dir() {
                    folders.push(path);
                } else if name.starts_with("chunk-") && !name.contains(".meta") {
                    // It may be on its way to quarantine.
                    all.extend(std::fs::read(&path).ok().map(|bytes| (datanode, name, bytes)));
                }
            }
        }
    }
    all
}

fn id(name: &str) -> u64 {
    let digits = name.strip_prefix("chunk-").and_then(|rest| rest.get(..16)).expect("a chunk's name");
    u64::from_str_radix(digits, 16).expect("digits")
}

fn ids<'a>(chunks: impl IntoIterator<Item = &'a (usize, String, Vec<u8>)>) -> BTreeSet<u64> {
    chunks.into_iter().map(|(_, name, _)| id(name)).collect()
}

fn put(cluster: &Cluster, path: &str, bytes: &[u8]) -> Outcome {
    cluster.run_with_stdin(&["put", "-", path], bytes)
}

/// What a cluster has whose master was stopped, with a copy of the master's folder of before the last files.
struct Lost {
    copied: PathBuf,
    old: Vec<u8>,
    before: BTreeSet<(usize, String, Vec<u8>)>,
    lost: BTreeSet<u64>,
}

/// Fills the cluster and stops its master, after starting it `starts` times more than the copy knows of.
fn lose(cluster: &mut Cluster, starts: usize) -> Lost {
    let old = random_bytes(OLD, 1);
    let _ = put(cluster, "/old", &old).ok();
    let _ = put(cluster, "/gone", b"removed later").ok();
    assert!(cluster.take_master().terminate().success());
    let copied = cluster.folder().join("copied");
    copy(&cluster.master_folder(), &copied);
    let kept = ids(&chunks(cluster, "chunks"));
    for number in 0..starts {
        let running = master(cluster, &[]);
        cluster.wait_for(3);
        let _ = put(cluster, &format!("/lost-{number}"), &random_bytes(LOST, 2 + number as u64)).ok();
        if number + 1 == starts {
            let _ = cluster.run(&["mkdir", "/lost-dir"]).ok();
            wait_until("the datanodes are shown it", || witnesses_agree(cluster));
        }
        assert!(running.terminate().success());
    }
    let before = chunks(cluster, "chunks");
    let lost: BTreeSet<u64> = ids(&before).difference(&kept).copied().collect();
    assert!(lost.len() >= starts, "{lost:?} besides {kept:?}");
    Lost { copied, old, before, lost }
}

/// Whether all datanodes were shown the same, and that two looks long.
fn witnesses_agree(cluster: &Cluster) -> bool {
    let look = || -> BTreeSet<String> {
        let witness = |at| std::fs::read_to_string(cluster.datanode_folder(at).join("WITNESS"));
        (0..3).map(|at| witness(at).expect("a witness")).collect()
    };
    let first = look();
    std::thread::sleep(std::time::Duration::from_millis(500));
    first.len() == 1 && look() == first
}

/// What holds once the loss is accepted.
fn goes_on_without(cluster: &Cluster, it: &Lost) {
    assert!(cluster.run(&["cat", "/old"]).ok().stdout == it.old, "what was there before the loss");
    for path in ["/lost-0", "/lost-dir"] {
        assert_eq!(cluster.run(&["stat", path]).status, 3, "{path}");
    }
    let _ = put(cluster, "/new", &random_bytes(LOST, 9)).ok();
    let now = chunks(cluster, "chunks");
    let new: BTreeSet<u64> = ids(&now).difference(&ids(&it.before)).copied().collect();
    assert!(!new.is_empty() && new.iter().all(|id| *id > LOST_CHUNK_IDS), "{new:x?}");
    wait_until("the lost chunks are in quarantine", || {
        ids(&chunks(cluster, "chunks")).is_disjoint(&it.lost)
            && ids(&chunks(cluster, "quarantine")).is_superset(&it.lost)
    });
    // Every replica has the bytes it had, here or there, and none is gone.
    let bytes = |it: &BTreeSet<(usize, String, Vec<u8>)>| -> BTreeSet<(usize, u64, Vec<u8>)> {
        it.iter().map(|(node, name, bytes)| (*node, id(name), bytes.clone())).collect()
    };
    let mut kept = bytes(&chunks(cluster, "chunks"));
    kept.extend(bytes(&chunks(cluster, "quarantine")));
    assert!(kept.is_superset(&bytes(&it.before)), "a replica is gone or another");
}

fn accepted(cluster: &Cluster) -> usize {
    std::fs::read_to_string(log(cluster)).expect("a log").matches("DATA LOSS ACCEPTED").count()
}

#[test]
fn a_lost_tail_is_given_up_only_when_told_to() {
    let mut cluster = start();
    let it = lose(&mut cluster, 1);
    put_back(&cluster, &it.copied, &["wal", "checkpoints", "log-begun"]);

    let behind = master(&cluster, &[]);
    wait_until("a datanode tells of the loss", || health(behind.field("http")).contains("read-only"));
    let told = health(behind.field("http"));
    assert!(told.contains("is behind datanode") && told.contains(FLAG), "{told}");
    cluster.wait_for_live(3);
    let arguments: [&[&str]; 3] = [&["put", "-", "/x"], &["mkdir", "/y"], &["rm", "/old"]];
    for arguments in arguments {
        let refused = cluster.run_with_stdin(arguments, b"x").fails_with(6);
        assert!(refused.stderr.contains("its log lost records"), "{}", refused.stderr);
        assert!(refused.stderr.contains(FLAG), "{}", refused.stderr);
    }
    let waited = cluster.run(&["wait", "--datanodes", "3", "--timeout", "1"]);
    assert!(waited.status != 0 && waited.stderr.contains(FLAG), "{}", waited.stderr);
    wait_until("what was there can be read", || cluster.run(&["cat", "/old"]).stdout == it.old);
    // Longer than it takes until what nobody knows would go: another such wait is further below, where it goes.
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert!(chunks(&cluster, "chunks") == it.before, "a master that is behind had something removed");
    assert!(behind.terminate().success());
    assert_eq!(accepted(&cluster), 0);

    let told_to = master(&cluster, &[FLAG]);
    cluster.wait_for(3);
    goes_on_without(&cluster, &it);
    assert_eq!(accepted(&cluster), 1);
    assert!(told_to.terminate().success());

    let again = master(&cluster, &[]);
    cluster.wait_for(3);
    let _ = cluster.run(&["mkdir", "/later"]).ok();
    assert!(health(again.field("http")).contains("ok epoch="));
    assert!(cluster.run(&["cat", "/old"]).ok().stdout == it.old);
    assert!(again.terminate().success());

    // The same old copy once more lacks the acceptance, too.
    put_back(&cluster, &it.copied, &["wal", "checkpoints", "log-begun"]);
    let behind = master(&cluster, &[]);
    wait_until("a datanode tells of the loss", || health(behind.field("http")).contains("read-only"));
}

#[test]
fn an_old_copy_of_the_whole_folder_gets_over_the_epochs_it_does_not_know() {
    let mut cluster = start();
    let it = lose(&mut cluster, 3);
    std::fs::remove_dir_all(cluster.master_folder()).expect("removed");
    copy(&it.copied, &cluster.master_folder());

    let behind = master(&cluster, &[]);
    let epoch: u64 = behind.field("epoch").parse().expect("a number");
    wait_until("a datanode tells of the loss", || health(behind.field("http")).contains("read-only"));
    for arguments in [&["put", "-", "/x"][..], &["mkdir", "/y"]] {
        assert!(cluster.run(arguments).fails_with(6).stderr.contains(FLAG), "{arguments:?}");
    }
    assert!(behind.terminate().success());

    let mut told_to = master(&cluster, &[FLAG]);
    assert_eq!(told_to.field("epoch"), (epoch + 1).to_string());
    // It starts again by itself, above what the datanodes were shown.
    told_to.wait_ready();
    assert!(told_to.field("epoch").parse::<u64>().expect("a number") > epoch + 2);
    cluster.wait_for(3);
    goes_on_without(&cluster, &it);
    assert_eq!(accepted(&cluster), 1);
    assert!(told_to.terminate().success());
    let again = master(&cluster, &[]);
    cluster.wait_for(3);
    let _ = cluster.run(&["mkdir", "/later"]).ok();
    drop(again);
}

#[test]
fn with_nothing_lost_the_flag_changes_nothing() {
    let mut cluster = start();
    let _ = put(&cluster, "/a", &random_bytes(LOST, 1)).ok();
    assert!(cluster.take_master().terminate().success());
    let before = ids(&chunks(&cluster, "chunks"));
    let told_to = master(&cluster, &[FLAG]);
    cluster.wait_for(3);
    let _ = put(&cluster, "/b", &random_bytes(LOST, 2)).ok();
    let new: Vec<u64> = ids(&chunks(&cluster, "chunks")).difference(&before).copied().collect();
    let first = before.last().expect("some") + 1;
    assert_eq!(new, (first..first + new.len() as u64).collect::<Vec<_>>());
    assert!(told_to.terminate().success());
    assert_eq!(accepted(&cluster), 0);
    for at in 0..3 {
        let witness = std::fs::read_to_string(cluster.datanode_folder(at).join("WITNESS")).expect("there");
        assert!(witness.contains("\nhistory 0\n"), "{witness}");
    }
}
