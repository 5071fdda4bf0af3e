//! Faults of the simulated disk: each is seen where it is planned, and nowhere else.

use std::io::ErrorKind;
use std::path::Path;

use distrifs_engine::io::{Body, Buf, FileBytes, Io, Open, SimOperation, SimWorld, block_on};

use crate::stage::{pattern, shared};

const EIO: Option<i32> = Some(5);

fn run<T>(world: &SimWorld, main: impl AsyncFnOnce(Io) -> T) -> T {
    block_on(Body::Sim(world.clone()), |io| async move { main(io).await }).unwrap()
}

#[test]
fn failures_strike_the_named_operation_of_the_named_files_so_many_times() {
    let world = SimWorld::new(1);
    world.write_file(Path::new("/data/bad"), b"bytes");
    world.write_file(Path::new("/data/good"), b"bytes");
    let all = [
        SimOperation::Open,
        SimOperation::Read,
        SimOperation::Write,
        SimOperation::Sync,
        SimOperation::Resize,
        SimOperation::Rename,
        SimOperation::Unlink,
    ];
    for failing in all {
        world.faults().clear();
        world.faults().fail(failing, "bad", 1);
        for (name, strikes) in [("/data/good", false), ("/data/bad", true), ("/data/bad", false)] {
            for operation in all {
                let error = run(&world, async |io| act(&io, Path::new(name), operation).await);
                let expected = if strikes && operation == failing { EIO } else { None };
                let error = error.err().and_then(|error| error.raw_os_error());
                assert_eq!(error, expected, "{failing:?} planned, {operation:?} of {name}");
            }
            world.write_file(Path::new(name), b"bytes");
        }
    }
}

async fn act(io: &Io, path: &Path, operation: SimOperation) -> std::io::Result<()> {
    // A file that is opened where opening fails is another test's matter.
    let file = match operation {
        SimOperation::Rename => return io.rename(path, path).await,
        SimOperation::Unlink => return io.unlink(path).await,
        _ => io.open(path, Open { write: true, ..Open::READ }).await,
    };
    match operation {
        SimOperation::Open => file.map(drop),
        SimOperation::Read => {
            skip_open(file, async |file| file.read_at(Buf::alloc(1), 0..1, 0).await.0.map(drop)).await
        }
        SimOperation::Write => skip_open(file, async |file| file.write_at(shared(b"x"), 0..1, 0).await).await,
        SimOperation::Sync => skip_open(file, async |file| file.fdatasync().await).await,
        _ => skip_open(file, async |file| file.set_len(5).await).await,
    }
}

async fn skip_open(
    file: std::io::Result<distrifs_engine::io::File>,
    work: impl AsyncFnOnce(&distrifs_engine::io::File) -> std::io::Result<()>,
) -> std::io::Result<()> {
    match file {
        Ok(file) => work(&file).await,
        Err(_) => Ok(()),
    }
}

#[test]
fn the_sync_of_a_directory_can_fail_and_its_changes_are_gone_for_good() {
    for seed in 0..50 {
        let world = SimWorld::new(seed);
        world.faults().fail(SimOperation::Sync, "/", 1);
        run(&world, async |io| {
            io.open(Path::new("/file"), Open::CREATE).await.unwrap();
            assert_eq!(io.fsync_dir(Path::new("/")).await.unwrap_err().raw_os_error(), EIO);
            io.fsync_dir(Path::new("/")).await.unwrap();
            assert_eq!(io.read_dir(Path::new("/")).await.unwrap().len(), 1);
        });
        world.power_cut();
        assert!(world.list(Path::new("/")).unwrap().is_empty(), "seed {seed}");
    }
}

#[test]
fn after_a_failed_sync_the_next_succeeds_and_the_bytes_are_lost() {
    for seed in 0..50 {
        let world = SimWorld::new(seed);
        world.write_file(Path::new("/file"), b"old");
        world.faults().fail(SimOperation::Sync, "file", 1);
        run(&world, async |io| {
            let file = io.open(Path::new("/file"), Open { write: true, ..Open::READ }).await.unwrap();
            file.write_at(shared(b"new"), 0..3, 0).await.unwrap();
            assert_eq!(file.fdatasync().await.unwrap_err().raw_os_error(), EIO);
            file.fdatasync().await.unwrap();
            assert_eq!(&file.read_at(Buf::alloc(3), 0..3, 0).await.1[..], b"new");
        });
        world.power_cut();
        assert_eq!(world.read_file(Path::new("/file")).unwrap(), b"old", "seed {seed}");
    }
}

#[test]
fn a_failed_sync_of_the_file_system_loses_what_was_not_durable() {
    for seed in 0..50 {
        let world = SimWorld::new(seed);
        world.write_file(Path::new("/dir/file"), b"old");
        world.faults().fail(SimOperation::Sync, "/dir", 1);
        run(&world, async |io| {
            let file_system = io.open_fs(Path::new("/dir")).await.unwrap();
            let file = io.open(Path::new("/dir/new"), Open::CREATE).await.unwrap();
            file.write_at(shared(b"new"), 0..3, 0).await.unwrap();
            io.rename(Path::new("/dir/new"), Path::new("/dir/file")).await.unwrap();
            assert_eq!(file_system.sync().await.unwrap_err().raw_os_error(), EIO);
            file_system.sync().await.unwrap();
        });
        world.power_cut();
        assert_eq!(world.read_file(Path::new("/dir/file")).unwrap(), b"old", "seed {seed}");
    }
}

