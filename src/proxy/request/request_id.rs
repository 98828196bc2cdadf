//! Request ids: a request has the same id in every log on its path.

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
    /// Returns a source of ids.
    ///
    /// # Errors
    /// Returns an error if the operating system provides no randomness.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { prefix: getrandom::u64()?, next: Cell::new(getrandom::u64()?) })
    }

    /// Returns the id that a request has, if it is 1 to 128 letters, digits and `-_.`; a new one otherwise.
    pub fn for_request(&self, headers: &HeaderMap) -> HeaderValue {
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
    fn valid_id_is_kept_and_any_other_replaced() {
        let ids = RequestIds::new().unwrap();
        let of = |values: &[&'static str]| {
            let values = values.iter().map(|value| (REQUEST_ID, HeaderValue::from_static(value)));
            ids.for_request(&HeaderMap::from_iter(values)).to_str().unwrap().to_owned()
        };
        assert_eq!(of(&["aB1-_.x"]), "aB1-_.x");
        for made in [of(&[]), of(&[""]), of(&["a b"]), of(&["<script>"]), of(&["a\t"])] {
            assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
        }
        assert_ne!(of(&[]), of(&[]));
        let long = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(&[b'a'; 129]).unwrap())]);
        assert_eq!(ids.for_request(&long).len(), 32);
        let mut two = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("a"))]);
        two.append(REQUEST_ID, HeaderValue::from_static("b"));
        assert_eq!(ids.for_request(&two).len(), 32);
    }
}
