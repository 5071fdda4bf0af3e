//! The namespace as scripts see it: verbs, exit statuses, keys of `--json`.

use distrifs_testkit::{Cluster, Outcome, free_port, run};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn names(outcome: &Outcome) -> Vec<&str> {
    outcome.text().lines().collect()
}

#[test]
fn verbs_do_what_they_say_and_refuse_with_the_statuses_of_the_contract() {
    let cluster = Cluster::start(BINARY);
    let file = cluster.scratch_file("f", b"hello");
    let f = file.to_str().expect("UTF-8");

    // Directories.
    let _ = cluster.run(&["mkdir", "/a"]).ok();
    let _ = cluster.run(&["mkdir", "/a"]).fails_with(4);
    let _ = cluster.run(&["mkdir", "/x/y"]).fails_with(3);
    let _ = cluster.run(&["mkdir", "-p", "/x/y"]).ok();
    let _ = cluster.run(&["mkdir", "-p", "/x/y"]).ok();
    let _ = cluster.run(&["ls", "/missing"]).fails_with(3);
    let _ = cluster.run(&["stat", "/missing"]).fails_with(3);
    let _ = cluster.run(&["--user", "bob", "mkdir", "/b"]).fails_with(5);
    let _ = cluster.run(&["mkdir", "relative"]).fails_with(2);
    let _ = cluster.run(&["frobnicate"]).fails_with(2);
    let _ = cluster.run(&["mkdir", &format!("/{}", "n".repeat(256))]).fails_with(2);

    // Files.
    let _ = cluster.run(&["put", f, "/a/f"]).ok();
    let _ = cluster.run(&["put", f, "/a/f"]).fails_with(4);
    let _ = cluster.run(&["put", "-f", f, "/a/f"]).ok();
    let _ = cluster.run(&["put", f, "/x"]).ok();
    let _ = cluster.run(&["put", f, "/a/f/below"]).fails_with(4);
    let _ = cluster.run(&["put", f, "/none/f"]).fails_with(3);
    let _ = cluster.run(&["put", f, "/none/"]).fails_with(3);
    let _ = cluster.run(&["put", "/no/such/file", "/z"]).fails_with(3);
    let _ = cluster.run(&["put", cluster.folder().to_str().expect("UTF-8"), "/z"]).fails_with(4);
    let _ = cluster.run(&["--user", "bob", "put", f, "/a/bob"]).fails_with(5);
    let _ = cluster.run(&["mkdir", "/a/f"]).fails_with(4);
    let _ = cluster.run(&["cat", "/a"]).fails_with(4);
    let _ = cluster.run(&["cat", "/missing"]).fails_with(3);
    assert_eq!(names(&cluster.run(&["ls", "/x"]).ok()), ["f", "y"]);
    assert_eq!(names(&cluster.run(&["ls", "-R", "/"]).ok()), ["/a", "/a/f", "/x", "/x/f", "/x/y"]);
    assert_eq!(names(&cluster.run(&["ls", "/a/f"]).ok()), ["/a/f"]);
    let long = cluster.run(&["ls", "-l", "/x"]).ok();
    assert!(names(&long)[0].starts_with("-rw-r--r--  3  "), "{}", long.text());
    assert!(names(&long)[1].starts_with("drwxr-xr-x  -  "), "{}", long.text());

    // Moving.
    let _ = cluster.run(&["mv", "/missing", "/m"]).fails_with(3);
    let _ = cluster.run(&["mv", "/a/f", "/x/f"]).fails_with(4);
    let _ = cluster.run(&["mv", "/a/f", "/x/y"]).ok();
    assert_eq!(names(&cluster.run(&["ls", "-R", "/"]).ok()), ["/a", "/x", "/x/f", "/x/y", "/x/y/f"]);
    let _ = cluster.run(&["mv", "/x/y/f", "/renamed"]).ok();
    let _ = cluster.run(&["mv", "-f", "/renamed", "/x/f"]).ok();
    assert_ne!(cluster.run(&["mv", "/x", "/x/y"]).status, 0);
    let _ = cluster.run(&["mv", "/x", "/moved"]).ok();
    assert_eq!(names(&cluster.run(&["ls", "-R", "/"]).ok()), ["/a", "/moved", "/moved/f", "/moved/y"]);
    assert_eq!(cluster.run(&["cat", "/moved/f"]).ok().stdout, b"hello");

    // Removing.
    let _ = cluster.run(&["rm", "/missing"]).fails_with(3);
    let _ = cluster.run(&["rm", "/moved"]).fails_with(4);
    let _ = cluster.run(&["--user", "bob", "rm", "/moved/f"]).fails_with(5);
    let _ = cluster.run(&["rm", "/moved/f"]).ok();
    let _ = cluster.run(&["rm", "-r", "/moved"]).ok();
    let _ = cluster.run(&["rm", "/a"]).fails_with(4);
    let _ = cluster.run(&["rm", "-r", "/a"]).ok();
    assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "");
}

