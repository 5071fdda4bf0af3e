//! Bytes there and back: sizes around the chunk, ranges, streams, names, trees.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use distrifs_testkit::{Cluster, random_bytes, tree_of};

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");

/// The chunk size of the testkit's clusters.
const CHUNK: usize = 262_144;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_size_around_blocks_and_chunks_comes_back_identical() {
    let cluster = Cluster::start(BINARY);
    for size in [0, 1, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 4097] {
        let bytes = random_bytes(size, size as u64);
        let file = cluster.scratch_file(format!("in-{size}"), &bytes);
        let (path, stream) = (format!("/file-{size}"), format!("/stream-{size}"));
        let _ = cluster.run(&["put", text(&file), &path]).ok();
        let _ = cluster.run_with_stdin(&["put", "-", &stream], &bytes).ok();

        let copy = cluster.scratch(format!("out-{size}"));
        let _ = cluster.run(&["get", &path, text(&copy)]).ok();
        assert!(std::fs::read(&copy).expect("a copy") == bytes, "get of {size}");
        assert!(cluster.run(&["cat", &path]).ok().stdout == bytes, "cat of {size}");
        assert!(cluster.run(&["get", &stream, "-"]).ok().stdout == bytes, "a stream of {size}");

        let crc = format!("{:08x}", crc32c::crc32c(&bytes));
        for path in [&path, &stream] {
            let stat = cluster.run(&["stat", "--chunks", "--json", path]).ok().json().remove(0);
            assert_eq!((&stat["size"], &stat["crc32c"]), (&size.into(), &crc.as_str().into()));
            assert_eq!(stat["chunks"].as_array().map(Vec::len), Some(size.div_ceil(CHUNK)));
        }
        // On each disk, a chunk's file is exactly the chunk's bytes: in order they are the file.
        let mut replicas = cluster.replica_files(&path);
        assert_eq!(replicas.len(), 3 * size.div_ceil(CHUNK));
        replicas.sort_by_key(|replica| replica.index);
        let first_of_each = replicas.iter().step_by(3);
        let on_disk: Vec<u8> =
            first_of_each.flat_map(|replica| std::fs::read(&replica.path).expect("a replica")).collect();
        assert!(on_disk == bytes, "the disks hold the file of {size}");
    }
}

#[test]
fn a_range_is_exactly_those_bytes_cut_at_the_end() {
    let cluster = Cluster::start(BINARY);
    let size = 2 * CHUNK + 1000;
    let bytes = random_bytes(size, 7);
    let file = cluster.scratch_file("in", &bytes);
    let _ = cluster.run(&["put", text(&file), "/f"]).ok();
    let ranges = [
        (0, 0),
        (0, 1),
        (1, 4096),
        (4095, 2),
        (CHUNK - 1, 2),
        (CHUNK, CHUNK),
        (100, 2 * CHUNK),
        (size - 1, 1),
        (size - 1, 1000),
        (size, 1),
        (0, 10 * size),
    ];
    for (offset, length) in ranges {
        let wanted = &bytes[offset..size.min(offset + length)];
        let out = cluster.run(&["getrange", "/f", &offset.to_string(), &length.to_string(), "-"]).ok();
        assert!(out.stdout == wanted, "{length} bytes at {offset}: got {}", out.stdout.len());
    }
    let beyond = (size + 1).to_string();
    let target = cluster.scratch("out");
    let _ = cluster.run(&["getrange", "/f", &beyond, "1", text(&target)]).fails_with(1);
    assert!(!target.exists(), "a refused range leaves no target");
    let _ = cluster.run(&["getrange", "/f", "5", "10", text(&target)]).ok();
    let _ = cluster.run(&["getrange", "/f", "0", "10", text(&target)]).fails_with(4);
    assert_eq!(std::fs::read(&target).expect("the old range"), &bytes[5..15]);
    let _ = cluster.run(&["getrange", "-f", "/f", "0", "10", text(&target)]).ok();
    assert_eq!(std::fs::read(&target).expect("the new range"), &bytes[..10]);
    let _ = cluster.run(&["getrange", "/f", "-1", "10", "-"]).fails_with(2);
    let _ = cluster.run(&["getrange", "/", "0", "1", "-"]).fails_with(4);
}

#[test]
fn names_of_any_kind_keep_their_bytes() {
    let cluster = Cluster::start(BINARY);
    let odd = [
        " spaces  around ",
        "ünïcødé 😀",
        "-dash",
        "--",
        "*?[a]$(x)",
        "new\nline",
        "tab\tq'\"\\",
        &"n".repeat(255),
    ];
    let _ = cluster.run(&["mkdir", "/odd"]).ok();
    for name in odd {
        let file = cluster.scratch_file(name, name.as_bytes());
        let _ = cluster.run(&["put", text(&file), "/odd"]).ok();
        assert_eq!(cluster.run(&["cat", &format!("/odd/{name}")]).ok().stdout, name.as_bytes());
    }
    let mut listed: Vec<String> = Vec::new();
    for entry in cluster.run(&["ls", "--json", "/odd"]).ok().json() {
        listed.push(entry["path"].as_str().expect("a path").strip_prefix("/odd/").expect("below").to_owned());
    }
    let mut expected = odd.to_vec();
    expected.sort_unstable();
    assert_eq!(listed, expected);

    // A relative local name with a dash needs `--`.
    let mut command = cluster.command();
    command.current_dir(cluster.scratch("")).args(["put", "--", "-dash", "/dashed"]);
    let _ = distrifs_testkit::run(&mut command, b"").ok();

    let bad = cluster.scratch_file(OsStr::from_bytes(b"bad-\xff"), b"bytes");
    let put = |target: &str| cluster.run(&[OsStr::new("put"), bad.as_os_str(), OsStr::new(target)]);
    let refused = put("/odd").fails_with(1);
    assert!(refused.stderr.contains("UTF-8"), "{}", refused.stderr);
    let _ = put("/named").ok();
    assert_eq!(cluster.run(&["cat", "/named"]).ok().stdout, b"bytes");
}

