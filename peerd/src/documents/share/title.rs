//! Extracts a document's title from its text.
//!
//! Users search for documents by title, and the RFC series has layouts from 1969 to today. So this
//! skips the header, the authors and the dates, and takes the lines in the position of a title.
//! Nothing is guessed: a document without a recognizable title (or that is not text) gets its file
//! name as title.
//!
//! Pure: no I/O, no clock, no randomness of its own.

mod author;
mod extent;
mod line;
mod markup;
mod memo;
mod text;
mod wording;

use crate::documents::rfc_number::rfc_number;

/// How many bytes of a document [`title`] reads: the longest cover page and header in the RFC series
/// end within 8 KiB, and an HTML version can have 8 KiB of style before its `<title>`.
pub const HEAD_BYTES: usize = 16 * 1024;

/// Longest title in bytes. The longest one in the RFC series has about 220, and a file name (at most
/// 255 on the usual file systems) fits.
pub const TITLE_MAX_BYTES: usize = 256;
// Other peers refuse longer ones.
const _: () = assert!(TITLE_MAX_BYTES <= p2pdi::document::TITLE_MAX_BYTES);

/// The title of the document `file_name` (a name or a relative path) that begins with the bytes
/// `head`. Bytes after [`HEAD_BYTES`] are ignored.
///
/// - HTML and XML: the `<title>`, without the prefix `RFC 48:` of the RFC Editor.
/// - Markdown (`.md`): the first heading.
/// - An RFC or Internet-Draft in plain text: the title below the header.
/// - Anything else: the file name.
///
/// The result has no control characters, only single spaces, and at most [`TITLE_MAX_BYTES`] bytes.
/// It is empty only if the file name has no visible character either. The time is linear in the
/// length of `head`; no input causes a panic.
pub fn title(file_name: &str, head: &[u8]) -> String {
    let base = file_name.rsplit('/').next().unwrap_or(file_name);
    let head = head.get(..HEAD_BYTES).unwrap_or(head);
    text::decode(head)
        .and_then(|text| find(base, &text))
        .map(|found| printable(&found))
        .filter(|found| found.chars().any(char::is_alphanumeric))
        .unwrap_or_else(|| printable(base))
}

fn find(base: &str, text: &str) -> Option<String> {
    let extension = base.rsplit_once('.').map(|(_, extension)| extension);
    let has_extension = |of: &[&str]| extension.is_some_and(|extension| of.iter().any(|one| one.eq_ignore_ascii_case(extension)));
    if has_extension(&["md", "markdown", "mkd"]) {
        return markup::markdown_title(text);
    }
    let named_as_rfc = rfc_number(base).is_some();
    if markup::is_markup(text) {
        let shown = markup::element(text, "title").map(|title| without_number(&title));
        // Some mirrors put only `rfc48` into the element, and the RFC itself into a <pre>.
        return shown.filter(|title| !title.is_empty() && rfc_number(title).is_none()).or_else(|| {
            let page = markup::element_text(text, "pre")?;
            memo::title(&text::lines(&page), named_as_rfc)
        });
    }
    if has_extension(&["pdf", "ps", "json", "csv", "gz", "zip"]) {
        return None;
    }
    memo::title(&text::lines(text), named_as_rfc)
}

/// `RFC 48: A Possible Protocol Plateau` without its number.
fn without_number(title: &str) -> String {
    let title = title.trim();
    let unnumbered = || {
        let rest = title.strip_prefix("RFC").or(title.strip_prefix("rfc"))?;
        let rest = rest.trim_start_matches([' ', '-']);
        let name = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        if name.len() == rest.len() {
            return None;
        }
        let name = name.trim_start();
        name.is_empty().then_some("").or_else(|| name.strip_prefix([':', '-', '–', '—', '|']))
    };
    unnumbered().unwrap_or(title).trim().to_owned()
}

