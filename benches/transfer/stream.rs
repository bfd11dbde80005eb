//! One holder on loopback, without any limit.

use crate::{
    figure::{Aim, Figure, median, mib, time, time_and_peak, write_noise},
    programs::{Programs, peak_kib},
    raw,
};
use std::{fs, path::Path, process::Command, time::Duration};

const SMALL_RUNS_PER_RUN: usize = 8;
const LARGE: &str = "large document verified to disk";

pub(crate) fn run(folder: &Path, size: u64, runs: u64) -> Vec<Figure> {
    let share = folder.join("share");
    fs::create_dir(&share).unwrap();
    write_noise(&share.join("large.bin"), size);
    fs::copy("testdata/rfc/rfc48.txt", share.join("rfc48.txt")).unwrap();
    let programs = Programs::start(folder, &share, size);

    let (mut ours, mut curl, mut dd, mut raw) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut small, mut small_curl) = (Vec::new(), Vec::new());
    let mut most = 0;
    // Warms the page cache for all sides.
    programs.curl("large.bin");
    for _ in 0..runs {
        curl.extend(programs.curl("large.bin"));
        let (took, peak) = time_and_peak(&mut programs.p2pctl(&["get", "large.bin"]));
        ours.push(took);
        most = most.max(peak);
        fs::remove_dir_all(folder.join("out")).unwrap();
        dd.push(copy_synced(&share.join("large.bin"), &folder.join("dd.out")));
        raw.push(raw::receive(programs.raw, size));
        for _ in 0..SMALL_RUNS_PER_RUN {
            small.push(programs.get(&["get-rfc", "48"]));
            small_curl.extend(programs.curl("rfc48.txt"));
        }
    }
    let ours = median(&mut ours);
    vec![
        Figure::new(LARGE, "s", ours).against("curl from nginx", median(&mut curl), Aim::AtMost(1.7)),
        Figure::new(LARGE, "s", ours).against("dd conv=fsync", median(&mut dd), Aim::None),
        Figure::new(LARGE, "s", ours).against("raw tonic stream, discarded", median(&mut raw), Aim::None),
        Figure::new("get-rfc 48 as a whole process", "s", median(&mut small)).against(
            "curl of the same file",
            median(&mut small_curl),
            Aim::None,
        ),
        Figure::new("most memory: registry", "MiB", mib(peak_kib(programs.registry_pid()))).aim(Aim::ValueAtMost(64.0)),
        Figure::new("most memory: peerd, sending", "MiB", mib(peak_kib(programs.peer.pid()))).aim(Aim::ValueAtMost(64.0)),
        Figure::new("most memory: p2pctl, receiving", "MiB", mib(most)).aim(Aim::ValueAtMost(64.0)),
    ]
}

/// What the disk takes for the same bytes.
fn copy_synced(from: &Path, to: &Path) -> Duration {
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", from.display())).arg(format!("of={}", to.display())).args(["bs=1M", "conv=fsync", "status=none"]);
    let took = time(&mut dd);
    fs::remove_file(to).unwrap();
    took
}
