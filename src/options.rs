//! Global options, environment and configuration file, resolved into [`Settings`].
//!
//! Flags win over the environment, the environment over the file. A key of the file is the name of the variable
//! without its prefix, in lower case: `DISTRIFS_CHUNK_SIZE` is `chunk_size`. Unknown keys are refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args};
use distrifs_proto::types::HostPort;

/// The longest time that a setting may name: a year.
const SECONDS_MAX: f64 = 31_536_000.0;

/// Every setting that the environment (with the prefix `DISTRIFS_`, in capitals) or the file may give.
const KEYS: &[&str] = &[
    "master_host",
    "master_port",
    "masters",
    "user",
    "storage_root",
    "chunk_size",
    "replication_factor",
    "heartbeat_interval",
    "heartbeat_timeout",
    "blockreport_interval",
    "recovery_interval",
    "scrub_interval",
    "gc_interval",
    "gc_delay",
    "pending_timeout",
    "checkpoint_log_bytes",
    GROUPS_KEY,
    "socket_timeout",
    "client_retry",
    "master_wal",
    "master_lock_path",
    "leader_lease",
];

/// The one setting that is a table, and of the file alone.
const GROUPS_KEY: &str = "groups";

/// Options of every command, before or after its name.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalOptions {
    /// The master, or all of them, separated by commas [env: DISTRIFS_MASTERS, DISTRIFS_MASTER_HOST, DISTRIFS_MASTER_PORT]
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        help_heading = "Global options"
    )]
    pub(crate) master: Vec<HostPort>,

    /// Who acts [env: DISTRIFS_USER; default: the operating system's user]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub(crate) user: Option<String>,

    /// A TOML file with settings; the environment and flags win over it
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,

    /// One JSON object per line on standard output
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,

    /// No progress, only errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,

    /// More on standard error about what happens; twice for even more
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
}

/// What all commands go by, resolved and checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Where the masters are, at least one.
    pub(crate) masters: Vec<HostPort>,
    /// Who acts; `None`: the operating system's user.
    pub(crate) user: Option<String>,
    /// Where a daemon without `--data-dir` keeps its folder.
    pub(crate) storage_root: Option<PathBuf>,
    /// The chunk size, where it was set.
    pub(crate) chunk_size: Option<u64>,
    /// The replication factor, where it was set.
    pub(crate) replication: Option<u32>,
    /// How often datanodes are heard.
    pub(crate) heartbeat_interval: Duration,
    /// Silence after which a datanode is dead.
    pub(crate) heartbeat_timeout: Duration,
    /// How often datanodes repeat their full report.
    pub(crate) block_report_interval: Duration,
    /// How often all files are looked through for chunks to repair.
    pub(crate) recovery_interval: Duration,
    /// Within which time datanodes read every replica whole again; zero: never.
    pub(crate) scrub_interval: Duration,
    /// How often tombstones are looked through.
    pub(crate) gc_interval: Duration,
    /// How long a dereferenced chunk is kept.
    pub(crate) gc_delay: Duration,
    /// How long an unfinished write is kept.
    pub(crate) pending_timeout: Duration,
    /// How much log gathers before a checkpoint; the master's default if unset.
    pub(crate) checkpoint_log_bytes: Option<u64>,
    /// Groups and their members, of the file alone; unset: the operating system's.
    pub(crate) groups: Option<BTreeMap<String, Vec<String>>>,
    /// How long a silent peer is waited for.
    pub(crate) socket_timeout: Duration,
    /// How often the client tries.
    pub(crate) client_retry: u32,
    /// The folder of the master's log.
    pub(crate) master_wal: Option<PathBuf>,
    /// The master's lock.
    pub(crate) master_lock_path: Option<PathBuf>,
    /// How long a leader may be silent before a standby takes over; zero: only when its process is gone.
    pub(crate) leader_lease: Duration,
}

