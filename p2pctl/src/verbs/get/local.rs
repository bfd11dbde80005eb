//! What of the documents is there already.

use super::{
    entry::Entry,
    report::Report,
    room::{Room, free},
    setting::Setting,
};
use crate::{
    failure::{Failure, Outcome},
    printer::{Printer, bytes},
    progress::Display,
};
use p2pdi::{
    content::DocumentHasher,
    json,
    phrases::counted,
    platform::{FileKind, FileStat, allocated_bytes, data_ranges},
    v1::Document,
};
use peerd::{
    documents::info::DocumentInfo,
    transfer::{FetchError, Fetched, WriteError, partial_name},
};
use serde_json::json;
use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::task::spawn_blocking;

/// How much of a file is read at once to hash it.
const READ_BYTES: usize = 1024 * 1024;

/// What is at a document's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Local {
    Nothing,
    /// A part of it, of an earlier fetch: bytes that are there, and bytes that it takes on the disk, reserved ones included.
    Partial {
        there: u64,
        taken: u64,
    },
    /// All of it.
    Whole,
    /// Something else.
    Other,
}

/// A document to fetch, and what is at its place.
struct Examined {
    entry: Entry,
    document: DocumentInfo,
    path: PathBuf,
    local: Local,
}

impl Examined {
    /// Bytes that its fetch still takes on the disk.
    fn missing(&self) -> u64 {
        match self.local {
            Local::Whole => 0,
            Local::Partial { taken, .. } => self.document.size().saturating_sub(taken),
            Local::Nothing | Local::Other => self.document.size(),
        }
    }

    /// Bytes that are to be fetched.
    fn absent(&self) -> u64 {
        match self.local {
            Local::Whole => 0,
            Local::Partial { there, .. } => self.document.size().saturating_sub(there),
            Local::Nothing | Local::Other => self.document.size(),
        }
    }
}

/// Looks at the places of all documents, and hashes files of the right size.
async fn examine(entries: Vec<Entry>, out: &Path) -> Outcome<Vec<Examined>> {
    let out = out.to_owned();
    let examined = spawn_blocking(move || {
        let examine = |entry: Entry| {
            let document = entry.document.clone()?;
            let path = out.join(document.name.to_relative_path());
            let local = look(&path, &document);
            Some(local.map(|local| Examined { entry, document, local, path: path.clone() }).map_err(|error| (path, error)))
        };
        entries.into_iter().filter_map(examine).collect::<Result<Vec<_>, _>>()
    });
    let examined = examined.await.map_err(|error| Failure::refused(format!("looking at the folder failed: {error}")))?;
    examined.map_err(|(path, error)| Failure::refused(format!("cannot read {}: {error}", path.display())))
}

fn look(path: &Path, document: &DocumentInfo) -> io::Result<Local> {
    match FileStat::at(path) {
        // A file in place of a folder is found, and named, by the fetch.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(partial(path, document).unwrap_or(Local::Nothing))
        }
        Err(error) => Err(error),
        Ok(there) if there.kind != FileKind::File || there.size != document.size() => Ok(Local::Other),
        Ok(_) => {
            let mut hasher = DocumentHasher::new();
            io::copy(&mut BufReader::with_capacity(READ_BYTES, File::open(path)?), &mut hasher)?;
            Ok(if hasher.finalize() == document.hash { Local::Whole } else { Local::Other })
        }
    }
}

/// The partial file of an earlier fetch, if there is one.
fn partial(path: &Path, document: &DocumentInfo) -> Option<Local> {
    let partial = File::open(path.with_file_name(partial_name(&document.name, &document.hash))).ok()?;
    let taken = allocated_bytes(&partial).ok()?;
    // A fetch that was killed leaves the room that it reserved.
    let there: u64 = data_ranges(&partial).ok()?.into_iter().map(|data| data.end - data.start).sum();
    Some(Local::Partial { there: there.min(taken), taken })
}

/// Reports the documents that are there, and returns the others with room for all of them.
///
/// # Errors
/// When there is too little room, or a place is taken by something else and neither --force nor --keep-going is given.
pub(super) async fn leave_out_present(
    entries: Vec<Entry>,
    setting: &Setting,
    report: &mut Report,
    display: &Display,
) -> Outcome<(Vec<Entry>, Room)> {
    let fetching = &setting.fetching;
    let examined = examine(entries, &fetching.out).await?;
    let (other, examined): (Vec<_>, Vec<_>) =
        examined.into_iter().partition(|examined| examined.local == Local::Other && !fetching.force);
    let exists = |examined: Examined| {
        let failure = Failure::from(FetchError::Write(WriteError::TargetExists { path: examined.path }));
        (examined.document.name.to_string(), failure)
    };
    let mut other: Vec<_> = other.into_iter().map(exists).collect();
    if !fetching.keep_going && !other.is_empty() {
        return Err(match other.len() {
            1 => other.remove(0).1,
            count => Failure::of_several(format!("{count} files exist with other content; nothing is fetched"), other),
        });
    }
    for (label, failure) in other {
        report.not_found(label, failure);
    }
    let mut left = Vec::new();
    for examined in examined {
        match examined.local {
            Local::Whole => report.done(there(examined), display),
            Local::Nothing | Local::Partial { .. } | Local::Other => left.push(examined),
        }
    }
    let needed = left.iter().map(Examined::missing).fold(0, u64::saturating_add);
    let room = Room::reserve(needed, left.len(), &fetching.out)?;
    let entries = left.into_iter().map(|examined| Entry { missing: examined.missing(), ..examined.entry });
    Ok((entries.collect(), room))
}