#[test]
fn json_has_the_stable_keys_and_nothing_else_is_on_standard_output() {
    const STAT: &[&str] = &[
        "chunk_size",
        "crc32c",
        "group",
        "mode",
        "mtime_ms",
        "owner",
        "path",
        "replication",
        "size",
        "type",
    ];
    let cluster = Cluster::start(BINARY);
    let put = cluster.run_with_stdin(&["put", "-", "/f"], b"123456789").ok();
    assert!(put.stdout.is_empty() && put.stderr.is_empty(), "{put:?}");
    let _ = cluster.run(&["mkdir", "/dir"]).ok();

    // Global options stand before or behind the command.
    let stat = &cluster.run(&["--json", "stat", "/f"]).ok().json()[0];
    assert_eq!(keys(stat), STAT);
    assert_eq!((&stat["path"], &stat["type"]), (&"/f".into(), &"file".into()));
    assert_eq!((&stat["size"], &stat["replication"]), (&9.into(), &3.into()));
    assert_eq!((&stat["mode"], &stat["crc32c"]), (&"0644".into(), &"e3069283".into()));
    assert_eq!(stat["chunk_size"], 262_144);

    let listed = cluster.run(&["ls", "/", "--json"]).ok().json();
    assert_eq!(listed.len(), 2);
    let directory = &listed[0];
    let mut without_crc = STAT.to_vec();
    without_crc.retain(|key| *key != "crc32c");
    assert_eq!(keys(directory), without_crc);
    assert_eq!((&directory["path"], &directory["type"]), (&"/dir".into(), &"dir".into()));
    assert_eq!(directory["mode"], "0755");
    assert_eq!(&listed[1], stat, "ls shows what stat shows");

    let chunks = cluster.run(&["stat", "--chunks", "--json", "/f"]).ok().json().remove(0);
    let chunk = &chunks["chunks"][0];
    assert_eq!(keys(chunk), ["crc32c", "generation", "id", "index", "length", "replicas"]);
    assert_eq!((&chunk["index"], &chunk["length"]), (&0.into(), &9.into()));
    assert_eq!(chunk["crc32c"], "e3069283");
    assert_eq!(chunk["id"].as_str().map(str::len), Some(16));
    assert_eq!(chunk["replicas"].as_array().map(Vec::len), Some(3));

    let nodes = cluster.run(&["nodes", "--json"]).ok().json();
    assert_eq!(nodes.len(), 3);
    for node in &nodes {
        let expected = [
            "address",
            "chunks",
            "chunks_in_quarantine",
            "data_dirs",
            "free_bytes",
            "id",
            "rack",
            "scrub",
            "state",
            "used_bytes",
            "why_suspect",
        ];
        assert_eq!(keys(node), expected);
        assert_eq!(node["state"], "live");
        assert!(node["free_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{node}");
    }
    let df = &cluster.run(&["df", "--json"]).ok().json()[0];
    assert_eq!(keys(df), ["capacity_bytes", "dead_nodes", "free_bytes", "live_nodes", "used_bytes"]);
    assert_eq!((&df["live_nodes"], &df["dead_nodes"]), (&3.into(), &0.into()));

    let _ = cluster.run(&["wait", "--datanodes", "3"]).ok();
    let _ = cluster.run(&["wait", "--datanodes", "99", "--timeout", "0.3"]).fails_with(8);
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let cluster = Cluster::start(BINARY);
    let bytes = distrifs_testkit::random_bytes(3 << 20, 1);
    let file = cluster.scratch_file("big", &bytes);
    let _ = cluster.run(&["put", file.to_str().expect("UTF-8"), "/big"]).ok();
    for arguments in [&["cat", "/big"][..], &["ls", "-l", "/"], &["nodes"]] {
        let mut client = cluster.spawn(arguments);
        drop(client.stdout.take());
        let output = client.wait_with_output().expect("its output");
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{arguments:?}: {output:?}");
    }
}

#[test]
fn without_a_master_every_command_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("distrifs.toml");
    std::fs::write(
        &config,
        format!("master_port = {}\nsocket_timeout = 0.5\nclient_retry = 1\n", free_port()),
    )
    .expect("written");
    for arguments in [&["ls", "/"][..], &["mkdir", "/a"], &["nodes"], &["df"], &["put", "-", "/a"]] {
        let mut command = std::process::Command::new(BINARY);
        for name in ["DISTRIFS_MASTERS", "DISTRIFS_MASTER_HOST", "DISTRIFS_MASTER_PORT"] {
            command.env_remove(name);
        }
        let _ = run(command.arg("--config").arg(&config).args(arguments), b"").fails_with(8);
    }
}

