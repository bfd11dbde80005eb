//! A small file system of its own, for tests of full and read-only disks.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A separate file system mounted on a folder.
pub struct Mount(PathBuf);

#[expect(clippy::print_stdout, reason = "prints why a test did not run")]
impl Mount {
    /// `None`, with the reason printed, where this user may not mount.
    pub fn over(folder: &Path, options: &str) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder.to_owned())),
            Ok(output) => {
                println!("skipped: cannot mount a tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: cannot run mount: {error}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, in case a file in it is still open.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(std::thread::panicking() || unmounted.unwrap().success());
    }
}
