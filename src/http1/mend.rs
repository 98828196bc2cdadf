//! Mends heads and trailers of legacy servers that can be read in one way only.
//!
//! Only what the strict parser has refused comes here, so other responses pay nothing. The mended head is parsed by
//! the strict parser again. RFC 9112 requires the first two of proxies (5.1, 5.2); nginx or HAProxy pass the others
//! on.
//!
//! | fault | mended to | refused |
//! | --- | --- | --- |
//! | whitespace between a name and its colon | none | before the first name, or within a name |
//! | a folded line (obs-fold) | one line, joined with a space | |
//! | control characters in a value | spaces (RFC 9110, 5.5) | in framing, upgrade and control fields; any bare CR |
//! | a line without a colon, or a name that is no token | left out | if its letters spell a framing field |
//! | a status line with tabs, more spaces, another version | HTTP/1.0 or 1.1, one space | without version and status |

use super::error::{BadField, BadHead};
use crate::headers;

/// A kind of fault that was mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mend {
    Space,
    Fold,
    Control,
    Name,
    StatusLine,
}

/// The faults that were mended in a response, each with the first header that had it.
pub(crate) type Mends = Vec<(Mend, Box<str>)>;

/// A mended head or trailer section.
#[derive(Debug)]
pub(crate) struct Mended {
    /// Its length in the bytes that were read.
    pub(crate) length: usize,
    /// The bytes for the strict parser.
    pub(crate) bytes: Vec<u8>,
    pub(crate) mends: Mends,
    /// Whether a framing field was mended: the connection is not reused.
    pub(crate) framing: bool,
}

/// The fields that were read so far.
#[derive(Debug, Default)]
struct Fields {
    bytes: Vec<u8>,
    mends: Mends,
    framing: bool,
    last: Option<Field>,
}

/// The last field, which a folded line may continue.
#[derive(Debug)]
struct Field {
    name: Vec<u8>,
    value: Vec<u8>,
    /// Whether the field is left out.
    dropped: bool,
}

impl Mend {
    /// Returns the message for the log.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Space => "removed whitespace between a response header's name and its colon",
            Self::Fold => "joined the lines of a folded response header",
            Self::Control => "replaced control characters in a response header",
            Self::Name => "left out a response header whose name is invalid",
            Self::StatusLine => "corrected a response's status line",
        }
    }
}

/// Mends the head at the beginning of `read`. Returns `None` if it is incomplete.
///
/// # Errors
/// Returns why the head is ambiguous, or [`BadHead::TooLarge`] if `limit` bytes hold no complete head.
pub(crate) fn head(read: &[u8], limit: usize) -> Result<Option<Mended>, BadHead> {
    let empty_lines = read.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let (start, rest) = read.split_at_checked(empty_lines).unwrap_or_default();
    if rest.iter().zip(b"HTTP/").any(|(byte, expected)| byte != expected) || start.ends_with(b"\r") {
        return Err(BadHead::NotHttp);
    }
    let Some((line, fields)) = next_line(rest) else { return partial(read, limit) };
    let (status_line, is_mended) = status_line(line)?;
    let mut all = Fields { bytes: status_line, ..Fields::default() };
    if is_mended {
        all.note(Mend::StatusLine, b"");
    }
    match all.read(fields)? {
        Some(left) => Ok(Some(all.into_mended(read.len() - left.len()))),
        None => partial(read, limit),
    }
}

/// Mends the trailers at the beginning of `read`. Returns `None` if they are incomplete.
pub(crate) fn trailers(read: &[u8]) -> Result<Option<Mended>, BadHead> {
    let mut all = Fields::default();
    Ok(all.read(read)?.map(|left| all.into_mended(read.len() - left.len())))
}

fn partial(read: &[u8], limit: usize) -> Result<Option<Mended>, BadHead> {
    if read.len() >= limit { Err(BadHead::TooLarge) } else { Ok(None) }
}

/// Splits off a line without its line ending. Returns it and the rest.
fn next_line(read: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = read.iter().position(|&byte| byte == b'\n')?;
    let (line, rest) = read.split_at_checked(end)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..)?))
}

/// Returns the mended status line, and whether it had to be mended.
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
    // HTTP/1.x is compatible with HTTP/1.1 (RFC 9110, 2.5). Of another major version, no feature of 1.1 is assumed.
    let version: &[u8] = if *major == b'1' && *minor != b'0' { b"HTTP/1.1 " } else { b"HTTP/1.0 " };
    let reason = Some(trim(reason)).filter(|reason| !reason.iter().any(|&byte| is_control(byte)));
    let mended = [version, code, b" ", reason.unwrap_or_default()].concat();
    let is_mended = mended.trim_ascii_end() != line.trim_ascii_end();
    Ok(([&mended, &b"\r\n"[..]].concat(), is_mended))
}

