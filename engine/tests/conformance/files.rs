//! Files and directories.

use std::cell::Cell;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use distrifs_engine::io::{Buf, BufPool, DirEntry, FileBytes, Io, Open, block_on};

use crate::stage::{Stage, pattern, real_bodies, shared};

const MIB: usize = 1 << 20;

async fn write_file(io: &Io, path: &std::path::Path, bytes: &[u8]) {
    let file = io.open(path, Open::CREATE).await.unwrap();
    file.write_at(shared(bytes), 0..bytes.len(), 0).await.unwrap();
    file.close().await.unwrap();
}

async fn read_file(io: &Io, path: &std::path::Path) -> Vec<u8> {
    let file = io.open(path, Open::READ).await.unwrap();
    let len = file.len().await.unwrap() as usize;
    let (read, buf) = file.read_at(Buf::alloc(len), 0..len, 0).await;
    assert_eq!(read.unwrap(), len);
    buf.to_vec()
}

pub(crate) async fn a_new_file_is_refused_where_one_exists(stage: Stage) {
    let path = stage.path("file");
    write_file(&stage.io, &path, b"first").await;
    for how in [Open::CREATE, Open::CREATE_DIRECT] {
        let error = stage.io.open(&path, how).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
    assert_eq!(read_file(&stage.io, &path).await, b"first");
}

pub(crate) async fn a_read_stops_at_the_end_of_the_file(stage: Stage) {
    let path = stage.path("file");
    write_file(&stage.io, &path, b"0123456789").await;
    let file = stage.io.open(&path, Open::READ).await.unwrap();
    let mut buf = Buf::alloc(100);
    for (offset, expected) in [(0, &b"0123456789"[..]), (7, b"789"), (10, b""), (5000, b"")] {
        buf.fill(0xEE);
        let read;
        (read, buf) = file.read_at(buf, 0..100, offset).await;
        let read = read.unwrap();
        assert_eq!(&buf[..read], expected);
        assert!(buf[read..].iter().all(|byte| *byte == 0xEE));
    }
    let (read, _) = file.read_at(buf, 50..50, 0).await;
    assert_eq!(read.unwrap(), 0);
}

/// Whether pages are there is the system's affair; what comes at once is what the file has, or nothing.
pub(crate) async fn a_read_at_once_gives_all_or_nothing(stage: Stage) {
    let path = stage.path("file");
    let bytes = pattern(20_000, 5).to_vec();
    write_file(&stage.io, &path, &bytes).await;
    let file = stage.io.open(&path, Open::READ).await.unwrap();
    let mut got = vec![0; 5_000];
    for offset in (0..15_000).step_by(500) {
        got.fill(0);
        if let Some(read) = file.try_read_at(&mut got, offset as u64) {
            assert!(read.is_ok() && got == bytes[offset..offset + 5_000]);
        }
    }
    assert!(file.try_read_at(&mut got, 15_001).is_none(), "the file ends before the buffer does");
    let direct = stage.io.open(&path, Open::READ_DIRECT).await.unwrap();
    let mut aligned = Buf::alloc(4096);
    assert!(!direct.is_direct() || direct.try_read_at(&mut aligned, 0).is_none(), "it would have to wait");
}

pub(crate) async fn unaligned_buffered_bytes_come_back(stage: Stage) {
    let path = stage.path("file");
    let bytes = pattern(20_001, 3).share();
    let how = Open { read: true, ..Open::CREATE };
    let file = stage.io.open(&path, how).await.unwrap();
    file.write_at(bytes.clone(), 0..20_001, 777).await.unwrap();
    file.fdatasync().await.unwrap();
    assert_eq!(file.len().await.unwrap(), 20_778);
    let (read, buf) = file.read_at(Buf::alloc(20_778), 0..20_778, 0).await;
    assert_eq!(read.unwrap(), 20_778);
    assert!(buf[..777].iter().all(|byte| *byte == 0));
    assert_eq!(buf[777..], bytes[..]);
}

pub(crate) async fn direct_bytes_come_back(stage: Stage) {
    let path = stage.path("file");
    let bytes = pattern(MIB, 9).share();
    let file = stage.io.open(&path, Open::CREATE_DIRECT).await.unwrap();
    file.fallocate(2 * MIB as u64).await.unwrap();
    file.write_at(bytes.clone(), 0..MIB, MIB as u64).await.unwrap();
    file.write_at(bytes.clone(), 0..MIB, 0).await.unwrap();
    file.fdatasync().await.unwrap();
    file.close().await.unwrap();
    for how in [Open::READ_DIRECT, Open::READ] {
        let file = stage.io.open(&path, how).await.unwrap();
        for offset in [0, MIB as u64] {
            let (read, buf) = file.read_at(Buf::alloc(MIB), 0..MIB, offset).await;
            assert_eq!(read.unwrap(), MIB);
            assert!(buf[..] == bytes[..]);
        }
    }
}

pub(crate) async fn a_direct_read_of_a_tail_stops_at_the_end(stage: Stage) {
    let path = stage.path("file");
    for (name, len) in [("short", 5_000), ("sector", 4_608), ("whole", 8_192)] {
        let path = path.with_extension(name);
        let bytes = pattern(len, 1);
        write_file(&stage.io, &path, &bytes).await;
        let file = stage.io.open(&path, Open::READ_DIRECT).await.unwrap();
        let (read, buf) = file.read_at(Buf::alloc(16_384), 0..16_384, 0).await;
        assert_eq!(read.unwrap(), len);
        assert_eq!(buf[..len], bytes[..]);
    }
}

pub(crate) async fn operations_on_one_file_run_side_by_side(stage: Stage) {
    const PIECES: u64 = 32;
    const PIECE: usize = 64 << 10;
    let path = stage.path("file");
    let file = Rc::new(stage.io.open(&path, Open { read: true, ..Open::CREATE_DIRECT }).await.unwrap());
    let done = Rc::new(Cell::new(0));
    for index in 0..PIECES {
        let (file, done) = (Rc::clone(&file), Rc::clone(&done));
        stage.io.spawn(async move {
            let bytes = pattern(PIECE, index as u8).share();
            file.write_at(bytes.clone(), 0..PIECE, index * PIECE as u64).await.unwrap();
            if index % 8 == 0 {
                file.fdatasync().await.unwrap();
            }
            let (read, buf) = file.read_at(Buf::alloc(PIECE), 0..PIECE, index * PIECE as u64).await;
            assert_eq!(read.unwrap(), PIECE);
            assert!(buf[..] == bytes[..]);
            done.set(done.get() + 1);
        });
    }
    while done.get() < PIECES {
        stage.io.sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(file.len().await.unwrap(), PIECES * PIECE as u64);
}

pub(crate) async fn a_part_of_a_buffer_is_a_part(stage: Stage) {
    let path = stage.path("file");
    let file = stage.io.open(&path, Open { read: true, ..Open::CREATE }).await.unwrap();
    file.write_at(shared(b"abcdefghij"), 2..5, 0).await.unwrap();
    let mut buf = Buf::alloc(10);
    buf.fill(b'.');
    let (read, buf) = file.read_at(buf, 4..9, 0).await;
    assert_eq!(read.unwrap(), 3);
    assert_eq!(&buf[..], b"....cde...");
}

pub(crate) async fn rename_replaces(stage: Stage) {
    let (from, to) = (stage.path("from"), stage.path("to"));
    write_file(&stage.io, &from, b"new").await;
    write_file(&stage.io, &to, b"old").await;
    let old = stage.io.open(&to, Open::READ).await.unwrap();
    stage.io.rename(&from, &to).await.unwrap();
    assert_eq!(read_file(&stage.io, &to).await, b"new");
    assert_eq!(stage.io.open(&from, Open::READ).await.err().unwrap().kind(), ErrorKind::NotFound);
    let (read, buf) = old.read_at(Buf::alloc(3), 0..3, 0).await;
    assert_eq!((read.unwrap(), &buf[..]), (3, &b"old"[..]));
    let other = stage.path("other");
    stage.io.create_dir(&other).await.unwrap();
    stage.io.rename(&to, &other.join("moved")).await.unwrap();
    assert_eq!(read_file(&stage.io, &other.join("moved")).await, b"new");
}

pub(crate) async fn unlink_removes_the_name_and_open_files_live_on(stage: Stage) {
    let path = stage.path("file");
    write_file(&stage.io, &path, b"bytes").await;
    let file = stage.io.open(&path, Open::READ).await.unwrap();
    stage.io.unlink(&path).await.unwrap();
    assert_eq!(stage.io.unlink(&path).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(stage.io.read_dir(&stage.dir).await.unwrap().is_empty());
    let (read, buf) = file.read_at(Buf::alloc(5), 0..5, 0).await;
    assert_eq!((read.unwrap(), &buf[..]), (5, &b"bytes"[..]));
    stage.io.create_dir(&path).await.unwrap();
    assert!(stage.io.unlink(&path).await.is_err());
}

pub(crate) async fn a_small_file_is_created_unless_it_or_another_exists(stage: Stage) {
    let (io, path, other) = (&stage.io, stage.path("file"), stage.path("other"));
    let create = async || {
        let bytes = b"new".to_vec();
        io.create_files(vec![FileBytes { path: path.clone(), unless: Some(other.clone()), bytes }]).await
    };
    write_file(io, &other, b"other").await;
    assert_eq!(create().await.unwrap_err().source.kind(), ErrorKind::AlreadyExists);
    assert_eq!(io.open(&path, Open::READ).await.err().unwrap().kind(), ErrorKind::NotFound);
    io.unlink(&other).await.unwrap();
    create().await.unwrap();
    assert_eq!(read_file(io, &path).await, b"new");
    io.unlink(&path).await.unwrap();
    // Where nobody can tell whether the other exists, it is that which is named.
    let unknown = stage.path("plain/other");
    write_file(io, &stage.path("plain"), b"no directory").await;
    let file = FileBytes { path: path.clone(), unless: Some(unknown.clone()), bytes: b"new".to_vec() };
    let error = io.create_files(vec![file]).await.unwrap_err();
    assert_eq!((error.path, error.source.kind()), (unknown, ErrorKind::NotADirectory));
    assert_eq!(io.open(&path, Open::READ).await.err().unwrap().kind(), ErrorKind::NotFound);
    write_file(io, &path, b"there").await;
    assert_eq!(create().await.unwrap_err().source.kind(), ErrorKind::AlreadyExists);
    assert_eq!(read_file(io, &path).await, b"there");
}

pub(crate) async fn small_files_are_created_all_or_none_and_renamed_up_to_the_first_failure(stage: Stage) {
    let path = |name: &str| stage.path(name);
    let file = |name: &str, bytes: &[u8]| FileBytes { path: path(name), unless: None, bytes: bytes.to_vec() };
    let io = &stage.io;
    io.create_files(vec![file("new", &[7; 5000]), file("empty", b"")]).await.unwrap();
    assert_eq!(read_file(io, &path("new")).await, [7; 5000]);
    assert_eq!(read_file(io, &path("empty")).await, b"");
    let files = vec![file("first", b"1"), file("new", b"2"), file("third", b"3")];
    let error = io.create_files(files).await.unwrap_err();
    assert_eq!((error.path, error.source.kind()), (path("new"), ErrorKind::AlreadyExists));
    assert_eq!(read_file(io, &path("new")).await, [7; 5000]);
    let error = io.create_files(vec![file("first", b"1"), file("no/such", b"x")]).await.unwrap_err();
    assert_eq!(error.source.kind(), ErrorKind::NotFound);
    assert_eq!(io.read_dir(&stage.dir).await.unwrap().len(), 2, "none of those that failed are there");
    io.create_files(vec![file("first", b"1")]).await.unwrap();

    let pair = |from: &str, to: &str| (path(from), path(to));
    io.rename_all(vec![pair("first", "a"), pair("new", "empty")]).await.unwrap();
    let error = io.rename_all(vec![pair("a", "b"), pair("missing", "c"), pair("b", "d")]).await.unwrap_err();
    assert_eq!((error.path, error.source.kind()), (path("c"), ErrorKind::NotFound));
    let left = io.read_dir(&stage.dir).await.unwrap();
    assert_eq!(left.iter().map(|it| it.name.as_os_str()).collect::<Vec<_>>(), ["b", "empty"]);
    assert_eq!(read_file(io, &path("empty")).await, [7; 5000]);
}

pub(crate) async fn directories_are_synced_and_must_exist(stage: Stage) {
    write_file(&stage.io, &stage.path("file"), b"x").await;
    stage.io.fsync_dir(&stage.dir).await.unwrap();
    let missing = stage.io.fsync_dir(&stage.path("missing")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let file = stage.io.fsync_dir(&stage.path("file")).await.unwrap_err();
    assert_eq!(file.kind(), ErrorKind::NotADirectory);
}

pub(crate) async fn file_systems_are_synced_and_must_exist(stage: Stage) {
    let file_system = stage.io.open_fs(&stage.dir).await.unwrap();
    write_file(&stage.io, &stage.path("file"), b"x").await;
    for _ in 0..2 {
        file_system.sync().await.unwrap();
    }
    let file = stage.io.open_fs(&stage.path("file")).await.err().unwrap();
    assert_eq!(file.kind(), ErrorKind::NotADirectory);
}

pub(crate) async fn fallocate_and_set_len_make_the_length(stage: Stage) {
    let path = stage.path("file");
    let file = stage.io.open(&path, Open { read: true, ..Open::CREATE }).await.unwrap();
    assert!(file.is_empty().await.unwrap());
    file.fallocate(0).await.unwrap();
    file.fallocate(MIB as u64).await.unwrap();
    assert_eq!(file.len().await.unwrap(), MIB as u64);
    file.fallocate(4096).await.unwrap();
    assert_eq!(file.len().await.unwrap(), MIB as u64);
    file.write_at(shared(b"head"), 0..4, 0).await.unwrap();
    file.set_len(6).await.unwrap();
    file.set_len(8).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 8);
    let (read, buf) = file.read_at(Buf::alloc(100), 0..100, 0).await;
    assert_eq!(&buf[..read.unwrap()], b"head\0\0\0\0");
    file.set_len(2).await.unwrap();
    file.set_len(4).await.unwrap();
    let (read, buf) = file.read_at(Buf::alloc(100), 0..100, 0).await;
    assert_eq!(&buf[..read.unwrap()], b"he\0\0");
}

pub(crate) async fn read_dir_is_sorted_and_complete(stage: Stage) {
    assert!(stage.io.read_dir(&stage.dir).await.unwrap().is_empty());
    for (name, len) in [("b", 2), ("a", 1), ("c.d", 4), ("B", 3)] {
        write_file(&stage.io, &stage.path(name), &pattern(len, 0)).await;
    }
    stage.io.create_dir(&stage.path("folder")).await.unwrap();
    write_file(&stage.io, &stage.path("folder").join("inner"), b"x").await;
    let mut entries = stage.io.read_dir(&stage.dir).await.unwrap();
    let folder = entries.pop().unwrap();
    assert_eq!((folder.name.to_str(), folder.is_dir), (Some("folder"), true));
    let expected = [("B", 3), ("a", 1), ("b", 2), ("c.d", 4)];
    let expected =
        expected.map(|(name, len)| DirEntry { name: name.into(), is_file: true, is_dir: false, len });
    assert_eq!(entries, expected);
}

pub(crate) async fn what_is_missing_is_not_found(stage: Stage) {
    let (io, path) = (&stage.io, stage.path("missing"));
    let inside = path.join("file");
    let kinds = [
        io.open(&path, Open::READ).await.err(),
        io.open(&path, Open::READ_DIRECT).await.err(),
        io.open(&inside, Open::CREATE).await.err(),
        io.rename(&path, &stage.path("other")).await.err(),
        io.unlink(&path).await.err(),
        io.create_dir(&inside).await.err(),
        io.read_dir(&path).await.err(),
        io.fsync_dir(&path).await.err(),
        io.open_fs(&path).await.err(),
        io.free_space(&path).await.err(),
    ];
    for (index, error) in kinds.into_iter().enumerate() {
        assert_eq!(error.expect("an error").kind(), ErrorKind::NotFound, "operation {index}");
    }
}

pub(crate) async fn what_exists_cannot_be_created(stage: Stage) {
    let path = stage.path("folder");
    stage.io.create_dir(&path).await.unwrap();
    assert_eq!(stage.io.create_dir(&path).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let error = stage.io.open(&path, Open::CREATE).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

pub(crate) async fn symbolic_links_and_write_only_files_are_no_back_doors(stage: Stage) {
    let path = stage.path("file");
    let file = stage.io.open(&path, Open::CREATE).await.unwrap();
    assert!(file.read_at(Buf::alloc(1), 0..1, 0).await.0.is_err());
    let file = stage.io.open(&path, Open::READ).await.unwrap();
    assert!(file.write_at(shared(b"x"), 0..1, 0).await.is_err());
    if stage.io.body_name() != "simulated" {
        let link = stage.path("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(stage.io.open(&link, Open::READ).await.is_err());
        assert!(stage.io.open(&link, Open::CREATE).await.is_err());
    }
}

pub(crate) async fn a_pipe_is_opened_without_a_writer(stage: Stage) {
    if stage.io.body_name() == "simulated" {
        return;
    }
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let path = stage.path("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for how in [Open::READ, Open::READ_DIRECT] {
        if let Ok(file) = stage.io.open(&path, how).await {
            assert_eq!(file.len().await.unwrap(), 0);
        }
    }
}

pub(crate) async fn free_space_is_within_the_total(stage: Stage) {
    let space = stage.io.free_space(&stage.dir).await.unwrap();
    assert!(space.available <= space.total && space.total > 0);
}

pub(crate) async fn a_dropped_write_still_happens(stage: Stage) {
    let path = stage.path("file");
    let file = stage.io.open(&path, Open { read: true, ..Open::CREATE }).await.unwrap();
    {
        let mut write = pin!(file.write_at(shared(b"bytes"), 0..5, 0));
        let _begun = write.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    while file.len().await.unwrap() < 5 {
        stage.io.sleep(Duration::from_millis(1)).await;
    }
    let (read, buf) = file.read_at(Buf::alloc(5), 0..5, 0).await;
    assert_eq!((read.unwrap(), &buf[..]), (5, &b"bytes"[..]));
}

/// Some callers go before their write has begun, some while it runs, some when it is done; others wait.
pub(crate) async fn writes_whose_callers_go_leave_the_others_alone(stage: Stage) {
    const PIECE: usize = 4096;
    const ROUNDS: u64 = 24;
    let pool = BufPool::new(8, PIECE).unwrap();
    let path = stage.path("file");
    let file = Rc::new(stage.io.open(&path, Open { read: true, ..Open::CREATE }).await.unwrap());
    let whole = Rc::new(Cell::new(0));
    for round in 0..ROUNDS {
        for place in 0..4 {
            let (io, file, whole) = (stage.io.clone(), Rc::clone(&file), Rc::clone(&whole));
            let mut buf = pool.get().await;
            let index = round * 4 + place;
            buf.fill(index as u8);
            stage.io.spawn(async move {
                let write = file.write_at(buf.share(), 0..PIECE, index * PIECE as u64);
                if place == 0 {
                    write.await.unwrap();
                    return whole.set(whole.get() + 1);
                }
                let mut write = pin!(write);
                for _ in 1..place {
                    if write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                        return;
                    }
                    io.sleep(Duration::from_micros(200 * round)).await;
                }
                let _begun = write.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            });
        }
    }
    while whole.get() < ROUNDS || pool.free() < pool.capacity() {
        stage.io.sleep(Duration::from_millis(1)).await;
    }
    // A buffer is back when its write is done.
    for index in 0..ROUNDS * 4 {
        let (read, buf) = file.read_at(Buf::alloc(PIECE), 0..PIECE, index * PIECE as u64).await;
        assert_eq!(read.unwrap(), PIECE);
        assert!(buf.iter().all(|byte| *byte == index as u8), "piece {index}");
    }
}

#[test]
fn direct_is_buffered_where_the_file_system_cannot() {
    for body in real_bodies() {
        block_on(body, async |io| {
            let file = io.open(std::path::Path::new("/proc/self/stat"), Open::READ_DIRECT).await.unwrap();
            assert!(!file.is_direct());
            let (read, _) = file.read_at(Buf::alloc(100), 1..8, 0).await;
            assert_eq!(read.unwrap(), 7);
        })
        .unwrap();
    }
}
