//! The title of a plain-text RFC or Internet-Draft.
//!
//! The first page is read in blocks (lines between blank lines). Header fields, authors, affiliations,
//! dates and notes are skipped. The next block is the title if it looks like one. Otherwise the title
//! can be above the header, beside the number, or in the running head of the second page.

use super::author::{is_affiliation, is_organization, is_person};
use super::extent::{
    RIGHT_COLUMN, TITLE_LINES_MAX, ends_open, has_topic, is_below, is_body, is_centred, is_no_title, is_right,
    is_section_heading, starts_open, title_lines,
};
use super::line::{
    Field, header_field, header_field_in_columns, is_date, is_note, is_rule, is_salutation, rfc_number, split_at_gap,
    starts_with_publisher, title_field, words,
};
use super::text::Line;
use super::wording::joined;

/// A header starts within this many blocks; a later one is only mentioned in the text.
const HEADER_WITHIN_BLOCKS: usize = 6;

/// How many blocks are read: double-spaced cover pages have up to 20.
const BLOCKS_MAX: usize = 40;

/// The title of the memo in `lines`. If `is_named_as_rfc`, the text itself need not identify itself as an
/// RFC: a few whose first page was lost do not.
pub(super) fn title(lines: &[Line], is_named_as_rfc: bool) -> Option<String> {
    let blocks = blocks(lines);
    let header = blocks.iter().take(HEADER_WITHIN_BLOCKS).position(|block| {
        block.lines.iter().any(|line| {
            header_field_in_columns(&line.text).is_some_and(|field| field.is_certain || is_named_as_rfc && field.is_number)
        })
    });
    if header.is_none() && !is_named_as_rfc {
        return None;
    }
    let mut page = FirstPage { blocks: &blocks, header, beside_number: None, is_among_authors: false };
    let (above_header, below_header) = page.read();
    below_header.or(above_header).or(page.beside_number).or_else(|| running_head(lines))
}

/// Lines between blank lines.
struct Block<'a> {
    lines: &'a [Line],
    /// Blank lines above.
    blanks: usize,
}

fn has_header(block: &Block<'_>) -> bool {
    block.lines.iter().any(|line| header_field(&line.text).is_some())
}

fn blocks(lines: &[Line]) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut rest = lines;
    while blocks.len() < BLOCKS_MAX {
        let blanks = rest.iter().take_while(|line| line.is_blank()).count();
        let after = rest.get(blanks..).unwrap_or(&[]);
        let height = after.iter().take_while(|line| !line.is_blank()).count();
        if height == 0 {
            break;
        }
        let (lines, below) = after.split_at(height);
        blocks.push(Block { lines, blanks });
        rest = below;
    }
    blocks
}

struct FirstPage<'a> {
    blocks: &'a [Block<'a>],
    /// The block with the header of an RFC.
    header: Option<usize>,
    /// The title in a line such as `NWG/RFC 49   Conversations with ...`
    beside_number: Option<String>,
    /// Whether a name or a date was alone in a block above, as on cover pages.
    is_among_authors: bool,
}

/// What a block is.
enum Reading {
    /// Header, authors, dates or notes.
    Skipped,
    Title(Vec<String>),
    /// A `Title:` or `Subject:` field.
    Field(String),
    /// The memo's body: there is no title below.
    Body,
}

