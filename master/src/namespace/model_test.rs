//! Random commands against a simple model, invariants after each step, and replay equal to live.

mod model;

use std::collections::BTreeMap;

use distrifs_proto::types::{Crc32c, Epoch, GenerationStamp, Lsn, RequestId};
use proptest::prelude::{Strategy, any, prop_oneof};

use super::command::{Answer, Command, Operation, WrittenChunk};
use super::image::{Restorer, Snapshot};
use super::loss::past_lost;
use super::path::NsPath;
use super::{ChunkState, Counts, FIRST_GENERATION, Namespace, format};
use crate::groups::Groups;
use model::{Model, Node, Open, child, split};

const CHUNK: u32 = 64 << 10;
/// Of a snapshot: a few records.
const PAGE_BYTES: usize = 40;

#[derive(Debug, Clone)]
enum Step {
    Mkdir {
        path: String,
        parents: bool,
    },
    Open {
        path: String,
        overwrite: bool,
        first: bool,
    },
    Grow {
        pick: usize,
        abandon: bool,
    },
    Complete {
        pick: usize,
        last: u32,
        twice: bool,
    },
    Abandon {
        pick: usize,
    },
    Rename {
        source: String,
        target: String,
        overwrite: bool,
    },
    Remove {
        path: String,
        recursive: bool,
    },
    Expire {
        age: i64,
    },
    Forget,
    Reserve {
        count: u32,
    },
    /// A small file, with one of the chunks that are reserved, or empty; `wrong` is what is wrong with it.
    PutWhole {
        path: String,
        overwrite: bool,
        pick: Option<usize>,
        wrong: u8,
    },
    Bury {
        picks: Vec<usize>,
    },
    /// With the number of the log's next record as the epoch, or an epoch of before.
    AcceptLoss {
        again: bool,
    },
    Copy {
        source: String,
        target: String,
        overwrite: bool,
    },
    /// Permission bits, owner, replicas: which, and a number.
    Attribute {
        path: String,
        which: u8,
        number: u8,
    },
    /// A directory with many small files and a large one: more than a removal frees by itself.
    Fill {
        path: String,
        files: u8,
        chunks: u8,
    },
    Reap {
        items: u32,
    },
    /// Begins a snapshot, unless one is under way.
    Freeze,
    /// Reads a page of the snapshot.
    Page,
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c"], 1..4)
        .prop_map(|names| format!("/{}", names.join("/")))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (path(), any::<bool>()).prop_map(|(path, parents)| Step::Mkdir { path, parents }),
        4 => (path(), any::<bool>(), any::<bool>())
            .prop_map(|(path, overwrite, first)| Step::Open { path, overwrite, first }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, abandon)| Step::Grow { pick, abandon }),
        4 => (any::<usize>(), 1..=CHUNK, any::<bool>())
            .prop_map(|(pick, last, twice)| Step::Complete { pick, last, twice }),
        1 => any::<usize>().prop_map(|pick| Step::Abandon { pick }),
        3 => (path(), path(), any::<bool>())
            .prop_map(|(source, target, overwrite)| Step::Rename { source, target, overwrite }),
        2 => (path(), any::<bool>()).prop_map(|(path, recursive)| Step::Remove { path, recursive }),
        1 => (0i64..20).prop_map(|age| Step::Expire { age }),
        1 => proptest::prelude::Just(Step::Forget),
        2 => (0u32..6).prop_map(|count| Step::Reserve { count }),
        4 => (path(), any::<bool>(), proptest::option::of(any::<usize>()), 0u8..12)
            .prop_map(|(path, overwrite, pick, wrong)| Step::PutWhole { path, overwrite, pick, wrong }),
        1 => proptest::collection::vec(any::<usize>(), 0..4).prop_map(|picks| Step::Bury { picks }),
        1 => any::<bool>().prop_map(|again| Step::AcceptLoss { again }),
        2 => (path(), path(), any::<bool>())
            .prop_map(|(source, target, overwrite)| Step::Copy { source, target, overwrite }),
        1 => (path(), 0u8..3, 1u8..6).prop_map(|(path, which, number)| Step::Attribute { path, which, number }),
        2 => (path(), 0u8..60, 0u8..90).prop_map(|(path, files, chunks)| Step::Fill { path, files, chunks }),
        4 => (0u32..90).prop_map(|items| Step::Reap { items }),
        1 => proptest::prelude::Just(Step::Freeze),
        4 => proptest::prelude::Just(Step::Page),
    ]
}

