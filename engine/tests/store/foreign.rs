//! Things in a data folder that are no chunks: on the real bodies, since only a real disk has links and pipes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use distrifs_engine::io::{Body, Io, block_on, probe_uring};
use distrifs_engine::store::{ChunkStore, Folder, StoreError};
use distrifs_proto::types::{ChunkId, NodeId};

use crate::{CLUSTER, content, read, write};

fn bodies() -> Vec<Body> {
    match probe_uring() {
        Ok(()) => vec![Body::Uring, Body::Posix],
        Err(reason) => {
            println!("without io_uring: {reason}");
            vec![Body::Posix]
        }
    }
}

/// Runs on each body, with a data folder that has the chunks 1 and 2, and a folder elsewhere with something precious.
pub(crate) fn on_real(test: &impl AsyncFn(Io, &Path, &Path)) {
    for body in bodies() {
        let dir = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (dir.path().join("data"), dir.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("precious"), "precious").unwrap();
        let _folder = Folder::open(&root, NodeId(1)).unwrap();
        block_on(body, |io| {
            let (root, elsewhere) = (&root, &elsewhere);
            async move {
                let store = ChunkStore::attach(io.clone(), root.clone(), None);
                write(&store, 1).await.unwrap();
                write(&store, 2).await.unwrap();
                test(io, root, elsewhere).await;
            }
        })
        .unwrap();
        assert_eq!(fs::read_to_string(elsewhere.join("precious")).unwrap(), "precious");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    }
}

fn in_quarantine(root: &Path) -> Vec<String> {
    let listing = fs::read_dir(root.join("quarantine")).unwrap();
    let mut names: Vec<_> = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const DATA: &str = "chunk-0000000000000001";
const META: &str = "chunk-0000000000000001.meta";

#[test]
fn what_is_no_file_is_no_chunk_and_is_left_where_it_is() {
    for (name, partner) in [(DATA, META), (META, DATA)] {
        for thing in ["link", "broken link", "directory", "pipe"] {
            on_real(&async |io, root, elsewhere| {
                let path = root.join("chunks/00").join(name);
                match thing {
                    // What it leads to would even be the right bytes.
                    "link" => {
                        fs::rename(&path, root.parent().unwrap().join("moved")).unwrap();
                        symlink(root.parent().unwrap().join("moved"), &path).unwrap();
                    }
                    "broken link" => {
                        fs::remove_file(&path).unwrap();
                        symlink(elsewhere.join("nothing"), &path).unwrap();
                    }
                    "directory" => {
                        fs::remove_file(&path).unwrap();
                        fs::create_dir(&path).unwrap();
                    }
                    _ => {
                        fs::remove_file(&path).unwrap();
                        pipe(&path);
                    }
                }
                let store = ChunkStore::attach(io, root.to_owned(), None);
                // A reader that comes before the next start neither waits nor is served.
                let error = read(&store, 1).await.unwrap_err();
                assert!(!matches!(error, StoreError::NoSuchChunk { .. }), "{thing} {name}: {error}");
                let found = store.inventory(CLUSTER).await.unwrap();
                let chunks: Vec<_> = found.replicas.iter().map(|it| it.chunk).collect();
                assert_eq!(chunks, [ChunkId(2)], "{thing} {name}");
                assert_eq!(found.quarantined.len(), 1, "{thing} {name}");
                assert_eq!(in_quarantine(root), [partner], "{thing} {name}");
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                assert!(!kind.is_file(), "{thing} {name}: it is as it was");
                assert_eq!(read(&store, 2).await.unwrap(), content(2));
            });
        }
    }
}

#[test]
fn a_link_in_tmp_is_neither_followed_nor_a_place_to_write_to() {
    on_real(&async |io, root, elsewhere| {
        for name in ["tmp/chunk-0000000000000003", "tmp/chunk-0000000000000004.meta"] {
            symlink(elsewhere.join("precious"), root.join(name)).unwrap();
        }
        let store = ChunkStore::attach(io, root.to_owned(), None);
        assert!(matches!(write(&store, 3).await.unwrap_err(), StoreError::Exists { .. }));
        write(&store, 4).await.unwrap_err();
        store.clear_tmp().await.unwrap();
        assert_eq!(
            fs::read_link(root.join("tmp/chunk-0000000000000003")).unwrap(),
            elsewhere.join("precious")
        );
    });
}

fn pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}
