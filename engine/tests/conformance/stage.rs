//! Where a test body runs: a body of the seam and an empty folder on its disk.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use distrifs_engine::io::{Body, Buf, Io, Shared, SimWorld, block_on, block_on_inline, probe_uring};

/// Against hanging; no test asserts it. The simulated clock gets there as soon as nothing can run.
const LIMIT: Duration = Duration::from_secs(120);

/// What a test body gets.
pub(crate) struct Stage {
    pub(crate) io: Io,
    pub(crate) dir: PathBuf,
}

impl Stage {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

pub(crate) fn on_uring<F: Future<Output = ()>>(test: impl FnOnce(Stage) -> F) {
    match probe_uring() {
        Ok(()) => on_real(Body::Uring, test),
        Err(reason) => println!("skipped: no io_uring here: {reason}"),
    }
}

pub(crate) fn on_posix<F: Future<Output = ()>>(test: impl FnOnce(Stage) -> F) {
    on_real(Body::Posix, test);
}

pub(crate) fn on_inline<F: Future<Output = ()>>(test: impl FnOnce(Stage) -> F) {
    let folder = tempfile::tempdir().unwrap();
    block_on_inline(Body::Posix, |io| on(io, folder.path(), test)).unwrap();
}

pub(crate) fn on_sim<F: Future<Output = ()>>(test: impl FnOnce(Stage) -> F) {
    let world = SimWorld::new(1);
    world.create_dir_all(Path::new("/disk"));
    run(Body::Sim(world), Path::new("/disk"), test);
}

fn on_real<F: Future<Output = ()>>(body: Body, test: impl FnOnce(Stage) -> F) {
    let folder = tempfile::tempdir().unwrap();
    run(body, folder.path(), test);
}

fn run<F: Future<Output = ()>>(body: Body, dir: &Path, test: impl FnOnce(Stage) -> F) {
    block_on(body, |io| on(io, dir, test)).unwrap();
}

async fn on<F: Future<Output = ()>>(io: Io, dir: &Path, test: impl FnOnce(Stage) -> F) {
    let stage = Stage { io: io.clone(), dir: dir.to_owned() };
    io.timeout(LIMIT, test(stage)).await.expect("the test does not hang");
}

/// The bodies of the operating system that work here.
pub(crate) fn real_bodies() -> Vec<Body> {
    match probe_uring() {
        Ok(()) => vec![Body::Uring, Body::Posix],
        Err(reason) => {
            println!("without io_uring: {reason}");
            vec![Body::Posix]
        }
    }
}

/// Bytes that differ by position and by `salt`.
pub(crate) fn pattern(len: usize, salt: u8) -> Buf {
    let mut buf = Buf::alloc(len);
    for (at, byte) in buf.iter_mut().enumerate() {
        *byte = (at % 251) as u8 ^ (at >> 12) as u8 ^ salt;
    }
    buf
}

pub(crate) fn shared(bytes: &[u8]) -> Shared {
    let mut buf = Buf::alloc(bytes.len());
    buf.copy_from_slice(bytes);
    buf.share()
}
