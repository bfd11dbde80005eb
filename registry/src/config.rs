//! What a registry is told at its start.

use clap::Parser;
use p2pdi::server::Limits;
use std::{convert::Infallible, fmt, net::SocketAddr, path::PathBuf, str::FromStr, sync::LazyLock, time::Duration};

/// Shortest ttl: three KeepAlives a second and peer are storm enough, and a lease ends up to an eighth of a second late.
const TTL_MIN: Duration = Duration::from_secs(1);
/// Longest ttl: a peer that died stays listed that long.
const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

// No line is longer than 80 characters: clap would break it, and a pasted command with it.
const EXAMPLES: &str = "\
Examples:
  registry                                listen on 127.0.0.1:7800, keep records
  registry --listen 0.0.0.0:7800 --state /var/lib/p2pdi
  registry --listen 127.0.0.1:0 --state memory --ttl 5s
  curl http://127.0.0.1:7800/             who is alive
  grpcurl -plaintext 127.0.0.1:7800 list  what can be called

Every flag can be given as an environment variable too; flags win. Traces go
where the standard OTEL_* variables say.
The name, address and labels of a peer are known to everyone who can reach the
registry.";

/// The registry of P2P-DI: knows which peers are alive.
///
/// Peers take a lease on a name and keep it alive; others ask who is there. An acknowledged registration is on disk.
#[derive(Debug, Clone, Parser)]
#[command(name = "registry", version, after_help = EXAMPLES)]
pub struct Config {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "P2PDI_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7800")]
    pub listen: SocketAddr,

    /// Folder for the records, or `memory` to keep nothing across a restart; to be given where neither XDG_STATE_HOME nor HOME says
    /// where the user's state goes
    #[arg(long, env = "P2PDI_STATE", value_name = "DIR|memory", default_value = state_of_user(), required = state_of_user().is_none())]
    pub state: State,

    /// How long a peer stays active after its last call; it grows with the number of peers
    #[arg(long, env = "P2PDI_TTL", value_name = "DURATION", default_value = "30s", value_parser = ttl)]
    pub ttl: Duration,

    /// Peers to keep at most; those that left make room for new ones
    #[arg(long, env = "P2PDI_MAX_PEERS", value_name = "N", default_value_t = 2_000_000,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::table::PEERS_MAX)))]
    pub max_peers: u32,

    /// Leases that callers from one address (one /64 of IPv6) may hold at once; loopback is exempt
    #[arg(long, env = "P2PDI_MAX_PEERS_PER_ADDRESS", value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_peers_per_address: u32,

    /// Connections to hold at most; one more is closed at once
    #[arg(long, env = "P2PDI_MAX_CONNECTIONS", value_name = "N", default_value_t = Limits::default().connections)]
    pub max_connections: usize,

    /// How long calls may go on after the first Ctrl-C or SIGTERM
    #[arg(long, env = "P2PDI_GRACE", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub grace: Duration,

    /// What to log to standard error, such as `debug` or `info,registry=debug` [default: RUST_LOG, or info]
    #[arg(long, env = "P2PDI_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

impl Default for Config {
    /// What the program does without flags, whatever the environment says.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7800)),
            state: State::default(),
            ttl: Duration::from_secs(30),
            max_peers: 2_000_000,
            max_peers_per_address: 100_000,
            max_connections: Limits::default().connections,
            grace: Limits::default().grace,
            log: None,
        }
    }
}

impl Config {
    /// The filter for logs.
    pub fn log_filter(&self) -> String {
        let set = |text: &String| !text.is_empty();
        self.log.clone().filter(set).or_else(|| std::env::var("RUST_LOG").ok().filter(set)).unwrap_or_else(|| "info".into())
    }
}

/// Where records outlive the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nowhere.
    Memory,
    /// In this folder.
    Folder(PathBuf),
}

impl Default for State {
    /// `p2pdi/registry` in the user's state folder (XDG Base Directory specification). Memory for a user that has none: the program
    /// demands `--state` then, and nothing is written to where nobody looks for it.
    fn default() -> Self {
        state_of_user().map_or(Self::Memory, |folder| Self::Folder(folder.into()))
    }
}

/// The folder for a user who names none, if there is one.
fn state_of_user() -> Option<&'static str> {
    static FOLDER: LazyLock<Option<String>> = LazyLock::new(|| {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
        Some(base.join("p2pdi/registry").display().to_string())
    });
    FOLDER.as_deref()
}

impl FromStr for State {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "memory" { Self::Memory } else { Self::Folder(text.into()) })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Folder(folder) => folder.display().fmt(f),
        }
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (TTL_MIN..=TTL_MAX).contains(&ttl) { Ok(ttl) } else { Err("a ttl is 1s to 24h".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound_and_every_flag_has_a_variable() {
        let command = Config::command();
        command.clone().debug_assert();
        for flag in command.get_arguments().filter(|flag| flag.get_id() != "help" && flag.get_id() != "version") {
            let expected = format!("P2PDI_{}", flag.get_id().as_str().to_uppercase());
            assert_eq!(flag.get_env().and_then(|name| name.to_str()), Some(expected.as_str()));
        }
    }

    #[test]
    fn a_ttl_has_bounds() {
        assert_eq!(ttl("30s"), Ok(Duration::from_secs(30)));
        assert!(ttl("0s").is_err() && ttl("2days").is_err() && ttl("soon").is_err() && ttl("30").is_err());
    }
}
