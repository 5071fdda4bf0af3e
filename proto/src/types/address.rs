//! `HOST:PORT` as users write it; resolved only by whoever connects.

use std::fmt;
use std::str::FromStr;

/// A host name or address and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// Text that is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an address: {0:?}: expected HOST:PORT, for example 127.0.0.1:9000")]
pub struct BadAddress(pub String);

impl FromStr for HostPort {
    type Err = BadAddress;
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.chars().take(300).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) => inner,
            None if host.contains([':', '[', ']']) => return Err(bad()),
            None => host,
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        if host.is_empty() || host.len() > 255 || host.contains(odd) || port.starts_with('+') {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| bad())? })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<std::net::SocketAddr> for HostPort {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_through_text() {
        for text in ["127.0.0.1:9000", "[::1]:9000", "node-7.example:1", "localhost:0"] {
            assert_eq!(text.parse::<HostPort>().map(|a| a.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn text_of_another_shape_is_refused() {
        for text in ["", ":1", "host", "host:", "host:65536", "host:+1", "::1:9000", "a b:1", "http://h:1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?} was taken for an address");
        }
    }
}
