//! Reads the configuration again on SIGHUP.

use super::{
    error::ConfigurationError,
    read::{Loaded, Program, Read, read},
};
use crate::platform::Hangups;
use clap::Parser;
use std::{collections::BTreeMap, convert::Infallible, ffi::OsString, io, path::PathBuf, sync::Arc};
use tokio::task::spawn_blocking;

/// A configuration that is read again.
pub struct Reload {
    program: &'static Program,
    arguments: Arc<[OsString]>,
    file: Option<PathBuf>,
    values: BTreeMap<String, Vec<String>>,
    hangups: Hangups,
}

impl Reload {
    /// Of the configuration that `program` read from `arguments`. From now on SIGHUP does not end the process. Call it inside the tokio
    /// runtime.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn new<F>(program: &'static Program, arguments: Vec<OsString>, loaded: &Loaded<F>) -> io::Result<Self> {
        let hangups = Hangups::listen()?;
        let (file, values) = (loaded.file.clone(), loaded.values.clone());
        Ok(Self { program, arguments: arguments.into(), file, values, hangups })
    }

    /// On each SIGHUP reads the configuration again and gives it to `apply`, which takes over the flags in `live` and says why it cannot. What
    /// cannot be read or applied is logged and changes nothing.
    pub async fn run<F>(mut self, live: &[&str], mut apply: impl FnMut(F) -> Result<(), String>) -> Infallible
    where
        F: Parser + Send + 'static,
    {
        loop {
            self.hangups.next().await;
            let loaded = match self.read_again().await {
                Ok(loaded) => loaded,
                Err(error) => {
                    tracing::error!(%error, "the configuration was not read again; the values from before stay");
                    continue;
                }
            };
            let Loaded { flags, values, .. } = loaded;
            if let Err(error) = apply(flags) {
                tracing::error!(%error, "the configuration was read again and cannot be used; the values from before stay");
                continue;
            }
            let changed = |(key, value): &(&String, &Vec<String>)| self.values.get(*key) != Some(*value);
            let changed: Vec<_> = values.iter().filter(changed).map(|(key, _)| key.as_str()).collect();
            let (taken, later): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| live.contains(key));
            let file = self.file.as_ref().map_or_else(|| "none".to_owned(), |file| file.display().to_string());
            tracing::info!(file, changed = taken.join(", "), "the configuration was read again");
            if !later.is_empty() {
                tracing::warn!(keys = later.join(", "), "these values have changed in the configuration; they need a restart");
            }
            self.values = values;
        }
    }

    async fn read_again<F: Parser + Send + 'static>(&self) -> Result<Loaded<F>, String> {
        let (program, arguments) = (self.program, Arc::clone(&self.arguments));
        let reading = spawn_blocking(move || read(program, &arguments).map_err(|error| text(&error)));
        match reading.await.map_err(|error| error.to_string())?? {
            Read::Run(loaded) => Ok(loaded),
            Read::Print(_) => Err("--print-config is given".to_owned()),
        }
    }
}

/// An error in one line of a log.
fn text(error: &ConfigurationError) -> String {
    error.to_string().trim_end().replace('\n', "; ")
}
