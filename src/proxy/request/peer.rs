//! The peer of a connection, and the origin of its requests.
//!
//! Only the listener's `trusted_proxies` may forward the origin of a request. The `X-Forwarded-*` and `Forwarded`
//! headers of any other peer are removed and replaced. The addresses in X-Forwarded-For are read from right to left,
//! past trusted proxies only, so that a client cannot forge its address. A peer on a Unix socket has no address, and is
//! `unknown`.

use std::cell::{RefCell, RefMut};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::header::FORWARDED;
use http::{HeaderName, HeaderValue};

use super::listener_policy::{ListenerPolicy, TlsFacts};
use crate::fields::{Fields, visible_ascii};
use crate::header_lines::HeaderLines;
use crate::headers::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::host::canonical_host;
use crate::tls::ClientCertificate;
use crate::upstream::GatewayHeaders;

/// The peer of a connection.
#[derive(Debug)]
pub struct Peer {
    /// `None` for a Unix socket.
    address: Option<IpAddr>,
    /// `address` as an element of X-Forwarded-For, formatted once for all requests of the connection.
    text: HeaderValue,
    /// `address` as a node of Forwarded.
    node: String,
    trusted: bool,
    policy: Arc<ListenerPolicy>,
    /// The results of the TLS handshake; `None` if the connection is not encrypted.
    tls: Option<TlsFacts>,
    /// The host of the last request. The next request usually has the same host.
    last_host: RefCell<Option<CachedHost>>,
}

/// A host, and the values derived from it.
#[derive(Debug)]
struct CachedHost {
    /// The client's header.
    header: HeaderValue,
    /// The host for routing: in lower case, without port and trailing dot.
    name: Rc<str>,
    /// The forwarding headers for a request to this host from a peer that is not trusted.
    lines: Rc<HeaderLines>,
}

/// The origin of a request, according to the connection and trusted proxies.
#[derive(Debug)]
pub struct RequestOrigin {
    /// The client's address; `None` if it is unknown.
    pub client: Option<IpAddr>,
    /// Whether the client used TLS.
    pub secure: bool,
    /// The host that the client sent, with its port.
    host: HeaderValue,
    /// The forwarding headers for the upstream.
    lines: Rc<HeaderLines>,
    /// Whether the request has forwarding headers of a trusted proxy to replace.
    replaces: bool,
}

impl Peer {
    /// Returns the peer at `address` (`None` for a Unix socket) of a listener with `policy`.
    pub fn new(address: Option<IpAddr>, policy: &Arc<ListenerPolicy>, tls: Option<TlsFacts>) -> Self {
        let address = address.map(|address| address.to_canonical());
        let text = address.and_then(|address| HeaderValue::from_str(&address.to_string()).ok());
        let text = text.unwrap_or(HeaderValue::from_static("unknown"));
        let trusted = policy.proxies().contains(address);
        Self {
            address,
            text,
            node: node(address),
            trusted,
            policy: Arc::clone(policy),
            tls,
            last_host: RefCell::default(),
        }
    }

    /// Returns the address; `None` for a Unix socket.
    pub(in crate::proxy) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Returns the policy of the listener that the peer connected to.
    pub(in crate::proxy) fn listener_policy(&self) -> &ListenerPolicy {
        &self.policy
    }

    /// Returns the results of the TLS handshake, if the connection is encrypted.
    pub(super) fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    /// Returns the client's certificate, if it presented one.
    pub(in crate::proxy) fn certificate(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref()?.certificate.as_ref()
    }

    /// Returns the value of a Host header, and its host in lower case, without port and trailing dot. Returns `None` if it
    /// is invalid.
    pub(super) fn host(&self, header: &[u8]) -> Option<(HeaderValue, Rc<str>)> {
        self.cached_host(header).map(|host| (host.header.clone(), Rc::clone(&host.name)))
    }

