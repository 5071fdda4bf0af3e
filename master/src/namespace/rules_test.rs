//! Who may do what, and what a completion and a retry may say: case tables over a small tree.

use distrifs_proto::ErrorCode;
use distrifs_proto::types::{ChunkId, Crc32c, FileId, Lsn, RequestId};

use super::command::{Answer, Command, Operation, WrittenChunk};
use super::path::NsPath;
use super::tree::EMPTYING_ITEMS_MAX;
use super::{ChunkState, FIRST_GENERATION, Namespace, NamespaceError};
use crate::groups::Groups;

const CHUNK: u32 = 64 << 10;

fn path(text: &str) -> NsPath {
    NsPath::parse(text).expect("a path")
}

fn run(
    namespace: &mut Namespace,
    user: &str,
    request: Option<u128>,
    operation: Operation,
) -> Result<Answer, NamespaceError> {
    let lsn = namespace.applied().next();
    let caller = Groups::nobody("op").caller(user);
    let command = Command { at_ms: 5, request: request.map(RequestId), caller, operation };
    let answer = namespace.apply(lsn, &command);
    namespace.check_invariants().expect("invariants hold");
    answer
}

fn mkdir(text: &str, mode: u16) -> Operation {
    Operation::Mkdir { path: path(text), parents: false, mode }
}

fn create(text: &str, overwrite: bool, chunk: Option<u64>) -> Operation {
    Operation::Create {
        path: path(text),
        overwrite,
        mode: 0o644,
        replication: 3,
        chunk_size: CHUNK,
        lease_until_ms: 100,
        chunk: chunk.map(ChunkId),
    }
}

fn rename(source: &str, target: &str) -> Operation {
    Operation::Rename { source: path(source), target: path(target), overwrite: true }
}

fn remove(text: &str) -> Operation {
    Operation::Remove { path: path(text), recursive: true }
}

fn open(namespace: &mut Namespace, user: &str, text: &str, chunk: Option<u64>) -> FileId {
    match run(namespace, user, None, create(text, true, chunk)) {
        Ok(Answer::Created { file, .. }) => file,
        other => panic!("create {text}: {other:?}"),
    }
}

fn put(namespace: &mut Namespace, user: &str, text: &str) {
    let file = open(namespace, user, text, None);
    run(namespace, user, None, Operation::Complete { file, chunks: Vec::new() }).expect("completed");
}

/// `/open` 1777 with bob's `f`; `/bob` 0755 with `f`; `/bob/shut` 0700 with `f`; `/bob/see` 0744.
fn tree() -> Namespace {
    let mut it = Namespace::new("op");
    run(&mut it, "op", None, mkdir("/open", 0o1777)).expect("made");
    run(&mut it, "op", None, mkdir("/all", 0o777)).expect("made");
    run(&mut it, "bob", None, mkdir("/all/bob", 0o755)).expect("made");
    run(&mut it, "op", None, rename("/all/bob", "/bob")).expect("moved");
    run(&mut it, "bob", None, mkdir("/bob/shut", 0o700)).expect("made");
    run(&mut it, "bob", None, mkdir("/bob/see", 0o744)).expect("made");
    for file in ["/open/f", "/bob/f", "/bob/shut/f", "/bob/see/f", "/all/f"] {
        put(&mut it, "bob", file);
    }
    it
}

