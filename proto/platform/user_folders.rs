//! The user's folders: what must survive a restart, and what the user configures.

use std::{env, path::PathBuf};

/// The user's folder for the state of P2P-DI; it may not exist yet. On Unix, macOS included, `p2pdi` in `$XDG_STATE_HOME`, or else in
/// `$HOME/.local/state` (XDG Base Directory Specification); on Windows in `%LOCALAPPDATA%`. `None` where none of these is an absolute
/// path.
pub fn state_folder() -> Option<PathBuf> {
    folder("LOCALAPPDATA", "XDG_STATE_HOME", ".local/state")
}

/// The user's folder for the configuration of P2P-DI; it may not exist yet. On Unix, macOS included, `p2pdi` in `$XDG_CONFIG_HOME`, or else in
/// `$HOME/.config`; on Windows in `%APPDATA%`. `None` where none of these is an absolute path.
pub fn config_folder() -> Option<PathBuf> {
    folder("APPDATA", "XDG_CONFIG_HOME", ".config")
}

fn folder(windows: &str, xdg: &str, in_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = if cfg!(windows) { absolute(windows) } else { absolute(xdg).or_else(|| Some(absolute("HOME")?.join(in_home))) };
    Some(base?.join("p2pdi"))
}