/// The namespace under test, and what it was told.
struct Run {
    namespace: Namespace,
    model: Model,
    log: Vec<Command>,
    groups: Groups,
    /// What has been read of it, and how much of the log it contains.
    snapshot: Option<(Snapshot, Vec<u8>, usize)>,
}

impl Run {
    fn apply(&mut self, operation: Operation) -> Option<Answer> {
        let lsn = Lsn(self.log.len() as u64 + 1);
        let request = Some(RequestId(u128::from(lsn.0)));
        let caller = self.groups.caller("root");
        let command = Command { at_ms: lsn.0 as i64, request, caller, operation };
        self.log.push(command.clone());
        let predicted = self.namespace.check(&command);
        let mut before = self.namespace.clone();
        let answer = self.namespace.apply(lsn, &command);
        match (&predicted, &answer) {
            (Ok(Some(known)), Ok(given)) => assert_eq!(known, given),
            (Err(predicted), Err(given)) => {
                assert_eq!(predicted, given);
                before.applied = lsn;
                assert!(before == self.namespace, "a refusal changed something: {:?}", self.log.last());
            }
            (Ok(None), Ok(given)) if command.fits(given) => {
                let state = format!("{:?}", self.namespace.counts());
                assert_eq!(self.namespace.apply(lsn, &command), answer, "a retry gets the same answer");
                assert_eq!(format!("{:?}", self.namespace.counts()), state, "and changes nothing");
            }
            (Ok(None), Ok(_)) => {}
            other => panic!("check and apply disagree: {other:?}"),
        }
        if let Err(broken) = self.namespace.check_invariants() {
            panic!("after {:?}: {broken}", self.log.last());
        }
        answer.ok()
    }

    /// As `apply`, of what is not to be refused, and without what makes that slow.
    fn prepare(&mut self, operation: Operation) -> Answer {
        let lsn = Lsn(self.log.len() as u64 + 1);
        let command = Command { at_ms: lsn.0 as i64, ..Command::own(0, operation) };
        self.log.push(command.clone());
        self.namespace.apply(lsn, &command).expect("not refused")
    }

    fn fill(&mut self, path: &str, files: u8, chunks: u8) {
        let parse = |text: &str| NsPath::parse(text).expect("a path");
        if !self.model.mkdir(path, true) {
            return;
        }
        self.prepare(Operation::Mkdir { path: parse(path), parents: true, mode: 0o755 });
        let put = |path: &str, chunk| Operation::PutWhole {
            path: parse(path),
            overwrite: true,
            mode: 0o644,
            replication: 3,
            chunk_size: CHUNK,
            chunk,
        };
        for number in 0..files {
            let path = child(path, &format!("small-{number}"));
            self.prepare(put(&path, None));
            self.model.nodes.insert(path, Node::File { size: 0, crc: Crc32c::default() });
        }
        let path = child(path, "large");
        let create = Operation::Create {
            path: parse(&path),
            overwrite: true,
            mode: 0o644,
            replication: 3,
            chunk_size: CHUNK,
            lease_until_ms: i64::MAX,
            chunk: None,
        };
        let Answer::Created { file, .. } = self.prepare(create) else { panic!("not created") };
        let (mut written, mut size, mut crc) = (Vec::new(), 0, Crc32c::default());
        for _ in 0..chunks {
            let chunk = self.namespace.next_chunk();
            self.prepare(Operation::AllocateChunk { file, chunk, abandon: None });
            let (length, chunk_crc) = (u64::from(CHUNK), Crc32c::of(&chunk.0.to_le_bytes()));
            written.push(WrittenChunk { chunk, generation: FIRST_GENERATION, length, crc: chunk_crc });
            (size, crc) = (size + length, crc.concat(chunk_crc, length));
        }
        self.apply(Operation::Complete { file, chunks: written }).expect("completed");
        self.model.nodes.insert(path, Node::File { size, crc });
    }

    fn reap(&mut self, items: u32) {
        let visible = self.visible();
        let (before, waiting) = (self.namespace.counts(), self.namespace.doomed_count());
        assert!(self.apply(Operation::Reap { items }).is_some());
        let after = self.namespace.counts();
        let freed = before.files - after.files + before.directories - after.directories;
        assert!(freed <= u64::from(items), "{freed} inodes freed, {items} asked for");
        assert!(waiting > 0 || before == after, "nothing was doomed");
        assert_eq!(self.visible(), visible, "what is visible stays");
    }

    fn page(&mut self) -> bool {
        let Some((snapshot, bytes, _)) = &mut self.snapshot else { return false };
        self.namespace.page(snapshot, PAGE_BYTES, bytes)
    }

