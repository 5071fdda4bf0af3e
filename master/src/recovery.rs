//! What a start begins with: the newest checkpoint that can be read, and the log behind it, by the table in
//! [`crate::recovery_table`].

use std::path::{Path, PathBuf};

use distrifs_engine::checkpoint::{CheckpointError, CheckpointFolder, CheckpointReader, Listed};
use distrifs_engine::durable_file;
use distrifs_engine::log::{
    self, Corruption, Log, LogOptions, RecoverError, Recovered, ReplayError, recover, recover_forked,
};
use distrifs_proto::types::{ClusterId, Lsn};

use crate::config::MasterConfig;
use crate::error::StartError;
use crate::folder::{make_folder, write_durably};
use crate::leadership::Leadership;
use crate::namespace::image::{ImageError, Restorer};
use crate::namespace::{Namespace, format};
use crate::recovery_table::{Facts, ImageState, Verdict, classify};

/// Says that a log was begun: from then on a folder without one means a loss, not a new cluster.
const BEGUN_FILE: &str = "log-begun";
const BEGUN_TEXT: &str = "distrifs-log-begun 1\n";

/// What a start begins with.
pub(crate) struct Opened {
    /// Ready for more.
    pub(crate) log: Log,
    /// Everything that was acknowledged.
    pub(crate) namespace: Namespace,
    /// The checkpoint it was built upon; 0: none.
    pub(crate) checkpoint: Lsn,
}

/// Who wrote the log before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Predecessor {
    /// Its process is gone, or about to go.
    Gone,
    /// It is stopped, or silent for another reason, and may write at any time.
    MayWrite,
}

/// A checkpoint as it was found.
struct Image {
    listed: Listed,
    state: ImageState,
    why: String,
    namespace: Option<Namespace>,
}

/// Reads what was acknowledged and makes the log ready for more. Blocks.
///
/// # Errors
/// Checkpoints or log are damaged, incomplete, another cluster's, in use, or of a newer version.
pub(crate) fn open(
    config: &MasterConfig,
    cluster: ClusterId,
    leadership: &Leadership,
    predecessor: Predecessor,
) -> Result<Opened, StartError> {
    let dir = config.wal_dir();
    make_folder(&dir)?;
    let begun = config.data_dir.join(BEGUN_FILE);
    let was_begun = begun.exists();
    if was_begun && is_empty(&dir)? {
        let why = "the log that this master has written is not there: is its disk mounted? Bring it back, or restore \
                   the whole folder from a backup";
        return Err(StartError::Damaged { path: dir, why: why.to_owned() });
    }
    let folder = CheckpointFolder::open(&config.checkpoint_dir())?;
    let mut images = read_images(&folder, cluster)?;
    let state_of = |at: usize| images.get(at).map_or(ImageState::Absent, |image| image.state);
    let (newest, older) = (state_of(0), state_of(1));
    if [newest, older].contains(&ImageState::Newer) {
        return Err(refused(config, &images, Lsn(0), Verdict::RefuseNewer));
    }
    let restored = images.iter_mut().find_map(|image| Some((image.listed.lsn, image.namespace.take()?)));
    let (base, mut namespace) = restored.unwrap_or_else(|| (Lsn(0), Namespace::new(&config.superuser)));
    let taking = Taking { dir: &dir, cluster, base, leadership, predecessor };
    let replayed = taking.replay(&mut namespace)?;
    let joins = !matches!(replayed, Replayed::BeginsAt(_));
    let reaches = !matches!(replayed, Replayed::TooShort);
    let verdict = classify(Facts { newest, older, joins, reaches });
    let recovered = match (verdict, replayed) {
        (Verdict::Newest | Verdict::Older | Verdict::WholeLog, Replayed::Whole(recovered)) => recovered,
        (verdict, Replayed::BeginsAt(first)) => return Err(refused(config, &images, first, verdict)),
        (verdict, _) => return Err(refused(config, &images, Lsn(0), verdict)),
    };
    for image in images.iter().filter(|image| image.state == ImageState::Damaged) {
        let aside = put_aside(&image.listed.path)?;
        tracing::error!(why = image.why, aside = %aside.display(), "a damaged checkpoint was put aside");
    }
    // A walk over everything: in debug builds, where it is no matter of minutes.
    if cfg!(debug_assertions) {
        namespace.check_invariants().map_err(|why| StartError::Broken(format!("recovered state: {why}")))?;
    }
    let mut options = LogOptions::new(dir, cluster, leadership.epoch());
    options.mode = config.log_mode;
    let log = Log::start(options, recovered)?;
    if !was_begun {
        write_durably(&begun, BEGUN_TEXT.as_bytes())?;
    }
    Ok(Opened { log, namespace, checkpoint: base })
}

