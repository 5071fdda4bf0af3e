//! A log that is taken from a writer which still lives, with all its locks held.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use distrifs_engine::log::{
    Log, LogOptions, RecoverError, Recovered, current_folder, exists, inspect, recover_forked,
};
use distrifs_proto::types::{Epoch, Lsn};

use super::{CLUSTER, MODES, open, options, record, runtime, segments, start, try_open};

fn fork(dir: &Path, epoch: u64) -> (Vec<Vec<u8>>, Recovered) {
    let mut records = Vec::new();
    let recovered =
        recover_forked(dir, CLUSTER, Lsn(0), Epoch(epoch), &mut || Ok(()), &mut |lsn, _, record| {
            assert_eq!(lsn, Lsn(records.len() as u64 + 1));
            records.push(record.to_vec());
            Ok(())
        });
    let recovered = recovered.expect("a fork");
    (records, recovered)
}

fn append(log: &Log, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let lsns = runtime().block_on(log.append(vec![record(number)])).expect("an append");
        assert_eq!(lsns.start, Lsn(number as u64 + 1));
    }
}

fn expected(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| record(number).to_vec()).collect()
}

#[test]
fn a_log_is_taken_from_a_writer_that_lives_and_goes_on() {
    for mode in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        assert!(!exists(dir).expect("a look") && !exists(&dir.join("nothing")).expect("a look"));
        let old = start(dir, mode);
        append(&old, 0..60);
        assert!(exists(dir).expect("a look"));
        assert_eq!(current_folder(dir).expect("a look"), dir);
        let before = segments(dir);
        let in_use = before[before.len() - 2].clone();
        assert!(matches!(inspect(&in_use), Err(RecoverError::InUse { .. })), "the old writer has its locks");
        assert!(matches!(try_open(dir), Err(RecoverError::InUse { .. })));

        let inode = |path: &Path| path.metadata().expect("a file").ino();
        let (sealed, active) = (inode(&before[0]), inode(&in_use));
        let (found, recovered) = fork(dir, 4);
        assert_eq!(found, expected(60), "{mode}");
        assert_eq!(recovered.fork(), Some(Epoch(4)));
        let home = current_folder(dir).expect("a look");
        assert_eq!(home, dir.join("fork-0000000000000004"));
        let taken = segments(&home);
        assert_eq!(taken.len(), before.len() - 1, "what was ready stays behind");
        assert_eq!(inode(&taken[0]), sealed, "a second name");
        assert_ne!(inode(&taken[taken.len() - 1]), active, "a copy");
        assert!(exists(dir).expect("a look") && segments(dir).is_empty());

        let new = Log::start(LogOptions { epoch: Epoch(4), ..options(dir, mode) }, recovered).expect("a log");
        assert!(matches!(try_open(dir), Err(RecoverError::InUse { .. })), "the fork is locked");
        // The old one goes on, as far as it gets, while the new one does.
        for number in 60..120 {
            append(&new, number..number + 1);
            let _ = runtime().block_on(old.append(vec![record(7)]));
        }
        let _ = runtime().block_on(old.release(Lsn(50)));
        let _ = runtime().block_on(old.close());
        runtime().block_on(new.release(Lsn(20))).expect("released");
        runtime().block_on(new.close()).expect("a clean end");
        let (found, recovered) = {
            let mut records = Vec::new();
            let recovered = distrifs_engine::log::recover(dir, CLUSTER, Lsn(20), &mut |_, _, record| {
                records.push(record.to_vec());
                Ok(())
            });
            (records, recovered.expect("a log"))
        };
        assert_eq!(found, expected(120)[20..], "{mode}");
        assert_eq!((recovered.fork(), recovered.last_lsn()), (Some(Epoch(4)), Lsn(120)));
        let names: Vec<_> =
            std::fs::read_dir(dir).expect("the folder").map(|it| it.expect("one").path()).collect();
        assert_eq!(names, [home], "nothing is left of the old one");
    }
}

#[test]
fn a_fork_is_continued_in_place_and_forked_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let mut count = 0;
    let mut paused = Vec::new();
    for epoch in 1..8 {
        let (found, recovered) = if epoch % 3 == 1 { fork(dir, epoch) } else { open(dir) };
        assert_eq!(found, expected(count));
        assert_eq!(recovered.fork(), Some(Epoch((epoch - 1) / 3 * 3 + 1)));
        let mode = MODES[epoch as usize % 2];
        let log =
            Log::start(LogOptions { epoch: Epoch(epoch), ..options(dir, mode) }, recovered).expect("a log");
        append(&log, count..count + 30);
        count += 30;
        // Before the next fork nobody closes it.
        if epoch % 3 == 0 {
            paused.push(log);
        } else {
            runtime().block_on(log.close()).expect("a clean end");
        }
    }
    drop(paused);
    assert_eq!(open(dir).0, expected(count));
}

#[test]
fn an_inspection_names_the_fork() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = start(dir.path(), MODES[0]);
    append(&log, 0..3);
    drop(fork(dir.path(), 9));
    let home = current_folder(dir.path()).expect("a look");
    let found = inspect(&segments(&home)[0]).expect("an inspection");
    assert_eq!(found.path, dir.path().join("fork-0000000000000009/wal-0000000000000001.log"));
    assert_eq!(found.groups.iter().map(|group| group.records.len()).sum::<usize>(), 3);
    drop(log);
}
