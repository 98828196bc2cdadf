//! Request smuggling: for any bytes of a client, the upstream receives exactly the requests that the gateway judged.

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::server::ReceivedRequest;
use crate::support::upstream::Upstream;

/// Outcome of sending some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The client receives this status and the connection closes. The upstream receives nothing.
    Rejected(u16),
    /// The upstream receives requests with exactly these bodies.
    Forwarded(&'static [&'static str]),
}
use Outcome::{Forwarded, Rejected};

/// Bytes in which a parser could see a second request, and the outcome.
const CASES: &[(&str, Outcome)] = &[
    // Two framings, which RFC 9112, section 6.1 allows a server to reject.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Rejected(400),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Rejected(400),
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 \r\n\r\nabc", Forwarded(&["abc"])),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabc", Forwarded(&["abc"])),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
        Forwarded(&["", ""]),
    ),
    // Transfer codings that some parsers do not recognize.
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Rejected(400)),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
        Rejected(400),
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Rejected(400)),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Rejected(400)),
    (
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Forwarded(&["abc"]),
    ),
    // Line endings and start lines.
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded: 2\r\n\r\n", Rejected(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\n X: 1\r\n\r\n", Rejected(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n", Rejected(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Rejected(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", Rejected(400)),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Rejected(400)),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Rejected(400)),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Rejected(400)),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Rejected(400)),
    ("GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n", Rejected(400)),
    // A bare LF does not end a line, though RFC 9112, section 2.2 would allow it.
    ("GET / HTTP/1.1\nHost: a\nX: 1\n\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nX: 1\nContent-Length: 3\r\n\r\nabc", Rejected(400)),
    // Chunks.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=\"a\"\r\nabc\r\n0\r\n\r\n",
        Forwarded(&["abc"]),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext\nabc\r\n0\r\n\r\n",
        Rejected(400),
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n", Rejected(400)),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        Rejected(400),
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", Rejected(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", Rejected(400)),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
        Rejected(400),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n003\r\nabc\r\n000\r\n\r\n",
        Forwarded(&["abc"]),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\nContent-Length: 9\r\n\r\n",
        Forwarded(&["abc"]),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nno colon\r\n\r\n",
        Rejected(400),
    ),
    // A bare LF in or after the trailers.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Rejected(400),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Rejected(400),
    ),
    // Requests of any method may have a body.
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n",
        Forwarded(&["GET /smuggled HTTP/1.1\r\nHost: a"]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Forwarded(&["abc"]),
    ),
    ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Forwarded(&["abc"])),
    // `Connection: Content-Length` must not remove the length.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 31\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n",
        Forwarded(&["GET /smuggled HTTP/1.1\r\nHost: a"]),
    ),
    // Pipelined requests.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\naPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb",
        Forwarded(&["a", "b"]),
    ),
    ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&[""])),
    // Bytes after an invalid request or a CONNECT are not parsed. A gRPC client gets the refusal with status 200.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Rejected(200),
    ),
    ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", Rejected(405)),
    // Not HTTP/1.1.
    ("\x16\x03\x01\x02\x00\x01\x00\x01\u{7f}\r\n\r\n", Rejected(400)),
    ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Rejected(400)),
    ("GET /\r\n", Rejected(400)),
];

#[tokio::test]
async fn ambiguous_request_is_rejected_or_forwarded_as_one_request() {
    let mut wrong = Vec::new();
    for (bytes, expected) in CASES {
        let upstream = Upstream::start();
        let gateway = Gateway::builder()
            .upstream("app", &upstream)
            .route("/", "public", "")
            .server(
                "workers = 1\nheader_timeout = \"300ms\"\nbody_timeout = \"300ms\"\nidle_timeout = \"300ms\"",
            )
            .start()
            .await;
        let mut client = Client::connect(gateway.address()).await;
        client.send(bytes).await;
        let received = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
        let heads = received.match_indices("HTTP/1.");
        let statuses: Vec<u16> =
            heads.filter_map(|(at, _)| received.get(at + 9..at + 12)?.parse().ok()).collect();
        let requests = upstream.requests();
        let seen: Vec<String> = requests.iter().map(|request| request.message.text()).collect();
        let is_right = match *expected {
            Rejected(status) => statuses == [status] && seen.is_empty(),
            Forwarded(bodies) => {
                seen == bodies && statuses.iter().filter(|status| **status == 200).count() == bodies.len()
            }
        };
        let framings = |request: &ReceivedRequest| {
            request.all("content-length").len() + request.all("transfer-encoding").len()
        };
        let is_plain =
            requests.iter().all(|request| framings(request) <= 1 && !request.target.contains("/x"));
        if !is_right || !is_plain {
            wrong.push(format!("{bytes:?}: {expected:?}, but {statuses:?} and {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
