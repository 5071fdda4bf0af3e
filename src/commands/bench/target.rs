//! What is measured: a cluster of child processes in a temporary folder, or one that runs.

use std::path::{Path, PathBuf};

use distrifs_client::{Client, ClientConfig};
use distrifs_proto::types::HostPort;
use tempfile::TempDir;

use crate::commands::demo::wait_writable;
use crate::context::{Context, system_user};
use crate::error::CommandError;
use crate::local_cluster::{LocalCluster, LocalClusterConfig};
use crate::usage::Usage;

/// Datanodes of an embedded cluster: the master needs one to take writes, and more only take processor time away.
const DATANODES: u32 = 1;

/// A cluster to be measured.
pub(super) struct Target {
    /// Its master.
    pub(super) address: HostPort,
    /// Who asks.
    pub(super) user: String,
    /// A client of it, for what is not measured.
    pub(super) client: Client,
    embedded: Option<(LocalCluster, TempDir)>,
}

impl Target {
    /// The cluster that `--master` names, or one of its own.
    pub(super) async fn start(context: &Context) -> Result<Self, CommandError> {
        if let Some(address) = context.options.master.first() {
            let user = context.settings.user.clone().unwrap_or_else(system_user);
            let (address, client) = (address.clone(), context.client());
            return Ok(Self { address, user, client, embedded: None });
        }
        let folder = tempfile::Builder::new().prefix("distrifs-bench-").tempdir();
        let folder =
            folder.map_err(|e| CommandError::local(&std::env::temp_dir(), "make a folder in it", e))?;
        let config = LocalClusterConfig {
            folder: folder.path().to_owned(),
            datanodes: DATANODES,
            port: 0,
            environment: vec![("DISTRIFS_REPLICATION_FACTOR", DATANODES.to_string())],
            without: &["DISTRIFS_MASTER_WAL", "DISTRIFS_MASTER_LOCK_PATH"],
            settings: None,
            links: Vec::new(),
            standby: false,
        };
        let cluster = LocalCluster::start(&config).await?;
        let address = cluster.address().clone();
        let client = Client::new(ClientConfig::new(vec![address.clone()], system_user()));
        wait_writable(&client, DATANODES).await?;
        Ok(Self { address, user: system_user(), client, embedded: Some((cluster, folder)) })
    }

    /// A folder on the file system of an embedded master's log.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.embedded.as_ref().map(|(_, folder)| folder.path())
    }

    /// CPU seconds spent so far by this process and an embedded cluster's; of another cluster nothing is known.
    pub(super) fn cpu(&self) -> Option<f64> {
        self.embedded.as_ref().map(|(cluster, _)| Usage::start(cluster).cpu())
    }

    /// Stops what was started, and removes its folder.
    pub(super) async fn stop(self) -> Result<(), CommandError> {
        let Some((cluster, folder)) = self.embedded else { return Ok(()) };
        cluster.stop().await;
        let path: PathBuf = folder.path().to_owned();
        folder.close().map_err(|e| CommandError::local(&path, "remove it", e))
    }
}
