//! What a power cut leaves, on the simulated disk: the promises that crash tests build on, and proof that
//! they can fail.

use std::io;
use std::path::Path;
use std::time::Duration;

use distrifs_engine::io::{Body, Buf, Io, Open, SimWorld, block_on};

use crate::stage::{pattern, shared};

const SEEDS: u64 = 500;
const LEN: usize = 8 << 10;

fn path() -> &'static Path {
    Path::new("/file")
}

/// Which steps are done before the cut.
#[derive(Clone, Copy)]
struct Steps {
    sync_data: bool,
    sync_dir: bool,
}

/// Writes a file with these steps, cuts the power and says what is left of it.
fn write_and_cut(world: &SimWorld, steps: Steps) -> Option<Vec<u8>> {
    run(world, async |io| {
        let file = io.open(path(), Open::CREATE_DIRECT).await.unwrap();
        file.write_at(pattern(LEN, 1).share(), 0..LEN, 0).await.unwrap();
        if steps.sync_data {
            file.fdatasync().await.unwrap();
        }
        if steps.sync_dir {
            io.fsync_dir(Path::new("/")).await.unwrap();
        }
    });
    world.power_cut();
    world.read_file(path()).ok()
}

fn run<T>(world: &SimWorld, main: impl AsyncFnOnce(Io) -> T) -> T {
    block_on(Body::Sim(world.clone()), |io| async move { main(io).await }).unwrap()
}

#[test]
fn synced_data_is_never_lost() {
    for seed in 0..SEEDS {
        let left = write_and_cut(&SimWorld::new(seed), Steps { sync_data: true, sync_dir: true });
        assert!(left.is_some_and(|bytes| bytes == pattern(LEN, 1)[..]), "seed {seed}");
    }
}

#[test]
fn unsynced_data_is_lost_for_some_seed_torn_for_some_and_kept_for_some() {
    let (mut lost, mut torn, mut kept) = (0, 0, 0);
    for seed in 0..SEEDS {
        match write_and_cut(&SimWorld::new(seed), Steps { sync_data: false, sync_dir: true }) {
            Some(bytes) if bytes == pattern(LEN, 1)[..] => kept += 1,
            Some(bytes) if bytes.iter().all(|byte| *byte == 0) => lost += 1,
            Some(bytes) => {
                // Short, or with sectors of zeros, but never with bytes that nobody wrote.
                let expected = pattern(LEN, 1);
                assert!(bytes.iter().zip(&expected[..]).all(|(got, wrote)| got == wrote || *got == 0));
                torn += 1;
            }
            None => panic!("the name was synced, seed {seed}"),
        }
    }
    assert!(lost > 0 && torn > 0, "lost {lost}, torn {torn}, kept {kept}");
}

/// Files written, replaced, moved and removed, of which none is synced by itself.
fn change_and_cut(seed: u64, sync: bool) -> Vec<(String, Vec<u8>)> {
    let world = SimWorld::new(seed);
    for name in ["/old", "/gone", "/a/moved"] {
        world.write_file(Path::new(name), b"old");
    }
    world.create_dir_all(Path::new("/b"));
    run(&world, async |io| {
        let file_system = io.open_fs(Path::new("/b")).await.unwrap();
        let file = io.open(Path::new("/a/new"), Open::CREATE).await.unwrap();
        file.write_at(shared(b"new"), 0..3, 0).await.unwrap();
        io.rename(Path::new("/a/new"), Path::new("/old")).await.unwrap();
        io.rename(Path::new("/a/moved"), Path::new("/b/moved")).await.unwrap();
        io.unlink(Path::new("/gone")).await.unwrap();
        if sync {
            file_system.sync().await.unwrap();
        }
    });
    world.power_cut();
    let files = world.files().into_iter();
    files.map(|(path, bytes)| (path.display().to_string(), bytes)).collect()
}

#[test]
fn a_synced_file_system_loses_nothing_that_was_there_before() {
    let expected = [("/b/moved".to_owned(), b"old".to_vec()), ("/old".to_owned(), b"new".to_vec())];
    assert!((0..SEEDS).all(|seed| change_and_cut(seed, true) == expected));
    assert!((0..SEEDS).any(|seed| change_and_cut(seed, false) != expected));
}

#[test]
fn a_name_without_a_sync_of_its_directory_is_lost_for_some_seed_and_kept_for_some() {
    let kept = (0..SEEDS).filter(|seed| {
        write_and_cut(&SimWorld::new(*seed), Steps { sync_data: true, sync_dir: false }).is_some()
    });
    let kept = kept.count() as u64;
    assert!(kept > 0 && kept < SEEDS, "{kept} of {SEEDS}");
}

