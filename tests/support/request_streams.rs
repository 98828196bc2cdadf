//! Byte streams of clients on one HTTP/1.1 connection, as they are and with one byte changed, and a comparison of the
//! requests that two parsers read in them.
//!
//! The parsers may differ in what they reject. If both accept a request, they must read the same one, and neither may see a
//! request where the other still waits for the rest of one: that is how requests are smuggled.

use std::collections::BTreeMap;

use sessiongate::fuzzing::{ClientRequest, client_requests};

/// Streams of well-formed requests, and of some that are ambiguous.
const STREAMS: &[&str] = &[
    "GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello worldGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0a;n=v\r\n0123456789\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nDigest: abc\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"b;c\";d\r\nxy\r\n0;last\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcdeGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    "GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: a\r\nEmpty:\r\nSpaces: \t a b \t\r\n\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\nGET /next HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhiGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /caf\u{e9}?\u{2603} HTTP/1.1\r\nHost: a\r\nName: Zo\u{eb}\r\nCookie: a=1; b=\"2\"\r\nCookie: c=3\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// The bytes that are written into each place of each stream.
const ODD_BYTES: &[u8] = b"\0\t\n\x0b\r \",0:;x\x80";

/// Returns all streams: those above, and each of them with each byte replaced by an odd one, preceded by one, and left out.
pub(crate) fn all() -> Vec<Vec<u8>> {
    let mut streams = Vec::new();
    for stream in STREAMS {
        let stream = stream.as_bytes();
        streams.push(stream.to_vec());
        for at in 0..stream.len() {
            let (before, rest) = stream.split_at(at);
            streams.push([before, &rest[1..]].concat());
            for odd in ODD_BYTES {
                streams.push([before, &[*odd], rest].concat());
                streams.push([before, &[*odd], &rest[1..]].concat());
            }
        }
    }
    streams
}

/// Returns the streams of [`STREAMS`], unchanged.
pub(crate) fn unchanged() -> impl Iterator<Item = &'static [u8]> {
    STREAMS.iter().map(|stream| stream.as_bytes())
}

/// What a parser does after the last complete request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It waits for more bytes.
    Waits,
    /// It reads no further, because the connection ends with that request.
    Closed,
    /// It has rejected the bytes that follow, for this reason.
    Rejected(String),
}

/// What a parser reads in a stream.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) requests: Vec<ClientRequest>,
    pub(crate) ending: Ending,
}

/// Another parser's reasons to reject requests that the gateway accepts, with the streams.
pub(crate) type Rejections = BTreeMap<String, Vec<String>>;

/// Compares the gateway's reading of a stream with another parser's.
///
/// # Errors
/// Returns the disagreement.
pub(crate) fn compare(stream: &[u8], other: &Reading, rejections: &mut Rejections) -> Result<(), String> {
    let (ours, is_ended) = client_requests(&[stream]);
    let shown = String::from_utf8_lossy(stream);
    for (ours, other) in ours.iter().zip(&other.requests) {
        // The gateway percent-encodes quotation marks in a query.
        let decoded = |request: &ClientRequest| ClientRequest {
            target: request.target.replace("%22", "\""),
            ..request.clone()
        };
        if decoded(ours) != decoded(other) {
            return Err(format!("{shown:?}\n  ours:   {ours:?}\n  theirs: {other:?}"));
        }
    }
    let (ours, theirs) = (ours.len(), other.requests.len());
    match &other.ending {
        Ending::Waits if ours > theirs => Err(format!("{shown:?}: {ours} requests, theirs {theirs}")),
        Ending::Waits | Ending::Rejected(_) | Ending::Closed if theirs > ours && !is_ended => {
            Err(format!("{shown:?}: {ours} requests and waiting, theirs {theirs}"))
        }
        Ending::Rejected(reason) if ours > theirs => {
            rejections.entry(reason.clone()).or_default().push(format!("{shown:?}"));
            Ok(())
        }
        Ending::Waits | Ending::Rejected(_) | Ending::Closed => Ok(()),
    }
}

/// Fails unless there is no disagreement, and each of the other parser's reasons to reject more than the gateway does begins
/// with one that is `known`.
#[track_caller]
pub(crate) fn assert_agreement(disagreements: &[String], rejections: &Rejections, known: &[&str]) {
    let first = |all: &[String]| all.iter().take(20).cloned().collect::<Vec<_>>().join("\n  ");
    assert!(disagreements.is_empty(), "{} disagreements:\n  {}", disagreements.len(), first(disagreements));
    for (reason, streams) in rejections {
        let is_known = known.iter().any(|known| reason.starts_with(known));
        assert!(is_known, "{} times `{reason}`:\n  {}", streams.len(), first(streams));
    }
}
