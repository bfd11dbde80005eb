//! Long paths: a relay delays each direction of every connection, without a limit of rate.

use crate::{
    figure::{Aim, Figure, median, mib, time_and_peak, write_noise},
    programs::{Network, Server, curl, free_address, nginx, peak_kib, relay},
};
use std::{fs, path::Path};

const SIZE: u64 = 256 << 20;
/// Much more than the product of any rate and delay here.
pub(crate) const RELAY_BYTES: usize = 1 << 29;
/// Of each direction.
const DELAYS_MS: [u32; 2] = [20, 75];

pub(crate) fn run(folder: &Path, runs: u64) -> Vec<Figure> {
    let share = folder.join("share");
    fs::create_dir(&share).unwrap();
    write_noise(&share.join("large.bin"), SIZE);
    write_noise(&share.join("small.bin"), 1024);
    let nginx = nginx(folder, &share);
    DELAYS_MS.into_iter().flat_map(|delay| over(&folder.join(delay.to_string()), &share, delay, nginx.as_ref(), runs)).collect()
}

fn over(folder: &Path, share: &Path, delay_ms: u32, nginx: Option<&Server>, runs: u64) -> Vec<Figure> {
    fs::create_dir(folder).unwrap();
    let network = Network::start(folder);
    let listen = free_address();
    let path = relay(listen, delay_ms);
    let options = ["--listen", &listen.to_string(), "--advertise", &path.address.to_string()];
    let peer = network.peer("far", share, &options);
    network.wait_for("far", "large.bin");
    let far_nginx = nginx.map(|nginx| relay(nginx.address, delay_ms));

    let (mut ours, mut theirs, mut small) = (Vec::new(), Vec::new(), Vec::new());
    let mut most = 0;
    for _ in 0..runs {
        theirs.extend(far_nginx.as_ref().map(|nginx| curl(nginx.address, "large.bin", &folder.join("curl.out"))));
        let (took, peak) = time_and_peak(&mut network.p2pctl(&["get", "large.bin"]));
        ours.push(took);
        most = most.max(peak);
        network.forget();
        small.push(time_and_peak(&mut network.p2pctl(&["get", "small.bin"])).0);
        network.forget();
    }
    let rate = |seconds: f64| (SIZE >> 20) as f64 / seconds;
    let round_trip = 2.0 * f64::from(delay_ms) / 1000.0;
    vec![
        Figure::new(format!("256 MiB, {delay_ms} ms each way"), "MiB/s", rate(median(&mut ours))).against(
            "curl from nginx",
            rate(median(&mut theirs)),
            Aim::AtLeast(0.8),
        ),
        Figure::new(format!("1 KiB, {delay_ms} ms each way"), "round trips", median(&mut small) / round_trip)
            .aim(Aim::ValueAtMost(2.5)),
        Figure::new(format!("most memory: peerd, {delay_ms} ms each way"), "MiB", mib(peak_kib(peer.pid())))
            .aim(Aim::ValueAtMost(64.0)),
        Figure::new(format!("most memory: p2pctl, {delay_ms} ms each way"), "MiB", mib(most)).aim(Aim::ValueAtMost(64.0)),
    ]
}
