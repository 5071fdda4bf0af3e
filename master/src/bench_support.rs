//! What the benchmarks need of the inside. Not an interface: it changes without notice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use distrifs_proto::types::{ChunkId, Crc32c, Epoch, FileId, GenerationStamp, Lsn, NodeId, RequestId};
use tokio::task::JoinSet;

use crate::cluster::{Registration, Replica};
use crate::config::MasterConfig;
use crate::master::Master;
use crate::namespace::{Answer, Command, FIRST_GENERATION, Namespace, NsPath, Operation, WrittenChunk};
use crate::permission::Caller;
use crate::refusal::Refusal;

/// Mutations that [`plant_files`] keeps in flight: two full batches of the writer, so that one gathers while the other
/// is on its way to the disk, and half of what its queue takes.
const PLANTING_MAX: usize = 2048;
/// Chunk size of planted files, and the length of the longest planted chunk.
const PLANTED_CHUNK_BYTES: u32 = 64 << 10;

/// Files of one directory in these benchmarks.
const DIRECTORY_FILES: u64 = 1000;
const CHUNK_BYTES: u32 = 64 << 20;
const FILE_BYTES: u64 = 4096;

fn command(at_ms: i64, request: u128, operation: Operation) -> Command {
    let caller = Caller { user: "bench".to_owned(), groups: vec!["bench".to_owned()], superuser: true };
    let caller = Arc::new(caller);
    Command { at_ms, request: Some(RequestId(request)), caller, operation }
}

fn path(text: &str) -> NsPath {
    NsPath::parse(text).expect("a path")
}

/// The n-th directory.
fn directory(number: u64) -> String {
    format!("/directory-{number:06}")
}

/// The n-th file: a name of 16 characters.
fn file(number: u64) -> String {
    format!("{}/file-{number:011}", directory(number / DIRECTORY_FILES))
}

fn mkdir(path_text: &str) -> Operation {
    Operation::Mkdir { path: path(path_text), parents: false, mode: 0o755 }
}

fn create(path_text: &str, chunk: ChunkId) -> Operation {
    Operation::Create {
        path: path(path_text),
        overwrite: false,
        mode: 0o644,
        replication: 3,
        chunk_size: CHUNK_BYTES,
        lease_until_ms: i64::MAX,
        chunk: Some(chunk),
    }
}

fn complete(file: FileId, chunk: ChunkId) -> Operation {
    let written =
        WrittenChunk { chunk, generation: FIRST_GENERATION, length: FILE_BYTES, crc: Crc32c(chunk.0 as u32) };
    Operation::Complete { file, chunks: vec![written] }
}

/// How long so many commands of one kind took.
#[derive(Debug, Clone, Copy)]
pub struct Applied {
    /// What they did.
    pub kind: &'static str,
    /// How many.
    pub commands: u64,
    /// All of them.
    pub took: Duration,
}

/// A namespace without log, locks and network: the cost of `apply`.
#[derive(Debug)]
pub struct BareNamespace {
    namespace: Namespace,
    requests: u128,
    files: u64,
}

impl Default for BareNamespace {
    fn default() -> Self {
        Self { namespace: Namespace::new("bench"), requests: 0, files: 0 }
    }
}

impl BareNamespace {
    fn run(&mut self, kind: &'static str, operations: Vec<Operation>) -> (Applied, Vec<Answer>) {
        let first = self.requests;
        self.requests += operations.len() as u128;
        let commands: Vec<Command> =
            (first + 1..).zip(operations).map(|(request, it)| command(1, request, it)).collect();
        let mut answers = Vec::with_capacity(commands.len());
        let mut lsn = self.namespace.applied();
        let began = Instant::now();
        for command in &commands {
            lsn = lsn.next();
            answers.push(self.namespace.apply(lsn, command).expect("applied"));
        }
        let took = began.elapsed();
        (Applied { kind, commands: commands.len() as u64, took }, answers)
    }

