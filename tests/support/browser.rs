//! Headless Chromium, controlled by its DevTools protocol over a pair of pipes: JSON messages, each followed by a NUL.

use super::wait::{WAIT_TIMEOUT, eventually};
use serde_json::{Value, json};
use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};
use tempfile::TempDir;

/// Events that report a problem in a page.
const PROBLEMS: [&str; 3] = ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"];

/// A browser, killed when dropped.
pub struct Browser {
    child: Child,
    to: File,
    from: mpsc::Receiver<Value>,
    calls: u64,
    /// Events that arrived while a call waited for its response.
    events: Vec<Value>,
    _folder: TempDir,
}

impl Browser {
    pub fn start(chromium: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let made = Command::new("mkfifo").args([path("in"), path("out")]).status().unwrap();
        assert!(made.success());
        // The browser reads from file descriptor 3 and writes to 4.
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" \"$@\" 3<\"$IN\" 4>\"$OUT\""])
            .arg(chromium)
            .env("IN", path("in"))
            .env("OUT", path("out"));
        // Its sandbox does not work as root or in a container; it loads only pages of these tests.
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        // Nothing of its own over the network.
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]);
        command.arg("--remote-debugging-pipe").arg(format!("--user-data-dir={}", path("profile").display())).arg("about:blank");
        // A process group, so that its child processes are killed with it.
        let child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let to = OpenOptions::new().write(true).open(path("in")).unwrap();
        let out = File::open(path("out")).unwrap();
        let (sender, from) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(out).split(0) {
                let Ok(Ok(message)) = message.map(|text| serde_json::from_slice(&text)) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Self { child, to, from, calls: 0, events: Vec::new(), _folder: folder }
    }

    #[track_caller]
    fn call(&mut self, session: Option<&str>, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        self.to.write_all(message.to_string().as_bytes()).unwrap();
        self.to.write_all(&[0]).unwrap();
        loop {
            let mut message = self.from.recv_timeout(WAIT_TIMEOUT).unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == self.calls {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    /// Opens a page in a new tab.
    #[track_caller]
    pub fn open(&mut self, url: &str) -> String {
        let target = self.call(None, "Target.createTarget", &json!({ "url": "about:blank" }));
        let attached = self.call(None, "Target.attachToTarget", &json!({ "targetId": target["targetId"], "flatten": true }));
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        for method in ["Runtime.enable", "Log.enable", "Page.enable"] {
            self.call(Some(&session), method, &json!({}));
        }
        self.call(Some(&session), "Page.navigate", &json!({ "url": url }));
        session
    }

    /// Sets the size of a page's window, in pixels.
    #[track_caller]
    pub fn resize(&mut self, page: &str, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call(Some(page), "Emulation.setDeviceMetricsOverride", &size);
    }

    /// Evaluates an expression in a page; null if it throws.
    #[track_caller]
    pub fn value(&mut self, page: &str, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        self.call(Some(page), "Runtime.evaluate", &parameters)["result"]["value"].take()
    }

    /// Waits until an expression is true in a page.
    #[track_caller]
    pub fn until(&mut self, page: &str, expression: &str) {
        eventually(&format!("{expression} in the browser"), || (self.value(page, expression) == true).then_some(()));
    }

    /// Problems in pages so far: exceptions, console messages, requests that the browser blocked.
    #[track_caller]
    pub fn problems(&mut self, page: &str) -> Vec<String> {
        // Events arrive in order, so all earlier ones precede this response.
        self.value(page, "0");
        let is_problem = |event: &&Value| PROBLEMS.iter().any(|method| event["method"] == *method);
        self.events.iter().filter(is_problem).map(Value::to_string).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}
