//! JSON, bounded: nested no deeper than [`DEPTH`], of no more than [`NODES`] values, and nothing built beyond that.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::claims::Claims;

/// How deeply a payload may nest, the object itself included.
pub(crate) const DEPTH: usize = 64;
/// How many values a payload may hold, the object itself included.
pub(crate) const NODES: usize = 10_000;

/// Reads a JSON object. Of two members of the same name the last counts, as in Python and JavaScript.
///
/// A whole number beyond 64 bits is refused: as a float it would be one with its neighbours, and numbers name users.
pub(crate) fn object(bytes: &[u8]) -> Option<Claims> {
    if has_huge_integer(bytes) {
        return None;
    }
    let mut left = NODES;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node { depth: DEPTH, left: &mut left }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    if let Value::Object(claims) = value { Some(claims) } else { None }
}

fn has_huge_integer(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = match byte {
            b'"' => after_string(tail),
            b'-' | b'0'..=b'9' => {
                let end =
                    rest.iter().position(|b| !matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
                let (number, tail) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, &[]));
                let text = std::str::from_utf8(number).unwrap_or_default();
                let is_whole = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
                if text.len() > 18 && is_whole && text.parse::<i64>().is_err() && text.parse::<u64>().is_err()
                {
                    return true;
                }
                tail
            }
            _ => tail,
        };
    }
    false
}

/// What follows a string's closing quote.
fn after_string(mut rest: &[u8]) -> &[u8] {
    loop {
        match rest {
            [b'\\', _, tail @ ..] | [b'\\', tail @ ..] => rest = tail,
            [b'"', tail @ ..] => return tail,
            [_, tail @ ..] => rest = tail,
            [] => return rest,
        }
    }
}

/// One value, and what may still be built.
struct Node<'n> {
    depth: usize,
    left: &'n mut usize,
}

impl Node<'_> {
    /// Goes one level down: how deep the values inside this one may go.
    fn inside<E: Error>(&self) -> Result<usize, E> {
        self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.left = self.left.checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let depth = self.inside()?;
        let mut list = Vec::new();
        while let Some(value) = elements.next_element_seed(Node { depth, left: &mut *self.left })? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.inside()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Node { depth, left: &mut *self.left })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers_beyond_64_bits_are_refused_wherever_they_stand() {
        for (json, expected) in [
            (r#"{"id": 18446744073709551615, "n": -9223372036854775808}"#, true),
            (r#"{"id": 18446744073709551616}"#, false),
            (r#"{"id": [-9223372036854775809]}"#, false),
            (r#"{"id": "18446744073709551616", "e": "\\\"18446744073709551616"}"#, true),
            (r#"{"id": 1.8446744073709551616e19, "f": 0.12345678901234567890123}"#, true),
            (r#"{"18446744073709551616": 1e25}"#, true),
        ] {
            assert_eq!(object(json.as_bytes()).is_some(), expected, "{json}");
        }
    }

    fn nested(depth: usize) -> String {
        format!("{{\"a\":{}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1))
    }

    #[test]
    fn only_whole_objects() {
        assert_eq!(object(b" {} "), Some(Claims::new()));
        for other in
            ["", "[]", "1", "null", "{", "{}x", "{}{}", "{\"a\":NaN}", "{\"a\":Infinity}", "\u{feff}{}"]
        {
            assert_eq!(object(other.as_bytes()), None, "{other}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None, "not UTF-8");
        assert_eq!(object(b"{\"a\":\"\\ud800\"}"), None, "half a character");
        assert_eq!(object(b"{\"a\":1,\"a\":2}").unwrap()["a"], 2);
    }

    #[test]
    fn bounds() {
        assert!(object(nested(DEPTH).as_bytes()).is_some());
        assert!(object(nested(DEPTH + 1).as_bytes()).is_none());
        assert!(object("{\"a\":".repeat(100_000).as_bytes()).is_none());
        assert!(object(format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes()).is_none());
        let many = |count: usize| format!("{{\"a\":[{}]}}", vec!["1"; count].join(","));
        assert!(object(many(NODES - 2).as_bytes()).is_some());
        assert!(object(many(NODES - 1).as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn what_is_in_bounds_is_what_serde_json_reads(text in "\\{(\"[ab\\\\]\":([0-9.eE-]{1,5}|\"[a-zü\\\\u]*\"|true|null|\\[\\]),?){0,4}\\}") {
            let expected = serde_json::from_str::<Claims>(&text).ok();
            prop_assert_eq!(object(text.as_bytes()), expected);
        }
    }
}
