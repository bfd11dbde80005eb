//! The program's command line.

use crate::{
    AuthorityConfig, Config, NAME_HOLD_MAX, PEERS_MAX, RegistryHandle, State, TTL_MAX, TTL_MIN,
    ca::{CERTIFICATE_LIFE, CaSettings},
    store::{EtcdAddress, EtcdFiles},
};
use clap::{Parser, ValueEnum, builder::BoolishValueParser};
use p2pdi::{
    configuration::{Program, Variables},
    endpoint::{Endpoint, ListenAddress},
    field::InvalidField,
    network::NetworkName,
    server::HttpToken,
    telemetry::{LogFilter, LogFormat, LogOptions},
    tls::{ClientAuth, Tls, TlsError, TlsFiles},
};
use std::{fmt, path::PathBuf, time::Duration};

// No line is longer than 80 characters: clap would break it, and a pasted command with it.
const EXAMPLES: &str = "\
Examples:
  registry                                listen on 127.0.0.1:7800, keep records
  registry --listen 0.0.0.0:7800 --state /var/lib/p2pdi
  registry --listen 127.0.0.1:0 --state memory --ttl 5s
  registry --ca ./ca                      give certificates for join tokens
  curl http://127.0.0.1:7800/             active peers
  grpcurl -plaintext 127.0.0.1:7800 list  what can be called

Every flag can be given as an environment variable or in a file too (--config):
flags win over variables, and these over the file. `registry man` prints the
manual page, `registry completions SHELL` a completion script. Traces go to the
endpoint of the standard OTEL_* variables.
The name, address and labels of a peer are known to everyone who can reach the
registry.";

/// [`CA_ROTATE_AFTER`](crate::ca::CA_ROTATE_AFTER), in days: humantime has months and hours for it.
const ROTATE_AFTER: &str = "365days";

/// Flags that SIGHUP changes while the program runs.
pub(crate) const LIVE: &[&str] = &["log", "max-peers", "max-peers-per-address"];

/// How the configuration is read.
pub(crate) static PROGRAM: Program = Program::new(Variables {
    prefix: "P2PDI_REGISTRY_",
    old: &["LISTEN", "STATE", "TTL", "MAX_PEERS", "MAX_PEERS_PER_ADDRESS", "MAX_CONNECTIONS", "GRACE", "LOG"],
    renamed: &[],
    also: &[("RUST_LOG", "P2PDI_REGISTRY_LOG")],
});