#[test]
fn every_operation_asks_for_permission() {
    let denied = Some(ErrorCode::PermissionDenied);
    let cases: Vec<(&str, Operation, Option<ErrorCode>)> = vec![
        ("eve", mkdir("/x", 0o755), denied),
        ("op", mkdir("/x", 0o755), None),
        ("root", mkdir("/x", 0o755), None),
        ("bob", mkdir("/bob/x", 0o755), None),
        ("eve", mkdir("/bob/x", 0o755), denied),
        ("eve", mkdir("/all/x", 0o755), None),
        ("eve", mkdir("/bob/shut/x", 0o755), denied),
        ("eve", mkdir("/bob/shut/f", 0o755), denied),
        ("eve", create("/bob/x", false, None), denied),
        ("eve", create("/bob/f", true, None), denied),
        ("bob", create("/bob/f", true, None), None),
        ("bob", create("/bob/f", false, None), Some(ErrorCode::AlreadyExists)),
        ("bob", create("/bob", true, None), Some(ErrorCode::IsADirectory)),
        ("bob", create("/bob/no/f", true, None), Some(ErrorCode::NotFound)),
        ("bob", create("/bob/f/f", true, None), Some(ErrorCode::NotADirectory)),
        ("eve", remove("/bob/f"), denied),
        ("eve", remove("/open/f"), denied),
        ("eve", remove("/all/f"), None),
        ("bob", remove("/open/f"), None),
        ("op", remove("/open/f"), None),
        ("bob", remove("/bob"), denied),
        ("op", remove("/bob"), None),
        ("op", remove("/"), Some(ErrorCode::InvalidArgument)),
        ("eve", rename("/bob/f", "/all/g"), denied),
        ("eve", rename("/all/f", "/bob/g"), denied),
        ("eve", rename("/open/f", "/all/g"), denied),
        ("eve", rename("/all/f", "/open/f"), denied),
        ("eve", rename("/all/f", "/all/g"), None),
        ("op", rename("/bob", "/bob/see/bob"), Some(ErrorCode::InvalidArgument)),
        ("op", rename("/bob", "/"), Some(ErrorCode::AlreadyExists)),
        ("op", rename("/bob/f", "/all"), Some(ErrorCode::AlreadyExists)),
        ("op", rename("/", "/x"), Some(ErrorCode::InvalidArgument)),
    ];
    for (user, operation, refused) in cases {
        let text = format!("{user} {operation:?}");
        let answer = run(&mut tree(), user, None, operation);
        assert_eq!(answer.err().map(|error| error.code()), refused, "{text}");
    }
}

#[test]
fn questions_ask_for_permission_and_closed_directories_leak_nothing() {
    let tree = tree();
    let groups = Groups::nobody("op");
    let (eve, bob) = (groups.caller("eve"), groups.caller("bob"));
    let there = tree.stat(&eve, &path("/bob/shut/f")).expect_err("closed");
    let absent = tree.stat(&eve, &path("/bob/shut/g")).expect_err("closed");
    assert_eq!((there.code(), absent.code()), (ErrorCode::PermissionDenied, ErrorCode::PermissionDenied));
    assert_eq!(
        there.to_string(),
        "/bob/shut/f: permission denied: eve needs execute on /bob/shut",
        "the text names path, cause and who"
    );
    assert!(tree.stat(&bob, &path("/bob/shut/f")).is_ok());
    assert!(tree.stat(&eve, &path("/bob/f")).is_ok());
    assert!(tree.list(&eve, &path("/bob/see"), false, "", 9).is_ok(), "read is enough to list");
    assert!(tree.list(&eve, &path("/bob/shut"), false, "", 9).is_err());
    assert!(tree.list(&eve, &path("/bob"), true, "", 9).is_err(), "a tree is not listed in part");
    assert!(tree.list(&bob, &path("/bob"), true, "", 9).is_ok());
    assert!(tree.read_plan(&eve, &path("/bob/f"), (0, 0), None, 9).is_ok());
    assert!(tree.read_plan(&eve, &path("/bob/see/f"), (0, 0), None, 9).is_err());
}

