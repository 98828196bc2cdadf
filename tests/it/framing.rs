//! Where one request ends and the next begins: whatever bytes a client sends, an upstream sees the requests that the
//! gateway judged, and no others.

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::server::ReceivedRequest;
use crate::support::upstream::Upstream;

/// What comes of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// This status, and the connection closes; the upstream sees nothing.
    Refused(u16),
    /// The upstream sees exactly these bodies, one a request.
    Passed(&'static [&'static str]),
}
use Outcome::{Passed, Refused};

/// Bytes that hide a second request behind a first that can be read in two ways.
const CASES: &[(&str, Outcome)] = &[
    // Two framings: chunked counts (RFC 9112, 6.3), and nothing after it.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Passed(&[""]),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Passed(&["abc"]),
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Passed(&["abc"])),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 \r\n\r\nabc", Passed(&["abc"])),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabc", Passed(&["abc"])),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
        Passed(&["", ""]),
    ),
    // Codings that someone might not see, or might see.
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
        Refused(400),
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Passed(&["abc"]),
    ),
    // Lines that end, or do not.
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded: 2\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\n X: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400)),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    // A line feed alone ends a line too, as RFC 9112, 2.2 allows; what goes on has both.
    ("GET / HTTP/1.1\nHost: a\nX: 1\n\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n", Passed(&["", ""])),
    ("POST / HTTP/1.1\r\nHost: a\r\nX: 1\nContent-Length: 3\r\n\r\nabc", Passed(&["abc"])),
    // Chunks.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=\"a\"\r\nabc\r\n0\r\n\r\n",
        Passed(&["abc"]),
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext\nabc\r\n0\r\n\r\n", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", Refused(400)),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n003\r\nabc\r\n000\r\n\r\n",
        Passed(&["abc"]),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\nContent-Length: 9\r\n\r\n",
        Passed(&["abc"]),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nno colon\r\n\r\n",
        Refused(400),
    ),
    // A body is a body whatever the method, and no request.
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n",
        Passed(&["GET /smuggled HTTP/1.1\r\nHost: a"]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Passed(&["abc"]),
    ),
    ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Passed(&["abc"])),
    // Nor does a client take the length off its body.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 31\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n",
        Passed(&["GET /smuggled HTTP/1.1\r\nHost: a"]),
    ),
    // Several in one piece are as many requests.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\naPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb",
        Passed(&["a", "b"]),
    ),
    ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Passed(&[""])),
    // Nor is what comes after a request that could not be read, whatever its sender would like to be told, or after one
    // for a tunnel.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(200),
    ),
    ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(405)),
    // What is not HTTP/1.1.
    ("\x16\x03\x01\x02\x00\x01\x00\x01\u{7f}\r\n\r\n", Refused(400)),
    ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Refused(400)),
    ("GET /\r\n", Refused(400)),
];

#[tokio::test]
async fn every_request_is_refused_or_passed_on_as_one() {
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
        let told = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
        let heads = told.match_indices("HTTP/1.");
        let statuses: Vec<u16> =
            heads.filter_map(|(at, _)| told.get(at + 9..at + 12)?.parse().ok()).collect();
        let requests = upstream.requests();
        let seen: Vec<String> = requests.iter().map(|request| request.message.text()).collect();
        let is_right = match *expected {
            Refused(status) => statuses == [status] && seen.is_empty(),
            Passed(bodies) => {
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
