//! Small chunks through the journal: power cuts at every step and again while it is replayed, faults, full disks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use distrifs_engine::io::{Faults, Io, Open, SimOperation, SimWorld};
use distrifs_engine::store::journal::{Journal, Recovered, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN};
use distrifs_engine::store::{ChunkStore, Counters, StoreError};
use distrifs_proto::types::{ChunkId, ClusterId, GenerationStamp, NodeId};

use crate::foreign::on_real;
use crate::{CLUSTER, GENERATION, Known, compare, content, formatted, read, root, run, write};

const NODE: NodeId = NodeId(5);
/// A few chunks fill it.
const SEGMENT: u64 = SEGMENT_BYTES_MIN + 4096;

/// A folder that is served: the stores of two shards and the journal between them.
struct Served {
    stores: [ChunkStore; 2],
    journal: Journal,
    counters: Arc<Counters>,
    records: u64,
    damaged: u64,
    /// Whether the folder was said to be suspect.
    suspect: Rc<Cell<bool>>,
}

async fn recover(io: &Io, root: &Path) -> Result<Recovered, StoreError> {
    let store = ChunkStore::attach(io.clone(), root.to_owned(), None);
    store.clear_tmp().await?;
    store.replay(NODE, Some(CLUSTER)).await
}

async fn serve_at(io: &Io, root: &Path, segment_bytes: u64) -> Result<Served, StoreError> {
    let recovered = recover(io, root).await?;
    let (records, damaged) = (recovered.records, recovered.damaged);
    let counters = Arc::<Counters>::default();
    let (journal, driver) = Journal::new(recovered, segment_bytes, 77, counters.clone());
    let suspect = Rc::new(Cell::new(false));
    let (poisoned, on) = (suspect.clone(), io.clone());
    io.spawn(async move { driver.run(on, move |_| poisoned.set(true)).await });
    let store = || ChunkStore::attach(io.clone(), root.to_owned(), Some(journal.clone()));
    Ok(Served { stores: [store(), store()], journal, counters, records, damaged, suspect })
}

async fn serve(io: &Io) -> Served {
    serve_at(io, &root(), SEGMENT).await.unwrap()
}

fn segment_path(number: u64) -> PathBuf {
    root().join(format!("journal/segment-{number}"))
}

/// Writes and deletes at once, on two shards; notes every answer as it comes.
async fn work(io: &Io, known: &Rc<RefCell<BTreeMap<u64, Known>>>) {
    let Ok(served) = serve_at(io, &root(), SEGMENT).await else { return };
    let store = |chunk: u64| &served.stores[chunk as usize % 2];
    let commit = async |chunk: u64| {
        known.borrow_mut().entry(chunk).or_default();
        if write(store(chunk), chunk).await.is_ok() {
            known.borrow_mut().insert(chunk, Known::Committed);
        }
    };
    let delete = async |chunk: u64| {
        if known.borrow()[&chunk] == Known::Committed {
            known.borrow_mut().insert(chunk, Known::DeletionAsked);
            // By the other shard.
            if store(chunk + 1).delete(ChunkId(chunk), GENERATION).await.is_ok() {
                known.borrow_mut().insert(chunk, Known::Deleted);
            }
        }
    };
    tokio::join!(commit(1), commit(2), commit(0x103), commit(4));
    tokio::join!(delete(2), commit(5), delete(0x103), commit(6));
    tokio::join!(commit(7), commit(8), commit(9), commit(10), commit(11), delete(1));
    io.sleep(Duration::from_secs(30)).await;
    tokio::join!(commit(12), delete(4), delete(7));
    tokio::join!(delete(12), commit(13));
    commit(14).await;
    if served.journal.stop().await.is_ok() {
        assert_eq!(recover(io, &root()).await.map_or(0, |it| it.records), 0, "a clean stop leaves nothing");
    }
}