/// The registry of P2P-DI: knows which peers are alive.
///
/// Peers take a lease on a name and keep it alive; others query the active peers. An acknowledged registration is on disk.
#[derive(Debug, Clone, Parser)]
#[command(name = "registry", version, after_help = EXAMPLES)]
pub(crate) struct Flags {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "P2PDI_REGISTRY_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7800")]
    pub(crate) listen: ListenAddress,

    /// The network whose peers it keeps; callers of others are refused
    #[arg(long, env = "P2PDI_REGISTRY_NETWORK", value_name = "NAME", default_value_t)]
    network: NetworkName,

    /// Folder for the records, or `memory` to keep nothing across a restart; required where neither XDG_STATE_HOME nor HOME is set and the store is not etcd
    #[arg(long, env = "P2PDI_REGISTRY_STATE", value_name = "DIR|memory", default_value = State::of_user(),
        required_unless_present_any = State::of_user().is_none().then_some("etcd_endpoints"))]
    state: Option<State>,

    /// Where records are kept: in the folder --state, or in etcd, which any number of registries share
    #[arg(long, env = "P2PDI_REGISTRY_STORE", value_name = "embedded|etcd", value_enum, default_value_t)]
    store: StoreKind,

    /// URLs of etcd's members, for --store etcd; several with commas. https:// needs --etcd-ca
    #[arg(
        long = "etcd-endpoints",
        env = "P2PDI_REGISTRY_ETCD_ENDPOINTS",
        value_name = "URL",
        value_delimiter = ',',
        required_if_eq("store", "etcd"),
        value_parser = etcd_url
    )]
    etcd_endpoints: Vec<String>,

    /// What all keys in etcd begin with; registries with the same are replicas of one
    #[arg(long, env = "P2PDI_REGISTRY_ETCD_PREFIX", value_name = "PREFIX", default_value = "/p2pdi")]
    etcd_prefix: String,

    /// The CA of etcd's members, as PEM
    #[arg(long, env = "P2PDI_REGISTRY_ETCD_CA", value_name = "FILE")]
    etcd_ca: Option<PathBuf>,

    /// The certificate to show to etcd, as PEM
    #[arg(long, env = "P2PDI_REGISTRY_ETCD_CERT", value_name = "FILE", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,

    /// The key of that certificate, as PEM
    #[arg(long, env = "P2PDI_REGISTRY_ETCD_KEY", value_name = "FILE", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,

    /// User and password for etcd
    #[arg(long, env = "P2PDI_REGISTRY_ETCD_USER", value_name = "NAME:PASSWORD", hide_env_values = true, value_parser = user)]
    etcd_user: Option<User>,

    /// Where other replicas reach this one [default: where it listens]; for --store etcd
    #[arg(long, env = "P2PDI_REGISTRY_REPLICA_ADDRESS", value_name = "HOST:PORT")]
    replica_address: Option<Endpoint>,

    /// How long a peer stays active after its last call; it grows with the number of peers
    #[arg(long, env = "P2PDI_REGISTRY_TTL", value_name = "DURATION", default_value_t = Config::default().ttl.into(), value_parser = ttl)]
    ttl: humantime::Duration,

    /// Most peers to keep; inactive ones are evicted for new ones
    #[arg(long, env = "P2PDI_REGISTRY_MAX_PEERS", value_name = "N", default_value_t = Config::default().max_peers,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(PEERS_MAX)))]
    max_peers: u32,

    /// Leases that callers from one address (one /64 of IPv6) may hold at once; loopback is exempt
    #[arg(long, env = "P2PDI_REGISTRY_MAX_PEERS_PER_ADDRESS", value_name = "N", default_value_t = Config::default().max_peers_per_address,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_peers_per_address: u32,

    /// How long a name stays reserved for its cookie after a Leave and after the end of its lease, at most 24h
    #[arg(long, env = "P2PDI_REGISTRY_NAME_HOLD", value_name = "DURATION", default_value_t = Config::default().name_hold.into(), value_parser = name_hold)]
    name_hold: humantime::Duration,

    /// Host name by which browsers and curl may call it, beside its addresses, localhost and this machine's name; may be given several times
    #[arg(long = "http-host", env = "P2PDI_REGISTRY_HTTP_HOSTS", value_name = "NAME", value_delimiter = ',')]
    http_hosts: Vec<String>,

    /// File with a token of 16 characters or more: who sends it as `Authorization: Bearer TOKEN`, or gives it at /login, may see the page from
    /// other machines, as from this one
    #[arg(long, env = "P2PDI_REGISTRY_HTTP_TOKEN", value_name = "FILE")]
    http_token: Option<PathBuf>,

    /// One more address, in plain HTTP, that serves /healthz, /readyz, /metrics and gRPC health only: for kubelets and Prometheus
    #[arg(long, env = "P2PDI_REGISTRY_HEALTH_LISTEN", value_name = "HOST:PORT")]
    pub(crate) health_listen: Option<ListenAddress>,

    /// Most connections to hold; one more is closed at once
    #[arg(long, env = "P2PDI_REGISTRY_MAX_CONNECTIONS", value_name = "N", default_value_t = Config::default().max_connections)]
    max_connections: usize,

    /// Most connections of one address (one /64 of IPv6) [default: a quarter of --max-connections]
    #[arg(long, env = "P2PDI_REGISTRY_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    max_connections_per_address: Option<usize>,

    /// Let callers register any endpoint, not only one with the address they call from; for peers behind proxies and NATs
    #[arg(long, env = "P2PDI_REGISTRY_ALLOW_FOREIGN_ENDPOINTS", value_parser = BoolishValueParser::new())]
    allow_foreign_endpoints: bool,

    /// The registry's certificate, as PEM, followed by those of intermediate CAs; with it every connection has TLS. It is for the host
    /// that others dial, or has the URI spiffe://NETWORK/registry
    #[arg(long, env = "P2PDI_REGISTRY_TLS_CERT", value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,

    /// The key of that certificate, as PEM, readable by its owner only
    #[arg(long, env = "P2PDI_REGISTRY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// The CAs of the network, as PEM
    #[arg(long, env = "P2PDI_REGISTRY_TLS_CA", value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,

    /// Whether callers must show a certificate; `optional`: those without one are served too, as nobody
    #[arg(long, env = "P2PDI_REGISTRY_TLS_CLIENT_AUTH", value_name = "required|optional", default_value_t)]
    tls_client_auth: ClientAuth,

    /// Be a certificate authority, which keeps its keys and tokens in this folder, and serve TLS with it. With --store etcd, which keeps the
    /// tokens, the folder has the key of all replicas, and nothing in it is changed
    #[arg(long, env = "P2PDI_REGISTRY_CA", value_name = "DIR", conflicts_with = "tls_cert")]
    ca: Option<PathBuf>,

    /// Life of the certificates that the authority of --ca gives; they are renewed at two thirds of it
    #[arg(long, env = "P2PDI_REGISTRY_CERTIFICATE_LIFE", value_name = "DURATION", default_value_t = CERTIFICATE_LIFE.into(), value_parser = certificate_life)]
    certificate_life: humantime::Duration,

    /// Age at which the key of the authority of --ca is replaced; the old one stays trusted for 30 days. With --store etcd, `p2pctl ca rotate` makes
    /// the next one
    #[arg(long, env = "P2PDI_REGISTRY_CA_ROTATE_AFTER", value_name = "DURATION", default_value = ROTATE_AFTER, value_parser = rotate_after)]
    ca_rotate_after: humantime::Duration,

    /// How long calls may continue after the first Ctrl-C or SIGTERM
    #[arg(long, env = "P2PDI_REGISTRY_GRACE", value_name = "DURATION", default_value_t = Config::default().grace.into())]
    grace: humantime::Duration,

    /// What to log to standard error, such as `debug` or `info,registry=debug`; RUST_LOG does the same
    #[arg(long, env = "P2PDI_REGISTRY_LOG", value_name = "FILTER", default_value = "info")]
    log: String,

    /// Form of a log line
    #[arg(long, env = "P2PDI_REGISTRY_LOG_FORMAT", value_name = "text|json", default_value_t)]
    log_format: LogFormat,

    /// File with the configuration, in TOML, whose keys are the names of these flags; flags and variables beat it. SIGHUP reads it again
    #[arg(long, env = "P2PDI_REGISTRY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print the effective configuration as such a file, with where each value comes from, and exit
    #[arg(long, env = "P2PDI_REGISTRY_PRINT_CONFIG", value_parser = BoolishValueParser::new())]
    print_config: bool,
}

