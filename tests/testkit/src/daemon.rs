//! One daemon process.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, mpsc};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{DEADLINE, wait_until};

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// What it writes on its standard output.
    lines: Mutex<mpsc::Receiver<String>>,
    ready: HashMap<String, String>,
}

impl Daemon {
    /// Starts `command` with its standard error appended to `log`, and waits for its `ready` line, or that of a standby.
    ///
    /// # Errors
    /// What it wrote to its log, when it ended before.
    ///
    /// # Panics
    /// When it neither serves nor ends.
    pub fn start(mut command: Command, log: &Path) -> Result<Self, String> {
        let stderr: File = OpenOptions::new().create(true).append(true).open(log).expect("a log");
        // Its standard input closes when this process ends, however it ends, and it stops.
        command.arg("--exit-with-stdin").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().expect("the daemon's process");
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut daemon = Self { child, lines: Mutex::new(lines), ready: HashMap::new() };
        match daemon.next_line() {
            Ok(line) => {
                daemon.take(&line);
                Ok(daemon)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let _ = daemon.child.wait();
                Err(std::fs::read_to_string(log).unwrap_or_default())
            }
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{}: no ready line", log.display()),
        }
    }

    fn next_line(&mut self) -> Result<String, mpsc::RecvTimeoutError> {
        self.lines.get_mut().expect("nobody panicked with it").recv_timeout(DEADLINE)
    }

    fn take(&mut self, line: &str) {
        assert!(line.starts_with("ready ") || line.starts_with("standby "), "it says {line:?}");
        let fields = line.split(' ').filter_map(|field| field.split_once('='));
        self.ready = fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    }

    /// Whether it waits for its turn.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        !self.ready.contains_key("epoch") && !self.ready.contains_key("data")
    }

    /// Waits until a standby leads.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_ready(&mut self) {
        let line = self.next_line().expect("it leads");
        self.take(&line);
        assert!(!self.is_standby(), "it waits again");
    }

    /// A field of its `ready` line.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn field(&self, key: &str) -> &str {
        self.ready.get(key).unwrap_or_else(|| panic!("no {key} in {:?}", self.ready))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, without waiting.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// SIGKILL, until it is gone.
    pub fn kill_and_wait(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP: it stands still, and keeps what it has.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// When it does not run.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn terminate(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// Waits until it ends by itself; its exit status.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn wait_end(mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the daemon stops", || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        status.expect("it ended")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill_and_wait();
    }
}

/// A port that nobody listens on, below those that the system hands out: it stays free for a restart.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run side by side begin at different places.
    let offset = u16::try_from(std::process::id() % 97).expect("small") * 100;
    for _ in 0..10_000 {
        let port = 20_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port")
}

/// The last lines of every log in a folder.
#[must_use]
pub(crate) fn tails(folder: &Path) -> String {
    const LINES: usize = 15;
    let mut text = String::new();
    let mut logs: Vec<PathBuf> =
        std::fs::read_dir(folder).map(|all| all.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    logs.sort();
    for log in logs.iter().filter(|path| path.extension().is_some_and(|ext| ext == "log")) {
        let content = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = content.lines().collect();
        text.push_str(&format!(
            "== {}\n{}\n",
            log.display(),
            lines[lines.len().saturating_sub(LINES)..].join("\n")
        ));
    }
    text
}