impl Fields {
    /// Reads fields up to the empty line. Returns what follows it, or `None` if it has not come yet.
    fn read<'r>(&mut self, mut read: &'r [u8]) -> Result<Option<&'r [u8]>, BadHead> {
        loop {
            let Some((line, rest)) = next_line(read) else { return Ok(None) };
            read = rest;
            if line.is_empty() {
                self.finish_last()?;
                self.bytes.extend_from_slice(b"\r\n");
                return Ok(Some(read));
            }
            self.line(line)?;
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), BadHead> {
        if line.first().is_some_and(|&byte| is_blank(byte)) {
            return self.continue_last(line);
        }
        self.finish_last()?;
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at_checked(colon.unwrap_or(line.len())).unwrap_or_default();
        let bare = trim(name);
        // For the log. A line without a colon is not shown, since it may be a secret.
        let shown = name_of(line);
        if line.contains(&b'\r') {
            return Err(bad(shown, BadField::BareCr));
        }
        if bare.is_empty() || bare.iter().any(|&byte| is_blank(byte) || is_control(byte)) {
            return Err(bad(shown, BadField::Name));
        }
        let dropped = colon.is_none() || !bare.iter().all(|&byte| is_token(byte));
        if dropped {
            let letters = bare.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
            let letters: Vec<u8> = letters.collect();
            let names = [&b"contentlength"[..], b"transferencoding"];
            if names.iter().any(|name| letters.windows(name.len()).any(|window| window == *name)) {
                return Err(bad(shown, BadField::Name));
            }
            self.note(Mend::Name, shown);
        } else if name.len() > bare.len() {
            self.note(Mend::Space, bare);
            self.framing |= is_framing(bare);
        }
        let value = trim(value.get(1..).unwrap_or_default()).to_vec();
        self.last = Some(Field { name: bare.to_vec(), value, dropped });
        Ok(())
    }

    /// Appends the folded `line` to the last field.
    fn continue_last(&mut self, line: &[u8]) -> Result<(), BadHead> {
        let Some(mut field) = self.last.take() else { return Err(bad(name_of(line), BadField::Space)) };
        if line.contains(&b'\r') {
            return Err(bad(&field.name, BadField::BareCr));
        }
        if field.dropped {
            // The two lines together could be a valid field.
            return Err(bad(&[], BadField::Name));
        }
        self.note(Mend::Fold, &field.name);
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
                return Err(bad(&name, BadField::Control));
            }
            self.note(Mend::Control, &name);
        }
        for part in [&name[..], b": ", trim(&value), b"\r\n"] {
            self.bytes.extend_from_slice(part);
        }
        Ok(())
    }

    /// Records a mended fault, once for each kind.
    fn note(&mut self, mend: Mend, name: &[u8]) {
        if !self.mends.iter().any(|(noted, _)| *noted == mend) {
            self.mends.push((mend, shown(name)));
        }
    }

    fn into_mended(self, length: usize) -> Mended {
        Mended { length, bytes: self.bytes, mends: self.mends, framing: self.framing }
    }
}

/// Returns whether a field decides where the message or its connection ends.
fn is_framing(name: &[u8]) -> bool {
    ["content-length", "transfer-encoding", "connection"]
        .iter()
        .any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
}

/// Returns whether the handling of the message depends on a field, so that its value must not be guessed.
fn is_significant(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    is_framing(&name)
        || name == b"upgrade"
        || name.starts_with(b"sec-websocket-")
        || http::HeaderName::from_lowercase(&name).is_ok_and(|name| headers::is_control(&name))
}

fn bad(name: &[u8], fault: BadField) -> BadHead {
    BadHead::Field { name: shown(name), fault }
}

/// Returns the name in a header line, or nothing if the line has no colon.
fn name_of(line: &[u8]) -> &[u8] {
    let colon = line.iter().position(|&byte| byte == b':').unwrap_or_default();
    trim(line.get(..colon).unwrap_or_default())
}

/// Returns a header name for the log, escaped and truncated.
fn shown(name: &[u8]) -> Box<str> {
    const MAX_SHOWN: usize = 64;
    name.get(..MAX_SHOWN).unwrap_or(name).escape_ascii().to_string().into()
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
