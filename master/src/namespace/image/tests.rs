//! The bytes of an image, and that damage is refused. That an image equals the state is in `model_test`.

use std::sync::Arc;

use distrifs_proto::types::{ChunkId, Epoch, Lsn};
use proptest::prelude::{any, prop_assert, proptest};

use super::super::command::{Answer, Command, Operation};
use super::super::path::NsPath;
use super::super::{FIRST_GENERATION, Namespace, WrittenChunk};
use super::{ImageError, Restorer};
use crate::permission::Caller;

fn caller() -> Arc<Caller> {
    Arc::new(Caller { user: "al".into(), groups: vec!["gr".into()], superuser: true })
}

fn apply(namespace: &mut Namespace, operation: Operation) {
    answer(namespace, operation);
}

fn answer(namespace: &mut Namespace, operation: Operation) -> Answer {
    let at_ms = 1000 + namespace.applied().0 as i64;
    let request = Some(distrifs_proto::types::RequestId(u128::from(namespace.applied().0) + 7));
    let command = Command { at_ms, request, caller: caller(), operation };
    let lsn = Lsn(namespace.applied().0 + 1);
    namespace.apply(lsn, &command).expect("fine")
}

/// One of everything.
fn sample() -> Namespace {
    let path = |text: &str| NsPath::parse(text).expect("a path");
    let create = |at: &str, chunk| Operation::Create {
        path: path(at),
        overwrite: false,
        mode: 0o640,
        replication: 3,
        chunk_size: 65536,
        lease_until_ms: 5000,
        chunk,
    };
    let mut it = Namespace::new("op");
    apply(&mut it, Operation::Mkdir { path: path("/d"), parents: false, mode: 0o755 });
    for name in ["/d/f", "/d/g"] {
        let chunk = it.next_chunk();
        apply(&mut it, create(name, Some(chunk)));
        let file = it.open.iter().next().expect("open").0;
        let crc = distrifs_proto::types::Crc32c::of(name.as_bytes());
        let chunks = vec![WrittenChunk { chunk, generation: FIRST_GENERATION, length: 77, crc }];
        apply(&mut it, Operation::Complete { file, chunks });
    }
    apply(&mut it, Operation::Remove { path: path("/d/g"), recursive: false });
    let chunk = it.next_chunk();
    apply(&mut it, create("/d/open", Some(chunk)));
    it
}

/// The same in a namespace that has lost something before.
fn lossy_sample() -> Namespace {
    let mut it = sample();
    apply(&mut it, Operation::AcceptLoss { epoch: Epoch(3) });
    let chunk = it.next_chunk();
    let file = Operation::Create {
        path: NsPath::parse("/d/again").expect("a path"),
        overwrite: false,
        mode: 0o640,
        replication: 3,
        chunk_size: 65536,
        lease_until_ms: 5000,
        chunk: Some(chunk),
    };
    apply(&mut it, file);
    it
}

/// The same with bounded removal, and a removed tree that is not freed yet: a file with some of its chunks, below its
/// directory.
fn doomed_sample() -> Namespace {
    let mut it = lossy_sample();
    apply(&mut it, Operation::Reap { items: 0 });
    let first = it.next_chunk().0;
    let path = |text: &str| NsPath::parse(text).expect("a path");
    apply(&mut it, Operation::Mkdir { path: path("/doomed"), parents: false, mode: 0o755 });
    let created = Operation::Create {
        path: path("/doomed/f"),
        overwrite: false,
        mode: 0o640,
        replication: 3,
        chunk_size: 65536,
        lease_until_ms: 6000,
        chunk: Some(ChunkId(first)),
    };
    let Answer::Created { file, .. } = answer(&mut it, created) else { panic!("not created") };
    let chunks = first..first + 70;
    for chunk in chunks.clone().skip(1) {
        let (chunk, abandon) = (ChunkId(chunk), None);
        let command = Operation::AllocateChunk { file, chunk, abandon };
        let lsn = Lsn(it.applied().0 + 1);
        it.apply(lsn, &Command::own(1000, command)).expect("fine");
    }
    let crc = distrifs_proto::types::Crc32c::of(b"chunk");
    let written = |chunk| WrittenChunk { chunk, generation: FIRST_GENERATION, length: 65536, crc };
    let chunks = chunks.map(|chunk| written(ChunkId(chunk))).collect();
    apply(&mut it, Operation::Complete { file, chunks });
    apply(&mut it, Operation::Remove { path: path("/doomed"), recursive: true });
    assert_eq!(it.doomed_count(), 2, "the directory and its file");
    it
}

