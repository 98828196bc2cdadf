//! Parses request heads.
//!
//! An upstream must not interpret a request differently from the gateway, so faults are rejected and not repaired:
//!
//! | rejected | by |
//! | --- | --- |
//! | bare CR or LF, obs-fold, control characters, whitespace in or after a name | this parser: 400 |
//! | a head over the limits | this parser: 414 or 431 |
//! | invalid or conflicting framing ([`ParsedRequest::body`] is `None`) | the proxy: 400 |
//! | a repeated Host, or none in HTTP/1.1 | the proxy: 400 |
//!
//! The one exception is `"`, `<` and `>` in a query, which are percent-encoded. RFC 3986, 3.4 does not allow them.
//! Browsers percent-encode them, but curl and old clients do not.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderName, Method, Uri, Version};
use smallvec::SmallVec;

use super::body::{Decoder, has_bare_line_feed};
use super::error::BadRequest;
use super::response::{has_option, parse_decimal};
use crate::fields::Fields;
use crate::message::{Request, RequestHead};

/// Number of header lines for which space is allocated on the stack.
const USUAL_LINES: usize = 100;

/// Maximum number of digits of a Content-Length. Numbers of this size are exact even in languages whose numbers are
/// floating-point, such as JavaScript, so that no server reads another length.
const MAX_LENGTH_DIGITS: usize = 15;

/// Limits on a request head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// Maximum size in bytes.
    pub(crate) bytes: usize,
    /// Maximum number of header lines.
    pub(crate) lines: usize,
}

/// A request head, and what it says about the connection.
#[derive(Debug)]
pub(crate) struct ParsedRequest {
    pub(crate) head: Box<RequestHead>,
    /// Decodes the body that follows. `None` if the framing is invalid: the proxy refuses the request.
    pub(crate) body: Option<Decoder>,
    /// Whether another request may follow on the connection (RFC 9112, 9.3).
    pub(crate) keep_alive: bool,
    /// Whether the client waits for a 100 response before it sends the body (RFC 9110, 10.1.1).
    pub(crate) expects_continue: bool,
}

impl ParsedRequest {
    /// Parses the head at the beginning of `bytes`. Returns it and its length, or `None` if it is incomplete.
    ///
    /// # Errors
    /// Returns the reason why the head is rejected.
    pub(crate) fn parse(bytes: &[u8], limits: HeadLimits) -> Result<Option<(Self, usize)>, BadRequest> {
        // Empty lines before a request are ignored (RFC 9112, 2.2).
        let empty_lines = bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
        let rest = bytes.get(empty_lines..).unwrap_or_default();
        if rest.first() == Some(&b'\n') {
            return Err(BadRequest::Syntax);
        }
        if rest.is_empty() || rest == b"\r" {
            return if bytes.len() >= limits.bytes { Err(BadRequest::HeadTooLarge) } else { Ok(None) };
        }
        let parsed = if limits.lines <= USUAL_LINES {
            parse(rest, limits, &mut [const { MaybeUninit::uninit() }; USUAL_LINES])
        } else {
            parse(rest, limits, &mut vec![MaybeUninit::uninit(); limits.lines])
        };
        Ok(parsed?.map(|(request, length)| (request, empty_lines + length)))
    }

    /// Returns the request with this head and `body`.
    pub(crate) fn into_request<B>(self, body: B) -> Request<B> {
        Request { head: self.head, body }
    }
}