/// Starts again after the cut and compares what is there with what was answered.
fn check(world: &SimWorld, known: &BTreeMap<u64, Known>) -> Result<(), String> {
    run(world, async |io| {
        let served = serve(&io).await;
        if served.damaged > 0 {
            return Err("what a power cut leaves was taken for damage".into());
        }
        let [lists, reads] = &served.stores;
        compare([lists, reads], known).await
    })
}

fn cut_and_check(seed: u64, cut: u64, lying: bool) -> (Result<(), String>, bool) {
    let world = formatted(seed);
    world.faults().lying_syncs(lying);
    world.faults().cut_after(cut);
    let known = Rc::new(RefCell::default());
    run(&world, async |io| work(&io, &known).await);
    let was_cut = !world.powered();
    if !was_cut {
        world.power_cut();
    }
    world.faults().clear();
    let known = known.borrow().clone();
    // And once more in the middle of the replay, wherever that is.
    world.faults().cut_after((cut * 7 + seed) % 64);
    run(&world, async |io| drop(recover(&io, &root()).await));
    world.power_cut();
    world.faults().clear();
    (check(&world, &known), was_cut)
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_acknowledged() {
    for seed in 0..8 {
        // At each of one run, at every few of the others.
        let (first, step) = if seed == 0 { (1, 1) } else { (seed, 10) };
        for cut in (first..).step_by(step) {
            let (outcome, was_cut) = cut_and_check(seed, cut, false);
            assert_eq!(outcome, Ok(()), "seed {seed}, cut after {cut} operations");
            if !was_cut {
                assert!(cut > 100, "the work has only {cut} operations: the test tests nothing");
                break;
            }
        }
    }
}

#[test]
fn the_checker_finds_the_chunks_that_lying_syncs_lose() {
    let caught = (0..20).filter(|&seed| cut_and_check(seed, u64::MAX / 128, true).0.is_err()).count();
    assert!(caught > 0, "no seed showed a lost chunk");
}

#[test]
fn chunks_that_come_at_once_share_a_sync_and_need_no_other() {
    let world = formatted(1);
    run(&world, async |io| {
        let served = serve_at(&io, &root(), SEGMENT_BYTES_DEFAULT).await.unwrap();
        write(&served.stores[0], 1).await.unwrap();
        let made = served.counters.syncs();
        let (store, commit) = (&served.stores[1], async |chunk| write(&served.stores[0], chunk).await);
        for first in [10, 20] {
            let (a, b, c, d, e, f, g, h) = tokio::join!(
                commit(first),
                commit(first + 1),
                commit(first + 2),
                commit(first + 3),
                write(store, first + 4),
                write(store, first + 5),
                write(store, first + 6),
                write(store, first + 7),
            );
            assert!([a, b, c, d, e, f, g, h].iter().all(Result::is_ok));
        }
        assert_eq!(served.counters.journal_records(), 17);
        let groups = served.counters.journal_syncs() - 1;
        assert!(groups <= 8, "{groups} groups for 16 chunks");
        assert_eq!(served.counters.syncs() - made, groups, "of these, and of nothing else");
    });
}

/// Whoever comes second leaves alone what is the first one's, through the journal and past it.
#[test]
fn of_two_writers_of_a_small_chunk_one_commits_it() {
    for room in [SEGMENT - 1, 1 << 30] {
        let world = formatted(2);
        world.faults().capacity(room);
        run(&world, async |io| {
            let served = serve(&io).await;
            let [one, other] = &served.stores;
            let (a, b) = tokio::join!(write(one, 9), write(other, 9));
            let late = write(one, 9).await;
            let refused = |it: &Result<_, StoreError>| matches!(it, Err(StoreError::Exists { .. }));
            assert!(
                a.is_ok() != b.is_ok() && (refused(&a) || refused(&b)) && refused(&late),
                "{a:?} {b:?} {late:?}"
            );
            assert_eq!(read(other, 9).await.unwrap(), content(9));
            assert!(world.list(&root().join("tmp")).unwrap().is_empty());
            assert!(!served.suspect.get());
        });
    }
}

/// The chunk and nothing but the chunk, for whoever lists or reads it from outside.
#[test]
fn a_small_chunk_is_an_ordinary_file_at_once_and_outlives_its_process() {
    on_real(&async |io, root, _| {
        let served = serve_at(&io, root, SEGMENT).await.unwrap();
        for chunk in 3..40 {
            let store = &served.stores[chunk as usize % 2];
            write(store, chunk).await.unwrap();
            let path = root.join(format!("chunks/00/chunk-{}", ChunkId(chunk)));
            assert_eq!(std::fs::read(path).unwrap(), content(chunk));
            assert_eq!(read(store, chunk).await.unwrap(), content(chunk));
        }
        served.stores[0].delete(ChunkId(39), GENERATION).await.unwrap();
        let expected = if io.open_fs(root).await.unwrap().keeps_its_word() { 37 } else { 0 };
        assert_eq!(served.counters.journal_records(), expected);
        // As after a crash of the process, the driver is just not heard of any more.
        let again = serve_at(&io, root, SEGMENT).await.unwrap();
        let chunks: Vec<_> = again.stores[0].inventory(CLUSTER).await.unwrap().replicas;
        assert_eq!(chunks.len(), 38);
        for chunk in 3..39 {
            assert_eq!(read(&again.stores[1], chunk).await.unwrap(), content(chunk));
        }
        write(&again.stores[0], 50).await.unwrap();
        again.journal.stop().await.unwrap();
        assert_eq!(recover(&io, root).await.unwrap().records, 0);
    });
}

#[test]
fn a_failed_write_or_sync_acknowledges_nothing_and_suspects_the_folder() {
    for (operation, pattern) in [
        (SimOperation::Write, "segment-0"),
        (SimOperation::Sync, "segment-0"),
        (SimOperation::Sync, "journal"),
        (SimOperation::Open, "segment-0"),
    ] {
        for at_first in [true, false] {
            if operation == SimOperation::Open && !at_first {
                continue;
            }
            let why = format!("{operation:?} {pattern}, at first: {at_first}");
            let world = formatted(1);
            run(&world, async |io| {
                let served = serve(&io).await;
                let store = &served.stores[0];
                if !at_first {
                    write(store, 1).await.unwrap();
                }
                world.faults().fail(operation, pattern, 1);
                for chunk in [2, 3] {
                    let error = write(store, chunk).await.unwrap_err();
                    assert!(error.suspects_folder(), "{why}: {error}");
                    let missing = read(store, chunk).await.unwrap_err();
                    assert!(matches!(missing, StoreError::NoSuchChunk { .. }), "{why}: {missing}");
                }
                assert!(served.suspect.get(), "{why}");
                assert!(world.list(&root().join("tmp")).unwrap().is_empty(), "{why}");
                // What may come back is not said to be gone.
                if !at_first {
                    let kept = store.delete(ChunkId(1), GENERATION).await.unwrap_err();
                    assert!(matches!(kept, StoreError::SyncFailed { .. }), "{why}: {kept}");
                    assert_eq!(read(store, 1).await.unwrap(), content(1));
                }
                store.delete(ChunkId(9), GENERATION).await.unwrap();
                assert!(matches!(served.journal.stop().await, Err(StoreError::SyncFailed { .. })), "{why}");
            });
            world.power_cut();
            let there = if at_first { 0 } else { 1 };
            run(&world, async |io| {
                let served = serve(&io).await;
                let found = served.stores[0].inventory(CLUSTER).await.unwrap();
                // One that was refused may be there: its record may have reached the disk.
                let acknowledged = found.replicas.iter().filter(|it| it.chunk == ChunkId(1)).count();
                assert_eq!(acknowledged, there, "{why}");
                write(&served.stores[0], 7).await.unwrap();
            });
        }
    }
}

#[test]
fn a_small_chunk_of_which_nobody_can_tell_whether_it_exists_names_the_place_that_was_looked_at() {
    let world = formatted(1);
    run(&world, async |io| {
        let store = &serve(&io).await.stores[0];
        world.faults().fail(SimOperation::Open, "chunks/00/", 1);
        let error = write(store, 1).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("/data/chunks/00/chunk-0000000000000001: open: "), "{text}");
        write(store, 1).await.unwrap();
    });
}

