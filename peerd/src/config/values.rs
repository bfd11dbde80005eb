//! Settings as users write them.

use p2pdi::{endpoint::Endpoint, field::InvalidField};
use std::{fmt, path::PathBuf, str::FromStr};

/// Default port of a peer.
pub const PORT_DEFAULT: u16 = 7801;
/// Default address of the registry.
pub const REGISTRY_DEFAULT: &str = "http://127.0.0.1:7800";

/// The address of a registry as users write it: `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`. A program with certificates uses
/// TLS whatever the scheme says; without certificates `https://` is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryUrl {
    /// Where it is.
    pub endpoint: Endpoint,
    /// It begins with `https://`.
    pub needs_tls: bool,
}

impl RegistryUrl {
    /// The address, for a program that has certificates or none.
    ///
    /// # Errors
    /// When the address begins with `https://`, and the program has none.
    pub fn checked(&self, has_tls: bool) -> Result<&Endpoint, InvalidField> {
        if self.needs_tls && !has_tls {
            let problem = "https:// needs certificates; give --tls-ca, --tls-cert and --tls-key, or write http://HOST:PORT";
            return Err(InvalidField::new("registry", problem));
        }
        Ok(&self.endpoint)
    }
}

impl FromStr for RegistryUrl {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let secured = text.strip_prefix("https://");
        if let Some((scheme, _)) = text.split_once("://").filter(|(scheme, _)| !matches!(*scheme, "http" | "https")) {
            let problem =
                format!("begins with {}://; write http://HOST:PORT, https://HOST:PORT or HOST:PORT", scheme.escape_default());
            return Err(InvalidField::new("registry", problem));
        }
        let rest = secured.or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        let endpoint = rest.strip_suffix('/').unwrap_or(rest).parse();
        let endpoint = endpoint.map_err(|error: InvalidField| error.in_field("registry"))?;
        Ok(Self { endpoint, needs_tls: secured.is_some() })
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.needs_tls { "https" } else { "http" }, self.endpoint)
    }
}

/// The addresses of replicas, for a program that has certificates or none.
///
/// # Errors
/// As [`RegistryUrl::checked`].
pub fn checked_registries(urls: &[RegistryUrl], has_tls: bool) -> Result<Vec<Endpoint>, InvalidField> {
    urls.iter().map(|url| url.checked(has_tls).cloned()).collect()
}

/// The folder of `--state`. `memory`, which a registry takes, would be a folder of that name.
///
/// # Errors
/// When it is that word.
pub fn checked_state(folder: PathBuf) -> Result<PathBuf, InvalidField> {
    match folder.as_os_str() == "memory" {
        true => Err(InvalidField::new(
            "state",
            "a registry can keep its state in memory, a peer has a folder; give one, or write ./memory for a folder of that name",
        )),
        false => Ok(folder),
    }
}

/// Reads a label: `KEY=VALUE`.
///
/// # Errors
/// When there is no `=`.
pub fn parse_label(text: &str) -> Result<(String, String), InvalidField> {
    let (key, value) = text.split_once('=').ok_or_else(|| InvalidField::new("label", "write KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_a_url_or_an_address() {
        for text in ["http://r:7800/", "https://r:7800", "r:7800"] {
            assert_eq!(text.parse::<RegistryUrl>().unwrap().checked(true).unwrap().as_str(), "r:7800");
        }
        for text in ["https://", "http://", "r", "ftp://r:1", "http://r:0"] {
            assert_eq!(text.parse::<RegistryUrl>().unwrap_err().field, "registry", "{text}");
        }
    }

    #[test]
    fn another_scheme_is_refused_with_those_that_are_taken() {
        for text in ["ftp://r:1", "HTTP://r:1", "tcp://r:1"] {
            let error = text.parse::<RegistryUrl>().unwrap_err().to_string();
            assert!(error.contains("write http://HOST:PORT, https://HOST:PORT or HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn the_word_that_a_registry_takes_is_no_folder_of_a_peer() {
        assert!(checked_state("memory".into()).unwrap_err().to_string().contains("./memory"));
        for folder in ["./memory", "state/memory", "Memory"] {
            assert_eq!(checked_state(folder.into()), Ok(folder.into()));
        }
    }

    #[test]
    fn a_registry_with_tls_needs_certificates() {
        let url: RegistryUrl = "https://r:7800".parse().unwrap();
        assert_eq!(url.to_string(), "https://r:7800");
        assert!(url.checked(false).unwrap_err().to_string().contains("--tls-ca"));
        assert!("r:7800".parse::<RegistryUrl>().unwrap().checked(false).is_ok());
    }
}
