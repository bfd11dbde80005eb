//! What a program is told by its flags, its environment and a file: `--config FILE`.
//!
//! The keys of the file are the names of the flags, derived from the program's [`clap::Command`], so that a new flag is a key by itself.
//! Flags beat the environment, the environment beats a [`Layer`] (such as a context of `p2pctl`), a layer beats the file, the file beats the defaults. The file is checked as a whole:
//! unknown keys and wrong values are refused with their line. `--print-config` prints the result, with where each value comes from.
//!
//! A program declares two flags for that: `config`, a path, and `print_config`, a switch. One without verbs also prints its manual page
//! (`PROGRAM man`) and completion scripts (`PROGRAM completions SHELL`).

mod check;
mod error;
mod explain;
mod file;
mod keys;
mod origins;
mod print;
mod read;
mod reload;
mod shell;
mod variables;

pub use error::{ConfigurationError, Problem};
pub use origins::Layer;
pub use read::{ChooseLayer, Given, Loaded, Program, Read, read};
pub use reload::Reload;
pub use variables::Variables;
