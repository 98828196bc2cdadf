//! The id by which a request is found in every log on its way.

use std::cell::Cell;

use http::{HeaderMap, HeaderValue};

use crate::headers::REQUEST_ID;
use crate::telemetry::trace::hex;

/// Makes request ids: unique, not secret.
#[derive(Debug)]
pub struct RequestIds {
    /// Random, once per worker.
    prefix: u64,
    next: Cell<u64>,
}

impl RequestIds {
    /// A source of ids.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { prefix: getrandom::u64()?, next: Cell::new(getrandom::u64()?) })
    }

    /// The id that a request brings, if it brings one of 1 to 128 letters, digits and `-_.`; a new one otherwise.
    pub fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let mut brought = headers.get_all(REQUEST_ID).iter();
        if let (Some(id), None) = (brought.next(), brought.next())
            && (1..=128).contains(&id.len())
            && id.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            return id.clone();
        }
        let count = self.next.replace(self.next.get().wrapping_add(1));
        let mut id = Vec::with_capacity(32);
        hex(&mut id, self.prefix);
        hex(&mut id, count);
        // Hex digits are a header value.
        HeaderValue::from_maybe_shared(bytes::Bytes::from(id)).unwrap_or(HeaderValue::from_static("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_passed_on_if_it_is_one() {
        let ids = RequestIds::new().unwrap();
        let of = |values: &[&'static str]| {
            let values = values.iter().map(|value| (REQUEST_ID, HeaderValue::from_static(value)));
            ids.of(&HeaderMap::from_iter(values)).to_str().unwrap().to_owned()
        };
        assert_eq!(of(&["aB1-_.x"]), "aB1-_.x");
        for made in [of(&[]), of(&[""]), of(&["a b"]), of(&["<script>"]), of(&["a\t"])] {
            assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
        }
        assert_ne!(of(&[]), of(&[]));
        let long = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(&[b'a'; 129]).unwrap())]);
        assert_eq!(ids.of(&long).len(), 32);
        let mut two = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("a"))]);
        two.append(REQUEST_ID, HeaderValue::from_static("b"));
        assert_eq!(ids.of(&two).len(), 32);
    }
}
