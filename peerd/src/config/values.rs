//! Settings as users write them.

use p2pdi::{endpoint::Endpoint, field::InvalidField};

/// Default port of a peer.
pub const PORT_DEFAULT: u16 = 7801;
/// Default address of the registry.
pub const REGISTRY_DEFAULT: &str = "http://127.0.0.1:7800";

/// Reads the address of a registry: `http://HOST:PORT` or `HOST:PORT`.
///
/// # Errors
/// When the text is neither.
pub fn parse_registry(text: &str) -> Result<Endpoint, InvalidField> {
    if text.starts_with("https://") {
        return Err(InvalidField::new("registry", "TLS is not supported yet; write http://HOST:PORT"));
    }
    let rest = text.strip_prefix("http://").unwrap_or(text);
    rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|error: InvalidField| error.in_field("registry"))
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
        assert_eq!(parse_registry("http://r:7800/").unwrap().as_str(), "r:7800");
        assert_eq!(parse_registry("r:7800").unwrap().as_str(), "r:7800");
        for text in ["https://r:1", "http://", "r", "ftp://r:1", "http://r:0"] {
            assert_eq!(parse_registry(text).unwrap_err().field, "registry", "{text}");
        }
    }
}
