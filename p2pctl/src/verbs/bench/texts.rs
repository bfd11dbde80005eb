//! Documents for the tasks.

use super::super::documents::RFCS;
use crate::failure::{Failure, Outcome};
use std::{fs, path::Path};

/// Sizes of generated texts, in KiB, in turn: deciles of 299 RFCs between RFC 1 and RFC 9293.
const SIZES_KIB: [usize; 10] = [1, 3, 7, 16, 27, 40, 66, 107, 166, 316];

/// A document.
pub(super) struct Text {
    pub(super) name: String,
    pub(super) body: Vec<u8>,
}

/// The first `count` RFCs of a folder, by number.
pub(super) fn read(folder: &Path, count: usize) -> Outcome<Vec<Text>> {
    let cannot = |error: std::io::Error| Failure::refused(format!("cannot read {}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(number) = peerd::documents::rfc_number::rfc_number(&name) {
            files.push((number, name, entry.path()));
        }
    }
    files.sort();
    if files.len() < count {
        return Err(Failure::usage(format!("{} has {} RFCs; the tasks take {count}", folder.display(), files.len())));
    }
    let texts = files.into_iter().take(count).map(|(_, name, path)| Ok(Text { name, body: fs::read(path).map_err(cannot)? }));
    texts.collect()
}

/// Texts with the sizes of RFCs, cut from real ones, each different.
pub(super) fn make(count: usize) -> Vec<Text> {
    let all: Vec<u8> = RFCS.iter().flat_map(|(_, text)| text.iter().copied()).collect();
    let make = |index: usize| {
        let number = index + 1;
        let size = SIZES_KIB[index % SIZES_KIB.len()] * 1024;
        let head = format!("Request for Comments: {number}\n\n                     Text {number}\n\n");
        let from = index * 8191 % (all.len() - size);
        Text { name: format!("rfc{number}.txt"), body: [head.as_bytes(), &all[from..from + size]].concat() }
    };
    (0..count).map(make).collect()
}
