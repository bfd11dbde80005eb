//! `registry`, `peerd` and `p2pctl` in one file, which runs the one that it is called as.
//!
//! They have most of their code in common: the image with this file and three links to it is half as large as one with three files.

use p2pdi::server::report_failure;
use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

/// A program, and its entry point.
type Program = (&'static str, fn() -> ExitCode);

const PROGRAMS: [Program; 3] = [("registry", registry::program::main), ("peerd", peerd::program::main), ("p2pctl", p2pctl::main)];

/// This file was called by another name.
#[derive(Debug, thiserror::Error)]
#[error("this file holds {}, and was called as `{}`", PROGRAMS.map(|(name, _)| name).join(", "), called_as.display())]
struct NotAProgram {
    called_as: OsString,
}

/// The program of the name in `called_as`, the path by which this file was called.
fn program(called_as: &OsStr) -> Result<fn() -> ExitCode, NotAProgram> {
    let name = Path::new(called_as).file_name();
    let found = PROGRAMS.into_iter().find(|(program, _)| name == Some(OsStr::new(program)));
    found.map(|(_, main)| main).ok_or_else(|| NotAProgram { called_as: called_as.to_owned() })
}

fn main() -> ExitCode {
    match program(&env::args_os().next().unwrap_or_default()) {
        Ok(main) => main(),
        Err(wrong) => {
            report_failure(&wrong, Some("call it through links with these names"));
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_it_is_called_by_is_the_program() {
        for name in ["registry", "/usr/local/bin/peerd", "./p2pctl"] {
            assert!(program(OsStr::new(name)).is_ok(), "{name}");
        }
        for name in ["", "p2pdi", "registry/", "/", "peerd2"] {
            let wrong = program(OsStr::new(name)).err();
            assert_eq!(wrong.is_some(), name != "registry/", "{name}");
        }
        let said = program(OsStr::new("p2pdi")).unwrap_err().to_string();
        assert!(said.contains("registry, peerd, p2pctl") && said.contains("called as `p2pdi`"), "{said}");
    }
}
