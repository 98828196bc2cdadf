//! MessagePack decoding to JSON values, with limits. A declared length is compared with the remaining input before
//! anything is allocated for it.
//!
//! Types that JSON does not have are converted: bytes to base64, timestamps (extension -1) to the text of Python's
//! `isoformat`, NaN, infinities and other extensions to `null`. Keys that are numbers become text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::json::{DEPTH, NODES};
use crate::claims::Claims;
use crate::format::iso8601;

/// Decodes a map. Returns `None` if `bytes` are anything else, or exceed the limits of [`DEPTH`] and [`NODES`].
pub(in crate::format) fn object(bytes: &[u8]) -> Option<Claims> {
    let mut input = Input { bytes, budget: NODES };
    let value = input.value(DEPTH)?;
    if let Value::Object(claims) = value { Some(claims).filter(|_| input.bytes.is_empty()) } else { None }
}

struct Input<'b> {
    bytes: &'b [u8],
    budget: usize,
}

impl<'b> Input<'b> {
    fn read(&mut self, count: usize) -> Option<&'b [u8]> {
        let (head, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*head)
    }

    /// Reads a length of `width` bytes.
    fn length(&mut self, width: usize) -> Option<usize> {
        let bytes = self.read(width)?;
        Some(bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)))
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.budget = self.budget.checked_sub(1)?;
        let [first] = self.array()?;
        Some(match first {
            0x00..=0x7f => first.into(),
            0x80..=0x8f => self.map(usize::from(first & 0x0f), depth)?,
            0x90..=0x9f => self.list(usize::from(first & 0x0f), depth)?,
            0xa0..=0xbf => self.text(usize::from(first & 0x1f))?,
            0xc0 => Value::Null,
            0xc1 => return None,
            0xc2 => false.into(),
            0xc3 => true.into(),
            0xc4..=0xc6 => {
                let length = self.length(1 << (first - 0xc4))?;
                STANDARD.encode(self.read(length)?).into()
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (first - 0xc7))?;
                self.extension(length)?
            }
            0xca => float(f32::from_be_bytes(self.array()?).into()),
            0xcb => float(f64::from_be_bytes(self.array()?)),
            0xcc => u8::from_be_bytes(self.array()?).into(),
            0xcd => u16::from_be_bytes(self.array()?).into(),
            0xce => u32::from_be_bytes(self.array()?).into(),
            0xcf => u64::from_be_bytes(self.array()?).into(),
            0xd0 => i8::from_be_bytes(self.array()?).into(),
            0xd1 => i16::from_be_bytes(self.array()?).into(),
            0xd2 => i32::from_be_bytes(self.array()?).into(),
            0xd3 => i64::from_be_bytes(self.array()?).into(),
            0xd4..=0xd8 => self.extension(1 << (first - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(1 << (first - 0xd9))?;
                self.text(length)?
            }
            0xdc | 0xdd => {
                let length = self.length(2 << (first - 0xdc))?;
                self.list(length, depth)?
            }
            0xde | 0xdf => {
                let length = self.length(2 << (first - 0xde))?;
                self.map(length, depth)?
            }
            0xe0..=0xff => i8::from_be_bytes([first]).into(),
        })
    }

    fn text(&mut self, length: usize) -> Option<Value> {
        std::str::from_utf8(self.read(length)?).ok().map(Value::from)
    }

    fn list(&mut self, length: usize, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        // Every element takes at least one byte, and one of the budget.
        if length > self.bytes.len().min(self.budget) {
            return None;
        }
        (0..length).map(|_| self.value(depth)).collect::<Option<Vec<_>>>().map(Value::Array)
    }

    fn map(&mut self, length: usize, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        if length > (self.bytes.len() / 2).min(self.budget) {
            return None;
        }
        let mut map = Map::new();
        for _ in 0..length {
            let name = match self.value(depth)? {
                Value::String(name) => name,
                Value::Number(number) => number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            map.insert(name, self.value(depth)?);
        }
        Some(Value::Object(map))
    }

    fn extension(&mut self, length: usize) -> Option<Value> {
        let [kind] = self.array()?;
        let data = self.read(length)?;
        let is_timestamp = i8::from_be_bytes([kind]) == -1;
        Some(timestamp(data).filter(|_| is_timestamp).map_or(Value::Null, Value::String))
    }
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Decodes a timestamp extension, of 4, 8 or 12 bytes.
fn timestamp(data: &[u8]) -> Option<String> {
    let (secs, nanos) = match data.len() {
        4 => (i64::from(u32::from_be_bytes(data.try_into().ok()?)), 0),
        8 => {
            let both = u64::from_be_bytes(data.try_into().ok()?);
            (i64::try_from(both & 0x3_ffff_ffff).ok()?, u32::try_from(both >> 34).ok()?)
        }
        12 => {
            let (nanos, secs) = data.split_first_chunk()?;
            (i64::from_be_bytes(secs.try_into().ok()?), u32::from_be_bytes(*nanos))
        }
        _ => return None,
    };
    iso8601::write(secs, nanos / 1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_beyond_the_input_are_rejected() {
        for head in [
            &[0xdb, 0xff, 0xff, 0xff, 0xff][..],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xdf, 0xff, 0xff, 0xff, 0xff],
            &[0xc6, 0xff, 0xff, 0xff, 0xff],
            &[0xc9, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            assert_eq!(object(head), None);
            let inside: Vec<u8> = [&[0x81, 0xa1, b'a'][..], head, &[0; 64]].concat();
            assert_eq!(object(&inside), None);
        }
    }

    #[test]
    fn depth_and_number_of_values_are_limited() {
        let nested = |depth: usize| [&[0x81, 0xa1, b'a'][..], &vec![0x91; depth - 1], &[0x90]].concat();
        assert!(object(&nested(DEPTH - 1)).is_some());
        assert!(object(&nested(DEPTH)).is_none());
        assert!(object(&nested(100_000)).is_none());
        let wide = |count: u16| {
            let head = [0x81, 0xa1, b'a', 0xdc].into_iter().chain(count.to_be_bytes());
            head.chain(std::iter::repeat_n(1, count.into())).collect::<Vec<u8>>()
        };
        // The map, its key and the list count as values, too.
        assert!(object(&wide(9_997)).is_some());
        assert!(object(&wide(9_998)).is_none());
    }

    #[test]
    fn only_a_map_with_text_or_number_keys_is_accepted() {
        for wrong in [
            &[][..],
            &[0x90],
            &[0x01],
            &[0xc1],
            &[0x80, 0x00],
            &[0x81, 0xc0, 0x01],
            &[0x81, 0xa1, 0xff, 0x01],
        ] {
            assert_eq!(object(wrong), None, "{wrong:x?}");
        }
        assert_eq!(object(&[0x81, 0x07, 0x01]).unwrap(), Claims::from_iter([("7".into(), 1.into())]));
    }

    #[test]
    fn timestamps_of_4_and_12_bytes_are_decoded() {
        assert_eq!(timestamp(&1_u32.to_be_bytes()).unwrap(), "1970-01-01T00:00:01+00:00");
        let before = [&500_000_000_u32.to_be_bytes()[..], &(-1_i64).to_be_bytes()].concat();
        assert_eq!(timestamp(&before).unwrap(), "1969-12-31T23:59:59.500000+00:00");
        assert_eq!(timestamp(&[&[0; 4][..], &i64::MAX.to_be_bytes()].concat()), None);
        assert_eq!(timestamp(&[0; 5]), None);
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = object(&bytes);
        }
    }
}
