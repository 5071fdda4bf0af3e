//! A real cluster with one interval of the scrub, and how much it has scrubbed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use anyhow::Context;
use distrifs_client::{Client, ClientConfig};
use distrifs_testkit::{Local, files_below};
use rustix::fs::{Advice, fadvise};

/// Starts it on the folder, which keeps its files.
pub(crate) fn start(folder: &Path, scrub_interval: &str) -> Local {
    // So that what one phase wrote is gone before the next.
    let soon = ["DISTRIFS_HEARTBEAT_INTERVAL", "DISTRIFS_GC_INTERVAL", "DISTRIFS_GC_DELAY"];
    let mut environment = vec![("DISTRIFS_SCRUB_INTERVAL", scrub_interval)];
    environment.extend(soon.map(|name| (name, "1")));
    Local::start(env!("CARGO_BIN_EXE_distrifs"), folder, &environment)
}

pub(crate) fn client(cluster: &Local) -> anyhow::Result<Client> {
    let user = uzers::get_current_username().context("who runs this")?;
    Ok(Client::new(ClientConfig::new(vec![cluster.master().parse()?], user.to_string_lossy())))
}

/// Bytes that all datanodes have checked since their start.
pub(crate) fn checked_bytes(cluster: &Local) -> anyhow::Result<u64> {
    let mut sum = 0;
    for datanode in cluster.datanodes() {
        let mut stream = TcpStream::connect(datanode["http"].as_str().context("an address")?)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let value =
            |line: &str| line.strip_prefix("distrifs_datanode_checked_bytes_total ")?.parse::<u64>().ok();
        sum += text.lines().find_map(value).context("a metric")?;
    }
    Ok(sum)
}

/// Has the system forget the files below, so that reads begin at the disk.
pub(crate) fn forget_cached(folder: &Path) -> anyhow::Result<()> {
    for file in files_below(folder) {
        fadvise(File::open(file)?, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}
