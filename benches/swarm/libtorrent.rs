//! The baseline: libtorrent (rasterbar) by its Python binding, with settings that suit it here.

use crate::{
    lab::Lab,
    programs::{self, Process},
    race::{Progress, SEED, System, machine_of},
    scenario::Scenario,
};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const SCRIPT: &str = include_str!("baseline.py");
const PORT: u16 = 6881;
const START_TIMEOUT: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Debian installs the binding for this one only.
const PYTHON: &str = "/usr/bin/python3";

pub(crate) fn available() -> bool {
    let status = Command::new(PYTHON).args(["-c", "import libtorrent"]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

pub(crate) struct Libtorrent {
    place: PathBuf,
    seed: Process,
    leechers: Vec<Process>,
}

impl Libtorrent {
    pub(crate) fn start(lab: &Lab, scenario: &Scenario, content: &Path, place: &Path) -> Self {
        let script = place.join("baseline.py");
        fs::write(&script, SCRIPT).unwrap();
        let share = place.join("seed");
        fs::create_dir(&share).unwrap();
        fs::copy(content, share.join("content.bin")).unwrap();
        let torrent = place.join("content.torrent");
        let made = Command::new(PYTHON).arg(&script).arg("make").arg(share.join("content.bin")).arg(&torrent).status().unwrap();
        assert!(made.success(), "libtorrent made no torrent");

        let endpoint = |machine: usize| format!("{}:{PORT}", lab.machines[machine].address);
        let spawn = |machine: usize, name: &str, folder: &Path| {
            let mut command = lab.run(machine, PYTHON);
            command
                .arg(&script)
                .arg(if machine == SEED { "seed" } else { "leech" })
                .arg(endpoint(machine))
                .arg(&torrent)
                .arg(folder);
            command.args((SEED..=machine_of(scenario.peers - 1)).filter(|other| *other != machine).map(endpoint));
            let (log, _) = programs::log(place, name);
            command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
            Process(command.spawn().unwrap())
        };
        let mut seed = spawn(SEED, "seed", &share);
        let leechers = (0..scenario.peers).map(|leecher| {
            let folder = place.join(format!("out-{leecher}"));
            fs::create_dir(&folder).unwrap();
            spawn(machine_of(leecher), &format!("get-{leecher}"), &folder)
        });
        let leechers = leechers.collect();
        say(&mut seed, "go");
        let this = Self { place: place.to_owned(), seed, leechers };
        this.wait_for("seed", "seeding");
        (0..scenario.peers).for_each(|leecher| this.wait_for(&format!("get-{leecher}"), "ready"));
        this
    }

    fn said(&self, name: &str, word: &str) -> bool {
        fs::read_to_string(self.place.join(format!("{name}.log"))).is_ok_and(|text| text.lines().any(|line| line == word))
    }

    fn wait_for(&self, name: &str, word: &str) {
        let begun = Instant::now();
        while !self.said(name, word) {
            let log = programs::last_line(&self.place.join(format!("{name}.log")));
            assert!(begun.elapsed() < START_TIMEOUT, "{name} is not {word}: {log}");
            thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl System for Libtorrent {
    fn begin(&mut self, _: &Lab, leecher: usize) {
        say(&mut self.leechers[leecher], "go");
    }

    fn progress(&mut self, leecher: usize) -> Progress {
        let name = format!("get-{leecher}");
        if self.said(&name, "done") {
            return Progress::Done;
        }
        match self.leechers[leecher].0.try_wait().unwrap() {
            Some(_) => Progress::Failed(programs::last_line(&self.place.join(format!("{name}.log")))),
            None => Progress::Running,
        }
    }

    fn kill(&mut self, leecher: usize) {
        self.leechers[leecher].kill();
    }

    fn processes(&mut self) -> (&mut Process, Vec<&mut Process>) {
        (&mut self.seed, self.leechers.iter_mut().collect())
    }

    fn end(&mut self) {
        let mut all: Vec<_> = self.leechers.iter_mut().chain([&mut self.seed]).collect();
        all.iter_mut().for_each(|process| drop(process.0.stdin.take()));
        let begun = Instant::now();
        while begun.elapsed() < END_TIMEOUT
            && all.iter_mut().any(|process| process.0.try_wait().is_ok_and(|status| status.is_none()))
        {
            thread::park_timeout(Duration::from_millis(20));
        }
        all.into_iter().for_each(Process::kill);
    }

    fn file(&self, leecher: usize) -> PathBuf {
        self.place.join(format!("out-{leecher}")).join("content.bin")
    }

    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
}

fn say(process: &mut Process, word: &str) {
    if let Some(stdin) = process.0.stdin.as_mut() {
        // A process that ended is noticed by its status.
        let _ = writeln!(stdin, "{word}");
    }
}