/// The files are lost in the page cache, and only the sync of the file system tells.
#[test]
fn a_failed_checkpoint_keeps_the_records_for_the_next_start() {
    for background in [false, true] {
        let world = formatted(3);
        run(&world, async |io| {
            let served = serve(&io).await;
            for chunk in [1, 2] {
                write(&served.stores[0], chunk).await.unwrap();
            }
            if background {
                // What another process syncs is one write-back, too.
                let how = Open { write: true, ..Open::READ };
                let file = io.open(&root().join("chunks/00/chunk-0000000000000001"), how).await.unwrap();
                world.faults().fail(SimOperation::Sync, "chunk-0000000000000001", 1);
                file.fdatasync().await.unwrap_err();
            } else {
                world.faults().fail(SimOperation::Sync, "chunks", 1);
            }
            assert!(!served.suspect.get());
            io.sleep(Duration::from_secs(30)).await;
            assert!(served.suspect.get(), "told at once, not with the next chunk");
            write(&served.stores[0], 3).await.unwrap_err();
        });
        world.power_cut();
        run(&world, async |io| {
            let served = serve(&io).await;
            assert_eq!(served.records, 2);
            for chunk in [1, 2] {
                assert_eq!(read(&served.stores[0], chunk).await.unwrap(), content(chunk));
            }
        });
    }
}

