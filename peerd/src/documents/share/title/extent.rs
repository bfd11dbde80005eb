//! Finds the lines of a title by their layout, and where the header's authors, a section or the memo's
//! body begins.

use super::author::{is_organization, is_person};
use super::line::{header_field, is_date, is_listed, is_note, is_rule, split_at_gap, title_field, words};
use super::text::Line;
use super::wording::letterspaced;

/// Most lines of a title. The longest title in the RFC series has seven.
pub(super) const TITLE_LINES_MAX: usize = 8;

/// The centre column. Pages are 72 columns wide.
const PAGE_CENTRE: usize = 36;

/// The column of authors and dates. No centred line starts this far right.
pub(super) const RIGHT_COLUMN: usize = 40;

/// The first lines of `lines` that together form one title.
pub(super) fn title_lines(lines: &[Line]) -> Vec<&Line> {
    let Some(first) = lines.first() else {
        return Vec::new();
    };
    let mut title = vec![first];
    let mut ruled = false;
    for line in lines.iter().skip(1) {
        if is_rule(&line.text) {
            ruled = true;
            continue;
        }
        let is_open = title.last().is_some_and(|line| ends_open(&line.text));
        // "Conversations with / Steve Crocker", "An Update to / RFC 3280".
        let is_no_more = is_note(&line.text) || !is_open && is_beside_titles(line);
        // A centred line directly below belongs to the title: "Management: / Overview".
        let is_heading = if is_centred(line) { is_first_heading(&line.text) } else { is_section_heading(line) };
        if is_no_more || is_heading || !is_below(first, line) || ruled && !is_centred(line) {
            break;
        }
        title.push(line);
    }
    title
}

/// Whether `line` cannot be part of a title.
pub(super) fn is_no_title(line: &Line) -> bool {
    is_section_heading(line) || is_beside_titles(line)
}

/// Whether `line` is something other than a heading that is often found near titles.
fn is_beside_titles(line: &Line) -> bool {
    let text = line.text.as_str();
    is_note(text)
        || is_date(text) && !is_month(text)
        || header_field(text).is_some()
        || title_field(text).is_some()
        || is_file_name(text)
        || text.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("appendix"))
        || text.eq_ignore_ascii_case("by")
        || text.eq_ignore_ascii_case("darpa internet program")
        || is_person(text)
        || is_organization(text)
}

/// Whether `line` is laid out like a title's next line after `first`: also centred, at the same margin,
/// or indented further.
pub(super) fn is_below(first: &Line, line: &Line) -> bool {
    if is_centred(first) {
        // A full line at the margin is the body, although it is centred on the page, too.
        if line.indent <= 2 && first.indent >= 10 {
            return false;
        }
        let centres = (first.indent + first.end()).abs_diff(line.indent + line.end());
        centres <= 14 || first.indent.abs_diff(line.indent) <= 2
    } else {
        line.indent + 2 >= first.indent
    }
}

pub(super) fn is_centred(line: &Line) -> bool {
    const MARGIN: usize = 10;
    let off_centre = (line.indent + line.end()).abs_diff(2 * PAGE_CENTRE) / 2;
    line.indent >= MARGIN || line.indent >= 4 && off_centre <= 5 && line.width() < 64
}

pub(super) fn is_right(line: &Line) -> bool {
    const PAGE_WIDTH: usize = 72;
    line.indent >= RIGHT_COLUMN || line.indent >= PAGE_CENTRE && line.end().abs_diff(PAGE_WIDTH) <= 1
}

/// Whether `lines` are the start of the memo's body rather than its title.
pub(super) fn is_body(lines: &[&Line]) -> bool {
    /// Titles at the left margin are short; more lines are a paragraph.
    const LEFT_LINES_MAX: usize = 3;
    const PARAGRAPH_INDENT: usize = 3;
    let Some(first) = lines.first() else {
        return true;
    };
    let text = lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join(" ");
    let is_stopped = text.ends_with(['.', ':', ';']);
    let is_table = split_at_gap(&first.text, 6).is_some() && letterspaced(&first.text).is_none();
    let is_sentence = reads_as_sentence(&text);
    if is_table || lines.len() > TITLE_LINES_MAX {
        return true;
    }
    // If a title is as wide as the page, its last line shows that it is centred.
    let is_balanced = |line: &&Line| (line.indent + line.end()).abs_diff(2 * PAGE_CENTRE) <= 3;
    let ends_centred = lines.len() > 1 && lines.iter().all(is_balanced) && lines.last().is_some_and(|last| is_centred(last));
    if is_centred(first) || ends_centred {
        return is_sentence && is_stopped && lines.len() > 1;
    }
    let is_paragraph = lines.get(1).is_some_and(|second| first.indent >= second.indent + PARAGRAPH_INDENT);
    is_paragraph
        || lines.len() > LEFT_LINES_MAX
        || text.ends_with(':')
        || text.contains(".  ")
        || is_sentence && (is_stopped || lines.len() > 1)
}

