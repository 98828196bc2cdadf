//! The HTTP/1.1 client against scripted servers, and its parsing of responses compared with hyper's.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::super::gateway_headers::GatewayHeaders;
use super::*;

type TestBody = BoxBody<Bytes, Infallible>;
type TestConnection = Http1Connection<DuplexStream, TestBody>;
type TestIncoming = Http1Body<DuplexStream, TestBody>;

fn pair() -> (TestConnection, DuplexStream) {
    let (client, server) = duplex(64 * 1024);
    (Http1Connection::new(client), server)
}

fn get(method: &str) -> Request<TestBody> {
    http_get(method).into()
}

fn http_get(method: &str) -> http::Request<TestBody> {
    let request = http::Request::builder().method(method).uri("/x?y").header("host", "h");
    request.body(Empty::new().boxed()).unwrap()
}

fn post(body: TestBody) -> Request<TestBody> {
    http::Request::builder().method("POST").uri("/").header("host", "h").body(body).unwrap().into()
}

async fn response(connection: &TestConnection) -> Result<Response<TestIncoming>, Http1Error<Infallible>> {
    let result = poll_fn(|cx| connection.poll_response(cx, &mut |_, _| ())).await;
    result.map(|(response, _)| response)
}

/// Returns the response to `method` of a server that sends `bytes` and closes the connection.
async fn read(method: &str, bytes: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let (connection, mut peer) = pair();
    connection.start(get(method), &GatewayHeaders::default());
    let server = async {
        // Both fail if the client has closed the connection.
        let _ = peer.write_all(bytes).await;
        let _ = peer.shutdown().await;
    };
    let client = async {
        let response = response(&connection).await.map_err(|error| error.to_string())?;
        let status = response.status.as_u16();
        let body = response.body.collect().await.map_err(|error| error.to_string())?;
        drop(connection);
        Ok((status, body.to_bytes().to_vec()))
    };
    tokio::select! {
        biased;
        read = client => read,
        unreachable = async { server.await; std::future::pending().await } => unreachable,
    }
}

async fn read_until(peer: &mut DuplexStream, end: &[u8]) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        let mut piece = [0; 1024];
        let count = peer.read(&mut piece).await.unwrap();
        assert!(count > 0, "ended after {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_connection_carries_one_request_after_another() {
    let (connection, mut peer) = pair();
    for _ in 0..3 {
        assert!(connection.is_open());
        connection.start(get("GET"), &GatewayHeaders::default());
        let server = async {
            assert_eq!(read_until(&mut peer, b"\r\n\r\n").await, "GET /x?y HTTP/1.1\r\nhost: h\r\n\r\n");
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: 1\r\n\r\nhello").await.unwrap();
        };
        let (response, ()) = tokio::join!(response(&connection), server);
        let response = response.unwrap();
        assert_eq!(response.fields.text(&HeaderName::from_static("x")), Some("1"));
        assert!(!connection.is_reusable(), "the body was not read");
        assert_eq!(response.body.collect().await.unwrap().to_bytes(), "hello");
        assert!(connection.is_reusable());
    }
    drop(peer);
    assert!(!connection.is_open());
}

#[tokio::test]
async fn request_bodies_have_a_content_length_or_are_chunked() {
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
        let (connection, mut peer) = pair();
        connection.start(post(body), &GatewayHeaders::default());
        let server = async {
            let sent = read_until(&mut peer, &expected.as_bytes()[expected.len() - 4..]).await;
            assert_eq!(sent, expected);
            peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let (response, ()) = tokio::join!(response(&connection), server);
        assert_eq!(response.unwrap().status, 204);
        assert!(connection.is_reusable());
    }
}

#[tokio::test]
async fn a_body_whose_length_differs_from_its_content_length_fails() {
    for (body, length) in [("abc", "2"), ("abc", "4"), ("", "4"), ("", "x")] {
        let (connection, mut peer) = pair();
        let mut request = post(Full::new(Bytes::from(body)).boxed());
        request.head.fields.insert(CONTENT_LENGTH, HeaderValue::from_static(length));
        connection.start(request, &GatewayHeaders::default());
        // If the connection were reused, a server would take the missing bytes from the next request.
        peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert!(matches!(response(&connection).await, Err(Http1Error::Length)), "{body} of {length}");
        assert!(!connection.is_reusable());
    }
}