#[test]
fn a_tree_comes_back_with_its_files_modes_and_empty_directories() {
    const MANY: usize = 1050;
    let cluster = Cluster::start(BINARY);
    let tree = cluster.scratch("tree");
    std::fs::create_dir_all(tree.join("deep/er/still/empty")).expect("folders");
    std::fs::create_dir(tree.join("many")).expect("a folder");
    for number in 0..MANY {
        // More than one page of a listing. Most are empty: it is the names that matter.
        let content = if number % 50 == 0 { random_bytes(number, 1) } else { Vec::new() };
        std::fs::write(tree.join(format!("many/{number:04}")), content).expect("a file");
    }
    std::fs::write(tree.join("deep/big file"), random_bytes(3 * CHUNK + 1, 2)).expect("a file");
    std::fs::write(tree.join("deep/er/tool"), b"#!/bin/sh\n").expect("a file");
    std::fs::set_permissions(tree.join("deep/er/tool"), std::fs::Permissions::from_mode(0o755))
        .expect("a mode");
    std::fs::set_permissions(tree.join("many/0000"), std::fs::Permissions::from_mode(0o400)).expect("a mode");

    // To a new name, then into a directory that is there.
    let _ = cluster.run(&["put", "-r", text(&tree), "/new"]).ok();
    let _ = cluster.run(&["mkdir", "/dir"]).ok();
    let _ = cluster.run(&["put", "-r", text(&tree), "/dir"]).ok();
    for remote in ["/new", "/dir/tree"] {
        let copy = cluster.scratch(format!("copy{}", remote.replace('/', "-")));
        let _ = cluster.run(&["get", "-r", remote, text(&copy)]).ok();
        assert!(tree_of(&copy) == tree_of(&tree), "{remote} differs");
    }
    let into = cluster.scratch("into");
    std::fs::create_dir(&into).expect("a folder");
    let _ = cluster.run(&["get", "-r", "/new/deep", text(&into)]).ok();
    assert!(tree_of(&into.join("deep")) == tree_of(&tree.join("deep")));
    assert_eq!(cluster.run(&["ls", "/new/many"]).ok().text().lines().count(), MANY);
    assert_eq!(cluster.run(&["ls", "-R", "/new"]).ok().text().lines().count(), MANY + 7);

    // Once more: each file is there already, each is told, none is changed.
    let again = cluster.run(&["put", "-q", "-r", text(&tree.join("deep")), "/new"]);
    assert_eq!((again.status, again.stderr.lines().count()), (1, 3), "{}", again.stderr);
    let _ = cluster.run(&["put", "-f", "-r", text(&tree.join("deep")), "/new"]).ok();
    let _ = cluster.run(&["get", "/new", text(&into)]).fails_with(4);
}

#[test]
fn what_cannot_be_stored_is_told_and_the_rest_goes_on() {
    let cluster = Cluster::start(BINARY);
    let tree = cluster.scratch("tree");
    std::fs::create_dir_all(tree.join("sub")).expect("folders");
    std::fs::write(tree.join("good"), b"good").expect("a file");
    std::fs::write(tree.join("sub/good"), b"good too").expect("a file");
    symlink("good", tree.join("link")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("sub/socket")).expect("a socket");
    let mut expected = 2;
    if !rustix::process::geteuid().is_root() {
        std::fs::write(tree.join("secret"), b"secret").expect("a file");
        std::fs::set_permissions(tree.join("secret"), std::fs::Permissions::from_mode(0o000))
            .expect("a mode");
        expected += 1;
    }
    let put = cluster.run(&["put", "-r", text(&tree), "/t"]);
    assert_eq!((put.status, put.stderr.lines().count()), (1, expected + 1), "{}", put.stderr);
    assert!(put.stderr.contains("symbolic link") && put.stderr.contains("socket"), "{}", put.stderr);
    assert_eq!(cluster.run(&["ls", "-R", "/t"]).ok().text(), "/t/good\n/t/sub\n/t/sub/good\n");
    // A link named on the command line is followed.
    let _ = cluster.run(&["put", text(&tree.join("link")), "/followed"]).ok();
    assert_eq!(cluster.run(&["cat", "/followed"]).ok().stdout, b"good");
}

#[test]
fn a_get_leaves_a_whole_target_or_none() {
    let cluster = Cluster::start(BINARY);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], b"remote").ok();
    let out = cluster.scratch("out");
    std::fs::create_dir(&out).expect("a folder");
    let _ = cluster.run(&["get", "/missing", text(&out.join("x"))]).fails_with(3);
    let _ = cluster.run(&["get", "/f", text(&out.join("no/x"))]).fails_with(3);
    let _ = cluster.run(&["get", "/f", text(&out)]).ok();
    std::fs::write(out.join("f"), b"mine").expect("a file");
    let _ = cluster.run(&["get", "/f", text(&out)]).fails_with(4);
    assert_eq!(std::fs::read(out.join("f")).expect("mine"), b"mine");
    let _ = cluster.run(&["get", "-f", "/f", text(&out)]).ok();
    assert_eq!(std::fs::read(out.join("f")).expect("theirs"), b"remote");
    let _ = cluster.run(&["get", "-f", "/f", "/dev/null"]).ok();
    assert_eq!(names(&out), ["f"], "no temporary file stays");
}
