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
    partials: Vec<OsString>,
}

fn listings() -> MutexGuard<'static, BTreeMap<FileId, Listing>> {
    LISTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fetch of this process opened a partial file.
pub(super) fn opened(folder: &Folder, partial: &OsStr) {
    if let Some(listing) = listings().get_mut(&folder.id())
        && listing.partials.len() < PARTIALS_MAX
        && !listing.partials.iter().any(|known| known == partial)
    {
        listing.partials.push(partial.to_owned());
    }
}

/// Removes the partial files of other versions of the document `file_name`, whose own partial file was called `own`.
pub(super) fn remove(folder: &Folder, file_name: &str, own: &OsStr) {
    let is_other = |name: &OsString| {
        let parsed = name.to_str().and_then(parse_part_name);
        name != own && parsed.is_some_and(|(of, _)| of == file_name)
    };
    for name in listing(folder).into_iter().filter(is_other) {
        let Ok((file, stat)) = folder.entry_file(&name) else { continue };
        if file.try_lock().is_err() || !folder.entry_stat(&name).is_ok_and(|there: FileStat| there.id == stat.id) {
            continue;
        }
        match folder.remove_entry(&name) {
            Ok(()) => {
                for record in sidecar_file::names(&name) {
                    let _gone = folder.remove_entry(&record);
                }
            }
            Err(error) => {
                let path = folder.path().join(&name);
                tracing::warn!(path = %path.display(), %error, "cannot remove what an earlier fetch left of another version");
            }
        }
    }
}

fn listing(folder: &Folder) -> Vec<OsString> {
    let mut listings = listings();
    listings.retain(|_, listing| listing.made.elapsed() < LISTING_AGE_MAX);
    if let Some(listing) = listings.get(&folder.id()) {
        return listing.partials.clone();
    }
    let entries = folder.entries().into_iter().flatten().flatten().map(|entry| entry.name);
    let partials: Vec<_> = entries.filter(|name| name.to_str().and_then(parse_part_name).is_some()).take(PARTIALS_MAX).collect();
    if listings.len() < FOLDERS_MAX {
        listings.insert(folder.id(), Listing { made: Instant::now(), partials: partials.clone() });
    }
    partials
}
