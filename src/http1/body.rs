//! Decodes a body that is delimited by Content-Length, by chunked encoding, or by the end of the connection.

use std::io::Write as _;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::error::BadBody;
use super::repair;

/// Limit on a chunk's size line, including chunk extensions, which are ignored.
const MAX_SIZE_LINE: usize = 256;
/// Limit on the size of trailers.
const MAX_TRAILERS: usize = 16 * 1024;
/// Pieces up to this size are copied out of the read buffer, so that it can be reused.
const MAX_COPY: usize = 4 * 1024;
/// Limit on the number of trailer lines.
const MAX_TRAILER_LINES: usize = 64;

/// Decodes a body from the bytes that are read from a connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Whether unambiguous faults in trailers are repaired.
    repairs_trailers: bool,
}

#[derive(Debug)]
enum State {
    /// This many bytes follow.
    Length(u64),
    /// All bytes until the connection closes.
    UntilClose,
    /// A chunk's size line follows.
    Size,
    /// This many bytes of a chunk follow.
    Chunk(u64),
    /// The CRLF after a chunk follows.
    ChunkEnd,
    /// The trailers follow.
    Trailers,
    Ended,
}

/// The next piece of a body.
#[derive(Debug)]
pub(crate) enum Step {
    Data(Bytes),
    /// The trailers, which end the body.
    Trailers(HeaderMap),
    /// The body is complete.
    End,
    /// More bytes have to be read.
    NeedsRead,
}

impl Decoder {
    fn new(state: State) -> Self {
        Self { state, repairs_trailers: false }
    }

    /// Returns a decoder of an empty body.
    pub(crate) fn empty() -> Self {
        Self::new(State::Ended)
    }

    /// Returns a decoder of a body of `length` bytes.
    pub(crate) fn length(length: u64) -> Self {
        Self::new(if length == 0 { State::Ended } else { State::Length(length) })
    }

    /// Returns a decoder of a client's chunked body.
    pub(crate) fn chunked() -> Self {
        Self::new(State::Size)
    }

    /// Returns a decoder of a server's chunked body, which repairs unambiguous faults in trailers.
    pub(crate) fn chunked_by_server() -> Self {
        Self { state: State::Size, repairs_trailers: true }
    }

    /// Returns a decoder of a body that ends with the connection.
    pub(crate) fn until_close() -> Self {
        Self::new(State::UntilClose)
    }

    /// Returns whether the body is complete.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Returns the number of bytes that are missing, if it is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Ended => Some(0),
            State::UntilClose | State::Size | State::Chunk(_) | State::ChunkEnd | State::Trailers => None,
        }
    }

    /// Decodes the next piece from `buffer`. `closed` is whether the connection has ended.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut, closed: bool) -> Result<Step, BadBody> {
        loop {
            match &mut self.state {
                State::Ended => return Ok(Step::End),
                State::UntilClose => {
                    if !buffer.is_empty() {
                        return Ok(Step::Data(buffer.split().freeze()));
                    }
                    if !closed {
                        return Ok(Step::NeedsRead);
                    }
                    self.state = State::Ended;
                }
                State::Length(left) => {
                    let Some(data) = split_data(buffer, left) else { return incomplete(closed) };
                    if *left == 0 {
                        self.state = State::Ended;
                    }
                    return Ok(Step::Data(data));
                }
                State::Chunk(left) => {
                    let Some(data) = split_data(buffer, left) else { return incomplete(closed) };
                    if *left == 0 {
                        self.state = State::ChunkEnd;
                    }
                    return Ok(Step::Data(data));
                }
                State::Size => match size_line(buffer)? {
                    None => return incomplete(closed),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Chunk(size),
                },
                State::ChunkEnd => match buffer.get(..2) {
                    None => return incomplete(closed),
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        self.state = State::Size;
                    }
                    Some(_) => return Err(BadBody::Chunks),
                },
                State::Trailers => match trailers(buffer, self.repairs_trailers)? {
                    None => return incomplete(closed),
                    Some(trailers) => {
                        self.state = State::Ended;
                        return Ok(if trailers.is_empty() { Step::End } else { Step::Trailers(trailers) });
                    }
                },
            }
        }
    }
}

