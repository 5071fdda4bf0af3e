//! The chunk store on the simulated disk: power cuts at every step, faults, full disks. The checker itself is
//! checked: with syncs that lie, it must find lost chunks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod foreign;
mod journal;
mod marks;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use distrifs_engine::io::{Body, Buf, Faults, Io, SimOperation, SimWorld, block_on};
use distrifs_engine::store::{ChunkStore, Inventory, ReplicaInfo, StoreError};
use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::{ChunkId, ClusterId, GenerationStamp, block_crcs};

const CLUSTER: ClusterId = ClusterId(0xc1);
const GENERATION: GenerationStamp = GenerationStamp(1);
const PIECE: usize = 4 * BLOCK_BYTES;

fn root() -> PathBuf {
    PathBuf::from("/data")
}

/// A disk with an empty data folder on it.
fn formatted(seed: u64) -> SimWorld {
    let world = SimWorld::new(seed);
    for dir in ["tmp", "quarantine", "journal"] {
        world.create_dir_all(&root().join(dir));
    }
    (0..256).for_each(|n| world.create_dir_all(&root().join(format!("chunks/{n:02x}"))));
    world
}

fn run<T>(world: &SimWorld, main: impl AsyncFnOnce(Io) -> T) -> T {
    block_on(Body::Sim(world.clone()), |io| async move { main(io).await }).unwrap()
}

/// The bytes of a chunk: of another length for each, and of no two blocks alike.
fn content(chunk: u64) -> Vec<u8> {
    let len = 1 + (chunk as usize * 5417) % (3 * PIECE);
    (0..len as u64).map(|i| (i ^ chunk << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]).collect()
}

async fn write(store: &ChunkStore, chunk: u64) -> Result<ReplicaInfo, StoreError> {
    let bytes = content(chunk);
    let mut writer = store.create(CLUSTER, ChunkId(chunk), GENERATION, bytes.len() as u64).await?;
    let mut in_flight = Vec::new();
    for piece in bytes.chunks(PIECE) {
        let mut buffer = Buf::alloc(PIECE);
        buffer[..piece.len()].copy_from_slice(piece);
        let crcs: Vec<_> = block_crcs(piece).collect();
        in_flight.extend(writer.append(buffer.share(), 0..piece.len(), crcs.into_iter())?);
    }
    for write in in_flight {
        write.run().await;
    }
    writer.commit().await
}

async fn read(store: &ChunkStore, chunk: u64) -> Result<Vec<u8>, StoreError> {
    let reader = store.open(CLUSTER, ChunkId(chunk)).await?;
    let all = reader.covering(0, u64::MAX);
    let (outcome, buffer) = reader.read(Buf::alloc(all.end as usize), 0, &all).await;
    outcome?;
    reader.verify(&buffer[..all.end as usize], &all)?;
    Ok(buffer[..all.end as usize].to_vec())
}

/// What was asked for and what was answered.
#[derive(Default, Clone, Copy, Debug, PartialEq)]
enum Known {
    #[default]
    Nothing,
    Committed,
    DeletionAsked,
    Deleted,
}

/// Writes some chunks at once, then deletes some while others are written; notes every answer as it comes.
async fn work(io: &Io, known: &Rc<RefCell<BTreeMap<u64, Known>>>) {
    let store = ChunkStore::attach(io.clone(), root(), None);
    let commit = async |chunk: u64| {
        known.borrow_mut().insert(chunk, Known::Nothing);
        if write(&store, chunk).await.is_ok() {
            known.borrow_mut().insert(chunk, Known::Committed);
        }
    };
    tokio::join!(commit(1), commit(2), commit(0x103), commit(4));
    let delete = async |chunk: u64| {
        if known.borrow()[&chunk] == Known::Committed {
            known.borrow_mut().insert(chunk, Known::DeletionAsked);
            if store.delete(ChunkId(chunk), GENERATION).await.is_ok() {
                known.borrow_mut().insert(chunk, Known::Deleted);
            }
        }
    };
    tokio::join!(delete(2), commit(5), delete(0x103), commit(6));
}

