//! Whole numbers in base 62, as `django.core.signing` writes its timestamps.

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The digits of `number`.
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

/// Reads digits; none if there are none, or others, or more than a `u64` holds.
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
    fn as_django_writes_them() {
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
        fn every_number_reads_back(number in any::<u64>()) {
            prop_assert_eq!(decode(&encode(number)), Some(number));
        }
    }
}
