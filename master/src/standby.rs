//! A master that waits: another one leads on its folder, and when that one ends, however it ends, or falls silent, this
//! one leads.
//!
//! Who finds the lock free, or the lease run out, raises the epoch before anything else is done, so that nothing of the
//! leader before counts any more: see [`crate::leadership`].

use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::MasterConfig;
use crate::error::StartError;
use crate::folder::make_folder;
use crate::http::serve_router;
use crate::leadership::lease::{Sight, Watch, now};
use crate::leadership::{LeaderLock, Leadership};
use crate::master::{Master, Seat, bind, blocking};

/// Between two looks whether the leader is gone.
const LOOK: Duration = Duration::from_millis(50);

/// What a master is that has just been started.
#[derive(Debug)]
pub enum Turn {
    /// It leads.
    Leads(Box<Master>),
    /// Another one does.
    Waits(Box<Standby>),
}

/// A master that waits for its turn. Dropped, it does not wait any more.
#[derive(Debug)]
pub struct Standby {
    config: MasterConfig,
    /// Where it says that it is healthy and does not lead, and where it will say so when it does.
    http: Option<(StdListener, SocketAddr)>,
    serving: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// A lease that has run out, as it was seen.
struct RunOut(Sight);

impl Standby {
    /// Leads on the folder if nobody does, or waits.
    ///
    /// # Errors
    /// As [`Master::start`]; also when an address cannot be listened on, which is better known before it is needed.
    pub async fn enter(config: MasterConfig) -> Result<Turn, StartError> {
        config.check()?;
        make_folder(&config.data_dir)?;
        match LeaderLock::take(&config.lock_path()) {
            Ok(lock) => {
                let master = Master::start_seated(config, Seat::Free(lock), None).await?;
                Ok(Turn::Leads(Box::new(master)))
            }
            Err(StartError::InUse { .. }) => Self::wait(config).await.map(|it| Turn::Waits(Box::new(it))),
            Err(error) => Err(error),
        }
    }

    async fn wait(config: MasterConfig) -> Result<Self, StartError> {
        // Clients are not kept waiting at a port behind which nobody answers: it is left again until it is needed.
        drop(bind(&config.listen).await?);
        let http = match &config.http {
            Some(address) => {
                let (listener, bound) = bind(address).await?;
                let refused = |source| StartError::Bind { address: address.clone(), source };
                Some((listener.into_std().map_err(refused)?, bound))
            }
            None => None,
        };
        let mut standby = Self { config, http, serving: None, stop: watch::channel(false).0 };
        standby.tell_health()?;
        Ok(standby)
    }

    fn tell_health(&mut self) -> Result<(), StartError> {
        let (stop, stopped) = watch::channel(false);
        let lock = self.config.lock_path().display().to_string();
        self.stop = stop;
        self.serving = self.listener()?.map(|listener| tokio::spawn(serve(listener, lock, stopped)));
        Ok(())
    }

    /// One more handle of the address where health is told.
    fn listener(&self) -> Result<Option<TcpListener>, StartError> {
        let Some((listener, bound)) = &self.http else { return Ok(None) };
        let address = distrifs_proto::types::HostPort { host: bound.ip().to_string(), port: bound.port() };
        let refused = |source| StartError::Bind { address, source };
        listener.try_clone().and_then(TcpListener::from_std).map(Some).map_err(refused)
    }

    /// Where health is told.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(_, address)| *address)
    }

    /// Waits until nobody leads, or the leader's lease has run out, and leads.
    ///
    /// # Errors
    /// As [`Master::start`].
    pub async fn lead(mut self) -> Result<Master, StartError> {
        loop {
            let Some(seat) = self.seat().await? else { continue };
            self.stop.send_replace(true);
            if let Some(serving) = self.serving.take() {
                // It ends with the answers that are under way; one that hangs is left behind.
                let _ = tokio::time::timeout(LOOK, serving).await;
            }
            let http = self.listener()?.zip(self.http_address());
            match Master::start_seated(self.config.clone(), seat, http).await {
                Err(StartError::Deposed(failure)) => {
                    tracing::warn!(%failure, "another master was faster: this one waits again");
                    self.tell_health()?;
                }
                started => return started,
            }
        }
    }

