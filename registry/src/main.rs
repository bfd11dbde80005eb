//! `registry`: parse, bind, serve, drain.

mod flags;

use clap::Parser as _;
use flags::Flags;
use p2pdi::{
    platform::{raise_descriptor_limit, report_file_size_limit},
    server::{ListenError, Stopped, announce, listen, report_failure, until_stopped},
    telemetry::{self, LogOptions, Role, TelemetryError},
};
use registry::{Registry, RegistryError};
use std::{error::Error, process::ExitCode};

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = runtime.block_on(async {
        let log = LogOptions { filter: &flags.log_filter(), format: flags.log_format };
        let telemetry = match telemetry::init("registry", Role::Server, log) {
            Ok(telemetry) => telemetry,
            Err(error) => return fail(&error),
        };
        let outcome = Box::pin(run(flags)).await;
        telemetry.finish().await;
        match outcome {
            Ok(Stopped::Done(())) => ExitCode::SUCCESS,
            // What shells report for a process that SIGINT ended.
            Ok(Stopped::AtOnce) => ExitCode::from(130),
            Err(error) => fail(error.as_ref()),
        }
    });
    // Does not wait for calls that a second signal cut off.
    runtime.shutdown_background();
    code
}

async fn run(flags: Flags) -> Result<Stopped<()>, Box<dyn Error>> {
    raise_descriptor_limit();
    report_file_size_limit();
    let listener = listen(&flags.listen).await?;
    let registry = Registry::open(&flags.into())?;
    let address = listener.local_addr()?;
    let stopped = until_stopped(async |stop| {
        announce(address);
        registry.serve(listener, stop).await
    });
    match stopped.await? {
        Stopped::Done(served) => served.map(Stopped::Done).map_err(Into::into),
        Stopped::AtOnce => Ok(Stopped::AtOnce),
    }
}

/// Says why the program ends. The exit code is 2 for wrong usage and 1 otherwise.
fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    let telemetry = error.downcast_ref::<TelemetryError>();
    let hint = match (telemetry, error.downcast_ref::<RegistryError>()) {
        (Some(_), _) => Some("see --help for --log, and OpenTelemetry's documentation for OTEL_*".to_owned()),
        (None, Some(error)) => error.hint(),
        (None, None) => error.downcast_ref().map(|error: &ListenError| error.hint().to_owned()),
    };
    report_failure(error, hint.as_deref());
    if telemetry.is_some() { ExitCode::from(2) } else { ExitCode::FAILURE }
}
