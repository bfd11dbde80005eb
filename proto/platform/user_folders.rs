//! Where programs keep what must survive a restart.

use std::{env, path::PathBuf};

/// The user's folder for the state of P2P-DI; it may not exist yet. On Unix, macOS included, `p2pdi` in `$XDG_STATE_HOME`, or else in
/// `$HOME/.local/state` (XDG Base Directory Specification); on Windows in `%LOCALAPPDATA%`. `None` where none of these is an absolute
/// path.
pub fn state_folder() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else {
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
    };
    Some(base?.join("p2pdi"))
}
