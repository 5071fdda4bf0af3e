//! A whole cluster on this machine: a master and datanodes as real child processes of this very program.
//!
//! Children are told to end when their standard input closes, so that none outlives this process, however it
//! ends. They run in process groups of their own: Ctrl-C reaches this process alone, which stops them in order.
//! Dropping a [`LocalCluster`] kills what still runs and waits for it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use distrifs_proto::types::HostPort;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use crate::error::CommandError;

/// How long a daemon may take until it serves.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How long a daemon may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Lines of a daemon that nobody has heard yet.
const SAID_MAX: usize = 4;
/// Between two looks at a child that is to end.
const POLL: Duration = Duration::from_millis(20);
/// How much of a log is looked at for the reason of a failed start.
const LOG_TAIL_BYTES_MAX: u64 = 64 << 10;
/// A log that is longer at a start begins anew.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// What a local cluster is made of.
#[derive(Debug, Clone)]
pub(crate) struct LocalClusterConfig {
    /// Where `master`, `datanode-1`, ... and `logs` are.
    pub(crate) folder: PathBuf,
    /// How many datanodes.
    pub(crate) datanodes: u32,
    /// The master's port; 0 picks a free one.
    pub(crate) port: u16,
    /// Variables that all daemons get beside the caller's.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Variables of the caller that they do not get.
    pub(crate) without: &'static [&'static str],
    /// The file with settings that they are given.
    pub(crate) settings: Option<PathBuf>,
    /// For each datanode, if it is not to be reached directly.
    pub(crate) links: Vec<Links>,
    /// Whether a second master waits for its turn.
    pub(crate) standby: bool,
}

/// What stands between a datanode and the others.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    /// Where it finds the masters.
    pub(crate) masters: Vec<HostPort>,
    /// Where the others find it.
    pub(crate) advertise: HostPort,
}

/// A running daemon.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    /// Its end: the daemon stops when this closes.
    stdin: Option<ChildStdin>,
    log: PathBuf,
    /// Where in its log this start begins.
    log_from: u64,
    /// What it says on its standard output of the place it has.
    said: mpsc::Receiver<String>,
    ready: HashMap<String, String>,
    /// What it was started with.
    arguments: Vec<String>,
}

/// A running cluster.
pub(crate) struct LocalCluster {
    // Dropped in this order: datanodes first.
    datanodes: Vec<Daemon>,
    standby: Option<Daemon>,
    master: Daemon,
    /// Where masters may lead; the first is where the first one began.
    addresses: Vec<HostPort>,
}

/// Who ended by itself, and why.
pub(crate) enum Death {
    /// Nothing works without it.
    Master(CommandError),
    /// What a cluster is made for.
    Datanode(CommandError),
}