/// A setting that cannot be used. All are the user's to fix: exit status 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OptionsError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {}", path.display(), crate::error::io_text(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        why: String,
    },
    /// A key that nobody knows.
    #[error("{}: unknown setting {key:?}: known are {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// All that would do.
        known: String,
    },
    /// A value of the wrong shape.
    #[error("{origin}: {text:?}: {why}")]
    Value {
        /// The variable, or the file and its key.
        origin: String,
        /// What it said.
        text: String,
        /// What was expected.
        why: String,
    },
}

/// Looks up a variable of the environment.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A configuration file that was read and whose keys are known.
struct ConfigFile {
    path: PathBuf,
    table: toml::Table,
}

/// A value as text, and where it stands.
struct Found {
    text: String,
    origin: String,
}

struct Sources<'a> {
    environment: Environment<'a>,
    file: Option<ConfigFile>,
}

impl Settings {
    /// Resolves flags, environment and file.
    pub(crate) fn resolve(
        options: &GlobalOptions,
        environment: Environment<'_>,
    ) -> Result<Self, OptionsError> {
        let file = options.config.clone().map(ConfigFile::read).transpose()?;
        let sources = Sources { environment, file };
        let seconds =
            |key, default| Ok(sources.parsed(key, seconds)?.unwrap_or(Duration::from_secs(default)));
        Ok(Self {
            masters: masters(options, &sources)?,
            user: match &options.user {
                Some(name) => Some(name.clone()),
                None => sources.text("user")?.map(|found| found.text),
            },
            storage_root: sources.path("storage_root")?,
            // 0 stands for the master's default on the wire: nobody who sets it means that.
            chunk_size: sources.parsed("chunk_size", |text| bytes(text).and_then(not_zero))?,
            replication: sources.parsed("replication_factor", |text| number(text).and_then(not_zero))?,
            heartbeat_interval: seconds("heartbeat_interval", 3)?,
            heartbeat_timeout: seconds("heartbeat_timeout", 9)?,
            block_report_interval: seconds("blockreport_interval", 600)?,
            recovery_interval: seconds("recovery_interval", 2)?,
            scrub_interval: seconds("scrub_interval", 7 * 24 * 3600)?,
            gc_interval: seconds("gc_interval", 10)?,
            gc_delay: seconds("gc_delay", 60)?,
            pending_timeout: seconds("pending_timeout", 60)?,
            checkpoint_log_bytes: sources.parsed("checkpoint_log_bytes", bytes)?,
            groups: sources.groups()?,
            socket_timeout: sources
                .parsed("socket_timeout", |text| self::seconds(text).and_then(not_zero))?
                .unwrap_or(Duration::from_secs(12)),
            client_retry: sources.parsed("client_retry", number)?.unwrap_or(5),
            master_wal: sources.path("master_wal")?,
            master_lock_path: sources.path("master_lock_path")?,
            leader_lease: seconds("leader_lease", 6)?,
        })
    }
}

/// The flag; else of the environment and then of the file `masters`, or host and port.
fn masters(options: &GlobalOptions, sources: &Sources<'_>) -> Result<Vec<HostPort>, OptionsError> {
    if !options.master.is_empty() {
        return Ok(options.master.clone());
    }
    let list = |text: &str| {
        let parsed: Result<Vec<HostPort>, _> = text.split(',').map(|one| one.trim().parse()).collect();
        parsed.map_err(|e| e.to_string())
    };
    // A host or port in the environment wins over a list in the file.
    let environment_names_one = ["DISTRIFS_MASTER_HOST", "DISTRIFS_MASTER_PORT"]
        .iter()
        .any(|name| (sources.environment)(name).is_some_and(|value| !value.is_empty()));
    let environment_lists = (sources.environment)("DISTRIFS_MASTERS").is_some_and(|value| !value.is_empty());
    if (environment_lists || !environment_names_one)
        && let Some(masters) = sources.parsed("masters", list)?
    {
        return Ok(masters);
    }
    let host = sources.text("master_host")?.map_or_else(|| "127.0.0.1".to_owned(), |found| found.text);
    let port = sources.parsed("master_port", number::<u16>)?.unwrap_or(9000);
    Ok(vec![HostPort { host, port }])
}

