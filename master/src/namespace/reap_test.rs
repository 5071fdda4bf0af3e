//! Removal in pieces: how much each command frees, and that replay and a restore in the middle of it end the same.

use std::sync::Arc;

use distrifs_proto::ErrorCode;
use distrifs_proto::types::{ChunkId, Crc32c, FileId, Lsn, RequestId};

use super::command::{Answer, Command, Operation, WrittenChunk};
use super::files::EXPIRE_FILES_MAX;
use super::image::{PAGE_BYTES, Restorer};
use super::path::NsPath;
use super::reap::{REAP_INLINE_ITEMS, REAP_ITEMS_MAX};
use super::{ChunkState, FIRST_GENERATION, Namespace, NamespaceError, format};
use crate::permission::Caller;

const CHUNK: u32 = 64 << 10;

fn path(text: &str) -> NsPath {
    NsPath::parse(text).expect("a path")
}

fn remove(text: &str) -> Operation {
    Operation::Remove { path: path(text), recursive: true }
}

const REAP: Operation = Operation::Reap { items: REAP_ITEMS_MAX };

/// A namespace and its log.
struct Run {
    namespace: Namespace,
    log: Vec<Command>,
}

impl Run {
    /// An empty one, with the bounded rules on.
    fn new() -> Self {
        let mut run = Self { namespace: Namespace::new("op"), log: Vec::new() };
        run.apply(REAP).expect("turned on");
        run
    }

    fn apply(&mut self, operation: Operation) -> Result<Answer, NamespaceError> {
        let caller = Arc::new(Caller { user: "op".into(), groups: vec!["op".into()], superuser: true });
        let lsn = self.log.len() as u64 + 1;
        let request = Some(RequestId(u128::from(lsn)));
        let command = Command { at_ms: lsn as i64, request, caller, operation };
        self.log.push(command.clone());
        self.namespace.apply(Lsn(lsn), &command)
    }

    fn mkdir(&mut self, text: &str) {
        self.apply(Operation::Mkdir { path: path(text), parents: true, mode: 0o755 }).expect("made");
    }

    fn open(&mut self, text: &str, lease_until_ms: i64) -> FileId {
        let create = Operation::Create {
            path: path(text),
            overwrite: true,
            mode: 0o644,
            replication: 3,
            chunk_size: CHUNK,
            lease_until_ms,
            chunk: None,
        };
        match self.apply(create) {
            Ok(Answer::Created { file, .. }) => file,
            other => panic!("create {text}: {other:?}"),
        }
    }

    /// Gives an unfinished file so many chunks, all of them full.
    fn complete(&mut self, file: FileId, chunks: u64) -> Result<Answer, NamespaceError> {
        let first = self.namespace.next_chunk().0;
        for chunk in first..first + chunks {
            let chunk = ChunkId(chunk);
            self.apply(Operation::AllocateChunk { file, chunk, abandon: None }).expect("allocated");
        }
        let written = |chunk| {
            let (chunk, crc) = (ChunkId(chunk), Crc32c(chunk as u32));
            WrittenChunk { chunk, generation: FIRST_GENERATION, length: u64::from(CHUNK), crc }
        };
        self.apply(Operation::Complete { file, chunks: (first..first + chunks).map(written).collect() })
    }

    fn put(&mut self, text: &str, chunks: u64) {
        let file = self.open(text, i64::MAX);
        self.complete(file, chunks).expect("completed");
    }

    /// Inodes and references to chunks: what a removal has to free.
    fn items(&self) -> u64 {
        let inodes = self.namespace.slab.len() as u64;
        inodes + self.namespace.chunks.iter().map(|(_, chunk)| u64::from(chunk.refs)).sum::<u64>()
    }

    /// Applies the command and says how many items it freed.
    fn freed_by(&mut self, operation: Operation) -> u64 {
        let before = self.items();
        self.apply(operation).expect("applied");
        before - self.items()
    }