#[test]
fn where_syncs_lie_the_promise_is_broken() {
    let broken = (0..SEEDS).filter(|seed| {
        let world = SimWorld::new(*seed);
        world.faults().lying_syncs(true);
        let left = write_and_cut(&world, Steps { sync_data: true, sync_dir: true });
        left.is_none_or(|bytes| bytes != pattern(LEN, 1)[..])
    });
    assert!(broken.count() > 0);
}

/// Replaces `/file` by way of `/new`, cuts, and says what is left of both names.
fn replace_and_cut(seed: u64, sync_dir: bool) -> (Vec<u8>, Option<Vec<u8>>) {
    let world = SimWorld::new(seed);
    world.write_file(path(), b"old");
    run(&world, async |io| {
        let new = Path::new("/new");
        let file = io.open(new, Open::CREATE).await.unwrap();
        file.write_at(shared(b"new"), 0..3, 0).await.unwrap();
        file.fdatasync().await.unwrap();
        io.rename(new, path()).await.unwrap();
        if sync_dir {
            io.fsync_dir(Path::new("/")).await.unwrap();
        }
    });
    world.power_cut();
    (world.read_file(path()).unwrap(), world.read_file(Path::new("/new")).ok())
}

#[test]
fn a_rename_without_a_sync_of_its_directory_is_lost_for_some_seed() {
    let mut seen = [false; 2];
    for seed in 0..SEEDS {
        // Atomic all the same: the old bytes or the new ones.
        match replace_and_cut(seed, false) {
            (bytes, _) if bytes == b"old" => seen[0] = true,
            (bytes, None) if bytes == b"new" => seen[1] = true,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn a_rename_with_a_sync_of_its_directory_is_never_lost() {
    for seed in 0..SEEDS {
        assert_eq!(replace_and_cut(seed, true), (b"new".to_vec(), None), "seed {seed}");
    }
}

#[test]
fn an_unsynced_unlink_may_come_back_and_a_synced_one_not() {
    let left = |seed: u64, sync_dir: bool| {
        let world = SimWorld::new(seed);
        world.write_file(path(), b"bytes");
        run(&world, async |io| {
            io.unlink(path()).await.unwrap();
            if sync_dir {
                io.fsync_dir(Path::new("/")).await.unwrap();
            }
        });
        world.power_cut();
        world.read_file(path()).ok()
    };
    assert!((0..SEEDS).any(|seed| left(seed, false) == Some(b"bytes".to_vec())));
    assert!((0..SEEDS).any(|seed| left(seed, false).is_none()));
    assert!((0..SEEDS).all(|seed| left(seed, true).is_none()));
}

#[test]
fn a_move_to_another_directory_is_durable_with_the_sync_of_its_target_only() {
    let moved = |seed: u64, synced: &str| {
        let world = SimWorld::new(seed);
        world.write_file(Path::new("/tmp/a"), b"bytes");
        world.create_dir_all(Path::new("/chunks"));
        run(&world, async |io| {
            io.rename(Path::new("/tmp/a"), Path::new("/chunks/a")).await.unwrap();
            io.fsync_dir(Path::new(synced)).await.unwrap();
        });
        world.power_cut();
        let names = ["/tmp/a", "/chunks/a"].map(|name| world.read_file(Path::new(name)).is_ok());
        assert!(names[0] != names[1], "one name, whatever happens: {names:?}");
        names[1]
    };
    assert!((0..SEEDS).all(|seed| moved(seed, "/chunks")));
    assert!((0..SEEDS).any(|seed| !moved(seed, "/tmp")));
}

#[test]
fn a_new_directory_needs_the_sync_of_its_parent() {
    let kept = |seed: u64, sync_parent: bool| {
        let world = SimWorld::new(seed);
        run(&world, async |io| {
            let dir = Path::new("/dir");
            io.create_dir(dir).await.unwrap();
            let file = io.open(&dir.join("file"), Open::CREATE).await.unwrap();
            file.write_at(shared(b"x"), 0..1, 0).await.unwrap();
            file.fdatasync().await.unwrap();
            io.fsync_dir(dir).await.unwrap();
            if sync_parent {
                io.fsync_dir(Path::new("/")).await.unwrap();
            }
        });
        world.power_cut();
        world.read_file(Path::new("/dir/file")).is_ok_and(|bytes| bytes == b"x")
    };
    assert!((0..SEEDS).all(|seed| kept(seed, true)));
    assert!((0..SEEDS).any(|seed| kept(seed, false)));
    assert!((0..SEEDS).any(|seed| !kept(seed, false)));
}

/// A change that was not synced may survive, but never without what it builds on.
#[test]
fn changes_survive_with_what_they_build_on() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let world = SimWorld::new(seed);
        world.write_file(Path::new("/a"), b"1");
        run(&world, async |io| {
            io.rename(Path::new("/a"), Path::new("/b")).await.unwrap();
            io.rename(Path::new("/b"), Path::new("/c")).await.unwrap();
            io.open(Path::new("/a"), Open::CREATE).await.unwrap();
        });
        world.power_cut();
        let files: Vec<String> = world.files().keys().map(|path| path.display().to_string()).collect();
        seen.insert(files.join(" "));
    }
    let expected = ["/a", "/a /b", "/a /c", "/b", "/c"].map(str::to_owned);
    assert_eq!(seen, expected.into());
}

#[test]
fn a_dropped_operation_still_happens_before_the_body_ends() {
    use std::task::{Context, Waker};
    let world = SimWorld::new(8);
    world.write_file(path(), b"bytes");
    run(&world, async |io| {
        let mut unlink = std::pin::pin!(io.unlink(path()));
        assert!(unlink.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    });
    assert!(world.list(Path::new("/")).unwrap().is_empty());
}

#[test]
fn after_the_cut_everything_open_is_dead_until_the_next_start() {
    let world = SimWorld::new(3);
    world.write_file(path(), b"bytes");
    let outside = world.clone();
    run(&world, async move |io| {
        let file = io.open(path(), Open { write: true, ..Open::READ }).await.unwrap();
        let listener = io.listen(([127, 0, 0, 1], 70).into()).await.unwrap();
        let client = io.connect(([127, 0, 0, 1], 70).into()).await.unwrap();
        let (mut recv, mut send) = client.into_split();
        let waiting = io.clone();
        let (done, result) = tokio::sync::oneshot::channel();
        io.spawn(async move {
            done.send(recv.recv_exact(Buf::alloc(1), 0..1).await.0).unwrap();
        });
        waiting.sleep(Duration::from_secs(1)).await;
        outside.power_cut();
        assert_eq!(result.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(file.read_at(Buf::alloc(1), 0..1, 0).await.0.is_err());
        assert!(file.write_at(shared(b"x"), 0..1, 0).await.is_err());
        assert!(file.fdatasync().await.is_err());
        assert!(file.len().await.is_err());
        assert!(io.open(path(), Open::READ).await.is_err());
        assert!(send.send_all(shared(b"x"), 0..1).await.is_err());
        assert!(listener.accept().await.is_err());
        assert!(io.connect(([127, 0, 0, 1], 70).into()).await.is_err());
    });
    run(&world, async |io| {
        let file = io.open(path(), Open::READ).await.unwrap();
        let (read, buf) = file.read_at(Buf::alloc(5), 0..5, 0).await;
        assert_eq!((read.unwrap(), &buf[..]), (5, &b"bytes"[..]));
        io.listen(([127, 0, 0, 1], 70).into()).await.unwrap();
    });
}

#[test]
fn cut_after_carries_out_exactly_so_many_operations() {
    let total = {
        let world = SimWorld::new(4);
        run(&world, five_operations).unwrap();
        world.operations()
    };
    assert_eq!(total, 5);
    for count in 0..=total {
        let world = SimWorld::new(4);
        world.faults().cut_after(count);
        let result = run(&world, five_operations);
        assert_eq!((result.is_ok(), world.powered()), (count == total, count == total), "{count}");
        assert_eq!(world.operations(), count);
        assert!(count < 5 || world.files()[path()] == b"bytes");
    }
}

async fn five_operations(io: Io) -> io::Result<()> {
    let file = io.open(path(), Open::CREATE).await?;
    file.write_at(shared(b"bytes"), 0..5, 0).await?;
    file.fdatasync().await?;
    io.fsync_dir(Path::new("/")).await?;
    io.read_dir(Path::new("/")).await.map(drop)
}

/// A busy run of many tasks, its trace, and what the power cut left of it.
fn busy_run(seed: u64) -> (Vec<(u64, Duration)>, impl PartialEq + std::fmt::Debug) {
    let world = SimWorld::new(seed);
    let trace = run(&world, async |io| {
        let (send, mut results) = tokio::sync::mpsc::unbounded_channel();
        for index in 0..20_u64 {
            let (task_io, send) = (io.clone(), send.clone());
            io.spawn(async move {
                let name = format!("/file-{index}");
                let file = task_io.open(Path::new(&name), Open::CREATE).await.unwrap();
                let bytes = pattern(3000, index as u8).share();
                file.write_at(bytes, 0..3000, 0).await.unwrap();
                if index % 2 == 0 {
                    file.fdatasync().await.unwrap();
                }
                send.send((index, task_io.now())).unwrap();
            });
        }
        drop(send);
        let mut trace = Vec::new();
        while let Some(done) = results.recv().await {
            trace.push(done);
        }
        trace
    });
    world.power_cut();
    (trace, world.files())
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    assert_eq!(busy_run(11), busy_run(11));
    assert!(busy_run(11) != busy_run(12));
}