fn there(examined: Examined) -> Fetched {
    Fetched {
        piece_hashes: None,
        document: examined.document,
        path: examined.path,
        already_there: true,
        fetched_bytes: 0,
        resumed_bytes: 0,
        elapsed: Duration::ZERO,
        sources: Vec::new(),
    }
}

/// Prints what would be fetched, and what is there already.
///
/// # Errors
/// When something is not found, and the places cannot be read.
pub(super) async fn dry_run(entries: Vec<Entry>, failed: Vec<(String, Failure)>, setting: &Setting) -> Outcome {
    let out = &setting.fetching.out;
    let examined = examine(entries, out).await?;
    let free = free(out);
    let whole: Vec<_> = examined.iter().filter(|examined| examined.local == Local::Whole).collect();
    let sum = |examined: &[&Examined]| examined.iter().map(|examined| examined.document.size()).fold(0, u64::saturating_add);
    let (all, present) = (sum(&examined.iter().collect::<Vec<_>>()), sum(&whole));
    let missing = examined.iter().map(Examined::absent).fold(0, u64::saturating_add);
    let printer = setting.printer;
    if printer.is_json() {
        let documents: Vec<_> = examined.iter().map(as_json).collect();
        printer.json(&json!({
            "documents": documents,
            "bytes": all,
            "present_documents": whole.len(),
            "present_bytes": present,
            "missing_bytes": missing,
            "free_bytes": free,
        }))?;
    } else {
        table(&examined, setting.fetching.quiet, printer)?;
        if !setting.fetching.quiet {
            let free = free.map(|free| format!(", where {} are free", bytes(free))).unwrap_or_default();
            printer.text(&format!(
                "{}, {}: {} there already, {}; {} to write under {}{free}",
                counted(examined.len() as u64, "document"),
                bytes(all),
                whole.len(),
                bytes(present),
                bytes(missing),
                out.display()
            ))?;
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let all = counted((examined.len() + failed.len()) as u64, "document");
    Err(Failure::of_several(format!("{} of {all} would fail", failed.len()), failed))
}

fn table(examined: &[Examined], quiet: bool, printer: Printer) -> io::Result<()> {
    if quiet {
        return examined
            .iter()
            .filter(|examined| examined.local != Local::Whole)
            .try_for_each(|examined| printer.text(&examined.path.display().to_string()));
    }
    let row = |examined: &Examined| {
        let state = match examined.local {
            Local::Nothing => "to fetch".to_owned(),
            Local::Partial { there, .. } => format!("to fetch, {} there", bytes(there.min(examined.document.size()))),
            Local::Whole => "there already".to_owned(),
            Local::Other => "other content there".to_owned(),
        };
        vec![examined.document.name.to_string(), bytes(examined.document.size()), examined.entry.holders.len().to_string(), state]
    };
    let rows: Vec<_> = examined.iter().map(row).collect();
    printer.table(&["NAME", "SIZE", "HOLDERS", "STATE"], &rows)
}

fn as_json(examined: &Examined) -> serde_json::Value {
    let state = match examined.local {
        Local::Nothing => "missing",
        Local::Partial { .. } => "partial",
        Local::Whole => "present",
        Local::Other => "other_content",
    };
    json!({
        "document": json::value(&Document::from(&examined.document)),
        "path": examined.path.to_string_lossy(),
        "holders": examined.entry.holders.len(),
        "state": state,
        "missing_bytes": examined.absent(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::{content::ContentHash, platform::allocate};
    use std::fs;

    fn document(name: &str, text: &[u8]) -> DocumentInfo {
        let (blake3, size) = (ContentHash::of(text).to_field(), text.len() as u64);
        Document { name: name.into(), size, blake3, ..Default::default() }.try_into().unwrap()
    }

    #[test]
    fn a_file_counts_as_there_only_with_the_documents_content() {
        let folder = tempfile::tempdir().unwrap();
        let (path, document) = (folder.path().join("a.txt"), document("a.txt", b"right"));
        assert_eq!(look(&path, &document).unwrap(), Local::Nothing);
        let partial = folder.path().join(format!(".a.txt.{}.part", &document.hash.to_string()[..16]));
        fs::write(&partial, [1; 8192]).unwrap();
        let reserved = File::options().write(true).open(&partial).unwrap();
        let is_reserved = allocate(&reserved, 8192..1 << 20).unwrap();
        let Local::Partial { there, taken } = look(&path, &document).unwrap() else { panic!("it is there in part") };
        assert!(there == 8192 && (taken >= 1 << 20) == is_reserved, "{there} of {taken}");
        for (text, expected) in [("wrong", Local::Other), ("longer", Local::Other), ("right", Local::Whole)] {
            fs::write(&path, text).unwrap();
            assert_eq!(look(&path, &document).unwrap(), expected, "{text}");
        }
        assert_eq!(look(&path.join("below"), &document).unwrap(), Local::Nothing);
    }
}
