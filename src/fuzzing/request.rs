//! Fuzz target `request`: parses the bytes of an HTTP/1.1 client as a whole and in pieces, and compares the requests.
//!
//! The first line of the input has one letter for each piece: its length, from `a` for one byte. The rest is the
//! client's bytes.

use bytes::{Buf as _, Bytes};

use crate::http1::{Decoder, HeadLimits, ParsedRequest, ReadBuffer, Step};
use crate::message::RequestHead;

/// The limits of the heads.
const LIMITS: HeadLimits = HeadLimits { bytes: 8 * 1024, lines: 64 };

/// The head of a request, and its body.
type Exchange = (Box<RequestHead>, Vec<u8>);

/// Parses what a client sends.
pub fn request(input: &[u8]) {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return };
    let (lengths, bytes) = (input.get(..end).unwrap_or_default(), input.get(end + 1..).unwrap_or_default());
    let whole = Parser::default().parse(bytes, &[]);
    let pieces = Parser::default().parse(bytes, lengths);
    assert_eq!(whole.len(), pieces.len(), "splitting makes no difference to the number of requests");
    for ((request, body), (other, other_body)) in whole.iter().zip(&pieces) {
        let head = |request: &RequestHead| {
            let mut lines = Vec::new();
            request.fields.write(&mut lines);
            (request.method.clone(), request.uri.clone(), request.version, lines)
        };
        assert_eq!(
            (head(request), body),
            (head(other), other_body),
            "splitting makes no difference to a request"
        );
        for (name, value) in request.fields.iter() {
            assert!(
                !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)),
                "{name} cannot end its line"
            );
            assert!(value.trim_ascii().len() == value.len(), "{name} has no surrounding spaces");
        }
        let target = request.uri.to_string();
        assert!(!target.bytes().any(|byte| byte <= b' ' || byte == 0x7f), "the target cannot end its line");
    }
}

/// A complete request that a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// The names, in lower case, and the values of the header fields.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Parses a client's input, which arrives in `pieces`. Returns the complete requests, and whether the connection would
/// read no further.
pub fn client_requests(pieces: &[&[u8]]) -> (Vec<ClientRequest>, bool) {
    let mut parser = Parser::default();
    for piece in pieces {
        parser.receive(piece);
    }
    let request = |(head, body): Exchange| ClientRequest {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        fields: head.fields.iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect(),
        body,
    };
    (parser.requests.into_iter().map(request).collect(), parser.is_ended)
}

#[derive(Debug)]
struct Parser {
    buffer: ReadBuffer,
    current: Option<(Box<RequestHead>, Decoder, Vec<u8>, bool)>,
    requests: Vec<Exchange>,
    is_ended: bool,
}

impl Default for Parser {
    fn default() -> Self {
        Self { buffer: ReadBuffer::new(), current: None, requests: Vec::new(), is_ended: false }
    }
}

impl Parser {
    /// Parses `bytes`, which arrive in pieces of these lengths, and the rest at once.
    fn parse(mut self, mut bytes: &[u8], lengths: &[u8]) -> Vec<Exchange> {
        for length in lengths {
            let length = usize::from(length.wrapping_sub(b'a')).saturating_add(1).min(bytes.len());
            let (piece, rest) = bytes.split_at_checked(length).unwrap_or_default();
            bytes = rest;
            self.receive(piece);
        }
        self.receive(bytes);
        self.requests
    }

    fn receive(&mut self, piece: &[u8]) {
        if self.is_ended || piece.is_empty() {
            return;
        }
        self.buffer.bytes.extend_from_slice(piece);
        while !self.is_ended && self.step() {}
        assert!(
            self.is_ended || self.buffer.bytes.len() < LIMITS.bytes + 32 * 1024,
            "the unparsed input is bounded"
        );
    }

    /// Takes a step. Returns `false` if more bytes are needed.
    fn step(&mut self) -> bool {
        if let Some((_, decoder, body, _)) = &mut self.current {
            match decoder.next(&mut self.buffer.bytes, false) {
                Ok(Step::Data(data)) => body.extend_from_slice(&data),
                Ok(Step::Trailers(_)) => {}
                Ok(Step::NeedsRead) => return false,
                Ok(Step::End) => {
                    if let Some((request, _, body, keep_alive)) = self.current.take() {
                        self.requests.push((request, body));
                        self.is_ended = !keep_alive;
                    }
                }
                Err(_) => self.is_ended = true,
            }
            return true;
        }
        if !self.buffer.may_hold_head(LIMITS.bytes) {
            return false;
        }
        match ParsedRequest::parse(&Bytes::copy_from_slice(&self.buffer.bytes), LIMITS) {
            Ok(Some((mut parsed, length))) => {
                self.buffer.bytes.advance(length);
                self.buffer.reset_search();
                let Some(decoder) = parsed.body.take() else {
                    self.is_ended = true;
                    return true;
                };
                self.current = Some((parsed.head, decoder, Vec::new(), parsed.keep_alive));
            }
            Ok(None) => {
                self.buffer.set_searched();
                return false;
            }
            Err(_) => self.is_ended = true,
        }
        true
    }
}
