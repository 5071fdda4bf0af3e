//! Only one master leads; the next one takes over by itself, and what runs meanwhile goes on.

mod loss;
mod relay;
mod stopped;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use distrifs_testkit::{Cluster, ClusterOptions, Daemon, free_port, random_bytes, run, wait_until};

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");
/// The chunk size of the testkit's clusters.
const CHUNK: usize = 262_144;

/// A cluster whose datanodes and clients know two masters, the address of the second and its log.
struct Pair {
    cluster: Cluster,
    ports: [u16; 2],
}

impl Pair {
    fn start() -> Self {
        Self::start_with(|ports| vec![("DISTRIFS_MASTERS", masters(ports))])
    }

    /// With these variables, which are told the ports of the masters.
    fn start_with(environment: impl FnOnce([u16; 2]) -> Vec<(&'static str, String)>) -> Self {
        let ports = [free_port(), free_port()];
        let cluster = Cluster::start_with(
            BINARY,
            &ClusterOptions {
                environment: environment(ports),
                master_port: Some(ports[0]),
                ..ClusterOptions::default()
            },
        );
        Self { cluster, ports }
    }

    /// One more master on the cluster's folder.
    fn master(&self, at: usize) -> Daemon {
        let listen = format!("127.0.0.1:{}", self.ports[at]);
        let command = self.cluster.master_command(&self.cluster.master_folder(), &listen);
        Daemon::start(command, &self.log(at)).expect("it starts")
    }

    /// What that one writes on its standard error.
    fn log(&self, at: usize) -> PathBuf {
        self.cluster.folder().join(format!("master-{at}.log"))
    }
}

/// Both, as clients and datanodes are told them.
fn masters(ports: [u16; 2]) -> String {
    format!("127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1])
}

fn health(address: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_put_and_a_get_go_on_when_the_leader_is_killed() {
    let mut pair = Pair::start();
    let old = random_bytes(24 * CHUNK, 1);
    let _ = pair.cluster.run_with_stdin(&["put", "-", "/old"], &old).ok();
    let mut next = pair.master(1);
    assert!(next.is_standby());
    let waiting = health(next.field("http"));
    assert!(waiting.contains("503") && waiting.contains("standby"), "{waiting}");

    let bytes = random_bytes(24 * CHUNK, 2);
    let (before, after) = bytes.split_at(6 * CHUNK + 100);
    let mut put = pair.cluster.spawn(&["put", "-", "/new"]);
    let mut stdin = put.stdin.take().expect("a pipe");
    stdin.write_all(before).expect("the client reads");
    let mut get = pair.cluster.spawn(&["cat", "/old"]);
    let mut stdout = get.stdout.take().expect("a pipe");
    let mut got = vec![0; 100_000];
    stdout.read_exact(&mut got).expect("the first bytes");

    let epoch: u64 = pair.cluster.master().field("epoch").parse().expect("a number");
    drop(pair.cluster.take_master());
    next.wait_ready();
    assert!(next.field("epoch").parse::<u64>().expect("a number") > epoch);
    assert!(health(next.field("http")).contains("200 OK"));

    stdin.write_all(after).expect("the client reads on");
    drop(stdin);
    stdout.read_to_end(&mut got).expect("the rest");
    for (name, child) in [("put", put), ("get", get)] {
        let output = child.wait_with_output().expect("its output");
        assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(got == old, "what was read");
    assert!(pair.cluster.run(&["cat", "/new"]).ok().stdout == bytes, "what was written");
}

/// The answers of the datanodes are held up: the chunk is committed when its leader dies, and no file is made of it yet.
#[test]
fn a_small_file_is_written_anew_under_the_next_leader() {
    let mut pair = Pair::start_with(|ports| {
        vec![("DISTRIFS_MASTERS", masters(ports)), ("DISTRIFS_REPLICATION_FACTOR", "1".to_owned())]
    });
    for at in 0..3 {
        pair.cluster.kill_datanode(at);
        pair.cluster.restart_datanode_with(at, &["--delay", "write.answer=2000"]);
    }
    pair.cluster.wait_for(3);
    let mut next = pair.master(1);
    let source = pair.cluster.scratch_file("small", b"small");
    let put = pair.cluster.spawn(&["put", source.to_str().expect("text"), "/small"]);
    wait_until("its chunk is committed", || !pair.cluster.chunk_files().is_empty());
    let first = pair.cluster.chunk_files().remove(0);
    drop(pair.cluster.take_master());
    next.wait_ready();
    let output = put.wait_with_output().expect("its output");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(pair.cluster.run(&["cat", "/small"]).ok().stdout, b"small");
    let status = pair.cluster.run(&["stat", "--chunks", "--json", "/small"]).ok().json().remove(0);
    let chunks = status["chunks"].as_array().expect("a list");
    let first = first.file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(chunks.len(), 1);
    assert_ne!(
        format!("chunk-{}", chunks[0]["id"].as_str().expect("text")),
        first,
        "granted by a leader that is gone"
    );
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over() {
    let mut pair = Pair::start();
    let _ = pair.cluster.run_with_stdin(&["put", "-", "/f"], b"bytes").ok();
    let mut next = pair.master(1);
    assert!(pair.cluster.take_master().terminate().success());
    next.wait_ready();
    assert_eq!(pair.cluster.run(&["cat", "/f"]).ok().stdout, b"bytes");
    // The one that was told to stop comes back, waits and leads again.
    let mut first = pair.master(0);
    assert!(first.is_standby());
    assert!(next.terminate().success());
    first.wait_ready();
    let _ = pair.cluster.run_with_stdin(&["put", "-", "/g"], b"more").ok();
    assert_eq!(pair.cluster.run(&["cat", "/g"]).ok().stdout, b"more");

    // One that waits stops when it is told to; one that shall not wait is refused.
    let waiting = pair.master(1);
    assert!(waiting.is_standby() && waiting.terminate().success());
    let mut refused = pair.cluster.master_command(&pair.cluster.master_folder(), "127.0.0.1:0");
    let refused = run(refused.arg("--no-standby"), b"").fails_with(1);
    assert!(refused.stderr.contains("another master leads on this folder"), "{}", refused.stderr);
}

#[test]
fn of_two_that_start_at_the_same_instant_one_leads() {
    let mut pair = Pair::start();
    drop(pair.cluster.take_master());
    let masters = std::thread::scope(|scope| {
        let starts = [0, 1].map(|at| {
            scope.spawn({
                let pair = &pair;
                move || pair.master(at)
            })
        });
        starts.map(|start| start.join().expect("it starts"))
    });
    let leaders = masters.iter().filter(|master| !master.is_standby()).count();
    assert_eq!(leaders, 1);
    let _ = pair.cluster.run_with_stdin(&["put", "-", "/f"], b"bytes").ok();
    assert_eq!(pair.cluster.run(&["cat", "/f"]).ok().stdout, b"bytes");
}

/// Clients that put one file after the other, each for the first time and each acknowledged.
struct Writers {
    done: AtomicBool,
    acknowledged: AtomicUsize,
}

/// Path and bytes of what was acknowledged.
type Files = Vec<(String, Vec<u8>)>;

impl Writers {
    const COUNT: u64 = 2;

    fn new() -> Self {
        Self { done: AtomicBool::new(false), acknowledged: AtomicUsize::new(0) }
    }

    fn spawn<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        cluster: &'scope Cluster,
    ) -> Vec<ScopedJoinHandle<'scope, Files>> {
        (0..Self::COUNT).map(|writer| scope.spawn(move || self.put(writer, cluster))).collect()
    }

    fn put(&self, writer: u64, cluster: &Cluster) -> Files {
        let mut files = Vec::new();
        for number in 0.. {
            if self.done.load(Ordering::Relaxed) {
                break;
            }
            let path = format!("/{writer}-{number}");
            let bytes = random_bytes(1 + 1000 * (number as usize % 50), number);
            let outcome = cluster.run_with_stdin(&["put", "-", &path], &bytes);
            assert_eq!(outcome.status, 0, "{path}: {}", outcome.stderr);
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            files.push((path, bytes));
        }
        files
    }

    /// How many files so far.
    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends them, also when what runs beside them panics.
    fn end_with_this(&self) -> impl Drop {
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        End(&self.done)
    }

    /// Ends them.
    fn end(&self, threads: Vec<ScopedJoinHandle<'_, Files>>) -> Files {
        drop(self.end_with_this());
        threads.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect()
    }
}

#[test]
fn what_is_acknowledged_during_take_overs_stays() {
    const TAKE_OVERS: usize = 10;
    let mut pair = Pair::start();
    let mut leader = pair.cluster.take_master();
    let writers = Writers::new();
    let acknowledged = std::thread::scope(|scope| {
        let _end = writers.end_with_this();
        let threads = writers.spawn(scope, &pair.cluster);
        for turn in 0..TAKE_OVERS {
            let mut next = pair.master((turn + 1) % 2);
            assert!(next.is_standby());
            let before = writers.acknowledged();
            // Killed, not told.
            leader.kill_and_wait();
            next.wait_ready();
            wait_until("writers go on", || writers.acknowledged() > before);
            leader = next;
        }
        writers.end(threads)
    });
    assert!(acknowledged.len() >= TAKE_OVERS, "{} puts", acknowledged.len());
    for (path, bytes) in &acknowledged {
        assert!(pair.cluster.run(&["cat", path]).ok().stdout == *bytes, "{path}");
    }
    drop(leader);
}
