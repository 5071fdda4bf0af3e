//! `master`: the metadata daemon in the foreground.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use distrifs_master::{Master, MasterConfig, MasterFailure, Standby, StartError, Turn};
use distrifs_proto::latency::Delay;
use distrifs_proto::types::HostPort;
use tokio::io::AsyncReadExt;

use crate::context::{Context, system_user};
use crate::error::CommandError;
use crate::output::Output;
use crate::signals::EndSignals;

/// How often a master starts again by itself because a datanode was shown a higher epoch: as long as each tells of another
/// one, and not for ever.
const ACCEPT_ROUNDS_MAX: u32 = 16;

/// Run the metadata daemon.
#[derive(Debug, Args)]
#[command(
    after_help = "It prints one line when it serves: `ready master grpc=HOST:PORT http=HOST:PORT epoch=N`. \
    SIGTERM and SIGINT stop it cleanly.\n\n\
    Where another master leads on the folder it prints `standby master http=HOST:PORT`, waits, and leads as soon as that \
    one ends, or has been silent for DISTRIFS_LEADER_LEASE seconds (default 6; 0 for never, on a file system that does \
    not show one machine at once what another has written). Give clients and datanodes all of them: --master HOST:PORT,HOST:PORT.\n\n\
    Groups of users are those of the operating system, or, if the file given with --config has a table [groups], those \
    of the table, such as `staff = [\"alice\", \"bob\"]`. A user whom neither knows has only the group of its own name.\n\n\
    A master whose log lost records that a datanode knows of, as after the restore of an old copy, says so in every refusal \
    and in /health, stays read-only and deletes nothing: put the newest data folder back in place. With --accept-data-loss \
    it gives the lost records up instead, says in its log what that means, and goes on; chunks that only they knew of are \
    moved to `quarantine` at their datanodes. It is needed at one start, and does nothing where nothing is lost.\n\n\
    It takes a checkpoint whenever DISTRIFS_CHECKPOINT_LOG_BYTES of log (default 128M) have gathered.\n\n\
    Example:\n  distrifs master --data-dir /var/lib/distrifs/master --listen 0.0.0.0:9000"
)]
pub(crate) struct MasterCommand {
    /// Its folder; made when missing [default: `master` below DISTRIFS_STORAGE_ROOT]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where clients and datanodes reach it; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9000")]
    listen: HostPort,
    /// Where health and metrics are; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9001")]
    http: HostPort,
    /// Refuse to start where another master leads, instead of waiting for its end
    #[arg(long)]
    no_standby: bool,
    /// Go on without what its log has lost, if a datanode knows of more: files made, changed or removed in the lost records
    /// are as they were before. Only when the newest data folder is gone for good
    #[arg(long)]
    accept_data_loss: bool,
    /// Stop when standard input closes: for whoever starts it as a child
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
    /// Hold up a stage at every pass, for tests of what names it
    #[arg(long, value_name = "STAGE=MILLISECONDS", hide = true)]
    delay: Vec<Delay>,
}

impl MasterCommand {
    pub(crate) async fn run(
        self,
        context: &Context,
        output: &mut Output,
        signals: Option<&mut EndSignals>,
    ) -> Result<(), CommandError> {
        let settings = &context.settings;
        let data_dir = data_dir(self.data_dir.clone(), settings.storage_root.as_ref(), "master")?;
        let defaults = MasterConfig::new(data_dir, system_user());
        let mut config = MasterConfig {
            listen: self.listen.clone(),
            http: Some(self.http.clone()),
            wal_dir: settings.master_wal.clone(),
            lock_path: settings.master_lock_path.clone(),
            lease: (!settings.leader_lease.is_zero()).then_some(settings.leader_lease),
            chunk_size: settings.chunk_size.unwrap_or(defaults.chunk_size),
            replication: settings.replication.unwrap_or(defaults.replication),
            heartbeat_interval: settings.heartbeat_interval,
            heartbeat_timeout: settings.heartbeat_timeout,
            block_report_interval: settings.block_report_interval,
            recovery_interval: settings.recovery_interval,
            gc_interval: settings.gc_interval,
            gc_delay: settings.gc_delay,
            pending_timeout: settings.pending_timeout,
            groups: settings.groups.clone(),
            checkpoint_log_bytes: settings.checkpoint_log_bytes.unwrap_or(defaults.checkpoint_log_bytes),
            accept_data_loss: self.accept_data_loss,
            delays: self.delay.clone(),
            ..defaults
        };
        let mut signals = signals;
        let mut rounds = 0..ACCEPT_ROUNDS_MAX;
        loop {
            match self.lead(&mut config, output, signals.as_deref_mut()).await? {
                Some(failure @ MasterFailure::EpochRaised { .. }) if rounds.next().is_some() => {
                    tracing::warn!(%failure, "starts again by itself");
                }
                Some(failure) => return Err(CommandError::Daemon(failure.to_string())),
                None => return Ok(()),
            }
        }
    }

