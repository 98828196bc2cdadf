//! The wire against scripted servers, and its reading of responses against hyper's.

use std::convert::Infallible;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::super::gateway_headers::GatewayHeaders;
use super::*;

type TestBody = BoxBody<Bytes, Infallible>;
type TestWire = Http1Connection<DuplexStream, TestBody>;
type TestIncoming = Http1Body<DuplexStream, TestBody>;

fn pair() -> (TestWire, DuplexStream) {
    let (near, far) = duplex(64 * 1024);
    (Http1Connection::new(near), far)
}

fn get(method: &str) -> Request<TestBody> {
    Request::builder().method(method).uri("/x?y").header("host", "h").body(Empty::new().boxed()).unwrap()
}

fn post(body: TestBody) -> Request<TestBody> {
    Request::builder().method("POST").uri("/").header("host", "h").body(body).unwrap()
}

async fn answer(wire: &TestWire) -> Result<Response<TestIncoming>, WireError<Infallible>> {
    poll_fn(|cx| wire.poll_response(cx)).await
}

/// The response to `method` of a server that says `bytes` and closes.
async fn read(method: &str, bytes: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let (wire, mut far) = pair();
    wire.begin(get(method), &GatewayHeaders::default());
    let server = async {
        // A client that has had enough hangs up.
        let _ = far.write_all(bytes).await;
        let _ = far.shutdown().await;
    };
    let client = async {
        let response = answer(&wire).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        drop(wire);
        Ok((status, body.to_bytes().to_vec()))
    };
    tokio::select! {
        biased;
        read = client => read,
        never = async { server.await; std::future::pending().await } => never,
    }
}

async fn until(far: &mut DuplexStream, end: &[u8]) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        let mut piece = [0; 1024];
        let count = far.read(&mut piece).await.unwrap();
        assert!(count > 0, "ended after {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_connection_carries_one_request_after_another() {
    let (wire, mut far) = pair();
    for _ in 0..3 {
        assert!(wire.is_open());
        wire.begin(get("GET"), &GatewayHeaders::default());
        let server = async {
            assert_eq!(until(&mut far, b"\r\n\r\n").await, "GET /x?y HTTP/1.1\r\nhost: h\r\n\r\n");
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: 1\r\n\r\nhello").await.unwrap();
        };
        let (response, ()) = tokio::join!(answer(&wire), server);
        let response = response.unwrap();
        assert_eq!(response.headers()["x"], "1");
        assert!(!wire.is_reusable(), "the body is yet to come");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        assert!(wire.is_reusable());
    }
    drop(far);
    assert!(!wire.is_open());
}

