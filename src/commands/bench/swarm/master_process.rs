//! The masters under test: child processes of this program, on folders that were filled before.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Args;
use distrifs_master::MasterConfig;
use distrifs_master::bench_support::plant_files;
use distrifs_proto::types::HostPort;

use super::metrics::Scrape;
use crate::commands::master::serve;
use crate::context::{Context, system_user};
use crate::error::CommandError;
use crate::local_cluster::{LocalCluster, LocalClusterConfig};
use crate::output::Output;
use crate::usage::{cpu_seconds_of, resident_bytes_of};

/// The hidden subcommand that makes this program fill a master's folder.
pub(in crate::commands::bench) const PLANT: &str = "swarm-plant";
/// Between two looks at the child that fills a folder.
const POLL: Duration = Duration::from_millis(20);
/// How long filling a folder may take.
const PLANT_TIMEOUT: Duration = Duration::from_secs(600);

/// A master in a process of its own.
pub(super) struct MasterProcess {
    cluster: LocalCluster,
    config: LocalClusterConfig,
    /// CPU seconds of its processes that were killed.
    cpu_before: f64,
}

impl MasterProcess {
    /// Starts a master on `folder`/`master`, with these variables beside the caller's.
    pub(super) async fn start(
        context: &Context,
        folder: PathBuf,
        environment: &[(&'static str, &str)],
    ) -> Result<Self, CommandError> {
        let environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let config = LocalClusterConfig {
            folder,
            datanodes: 0,
            port: 0,
            environment: environment.collect(),
            without: &["DISTRIFS_MASTER_WAL", "DISTRIFS_MASTER_LOCK_PATH"],
            settings: context.options.config.clone(),
            links: Vec::new(),
            standby: false,
        };
        let cluster = LocalCluster::start(&config).await?;
        Ok(Self { cluster, config, cpu_before: 0.0 })
    }

    /// Its control plane; the same after a restart.
    pub(super) fn address(&self) -> &HostPort {
        self.cluster.address()
    }

    /// Its HTTP address; another one after a restart.
    pub(super) fn http(&self) -> Result<&str, CommandError> {
        self.cluster.master().field("http")
    }

    /// Its metrics now.
    pub(super) async fn scrape(&self) -> Result<Scrape, CommandError> {
        Scrape::fetch(self.http()?).await
    }

    /// Kills it as a power cut would and starts it again on the same folder and port.
    pub(super) async fn restart(&mut self) -> Result<(), CommandError> {
        self.cpu_before = self.cpu_seconds();
        self.cluster.replace_master(&self.config).await
    }

    /// Its resident memory.
    pub(super) fn resident_bytes(&self) -> u64 {
        resident_bytes_of(self.cluster.master().pid()).unwrap_or_default()
    }

    /// User and system time of all its processes.
    pub(super) fn cpu_seconds(&self) -> f64 {
        self.cpu_before + cpu_seconds_of(self.cluster.master().pid()).unwrap_or_default()
    }
}

/// Where [`MasterProcess::start`] has the master's data below `folder`.
fn data_dir(folder: &Path) -> PathBuf {
    folder.join("master")
}

/// A child that is killed when it is not waited for any longer.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fills the folder of a master that is to be started on `folder`; gives the id of the first chunk.
///
/// In a child process, so that an interrupted run can kill it: a master in this process would still write to the
/// folder while that is removed.
pub(super) async fn plant(folder: &Path, files: u64) -> Result<u64, CommandError> {
    let failed = |why: String| CommandError::Daemon(format!("filling the namespace: {why}"));
    let data_dir = data_dir(folder);
    std::fs::create_dir_all(&data_dir).map_err(|e| CommandError::local(&data_dir, "create the folder", e))?;
    let result = folder.join("planted");
    let log = folder.join("plant.log");
    let create = |path: &Path| {
        std::fs::File::create(path).map_err(|e| CommandError::local(path, "create the file", e))
    };
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let child = Command::new(program)
        .args(["bench", PLANT])
        .arg(&data_dir)
        .arg(files.to_string())
        .stdin(Stdio::piped())
        .stdout(create(&result)?)
        .stderr(create(&log)?)
        .process_group(0)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut child = Killed(child);
    let deadline = tokio::time::Instant::now() + PLANT_TIMEOUT;
    let status = loop {
        match child.0.try_wait().map_err(|error| failed(error.to_string()))? {
            Some(status) => break status,
            None if tokio::time::Instant::now() >= deadline => {
                return Err(failed(format!("not done within {PLANT_TIMEOUT:?}")));
            }
            None => tokio::time::sleep(POLL).await,
        }
    };
    let read =
        |path: &Path| std::fs::read_to_string(path).map_err(|e| CommandError::local(path, "read it", e));
    let first = read(&result)?.trim().parse().ok();
    match first.filter(|_| status.success()) {
        Some(first) => Ok(first),
        None => Err(failed(read(&log)?.lines().last().unwrap_or("it said nothing").to_owned())),
    }
}

/// The child's side of [`plant`].
#[derive(Debug, Args)]
pub(in crate::commands::bench) struct Plant {
    data_dir: PathBuf,
    files: u32,
}

impl Plant {
    pub(in crate::commands::bench) async fn run(self, output: &mut Output) -> Result<(), CommandError> {
        let config = MasterConfig {
            listen: HostPort { host: "127.0.0.1".to_owned(), port: 0 },
            http: None,
            ..MasterConfig::new(&self.data_dir, system_user())
        };
        // A parent that is killed closes the pipe.
        let planted = serve(plant_files(config, self.files), None, true).await;
        let planted = planted.ok_or_else(|| CommandError::Daemon("the parent has ended".to_owned()))?;
        let planted = planted.map_err(CommandError::Daemon)?;
        output.line(planted.first_chunk.0)
    }
}
