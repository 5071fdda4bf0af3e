//! Starts from real folders with checkpoints and logs in every condition that the table knows.

use std::sync::Arc;

use std::fs;

use distrifs_proto::types::{Epoch, RequestId};
use tempfile::TempDir;

use super::*;
use crate::namespace::image::PAGE_BYTES;
use crate::namespace::{Command, NsPath, Operation};
use crate::permission::Caller;

const CLUSTER: ClusterId = ClusterId(77);

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn leadership(config: &MasterConfig) -> Leadership {
    Leadership::begin(&config.data_dir).expect("leads")
}

/// A folder on which a master could start.
struct Bench {
    _dir: TempDir,
    config: MasterConfig,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let config = MasterConfig::new(dir.path().join("m"), "op");
        fs::create_dir(&config.data_dir).expect("made");
        Leadership::format(&config.data_dir).expect("formatted");
        Self { _dir: dir, config }
    }

    fn start(&self) -> Result<Opened, StartError> {
        open(&self.config, CLUSTER, &leadership(&self.config), Predecessor::Gone)
    }

    /// A start that makes `count` more directories, optionally takes a checkpoint, and lets go of the log up to
    /// `release`.
    fn live(&self, count: u64, checkpoint: bool, release: Option<u64>) -> Namespace {
        let Opened { log, mut namespace, .. } = self.start().expect("starts");
        for _ in 0..count {
            let lsn = Lsn(namespace.applied().0 + 1);
            let caller = Caller { user: "op".into(), groups: vec!["op".into()], superuser: true };
            let caller = Arc::new(caller);
            let path = NsPath::parse(&format!("/d{lsn}")).expect("a path");
            let operation = Operation::Mkdir { path, parents: false, mode: 0o755 };
            let request = Some(RequestId(u128::from(lsn.0)));
            let command = Command { at_ms: 1, request, caller, operation };
            let range = run(log.append(vec![format::encode(&command)])).expect("appended");
            assert_eq!(range.start, lsn);
            namespace.apply(lsn, &command).expect("applied");
        }
        if checkpoint {
            let folder = CheckpointFolder::open(&self.config.checkpoint_dir()).expect("a folder");
            let mut snapshot = namespace.freeze();
            let mut writer = folder.create(CLUSTER, snapshot.applied(), Epoch(1)).expect("begun");
            let mut page = Vec::new();
            while namespace.page(&mut snapshot, PAGE_BYTES, &mut page) {}
            writer.write(&page).expect("written");
            writer.finish().expect("finished");
            namespace.thaw();
        }
        if let Some(upto) = release {
            run(log.release(Lsn(upto))).expect("released");
        }
        run(log.close()).expect("closed");
        namespace
    }

    fn checkpoints(&self) -> Vec<PathBuf> {
        let folder = CheckpointFolder::open(&self.config.checkpoint_dir()).expect("a folder");
        folder.list().expect("listed").into_iter().map(|it| it.path).collect()
    }

    fn refusal(&self) -> String {
        match self.start() {
            Ok(_) => panic!("it started"),
            Err(error) => error.to_string(),
        }
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[test]
fn without_checkpoints_the_whole_log_is_replayed() {
    let bench = Bench::new();
    let live = bench.live(5, false, None);
    assert!(bench.start().expect("starts").namespace == live);
}

#[test]
fn the_newest_checkpoint_and_the_log_behind_it_are_the_state() {
    let bench = Bench::new();
    bench.live(5, true, None);
    let live = bench.live(4, false, None);
    let opened = bench.start().expect("starts");
    assert_eq!(opened.checkpoint, Lsn(5));
    assert!(opened.namespace == live);
}

#[test]
fn a_damaged_newest_checkpoint_costs_a_longer_replay() {
    let bench = Bench::new();
    bench.live(5, true, None);
    bench.live(5, true, None);
    let live = bench.live(3, false, None);
    flip(&bench.checkpoints()[0]);
    let opened = bench.start().expect("starts");
    assert_eq!(opened.checkpoint, Lsn(5));
    assert!(opened.namespace == live);
    assert_eq!(bench.checkpoints().len(), 1, "the damaged one was put aside");
    assert!(
        fs::read_dir(bench.config.checkpoint_dir()).expect("listed").count() == 2,
        "and kept as evidence"
    );
}

#[test]
fn two_damaged_checkpoints_do_no_harm_while_the_log_is_whole() {
    let bench = Bench::new();
    bench.live(5, true, None);
    let live = bench.live(5, true, None);
    bench.checkpoints().iter().for_each(|path| flip(path));
    assert!(bench.start().expect("starts").namespace == live);
}

/// A log that begins behind its first record: 4,095 appends of a block each fill a segment.
fn released() -> Bench {
    let bench = Bench::new();
    bench.live(4200, true, None);
    bench.live(4200, true, Some(4200));
    bench
}

#[test]
fn without_any_checkpoint_a_released_log_is_refused() {
    let bench = released();
    assert!(bench.start().is_ok_and(|opened| opened.checkpoint == Lsn(8400)));
    let text = bench.refusal_after(|path| fs::remove_file(path).expect("removed"));
    assert!(text.contains("no checkpoint is here") && text.contains("begins at LSN"), "{text}");
}

#[test]
fn all_checkpoints_damaged_is_refused_and_says_what_can_be_saved() {
    let bench = released();
    let text = bench.refusal_after(flip);
    for part in ["no checkpoint can be read", "corrupt at byte", "begins at LSN", "inspect wal"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains('\n'), "one line");
}

impl Bench {
    fn refusal_after(&self, damage: impl Fn(&Path)) -> String {
        self.checkpoints().iter().for_each(|path| damage(path));
        let before = self.checkpoints();
        let text = self.refusal();
        assert_eq!(self.checkpoints(), before, "nothing was changed");
        text
    }
}

#[test]
fn a_log_that_ends_before_the_checkpoint_is_refused() {
    let bench = Bench::new();
    bench.live(5, false, None);
    let old = bench.config.wal_dir();
    let copy = bench.config.data_dir.join("copy");
    fs::create_dir(&copy).expect("made");
    for entry in fs::read_dir(&old).expect("listed") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), copy.join(entry.file_name())).expect("copied");
    }
    bench.live(5, true, None);
    fs::remove_dir_all(&old).expect("removed");
    fs::rename(&copy, &old).expect("renamed");
    let text = bench.refusal();
    assert!(text.contains("lost its tail or is an old copy") && text.contains("LSN 10"), "{text}");
}

#[test]
fn a_missing_segment_is_refused_by_name() {
    let bench = released();
    let mut logs: Vec<PathBuf> = fs::read_dir(bench.config.wal_dir())
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "log"))
        .collect();
    logs.sort();
    fs::remove_file(&logs[0]).expect("removed");
    let text = bench.refusal();
    assert!(text.contains("is missing") && text.contains("wal-"), "{text}");
}

#[test]
fn a_newer_image_and_another_clusters_are_refused() {
    let bench = Bench::new();
    bench.live(5, true, None);
    let path = bench.checkpoints().remove(0);
    let text = match open(&bench.config, ClusterId(78), &leadership(&bench.config), Predecessor::Gone) {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    };
    assert!(text.contains("belongs to cluster"), "{text}");
    // An image of a newer version, in a file that is whole.
    fs::remove_file(&path).expect("removed");
    let folder = CheckpointFolder::open(&bench.config.checkpoint_dir()).expect("a folder");
    let mut writer = folder.create(CLUSTER, Lsn(5), Epoch(1)).expect("begun");
    writer.write(&[2, 0, 0, 0, 1, 99]).expect("written");
    writer.finish().expect("finished");
    let text = bench.refusal();
    assert!(text.contains("image version 99"), "{text}");
}
