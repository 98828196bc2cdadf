//! JSON decoding with limits on nesting ([`DEPTH`]) and on the number of values ([`NODES`]), enforced while decoding.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::claims::Claims;

/// Maximum nesting of a payload, the object itself included.
pub(crate) const DEPTH: usize = 64;
/// Maximum number of values in a payload, the object itself included.
pub(crate) const NODES: usize = 10_000;

/// Decodes a JSON object. If a name occurs twice, the last value counts, as in Python and JavaScript.
///
/// Returns `None` for an integer beyond 64 bits rather than round it to a float: it could be a user id, and several ids
/// would become the same number.
pub(crate) fn object(bytes: &[u8]) -> Option<Claims> {
    if has_huge_integer(bytes) {
        return None;
    }
    let mut remaining = NODES;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node { depth: DEPTH, remaining: &mut remaining }.deserialize(&mut deserializer).ok()?;
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

/// Returns the input after a string's closing quote.
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

/// Decodes one value within the limits.
struct Node<'n> {
    /// Levels of nesting left.
    depth: usize,
    /// Number of values left, in the whole payload.
    remaining: &'n mut usize,
}

impl Node<'_> {
    /// Returns the `depth` of the values inside this one.
    fn inner_depth<E: Error>(&self) -> Result<usize, E> {
        self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.remaining = self.remaining.checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
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
        let depth = self.inner_depth()?;
        let mut list = Vec::new();
        while let Some(value) = elements.next_element_seed(Node { depth, remaining: &mut *self.remaining })? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.inner_depth()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Node { depth, remaining: &mut *self.remaining })?;
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
    fn integers_beyond_64_bits_are_rejected() {
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
    fn only_a_single_valid_object_is_accepted() {
        assert_eq!(object(b" {} "), Some(Claims::new()));
        for other in
            ["", "[]", "1", "null", "{", "{}x", "{}{}", "{\"a\":NaN}", "{\"a\":Infinity}", "\u{feff}{}"]
        {
            assert_eq!(object(other.as_bytes()), None, "{other}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None, "not UTF-8");
        assert_eq!(object(b"{\"a\":\"\\ud800\"}"), None, "half a surrogate pair");
        assert_eq!(object(b"{\"a\":1,\"a\":2}").unwrap()["a"], 2);
    }

    #[test]
    fn depth_and_number_of_values_are_limited() {
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
        fn result_within_the_limits_equals_that_of_serde_json(text in "\\{(\"[ab\\\\]\":([0-9.eE-]{1,5}|\"[a-zü\\\\u]*\"|true|null|\\[\\]),?){0,4}\\}") {
            let expected = serde_json::from_str::<Claims>(&text).ok();
            prop_assert_eq!(object(text.as_bytes()), expected);
        }
    }
}