/// Starts again after the cut and compares what is there with what was answered.
fn check(world: &SimWorld, known: &BTreeMap<u64, Known>) -> Result<(), String> {
    run(world, async |io| {
        let store = ChunkStore::attach(io.clone(), root(), None);
        store.clear_tmp().await.unwrap();
        compare([&store, &store], known).await
    })
}

/// Lists with one store of a folder, reads with the other.
async fn compare([lists, reads]: [&ChunkStore; 2], known: &BTreeMap<u64, Known>) -> Result<(), String> {
    let Inventory { replicas, .. } = lists.inventory(CLUSTER).await.unwrap();
    let there = |chunk: u64| replicas.iter().any(|r| r.chunk == ChunkId(chunk));
    for (&chunk, &state) in known {
        match state {
            Known::Committed if !there(chunk) => return Err(format!("chunk {chunk:x} was lost")),
            Known::Deleted if there(chunk) => return Err(format!("chunk {chunk:x} came back")),
            _ => {}
        }
    }
    // What can be seen is whole, acknowledged or not.
    for replica in &replicas {
        match read(reads, replica.chunk.0).await {
            Ok(bytes) if bytes == content(replica.chunk.0) => {}
            other => return Err(format!("chunk {} is there but: {other:?}", replica.chunk)),
        }
    }
    Ok(())
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
    (check(&world, &known), was_cut)
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_acknowledged() {
    for seed in 0..12 {
        for cut in 1.. {
            let (outcome, was_cut) = cut_and_check(seed, cut, false);
            assert_eq!(outcome, Ok(()), "seed {seed}, cut after {cut} operations");
            if !was_cut {
                assert!(cut > 50, "the work has only {cut} operations: the test tests nothing");
                break;
            }
        }
    }
}

#[test]
fn the_checker_finds_the_chunks_that_lying_syncs_lose() {
    let caught = (0..20).filter(|&seed| cut_and_check(seed, u64::MAX / 2, true).0.is_err()).count();
    assert!(caught > 0, "no seed showed a lost chunk");
}

#[test]
fn a_failed_write_or_sync_commits_nothing_and_suspects_the_folder() {
    for (operation, path) in [
        (SimOperation::Write, "tmp/chunk-0000000000000001"),
        (SimOperation::Write, ".meta"),
        (SimOperation::Sync, "tmp/chunk-0000000000000001"),
        (SimOperation::Sync, ".meta"),
        (SimOperation::Sync, "chunks/00"),
        (SimOperation::Rename, ".meta"),
        (SimOperation::Rename, "chunk-0000000000000001"),
    ] {
        let world = formatted(1);
        world.faults().fail(operation, path, 1);
        run(&world, async |io| {
            let store = ChunkStore::attach(io.clone(), root(), None);
            let error = write(&store, 1).await.unwrap_err();
            assert!(error.suspects_folder(), "{operation:?} {path}: {error}");
            let missing = read(&store, 1).await.unwrap_err();
            assert!(matches!(missing, StoreError::NoSuchChunk { .. }), "{operation:?} {path}: {missing}");
        });
        let left: Vec<_> = world.files_now().into_keys().collect();
        assert_eq!(left, [] as [&Path; 0], "{operation:?} {path}");
    }
}

/// What is given up and cannot be removed is a whole replica or none: it does not look damaged.
#[test]
fn a_given_up_chunk_that_stays_behind_is_whole_or_out_of_the_way() {
    let data = "chunks/00/chunk-0000000000000001";
    // The sidecar's pattern strikes in tmp/, too.
    for (stays, times) in [(data, 1), (".meta", 2), ("chunk-", u64::MAX)] {
        let why = format!("{stays}, {times} times");
        let world = formatted(1);
        world.faults().fail(SimOperation::Sync, "chunks/00", 1);
        world.faults().fail(SimOperation::Unlink, stays, times);
        run(&world, async |io| {
            let store = ChunkStore::attach(io.clone(), root(), None);
            write(&store, 1).await.unwrap_err();
            world.faults().clear();
            match read(&store, 1).await {
                Ok(bytes) => assert_eq!(bytes, content(1), "{why}"),
                Err(StoreError::NoSuchChunk { .. }) => {
                    write(&store, 1).await.unwrap();
                }
                Err(error) => panic!("{why}: {error}"),
            }
            store.clear_tmp().await.unwrap();
            let found = store.inventory(CLUSTER).await.unwrap();
            assert_eq!((found.replicas.len(), found.quarantined.len()), (1, 0), "{why}");
        });
    }
}

#[test]
fn a_full_disk_refuses_leaves_nothing_and_recovers_by_deletion() {
    let world = formatted(1);
    world.faults().capacity(40_000);
    run(&world, async |io| {
        let store = ChunkStore::attach(io.clone(), root(), None);
        let mut committed = Vec::new();
        let refused = loop {
            let chunk = 1 + committed.len() as u64;
            match write(&store, chunk).await {
                Ok(_) => committed.push(chunk),
                Err(error) => break (chunk, error),
            }
        };
        assert!(matches!(refused.1, StoreError::NoSpace { .. }), "{}", refused.1);
        assert!(!refused.1.suspects_folder(), "a full disk is an ordinary state");
        assert!(world.list(&root().join("tmp")).unwrap().is_empty());
        for &chunk in &committed {
            assert_eq!(read(&store, chunk).await.unwrap(), content(chunk));
        }
        for &chunk in &committed {
            store.delete(ChunkId(chunk), GENERATION).await.unwrap();
        }
        write(&store, refused.0).await.unwrap();
    });
}

#[test]
fn every_flipped_bit_of_a_stored_chunk_is_found() {
    let world = formatted(1);
    run(&world, async |io| {
        let store = ChunkStore::attach(io.clone(), root(), None);
        write(&store, 1).await.unwrap();
        for path in ["chunks/00/chunk-0000000000000001", "chunks/00/chunk-0000000000000001.meta"] {
            let path = root().join(path);
            let len = world.read_file(&path).unwrap().len() as u64;
            for byte in 0..len {
                let bit = (byte % 8) as u8;
                world.faults().flip(&path, byte, bit).unwrap();
                let error = read(&store, 1).await.unwrap_err();
                assert!(matches!(error, StoreError::Corrupt { .. }), "byte {byte} of {path:?}: {error}");
                world.faults().flip(&path, byte, bit).unwrap();
            }
        }
        assert_eq!(read(&store, 1).await.unwrap(), content(1));
    });
}

#[test]
fn a_newer_replica_survives_an_older_deletion_and_another_cluster_is_no_match() {
    let world = formatted(1);
    run(&world, async |io| {
        let store = ChunkStore::attach(io.clone(), root(), None);
        write(&store, 1).await.unwrap();
        let refused = store.delete(ChunkId(1), GenerationStamp(0)).await.unwrap_err();
        assert!(matches!(refused, StoreError::NewerGeneration { .. }), "{refused}");
        assert!(matches!(write(&store, 1).await.unwrap_err(), StoreError::Exists { .. }));
        let foreign = store.open(ClusterId(2), ChunkId(1)).await.err().unwrap();
        assert!(matches!(foreign, StoreError::Corrupt { .. }), "{foreign}");
        // Under a foreign cluster's start it is set aside, not deleted.
        let inventory = store.inventory(ClusterId(2)).await.unwrap();
        assert_eq!((inventory.replicas.len(), inventory.quarantined.len()), (0, 1));
        assert_eq!(world.list(&root().join("quarantine")).unwrap().len(), 2);
    });
}

#[test]
fn a_start_on_a_disk_that_does_not_answer_moves_nothing() {
    let world = formatted(1);
    run(&world, async |io| {
        let store = ChunkStore::attach(io.clone(), root(), None);
        write(&store, 1).await.unwrap();
        let before = world.files_now();
        world.faults().fail(SimOperation::Read, ".meta", 1);
        let error = store.inventory(CLUSTER).await.unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert_eq!(world.files_now(), before);
        assert_eq!(store.inventory(CLUSTER).await.unwrap().replicas.len(), 1);
    });
}

#[test]
fn what_is_in_quarantine_already_is_not_replaced() {
    let world = formatted(1);
    run(&world, async |io| {
        let store = ChunkStore::attach(io.clone(), root(), None);
        let meta = root().join("chunks/00/chunk-0000000000000001.meta");
        let set_aside = root().join("quarantine/chunk-0000000000000001");
        write(&store, 1).await.unwrap();
        io.unlink(&meta).await.unwrap();
        assert_eq!(store.inventory(CLUSTER).await.unwrap().quarantined.len(), 1);
        let first = world.read_file(&set_aside).unwrap();
        // The chunk came back, and was damaged in the same way.
        write(&store, 1).await.unwrap();
        io.unlink(&meta).await.unwrap();
        world.faults().flip(&root().join("chunks/00/chunk-0000000000000001"), 0, 0).unwrap();
        let found = store.inventory(CLUSTER).await.unwrap();
        let [(_, why)] = &found.unreadable[..] else { panic!("{found:?}") };
        assert!(why.contains("/data/quarantine/chunk-0000000000000001: is there"), "{why}");
        assert_eq!(world.read_file(&set_aside).unwrap(), first);
        assert!(world.read_file(&root().join("chunks/00/chunk-0000000000000001")).is_ok());
        io.unlink(&set_aside).await.unwrap();
        assert_eq!(store.inventory(CLUSTER).await.unwrap().quarantined.len(), 1);
    });
}

/// A file that may not be read is one replica lost, not a datanode that does not start.
#[test]
fn what_may_not_be_read_or_moved_counts_as_lost_and_stays() {
    let sidecar = "chunks/00/chunk-0000000000000001.meta";
    let data = "chunks/00/chunk-0000000000000001";
    for (operation, lost_sidecar) in [(SimOperation::Open, false), (SimOperation::Rename, true)] {
        let world = formatted(1);
        run(&world, async |io| {
            let store = ChunkStore::attach(io.clone(), root(), None);
            write(&store, 1).await.unwrap();
            write(&store, 2).await.unwrap();
            if lost_sidecar {
                io.unlink(&root().join(sidecar)).await.unwrap();
            }
            let before = world.files_now();
            world.faults().deny(operation, if lost_sidecar { data } else { sidecar }, 1);
            let found = store.inventory(CLUSTER).await.unwrap();
            assert_eq!(found.replicas.len(), 1, "{operation:?}");
            let [(name, why)] = &found.unreadable[..] else { panic!("{operation:?}: {found:?}") };
            assert_eq!(name, "0000000000000001");
            assert!(why.contains("/data/") && why.contains("ermission denied"), "{why}");
            assert_eq!(world.files_now(), before, "{operation:?}");
            // With its mode put right it is there again, or where it belongs.
            let found = store.inventory(CLUSTER).await.unwrap();
            let kinds = (found.replicas.len(), found.quarantined.len(), found.unreadable.len());
            assert_eq!(kinds, if lost_sidecar { (1, 1, 0) } else { (2, 0, 0) }, "{operation:?}");
        });
    }
}

#[test]
fn a_directory_that_cannot_be_listed_is_told_with_its_path_and_the_cause() {
    for deny in [false, true] {
        let world = formatted(1);
        run(&world, async |io| {
            let store = ChunkStore::attach(io.clone(), root(), None);
            let fail = if deny { Faults::deny } else { Faults::fail };
            fail(&world.faults(), SimOperation::List, "chunks/3e", 1);
            let error = store.inventory(CLUSTER).await.unwrap_err();
            let text = error.to_string();
            assert!(
                matches!(error, StoreError::Io { .. }) && text.contains("/data/chunks/3e: list: "),
                "{text}"
            );
        });
    }
}
