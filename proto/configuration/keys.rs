//! The keys of a file, derived from the flags of a command.

use clap::{Arg, ArgAction, Command};
use std::any::TypeId;

/// Flags that are no keys: they are about one call.
const NO_KEYS: [&str; 4] = ["help", "version", "config", "print-config"];
/// Names of values that must not be printed.
const SECRETS: [&str; 3] = ["TOKEN", "SECRET", "PASSWORD"];
/// The table with the flags of verbs: `[verb.NAME]`. Verbs may be called like flags, so their tables are one level down.
pub(super) const VERB: &str = "verb";

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// `true` or `false`.
    Switch,
    /// A string or a number.
    One,
    /// An array of them.
    Many,
}

/// The key of a flag. `None`: it is none.
pub(super) fn key(arg: &Arg) -> Option<&str> {
    arg.get_long().filter(|long| !NO_KEYS.contains(long))
}

/// The flags of a command that are keys, without those of its verbs.
pub(super) fn flags(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    command.get_arguments().filter_map(|arg| Some((key(arg)?, arg)))
}

/// The flag of a key.
pub(super) fn flag<'a>(command: &'a Command, wanted: &str) -> Option<&'a Arg> {
    flags(command).find(|(key, _)| *key == wanted).map(|(_, arg)| arg)
}

/// What the key of a flag takes.
pub(super) fn takes(arg: &Arg) -> Takes {
    match arg.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => Takes::Switch,
        ArgAction::Append => Takes::Many,
        _ if arg.get_value_delimiter().is_some() => Takes::Many,
        _ => Takes::One,
    }
}

/// Whether the values of a flag are whole numbers.
pub(super) fn is_number(arg: &Arg) -> bool {
    let id = arg.get_value_parser().type_id();
    [TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()].iter().any(|number| id == *number)
}

/// Whether the values of a flag must not be printed.
pub(super) fn is_secret(arg: &Arg) -> bool {
    let named = |name: &clap::builder::Str| SECRETS.contains(&name.as_str());
    arg.is_hide_env_values_set() || arg.get_value_names().is_some_and(|names| names.iter().any(named))
}

/// What the values of a flag are called, such as `HOST:PORT`.
pub(super) fn value_name(arg: &Arg) -> String {
    let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    name.unwrap_or_else(|| arg.get_id().as_str().to_uppercase())
}

/// `; did you mean X?`, or nothing.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// The known word that `word` may be a slip of: within a third of its letters, or the beginning of one.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    let edits_max = (word.chars().count() / 3).max(1);
    let distance = |known: &&str| strsim::osa_distance(&word, known);
    let (mut near, mut longer) = (Vec::new(), Vec::new());
    for known in known {
        if distance(&known) <= edits_max {
            near.push(known);
        } else if word.len() > 2 && known.starts_with(&word) {
            longer.push(known);
        }
    }
    near.into_iter().min_by_key(distance).or_else(|| longer.into_iter().min_by_key(|known| known.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_proposed_and_nothing_that_is_far() {
        let known = ["upload-limit", "upload-slots", "download-limit", "log", "log-format", "mirror"];
        for (word, near) in [
            ("upload_limit", Some("upload-limit")),
            ("uplaod-limit", Some("upload-limit")),
            ("Mirrors", Some("mirror")),
            ("upload", Some("upload-limit")),
            ("lgo", Some("log")),
            ("name", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), near, "{word}");
        }
    }
}
