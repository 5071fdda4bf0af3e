//! A master's `/metrics`: fetched over plain HTTP, parsed, and the longest lock holds kept over the phases of a run.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::CommandError;

/// How long one scrape may take: a master that holds a lock for longer is reported as not answering.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const SCRAPE_BYTES_MAX: u64 = 4 << 20;
const HOLD_SECONDS: &str = "distrifs_lock_hold_seconds_max";
const HOLD_CPU: &str = "distrifs_lock_hold_cpu_seconds_max";
const HOLD_COUNT: &str = "distrifs_lock_hold_seconds_count";
const HOLD_BUCKET: &str = "distrifs_lock_hold_seconds_bucket";
const HOLD_ITEMS: &str = "distrifs_lock_hold_items_max";

/// The samples of one scrape, as `name{labels}` and value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scrape(Vec<(String, f64)>);

impl Scrape {
    /// Fetches the metrics of the master at this HTTP address.
    pub(super) async fn fetch(http: &str) -> Result<Self, CommandError> {
        let failed = |why: String| CommandError::Daemon(format!("http://{http}/metrics: {why}"));
        match timeout(SCRAPE_TIMEOUT, get(http)).await {
            Ok(Ok(body)) => Ok(Self::parse(&body)),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {SCRAPE_TIMEOUT:?}"))),
        }
    }

    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// A sample by its full name, with labels as the master writes them.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Nodes in a state.
    pub(super) fn nodes(&self, state: &str) -> u64 {
        self.value(&format!("distrifs_cluster_nodes{{state=\"{state}\"}}")).unwrap_or_default() as u64
    }

    /// Values of a metric with a label, whatever its others are.
    fn labelled<'a>(&'a self, metric: &'a str, label: &'a str) -> impl Iterator<Item = f64> + 'a {
        let named = self
            .0
            .iter()
            .filter(move |(name, _)| name.strip_prefix(metric).is_some_and(|it| it.contains(label)));
        named.map(|(_, value)| *value)
    }

    /// Values of a metric by the `lock` label.
    fn by_lock<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(name, value)| {
            let labels = name.strip_prefix(metric)?;
            Some((labels.strip_prefix("{lock=\"")?.strip_suffix("\"}")?, *value))
        })
    }
}

/// One request and its whole answer. `Connection: close` ends the body, so that no HTTP client is needed.
async fn get(http: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(http).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(SCRAPE_BYTES_MAX).read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(answer.lines().next().unwrap_or("an empty answer").to_owned())),
    }
}

/// The longest hold of any lock, and when it was seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hold {
    pub(super) lock: String,
    pub(super) seconds: f64,
    /// Largest number of items handled in one hold of that lock, where the master counts them.
    pub(super) items: Option<f64>,
    /// Phase of the run at whose end it was seen first.
    pub(super) phase: &'static str,
}

/// Longest lock holds over the phases of a run: the master's own maximum starts again with each of its starts.
#[derive(Debug, Default)]
pub(super) struct Holds {
    longest: Option<Hold>,
    /// Of all locks: the longest processor time of a hold, and the most items of one.
    cpu_seconds: Option<f64>,
    items: Option<f64>,
}

impl Holds {
    /// Takes in the scrape at the end of a phase.
    pub(super) fn note(&mut self, phase: &'static str, scrape: &Scrape) {
        for (lock, seconds) in scrape.by_lock(HOLD_SECONDS) {
            if self.longest.as_ref().is_none_or(|known| seconds > known.seconds) {
                let items =
                    scrape.by_lock(HOLD_ITEMS).find(|(name, _)| *name == lock).map(|(_, items)| items);
                self.longest = Some(Hold { lock: lock.to_owned(), seconds, items, phase });
            }
        }
        for (metric, most) in [(HOLD_CPU, &mut self.cpu_seconds), (HOLD_ITEMS, &mut self.items)] {
            let values = scrape.by_lock(metric).map(|(_, value)| value);
            *most = values.chain(*most).reduce(f64::max);
        }
    }

