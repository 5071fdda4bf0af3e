//! Device syncs of an embedded cluster's datanodes, from their metrics.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::target::Target;
use crate::error::CommandError;

/// What all of a datanode's metrics take at most.
const METRICS_BYTES_MAX: u64 = 1 << 20;
/// A datanode under load answers within a moment.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const NAME: &str = "distrifs_datanode_syncs_total ";

/// Of all datanodes since they began; of a cluster that runs elsewhere nothing is known.
pub(super) async fn datanode_syncs(target: &Target) -> Result<Option<u64>, CommandError> {
    let Some(addresses) = target.datanodes_http()? else { return Ok(None) };
    let mut all = 0;
    for address in addresses {
        let asked = timeout(ANSWER_MAX, metrics(address)).await.unwrap_or_else(|late| Err(late.into()));
        let text = asked.map_err(|e| CommandError::Check(format!("http://{address}/metrics: {e}")))?;
        all += count(&text)
            .ok_or_else(|| CommandError::Check(format!("http://{address}/metrics: no count of syncs")))?;
    }
    Ok(Some(all))
}

async fn metrics(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: datanode\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.take(METRICS_BYTES_MAX).read_to_string(&mut text).await?;
    Ok(text)
}

fn count(metrics: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix(NAME))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_among_the_metrics() {
        let metrics =
            "# TYPE distrifs_datanode_syncs_total counter\r\ndistrifs_datanode_syncs_total 17\nother 3\n";
        assert_eq!(count(metrics), Some(17));
        assert_eq!(count("distrifs_datanode_syncs_total_other 17\n"), None);
        assert_eq!(count("distrifs_datanode_syncs_total x\n"), None);
    }
}