#[test]
fn without_room_for_a_journal_a_chunk_goes_the_long_way() {
    let world = formatted(1);
    world.faults().capacity(SEGMENT - 1);
    run(&world, async |io| {
        let served = serve(&io).await;
        for chunk in [1, 2] {
            write(&served.stores[0], chunk).await.unwrap();
        }
        assert_eq!((served.counters.journal_records(), served.counters.syncs()), (0, 6));
        assert!(world.list(&root().join("journal")).unwrap().is_empty(), "half a segment only takes room");
        assert!(!served.suspect.get());
        // Without a sync of its own nothing of it would be sure to be left.
        world.power_cut();
    });
    world.faults().capacity(1 << 30);
    run(&world, async |io| {
        let served = serve(&io).await;
        assert_eq!(served.records, 0);
        for chunk in [1, 2] {
            assert_eq!(read(&served.stores[0], chunk).await.unwrap(), content(chunk));
        }
        write(&served.stores[0], 3).await.unwrap();
        assert_eq!(served.counters.journal_records(), 1);
    });
}

#[test]
fn a_journal_comes_once_there_is_room_and_one_segment_does() {
    let world = formatted(1);
    world.faults().capacity(SEGMENT - 1);
    run(&world, async |io| {
        let served = serve(&io).await;
        write(&served.stores[0], 1).await.unwrap();
        // Room for one segment, not for two.
        world.faults().capacity(2 * SEGMENT - 1);
        write(&served.stores[0], 2).await.unwrap();
        assert_eq!(served.counters.journal_records(), 0, "not tried again at once");
        io.sleep(Duration::from_secs(30)).await;
        let small = [18, 27, 36, 45, 54].map(|n| n * 9);
        for chunk in small {
            write(&served.stores[0], chunk).await.unwrap();
            served.stores[1].delete(ChunkId(chunk), GENERATION).await.unwrap();
        }
        assert_eq!(served.counters.journal_records(), 5);
        assert_eq!(world.list(&root().join("journal")).unwrap().len(), 1);
    });
}