#[tokio::test]
async fn bodies_go_out_with_a_length_or_in_chunks() {
    for (body, expected) in [
        (Empty::new().boxed(), "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"),
        (Full::new(Bytes::from("abc")).boxed(), "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc"),
        (
            StreamBody::new(futures_util::stream::iter(
                ["ab", "", "c"].map(|piece| Ok(Frame::data(Bytes::from(piece)))),
            ))
            .boxed(),
            "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ),
    ] {
        let (wire, mut far) = pair();
        wire.begin(post(body), &GatewayHeaders::default());
        let server = async {
            let said = until(&mut far, &expected.as_bytes()[expected.len() - 4..]).await;
            assert_eq!(said, expected);
            far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let (response, ()) = tokio::join!(answer(&wire), server);
        assert_eq!(response.unwrap().status(), 204);
        assert!(wire.is_reusable());
    }
}

#[tokio::test]
async fn a_body_is_never_longer_or_shorter_than_its_head_says() {
    for (body, length) in [("abc", "2"), ("abc", "4"), ("", "4"), ("", "x")] {
        let (wire, mut far) = pair();
        let mut request = post(Full::new(Bytes::from(body)).boxed());
        request.headers_mut().insert("content-length", HeaderValue::from_static(length));
        wire.begin(request, &GatewayHeaders::default());
        // A server that answers the head alone would have what is missing taken from the next request.
        far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert!(matches!(answer(&wire).await, Err(WireError::Length)), "{body} of {length}");
        assert!(!wire.is_reusable());
    }
}

#[tokio::test]
async fn who_has_begun_to_answer_is_not_asked_again() {
    let (wire, mut far) = pair();
    wire.begin(get("GET"), &GatewayHeaders::default());
    far.write_all(b"HTTP/1.1 200").await.unwrap();
    far.shutdown().await.unwrap();
    assert!(answer(&wire).await.is_err());
    assert!(wire.recover().is_none());
}

#[tokio::test]
async fn an_early_answer_is_read_though_the_server_has_hung_up() {
    let (near, mut far) = duplex(256);
    let wire = Http1Connection::new(near);
    wire.begin(post(Full::new(Bytes::from(vec![b'x'; 100_000])).boxed()), &GatewayHeaders::default());
    let server = async {
        far.read_exact(&mut [0; 100]).await.unwrap();
        far.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        drop(far);
    };
    let (response, ()) = tokio::join!(answer(&wire), server);
    let response = response.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
    assert!(!wire.is_reusable());
}

#[tokio::test]
async fn a_request_of_which_nothing_was_written_is_handed_back() {
    let (wire, far) = pair();
    drop(far);
    wire.begin(post(Full::new(Bytes::from("abc")).boxed()), &GatewayHeaders::default());
    assert!(answer(&wire).await.is_err());
    let Recovered { parts, unsent, first } = wire.recover().unwrap();
    assert_eq!((parts.method, unsent), (Method::POST, true));
    assert_eq!(first.unwrap(), "abc");

    let (wire, mut far) = pair();
    wire.begin(get("GET"), &GatewayHeaders::default());
    let server = async {
        until(&mut far, b"\r\n\r\n").await;
        drop(far);
    };
    let (response, ()) = tokio::join!(answer(&wire), server);
    assert!(matches!(response, Err(WireError::Closed)));
    assert!(!wire.recover().unwrap().unsent);
}

#[tokio::test]
async fn what_can_be_read_in_one_way_is_read() {
    for (method, bytes, expected) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", (200, "ab")),
        ("GET", "HTTP/1.0 200 OK\r\n\r\nto the end", (200, "to the end")),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=\"y\"\r\nab\r\n00\r\n\r\n",
            (200, "ab"),
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\nX: 1\r\n\r\n",
            (200, "0123456789"),
        ),
        ("GET", "\r\n\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", (200, "ab")),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", (200, "")),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, "")),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
            (204, ""),
        ),
        ("GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", (200, "")),
    ] {
        let (status, body) =
            read(method, bytes.as_bytes()).await.unwrap_or_else(|error| panic!("{bytes}: {error}"));
        assert_eq!((status, &*String::from_utf8(body).unwrap()), expected, "{bytes}");
    }
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_not() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    let trailers = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let blank = format!("{}HTTP/1.1 204 No Content\r\n\r\n", "\n".repeat(20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(200));
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 2\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "hello",
        "",
        &long,
        &many,
        &trailers,
        &blank,
    ] {
        assert!(read("GET", bytes.as_bytes()).await.is_err(), "{bytes}");
    }
}