    /// Adds `files` files, in directories of a thousand, and says what the commands cost.
    pub fn fill(&mut self, files: u64) -> [Applied; 3] {
        let (first, last) = (self.files, self.files + files);
        let directories = first.div_ceil(DIRECTORY_FILES)..last.div_ceil(DIRECTORY_FILES);
        let (mkdirs, _) = self.run("mkdir", directories.map(|it| mkdir(&directory(it))).collect());
        let next = self.namespace.next_chunk().0;
        let creates = (first..last).map(|it| create(&file(it), ChunkId(next + it - first))).collect();
        let (created, answers) = self.run("create", creates);
        let completes = answers.into_iter().filter_map(|answer| match answer {
            Answer::Created { file, chunk: Some(chunk) } => Some(complete(file, chunk)),
            _ => None,
        });
        let (completed, _) = self.run("complete", completes.collect());
        self.files = last;
        [mkdirs, created, completed]
    }

    /// Makes, renames and removes what is spread over all directories, and leaves everything as it was.
    pub fn churn(&mut self, commands: u64) -> [Applied; 3] {
        let step = (self.files / commands).max(1);
        let numbers = || (0..commands).map(|it| it * step).filter(|it| *it < self.files);
        let paths: Vec<String> =
            numbers().map(|it| format!("{}/d{it}", directory(it / DIRECTORY_FILES))).collect();
        let moved = |text: &String| format!("{text}-moved");
        let (made, _) = self.run("mkdir", paths.iter().map(|it| mkdir(it)).collect());
        let renames = paths.iter().map(|it| Operation::Rename {
            source: path(it),
            target: path(&moved(it)),
            overwrite: false,
        });
        let (renamed, _) = self.run("rename", renames.collect());
        let removes = paths.iter().map(|it| Operation::Remove { path: path(&moved(it)), recursive: true });
        let (removed, _) = self.run("delete", removes.collect());
        [made, renamed, removed]
    }

    /// Looks up files all over, as often as `lookups` says.
    pub fn stat(&self, lookups: u64) -> Applied {
        let caller = command(1, 1, mkdir("/x")).caller;
        let step = (self.files / lookups).max(1);
        let paths: Vec<NsPath> = (0..lookups).map(|it| path(&file(it * step % self.files.max(1)))).collect();
        let began = Instant::now();
        for path in &paths {
            std::hint::black_box(self.namespace.stat(&caller, path).expect("there"));
        }
        Applied { kind: "stat", commands: lookups, took: began.elapsed() }
    }
}

/// A running master that is driven from inside its process: everything but the network.
#[derive(Debug)]
pub struct Inside {
    master: Arc<Master>,
}

/// What a load saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The time of each mutation.
    pub latencies: Vec<Duration>,
    /// Resident bytes, the largest of samples.
    pub resident_max: u64,
}

impl Inside {
    /// Drives this master, and lets it know three datanodes.
    #[must_use]
    pub fn new(master: Master) -> Self {
        let inside = Self { master: Arc::new(master) };
        let state = inside.master.state();
        let leader = state.leader();
        for id in 1..=3 {
            let registration = Registration {
                cluster: Some(state.cluster_id),
                id: NodeId(id),
                address: format!("127.0.0.1:{id}"),
                rack: String::new(),
                epoch_seen: Epoch(0),
                lsn_seen: Lsn(0),
            };
            state.cluster().register(0, leader, registration).expect("registers");
        }
        inside
    }

