//! The heads of messages: a request's written, a response's read.
//!
//! A response is taken only if it can be read in one way (RFC 9112, 6.3): one framing, `chunked` and no other transfer
//! coding, one length. What is wrong with it otherwise is mended where that leaves no doubt ([`mend`]). Header values are slices of one copy of the head: a value may be kept for long, as in the table by
//! which an HTTP/2 connection compresses headers, and would keep all that was read with it.

use std::io::Write as _;
use std::mem::MaybeUninit;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body::Body;
use hyper::ext::ReasonPhrase;
use smallvec::SmallVec;

use super::super::gateway_headers::GatewayHeaders;
use super::body::Decoder;
use super::error::BadHead;
use super::mend::{self, Mended, Mends};

/// The most that a response's head may take.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// The most line ends before a head. Each may be the one that ends it, so all would be read anew with each that comes.
const MAX_BLANK: usize = 16;
/// The most header lines of a response.
const MAX_LINES: usize = 128;

/// A response's head, and what follows it.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    /// Its reason phrase, where that is not the usual one.
    pub(super) reason: Option<ReasonPhrase>,
    pub(super) headers: HeaderMap,
    /// How its body ends.
    pub(super) body: Decoder,
    /// Whether the connection outlives it.
    pub(super) persists: bool,
    /// What had to be mended of it.
    pub(super) mends: Mends,
}

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// As long as its headers say.
    Announced(u64),
    /// In chunks.
    Chunked,
    /// With this length, which its headers do not say: over HTTP/2 they need not.
    Length(u64),
}

impl Framing {
    /// That of `request`.
    pub(super) fn of<B: Body>(request: &Request<B>) -> Self {
        let expects_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
        let none = request.body().is_end_stream().then_some(0);
        match (request.headers().get(CONTENT_LENGTH), none.or_else(|| request.body().size_hint().exact())) {
            // A length that is none matches no body.
            (Some(added), _) => Self::Announced(digits(added.as_bytes()).unwrap_or(u64::MAX)),
            (None, None) => Self::Chunked,
            // Of a method that usually has a body, servers like to be told that there is none (RFC 9110, 8.6).
            (None, Some(0)) if !expects_body => Self::Announced(0),
            (None, Some(length)) => Self::Length(length),
        }
    }

    /// How long the body is; none: its last chunk will tell.
    pub(super) fn length(self) -> Option<u64> {
        match self {
            Self::Announced(length) | Self::Length(length) => Some(length),
            Self::Chunked => None,
        }
    }
}

