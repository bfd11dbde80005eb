//! Titles of whole documents: of every layout in the RFC series, of other documents, and of bytes that
//! are not text.
//!
//! `rfc-titles.tsv` has the titles of 299 RFCs as a person reads them on the page: number, tab, title, in
//! the page's spelling and case, with a title's lines joined by single spaces. For a memo without a
//! title on its page it has the file name. Few of these RFCs are in the repository; point
//! `P2PDI_RFC_DIR` at a folder with more of them (`rfc48.txt`, ...) to check them all.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot read its files fails"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use peerd::documents::{
    rfc_number::rfc_number,
    share::{HEAD_BYTES, TITLE_MAX_BYTES, title},
};

const EXPECTED: &str = include_str!("rfc-titles.tsv");

fn expected() -> BTreeMap<u32, &'static str> {
    EXPECTED
        .lines()
        .map(|line| {
            let (number, title) = line.split_once('\t').expect("a tab in every line");
            (number.parse().expect("a number before the tab"), title)
        })
        .collect()
}

/// Checks every RFC in `folder` that is in `rfc-titles.tsv`; returns how many there were.
fn check_folder(folder: &Path) -> usize {
    let expected = expected();
    let mut checked = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path: PathBuf = entry.expect("a readable entry").path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let Some(want) = rfc_number(name).and_then(|number| expected.get(&number)) else {
            continue;
        };
        if !name.ends_with(".txt") {
            continue;
        }
        let mut head = Vec::new();
        File::open(&path).and_then(|file| file.take(HEAD_BYTES as u64).read_to_end(&mut head)).expect("a readable file");
        let got = title(name, &head);
        if got != *want {
            wrong.push(format!("{name}: want {want:?}, got {got:?}"));
        }
        checked += 1;
    }
    assert!(wrong.is_empty(), "{} of {checked} wrong:\n{}", wrong.len(), wrong.join("\n"));
    checked
}

#[test]
fn rfcs_in_the_repository_get_the_titles_on_their_pages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/rfc");
    if !folder.is_dir() {
        println!("skipped: no folder {}", folder.display());
        return;
    }
    assert!(check_folder(&folder) > 0, "no RFC in {}", folder.display());
}

#[test]
fn rfcs_of_a_larger_collection_get_the_titles_on_their_pages() {
    let Some(folder) = std::env::var_os("P2PDI_RFC_DIR") else {
        println!("skipped: P2PDI_RFC_DIR is unset; it names a folder of RFCs (rfc48.txt, ...)");
        return;
    };
    let checked = check_folder(Path::new(&folder));
    println!("{checked} titles checked");
    assert!(checked > 0, "no known RFC in {}", folder.display());
}

/// A line with `left` at the margin and `right` flush right, as in RFC headers.
fn columns(left: &str, right: &str) -> String {
    let gap = 72_usize.saturating_sub(left.len() + right.len()).max(1);
    format!("{left}{}{right}\n", " ".repeat(gap))
}

fn centred(text: &str) -> String {
    format!("{}{text}\n", " ".repeat(72_usize.saturating_sub(text.len()) / 2))
}

const BODY: &str = "\n\n   This memo says a few things about mail. They are all true, and some of\n   \
                    them are useful. Comments are welcome.\n";

fn header(number: u32) -> String {
    columns("Network Working Group", "A. Bhushan")
        + &columns(&format!("Request for Comments: {number}"), "MIT")
        + &columns("NIC: 10001", "8 July 1972")
        + "\n\n"
}

/// Asserts the title of a memo that is `body` below a usual header.
#[track_caller]
fn below_header(body: &str, want: &str) {
    let memo = format!("\n\n{}{body}{BODY}", header(400));
    assert_eq!(title("rfc400.txt", memo.as_bytes()), want, "{memo}");
    assert_eq!(title("mail.txt", memo.as_bytes()), want, "under any file name");
}

/// Asserts the title of a whole memo.
#[track_caller]
fn whole(memo: &str, want: &str) {
    assert_eq!(title("rfc400.txt", memo.as_bytes()), want, "{memo}");
}

#[test]
fn a_title_has_one_or_more_lines() {
    below_header(&centred("Mail and Its Uses"), "Mail and Its Uses");
    below_header(
        &(centred("Mail and Its Uses")
            + &centred("in a")
            + &centred("Resource Sharing Network:")
            + &centred("A Very Long Study")),
        "Mail and Its Uses in a Resource Sharing Network: A Very Long Study",
    );
    below_header("Mail and Its Uses at the Margin\n", "Mail and Its Uses at the Margin");
    below_header(
        "Mail and Its Uses in a Network That Has Grown so Large That Its Name Takes\nTwo Lines\n",
        "Mail and Its Uses in a Network That Has Grown so Large That Its Name Takes Two Lines",
    );
}

