//! The program `registry`: parse, bind, serve, drain.

mod flags;

use crate::{Config, Registry, RegistryError};
use flags::{Flags, FlagsError, PROGRAM};
use p2pdi::{
    configuration::{Loaded, Reload},
    server::{Judgement, ListenError, ServerProgram, Stopped, announce, listen, until_stopped},
    telemetry::LogFilter,
};
use std::{env, error::Error, process::ExitCode};

/// Runs the program with the arguments of this process, and returns its exit code: 2 for wrong usage and 1 for other failures.
#[must_use]
pub fn main() -> ExitCode {
    ServerProgram { name: "registry", configuration: &PROGRAM, log: Flags::log, judge }.run(run)
}

async fn run(loaded: Loaded<Flags>, filter: LogFilter) -> Result<Stopped<()>, Box<dyn Error>> {
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

fn judge(error: &(dyn Error + 'static)) -> Judgement {
    let hint = match error.downcast_ref::<RegistryError>() {
        Some(error) => error.hint(),
        None => error.downcast_ref().map(|error: &ListenError| error.hint().to_owned()),
    };
    Judgement { hint, is_usage: error.downcast_ref().is_some_and(FlagsError::is_usage) }
}
