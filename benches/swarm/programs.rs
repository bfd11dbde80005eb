//! Programs, files and processes.

use std::{
    env,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{SystemTime, UNIX_EPOCH},
};

/// A process that ends with its owner.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Most memory that was resident at once, in KiB; 0 once the process has ended.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of this workspace, built with `--release`.
pub(crate) fn path(name: &str) -> String {
    let executable = env::current_exe().unwrap();
    let target = executable.ancestors().nth(3).unwrap();
    let path = target.join("release").join(name);
    assert!(path.is_file(), "{} is not built; run `cargo build --release` first", path.display());
    path.display().to_string()
}

/// Nothing of the caller's configuration reaches the program.
pub(crate) fn clean<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    for (key, _) in env::vars().filter(|(key, _)| key.starts_with("P2PDI_") || key.starts_with("OTEL_") || key == "RUST_LOG") {
        command.env_remove(key);
    }
    command.env("HOME", home).env("XDG_STATE_HOME", home)
}

/// Incompressible bytes, other ones each time (xorshift64).
pub(crate) fn write_noise(path: &Path, size: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut state = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    for _ in 0..size / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&state.to_le_bytes()).unwrap();
    }
    out.into_inner().unwrap();
}

/// BLAKE3 of a file; `None` if it cannot be read.
pub(crate) fn hash(path: &Path) -> Option<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).ok()?).ok()?;
    Some(hasher.finalize())
}

/// The last line of a text file.
pub(crate) fn last_line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned()
}

/// Copies the logs of a run.
pub(crate) fn keep_logs(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|extension| extension == "log") {
            fs::copy(&entry, to.join(entry.file_name().unwrap())).unwrap();
        }
    }
}

/// A file that a process of a run writes its log to.
pub(crate) fn log(folder: &Path, name: &str) -> (File, PathBuf) {
    let path = folder.join(format!("{name}.log"));
    (File::options().create(true).append(true).open(&path).unwrap(), path)
}