fn incomplete(closed: bool) -> Result<Step, BadBody> {
    if closed { Err(BadBody::Short) } else { Ok(Step::NeedsRead) }
}

/// Splits off the next bytes, at most `left`, and subtracts their number from `left`. Returns `None` if the buffer is
/// empty.
fn split_data(buffer: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    if buffer.is_empty() {
        return None;
    }
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= count as u64;
    Some(split(buffer, count))
}

/// Splits off `count` bytes. Copies small pieces, so that the read buffer can be reused.
fn split(buffer: &mut BytesMut, count: usize) -> Bytes {
    if count > MAX_COPY {
        return buffer.split_to(count).freeze();
    }
    let data = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
    buffer.advance(count);
    data
}

/// Parses a chunk's size line (RFC 9112, 7.1). Rejects bare line feeds, signs and leading spaces, which other parsers
/// may interpret differently.
fn size_line(buffer: &mut BytesMut) -> Result<Option<u64>, BadBody> {
    let Some(end) = buffer.iter().take(MAX_SIZE_LINE).position(|&b| b == b'\n') else {
        return if buffer.len() >= MAX_SIZE_LINE { Err(BadBody::Chunks) } else { Ok(None) };
    };
    let line = buffer.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or(BadBody::Chunks)?;
    let count = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at_checked(count).unwrap_or_default();
    let is_extension = rest.trim_ascii_start().first().is_none_or(|&byte| byte == b';');
    if digits.is_empty() || digits.len() > 15 || !is_extension || rest.contains(&b'\r') {
        return Err(BadBody::Chunks);
    }
    let text = std::str::from_utf8(digits).map_err(|_| BadBody::Chunks)?;
    u64::from_str_radix(text, 16).map(Some).map_err(|_| BadBody::Chunks)
}

/// Parses the trailers at the beginning of `buffer`. Returns `None` if they are incomplete.
fn trailers(buffer: &mut BytesMut, repairs: bool) -> Result<Option<HeaderMap>, BadBody> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let (length, trailers) = match parse_trailers(buffer) {
        // Rejects bare line feeds, as in a client's head: other parsers may not end the line at one.
        Ok(Some((length, _))) if !repairs && has_bare_line_feed(buffer.get(..length).unwrap_or_default()) => {
            return Err(BadBody::Trailers);
        }
        Ok(Some(parsed)) => parsed,
        Ok(None) if buffer.len() < MAX_TRAILERS => return Ok(None),
        Ok(None) => return Err(BadBody::Trailers),
        Err(BadBody::Trailers) if repairs => match repair::trailers(buffer) {
            Ok(Some(repaired)) => {
                let (_, trailers) = parse_trailers(&repaired.bytes)?.ok_or(BadBody::Trailers)?;
                (repaired.length, trailers)
            }
            Ok(None) if buffer.len() < MAX_TRAILERS => return Ok(None),
            Ok(None) | Err(_) => return Err(BadBody::Trailers),
        },
        Err(bad) => return Err(bad),
    };
    if length > MAX_TRAILERS {
        return Err(BadBody::Trailers);
    }
    buffer.advance(length);
    Ok(Some(trailers))
}

fn parse_trailers(bytes: &[u8]) -> Result<Option<(usize, HeaderMap)>, BadBody> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_TRAILER_LINES];
    let (length, lines) = match httparse::parse_headers(bytes, &mut lines) {
        Ok(httparse::Status::Complete(parsed)) => parsed,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(BadBody::ManyTrailers),
        Err(_) => return Err(BadBody::Trailers),
    };
    let line = |line: &httparse::Header<'_>| {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(line.value).ok()?))
    };
    let trailers: Option<HeaderMap> = lines.iter().map(line).collect();
    Ok(Some((length, trailers.ok_or(BadBody::Trailers)?)))
}

/// Returns whether any line feed lacks a preceding CR. httparse accepts such line feeds.
pub(super) fn has_bare_line_feed(lines: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', lines).any(|at| at == 0 || lines.get(at - 1) != Some(&b'\r'))
}

/// Writes the size line of a chunk.
pub(crate) fn write_chunk_size(length: usize, into: &mut BytesMut) {
    // Writing to memory never fails.
    let _ = write!(into.writer(), "{length:X}\r\n");
}