    /// Files that are visible.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.master.state().namespace().counts().files
    }

    /// Checkpoints taken since the start.
    #[must_use]
    pub fn checkpoints(&self) -> u64 {
        self.master.state().checkpoint_stats().taken
    }

    /// The last checkpoint: its length and how long it took.
    #[must_use]
    pub fn checkpoint(&self) -> (u64, Duration) {
        let stats = self.master.state().checkpoint_stats();
        (stats.bytes, stats.took)
    }

    async fn propose(master: &Master, operation: Operation) -> Answer {
        loop {
            let command = command(1, rand::random(), operation.clone());
            match master.proposer().propose(command).await {
                Ok(answer) => return answer,
                Err(Refusal::Busy { .. }) => tokio::task::yield_now().await,
                Err(refusal) => panic!("{refusal}"),
            }
        }
    }

    /// Makes the files of these numbers, each with a chunk on three datanodes, `in_flight` at once.
    pub async fn fill(&self, numbers: std::ops::Range<u64>, in_flight: u64) {
        let mut tasks = JoinSet::new();
        let directories = numbers.start.div_ceil(DIRECTORY_FILES)..numbers.end.div_ceil(DIRECTORY_FILES);
        for number in directories {
            Self::propose(&self.master, mkdir(&directory(number))).await;
        }
        for lane in 0..in_flight {
            let (master, numbers) = (self.master.clone(), numbers.clone());
            tasks.spawn(async move {
                for number in numbers.skip(lane as usize).step_by(in_flight as usize) {
                    let created = Self::propose(&master, create(&file(number), ChunkId(0))).await;
                    let Answer::Created { file, chunk: Some(chunk) } = created else { continue };
                    Self::propose(&master, complete(file, chunk)).await;
                    let (generation, crc) = (FIRST_GENERATION, Crc32c(chunk.0 as u32));
                    let replica = Replica { chunk, generation, length: FILE_BYTES, crc, corrupt: false };
                    master.state().cluster().completed(replica, &[NodeId(1), NodeId(2), NodeId(3)]);
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Makes and removes directories, `in_flight` at once, until `done` says so.
    pub async fn mutate(&self, in_flight: u64, done: impl Fn(&Self) -> bool) -> Seen {
        let (stop, _) = tokio::sync::watch::channel(false);
        let mut tasks = JoinSet::new();
        for lane in 0..in_flight {
            let (master, stop) = (self.master.clone(), stop.subscribe());
            tasks.spawn(async move {
                let at = format!("/mutations-{}-{lane}", rand::random::<u32>());
                let mut latencies = Vec::new();
                while !*stop.borrow() {
                    for operation in [mkdir(&at), Operation::Remove { path: path(&at), recursive: true }] {
                        let began = Instant::now();
                        Self::propose(&master, operation).await;
                        latencies.push(began.elapsed());
                    }
                }
                latencies
            });
        }
        let mut seen = Seen::default();
        while !done(self) {
            seen.resident_max = seen.resident_max.max(resident_bytes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.send_replace(true);
        while let Some(latencies) = tasks.join_next().await {
            seen.latencies.extend(latencies.expect("a lane"));
        }
        seen
    }

    /// Stops the master cleanly.
    pub async fn stop(self) {
        if let Ok(master) = Arc::try_unwrap(self.master) {
            master.stop().await;
        }
    }
}

/// The memory that this process has in use.
#[must_use]
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = pages.split_whitespace().nth(1).and_then(|it| it.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64
}

/// What [`plant_files`] left in the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planted {
    /// The chunk of the first file; those of the others follow it without a gap.
    pub first_chunk: ChunkId,
    /// Files, of one chunk each.
    pub files: u32,
}

/// What the namespace says of a planted chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlantedChunk {
    /// Its version.
    pub generation: GenerationStamp,
    /// Its length in bytes.
    pub length: u64,
    /// Of its bytes.
    pub crc: Crc32c,
}

/// Version, length and checksum of a planted chunk: a pure function of its id, so that a simulated datanode reports
/// the right ones without having stored anything.
#[must_use]
pub fn planted_chunk(chunk: ChunkId) -> PlantedChunk {
    let length = 1 + chunk.0 % u64::from(PLANTED_CHUNK_BYTES);
    PlantedChunk { generation: FIRST_GENERATION, length, crc: Crc32c(chunk.0 as u32 ^ 0x5eed_c0de) }
}

/// Path of the `number`-th planted file.
#[must_use]
pub fn planted_path(number: u64) -> String {
    file(number)
}

/// Fills the namespace of the master folder that `config` names with files of one chunk each, a thousand in each
/// directory, and stops the master again.
///
/// Chunk ids are reserved first and each file then takes one log record, so that a namespace of millions of files is
/// there within seconds. No replica is made: the caller's datanodes have to report them.
///
/// # Errors
/// A line that says why the master did not start, or refused a mutation.
pub async fn plant_files(config: MasterConfig, files: u32) -> Result<Planted, String> {
    let master = Master::start(config).await.map_err(|error| error.to_string())?;
    let planted = plant(&master, files).await;
    master.stop().await;
    planted.map_err(|refusal| refusal.to_string())
}

async fn plant(master: &Master, files: u32) -> Result<Planted, Refusal> {
    let propose = |operation| {
        let mut command = command(master.state().clock.wall_ms(), 0, operation);
        // Each is proposed once: the table of request ids, which deduplicates retries, need not hold millions.
        command.request = None;
        master.proposer().propose(command)
    };
    let directories = u64::from(files).div_ceil(DIRECTORY_FILES);
    for number in 0..directories {
        propose(mkdir(&directory(number))).await?;
    }
    let Answer::Reserved(ids) = propose(Operation::ReserveChunks { count: files }).await? else {
        unreachable!("a reservation is answered with the reserved ids");
    };
    let put = |number: u64| {
        let chunk = ChunkId(ids.first.0 + number);
        let PlantedChunk { generation, length, crc } = planted_chunk(chunk);
        propose(Operation::PutWhole {
            path: path(&file(number)),
            overwrite: false,
            mode: 0o644,
            replication: 3,
            chunk_size: PLANTED_CHUNK_BYTES,
            chunk: Some(WrittenChunk { chunk, generation, length, crc }),
        })
    };
    let mut in_flight = VecDeque::with_capacity(PLANTING_MAX);
    let mut numbers = 0..u64::from(files);
    loop {
        if in_flight.len() < PLANTING_MAX
            && let Some(number) = numbers.next()
        {
            in_flight.push_back((number, Box::pin(put(number))));
            continue;
        }
        let Some((number, proposed)) = in_flight.pop_front() else { break };
        match proposed.await {
            Ok(_) => {}
            // The queue was full, and the file was not begun.
            Err(Refusal::Busy { .. }) => {
                tokio::task::yield_now().await;
                in_flight.push_back((number, Box::pin(put(number))));
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(Planted { first_chunk: ids.first, files })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::ChunkState;

    #[tokio::test(flavor = "multi_thread")]
    async fn planted_files_have_consecutive_chunks_and_survive_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = MasterConfig::new(folder.path(), "bench");
        config.listen.port = 0;
        config.http = None;
        let files = 2 * PLANTING_MAX as u32 + 7;
        let planted = plant_files(config.clone(), files).await.expect("planted");
        assert_eq!(planted.files, files);
        let master = Master::start(config).await.expect("it starts");
        {
            let namespace = master.state().namespace();
            assert_eq!(namespace.counts().files, u64::from(files));
            for number in [0, 1, u64::from(files) - 1] {
                let id = ChunkId(planted.first_chunk.0 + number);
                let ChunkState::Referenced(chunk) = namespace.chunk(id) else { panic!("{id} has a file") };
                let expected = planted_chunk(id);
                let found = (chunk.generation, u64::from(chunk.length), chunk.crc);
                assert_eq!(found, (expected.generation, expected.length, expected.crc));
                let caller = command(1, 1, mkdir("/x")).caller;
                assert!(namespace.stat(&caller, &path(&planted_path(number))).is_ok());
            }
        }
        master.stop().await;
    }
}
