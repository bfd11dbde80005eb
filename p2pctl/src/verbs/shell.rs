//! completions and man.

use crate::{
    args::Cli,
    failure::{Failure, Outcome},
    printer::Printer,
};
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::{fs, path::Path};

pub(super) fn completions(shell: Shell, printer: Printer) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "p2pctl", &mut script);
    Ok(printer.raw(&script)?)
}

pub(super) fn man(out: Option<&Path>, printer: Printer) -> Outcome {
    let command = Cli::command();
    let Some(out) = out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return Ok(printer.raw(&page)?);
    };
    let cannot = |error| Failure::refused(format!("cannot write manual pages to {}: {error}", out.display()));
    fs::create_dir_all(out).map_err(cannot)?;
    clap_mangen::generate_to(command, out).map_err(cannot)
}
