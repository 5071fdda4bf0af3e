//! `local`: a whole cluster on this machine, in the foreground.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::local_cluster::{Death, LocalCluster, LocalClusterConfig};
use crate::output::Output;
use crate::signals::EndSignals;

/// Run a whole cluster on this machine until Ctrl-C.
#[derive(Debug, Args)]
#[command(
    after_help = "A master and datanodes as processes of their own, all below DIR. Started again on the same DIR it has \
    all its files.\n\n\
    Example:\n  distrifs local --data-dir ~/distrifs\n  distrifs put README.md /        (in another terminal)"
)]
pub(crate) struct Local {
    /// Where everything is kept; made when missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// How many datanodes; each keeps one replica of a chunk at most
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    datanodes: u32,
    /// The master's port; 0 picks a free one
    #[arg(long, default_value_t = 9000)]
    port: u16,
}

/// What `--json` tells once everything serves.
#[derive(Serialize)]
struct Serving<'a> {
    master: String,
    master_http: &'a str,
    master_pid: u32,
    datanodes: Vec<ServingDatanode<'a>>,
}

#[derive(Serialize)]
struct ServingDatanode<'a> {
    id: &'a str,
    address: &'a str,
    http: &'a str,
    pid: u32,
}

impl Local {
    pub(crate) async fn run(
        self,
        context: &Context,
        output: &mut Output,
        signals: Option<&mut EndSignals>,
    ) -> Result<(), CommandError> {
        let Some(signals) = signals else { return Ok(()) };
        let config = LocalClusterConfig {
            folder: self.data_dir.clone(),
            datanodes: self.datanodes,
            port: self.port,
            environment: Vec::new(),
            without: &[],
            settings: context.options.config.clone(),
            links: Vec::new(),
            standby: false,
        };
        let mut cluster = tokio::select! {
            started = LocalCluster::start(&config) => started?,
            _ = signals.next() => return Ok(()),
        };
        self.announce(&cluster, output)?;
        let failure = loop {
            let death = tokio::select! {
                _ = signals.next() => break None,
                death = cluster.death() => death,
            };
            match death {
                Death::Datanode(error) if !cluster.datanodes().is_empty() => {
                    eprintln!("distrifs: local: {error}; the others serve on, a new start brings it back");
                }
                Death::Datanode(error) | Death::Master(error) => break Some(error),
            }
        };
        // A second signal does not wait: dropped, the cluster is killed.
        tokio::select! {
            () = cluster.stop() => {}
            _ = signals.next() => {}
        }
        failure.map_or(Ok(()), Err)
    }

    fn announce(&self, cluster: &LocalCluster, output: &mut Output) -> Result<(), CommandError> {
        if output.json() {
            let datanodes = cluster.datanodes().iter().map(|daemon| {
                Ok(ServingDatanode {
                    id: daemon.field("id")?,
                    address: daemon.field("data")?,
                    http: daemon.field("http")?,
                    pid: daemon.pid(),
                })
            });
            output.object(&Serving {
                master: cluster.address().to_string(),
                master_http: cluster.master().field("http")?,
                master_pid: cluster.master().pid(),
                datanodes: datanodes.collect::<Result<_, CommandError>>()?,
            })?;
            return output.flush();
        }
        let folder = self.data_dir.display();
        output.line(format_args!("DistriFS serves at {}, with everything in {folder}", cluster.address()))?;
        for daemon in cluster.daemons() {
            let address = daemon.field("grpc").or_else(|_| daemon.field("data"))?;
            let (name, pid, http) = (daemon.name(), daemon.pid(), daemon.field("http")?);
            output.line(format_args!("  {name:<12} {address:<22} http://{http}  pid {pid}"))?;
        }
        output.line(format_args!("  logs         {folder}/logs"))?;
        output.line("In another terminal:")?;
        let prefix = match cluster.address().port {
            9000 => String::new(),
            port => format!("DISTRIFS_MASTER_PORT={port} "),
        };
        for command in ["put README.md /", "ls -l /", "cat /README.md"] {
            output.line(format_args!("  {prefix}distrifs {command}"))?;
        }
        output.line("Ctrl-C stops it; started again on the same folder it has all its files.")?;
        output.flush()
    }
}
