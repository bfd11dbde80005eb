//! `registry`: parse, bind, serve, drain.

mod flags;

use clap::Parser as _;
use flags::Flags;
use p2pdi::{
    platform::raise_descriptor_limit,
    server::{Stopped, until_stopped},
};
use registry::{Registry, RegistryError};
use std::{fmt, io::Write as _, process::ExitCode};
use tokio::net::TcpListener;

/// Why the program exits with 1, in one line, and what to do about it.
struct Failure {
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn new(message: impl fmt::Display, hint: &str) -> Self {
        Self { message: message.to_string(), hint: Some(hint.to_owned()).filter(|hint| !hint.is_empty()) }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self { hint: error.hint(), message: error.to_string() }
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::new(format_args!("cannot start threads: {error}"), "")),
    };
    let outcome = runtime.block_on(run(flags));
    // Do not wait for calls that a second signal cut off.
    runtime.shutdown_background();
    match outcome {
        Ok(Stopped::Done(())) => ExitCode::SUCCESS,
        // What shells report for a process that SIGINT ended.
        Ok(Stopped::AtOnce) => ExitCode::from(130),
        Err(failure) => failed(&failure),
    }
}

async fn run(flags: Flags) -> Result<Stopped<()>, Failure> {
    let telemetry = p2pdi::telemetry::init("registry", &flags.log_filter())
        .map_err(|error| Failure::new(error, "see --help for --log, and OpenTelemetry's documentation for OTEL_*"))?;
    raise_descriptor_limit();
    let listener = TcpListener::bind(flags.listen).await.map_err(|error| {
        Failure::new(
            format_args!("cannot listen on {}: {error}", flags.listen),
            "stop what listens there, or choose another address with --listen; port 0 picks a free one",
        )
    })?;
    let registry = Registry::open(&flags.into())?;
    let address = listener.local_addr().map_err(|error| Failure::new(error, ""))?;
    let stopped = until_stopped(async |stop| {
        // It serves also when standard output is closed.
        let _closed = writeln!(std::io::stdout(), "listening on {address}");
        registry.serve(listener, stop).await
    });
    let stopped = stopped.await.map_err(|error| Failure::new(format_args!("cannot listen for signals: {error}"), ""))?;
    match stopped {
        Stopped::Done(served) => served?,
        Stopped::AtOnce => return Ok(Stopped::AtOnce),
    }
    telemetry.finish().await;
    Ok(Stopped::Done(()))
}

/// Prints why the program ends. Nothing else writes to the terminal, except for the line that names the address.
fn failed(failure: &Failure) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    let _closed = writeln!(stderr, "error: {}", failure.message);
    if let Some(hint) = &failure.hint {
        let _closed = writeln!(stderr, "hint: {hint}");
    }
    ExitCode::FAILURE
}
