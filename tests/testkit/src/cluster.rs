//! A master and datanodes in a temporary folder.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::command::{Outcome, bare_command, run};
use crate::daemon::{Daemon, free_port, tails};
use crate::replica::ReplicaFile;
use crate::wait::wait_until;

/// The intervals of a test's cluster: short, so that nothing is waited for long; the time until a datanode counts
/// as dead is long beside the heartbeat, so that a busy machine does not kill it.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("DISTRIFS_HEARTBEAT_INTERVAL", "0.2"),
    ("DISTRIFS_HEARTBEAT_TIMEOUT", "4"),
    ("DISTRIFS_GC_INTERVAL", "0.2"),
    ("DISTRIFS_GC_DELAY", "0.2"),
    ("DISTRIFS_CHUNK_SIZE", "262144"),
];

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many datanodes.
    pub datanodes: usize,
    /// Variables of all daemons and commands, over the defaults of tests.
    pub environment: Vec<(&'static str, String)>,
    /// Where the master listens; a free port if it does not matter.
    pub master_port: Option<u16>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { datanodes: 3, environment: Vec::new(), master_port: None }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    datanodes: Vec<Option<Daemon>>,
    master: Option<Daemon>,
    master_port: u16,
    binary: PathBuf,
    environment: Vec<(&'static str, String)>,
    // Dropped last: the processes are gone by then.
    folder: TempDir,
}

impl Cluster {
    /// Three datanodes.
    ///
    /// # Panics
    /// When the cluster does not come up.
    #[must_use]
    pub fn start(binary: &str) -> Self {
        Self::start_with(binary, &ClusterOptions::default())
    }

    /// As asked for; returns when it takes writes, or when all datanodes are there if they are too few for that.
    ///
    /// # Panics
    /// When the cluster does not come up.
    #[must_use]
    pub fn start_with(binary: &str, options: &ClusterOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("distrifs-test-").tempdir().expect("a folder");
        let mut cluster = Self {
            datanodes: (0..options.datanodes).map(|_| None).collect(),
            master: None,
            master_port: options.master_port.unwrap_or_else(free_port),
            binary: PathBuf::from(binary),
            environment: options.environment.clone(),
            folder,
        };
        cluster.restart_all();
        cluster
    }

    /// The folder of the whole cluster; tests may put files of their own under `scratch`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path for a file of the test.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub fn scratch(&self, name: impl AsRef<Path>) -> PathBuf {
        let scratch = self.folder.path().join("scratch");
        std::fs::create_dir_all(&scratch).expect("a folder");
        scratch.join(name)
    }

    /// A file of the test with these bytes.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn scratch_file(&self, name: impl AsRef<Path>, bytes: &[u8]) -> PathBuf {
        let path = self.scratch(name);
        std::fs::write(&path, bytes).expect("the file is written");
        path
    }

    /// The binary with the cluster's environment and nothing of the caller's.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = bare_command(&self.binary);
        command.envs(ENVIRONMENT.iter().copied());
        command.env("DISTRIFS_MASTER_PORT", self.master_port.to_string());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `distrifs` with these arguments.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Outcome {
        run(self.command().args(arguments), b"")
    }

    /// The same with bytes on standard input.
    pub fn run_with_stdin<A: AsRef<OsStr>>(&self, arguments: &[A], stdin: &[u8]) -> Outcome {
        run(self.command().args(arguments), stdin)
    }

    /// Starts `distrifs` with these arguments and pipes at its standard streams, and does not wait for it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Child {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the client's process")
    }

    /// `HOST:PORT` of the master.
    #[must_use]
    pub fn master_address(&self) -> String {
        format!("127.0.0.1:{}", self.master_port)
    }

    /// The running master.
    ///
    /// # Panics
    /// When it does not run.
    pub fn master(&mut self) -> &mut Daemon {
        self.master.as_mut().expect("the master runs")
    }

    /// Takes the master out of the cluster's care.
    ///
    /// # Panics
    /// When it does not run.
    pub fn take_master(&mut self) -> Daemon {
        self.master.take().expect("the master runs")
    }

    /// A running datanode.
    ///
    /// # Panics
    /// When it does not run.
    pub fn datanode(&mut self, at: usize) -> &mut Daemon {
        self.datanodes[at].as_mut().expect("the datanode runs")
    }

    /// Where a datanode keeps its chunks.
    #[must_use]
    pub fn datanode_folder(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("datanode-{at}"))
    }

    /// Where the master keeps its state.
    #[must_use]
    pub fn master_folder(&self) -> PathBuf {
        self.folder.path().join("master")
    }

    /// The command of a master on a folder.
    #[must_use]
    pub fn master_command(&self, folder: &Path, listen: &str) -> Command {
        let mut command = self.command();
        command.arg("master").arg("--data-dir").arg(folder);
        command.args(["--listen", listen, "--http", "127.0.0.1:0"]);
        command
    }

    /// The command of a datanode on a folder.
    #[must_use]
    pub fn datanode_command(&self, folder: &Path, listen: &str) -> Command {
        let mut command = self.command();
        command.arg("datanode").arg("--data-dir").arg(folder);
        command.args(["--listen", listen, "--http", "127.0.0.1:0", "--shards", "1"]);
        command
    }

    /// SIGKILL for every process at once, as when the power goes.
    pub fn kill_all(&mut self) {
        for daemon in self.master.iter_mut().chain(self.datanodes.iter_mut().flatten()) {
            daemon.kill();
        }
        self.master = None;
        self.datanodes.iter_mut().for_each(|slot| *slot = None);
    }

    /// SIGKILL for one datanode.
    pub fn kill_datanode(&mut self, at: usize) {
        self.datanodes[at] = None;
    }

    /// Starts what does not run, each on the folder it had, and waits until the cluster takes writes.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart_all(&mut self) {
        if self.master.is_none() {
            let command = self.master_command(&self.master_folder(), &self.master_address());
            let log = self.folder.path().join("master.log");
            self.master = Some(Daemon::start(command, &log).expect("the master serves"));
        }
        for at in 0..self.datanodes.len() {
            self.restart_datanode(at);
        }
        self.wait_for(self.datanodes.len());
    }

    /// SIGKILL for the master, which is started again at its address with further arguments.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart_master_with(&mut self, arguments: &[&str]) {
        self.master = None;
        let mut command = self.master_command(&self.master_folder(), &self.master_address());
        command.args(arguments);
        let log = self.folder.path().join("master.log");
        self.master = Some(Daemon::start(command, &log).expect("the master serves"));
        self.wait_for(self.datanodes.len());
    }

    /// Starts a datanode that does not run, on the folder it had.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart_datanode(&mut self, at: usize) {
        self.restart_datanode_with(at, &[]);
    }

    /// The same with further arguments.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart_datanode_with(&mut self, at: usize, arguments: &[&str]) {
        if self.datanodes[at].is_none() {
            let mut command = self.datanode_command(&self.datanode_folder(at), "127.0.0.1:0");
            command.args(arguments);
            let log = self.folder.path().join(format!("datanode-{at}.log"));
            self.datanodes[at] = Some(Daemon::start(command, &log).expect("the datanode serves"));
        }
    }

    /// Waits until so many datanodes are live, and the cluster takes writes if they are enough for that.
    ///
    /// # Panics
    /// When they do not come.
    pub fn wait_for(&self, datanodes: usize) {
        let _ = self.run(&["wait", "--datanodes", &datanodes.to_string(), "--timeout", "90"]).ok();
    }

    /// Waits until the master counts exactly so many live datanodes.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for_live(&self, live: u64) {
        wait_until("the master counts the live datanodes", || {
            self.run(&["df", "--json"]).ok().json()[0]["live_nodes"] == live
        });
    }

    /// The replicas of a file's chunks, by chunk and datanode.
    ///
    /// # Panics
    /// When the master names a datanode or a chunk that is not there.
    #[must_use]
    pub fn replica_files(&self, path: &str) -> Vec<ReplicaFile> {
        let stat = self.run(&["stat", "--chunks", "--json", path]).ok().json().remove(0);
        let ids: Vec<&str> =
            self.datanodes.iter().map(|slot| slot.as_ref().map_or("", |daemon| daemon.field("id"))).collect();
        let mut found = Vec::new();
        for chunk in stat["chunks"].as_array().expect("chunks") {
            let id = chunk["id"].as_str().expect("an id");
            let mut replicas: Vec<ReplicaFile> = Vec::new();
            for node in chunk["replicas"].as_array().expect("replicas") {
                let node = node.as_str().expect("an id");
                let datanode = ids.iter().position(|known| *known == node).expect("a datanode of ours");
                let path = find_chunk(&self.datanode_folder(datanode).join("chunks"), id)
                    .unwrap_or_else(|| panic!("no chunk {id} on datanode {datanode}"));
                let index = chunk["index"].as_u64().expect("an index");
                replicas.push(ReplicaFile { index, chunk: id.to_owned(), datanode, path });
            }
            replicas.sort_by_key(|replica| replica.datanode);
            found.extend(replicas);
        }
        found
    }

    /// All chunk files on all disks, sidecars and unfinished ones not counted.
    #[must_use]
    pub fn chunk_files(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for at in 0..self.datanodes.len() {
            for folder in folders(&self.datanode_folder(at).join("chunks")) {
                all.extend(files(&folder).into_iter().filter(|path| path.extension().is_none()));
            }
        }
        all
    }

    /// All files under the datanodes' `tmp`.
    #[must_use]
    pub fn unfinished_files(&self) -> Vec<PathBuf> {
        (0..self.datanodes.len()).flat_map(|at| files(&self.datanode_folder(at).join("tmp"))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", tails(self.folder.path()));
        }
        self.kill_all();
    }
}

fn find_chunk(chunks: &Path, id: &str) -> Option<PathBuf> {
    let name = format!("chunk-{id}");
    folders(chunks).into_iter().map(|folder| folder.join(&name)).find(|path| path.exists())
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    entries(parent).into_iter().filter(|path| path.is_dir()).collect()
}

fn files(parent: &Path) -> Vec<PathBuf> {
    entries(parent).into_iter().filter(|path| path.is_file()).collect()
}

fn entries(parent: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(parent).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}
