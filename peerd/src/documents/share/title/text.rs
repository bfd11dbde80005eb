//! Decodes bytes to text, and lays text out in lines as a printer would.

/// Most columns of a row. A page has 72 columns, so characters beyond this are dropped.
const ROW_MAX: usize = 400;

/// A file with more than one unusual control character per this many bytes is not text.
const BYTES_PER_ODD: usize = 64;

/// One printed line.
pub(super) struct Line {
    /// Column of the first character, from 0.
    pub(super) indent: usize,
    /// The line without leading and trailing blanks; tabs are expanded, other gaps are kept.
    pub(super) text: String,
    /// Number of form feeds before the line.
    pub(super) page: usize,
}

impl Line {
    pub(super) fn is_blank(&self) -> bool {
        self.text.is_empty()
    }

    /// Column past the last character.
    pub(super) fn end(&self) -> usize {
        self.indent + self.width()
    }

    pub(super) fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// The text in `head`; `None` if it is not text. UTF-16 is recognized by its byte order mark. Text that
/// is not UTF-8 is decoded as Latin-1, which old memos with accents or a `µ` use.
pub(super) fn decode(head: &[u8]) -> Option<String> {
    let wide = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = rest.as_chunks::<2>().0.iter().map(|&pair| unit(pair));
        char::decode_utf16(units).map(|c| c.unwrap_or(' ')).collect()
    };
    if let Some(rest) = head.strip_prefix(b"\xff\xfe") {
        return Some(wide(rest, u16::from_le_bytes));
    }
    if let Some(rest) = head.strip_prefix(b"\xfe\xff") {
        return Some(wide(rest, u16::from_be_bytes));
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let odd = head.iter().filter(|&&byte| byte < b' ' && !b"\t\n\x0b\x0c\r\x08\x1b".contains(&byte)).count();
    if odd * BYTES_PER_ODD > head.len() {
        return None;
    }
    Some(match std::str::from_utf8(head) {
        Ok(text) => text.to_owned(),
        // `head` can end within a character; only an error before that means another encoding.
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(head.get(..error.valid_up_to()).unwrap_or(head)).into_owned()
        }
        Err(_) => head.iter().copied().map(char::from).collect(),
    })
}

/// Splits `text` into lines. A backspace or a lone carriage return moves back, and the next characters
/// overprint, which is how typewriters underlined and made bold.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let old_mac = !text.contains('\n');
    let mut lines = Vec::new();
    let mut row = Row::default();
    let mut page = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\x0b' | '\u{2028}' => lines.push(row.take(page)),
            '\r' if old_mac => lines.push(row.take(page)),
            '\r' => row.column = 0,
            '\x0c' => {
                lines.push(row.take(page));
                page += 1;
                lines.push(Row::default().take(page));
            }
            '\x08' => row.column = row.column.saturating_sub(1),
            '\t' => row.column = (row.column / 8 + 1) * 8,
            '\x1b' if chars.next_if_eq(&'[').is_some() => {
                // An ECMA-48 control sequence (colour, bold) ends with its first byte from @ to ~.
                while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
                chars.next();
            }
            '\u{a0}' => row.print(' '),
            '\u{feff}' => {}
            c if c.is_control() => {}
            c => row.print(c),
        }
    }
    lines.push(row.take(page));
    lines
}

#[derive(Default)]
struct Row {
    cells: Vec<char>,
    column: usize,
}

impl Row {
    fn print(&mut self, c: char) {
        let column = self.column;
        self.column += 1;
        if column >= ROW_MAX {
            return;
        }
        if self.cells.len() <= column {
            self.cells.resize(column + 1, ' ');
        }
        if let Some(cell) = self.cells.get_mut(column) {
            // Of a letter and an underscore the letter stays.
            if *cell == ' ' || !matches!(c, ' ' | '_') {
                *cell = c;
            }
        }
    }

    fn take(&mut self, page: usize) -> Line {
        let row: String = self.cells.drain(..).collect();
        self.column = 0;
        let indent = row.chars().take_while(|c| c.is_whitespace()).count();
        let text = row.trim().to_owned();
        Line { indent, text, page }
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, lines};

    fn texts(text: &str) -> Vec<String> {
        lines(text).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn overprinted_text_reads_as_it_was_printed() {
        assert_eq!(texts("T\x08TI\x08IT\x08T"), ["TIT"]);
        assert_eq!(texts("_\x08a_\x08b c\x08_"), ["ab c"]);
        assert_eq!(texts("word\x08\x08\x08\x08____"), ["word"]);
        assert_eq!(texts("word\r____\n"), ["word", ""]);
    }

    #[test]
    fn all_line_endings_end_a_line() {
        assert_eq!(texts("a\r\nb\r\r\nc\nd"), ["a", "b", "c", "d"]);
        assert_eq!(texts("a\rb"), ["a", "b"]);
    }

    #[test]
    fn tabs_and_form_feeds_keep_the_layout() {
        let lines = lines("\tx\x0cy");
        let layout: Vec<_> = lines.iter().map(|line| (line.indent, line.text.as_str(), line.page)).collect();
        assert_eq!(layout, [(8, "x", 0), (0, "", 1), (0, "y", 1)]);
    }

    #[test]
    fn terminal_sequences_and_byte_order_marks_are_removed() {
        assert_eq!(texts("\u{feff}\x1b[1mbold\x1b[0m\x1b["), ["bold"]);
    }

    #[test]
    fn latin_1_utf_16_and_truncated_utf_8_are_text_and_binary_is_not() {
        assert_eq!(decode(b"d\xe9j\xe0").as_deref(), Some("déjà"));
        assert_eq!(decode(b"\xff\xfea\0b\0").as_deref(), Some("ab"));
        assert_eq!(decode("aé".as_bytes().get(..2).unwrap_or(b"")).as_deref(), Some("a"));
        assert_eq!(decode(b"\x7fELF\x02\x01\x01\0\0\0\0"), None);
    }
}