#[test]
fn a_full_disk_refuses_leaves_nothing_and_recovers_by_deletion() {
    let world = formatted(1);
    run(&world, async |io| {
        let served = serve(&io).await;
        let store = &served.stores[0];
        write(store, 1).await.unwrap();
        world.faults().capacity(SEGMENT + 100_000);
        let mut committed = vec![1];
        let refused = loop {
            let chunk = 1 + committed.len() as u64;
            match write(store, chunk).await {
                Ok(_) => committed.push(chunk),
                Err(error) => break (chunk, error),
            }
        };
        assert!(matches!(refused.1, StoreError::NoSpace { .. }), "{}", refused.1);
        assert!(!refused.1.suspects_folder() && !served.suspect.get(), "a full disk is an ordinary state");
        assert!(world.list(&root().join("tmp")).unwrap().is_empty());
        for &chunk in &committed {
            store.delete(ChunkId(chunk), GENERATION).await.unwrap();
        }
        write(store, refused.0).await.unwrap();
    });
}

/// What a process that is killed on a full disk leaves is brought back into the room that it has.
#[test]
fn a_full_disk_does_not_keep_a_folder_from_its_start() {
    for room in [1, 1 << 30] {
        let world = formatted(4);
        run(&world, async |io| {
            let served = serve_at(&io, &root(), SEGMENT_BYTES_DEFAULT).await.unwrap();
            for chunk in [1, 2, 3] {
                write(&served.stores[0], chunk).await.unwrap();
            }
            // Refused before its record is made: it does not come back.
            world.faults().capacity(1);
            let refused = write(&served.stores[0], 9).await.unwrap_err();
            assert!(matches!(refused, StoreError::NoSpace { .. }), "{refused}");
            assert_eq!(served.counters.journal_records(), 3);
        });
        // Bytes that the page cache lost are written again.
        for (chunk, suffix) in [(1, ""), (2, ".meta")] {
            let path = root().join(format!("chunks/00/chunk-{}{suffix}", ChunkId(chunk)));
            world.faults().flip(&path, 3, 1).unwrap();
        }
        world.faults().capacity(room);
        run(&world, async |io| {
            let served = serve(&io).await;
            assert_eq!((served.records, chunks(&served).await), (3, vec![1, 2, 3]));
            for chunk in [1, 2, 3] {
                assert_eq!(read(&served.stores[0], chunk).await.unwrap(), content(chunk));
            }
            assert!(world.list(&root().join("tmp")).unwrap().is_empty());
            served.stores[0].delete(ChunkId(1), GENERATION).await.unwrap();
        });
    }
}

/// Leaves these chunks in the journal, of which no file is durable.
fn crashed(seed: u64, chunks: &[u64]) -> SimWorld {
    let world = formatted(seed);
    run(&world, async |io| {
        let served = serve_at(&io, &root(), SEGMENT_BYTES_DEFAULT).await.unwrap();
        for &chunk in chunks {
            write(&served.stores[0], chunk).await.unwrap();
        }
    });
    world.power_cut();
    world
}

async fn chunks(served: &Served) -> Vec<u64> {
    let found = served.stores[0].inventory(CLUSTER).await.unwrap();
    found.replicas.iter().map(|it| it.chunk.0).collect()
}

#[test]
fn a_damaged_record_is_counted_and_the_others_are_brought_back() {
    // Of one block each, and of the header.
    let small = [81, 162, 243];
    for (block, expected) in [(0, vec![81, 162, 243]), (1, vec![162, 243]), (2, vec![81, 243])] {
        let world = crashed(1, &small);
        let lengths = small.map(|chunk| content(chunk).len());
        let mut at = 0;
        for length in &lengths[..(block as usize).saturating_sub(1)] {
            at += (64 + 128 + length.div_ceil(4096) * 4 + length).div_ceil(4096) as u64;
        }
        let byte = if block == 0 { 20 } else { (1 + at) * 4096 + 100 };
        // Nothing is left of the files.
        for chunk in small {
            let path = format!("chunks/00/chunk-{}", ChunkId(chunk));
            let _ = world.remove_file(&root().join(&path));
            let _ = world.remove_file(&root().join(path + ".meta"));
        }
        world.faults().flip(&segment_path(0), byte, 1).unwrap();
        run(&world, async |io| {
            let served = serve(&io).await;
            assert_eq!(served.damaged, 1, "block {block}");
            assert_eq!(chunks(&served).await, expected, "block {block}");
            // It is said once.
            assert_eq!((recover(&io, &root()).await.unwrap().damaged, served.suspect.get()), (0, false));
        });
    }
}

