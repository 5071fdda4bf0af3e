//! One run of the command line.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

/// How a command ended and what it printed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// Its exit status; -1 when a signal ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Itself, if it ended with 0.
    ///
    /// # Panics
    /// When it did not, showing what it said.
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 0, "{}: {}", self.line, self.stderr);
        self
    }

    /// Itself, if it failed with this status and told it in one line that begins as it should.
    ///
    /// # Panics
    /// When it did not, showing what it said.
    #[must_use]
    pub fn fails_with(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.line, self.stderr);
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with("distrifs: "), "{}: {:?}", self.line, self.stderr);
        self
    }

    /// Standard output as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text is UTF-8")
    }

    /// Standard output as one JSON object per line.
    ///
    /// # Panics
    /// When a line is not JSON.
    #[must_use]
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {line}: {e}", self.line)))
            .collect()
    }
}

/// A command of the binary with none of the caller's settings.
#[must_use]
pub fn bare_command(binary: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DISTRIFS_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

/// Runs a prepared command with `stdin` as its standard input.
///
/// # Panics
/// When it cannot be started.
pub fn run(command: &mut Command, stdin: &[u8]) -> Outcome {
    let line = format!("{:?}", command.get_args().collect::<Vec<_>>());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
    let mut pipe = child.stdin.take().expect("a pipe");
    let (status, stdout, stderr) = std::thread::scope(|scope| {
        // It may end without reading it all.
        scope.spawn(move || drop(pipe.write_all(stdin)));
        let output = child.wait_with_output().expect("its output");
        (output.status.code().unwrap_or(-1), output.stdout, output.stderr)
    });
    Outcome { line, status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}
