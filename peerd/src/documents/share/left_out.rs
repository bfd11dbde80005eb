//! Why a file of the share is not offered.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::{
    document::{DOCUMENT_NAME_MAX_BYTES, DOCUMENT_NAME_PART_MAX_BYTES, DOCUMENT_NAME_PARTS_MAX, DocumentName},
    field::is_terminal_control,
    v1,
};
use std::ffi::OsStr;

/// Most names of left-out files that are kept and sent: 1,000 of the longest names fit into one message.
pub(super) const LEFT_OUT_MAX: usize = 1_000;
/// Most names in a log line.
const LOGGED_MAX: usize = 5;

/// Why a file is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// Its name, or that of a folder it is in, begins with a dot.
    Hidden,
    /// The file system refuses to read it.
    Unreadable,
    /// A link that leads outside the share, in a loop, or nowhere.
    Outside,
    /// A link to what is for other peers than what lies beside it.
    ForOthers,
    /// A socket, a device or a named pipe.
    NotAFile,
    TooLarge,
    NotUtf8,
    ControlCharacters,
    BackslashOrColon,
    NameTooLong,
    PathTooLong,
    TooDeep,
    /// Another rule of [`DocumentName`].
    InvalidName,
}

/// How the status counts a left-out file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Hidden,
    Unreadable,
    Outside,
    Unsupported,
}

impl Reason {
    /// The rule that `name` at `path` breaks, where the folder it is in breaks none.
    pub(super) fn of_name(name: &OsStr, path: &str) -> Option<Self> {
        let Some(text) = name.to_str() else { return Some(Self::NotUtf8) };
        if DocumentName::parse(path).is_ok() {
            return None;
        }
        Some(match text {
            _ if text.chars().any(is_terminal_control) => Self::ControlCharacters,
            _ if text.contains(['\\', ':']) => Self::BackslashOrColon,
            _ if text.len() > DOCUMENT_NAME_PART_MAX_BYTES => Self::NameTooLong,
            _ if path.len() > DOCUMENT_NAME_MAX_BYTES => Self::PathTooLong,
            _ if path.split('/').count() > DOCUMENT_NAME_PARTS_MAX => Self::TooDeep,
            _ => Self::InvalidName,
        })
    }

    pub(super) fn group(self) -> Group {
        match self {
            Self::Hidden => Group::Hidden,
            Self::Unreadable => Group::Unreadable,
            Self::Outside | Self::ForOthers => Group::Outside,
            _ => Group::Unsupported,
        }
    }

    /// The rule, for people.
    pub(super) fn rule(self) -> &'static str {
        match self {
            Self::Hidden => "hidden: the name begins with a dot",
            Self::Unreadable => "cannot be read; check its permissions",
            Self::Outside => "a link that leads outside the share, in a loop, or nowhere",
            Self::ForOthers => {
                "a link to a folder of --share-to, or out of one: it would change for whom that is; name what it leads to"
            }
            Self::NotAFile => "not a regular file",
            Self::TooLarge => "larger than a document can be",
            Self::NotUtf8 => "the name is not UTF-8",
            Self::ControlCharacters => "the name has control or invisible characters",
            Self::BackslashOrColon => "the name has a backslash or a colon",
            Self::NameTooLong => "the name has more than 200 bytes",
            Self::PathTooLong => "the path has more than 1,024 bytes",
            Self::TooDeep => "more than 32 folders deep",
            Self::InvalidName => "the name is no valid document name",
        }
    }
}

/// What a status lists of `all`: hidden files, of which most shares have many, come last.
pub(super) fn listed<'a>(all: impl Iterator<Item = (&'a str, Reason)> + Clone) -> Vec<v1::LeftOut> {
    let left_out = |(name, reason): (&str, Reason)| v1::LeftOut { name: name.to_owned(), rule: reason.rule().to_owned() };
    let others = all.clone().filter(|(_, reason)| *reason != Reason::Hidden);
    others.chain(all.filter(|(_, reason)| *reason == Reason::Hidden)).take(LEFT_OUT_MAX).map(left_out).collect()
}

/// One line for the log, without hidden files: how many there are, and the first names. `None` if there are none.
pub(super) fn log_line<'a>(count: usize, all: impl Iterator<Item = (&'a str, Reason)>) -> Option<String> {
    let named = all.filter(|(_, reason)| *reason != Reason::Hidden).take(LOGGED_MAX);
    let names: Vec<_> = named.map(|(name, reason)| format!("{name:?} ({})", reason.rule())).collect();
    let more = count.saturating_sub(names.len());
    match (names.as_slice(), more) {
        ([], _) => None,
        (names, 0) => Some(names.join(", ")),
        (names, more) => Some(format!("{} and {more} more", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_line_names_a_few_and_counts_the_rest() {
        let all: Vec<_> = (0..9).map(|n| (format!("{n}:"), Reason::BackslashOrColon)).collect();
        let with_hidden =
            || std::iter::once((".a", Reason::Hidden)).chain(all.iter().map(|(name, reason)| (name.as_str(), *reason)));
        let line = log_line(9, with_hidden()).unwrap();
        assert!(line.starts_with(r#""0:" (the name has a backslash or a colon), "#) && line.ends_with(" and 4 more"), "{line}");
        assert_eq!(log_line(0, with_hidden().take(1)), None);
    }
}