#[tokio::test]
async fn what_is_said_unasked_or_after_the_end_ends_the_connection() {
    let (wire, mut far) = pair();
    wire.begin(get("GET"), &GatewayHeaders::default());
    far.write_all(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    assert_eq!(answer(&wire).await.unwrap().status(), 204);
    assert!(!wire.is_reusable());

    // What is announced may follow.
    for (line, reusable) in
        [("Content-Length: 0", true), ("Content-Length: 9", false), ("Transfer-Encoding: chunked", false)]
    {
        let (wire, mut far) = pair();
        wire.begin(get("GET"), &GatewayHeaders::default());
        far.write_all(format!("HTTP/1.1 204 No Content\r\n{line}\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(answer(&wire).await.unwrap().status(), 204);
        assert_eq!(wire.is_reusable(), reusable, "{line}");
    }

    let (wire, mut far) = pair();
    far.write_all(b"H").await.unwrap();
    assert!(!wire.is_open());
}

#[tokio::test]
async fn an_upgrade_hands_over_the_stream_and_what_was_read_of_it() {
    let (wire, mut far) = pair();
    wire.begin(get("GET"), &GatewayHeaders::default());
    far.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\nframes").await.unwrap();
    let response = answer(&wire).await.unwrap();
    assert!(!wire.is_reusable());
    drop(response);
    let mut near = wire.clone();
    let mut frames = [0; 6];
    near.read_exact(&mut frames).await.unwrap();
    assert_eq!(&frames, b"frames");
    near.write_all(b"more").await.unwrap();
    until(&mut far, b"more").await;
}

#[tokio::test]
async fn what_was_said_before_the_request_was_sent_is_no_answer_to_it() {
    // Over a connection that takes nothing any more, and over one that takes nothing yet.
    let (wire, mut far) = pair();
    far.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    drop(far);
    wire.begin(get("GET"), &GatewayHeaders::default());
    assert!(matches!(answer(&wire).await, Err(WireError::Io(_))));
    assert!(wire.recover().unwrap().unsent);

    let wire = Http1Connection::new(Deaf {
        says: b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
        written: None,
    });
    wire.begin(get("GET"), &GatewayHeaders::default());
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(wire.poll_response(&mut context).is_pending());
}

#[tokio::test]
async fn a_task_that_has_had_its_turn_still_sees_that_the_server_has_spoken_or_hung_up() {
    for said in ["", "HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let (wire, mut far) = pair();
        far.write_all(said.as_bytes()).await.unwrap();
        drop(far);
        // What tokio lets a task do in one turn is used up: nothing is ready to it any more.
        poll_fn(|cx| {
            while let Poll::Ready(turn) = tokio::task::coop::poll_proceed(cx) {
                turn.made_progress();
            }
            Poll::Ready(())
        })
        .await;
        assert!(!wire.is_open(), "{said}");
    }
}

#[tokio::test]
async fn a_request_whose_body_failed_is_not_handed_back() {
    let (wire, _far) = pair();
    let mut request = post(Full::new(Bytes::from("abc")).boxed());
    request.headers_mut().insert("content-length", HeaderValue::from_static("2"));
    wire.begin(request, &GatewayHeaders::default());
    assert!(matches!(answer(&wire).await, Err(WireError::Length)));
    assert!(wire.recover().is_none());
}

#[tokio::test]
async fn a_failed_write_of_more_than_a_record_may_have_sent_some() {
    for (length, unsent) in [(1_000, true), (20_000, false)] {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let wire = Http1Connection::new(Deaf { says: b"", written: Some(reset) });
        wire.begin(post(Full::new(Bytes::from(vec![b'x'; length])).boxed()), &GatewayHeaders::default());
        let failed = poll_fn(|cx| wire.poll_response(cx)).await;
        assert!(matches!(failed, Err(WireError::Io(_))));
        assert_eq!(wire.recover().unwrap().unsent, unsent, "{length}");
    }
}

/// A server that has spoken and takes nothing: it is not ready to, or fails.
#[derive(Debug)]
struct Deaf {
    says: &'static [u8],
    written: Option<fn() -> io::Error>,
}

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        into.put_slice(self.says);
        self.says = b"";
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.written.map_or(Poll::Pending, |error| Poll::Ready(Err(error())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn an_ended_body_tells_nothing_of_the_next() {
    let (wire, mut far) = pair();
    wire.begin(get("HEAD"), &GatewayHeaders::default());
    far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let first = answer(&wire).await.unwrap();
    assert!(wire.is_reusable());
    wire.begin(get("GET"), &GatewayHeaders::default());
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await.unwrap();
    let second = answer(&wire).await.unwrap();
    assert_eq!((first.body().size_hint().exact(), second.body().size_hint().exact()), (Some(0), Some(9)));
}

#[tokio::test]
async fn headers_hold_no_read_buffer_and_idle_connections_a_small_one() {
    let (wire, mut far) = pair();
    wire.begin(get("GET"), &GatewayHeaders::default());
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: kept\r\n\r\nhello").await.unwrap();
    let (head, body) = answer(&wire).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!((head.headers["x"].as_bytes(), &*body), (&b"kept"[..], &b"hello"[..]));
    assert!(body.is_unique(), "nothing else holds what was read");

    let (wire, mut far) = pair();
    wire.begin(get("GET"), &GatewayHeaders::default());
    let server = async {
        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
        far.write_all(&[0; 1_000_000]).await.unwrap();
    };
    let client = async { answer(&wire).await.unwrap().into_body().collect().await.unwrap().to_bytes() };
    let (body, ()) = tokio::join!(client, server);
    assert_eq!(body.len(), 1_000_000);
    assert!(wire.is_reusable() && wire.inner.borrow().room <= 2 * FIRST_READ);

    for ahead in ["", "fra"] {
        let (wire, mut far) = pair();
        wire.begin(get("GET"), &GatewayHeaders::default());
        far.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n\r\n{ahead}").as_bytes()).await.unwrap();
        answer(&wire).await.unwrap();
        far.write_all(&b"frame"[ahead.len()..]).await.unwrap();
        wire.clone().read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(wire.inner.borrow().room, 0, "tunnels are quiet for most of their time");
    }
}

/// What hyper reads of the same bytes.
async fn by_hyper(method: &str, bytes: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let (near, mut far) = duplex(64 * 1024);
    let text = |error: hyper::Error| error.to_string();
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.allow_obsolete_multiline_headers_in_responses(true);
    builder.allow_spaces_after_header_name_in_responses(true);
    builder.ignore_invalid_headers_in_responses(true);
    let (mut sender, connection) = builder.handshake(TokioIo::new(near)).await.map_err(text)?;
    let task = tokio::spawn(connection);
    let sent = sender.send_request(get(method));
    let server = async {
        until(&mut far, b"\r\n\r\n").await;
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        far
    };
    let (response, _far) = tokio::join!(sent, server);
    let response = response.map_err(text)?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(text)?.to_bytes().to_vec();
    task.abort();
    Ok((status, body))
}

/// Responses from pieces that make sense, and some that do not.
fn responses() -> impl Strategy<Value = Vec<u8>> {
    let status = prop::sample::select(vec![
        "200 OK",
        "204 No Content",
        "304 Not Modified",
        "100 Continue",
        "404 X",
        "9 X",
        "1000 X",
        " 200  OK",
        "200 O\u{1}K",
    ]);
    let version =
        prop::sample::select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1"]);
    let line = prop::sample::select(vec![
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 03\r\n",
        "Content-Length: x\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Connection: close\r\n",
        "X: y\r\n",
        "X:\r\n",
        "X: \u{e9}\r\n",
        "X: a\n",
        "X: a\r\n b\r\n",
        "X y\r\n",
        "X : a\r\n",
        "X(Y): a\r\n",
        "junk\r\n",
        "X: a\u{1}b\r\n",
        "X: a\rb\r\n",
        " 3\r\n",
        "Content-Length:\r\n 3\r\n",
        "Content-Length : 3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: 3\n",
        "Transfer-Encoding :\n chunked\r\n",
        "Connection : close\r\n",
        ": y\r\n",
        "X: a\0b\r\n",
        "Set-Cookie: a=b; c\r\n",
    ]);
    let body = prop::sample::select(vec![
        "",
        "abc",
        "3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nX: y\r\n\r\n",
        "3\r\nabc\r\n0\r\nX : y\r\n z\r\njunk\r\n\r\n",
        "3;x\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "x",
        "fffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ]);
    (version, status, prop::collection::vec(line, 0..4), body).prop_map(|(version, status, lines, body)| {
        format!("{version} {status}\r\n{}\r\n{body}", lines.concat()).into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// We may be stricter than hyper at its most lenient, or mend more, but never read anything else out of the same
    /// bytes.
    #[test]
    fn what_is_read_is_what_hyper_reads(bytes in responses(), head in any::<bool>()) {
        let method = if head { "HEAD" } else { "GET" };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (ours, theirs) = runtime.block_on(async { (read(method, &bytes).await, by_hyper(method, &bytes).await) });
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    /// And a plain reading of the same bytes says the same, however they arrive.
    #[test]
    fn what_is_read_is_what_the_bytes_say(
        bytes in responses(),
        method in prop::sample::select(vec!["G", "H", "P"]),
        ending in prop::sample::select(vec!["c", "o"]),
        lengths in "[0-z]{0,4}",
    ) {
        crate::fuzzing::answer(&[format!("{method}{ending}{lengths}\n").as_bytes(), &bytes].concat());
    }

    /// However the bytes arrive, they are the same response.
    #[test]
    fn pieces_make_no_difference(bytes in responses(), cuts in prop::collection::vec(1_usize..20, 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let whole = runtime.block_on(read("GET", &bytes));
        let pieces: Result<_, String> = runtime.block_on(async {
            let (wire, mut far) = pair();
            wire.begin(get("GET"), &GatewayHeaders::default());
            let server = async {
                let mut rest = &bytes[..];
                for cut in cuts {
                    let (piece, after) = rest.split_at(cut.min(rest.len()));
                    rest = after;
                    far.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                far.write_all(rest).await.unwrap();
                far.shutdown().await.unwrap();
                far
            };
            let client = async {
                let response = answer(&wire).await.map_err(|error| error.to_string())?;
                let status = response.status().as_u16();
                let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
                Ok((status, body.to_bytes().to_vec()))
            };
            tokio::join!(client, server).0
        });
        prop_assert_eq!(whole.is_ok(), pieces.is_ok());
        if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
            prop_assert_eq!(whole, pieces);
        }
    }

    /// No bytes whatever make it panic or hang.
    #[test]
    fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), begin in any::<bool>()) {
        let mut all = if begin { b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec() } else { Vec::new() };
        all.extend(bytes);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _read_or_refused = runtime.block_on(read("GET", &all));
    }
}
