//! JSON in the form of JavaScript's `JSON.stringify`: no spaces, non-ASCII text unescaped, numbers as
//! `String(number)` writes them. A row that the gateway writes is then byte for byte what the framework would have
//! written.

use std::io;

use serde::Serialize as _;
use serde_json::ser::{Formatter, Serializer};

use super::EncodeFault;
use super::map::is_huge_integer;
use crate::claims::Claims;

/// Serializes as `JSON.stringify(claims)` does.
///
/// # Errors
/// Returns [`EncodeFault::Number`] for a float that would be read back as an integer beyond 64 bits.
pub(super) fn stringify(claims: &Claims) -> Result<String, EncodeFault> {
    let mut out = Vec::new();
    claims
        .serialize(&mut Serializer::with_formatter(&mut out, JavaScript))
        .map_err(|_| EncodeFault::Number)?;
    String::from_utf8(out).map_err(|_| EncodeFault::Number)
}

struct JavaScript;

impl Formatter for JavaScript {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // From 1e21 on, the number has an exponent, so it is read back as a float.
        if is_huge_integer(value) && value.abs() < 1e21 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        writer.write_all(number(value).as_bytes())
    }
}

/// Formats as `String(number)` does: the shortest digits that parse to the same number, in positional notation from
/// 1e-6 to 1e21.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if (1e-6..1e21).contains(&value.abs()) {
        return format!("{value}");
    }
    let scientific = format!("{value:e}");
    if scientific.contains("e-") { scientific } else { scientific.replace('e', "e+") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text_equal_those_of_javascript() {
        for (value, expected) in [
            (1.0, "1"),
            (-0.0, "0"),
            (1.5, "1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (0.000_001, "0.000001"),
            (1.5e-7, "1.5e-7"),
        ] {
            assert_eq!(number(value), expected);
        }
        let text = r#"{"a":"Zoë ☃ \u0001\b\n\"\\/ ","b":[1,{},[]],"c":1.0}"#;
        let claims: Claims = serde_json::from_str(text).unwrap();
        assert_eq!(stringify(&claims).unwrap(), text.replace("1.0", "1"));
        for (value, is_written) in [(1e19, true), (1e20, false), (-1e19, false), (1e21, true), (-1e300, true)]
        {
            let claims = Claims::from_iter([("a".to_owned(), value.into())]);
            assert_eq!(stringify(&claims).is_ok(), is_written, "{value}");
        }
    }
}
