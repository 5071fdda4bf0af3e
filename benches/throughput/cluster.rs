//! A real cluster for the measurement: `distrifs local` as a user starts it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::cpu::peak_resident_kib;

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");

pub(crate) struct Cluster {
    child: Child,
    folder: PathBuf,
    master: String,
    pids: Vec<u32>,
}

impl Cluster {
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(BINARY);
        command.args(["local", "--json", "--port", "0", "--data-dir"]).arg(folder);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let serving: serde_json::Value = serde_json::from_str(&line).context("what `local` says")?;
        let pid =
            |of: &serde_json::Value| of.as_u64().and_then(|pid| u32::try_from(pid).ok()).context("a pid");
        let mut pids = vec![pid(&serving["master_pid"])?];
        for datanode in serving["datanodes"].as_array().context("datanodes")? {
            pids.push(pid(&datanode["pid"])?);
        }
        let master = serving["master"].as_str().context("the master's address")?.to_owned();
        let cluster = Self { child, folder: folder.to_owned(), master, pids };
        let wait = cluster.client(&["wait", "--datanodes", "3", "--timeout", "60"]).status()?;
        ensure!(wait.success(), "the cluster takes no writes");
        Ok(cluster)
    }

    /// The command line, told where the cluster is.
    pub(crate) fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["--master", &self.master]).args(arguments);
        command
    }

    /// The master, then the datanodes.
    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }

    pub(crate) fn peak_memory(&self) -> anyhow::Result<String> {
        let mib = |&pid| Ok::<_, anyhow::Error>((peak_resident_kib(pid)? >> 10).to_string());
        let all: Vec<_> = self.pids.iter().map(mib).collect::<Result<_, _>>()?;
        Ok(format!("master {}, datanodes {}", all[0], all[1..].join(" ")))
    }

    /// Reads every file of the cluster once.
    pub(crate) fn cache_replicas(&self) -> anyhow::Result<()> {
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else {
                    std::io::copy(&mut std::fs::File::open(entry.path())?, &mut std::io::sink())?;
                }
            }
        }
        Ok(())
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