#[test]
fn a_replacing_put_keeps_the_owner_and_buries_the_old_chunks() {
    let mut it = Namespace::new("op");
    run(&mut it, "op", None, mkdir("/d", 0o777)).expect("made");
    let crc = Crc32c(7);
    for (user, chunk) in [("bob", 1), ("root", 2)] {
        let file = open(&mut it, user, "/d/f", Some(chunk));
        let chunks =
            vec![WrittenChunk { chunk: ChunkId(chunk), generation: FIRST_GENERATION, length: 9, crc }];
        run(&mut it, user, None, Operation::Complete { file, chunks }).expect("completed");
    }
    let status = it.stat(&Groups::nobody("op").caller("op"), &path("/d/f")).expect("there");
    assert_eq!((status.owner.as_str(), status.body.map(|body| body.size)), ("bob", Some(9)));
    assert!(matches!(it.chunk(ChunkId(1)), ChunkState::Dereferenced(tomb) if tomb.completed));
    assert!(matches!(it.chunk(ChunkId(2)), ChunkState::Referenced(chunk) if chunk.refs == 1));
    assert_eq!(it.chunk(ChunkId(3)), ChunkState::Unknown);
}

#[test]
fn a_chunk_list_that_does_not_fit_is_refused() {
    let full = u64::from(CHUNK);
    let cases: [(&str, Vec<(u64, u64)>); 6] = [
        ("not handed out", vec![(9, 1)]),
        ("named twice", vec![(1, full), (1, 1)]),
        ("short in the middle", vec![(1, full - 1), (2, 1)]),
        ("too long", vec![(1, full + 1)]),
        ("empty last", vec![(1, full), (2, 0)]),
        ("another file's", vec![(3, 1)]),
    ];
    for (name, list) in cases {
        let mut it = Namespace::new("op");
        let file = open(&mut it, "op", "/f", Some(1));
        run(&mut it, "op", None, Operation::AllocateChunk { file, chunk: ChunkId(2), abandon: None })
            .expect("allocated");
        open(&mut it, "op", "/g", Some(3));
        let chunks = list
            .into_iter()
            .map(|(chunk, length)| WrittenChunk {
                chunk: ChunkId(chunk),
                generation: FIRST_GENERATION,
                length,
                crc: Crc32c(1),
            })
            .collect();
        let refused = run(&mut it, "op", None, Operation::Complete { file, chunks });
        assert!(matches!(refused, Err(NamespaceError::Chunks { .. })), "{name}: {refused:?}");
    }
}

#[test]
fn a_request_is_executed_once_and_its_id_is_of_one_kind() {
    let mut it = Namespace::new("op");
    let first = run(&mut it, "op", Some(1), create("/f", false, Some(1)));
    let again = run(&mut it, "op", Some(1), create("/f", false, Some(2)));
    assert_eq!(first, again);
    assert_eq!((it.open_count(), it.next_chunk()), (1, ChunkId(2)));
    let other = run(&mut it, "op", Some(1), mkdir("/d", 0o755));
    assert!(matches!(other, Err(NamespaceError::RequestReused { .. })));
}

fn whole(text: &str, overwrite: bool, chunk: Option<u64>) -> Operation {
    let written =
        |id| WrittenChunk { chunk: ChunkId(id), generation: FIRST_GENERATION, length: 9, crc: Crc32c(7) };
    Operation::PutWhole {
        path: path(text),
        overwrite,
        mode: 0o600,
        replication: 3,
        chunk_size: CHUNK,
        chunk: chunk.map(written),
    }
}

