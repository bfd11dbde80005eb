//! Many small files into an empty folder, against an rsync daemon: over loopback, and over a relay that delays each direction.

use crate::{
    figure::{Aim, Figure, median, mib, time_and_peak, write_noise},
    programs::{Network, free_address, peak_kib, program, relay, rsync_daemon},
};
use std::{
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Files of the larger set. Their sizes are those of the RFCs, in turn.
const MANY: usize = 9_000;
const FILES_PER_FOLDER: usize = 500;
const DELAY_MS: u32 = 20;

pub(crate) fn run(folder: &Path, runs: u64) -> Vec<Figure> {
    let rfcs = env::var_os("P2PDI_RFC_DIR").map_or_else(|| PathBuf::from("testdata/rfc"), PathBuf::from);
    let sizes: Vec<_> = fs::read_dir(&rfcs).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    let many = folder.join("many");
    for index in 0..MANY {
        let within = many.join((index / FILES_PER_FOLDER).to_string());
        fs::create_dir_all(&within).unwrap();
        // At least one byte more each round, so that no two are the same.
        let size = sizes[index % sizes.len()] + (index / sizes.len()) as u64;
        write_noise(&within.join(format!("file-{index}.txt")), size);
    }
    // A folder of its own: the share must not change, and may be anywhere.
    let few = folder.join("few");
    fs::create_dir(&few).unwrap();
    for entry in fs::read_dir(&rfcs).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), few.join(entry.file_name())).unwrap();
    }
    let (few_name, many_name) = (format!("{} RFCs", sizes.len()), format!("{MANY} files"));
    let mut figures = set(folder, &few_name, &few, sizes.len(), runs);
    figures.extend(set(folder, &many_name, &many, MANY, runs));
    figures
}

fn set(folder: &Path, name: &str, share: &Path, count: usize, runs: u64) -> Vec<Figure> {
    let folder = folder.join(format!("{count}-files"));
    fs::create_dir(&folder).unwrap();
    let daemon = rsync_daemon(&folder, share);
    let mut figures = Vec::new();
    for delay_ms in [0, DELAY_MS] {
        let folder = folder.join(delay_ms.to_string());
        fs::create_dir(&folder).unwrap();
        let network = Network::start(&folder);
        let listen = free_address();
        let path = (delay_ms > 0).then(|| relay(listen, delay_ms));
        let advertise = path.as_ref().map_or(listen, |path| path.address).to_string();
        let peer = network.peer("far", share, &["--listen", &listen.to_string(), "--advertise", &advertise]);
        network.wait_for_count("far", count);
        let daemon_path = daemon.as_ref().filter(|_| delay_ms > 0).map(|daemon| relay(daemon.address, delay_ms));
        let rsync_address = daemon_path.as_ref().or(daemon.as_ref()).map(|server| server.address);

        let (mut ours, mut theirs, mut most) = (Vec::new(), Vec::new(), 0);
        for _ in 0..runs {
            theirs.extend(rsync_address.map(|address| rsync(address, &folder.join("rsync"), count)));
            if let Some((took, peak)) = get_all(&network, count) {
                ours.push(took);
                most = most.max(peak);
            }
        }
        let over = if delay_ms > 0 { format!("{delay_ms} ms each way") } else { "loopback".to_owned() };
        figures.push(Figure::new(format!("{name} into an empty folder, {over}"), "s", median(&mut ours)).against(
            "rsync daemon, with --fsync where it has it",
            median(&mut theirs),
            Aim::AtMost(1.0),
        ));
        for (program, most) in [("peerd", peak_kib(peer.pid())), ("p2pctl", most)] {
            let memory = Figure::new(format!("most memory: {program}, {name}, {over}"), "MiB", mib(most));
            figures.push(memory.aim(Aim::ValueAtMost(64.0)));
        }
    }
    figures
}

/// `p2pctl get` of everything; `None` where this version takes no patterns.
fn get_all(network: &Network, count: usize) -> Option<(Duration, u64)> {
    let help = program("p2pctl").args(["get", "--help"]).output().unwrap();
    if !String::from_utf8_lossy(&help.stdout).contains("--jobs") {
        return None;
    }
    let measured = time_and_peak(&mut network.p2pctl(&["get", "**"]));
    assert_eq!(files_below(&network.out()), count, "not all files arrived");
    network.forget();
    Some(measured)
}

fn rsync(address: SocketAddr, to: &Path, count: usize) -> Duration {
    let help = Command::new("rsync").arg("--help").output().unwrap();
    let mut command = Command::new("rsync");
    command.arg("-a");
    if String::from_utf8_lossy(&help.stdout).contains("--fsync") {
        command.arg("--fsync");
    }
    let (took, _) = time_and_peak(command.arg(format!("rsync://{address}/all/")).arg(to));
    assert_eq!(files_below(to), count, "not all files arrived");
    fs::remove_dir_all(to).unwrap();
    took
}

fn files_below(folder: &Path) -> usize {
    let of = |entry: io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path) } else { 1 }
    };
    fs::read_dir(folder).unwrap().map(of).sum()
}