impl FirstPage<'_> {
    /// The title above the header (or at the top, if there is none) and the one below it.
    fn read(&mut self) -> (Option<String>, Option<String>) {
        let mut above = None;
        for (index, block) in self.blocks.iter().enumerate() {
            let is_above = self.header.is_some_and(|header| index < header);
            match self.read_block(index, block) {
                // On a cover page with the title above the number, the authors follow.
                Reading::Skipped if above.is_some() && !is_above && !has_header(block) => break,
                Reading::Skipped => {}
                Reading::Field(title) => return (above, Some(title)),
                Reading::Title(lines) if is_above => {
                    above = above.or_else(|| Some(joined(&lines)));
                }
                Reading::Title(lines) => {
                    if let Some(title) = self.title_field_below(index) {
                        return (above, Some(title));
                    }
                    let lines = self.with_blocks_below(index, lines);
                    return (above, Some(joined(&lines)));
                }
                Reading::Body if is_above => {}
                Reading::Body => break,
            }
        }
        (above, None)
    }

    fn read_block(&mut self, index: usize, block: &Block<'_>) -> Reading {
        let is_below_header = self.header.is_some_and(|header| header < index);
        let mut header = Header::default();
        let mut in_note = false;
        let last_field = block.lines.iter().rposition(|line| header_field(&line.text).is_some());
        for (at, line) in block.lines.iter().enumerate() {
            let text = line.text.as_str();
            if in_note {
                in_note = !text.contains(']');
                continue;
            }
            let below = block.lines.get(at + 1..).unwrap_or(&[]);
            if let Some(value) = title_field(text) {
                return Reading::Field(field_value(line, value, below));
            }
            // A publisher's name centred below the header begins a title.
            let is_field = |field: &Field<'_>| !(is_below_header && field.is_publisher && is_centred(line));
            if let Some(field) = header_field(text).filter(is_field) {
                if field.is_number && self.beside_number.is_none() {
                    self.beside_number = title_beside_number(line, field.rest);
                }
                header.pass(line);
                continue;
            }
            if is_note(text) {
                in_note = !text.contains(']');
                continue;
            }
            // A line between two fields of a header belongs to it.
            let is_within = last_field.is_some_and(|last| at < last) && (header.is_passed || starts_with_publisher(text));
            if is_within || is_rule(text) || header.covers(line) {
                continue;
            }
            if is_date(text) {
                self.is_among_authors |= !header.is_passed;
                continue;
            }
            if header.is_passed && (is_person(text) || is_affiliation(text)) {
                continue;
            }
            let is_author =
                is_person(text) || self.is_among_authors && is_affiliation(text) || !is_centred(line) && is_organization(text);
            if is_author {
                self.is_among_authors = true;
                return Reading::Skipped;
            }
            if is_section_heading(line) || is_salutation(text) {
                return Reading::Body;
            }
            let title = title_lines(block.lines.get(at..).unwrap_or(&[]));
            let is_title = match title.first() {
                Some(_) if is_body(&title) => false,
                // Without a header only a centred line is a title.
                Some(first) => self.header.is_some() || is_centred(first),
                None => false,
            };
            if !is_title {
                return Reading::Body;
            }
            return Reading::Title(title.iter().map(|line| line.text.clone()).collect());
        }
        Reading::Skipped
    }

    /// The `Title:` field that begins a block within the next blocks after `index`. The cover sheets of ISO
    /// documents (RFC 994 and 995) have one, and their publisher in the position of the title.
    fn title_field_below(&self, index: usize) -> Option<String> {
        const WITHIN_BLOCKS: usize = 4;
        self.blocks.iter().skip(index + 1).take(WITHIN_BLOCKS).find_map(|block| {
            let (first, below) = block.lines.split_first()?;
            let is_title = first.text.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("title"));
            let value = title_field(&first.text).filter(|value| is_title && !value.is_empty())?;
            Some(field_value(first, value, below))
        })
    }

    /// Adds the blocks below that continue the title in `lines` of block `index`: some titles have blank lines
    /// between their lines.
    fn with_blocks_below(&self, index: usize, mut lines: Vec<String>) -> Vec<String> {
        let Some(first) = self.blocks.get(index).and_then(|block| block.lines.last()) else {
            return lines;
        };
        let centred = is_centred(first);
        for (index, block) in self.blocks.iter().enumerate().skip(index + 1) {
            let Some(top) = block.lines.first() else {
                break;
            };
            let more = title_lines(block.lines);
            let ends_here = block.blanks > 3
                || more.len() != block.lines.len()
                || more.len() + lines.len() > TITLE_LINES_MAX
                || is_no_title(top)
                || is_body(&more)
                || centred != is_centred(top)
                || centred && !is_below(first, top);
            if ends_here {
                break;
            }
            let is_open = lines.last().is_some_and(|line| ends_open(line));
            let carries_on = is_open
                || block.blanks <= 2 && starts_open(&top.text)
                || centred && block.blanks == 1 && has_topic(&top.text)
                || centred && self.is_spaced_as_one(index, lines.last());
            if !carries_on {
                break;
            }
            lines.extend(more.iter().map(|line| line.text.clone()));
        }
        // "... and" a list of appendices on the cover page.
        lines.pop_if(|last| last.eq_ignore_ascii_case("and"));
        lines
    }

    /// Whether block `index` is closer to the title's line `above` than to the next block, in capitals like
    /// that line, and has more words than a name.
    fn is_spaced_as_one(&self, index: usize, above: Option<&String>) -> bool {
        const NAME_WORDS_MAX: usize = 2;
        let (Some(block), Some(above)) = (self.blocks.get(index), above) else {
            return false;
        };
        let is_capitals = |text: &str| !text.contains(char::is_lowercase);
        let is_close = block.blanks == 1 && self.blocks.get(index + 1).is_none_or(|below| below.blanks > 1);
        block.lines.first().is_some_and(|top| {
            is_close
                && is_capitals(&top.text)
                && above.chars().filter(|c| c.is_lowercase()).count() <= 1
                && words(&top.text).count() > NAME_WORDS_MAX
        })
    }
}

