//! The first two steps of a request: its head is checked, and headers that clients may not send are removed.
//!
//! [`http1`](crate::http1) and h2 parse heads. Before any decision, [`Inbound::read`] refuses heads that they accept
//! but an upstream could interpret differently, and [`Inbound::sanitize`] removes headers that clients may not send:
//!
//! 1. There is exactly one valid Host, which only HTTP/1.0 requests and HTTP/2 requests with `:authority` may omit. It
//!    agrees with an absolute request target and with `:authority`.
//! 2. There is at most one framing header: exactly `Transfer-Encoding: chunked`, or a Content-Length of 1 to 15 digits.
//! 3. The target is a path. TRACE is refused, and so is CONNECT except for a WebSocket; a requested upgrade is recorded
//!    separately (`upgrade.rs`). Non-ASCII characters are percent-encoded before the target is used.
//! 4. The target and the number of header lines are within the limits; the parsers limit their bytes.
//! 5. Hop-by-hop headers are removed, with those that Connection nominates. A Connection header cannot nominate end-to-end
//!    headers such as Content-Length, Cookie or the forwarding headers.
//! 6. Every header that an upstream could take for one of the gateway's is removed, in every spelling.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Version};
use http_body::Body as _;
use percent_encoding::{CONTROLS, utf8_percent_encode};
use smallvec::SmallVec;

use super::peer::{Peer, RequestOrigin};
use super::upgrade::UpgradeRequest;
use crate::config::Limits;
use crate::fields::Fields;
use crate::headers::{self, Scrub};
use crate::host::is_same_authority;
use crate::http1::{has_option, parse_request_length};
use crate::message::{Request, RequestHead};
use crate::proxy::refusal::{Malformed, Refusal};
use crate::upstream::ClientBody;

/// A request whose head is unambiguous. Only [`Inbound::read`] makes one.
#[derive(Debug)]
pub struct Inbound {
    parts: InboundParts,
}

/// A request without the headers that clients may not send. Only [`Inbound::sanitize`] makes one.
#[derive(Debug)]
pub struct Sanitized(Box<SanitizedRequest>);

/// The contents of [`Sanitized`]. Boxed, since every later step moves them.
#[derive(Debug)]
struct SanitizedRequest {
    parts: InboundParts,
    origin: RequestOrigin,
    scrubbed: u64,
}

/// The parts of a request.
#[derive(Debug)]
pub(super) struct InboundParts {
    /// The head. Its URI has been replaced by `target`.
    pub(super) head: Box<RequestHead>,
    pub(super) target: PathAndQuery,
    pub(super) host: Host,
    pub(super) body: ClientBody,
    /// The protocol that the client requests to switch to, if any.
    pub(super) upgrade: UpgradeRequest,
    /// Whether the client accepts trailers.
    pub(super) trailers: bool,
}

/// The host of a request.
#[derive(Debug)]
pub(super) struct Host {
    /// The value that the client sent.
    pub(super) header: HeaderValue,
    /// In lower case, without port and trailing dot; empty for HTTP/1.0 without Host.
    name: Rc<str>,
}

impl Inbound {
    /// Checks the head of a request from `peer`.
    ///
    /// # Errors
    /// Returns a refusal if the head is ambiguous or over a limit, or requests something that the gateway does not
    /// support.
    pub fn read(request: Request<ClientBody>, limits: &Limits, peer: &Peer) -> Result<Self, Refusal> {
        let Request { mut head, body } = request;
        let version = head.version;
        if version == Version::HTTP_2 {
            join_cookie_fields(&mut head.fields);
        }
        if head.fields.len() > limits.headers {
            return Err(Refusal::TooManyHeaders);
        }
        // The HTTP/1.1 parser has already determined the framing.
        let is_framed =
            if version == Version::HTTP_2 { is_framed(&head.fields) } else { body.has_valid_framing() };
        if !is_framed {
            return Err(Refusal::Malformed(Malformed::Framing));
        }
        let upgrade = UpgradeRequest::read(&head);
        match (&head.method, upgrade) {
            // The upstream receives the handshake as a GET.
            (&Method::CONNECT, UpgradeRequest::Websocket(_)) => head.method = Method::GET,
            (&(Method::CONNECT | Method::TRACE), _) => return Err(Refusal::Method(Vec::new())),
            (_, _) => {}
        }
        let host = Host::read(&head, peer)?;
        let target = match std::mem::take(&mut head.uri).into_parts().path_and_query {
            Some(target) if target.path().starts_with('/') => encode_non_ascii(target)?,
            _ => return Err(Refusal::Malformed(Malformed::Target)),
        };
        if target.as_str().len() > limits.uri {
            return Err(Refusal::UriTooLong);
        }
        for expectation in head.fields.get_all(&EXPECT) {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::Expectation);
            }
        }
        let trailers = version == Version::HTTP_2 || accepts_trailers(&head.fields);
        Ok(Self { parts: InboundParts { head, target, host, body, upgrade, trailers } })
    }

    /// Removes headers that the client may not send, and determines the origin of the request.
    #[must_use]
    pub fn sanitize(self, scrub: &Scrub, peer: &Peer) -> Sanitized {
        let Self { mut parts } = self;
        let fields = &mut parts.head.fields;
        let origin = peer.origin(fields, &parts.host.header);
        // Written in canonical form, since `007` is also a valid length.
        let length = parts.body.size_hint().exact().unwrap_or(0);
        fields.replace_values(&CONTENT_LENGTH, |value| {
            let is_canonical =
                parse_request_length(value) == Some(length) && (value == b"0" || !value.starts_with(b"0"));
            (!is_canonical).then(|| HeaderValue::from(length))
        });
        let scrubbed = remove_fields(fields, scrub, peer);
        Sanitized(Box::new(SanitizedRequest { parts, origin, scrubbed }))
    }
}