/// `found` on one line, with single spaces and without characters that a terminal interprets.
fn printable(found: &str) -> String {
    let mut title = String::with_capacity(found.len().min(TITLE_MAX_BYTES));
    let mut gap = false;
    for c in found.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = true;
            continue;
        }
        if is_invisible(c) {
            continue;
        }
        let space = usize::from(gap && !title.is_empty());
        if title.len() + space + c.len_utf8() > TITLE_MAX_BYTES {
            break;
        }
        if space == 1 {
            title.push(' ');
        }
        gap = false;
        title.push(c);
    }
    title
}

/// Invisible characters that change how others are shown (Unicode bidirectional controls, zero-width
/// characters): a title must not look like another one.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::{TITLE_MAX_BYTES, title};

    /// SplitMix64 (Steele, Lea, Flood 2014): the same numbers in every run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn below(&mut self, bound: usize) -> usize {
            usize::try_from(self.next() % bound as u64).expect("below a usize")
        }
    }

    #[track_caller]
    fn assert_valid(name: &str, bytes: &[u8]) {
        let title = title(name, bytes);
        assert!(title.len() <= TITLE_MAX_BYTES, "{title:?}");
        assert!(!title.chars().any(char::is_control), "{title:?}");
        assert!(!title.contains("  ") && title.trim() == title, "{title:?}");
        assert!(!title.is_empty(), "{bytes:?}");
    }

    #[test]
    fn random_bytes_cause_no_panic_and_no_invalid_title() {
        const PIECES: [&[u8]; 40] = [
            b"Network Working Group",
            b"Request for Comments: ",
            b"RFC ",
            b"400",
            b"\n",
            b"\n\n",
            b"   ",
            b"                              ",
            b"Title: ",
            b"Obsoletes: ",
            b"[",
            b"]",
            b"-",
            b"----",
            b"\x0c",
            b"\x08",
            b"\r",
            b"\t",
            b"\x1b[",
            b"_\x08M",
            b"Mail",
            b"J. Postel",
            b"UCLA",
            b"July 1972",
            b"4/30/70",
            b"<html>",
            b"<title>",
            b"</title>",
            b"<pre>",
            b"&#x",
            b"&amp;",
            b";",
            b"(",
            b")",
            b"\xe9",
            b"\xc3\xa9",
            b"\xff\xfe",
            b"\0",
            b"and",
            b"1. ",
        ];
        const NAMES: [&str; 5] = ["rfc400.txt", "a.txt", "rfc400.html", "a.md", "rfc400"];
        let mut random = Random(1969);
        for round in 0..4000 {
            let name = NAMES[random.below(NAMES.len())];
            let mut bytes = Vec::new();
            let length = random.below(120);
            for _ in 0..length {
                if round % 4 == 0 {
                    bytes.extend(random.next().to_le_bytes());
                } else {
                    bytes.extend(PIECES[random.below(PIECES.len())]);
                }
            }
            assert_valid(name, &bytes);
        }
    }

    #[test]
    fn repeated_text_takes_linear_time() {
        // Each of these would take minutes if a step were quadratic.
        let header = "Network Working Group\nRequest for Comments: 400\n\n";
        for piece in [
            "<title ",
            "<",
            "&",
            "&#x1;",
            "_\u{8}",
            "\u{8}",
            "\t",
            "\x1b[",
            "a\n",
            "UCLA\n",
            "J. P\n",
            "and\n",
            " \n\n",
            "RFC 1\n",
            "Title:\n",
            "[\n",
            "NIC 1\n",
            "--\n",
            "a  b   c    ",
            "\x0c",
            "July 1972\n",
            "U.S. Mail,\n",
            "     and\n\n",
        ] {
            let text = piece.repeat(64 * 1024);
            for name in ["rfc400.txt", "rfc400.md"] {
                assert_valid(name, text.as_bytes());
                assert_valid(name, format!("{header}{text}").as_bytes());
                assert_valid(name, format!("<html>{text}").as_bytes());
            }
        }
    }
}
