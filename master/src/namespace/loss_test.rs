//! What becomes of chunks and ids when a loss is accepted.

use std::sync::Arc;

use distrifs_proto::types::{ChunkId, Crc32c, Epoch, FileId, Lsn};

use super::command::{Answer, Command, Operation, WrittenChunk};
use super::loss::past_lost;
use super::path::NsPath;
use super::reserve::past_reserved;
use super::{ChunkState, FIRST_GENERATION, Namespace, NamespaceError, format};
use crate::permission::Caller;

fn path(text: &str) -> NsPath {
    NsPath::parse(text).expect("a path")
}

/// A namespace and what it was told.
struct Run {
    namespace: Namespace,
    log: Vec<Command>,
}

impl Run {
    fn apply(&mut self, operation: Operation) -> Result<Answer, NamespaceError> {
        let caller = Arc::new(Caller { user: "op".into(), groups: vec!["op".into()], superuser: true });
        let command = Command { at_ms: 5, request: None, caller, operation };
        self.log.push(command.clone());
        let answer = self.namespace.apply(Lsn(self.log.len() as u64), &command);
        self.namespace.check_invariants().expect("invariants hold");
        answer
    }

    /// An unfinished file with the next chunk, as the writer hands it out.
    fn open(&mut self, text: &str) -> (FileId, ChunkId) {
        let chunk = self.namespace.next_chunk();
        match self.create(text, chunk) {
            Ok(Answer::Created { file, .. }) => (file, chunk),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn create(&mut self, text: &str, chunk: ChunkId) -> Result<Answer, NamespaceError> {
        self.apply(Operation::Create {
            path: path(text),
            overwrite: false,
            mode: 0o644,
            replication: 3,
            chunk_size: 64 << 10,
            lease_until_ms: 100,
            chunk: Some(chunk),
        })
    }

    fn complete(&mut self, file: FileId, chunk: ChunkId) -> Result<Answer, NamespaceError> {
        let written = WrittenChunk { chunk, generation: FIRST_GENERATION, length: 9, crc: Crc32c(9) };
        self.apply(Operation::Complete { file, chunks: vec![written] })
    }

    fn put(&mut self, text: &str) -> ChunkId {
        let (file, chunk) = self.open(text);
        self.complete(file, chunk).expect("appears");
        chunk
    }

    fn remove(&mut self, text: &str) {
        self.apply(Operation::Remove { path: path(text), recursive: false }).expect("removed");
    }
}

#[test]
fn what_the_lost_records_may_have_used_is_neither_reused_nor_deleted() {
    let mut it = Run { namespace: Namespace::new("op"), log: Vec::new() };
    let (kept, removed) = (it.put("/kept"), it.put("/removed"));
    it.remove("/removed");
    let (given_up, spare) = it.open("/given-up");
    it.apply(Operation::Abandon { file: given_up }).expect("given up");
    let (writing, unfinished) = it.open("/writing");
    let lost = it.namespace.next_chunk();

    assert_eq!(it.apply(Operation::AcceptLoss { epoch: Epoch(3) }), Ok(Answer::Done));
    assert_eq!((it.namespace.history(), it.namespace.next_chunk()), (Epoch(3), past_lost(lost)));
    // Only a tombstone is deleted.
    assert!(matches!(it.namespace.chunk(kept), ChunkState::Referenced(_)));
    assert!(matches!(it.namespace.chunk(removed), ChunkState::Dereferenced(_)));
    for chunk in [unfinished, spare, lost] {
        assert_eq!(it.namespace.chunk(chunk), ChunkState::Unknown, "chunk {chunk}");
    }
    // Who was writing is told so.
    assert!(matches!(it.complete(writing, unfinished), Err(NamespaceError::NotOpen { .. })));
    assert!(matches!(it.create("/again", lost), Err(NamespaceError::ChunkIdReused { .. })));
    assert!(it.put("/new") >= past_lost(lost));

    // Once for each epoch.
    let next = it.namespace.next_chunk();
    for epoch in [Epoch(3), Epoch(2)] {
        assert_eq!(it.apply(Operation::AcceptLoss { epoch }), Ok(Answer::Done));
        assert_eq!((it.namespace.history(), it.namespace.next_chunk()), (Epoch(3), next), "epoch {epoch}");
    }
    it.apply(Operation::AcceptLoss { epoch: Epoch(7) }).expect("a second loss");
    assert_eq!((it.namespace.history(), it.namespace.next_chunk()), (Epoch(7), past_lost(next)));

    let mut replayed = Namespace::new("op");
    for (command, lsn) in it.log.iter().zip(1..) {
        let _ = replayed.apply(Lsn(lsn), &format::decode(&format::encode(command)).expect("our own bytes"));
    }
    assert!(replayed == it.namespace, "replay differs from live");
}

#[test]
fn ids_of_one_batch_begin_anew_behind_the_acceptance() {
    let command = |operation| Command {
        at_ms: 5,
        request: None,
        caller: Arc::new(Caller { user: "op".into(), groups: Vec::new(), superuser: true }),
        operation,
    };
    let allocate = || {
        let zero = ChunkId(0);
        command(Operation::AllocateChunk { file: FileId(1), chunk: zero, abandon: None })
    };
    let mut batch = [allocate(), command(Operation::AcceptLoss { epoch: Epoch(3) }), allocate()];
    let mut next = ChunkId(7);
    batch.iter_mut().for_each(|command| command.assign_chunk(&mut next));
    let given = batch.iter().filter_map(|command| match command.operation {
        Operation::AllocateChunk { chunk, .. } => Some(chunk),
        _ => None,
    });
    assert_eq!(given.collect::<Vec<_>>(), [ChunkId(7), past_lost(ChunkId(8))]);
}

#[test]
fn ids_of_one_batch_begin_anew_behind_reserved_ones_and_none_is_handed_out_twice() {
    let mut it = Run { namespace: Namespace::new("op"), log: Vec::new() };
    let mut next = it.namespace.next_chunk();
    let create = |at: &str| Operation::Create {
        path: path(at),
        overwrite: false,
        mode: 0o644,
        replication: 3,
        chunk_size: 64 << 10,
        lease_until_ms: 100,
        chunk: Some(ChunkId(0)),
    };
    // The second is refused, and takes an id all the same.
    let batch = [create("/a"), create("/none/b"), Operation::ReserveChunks { count: 5 }, create("/c")];
    let (mut created, mut reserved) = (Vec::new(), 0..0);
    for operation in batch {
        let mut command = Command::own(5, operation);
        command.assign_chunk(&mut next);
        match it.apply(command.operation) {
            Ok(Answer::Created { chunk: Some(chunk), .. }) => created.push(chunk.0),
            Ok(Answer::Reserved(ids)) => reserved = ids.first.0..ids.end.0,
            Ok(other) => panic!("{other:?}"),
            Err(refused) => assert!(matches!(refused, NamespaceError::NotFound { .. }), "{refused}"),
        }
    }
    assert_eq!(reserved.end - reserved.start, 5);
    assert_eq!(created.len(), 2);
    assert!(created.iter().all(|chunk| !reserved.contains(chunk)), "{created:?} {reserved:?}");
    let refused = it.create("/d", ChunkId(reserved.start));
    assert!(matches!(refused, Err(NamespaceError::ChunkIdReused { .. })), "{refused:?}");
}

#[test]
fn ids_do_not_overflow() {
    assert_eq!(past_reserved(ChunkId(u64::MAX - 1), 4096), ChunkId(u64::MAX));
    assert_eq!(past_lost(ChunkId(u64::MAX - 1)), ChunkId(u64::MAX));
}