#[test]
fn what_is_newer_stays_and_a_mark_does() {
    let world = crashed(2, &[1, 2]);
    run(&world, async |io| {
        let served = serve(&io).await;
        served.stores[0].mark_damaged(ChunkId(2)).await.unwrap();
        assert_eq!(served.records, 2);
    });
    // The journal of before, as if it had not been made void; chunk 1 was written again meanwhile.
    let before = crashed(2, &[1, 2]);
    let newer = formatted(4);
    run(&newer, async |io| {
        let store = ChunkStore::attach(io, root(), None);
        let bytes = content(9);
        let mut writer = store.create(CLUSTER, ChunkId(1), GenerationStamp(2), 4096).await.unwrap();
        let mut buffer = distrifs_engine::io::Buf::alloc(4096);
        buffer[..100].copy_from_slice(&bytes[..100]);
        let crcs: Vec<_> = distrifs_proto::types::block_crcs(&bytes[..100]).collect();
        writer.append(buffer.share(), 0..100, crcs.into_iter()).unwrap().expect("a file").run().await;
        writer.commit().await.unwrap();
    });
    for (path, bytes) in newer.files() {
        world.write_file(&path, &bytes);
    }
    world.write_file(&segment_path(0), &before.read_file(&segment_path(0)).unwrap());
    run(&world, async |io| {
        let served = serve(&io).await;
        assert_eq!(served.records, 2);
        let found = served.stores[0].inventory(CLUSTER).await.unwrap();
        let generations: Vec<_> = found.replicas.iter().map(|it| (it.chunk.0, it.generation.0)).collect();
        assert_eq!(generations, [(1, 2), (2, 1)]);
        assert_eq!(found.damaged, [ChunkId(2)]);
        assert_eq!(read(&served.stores[0], 1).await.unwrap(), content(9)[..100]);
    });
}

#[test]
fn the_journal_of_another_is_refused_and_left_as_it_is() {
    let world = crashed(1, &[1]);
    let before = world.files_now();
    run(&world, async |io| {
        let store = ChunkStore::attach(io, root(), None);
        for (node, cluster, complaint) in [
            (NodeId(6), Some(CLUSTER), "belongs to node 0000000000000005"),
            (NODE, Some(ClusterId(2)), "belongs to cluster"),
            (NODE, None, "belongs to cluster"),
        ] {
            let error = store.replay(node, cluster).await.unwrap_err();
            assert!(matches!(error, StoreError::Folder { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("/data/journal/segment-0: ") && text.contains(complaint), "{text}");
        }
        assert_eq!(world.files_now(), before);
    });
}

#[test]
fn a_journal_that_cannot_be_read_or_replayed_is_kept() {
    type Plan = fn(&Faults, SimOperation, &str, u64);
    let fail: Plan = Faults::fail;
    for (operation, pattern, suspects) in [
        (SimOperation::Open, "segment-0", true),
        (SimOperation::Read, "segment-0", true),
        (SimOperation::Write, "tmp/", true),
        (SimOperation::Rename, "tmp/", true),
        (SimOperation::Sync, "chunks", true),
        (SimOperation::Write, "segment-0", true),
        (SimOperation::Sync, "segment-0", true),
    ] {
        let world = crashed(1, &[1, 2]);
        fail(&world.faults(), operation, pattern, 1);
        run(&world, async |io| {
            let error = recover(&io, &root()).await.unwrap_err();
            assert_eq!(error.suspects_folder(), suspects, "{operation:?} {pattern}: {error}");
        });
        world.power_cut();
        run(&world, async |io| {
            let served = serve(&io).await;
            assert_eq!(chunks(&served).await, [1, 2], "{operation:?} {pattern}");
            assert_eq!(read(&served.stores[0], 2).await.unwrap(), content(2));
        });
    }
}
