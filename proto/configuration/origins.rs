//! Values that come from neither the command line nor the environment, and where from.

use super::keys::{self, Takes};
use clap::{Arg, Command, Id};
use std::{collections::BTreeMap, ffi::OsString};

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

/// The command with the settings of its verbs as the defaults of their flags.
pub(super) fn with_defaults(command: Command, settings: &Settings) -> Command {
    let of_verbs = settings.iter().filter(|((verbs, _), _)| !verbs.is_empty());
    of_verbs.fold(command, |command, ((verbs, id), setting)| set(command, verbs, id, &setting.values))
}

fn set(command: Command, verbs: &[String], id: &Id, values: &[String]) -> Command {
    match verbs.split_first() {
        Some((verb, rest)) => command.mut_subcommand(verb, |verb| set(verb, rest, id, values)),
        None => command.mut_arg(id, |arg| arg.required(false).default_values(values)),
    }
}

/// The arguments with the settings of the program, not of its verbs, as if they were given as flags: what flags require of each other counts
/// wherever they come from.
pub(super) fn with_flags(command: &Command, arguments: &[OsString], settings: &Settings) -> Vec<OsString> {
    let Some((program, rest)) = arguments.split_first() else { return Vec::new() };
    // Without arguments it shows its help.
    if rest.is_empty() && command.is_arg_required_else_help_set() {
        return arguments.to_vec();
    }
    let of_program = settings.iter().filter(|((verbs, _), _)| verbs.is_empty());
    let flags = of_program.flat_map(|((_, id), setting)| {
        let arg = command.get_arguments().find(|arg| arg.get_id() == id);
        arg.into_iter().flat_map(|arg| as_flags(arg, &setting.values)).collect::<Vec<_>>()
    });
    [program.clone()].into_iter().chain(flags).chain(rest.iter().cloned()).collect()
}

fn as_flags(arg: &Arg, values: &[String]) -> Vec<OsString> {
    let Some(key) = keys::key(arg) else { return Vec::new() };
    match keys::takes(arg) {
        Takes::Switch if values.iter().any(|value| value == "true") => vec![format!("--{key}").into()],
        Takes::Switch => Vec::new(),
        Takes::One | Takes::Many => values.iter().map(|value| format!("--{key}={value}").into()).collect(),
    }
}
