//! Classifies a single line of a memo by its words: header field, date, note, rule.
//!
//! The position of a line is handled by `memo` and `extent`.

/// Publishers that begin an RFC's header, alone on its first line.
const PUBLISHERS: [&str; 13] = [
    "network working group",
    "network working note",
    "internet engineering task force",
    "internet engineering steering group",
    "internet architecture board",
    "internet activities board",
    "internet research task force",
    "internet assigned numbers authority",
    "independent submission",
    "rfc editor",
    "editorial stream",
    "internet-draft",
    "internet draft",
];

/// Header fields that can be followed by a number or another document without a colon
/// (`NIC 5740`, `Obsoletes RFC 765`).
const REFERRING_FIELDS: [&str; 29] = [
    "nic",
    "network information center",
    "ien",
    "rtr",
    "std",
    "bcp",
    "fyi",
    "issn",
    "category",
    "categories",
    "catagory",
    "catagories",
    "obsoletes",
    "obsoleted by",
    "obsolete",
    "obsoletes rfc",
    "obsoletes rfcs",
    "rfcs obsoleted",
    "rfc's obsoleted",
    "rfc obsoleted",
    "updates",
    "updated by",
    "updates rfc",
    "updates rfcs",
    "rfcs updated",
    "rfc's updated",
    "rfc updated",
    "supersedes",
    "supercedes",
];

/// Header fields that need a colon.
const COLON_FIELDS: [&str; 39] = [
    "replaces",
    "reference",
    "references",
    "related",
    "related rfcs",
    "related documents",
    "see also",
    "date",
    "from",
    "to",
    "author",
    "authors",
    "by",
    "editor",
    "editors",
    "installation",
    "organization",
    "cc",
    "status",
    "file",
    "online file",
    "ident",
    "key words",
    "expires",
    "expiration date",
    "intended status",
    "workgroup",
    "working group",
    "stream",
    "published",
    "draft",
    "maturity",
    "functional document",
    "network site",
    "distribution",
    "doi",
    "document",
    "location",
    "errata",
];

const MONTHS: &str = "\
    january february march april may june july august september october november \
    december";

/// Words that can be part of a date.
const BESIDE_DATES: &str = "revised dated date of am pm monday tuesday wednesday thursday friday sept";

/// Fields whose value is the title.
const TITLE_FIELDS: [&str; 6] = ["title", "subject", "subj", "re", "topic", "document title"];

/// A header field.
pub(super) struct Field<'a> {
    /// The text right of the field's value, or of the name if it has no value.
    pub(super) rest: &'a str,
    /// Whether the field is the memo's own RFC number.
    pub(super) is_number: bool,
    /// Whether the field is the publisher's name, and nothing else.
    pub(super) is_publisher: bool,
    /// Whether this line alone proves that the text is an RFC or Internet-Draft.
    pub(super) is_certain: bool,
}

/// The header field in either column of `text`.
pub(super) fn header_field_in_columns(text: &str) -> Option<Field<'_>> {
    header_field(text).or_else(|| header_field(split_at_gap(text, 3)?.1))
}

/// The header field that `text` is, if it is one.
pub(super) fn header_field(text: &str) -> Option<Field<'_>> {
    let text = text.trim_start_matches(['[', '(', '<']);
    if let Some((rest, is_certain)) = rfc_number(text) {
        return Some(Field { rest, is_number: true, is_publisher: false, is_certain });
    }
    if let Some(rest) = publisher(text) {
        return Some(Field { rest, is_number: false, is_publisher: rest.is_empty(), is_certain: true });
    }
    let follows_referring = |rest: &str| {
        let next = rest.trim_start_matches([' ', '(', '#']).to_ascii_lowercase();
        let gap = rest.len() - rest.trim_start().len();
        gap >= 3
            || rest.trim_start().starts_with([':', '#'])
            || next.starts_with(|c: char| c.is_ascii_digit())
            // Categories of 1971 and 1972: "D.4", "B.1, C.1".
            || next.get(1..).is_some_and(|next| next.starts_with('.'))
            || ["rfc", "nwg", "nic", "ien", "none", "std"]
                .iter()
                .any(|document| next.starts_with(document))
    };
    let referring =
        REFERRING_FIELDS.iter().filter_map(|name| strip_words(text, name)).any(|rest| rest.is_empty() || follows_referring(rest));
    let with_colon =
        COLON_FIELDS.iter().filter_map(|name| strip_words(text, name)).any(|rest| rest.trim_start().starts_with(':'));
    (referring || with_colon).then_some(Field { rest: "", is_number: false, is_publisher: false, is_certain: false })
}

/// The title in a `Title:` or `Subject:` field.
pub(super) fn title_field(text: &str) -> Option<&str> {
    let rest =
        TITLE_FIELDS.iter().filter_map(|name| strip_words(text, name)).find_map(|rest| rest.trim_start().strip_prefix(':'))?;
    Some(rest.trim())
}

/// `text` without the leading `words`, ignoring case, if a word ends there.
fn strip_words<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(words.len())?;
    (start.eq_ignore_ascii_case(words) && !rest.starts_with(char::is_alphanumeric)).then_some(rest)
}