/// As Linux does from 5.8 on: whoever had it open before is told, once.
#[test]
fn a_file_system_tells_of_the_write_backs_that_failed_since_it_was_opened() {
    let world = SimWorld::new(1);
    world.faults().fail(SimOperation::Sync, "file", 1);
    run(&world, async |io| {
        let root = Path::new("/");
        let before = io.open_fs(root).await.unwrap();
        let file = io.open(Path::new("/file"), Open::CREATE).await.unwrap();
        file.write_at(shared(b"new"), 0..3, 0).await.unwrap();
        file.fdatasync().await.unwrap_err();
        let after = io.open_fs(root).await.unwrap();
        after.sync().await.unwrap();
        assert_eq!(before.sync().await.unwrap_err().raw_os_error(), EIO);
        before.sync().await.unwrap();
    });
}

#[test]
fn what_cannot_be_removed_again_stays_and_the_first_failure_is_told() {
    let world = SimWorld::new(1);
    world.faults().fail(SimOperation::Write, "third", 1);
    world.faults().fail(SimOperation::Unlink, "second", 1);
    let file = |name: &str| FileBytes { path: name.into(), unless: None, bytes: b"bytes".to_vec() };
    let files = vec![file("/first"), file("/second"), file("/third")];
    let error = run(&world, async |io| io.create_files(files).await.unwrap_err());
    assert_eq!((error.path.as_path(), error.source.raw_os_error()), (Path::new("/third"), EIO));
    assert_eq!(world.files_now().into_keys().collect::<Vec<_>>(), [Path::new("/second")]);
}

#[test]
fn a_full_disk_refuses_growth_and_allows_the_rest() {
    let world = SimWorld::new(1);
    world.faults().capacity(10_000);
    run(&world, async |io| {
        let how = Open { read: true, ..Open::CREATE };
        let file = io.open(Path::new("/file"), how).await.unwrap();
        file.fallocate(8_000).await.unwrap();
        let other = io.open(Path::new("/other"), how).await.unwrap();
        assert_eq!(other.fallocate(4_000).await.unwrap_err().kind(), ErrorKind::StorageFull);
        let write = other.write_at(shared(&[1; 4_000]), 0..4_000, 0).await;
        assert_eq!(write.unwrap_err().kind(), ErrorKind::StorageFull);
        file.write_at(shared(&[1; 4_000]), 0..4_000, 0).await.unwrap();
        let space = io.free_space(Path::new("/")).await.unwrap();
        assert_eq!((space.total, space.available), (10_000, 2_000));
        io.unlink(Path::new("/file")).await.unwrap();
        other.write_at(shared(&[1; 4_000]), 0..4_000, 0).await.unwrap();
    });
}

#[test]
fn a_flipped_bit_is_read_back_and_outlives_a_power_cut() {
    let world = SimWorld::new(1);
    world.write_file(Path::new("/file"), &[0; 1000]);
    world.faults().flip(Path::new("/file"), 700, 3).unwrap();
    assert!(world.faults().flip(Path::new("/file"), 1000, 3).is_err());
    for _ in 0..2 {
        let bytes = world.read_file(Path::new("/file")).unwrap();
        assert_eq!(bytes[700], 8);
        assert_eq!(bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 8);
        world.power_cut();
    }
}

#[test]
fn short_transfers_are_seen_by_nobody_above_the_seam() {
    for direct in [false, true] {
        let world = SimWorld::new(5);
        world.faults().short_transfers(true);
        const LEN: usize = 64 << 10;
        run(&world, async |io| {
            let how = Open { read: true, direct, ..Open::CREATE };
            let file = io.open(Path::new("/file"), how).await.unwrap();
            let bytes = pattern(LEN, 7).share();
            file.write_at(bytes.clone(), 0..LEN, 0).await.unwrap();
            let (read, buf) = file.read_at(Buf::alloc(2 * LEN), 0..2 * LEN, 0).await;
            assert_eq!(read.unwrap(), LEN);
            assert!(buf[..LEN] == bytes[..]);
            let listener = io.listen(([127, 0, 0, 1], 70).into()).await.unwrap();
            let client = io.connect(([127, 0, 0, 1], 70).into()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let (_recv, mut send) = client.into_split();
            let sent = bytes.clone();
            io.spawn(async move { send.send_all(sent, 0..LEN).await.unwrap() });
            let (mut recv, _send) = server.into_split();
            let (received, buf) = recv.recv_exact(Buf::alloc(LEN), 0..LEN).await;
            assert_eq!(received.unwrap(), LEN);
            assert!(buf[..] == bytes[..]);
        });
        // They were short: each needed several operations.
        assert!(world.operations() > 5, "{}", world.operations());
    }
}