    /// Leads, when its turn comes, until told to stop, or until the failure that is handed back. Ports that were any are
    /// then those that were taken.
    async fn lead(
        &self,
        config: &mut MasterConfig,
        output: &mut Output,
        mut signals: Option<&mut EndSignals>,
    ) -> Result<Option<MasterFailure>, CommandError> {
        let text =
            |address: Option<SocketAddr>| address.map_or_else(|| "none".to_owned(), |it| it.to_string());
        let failed = |error: StartError| CommandError::Daemon(error.to_string());
        let turn = match self.no_standby {
            true => Turn::Leads(Box::new(Master::start(config.clone()).await.map_err(failed)?)),
            false => Standby::enter(config.clone()).await.map_err(failed)?,
        };
        let master = match turn {
            Turn::Leads(master) => *master,
            Turn::Waits(standby) => {
                output.line(format_args!("standby master http={}", text(standby.http_address())))?;
                output.flush()?;
                let leads = serve(standby.lead(), signals.as_deref_mut(), self.exit_with_stdin).await;
                // Told to stop before its turn came.
                let Some(leads) = leads else { return Ok(None) };
                leads.map_err(failed)?
            }
        };
        config.listen = master.grpc_address().into();
        config.http = master.http_address().map(HostPort::from);
        output.line(format_args!(
            "ready master grpc={} http={} epoch={}",
            master.grpc_address(),
            text(master.http_address()),
            master.epoch()
        ))?;
        output.flush()?;
        let failure = serve(master.failed(), signals, self.exit_with_stdin).await;
        // A master that failed has nothing in order left to close, unless it is to start again.
        if matches!(failure, None | Some(MasterFailure::EpochRaised { .. })) {
            master.stop().await;
        }
        Ok(failure)
    }
}

/// Serves until a signal, the end of standard input where that was asked for, or a failure, which is handed back.
pub(super) async fn serve<F>(
    failed: impl Future<Output = F>,
    signals: Option<&mut EndSignals>,
    exit_with_stdin: bool,
) -> Option<F> {
    let told_to_stop = async {
        match signals {
            Some(signals) => drop(signals.next().await),
            None => std::future::pending().await,
        }
    };
    let stdin_closes = async {
        if !exit_with_stdin {
            return std::future::pending().await;
        }
        let mut stdin = tokio::io::stdin();
        // Whatever is written there is of no interest; an error is as good as the end.
        while stdin.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        failure = failed => Some(failure),
        () = told_to_stop => None,
        () = stdin_closes => None,
    }
}

/// The folder of a daemon: the option, else a folder of its own below the storage root.
pub(super) fn data_dir(
    option: Option<PathBuf>,
    storage_root: Option<&PathBuf>,
    name: &str,
) -> Result<PathBuf, CommandError> {
    match (option, storage_root) {
        (Some(folder), _) => Ok(folder),
        (None, Some(root)) => Ok(root.join(name)),
        (None, None) => {
            Err(CommandError::Usage("no folder: give --data-dir DIR or set DISTRIFS_STORAGE_ROOT".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_status::ExitStatus;

    #[test]
    fn the_option_wins_over_the_storage_root_and_one_of_them_is_needed() {
        let root = PathBuf::from("/root");
        let given = Some(PathBuf::from("/given"));
        assert_eq!(data_dir(given, Some(&root), "master").unwrap(), PathBuf::from("/given"));
        assert_eq!(data_dir(None, Some(&root), "master").unwrap(), PathBuf::from("/root/master"));
        assert_eq!(data_dir(None, None, "master").expect_err("neither").status(), ExitStatus::Usage);
    }
}
