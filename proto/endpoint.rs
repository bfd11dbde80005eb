//! Addresses that others can dial.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::field::{InvalidField, Quoted};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

/// Longest host of an endpoint, in bytes: a DNS name (RFC 1035, section 2.3.4).
pub const HOST_MAX_BYTES: usize = 253;

/// Most digits of a port: 65535 has five.
const PORT_MAX_DIGITS: usize = 5;

/// `HOST:PORT`, where the host is an IPv4 address, an IPv6 address in brackets, or a DNS name, and the port is not 0. Each
/// address and port has one spelling, so the text is never longer than the host may be and `:65535`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    text: Arc<str>,
    /// Position of the colon before the port in `text`.
    colon: u16,
    port: u16,
}

impl Endpoint {
    /// `HOST:PORT`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host without brackets.
    pub fn host(&self) -> &str {
        self.text[..usize::from(self.colon)].trim_start_matches('[').trim_end_matches(']')
    }

    /// The host, if it is an IP address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Endpoint {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let wrong = |problem: String| Err(InvalidField::new("endpoint", problem));
        if text.is_empty() {
            return wrong("is empty; give the address others can dial, as HOST:PORT".into());
        }
        if text.contains("://") {
            return wrong(format!("{} has a scheme; an endpoint is HOST:PORT without one", Quoted(text)));
        }
        if text.starts_with('[') && text.ends_with(']') {
            return wrong(format!("{} has no port; write [ADDRESS]:PORT", Quoted(text)));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return wrong(format!("{} has no port; write HOST:PORT", Quoted(text)));
        };
        let bare = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(inner)) => inner,
            Some(None) => return wrong(format!("{} has an unclosed bracket", Quoted(text))),
            None if host.contains(':') => {
                return wrong(format!("{} looks like an IPv6 address; write it in brackets, [ADDRESS]:PORT", Quoted(text)));
            }
            None => host,
        };
        if bare.len() > HOST_MAX_BYTES {
            return wrong(format!("host of {} bytes; at most {HOST_MAX_BYTES} fit", bare.len()));
        }
        if let Some((address, zone)) = bare.split_once('%')
            && address.parse::<Ipv6Addr>().is_ok()
        {
            return wrong(format!(
                "{} has the zone {}, which other machines do not know; give an address without one",
                Quoted(text),
                Quoted(zone)
            ));
        }
        let ip = bare.parse::<IpAddr>();
        // The system dials an IPv4-mapped IPv6 address as that IPv4 address.
        match (ip.as_ref().map(IpAddr::to_canonical), host.starts_with('[')) {
            (Ok(ip), _) if ip.is_unspecified() => {
                return wrong(format!(
                    "{} is a wildcard address, which cannot be dialled; give the address at which others reach this machine",
                    Quoted(text)
                ));
            }
            (Ok(_), true) if bare.parse::<Ipv4Addr>().is_ok() => {
                return wrong(format!("{} has brackets around an IPv4 address", Quoted(text)));
            }
            (Ok(ip), _) if ip.is_multicast() => {
                return wrong(format!("{} is a multicast address", Quoted(text)));
            }
            (Ok(ip), _) if is_metadata_service(ip) => {
                return wrong(format!("{} is an address of a cloud's metadata service, and no peer", Quoted(text)));
            }
            (Ok(IpAddr::V4(Ipv4Addr::BROADCAST)), _) => {
                return wrong(format!("{} is a broadcast address", Quoted(text)));
            }
            (Ok(_), _) => {}
            (Err(_), true) => {
                return wrong(format!("{} has no IPv6 address in its brackets", Quoted(text)));
            }
            // Digits and dots that are no address, such as 1.2.3 or 300.1.1.1, are no DNS name either.
            (Err(_), false) if bare.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                return wrong(format!("{} has no valid host", Quoted(text)));
            }
            (Err(_), false) => valid_dns_name(bare, text)?,
        }
        let digits = port.len() <= PORT_MAX_DIGITS && port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
        let Some(port) = port.parse::<u16>().ok().filter(|_| digits) else {
            return wrong(format!("{} has no valid port; ports are 1 to 65535, without leading zeros", Quoted(text)));
        };
        if let Ok(ip) = ip {
            return Ok(SocketAddr::new(ip, port).into());
        }
        let colon = u16::try_from(host.len()).map_err(|_| InvalidField::new("endpoint", "is too long"))?;
        Ok(Self { text: text.into(), colon, port })
    }
}