    /// Waits for the turn of this master; `None` when another one was faster.
    async fn seat(&self) -> Result<Option<Seat>, StartError> {
        let mut watch = Watch::default();
        loop {
            match LeaderLock::take(&self.config.lock_path()) {
                Ok(lock) => {
                    tracing::info!("the leader is gone: this master leads from here on");
                    return Ok(Some(Seat::Free(lock)));
                }
                Err(StartError::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
            if let Some(run_out) = self.run_out(&mut watch).await {
                return self.take_over(run_out).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Looks at the lease.
    async fn run_out(&self, watch: &mut Watch) -> Option<RunOut> {
        self.config.lease?;
        let data_dir = self.config.data_dir.clone();
        // What cannot be read says nothing; it is looked at again.
        let sight = blocking(move || Sight::of(&data_dir)).await.ok()?;
        watch.look(now(), sight.clone()).then_some(RunOut(sight))
    }

    /// Raises the epoch over a leader that is silent.
    async fn take_over(&self, RunOut(seen): RunOut) -> Result<Option<Seat>, StartError> {
        let (data_dir, lock_path) = (self.config.data_dir.clone(), self.config.lock_path());
        let Some(token) = seen.token else { return Ok(None) };
        let claimed = blocking(move || {
            let Some(leadership) = Leadership::claim(&data_dir, token)? else { return Ok(None) };
            // If it was renewed at the last moment, its holder may answer until it ends.
            let believed = match Sight::of(&data_dir)?.is_renewal_of(&seen) {
                true => seen.believed(),
                false => Duration::ZERO,
            };
            Ok(Some((LeaderLock::replace(&lock_path)?, leadership, believed)))
        });
        let Some((lock, leadership, believed)) = claimed.await? else { return Ok(None) };
        tracing::warn!(
            silent = %token, epoch = %leadership.epoch(),
            "the leader's lease has run out: this master takes over from it"
        );
        Ok(Some(Seat::Taken { lock, leadership, believed }))
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

async fn serve(listener: TcpListener, lock: String, stop: watch::Receiver<bool>) {
    let text = format!("standby: another master holds {lock}\n");
    let router =
        Router::new().route("/health", get(|| async move { (StatusCode::SERVICE_UNAVAILABLE, text) })).route(
            "/metrics",
            get(|| async { "# TYPE distrifs_master_standby gauge\ndistrifs_master_standby 1\n" }),
        );
    if let Err(error) = serve_router(listener, router, stop).await {
        tracing::error!(%error, "http of the standby ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &std::path::Path) -> MasterConfig {
        let any = || "127.0.0.1:0".parse().expect("an address");
        MasterConfig { listen: any(), http: Some(any()), ..MasterConfig::new(folder.to_owned(), "root") }
    }

    async fn health(address: SocketAddr) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let ask = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(ask).await.expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_next_leads_when_the_leader_ends_and_tells_so_at_the_same_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let Ok(Turn::Leads(first)) = Standby::enter(config(dir.path())).await else {
            panic!("nobody else is there")
        };
        let Ok(Turn::Waits(second)) = Standby::enter(config(dir.path())).await else { panic!("one leads") };
        let Ok(Turn::Waits(third)) = Standby::enter(config(dir.path())).await else { panic!("one leads") };
        let at = second.http_address().expect("given");
        let waiting = health(at).await;
        assert!(waiting.contains("503") && waiting.contains("standby"), "{waiting}");
        let epoch = first.epoch();
        first.stop().await;
        let leader = second.lead().await.expect("leads");
        assert!(leader.epoch() > epoch);
        assert_eq!(leader.http_address(), Some(at));
        let leading = health(at).await;
        assert!(leading.contains("200 OK") && leading.contains("ok epoch="), "{leading}");
        // A master that is dropped is as one that died.
        drop(leader);
        assert!(third.lead().await.expect("leads").epoch().0 > epoch.0 + 1);
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_known_before_it_is_needed() {
        let dir = tempfile::tempdir().expect("a folder");
        let Ok(Turn::Leads(first)) = Standby::enter(config(dir.path())).await else {
            panic!("nobody else is there")
        };
        let taken = first.grpc_address().to_string().parse().expect("an address");
        let refused = Standby::enter(MasterConfig { listen: taken, ..config(dir.path()) }).await;
        assert!(matches!(refused, Err(StartError::Bind { .. })), "{refused:?}");
        first.stop().await;
    }
}