impl LocalCluster {
    /// Starts the master, then all datanodes at once, and waits until each serves.
    pub(crate) async fn start(config: &LocalClusterConfig) -> Result<Self, CommandError> {
        let logs = config.folder.join("logs");
        std::fs::create_dir_all(&logs).map_err(|e| CommandError::local(&logs, "create the folder", e))?;
        let master_arguments = |listen: String| -> Result<Vec<String>, CommandError> {
            let mut arguments = vec!["master".to_owned(), "--data-dir".to_owned()];
            arguments.push(text(&config.folder.join("master"))?);
            arguments.extend(["--listen".to_owned(), listen]);
            arguments.extend(["--http".to_owned(), "127.0.0.1:0".to_owned()]);
            arguments.extend((!config.standby).then(|| "--no-standby".to_owned()));
            Ok(arguments)
        };
        let arguments = master_arguments(format!("127.0.0.1:{}", config.port))?;
        let mut master = Daemon::spawn("master", &arguments, config, &logs)?;
        master.wait_ready().await?;
        let address: HostPort = master.field("grpc")?.parse().map_err(|e| daemon_error(&master.name, e))?;
        // From now on it is found there, also after another start.
        master.arguments = master_arguments(address.to_string())?;
        let mut addresses = vec![address];
        let mut standby = None;
        if config.standby {
            let listen = free_address().map_err(|e| daemon_error("standby", e))?;
            let arguments = master_arguments(listen.to_string())?;
            let mut daemon = Daemon::spawn("master-2", &arguments, config, &logs)?;
            daemon.wait_standby().await?;
            addresses.push(listen);
            standby = Some(daemon);
        }

        let mut starting = Vec::new();
        for number in 1..=config.datanodes {
            let name = format!("datanode-{number}");
            let mut arguments = vec!["datanode".to_owned(), "--data-dir".to_owned()];
            arguments.push(text(&config.folder.join(&name))?);
            let links = config.links.get(number as usize - 1);
            let masters = links.map_or(&addresses, |links| &links.masters);
            let masters: Vec<String> = masters.iter().map(ToString::to_string).collect();
            arguments.extend(["--master".to_owned(), masters.join(",")]);
            if let Some(links) = links {
                arguments.extend(["--advertise".to_owned(), links.advertise.to_string()]);
            }
            for option in ["--listen", "--http"] {
                arguments.extend([option.to_owned(), "127.0.0.1:0".to_owned()]);
            }
            starting.push(Daemon::spawn(&name, &arguments, config, &logs)?);
        }
        let mut datanodes = Vec::new();
        for mut daemon in starting {
            daemon.wait_ready().await?;
            datanodes.push(daemon);
        }
        Ok(Self { datanodes, standby, master, addresses })
    }

    /// Where masters may lead.
    pub(crate) fn addresses(&self) -> &[HostPort] {
        &self.addresses
    }

    /// Where the master's control plane is.
    pub(crate) fn address(&self) -> &HostPort {
        &self.addresses[0]
    }

    /// The master.
    pub(crate) fn master(&self) -> &Daemon {
        &self.master
    }

    /// The datanodes that still run.
    pub(crate) fn datanodes(&self) -> &[Daemon] {
        &self.datanodes
    }

