//! Repairs unambiguous faults in the response heads and trailers of legacy servers.
//!
//! A head is repaired only if the strict parser has rejected it, so valid responses cost nothing extra. The repaired head
//! is parsed by the strict parser again. RFC 9112 requires proxies to make the first repair (5.1), and the second
//! unless they reject the response (5.2). Each of the other faults is tolerated by nginx or HAProxy.
//!
//! | fault | repair | rejected |
//! | --- | --- | --- |
//! | whitespace between a name and its colon | removed | whitespace before the first name or within a name |
//! | a folded line (obs-fold) | joined with a space | |
//! | control characters in a value | replaced by spaces (RFC 9110, 5.5) | in framing, upgrade and control fields; any bare CR |
//! | no colon, or a name that is not a token | line removed | letters spelling Content-Length or Transfer-Encoding |
//! | a status line with tabs, extra spaces or another version | HTTP/1.0 or 1.1, one space | no version or status code |
//!
//! A line whose name is empty or has a control character is rejected, and so is a folded line after a removed one.

use super::error::{BadField, BadHead};
use crate::headers;

/// A kind of repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RepairKind {
    Space,
    Fold,
    Control,
    Name,
    StatusLine,
}

/// The kinds of repairs made to a response, each with the name of the first header concerned.
pub(crate) type Repairs = Vec<(RepairKind, Box<str>)>;

/// A repaired head or trailer section.
#[derive(Debug)]
pub(crate) struct RepairedSection {
    /// The length of the section before the repairs.
    pub(crate) length: usize,
    /// The bytes for the strict parser.
    pub(crate) bytes: Vec<u8>,
    pub(crate) repairs: Repairs,
    /// Whether a framing field was repaired. The connection is then not reused.
    pub(crate) framing: bool,
}

/// The fields that have been read so far.
#[derive(Debug, Default)]
struct RepairedFields {
    bytes: Vec<u8>,
    repairs: Repairs,
    framing: bool,
    last: Option<Field>,
}

/// A field, which a folded line may continue.
#[derive(Debug)]
struct Field {
    name: Vec<u8>,
    value: Vec<u8>,
    /// Whether the field is removed.
    dropped: bool,
}

impl RepairKind {
    /// Returns the log message.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Space => "removed whitespace between a response header's name and its colon",
            Self::Fold => "joined the lines of a folded response header",
            Self::Control => "replaced control characters in a response header",
            Self::Name => "removed a response header with an invalid name",
            Self::StatusLine => "corrected a response's status line",
        }
    }
}

/// Repairs the head at the beginning of `read`. Returns `None` if it is incomplete.
///
/// # Errors
/// Returns the reason why the head is ambiguous, or [`BadHead::TooLarge`] if `limit` bytes hold no complete head.
pub(crate) fn head(read: &[u8], limit: usize) -> Result<Option<RepairedSection>, BadHead> {
    let empty_lines = read.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let (start, rest) = read.split_at_checked(empty_lines).unwrap_or_default();
    if rest.iter().zip(b"HTTP/").any(|(byte, expected)| byte != expected) || start.ends_with(b"\r") {
        return Err(BadHead::NotHttp);
    }
    let Some((line, fields)) = next_line(rest) else { return partial(read, limit) };
    let (status_line, is_repaired) = status_line(line)?;
    let mut all = RepairedFields { bytes: status_line, ..RepairedFields::default() };
    if is_repaired {
        all.note(RepairKind::StatusLine, b"");
    }
    match all.read(fields)? {
        Some(left) => Ok(Some(all.into_section(read.len() - left.len()))),
        None => partial(read, limit),
    }
}

/// Repairs the trailers at the beginning of `read`. Returns `None` if they are incomplete.
pub(crate) fn trailers(read: &[u8]) -> Result<Option<RepairedSection>, BadHead> {
    let mut all = RepairedFields::default();
    Ok(all.read(read)?.map(|left| all.into_section(read.len() - left.len())))
}

/// Returns `None` for an incomplete head, or an error if it has reached the limit.
fn partial(read: &[u8], limit: usize) -> Result<Option<RepairedSection>, BadHead> {
    if read.len() >= limit { Err(BadHead::TooLarge) } else { Ok(None) }
}

/// Splits off a line without its line ending. Returns it and the rest.
fn next_line(read: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = read.iter().position(|&byte| byte == b'\n')?;
    let (line, rest) = read.split_at_checked(end)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..)?))
}

/// Returns the repaired status line, and whether it differs from `line`.
fn status_line(line: &[u8]) -> Result<(Vec<u8>, bool), BadHead> {
    let (version, rest) = line.split_at_checked(b"HTTP/1.1".len()).ok_or(BadHead::NotHttp)?;
    let [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] = version else {
        return Err(BadHead::NotHttp);
    };
    let gap = rest.iter().take_while(|byte| is_blank(**byte)).count();
    let (gap, rest) = rest.split_at_checked(gap).ok_or(BadHead::NotHttp)?;
    let (code, reason) = rest.split_at_checked(3).ok_or(BadHead::NotHttp)?;
    let ends = reason.first().is_none_or(|&byte| is_blank(byte));
    if gap.is_empty() || !ends || !code.iter().all(u8::is_ascii_digit) {
        return Err(BadHead::NotHttp);
    }
    if line.contains(&b'\r') {
        return Err(BadHead::BareCr);
    }
    // HTTP/1.x is compatible with HTTP/1.1 (RFC 9110, 2.5). Any other major version is treated as HTTP/1.0.
    let version: &[u8] = if *major == b'1' && *minor != b'0' { b"HTTP/1.1 " } else { b"HTTP/1.0 " };
    let reason = Some(trim(reason)).filter(|reason| !reason.iter().any(|&byte| is_control(byte)));
    let repaired = [version, code, b" ", reason.unwrap_or_default()].concat();
    let is_repaired = repaired.trim_ascii_end() != line.trim_ascii_end();
    Ok(([&repaired, &b"\r\n"[..]].concat(), is_repaired))
}