impl Sanitized {
    /// Returns the method.
    pub fn method(&self) -> &Method {
        &self.0.parts.head.method
    }

    /// Returns the path on which decisions are made.
    pub fn path(&self) -> &str {
        self.0.parts.target.path()
    }

    /// Replaces the path by `path`, and keeps the query.
    ///
    /// # Errors
    /// Returns a refusal if `path` is not a valid path.
    pub(super) fn replace_path(&mut self, path: &str) -> Result<(), Refusal> {
        let target = match self.0.parts.target.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        self.0.parts.target = PathAndQuery::from_maybe_shared(Bytes::from(target))
            .map_err(|_| Refusal::Malformed(Malformed::Target))?;
        Ok(())
    }

    /// Returns path and query.
    pub fn target(&self) -> &PathAndQuery {
        &self.0.parts.target
    }

    /// Returns the host in lower case, without port and trailing dot.
    pub fn host(&self) -> &str {
        &self.0.parts.host.name
    }

    /// Returns the size of the body that the head announces, or 0.
    pub(super) fn announced_size(&self) -> u64 {
        self.0.parts.body.size_hint().lower()
    }

    /// Returns the header fields.
    pub fn fields(&self) -> &Fields {
        &self.0.parts.head.fields
    }

    /// Returns the origin of the request.
    pub fn origin(&self) -> &RequestOrigin {
        &self.0.origin
    }

    /// Returns the number of removed headers that an upstream could have taken for the gateway's.
    pub fn scrubbed(&self) -> u64 {
        self.0.scrubbed
    }

    /// Returns the HTTP version of the client.
    pub fn version(&self) -> Version {
        self.0.parts.head.version
    }

    /// Returns whether the client requests to switch to another protocol.
    pub fn wants_upgrade(&self) -> bool {
        !matches!(self.0.parts.upgrade, UpgradeRequest::None)
    }

    pub(super) fn upgrade(&self) -> UpgradeRequest {
        self.0.parts.upgrade
    }

    pub(super) fn body(&self) -> &ClientBody {
        &self.0.parts.body
    }

    pub(super) fn into_parts(self) -> (InboundParts, RequestOrigin) {
        (self.0.parts, self.0.origin)
    }
}

/// Removes the fields that the client may not send. Returns the number of those that could have been taken for the
/// gateway's.
fn remove_fields(fields: &mut Fields, scrub: &Scrub, peer: &Peer) -> u64 {
    let nominated = nominated(fields);
    let mut scrubbed = 0;
    fields.retain(|name, _| {
        if headers::is_hop_by_hop(name) || matches!(*name, EXPECT | HOST) {
            return false;
        }
        if scrub.removes(name) && !peer.may_send(name) {
            scrubbed += 1;
            return false;
        }
        let is_nominated = nominated.iter().any(|other| other.eq_ignore_ascii_case(name.as_str().as_bytes()));
        !is_nominated || headers::is_end_to_end(name)
    });
    scrubbed
}

/// Returns the names that are nominated by all Connection lines.
fn nominated(fields: &Fields) -> SmallVec<[Box<[u8]>; 4]> {
    let lines = fields.get_all(&CONNECTION);
    let names = lines.flat_map(|line| line.split(|&b| b == b',')).map(<[u8]>::trim_ascii);
    // The two most frequent options are skipped: `close` names no header, and Keep-Alive is hop-by-hop anyway.
    names
        .filter(|name| !name.eq_ignore_ascii_case(b"keep-alive") && !name.eq_ignore_ascii_case(b"close"))
        .map(Box::from)
        .collect()
}