/// Whether `text` has a finite verb or begins like a sentence.
fn reads_as_sentence(text: &str) -> bool {
    const VERBS: &str = "\
    is are was were will has have had been should would can must does did that which \
    describes seems please";
    const OPENERS: &str = "\
    This These We I It There Here Please Enclosed";
    words(text).next().is_some_and(|first| is_listed(OPENERS, first)) || words(text).any(|word| is_listed(VERBS, word))
}

/// Whether `text` is a heading that recent RFCs have directly below the title.
fn is_first_heading(text: &str) -> bool {
    ["abstract", "status of this memo", "table of contents"].iter().any(|heading| heading.eq_ignore_ascii_case(text))
}

/// Whether `line` is the heading of a section.
pub(super) fn is_section_heading(line: &Line) -> bool {
    const HEADINGS: [&str; 34] = [
        "abstract",
        "acknowledgement",
        "acknowledgements",
        "acknowledgment",
        "acknowledgments",
        "background",
        "contents",
        "copyright notice",
        "definitions",
        "disclaimer",
        "distribution",
        "foreword",
        "general",
        "general description",
        "history",
        "iesg note",
        "introduction",
        "motivation",
        "note",
        "notes",
        "notice",
        "notices",
        "overview",
        "preamble",
        "preface",
        "problem",
        "purpose",
        "rationale",
        "scope",
        "status of memo",
        "status of this document",
        "status of this memo",
        "summary",
        "table of contents",
    ];
    let text = line.text.as_str();
    let numbered = unnumbered(text);
    let name = numbered.unwrap_or(text).trim_end_matches([':', '.', '-']).trim();
    HEADINGS.iter().any(|heading| heading.eq_ignore_ascii_case(name)) || numbered.is_some() && !is_centred(line)
}

/// `text` without the number of a first section (`1.`, `I -`, `A.`), if it has one.
fn unnumbered(text: &str) -> Option<&str> {
    let number = ["1", "0", "I", "A", "a"].iter().find_map(|number| text.strip_prefix(number))?;
    let number = number.strip_prefix(".0").unwrap_or(number);
    let is_word = text.starts_with(['A', 'a']) && !number.starts_with(['.', ')']);
    let rest = number.trim_start_matches(['.', ')', '-', ':', ' ']);
    (rest.len() < number.len() && !is_word).then_some(rest)
}

/// Whether `text` is the month of a periodical report, which is part of its title: `(October 1973)`.
fn is_month(text: &str) -> bool {
    text.starts_with('(') && words(text).count() == 2
}

/// Whether `text` is the name of the draft or file that a memo was made from.
fn is_file_name(text: &str) -> bool {
    let name = text.trim_matches(['<', '>', '(', ')', '[', ']']);
    let is_one = !name.contains(' ');
    is_one && (name.starts_with("draft-") || name.ends_with(".txt") || name.ends_with(".ps"))
}

/// Words that cannot end a title, and that can continue one.
const OPEN_WORDS: &str = "\
    a an the of for in on to and or with by from at as using over via between within \
    into under its through versus";

fn is_open_word(word: &str) -> bool {
    is_listed(OPEN_WORDS, &word.to_ascii_lowercase())
}

/// Whether a title cannot end with `line`.
pub(super) fn ends_open(line: &str) -> bool {
    // RFC 760 and 761 have the subject of the standard on the next line.
    line.eq_ignore_ascii_case("dod standard")
        || line.ends_with(['-', ':', ',', '/', '&'])
        || words(line).last().is_some_and(is_open_word)
}

/// Whether `line` cannot begin a title.
pub(super) fn starts_open(line: &str) -> bool {
    line.starts_with("--")
        || line.starts_with(char::is_lowercase)
        || line.starts_with(['(', '/', '&'])
        || words(line).next().is_some_and(|word| is_open_word(word) && !matches!(word, "A" | "An" | "The"))
}

/// Whether `line` has a word for the subject of an RFC, so that it is not a person's name.
pub(super) fn has_topic(line: &str) -> bool {
    const TOPICS: &str = "\
    analysis architecture concepts definitions extension extensions facilities \
    format formats implementation management messages methods option options \
    protocol protocols requirements service services specification specifications \
    standard standards";
    words(&line.to_lowercase()).any(|word| is_listed(TOPICS, word))
}
