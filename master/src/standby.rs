//! A master that waits: another one leads on its folder, and when that one ends, however it ends, this one leads.
//!
//! The lock of the leader is the operating system's, which gives it back the moment its holder's process is gone. Who
//! gets it raises the epoch before anything else is done, so that nothing of the leader before counts any more.

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
use crate::folder::{LeaderLock, make_folder};
use crate::http::serve_router;
use crate::master::{Master, bind};

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

impl Standby {
    /// Leads on the folder if nobody does, or waits.
    ///
    /// # Errors
    /// As [`Master::start`]; also when an address cannot be listened on, which is better known before it is needed.
    pub async fn enter(config: MasterConfig) -> Result<Turn, StartError> {
        config.check()?;
        make_folder(&config.data_dir)?;
        match LeaderLock::take(&config.lock_path()) {
            Ok(lock) => Master::start_locked(config, lock, None).await.map(|it| Turn::Leads(Box::new(it))),
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
        let (stop, stopped) = watch::channel(false);
        let lock = config.lock_path().display().to_string();
        let mut standby = Self { config, http, serving: None, stop };
        standby.serving = standby.listener()?.map(|listener| tokio::spawn(serve(listener, lock, stopped)));
        Ok(standby)
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

    /// Waits until nobody leads, and leads.
    ///
    /// # Errors
    /// As [`Master::start`].
    pub async fn lead(mut self) -> Result<Master, StartError> {
        let lock = loop {
            match LeaderLock::take(&self.config.lock_path()) {
                Err(StartError::InUse { .. }) => tokio::time::sleep(LOOK).await,
                taken => break taken?,
            }
        };
        tracing::info!("the leader is gone: this master leads from here on");
        self.stop.send_replace(true);
        if let Some(serving) = self.serving.take() {
            // It ends with the answers that are under way; one that hangs is left behind.
            let _ = tokio::time::timeout(LOOK, serving).await;
        }
        let http = self.listener()?.zip(self.http_address());
        Master::start_locked(self.config.clone(), lock, http).await
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