#[test]
fn a_title_can_be_underlined_letterspaced_or_overprinted() {
    below_header(&(centred("MAIL AND ITS USES") + &centred("-----------------")), "MAIL AND ITS USES");
    below_header(&(centred("_________________") + &centred("MAIL AND") + &centred("ITS USES")), "MAIL AND ITS USES");
    below_header(&centred("N E T W O R K   M A I L"), "NETWORK MAIL");
    below_header(&centred("M\u{8}Ma\u{8}ai\u{8}il\u{8}l _\u{8}U_\u{8}s_\u{8}e"), "Mail Use");
}

#[test]
fn a_double_spaced_title_is_one_title() {
    let double = centred("SPECIFICATIONS FOR THE") + "\n" + &centred("NETWORK MAIL PROTOCOL");
    below_header(&double, "SPECIFICATIONS FOR THE NETWORK MAIL PROTOCOL");
    let shouted = centred("MAIL FOR UCSB's") + "\n" + &centred("SIMPLE-MINDED FILE SYSTEM");
    below_header(&shouted, "MAIL FOR UCSB's SIMPLE-MINDED FILE SYSTEM");
}

#[test]
fn lines_below_a_title_are_not_part_of_it() {
    let title = centred("Mail and Its Uses");
    for below in [
        centred("<draft-ietf-mail-uses-03.txt>"),
        "\n".to_owned() + &centred("Vint Cerf") + &centred("UCLA"),
        centred("(Reference RFC 354, NIC 10596)"),
        centred("8 July 1972"),
        "\n".to_owned() + &centred("DARPA INTERNET PROGRAM") + &centred("PROTOCOL SPECIFICATION"),
        "\n".to_owned() + &centred("[Categories B.1, C.1]"),
        "\n".to_owned() + &centred("CONTENTS"),
        "\nStatus of this Memo\n".to_owned(),
        "\n1. Introduction\n".to_owned(),
        "The body starts without a blank line here, and goes on to the margin.\n".to_owned(),
    ] {
        below_header(&(title.clone() + &below), "Mail and Its Uses");
    }
}

#[test]
fn headers_of_every_layout_are_recognized() {
    for header in [
        columns("NWG/RFC# 400", "JBP 23-JUL-76 36003"),
        "RFC:  400\nIEN: 128\n\n\n".to_owned(),
        columns("RFC-400", "Jon Postel") + &columns("", "April 1969") + "\n",
        "     RFC #  400\n     Obsoletes:  RFC #733  (NIC #41952)\n\n".to_owned(),
        centred("NETWORK WORKING GROUP") + "\n" + &centred("REQUEST FOR COMMENT: 400") + "\n",
        columns("A. McKenzie", "RFC # 400") + &columns("BBN-NET", "NIC # 11358") + "\n",
        columns("Network Working Group", "J. Postel")
            + &columns("Request for Comments: 400", "ISI")
            + &columns("Obsoletes RFCs: 1340, 1060, 1010, 990, 960,", "October 1994")
            + "943, 923, 900, 870, 820\nSTD: 2\nCategory: Standards Track\n\n",
        columns("Request for Comments #400", "Jon Postel")
            + "Online file:  [ISI]<DCROCKER>NAOCRD.TXT\n\nCategories: D.1\nUpdates: none\n\n",
        "\u{feff}\n\n".to_owned()
            + &columns("Internet Engineering Task Force (IETF)", "R. Fielding, Ed.")
            + &columns("Request for Comments: 400", "Adobe")
            + "STD: 97                                                \nISSN: 2070-1721\n\n\n",
        "--------\n< INC-PROJECT, MAP.NLS.14, >, 12-Aug-83 11:34 AMW ;;;;\n\n".to_owned()
            + &columns("     RFC 400", "September 1982")
            + "\n",
    ] {
        whole(&format!("{header}{}{BODY}", centred("Mail and Its Uses")), "Mail and Its Uses");
    }
}

#[test]
fn a_title_within_the_header_is_found() {
    whole("NWG/RFC# 400              DHC 26-JUN-74 15:50 30899\nMail and Its Uses\n\n\n   The mail.\n", "Mail and Its Uses");
    whole(
        "NWG/RFC 400      Conversations with a Mailman\n\n\n             Edwin W. Meyer, Jr.\n\
         \x20            MIT Project MAC\n\n   (These are my own opinions, and they are\n   not those \
         of anyone else.)\n",
        "Conversations with a Mailman",
    );
    let field = header(400) + "Title:   Mail and\n         Its Uses\nAuthor:  A. Vezza\n";
    whole(&(field + BODY), "Mail and Its Uses");
    let letter = header(400) + "To: Network Group\nFrom: A. Vezza\nSubject: Mail and Its Uses\n";
    whole(&(letter + BODY), "Mail and Its Uses");
}

#[test]
fn a_title_above_the_number_on_a_cover_page_is_found() {
    let cover = centred("THE MAIL GATEWAY")
        + "\n\n\n"
        + &centred("RFC 400")
        + "\n\n"
        + &centred("Robert Hinden")
        + "\n\n"
        + &centred("10 Moulton St.")
        + "\n\n"
        + &centred("Prepared for");
    whole(&cover, "THE MAIL GATEWAY");
}