fn unhex(hex: &str) -> Vec<u8> {
    let hex = hex.replace('\n', "");
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex");
    (0..hex.len() / 2).map(byte).collect()
}

fn image(namespace: &mut Namespace) -> Vec<u8> {
    let mut snapshot = namespace.freeze();
    let mut bytes = Vec::new();
    while namespace.page(&mut snapshot, super::PAGE_BYTES, &mut bytes) {}
    namespace.thaw();
    bytes
}

fn restored(bytes: &[u8], piece: usize) -> Result<Namespace, ImageError> {
    let mut restorer = Restorer::new();
    for piece in bytes.chunks(piece) {
        restorer.feed(piece)?;
    }
    restorer.finish()
}

#[test]
fn pieces_of_any_size_give_the_state_back() {
    for mut namespace in [sample(), lossy_sample(), doomed_sample()] {
        let bytes = image(&mut namespace);
        for piece in [1, 2, 3, 7, 64, bytes.len()] {
            assert!(restored(&bytes, piece).expect("an image") == namespace, "pieces of {piece}");
        }
    }
}

#[test]
fn the_bytes_of_version_3() {
    let hex: String = image(&mut doomed_sample()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("version_3.hex").replace('\n', ""));
}

#[test]
fn what_versions_1_to_3_wrote_is_read() {
    let written = [
        (1, include_str!("version_1.hex"), sample()),
        (2, include_str!("version_2.hex"), lossy_sample()),
        (3, include_str!("version_3.hex"), doomed_sample()),
    ];
    for (version, hex, expected) in written {
        let bytes = unhex(hex);
        assert_eq!(bytes[5], version, "the version");
        let read = restored(&bytes, bytes.len()).expect("an image");
        assert!(read == expected, "version {version}");
        assert_eq!(read.check_invariants(), Ok(()), "version {version}");
    }
}

#[test]
fn an_image_without_the_section_of_its_version_is_refused() {
    let bytes = image(&mut sample());
    // The last two frames: no doomed trees, and the end.
    let frame = [1, 0, 0, 0, 9];
    let at = bytes.windows(frame.len()).rposition(|it| it == frame).expect("the section");
    let without = [&bytes[..at], &bytes[at + frame.len()..]].concat();
    assert!(matches!(restored(&without, 4096), Err(ImageError::Malformed { .. })));
}

#[test]
fn a_newer_version_is_refused() {
    let mut bytes = image(&mut sample());
    assert_eq!(bytes[5], 3, "the version");
    bytes[5] = 4;
    assert_eq!(restored(&bytes, bytes.len()).expect_err("newer"), ImageError::Newer(4));
}

#[test]
fn a_cut_image_is_refused() {
    let bytes = image(&mut sample());
    for length in 0..bytes.len() {
        assert!(restored(&bytes[..length], 4096).is_err(), "{length} bytes of {}", bytes.len());
    }
}

proptest! {
    /// The file has checksums; but whatever comes through must not end in a panic or an endless allocation.
    #[test]
    fn damage_never_panics(at in any::<usize>(), value in any::<u8>(), cut in any::<u16>()) {
        let mut bytes = image(&mut doomed_sample());
        let at = at % bytes.len();
        bytes[at] = value;
        let end = bytes.len() - usize::from(cut) % 40;
        if let Ok(namespace) = restored(&bytes[..end], 100) {
            // What was taken can be asked, and be walked over.
            let _ = namespace.check_invariants();
            let listed = namespace.list(&caller(), &NsPath::root(), true, "", 1000);
            prop_assert!(listed.is_ok_and(|page| page.entries.len() <= 1000));
        }
    }
}