/// A request's head, with what is `added` beside its own headers.
pub(super) fn write<B>(request: &Request<B>, added: &GatewayHeaders, framing: Framing) -> Bytes {
    let method = request.method().as_str();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let lines = || added.iter().chain(request.headers());
    let length: usize = lines().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut head = Vec::with_capacity(method.len() + path.len() + length + 64);
    head.extend_from_slice(method.as_bytes());
    head.push(b' ');
    head.extend_from_slice(path.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in lines() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    match framing {
        Framing::Announced(_) => {}
        Framing::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Length(length) => {
            // Writing to memory never fails.
            let _ = write!(head, "content-length: {length}\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}

/// Writes the line before a chunk of `length` bytes.
pub(super) fn write_chunk_size(length: usize, into: &mut BytesMut) {
    // Writing to memory never fails.
    let _ = write!(into.writer(), "{length:X}\r\n");
}

/// Where the parts of a header line are in the bytes of the head.
struct Line {
    name: (usize, usize),
    value: (usize, usize),
}

/// A head that the strict parser has read.
struct Parsed {
    /// How much of what was read it takes.
    length: usize,
    status: StatusCode,
    version: Version,
    /// Its reason phrase, where that is not the usual one.
    reason: Option<(usize, usize)>,
    lines: SmallVec<[Line; 24]>,
}

/// Reads a head off the front of `buffer`, if it is there as a whole. `method` is the request's.
pub(super) fn read(buffer: &mut BytesMut, method: &Method) -> Result<Option<ResponseHead>, BadHead> {
    if buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count() > MAX_BLANK {
        return Err(BadHead::NotHttp);
    }
    match parse(buffer) {
        Ok(None) => Ok(None),
        Ok(Some(parsed)) => {
            let bytes = Bytes::copy_from_slice(buffer.get(..parsed.length).unwrap_or_default());
            buffer.advance(parsed.length);
            head(&parsed, &bytes, method).map(Some)
        }
        Err(BadHead::NotHttp) => {
            let Some(Mended { length, bytes, mends, framing }) = mend::head(buffer, MAX_HEAD)? else {
                return Ok(None);
            };
            buffer.advance(length);
            let bytes = Bytes::from(bytes);
            let parsed = parse(&bytes)?.ok_or(BadHead::NotHttp)?;
            let mut head = head(&parsed, &bytes, method)?;
            head.persists &= !framing;
            head.mends = mends;
            Ok(Some(head))
        }
        Err(bad) => Err(bad),
    }
}

fn parse(bytes: &[u8]) -> Result<Option<Parsed>, BadHead> {
    let mut lines: [MaybeUninit<httparse::Header<'_>>; MAX_LINES] = [MaybeUninit::uninit(); MAX_LINES];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut lines,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(BadHead::TooLarge);
        }
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => return Err(BadHead::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadHead::NotHttp),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(BadHead::Status)?;
    let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let start = bytes.as_ptr().addr();
    let place = |part: &[u8]| {
        let from = part.as_ptr().addr().wrapping_sub(start);
        (from, from + part.len())
    };
    let reason = Some(reason(bytes))
        .filter(|reason| !reason.is_empty() && Some(*reason) != status.canonical_reason().map(str::as_bytes));
    let reason = reason.map(place);
    let lines = response.headers.iter();
    let lines = lines.map(|line| Line { name: place(line.name.as_bytes()), value: place(line.value) });
    Ok(Some(Parsed { length, status, version, reason, lines: lines.collect() }))
}

/// The reason phrase of a head that the parser has taken, which gives none that is not ASCII.
fn reason(head: &[u8]) -> &[u8] {
    let line = head.trim_ascii_start().get(b"HTTP/1.1 200".len()..).unwrap_or_default();
    let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or_default();
    line.get(..end).unwrap_or_default().trim_ascii()
}

fn head(parsed: &Parsed, bytes: &Bytes, method: &Method) -> Result<ResponseHead, BadHead> {
    let mut headers = headers(bytes, &parsed.lines)?;
    let (body, persists) = framing(parsed.status, parsed.version, &mut headers, method)?;
    let reason = parsed.reason.map(|(from, to)| bytes.get(from..to).unwrap_or_default());
    // What the parser lets through of a reason is what may be sent of one.
    let reason = reason.and_then(|reason| ReasonPhrase::try_from(reason).ok());
    Ok(ResponseHead { status: parsed.status, reason, headers, body, persists, mends: Mends::new() })
}

fn headers(head: &Bytes, lines: &[Line]) -> Result<HeaderMap, BadHead> {
    let mut headers = HeaderMap::with_capacity(lines.len() + 4);
    for Line { name, value } in lines {
        let name = head.get(name.0..name.1).and_then(|name| HeaderName::from_bytes(name).ok());
        let value = if value.0 < value.1 && value.1 <= head.len() {
            HeaderValue::from_maybe_shared(head.slice(value.0..value.1)).ok()
        } else {
            Some(HeaderValue::from_static(""))
        };
        match (name, value) {
            (Some(name), Some(value)) => headers.append(name, value),
            (Some(_) | None, _) => return Err(BadHead::NotHttp),
        };
    }
    Ok(headers)
}

/// How the body of a response ends, and whether its connection persists (RFC 9112, 6.3 and 9.3).
fn framing(
    status: StatusCode,
    version: Version,
    headers: &mut HeaderMap,
    method: &Method,
) -> Result<(Decoder, bool), BadHead> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(_), _) if headers.contains_key(CONTENT_LENGTH) => return Err(BadHead::TwoFramings),
        (Some(coding), None)
            if coding.as_bytes().eq_ignore_ascii_case(b"chunked") && version == Version::HTTP_11 =>
        {
            true
        }
        (Some(_), _) => return Err(BadHead::Coding),
    };
    let length = length(headers)?;
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = match (bodiless, chunked, length) {
        (true, _, _) => Decoder::none(),
        (false, true, _) => Decoder::chunked(),
        (false, false, Some(length)) => Decoder::length(length),
        (false, false, None) => Decoder::until_close(),
    };
    let persists = match version {
        Version::HTTP_10 => says(headers, b"keep-alive") && !says(headers, b"close"),
        _ => !says(headers, b"close"),
    };
    // A body that such a response may not have, and yet announces (RFC 9110, 8.6), may follow after all.
    let suspect = status == StatusCode::NO_CONTENT && (chunked || length.is_some_and(|length| length > 0));
    Ok((body, persists && !suspect))
}

/// The length that Content-Length says, repeated or not, as long as it is the same each time (RFC 9112, 6.3). It is
/// written anew unless it stands there once and as it should.
fn length(headers: &mut HeaderMap) -> Result<Option<u64>, BadHead> {
    let mut added = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = added.next() else { return Ok(None) };
    let alone = digits(first.as_bytes()).filter(|_| added.next().is_none());
    if let Some(length) = alone.filter(|_| !first.as_bytes().starts_with(b"0") || first.len() == 1) {
        return Ok(Some(length));
    }
    let elements =
        headers.get_all(CONTENT_LENGTH).iter().flat_map(|line| line.as_bytes().split(|&b| b == b','));
    let mut lengths = elements.map(|element| digits(element.trim_ascii()));
    let length = lengths.next().flatten().ok_or(BadHead::Length)?;
    if lengths.any(|other| other != Some(length)) {
        return Err(BadHead::Length);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(Some(length))
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Whether a Connection line holds `word`.
fn says(headers: &HeaderMap, word: &[u8]) -> bool {
    let lines = headers.get_all(CONNECTION).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .any(|w| w.trim_ascii().eq_ignore_ascii_case(word))
}
