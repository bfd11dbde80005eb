//! The temporary folder of one test: homes, state, shares, output.

use super::{
    process::{Ended, Running, Server},
    programs::program,
};
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

/// The folder of one test, deleted at its end.
pub struct World {
    folder: TempDir,
}

impl World {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A path in the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The content of a file in the folder.
    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A folder with these RFCs.
    pub fn share(&self, name: &str, numbers: &[u32]) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        for number in numbers {
            let mut file = File::create(folder.join(format!("rfc{number}.txt"))).unwrap();
            file.write_all(&rfc(*number)).unwrap();
            // Modified long ago, so that a peer does not wait for further writes.
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)).unwrap();
        }
        folder
    }

    /// One of the programs, with this folder as working directory, a home of its own and no inherited environment variables. Its peers do not
    /// use LAN discovery, which would find those of other tests.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("P2PDI_PEER_NO_LAN", "1")
            .current_dir(self.path(""));
        command.args(arguments);
        command
    }

    /// A registry with its records in the folder, on a free port.
    pub fn registry(&self, arguments: &[&str]) -> Server {
        Server::start(self.registry_command("127.0.0.1:0", arguments))
    }

    pub fn registry_command(&self, listen: &str, arguments: &[&str]) -> Command {
        let mut command = self.command("registry", &["--listen", listen]);
        if !arguments.contains(&"--state") {
            command.args(["--state", "registry-state"]);
        }
        command.args(arguments);
        command
    }

    /// A peer with a state folder of its name, on a free port.
    pub fn peer(&self, name: &str, registry: &Server, arguments: &[&str]) -> Server {
        Server::start(self.peer_command(name, &registry.url(), arguments))
    }

    pub fn peer_command(&self, name: &str, registry: &str, arguments: &[&str]) -> Command {
        let mut command = self.command("peerd", &["--name", name, "--listen", "127.0.0.1:0", "--registry", registry]);
        if !arguments.contains(&"--state") {
            command.arg("--state").arg(self.path("peer-state").join(name));
        }
        command.args(arguments);
        command
    }

    /// Runs `p2pctl` until it exits.
    pub fn p2pctl(&self, registry: &Server, arguments: &[&str]) -> Ended {
        Running::run_to_end(self.p2pctl_command(registry, arguments))
    }

    pub fn p2pctl_command(&self, registry: &Server, arguments: &[&str]) -> Command {
        let mut command = self.command("p2pctl", &["--registry", &registry.url()]);
        command.args(arguments);
        command
    }

    /// Runs a program until it exits.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Ended {
        Running::run_to_end(self.command(name, arguments))
    }
}

/// An RFC as published.
pub fn rfc(number: u32) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/rfc/rfc{number}.txt"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Bytes of a piece of a document of less than 2 GiB.
pub const PIECE: usize = 256 * 1024;

/// How many pieces of an RFC are whole in its partial file. The first that arrives can be any.
pub fn whole_pieces(partial: &Path, number: u32) -> usize {
    let (whole, written) = (rfc(number), fs::read(partial).unwrap_or_default());
    whole.chunks(PIECE).zip(written.chunks(PIECE)).filter(|(piece, written)| piece == written).count()
}
