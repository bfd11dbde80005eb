//! A program of this workspace on a pseudo-terminal.

use super::wait::{eventually, until};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

/// Both ends of a pseudo-terminal, and the program on it, which is killed when this is dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// The program's end. Kept open, so that the terminal's settings can be read after the program ended.
    screen: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn start(command: Command) -> Self {
        Self::with_columns(command, 80)
    }

    /// A terminal of this width.
    pub fn with_columns(mut command: Command, columns: u16) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let screen = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        tcsetwinsize(&screen, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(screen.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm-256color").spawn().unwrap();
        let (keyboard, shown) = (File::from(keyboard), Arc::new(Mutex::new(Vec::new())));
        let (mut output, into) = (keyboard.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, keyboard, screen, shown }
    }

    /// Types keys; Enter is `\r`.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// All output so far, control sequences included.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    #[track_caller]
    pub fn shows(&self, words: &str) {
        until(&format!("{words:?} on the terminal"), || self.shown().contains(words));
    }

    /// Waits until the program ends, and asserts its exit code and that the terminal has its settings back.
    #[track_caller]
    pub fn exits(mut self, code: i32) {
        let status = eventually("the program ends", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(code), "{}", self.shown());
        assert!(tcgetattr(&self.screen).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended before.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
