//! What the parser's own errors leave out: that a wrong value is that of a variable, and which verb a short word may be a slip of. And what they
//! must leave out: secrets.

use super::keys::{is_secret, nearest};
use clap::{
    Arg, Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::{
    env,
    ffi::{OsStr, OsString},
};

/// The error of `command` for `arguments`, with that.
pub(super) fn explained(error: Error, command: &Command, arguments: &[OsString]) -> Error {
    explained_with(error, command, arguments, &|name| env::var_os(name))
}

fn explained_with(
    mut error: Error,
    command: &Command,
    arguments: &[OsString],
    lookup: &dyn Fn(&OsStr) -> Option<OsString>,
) -> Error {
    let commands = verbs(command, arguments);
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let (Some(shown), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
                return error;
            };
            let mut all = commands.iter().rev().flat_map(|command| command.get_arguments());
            let Some(arg) = all.find(|arg| arg.to_string() == shown) else { return error };
            if is_secret(arg) {
                // A token with one character too many is still a token.
                error.insert(ContextKind::InvalidValue, ContextValue::String("…".to_owned()));
            }
            let variable = arg.get_env().and_then(|name| {
                let set = lookup(name)?;
                let is_meant = if arg.is_positional() { set == *value } else { !is_among(arg, arguments) };
                is_meant.then(|| name.to_string_lossy().into_owned())
            });
            if let Some(variable) = variable {
                error.insert(ContextKind::InvalidArg, ContextValue::String(format!("{variable} ({shown})")));
            }
        }
        ErrorKind::InvalidSubcommand if error.get(ContextKind::SuggestedSubcommand).is_none() => {
            let Some(word) = text(ContextKind::InvalidSubcommand) else { return error };
            let known = commands.last().into_iter().flat_map(|command| command.get_subcommands());
            // The parser itself finds no neighbour of three letters, two of which are swapped.
            let near = nearest(&word, known.filter(|verb| !verb.is_hide_set()).map(Command::get_name));
            if let Some(near) = near.map(str::to_owned) {
                error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![near]));
            }
        }
        _ => {}
    }
    error
}

/// The command, and the verbs that the arguments name, outermost first.
fn verbs<'a>(command: &'a Command, arguments: &[OsString]) -> Vec<&'a Command> {
    let mut found = vec![command];
    for argument in arguments.iter().skip(1) {
        found.extend(found.last().and_then(|command| command.find_subcommand(argument)));
    }
    found
}

/// Whether the flag is among the arguments.
fn is_among(arg: &Arg, arguments: &[OsString]) -> bool {
    arguments.iter().filter_map(|argument| argument.to_str()).any(|argument| {
        let is_long = arg.get_long().is_some_and(|long| {
            argument
                .strip_prefix("--")
                .and_then(|rest| rest.strip_prefix(long))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        });
        let is_short = arg.get_short().is_some_and(|short| argument.starts_with(&format!("-{short}")));
        is_long || is_short
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let ttl = Arg::new("ttl").long("ttl").short('t').env("P_TTL").global(true).value_parser(clap::value_parser!(u16));
        let form = Arg::new("form").long("form").env("P_FORM").value_parser(["table", "json"]);
        let pages = Command::new("pages").arg(Arg::new("count").env("P_COUNT").value_parser(clap::value_parser!(u16)));
        let verbs = [Command::new("get").arg(form), pages, Command::new("registry").subcommand(Command::new("peers"))];
        Command::new("p").subcommand_required(true).arg(ttl).subcommands(verbs)
    }

    /// The first line of the error, and its tip.
    fn said(arguments: &[&str], set: &[(&str, &str)]) -> (String, Option<String>) {
        // The parser reads variables itself; where it would, they are given as flags here, which the lookup below does not see.
        let (mut command, mut given) = (command(), vec![OsString::from("p")]);
        given.extend(arguments.iter().map(OsString::from));
        let flags = set.iter().filter_map(|(name, value)| {
            Some(format!(
                "--{}={value}",
                match *name {
                    "P_TTL" => "ttl",
                    "P_FORM" => "form",
                    _ => return None,
                }
            ))
        });
        let with_set: Vec<_> = given.iter().cloned().chain(flags.map(OsString::from)).collect();
        let error = command.try_get_matches_from_mut(with_set).unwrap_err();
        let lookup = |name: &OsStr| set.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value));
        let text = explained_with(error, &command, &given, &lookup).to_string();
        let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: ")).map(str::to_owned);
        (text.lines().next().unwrap().to_owned(), tip)
    }

    #[test]
    fn a_wrong_value_of_a_variable_is_said_to_be_that() {
        for (arguments, set, words) in [
            (&["get"][..], &[("P_TTL", "soon")][..], "for 'P_TTL (--ttl <ttl>)'"),
            (&["get"], &[("P_FORM", "xml")], "for 'P_FORM (--form <form>)'"),
            (&["pages", "many"], &[("P_COUNT", "many")], "for 'P_COUNT ([count])'"),
            (&["pages", "many"], &[("P_COUNT", "3")], "for '[count]'"),
            (&["get", "--ttl", "soon"], &[], "for '--ttl <ttl>'"),
        ] {
            let (line, _) = said(arguments, set);
            assert!(line.contains(words), "{line}");
        }
        // A flag beats its variable.
        let mut command = command();
        for arguments in [&["p", "get", "--ttl=soon"][..], &["p", "get", "-tsoon"], &["p", "--ttl", "soon", "get"]] {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            let error = command.try_get_matches_from_mut(&arguments).unwrap_err();
            let text = explained_with(error, &command, &arguments, &|_| Some("later".into())).to_string();
            assert!(text.contains("for '--ttl <ttl>'"), "{text}");
        }
    }

    #[test]
    fn a_wrong_value_of_a_secret_is_not_shown() {
        let token = Arg::new("token").hide_env_values(true).value_parser(clap::value_parser!(u16));
        let mut command = Command::new("p").arg(token);
        let arguments: Vec<_> = ["p", "hidden"].map(OsString::from).into();
        let error = command.try_get_matches_from_mut(&arguments).unwrap_err();
        let text = explained_with(error, &command, &arguments, &|_| None).to_string();
        assert!(text.contains("invalid value '…' for '[token]'") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn a_verb_that_is_nearly_one_is_proposed_also_if_it_is_short() {
        for (arguments, near) in [
            (&["gte"][..], Some("'get'")),
            (&["ge"], Some("'get'")),
            (&["registry", "peesr"], Some("'peers'")),
            (&["registry", "gte"], None),
            (&["xyz"], None),
        ] {
            let (line, tip) = said(arguments, &[]);
            assert!(line.contains("unrecognized subcommand"), "{line}");
            assert_eq!(tip.as_deref().and_then(|tip| tip.split(": ").nth(1)), near, "{arguments:?}");
        }
    }
}
