//! The effective configuration as a file that can be fed back.

use super::{
    keys::{self, Takes, VERB},
    origins::{Settings, with_defaults, with_flags},
};
use clap::{Arg, ArgMatches, Command, Id, parser::ValueSource};
use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    path::Path,
};
use toml_edit::{Array, Value};

/// The value of each flag, with its origin as a comment: those of the program, and of the verb in `arguments`, or else of all verbs.
///
/// # Errors
/// When the arguments say what cannot be.
pub(super) fn effective(
    command: &Command,
    settings: &Settings,
    arguments: &[OsString],
    file: Option<&Path>,
) -> Result<String, clap::Error> {
    let arguments = &with_flags(command, arguments, settings);
    // Its flags are in another order: those with settings come last.
    let read = relaxed(with_defaults(command.clone(), settings));
    let matches = read.clone().try_get_matches_from(arguments)?;
    let mut printing = Printing { settings, text: String::new() };
    let version = command.get_version().unwrap_or_default();
    let from = file.map(|file| format!(", with {}", file.display())).unwrap_or_default();
    let _ = writeln!(printing.text, "# {} {version}: effective configuration{from}", command.get_name());
    printing.flags(command, &matches, &[]);
    if let Some((verb, matches)) = matches.subcommand() {
        printing.verb(command, verb, matches, &[]);
    } else {
        printing.all_verbs(&read, command, arguments, &[]);
    }
    Ok(printing.text)
}

/// The command without anything that must be given: verbs, their arguments.
fn relaxed(command: Command) -> Command {
    let command = command.subcommand_required(false).arg_required_else_help(false);
    command.mut_args(|arg| arg.required(false)).mut_subcommands(relaxed)
}

struct Printing<'a> {
    settings: &'a Settings,
    text: String,
}

impl Printing<'_> {
    fn verb(&mut self, command: &Command, name: &str, matches: &ArgMatches, verbs: &[String]) {
        let Some(verb) = command.find_subcommand(name) else { return };
        let verbs: Vec<_> = verbs.iter().cloned().chain([verb.get_name().to_owned()]).collect();
        self.flags(verb, matches, &verbs);
        if let Some((name, matches)) = matches.subcommand() {
            self.verb(verb, name, matches, &verbs);
        }
    }

    /// All verbs below `command`, each as if it were given to `program` after `arguments`.
    fn all_verbs(&mut self, program: &Command, command: &Command, arguments: &[OsString], verbs: &[String]) {
        for verb in command.get_subcommands() {
            let verbs: Vec<_> = verbs.iter().cloned().chain([verb.get_name().to_owned()]).collect();
            let arguments: Vec<_> = arguments.iter().cloned().chain([OsString::from(verb.get_name())]).collect();
            // An error is of the other arguments, which were read without one before.
            let Ok(matches) = program.clone().try_get_matches_from(&arguments) else { continue };
            let of_verb = verbs.iter().try_fold(&matches, |matches, verb| matches.subcommand_matches(verb));
            if let Some(of_verb) = of_verb {
                self.flags(verb, of_verb, &verbs);
            }
            self.all_verbs(program, verb, &arguments, &verbs);
        }
    }

    fn flags(&mut self, command: &Command, matches: &ArgMatches, verbs: &[String]) {
        let mut head = Some(()).filter(|()| !verbs.is_empty());
        for (key, arg) in keys::flags(command) {
            if head.take().is_some() {
                let path: Vec<_> = [VERB].into_iter().chain(verbs.iter().map(String::as_str)).collect();
                let _ = writeln!(self.text, "\n[{}]", path.join("."));
            }
            let origin = self.origin(arg, matches, verbs);
            let _ = match (value(arg, matches), origin) {
                (Ok(value), Some(origin)) if keys::is_secret(arg) => {
                    let _secret = value;
                    writeln!(self.text, "# {key} = …  # {origin}; secret, not shown")
                }
                (Ok(value), Some(origin)) => writeln!(self.text, "{key} = {value}  # {origin}"),
                (Err(NotText), Some(origin)) => writeln!(self.text, "# {key} = …  # {origin}; not UTF-8, not shown"),
                (_, None) => writeln!(self.text, "# {key} = {}  # not set", keys::value_name(arg)),
            };
        }
    }

    /// Where the value of a flag comes from, for people. `None`: it has none.
    fn origin(&self, arg: &Arg, matches: &ArgMatches, verbs: &[String]) -> Option<String> {
        let id: &Id = arg.get_id();
        matches.try_contains_id(id.as_str()).ok()?;
        let source = matches.value_source(id.as_str());
        let setting = self.settings.get(&(verbs.to_vec(), id.clone()));
        // Settings of the program are flags by now, those of verbs are defaults.
        if let Some(setting) = setting.filter(|_| verbs.is_empty() || source == Some(ValueSource::DefaultValue)) {
            return Some(setting.origin.clone());
        }
        Some(match source? {
            ValueSource::CommandLine => "flag".to_owned(),
            ValueSource::EnvVariable => {
                format!("environment {}", arg.get_env().map(OsStr::to_string_lossy).unwrap_or_default())
            }
            _ => "default".to_owned(),
        })
    }
}

/// A value is no text.
struct NotText;

/// The value of a flag in TOML.
fn value(arg: &Arg, matches: &ArgMatches) -> Result<Value, NotText> {
    let id = arg.get_id().as_str();
    let raw = matches.try_get_raw(id).ok().flatten().into_iter().flatten();
    let one = |text: &str| match text.parse::<i64>() {
        Ok(number) if keys::is_number(arg) && number.to_string() == text => Value::from(number),
        _ => Value::from(text),
    };
    let texts = raw.map(|raw| raw.to_str().ok_or(NotText)).collect::<Result<Vec<_>, _>>()?;
    Ok(match keys::takes(arg) {
        Takes::Switch => Value::from(matches.try_get_one::<bool>(id).ok().flatten().copied().unwrap_or_default()),
        Takes::Many => Value::Array(texts.into_iter().map(one).collect::<Array>()),
        Takes::One => one(texts.first().copied().unwrap_or_default()),
    })
}