#[test]
fn a_whole_file_is_as_a_creation_and_a_completion() {
    let targets =
        ["/x", "/bob/x", "/bob/f", "/bob", "/bob/no/f", "/bob/f/f", "/open/f", "/all/f", "/", "/bob/shut/f"];
    for (user, target) in ["eve", "bob", "op"].into_iter().flat_map(|user| targets.map(|it| (user, it))) {
        for (overwrite, chunk) in [(false, None), (false, Some(1)), (true, None), (true, Some(1))] {
            let (mut whole_tree, mut tree) = (tree(), tree());
            run(&mut whole_tree, "op", None, Operation::ReserveChunks { count: 1 }).expect("reserved");
            let at_once = run(&mut whole_tree, user, None, whole(target, overwrite, chunk));
            let mode = 0o600;
            let mut opened = create(target, overwrite, chunk);
            if let Operation::Create { mode: bits, .. } = &mut opened {
                *bits = mode;
            }
            let in_two = run(&mut tree, user, None, opened).and_then(|answer| {
                let Answer::Created { file, chunk } = answer else { panic!("{answer:?}") };
                let written =
                    |chunk| WrittenChunk { chunk, generation: FIRST_GENERATION, length: 9, crc: Crc32c(7) };
                let chunks = chunk.into_iter().map(written).collect();
                run(&mut tree, user, None, Operation::Complete { file, chunks })
            });
            let text = format!("{user} {target} {overwrite} {chunk:?}");
            assert_eq!(at_once, in_two, "{text}");
            assert_eq!(whole_tree.counts(), tree.counts(), "{text}");
            let listed =
                |it: &Namespace| it.list(&Groups::nobody("op").caller("op"), &NsPath::root(), true, "", 99);
            assert_eq!(listed(&whole_tree), listed(&tree), "{text}");
        }
    }
}

#[test]
fn a_whole_file_is_made_of_a_spare_chunk_alone() {
    let mut it = Namespace::new("op");
    run(&mut it, "op", None, Operation::ReserveChunks { count: 4 }).expect("reserved");
    run(&mut it, "op", None, whole("/f", false, Some(1))).expect("put");
    open(&mut it, "op", "/open", Some(5));
    run(&mut it, "op", None, Operation::BuryChunks { chunks: [1, 2, 5, 6, 0].map(ChunkId).to_vec() })
        .expect("buried");
    assert!(matches!(it.chunk(ChunkId(1)), ChunkState::Referenced(_)));
    assert!(matches!(it.chunk(ChunkId(2)), ChunkState::Dereferenced(tomb) if !tomb.completed));
    assert_eq!(it.chunk(ChunkId(5)), ChunkState::Unfinished);
    assert_eq!(it.chunk(ChunkId(6)), ChunkState::Unknown, "not below the mark");
    for (chunk, why) in
        [(0, "none"), (1, "a file's"), (2, "buried"), (5, "of an unfinished file"), (6, "never reserved")]
    {
        let refused = run(&mut it, "op", None, whole("/g", true, Some(chunk)));
        assert!(matches!(refused, Err(NamespaceError::NotSpare { .. })), "{why}: {refused:?}");
        assert_eq!(refused.map_err(|error| error.code()), Err(ErrorCode::LeaseExpired));
    }
    // The later one wins, and the chunk of the one before goes.
    run(&mut it, "op", Some(1), whole("/f", true, Some(3))).expect("put");
    assert!(matches!(it.chunk(ChunkId(1)), ChunkState::Dereferenced(tomb) if tomb.completed));
    let before = it.clone();
    run(&mut it, "op", Some(1), whole("/f", true, Some(3))).expect("the same answer again");
    let applied = it.applied;
    assert!(it == Namespace { applied, ..before }, "and nothing is done again");
    let other = run(&mut it, "op", Some(1), whole("/f", true, Some(4)));
    assert!(matches!(other, Err(NamespaceError::RequestReused { .. })), "{other:?}");
}

#[test]
fn chunk_ids_are_handed_out_once() {
    let mut it = Namespace::new("op");
    let file = open(&mut it, "op", "/f", Some(5));
    run(&mut it, "op", None, Operation::Abandon { file }).expect("given up");
    for old in [1, 5, u64::MAX] {
        let refused = run(&mut it, "op", None, create("/f", false, Some(old)));
        assert!(matches!(refused, Err(NamespaceError::ChunkIdReused { .. })), "{old}: {refused:?}");
    }
}

