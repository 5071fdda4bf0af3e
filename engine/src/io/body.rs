//! [`IoMode`] says what is wanted, [`Body`] what it came to, [`block_on`] runs on it.

use std::fmt;
use std::future::Future;
use std::io;
use std::str::FromStr;

use super::handle::Io;
use super::probe::probe_uring;
use super::{posix, sim, uring};

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoMode {
    /// io_uring where the probe succeeds, POSIX elsewhere.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// POSIX, whatever the kernel could do.
    Posix,
}

/// A word that is no [`IoMode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown I/O mode {given:?}: it is auto, uring or posix")]
pub struct IoModeUnknown {
    /// The word.
    pub given: String,
}

impl IoMode {
    /// Chooses the body. `Auto` always finds one; `Uring` fails with the probe's reason.
    pub fn resolve(self) -> io::Result<Body> {
        match self {
            Self::Posix => Ok(Body::Posix),
            Self::Auto => match probe_uring() {
                Ok(()) => Ok(Body::Uring),
                Err(reason) => {
                    tracing::warn!(%reason, "io_uring does not work here: files go through threads, sockets through epoll");
                    Ok(Body::Posix)
                }
            },
            Self::Uring => match probe_uring() {
                Ok(()) => Ok(Body::Uring),
                Err(reason) => {
                    let text = format!("io_uring was asked for but does not work here: {reason}");
                    Err(io::Error::new(io::ErrorKind::Unsupported, text))
                }
            },
        }
    }
}

impl FromStr for IoMode {
    type Err = IoModeUnknown;

    fn from_str(word: &str) -> Result<Self, IoModeUnknown> {
        match word {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "posix" => Ok(Self::Posix),
            _ => Err(IoModeUnknown { given: word.to_owned() }),
        }
    }
}

impl fmt::Display for IoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Posix => "posix",
        })
    }
}

/// What carries the operations out.
#[derive(Debug, Clone)]
pub enum Body {
    /// io_uring, through monoio.
    Uring,
    /// Threads for files, epoll for sockets.
    Posix,
    /// Memory and chance, for tests.
    Sim(sim::SimWorld),
}

impl Body {
    /// What it is called in logs, heartbeats and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Posix => "posix",
            Self::Sim(_) => "simulated",
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Runs `main` to its end on this thread, then finishes the operations in flight.
pub fn block_on<F: Future>(body: Body, main: impl FnOnce(Io) -> F) -> io::Result<F::Output> {
    match body {
        Body::Uring => uring::block_on(main),
        Body::Posix => posix::block_on(false, main),
        Body::Sim(world) => sim::block_on(&world, main),
    }
}

/// The same for a thread that does one file operation after the other and has nothing else to do meanwhile: they are
/// plain system calls on this thread, which cost no hand-over to another one. Only the sync of a whole file system, which
/// may take long, runs beside them.
pub fn block_on_inline<F: Future>(body: Body, main: impl FnOnce(Io) -> F) -> io::Result<F::Output> {
    match body {
        Body::Uring | Body::Posix => posix::block_on(true, main),
        Body::Sim(world) => sim::block_on(&world, main),
    }
}

#[cfg(test)]
mod tests {
    use super::{Body, IoMode, IoModeUnknown, probe_uring};

    #[test]
    fn words_and_modes_match() {
        for (word, mode) in [("auto", IoMode::Auto), ("uring", IoMode::Uring), ("posix", IoMode::Posix)] {
            assert_eq!(word.parse(), Ok(mode));
            assert_eq!(mode.to_string(), word);
        }
        let unknown = IoModeUnknown { given: "Auto".to_owned() };
        assert_eq!("Auto".parse::<IoMode>(), Err(unknown));
    }

    #[test]
    fn the_probe_decides() {
        assert!(matches!(IoMode::Posix.resolve(), Ok(Body::Posix)));
        match probe_uring() {
            Ok(()) => {
                assert!(matches!(IoMode::Auto.resolve(), Ok(Body::Uring)));
                assert!(matches!(IoMode::Uring.resolve(), Ok(Body::Uring)));
            }
            Err(reason) => {
                assert!(matches!(IoMode::Auto.resolve(), Ok(Body::Posix)));
                let error = IoMode::Uring.resolve().expect_err("it insists");
                assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
                assert!(error.to_string().contains(&reason) && !reason.contains('\n'));
            }
        }
    }
}
