//! Environment variables of a program: their names, and the names of older versions.

use clap::{Command, builder::Resettable};
use std::{
    env,
    ffi::{OsStr, OsString},
};

/// Schemes of the values that Kubernetes gives variables such as `P2PDI_PORT`, for a Service of that name ("Accessing the Service",
/// environment variables).
const SERVICE_LINKS: [&str; 3] = ["tcp://", "udp://", "sctp://"];

/// Names that are read in place of those that the flags declare.
#[derive(Debug, Clone, Copy)]
pub struct Variables {
    /// What all names begin with, such as `P2PDI_PEER_`.
    pub prefix: &'static str,
    /// Names of version 0.1, without `P2PDI_`; the name of now has [`Variables::prefix`] there. They are read with a warning.
    pub old: &'static [&'static str],
    /// Names of version 0.1 whose name of now is another: the old one and the one of now.
    pub renamed: &'static [(&'static str, &'static str)],
    /// Names of other programs that are read without a warning: such a name, and the own one.
    pub also: &'static [(&'static str, &'static str)],
}

/// A variable that is read in place of another.
struct Alias {
    name: String,
    is_old: bool,
}

impl Variables {
    /// The command, with the variable that is set of each flag. Adds to `warnings` what the user should change.
    pub(super) fn apply(&self, command: Command, warnings: &mut Vec<String>) -> Command {
        self.apply_with(command, &|name| env::var_os(name), warnings)
    }

    fn apply_with(&self, command: Command, lookup: &dyn Fn(&str) -> Option<OsString>, warnings: &mut Vec<String>) -> Command {
        let command = command.mut_args(|arg| {
            let Some(name) = arg.get_env().and_then(OsStr::to_str).map(str::to_owned) else { return arg };
            match lookup(&name) {
                // An empty one is not set: a manifest often has them.
                Some(value) if value.is_empty() => return arg.env(Resettable::<clap::builder::OsStr>::Reset),
                Some(_) => return arg,
                None => {}
            }
            let Some(alias) = self.aliases(&name).into_iter().find(|alias| is_usable(lookup(&alias.name), alias.is_old)) else {
                return arg;
            };
            if alias.is_old {
                let warning = format!("the variable {} has a new name: {name}; a later version ignores the old one", alias.name);
                // Several verbs have the same.
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
            arg.env(alias.name)
        });
        command.mut_subcommands(|verb| self.apply_with(verb, lookup, warnings))
    }

    /// The other names of a variable, the first one goes first.
    fn aliases(&self, name: &str) -> Vec<Alias> {
        let of = |pairs: &[(&str, &str)], is_old| {
            let found = pairs.iter().filter(|(_, now)| *now == name);
            found.map(|(other, _)| Alias { name: (*other).to_owned(), is_old }).collect::<Vec<_>>()
        };
        let rest = name.strip_prefix(self.prefix).filter(|rest| self.old.contains(rest));
        let mut all = of(self.renamed, true);
        all.extend(rest.map(|rest| Alias { name: format!("P2PDI_{rest}"), is_old: true }));
        all.extend(of(self.also, false));
        all
    }
}

/// Whether a variable has a value that a person gave it.
fn is_usable(value: Option<OsString>, is_old: bool) -> bool {
    value.is_some_and(|value| {
        let is_link = value.to_str().is_some_and(|value| SERVICE_LINKS.iter().any(|scheme| value.starts_with(scheme)));
        !(value.is_empty() || is_old && is_link)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    const VARIABLES: Variables = Variables {
        prefix: "P2PDI_PEER_",
        old: &["NAME"],
        renamed: &[("P2PDI_PORT", "P2PDI_PEER_PORT_NUMBER")],
        also: &[("RUST_LOG", "P2PDI_PEER_LOG")],
    };

    /// The variable that is read for each of three flags, and the warnings.
    fn chosen(set: &[(&str, &str)]) -> ([Option<String>; 3], Vec<String>) {
        let flags = [("name", "P2PDI_PEER_NAME"), ("port", "P2PDI_PEER_PORT_NUMBER"), ("log", "P2PDI_PEER_LOG")];
        let verb = Command::new("verb").args(flags.map(|(id, name)| Arg::new(id).long(id).env(name)));
        let mut warnings = Vec::new();
        let lookup = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value));
        let command = VARIABLES.apply_with(Command::new("p").subcommand(verb), &lookup, &mut warnings);
        let verb = command.get_subcommands().next().unwrap();
        let name = |id: &str| {
            let arg = verb.get_arguments().find(|arg| arg.get_id() == id).unwrap();
            arg.get_env().map(|name| name.to_str().unwrap().to_owned())
        };
        (["name", "port", "log"].map(name), warnings)
    }

    #[test]
    fn an_old_name_is_read_with_a_warning_unless_the_new_one_is_set() {
        let own = ["P2PDI_PEER_NAME", "P2PDI_PEER_PORT_NUMBER", "P2PDI_PEER_LOG"].map(|name| Some(name.to_owned()));
        assert_eq!(chosen(&[]), (own.clone(), vec![]));
        let (read, warnings) = chosen(&[("P2PDI_NAME", "a"), ("P2PDI_PORT", "7801"), ("RUST_LOG", "debug")]);
        assert_eq!(read, ["P2PDI_NAME", "P2PDI_PORT", "RUST_LOG"].map(|name| Some(name.to_owned())));
        assert!(warnings.len() == 2 && warnings[0].contains("P2PDI_PEER_NAME"), "{warnings:?}");
        assert_eq!(chosen(&[("P2PDI_NAME", "a"), ("P2PDI_PEER_NAME", "b")]), (own, vec![]));
    }

    #[test]
    fn what_kubernetes_makes_up_for_a_service_is_not_read() {
        for link in ["tcp://10.0.0.1:7801", "udp://10.0.0.1:7801", ""] {
            let (read, warnings) = chosen(&[("P2PDI_PORT", link)]);
            assert!(read[1].as_deref() == Some("P2PDI_PEER_PORT_NUMBER") && warnings.is_empty(), "{link}: {read:?} {warnings:?}");
        }
        assert_eq!(chosen(&[("P2PDI_PEER_NAME", "")]).0[0], None, "an empty one is not set");
    }
}
