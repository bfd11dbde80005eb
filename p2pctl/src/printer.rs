//! The only module that prints: results to standard output, notes to standard error.

mod figures;
mod terminal;

pub(crate) use figures::{ago, bytes, date, holder, proto_span, rate, span, until};
pub(crate) use terminal::{Lines, Screen, Typed};

use crate::{args::Output, failure::Failure};
use p2pdi::{field::is_terminal_control, json};
use serde_json::Value;
use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
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

#[cfg(test)]
mod tests {
    use super::*;

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