#[tokio::test]
async fn a_request_is_not_recovered_once_the_response_has_begun() {
    let (connection, mut peer) = pair();
    connection.start(get("GET"), &GatewayHeaders::default());
    peer.write_all(b"HTTP/1.1 200").await.unwrap();
    peer.shutdown().await.unwrap();
    assert!(response(&connection).await.is_err());
    assert!(connection.recover().is_none());
}

#[tokio::test]
async fn an_early_response_is_read_after_the_server_has_closed() {
    let (client, mut peer) = duplex(256);
    let connection = Http1Connection::new(client);
    connection.start(post(Full::new(Bytes::from(vec![b'x'; 100_000])).boxed()), &GatewayHeaders::default());
    let server = async {
        peer.read_exact(&mut [0; 100]).await.unwrap();
        peer.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        drop(peer);
    };
    let (response, ()) = tokio::join!(response(&connection), server);
    let response = response.unwrap();
    assert_eq!(response.status, 413);
    assert_eq!(response.body.collect().await.unwrap().to_bytes(), "no");
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn an_unsent_request_is_recovered() {
    let (connection, peer) = pair();
    drop(peer);
    connection.start(post(Full::new(Bytes::from("abc")).boxed()), &GatewayHeaders::default());
    assert!(response(&connection).await.is_err());
    let Recovered { head, unsent, first } = connection.recover().unwrap();
    assert_eq!((head.method, unsent), (Method::POST, true));
    assert_eq!(first.unwrap(), "abc");

    let (connection, mut peer) = pair();
    connection.start(get("GET"), &GatewayHeaders::default());
    let server = async {
        read_until(&mut peer, b"\r\n\r\n").await;
        drop(peer);
    };
    let (response, ()) = tokio::join!(response(&connection), server);
    assert!(matches!(response, Err(Http1Error::Closed)));
    assert!(!connection.recover().unwrap().unsent);
}

#[tokio::test]
async fn unambiguous_responses_are_read() {
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
async fn ambiguous_responses_are_rejected() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(MAX_RESPONSE_HEAD));
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
async fn a_connection_with_unexpected_bytes_is_not_reused() {
    let (connection, mut peer) = pair();
    connection.start(get("GET"), &GatewayHeaders::default());
    peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    assert_eq!(response(&connection).await.unwrap().status, 204);
    assert!(!connection.is_reusable());

    // A 204 response that announces a body may be followed by it.
    for (line, reusable) in
        [("Content-Length: 0", true), ("Content-Length: 9", false), ("Transfer-Encoding: chunked", false)]
    {
        let (connection, mut peer) = pair();
        connection.start(get("GET"), &GatewayHeaders::default());
        peer.write_all(format!("HTTP/1.1 204 No Content\r\n{line}\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(response(&connection).await.unwrap().status, 204);
        assert_eq!(connection.is_reusable(), reusable, "{line}");
    }

    let (connection, mut peer) = pair();
    peer.write_all(b"H").await.unwrap();
    assert!(!connection.is_open());
}

#[tokio::test]
async fn after_an_upgrade_the_stream_begins_with_the_bytes_read_after_the_head() {
    let (connection, mut peer) = pair();
    connection.start(get("GET"), &GatewayHeaders::default());
    peer.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\nframes").await.unwrap();
    let response = response(&connection).await.unwrap();
    assert!(!connection.is_reusable());
    drop(response);
    let mut tunnel = connection.clone();
    let mut frames = [0; 6];
    tunnel.read_exact(&mut frames).await.unwrap();
    assert_eq!(&frames, b"frames");
    tunnel.write_all(b"more").await.unwrap();
    read_until(&mut peer, b"more").await;
}

#[tokio::test]
async fn bytes_received_before_the_request_was_sent_are_not_its_response() {
    // On a connection that fails to write, and on one that is not writable yet.
    let (connection, mut peer) = pair();
    peer.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    drop(peer);
    connection.start(get("GET"), &GatewayHeaders::default());
    assert!(matches!(response(&connection).await, Err(Http1Error::Io(_))));
    assert!(connection.recover().unwrap().unsent);

    let connection = Http1Connection::new(Unwritable {
        bytes: b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
        error: None,
    });
    connection.start(get("GET"), &GatewayHeaders::default());
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(connection.poll_response(&mut context, &mut |_, _| ()).is_pending());
}

#[tokio::test]
async fn is_open_detects_bytes_and_closure_when_the_cooperative_budget_is_spent() {
    for sent in ["", "HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let (connection, mut peer) = pair();
        peer.write_all(sent.as_bytes()).await.unwrap();
        drop(peer);
        // Spends the task's cooperative budget: from now on, Tokio's resources return `Pending`.
        poll_fn(|cx| {
            while let Poll::Ready(unit) = tokio::task::coop::poll_proceed(cx) {
                unit.made_progress();
            }
            Poll::Ready(())
        })
        .await;
        assert!(!connection.is_open(), "{sent}");
    }
}

#[tokio::test]
async fn a_request_whose_body_failed_is_not_recovered() {
    let (connection, _far) = pair();
    let mut request = post(Full::new(Bytes::from("abc")).boxed());
    request.head.fields.insert(CONTENT_LENGTH, HeaderValue::from_static("2"));
    connection.start(request, &GatewayHeaders::default());
    assert!(matches!(response(&connection).await, Err(Http1Error::Length)));
    assert!(connection.recover().is_none());
}

#[tokio::test]
async fn request_larger_than_a_tls_record_may_be_partly_sent_when_a_write_fails() {
    for (length, unsent) in [(1_000, true), (20_000, false)] {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let connection = Http1Connection::new(Unwritable { bytes: b"", error: Some(reset) });
        connection
            .start(post(Full::new(Bytes::from(vec![b'x'; length])).boxed()), &GatewayHeaders::default());
        let failed = poll_fn(|cx| connection.poll_response(cx, &mut |_, _| ())).await;
        assert!(matches!(failed, Err(Http1Error::Io(_))));
        assert_eq!(connection.recover().unwrap().unsent, unsent, "{length}");
    }
}

/// A stream with bytes to read that cannot be written to: writes stay pending or fail.
#[derive(Debug)]
struct Unwritable {
    bytes: &'static [u8],
    error: Option<fn() -> io::Error>,
}

impl AsyncRead for Unwritable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        into.put_slice(self.bytes);
        self.bytes = b"";
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Unwritable {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.error.map_or(Poll::Pending, |error| Poll::Ready(Err(error())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn body_and_sender_of_an_ended_response_do_not_concern_the_next_request() {
    let (connection, mut peer) = pair();
    connection.start(get("GET"), &GatewayHeaders::default());
    peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let first = response(&connection).await.unwrap().body;
    let sender = first.sender();
    read_until(&mut peer, b"\r\n\r\n").await;
    connection.start(get("GET"), &GatewayHeaders::default());
    poll_fn(|cx| {
        sender.poll_send(cx);
        Poll::Ready(())
    })
    .await;
    assert!(futures_util::FutureExt::now_or_never(peer.read_u8()).is_none(), "the next request was sent");
    peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await.unwrap();
    let second = response(&connection).await.unwrap().body;
    assert_eq!((first.size_hint().exact(), second.size_hint().exact()), (Some(0), Some(9)));
}

#[tokio::test]
async fn read_buffers_are_freed_or_small_when_idle() {
    let (connection, mut peer) = pair();
    connection.start(get("GET"), &GatewayHeaders::default());
    peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: kept\r\n\r\nhello").await.unwrap();
    let Response { fields, body, .. } = response(&connection).await.unwrap();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!((fields.get(&HeaderName::from_static("x")), &*body), (Some(&b"kept"[..]), &b"hello"[..]));
    assert!(body.is_unique(), "the body does not share the read buffer");

    let (connection, mut peer) = pair();
    connection.start(get("GET"), &GatewayHeaders::default());
    let server = async {
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
        peer.write_all(&[0; 1_000_000]).await.unwrap();
    };
    let client = async { response(&connection).await.unwrap().body.collect().await.unwrap().to_bytes() };
    let (body, ()) = tokio::join!(client, server);
    assert_eq!(body.len(), 1_000_000);
    assert!(connection.is_reusable() && connection.inner.borrow().read.allocated() <= 16 * 1024);

    for ahead in ["", "fra"] {
        let (connection, mut peer) = pair();
        connection.start(get("GET"), &GatewayHeaders::default());
        peer.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n\r\n{ahead}").as_bytes()).await.unwrap();
        response(&connection).await.unwrap();
        peer.write_all(&b"frame"[ahead.len()..]).await.unwrap();
        connection.clone().read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(connection.inner.borrow().read.allocated(), 0, "idle tunnels have no read buffer");
    }
}

/// Returns the response that hyper parses from the same bytes.
async fn read_by_hyper(method: &str, bytes: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let (client, mut peer) = duplex(64 * 1024);
    let text = |error: hyper::Error| error.to_string();
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.allow_obsolete_multiline_headers_in_responses(true);
    builder.allow_spaces_after_header_name_in_responses(true);
    builder.ignore_invalid_headers_in_responses(true);
    let (mut sender, connection) = builder.handshake(TokioIo::new(client)).await.map_err(text)?;
    let task = tokio::spawn(connection);
    let sent = sender.send_request(http_get(method));
    let server = async {
        read_until(&mut peer, b"\r\n\r\n").await;
        peer.write_all(bytes).await.unwrap();
        peer.shutdown().await.unwrap();
        peer
    };
    let (response, _far) = tokio::join!(sent, server);
    let response = response.map_err(text)?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(text)?.to_bytes().to_vec();
    task.abort();
    Ok((status, body))
}

/// Generates responses from valid and invalid parts.
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

    /// The client and hyper with its most lenient settings may reject or repair different responses. A response that both
    /// accept is parsed identically.
    #[test]
    fn responses_are_parsed_as_by_hyper(bytes in responses(), head in any::<bool>()) {
        let method = if head { "HEAD" } else { "GET" };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (ours, theirs) = runtime.block_on(async { (read(method, &bytes).await, read_by_hyper(method, &bytes).await) });
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    /// The model of the fuzz target parses the same response, however the bytes are split.
    #[test]
    fn responses_are_parsed_as_by_the_model(
        bytes in responses(),
        method in prop::sample::select(vec!["G", "H", "P"]),
        ending in prop::sample::select(vec!["c", "o"]),
        lengths in "[0-z]{0,4}",
    ) {
        crate::fuzzing::response(&[format!("{method}{ending}{lengths}\n").as_bytes(), &bytes].concat());
    }

    #[test]
    fn the_response_does_not_depend_on_how_its_bytes_are_split(bytes in responses(), cuts in prop::collection::vec(1_usize..20, 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let whole = runtime.block_on(read("GET", &bytes));
        let pieces: Result<_, String> = runtime.block_on(async {
            let (connection, mut peer) = pair();
            connection.start(get("GET"), &GatewayHeaders::default());
            let server = async {
                let mut rest = &bytes[..];
                for cut in cuts {
                    let (piece, after) = rest.split_at(cut.min(rest.len()));
                    rest = after;
                    peer.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                peer.write_all(rest).await.unwrap();
                peer.shutdown().await.unwrap();
                peer
            };
            let client = async {
                let response = response(&connection).await.map_err(|error| error.to_string())?;
                let status = response.status.as_u16();
                let body = response.body.collect().await.map_err(|error| error.to_string())?;
                Ok((status, body.to_bytes().to_vec()))
            };
            tokio::join!(client, server).0
        });
        prop_assert_eq!(whole.is_ok(), pieces.is_ok());
        if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
            prop_assert_eq!(whole, pieces);
        }
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_hang(bytes in prop::collection::vec(any::<u8>(), 0..300), begin in any::<bool>()) {
        let mut all = if begin { b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec() } else { Vec::new() };
        all.extend(bytes);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _result = runtime.block_on(read("GET", &all));
    }
}