/// What became of the log behind the base.
enum Replayed {
    /// It was applied to its end.
    Whole(Recovered),
    /// It begins here, behind the record that follows the base. Nothing was changed.
    BeginsAt(Lsn),
    /// It ends before the base. Nothing was changed.
    TooShort,
}

/// A log that is taken over.
struct Taking<'a> {
    dir: &'a Path,
    cluster: ClusterId,
    base: Lsn,
    leadership: &'a Leadership,
    predecessor: Predecessor,
}

impl Taking<'_> {
    /// Applies the records behind the base.
    fn replay(&self, namespace: &mut Namespace) -> Result<Replayed, StartError> {
        let (dir, cluster, base) = (self.dir, self.cluster, self.base);
        let mut apply = |lsn, _epoch, record: &[u8]| {
            let command = format::decode(record)?;
            if let Err(refused) = namespace.apply(lsn, &command) {
                // It was refused when it was live, too, and its caller told so.
                tracing::debug!(%lsn, %refused, "a logged command that was refused");
            }
            Ok(())
        };
        let mut prove = || self.leadership.prove().map_err(ReplayError::from);
        let recovered = match self.predecessor {
            Predecessor::Gone => recover(dir, cluster, base, &mut apply),
            Predecessor::MayWrite => {
                recover_forked(dir, cluster, base, self.leadership.epoch(), &mut prove, &mut apply)
            }
        };
        replayed(base, recovered)
    }
}

