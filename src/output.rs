//! Standard output: results only, as text or as one JSON object per line.

use std::fmt;
use std::io::{BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;

use crate::error::CommandError;

/// Where results go. What is buffered is written by [`Output::flush`].
pub(crate) struct Output {
    out: BufWriter<Stdout>,
    json: bool,
    terminal: bool,
}

impl Output {
    /// The process's standard output.
    pub(crate) fn new(json: bool) -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        Self { out: BufWriter::new(stdout), json, terminal }
    }

    /// Whether the user asked for JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// One line of text.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), CommandError> {
        writeln!(self.out, "{text}").map_err(CommandError::Output)
    }

    /// One object on one line.
    pub(crate) fn object(&mut self, value: &impl Serialize) -> Result<(), CommandError> {
        serde_json::to_writer(&mut self.out, value).map_err(|e| CommandError::Output(e.into()))?;
        self.out.write_all(b"\n").map_err(CommandError::Output)
    }

    /// A name as it is shown: on a terminal, control characters become `?`; elsewhere it stays as it is.
    pub(crate) fn name<'a>(&self, name: &'a str) -> std::borrow::Cow<'a, str> {
        if self.terminal && name.contains(char::is_control) {
            return name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        }
        name.into()
    }

    /// Writes what is buffered.
    pub(crate) fn flush(&mut self) -> Result<(), CommandError> {
        self.out.flush().map_err(CommandError::Output)
    }
}

/// Bytes as people read them: `512 B`, `1.5 KiB`, `64.0 MiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Milliseconds since 1970 as `2026-01-31 12:00:00` in UTC.
pub(crate) fn utc_time(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's civil_from_days: years begin in March, so that the leap day is the last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Permission bits as `rwxr-xr-x`, with `s` and `t` where set.
pub(crate) fn mode_letters(mode: u32) -> String {
    let special = [mode & 0o4000 != 0, mode & 0o2000 != 0, mode & 0o1000 != 0];
    let mut letters = String::with_capacity(9);
    for (class, special) in special.into_iter().enumerate() {
        let bits = mode >> (6 - 3 * class) & 7;
        letters.push(if bits & 4 != 0 { 'r' } else { '-' });
        letters.push(if bits & 2 != 0 { 'w' } else { '-' });
        let mark = if class == 2 { 't' } else { 's' };
        letters.push(match (special, bits & 1 != 0) {
            (true, true) => mark,
            (true, false) => mark.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    letters
}

/// Rows of text with columns as wide as their widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: &'static [usize],
}

impl Table {
    /// An empty table whose columns `right` are aligned to the right.
    pub(crate) fn new(right: &'static [usize]) -> Self {
        Self { rows: Vec::new(), right }
    }

    /// One more row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The lines. Nothing is padded behind the last cell, which may itself end with spaces.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|at| self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max())
            .map(Option::unwrap_or_default)
            .collect();
        self.rows.iter().map(move |row| {
            let mut line = String::new();
            let end = row.iter().rposition(|cell| !cell.is_empty()).map_or(0, |last| last + 1);
            for (at, cell) in row[..end].iter().enumerate() {
                let pad = " ".repeat(widths[at] - cell.chars().count());
                if at > 0 {
                    line.push_str("  ");
                }
                if self.right.contains(&at) {
                    line.push_str(&pad);
                }
                line.push_str(cell);
                if !self.right.contains(&at) && at + 1 < end {
                    line.push_str(&pad);
                }
            }
            line
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_with_one_decimal_of_the_fitting_unit() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), shown);
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, shown) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_767_225_599_999, "2025-12-31 23:59:59"),
            (-1, "1969-12-31 23:59:59"),
        ] {
            assert_eq!(utc_time(ms), shown);
        }
    }

    #[test]
    fn modes_read_as_ls_shows_them() {
        for (mode, shown) in
            [(0o644, "rw-r--r--"), (0o4755, "rwsr-xr-x"), (0o1777, "rwxrwxrwt"), (0o2640, "rw-r-S---")]
        {
            assert_eq!(mode_letters(mode), shown);
        }
    }

    #[test]
    fn columns_line_up_and_lines_end_without_spaces() {
        let mut table = Table::new(&[1]);
        table.row(["a".into(), "10".into(), "x".into()]);
        table.row(["long".into(), "9".into(), String::new()]);
        table.row(["b".into(), String::new(), "y ".into()]);
        let lines: Vec<String> = table.lines().collect();
        assert_eq!(lines, ["a     10  x", "long   9", "b         y "]);
    }
}