impl ConfigFile {
    fn read(path: PathBuf) -> Result<Self, OptionsError> {
        let text = std::fs::read_to_string(&path)
            .map_err(|source| OptionsError::Read { path: path.clone(), source })?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| OptionsError::Syntax {
            path: path.clone(),
            why: e.message().replace('\n', " "),
        })?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(OptionsError::UnknownKey { path, key: key.clone(), known: KEYS.join(", ") });
        }
        Ok(Self { path, table })
    }
}

impl Sources<'_> {
    /// The value of a setting: the environment's if it is not empty, else the file's.
    fn text(&self, key: &'static str) -> Result<Option<Found>, OptionsError> {
        debug_assert!(KEYS.contains(&key), "{key} is not in KEYS");
        let name = format!("DISTRIFS_{}", key.to_ascii_uppercase());
        if let Some(value) = (self.environment)(&name).filter(|value| !value.is_empty()) {
            return match value.into_string() {
                Ok(text) => Ok(Some(Found { text, origin: name })),
                Err(raw) => Err(OptionsError::Value {
                    origin: name,
                    text: raw.to_string_lossy().into_owned(),
                    why: "not UTF-8".to_owned(),
                }),
            };
        }
        let Some(file) = &self.file else { return Ok(None) };
        let Some(value) = file.table.get(key) else { return Ok(None) };
        let origin = format!("{}: {key}", file.path.display());
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            other => {
                let why = "expected text or a number".to_owned();
                return Err(OptionsError::Value { origin, text: other.type_str().to_owned(), why });
            }
        };
        Ok(Some(Found { text, origin }))
    }

    fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, OptionsError> {
        let Some(Found { text, origin }) = self.text(key)? else { return Ok(None) };
        match parse(&text) {
            Ok(value) => Ok(Some(value)),
            Err(why) => Err(OptionsError::Value { origin, text, why }),
        }
    }

    /// A table of names to lists of names.
    fn groups(&self) -> Result<Option<BTreeMap<String, Vec<String>>>, OptionsError> {
        let Some(file) = &self.file else { return Ok(None) };
        let Some(value) = file.table.get(GROUPS_KEY) else { return Ok(None) };
        let groups = value.clone().try_into().map_err(|_| OptionsError::Value {
            origin: format!("{}: {GROUPS_KEY}", file.path.display()),
            text: value.type_str().to_owned(),
            why: "expected a table of groups and their members, such as staff = [\"alice\", \"bob\"]"
                .to_owned(),
        })?;
        Ok(Some(groups))
    }

    fn path(&self, key: &'static str) -> Result<Option<PathBuf>, OptionsError> {
        Ok(self.text(key)?.map(|found| PathBuf::from(found.text)))
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| "expected a whole number in range".to_owned())
}

fn not_zero<T: PartialEq + Default>(value: T) -> Result<T, String> {
    if value == T::default() { Err("it must be more than 0".to_owned()) } else { Ok(value) }
}

/// Seconds, decimals allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<f64>() {
        Ok(value) if (0.0..=SECONDS_MAX).contains(&value) => Ok(Duration::from_secs_f64(value)),
        _ => Err("expected seconds, such as 3 or 0.5".to_owned()),
    }
}

