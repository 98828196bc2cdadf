//! Parses the response heads of servers, and writes parts of the response heads that clients receive.
//!
//! A response is accepted only if its framing is unambiguous (RFC 9112, 6.3): one framing, no transfer coding except
//! `chunked`, one length. Unambiguous faults are repaired ([`repair`]). Fields are positions in a copy of the head,
//! not in the read buffer: a value that is kept for a long time, such as in the compression table of an HTTP/2 connection,
//! would keep the whole buffer allocated.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use smallvec::SmallVec;

use super::body::Decoder;
use super::error::BadHead;
use super::repair::{self, RepairedSection, Repairs};
use crate::fields::Fields;

/// Limit on the size of a response head.
pub(crate) const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// Limit on CR and LF bytes before a head. Each empty line looks like the end of a head, so the parser would start over
/// after each of them.
const MAX_LINE_ENDS: usize = 16;
/// Limit on the number of header lines of a response.
pub(crate) const MAX_RESPONSE_LINES: usize = 128;

/// A response head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    /// The reason phrase, if it is not the status code's canonical one.
    pub(crate) reason: Option<ReasonPhrase>,
    pub(crate) fields: Fields,
    /// Decodes the body that follows.
    pub(crate) body: Decoder,
    /// Whether the connection may be reused after the response.
    pub(crate) keep_alive: bool,
    /// The repairs that were made.
    pub(crate) repairs: Repairs,
}

impl ResponseHead {
    /// Takes a head from the beginning of `buffer`. Returns `None` if it is incomplete. `method` is the request's.
    ///
    /// # Errors
    /// Returns the reason why the head is rejected.
    pub(crate) fn read(buffer: &mut BytesMut, method: &Method) -> Result<Option<Self>, BadHead> {
        read(buffer, method)
    }
}

/// The positions of a header's name and value in the bytes of the head.
struct Line {
    name: Range<usize>,
    value: Range<usize>,
}

/// A head as parsed by the strict parser.
struct Parsed {
    /// The length of the head in bytes.
    length: usize,
    status: StatusCode,
    version: Version,
    /// The reason phrase, if it is not the status code's canonical one.
    reason: Option<Range<usize>>,
    lines: SmallVec<[Line; 24]>,
}

fn read(buffer: &mut BytesMut, method: &Method) -> Result<Option<ResponseHead>, BadHead> {
    if buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count() > MAX_LINE_ENDS {
        return Err(BadHead::NotHttp);
    }
    match parse(buffer) {
        Ok(None) => Ok(None),
        Ok(Some(parsed)) => {
            let bytes = Bytes::copy_from_slice(buffer.get(..parsed.length).unwrap_or_default());
            buffer.advance(parsed.length);
            head(&parsed, bytes, method).map(Some)
        }
        Err(BadHead::NotHttp) => {
            let Some(RepairedSection { length, bytes, repairs, framing }) =
                repair::head(buffer, MAX_RESPONSE_HEAD)?
            else {
                return Ok(None);
            };
            buffer.advance(length);
            let bytes = Bytes::from(bytes);
            let parsed = parse(&bytes)?.ok_or(BadHead::NotHttp)?;
            let mut head = head(&parsed, bytes, method)?;
            head.keep_alive &= !framing;
            head.repairs = repairs;
            Ok(Some(head))
        }
        Err(bad) => Err(bad),
    }
}

fn parse(bytes: &[u8]) -> Result<Option<Parsed>, BadHead> {
    let mut lines: [MaybeUninit<httparse::Header<'_>>; MAX_RESPONSE_LINES] =
        [MaybeUninit::uninit(); MAX_RESPONSE_LINES];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut lines,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_RESPONSE_HEAD => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(BadHead::TooLarge);
        }
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_RESPONSE_HEAD => return Err(BadHead::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadHead::NotHttp),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(BadHead::Status)?;
    let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let start = bytes.as_ptr().addr();
    let position = |part: &[u8]| {
        let from = part.as_ptr().addr().wrapping_sub(start);
        from..from + part.len()
    };
    let reason = Some(reason(bytes))
        .filter(|reason| !reason.is_empty() && Some(*reason) != status.canonical_reason().map(str::as_bytes));
    let reason = reason.map(position);
    let lines = response.headers.iter();
    let lines = lines.map(|line| Line { name: position(line.name.as_bytes()), value: position(line.value) });
    Ok(Some(Parsed { length, status, version, reason, lines: lines.collect() }))
}

/// Returns the reason phrase of a parsed head. httparse does not return a reason phrase that is not ASCII.
fn reason(head: &[u8]) -> &[u8] {
    let line = head.trim_ascii_start().get(b"HTTP/1.1 200".len()..).unwrap_or_default();
    let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or_default();
    line.get(..end).unwrap_or_default().trim_ascii()
}