    /// All daemons.
    pub(crate) fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        std::iter::once(&self.master).chain(&self.datanodes)
    }

    /// Kills a datanode as a power cut would, and keeps its place for [`Self::restart_datanode`].
    pub(crate) fn cut_datanode(&mut self, at: usize) {
        self.datanodes[at].kill();
    }

    /// Starts a datanode that was killed, on the folder it had.
    pub(crate) async fn restart_datanode(
        &mut self,
        at: usize,
        config: &LocalClusterConfig,
    ) -> Result<(), CommandError> {
        self.datanodes[at].start_again(config).await
    }

    /// SIGSTOP for a datanode, or SIGCONT.
    pub(crate) fn pause_datanode(&self, at: usize, paused: bool) {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        // One that has ended is found out at its next start.
        let _ = kill_process(self.datanodes[at].process(), signal);
    }

    /// Kills the master as a power cut would. Where one waits, that one leads then; the one that was killed is started
    /// again, at its address.
    pub(crate) async fn replace_master(&mut self, config: &LocalClusterConfig) -> Result<(), CommandError> {
        self.master.kill();
        let Some(mut next) = self.standby.take() else { return self.master.start_again(config).await };
        next.wait_ready().await?;
        let killed = std::mem::replace(&mut self.master, next);
        self.wait_again(killed, config).await
    }

    /// SIGSTOP for the master, until the one that waits has taken over, which must then be the end of it; it is started
    /// again. Without one that waits it only stands still for a moment.
    pub(crate) async fn supersede_master(&mut self, config: &LocalClusterConfig) -> Result<(), CommandError> {
        let signal = |master: &Daemon, signal| {
            // One that has ended is found out below.
            let _ = kill_process(master.process(), signal);
        };
        signal(&self.master, Signal::STOP);
        let took_over = match &mut self.standby {
            Some(next) => next.wait_ready().await,
            None => Ok(()),
        };
        signal(&self.master, Signal::CONT);
        took_over?;
        let Some(next) = self.standby.take() else { return Ok(()) };
        let mut stopped = std::mem::replace(&mut self.master, next);
        stopped.wait_stopped().await;
        // Killed for want of an end counts as little as a clean one.
        if !matches!(stopped.child.try_wait(), Ok(Some(status)) if status.code().is_some_and(|code| code != 0))
        {
            return Err(daemon_error(&stopped.name, "it was replaced, and did not give up"));
        }
        self.wait_again(stopped, config).await
    }

    /// Starts a master that has ended once more, to wait for its turn.
    async fn wait_again(
        &mut self,
        mut ended: Daemon,
        config: &LocalClusterConfig,
    ) -> Result<(), CommandError> {
        ended.spawn_again(config)?;
        ended.wait_standby().await?;
        self.standby = Some(ended);
        Ok(())
    }

    /// Takes a datanode out and kills it as a power cut would: SIGKILL.
    pub(crate) fn kill_datanode(&mut self, at: usize) -> String {
        let mut daemon = self.datanodes.remove(at);
        daemon.kill();
        std::mem::take(&mut daemon.name)
    }

    /// Resolves when a daemon ended by itself. A datanode is taken out; the others serve on.
    pub(crate) async fn death(&mut self) -> Death {
        loop {
            if let Ok(Some(status)) = self.master.child.try_wait() {
                return Death::Master(self.master.end(status));
            }
            for at in 0..self.datanodes.len() {
                if let Ok(Some(status)) = self.datanodes[at].child.try_wait() {
                    let datanode = self.datanodes.remove(at);
                    return Death::Datanode(datanode.end(status));
                }
            }
            tokio::time::sleep(POLL * 10).await;
        }
    }

    /// Stops the datanodes, then the master, each cleanly; one that does not stop in time is killed.
    pub(crate) async fn stop(mut self) {
        for daemon in &mut self.datanodes {
            daemon.ask_to_stop();
        }
        for daemon in &mut self.datanodes {
            daemon.wait_stopped().await;
        }
        for master in self.standby.iter_mut().chain(std::iter::once(&mut self.master)) {
            master.ask_to_stop();
            master.wait_stopped().await;
        }
    }
}

