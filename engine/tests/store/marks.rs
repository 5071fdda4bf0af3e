//! The mark beside a damaged replica: it outlives its process, and never speaks of another replica.

use std::cell::RefCell;
use std::collections::BTreeSet;

use distrifs_engine::io::{Io, SimOperation, SimWorld};
use distrifs_engine::store::{ChunkStore, Inventory, StoreError};
use distrifs_proto::types::ChunkId;

use crate::foreign::on_real;
use crate::{CLUSTER, GENERATION, formatted, root, run, write};

async fn damaged(store: &ChunkStore) -> Vec<u64> {
    store.inventory(CLUSTER).await.unwrap().damaged.iter().map(|chunk| chunk.0).collect()
}

fn marks(world: &SimWorld) -> Vec<String> {
    let names = world.files_now().into_keys().map(|path| path.file_name().unwrap().to_owned());
    names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".bad")).collect()
}

#[test]
fn a_mark_comes_goes_and_goes_with_its_replica() {
    on_real(&async |io, root, _| {
        let store = ChunkStore::attach(io, root.to_owned(), None);
        assert!(damaged(&store).await.is_empty());
        for _ in 0..2 {
            store.mark_damaged(ChunkId(1)).await.unwrap();
            store.mark_damaged(ChunkId(2)).await.unwrap();
            assert_eq!(damaged(&store).await, [1, 2]);
        }
        for _ in 0..2 {
            store.clear_mark(ChunkId(2)).await.unwrap();
            assert_eq!(damaged(&store).await, [1]);
        }
        // Nothing is remembered of what is not there.
        store.mark_damaged(ChunkId(9)).await.unwrap();
        let path = |name: &str| root.join("chunks/00").join(name);
        assert!(!path("chunk-0000000000000009.bad").exists());
        store.delete(ChunkId(1), GENERATION).await.unwrap();
        assert!(!path("chunk-0000000000000001.bad").exists());
        write(&store, 1).await.unwrap();
        assert!(damaged(&store).await.is_empty(), "it is another replica");
        // A mark alone, and one whose chunk goes to quarantine.
        for name in ["chunk-0000000000000009.bad", "chunk-0000000000000002.bad"] {
            std::fs::write(path(name), "").unwrap();
        }
        std::fs::remove_file(path("chunk-0000000000000002.meta")).unwrap();
        let Inventory { replicas, damaged, quarantined, .. } = store.inventory(CLUSTER).await.unwrap();
        assert_eq!((replicas.len(), damaged.len(), quarantined.len()), (1, 0, 1));
        assert_eq!(std::fs::read_dir(root.join("chunks/00")).unwrap().count(), 2, "chunk 1 and its sidecar");
    });
}

/// What was answered before the power went.
#[derive(Default, Debug)]
struct Answered {
    marked: BTreeSet<u64>,
    cleared: bool,
    deleted: bool,
}

#[test]
fn a_power_cut_at_any_operation_loses_no_mark_and_leaves_none_to_a_later_replica() {
    for seed in 0..8 {
        for cut in 1.. {
            let world = formatted(seed);
            let answered = RefCell::new(Answered::default());
            run(&world, async |io| {
                let store = ChunkStore::attach(io, root(), None);
                for chunk in [1, 2, 3, 4] {
                    write(&store, chunk).await.unwrap();
                }
                store.mark_damaged(ChunkId(2)).await.unwrap();
                store.mark_damaged(ChunkId(3)).await.unwrap();
                world.faults().cut_after(cut);
                let mark = async || {
                    if store.mark_damaged(ChunkId(1)).await.is_ok() {
                        answered.borrow_mut().marked.insert(1);
                    }
                };
                let clear = async || {
                    answered.borrow_mut().cleared = store.clear_mark(ChunkId(2)).await.is_ok();
                };
                let delete = async || {
                    answered.borrow_mut().deleted = store.delete(ChunkId(3), GENERATION).await.is_ok();
                };
                tokio::join!(mark(), clear(), delete());
            });
            let was_cut = !world.powered();
            if !was_cut {
                world.power_cut();
            }
            world.faults().clear();
            let answered = answered.into_inner();
            run(&world, async |io: Io| {
                let store = ChunkStore::attach(io, root(), None);
                let found = store.inventory(CLUSTER).await.unwrap();
                let why = format!("seed {seed}, cut after {cut} operations: {answered:?}, {found:?}");
                let damaged: BTreeSet<u64> = found.damaged.iter().map(|chunk| chunk.0).collect();
                assert!(damaged.is_superset(&answered.marked), "{why}");
                assert!(!(answered.cleared && damaged.contains(&2)), "{why}");
                assert!(!damaged.contains(&4), "{why}");
                assert!(
                    !(answered.deleted && found.replicas.iter().any(|it| it.chunk == ChunkId(3))),
                    "{why}"
                );
                assert_eq!(marks(&world).len(), damaged.len(), "{why}");
            });
            if !was_cut {
                assert!(cut > 8, "the work has only {cut} operations: the test tests nothing");
                break;
            }
        }
    }
}

#[test]
fn a_mark_that_cannot_be_made_harms_nothing() {
    for (operation, pattern) in [(SimOperation::Open, ".bad"), (SimOperation::Sync, "chunks/00")] {
        let world = formatted(1);
        run(&world, async |io| {
            let store = ChunkStore::attach(io, root(), None);
            write(&store, 1).await.unwrap();
            world.faults().fail(operation, pattern, 1);
            let error = store.mark_damaged(ChunkId(1)).await.unwrap_err();
            assert!(error.suspects_folder(), "{operation:?}: {error}");
            assert_eq!(store.inventory(CLUSTER).await.unwrap().replicas.len(), 1, "{operation:?}");
            world.faults().deny(SimOperation::Unlink, ".bad", 1);
            let kept = store.clear_mark(ChunkId(1)).await;
            assert!(matches!(kept, Err(StoreError::Io { .. })), "{operation:?}: {kept:?}");
        });
    }
}
