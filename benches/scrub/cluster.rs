//! A real cluster: `distrifs local` as a user starts it, with one interval of the scrub.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use distrifs_client::{Client, ClientConfig};
use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");

pub(crate) struct Cluster {
    child: Child,
    master: String,
    http: Vec<String>,
}

impl Cluster {
    /// Starts it on the folder, which keeps its files, and returns when it takes writes.
    pub(crate) fn start(folder: &Path, scrub_interval: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(BINARY);
        command.args(["local", "--json", "--port", "0", "--data-dir"]).arg(folder);
        command.env("DISTRIFS_SCRUB_INTERVAL", scrub_interval);
        // So that what one phase wrote is gone before the next.
        let soon = ["HEARTBEAT_INTERVAL", "GC_INTERVAL", "GC_DELAY"];
        command.envs(soon.map(|name| (format!("DISTRIFS_{name}"), "1")));
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let mut cluster = Self { child, master: String::new(), http: Vec::new() };
        let serving: serde_json::Value = serde_json::from_str(&line).context("what `local` says")?;
        let text = |of: &serde_json::Value| of.as_str().map(str::to_owned).context("an address");
        cluster.master = text(&serving["master"])?;
        for datanode in serving["datanodes"].as_array().context("datanodes")? {
            cluster.http.push(text(&datanode["http"])?);
        }
        let mut wait = Command::new(BINARY);
        wait.args(["--master", &cluster.master, "wait", "--datanodes", "3", "--timeout", "60"]);
        ensure!(wait.status()?.success(), "the cluster takes no writes");
        Ok(cluster)
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let user = uzers::get_current_username().context("who runs this")?;
        Ok(Client::new(ClientConfig::new(vec![self.master.parse()?], user.to_string_lossy())))
    }

    /// Bytes that all datanodes have checked since their start.
    pub(crate) fn checked_bytes(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for http in &self.http {
            let mut stream = TcpStream::connect(http)?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            let value =
                |line: &str| line.strip_prefix("distrifs_datanode_checked_bytes_total ")?.parse::<u64>().ok();
            sum += text.lines().find_map(value).context("a metric")?;
        }
        Ok(sum)
    }

    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("its process id")?;
        kill_process(pid, Signal::TERM)?;
        ensure!(self.child.wait()?.success(), "the cluster did not stop cleanly");
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its daemons end with it. After a clean stop it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the system forget the files below, so that reads begin at the disk.
pub(crate) fn forget_cached(folder: &Path) -> anyhow::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                fadvise(File::open(entry.path())?, 0, None, Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}
