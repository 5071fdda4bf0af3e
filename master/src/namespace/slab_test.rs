//! Ids of slots, and snapshots against a copy of the whole.

use std::collections::BTreeMap;

use proptest::prelude::{any, prop_assert, proptest};

use super::super::inode::FileBody;
use super::super::names::NameId;
use super::*;

fn directory() -> Inode {
    let content = Content::Directory(Children::new());
    Inode { owner: NameId(0), group: NameId(0), mode: 0, mtime_ms: 0, content }
}

fn file() -> Inode {
    let body = FileBody {
        size: 0,
        crc: distrifs_proto::types::Crc32c(0),
        chunk_size: 1,
        replication: 1,
        chunks: super::super::inode::ChunkList::None,
    };
    Inode { content: Content::File(body), ..directory() }
}

#[test]
fn an_id_never_names_a_second_file() {
    let mut slab = Slab::default();
    let first = slab.insert(directory());
    assert!(slab.remove(first).is_some());
    let second = slab.insert(directory());
    assert_ne!(first, second);
    assert_eq!(slot_of(first).0, slot_of(second).0, "the slot is used again");
    assert!(slab.get(first).is_none() && slab.remove(first).is_none() && slab.get(second).is_some());
    assert_ne!(first, FileId(0), "0 means none on the wire");
}

/// A slab with some directories, names in them, and holes.
fn prepared(choices: &[(u8, u8, u8)]) -> Slab {
    let mut slab = Slab::default();
    for _ in 0..6 {
        slab.insert(directory());
    }
    for choice in choices {
        change(&mut slab, *choice);
    }
    slab
}

fn nth(slab: &Slab, pick: u8) -> Option<FileId> {
    let used = slab.slots.iter().enumerate().filter_map(|(slot, it)| match it {
        Slot::Used { use_count, .. } => Some(id_of(slot as u32, *use_count)),
        Slot::Free { .. } => None,
    });
    let used: Vec<FileId> = used.collect();
    (!used.is_empty()).then(|| used[usize::from(pick) % used.len()])
}

fn change(slab: &mut Slab, (what, pick, name): (u8, u8, u8)) {
    let Some(id) = nth(slab, pick) else {
        slab.insert(directory());
        return;
    };
    let text = format!("n{}", name % 12);
    match what % 7 {
        0 => {
            slab.insert(if name % 2 == 0 { directory() } else { file() });
        }
        1 => {
            slab.remove(id);
        }
        2 => slab.get_mut(id).into_iter().for_each(|inode| inode.mode = u16::from(name)),
        3..=5 => slab.link(id, &text, FileId(u64::from(pick) + 1000)),
        _ => {
            slab.unlink(id, &text);
        }
    }
}

/// Repeats a record on a slab that is being put together.
type Again = Box<dyn Fn(&mut Restore)>;

fn restored(records: Vec<Again>, free: Option<u32>) -> Slab {
    let mut restore = Slab::restore(free);
    for record in records {
        record(&mut restore);
    }
    restore.finish()
}

fn kept(record: &SlabRecord<'_>) -> Again {
    match record.clone() {
        SlabRecord::Free { use_count, next } => Box::new(move |it| it.free(use_count, next)),
        SlabRecord::Used { use_count, inode } => {
            let inode = without_names(inode);
            Box::new(move |it| it.used(use_count, inode.clone()))
        }
        SlabRecord::Entry { name, child } => {
            let name = name.to_owned();
            Box::new(move |it| assert!(it.entry(&name, child)))
        }
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]
    #[test]
    fn a_snapshot_is_the_moment_of_the_freeze(
        before in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..60),
        during in proptest::collection::vec((any::<bool>(), any::<(u8, u8, u8)>()), 0..120),
        limit in 1usize..9,
    ) {
        let mut slab = prepared(&before);
        let expected = slab.clone();
        let (_, free) = slab.shape();
        slab.freeze();
        let (mut records, mut ended) = (Vec::new(), false);
        let mut page = |slab: &mut Slab| {
            if !ended {
                let mut left = limit;
                ended = !slab.page(|record| {
                    records.push(kept(&record));
                    left -= 1;
                    left > 0
                });
            }
            ended
        };
        for (read, step) in during {
            if read {
                page(&mut slab);
            }
            change(&mut slab, step);
        }
        while !page(&mut slab) {}
        let frozen = slab.frozen.as_ref().map(|it| (it.old.len(), it.old_names.values().map(BTreeMap::len).sum::<usize>()));
        prop_assert!(frozen == Some((0, 0)), "all that was kept has been handed out: {frozen:?}");
        prop_assert!(restored(records, free) == expected);
    }
}