#[test]
fn an_unfinished_file_is_its_writers_and_dies_with_its_directory() {
    let mut it = Namespace::new("op");
    run(&mut it, "op", None, mkdir("/d", 0o777)).expect("made");
    let file = open(&mut it, "bob", "/d/f", None);
    let complete = || Operation::Complete { file, chunks: Vec::new() };
    let eve = run(&mut it, "eve", None, complete()).map_err(|error| error.code());
    assert_eq!(eve, Err(ErrorCode::LeaseExpired));
    run(&mut it, "op", None, remove("/d")).expect("removed");
    let gone = run(&mut it, "bob", None, complete()).map_err(|error| error.code());
    assert_eq!(gone, Err(ErrorCode::NotFound));
    run(&mut it, "op", None, Operation::ExpireLeases { before_ms: 100 }).expect("expired");
    assert_eq!((it.open_count(), it.applied() > Lsn(0)), (0, true));
}

#[test]
fn renewal_extends_and_expiry_respects_it() {
    let mut it = Namespace::new("op");
    let (kept, lost) = (open(&mut it, "op", "/f", Some(1)), open(&mut it, "op", "/g", Some(2)));
    let renew = Operation::RenewLeases { files: vec![kept, FileId(77)], until_ms: 500 };
    let renewed = run(&mut it, "op", None, renew);
    assert_eq!(renewed, Ok(Answer::Renewed { expired: vec![FileId(77)] }));
    let expired = run(&mut it, "op", None, Operation::ExpireLeases { before_ms: 499 });
    assert_eq!(expired, Ok(Answer::Expired { files: vec![lost] }));
    assert!(matches!(it.chunk(ChunkId(2)), ChunkState::Dereferenced(tomb) if !tomb.completed));
    assert_eq!(it.chunk(ChunkId(1)), ChunkState::Unfinished);
}

/// Directories moved into each other again and again nest deeper than any path can say.
#[test]
fn a_tree_deeper_than_paths_is_refused_where_it_is_too_deep_and_can_be_taken_apart() {
    let mut namespace = Namespace::new("op");
    let groups = Groups::nobody("op");
    let bob = groups.caller("bob");
    let make = |namespace: &mut Namespace, text: &str| {
        run(namespace, "bob", None, Operation::Mkdir { path: path(text), parents: true, mode: 0o755 })
    };
    run(&mut namespace, "op", None, mkdir("/b", 0o777)).expect("made");
    make(&mut namespace, "/b/0/leaf").expect("made");
    const LEVELS: usize = 250;
    for round in 1..=20 {
        let top = format!("/b/{round}");
        let deepest = format!("{top}{}", "/dir".repeat(LEVELS));
        make(&mut namespace, &deepest).expect("made");
        let inner = format!("/b/{}", round - 1);
        run(&mut namespace, "bob", None, rename(&inner, &format!("{deepest}/x"))).expect("moved");
    }
    let mut gone = namespace.clone();
    run(&mut gone, "bob", None, remove("/b/20")).expect("removed in one piece");
    assert_eq!(gone.counts().directories, 2, "the root and /b");
    // A listing ends at a directory that can be named and moved, and that again and again.
    let mut taken = 0;
    loop {
        let (mut after, mut listed) = (String::new(), 0);
        let too_deep = loop {
            match namespace.list(&bob, &path("/b"), true, &after, 1000) {
                Ok(page) => {
                    listed += page.entries.len();
                    match page.entries.last() {
                        Some(last) if page.more => after.clone_from(&last.path),
                        _ => break None,
                    }
                }
                Err(NamespaceError::TooDeep { at }) => break Some(at),
                Err(other) => panic!("{other}"),
            }
        };
        let Some(at) = too_deep else {
            // Each round made its directories and took one along, under the name x or one of ours.
            assert_eq!(listed as u64 + 2, namespace.counts().directories);
            break;
        };
        run(&mut namespace, "bob", None, rename(&at, &format!("/b/up-{taken}"))).expect("moved up");
        taken += 1;
        assert!(taken < 1000, "it gets no flatter");
    }
    assert!(taken >= 15, "{taken}");
}

