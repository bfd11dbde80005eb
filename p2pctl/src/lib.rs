//! `p2pctl`: parses the command line, runs one verb, prints its result.

mod args;
mod backup_file;
mod call;
mod contexts;
mod failure;
mod kubernetes;
mod operator;
mod peers;
mod printer;
mod progress;
mod registry_client;
mod registry_tracker;
mod sharing;
mod verbs;
mod via;

use args::{Cli, PROGRAM, Verb};
use failure::{Failure, Outcome};
use p2pdi::{
    configuration::{Read, read},
    platform::{raise_descriptor_limit, report_file_size_limit},
    server::{print, report_usage},
    telemetry::{self, LogOptions, Role},
};
use printer::Printer;
use std::{env, process::ExitCode};
use tokio::runtime::{Builder, Runtime};

/// Runs the program with the arguments of this process, and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let loaded = match read::<Cli>(&PROGRAM, &env::args_os().collect::<Vec<_>>()) {
        Ok(Read::Run(loaded)) => loaded,
        Ok(Read::Print(text)) => return print(text),
        Err(error) if args::wants_json(env::args_os()) && error.is_wrong() => {
            return fail(Printer::new(args::Output::Json), &Failure::of_configuration(&error));
        }
        Err(error) => return report_usage(&error),
    };
    let mut cli = loaded.flags;
    cli.global.given = loaded.given;
    let printer = Printer::new(cli.global.output);
    loaded.warnings.iter().for_each(|warning| printer.note(&format!("warning: {warning}")));
    let runtime = match runtime(&cli.verb) {
        Ok(runtime) => runtime,
        Err(error) => return fail(printer, &error),
    };
    let code = runtime.block_on(async {
        let log = LogOptions { filter: &cli.global.log, format: cli.global.log_format };
        let role = if runs_servers(&cli.verb) { Role::Server } else { Role::Client };
        let telemetry = match telemetry::init("p2pctl", role, log) {
            Ok(telemetry) => telemetry,
            Err(error) => return fail(printer, &Failure::usage(error.to_string())),
        };
        // For the servers of `up`, `demo` and `bench`.
        raise_descriptor_limit();
        report_file_size_limit();
        let code = match Box::pin(verbs::run(cli, printer)).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => fail(printer, &failure),
        };
        telemetry.finish().await;
        code
    });
    // Cancelled work is not waited for.
    runtime.shutdown_background();
    code
}

/// A client needs one thread and starts faster with it; a cluster in one process gets all cores.
fn runtime(verb: &Verb) -> Outcome<Runtime> {
    let mut builder = if runs_servers(verb) { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    Ok(builder.enable_all().build()?)
}

/// Whether a registry and peers run in this process.
fn runs_servers(verb: &Verb) -> bool {
    matches!(verb, Verb::Up(_) | Verb::Demo(_) | Verb::Bench(_))
}

fn fail(printer: Printer, failure: &Failure) -> ExitCode {
    printer.failure(failure);
    failure.exit_code()
}
