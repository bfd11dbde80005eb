//! The program `peerd`: parses flags, binds, runs until a signal, drains.

mod failure;
mod flags;
mod progress;

use crate::{config::NodeConfig, node::Node};
use failure::fail;
use flags::{Flags, PROGRAM};
use p2pdi::{
    configuration::{Loaded, Read, Reload, read},
    platform::{raise_descriptor_limit, report_file_size_limit},
    server::{Stopped, announce, listen, print, report_usage, until_stopped},
    telemetry::{self, LogFilter, Role},
};
use std::{env, error::Error, process::ExitCode};
use tokio::runtime::Runtime;

/// Runs the program with the arguments of this process, and returns its exit code: 2 for wrong usage and 1 for other failures.
#[must_use]
pub fn main() -> ExitCode {
    let loaded = match read::<Flags>(&PROGRAM, &env::args_os().collect::<Vec<_>>()) {
        Ok(Read::Run(loaded)) => loaded,
        Ok(Read::Print(text)) => return print(text),
        Err(error) => return report_usage(&error),
    };
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = runtime.block_on(async {
        let telemetry = match telemetry::init("peerd", Role::Server, loaded.flags.log()) {
            Ok(telemetry) => telemetry,
            Err(error) => return fail(&error),
        };
        let outcome = Box::pin(run(loaded, telemetry.filter())).await;
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

async fn run(loaded: Loaded<Flags>, filter: LogFilter) -> Result<Stopped<()>, Box<dyn Error>> {
    raise_descriptor_limit();
    report_file_size_limit();
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let reload = Reload::new(&PROGRAM, env::args_os().collect(), &loaded)?;
    let mut flags = loaded.flags;
    let address = flags.listen();
    let health_address = flags.health_listen().cloned();
    let (tls, enrolment) = flags.certificates().await?;
    let config = NodeConfig { enrolment, ..flags.into_config(tls.clone())? };
    let listener = listen(&address).await?;
    let bound = listener.local_addr()?;
    let health = match &health_address {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let mut node = Node::open(config, listener)?;
    if let Some(health) = health {
        node = node.with_health(health);
    }
    progress::show(node.handle());
    // The listener queues connections from now on.
    announce(bound);
    let handle = node.handle();
    let reloading = reload.run(flags::LIVE, |flags: Flags| flags.apply(&handle, tls.as_ref(), &filter));
    let running = until_stopped(async |stop| {
        tokio::select! {
            done = Box::pin(node.run(stop)) => done,
            never = reloading => match never {},
        }
    });
    match running.await? {
        Stopped::Done(done) => done.map(Stopped::Done).map_err(Into::into),
        Stopped::AtOnce => Ok(Stopped::AtOnce),
    }
}
