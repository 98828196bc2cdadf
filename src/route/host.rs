//! Normalization of the Host header, for comparison with routes.

/// Returns the host of a Host header in lower case, without port and trailing dot. Returns `None` if the header is
/// invalid.
pub(crate) fn canonical_host(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (inner, after) = rest.split_once(']')?;
        // Formatting normalizes the address; routes have it in the same form.
        let address: std::net::Ipv6Addr = inner.parse().ok()?;
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
    let digits = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    digits.then_some(name)
}

#[cfg(test)]
mod tests {
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

    proptest! {
        #[test]
        fn normalization_is_idempotent(host in ".{0,40}") {
            if let Some(name) = canonical_host(host.as_bytes()) {
                prop_assert_eq!(canonical_host(name.as_bytes()), Some(name));
            }
        }
    }
}
