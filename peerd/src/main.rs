//! The program `peerd`: parses flags, binds, runs until a signal, drains.

mod flags;
mod progress;

use clap::Parser as _;
use flags::Flags;
use p2pdi::{
    field::InvalidField,
    platform::raise_descriptor_limit,
    server::{Stopped, until_stopped},
    telemetry,
};
use peerd::node::{Node, NodeError};
use std::{
    error::Error,
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
};
use tokio::{net::TcpListener, runtime::Runtime};

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, None),
    };
    let code = runtime.block_on(async {
        let telemetry = match telemetry::init("peerd", flags.log()) {
            Ok(telemetry) => telemetry,
            Err(error) => return fail(&error, Some("try --log info")),
        };
        let code = match Box::pin(run(flags)).await {
            Ok(Stopped::Done(())) => ExitCode::SUCCESS,
            Ok(Stopped::AtOnce) => ExitCode::from(130),
            Err(error) if is_usage(error.as_ref()) => {
                fail(error.as_ref(), None);
                ExitCode::from(2)
            }
            Err(error) => fail(error.as_ref(), hint(error.as_ref())),
        };
        telemetry.finish().await;
        code
    });
    // Does not wait for blocking work under way, such as hashing.
    runtime.shutdown_background();
    code
}

async fn run(flags: Flags) -> Result<Stopped<()>, Box<dyn Error>> {
    raise_descriptor_limit();
    let address = flags.listen();
    let config = flags.into_config()?;
    let listener = TcpListener::bind(address).await.map_err(|source| CannotListen { address, source })?;
    let bound = listener.local_addr()?;
    let node = Node::open(config, listener)?;
    progress::show(node.handle());
    let mut stdout = io::stdout();
    // The listener queues connections from now on.
    writeln!(stdout, "listening on {bound}").and_then(|()| stdout.flush())?;
    match until_stopped(async |stop| Box::pin(node.run(stop)).await).await? {
        Stopped::Done(done) => done.map(Stopped::Done).map_err(Into::into),
        Stopped::AtOnce => Ok(Stopped::AtOnce),
    }
}

/// The address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
struct CannotListen {
    address: SocketAddr,
    source: io::Error,
}

fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if error.is::<CannotListen>() {
        return Some("stop what listens there, or choose another address with --listen; port 0 picks a free one");
    }
    match error.downcast_ref::<NodeError>()? {
        NodeError::State(peerd::identity::StateError::Locked { .. }) => Some("give each peer its own folder with --state"),
        NodeError::Share(_) => Some("give a folder that this user can read with --share"),
        _ => None,
    }
}

/// Whether a flag is not valid, which is wrong usage.
fn is_usage(error: &(dyn Error + 'static)) -> bool {
    error.is::<InvalidField>() || matches!(error.downcast_ref(), Some(NodeError::Config(_)))
}

fn fail(error: &dyn Error, hint: Option<&str>) -> ExitCode {
    let mut stderr = io::stderr();
    // A failed write cannot be reported.
    let _ = writeln!(stderr, "error: {error}");
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "hint: {hint}");
    }
    ExitCode::FAILURE
}