/// Host names as in RFC 1123, section 2.1, and with underscores, which container networks use.
fn valid_dns_name(host: &str, whole: &str) -> Result<(), InvalidField> {
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.trim_end_matches('.').split('.').all(label_ok) && !host.ends_with("..") {
        Ok(())
    } else {
        Err(InvalidField::new("endpoint", format!("{} has no valid host name", Quoted(whole))))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<SocketAddr> for Endpoint {
    /// The caller checks that the address can be dialled: no wildcard, no port 0.
    fn from(address: SocketAddr) -> Self {
        let text = address.to_string();
        // An address is at most 47 bytes of text.
        let colon = text.rfind(':').and_then(|at| u16::try_from(at).ok()).unwrap_or(0);
        Self { text: text.into(), colon, port: address.port() }
    }
}

/// `HOST:PORT` to listen on: unlike an [`Endpoint`] it may be a wildcard address, have port 0, which picks a free one, or an IPv6 zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// Without brackets.
    host: Box<str>,
    port: u16,
}

impl ListenAddress {
    /// An IP address without brackets, or a host name to resolve.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 picks a free one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host with another port.
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string().into(), port: address.port() }
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let wrong = |problem: String| InvalidField::new("listen", problem);
        if text.contains("://") {
            return Err(wrong(format!("{} has a scheme; write HOST:PORT without one", Quoted(text))));
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong(format!(
                "{} is a port without a host; write 127.0.0.1:{text}, or 0.0.0.0:{text} for every interface",
                Quoted(text)
            )));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(wrong(format!("{} has no port; write [{text}]:PORT", Quoted(text))));
        }
        let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
            let host = if text.is_empty() { "127.0.0.1" } else { text };
            return Err(wrong(format!("{} has no port; write HOST:PORT, such as {host}:7900", Quoted(text))));
        };
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let Some(port) = port.parse::<u16>().ok().filter(|_| digits) else {
            return Err(wrong(format!("{} has no valid port; ports are 0 to 65535, and 0 picks a free one", Quoted(text))));
        };
        if host.is_empty() {
            let problem = "has no host; write 127.0.0.1:PORT, or 0.0.0.0:PORT for every interface";
            return Err(wrong(format!("{} {}", Quoted(text), problem.replace("PORT", &port.to_string()))));
        }
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match bracketed {
            Some(inner) if inner.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) => {
                Ok(Self { host: inner.into(), port })
            }
            Some(_) => Err(wrong(format!("{} has no IPv6 address in its brackets", Quoted(text)))),
            None if host.contains([':', '[', ']']) => {
                Err(wrong(format!("{} looks like an IPv6 address; write it in brackets, [ADDRESS]:PORT", Quoted(text))))
            }
            None => {
                if host.parse::<Ipv4Addr>().is_err() {
                    valid_dns_name(host, text).map_err(|error| InvalidField { field: "listen", ..error })?;
                }
                Ok(Self { host: host.into(), port })
            }
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The addresses that count as one client: a single IPv4 address, or the /64 network of an IPv6 address, which one host usually has to
/// itself (RFC 6177).
pub fn client_network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Whether this is an address at which clouds serve the secrets of a machine to whoever calls from it: link-local ones of Amazon, Google,
/// Microsoft, Oracle, DigitalOcean and others (169.254.169.254, 169.254.170.2 and their neighbours), and those of Alibaba (100.100.100.200),
/// Azure (168.63.129.16), Oracle (192.0.0.192), and Amazon and Google for IPv6. A peer never dials them, whoever names them and however they
/// are found: a name may resolve to anything.
pub fn is_metadata_service(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            matches!(ip.octets(), [169, 254, 169 | 170, _] | [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192])
        }
        // fd00:ec2::/32 of Amazon, fd20:ce::254 of Google.
        IpAddr::V6(ip) => matches!(ip.segments(), [0xfd00, 0x0ec2, ..] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_metadata_services_are_refused_in_every_spelling() {
        for text in [
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "169.254.170.2:80",
            "100.100.100.200:80",
            "168.63.129.16:80",
            "[fd00:ec2::254]:80",
            "[fd20:ce::254]:80",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.to_string().contains("metadata service"), "{text}: {error}");
        }
        for text in ["169.254.1.7:80", "[fe80::1]:80", "[fd00:ec3::1]:80"] {
            assert!(text.parse::<Endpoint>().is_ok(), "{text}");
        }
    }

    #[test]
    fn addresses_and_names_with_a_port_are_endpoints() {
        for (text, host, port) in [
            ("127.0.0.1:7801", "127.0.0.1", 7801),
            ("[::1]:1", "::1", 1),
            ("peer-0.peers.default.svc:65535", "peer-0.peers.default.svc", 65535),
            ("my_box:80", "my_box", 80),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port(), endpoint.as_str()), (host, port, text));
        }
    }

    #[test]
    fn an_address_has_one_spelling() {
        for (written, text) in [("[0000:0::0001]:80", "[::1]:80"), ("[2001:DB8::A]:80", "[2001:db8::a]:80")] {
            let endpoint: Endpoint = written.parse().unwrap();
            assert_eq!((endpoint.as_str(), endpoint.port()), (text, 80));
        }
    }

    #[test]
    fn endpoints_that_cannot_be_dialled_are_refused_with_the_reason() {
        for (text, expected) in [
            ("", "is empty"),
            ("host", "no port"),
            ("host:", "ports are 1 to 65535"),
            ("host:0", "ports are 1 to 65535"),
            ("host:70000", "ports are 1 to 65535"),
            ("host:+80", "ports are 1 to 65535"),
            ("0.0.0.0:80", "wildcard"),
            ("[::]:80", "wildcard"),
            ("224.0.0.1:80", "multicast"),
            ("::1:80", "in brackets"),
            ("[::1:80", "unclosed"),
            ("[::1]", "no port; write [ADDRESS]:PORT"),
            ("[fe80::1%eth0]:80", "has the zone \"eth0\""),
            ("fe80::1%eth0", "in brackets"),
            ("300.1.1.1:80", "no valid host"),
            ("a b:80", "no valid host name"),
            ("http://a:80", "HOST:PORT without"),
            ("host:080", "leading zeros"),
            (&format!("10.0.0.1:{}80", "0".repeat(16_000)), "leading zeros"),
            ("[::ffff:0.0.0.0]:80", "wildcard"),
            ("[::ffff:224.0.0.1]:80", "multicast"),
            ("255.255.255.255:80", "broadcast"),
            ("[10.0.0.1]:80", "around an IPv4"),
            (":80", "no valid host"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error.field, "endpoint");
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_to_listen_on_may_be_names_wildcards_and_have_port_0() {
        for (text, host, port) in [
            ("localhost:7900", "localhost", 7900),
            ("127.0.0.1:0", "127.0.0.1", 0),
            ("0.0.0.0:7801", "0.0.0.0", 7801),
            ("[::]:7801", "::", 7801),
            ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!((address.host(), address.port(), address.to_string().as_str()), (host, port, text));
        }
    }

    #[test]
    fn addresses_that_cannot_be_listened_on_are_refused_with_the_right_form() {
        for (text, said) in [
            ("7900", "write 127.0.0.1:7900"),
            (":7900", "write 127.0.0.1:7900"),
            ("localhost", "such as localhost:7900"),
            ("", "such as 127.0.0.1:7900"),
            ("::1", "write [::1]:PORT"),
            ("[::1]", "no port"),
            ("::1:7900:x", "ports are 0 to 65535"),
            ("fe80::1%eth0:80", "in brackets"),
            ("localhost:70000", "ports are 0 to 65535"),
            ("localhost:+1", "ports are 0 to 65535"),
            ("http://localhost:7900", "without one"),
            ("a b:80", "no valid host name"),
            ("[10.0.0.1]:80", "no IPv6 address"),
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert_eq!(error.field, "listen");
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_client_is_one_ipv4_address_or_one_ipv6_network() {
        let client_network = |text: &str| super::client_network(text.parse().unwrap());
        assert_eq!(client_network("::ffff:10.0.0.1"), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(client_network("2001:db8::1:2:3:4"), client_network("2001:db8::ffff:0:0:1"));
        assert_ne!(client_network("2001:db8:0:1::1"), client_network("2001:db8:0:2::1"));
    }
}