    /// Seconds of the longest processor time of a hold, as far as the master takes it, and the most items of one.
    pub(super) fn most(&self) -> (Option<f64>, Option<f64>) {
        (self.cpu_seconds, self.items)
    }

    /// All holds of all locks that a master has had since its start, and those of them beyond 5 ms.
    pub(super) fn counted(scrape: &Scrape) -> (u64, u64) {
        let all: f64 = scrape.by_lock(HOLD_COUNT).map(|(_, holds)| holds).sum();
        let within: f64 = scrape.labelled(HOLD_BUCKET, "le=\"0.005\"").sum();
        (all as u64, (all - within).max(0.0) as u64)
    }

    /// `None` when the master exports no lock holds.
    pub(super) fn longest(&self) -> Option<&Hold> {
        self.longest.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP distrifs_cluster_replicas Reported replicas.\n\
        # TYPE distrifs_cluster_replicas gauge\n\
        distrifs_cluster_replicas 1200\n\
        distrifs_cluster_nodes{state=\"live\"} 38\n\
        distrifs_cluster_nodes{state=\"dead\"} 2\n\
        distrifs_lock_hold_seconds_max{lock=\"cluster\"} 0.0125\n\
        distrifs_lock_hold_seconds_max{lock=\"namespace\"} 0.25\n\
        distrifs_lock_hold_items_max{lock=\"cluster\"} 64\n\
        distrifs_lock_hold_items_max{lock=\"namespace\"} 8192\n\
        distrifs_lock_hold_seconds_bucket{lock=\"cluster\",le=\"0.005\"} 90\n\
        distrifs_lock_hold_seconds_bucket{lock=\"cluster\",le=\"+Inf\"} 100\n\
        distrifs_lock_hold_seconds_bucket{lock=\"namespace\",le=\"0.005\"} 50\n\
        distrifs_lock_hold_seconds_count{lock=\"cluster\"} 100\n\
        distrifs_lock_hold_seconds_count{lock=\"namespace\"} 51\n\
        a line that is no sample\n";

    #[test]
    fn samples_are_found_by_their_labels() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.value("distrifs_cluster_replicas"), Some(1200.0));
        assert_eq!(scrape.value("distrifs_cluster_nodes"), None);
        assert_eq!((scrape.nodes("live"), scrape.nodes("dead"), scrape.nodes("suspect")), (38, 2, 0));
        let locks: Vec<_> = scrape.by_lock(HOLD_SECONDS).collect();
        assert_eq!(locks, [("cluster", 0.0125), ("namespace", 0.25)]);
        assert_eq!(Holds::counted(&scrape), (151, 11));
    }

    #[test]
    fn the_longest_hold_survives_a_restart_of_the_master() {
        let mut holds = Holds::default();
        holds.note("fill", &Scrape::parse("distrifs_cluster_replicas 3\n"));
        assert_eq!(holds.longest(), None, "a master that exports none");
        holds.note("kill", &Scrape::parse(TEXT));
        holds.note("restart", &Scrape::parse("distrifs_lock_hold_seconds_max{lock=\"cluster\"} 0.02\n"));
        let expected =
            Hold { lock: "namespace".to_owned(), seconds: 0.25, items: Some(8192.0), phase: "kill" };
        assert_eq!(holds.longest(), Some(&expected));
        holds.note("deletes", &Scrape::parse("distrifs_lock_hold_seconds_max{lock=\"log\"} 0.5\n"));
        let longest = holds.longest().expect("one");
        assert_eq!((longest.lock.as_str(), longest.items, longest.phase), ("log", None, "deletes"));
        assert_eq!(holds.most(), (None, Some(8192.0)));
        holds.note("later", &Scrape::parse("distrifs_lock_hold_cpu_seconds_max{lock=\"log\"} 0.001\n"));
        assert_eq!(holds.most(), (Some(0.001), Some(8192.0)));
    }
}
