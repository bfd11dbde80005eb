//! The program `peerd`: parses flags, binds, runs until a signal, drains.

mod failure;
mod flags;
mod progress;

use crate::{config::NodeConfig, node::Node};
use flags::{Flags, PROGRAM};
use p2pdi::{
    configuration::{Loaded, Reload},
    server::{ServerProgram, Stopped, announce, listen, until_stopped},
    telemetry::LogFilter,
};
use std::{env, error::Error, process::ExitCode};

/// Runs the program with the arguments of this process, and returns its exit code: 2 for wrong usage and 1 for other failures.
#[must_use]
pub fn main() -> ExitCode {
    ServerProgram { name: "peerd", configuration: &PROGRAM, log: Flags::log, judge: failure::judge }.run(run)
}

async fn run(loaded: Loaded<Flags>, filter: LogFilter) -> Result<Stopped<()>, Box<dyn Error>> {
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
