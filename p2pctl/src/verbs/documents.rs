//! RFCs embedded in the program, for `demo`, `up` and `bench` on any machine.

use crate::failure::Outcome;
use std::{
    fs,
    path::{Path, PathBuf},
};

macro_rules! rfcs {
    ($($number:literal),* $(,)?) => {
        [$(($number, include_bytes!(concat!("../../../testdata/rfc/rfc", $number, ".txt")).as_slice())),*]
    };
}

/// Number and text, as published.
pub(super) const RFCS: &[(u32, &[u8])] = &rfcs!(1, 10, 48, 49, 59, 64, 100, 791, 826, 2324, 8881, 9110);

/// Writes the RFCs that peer `index` of `count` shares to its own folder. Each RFC goes to two peers if there are two.
pub(super) fn distribute(folder: &Path, index: usize, count: usize) -> Outcome<PathBuf> {
    let folder = folder.join((index + 1).to_string());
    fs::create_dir_all(&folder)?;
    for (position, (number, text)) in RFCS.iter().enumerate() {
        if position % count == index || (position + 1) % count == index {
            fs::write(folder.join(format!("rfc{number}.txt")), text)?;
        }
    }
    Ok(folder)
}