#[test]
fn copies_attributes_and_sums() {
    let cluster = Cluster::start(BINARY);
    let bytes: Vec<u8> = (0..700_000u32).map(|i| (i % 251) as u8).collect();
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    let chunks = cluster.chunk_files().len();

    // cp: no data moves, and the bytes stay as long as one of the two needs them.
    let _ = cluster.run(&["mkdir", "/d"]).ok();
    let _ = cluster.run(&["cp", "/f", "/d"]).ok();
    let _ = cluster.run(&["cp", "/f", "/d/f"]).fails_with(4);
    let _ = cluster.run(&["cp", "-f", "/f", "/d/f"]).ok();
    let _ = cluster.run(&["cp", "/f", "/f"]).fails_with(2);
    let _ = cluster.run(&["cp", "/d", "/e"]).fails_with(4);
    let _ = cluster.run(&["cp", "/none", "/e"]).fails_with(3);
    assert_eq!(cluster.chunk_files().len(), chunks, "no data has moved");
    let sum = cluster.run(&["checksum", "/f"]).ok();
    let _ = cluster.run(&["rm", "/f"]).ok();
    assert!(cluster.run(&["cat", "/d/f"]).ok().stdout == bytes);
    let of_copy = cluster.run(&["checksum", "/d/f"]).ok();
    assert_eq!(of_copy.text()[..8], sum.text()[..8]);
    assert_eq!(of_copy.text()[..8], format!("{:08x}", crc32c::crc32c(&bytes)));
    let row = cluster.run(&["checksum", "--json", "/d/f"]).ok().json().remove(0);
    assert_eq!(keys(&row), ["crc32c", "path", "size"]);
    let _ = cluster.run(&["checksum", "/d"]).fails_with(4);

    // du.
    let row = cluster.run(&["du", "--json", "/"]).ok().json().remove(0);
    assert_eq!(keys(&row), ["bytes", "directories", "files", "path", "stored_bytes"]);
    let count = |key: &str| row[key].as_u64().expect("a number");
    assert_eq!((count("bytes"), count("stored_bytes")), (700_000, 2_100_000));
    assert_eq!((count("files"), count("directories")), (1, 2));
    let _ = cluster.run(&["du", "/none"]).fails_with(3);

    // chmod, chown, setrep.
    let stat = |path: &str| cluster.run(&["stat", "--json", path]).ok().json().remove(0);
    let _ = cluster.run(&["chown", "alice:staff", "/d"]).ok();
    let _ = cluster.run(&["chmod", "1770", "/d"]).ok();
    let row = stat("/d");
    assert_eq!(
        (&row["owner"], &row["group"], &row["mode"]),
        (&"alice".into(), &"staff".into(), &"1770".into())
    );
    let _ = cluster.run(&["--user", "alice", "chmod", "g-w,o+rx", "/d"]).ok();
    assert_eq!(stat("/d")["mode"], "1755");
    let _ = cluster.run(&["--user", "bob", "chmod", "777", "/d"]).fails_with(5);
    let _ = cluster.run(&["--user", "alice", "chown", "bob", "/d"]).fails_with(5);
    for mode in ["8", "77777", "u+q", ""] {
        let _ = cluster.run(&["chmod", mode, "/d"]).fails_with(2);
    }
    for owner in ["", ":", "a b", "a/b"] {
        let _ = cluster.run(&["chown", owner, "/d"]).fails_with(2);
    }
    let _ = cluster.run(&["setrep", "2", "/d/f"]).ok();
    assert_eq!(stat("/d/f")["replication"], 2);
    for (factor, status) in [("0", 2), ("300", 2), ("-1", 2)] {
        let _ = cluster.run(&["setrep", factor, "/d/f"]).fails_with(status);
    }
    let _ = cluster.run(&["setrep", "2", "/d"]).fails_with(4);
}