fn head(parsed: &Parsed, bytes: Bytes, method: &Method) -> Result<ResponseHead, BadHead> {
    let reason = parsed.reason.clone().map(|reason| bytes.get(reason).unwrap_or_default());
    // httparse accepts only bytes that are valid in a reason phrase.
    let reason = reason.and_then(|reason| ReasonPhrase::try_from(reason).ok());
    let mut fields = fields(bytes, &parsed.lines)?;
    let (body, keep_alive) = framing(parsed.status, parsed.version, &mut fields, method)?;
    Ok(ResponseHead { status: parsed.status, reason, fields, body, keep_alive, repairs: Repairs::new() })
}

fn fields(head: Bytes, lines: &[Line]) -> Result<Fields, BadHead> {
    let mut fields = Fields::received_in(head, lines.len() + 4);
    for Line { name, value } in lines {
        let parsed = fields.head().get(name.clone()).and_then(|name| HeaderName::from_bytes(name).ok());
        fields.push_received(parsed.ok_or(BadHead::NotHttp)?, name, value);
    }
    Ok(fields)
}

/// Returns the decoder of a response's body, and whether its connection may be reused (RFC 9112, 6.3 and 9.3).
fn framing(
    status: StatusCode,
    version: Version,
    fields: &mut Fields,
    method: &Method,
) -> Result<(Decoder, bool), BadHead> {
    let mut codings = fields.get_all(&TRANSFER_ENCODING);
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(_), _) if fields.contains(&CONTENT_LENGTH) => return Err(BadHead::TwoFramings),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && version == Version::HTTP_11 => {
            true
        }
        (Some(_), _) => return Err(BadHead::Coding),
    };
    drop(codings);
    let length = length(fields)?;
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = match (bodiless, chunked, length) {
        (true, _, _) => Decoder::empty(),
        (false, true, _) => Decoder::chunked_by_server(),
        (false, false, Some(length)) => Decoder::length(length),
        (false, false, None) => Decoder::until_close(),
    };
    let keep_alive = match version {
        Version::HTTP_10 => {
            has_connection_option(fields, b"keep-alive") && !has_connection_option(fields, b"close")
        }
        _ => !has_connection_option(fields, b"close"),
    };
    // A 204 response has no body. If it announces one nevertheless (RFC 9110, 8.6), bytes may follow.
    let may_have_body =
        status == StatusCode::NO_CONTENT && (chunked || length.is_some_and(|length| length > 0));
    Ok((body, keep_alive && !may_have_body))
}

/// Returns the Content-Length. Accepts repeated equal values (RFC 9112, 6.3). Replaces repeated values and leading zeros
/// by a single header in canonical form.
fn length(fields: &mut Fields) -> Result<Option<u64>, BadHead> {
    let mut lines = fields.get_all(&CONTENT_LENGTH);
    let Some(first) = lines.next() else { return Ok(None) };
    let single = parse_decimal(first).filter(|_| lines.next().is_none());
    if let Some(length) = single.filter(|_| !first.starts_with(b"0") || first.len() == 1) {
        return Ok(Some(length));
    }
    let elements = fields.get_all(&CONTENT_LENGTH).flat_map(|line| line.split(|&b| b == b','));
    let mut lengths = elements.map(|element| parse_decimal(element.trim_ascii()));
    let length = lengths.next().flatten().ok_or(BadHead::Length)?;
    if lengths.any(|other| other != Some(length)) {
        return Err(BadHead::Length);
    }
    drop(lengths);
    drop(lines);
    fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(Some(length))
}

/// Parses 1 to 18 decimal digits. Returns `None` for any other text.
pub(crate) fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Returns whether any Connection header lists `option`.
fn has_connection_option(fields: &Fields, option: &[u8]) -> bool {
    fields.get_all(&CONNECTION).any(|line| has_option(line, option))
}

/// Returns whether the comma-separated list `line` contains `option`, ignoring case.
pub(crate) fn has_option(line: &[u8], option: &[u8]) -> bool {
    line.split(|&b| b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(option))
}

/// Appends a status line to `into`. Without a `reason`, the canonical reason phrase is used.
pub(crate) fn write_status_line(
    version: Version,
    status: StatusCode,
    reason: Option<&ReasonPhrase>,
    into: &mut Vec<u8>,
) {
    into.extend_from_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    into.extend_from_slice(status.as_str().as_bytes());
    into.push(b' ');
    let canonical = || status.canonical_reason().unwrap_or_default().as_bytes();
    into.extend_from_slice(reason.map_or_else(canonical, ReasonPhrase::as_bytes));
    into.extend_from_slice(b"\r\n");
}