impl RepairedFields {
    /// Reads fields up to the empty line. Returns the bytes after it, or `None` if it has not arrived.
    fn read<'r>(&mut self, mut read: &'r [u8]) -> Result<Option<&'r [u8]>, BadHead> {
        loop {
            let Some((line, rest)) = next_line(read) else { return Ok(None) };
            read = rest;
            if line.is_empty() {
                self.finish_last()?;
                self.bytes.extend_from_slice(b"\r\n");
                return Ok(Some(read));
            }
            self.read_line(line)?;
        }
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), BadHead> {
        if line.first().is_some_and(|&byte| is_blank(byte)) {
            return self.continue_last(line);
        }
        self.finish_last()?;
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at_checked(colon.unwrap_or(line.len())).unwrap_or_default();
        let bare = trim(name);
        // For the log. Empty if the line has no colon, since the line may be a secret.
        let logged_name = name_of(line);
        if line.contains(&b'\r') {
            return Err(field_error(logged_name, BadField::BareCr));
        }
        if bare.is_empty() || bare.iter().any(|&byte| is_blank(byte) || is_control(byte)) {
            return Err(field_error(logged_name, BadField::Name));
        }
        let dropped = colon.is_none() || !bare.iter().all(|&byte| is_token(byte));
        if dropped {
            let letters = bare.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
            let letters: Vec<u8> = letters.collect();
            let names = [&b"contentlength"[..], b"transferencoding"];
            if names.iter().any(|name| letters.windows(name.len()).any(|window| window == *name)) {
                return Err(field_error(logged_name, BadField::Name));
            }
            self.note(RepairKind::Name, logged_name);
        } else if name.len() > bare.len() {
            self.note(RepairKind::Space, bare);
            self.framing |= is_framing(bare);
        }
        let value = trim(value.get(1..).unwrap_or_default()).to_vec();
        self.last = Some(Field { name: bare.to_vec(), value, dropped });
        Ok(())
    }

    /// Appends the folded `line` to the last field.
    fn continue_last(&mut self, line: &[u8]) -> Result<(), BadHead> {
        let Some(mut field) = self.last.take() else {
            return Err(field_error(name_of(line), BadField::Space));
        };
        if line.contains(&b'\r') {
            return Err(field_error(&field.name, BadField::BareCr));
        }
        if field.dropped {
            // Joined, the two lines could be a valid field.
            return Err(field_error(&[], BadField::Name));
        }
        self.note(RepairKind::Fold, &field.name);
        self.framing |= is_framing(&field.name);
        field.value = trim(&[&field.value, &b" "[..], trim(line)].concat()).to_vec();
        self.last = Some(field);
        Ok(())
    }

    /// Writes the last field to `bytes`.
    fn finish_last(&mut self) -> Result<(), BadHead> {
        let Some(Field { name, mut value, dropped: false }) = self.last.take() else { return Ok(()) };
        let mut found = false;
        for byte in value.iter_mut().filter(|byte| is_control(**byte)) {
            *byte = b' ';
            found = true;
        }
        if found {
            if is_significant(&name) {
                return Err(field_error(&name, BadField::Control));
            }
            self.note(RepairKind::Control, &name);
        }
        for part in [&name[..], b": ", trim(&value), b"\r\n"] {
            self.bytes.extend_from_slice(part);
        }
        Ok(())
    }

    /// Records a repair of the header `name`, once for each kind.
    fn note(&mut self, kind: RepairKind, name: &[u8]) {
        if !self.repairs.iter().any(|(noted, _)| *noted == kind) {
            self.repairs.push((kind, printable(name)));
        }
    }

    fn into_section(self, length: usize) -> RepairedSection {
        RepairedSection { length, bytes: self.bytes, repairs: self.repairs, framing: self.framing }
    }
}

/// Returns whether a field determines the end of the message or of its connection.
fn is_framing(name: &[u8]) -> bool {
    ["content-length", "transfer-encoding", "connection"]
        .iter()
        .any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

/// Returns whether the gateway acts on a field, so that its value must not be guessed.
fn is_significant(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    is_framing(&name)
        || name == b"upgrade"
        || name.starts_with(b"sec-websocket-")
        || http::HeaderName::from_lowercase(&name).is_ok_and(|name| headers::is_control(&name))
}

fn field_error(name: &[u8], fault: BadField) -> BadHead {
    BadHead::Field { name: printable(name), fault }
}

/// Returns the name in a header line, or nothing if the line has no colon.
fn name_of(line: &[u8]) -> &[u8] {
    let colon = line.iter().position(|&byte| byte == b':').unwrap_or_default();
    trim(line.get(..colon).unwrap_or_default())
}

/// Returns a header name for the log, escaped and truncated.
fn printable(name: &[u8]) -> Box<str> {
    const MAX_LENGTH: usize = 64;
    name.get(..MAX_LENGTH).unwrap_or(name).escape_ascii().to_string().into()
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Returns whether a header value must not contain `byte` (RFC 9110, 5.5).
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Removes spaces and tabs from both ends.
fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().take_while(|byte| is_blank(**byte)).count();
    let text = text.get(start..).unwrap_or_default();
    let end = text.len() - text.iter().rev().take_while(|byte| is_blank(**byte)).count();
    text.get(..end).unwrap_or_default()
}