fn parse<'b>(
    bytes: &'b [u8],
    limits: HeadLimits,
    lines: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Option<(ParsedRequest, usize)>, BadRequest> {
    let lines = lines.get_mut(..limits.lines).unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, lines) {
        Ok(httparse::Status::Complete(length)) if length <= limits.bytes => length,
        Ok(httparse::Status::Partial) if bytes.len() < limits.bytes => return Ok(None),
        Ok(_) if !bytes.iter().take(limits.bytes).any(|&byte| byte == b'\n') => {
            return Err(BadRequest::TargetTooLong);
        }
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(BadRequest::HeadTooLarge),
        Err(_) => return Err(BadRequest::Syntax),
    };
    let head = bytes.get(..length).unwrap_or_default();
    if has_bare_line_feed(head) {
        return Err(BadRequest::Syntax);
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(BadRequest::Syntax);
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| BadRequest::Syntax)?;
    let version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    // Fields are positions in a copy of the head, since they may be kept for longer than the read buffer.
    let start = bytes.as_ptr().addr();
    let span = |part: &[u8]| {
        let from = part.as_ptr().addr().wrapping_sub(start);
        from..from + part.len()
    };
    let shared = Bytes::copy_from_slice(head);
    let uri = match encode_query(target.as_bytes()) {
        Some(encoded) => Uri::from_maybe_shared(encoded),
        None => Uri::from_maybe_shared(slice(&shared, span(target.as_bytes()))),
    };
    let uri = uri.map_err(|_| BadRequest::Syntax)?;
    let mut fields = Fields::received_in(shared, request.headers.len());
    let mut framing = FramingFields::default();
    let (mut closes, mut keeps_alive, mut expects) = (false, false, false);
    for line in request.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| BadRequest::Syntax)?;
        match name {
            CONNECTION => {
                closes |= has_option(line.value, b"close");
                keeps_alive |= has_option(line.value, b"keep-alive");
            }
            EXPECT => expects |= line.value.eq_ignore_ascii_case(b"100-continue"),
            CONTENT_LENGTH => framing.add_length(line.value),
            TRANSFER_ENCODING => framing.add_coding(line.value),
            _ => {}
        }
        fields.push_received(name, &span(line.name.as_bytes()), &span(line.value));
    }
    let body = framing.decoder(version);
    let keep_alive = body.is_some() && !closes && (version == Version::HTTP_11 || keeps_alive);
    let has_body = body.as_ref().is_some_and(|body| !body.is_ended());
    let expects_continue = expects && version == Version::HTTP_11 && has_body;
    let head = Box::new(RequestHead { method, uri, version, protocol: None, fields });
    Ok(Some((ParsedRequest { head, body, keep_alive, expects_continue }, length)))
}

/// The Content-Length and Transfer-Encoding fields of a request.
#[derive(Debug, Default)]
struct FramingFields {
    count: u32,
    /// The framing announced by the last of them; `None` if it is invalid.
    framing: Option<AnnouncedFraming>,
}

#[derive(Clone, Copy, Debug)]
enum AnnouncedFraming {
    Length(u64),
    Chunked,
}

impl FramingFields {
    fn add_length(&mut self, value: &[u8]) {
        self.count += 1;
        self.framing = parse_request_length(value).map(AnnouncedFraming::Length);
    }

    fn add_coding(&mut self, value: &[u8]) {
        self.count += 1;
        self.framing = value.eq_ignore_ascii_case(b"chunked").then_some(AnnouncedFraming::Chunked);
    }

    /// Returns the decoder of the body (RFC 9112, 6.3), or `None` if the framing is invalid. HTTP/1.0 has no transfer
    /// codings (RFC 9112, 6.1).
    fn decoder(&self, version: Version) -> Option<Decoder> {
        match (self.count, self.framing) {
            (0, _) => Some(Decoder::empty()),
            (1, Some(AnnouncedFraming::Length(length))) => Some(Decoder::length(length)),
            (1, Some(AnnouncedFraming::Chunked)) if version == Version::HTTP_11 => Some(Decoder::chunked()),
            (_, _) => None,
        }
    }
}

/// Parses the Content-Length of a request. Returns `None` if it is invalid, or has too many digits.
pub(crate) fn parse_request_length(value: &[u8]) -> Option<u64> {
    parse_decimal(value).filter(|_| value.len() <= MAX_LENGTH_DIGITS)
}

/// Returns a part of `head`. An empty part may be outside it.
fn slice(head: &Bytes, range: Range<usize>) -> Bytes {
    if !range.is_empty() && range.end <= head.len() { head.slice(range) } else { Bytes::new() }
}

/// Percent-encodes `"`, `<` and `>` in the query. Returns `None` if `target` has none of them, or no query.
pub(super) fn encode_query(target: &[u8]) -> Option<Bytes> {
    memchr::memchr3(b'"', b'<', b'>', target)?;
    let query = memchr::memchr(b'?', target)?;
    let (path, query) = target.split_at_checked(query)?;
    let mut encoded: SmallVec<[u8; 256]> = SmallVec::from_slice(path);
    for byte in query {
        match byte {
            b'"' => encoded.extend_from_slice(b"%22"),
            b'<' => encoded.extend_from_slice(b"%3C"),
            b'>' => encoded.extend_from_slice(b"%3E"),
            _ => encoded.push(*byte),
        }
    }
    Some(Bytes::copy_from_slice(&encoded))
}
