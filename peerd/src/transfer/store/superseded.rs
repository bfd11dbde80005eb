//! Partial files of other versions of a document that is complete now: what really changed leaves none behind.
//!
//! Only a file whose name has the form of this program's is touched, and only if no fetch has it locked.

use super::{partial_file::parse_part_name, sidecar_file};
use p2pdi::platform::{FileId, FileStat, Folder};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a listing is used: thousands of small documents that go to one folder must not each list it.
const LISTING_AGE_MAX: Duration = Duration::from_secs(10);
/// Most folders whose listing is kept, and most partial files of one.
const FOLDERS_MAX: usize = 64;
const PARTIALS_MAX: usize = 1024;

/// Partial files by folder.
static LISTINGS: Mutex<BTreeMap<FileId, Listing>> = Mutex::new(BTreeMap::new());

struct Listing {
    made: Instant,
    /// By the file name of their document.
    partials: BTreeMap<Box<str>, Vec<OsString>>,
    count: usize,
}

impl Listing {
    fn of(folder: &Folder) -> Self {
        let mut listing = Self { made: Instant::now(), partials: BTreeMap::new(), count: 0 };
        for entry in folder.entries().into_iter().flatten().flatten() {
            listing.add(&entry.name);
        }
        listing
    }

    fn add(&mut self, partial: &OsStr) {
        let Some((document, _)) = partial.to_str().and_then(parse_part_name) else { return };
        if self.count >= PARTIALS_MAX {
            return;
        }
        let known = self.partials.entry(document.into()).or_default();
        if !known.iter().any(|known| known == partial) {
            known.push(partial.to_owned());
            self.count += 1;
        }
    }

    /// The partial files of a document; they are not listed any more.
    fn take(&mut self, document: &str) -> Vec<OsString> {
        let taken = self.partials.remove(document).unwrap_or_default();
        self.count -= taken.len();
        taken
    }
}

fn listings() -> MutexGuard<'static, BTreeMap<FileId, Listing>> {
    LISTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fetch of this process opened a partial file.
pub(super) fn opened(folder: &Folder, partial: &OsStr) {
    if let Some(listing) = listings().get_mut(&folder.id()) {
        listing.add(partial);
    }
}

/// Removes the partial files of other versions of the document `file_name`, whose own partial file was called `own`.
pub(super) fn remove(folder: &Folder, file_name: &str, own: &OsStr) {
    for name in others(folder, file_name, own) {
        if !remove_one(folder, &name) {
            opened(folder, &name);
        }
    }
}

/// Removes a partial file and its record, unless a fetch uses it; returns whether it is gone.
fn remove_one(folder: &Folder, name: &OsStr) -> bool {
    let Ok((file, stat)) = folder.entry_file(name) else { return true };
    if file.try_lock().is_err() || !folder.entry_stat(name).is_ok_and(|there: FileStat| there.id == stat.id) {
        return false;
    }
    match folder.remove_entry(name) {
        Ok(()) => {
            for record in sidecar_file::names(name) {
                let _gone = folder.remove_entry(&record);
            }
            true
        }
        Err(error) => {
            let path = folder.path().join(name);
            tracing::warn!(path = %path.display(), %error, "cannot remove what an earlier fetch left of another version");
            false
        }
    }
}

/// The partial files of other versions of a document. The listing forgets them.
fn others(folder: &Folder, file_name: &str, own: &OsStr) -> Vec<OsString> {
    let mut listings = listings();
    listings.retain(|_, listing| listing.made.elapsed() < LISTING_AGE_MAX);
    let mut partials = match listings.get_mut(&folder.id()) {
        Some(listing) => listing.take(file_name),
        None => {
            let mut listing = Listing::of(folder);
            let taken = listing.take(file_name);
            if listings.len() < FOLDERS_MAX {
                listings.insert(folder.id(), listing);
            }
            taken
        }
    };
    partials.retain(|name| name != own);
    partials
}