impl Daemon {
    fn spawn(
        name: &str,
        arguments: &[String],
        config: &LocalClusterConfig,
        logs: &Path,
    ) -> Result<Self, CommandError> {
        let log = logs.join(format!("{name}.log"));
        let (stderr, log_from) = open_log(&log).map_err(|e| CommandError::local(&log, "open the log", e))?;
        let program = std::env::current_exe().map_err(|e| daemon_error(name, e))?;
        let mut command = Command::new(program);
        for variable in config.without {
            command.env_remove(variable);
        }
        if let Some(file) = &config.settings {
            command.arg("--config").arg(file);
        }
        let mut child = command
            .args(arguments)
            .arg("--exit-with-stdin")
            .envs(config.environment.iter().map(|(variable, value)| (variable, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(|e| daemon_error(name, e))?;
        let stdin = child.stdin.take();
        let (say, said) = mpsc::channel(SAID_MAX);
        if let Some(stdout) = child.stdout.take() {
            // A thread of its own: the pipe is drained for the daemon's whole life, so that it never blocks on it.
            std::thread::spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                for line in lines.filter(|line| line.starts_with("ready ") || line.starts_with("standby ")) {
                    // Nobody listens any more when it was started again.
                    let _ = say.blocking_send(line);
                }
            });
        }
        let (name, arguments) = (name.to_owned(), arguments.to_vec());
        Ok(Self { name, child, stdin, log, log_from, said, ready: HashMap::new(), arguments })
    }

    /// Waits for the `ready` line and keeps its fields.
    async fn wait_ready(&mut self) -> Result<(), CommandError> {
        while !self.wait_place().await?.starts_with("ready ") {}
        Ok(())
    }

    /// Waits until a master waits, or leads already.
    async fn wait_standby(&mut self) -> Result<(), CommandError> {
        self.wait_place().await.map(drop)
    }

    /// What it says next of the place it has.
    async fn wait_place(&mut self) -> Result<String, CommandError> {
        match tokio::time::timeout(READY_DEADLINE, self.said.recv()).await {
            Ok(Some(line)) => {
                let fields = line.split(' ').filter_map(|field| field.split_once('='));
                self.ready = fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                Ok(line)
            }
            Ok(None) => {
                self.wait_stopped().await;
                Err(self.last_words())
            }
            Err(_) => Err(daemon_error(&self.name, "it does not serve in time")),
        }
    }

    /// Starts it once more, with the arguments it had.
    fn spawn_again(&mut self, config: &LocalClusterConfig) -> Result<(), CommandError> {
        self.kill();
        let (name, arguments) = (self.name.clone(), self.arguments.clone());
        *self = Self::spawn(&name, &arguments, config, &config.folder.join("logs"))?;
        Ok(())
    }

    /// The same, until it serves.
    async fn start_again(&mut self, config: &LocalClusterConfig) -> Result<(), CommandError> {
        self.spawn_again(config)?;
        self.wait_ready().await
    }

    /// A field of its `ready` line.
    pub(crate) fn field(&self, key: &str) -> Result<&str, CommandError> {
        match self.ready.get(key) {
            Some(value) => Ok(value),
            None => Err(daemon_error(&self.name, format!("its ready line has no {key}"))),
        }
    }

    /// Such as `datanode-1`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ask_to_stop(&mut self) {
        self.stdin = None;
        if let Ok(None) = self.child.try_wait() {
            // It may end between the look and the signal; as its parent we have not reaped it, so the number is its own.
            let _ = kill_process(self.process(), Signal::TERM);
        }
    }

    async fn wait_stopped(&mut self) {
        let deadline = tokio::time::Instant::now() + STOP_DEADLINE;
        while let Ok(None) = self.child.try_wait() {
            if tokio::time::Instant::now() >= deadline {
                self.kill();
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn kill(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(self.process(), Signal::KILL);
            let _ = self.child.wait();
        }
    }

    fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Why it ended by itself. One that was killed had no time for a word: the end of its log tells nothing.
    fn end(&self, status: ExitStatus) -> CommandError {
        match status.signal() {
            Some(signal) => daemon_error(&self.name, format!("killed by signal {signal}")),
            None => self.last_words(),
        }
    }

    /// Why it ended: its error line where it printed one, else the end of its log.
    fn last_words(&self) -> CommandError {
        let tail = read_tail(&self.log, self.log_from).unwrap_or_default();
        let tail = String::from_utf8_lossy(&tail);
        let spoken = tail.lines().rev().find_map(|line| {
            let rest = line.strip_prefix("distrifs: ")?;
            Some(rest.split_once(": ").map_or(rest, |(_, reason)| reason).to_owned())
        });
        let last =
            spoken.or_else(|| tail.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned));
        daemon_error(&self.name, last.as_deref().unwrap_or("it ended without a word"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Opens a log behind what earlier starts wrote: another cluster may still run on this folder.
fn open_log(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() > LOG_BYTES_MAX {
        file.set_len(0)?;
    }
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Where nobody listens now. Somebody may before it is used: then the one that was to listen there says so.
fn free_address() -> io::Result<HostPort> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(HostPort { host: "127.0.0.1".to_owned(), port })
}

fn read_tail(path: &Path, from: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let from = from.max(file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES_MAX));
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL_BYTES_MAX).read_to_end(&mut tail)?;
    Ok(tail)
}

fn daemon_error(name: &str, why: impl std::fmt::Display) -> CommandError {
    CommandError::Daemon(format!("{name}: {why}"))
}

fn text(path: &Path) -> Result<String, CommandError> {
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(CommandError::LocalTarget { path: path.to_owned(), why: "the path is not UTF-8" }),
    }
}
