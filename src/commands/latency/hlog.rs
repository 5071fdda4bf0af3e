//! `--hlog`: HdrHistogram's interval log, version 2: a line for each stage of each node and interval.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::snapshot::Snapshot;
use crate::error::CommandError;

/// What the maximum in a line is divided by, as by default everywhere: it is for people, and in seconds here.
const MICROS_PER_SECOND: f64 = 1e6;

/// A log that is being written.
pub(super) struct IntervalLog {
    path: PathBuf,
    file: File,
    begun: bool,
}

impl IntervalLog {
    /// An empty one.
    pub(super) fn create(path: &Path) -> Result<Self, CommandError> {
        let file = File::create(path).map_err(|e| CommandError::local(path, "make the interval log", e))?;
        Ok(Self { path: path.to_owned(), file, begun: false })
    }

    /// One more interval. The first one may begin with the start of the nodes, which nobody knows here.
    pub(super) fn append(
        &mut self,
        snapshot: &Snapshot,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<(), CommandError> {
        let from = if from == UNIX_EPOCH { to } else { from };
        let lines = lines(snapshot, from, to).and_then(|text| {
            // Its head only once.
            let head = text.iter().take_while(|line| line.starts_with('#') || line.starts_with('"')).count();
            let text = if self.begun { &text[head..] } else { &text[..] };
            self.begun = true;
            self.file.write_all(text.concat().as_bytes())
        });
        lines.map_err(|e| CommandError::local(&self.path, "write the interval log", e))
    }
}

fn lines(snapshot: &Snapshot, from: SystemTime, to: SystemTime) -> std::io::Result<Vec<String>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    {
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("DistriFS, microseconds, tagged STAGE@NODE").with_start_time(from);
        let mut writer =
            builder.with_max_value_divisor(MICROS_PER_SECOND).begin_log_with(&mut bytes, &mut serializer)?;
        let took = to.duration_since(from).unwrap_or(Duration::ZERO);
        for cell in &snapshot.cells {
            let tag = tag(&cell.stage, &cell.node);
            let written = writer.write_histogram(&cell.histogram, since_epoch(from), took, Tag::new(&tag));
            written.map_err(|error| std::io::Error::other(error.to_string()))?;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).split_inclusive('\n').map(str::to_owned).collect())
}

/// A tag has neither commas nor white space.
fn tag(stage: &str, node: &str) -> String {
    format!("{stage}@{node}").replace(|c: char| c == ',' || c.is_whitespace(), "_")
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::cell;
    use super::*;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn intervals_are_read_back_as_they_were() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = IntervalLog::create(file.path()).unwrap();
        let snapshot =
            Snapshot { cells: vec![cell("write.sync", "7", &[5, 900]), cell("read", "a b", &[1])] };
        let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for at in [0, 2] {
            let from = start + Duration::from_secs(at);
            log.append(&snapshot, from, from + Duration::from_secs(2)).unwrap();
        }
        let bytes = std::fs::read(file.path()).unwrap();
        let mut intervals = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let encoded = interval.encoded_histogram().to_owned();
                let decoded = base64_decode(&encoded);
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut decoded.as_slice()).unwrap();
                intervals.push((
                    interval.tag().unwrap().as_str().to_owned(),
                    interval.start_timestamp().as_secs(),
                    interval.duration().as_secs(),
                    histogram,
                ));
            }
        }
        let tags: Vec<&str> = intervals.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(tags, ["write.sync@7", "read@a_b", "write.sync@7", "read@a_b"]);
        assert_eq!((intervals[2].1, intervals[2].2), (1_700_000_002, 2));
        assert_eq!(intervals[0].3, snapshot.cells[0].histogram);
        assert_eq!(String::from_utf8_lossy(&bytes).matches("StartTime").count(), 1);
    }

    /// Standard base64, as the log has it.
    fn base64_decode(text: &str) -> Vec<u8> {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
        for byte in text.bytes().filter(|byte| *byte != b'=') {
            let six = LETTERS.iter().position(|letter| *letter == byte).unwrap() as u32;
            (bits, held) = (bits << 6 | six, held + 6);
            if held >= 8 {
                held -= 8;
                out.push((bits >> held) as u8);
            }
        }
        out
    }
}
