//! What is written is read, on both kinds of disk; what is kept and what is left after faults.

use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use super::super::error::CheckpointError;
use super::super::format::BLOCK_PAYLOAD_MAX;
use super::super::reader::CheckpointReader;
use super::super::store::CheckpointFolder;
use super::{CLUSTER, image, read_all, read_sim, sim, write};
use crate::folder::{Fault, Folder, SimDisk};

/// Around every border of the layout.
const LENGTHS: [usize; 9] =
    [0, 1, 4064, 4065, BLOCK_PAYLOAD_MAX - 1, BLOCK_PAYLOAD_MAX, BLOCK_PAYLOAD_MAX + 1, 2_500_000, 3 << 20];

fn names(disk: &SimDisk) -> Vec<String> {
    Folder::Sim(disk.clone()).list().expect("a list").into_iter().map(|(name, _)| name).collect()
}

fn lsns(folder: &CheckpointFolder) -> Vec<u64> {
    folder.list().expect("a list").into_iter().map(|checkpoint| checkpoint.lsn.0).collect()
}

#[test]
fn what_is_written_is_read_on_a_real_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("checkpoints");
    let folder = CheckpointFolder::open(&path).expect("a folder");
    for (i, len) in LENGTHS.into_iter().enumerate() {
        let content = image(len, i as u64);
        let written = write(&folder, i as u64, &content).expect("written");
        assert_eq!((written.lsn, written.payload), (Lsn(i as u64), len as u64));
        assert_eq!(written.blocks as usize, len.div_ceil(BLOCK_PAYLOAD_MAX));
        assert_eq!(written.bytes, written.path.metadata().expect("a file").len());
        let reader = CheckpointReader::open(&written.path, Some(CLUSTER)).expect("a checkpoint");
        let header = reader.header();
        assert_eq!((header.cluster, header.lsn, header.epoch), (CLUSTER, Lsn(i as u64), Epoch(3)));
        assert_eq!(read_all(reader).expect("whole"), content, "{len}");
    }
    assert_eq!(lsns(&folder), (0..LENGTHS.len() as u64).rev().collect::<Vec<_>>());
    assert_eq!(folder.retain(2, Epoch(3)).expect("removed"), LENGTHS.len() - 2);
    assert_eq!(std::fs::read_dir(&path).expect("the folder").count(), 2);
    // Opened once more it is the same.
    assert_eq!(lsns(&CheckpointFolder::open(&path).expect("a folder")), [8, 7]);
}

#[test]
fn parts_of_any_size_make_the_same_file() {
    let content = image(BLOCK_PAYLOAD_MAX + 12_345, 1);
    let disk = SimDisk::new(1);
    write(&sim(&disk), 1, &content).expect("written");
    let whole = disk.content("checkpoint-0000000000000001.ckpt");
    for size in [613, 4096, BLOCK_PAYLOAD_MAX, content.len()] {
        let mut writer = sim(&disk).create(CLUSTER, Lsn(1), Epoch(3)).expect("begun");
        content.chunks(size).for_each(|part| writer.write(part).expect("written"));
        writer.write(&[]).expect("nothing");
        writer.finish().expect("finished");
        assert!(disk.content("checkpoint-0000000000000001.ckpt") == whole, "{size}");
    }
}

#[test]
fn an_unfinished_one_leaves_nothing_and_is_never_listed() {
    let disk = SimDisk::new(1);
    write(&sim(&disk), 4, b"good").expect("written");
    let mut writer = sim(&disk).create(CLUSTER, Lsn(5), Epoch(1)).expect("begun");
    writer.write(&image(2 << 20, 1)).expect("written");
    assert_eq!((names(&disk).len(), lsns(&sim(&disk))), (2, vec![4]));
    drop(writer);
    assert_eq!(names(&disk), ["checkpoint-0000000000000004.ckpt"]);
    // Left by a crash.
    Folder::Sim(disk.clone()).create("checkpoint-0000000000000009.ckpt.tmp", b"half").expect("made");
    assert_eq!(sim(&disk).retain(2, Epoch(3)).expect("removed"), 0);
    assert_eq!(names(&disk), ["checkpoint-0000000000000004.ckpt"]);
    // The last good one is never removed.
    assert_eq!(sim(&disk).retain(0, Epoch(3)).expect("removed"), 0);
    assert_eq!(lsns(&sim(&disk)), [4]);
}

/// A leader that was replaced writes the same checkpoint as its successor.
#[test]
fn leaders_do_not_get_in_each_others_way() {
    let disk = SimDisk::new(1);
    let folder = sim(&disk);
    let begin = |epoch, content: &[u8]| {
        let mut writer = folder.create(CLUSTER, Lsn(5), Epoch(epoch)).expect("begun");
        writer.write(content).expect("written");
        writer
    };
    let (old, new) = (begin(1, &image(2 << 20, 1)), begin(2, &image(2 << 20, 2)));
    assert_eq!(names(&disk).len(), 2);
    // The old one cleans up late: not what its successor writes.
    assert_eq!(folder.retain(2, Epoch(0)).expect("nothing"), 0);
    assert_eq!(names(&disk).len(), 2);
    assert_eq!(folder.retain(2, Epoch(1)).expect("removed"), 0);
    assert_eq!(names(&disk), ["checkpoint-0000000000000005-0000000000000002.ckpt.tmp"]);
    match old.finish() {
        Err(CheckpointError::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::NotFound),
        other => panic!("{other:?}"),
    }
    new.finish().expect("finished");
    assert_eq!(names(&disk), ["checkpoint-0000000000000005.ckpt"]);
    assert_eq!(read_sim(&disk, "checkpoint-0000000000000005.ckpt").expect("whole"), image(2 << 20, 2));
}

#[test]
fn a_full_disk_is_told_and_leaves_the_old_ones() {
    let disk = SimDisk::new(1);
    write(&sim(&disk), 1, &image(100_000, 1)).expect("written");
    disk.set_capacity(3 << 20);
    let refused = write(&sim(&disk), 2, &image(4 << 20, 1)).expect_err("no room");
    assert!(refused.is_no_space(), "{refused}");
    disk.set(Fault::NoSpace, true);
    assert!(write(&sim(&disk), 2, b"x").expect_err("no room").is_no_space());
    assert_eq!(names(&disk), ["checkpoint-0000000000000001.ckpt"]);
    disk.set(Fault::NoSpace, false);
    write(&sim(&disk), 2, &image(1 << 20, 1)).expect("room again");
    assert_eq!(lsns(&sim(&disk)), [2, 1]);
}

#[test]
fn another_cluster_and_absurd_lsns_are_refused() {
    let disk = SimDisk::new(1);
    let written = write(&sim(&disk), 1, b"x").expect("written");
    let name = written.path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let other = CheckpointReader::open_in(&Folder::Sim(disk.clone()), &name, Some(ClusterId(9)));
    assert!(matches!(
        other,
        Err(CheckpointError::WrongCluster { expected: ClusterId(9), found: CLUSTER, .. })
    ));
    assert!(CheckpointReader::open_in(&Folder::Sim(disk.clone()), &name, None).is_ok());
    let absurd = sim(&disk).create(CLUSTER, Lsn(u64::MAX), Epoch(1));
    assert!(matches!(absurd, Err(CheckpointError::BadLsn { .. })));
    assert_eq!(read_sim(&disk, &name).expect("whole"), b"x");
}