/// Bob, and alice's directory that nobody else may enter: no command tells him what is in it.
#[test]
fn a_closed_directory_stays_closed_by_every_command() {
    let cluster = Cluster::start(BINARY);
    for command in [
        &["mkdir", "/alice"][..],
        &["chown", "alice", "/alice"],
        &["mkdir", "/all"],
        &["chmod", "777", "/all"],
    ] {
        let _ = cluster.run(command).ok();
    }
    let file = cluster.scratch_file("f", b"secret");
    let f = file.to_str().expect("UTF-8");
    let _ = cluster.run(&["--user", "alice", "put", f, "/alice/there"]).ok();
    let _ = cluster.run(&["--user", "alice", "chmod", "700", "/alice"]).ok();
    let _ = cluster.run(&["--user", "bob", "put", f, "/all/bobs"]).ok();
    let out = cluster.scratch("out");
    let out = out.to_str().expect("UTF-8");
    let told = |path: &str| -> Vec<(String, String)> {
        let commands: [&[&str]; 19] = [
            &["ls", path],
            &["ls", "-R", path],
            &["stat", path],
            &["stat", "--chunks", path],
            &["cat", path],
            &["get", path, out],
            &["getrange", path, "0", "1", out],
            &["checksum", path],
            &["du", path],
            &["mv", path, "/all/taken"],
            &["mv", "-f", "/all/bobs", path],
            &["cp", path, "/all/taken"],
            &["cp", "-f", "/all/bobs", path],
            &["rm", path],
            &["rm", "-r", path],
            &["chmod", "777", path],
            &["chown", "bob", path],
            &["setrep", "1", path],
            &["put", "-f", f, path],
        ];
        let tell = |command: &&[&str]| {
            let mut arguments = vec!["--user", "bob"];
            arguments.extend(*command);
            let refused = cluster.run(&arguments).fails_with(5);
            (command[0].to_owned(), refused.stderr.replace(path, "PATH"))
        };
        commands.iter().map(tell).collect()
    };
    assert_eq!(told("/alice/there"), told("/alice/absent"), "what is there is told from what is not");
    let _ = cluster.run(&["--user", "bob", "ls", "-R", "/"]).fails_with(5);
    let _ = cluster.run(&["--user", "bob", "du", "/"]).fails_with(5);
    assert_eq!(cluster.run(&["cat", "/alice/there"]).ok().stdout, b"secret");
    assert!(!std::path::Path::new(out).exists(), "a failed get leaves no target");
}