    /// Reaps until nothing waits; checks the bound of each command, and says how many it took.
    fn reap_all(&mut self) -> usize {
        let mut commands = 0;
        while self.namespace.doomed_count() > 0 {
            let freed = self.freed_by(REAP);
            assert!(freed <= u64::from(REAP_ITEMS_MAX), "{freed} items");
            commands += 1;
            assert!(commands < 10_000, "reaping makes progress");
        }
        self.namespace.check_invariants().expect("invariants hold");
        commands
    }
}

fn replayed(log: &[Command], mut onto: Namespace) -> Namespace {
    for (index, command) in log.iter().enumerate().skip(onto.applied().0 as usize) {
        let decoded = format::decode(&format::encode(command)).expect("our own bytes");
        let _ = onto.apply(Lsn(index as u64 + 1), &decoded);
    }
    onto
}

fn restored(namespace: &mut Namespace) -> Namespace {
    let mut snapshot = namespace.freeze();
    let (mut image, mut restorer) = (Vec::new(), Restorer::new());
    while namespace.page(&mut snapshot, PAGE_BYTES, &mut image) {}
    namespace.thaw();
    restorer.feed(&image).expect("our own bytes");
    restorer.finish().expect("whole")
}

/// The removals whose work has to be bounded, by what they leave behind to be freed.
fn large_trees(run: &mut Run) -> [(&'static str, u64); 4] {
    run.mkdir("/flat");
    for file in 0..10_000 {
        run.apply(Operation::PutWhole {
            path: path(&format!("/flat/{file:05}")),
            overwrite: false,
            mode: 0o644,
            replication: 3,
            chunk_size: CHUNK,
            chunk: None,
        })
        .expect("put");
    }
    run.put("/chunks", 10_000);
    for directory in 0..50 {
        run.mkdir(&format!("/nested/{directory}"));
        (0..5).for_each(|file| run.put(&format!("/nested/{directory}/{file}"), 3));
    }
    // A chain deeper than a path: nothing of it can be freed before its end is reached.
    let levels = "/d".repeat(250);
    run.mkdir("/chain");
    for _ in 0..10 {
        run.mkdir(&format!("/next{levels}"));
        let (source, target) = (path("/chain"), path(&format!("/next{levels}/chain")));
        run.apply(Operation::Rename { source, target, overwrite: false }).expect("moved");
        let (source, target) = (path("/next"), path("/chain"));
        run.apply(Operation::Rename { source, target, overwrite: false }).expect("moved");
    }
    [("/flat", 10_001), ("/chunks", 10_001), ("/nested", 1 + 50 + 50 * 5 * (1 + 3)), ("/chain", 1 + 10 * 251)]
}

#[test]
fn no_command_frees_more_than_its_bound() {
    let mut run = Run::new();
    for (tree, items) in large_trees(&mut run) {
        run.namespace.check_invariants().expect("invariants hold");
        let (there, chunks) = (run.items(), run.namespace.chunk_count());
        let freed = run.freed_by(remove(tree));
        assert!(freed <= u64::from(REAP_INLINE_ITEMS), "{tree}: {freed} items");
        assert!(run.namespace.stat(&run.log[0].caller, &path(tree)).is_err(), "{tree} is still visible");
        run.namespace.check_invariants().expect("invariants hold");
        let commands = run.reap_all();
        assert_eq!(there - run.items(), items, "{tree}");
        // A descent may take a command with nothing to show for it.
        let least = items.saturating_sub(u64::from(REAP_INLINE_ITEMS)).div_ceil(u64::from(REAP_ITEMS_MAX));
        assert!((least as usize..=2 * least as usize + 1).contains(&commands), "{tree}: {commands} commands");
        if tree == "/chunks" {
            assert_eq!(chunks - run.namespace.chunk_count(), 10_000);
        }
    }
    assert_eq!(run.items(), 1, "the root");
    assert_eq!(run.namespace.tombstone_count(), 10_000 + 50 * 5 * 3);
    let done = run.namespace.check(&Command::own(1, REAP));
    assert_eq!(done, Ok(Some(Answer::Done)), "and nothing more is logged");
}

#[test]
fn the_limit_of_a_reap_is_capped_and_tombstones_have_its_time() {
    let mut run = Run::new();
    run.put("/f", 5_000);
    run.apply(remove("/f")).expect("removed");
    let removed_ms = run.log.len() as i64;
    assert_eq!(run.freed_by(Operation::Reap { items: u32::MAX }), u64::from(REAP_ITEMS_MAX));
    let times: Vec<i64> = run.namespace.tombstones_after(ChunkId(0)).map(|(_, it)| it.at_ms).collect();
    let inline = REAP_INLINE_ITEMS as usize;
    assert!(times[..inline].iter().all(|at_ms| *at_ms == removed_ms));
    assert!(times[inline..].iter().all(|at_ms| *at_ms == removed_ms + 1));
    assert_eq!(run.freed_by(Operation::Reap { items: 3 }), 3);
}

#[test]
fn a_small_tree_is_freed_with_its_removal() {
    let mut run = Run::new();
    run.mkdir("/d/e");
    (0..15).for_each(|file| run.put(&format!("/d/e/{file}"), 3));
    run.put("/d/empty", 0);
    run.put("/d/f", 0);
    let freed = run.freed_by(remove("/d"));
    assert_eq!((freed, run.namespace.doomed_count()), (2 + 15 * 4 + 2, 0), "64 items");
    assert_eq!(run.namespace.tombstone_count(), 45);
    run.namespace.check_invariants().expect("invariants hold");
}

#[test]
fn a_chunk_that_a_copy_refers_to_outlives_the_tree() {
    let mut run = Run::new();
    run.mkdir("/d");
    run.put("/d/f", 100);
    let (source, target) = (path("/d/f"), path("/kept"));
    run.apply(Operation::Copy { source, target, overwrite: false }).expect("copied");
    run.apply(remove("/d")).expect("removed");
    run.reap_all();
    assert_eq!((run.namespace.chunk_count(), run.namespace.tombstone_count()), (100, 0));
    assert!(matches!(run.namespace.chunk(ChunkId(1)), ChunkState::Referenced(chunk) if chunk.refs == 1));
}

#[test]
fn replay_and_restore_in_the_middle_of_reaping_end_the_same() {
    let mut run = Run::new();
    for (tree, _) in large_trees(&mut run) {
        run.apply(remove(tree)).expect("removed");
    }
    let mut images = Vec::new();
    while run.namespace.doomed_count() > 0 {
        run.apply(REAP).expect("reaped");
        // Slots that have come free are used again between the pieces.
        let number = images.len();
        run.put(&format!("/new-{number}"), 2);
        let image = restored(&mut run.namespace);
        assert!(image == run.namespace, "the image differs after {number} pieces");
        image.check_invariants().expect("invariants hold");
        images.push(image);
    }
    assert!(images.len() > 20, "{} pieces", images.len());
    let from_the_log = replayed(&run.log, Namespace::new("op"));
    assert!(from_the_log == run.namespace, "replay differs from live");
    for image in images.into_iter().step_by(7) {
        let lsn = image.applied();
        assert!(
            replayed(&run.log, image) == run.namespace,
            "the image of {lsn} and the log differ from live"
        );
    }
}

/// A log of a release without `Reap` holds no such command, and names files by the slots that came free at once.
#[test]
fn a_log_without_reap_is_replayed_as_it_was_written() {
    let mut run = Run { namespace: Namespace::new("op"), log: Vec::new() };
    run.mkdir("/d/e");
    (0..50).for_each(|file| run.put(&format!("/d/{file:02}"), 2));
    let top = run.namespace.stat(&run.log[0].caller, &path("/d")).expect("there").file;
    run.apply(remove("/d")).expect("removed");
    assert_eq!((run.items(), run.namespace.doomed_count()), (1, 0), "all at once");
    // Directories came free before what was in them, in the order of names from behind.
    let last: Vec<FileId> = (0..52).map(|file| run.open(&format!("/f{file}"), 9)).collect();
    assert_eq!(last[51].0 & u64::from(u32::MAX), top.0 & u64::from(u32::MAX), "the top's slot was the first");
    assert!(run.namespace.wants_bounded_rules() == (run.items() > u64::from(REAP_INLINE_ITEMS)));
    let before_ms = 9;
    let expired = run.apply(Operation::ExpireLeases { before_ms }).expect("expired");
    let mut sorted = last;
    sorted.sort_unstable();
    assert_eq!(expired, Answer::Expired { files: sorted }, "by id, and all of them");
    assert!(matches!(run.namespace.check(&Command::own(1, REAP)), Ok(None)), "the first one is logged");
}

#[test]
fn nothing_is_completed_into_a_removed_directory() {
    let mut run = Run::new();
    run.mkdir("/d/sub/deep");
    run.mkdir("/d/zzz");
    (0..200).for_each(|file| run.put(&format!("/d/many-{file:03}"), 0));
    let inner: Vec<FileId> =
        ["/d/x", "/d/sub/deep/x", "/d/zzz/x"].iter().map(|text| run.open(text, 900_000)).collect();
    let kept = run.open("/x", 900_000);
    let (source, target) = (path("/d/zzz"), path("/moved"));
    run.apply(Operation::Rename { source, target, overwrite: false }).expect("moved out");
    run.apply(remove("/d")).expect("removed");
    assert!(run.namespace.doomed_count() > 0, "not freed yet");
    let refused = |run: &mut Run, when: &str| {
        for file in &inner[..2] {
            let completed = run.complete(*file, 0).map_err(|error| error.code());
            assert_eq!(completed, Err(ErrorCode::NotFound), "{when}");
        }
        for text in ["/d/y", "/d/sub/deep/y"] {
            let whole = Operation::PutWhole {
                path: path(text),
                overwrite: false,
                mode: 0o644,
                replication: 3,
                chunk_size: CHUNK,
                chunk: None,
            };
            let put = run.apply(whole).map_err(|error| error.code());
            assert_eq!(put, Err(ErrorCode::NotFound), "{when}");
        }
    };
    refused(&mut run, "before reaping");
    // Also not into a directory of the same name that was made since.
    run.mkdir("/d");
    let completed = run.complete(inner[0], 0).map_err(|error| error.code());
    assert_eq!(completed, Err(ErrorCode::NotFound));
    run.apply(remove("/d")).expect("removed");
    run.complete(inner[2], 1).expect("its directory was moved in time");
    run.apply(REAP).expect("reaped");
    run.reap_all();
    refused(&mut run, "after reaping");
    run.complete(kept, 1).expect("completed");
    let counts = run.namespace.counts();
    assert_eq!((counts.files, counts.directories), (2, 2));
    run.namespace.check_invariants().expect("invariants hold");
}

#[test]
fn expiry_gives_up_a_bounded_number_of_files_oldest_lease_first() {
    let mut run = Run::new();
    let files: Vec<FileId> = (0..600).map(|file| run.open(&format!("/f{file}"), 5_000 - file)).collect();
    let mut given_up = Vec::new();
    loop {
        let Ok(Answer::Expired { files }) = run.apply(Operation::ExpireLeases { before_ms: 4_990 }) else {
            panic!("not expired")
        };
        assert!(files.len() <= EXPIRE_FILES_MAX, "{}", files.len());
        if files.is_empty() {
            break;
        }
        given_up.extend(files);
    }
    let expected: Vec<FileId> = files[10..].iter().rev().copied().collect();
    assert_eq!(given_up, expected, "all that have ended, in the order in which they did");
    run.apply(Operation::RenewLeases { files: files[..5].to_vec(), until_ms: 9_000 }).expect("renewed");
    run.apply(Operation::ExpireLeases { before_ms: 8_000 }).expect("expired");
    assert_eq!(run.namespace.open_count(), 5);
    run.namespace.check_invariants().expect("invariants hold");
}