    fn step(&mut self, step: &Step) {
        let parse = |text: &str| NsPath::parse(text).expect("a path");
        match step {
            Step::Mkdir { path, parents } => {
                let expected = self.model.mkdir(path, *parents);
                let done = self.apply(Operation::Mkdir { path: parse(path), parents: *parents, mode: 0o755 });
                assert_eq!(done.is_some(), expected, "mkdir {path}");
            }
            Step::Open { path, overwrite, first } => self.open(path, *overwrite, *first),
            Step::Grow { pick, abandon } => self.grow(*pick, *abandon),
            Step::Complete { pick, last, twice } => self.complete(*pick, *last, *twice),
            Step::Abandon { pick } => {
                if !self.model.open.is_empty() {
                    let open = self.model.open.swap_remove(pick % self.model.open.len());
                    assert!(self.apply(Operation::Abandon { file: open.file }).is_some());
                }
            }
            Step::Rename { source, target, overwrite } => {
                let expected = self.model.rename(source, target, *overwrite);
                let (source, target) = (parse(source), parse(target));
                let done = self.apply(Operation::Rename { source, target, overwrite: *overwrite });
                assert_eq!(done.is_some(), expected, "{step:?}");
            }
            Step::Remove { path, recursive } => {
                let expected = self.model.remove(path, *recursive);
                let done = self.apply(Operation::Remove { path: parse(path), recursive: *recursive });
                assert_eq!(done.is_some(), expected, "{step:?}");
            }
            Step::Expire { age } => {
                let before_ms = self.log.len() as i64 - age;
                assert!(self.apply(Operation::ExpireLeases { before_ms }).is_some());
                self.model.open.retain(|open| open.opened_ms > before_ms);
            }
            Step::Reserve { count } => {
                let next = self.namespace.next_chunk();
                let Some(Answer::Reserved(ids)) = self.apply(Operation::ReserveChunks { count: *count })
                else {
                    panic!("not reserved")
                };
                assert_eq!((ids.first, ids.end.0 - ids.first.0), (next, u64::from(*count)));
                assert_eq!((self.namespace.next_chunk(), ids.history), (ids.end, self.namespace.history()));
                self.model.reserved.extend((ids.first.0..ids.end.0).map(super::ChunkId));
            }
            Step::PutWhole { path, overwrite, pick, wrong } => {
                self.put_whole(path, *overwrite, *pick, *wrong);
            }
            Step::Bury { picks } => {
                let reserved = &self.model.reserved;
                if reserved.is_empty() {
                    return;
                }
                let chunks: Vec<_> = picks.iter().map(|pick| reserved[pick % reserved.len()]).collect();
                let before: Vec<_> = chunks.iter().map(|chunk| self.namespace.chunk(*chunk)).collect();
                assert!(self.apply(Operation::BuryChunks { chunks: chunks.clone() }).is_some());
                for (chunk, before) in chunks.into_iter().zip(before) {
                    match before {
                        ChunkState::Unknown => assert!(matches!(
                            self.namespace.chunk(chunk),
                            ChunkState::Dereferenced(tombstone) if !tombstone.completed
                        )),
                        known => assert_eq!(self.namespace.chunk(chunk), known, "chunk {chunk}"),
                    }
                    self.model.spent.insert(chunk);
                }
            }
            Step::Forget => {
                let chunks: Vec<_> =
                    self.namespace.tombstones_after(super::ChunkId(0)).map(|(id, _)| id).take(3).collect();
                assert!(self.apply(Operation::ForgetTombstones { chunks }).is_some());
            }
            Step::AcceptLoss { again } => {
                let (history, next) = (self.namespace.history(), self.namespace.next_chunk());
                let epoch = if *again { history } else { Epoch(self.log.len() as u64 + 1) };
                assert!(self.apply(Operation::AcceptLoss { epoch }).is_some());
                assert_eq!(self.namespace.history(), epoch);
                if *again {
                    assert_eq!(self.namespace.next_chunk(), next);
                } else {
                    assert_eq!(self.namespace.next_chunk(), past_lost(next));
                    self.model.open.clear();
                }
            }
            Step::Copy { source, target, overwrite } => {
                let expected = self.model.copy(source, target, *overwrite);
                let (source, target) = (parse(source), parse(target));
                let done = self.apply(Operation::Copy { source, target, overwrite: *overwrite });
                assert_eq!(done.is_some(), expected, "{step:?}");
            }
            Step::Attribute { path, which, number } => {
                let found = self.model.nodes.get(path);
                let expected = found.is_some_and(|node| *which < 2 || matches!(node, Node::File { .. }));
                let (path, name) = (parse(path), format!("u{number}"));
                let done = self.apply(match which {
                    0 => Operation::SetMode { path, mode: u16::from(*number) },
                    1 => Operation::SetOwner { path, owner: Some(name.clone()), group: Some(name) },
                    _ => Operation::SetReplication { path, replication: *number },
                });
                assert_eq!(done.is_some(), expected, "{step:?}");
            }
            Step::Fill { path, files, chunks } => self.fill(path, *files, *chunks),
            Step::Reap { items } => self.reap(*items),
            Step::Freeze => {
                if self.snapshot.is_none() {
                    self.snapshot = Some((self.namespace.freeze(), Vec::new(), self.log.len()));
                }
            }
            Step::Page => {
                self.page();
            }
        }
    }

