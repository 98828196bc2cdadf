//! Propagation of W3C Trace Context: the headers `traceparent` and `tracestate`. With [`Traces::Pass`], both are
//! forwarded unchanged. Otherwise:
//!
//! 1. A valid `traceparent` is forwarded with the same trace id, the flags `sampled` and `random` as received, and
//!    a new span id, the gateway's own, which the access log has too. Clients may send it, because no decision depends
//!    on it.
//! 2. An invalid `traceparent` is replaced as if it were absent, and the `tracestate` beside it is removed.
//! 3. A `tracestate` is forwarded unchanged, or removed if it is malformed or longer than `MAX_STATE`.
//!
//! The gateway does not export spans. It propagates trace ids and writes them to its access log.

use std::cell::RefCell;

use bytes::Bytes;
use http::HeaderValue;

use crate::config::Traces;
use crate::fields::Fields;
use crate::headers::{TRACEPARENT, TRACESTATE};

/// Maximum size of all `tracestate` lines together, in bytes. Longer ones need not be propagated (W3C Trace Context, 3.3.1.5).
const MAX_STATE: usize = 512;
/// Maximum number of members of a `tracestate` list.
const MAX_MEMBERS: usize = 32;
/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Flag: the caller may have recorded the trace.
const SAMPLED: u8 = 0x01;
/// Flag: the trace id is random.
const RANDOM: u8 = 0x02;

/// The trace context of one request.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The `traceparent` for the upstream, which is always valid.
    header: HeaderValue,
    /// Whether the client's `tracestate` is forwarded.
    keeps_state: bool,
}

/// Generator of span and trace ids, which are unique but not secret.
#[derive(Debug, Default)]
pub struct TraceIds(RefCell<fastrand::Rng>);

impl TraceIds {
    /// Returns the trace context of a request with these headers, or `None` if it has none and the configuration does
    /// not start traces.
    pub fn context(&self, fields: &Fields, traces: Traces) -> Option<Trace> {
        match (received(fields), traces) {
            (Some((header, _)), Traces::Pass) => {
                Some(Trace { header: HeaderValue::from_bytes(header).ok()?, keeps_state: true })
            }
            (None, Traces::Pass) => None,
            (Some((header, flags)), Traces::Sampled | Traces::Unsampled) => {
                let trace = header.get(3..35)?;
                let keeps_state = state_is_valid(fields);
                Some(Trace { header: self.write(Some(trace), flags & (SAMPLED | RANDOM))?, keeps_state })
            }
            (None, Traces::Sampled) => self.begin(SAMPLED | RANDOM),
            (None, Traces::Unsampled) => self.begin(RANDOM),
        }
    }

    fn begin(&self, flags: u8) -> Option<Trace> {
        Some(Trace { header: self.write(None, flags)?, keeps_state: false })
    }

    /// Returns a `traceparent` with a new span id, for `trace` or else for a new trace.
    fn write(&self, trace: Option<&[u8]>, flags: u8) -> Option<HeaderValue> {
        let mut random = self.0.borrow_mut();
        let mut text = Vec::with_capacity(LENGTH);
        text.extend_from_slice(b"00-");
        match trace {
            Some(trace) => text.extend_from_slice(trace),
            None => {
                // An id of zeros is invalid.
                hex(&mut text, random.u64(1..));
                hex(&mut text, random.u64(..));
            }
        }
        text.push(b'-');
        hex(&mut text, random.u64(1..));
        text.extend_from_slice(&[b'-', b'0', b'0' | flags]);
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }
}

impl Trace {
    /// Returns the trace id, 32 hex digits.
    pub fn id(&self) -> &str {
        self.part(3, 35)
    }

    /// Returns the gateway's span id, 16 hex digits. With [`Traces::Pass`] it is the caller's.
    pub fn span(&self) -> &str {
        self.part(36, 52)
    }

    /// Returns the `traceparent` for the upstream. Removes the old one from `fields`, and `tracestate` if it is not to
    /// be forwarded.
    pub fn replace(&self, fields: &mut Fields) -> &HeaderValue {
        fields.remove(&TRACEPARENT);
        if !self.keeps_state {
            fields.remove(&TRACESTATE);
        }
        &self.header
    }

