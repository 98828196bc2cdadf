//! JSON in the form of Python's `json.dumps`: non-ASCII text escaped (`\u20ac`), floats as `repr` writes them. A row that
//! the gateway writes is then byte for byte what the framework would have written.

use std::fmt::Write as _;
use std::io;

use serde::Serialize as _;
use serde_json::ser::{CharEscape, Formatter, Serializer};

use super::EncodeFault;
use crate::claims::Claims;

/// The `separators` argument.
#[derive(Clone, Copy, Debug)]
pub(super) enum Separators {
    /// `(", ", ": ")`, the default.
    Spaced,
    /// `(",", ":")`
    Compact,
}

/// Serializes as `json.dumps(claims, separators=…)` does.
pub(super) fn dumps(claims: &Claims, separators: Separators) -> Result<String, EncodeFault> {
    let (item, key): (&[u8], &[u8]) = match separators {
        Separators::Spaced => (b", ", b": "),
        Separators::Compact => (b",", b":"),
    };
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, Python { item, key });
    claims.serialize(&mut serializer).map_err(|_| EncodeFault::Number)?;
    String::from_utf8(out).map_err(|_| EncodeFault::Number)
}

struct Python {
    item: &'static [u8],
    key: &'static [u8],
}

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.item) }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.item) }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key)
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(repr(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut text = String::with_capacity(fragment.len());
        for c in fragment.chars() {
            // The caller escapes the other control characters.
            if c.is_ascii() && c != '\x7f' {
                text.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(text, "\\u{unit:04x}").map_err(io::Error::other)?;
                }
            }
        }
        writer.write_all(text.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let short = match escape {
            CharEscape::Quote => "\\\"",
            CharEscape::ReverseSolidus => "\\\\",
            CharEscape::Solidus => "/",
            CharEscape::Backspace => "\\b",
            CharEscape::FormFeed => "\\f",
            CharEscape::LineFeed => "\\n",
            CharEscape::CarriageReturn => "\\r",
            CharEscape::Tab => "\\t",
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04x}"),
        };
        writer.write_all(short.as_bytes())
    }
}

/// Formats as `repr(float)` does: the shortest digits that parse to the same number, in positional notation from 1e-4
/// to 1e16.
fn repr(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_equal_those_of_python() {
        for (value, expected) in [
            (1.5, "1.5"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e-100, "1e-100"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
        ] {
            assert_eq!(repr(value), expected);
        }
    }

    #[test]
    fn escaped_text_equals_that_of_python() {
        let claims: Claims =
            serde_json::from_str(r#"{"a": "Zoë ☃ 😀 \u0001\n\"\\/\u007f", "b": [1, {}, []]}"#).unwrap();
        let expected =
            "{\"a\": \"Zo\\u00eb \\u2603 \\ud83d\\ude00 \\u0001\\n\\\"\\\\/\\u007f\", \"b\": [1, {}, []]}";
        assert_eq!(dumps(&claims, Separators::Spaced).unwrap(), expected);
        let compact =
            "{\"a\":\"Zo\\u00eb \\u2603 \\ud83d\\ude00 \\u0001\\n\\\"\\\\/\\u007f\",\"b\":[1,{},[]]}";
        assert_eq!(dumps(&claims, Separators::Compact).unwrap(), compact);
    }
}
