//! The program `peerd`: parses flags, binds, runs until a signal, drains.

mod flags;
mod progress;

use clap::Parser as _;
use flags::Flags;
use p2pdi::{
    field::InvalidField,
    platform::{raise_descriptor_limit, report_file_size_limit},
    server::{ListenError, Stopped, announce, listen, report_failure, until_stopped},
    telemetry::{self, Role, TelemetryError},
};
use peerd::{
    documents::share::ShareError,
    identity::StateError,
    node::{Node, NodeError},
};
use std::{error::Error, process::ExitCode};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = runtime.block_on(async {
        let telemetry = match telemetry::init("peerd", Role::Server, flags.log()) {
            Ok(telemetry) => telemetry,
            Err(error) => return fail(&error),
        };
        let outcome = Box::pin(run(flags)).await;
        telemetry.finish().await;
        match outcome {
            Ok(Stopped::Done(())) => ExitCode::SUCCESS,
            Ok(Stopped::AtOnce) => ExitCode::from(130),
            Err(error) => fail(error.as_ref()),
        }
    });
    // Does not wait for blocking work under way, such as hashing.
    runtime.shutdown_background();
    code
}

async fn run(flags: Flags) -> Result<Stopped<()>, Box<dyn Error>> {
    raise_descriptor_limit();
    report_file_size_limit();
    let address = flags.listen();
    let config = flags.into_config()?;
    let listener = listen(&address).await?;
    let bound = listener.local_addr()?;
    let node = Node::open(config, listener)?;
    progress::show(node.handle());
    // The listener queues connections from now on.
    announce(bound);
    match until_stopped(async |stop| Box::pin(node.run(stop)).await).await? {
        Stopped::Done(done) => done.map(Stopped::Done).map_err(Into::into),
        Stopped::AtOnce => Ok(Stopped::AtOnce),
    }
}

fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if error.is::<TelemetryError>() {
        return Some("see --help for --log, and OpenTelemetry's documentation for OTEL_*");
    }
    if let Some(error) = error.downcast_ref::<ListenError>() {
        return Some(error.hint());
    }
    match error.downcast_ref::<NodeError>()? {
        NodeError::State(StateError::Locked { .. }) | NodeError::Share(ShareError::StateInUse { .. }) => {
            Some("give each peer its own folder with --state")
        }
        NodeError::State(StateError::Io { .. }) | NodeError::Share(ShareError::State { .. }) => {
            Some("free space on its disk (and see ulimit -f), or choose a folder that this user can write to with --state")
        }
        NodeError::Share(_) => Some("give a folder that this user can read with --share"),
        _ => None,
    }
}

/// Whether a flag or a variable is not valid, which is wrong usage.
fn is_usage(error: &(dyn Error + 'static)) -> bool {
    error.is::<InvalidField>() || error.is::<TelemetryError>() || matches!(error.downcast_ref(), Some(NodeError::Config(_)))
}

/// Says why the program ends. The exit code is 2 for wrong usage and 1 otherwise.
fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    report_failure(error, hint(error));
    if is_usage(error) { ExitCode::from(2) } else { ExitCode::FAILURE }
}
