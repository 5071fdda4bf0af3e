//! Which of several masters leads: looked for before a session, and during one that has fallen silent.
//!
//! A leader that stands still is silent, although its machine still takes connections in; the next one may lead long
//! before the connection to the old one breaks.

use std::time::Duration;

use distrifs_proto::grpc::leading;
use distrifs_proto::types::{Epoch, HostPort};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tonic::transport::{Channel, Endpoint};

/// How long masters may take to say that they lead.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many heartbeats may stay without an answer before others are asked; and what is not called silence yet.
const UNANSWERED_MAX: u32 = 2;
const SILENCE_MIN: Duration = Duration::from_millis(500);

/// The master of these that says that it leads, and its epoch: if there is one, one of the epoch `seen` or a later one.
pub(super) async fn find(masters: &[HostPort], seen: Epoch) -> Option<(HostPort, Epoch)> {
    let channel = |master: &HostPort| {
        let endpoint = Endpoint::from_shared(format!("http://{master}")).ok()?;
        Some(endpoint.connect_timeout(PATIENCE).connect_lazy())
    };
    let channels: Vec<(usize, Channel)> =
        masters.iter().enumerate().filter_map(|(index, master)| Some((index, channel(master)?))).collect();
    let (index, epoch) = leading(&channels, seen, PATIENCE).await?;
    Some((masters[index].clone(), epoch))
}

/// Watches the leader of a session.
pub(super) struct LeaderWatch {
    others: Vec<HostPort>,
    silence: Duration,
    /// When the others are asked, unless the leader is heard before.
    ask_at: Instant,
    /// They are being asked.
    asking: Option<JoinHandle<Option<(HostPort, Epoch)>>>,
}

impl Drop for LeaderWatch {
    fn drop(&mut self) {
        self.heard();
    }
}

impl LeaderWatch {
    /// Of a leader that is about to answer; the others may lead in its place.
    pub(super) fn new(others: Vec<HostPort>) -> Self {
        Self::of_session(others, Duration::ZERO)
    }

    /// Of a leader that answers heartbeats, which come in this interval.
    pub(super) fn of_session(others: Vec<HostPort>, heartbeat_interval: Duration) -> Self {
        let silence = (heartbeat_interval * UNANSWERED_MAX).max(SILENCE_MIN);
        Self { others, silence, ask_at: Instant::now() + silence, asking: None }
    }

    /// The leader is there.
    pub(super) fn heard(&mut self) {
        self.ask_at = Instant::now() + self.silence;
        if let Some(asking) = self.asking.take() {
            asking.abort();
        }
    }

    /// Resolves when the leader has been silent and another master leads, which it returns. May be dropped and begun
    /// again at any time.
    pub(super) async fn other_leads(&mut self, seen: Epoch) -> HostPort {
        loop {
            let Some(asking) = &mut self.asking else {
                sleep_until(self.ask_at).await;
                if self.others.is_empty() {
                    return std::future::pending().await;
                }
                let others = self.others.clone();
                // A task, since the caller drops this whenever something else happens.
                self.asking = Some(tokio::spawn(async move { find(&others, seen).await }));
                continue;
            };
            let found = asking.await;
            self.heard();
            if let Ok(Some((master, epoch))) = found
                && epoch >= seen
            {
                return master;
            }
        }
    }
}
