//! Base 62, in which `django.core.signing` writes timestamps.

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Encodes a number.
pub(super) fn encode(mut number: u64) -> String {
    let mut digits: Vec<u8> = Vec::new();
    loop {
        // The remainder is below the alphabet's length.
        let digit = usize::try_from(number % 62).ok().and_then(|digit| ALPHABET.get(digit));
        digits.extend(digit);
        number /= 62;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

/// Decodes a number. Returns `None` if `text` is empty, has other characters, or exceeds a `u64`.
pub(super) fn decode(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.bytes().try_fold(0u64, |number, byte| {
        let digit = ALPHABET.iter().position(|letter| *letter == byte)?;
        number.checked_mul(62)?.checked_add(digit.try_into().ok()?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_equal_those_of_django() {
        for (number, text) in
            [(0, "0"), (61, "z"), (62, "10"), (1_795_288_924, "1xUqey"), (u64::MAX, "LygHa16AHYF")]
        {
            assert_eq!(encode(number), text);
            assert_eq!(decode(text), Some(number));
        }
        for wrong in ["", "-1", "+1", " 1", "1 ", "ü", "LygHa16AHYG", "zzzzzzzzzzzz"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn encoded_number_decodes_to_itself(number in any::<u64>()) {
            prop_assert_eq!(decode(&encode(number)), Some(number));
        }
    }
}