/// Joins the Cookie fields of an HTTP/2 request into one, as RFC 9113, 8.2.3 requires before they are forwarded.
fn join_cookie_fields(fields: &mut Fields) {
    if fields.get_all(&COOKIE).nth(1).is_none() {
        return;
    }
    // Joined header values are a valid header value.
    if let Ok(mut line) = HeaderValue::from_maybe_shared(Bytes::from(joined_cookies(fields))) {
        line.set_sensitive(true);
        fields.insert(COOKIE, line);
    }
}

/// Returns all Cookie fields joined into one.
pub(super) fn joined_cookies(fields: &Fields) -> Vec<u8> {
    fields.get_all(&COOKIE).collect::<Vec<_>>().join(&b"; "[..])
}

/// Percent-encodes non-ASCII characters. The parsers accept them if they are UTF-8, and upstreams would interpret them
/// differently.
fn encode_non_ascii(target: PathAndQuery) -> Result<PathAndQuery, Refusal> {
    if target.as_str().is_ascii() {
        return Ok(target);
    }
    let encoded = utf8_percent_encode(target.as_str(), CONTROLS).to_string();
    // Only its length can be invalid.
    PathAndQuery::try_from(encoded).map_err(|_| Refusal::UriTooLong)
}

/// Returns whether TE lists `trailers` (RFC 9110, 10.1.4).
fn accepts_trailers(fields: &Fields) -> bool {
    fields.get_all(&TE).any(|line| has_option(line, b"trailers"))
}

/// Returns whether the fields of an HTTP/2 request announce its body unambiguously.
fn is_framed(fields: &Fields) -> bool {
    match (fields.contains(&TRANSFER_ENCODING), fields.contains(&CONTENT_LENGTH)) {
        (false, false) => true,
        (true, false) => {
            fields.single(&TRANSFER_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
        }
        (false, true) => {
            fields.single(&CONTENT_LENGTH).is_some_and(|length| parse_request_length(length).is_some())
        }
        (true, true) => false,
    }
}

impl Host {
    fn read(head: &RequestHead, peer: &Peer) -> Result<Self, Refusal> {
        let RequestHead { uri, fields, version, .. } = head;
        let malformed = || Refusal::Malformed(Malformed::Host);
        let mut lines = fields.get_all(&HOST);
        let (line, more) = (lines.next(), lines.next());
        if more.is_some() {
            return Err(malformed());
        }
        let host = match (line, uri.authority().map(|authority| authority.as_str().as_bytes())) {
            (Some(line), None) => line,
            // RFC 9112, 3.2.2 lets the target take precedence; the gateway refuses a request with two different hosts.
            (Some(line), Some(authority)) if is_same_authority(uri.scheme(), authority, line) => line,
            (Some(_), Some(_)) => return Err(malformed()),
            (None, None) if *version == Version::HTTP_10 => {
                return Ok(Self { header: HeaderValue::from_static(""), name: Rc::from("") });
            }
            // The `:authority` of HTTP/2, or an absolute target in HTTP/1.0.
            (None, Some(authority)) if *version != Version::HTTP_11 => authority,
            (None, _) => return Err(malformed()),
        };
        let (header, name) = peer.host(host).ok_or_else(malformed)?;
        Ok(Self { header, name })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> Fields {
        let line = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.iter().map(line).collect()
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for good in [&[][..], &[("transfer-encoding", "Chunked")], &[("content-length", "0")]] {
            assert!(is_framed(&fields(good)), "{good:?}");
        }
        for bad in [
            &[("transfer-encoding", "gzip, chunked")][..],
            &[("transfer-encoding", "chunked, chunked")],
            &[("transfer-encoding", ",chunked")],
            &[("transfer-encoding", "identity")],
            &[("transfer-encoding", "")],
            &[("transfer-encoding", "\tchunked")],
            &[("transfer-encoding", "chunked"), ("content-length", "1")],
            &[("content-length", "+1")],
            &[("content-length", "")],
            &[("content-length", "1,1")],
            &[("content-length", "0x1")],
            &[("content-length", "1234567890123456")],
        ] {
            assert!(!is_framed(&fields(bad)), "{bad:?}");
        }
        let mut twice = fields(&[("transfer-encoding", "chunked")]);
        twice.append(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        assert!(!is_framed(&twice));
        let mut twice = fields(&[("content-length", "1")]);
        twice.append(CONTENT_LENGTH, HeaderValue::from_static("1"));
        assert!(!is_framed(&twice));
    }

    #[test]
    fn all_connection_lines_are_read() {
        let mut lines = fields(&[("connection", "close, X-A")]);
        lines.append(CONNECTION, HeaderValue::from_static("x-b ,,X-C"));
        let names: Vec<_> = nominated(&lines).into_iter().filter(|name| !name.is_empty()).collect();
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), [&b"X-A"[..], b"x-b", b"X-C"]);
    }
}
