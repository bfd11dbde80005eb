//! A program of this workspace: while it runs, and its result.

use super::wait::{WAIT_TIMEOUT, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
};

/// A running process. When dropped, it is killed by its id.
pub struct Running {
    child: Child,
    what: String,
    stdout: Option<Reading>,
    stderr: Reading,
}

/// The output of a pipe, read by a thread so that the program never blocks on a full pipe.
struct Reading {
    text: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Reading {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&text);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                shared.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { text, thread }
    }

    fn so_far(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }

    fn all(self) -> String {
        self.thread.join().unwrap();
        String::from_utf8(Arc::try_unwrap(self.text).unwrap().into_inner().unwrap()).unwrap()
    }
}

/// Exit status and output of a program that ended.
#[derive(Debug)]
pub struct Ended {
    pub what: String,
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Running {
    /// Starts it with an empty standard input.
    pub fn start(command: Command) -> Self {
        Self::with_stdin(command, Stdio::null())
    }

    /// Starts it with an open standard input, for [`Running::types`].
    pub fn start_with_stdin(command: Command) -> Self {
        Self::with_stdin(command, Stdio::piped())
    }

    fn with_stdin(mut command: Command, stdin: Stdio) -> Self {
        let what = format!("{command:?}");
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Reading::start(child.stderr.take().unwrap());
        let stdout = child.stdout.take().map(Reading::start);
        Self { child, what, stdout, stderr }
    }

    /// Writes a line to its standard input, which [`Running::start_with_stdin`] opened.
    #[track_caller]
    pub fn types(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Closes its standard input, as Ctrl-D does.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Runs it until it exits.
    pub fn run_to_end(command: Command) -> Ended {
        Self::start(command).ended()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.as_ref().map(Reading::so_far).unwrap_or_default()
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// How many files and sockets it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Whether it handles Ctrl-C itself (`SigCgt` in proc_pid_status(5)).
    pub fn handles_interrupts(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 0b10 != 0
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it ends.
    #[track_caller]
    pub fn ended(mut self) -> Ended {
        let status = eventually(&format!("{} ends", self.what), || self.child.try_wait().unwrap());
        let (what, stdout) = (self.what.clone(), self.stdout.take());
        // A pipe ends with its last writer, and these programs start no others.
        let stderr = std::mem::replace(&mut self.stderr, Reading::start(std::io::empty()));
        Ended {
            what,
            code: status.code(),
            signal: status.signal(),
            stdout: stdout.map(Reading::all).unwrap_or_default(),
            stderr: stderr.all(),
        }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended before.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Ended {
    /// Asserts that it ended with this code and printed no terminal control sequences.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!((self.code, self.signal), (Some(code), None), "{self:#?}");
        for text in [&self.stdout, &self.stderr] {
            assert!(!text.contains(['\u{1b}', '\r']), "terminal control characters without a terminal: {self:#?}");
            assert!(!text.contains("panicked"), "{self:#?}");
        }
        self
    }

    /// Asserts that standard error contains all of these.
    #[track_caller]
    pub fn stderr_has(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {self:#?}");
        }
        self
    }

    /// Asserts that standard output contains all of these.
    #[track_caller]
    pub fn stdout_has(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stdout.contains(word), "{word:?} is missing: {self:#?}");
        }
        self
    }

    /// Asserts that standard output is empty.
    #[track_caller]
    pub fn stdout_is_empty(self) -> Self {
        assert_eq!(self.stdout, "", "{self:#?}");
        self
    }

    /// Standard output as one JSON value per line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}: {self:#?}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let mut lines = self.json_lines();
        assert_eq!(lines.len(), 1, "{self:#?}");
        lines.remove(0)
    }
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    pub process: Running,
}

impl Server {
    /// Starts it and waits until it prints the address it listens on.
    #[track_caller]
    pub fn start(command: Command) -> Self {
        let mut process = Running::start(command);
        let line = eventually(&format!("{} prints its address", process.what), || {
            let printed = process.stdout();
            if !printed.contains('\n') && !process.is_running() {
                panic!("the server ended: {}", process.stderr());
            }
            printed.contains('\n').then_some(printed)
        });
        let address = line.strip_prefix("listening on ").and_then(|rest| rest.strip_suffix('\n'));
        let address = address.unwrap_or_else(|| panic!("not an address: {line:?}")).parse().unwrap();
        Self { address, process }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of `--health-listen`, which it logs.
    #[track_caller]
    pub fn health_address(&self) -> SocketAddr {
        eventually("the health port is open", || {
            let log = self.process.stderr();
            let line = log.lines().find(|line| line.contains("serving health and metrics"))?;
            line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
        })
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    #[track_caller]
    pub fn ended(self) -> Ended {
        self.process.ended()
    }

    pub fn kill(self) {
        self.process.kill();
    }
}

/// Runs `command` with a standard output that is closed after its first line, as `| head -1` does.
#[track_caller]
pub fn run_reading_one_line(mut command: Command) -> Ended {
    let what = format!("{command:?}");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, first) = mpsc::channel();
    let pipe = child.stdout.take().unwrap();
    thread::spawn(move || {
        let mut line = String::new();
        BufReader::with_capacity(1, pipe).read_line(&mut line).unwrap();
        sender.send(line).unwrap();
    });
    let stderr = Reading::start(child.stderr.take().unwrap());
    let running = Running { child, what, stdout: None, stderr };
    let first = first.recv_timeout(WAIT_TIMEOUT).unwrap();
    Ended { stdout: first, ..running.ended() }
}
