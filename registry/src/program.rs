//! The program `registry`: parse, bind, serve, drain.

mod flags;

use crate::{Config, Registry, RegistryError};
use flags::{Flags, PROGRAM};
use p2pdi::{
    configuration::{Loaded, Read, Reload, read},
    platform::{raise_descriptor_limit, report_file_size_limit},
    server::{ListenError, Stopped, announce, listen, print, report_failure, report_usage, until_stopped},
    telemetry::{self, LogFilter, Role, TelemetryError},
};
use std::{env, error::Error, process::ExitCode};

/// Runs the program with the arguments of this process, and returns its exit code: 2 for wrong usage and 1 for other failures.
#[must_use]
pub fn main() -> ExitCode {
    let loaded = match read::<Flags>(&PROGRAM, &env::args_os().collect::<Vec<_>>()) {
        Ok(Read::Run(loaded)) => loaded,
        Ok(Read::Print(text)) => return print(text),
        Err(error) => return report_usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = runtime.block_on(async {
        let telemetry = match telemetry::init("registry", Role::Server, loaded.flags.log()) {
            Ok(telemetry) => telemetry,
            Err(error) => return fail(&error),
        };
        let outcome = Box::pin(run(loaded, telemetry.filter())).await;
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

async fn run(loaded: Loaded<Flags>, filter: LogFilter) -> Result<Stopped<()>, Box<dyn Error>> {
    raise_descriptor_limit();
    report_file_size_limit();
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let reload = Reload::new(&PROGRAM, env::args_os().collect(), &loaded)?;
    let flags = loaded.flags;
    let (address, health) = (flags.listen.clone(), flags.health_listen.clone());
    let config = Config::try_from(flags)?;
    let listener = listen(&address).await?;
    let mut registry = Registry::open(&config)?;
    if let Some(health) = health {
        registry = registry.with_health(listen(&health).await?);
    }
    let address = listener.local_addr()?;
    registry.check_address(address)?;
    let handle = registry.handle();
    let reloading = reload.run(flags::LIVE, |flags: Flags| flags.apply(&handle, config.tls.as_ref(), &filter));
    let stopped = until_stopped(async |stop| {
        announce(address);
        tokio::select! {
            served = registry.serve(listener, stop) => served,
            never = reloading => match never {},
        }
    });
    match Box::pin(stopped).await? {
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