/// Turns the bounded rules on, and makes `/pub/top` of bob's with so many subdirectories and empty files.
fn wide(directories: usize, files: usize) -> Namespace {
    let mut it = Namespace::new("op");
    let groups = Groups::nobody("op");
    run(&mut it, "op", None, Operation::Reap { items: 0 }).expect("turned on");
    run(&mut it, "op", None, mkdir("/pub", 0o777)).expect("made");
    run(&mut it, "bob", None, mkdir("/pub/top", 0o755)).expect("made");
    let directories = (0..directories).map(|number| mkdir(&format!("/pub/top/d{number}"), 0o755));
    let files = (0..files).map(|number| whole(&format!("/pub/top/f{number}"), false, None));
    for operation in directories.chain(files).collect::<Vec<_>>() {
        let (lsn, caller) = (it.applied().next(), groups.caller("bob"));
        it.apply(lsn, &Command { at_ms: 5, request: None, caller, operation }).expect("made");
    }
    it.check_invariants().expect("invariants hold");
    it
}

#[test]
fn a_removal_that_has_to_check_too_many_entries_is_refused() {
    let max = EMPTYING_ITEMS_MAX as usize;
    let code = |answer: Result<Answer, NamespaceError>| answer.err().map(|error| error.code());
    let top = remove("/pub/top");
    // Without subdirectories no entry is looked at.
    let flat = wide(0, max + 10);
    assert_eq!(code(run(&mut flat.clone(), "bob", None, top.clone())), None);
    assert_eq!(code(run(&mut { flat }, "eve", None, top.clone())), Some(ErrorCode::PermissionDenied));
    // Only up to the last subdirectory: names of directories come before those of files here.
    assert_eq!(code(run(&mut wide(3, max + 10), "bob", None, top.clone())), None);
    assert_eq!(code(run(&mut wide(max, 0), "bob", None, top.clone())), None, "just within the limit");

    let mut many = wide(max + 1, 0);
    let refused = run(&mut many, "bob", None, top.clone()).expect_err("too many");
    assert_eq!(
        refused.to_string(),
        "/pub/top: limit exceeded: entries that one removal checks, \
         remove its subdirectories first (at most 16384)"
    );
    assert_eq!(refused.code(), ErrorCode::LimitExceeded);
    let (lsn, caller) = (many.applied().next(), Groups::nobody("op").caller("bob"));
    let checked = many.check(&Command { at_ms: 5, request: None, caller, operation: top.clone() });
    assert_eq!(checked, Err(refused), "and is not logged");
    assert_eq!(many.applied().next(), lsn);
    run(&mut many, "bob", None, remove("/pub/top/d7")).expect("removed");
    run(&mut many, "bob", None, top.clone()).expect("few enough are left");

    // Who may everything is asked for nothing.
    assert_eq!(code(run(&mut wide(max + 1, 0), "op", None, top)), None);
}

#[test]
fn a_sticky_directory_is_checked_entry_by_entry_unless_the_caller_owns_it() {
    for (user, refused) in [("bob", None), ("eve", Some(ErrorCode::PermissionDenied))] {
        let mut it = Namespace::new("op");
        run(&mut it, "op", None, mkdir("/pub", 0o777)).expect("made");
        run(&mut it, "bob", None, mkdir("/pub/top", 0o777)).expect("made");
        run(&mut it, "bob", None, mkdir("/pub/top/sticky", 0o1777)).expect("made");
        for (owner, name) in [("eve", "a"), ("zoe", "b")] {
            put(&mut it, owner, &format!("/pub/top/sticky/{name}"));
        }
        let removed = run(&mut it, user, None, remove("/pub/top"));
        assert_eq!(removed.as_ref().err().map(NamespaceError::code), refused, "{user}");
        if let Err(error) = removed {
            assert!(error.to_string().contains("/pub/top/sticky/b"), "{error}");
        }
    }
}