impl Flags {
    /// The certificates, if files of them are given.
    fn tls(&self) -> Result<Option<Tls>, TlsError> {
        let Some(ca) = self.tls_ca.clone() else { return Ok(None) };
        let files = TlsFiles { cert: self.tls_cert.clone(), key: self.tls_key.clone(), ca };
        Tls::from_files(files, self.tls_client_auth).map(Some)
    }

    fn etcd(&self) -> EtcdAddress {
        EtcdAddress {
            endpoints: self.etcd_endpoints.clone(),
            prefix: self.etcd_prefix.clone(),
            files: EtcdFiles { ca: self.etcd_ca.clone(), identity: self.etcd_cert.clone().zip(self.etcd_key.clone()) },
            user: self.etcd_user.clone().map(|user| (user.name, user.password)),
        }
    }

    /// Takes over what may change while the registry runs ([`LIVE`]), and reads the files of its certificates again.
    ///
    /// # Errors
    /// What cannot be used; then nothing changes.
    pub(crate) fn apply(&self, registry: &RegistryHandle, tls: Option<&Tls>, filter: &LogFilter) -> Result<(), String> {
        LogFilter::check(&self.log).map_err(|error| error.to_string())?;
        tls.map_or(Ok(false), Tls::reload).map_err(|error| error.to_string())?;
        filter.set(&self.log).map_err(|error| error.to_string())?;
        registry.set_limits(self.max_peers, self.max_peers_per_address);
        Ok(())
    }

