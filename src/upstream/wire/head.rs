//! The heads of messages: a request's written, a response's read.
//!
//! A response is taken only if it can be read in one way (RFC 9112, 6.3): one framing, `chunked` and no other transfer
//! coding, one length. Header values are slices of one copy of the head: a value may be kept for long, as in the table by
//! which an HTTP/2 connection compresses headers, and would keep all that was read with it.

use std::io::Write as _;
use std::mem::MaybeUninit;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body::Body;
use smallvec::SmallVec;

use super::super::said::Said;
use super::body::Decoder;

/// The most that a response's head may take.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// The most line ends before a head. Each may be the one that ends it, so all would be read anew with each that comes.
const MAX_BLANK: usize = 16;
/// The most header lines of a response.
const MAX_LINES: usize = 128;

/// A response's head, and what follows it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// How its body ends.
    pub(super) body: Decoder,
    /// Whether the connection outlives it.
    pub(super) persists: bool,
}

/// What makes a response's head useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    #[error("is not HTTP/1")]
    NotHttp,
    #[error("has a head that is too large")]
    TooLarge,
    #[error("has two framings")]
    TwoFramings,
    #[error("has a transfer coding other than chunked")]
    Coding,
    #[error("has a length that is none, or several")]
    Length,
}

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// As long as its headers say.
    Said(u64),
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
            (Some(said), _) => Self::Said(digits(said.as_bytes()).unwrap_or(u64::MAX)),
            (None, None) => Self::Chunked,
            // Of a method that usually has a body, servers like to be told that there is none (RFC 9110, 8.6).
            (None, Some(0)) if !expects_body => Self::Said(0),
            (None, Some(length)) => Self::Length(length),
        }
    }

    /// How long the body is; none: its last chunk will tell.
    pub(super) fn length(self) -> Option<u64> {
        match self {
            Self::Said(length) | Self::Length(length) => Some(length),
            Self::Chunked => None,
        }
    }
}

/// A request's head, with what is `said` beside its own headers.
pub(super) fn write<B>(request: &Request<B>, said: &Said, framing: Framing) -> Bytes {
    let method = request.method().as_str();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let lines = || said.iter().chain(request.headers());
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
        Framing::Said(_) => {}
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

/// Reads a head off the front of `buffer`, if it is there as a whole. `method` is the request's.
pub(super) fn read(buffer: &mut BytesMut, method: &Method) -> Result<Option<Head>, BadHead> {
    if buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count() > MAX_BLANK {
        return Err(BadHead::NotHttp);
    }
    let mut lines: [MaybeUninit<httparse::Header<'_>>; MAX_LINES] = [MaybeUninit::uninit(); MAX_LINES];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buffer,
        &mut lines,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(BadHead::TooLarge);
        }
        Ok(httparse::Status::Partial) if buffer.len() >= MAX_HEAD => return Err(BadHead::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadHead::NotHttp),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(BadHead::NotHttp)?;
    let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let start = buffer.as_ptr().addr();
    let place = |part: &[u8]| {
        let from = part.as_ptr().addr().wrapping_sub(start);
        (from, from + part.len())
    };
    let lines: SmallVec<[Line; 24]> = response
        .headers
        .iter()
        .map(|line| Line { name: place(line.name.as_bytes()), value: place(line.value) })
        .collect();
    let head = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
    buffer.advance(length);
    let headers = headers(&head, &lines)?;
    let (body, persists) = framing(status, version, &headers, method)?;
    Ok(Some(Head { status, headers, body, persists }))
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
    headers: &HeaderMap,
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
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(length), None) => Some(digits(length.as_bytes()).ok_or(BadHead::Length)?),
        (Some(_), Some(_)) => return Err(BadHead::Length),
    };
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
