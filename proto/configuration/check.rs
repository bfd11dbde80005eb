//! Whether a flag takes a value, asked of the flag's own parser.

use clap::{
    Arg, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::error::Error as _;

/// Checks `text` as a value of `arg`.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub(super) fn check(arg: &Arg, text: &str) -> Result<(), String> {
    // A flag of its own: the real one may depend on flags that are not here.
    let alone = Arg::new("value")
        .long("value")
        .num_args(1)
        .allow_hyphen_values(true)
        .value_delimiter(arg.get_value_delimiter())
        .value_parser(arg.get_value_parser().clone());
    let command = Command::new("check").no_binary_name(true).disable_help_flag(true).disable_version_flag(true).arg(alone);
    let Err(error) = command.try_get_matches_from([format!("--value={text}")]) else { return Ok(()) };
    match (error.kind(), error.get(ContextKind::ValidValue)) {
        (ErrorKind::InvalidValue, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            Err(format!("the values are {}", valid.join(", ")))
        }
        _ => Err(error.source().map_or_else(|| error.kind().to_string(), ToString::to_string)),
    }
}
