//! `distrifs inspect`: what a master has written, as people and scripts see it, whole and damaged.

use std::os::unix::fs::FileExt;
use std::path::Path;

use distrifs_engine::checkpoint::CheckpointFolder;
use distrifs_engine::log::{self, Log, LogOptions};
use distrifs_proto::types::{ClusterId, Epoch, Lsn};
use distrifs_testkit::{Cluster, wait_until};

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");

fn flip(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], at).expect("a flipped bit");
}

#[test]
fn the_log_of_a_master_is_shown_and_its_damage_is_named() {
    let mut cluster = Cluster::start(BINARY);
    let _ = cluster.run(&["mkdir", "-p", "/a/b"]).ok();
    let _ = cluster.run(&["mv", "/a/b", "/c"]).ok();
    let wal = cluster.master_folder().join("wal");
    // It is made in the background.
    wait_until("the next segment is ready", || wal.join("wal-0000000000000002.log").exists());
    cluster.kill_all();
    let wal = wal.to_str().expect("a path");
    // A write of the killed master may be on its way for a moment.
    wait_until("the log is at rest", || cluster.run(&["inspect", "wal", wal]).status == 0);

    let shown = cluster.run(&["inspect", "wal", wal]).ok();
    let text = shown.text();
    for expected in
        ["segment 1 of cluster ", "mkdir /a/b mode=0755 parents user=", "rename /a/b /c user=", "at=20"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(text.contains("ends cleanly at byte ") && text.contains("made ready, never used"), "{text}");
    let rows = cluster.run(&["inspect", "--json", "wal", wal]).ok().json();
    let of = |kind: &str| rows.iter().filter(|row| row["kind"] == kind).collect::<Vec<_>>();
    assert_eq!((of("segment").len(), of("segment")[0]["first_lsn"].as_u64()), (1, Some(1)));
    let lsns: Vec<_> = of("record").iter().map(|row| row["lsn"].as_u64().expect("an LSN")).collect();
    assert!(lsns.len() >= 2 && lsns.iter().zip(1..).all(|(lsn, n)| *lsn == n), "{lsns:?}");
    let verdicts: Vec<_> = of("verdict").iter().map(|row| row["verdict"].as_str().expect("a word")).collect();
    assert_eq!(verdicts, ["clean", "unused"]);

    let segment = Path::new(wal).join("wal-0000000000000001.log");
    let file = segment.to_str().expect("a path").to_owned();
    flip(&segment, 4100);
    let damaged = cluster.run(&["inspect", "wal", &file]).fails_with(7);
    let line = format!(
        "distrifs: inspect: {file}: corrupt at byte 4096 (from LSN 1 on): a sector fails its check\n"
    );
    assert_eq!(damaged.stderr, line);
    let rows = cluster.run(&["inspect", "--json", "wal", &file]).fails_with(7).json();
    let last = rows.last().expect("a verdict");
    assert_eq!(
        (&last["verdict"], &last["offset"], &last["lsn"]),
        (&"corrupt".into(), &4096.into(), &1.into())
    );
}

#[test]
fn of_a_log_that_was_forked_the_newest_fork_is_shown() {
    let cluster = Cluster::start(BINARY);
    let dir = cluster.scratch("forked");
    let id = ClusterId(5);
    let recovered = log::recover(&dir, id, Lsn(0), &mut |_, _, _| Ok(())).expect("an empty log");
    let old = Log::start(LogOptions::new(dir.clone(), id, Epoch(1)), recovered).expect("a log");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _ = runtime.block_on(old.append(vec!["no record of a master".into()])).expect("appended");
    // The old one still runs, and has its locks.
    drop(
        log::recover_forked(&dir, id, Lsn(0), Epoch(2), &mut || Ok(()), &mut |_, _, _| Ok(()))
            .expect("a fork"),
    );
    let segment = dir.join("fork-0000000000000002/wal-0000000000000001.log");
    let rows = cluster.run(&["inspect", "--json", "wal", dir.to_str().expect("a path")]).ok().json();
    let kinds: Vec<_> = rows.iter().map(|row| row["kind"].as_str().expect("a word")).collect();
    assert_eq!(kinds, ["segment", "group", "record", "verdict"]);
    for row in &rows {
        assert_eq!(row["file"].as_str(), segment.to_str());
    }
    drop(old);
}

#[test]
fn checkpoints_are_verified_and_their_damage_is_named() {
    let cluster = Cluster::start(BINARY);
    let dir = cluster.scratch("checkpoints");
    let folder = CheckpointFolder::open(&dir).expect("a folder");
    for lsn in [16, 32] {
        let mut writer = folder.create(ClusterId(5), Lsn(lsn), Epoch(2)).expect("begun");
        writer.write(&vec![7; 3_000_000]).expect("written");
        let _ = writer.finish().expect("finished");
    }
    let dir = dir.to_str().expect("a path");
    let shown = cluster.run(&["inspect", "checkpoint", dir]).ok();
    assert!(shown.text().contains("state at LSN 16 of cluster "), "{}", shown.text());
    assert_eq!(shown.text().matches("3 blocks, 2.9 MiB of content: all verified").count(), 2);
    let rows = cluster.run(&["inspect", "--json", "checkpoint", dir]).ok().json();
    assert_eq!((rows.len(), &rows[1]["lsn"], &rows[1]["verified"]), (2, &32.into(), &true.into()));

    let path = Path::new(dir).join("checkpoint-0000000000000020.ckpt");
    let file = path.to_str().expect("a path");
    flip(&path, 4096 + (1 << 20) + 77);
    let damaged = cluster.run(&["inspect", "checkpoint", dir]).fails_with(7);
    let line = format!(
        "distrifs: inspect: {file}: checkpoint of LSN 32 is corrupt at byte 1052672: block 1 fails its check\n"
    );
    assert_eq!(damaged.stderr, line);
    flip(&path, 5);
    let damaged = cluster.run(&["inspect", "checkpoint", file]).fails_with(7);
    assert!(damaged.stderr.contains("checkpoint of LSN 32 is corrupt at byte 0"), "{}", damaged.stderr);
}

#[test]
fn what_is_not_there_is_not_found() {
    let cluster = Cluster::start(BINARY);
    let nothing = cluster.scratch("nothing");
    let nothing = nothing.to_str().expect("a path");
    for kind in ["wal", "checkpoint"] {
        let _ = cluster.run(&["inspect", kind, nothing]).fails_with(3);
    }
    std::fs::create_dir(nothing).expect("an empty folder");
    let _ = cluster.run(&["inspect", "wal", nothing]).fails_with(3);
    assert_eq!(cluster.run(&["inspect"]).status, 2);
}
