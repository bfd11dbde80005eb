//! Several holders with limited rates.

use crate::{
    figure::{Aim, Figure, median, time, write_noise},
    programs::{Network, Server},
};
use std::{fs, path::Path, time::Duration};

/// 3.4 s at the fast rate.
const SIZE: u64 = 512 << 20;
const FAST: &str = "150MiB";
const SLOW: &str = "15MiB";

pub(crate) fn run(folder: &Path, runs: u64) -> Vec<Figure> {
    let share = folder.join("share");
    fs::create_dir(&share).unwrap();
    write_noise(&share.join("large.bin"), SIZE);
    let network = |name: &str, limits: &[&str]| {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        let network = Network::start(&folder);
        let start = |(index, limit): (usize, &&str)| network.peer(&format!("peer-{index}"), &share, &["--upload-limit", limit]);
        let peers: Vec<Server> = limits.iter().enumerate().map(start).collect();
        (0..peers.len()).for_each(|index| network.wait_for(&format!("peer-{index}"), "large.bin"));
        (network, peers)
    };
    let (one, two, mixed) = (network("one", &[FAST]), network("two", &[FAST, FAST]), network("mixed", &[SLOW, FAST]));
    let get = |(network, _): &(Network, Vec<Server>)| {
        let took = time(&mut network.p2pctl(&["get", "large.bin"]));
        network.forget();
        took
    };
    let (mut of_one, mut of_two, mut of_mixed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        of_one.push(get(&one));
        of_two.push(get(&two));
        of_mixed.push(get(&mixed));
    }
    let rate = |seconds: f64| (SIZE >> 20) as f64 / seconds;
    let slowest = of_mixed.iter().max().map_or(f64::NAN, Duration::as_secs_f64);
    let alone = median(&mut of_one);
    vec![
        Figure::new("two holders of 150 MiB/s", "MiB/s", rate(median(&mut of_two))).against(
            "one of them",
            rate(alone),
            Aim::AtLeast(1.9),
        ),
        Figure::new("holders of 15 and 150 MiB/s, slowest of all runs", "s", slowest).against(
            "the fast one alone",
            alone,
            Aim::AtMost(1.1),
        ),
    ]
}
