//! The manual page and the completion scripts of a program without verbs: `PROGRAM man` and `PROGRAM completions SHELL`, for packages.

use clap::{Command, ValueEnum as _};
use clap_complete::Shell;
use std::ffi::OsString;

/// What to print, if that is what the arguments ask for, and nothing else.
pub(super) fn asked(command: &Command, arguments: &[OsString]) -> Option<String> {
    if command.has_subcommands() {
        return None;
    }
    let words: Vec<_> = arguments.iter().skip(1).map(|argument| argument.to_str().unwrap_or_default()).collect();
    match words[..] {
        ["man"] => man(command),
        ["completions", shell] => Some(completions(command, Shell::from_str(shell, true).ok()?)),
        _ => None,
    }
}

fn man(command: &Command) -> Option<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).ok()?;
    String::from_utf8(page).ok()
}

fn completions(command: &Command, shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command.clone(), command.get_name().to_owned(), &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn asked_for(words: &[&str]) -> Option<String> {
        let command = Command::new("server").about("Serves").arg(Arg::new("listen").long("listen"));
        let arguments: Vec<_> = ["server"].iter().chain(words).map(OsString::from).collect();
        asked(&command, &arguments)
    }

    #[test]
    fn manual_page_and_completions_name_the_flags_and_nothing_else_is_taken_for_them() {
        assert!(asked_for(&["man"]).unwrap().contains("listen"));
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            assert!(asked_for(&["completions", shell]).unwrap().contains("listen"), "{shell}");
        }
        for words in [&[][..], &["--listen", "man"], &["completions"], &["completions", "dos"], &["man", "x"]] {
            assert_eq!(asked_for(words), None, "{words:?}");
        }
    }
}