    fn cached_host(&self, header: &[u8]) -> Option<RefMut<'_, CachedHost>> {
        let mut last = self.last_host.borrow_mut();
        if last.as_ref().is_none_or(|last| last.header != header) {
            let name = canonical_host(header)?.into();
            let header = HeaderValue::from_bytes(header).ok()?;
            let lines = self.forwarding_lines(&self.text, &header, self.tls.is_some(), None);
            *last = Some(CachedHost { header, name, lines: Rc::new(lines) });
        }
        RefMut::filter_map(last, Option::as_mut).ok()
    }

    /// Returns whether the peer may send the header `name` although clients may not. Trusted proxies may send forwarding
    /// headers.
    pub(in crate::proxy) fn may_send(&self, name: &HeaderName) -> bool {
        self.trusted && (name.as_str().starts_with("x-forwarded-") || *name == FORWARDED)
    }

    /// Returns the origin of a request with these headers.
    pub(crate) fn origin(&self, fields: &Fields, host: &HeaderValue) -> RequestOrigin {
        let secure = self.tls.is_some();
        if !self.trusted {
            return RequestOrigin {
                client: self.address,
                secure,
                host: host.clone(),
                lines: self.cached_host(host.as_bytes()).map_or_else(
                    || Rc::new(self.forwarding_lines(&self.text, host, secure, None)),
                    |host| Rc::clone(&host.lines),
                ),
                replaces: false,
            };
        }
        let addresses = list(fields, &FORWARDED_FOR, "unknown");
        // A proxy that sends no X-Forwarded-Proto is assumed to use the client's scheme.
        let proto = last(fields, &FORWARDED_PROTO).map(|proto| proto.eq_ignore_ascii_case("https"));
        let secure = proto.unwrap_or(secure);
        let named = last(fields, &FORWARDED_HOST).filter(|name| canonical_host(name.as_bytes()).is_some());
        let forwarded_host =
            named.and_then(|name| HeaderValue::from_str(&name).ok()).unwrap_or_else(|| host.clone());
        let chain = addresses.iter().map(String::as_str).chain([self.text.to_str().unwrap_or_default()]);
        let forwarded_for = HeaderValue::from_str(&chain.collect::<Vec<_>>().join(", "));
        let forwarded_for = forwarded_for.unwrap_or_else(|_| self.text.clone());
        let before = list(fields, &FORWARDED, "for=unknown").join(", ");
        RequestOrigin {
            client: self.client(&addresses),
            secure,
            lines: Rc::new(self.forwarding_lines(&forwarded_for, &forwarded_host, secure, Some(&before))),
            host: forwarded_host,
            replaces: true,
        }
    }

    /// Returns the forwarding headers. `before` has the elements of Forwarded that a trusted proxy sent.
    fn forwarding_lines(
        &self,
        forwarded_for: &HeaderValue,
        host: &HeaderValue,
        secure: bool,
        before: Option<&str>,
    ) -> HeaderLines {
        let mut lines = HeaderLines::default();
        lines.push(&FORWARDED_FOR, forwarded_for);
        lines.push(&FORWARDED_PROTO, &HeaderValue::from_static(scheme(secure)));
        lines.push(&FORWARDED_HOST, host);
        lines.push(&FORWARDED, &forwarded(before, &self.node, host, secure));
        lines
    }

    /// Returns the first address from the right that is not a trusted proxy's.
    fn client(&self, addresses: &[String]) -> Option<IpAddr> {
        let mut client = self.address;
        for address in addresses.iter().rev() {
            if !self.policy.proxies().contains(client) {
                break;
            }
            // Addresses before an invalid one cannot be trusted.
            let Some(address) = parse_address(address) else { break };
            client = Some(address);
        }
        client
    }
}

impl RequestOrigin {
    /// Returns the public site: its scheme, and its host with the port.
    pub(in crate::proxy) fn site(&self) -> (&'static str, &[u8]) {
        (scheme(self.secure), self.host.as_bytes())
    }

    /// Writes the forwarding headers to `added`, and removes those that they replace from `fields`.
    pub(crate) fn write(&self, fields: &mut Fields, added: &mut GatewayHeaders) {
        if self.replaces {
            for name in [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, FORWARDED] {
                fields.remove(&name);
            }
        }
        added.extend(&self.lines);
    }
}

/// Returns the scheme of the client's request.
fn scheme(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

/// Parses an address of X-Forwarded-For, with or without a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.parse().ok();
    bare.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())).map(|address| address.to_canonical())
}

/// Formats an address as a node of RFC 7239, 6.
fn node(address: Option<IpAddr>) -> String {
    match address {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => "unknown".to_owned(),
    }
}