/// What came of it.
fn replayed(base: Lsn, recovered: Result<Recovered, RecoverError>) -> Result<Replayed, StartError> {
    let recovered = match recovered {
        Ok(recovered) => recovered,
        Err(RecoverError::Released { first, .. }) => return Ok(Replayed::BeginsAt(first)),
        Err(RecoverError::Corrupt { what: Corruption::EndLost { known }, .. }) if known == base => {
            return Ok(Replayed::TooShort);
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(cut) = recovered.cut() {
        tracing::warn!(
            segment = cut.sequence,
            offset = cut.offset,
            bytes = cut.bytes,
            "a torn write was cut"
        );
    }
    Ok(Replayed::Whole(recovered))
}

/// The newest checkpoints, read until one is good.
fn read_images(folder: &CheckpointFolder, cluster: ClusterId) -> Result<Vec<Image>, StartError> {
    let mut images = Vec::new();
    let mut found = false;
    for listed in folder.list()?.into_iter().take(crate::checkpoint::KEPT) {
        let unread = Image { listed, state: ImageState::Unread, why: String::new(), namespace: None };
        let image = if found { unread } else { read_image(cluster, unread)? };
        found |= matches!(image.state, ImageState::Good | ImageState::Newer);
        images.push(image);
    }
    Ok(images)
}

fn read_image(cluster: ClusterId, image: Image) -> Result<Image, StartError> {
    let restored = restore(&image.listed, cluster);
    let (state, why) = match restored {
        Ok(namespace) => return Ok(Image { state: ImageState::Good, namespace: Some(namespace), ..image }),
        Err(ReadError::File(error)) => match error {
            CheckpointError::NewerVersion { .. } => (ImageState::Newer, error.to_string()),
            CheckpointError::Corrupt { .. } => (ImageState::Damaged, error.to_string()),
            CheckpointError::Io { .. }
            | CheckpointError::WrongCluster { .. }
            | CheckpointError::BadLsn { .. } => return Err(error.into()),
        },
        Err(ReadError::Image(error)) => {
            let why = format!("{}: {error}", image.listed.path.display());
            match error {
                ImageError::Newer(_) => (ImageState::Newer, why),
                ImageError::Malformed { .. } | ImageError::Path(_) => (ImageState::Damaged, why),
            }
        }
    };
    Ok(Image { state, why, ..image })
}

enum ReadError {
    File(CheckpointError),
    Image(ImageError),
}

fn restore(image: &Listed, cluster: ClusterId) -> Result<Namespace, ReadError> {
    let mut reader = CheckpointReader::open(&image.path, Some(cluster)).map_err(ReadError::File)?;
    let mut restorer = Restorer::new();
    while let Some(block) = reader.next_block().map_err(ReadError::File)? {
        restorer.feed(block).map_err(ReadError::Image)?;
    }
    let namespace = restorer.finish().map_err(ReadError::Image)?;
    if namespace.applied() != image.lsn {
        let what = "its image shows another position than its header";
        return Err(ReadError::Image(ImageError::Malformed { at: 0, what }));
    }
    Ok(namespace)
}

/// A checkpoint that cannot be read is of no use, but evidence: it gets a name that is never listed.
fn put_aside(path: &Path) -> Result<PathBuf, StartError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    let aside = PathBuf::from(name);
    let failed = |source| StartError::Folder { path: path.to_owned(), doing: "put aside", source };
    std::fs::rename(path, &aside).map_err(failed)?;
    durable_file::sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    Ok(aside)
}

/// What the table refuses, in one line: the facts, what can be saved, and who must act.
fn refused(config: &MasterConfig, images: &[Image], log_begins: Lsn, verdict: Verdict) -> StartError {
    let path: PathBuf = config.checkpoint_dir();
    let damage: Vec<&str> = images.iter().map(|it| it.why.as_str()).filter(|why| !why.is_empty()).collect();
    let damage = damage.join("; ");
    let base = images.iter().find(|it| it.state == ImageState::Good).map_or(Lsn(0), |it| it.listed.lsn);
    let wal = config.wal_dir();
    let wal = wal.display();
    let why = match verdict {
        Verdict::RefuseNewer => damage,
        Verdict::RefuseGap => format!(
            "the newest checkpoint that can be read ends at LSN {base}, but the log in {wal} begins at LSN \
             {log_begins}: records between them are missing{}: bring the missing segments or a newer checkpoint back \
             from a backup",
            if damage.is_empty() { String::new() } else { format!(" ({damage})") }
        ),
        Verdict::RefuseLogLost => format!(
            "the checkpoint at LSN {base} is newer than the end of the log in {wal}: the log lost its tail or is an \
             old copy; what was acknowledged up to LSN {base} is safe in the checkpoint, what came after it is not: \
             bring the right log back"
        ),
        Verdict::RefuseAllDamaged => format!(
            "no checkpoint can be read ({damage}), and the log in {wal} begins at LSN {log_begins}: the records before \
             it can be had from a copy of a checkpoint only; put one of LSN {} or later here and start again; \
             chunks on the datanodes are untouched, and the log can be read with `distrifs inspect wal {wal}`",
            log_begins.0.saturating_sub(1)
        ),
        Verdict::RefuseCheckpointsMissing => format!(
            "no checkpoint is here, but the log in {wal} begins at LSN {log_begins}: put a copy of a checkpoint of LSN \
             {} or later here and start again; chunks on the datanodes are untouched",
            log_begins.0.saturating_sub(1)
        ),
        Verdict::Newest | Verdict::Older | Verdict::WholeLog => String::new(),
    };
    StartError::Refused { path, why }
}

/// Whether the folder has no log, whatever else is in it: a fresh file system has its `lost+found`.
fn is_empty(dir: &Path) -> Result<bool, StartError> {
    let exists = log::exists(dir);
    exists.map(|exists| !exists).map_err(|source| StartError::Folder {
        path: dir.to_owned(),
        doing: "list",
        source,
    })
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod tests;