#[test]
fn a_title_with_names_of_people_places_or_memos_is_a_title() {
    for title in [
        "U.S. Department of Mail Security Options",
        "Ames Mail Facilities at Ames Research Center",
        "CCN AS A MAIL SERVICE CENTER",
        "Conversations with Bob Kahn",
        "Comments on NWG/RFC 33 and 36",
        "Link 191",
        "MARCH MEETING",
        "M.I.T.",
        "Data Center Benchmarking Terminology",
    ] {
        below_header(&centred(title), title);
    }
    below_header(
        &(centred("Internet Assigned Numbers Authority (IANA)") + &centred("Procedures for Mail")),
        "Internet Assigned Numbers Authority (IANA) Procedures for Mail",
    );
    below_header(&(centred("An Update to the Profile in") + &centred("RFC 3280")), "An Update to the Profile in RFC 3280");
}

#[test]
fn a_memo_without_a_title_on_its_first_page_gets_the_title_of_its_running_head() {
    let memo =
        format!("{}\x0cRFC 400               Mail Without a Title                July 1972\n\nMore.\n", header(400) + BODY);
    whole(&memo, "Mail Without a Title");
}

#[test]
fn a_memo_without_a_title_gets_its_file_name() {
    for body in [
        "It is suggested that link 1 be used for control\nand link 0 for mail.\n",
        "Dear Colleague,\n\n   The mail is late.\n",
        "1. Introduction\n\n   Mail.\n",
        "                            [unknown title]\n\n[page 1 missing]\n\n1 LINKS\n\n   1a Control\n",
    ] {
        below_named(body);
    }
    whole("", "rfc400.txt");
    whole(&header(400), "rfc400.txt");
}

#[track_caller]
fn below_named(body: &str) {
    whole(&format!("{}{body}", header(400)), "rfc400.txt");
}

#[test]
fn an_rfc_in_html_or_xml_gets_its_title_element() {
    for page in [
        "<!DOCTYPE html>\n<html><head><title>RFC 400: Mail &amp; Its\n   Uses</title>",
        "<html><head><TITLE>RFC 400 - Mail &amp; Its Uses</TITLE></head>",
        "<?xml version='1.0'?>\n<rfc number='400'><front><title abbrev='M'>Mail &amp; Its Uses</title>",
    ] {
        assert_eq!(title("rfc400.html", page.as_bytes()), "Mail & Its Uses", "{page}");
    }
    let mirror = format!("<html><title>rfc400</title><body><pre>{}{}</pre>", header(400), centred("<b>Mail</b> &amp; Its Uses"));
    assert_eq!(title("rfc400.html", mirror.as_bytes()), "Mail & Its Uses");
}

#[test]
fn other_documents_get_their_heading_or_their_file_name() {
    assert_eq!(title("docs/a.md", b"\n# Mail and Its Uses\n\ntext"), "Mail and Its Uses");
    assert_eq!(title("docs/a.md", b"no heading"), "a.md");
    assert_eq!(title("page.htm", b"<html><head><title>Mail</title>"), "Mail");
    for (name, text) in [
        ("docs/notes.txt", "Notes on Mail\n=============\n\nThe RFC series has much to say.\n"),
        ("notes.txt", "                 MAIL\n\n   RFC 821 and RFC 822 are about mail.\n"),
        ("main.rs", "//! Mail.\nfn main() {}\n"),
        ("rfc400.json", "{\"title\": \"Mail\"}"),
        ("rfc400.txt.gz", "\x1f\u{8b}\x08\0\0\0\0\0\0\x03"),
        ("rfc400.pdf", "%PDF-1.4\nMail\n"),
    ] {
        let base = name.rsplit('/').next().unwrap_or(name);
        assert_eq!(title(name, text.as_bytes()), base);
    }
}

#[test]
fn a_title_is_bounded_and_has_only_visible_characters() {
    let long = header(400) + &centred(&"é".repeat(300));
    let cut = title("rfc400.txt", long.as_bytes());
    assert_eq!(cut, "é".repeat(TITLE_MAX_BYTES / 2));
    let hidden = header(400) + &centred("Mail\u{202e} and\u{a0}\u{7} Its\u{200b} Uses");
    assert_eq!(title("rfc400.txt", hidden.as_bytes()), "Mail and Its Uses");
    assert_eq!(title("a\u{1b}[2J\nb.txt", b""), "a [2J b.txt");
    assert_eq!(title("", b""), "");
}

#[test]
fn encodings_and_line_endings_do_not_change_the_title() {
    let memo = header(400) + &centred("Mail and Its Uses") + BODY;
    let latin_1 = [memo.as_bytes(), b"\n30 \xb5s, d\xe9j\xe0 vu\n"].concat();
    for bytes in [
        memo.replace('\n', "\r\n").into_bytes(),
        memo.replace('\n', "\r").into_bytes(),
        latin_1,
        [b"\xff\xfe".to_vec(), memo.encode_utf16().flat_map(u16::to_le_bytes).collect()].concat(),
        format!("\x0c{memo}").into_bytes(),
    ] {
        assert_eq!(title("rfc400.txt", &bytes), "Mail and Its Uses");
    }
}
