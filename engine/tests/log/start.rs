//! Starting, closing and starting again.

use distrifs_engine::io::IoMode;
use distrifs_engine::log::{Log, LogError, LogOptions, RecoverError, recover};
use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use super::{CLUSTER, MODES, open, options, record, runtime, segments, start, try_open};

#[test]
fn a_closed_log_has_everything_and_goes_on_where_it_ended() {
    for mode in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let wal = dir.path().join("wal");
        let mut expected = Vec::new();
        for life in 0..4 {
            let (found, recovered) = open(&wal);
            assert_eq!(found, expected, "{mode} life {life}");
            assert_eq!(recovered.last_lsn(), Lsn(expected.len() as u64));
            assert_eq!(recovered.cut(), None);
            let log = Log::start(options(&wal, mode), recovered).expect("a log");
            runtime().block_on(async {
                for _ in 0..10 {
                    let first = expected.len();
                    let records: Vec<_> = (first..first + 3).map(record).collect();
                    expected.extend(records.iter().map(|record| record.to_vec()));
                    let lsns = log.append(records).await.expect("an append");
                    assert_eq!((lsns.start, lsns.end), (Lsn(first as u64 + 1), Lsn(first as u64 + 4)));
                }
                log.close().await.expect("a clean end");
            });
        }
        assert_eq!(open(&wal).0, expected);
    }
}

#[test]
fn a_dropped_log_has_everything_too() {
    for mode in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        for life in 0..5 {
            let log = start(dir.path(), mode);
            runtime().block_on(log.append(vec![record(life), record(life)])).expect("an append");
            drop(log);
            assert_eq!(open(dir.path()).0.len(), 2 * (life + 1), "{mode}");
        }
    }
}

#[test]
fn io_uring_is_used_where_it_is_to_be_had_and_refused_where_it_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let automatic = {
        let log = start(dir.path(), IoMode::Auto);
        let body = log.stats().body;
        runtime().block_on(log.close()).expect("a clean end");
        body
    };
    match Log::start(options(dir.path(), IoMode::Uring), open(dir.path()).1) {
        Ok(log) => {
            assert_eq!((automatic, log.stats().body), ("io_uring", "io_uring"));
            runtime().block_on(log.close()).expect("a clean end");
        }
        Err(LogError::NoUring(reason)) => {
            assert_eq!(automatic, "posix");
            assert!(!reason.is_empty());
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_folder_in_use_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = start(dir.path(), IoMode::Posix);
    assert!(matches!(try_open(dir.path()), Err(RecoverError::InUse { .. })));
    runtime().block_on(log.close()).expect("a clean end");
    assert!(try_open(dir.path()).is_ok(), "a closed log has let go");
}

/// Of O_SYNC only the half that is O_DSYNC: the other half is for the file's times.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
#[test]
fn the_segment_in_use_is_open_for_durable_writes() {
    const O_SYNC: u32 = 0o4010000;
    const O_DSYNC: u32 = 0o10000;
    for mode in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let log = start(dir.path(), mode);
        runtime().block_on(log.append(vec![record(1)])).expect("an append");
        let segment = segments(dir.path())[0].clone();
        let flags: Vec<_> = std::fs::read_dir("/proc/self/fd")
            .expect("this process")
            .filter_map(Result::ok)
            .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|path| path == segment))
            .map(|entry| {
                let info = std::path::Path::new("/proc/self/fdinfo").join(entry.file_name());
                let info = std::fs::read_to_string(info).expect("an open file");
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("its flags");
                u32::from_str_radix(flags.trim(), 8).expect("an octal number")
            })
            .collect();
        assert!(!flags.is_empty(), "{mode}: not open");
        for flags in flags {
            assert_eq!(flags & O_SYNC, O_DSYNC, "{mode}: {flags:o}");
        }
        runtime().block_on(log.close()).expect("a clean end");
    }
}

#[test]
fn a_log_is_continued_only_where_it_was_recovered() {
    let (one, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let elsewhere = Log::start(options(other.path(), IoMode::Posix), open(one.path()).1);
    assert!(matches!(elsewhere, Err(LogError::BadOptions(_))));
    assert_eq!(std::fs::read_dir(other.path()).expect("the folder").count(), 0);
}

#[test]
fn another_cluster_and_an_older_epoch_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let newer = LogOptions { epoch: Epoch(5), ..options(dir.path(), IoMode::Posix) };
    let log = Log::start(newer, open(dir.path()).1).expect("a log");
    runtime().block_on(log.append(vec![record(1)])).expect("an append");
    runtime().block_on(log.close()).expect("a clean end");

    let other = recover(dir.path(), ClusterId(9), Lsn(0), &mut |_, _, _| Ok(()));
    assert!(matches!(other, Err(RecoverError::WrongCluster { found: CLUSTER, .. })));
    let older = Log::start(options(dir.path(), IoMode::Posix), open(dir.path()).1);
    assert!(matches!(older, Err(LogError::StaleEpoch { asked: Epoch(1), found: Epoch(5) })));
}