    fn part(&self, start: usize, end: usize) -> &str {
        let text = self.header.as_bytes().get(start..end).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

/// Returns the request's `traceparent` and its flags, if there is exactly one and it is valid.
fn received(fields: &Fields) -> Option<(&[u8], u8)> {
    let header = fields.single(&TRACEPARENT)?;
    Some((header, flags(header)?))
}

/// Returns the flags of a `traceparent` if it is valid (W3C Trace Context, 3.2.2).
fn flags(text: &[u8]) -> Option<u8> {
    let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let part = |start: usize, end: usize| text.get(start..end).filter(|part| part.iter().all(lower));
    let id = |start: usize, end: usize| part(start, end).filter(|id| id.iter().any(|&digit| digit != b'0'));
    let version = part(0, 2)?;
    id(3, 35)?;
    id(36, 52)?;
    let flags = part(53, LENGTH)?;
    let dashes = [2, 35, 52].iter().all(|&at| text.get(at) == Some(&b'-'));
    // Later versions may append fields; version ff is invalid.
    let ends = match version {
        b"00" => text.len() == LENGTH,
        b"ff" => false,
        _ => text.get(LENGTH).is_none_or(|&next| next == b'-'),
    };
    if !dashes || !ends {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(flags).ok()?, 16).ok()
}

/// Returns whether `tracestate` is valid and may be forwarded (W3C Trace Context, 3.3.1).
fn state_is_valid(fields: &Fields) -> bool {
    let (mut length, mut members) = (0, 0);
    for line in fields.get_all(&TRACESTATE) {
        length += line.len() + 1;
        for member in line.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            members += usize::from(!member.is_empty());
            if !member.is_empty() && !is_member(member) {
                return false;
            }
        }
    }
    length <= MAX_STATE + 1 && members <= MAX_MEMBERS
}

fn is_member(member: &[u8]) -> bool {
    let Some(equals) = member.iter().position(|&byte| byte == b'=') else { return false };
    let (key, value) = member.split_at(equals);
    let is_key = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let begins = key.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    begins
        && key.len() <= 256
        && key.iter().all(is_key)
        && (2..=257).contains(&value.len())
        && value.iter().skip(1).all(|byte| matches!(byte, 0x20..=0x7e) && *byte != b'=')
}

/// Appends a number as 16 hex digits.
pub(crate) fn hex(text: &mut Vec<u8>, number: u64) {
    let [high, low] = [number >> 32, number & 0xffff_ffff].map(|half| hex_digits(half).to_be_bytes());
    text.extend_from_slice(&high);
    text.extend_from_slice(&low);
}

/// Returns the 8 hex digits of a 32-bit number, a byte each. Computes all of them at once, since five numbers are formatted
/// for each request.
fn hex_digits(number: u64) -> u64 {
    let halves = (number | number << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (bytes | bytes << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_as_hex_digits() {
        for shift in 0..64 {
            for number in [1_u64 << shift, u64::MAX >> shift, 0x0123_4567_89ab_cdef_u64.rotate_left(shift), 0]
            {
                let mut text = Vec::new();
                hex(&mut text, number);
                assert_eq!(String::from_utf8(text).unwrap(), format!("{number:016x}"));
            }
        }
    }

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn fields(parent: &str, state: &[&str]) -> Fields {
        let mut fields = Fields::new();
        if !parent.is_empty() {
            fields.insert(TRACEPARENT, HeaderValue::from_str(parent).unwrap());
        }
        for state in state {
            fields.append(TRACESTATE, HeaderValue::from_str(state).unwrap());
        }
        fields
    }

    /// Returns the `traceparent` and the number of `tracestate` lines that the upstream receives.
    fn forwarded(mut fields: Fields, traces: Traces) -> (Option<String>, usize) {
        if let Some(trace) = TraceIds::default().context(&fields, traces) {
            let parent = trace.replace(&mut fields).clone();
            fields.insert(TRACEPARENT, parent);
        }
        let parent = fields.text(&TRACEPARENT).map(str::to_owned);
        (parent, fields.get_all(&TRACESTATE).count())
    }

    #[test]
    fn valid_traceparent_keeps_its_trace_id_and_flags() {
        for (given, flags) in
            [(GIVEN, "01"), (&GIVEN.replace("-01", "-00"), "00"), (&GIVEN.replace("-01", "-ff"), "03")]
        {
            let (parent, states) = forwarded(fields(given, &["a=1", "b@c=x y"]), Traces::Sampled);
            let parent = parent.unwrap();
            assert_eq!((&parent[..36], &parent[53..]), (&given[..36], flags));
            assert_ne!(parent[36..52], given[36..52]);
            assert_eq!(states, 2);
        }
        let later = GIVEN.replacen("00", "cc", 1) + "-what-comes";
        assert_eq!(forwarded(fields(&later, &[]), Traces::Sampled).0.unwrap()[..36], GIVEN[..36]);
    }

    #[test]
    fn invalid_traceparent_is_replaced_and_tracestate_removed() {
        let long = format!("{GIVEN}-x");
        for bad in [
            "",
            "00",
            &GIVEN.to_uppercase(),
            &long,
            &GIVEN.replacen("00", "ff", 1),
            &GIVEN.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GIVEN.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GIVEN.replace('-', "_"),
            &GIVEN[..54],
            &GIVEN.replace("-01", "-0g"),
        ] {
            let (parent, states) = forwarded(fields(bad, &["a=1"]), Traces::Unsampled);
            let parent = parent.unwrap();
            assert_eq!(flags(parent.as_bytes()), Some(RANDOM), "{parent}");
            assert!(bad.is_empty() || !parent.contains("0af765"), "{bad}");
            assert_eq!(states, 0, "{bad}");
        }
        let mut two = fields(GIVEN, &[]);
        two.append(TRACEPARENT, HeaderValue::from_static(GIVEN));
        assert!(!forwarded(two, Traces::Sampled).0.unwrap().contains("0af765"));
    }

    #[test]
    fn invalid_or_long_tracestate_is_removed() {
        let long = format!("a={}", "x".repeat(200));
        let many = ["a=1"; 33].join(",");
        for (state, left) in [
            (&["a=1,, b=2 ,"][..], 1),
            (&[&long, &long], 2),
            (&[&long, &long, &long], 0),
            (&[&many], 0),
            (&["A=1"], 0),
            (&["a"], 0),
            (&["a="], 0),
            (&["a=b=c"], 0),
        ] {
            assert_eq!(forwarded(fields(GIVEN, state), Traces::Sampled).1, left, "{state:?}");
        }
    }

    #[test]
    fn pass_leaves_trace_headers_unchanged() {
        assert_eq!(forwarded(fields(GIVEN, &["A=?"]), Traces::Pass), (Some(GIVEN.to_owned()), 1));
        assert_eq!(forwarded(fields("", &[]), Traces::Pass), (None, 0));
        assert_eq!(forwarded(fields("odd", &["x"]), Traces::Pass), (Some("odd".to_owned()), 1));
    }

    #[test]
    fn ids_are_unique() {
        let ids = TraceIds::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let trace = ids.context(&Fields::new(), Traces::Sampled).unwrap();
            assert!(seen.insert(trace.id().to_owned()) && seen.insert(trace.span().to_owned()));
        }
    }
}
