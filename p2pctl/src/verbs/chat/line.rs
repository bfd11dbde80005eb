//! Parses a typed line of a chat.
//!
//! Pure: no I/O, no clock, no randomness of its own.

/// A line of a chat.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// To all.
    ToAll(&'a str),
    /// `@name text`.
    ToOne(&'a str, &'a str),
    /// List the peers.
    Peers,
    /// Show the help.
    Help,
    /// End the chat.
    Quit,
    /// Not valid, with what to type instead.
    Wrong(&'static str),
    Empty,
}

impl<'a> Line<'a> {
    pub(super) fn read(line: &'a str) -> Self {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix('@') {
            return match rest.split_once(char::is_whitespace) {
                Some((name, text)) if !name.is_empty() => Self::ToOne(name, text.trim_start()),
                _ => Self::Wrong("the text is missing: @name text goes to that peer alone"),
            };
        }
        match line {
            "" => Self::Empty,
            "/peers" | "/who" => Self::Peers,
            "/help" | "/?" => Self::Help,
            "/quit" | "/exit" => Self::Quit,
            // A doubled slash sends one.
            line if line.starts_with("//") => Self::ToAll(&line[1..]),
            line if line.starts_with('/') => Self::Wrong("no such command; /help lists them, and //text sends /text"),
            line => Self::ToAll(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_text_a_message_to_one_or_a_command() {
        for (typed, meant) in [
            ("hello all", Line::ToAll("hello all")),
            ("  mail a@b ", Line::ToAll("mail a@b")),
            ("@bob hello  you", Line::ToOne("bob", "hello  you")),
            (" @bob\t hi", Line::ToOne("bob", "hi")),
            ("/peers", Line::Peers),
            ("/quit", Line::Quit),
            ("//etc/hosts", Line::ToAll("/etc/hosts")),
            ("", Line::Empty),
        ] {
            assert_eq!(Line::read(typed), meant, "{typed}");
        }
        for typed in ["@bob", "@", "@ x", "/nick me"] {
            assert!(matches!(Line::read(typed), Line::Wrong(_)), "{typed}");
        }
    }
}
