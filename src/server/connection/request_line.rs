//! Characters in the query of an HTTP/1.1 request that hyper refuses.
//!
//! A query may hold no `"`, `<` or `>` (RFC 3986, 3.4); browsers percent-encode them, while curl and old clients send
//! them as they are. hyper cannot be told to take them, so the request line is mended before it comes to hyper: [`QueryScan`]
//! follows request lines as they are read, [`encode_query`] mends one that needs it.

/// The bytes that are percent-encoded in a query.
const ENCODED: [(u8, &[u8]); 3] = [(b'"', b"%22"), (b'<', b"%3C"), (b'>', b"%3E")];

/// Follows the line of a request as its pieces come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum QueryScan {
    /// Not on a request line.
    #[default]
    Off,
    /// Before the line: empty lines may come first (RFC 9112, 2.2).
    Before,
    /// On the line, before its query.
    Target,
    /// In the query, and whether there is something to encode in it.
    Query(bool),
}

impl QueryScan {
    /// Follows the line through `piece`. Returns whether the line ends in it and has something to encode.
    pub(super) fn advance(&mut self, piece: &[u8]) -> bool {
        if *self == Self::Off {
            return false;
        }
        for &byte in piece {
            *self = match (*self, byte) {
                (Self::Off, _) => return false,
                (Self::Before, b'\r' | b'\n') => Self::Before,
                (Self::Query(found), b'\n') => {
                    *self = Self::Off;
                    return found;
                }
                (_, b'\n') => Self::Off,
                (Self::Before | Self::Target, b'?') => Self::Query(false),
                (Self::Before | Self::Target, _) => Self::Target,
                (Self::Query(found), byte) => Self::Query(found || encoded(byte).is_some()),
            };
        }
        false
    }
}

/// Percent-encodes the query of the request whose head `bytes` begins with.
pub(super) fn encode_query(bytes: &[u8]) -> Vec<u8> {
    let mut scan = QueryScan::Before;
    let mut mended = Vec::with_capacity(bytes.len() + 64);
    for &byte in bytes {
        match encoded(byte).filter(|_| matches!(scan, QueryScan::Query(_))) {
            Some(encoded) => mended.extend_from_slice(encoded),
            None => mended.push(byte),
        }
        scan.advance(&[byte]);
    }
    mended
}

fn encoded(byte: u8) -> Option<&'static [u8]> {
    ENCODED.iter().find(|(plain, _)| *plain == byte).map(|(_, encoded)| *encoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADS: [(&str, &str); 12] = [
        ("GET /?q=\"a\" HTTP/1.1\r\nX: \"?\"\r\n\r\n", "GET /?q=%22a%22 HTTP/1.1\r\nX: \"?\"\r\n\r\n"),
        ("GET /?<>\"? HTTP/1.1\n\n", "GET /?%3C%3E%22? HTTP/1.1\n\n"),
        ("\r\n\nGET http://a/?\" HTTP/1.1\r\n", "\r\n\nGET http://a/?%22 HTTP/1.1\r\n"),
        ("GET /?%22 HTTP/1.1\r\n", "GET /?%22 HTTP/1.1\r\n"),
        ("GET /?'{|}\\^`[] HTTP/1.1\r\n\"", "GET /?'{|}\\^`[] HTTP/1.1\r\n\""),
        ("GET /\"<> HTTP/1.1\r\n", "GET /\"<> HTTP/1.1\r\n"),
        ("GET / HTTP/1.1\r\nA: ?\"\r\n", "GET / HTTP/1.1\r\nA: ?\"\r\n"),
        ("?\"\n?\"", "?%22\n?\""),
        ("GET /?q=\"", "GET /?q=%22"),
        ("", ""),
        ("\r\n", "\r\n"),
        ("\n?\r\n\"", "\n?\r\n\""),
    ];

    #[test]
    fn only_the_query_of_the_request_line_is_encoded() {
        for (head, mended) in HEADS {
            assert_eq!(String::from_utf8(encode_query(head.as_bytes())).unwrap(), mended);
        }
    }

    #[test]
    fn a_line_has_something_to_encode_if_encoding_changes_it() {
        for (head, mended) in HEADS.iter().filter(|(head, _)| head.trim_start().contains('\n')) {
            for size in 1..=head.len() {
                let mut scan = QueryScan::Before;
                let found = head.as_bytes().chunks(size).any(|piece| scan.advance(piece));
                assert_eq!(found, head != mended, "{head:?} by {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_has_nothing_left_to_encode(bytes in "[?\"<> a\r\n/]{0,40}") {
            let once = encode_query(bytes.as_bytes());
            prop_assert_eq!(&encode_query(&once), &once);
            prop_assert!(!QueryScan::Before.advance(&once));
        }
    }
}
