//! Values that come from neither the command line nor the environment, and where from.

use clap::{Command, Id};
use std::collections::BTreeMap;

/// Values for flags of the program (not of its verbs) that beat those of the file, such as a context of `p2pctl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where they come from, for people: `context home`.
    pub origin: String,
    /// Key and value. A key without a flag is left out: it may belong to another version.
    pub values: Vec<(String, String)>,
}

/// A flag: the verbs that lead to it, and its id.
pub(super) type Place = (Vec<String>, Id);

/// The value of a flag, from a file or a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) values: Vec<String>,
    /// For people: `FILE:LINE`.
    pub(super) origin: String,
}

/// All of them.
pub(super) type Settings = BTreeMap<Place, Setting>;

/// The command with the values of `settings` as the defaults of its flags.
pub(super) fn with_defaults(command: Command, settings: &Settings) -> Command {
    settings.iter().fold(command, |command, ((verbs, id), setting)| set(command, verbs, id, &setting.values))
}

fn set(command: Command, verbs: &[String], id: &Id, values: &[String]) -> Command {
    match verbs.split_first() {
        Some((verb, rest)) => command.mut_subcommand(verb, |verb| set(verb, rest, id, values)),
        None => command.mut_arg(id, |arg| arg.required(false).default_values(values)),
    }
}