    fn open(&mut self, path: &str, overwrite: bool, first: bool) {
        let (parent, name) = split(path);
        let parent = self.model.dir(parent);
        let expected = parent.is_some() && self.model.may_take(path, overwrite);
        let opened_ms = self.log.len() as i64 + 1;
        let answer = self.apply(Operation::Create {
            path: NsPath::parse(path).expect("a path"),
            overwrite,
            mode: 0o644,
            replication: 3,
            chunk_size: CHUNK,
            lease_until_ms: opened_ms,
            chunk: first.then(|| self.namespace.next_chunk()),
        });
        assert_eq!(answer.is_some(), expected, "create {path}");
        if let (Some(Answer::Created { file, chunk }), Some(parent)) = (answer, parent) {
            let (name, chunks) = (name.to_owned(), chunk.into_iter().collect());
            self.model.open.push(Open { file, parent, name, overwrite, opened_ms, chunks });
        }
    }

    fn grow(&mut self, pick: usize, abandon: bool) {
        if self.model.open.is_empty() {
            return;
        }
        let pick = pick % self.model.open.len();
        let open = &mut self.model.open[pick];
        let (file, chunk) = (open.file, self.namespace.next_chunk());
        let abandon = if abandon { open.chunks.pop() } else { None };
        open.chunks.push(chunk);
        assert!(self.apply(Operation::AllocateChunk { file, chunk, abandon }).is_some());
    }

    fn complete(&mut self, pick: usize, last: u32, twice: bool) {
        if self.model.open.is_empty() {
            return;
        }
        let pick = pick % self.model.open.len();
        let open = &self.model.open[pick];
        let count = open.chunks.len();
        let mut chunks: Vec<WrittenChunk> = Vec::new();
        let (mut size, mut crc) = (0, Crc32c::default());
        for (index, chunk) in open.chunks.iter().enumerate() {
            let length = u64::from(if index + 1 == count { last } else { CHUNK });
            let chunk_crc = Crc32c::of(&chunk.0.to_le_bytes());
            (size, crc) = (size + length, crc.concat(chunk_crc, length));
            let generation = FIRST_GENERATION;
            chunks.push(WrittenChunk { chunk: *chunk, generation, length, crc: chunk_crc });
        }
        if twice && let Some(first) = chunks.first_mut() {
            first.generation = GenerationStamp(9);
        }
        let wrong = twice && count > 0;
        let parent = self.model.nodes.iter().find(|(_, node)| **node == Node::Dir(open.parent));
        let target = parent.map(|(path, _)| child(path, &open.name));
        let taken = target.as_ref().is_some_and(|path| self.model.may_take(path, open.overwrite));
        let file = open.file;
        let answer = self.apply(Operation::Complete { file, chunks });
        assert_eq!(answer.is_some(), taken && !wrong, "complete of {target:?}");
        if let (Some(_), Some(target)) = (answer, target) {
            self.model.nodes.insert(target, Node::File { size, crc });
            self.model.open.swap_remove(pick);
        }
    }

