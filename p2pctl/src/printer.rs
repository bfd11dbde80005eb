//! The only module that prints: results to standard output, notes to standard error.

mod terminal;

pub(crate) use terminal::{Lines, Screen, Typed};

use crate::{args::Output, failure::Failure};
use bytesize::ByteSize;
use p2pdi::{field::is_terminal_control, json};
use prost_types::{Duration as ProtoDuration, Timestamp};
use serde_json::Value;
use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, SystemTime},
};
use unicode_width::UnicodeWidthStr as _;

/// Widest cell of a table on a terminal, in characters; what goes to a pipe or a file, and JSON, is never cut.
const CELL_MAX_CHARS: usize = 72;

/// Columns of a terminal that does not tell.
const COLUMNS_DEFAULT: usize = 80;

/// Prints results in the form the user asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    output: Output,
}

impl Printer {
    pub(crate) fn new(output: Output) -> Self {
        Self { output }
    }

    pub(crate) fn is_json(self) -> bool {
        self.output == Output::Json
    }

    /// A result: a message of the contract as JSON, or `text`.
    pub(crate) fn message<M: prost::Message + prost::Name>(self, message: &M, text: impl FnOnce() -> String) -> io::Result<()> {
        match self.output {
            Output::Json => self.json(&json::value(message)),
            Output::Table => self.text(&text()),
        }
    }

    /// One JSON value on a line of its own.
    pub(crate) fn json(self, value: &Value) -> io::Result<()> {
        line(&value)
    }

    /// Text, as it is.
    pub(crate) fn text(self, text: &str) -> io::Result<()> {
        line(&printable(text))
    }

    /// A table: header, then rows, columns aligned.
    pub(crate) fn table(self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let mut all: Vec<Vec<String>> = vec![head.iter().map(|cell| (*cell).to_owned()).collect()];
        all.extend(rows.iter().cloned());
        let cut = io::stdout().is_terminal();
        for cell in all.iter_mut().flatten() {
            *cell = shown(cell);
            if cut && cell.chars().count() > CELL_MAX_CHARS {
                *cell = cell.chars().take(CELL_MAX_CHARS - 1).chain(['…']).collect();
            }
        }
        let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0);
        let widths: Vec<_> = (0..head.len()).map(width).collect();
        for row in &all {
            // Columns of the terminal, not characters: a CJK letter takes two, a combining mark none.
            let pad = |(cell, width): (&String, &usize)| format!("{cell}{}", " ".repeat(width.saturating_sub(cell.width())));
            let cells: Vec<_> = row.iter().zip(&widths).map(pad).collect();
            line(&cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Raw bytes, such as a completion script.
    pub(crate) fn raw(self, bytes: &[u8]) -> io::Result<()> {
        written(io::stdout().write_all(bytes))
    }

    /// A note for the user, on standard error.
    pub(crate) fn note(self, text: &str) {
        // There is no other channel to report a failure of standard error on.
        let _ = writeln!(io::stderr(), "{}", printable(text));
    }

    /// Why the program fails, on standard error: `error:` and `hint:` lines, or one JSON object.
    pub(crate) fn failure(self, failure: &Failure) {
        match self.output {
            Output::Json => self.note(&failure.to_json().to_string()),
            Output::Table => self.note(&failure.to_string()),
        }
    }

    /// Whether standard error is a terminal.
    pub(crate) fn is_watched(self) -> bool {
        io::stderr().is_terminal()
    }

    /// Columns of the terminal on standard error.
    pub(crate) fn error_columns(self) -> usize {
        console::Term::stderr().size_checked().map_or(COLUMNS_DEFAULT, |(_, columns)| columns.into())
    }
}

fn line(text: &dyn Display) -> io::Result<()> {
    written(writeln!(io::stdout(), "{text}"))
}

/// A closed pipe, as in `p2pctl peers | head -1`, is not an error.
fn written(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// The text of a cell. Quoted where it would not be seen otherwise: only blanks, blanks at an end, characters of no width.
fn shown(cell: &str) -> String {
    // Escapes what is not printable, such as a zero-width space, but no combining marks.
    let is_invisible = cell.escape_debug().to_string().contains("\\u{") && !cell.contains(is_terminal_control);
    if cell.trim() != cell || is_invisible { format!("{cell:?}") } else { printable(cell).replace('\n', " ") }
}

/// Replaces terminal control characters, which text from the network may contain.
fn printable(text: &str) -> String {
    text.chars().map(|c| if is_terminal_control(c) && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// `27.4 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    ByteSize(count).display().iec().to_string()
}

/// `1.2 GiB/s`.
pub(crate) fn rate(count: u64, elapsed: Duration) -> String {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "three digits are shown"
    )]
    let per_second = (count as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
    format!("{}/s", bytes(per_second))
}

/// `3.21 ms`, `1.5 s`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 120.0 {
        format!("{seconds:.2} s")
    } else {
        humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
    }
}

/// A time this much in the future is one that just passed: a server's present time comes in whole seconds, and clocks are corrected.
const CLOCK_CORRECTION_MAX: Duration = Duration::from_secs(60);

/// `12s ago`, at the time `now` by the clock that `at` is from. `unknown` for a time that cannot be.
pub(crate) fn ago(at: Option<Timestamp>, now: SystemTime) -> String {
    let passed = at.and_then(|at| SystemTime::try_from(at).ok()).and_then(|at| match now.duration_since(at) {
        Ok(passed) => Some(passed),
        Err(ahead) => (ahead.duration() <= CLOCK_CORRECTION_MAX).then_some(Duration::ZERO),
    });
    passed.map_or_else(|| "unknown".to_owned(), |passed| format!("{} ago", whole_seconds(passed)))
}

/// `29s`.
pub(crate) fn proto_span(duration: Option<ProtoDuration>) -> String {
    duration.and_then(|given| Duration::try_from(given).ok()).map_or_else(|| "-".to_owned(), whole_seconds)
}

fn whole_seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_counted_by_the_clock_of_the_server_and_impossible_ones_are_unknown() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds| Some(Timestamp { seconds, nanos: 500_000_000 });
        for (at, expected) in [
            (at(999_987), "12s ago"),
            (at(1_000_000), "0s ago"),
            (at(1_000_059), "0s ago"),
            (at(1_000_061), "unknown"),
            (at(i64::MAX), "unknown"),
            (None, "unknown"),
        ] {
            assert_eq!(ago(at, now), expected, "{at:?}");
        }
    }

    #[test]
    fn a_cell_that_would_not_be_seen_is_quoted() {
        for (cell, expected) in [
            ("rfc1.txt", "rfc1.txt"),
            ("a b", "a b"),
            ("", ""),
            (" ", "\" \""),
            ("a ", "\"a \""),
            (" a", "\" a\""),
            ("a\u{200b}b", "\"a\\u{200b}b\""),
            ("\u{feff}", "\"\\u{feff}\""),
            ("\u{a0}", "\"\\u{a0}\""),
            ("e\u{301}", "e\u{301}"),
            ("grüße", "grüße"),
            ("a\nb", "a b"),
        ] {
            assert_eq!(shown(cell), expected, "{cell:?}");
        }
    }
}