/// Each gets its status and one clear line, writes nothing locally, and changes nothing in the cluster.
#[test]
fn bad_input_on_the_command_line_changes_nothing() {
    let cluster = Cluster::start(BINARY);
    let file = cluster.scratch_file("f", b"hello");
    let f = file.to_str().expect("UTF-8");
    let _ = cluster.run(&["mkdir", "-p", "/d/sub"]).ok();
    let _ = cluster.run(&["put", f, "/d/f"]).ok();
    let everything = || {
        let listed = cluster.run(&["ls", "-R", "--json", "/"]).ok();
        let chunks = cluster.run(&["stat", "--chunks", "--json", "/d/f"]).ok();
        (listed.stdout, chunks.stdout)
    };
    let before = everything();
    let out = cluster.scratch("out");
    let o = out.to_str().expect("UTF-8");
    let (long, deep) = (format!("/{}", "n".repeat(256)), "/n".repeat(300));
    let endless = "/nnnnnnn".repeat(600);
    let user = "n".repeat(256);
    let rows: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec!["mkdir", ""], 2, "absolute"),
        (vec!["mkdir", "d/x"], 2, "absolute"),
        (vec!["mkdir", &long], 2, "256 bytes"),
        (vec!["mkdir", "-p", &deep], 2, "300 names"),
        (vec!["mkdir", "-p", &endless], 2, "4800 bytes"),
        (vec!["ls", "/no\nsuch"], 3, "/no?such: no such file"),
        (vec!["mkdir", "/d/f/x"], 4, "not a directory"),
        (vec!["mkdir", "/"], 4, "already exists"),
        (vec!["put", f, "/d/f/x"], 4, "not a directory"),
        (vec!["put", "-f", f, "/d/sub/../f/x"], 4, "not a directory"),
        (vec!["put", f, "/d/f"], 4, "-f"),
        (vec!["mv", "/d", "/d/sub"], 2, "into itself"),
        (vec!["mv", "/d", "/d/sub/x"], 2, "into itself"),
        (vec!["mv", "/", "/x"], 2, "root"),
        (vec!["mv", "/d/f", &long], 2, "256 bytes"),
        (vec!["rm", "-r", "/"], 2, "root"),
        (vec!["rm", "-r", "/d/.."], 2, "root"),
        (vec!["cp", "/d", "/e"], 4, "is a directory"),
        (vec!["cp", "/d/f", "/d/f"], 2, "same file"),
        (vec!["chmod", "99999", "/d/f"], 2, "not a mode"),
        (vec!["chmod", "-1", "/d/f"], 2, "not a mode"),
        (vec!["chmod", "0o600", "/d/f"], 2, "not a mode"),
        (vec!["chown", &user, "/d/f"], 2, "longer than 255"),
        (vec!["chown", "a:b:c", "/d/f"], 2, "name"),
        (vec!["setrep", "17", "/d/f"], 2, "1..=16"),
        (vec!["setrep", "99999999999999999999", "/d/f"], 2, "N"),
        (vec!["getrange", "/d/f", "-1", "5", o], 2, "-1"),
        (vec!["getrange", "/d/f", "18446744073709551616", "5", o], 2, "number of bytes"),
        (vec!["getrange", "/d/f", "0", "-5", o], 2, "-5"),
        (vec!["getrange", "/d/f", "6", "5", o], 1, "beyond the end"),
        (vec!["getrange", "/d", "0", "5", o], 4, "is a directory"),
        (vec!["get", "/d/none", o], 3, "no such file"),
        (vec!["--user", "", "mkdir", "/m"], 2, "empty"),
        (vec!["--user", "a b", "mkdir", "/m"], 2, "space"),
        (vec!["--user", "root:", "mkdir", "/m"], 2, "colon"),
        (vec!["--user", "\u{f6}", "mkdir", "/m"], 2, "ASCII"),
        (vec!["--user", &user, "mkdir", "/m"], 2, "longer than 255"),
        (vec!["--user", "nobody-here", "mkdir", "/m"], 5, "nobody-here needs write on /"),
    ];
    for (arguments, status, says) in rows {
        let refused = cluster.run(&arguments).fails_with(status);
        assert!(refused.stderr.contains(says), "{arguments:?}: {} does not say {says:?}", refused.stderr);
        assert!(refused.stderr.len() < 1200, "{arguments:?}: {} bytes", refused.stderr.len());
    }
    for arguments in [&["mkdir"][..], &["put", f], &["cat"], &["rm", "-r"]] {
        use std::os::unix::ffi::OsStrExt;
        let mut command = cluster.command();
        command.args(arguments).arg(std::ffi::OsStr::from_bytes(b"/d/\xff"));
        let refused = run(&mut command, b"").fails_with(2);
        assert!(refused.stderr.contains("UTF-8"), "{}", refused.stderr);
    }
    assert_eq!(everything(), before);
    assert!(!out.exists(), "nothing is written for a refusal");
}