/// Whether `text` begins with the name of a publisher, as headers and some titles do.
pub(super) fn starts_with_publisher(text: &str) -> bool {
    PUBLISHERS.iter().any(|name| strip_words(text, name).is_some())
}

/// The text after a publisher's name that is a field of its own (not `Network Working Group Meeting`).
fn publisher(text: &str) -> Option<&str> {
    let rest = PUBLISHERS.iter().find_map(|name| strip_words(text, name))?;
    let rest = match rest.trim_start().strip_prefix('(') {
        Some(acronym) => acronym.split_once(')')?.1,
        None => rest,
    };
    let gap = rest.len() - rest.trim_start().len();
    (rest.is_empty() || gap >= 2).then_some(rest)
}

/// The text after a memo's own number (`Request for Comments: 1`, `NWG/RFC# 645`, `RFC-3`), and whether
/// the line alone proves that this is an RFC.
pub(super) fn rfc_number(text: &str) -> Option<(&str, bool)> {
    let text = strip_words(text, "network working group")
        .or_else(|| strip_words(text, "nwg"))
        .map_or(text, |rest| rest.trim_start_matches([' ', '/', '-', ';', ',']));
    let spelled = ["request for comments", "request for comment", "requests for comments"]
        .iter()
        .find_map(|words| strip_words(text, words));
    let (rest, is_certain) = match spelled {
        Some(rest) => (rest, true),
        None => {
            let (start, rest) = text.split_at_checked(3)?;
            if !start.eq_ignore_ascii_case("rfc") {
                return None;
            }
            (rest, false)
        }
    };
    let is_separator = |c: char| matches!(c, ' ' | ':' | ';' | '#' | '-' | '.' | ',' | '=');
    let rest = rest.trim_start_matches(is_separator);
    if rest.is_empty() {
        // "Request for Comments:" with the number on the next line, or without one.
        return is_certain.then_some(("", true));
    }
    let rest = strip_words(rest, "number")
        .or_else(|| strip_words(rest, "no"))
        .or_else(|| strip_words(rest, "rfc").filter(|_| is_certain))
        .map_or(rest, |rest| rest.trim_start_matches(is_separator));
    let number = rest.bytes().take_while(|b| b.is_ascii_digit() || b"xXnN?".contains(b)).count();
    let (number, rest) = rest.split_at_checked(number)?;
    if number.is_empty() || rest.starts_with(char::is_alphanumeric) {
        return None;
    }
    let after = rest.trim_start_matches([',', '.', ';', ':', ')']);
    let gap = after.len() - after.trim_start().len();
    let next = after.trim_start();
    // A long affiliation can leave no gap: "Request for Comments: 1006 Northrop Research ...".
    let is_more_of_the_header = is_certain && text.contains(": ")
        || next.is_empty()
        || gap >= 2
        || next.starts_with(['(', '[', '/'])
        || ["nic", "ien", "revised", "rev", "std", "bcp", "dated"]
            .iter()
            .any(|word| strip_words(&next.to_ascii_lowercase(), word).is_some())
        || is_date(next);
    is_more_of_the_header.then_some((after, is_certain))
}

/// Splits `text` at its first gap of at least `width` blanks: the left part, the right part, and the
/// column of the right part.
pub(super) fn split_at_gap(text: &str, width: usize) -> Option<(&str, &str, usize)> {
    let gap = " ".repeat(width);
    let at = text.trim_end().find(&gap)?;
    let (left, rest) = text.split_at_checked(at)?;
    let right = rest.trim_start();
    let blanks = rest.chars().count() - right.chars().count();
    Some((left, right, left.chars().count() + blanks))
}

/// Whether `text` is a separator: dashes, underscores, dots.
pub(super) fn is_rule(text: &str) -> bool {
    text.len() >= 3 && text.chars().all(|c| "-=_*~.+#|^ \u{af}".contains(c))
}

/// Whether `text` is a note in brackets, or a page number.
pub(super) fn is_note(text: &str) -> bool {
    let is_page = strip_words(text, "page").is_some_and(|rest| words(rest).all(|word| word.parse::<u16>().is_ok()));
    text.starts_with('[') || text.ends_with(']') && text.contains("[Page ") || is_page
}

/// Whether `text` is the salutation of a letter.
pub(super) fn is_salutation(text: &str) -> bool {
    strip_words(text, "dear").is_some() && text.ends_with([',', ':', '-'])
}

/// Whether `text` is only a date, possibly with a time or a typist's initials.
pub(super) fn is_date(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    if text.split_whitespace().any(is_stamp) {
        return true;
    }
    let (mut months, mut numbers) = (0, 0);
    for word in words(&text) {
        if is_day_or_year(word) {
            numbers += 1;
        } else if is_month(word) {
            months += 1;
        } else if !is_listed(BESIDE_DATES, word) {
            return false;
        }
    }
    let is_numeric = numbers == 3 && text.matches(['/', '-']).count() == 2;
    // Two months are a period, which titles can have: "Services, January - March 1972".
    (1..=8).contains(&numbers) && (months == 1 || is_numeric)
}

