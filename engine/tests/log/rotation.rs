//! Many small segments.

use std::os::unix::fs::FileExt;

use distrifs_engine::log::{Corruption, RecoverError, recover};
use distrifs_proto::types::Lsn;
use tokio::task::JoinSet;

use super::{CLUSTER, MODES, SEGMENT_BYTES, open, record, runtime, segments, start, try_open};

#[test]
fn records_run_over_many_segments_in_order() {
    const TASKS: usize = 16;
    const APPENDS: usize = 40;
    for mode in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let log = start(dir.path(), mode);
        let mut expected = vec![Vec::new(); TASKS * APPENDS];
        runtime().block_on(async {
            let mut tasks = JoinSet::new();
            for task in 0..TASKS {
                let log = log.clone();
                tasks.spawn(async move {
                    let mut appended = Vec::new();
                    for append in 0..APPENDS {
                        let record = record(task * APPENDS + append);
                        let lsns = log.append(vec![record.clone()]).await.expect("an append");
                        appended.push((lsns.start, record));
                    }
                    appended
                });
            }
            while let Some(appended) = tasks.join_next().await {
                for (Lsn(lsn), record) in appended.expect("a task") {
                    expected[lsn as usize - 1] = record.to_vec();
                }
            }
        });
        let stats = log.stats();
        assert_eq!((stats.records, stats.appends), (640, 640));
        assert_eq!(stats.syncs, stats.groups + stats.segments);
        assert!(stats.groups <= 640 && stats.sync_nanos > 0, "{stats:?}");
        assert!(stats.segments >= 4, "640 records of 450 bytes fill segments of 64 KiB: {stats:?}");
        runtime().block_on(log.close()).expect("a clean end");

        let (found, recovered) = open(dir.path());
        assert_eq!(found, expected, "{mode}");
        assert_eq!(recovered.first_lsn(), Lsn(1));
        let files = segments(dir.path());
        assert_eq!(files.len() as u64, stats.segments + 1, "the next one is ready");
        for file in files {
            assert_eq!(file.metadata().expect("a file").len(), SEGMENT_BYTES);
        }
    }
}

#[test]
fn damaged_and_missing_segments_are_refused() {
    for mode in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let log = start(dir.path(), mode);
        for i in 0..60 {
            runtime().block_on(log.append(vec![record(i)])).expect("an append");
        }
        runtime().block_on(log.close()).expect("a clean end");
        let files = segments(dir.path());
        assert!(files.len() >= 5);

        let file = std::fs::OpenOptions::new().read(true).write(true).open(&files[1]).expect("a segment");
        let mut byte = [0];
        file.read_exact_at(&mut byte, 5000).expect("a byte");
        file.write_all_at(&[byte[0] ^ 4], 5000).expect("a flipped bit");
        match try_open(dir.path()) {
            Err(RecoverError::Corrupt { file, offset, lsn, what }) => {
                assert_eq!((file, what), (files[1].clone(), Corruption::RottenSector));
                assert_eq!((offset, lsn), (5000 / 512 * 512, Lsn(16)), "15 groups of a block fill a segment");
            }
            other => panic!("{mode}: {:?}", other.map(|(_, r)| r.last_lsn())),
        }
        file.write_all_at(&byte, 5000).expect("mended");

        let aside = dir.path().join("aside");
        std::fs::rename(&files[2], &aside).expect("moved away");
        match try_open(dir.path()) {
            Err(RecoverError::MissingSegment { missing, .. }) => assert_eq!(missing, files[2]),
            other => panic!("{mode}: {:?}", other.map(|(_, r)| r.last_lsn())),
        }
        std::fs::rename(&aside, &files[2]).expect("moved back");
        assert_eq!(try_open(dir.path()).expect("a whole log").0.len(), 60);
    }
}

#[test]
fn a_torn_tail_is_cut_on_disk() {
    for mode in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let log = start(dir.path(), mode);
        runtime().block_on(log.append(vec![record(1)])).expect("an append");
        runtime().block_on(log.append(vec![record(2)])).expect("an append");
        drop(log);
        drop(open(dir.path()));
        // As if the last write had been torn: no recovery and no clean end has seen it whole.
        std::fs::remove_file(dir.path().join("witness")).expect("the witness");
        let path = segments(dir.path())[0].clone();
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("a segment");
        file.write_all_at(&[0; 512], 8192 + 1024).expect("a torn write");
        drop(file);

        let (found, recovered) = open(dir.path());
        assert_eq!(found, [record(1).to_vec()], "{mode}");
        let cut = recovered.cut().expect("a torn write");
        assert_eq!((cut.sequence, cut.offset, cut.bytes), (1, 8192, 4096));
        drop(recovered);
        assert!(std::fs::read(&path).expect("a segment")[8192..].iter().all(|byte| *byte == 0));

        let log = start(dir.path(), mode);
        assert_eq!(runtime().block_on(log.append(vec![record(3)])).expect("an append").start, Lsn(2));
        runtime().block_on(log.close()).expect("a clean end");
        assert_eq!(open(dir.path()).0, [record(1).to_vec(), record(3).to_vec()]);
    }
}

#[test]
fn released_segments_are_gone_and_the_log_goes_on_from_a_checkpoint() {
    for mode in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let log = start(dir.path(), mode);
        runtime().block_on(async {
            for i in 0..60 {
                log.append(vec![record(i)]).await.expect("an append");
            }
            let before = log.stats();
            let released = log.release(Lsn(40)).await.expect("released");
            // 15 groups of a block fill a segment.
            assert_eq!(
                (released.segments, released.bytes, released.first_lsn),
                (2, 2 * SEGMENT_BYTES, Lsn(31))
            );
            let after = log.stats();
            assert!(
                after.kept_segments >= before.kept_segments - 2 && after.first_lsn == Lsn(31),
                "{after:?}"
            );
            log.append(vec![record(60)]).await.expect("an append");
            log.close().await.expect("a clean end");
        });
        assert!(segments(dir.path())[0].ends_with("wal-0000000000000003.log"));
        let mut found = Vec::new();
        let recovered = recover(dir.path(), CLUSTER, Lsn(40), &mut |lsn, _, bytes| {
            found.push((lsn, bytes.to_vec()));
            Ok(())
        })
        .expect("the end of the log");
        assert_eq!((recovered.first_lsn(), recovered.last_lsn()), (Lsn(31), Lsn(61)), "{mode}");
        let expected: Vec<_> = (40..61).map(|i| (Lsn(i as u64 + 1), record(i).to_vec())).collect();
        assert_eq!(found, expected);
        drop(recovered);
        assert!(matches!(try_open(dir.path()), Err(RecoverError::Released { needed: Lsn(1), .. })));
    }
}
