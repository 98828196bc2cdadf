//! MessagePack encoding of claims. Integers and lengths have their shortest form, and floats have 64 bits, as msgspec
//! and other encoders write them.

use serde_json::Value;

use crate::claims::Claims;
use crate::format::decode::json::DEPTH;

/// Encodes claims. Returns `None` if they are nested too deeply for the decoder, or a length does not fit into 32 bits.
pub(super) fn encode(claims: &Claims) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    map(&mut out, claims, DEPTH)?;
    Some(out)
}

fn value(out: &mut Vec<u8>, value: &Value, depth: usize) -> Option<()> {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(flag) => out.push(0xc2 + u8::from(*flag)),
        Value::String(text) => string(out, text)?,
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => unsigned(out, number),
            (None, Some(number)) => negative(out, number),
            (None, None) => {
                out.push(0xcb);
                out.extend(number.as_f64()?.to_be_bytes());
            }
        },
        Value::Array(list) => {
            head(out, list.len(), (0x90, 15), &[(2, 0xdc), (4, 0xdd)])?;
            let depth = depth.checked_sub(1)?;
            list.iter().try_for_each(|element| self::value(out, element, depth))?;
        }
        Value::Object(object) => map(out, object, depth)?,
    }
    Some(())
}

fn map(out: &mut Vec<u8>, object: &Claims, depth: usize) -> Option<()> {
    head(out, object.len(), (0x80, 15), &[(2, 0xde), (4, 0xdf)])?;
    let depth = depth.checked_sub(1)?;
    object.iter().try_for_each(|(name, inner)| string(out, name).and_then(|()| value(out, inner, depth)))
}

fn string(out: &mut Vec<u8>, text: &str) -> Option<()> {
    head(out, text.len(), (0xa0, 31), &[(1, 0xd9), (2, 0xda), (4, 0xdb)])?;
    out.extend(text.as_bytes());
    Some(())
}

/// Writes the head of a value with a length: `first` combined with the length if that is at most `max`, else the marker
/// of the first of `wider` (bytes of length, marker) in which the length fits.
fn head(out: &mut Vec<u8>, length: usize, (first, max): (u8, u8), wider: &[(usize, u8)]) -> Option<()> {
    if let Some(short) = u8::try_from(length).ok().filter(|length| *length <= max) {
        out.push(first | short);
        return Some(());
    }
    let bytes = u32::try_from(length).ok()?.to_be_bytes();
    let (width, marker) = wider.iter().find(|(width, _)| length >> (8 * width) == 0)?;
    out.push(*marker);
    out.extend(bytes.get(4 - width..)?);
    Some(())
}

fn unsigned(out: &mut Vec<u8>, number: u64) {
    if let Ok(short) = u8::try_from(number) {
        out.extend((short >= 0x80).then_some(0xcc));
        out.push(short);
    } else if let Ok(short) = u16::try_from(number) {
        out.push(0xcd);
        out.extend(short.to_be_bytes());
    } else if let Ok(short) = u32::try_from(number) {
        out.push(0xce);
        out.extend(short.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend(number.to_be_bytes());
    }
}

fn negative(out: &mut Vec<u8>, number: i64) {
    if let Ok(short) = i8::try_from(number) {
        out.extend((short < -32).then_some(0xd0));
        out.extend(short.to_be_bytes());
    } else if let Ok(short) = i16::try_from(number) {
        out.push(0xd1);
        out.extend(short.to_be_bytes());
    } else if let Ok(short) = i32::try_from(number) {
        out.push(0xd2);
        out.extend(short.to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend(number.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::format::decode::msgpack::object;

    proptest! {
        #[test]
        fn encoded_claims_decode_to_the_same(
            whole in any::<i64>(), large in any::<u64>(), shift in 0u32..64, float in any::<f64>(), text in ".{0,300}",
            list in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let claims = json!({
                "w": whole >> shift, "l": large >> shift, "f": float, "t": text, "list": list, "n": [null, true, {"a": {}}],
            });
            let claims = claims.as_object().unwrap();
            let bytes = encode(claims).unwrap();
            prop_assert_eq!(&object(&bytes).unwrap(), claims);
            for cut in 0..bytes.len() {
                prop_assert!(object(bytes.get(..cut).unwrap()).is_none());
            }
        }
    }

    #[test]
    fn long_texts_and_lists_decode_to_the_same() {
        for length in [31, 32, 255, 256, 65_535, 65_536] {
            let claims = Claims::from_iter([("a".to_owned(), "x".repeat(length).into())]);
            assert_eq!(object(&encode(&claims).unwrap()).unwrap(), claims, "{length}");
        }
        for length in [15, 16, 9_000] {
            let claims = Claims::from_iter([("a".to_owned(), vec![1; length].into())]);
            assert_eq!(object(&encode(&claims).unwrap()).unwrap(), claims, "{length}");
        }
    }
}