/// A long affiliation starts no further left than this column.
const FLUSH_INDENT_MIN: usize = 16;

/// The layout of the header lines above in the same block.
#[derive(Default)]
struct Header {
    is_passed: bool,
    /// Where the fields' values start.
    value_column: Option<usize>,
    /// Where the authors and dates start.
    right_column: Option<usize>,
    /// Where they end, if they are set flush right.
    right_edge: Option<usize>,
}

impl Header {
    fn pass(&mut self, line: &Line) {
        self.is_passed = true;
        if let Some((_, _, column)) = split_at_gap(&line.text, 3) {
            self.right_column = Some(line.indent + column);
            self.right_edge = Some(line.end());
        }
        self.value_column = line.text.split_once(':').map(|(name, value)| {
            let blanks = value.len() - value.trim_start().len();
            line.indent + name.chars().count() + 1 + blanks
        });
    }

    /// Whether `line` belongs to the header by its layout.
    fn covers(&mut self, line: &Line) -> bool {
        let near = |column: Option<usize>| column.is_some_and(|at| at.abs_diff(line.indent) <= 2);
        let is_flush_right = line.indent >= FLUSH_INDENT_MIN && self.right_edge == Some(line.end());
        if is_right(line) || near(self.right_column) || is_flush_right {
            return true;
        }
        if let Some((left, right, column)) = split_at_gap(&line.text, 3) {
            let column = line.indent + column;
            let is_right_column = column + 4 >= RIGHT_COLUMN
                && (self.is_passed
                    || is_person(right)
                    || is_date(right)
                    || is_affiliation(right)
                    || header_field(right).is_some());
            if is_right_column || self.is_passed && is_date(left) {
                self.right_column = Some(column);
                return true;
            }
        }
        let is_list = words(&line.text).all(|word| {
            word.bytes().all(|b| b.is_ascii_digit())
                || ["rfc", "rfcs", "nic", "ien", "and", "none"].iter().any(|known| known.eq_ignore_ascii_case(word))
        });
        // An unknown field: "Functional area:   Mail".
        let is_field = line.indent <= 2
            && line.text.split_once(':').is_some_and(|(name, value)| words(name).count() <= 2 && value.starts_with("  "));
        self.is_passed && (is_list || is_field || near(self.value_column))
    }
}

/// A `Title:` field's value, including its continuation lines.
fn field_value(line: &Line, value: &str, below: &[Line]) -> String {
    let value = split_at_gap(value, 4).map_or(value, |(left, ..)| left);
    let mut lines = vec![value.to_owned()];
    for next in below.iter().take(TITLE_LINES_MAX) {
        let ends_here = next.indent <= line.indent
            || header_field(&next.text).is_some()
            || title_field(&next.text).is_some()
            || is_rule(&next.text)
            || next.text.split_whitespace().next().is_some_and(|word| word.ends_with(':'));
        if ends_here {
            break;
        }
        lines.push(next.text.clone());
    }
    joined(&lines)
}

/// `Conversations with Steve Crocker` in `NWG/RFC 49   Conversations with Steve Crocker`. Text further
/// right, or flush right, is the header's column of authors.
fn title_beside_number(line: &Line, rest: &str) -> Option<String> {
    const FURTHEST_LEFT: usize = 24;
    const WORDS_MIN: usize = 2;
    let title = rest.trim();
    let column = line.end().checked_sub(title.chars().count())?;
    let is_title = column <= FURTHEST_LEFT
        && words(title).count() >= WORDS_MIN
        && split_at_gap(title, 3).is_none()
        && !is_person(title)
        && !is_affiliation(title)
        && !is_date(title)
        && !title.starts_with(['(', '[', '/', ','])
        && header_field(title).is_none();
    is_title.then(|| title.to_owned())
}

/// The title in the running head of a later page: `RFC 120      NETWORK PL1 SUBPROGRAMS      April 1971`.
fn running_head(lines: &[Line]) -> Option<String> {
    lines.iter().filter(|line| line.page > 0).find_map(|line| {
        // A running head never has "Request for Comments" in full; a first page after a form feed does.
        let (rest, _) = rfc_number(&line.text).filter(|(_, is_certain)| !is_certain)?;
        let middle = match split_at_gap(rest.trim(), 2) {
            Some((title, _, _)) => title,
            None => rest.trim(),
        };
        let is_title = !middle.is_empty() && !is_date(middle) && !is_person(middle);
        is_title.then(|| middle.to_owned())
    })
}