/// Bytes, with `K`, `M`, `G` or `T` for powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let bad = || "expected a number of bytes, such as 4096, 64M or 1G".to_owned();
    let text = text.trim();
    let text = text.strip_suffix("iB").or_else(|| text.strip_suffix('B')).unwrap_or(text);
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let value: u64 = digits.trim().parse().map_err(|_| bad())?;
    value.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn options() -> GlobalOptions {
        GlobalOptions { master: vec![], user: None, config: None, json: false, quiet: false, verbose: 0 }
    }

    fn resolve(options: &GlobalOptions, environment: &[(&str, &str)]) -> Result<Settings, OptionsError> {
        Settings::resolve(options, &|name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn nothing_given_means_the_documented_defaults() {
        let settings = resolve(&options(), &[]).expect("defaults");
        assert_eq!(settings.masters, ["127.0.0.1:9000".parse().unwrap()]);
        assert_eq!(settings.pending_timeout, Duration::from_secs(60));
        assert_eq!((settings.chunk_size, settings.replication, settings.client_retry), (None, None, 5));
    }

    #[test]
    fn flags_win_over_environment_and_environment_over_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "masters = \"file:1\"\nuser = \"file\"\nchunk_size = 65536\ngc_delay = 0.5").unwrap();
        let mut given = GlobalOptions { config: Some(file.path().to_owned()), ..options() };

        let settings = resolve(&given, &[]).unwrap();
        assert_eq!((settings.masters[0].to_string(), settings.user), ("file:1".into(), Some("file".into())));
        assert_eq!((settings.chunk_size, settings.gc_delay), (Some(65536), Duration::from_millis(500)));

        let environment =
            [("DISTRIFS_MASTER_PORT", "7"), ("DISTRIFS_USER", "env"), ("DISTRIFS_CHUNK_SIZE", "1M")];
        let settings = resolve(&given, &environment).unwrap();
        assert_eq!((settings.masters[0].port, settings.user), (7, Some("env".into())));
        assert_eq!((settings.chunk_size, settings.gc_delay), (Some(1 << 20), Duration::from_millis(500)));

        given.master = vec!["flag:2".parse().unwrap(), "flag:3".parse().unwrap()];
        given.user = Some("flag".into());
        let settings = resolve(&given, &environment).unwrap();
        assert_eq!((settings.masters.len(), settings.user), (2, Some("flag".into())));
    }

    #[test]
    fn a_list_of_masters_wins_over_host_and_port() {
        let environment = [("DISTRIFS_MASTERS", "a:1, b:2"), ("DISTRIFS_MASTER_HOST", "c")];
        assert_eq!(resolve(&options(), &environment).unwrap().masters.len(), 2);
        assert_eq!(
            resolve(&options(), &[("DISTRIFS_MASTER_HOST", "c")]).unwrap().masters[0].to_string(),
            "c:9000"
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (name, value) in [
            ("DISTRIFS_CHUNK_SIZE", "many"),
            ("DISTRIFS_GC_DELAY", "-1"),
            ("DISTRIFS_MASTER_PORT", "70000"),
            ("DISTRIFS_MASTERS", "nohost"),
            ("DISTRIFS_CLIENT_RETRY", "NaN"),
            ("DISTRIFS_REPLICATION_FACTOR", "0"),
            ("DISTRIFS_CHUNK_SIZE", "0"),
            ("DISTRIFS_SOCKET_TIMEOUT", "0"),
        ] {
            let error = resolve(&options(), &[(name, value)]).expect_err(name).to_string();
            assert!(error.starts_with(name) && error.contains(value), "{error}");
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "chunksize = 1").unwrap();
        let given = GlobalOptions { config: Some(file.path().to_owned()), ..options() };
        assert!(
            matches!(resolve(&given, &[]), Err(OptionsError::UnknownKey { key, .. }) if key == "chunksize")
        );
    }

    #[test]
    fn groups_come_from_the_file() {
        let read = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            resolve(&GlobalOptions { config: Some(file.path().to_owned()), ..options() }, &[])
        };
        assert_eq!(read("").unwrap().groups, None);
        let groups = read("[groups]\nstaff = [\"alice\", \"bob\"]\nempty = []").unwrap().groups.unwrap();
        assert_eq!(groups["staff"], ["alice", "bob"]);
        assert!(groups["empty"].is_empty());
        for bad in ["groups = 1", "[groups]\nstaff = \"alice\"", "groups = [\"a\"]"] {
            let error = read(bad).expect_err(bad).to_string();
            assert!(error.contains("expected a table of groups"), "{error}");
        }
    }

    #[test]
    fn sizes_take_binary_suffixes_and_never_overflow() {
        assert_eq!(bytes("67108864"), Ok(64 << 20));
        assert_eq!(bytes("64M"), Ok(64 << 20));
        assert_eq!(bytes("1 GiB"), Ok(1 << 30));
        for text in ["", "M", "-1", "1.5M", "99999999999999T", "é"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }
}