/// The words of `text`, without punctuation.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Whether `word` is in `list`, whose words are separated by single spaces.
pub(super) fn is_listed(list: &str, word: &str) -> bool {
    list.split(' ').any(|listed| listed == word)
}

/// Whether `word` is a date such as `26-JUN-74`, the format of the Augmentation Research Center's system.
fn is_stamp(word: &str) -> bool {
    let mut parts = word.split('-');
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u16>().is_ok());
    is_number(parts.next()) && parts.next().is_some_and(is_month) && is_number(parts.next()) && parts.next().is_none()
}

fn is_month(word: &str) -> bool {
    word.len() >= 3 && MONTHS.split(' ').any(|month| month.starts_with(word))
}

/// Whether `word` is a day or a year. Typists wrote 1 as l and 0 as O: "June 2, l969".
fn is_day_or_year(word: &str) -> bool {
    let number = ["st", "nd", "rd", "th"].iter().find_map(|ordinal| word.strip_suffix(ordinal)).unwrap_or(word);
    number.len() <= 5
        && number.starts_with(|c: char| c.is_ascii_digit() || c == 'l')
        && number.chars().all(|c| c.is_ascii_digit() || c == 'l' || c == 'o')
        && number.contains(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{header_field, is_date, is_rule, rfc_number, split_at_gap, title_field};

    #[test]
    fn a_memo_number_is_recognized_in_every_spelling() {
        for text in [
            "Request for Comments: 1          UCLA",
            "Request for Comment:   1",
            "REQUEST FOR COMMENTS NO. 34",
            "Request for Comments: XXXX         MITRE",
            "Request for Comments: RFC 1006 Northrop Research and Technology Center",
            "Request for Comments: 12  REVISED       26 August 1969",
            "Requests for Comments",
            "Network Working Group Request for Comment:   1",
            "NWG/RFC# 645                DHC 26-JUN-74 15:50 30899",
            "NWG RFC 103",
            "RFC-3                      April 1969",
            "RFC:  791",
            "RFC #  822",
            "RFC 726, NIC 39237 (Mar. 8, 1977)",
        ] {
            assert!(rfc_number(text).is_some(), "{text}");
        }
    }

    #[test]
    fn a_title_that_begins_like_a_header_is_not_a_header() {
        for text in [
            "Request for Comments Summary Notes: 600-699",
            "RFC 33 and 36 revisited",
            "RFC Editor Model",
            "RFC822 address formats",
            "Network Working Group Meeting",
            "NETWORK WORKING GROUP MEETING.",
            "FYI on FYI: Introduction to the F.Y.I. Notes",
            "Updates to the Assigned Numbers",
            "IETF Working Group Guidelines and Procedures",
            "Internet Assigned Numbers Authority (IANA) Procedures for Numbers",
            "To Be \"On\" the Internet",
            "From RFC to Standard",
        ] {
            assert!(header_field(text).is_none(), "{text}");
        }
    }

    #[test]
    fn header_fields_are_recognized_with_and_without_colons() {
        for text in [
            "NIC 5740",
            "NIC: 5608",
            "NIC#5763",
            "NIC # 5768",
            "[Category D.1      Computer Science",
            "Updates RFC's 66, 80",
            "Supercedes NWG/RFC #61",
            "RFC's obsoleted: none;",
            "Obsoletes RFC: 765 (IEN 149)",
            "STD: 53",
            "FYI: 18",
            "ISSN: 2070-1721",
            "Internet Engineering Task Force (IETF)        R. Fielding, Ed.",
            "From: A. Vezza",
        ] {
            assert!(header_field(text).is_some(), "{text}");
        }
    }

    #[test]
    fn a_title_field_gives_its_value() {
        assert_eq!(title_field("Title:   Host Software"), Some("Host Software"));
        assert_eq!(title_field("SUBJECT: Mail"), Some("Mail"));
        assert_eq!(title_field("Reconnection: a note"), None);
    }

    #[test]
    fn dates_are_recognized_in_every_format() {
        for text in [
            "7 April 1969",
            "June 2, l969",
            "21 November 69",
            "4/30/70",
            "8-2-71",
            "Sept. 25, 1970",
            "22, 23 February 1971",
            "22 Sept. '70",
            "14-JUN-74 12:38",
            "JBP 23-JUL-76 36003",
            "May 1983",
            "(Revised May 17, 1971)",
            "1st August 1990",
        ] {
            assert!(is_date(text), "{text}");
        }
        for text in ["DEL", "January - March 1972", "March Meeting 1971", "1971", "Marking", "", "Version 1.0"] {
            assert!(!is_date(text), "{text}");
        }
    }

    #[test]
    fn rules_and_gaps_are_recognized() {
        assert!(is_rule("----------") && is_rule("= = = =") && is_rule("____"));
        assert!(!is_rule("--") && !is_rule("-- or --"));
        assert_eq!(split_at_gap("a b    c", 3), Some(("a b", "c", 7)));
        assert_eq!(split_at_gap("a b", 3), None);
    }
}
