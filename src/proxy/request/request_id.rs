//! Request ids, by which a request can be found in the logs of all servers on its path.

use std::cell::Cell;

use http::HeaderValue;

use crate::fields::Fields;
use crate::headers::REQUEST_ID;
use crate::telemetry::trace::hex;

/// A source of request ids. They are unique, but not secret.
#[derive(Debug)]
pub struct RequestIds {
    /// A random number, chosen once per worker.
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

    /// Returns the id in the request's header fields, if it has 1 to 128 letters, digits and `-_.`, or else a new id.
    pub fn for_request(&self, fields: &Fields) -> HeaderValue {
        if let Some(id) = fields.single(&REQUEST_ID)
            && (1..=128).contains(&id.len())
            && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && let Ok(id) = HeaderValue::from_bytes(id)
        {
            return id;
        }
        let count = self.next.replace(self.next.get().wrapping_add(1));
        let mut id = Vec::with_capacity(32);
        hex(&mut id, self.prefix);
        hex(&mut id, count);
        // Hex digits are valid in a header value.
        HeaderValue::from_maybe_shared(bytes::Bytes::from(id)).unwrap_or(HeaderValue::from_static("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_id_is_kept_and_any_other_replaced() {
        let ids = RequestIds::new().unwrap();
        let id_for = |values: &[&'static str]| {
            let values = values.iter().map(|value| (REQUEST_ID, HeaderValue::from_static(value)));
            ids.for_request(&Fields::from_iter(values)).to_str().unwrap().to_owned()
        };
        assert_eq!(id_for(&["aB1-_.x"]), "aB1-_.x");
        for new in [id_for(&[]), id_for(&[""]), id_for(&["a b"]), id_for(&["<script>"]), id_for(&["a\t"])] {
            assert!(new.len() == 32 && new.bytes().all(|b| b.is_ascii_hexdigit()), "{new}");
        }
        assert_ne!(id_for(&[]), id_for(&[]));
        let long = Fields::from_iter([(REQUEST_ID, HeaderValue::from_bytes(&[b'a'; 129]).unwrap())]);
        assert_eq!(ids.for_request(&long).len(), 32);
        let mut two = Fields::from_iter([(REQUEST_ID, HeaderValue::from_static("a"))]);
        two.append(REQUEST_ID, HeaderValue::from_static("b"));
        assert_eq!(ids.for_request(&two).len(), 32);
    }
}