    /// What to log, and how.
    pub(crate) fn log(&self) -> LogOptions<'_> {
        LogOptions { filter: &self.log, format: self.log_format }
    }
}

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum StoreKind {
    /// In the folder of `--state`.
    #[default]
    Embedded,
    /// In etcd.
    Etcd,
}

/// A user of etcd. Its password is not shown.
#[derive(Clone)]
struct User {
    name: String,
    password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:…", self.name)
    }
}

/// Flags that do not fit together, or to what is on the disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlagsError {
    /// The files of certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of the token cannot be used.
    #[error(transparent)]
    HttpToken(#[from] InvalidField),
    /// The records would not be where the caller thinks.
    #[error(
        "--etcd-endpoints (or P2PDI_REGISTRY_ETCD_ENDPOINTS) is for --store etcd, but the store is embedded; add --store etcd, or leave the endpoints out"
    )]
    NotEtcd,
    /// No member's certificate could be checked.
    #[error("{0} needs --etcd-ca FILE (or P2PDI_REGISTRY_ETCD_CA), the CA of etcd's members")]
    NoEtcdCa(String),
}

impl FlagsError {
    /// Whether the flags are not valid, whatever is on the disk.
    pub(crate) fn is_usage(&self) -> bool {
        !matches!(self, Self::Tls(_))
    }
}

impl TryFrom<Flags> for Config {
    type Error = FlagsError;

    fn try_from(flags: Flags) -> Result<Self, FlagsError> {
        if flags.store != StoreKind::Etcd && !flags.etcd_endpoints.is_empty() {
            return Err(FlagsError::NotEtcd);
        }
        let encrypted = flags.etcd_endpoints.iter().find(|url| url.starts_with(HTTPS));
        if let Some(url) = encrypted.filter(|_| flags.etcd_ca.is_none()) {
            return Err(FlagsError::NoEtcdCa(url.clone()));
        }
        let tls = flags.tls()?;
        let http_token = flags.http_token.as_deref().map(HttpToken::read).transpose()?;
        let etcd = (flags.store == StoreKind::Etcd).then(|| flags.etcd());
        let replica_address = flags.replica_address.clone();
        let Flags {
            listen,
            network,
            state,
            ttl,
            max_peers,
            max_peers_per_address,
            name_hold,
            http_hosts,
            max_connections,
            grace,
            ..
        } = flags;
        let (ttl, name_hold, grace) = (ttl.into(), name_hold.into(), grace.into());
        let authority = flags.ca.map(|folder| {
            let (life, rotate_after) = (flags.certificate_life.into(), flags.ca_rotate_after.into());
            let hosts = vec![listen.host().to_owned()];
            AuthorityConfig { folder, settings: CaSettings { life, rotate_after, hosts, ..CaSettings::default() } }
        });
        Ok(Self {
            network,
            // Without a folder there are endpoints, or the flags are refused.
            state: etcd.map(State::Etcd).or(state).ok_or(FlagsError::NotEtcd)?,
            replica_address,
            ttl,
            max_peers,
            max_peers_per_address,
            name_hold,
            http_hosts,
            http_token,
            max_connections,
            max_connections_per_address: flags.max_connections_per_address,
            allow_foreign_endpoints: flags.allow_foreign_endpoints,
            grace,
            tls,
            authority,
            ..Self::default()
        })
    }
}

fn ttl(text: &str) -> Result<humantime::Duration, String> {
    let ttl: humantime::Duration = text.parse().map_err(|error: humantime::DurationError| error.to_string())?;
    if (TTL_MIN..=TTL_MAX).contains(&*ttl) { Ok(ttl) } else { Err("a ttl is 1s to 24h".into()) }
}

