//! Removes the namespaces and the scratch folder, however the benchmark ends.
//!
//! It is a process of its own that waits for the end of its standard input, which comes when the benchmark ends, by return, panic or any
//! signal. It is in a process group of its own, so Ctrl-C does not reach it.

use std::{
    env, fs,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

pub(crate) struct Janitor {
    child: Child,
    /// What the names of all namespaces of this benchmark begin with.
    pub(crate) prefix: String,
}

impl Janitor {
    pub(crate) fn start(folder: &Path) -> Self {
        let prefix = format!("p2pdi-{}-", std::process::id());
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["janitor", &prefix]).arg(folder).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        Self { child: command.spawn().unwrap(), prefix }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The janitor's process.
pub(crate) fn run(prefix: &str, folder: &Path) {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    remove_namespaces(prefix);
    let _ = fs::remove_dir_all(folder);
}

/// Ends all processes in the namespaces with this prefix, and removes the namespaces with their links.
pub(crate) fn remove_namespaces(prefix: &str) {
    let list = output(Command::new("ip").args(["netns", "list"]));
    for name in list.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| name.starts_with(prefix)) {
        let pids = output(Command::new("ip").args(["netns", "pids", name]));
        if !pids.trim().is_empty() {
            let _ = Command::new("kill").arg("-9").args(pids.split_whitespace()).stderr(Stdio::null()).status();
        }
        let _ = Command::new("ip").args(["netns", "del", name]).status();
    }
}

fn output(command: &mut Command) -> String {
    command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
