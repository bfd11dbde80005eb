//! Where a user's files are kept.

use std::{env, path::PathBuf};

/// The user's folder for state of P2P-DI: `$XDG_STATE_HOME/p2pdi`, or `~/.local/state/p2pdi` (XDG Base Directory Specification). `None`
/// when neither `XDG_STATE_HOME` nor `HOME` is set.
pub fn state_folder() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base =
        set("XDG_STATE_HOME").filter(|path| path.is_absolute()).or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
    Some(base.join("p2pdi"))
}
