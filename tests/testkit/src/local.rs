//! A whole cluster as a user starts it: `distrifs local`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A running `distrifs local` of three datanodes. Dropping it kills it.
#[derive(Debug)]
pub struct Local {
    child: Child,
    binary: PathBuf,
    serving: Value,
}

impl Local {
    /// Starts it on a folder with these variables beside the caller's, and returns when it takes writes.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(binary: &str, folder: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary);
        command.args(["local", "--json", "--port", "0", "--data-dir"]).arg(folder);
        command.envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the cluster's process");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        let mut local = Self { child, binary: PathBuf::from(binary), serving: Value::Null };
        BufReader::new(stdout).read_line(&mut line).expect("what it says");
        local.serving = serde_json::from_str(&line).expect("an object on one line");
        let wait = local.command(&["wait", "--datanodes", "3", "--timeout", "60"]).status();
        assert!(wait.expect("the client's process").success(), "the cluster takes no writes");
        local
    }

    /// `HOST:PORT` of the master.
    ///
    /// # Panics
    /// When it did not tell.
    #[must_use]
    pub fn master(&self) -> &str {
        self.serving["master"].as_str().expect("an address")
    }

    /// The command line, told where the cluster is.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["--master", self.master()]).args(arguments);
        command
    }

    /// What each datanode is said to be: `id`, `address`, `http`, `pid`.
    ///
    /// # Panics
    /// When it did not tell.
    #[must_use]
    pub fn datanodes(&self) -> &[Value] {
        self.serving["datanodes"].as_array().expect("datanodes")
    }

    /// The processes: the master's, then the datanodes'.
    ///
    /// # Panics
    /// When it did not tell.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let all =
            std::iter::once(&self.serving["master_pid"]).chain(self.datanodes().iter().map(|it| &it["pid"]));
        all.map(|pid| pid.as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id")).collect()
    }

    /// SIGTERM, until it is gone.
    ///
    /// # Panics
    /// When it does not end cleanly.
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("our child").success(), "the cluster did not stop cleanly");
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Its daemons end with it. After a clean stop it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