/// Returns the value of Forwarded (RFC 7239): the existing elements and the element of this hop.
fn forwarded(before: Option<&str>, node: &str, host: &HeaderValue, secure: bool) -> HeaderValue {
    let mut text = String::with_capacity(64);
    if let Some(before) = before.filter(|before| !before.is_empty()) {
        text.push_str(before);
        text.push_str(", ");
    }
    let host = host.to_str().unwrap_or_default();
    // A valid host has only letters, digits and `-._:[]`, so it needs no escaping in a quoted string.
    let _ = write!(text, "for={node};host=\"{host}\";proto={}", scheme(secure));
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .unwrap_or(HeaderValue::from_static("for=unknown"))
}

/// Returns the elements of a list header, from all its lines. An element that is not visible ASCII is replaced by
/// `invalid`. It is not removed: then the client that sent it would hide the address that a proxy has appended, or an
/// address before it would be trusted.
fn list(fields: &Fields, name: &HeaderName, invalid: &str) -> Vec<String> {
    let elements = fields.get_all(name).flat_map(|line| line.split(|&byte| byte == b','));
    let elements = elements.map(|element| visible_ascii(element).unwrap_or(invalid).trim());
    elements.filter(|element| !element.is_empty()).map(str::to_owned).collect()
}

/// Returns the last element of a list header, `?` if it is invalid.
fn last(fields: &Fields, name: &HeaderName) -> Option<String> {
    list(fields, name, "?").pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrustedProxies;

    fn origin(from: Option<&str>, trusted: &[&str], lines: &[(&'static str, &'static str)]) -> RequestOrigin {
        let networks = trusted.iter().filter_map(|net| net.parse().ok()).collect();
        let proxies = TrustedProxies { networks, unix: trusted.contains(&"unix:") };
        let fields = lines
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Peer::new(from.map(|from| from.parse().unwrap()), &Arc::new(ListenerPolicy::trusting(proxies)), None)
            .origin(&fields, &HeaderValue::from_static("app.example:8080"))
    }

    fn client(origin: &RequestOrigin) -> String {
        origin.client.map_or_else(|| "unknown".to_owned(), |client| client.to_string())
    }

    fn line(origin: &RequestOrigin, name: &HeaderName) -> HeaderValue {
        origin.lines.iter().find(|(other, _)| other == name).unwrap().1
    }

    const FORWARDED_HEADERS: &[(&str, &str)] = &[
        ("x-forwarded-for", "6.6.6.6, 9.9.9.9, 10.0.0.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public.example"),
        ("forwarded", "for=9.9.9.9"),
    ];

    #[test]
    fn untrusted_peer_sets_no_forwarding_headers() {
        let origin = origin(Some("1.2.3.4"), &["10.0.0.0/8"], FORWARDED_HEADERS);
        assert_eq!((client(&origin).as_str(), origin.secure), ("1.2.3.4", false));
        assert_eq!(line(&origin, &FORWARDED_FOR), "1.2.3.4");
        assert_eq!(line(&origin, &FORWARDED_HOST), "app.example:8080");
        assert_eq!(line(&origin, &FORWARDED), "for=1.2.3.4;host=\"app.example:8080\";proto=http");
    }

    #[test]
    fn client_is_the_last_address_that_is_not_a_trusted_proxy() {
        let origin = origin(Some("10.0.0.1"), &["10.0.0.0/8"], FORWARDED_HEADERS);
        assert_eq!(
            (client(&origin).as_str(), origin.secure),
            ("9.9.9.9", true),
            "the address that the client prepended is ignored"
        );
        assert_eq!(line(&origin, &FORWARDED_FOR), "6.6.6.6, 9.9.9.9, 10.0.0.7, 10.0.0.1");
        assert_eq!(line(&origin, &FORWARDED_HOST), "public.example");
        assert_eq!(
            line(&origin, &FORWARDED),
            "for=9.9.9.9, for=10.0.0.1;host=\"public.example\";proto=https"
        );
    }

    #[test]
    fn invalid_address_of_a_trusted_proxy_ends_the_chain() {
        let garbled = &[("x-forwarded-for", "9.9.9.9, nonsense, 10.0.0.7"), ("x-forwarded-host", "a b")];
        let origin = origin(Some("::ffff:10.0.0.1"), &["10.0.0.0/8"], garbled);
        assert_eq!(client(&origin), "10.0.0.7");
        assert_eq!(line(&origin, &FORWARDED_HOST), "app.example:8080");
    }

    /// A proxy appends the client's address to the line that the client has sent.
    #[test]
    fn byte_that_is_not_ascii_does_not_hide_the_address_that_a_proxy_appended() {
        let line = |value: &[u8]| (FORWARDED_FOR, HeaderValue::from_bytes(value).unwrap());
        let fields = Fields::from_iter([line(b"6.6.6.6, \xff, 9.9.9.9")]);
        let proxies = TrustedProxies { networks: vec!["10.0.0.0/8".parse().unwrap()], unix: false };
        let policy = Arc::new(ListenerPolicy::trusting(proxies));
        let peer = Peer::new("10.0.0.1".parse().ok(), &policy, None);
        let origin = peer.origin(&fields, &HeaderValue::from_static("app.example"));
        assert_eq!(client(&origin), "9.9.9.9");
        assert_eq!(self::line(&origin, &FORWARDED_FOR), "6.6.6.6, unknown, 9.9.9.9, 10.0.0.1");
    }

    #[test]
    fn forwarding_headers_are_written_and_replace_those_of_a_trusted_proxy() {
        for (from, host, left) in [("1.2.3.4", "app.example:8080", 4), ("10.0.0.1", "public.example", 0)] {
            let origin = origin(Some(from), &["10.0.0.0/8"], FORWARDED_HEADERS);
            assert_eq!(origin.site(), (scheme(origin.secure), host.as_bytes()));
            let received = FORWARDED_HEADERS.iter();
            let mut fields: Fields = received
                .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            let mut added = GatewayHeaders::default();
            origin.write(&mut fields, &mut added);
            assert_eq!(fields.len(), left, "{from}");
            assert_eq!(added.iter().collect::<Vec<_>>(), origin.lines.iter().collect::<Vec<_>>());
            assert_eq!(added.iter().count(), 4);
        }
    }

    #[test]
    fn only_a_trusted_proxy_may_send_forwarding_headers() {
        let proxies = TrustedProxies { networks: vec!["10.0.0.0/8".parse().unwrap()], unix: false };
        let policy = Arc::new(ListenerPolicy::trusting(proxies));
        let may_send = |from: &str, name: &'static str| {
            let peer = Peer::new(Some(from.parse().unwrap()), &policy, None);
            peer.may_send(&HeaderName::from_static(name))
        };
        for name in ["x-forwarded-for", "x-forwarded-port", "forwarded"] {
            assert!(may_send("10.0.0.1", name) && !may_send("1.2.3.4", name), "{name}");
        }
        for name in ["x-session-ref", "x-real-ip", "x-user"] {
            assert!(!may_send("10.0.0.1", name) && !may_send("1.2.3.4", name), "{name}");
        }
    }

    #[test]
    fn host_is_cached_until_another_is_sent() {
        let peer = Peer::new(None, &Arc::new(ListenerPolicy::trusting(TrustedProxies::default())), None);
        let name = |header: &str| peer.host(header.as_bytes()).map(|(_, name)| name.to_string());
        for (header, expected) in [
            ("App.example", Some("app.example")),
            ("App.example", Some("app.example")),
            ("other.example:80", Some("other.example")),
            ("a b", None),
            ("App.example", Some("app.example")),
        ] {
            assert_eq!(name(header).as_deref(), expected);
        }
    }

    #[test]
    fn peer_on_a_unix_socket_has_no_address() {
        let stranger = origin(None, &[], FORWARDED_HEADERS);
        assert_eq!((client(&stranger).as_str(), stranger.secure), ("unknown", false));
        assert_eq!(line(&stranger, &FORWARDED_FOR), "unknown");
        assert_eq!(line(&stranger, &FORWARDED), "for=unknown;host=\"app.example:8080\";proto=http");
        let proxy = origin(None, &["unix:", "10.0.0.0/8"], FORWARDED_HEADERS);
        assert_eq!((client(&proxy).as_str(), proxy.secure), ("9.9.9.9", true));
        assert_eq!(line(&proxy, &FORWARDED_FOR), "6.6.6.6, 9.9.9.9, 10.0.0.7, unknown");
        assert_eq!(line(&proxy, &FORWARDED), "for=9.9.9.9, for=unknown;host=\"public.example\";proto=https");
    }
}
