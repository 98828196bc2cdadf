//! The Cookie header of a request: finding the cookies of one name, and removing them without changing the others.
//!
//! 1. A pair ends at `;` only: a quoted string may not contain one, and `$Version` is an ordinary name, as for browsers
//!    (RFC 6265, 4.2.1).
//! 2. Spaces and tabs around a pair are trimmed, and no other characters, so that a look-alike name does not match.
//! 3. A pair is also removed if its name equals ours once bytes that are not visible ASCII are trimmed, since the app's
//!    parser may trim more than spaces: Python's trims the no-break space, for example.
//! 4. Quotes around a value are not part of it. Clients that follow RFC 2109 send them (Java's `HttpCookie`, Python 2's
//!    `cookielib`), and Django, Werkzeug, WebOb and Express remove them. The session cookie is forwarded without quotes, so
//!    it does not matter whether the app would remove them.

use std::borrow::Cow;
use std::ops::Range;

/// A pair of a Cookie header.
struct Pair<'h> {
    /// The pair's bytes in the header, between the `;` before and after it.
    span: Range<usize>,
    name: &'h [u8],
    value: &'h [u8],
}

/// Returns the values of the cookies with this name, in order, without surrounding quotes.
pub fn values<'h>(header: &'h [u8], name: &str) -> impl Iterator<Item = &'h [u8]> {
    pairs(header).filter(move |pair| pair.name == name.as_bytes()).map(|pair| unquoted(pair.value))
}

/// Removes surrounding quotes from `value`. A value that contains other quotes is not quoted (RFC 6265, 4.1.1), and is
/// returned unchanged.
pub fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'"') => inner,
        _ => value,
    }
}

/// Removes the cookies with this name from `header`, except the first one whose value is `keep`; that one loses its
/// quotes.
pub fn without(header: &[u8], name: &str, keep: Option<&[u8]>) -> Stripped {
    let edit = |keep: &mut Option<&[u8]>, pair: &Pair<'_>| {
        if !looks_like(pair.name, name) {
            return Edit::Keep;
        }
        let bare = unquoted(pair.value);
        if pair.name != name.as_bytes() || *keep != Some(bare) {
            return Edit::Remove;
        }
        *keep = None;
        if bare.len() < pair.value.len() { Edit::Unquote } else { Edit::Keep }
    };
    let mut kept = keep;
    if pairs(header).all(|pair| edit(&mut kept, &pair) == Edit::Keep) {
        return Stripped::Unchanged;
    }
    let mut kept = keep;
    let mut out: Vec<u8> = Vec::new();
    for pair in pairs(header) {
        let bytes = match edit(&mut kept, &pair) {
            Edit::Remove => continue,
            Edit::Unquote => [b" ", pair.name, b"=", unquoted(pair.value)].concat().into(),
            Edit::Keep => Cow::from(header.get(pair.span).unwrap_or_default()),
        };
        if out.is_empty() {
            out.extend_from_slice(trim_start(&bytes));
        } else {
            out.push(b';');
            out.extend_from_slice(&bytes);
        }
    }
    if out.is_empty() { Stripped::Empty } else { Stripped::Rest(out) }
}

/// The edit that [`without`] applies to a cookie.
#[derive(PartialEq, Eq)]
enum Edit {
    Keep,
    Remove,
    /// Keep it without its quotes.
    Unquote,
}

/// The result of [`without`].
#[derive(Debug, PartialEq, Eq)]
pub enum Stripped {
    /// The header is unchanged.
    Unchanged,
    /// The header without the removed cookies.
    Rest(Vec<u8>),
    /// No cookie is left.
    Empty,
}

fn pairs(header: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    let ends = memchr::memchr_iter(b';', header).chain([header.len()]);
    let mut start = 0;
    ends.map(move |end| {
        let span = start..end;
        start = end + 1;
        let pair = trim(header.get(span.clone()).unwrap_or_default());
        // A pair without `=` has a value and no name (RFC 6265bis, 5.6), so it is not ours.
        let (name, value) = match memchr::memchr(b'=', pair).and_then(|at| pair.split_at_checked(at)) {
            Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
            None => (&[][..], pair),
        };
        Pair { span, name, value }
    })
}