    fn put_whole(&mut self, path: &str, overwrite: bool, pick: Option<usize>, wrong: u8) {
        let (parent, _) = split(path);
        let allowed = self.model.dir(parent).is_some() && self.model.may_take(path, overwrite);
        // One that was forgotten is for the leader to tell from one that was not used yet.
        let fit = |chunk: &super::ChunkId| {
            !self.model.spent.contains(chunk) || self.namespace.chunk(*chunk) != ChunkState::Unknown
        };
        let fit: Vec<super::ChunkId> = self.model.reserved.iter().copied().filter(fit).collect();
        let picked = pick.and_then(|pick| fit.get(pick % fit.len().max(1)).copied());
        let mut chunk = picked.map(|chunk| {
            let (length, crc) = (1 + chunk.0 % u64::from(CHUNK), Crc32c::of(&chunk.0.to_le_bytes()));
            WrittenChunk { chunk, generation: FIRST_GENERATION, length, crc }
        });
        let mut sound = chunk.is_none_or(|it| !self.model.spent.contains(&it.chunk));
        if let Some(it) = &mut chunk {
            sound &= wrong >= 5;
            match wrong {
                0 => it.generation = GenerationStamp(2),
                1 => it.length = 0,
                2 => it.length = u64::from(CHUNK) + 1,
                3 => it.chunk = self.namespace.next_chunk(),
                4 => it.chunk = super::ChunkId(0),
                _ => {}
            }
        }
        let answer = self.apply(Operation::PutWhole {
            path: NsPath::parse(path).expect("a path"),
            overwrite,
            mode: 0o644,
            replication: 3,
            chunk_size: CHUNK,
            chunk,
        });
        assert_eq!(answer.is_some(), allowed && sound, "put of {chunk:?} at {path}");
        if answer.is_some() {
            let (size, crc) = chunk.map_or((0, Crc32c::default()), |it| (it.length, it.crc));
            self.model.spent.extend(chunk.map(|it| it.chunk));
            self.model.nodes.insert(path.to_owned(), Node::File { size, crc });
        }
    }

    /// Once all that was removed is freed, the counts are those of what is visible.
    fn check_counts(&self) {
        let mut namespace = self.namespace.clone();
        while namespace.doomed_count() > 0 {
            let lsn = namespace.applied().next();
            namespace.apply(lsn, &Command::own(0, Operation::Reap { items: 1000 })).expect("reaped");
        }
        assert_eq!(namespace.check_invariants(), Ok(()));
        let sizes = self.model.nodes.values().filter_map(|node| match node {
            Node::Dir(_) => None,
            Node::File { size, .. } => Some(*size),
        });
        let (files, bytes) = sizes.fold((0, 0), |(files, bytes), size| (files + 1, bytes + size));
        let directories = self.model.nodes.len() as u64 - files;
        assert_eq!(namespace.counts(), Counts { files, directories, bytes });
    }

    /// What is visible, asked in pages of two.
    fn visible(&self) -> BTreeMap<String, Option<(u64, Crc32c)>> {
        let (root, caller) = (NsPath::root(), self.groups.caller("root"));
        let (mut all, mut after) = (BTreeMap::new(), String::new());
        loop {
            let page = self.namespace.list(&caller, &root, true, &after, 2).expect("the root lists");
            for entry in &page.entries {
                let body = entry.body.map(|body| (body.size, body.crc));
                assert_eq!(all.insert(format!("/{}", entry.path), body), None, "listed twice");
                after = entry.path.clone();
            }
            if !page.more {
                return all;
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
    #[test]
    fn random_commands_equal_the_model_and_replay_equals_live(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let groups = Groups::nobody("op");
        let mut run = Run { namespace: Namespace::new("op"), model: Model::new(), log: Vec::new(), groups, snapshot: None };
        for step in &steps {
            run.step(step);
            let mut expected: BTreeMap<String, Option<(u64, Crc32c)>> = BTreeMap::new();
            for (path, node) in run.model.nodes.iter().filter(|(path, _)| *path != "/") {
                let body = match node {
                    Node::Dir(_) => None,
                    Node::File { size, crc } => Some((*size, *crc)),
                };
                expected.insert(path.clone(), body);
            }
            assert_eq!(run.visible(), expected, "after {step:?}");
        }
        let mut replayed = Namespace::new("op");
        for (index, command) in run.log.iter().enumerate() {
            let decoded = format::decode(&format::encode(command)).expect("our own bytes");
            assert_eq!(&decoded, command);
            let _ = replayed.apply(Lsn(index as u64 + 1), &decoded);
        }
        assert!(replayed == run.namespace, "replay differs from live");
        run.check_counts();
        run.step(&Step::Freeze);
        while run.page() {}
        let (snapshot, image, from) = run.snapshot.take().expect("begun");
        assert_eq!(snapshot.applied(), Lsn(from as u64));
        let mut restorer = Restorer::new();
        image.chunks(17).for_each(|piece| restorer.feed(piece).expect("our own bytes"));
        let mut restored = restorer.finish().expect("whole");
        assert_eq!(restored.check_invariants(), Ok(()));
        for (index, command) in run.log.iter().enumerate().skip(from) {
            let _ = restored.apply(Lsn(index as u64 + 1), command);
        }
        assert!(restored == run.namespace, "a checkpoint and the log after it differ from live");
    }
}
