//! Normalization of the Host header, and comparison with authorities, routes and loopback names.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use http::header::HOST;
use http::uri::Scheme;

use crate::headers::single_value;

/// Returns the host of a Host header in lower case, without port and trailing dot. Returns `None` if the header is
/// invalid.
pub(crate) fn canonical_host(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (inner, after) = rest.split_once(']')?;
        // Formatting normalizes the address. Routes contain it in the same form.
        let address: Ipv6Addr = inner.parse().ok()?;
        (format!("[{address}]"), after.strip_prefix(':').or_else(|| after.is_empty().then_some("0"))?)
    } else {
        let (name, port) = text.split_once(':').unwrap_or((text, "0"));
        let name = name.strip_suffix('.').unwrap_or(name);
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return None;
        }
        (name.to_ascii_lowercase(), port)
    };
    // The length is limited, because a connection keeps its last host.
    let digits = port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    digits.then_some(name)
}

/// Returns whether the authority of a URI with this scheme and a Host header name the same host and port. A missing port
/// is the default port of the scheme. Returns `false` if either is invalid.
pub(crate) fn is_same_authority(scheme: Option<&Scheme>, authority: &[u8], host: &[u8]) -> bool {
    let default = match scheme.map(Scheme::as_str) {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    let Some(name) = canonical_host(authority) else { return false };
    canonical_host(host) == Some(name) && port(authority).or(default) == port(host).or(default)
}

/// Returns the port of a value that [`canonical_host`] accepts.
fn port(host: &[u8]) -> Option<u16> {
    let digits = host.rsplit(|&byte| byte == b':').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|_| digits.len() < host.len())
}

/// Returns whether the Host header is a loopback address or `localhost`.
///
/// The owner of another name can resolve it to 127.0.0.1 (DNS rebinding). Without this check, a page of that name could
/// read responses from a port that serves this machine without authentication.
pub(crate) fn is_loopback_host(headers: &HeaderMap) -> bool {
    let host = single_value(headers, &HOST).and_then(|host| canonical_host(host.as_bytes()));
    host.is_some_and(|host| is_local(&host))
}

fn is_local(canonical: &str) -> bool {
    let address = canonical.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => {
            canonical == "localhost"
                || canonical.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

/// Returns whether `origin` (RFC 6454, 6.2) is that of the site with this scheme, and this host and port. Browsers omit
/// the scheme's default port.
pub(crate) fn is_origin_of(origin: &[u8], (scheme, host): (&str, &[u8])) -> bool {
    let default_port: &[u8] = if scheme == "https" { b":443" } else { b":80" };
    let host = host.strip_suffix(default_port).unwrap_or(host);
    let rest = origin.strip_prefix(scheme.as_bytes()).and_then(|rest| rest.strip_prefix(b"://"));
    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_is_normalized_or_rejected() {
        for (host, name) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:80", "example.com"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:8080", "[::1]"),
            ("[0:0::0:1]", "[::1]"),
            ("[2001:DB8::A]", "[2001:db8::a]"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(canonical_host(host.as_bytes()).as_deref(), Some(name), "{host}");
        }
        for bad in [
            "",
            ".",
            "a..b",
            "a b",
            "a/b",
            "user@host",
            "a:b",
            "a:",
            "a:99999",
            "a:000080",
            "a:1:2",
            "[::1",
            "[::1]x",
            "[zz]",
            "a\\b",
            "a?b",
            "a#b",
            "é",
            "a,b",
            "a%2eb",
            "a..",
        ] {
            assert_eq!(canonical_host(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn authority_and_host_are_equal_but_for_case_and_default_port() {
        let (http, https) = (Some(&Scheme::HTTP), Some(&Scheme::HTTPS));
        for (scheme, authority, host, same) in [
            (http, "a.example", "A.Example", true),
            (http, "a.example:80", "a.example", true),
            (http, "a.example", "a.example:80", true),
            (http, "a.example:080", "a.example.", true),
            (http, "a.example:8080", "a.example:8080", true),
            (http, "[::1]:80", "[0::1]", true),
            (https, "[::1]", "[::1]:443", true),
            (https, "a.example:443", "a.example", true),
            (http, "a.example", "b.example", false),
            (http, "a.example:8080", "a.example", false),
            (http, "a.example:443", "a.example", false),
            (https, "a.example:80", "a.example", false),
            (None, "a.example:80", "a.example", false),
            (None, "a.example:80", "a.example:80", true),
            (http, "user@a.example", "a.example", false),
            (http, "user@a.example", "user@a.example", false),
            (http, "127.0.0.80", "127.0.0.1", false),
            (http, "80", "80", true),
            (http, "", "", false),
        ] {
            let found = is_same_authority(scheme, authority.as_bytes(), host.as_bytes());
            assert_eq!(found, same, "{scheme:?} {authority} {host}");
        }
    }

    #[test]
    fn only_loopback_addresses_and_localhost_name_this_machine() {
        let check = |hosts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::from_static(host));
            }
            is_loopback_host(&headers)
        };
        for local in
            ["127.0.0.1", "127.0.0.1:9090", "127.8.9.1:1", "[::1]", "[0:0::1]:9090", "LocalHost.:9090"]
        {
            assert!(check(&[local]), "{local}");
        }
        for other in [
            "attacker.test",
            "attacker.test:9090",
            "localhost.attacker.test",
            "127.0.0.1.attacker.test",
            "attacker.test@localhost",
            "128.0.0.1",
            "0.0.0.0",
            "0x7f000001",
            "[::ffff:127.0.0.1]",
            "[::2]",
            "",
        ] {
            assert!(!check(&[other]), "{other}");
        }
        assert!(!check(&[]));
        assert!(!check(&["localhost", "localhost"]));
    }

    proptest! {
        #[test]
        fn normalization_is_idempotent(host in ".{0,40}") {
            if let Some(name) = canonical_host(host.as_bytes()) {
                prop_assert_eq!(canonical_host(name.as_bytes()), Some(name));
            }
        }
    }
}