/// How URLs with TLS begin.
const HTTPS: &str = "https://";

/// A URL of a member of etcd; without `http://` it is complemented.
fn etcd_url(text: &str) -> Result<String, String> {
    let (scheme, host) = match text.strip_prefix(HTTPS) {
        Some(host) => (HTTPS, host),
        None => ("http://", text.strip_prefix("http://").unwrap_or(text)),
    };
    let host = host.strip_suffix('/').unwrap_or(host);
    let endpoint: Endpoint = host.parse().map_err(|_| "a member of etcd is HOST:PORT, http://HOST:PORT or https://HOST:PORT")?;
    Ok(format!("{scheme}{endpoint}"))
}

fn user(text: &str) -> Result<User, String> {
    let (name, password) = text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or("a user is NAME:PASSWORD")?;
    Ok(User { name: name.to_owned(), password: password.to_owned() })
}

fn name_hold(text: &str) -> Result<humantime::Duration, String> {
    let hold: humantime::Duration = text.parse().map_err(|error: humantime::DurationError| error.to_string())?;
    if *hold <= NAME_HOLD_MAX { Ok(hold) } else { Err("a name is held for at most 24h".into()) }
}

/// Shorter lives leave no time to renew; longer ones are those of a certificate authority itself.
fn certificate_life(text: &str) -> Result<humantime::Duration, String> {
    let life: humantime::Duration = text.parse().map_err(|error: humantime::DurationError| error.to_string())?;
    let (shortest, longest) = (Duration::from_secs(2), Duration::from_secs(366 * 24 * 60 * 60));
    if (shortest..=longest).contains(&*life) { Ok(life) } else { Err("a certificate lives 2s to 366days".into()) }
}

/// Old authorities are trusted for a month, so there are few at once.
fn rotate_after(text: &str) -> Result<humantime::Duration, String> {
    let age: humantime::Duration = text.parse().map_err(|error: humantime::DurationError| error.to_string())?;
    let (shortest, longest) = (Duration::from_secs(24 * 60 * 60), Duration::from_secs(5 * 366 * 24 * 60 * 60));
    if (shortest..=longest).contains(&*age) { Ok(age) } else { Err("an authority is replaced after 1day to 5years".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_valid() {
        Flags::command().debug_assert();
    }

    #[test]
    fn a_ttl_outside_its_bounds_is_refused() {
        assert_eq!(ttl("30s").map(Into::into), Ok(Config::default().ttl));
        assert!(ttl("0s").is_err() && ttl("2days").is_err() && ttl("soon").is_err() && ttl("30").is_err());
    }

    #[test]
    fn an_authority_is_replaced_after_a_year() {
        assert_eq!(rotate_after(ROTATE_AFTER).map(Into::into), Ok(crate::ca::CA_ROTATE_AFTER));
    }

    #[test]
    fn members_of_etcd_are_urls_of_http() {
        for (text, url) in [
            ("http://10.0.0.1:2379", "http://10.0.0.1:2379"),
            ("https://h1.example:2379/", "https://h1.example:2379"),
            ("h1:2379", "http://h1:2379"),
        ] {
            assert_eq!(etcd_url(text).as_deref(), Ok(url));
        }
        for wrong in ["ftp://h1:2379", "http://h1", "http://h1:2379/path", "http://", ""] {
            assert!(etcd_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn endpoints_of_etcd_without_its_store_or_without_its_ca_are_refused() {
        let config =
            |arguments: &[&str]| Config::try_from(Flags::parse_from([&["registry", "--state", "memory"], arguments].concat()));
        assert!(matches!(config(&["--etcd-endpoints", "http://h1:2379"]), Err(FlagsError::NotEtcd)));
        let encrypted = ["--store", "etcd", "--etcd-endpoints", "http://h1:2379,https://h2:2379"];
        assert!(matches!(config(&encrypted), Err(FlagsError::NoEtcdCa(url)) if url == "https://h2:2379"));
        assert!(config(&[&encrypted[..], &["--etcd-ca", "ca.pem"]].concat()).is_ok());
    }
}
