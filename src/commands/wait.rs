//! `wait`: until the cluster takes writes.

use std::time::Duration;

use clap::Args;
use distrifs_client::ClusterStatus;
use tokio::time::{Instant, sleep, timeout_at};

use crate::context::Context;
use crate::error::CommandError;
use crate::options::seconds;

/// Between two questions to the master.
const POLL: Duration = Duration::from_millis(100);

/// Wait until the cluster takes writes.
#[derive(Debug, Args)]
#[command(after_help = "Exit status 8 when the time is over before.\n\n\
    Example:\n  distrifs wait --datanodes 5 --timeout 30")]
pub(crate) struct Wait {
    /// Also until this many datanodes are live; fewer than the replication factor do where that is what you ask
    #[arg(long, value_name = "N")]
    datanodes: Option<u32>,
    /// For at most so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    timeout: Duration,
}

impl Wait {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CommandError> {
        let client = context.client();
        let deadline = Instant::now() + self.timeout;
        let mut missing = "no master answered".to_owned();
        loop {
            match timeout_at(deadline, client.cluster_status()).await {
                Ok(Ok(status)) => match self.still_missing(&status) {
                    Some(why) => missing = why,
                    None => return Ok(()),
                },
                Ok(Err(e)) => missing = e.to_string(),
                Err(_) => {}
            }
            if Instant::now() + POLL >= deadline {
                let waited = self.timeout.as_secs_f64();
                return Err(CommandError::TimedOut(format!("not ready after {waited} s: {missing}")));
            }
            sleep(POLL).await;
        }
    }

    /// What the cluster lacks; `None` when it is ready.
    fn still_missing(&self, status: &ClusterStatus) -> Option<String> {
        let live = status.live_nodes;
        match self.datanodes {
            Some(wanted) if live < wanted => Some(format!("{live} of {wanted} datanodes are live")),
            Some(wanted) if wanted < status.default_replication => None,
            _ if status.writable => None,
            _ => Some(status.why_not_writable.clone()),
        }
    }
}
