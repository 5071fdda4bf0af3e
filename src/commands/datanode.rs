//! `datanode`: the storage daemon in the foreground.

use std::path::PathBuf;

use clap::Args;
use distrifs_datanode::{Datanode, DatanodeConfig, IoMode};
use distrifs_proto::latency::Delay;
use distrifs_proto::types::HostPort;

use super::master::{data_dir, serve};
use crate::context::Context;
use crate::error::CommandError;
use crate::output::Output;
use crate::signals::EndSignals;

/// Run the storage daemon.
#[derive(Debug, Args)]
#[command(
    after_help = "It prints one line when it serves: `ready datanode id=ID data=HOST:PORT http=HOST:PORT`. \
    SIGTERM and SIGINT stop it cleanly. Its data folders hold its identity: keep them together.\n\n\
    Example:\n  distrifs datanode --data-dir /disk1/distrifs --data-dir /disk2/distrifs \\\n      \
    --master 10.0.0.1:9000 --listen 10.0.0.7:9100 --rack r2"
)]
pub(crate) struct DatanodeCommand {
    /// A folder for chunks, once for each disk; made when missing [default: `datanode` below DISTRIFS_STORAGE_ROOT]
    #[arg(long, value_name = "DIR")]
    data_dir: Vec<PathBuf>,
    /// Where clients and other datanodes reach it; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9100")]
    listen: HostPort,
    /// Where others reach it, where that is not what it listens on (behind a relay, in a container) [default: --listen]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<HostPort>,
    /// Where health and metrics are; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9101")]
    http: HostPort,
    /// Where the machine stands: replicas go to distinct racks where there are several
    #[arg(long, value_name = "R", default_value = "")]
    rack: String,
    /// Shard threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: Option<u16>,
    /// How disk and network are reached: auto (io_uring where the kernel allows it, POSIX threads elsewhere; the log
    /// says which), uring (io_uring, or no start) or posix
    #[arg(long, value_name = "MODE", default_value_t = IoMode::Auto)]
    io: IoMode,
    /// Stop when standard input closes: for whoever starts it as a child
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
    /// Hold up a stage at every pass, for tests of what names it
    #[arg(long, value_name = "STAGE=MILLISECONDS", hide = true)]
    delay: Vec<Delay>,
}

impl DatanodeCommand {
    pub(crate) async fn run(
        self,
        context: &Context,
        output: &mut Output,
        signals: Option<&mut EndSignals>,
    ) -> Result<(), CommandError> {
        let settings = &context.settings;
        let data_dirs = match self.data_dir.is_empty() {
            true => vec![data_dir(None, settings.storage_root.as_ref(), "datanode")?],
            false => self.data_dir,
        };
        let config = DatanodeConfig {
            data_dirs,
            masters: settings.masters.clone(),
            listen: self.listen,
            advertise: self.advertise,
            http: Some(self.http),
            rack: self.rack,
            shards: self.shards.map(usize::from),
            io: self.io,
            scrub_interval: settings.scrub_interval,
            socket_timeout: settings.socket_timeout,
            delays: self.delay,
        };
        let mut datanode = Datanode::start(config).await.map_err(|e| CommandError::Daemon(e.to_string()))?;
        let http = datanode.http_address().map_or_else(|| "none".to_owned(), |address| address.to_string());
        output.line(format_args!(
            "ready datanode id={} data={} http={http}",
            datanode.node_id(),
            datanode.data_address()
        ))?;
        output.flush()?;
        let failure = serve(datanode.failed(), signals, self.exit_with_stdin).await;
        match failure {
            Some(failure) => Err(CommandError::Daemon(failure)),
            None => {
                datanode.stop().await;
                Ok(())
            }
        }
    }
}