/// Returns whether a parser may take `name` for `ours`: whether they are equal without leading and trailing bytes that are
/// not visible ASCII.
fn looks_like(name: &[u8], ours: &str) -> bool {
    let ends = |name: &[u8]| {
        let first = name.iter().position(u8::is_ascii_graphic)?;
        Some((first, name.iter().rposition(u8::is_ascii_graphic)? + 1))
    };
    ends(name).and_then(|(first, end)| name.get(first..end)) == Some(ours.as_bytes())
}

/// Trims spaces and tabs, which are the only white space here.
fn trim(bytes: &[u8]) -> &[u8] {
    let mut bytes = trim_start(bytes);
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(header: &str) -> Vec<&str> {
        values(header.as_bytes(), "sid").map(|value| std::str::from_utf8(value).unwrap()).collect()
    }

    #[test]
    fn cookies_are_found_by_their_exact_name() {
        assert_eq!(found("sid=1"), ["1"]);
        assert_eq!(found("a=0; sid=1;sid=2 ;\tsid=3; b=4"), ["1", "2", "3"]);
        assert_eq!(found("sid=a=b"), ["a=b"]);
        assert_eq!(found("sid="), [""]);
        for header in
            ["", ";", "=", "Cookie: =", "sid", "SID=1", "xsid=1", "sid =1", "\u{2000}sid=1", "foo=1; ; bar"]
        {
            assert!(found(header).is_empty(), "{header:?}");
        }
        assert_eq!(found("a=\"x; sid=1; y\""), ["1"], "a quoted string ends at `;`");
        assert_eq!(
            found("sid=\"1\"; sid=\"\"; sid=\"; sid=\"a; sid=b\"; sid=\"\"c\"\""),
            ["1", "", "\"", "\"a", "b\"", "\"\"c\"\""]
        );
    }

    #[test]
    fn other_cookies_are_unchanged() {
        let strip = |header: &str, keep: Option<&str>| match without(
            header.as_bytes(),
            "sid",
            keep.map(str::as_bytes),
        ) {
            Stripped::Unchanged => header.to_owned(),
            Stripped::Rest(rest) => String::from_utf8(rest).unwrap(),
            Stripped::Empty => "(none)".to_owned(),
        };
        for (header, keep, expected) in [
            ("a=1; sid=x; b=2", None, "a=1; b=2"),
            ("sid=x; b=2", None, "b=2"),
            ("a=1; sid=x", None, "a=1"),
            ("sid=x", None, "(none)"),
            ("sid=x;sid=y", None, "(none)"),
            ("a=1;b=2;  c=3", None, "a=1;b=2;  c=3"),
            ("a=1;sid=x;  c=\"3\"; ; =;$Version=1", None, "a=1;  c=\"3\"; ; =;$Version=1"),
            ("sid=x; sid=y; a=1", Some("y"), "sid=y; a=1"),
            ("sid=y; sid=y", Some("y"), "sid=y"),
            ("sid =z; sid=y", Some("y"), "sid=y"),
            (
                "$Version=1;sid=\"y\";$Path=\"/\"; a=\"1\"",
                Some("y"),
                "$Version=1; sid=y;$Path=\"/\"; a=\"1\"",
            ),
            ("sid=\"y\"; a=1; sid=y", Some("y"), "sid=y; a=1"),
            ("a=\u{ff}é; sid=x", None, "a=\u{ff}é"),
            ("\u{a0}sid=z; sid=y; sid\u{2003}=z", Some("y"), "sid=y"),
        ] {
            assert_eq!(strip(header, keep), expected, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn session_cookies_are_removed_and_no_others(
            pairs in prop::collection::vec("(sid|sid |other|[a-z]{0,3})=[ -:<-~]{0,6}", 0..8),
        ) {
            let header = pairs.join(";");
            let rest = match without(header.as_bytes(), "sid", None) {
                Stripped::Unchanged => header.clone().into_bytes(),
                Stripped::Rest(rest) => rest,
                Stripped::Empty => Vec::new(),
            };
            prop_assert_eq!(values(&rest, "sid").count(), 0);
            let others: Vec<_> = pairs.iter().filter(|pair| !pair.trim_start().starts_with("sid")).map(|p| p.trim()).collect();
            let rest = String::from_utf8(rest).unwrap();
            let left: Vec<_> = rest.split(';').map(str::trim).filter(|p| !p.is_empty() || others.contains(p)).collect();
            if !rest.is_empty() { prop_assert_eq!(left, others); }
        }

        #[test]
        fn parsing_never_panics(header in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = values(&header, "sid").count();
            let _ = without(&header, "sid", Some(b"x"));
        }
    }
}
