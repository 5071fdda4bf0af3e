//! The progress bar: on a terminal only, never with `-q`, always on standard error.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the bar is drawn while nothing moves.
const TICK: Duration = Duration::from_millis(200);

/// Progress of bytes; hidden where nobody looks. Clones move the same bar. One bar serves all files of a tree:
/// its length grows as they begin.
#[derive(Clone)]
pub(crate) struct TransferBar(ProgressBar);

impl TransferBar {
    /// A bar, or nothing visible with `quiet` and away from a terminal.
    pub(crate) fn new(quiet: bool, what: &str) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::no_length();
        let known = "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(known) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Prints through `print` without tearing the bar.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    /// Takes the bar from the screen.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl distrifs_client::Progress for TransferBar {
    fn started(&self, total: Option<u64>) {
        match total {
            // `inc_length` does nothing while there is no length.
            Some(total) if self.0.length().is_none() => self.0.set_length(total),
            Some(total) => self.0.inc_length(total),
            None => {
                let unknown = "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}";
                if let Ok(style) = ProgressStyle::with_template(unknown) {
                    self.0.set_style(style);
                }
            }
        }
    }

    fn advanced(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}
