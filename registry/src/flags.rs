//! The program's command line.

use clap::Parser;
use p2pdi::{endpoint::ListenAddress, telemetry::LogFormat};
use registry::{Config, PEERS_MAX, State, TTL_MAX, TTL_MIN};

// No line is longer than 80 characters: clap would break it, and a pasted command with it.
const EXAMPLES: &str = "\
Examples:
  registry                                listen on 127.0.0.1:7800, keep records
  registry --listen 0.0.0.0:7800 --state /var/lib/p2pdi
  registry --listen 127.0.0.1:0 --state memory --ttl 5s
  curl http://127.0.0.1:7800/             active peers
  grpcurl -plaintext 127.0.0.1:7800 list  what can be called

Every flag can be given as an environment variable too; flags win. Traces go
to the endpoint of the standard OTEL_* variables.
The name, address and labels of a peer are known to everyone who can reach the
registry.";

/// The registry of P2P-DI: knows which peers are alive.
///
/// Peers take a lease on a name and keep it alive; others query the active peers. An acknowledged registration is on disk.
#[derive(Debug, Clone, Parser)]
#[command(name = "registry", version, after_help = EXAMPLES)]
pub(crate) struct Flags {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "P2PDI_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7800")]
    pub(crate) listen: ListenAddress,

    /// Folder for the records, or `memory` to keep nothing across a restart; required where neither XDG_STATE_HOME nor HOME is set
    #[arg(long, env = "P2PDI_STATE", value_name = "DIR|memory", default_value = State::of_user(), required = State::of_user().is_none())]
    state: State,

    /// How long a peer stays active after its last call; it grows with the number of peers
    #[arg(long, env = "P2PDI_TTL", value_name = "DURATION", default_value_t = Config::default().ttl.into(), value_parser = ttl)]
    ttl: humantime::Duration,

    /// Most peers to keep; inactive ones are evicted for new ones
    #[arg(long, env = "P2PDI_MAX_PEERS", value_name = "N", default_value_t = Config::default().max_peers,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(PEERS_MAX)))]
    max_peers: u32,

    /// Leases that callers from one address (one /64 of IPv6) may hold at once; loopback is exempt
    #[arg(long, env = "P2PDI_MAX_PEERS_PER_ADDRESS", value_name = "N", default_value_t = Config::default().max_peers_per_address,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_peers_per_address: u32,

    /// Most connections to hold; one more is closed at once
    #[arg(long, env = "P2PDI_MAX_CONNECTIONS", value_name = "N", default_value_t = Config::default().max_connections)]
    max_connections: usize,

    /// How long calls may continue after the first Ctrl-C or SIGTERM
    #[arg(long, env = "P2PDI_GRACE", value_name = "DURATION", default_value_t = Config::default().grace.into())]
    grace: humantime::Duration,

    /// What to log to standard error, such as `debug` or `info,registry=debug` [default: RUST_LOG, or info]
    #[arg(long, env = "P2PDI_LOG", value_name = "FILTER")]
    log: Option<String>,

    /// Form of a log line
    #[arg(long, env = "P2PDI_REGISTRY_LOG_FORMAT", value_name = "text|json", default_value_t)]
    pub(crate) log_format: LogFormat,
}

impl Flags {
    /// The filter for logs.
    pub(crate) fn log_filter(&self) -> String {
        let set = |text: &String| !text.is_empty();
        self.log.clone().filter(set).or_else(|| std::env::var("RUST_LOG").ok().filter(set)).unwrap_or_else(|| "info".into())
    }
}

impl From<Flags> for Config {
    fn from(flags: Flags) -> Self {
        let Flags { listen: _, state, ttl, max_peers, max_peers_per_address, max_connections, grace, log: _, log_format: _ } =
            flags;
        Self { state, ttl: ttl.into(), max_peers, max_peers_per_address, max_connections, grace: grace.into() }
    }
}

fn ttl(text: &str) -> Result<humantime::Duration, String> {
    let ttl: humantime::Duration = text.parse().map_err(|error: humantime::DurationError| error.to_string())?;
    if (TTL_MIN..=TTL_MAX).contains(&*ttl) { Ok(ttl) } else { Err("a ttl is 1s to 24h".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_valid_and_every_flag_has_an_environment_variable() {
        let command = Flags::command();
        command.clone().debug_assert();
        for flag in command.get_arguments().filter(|flag| flag.get_id() != "help" && flag.get_id() != "version") {
            let id = flag.get_id().as_str().to_uppercase();
            let name = flag.get_env().and_then(|name| name.to_str()).unwrap();
            assert!(name == format!("P2PDI_{id}") || name == format!("P2PDI_REGISTRY_{id}"), "{name}");
        }
    }

    #[test]
    fn a_ttl_outside_its_bounds_is_refused() {
        assert_eq!(ttl("30s").map(Into::into), Ok(Config::default().ttl));
        assert!(ttl("0s").is_err() && ttl("2days").is_err() && ttl("soon").is_err() && ttl("30").is_err());
    }
}
