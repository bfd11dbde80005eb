//! From the arguments of a server's process to its exit code.

use super::{
    console::{print, report_failure, report_usage},
    stop::Stopped,
};
use crate::{
    configuration::{Loaded, Program, Read, read},
    platform::{raise_descriptor_limit, report_file_size_limit},
    telemetry::{self, LogFilter, LogOptions, Role, TelemetryError},
};
use clap::Parser;
use std::{env, error::Error, process::ExitCode};
use tokio::runtime::Runtime;

/// A program that serves until a signal stops it.
pub struct ServerProgram<'a, F> {
    /// Its name in traces.
    pub name: &'static str,
    /// How it reads its configuration.
    pub configuration: &'a Program,
    /// What its flags say about the log.
    pub log: fn(&F) -> LogOptions<'_>,
    /// What to do about an error, and whether it is wrong usage; of the ends that this module knows it is not asked.
    pub judge: fn(&(dyn Error + 'static)) -> Judgement,
}

/// What is said of the error that ended a program.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What to do about it.
    pub hint: Option<String>,
    /// A flag or a variable is not valid: the exit code is 2.
    pub is_usage: bool,
}

impl<F: Parser> ServerProgram<'_, F> {
    /// Runs `serve` with the configuration that the arguments of this process, its environment and its file give. Returns the exit code: 2
    /// for wrong usage, 130 after a second signal, and 1 for other failures.
    #[must_use]
    pub fn run(&self, serve: impl AsyncFnOnce(Loaded<F>, LogFilter) -> Result<Stopped<()>, Box<dyn Error>>) -> ExitCode {
        let loaded = match read::<F>(self.configuration, &env::args_os().collect::<Vec<_>>()) {
            Ok(Read::Run(loaded)) => loaded,
            Ok(Read::Print(text)) => return print(text),
            Err(error) => return report_usage(&error),
        };
        let runtime = match Runtime::new() {
            Ok(runtime) => runtime,
            Err(error) => return self.failed(&error),
        };
        let code = runtime.block_on(async {
            let telemetry = match telemetry::init(self.name, Role::Server, (self.log)(&loaded.flags)) {
                Ok(telemetry) => telemetry,
                Err(error) => return self.failed(&error),
            };
            raise_descriptor_limit();
            report_file_size_limit();
            loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            let outcome = Box::pin(serve(loaded, telemetry.filter())).await;
            telemetry.finish().await;
            match outcome {
                Ok(Stopped::Done(())) => ExitCode::SUCCESS,
                // What shells report for a process that SIGINT ended.
                Ok(Stopped::AtOnce) => ExitCode::from(130),
                Err(error) => self.failed(error.as_ref()),
            }
        });
        // Waits neither for calls that a second signal cut off, nor for blocking work under way, such as hashing.
        runtime.shutdown_background();
        code
    }

    fn failed(&self, error: &(dyn Error + 'static)) -> ExitCode {
        let Judgement { hint, is_usage } = match error.is::<TelemetryError>() {
            true => Judgement {
                hint: Some("see --help for --log, and OpenTelemetry's documentation for OTEL_*".to_owned()),
                is_usage: true,
            },
            false => (self.judge)(error),
        };
        report_failure(error, hint.as_deref());
        if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
    }
}
