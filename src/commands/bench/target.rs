//! What is measured: a cluster of child processes in a temporary folder, or one that runs.

use std::path::{Path, PathBuf};

use distrifs_client::{Client, ClientConfig, ClientError};
use distrifs_proto::ErrorCode;
use distrifs_proto::types::HostPort;
use tempfile::TempDir;

use super::blocking::Blocking;
use crate::commands::demo::wait_writable;
use crate::context::{Context, system_user};
use crate::error::CommandError;
use crate::local_cluster::{LocalCluster, LocalClusterConfig};
use crate::usage::Usage;

/// A cluster to be measured, and where on it.
pub(super) struct Target {
    /// Its master.
    pub(super) address: HostPort,
    /// Who asks.
    pub(super) user: String,
    /// A client of it, for what is not measured.
    pub(super) client: Client,
    /// The directory that everything is done below.
    pub(super) directory: String,
    /// What keeps a thread busy: it is waited for before the folder goes.
    pub(super) blocking: Blocking,
    config: ClientConfig,
    embedded: Option<(LocalCluster, TempDir)>,
}

impl Target {
    /// The cluster that `--master` names, with `running` the one that the environment and the configuration name, or one
    /// of its own with so many datanodes. The environment alone is not enough: who has it set for daily work must not
    /// load that cluster by a bare `distrifs bench`.
    pub(super) async fn start(
        context: &Context,
        running: bool,
        datanodes: u32,
        name: &str,
    ) -> Result<Self, CommandError> {
        let directory = format!("/bench-{name}-{}", std::process::id());
        let (settings, blocking) = (&context.settings, Blocking::default());
        let config = |masters: Vec<HostPort>, user: String| ClientConfig {
            chunk_size: settings.chunk_size,
            replication: settings.replication,
            socket_timeout: settings.socket_timeout,
            retries: settings.client_retry,
            ..ClientConfig::new(masters, user)
        };
        if running || !context.options.master.is_empty() {
            let user = settings.user.clone().unwrap_or_else(system_user);
            let config = config(settings.masters.clone(), user.clone());
            let (address, client) = (settings.masters[0].clone(), Client::new(config.clone()));
            return Ok(Self { address, user, client, directory, blocking, config, embedded: None });
        }
        let folder = tempfile::Builder::new().prefix("distrifs-bench-").tempdir();
        let folder =
            folder.map_err(|e| CommandError::local(&std::env::temp_dir(), "make a folder in it", e))?;
        let cluster = LocalCluster::start(&embedded(folder.path(), datanodes)).await?;
        let (address, user) = (cluster.address().clone(), system_user());
        let config = config(vec![address.clone()], user.clone());
        let config = ClientConfig { replication: None, ..config };
        let client = Client::new(config.clone());
        wait_writable(&client, datanodes).await?;
        let embedded = Some((cluster, folder));
        Ok(Self { address, user, client, directory, blocking, config, embedded })
    }

    /// Another client, with connections of its own.
    pub(super) fn another_client(&self) -> Client {
        Client::new(self.config.clone())
    }

    /// Replicas of a file that is put with so many, or without a number.
    pub(super) async fn replication(&self, asked: Option<u32>) -> Result<u32, CommandError> {
        match asked.or(self.config.replication) {
            Some(copies) => Ok(copies),
            None => Ok(self.client.cluster_status().await?.default_replication),
        }
    }

    /// A folder on the file system of an embedded cluster.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.embedded.as_ref().map(|(_, folder)| folder.path())
    }

    /// Where the datanodes of an embedded cluster tell their metrics.
    pub(super) fn datanodes_http(&self) -> Result<Option<Vec<&str>>, CommandError> {
        let Some((cluster, _)) = &self.embedded else { return Ok(None) };
        cluster.datanodes().iter().map(|daemon| daemon.field("http")).collect::<Result<_, _>>().map(Some)
    }

    /// What the processes have cost so far: this one, and those of an embedded cluster; of another one nothing is known.
    pub(super) fn usage(&self) -> Usage {
        self.embedded.as_ref().map_or_else(Usage::own, |(cluster, _)| Usage::start(cluster))
    }

    /// CPU seconds of all processes so far, where all are known.
    pub(super) fn cpu(&self) -> Option<f64> {
        self.embedded.as_ref().map(|_| self.usage().cpu())
    }

    /// Stops what was started, and removes its folder; of a cluster that runs on, the directory.
    pub(super) async fn stop(self) -> Result<(), CommandError> {
        self.blocking.end().await;
        let Some((cluster, folder)) = self.embedded else {
            return match self.client.remove(&self.directory, true).await {
                // It was never made.
                Err(ClientError::Refused { code: ErrorCode::NotFound, .. }) => Ok(()),
                removed => Ok(removed?),
            };
        };
        cluster.stop().await;
        let path: PathBuf = folder.path().to_owned();
        folder.close().map_err(|e| CommandError::local(&path, "remove it", e))
    }
}

fn embedded(folder: &Path, datanodes: u32) -> LocalClusterConfig {
    let environment = [
        ("DISTRIFS_REPLICATION_FACTOR", datanodes.to_string()),
        // What was overwritten would fill the disk.
        ("DISTRIFS_GC_INTERVAL", "0.5".to_owned()),
        ("DISTRIFS_GC_DELAY", "0.5".to_owned()),
    ];
    LocalClusterConfig {
        folder: folder.to_owned(),
        datanodes,
        port: 0,
        environment: environment.to_vec(),
        without: &["DISTRIFS_MASTER_WAL", "DISTRIFS_MASTER_LOCK_PATH"],
        settings: None,
        links: Vec::new(),
        standby: false,
    }
}
