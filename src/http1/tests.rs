//! Request parsing: rejected heads, independence from how the bytes are split, and agreement with hyper.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, lines: 20 };

/// The method, target, header lines and body of a request.
type Message = (String, String, Vec<(String, Vec<u8>)>, Vec<u8>);

/// Reads all requests from `pieces`, which arrive one by one. Also returns whether all bytes were consumed.
fn read(pieces: &[&[u8]]) -> (Vec<Message>, bool) {
    let mut buffer = ReadBuffer::new();
    let mut messages = Vec::new();
    let mut current: Option<(Message, Decoder, bool)> = None;
    for piece in pieces {
        buffer.bytes.extend_from_slice(piece);
        loop {
            if let Some((message, decoder, keep_alive)) = &mut current {
                match decoder.next(&mut buffer.bytes, false) {
                    Ok(Step::Data(data)) => message.3.extend_from_slice(&data),
                    Ok(Step::Trailers(_)) => {}
                    Ok(Step::End) => {
                        let keep_alive = *keep_alive;
                        messages.extend(current.take().map(|(message, ..)| message));
                        if !keep_alive {
                            return (messages, true);
                        }
                    }
                    Ok(Step::NeedsRead) => break,
                    Err(_) => return (messages, false),
                }
                continue;
            }
            if !buffer.may_hold_head(LIMITS.bytes) {
                break;
            }
            match ParsedRequest::parse(&buffer.bytes, LIMITS) {
                Ok(Some((parsed, length))) => {
                    drop(buffer.bytes.split_to(length));
                    buffer.reset_search();
                    let head = parsed.head;
                    // hyper groups the lines of a repeated field as well.
                    let fields = head.fields.into_map();
                    let lines = fields.iter();
                    let lines = lines.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
                    let message =
                        (head.method.to_string(), head.uri.to_string(), lines.collect(), Vec::new());
                    // The proxy refuses requests with invalid framing.
                    let Some(body) = parsed.body else { return (messages, false) };
                    current = Some((message, body, parsed.keep_alive));
                }
                Ok(None) => {
                    buffer.set_searched();
                    break;
                }
                Err(_) => return (messages, false),
            }
        }
    }
    let is_complete = current.is_none() && buffer.bytes.is_empty();
    (messages, is_complete)
}

fn head(bytes: &str) -> Result<Option<ParsedRequest>, BadRequest> {
    ParsedRequest::parse(bytes.as_bytes(), LIMITS).map(|parsed| parsed.map(|(head, _)| head))
}

#[test]
fn heads_with_invalid_syntax_are_rejected() {
    for bad in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\u{7f}\r\n\r\n",
        "GET / HTTP/1.1\r\nH@st: a\r\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET /\r\n\r\n",
        "G(T / HTTP/1.1\r\n\r\n",
        "GET /<a> HTTP/1.1\r\n\r\n",
        "\u{16}\u{3}\u{1}\r\n\r\n",
    ] {
        assert_eq!(head(bad).unwrap_err(), BadRequest::Syntax, "{bad:?}");
    }
}

#[test]
fn heads_over_the_limits_are_rejected_before_they_are_complete() {
    let target = format!("GET /{}", "a".repeat(LIMITS.bytes));
    assert_eq!(head(&target).unwrap_err(), BadRequest::TargetTooLong);
    let value = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(LIMITS.bytes));
    assert_eq!(head(&value).unwrap_err(), BadRequest::HeadTooLarge);
    let lines = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert_eq!(head(&lines(LIMITS.lines + 1)).unwrap_err(), BadRequest::HeadTooLarge);
    assert_eq!(head(&lines(LIMITS.lines)).unwrap().unwrap().head.fields.len(), LIMITS.lines);
    let limits = HeadLimits { lines: 300, ..LIMITS };
    let (many, _) = ParsedRequest::parse(lines(300).as_bytes(), limits).unwrap().unwrap();
    assert_eq!(many.head.fields.len(), 300);
    assert_eq!(head(&"\r\n".repeat(LIMITS.bytes)).unwrap_err(), BadRequest::HeadTooLarge);
}

#[test]
fn framing_and_persistence_follow_the_head() {
    for (lines, remaining, keep_alive) in [
        ("1.1\r\n", Some(0), true),
        ("1.1\r\nConnection: Close\r\n", Some(0), false),
        ("1.0\r\n", Some(0), false),
        ("1.0\r\nConnection: x, Keep-Alive\r\n", Some(0), true),
        ("1.1\r\nContent-Length: 12\r\n", Some(12), true),
        ("1.1\r\nTransfer-Encoding: Chunked\r\n", None, true),
    ] {
        let head = head(&format!("POST / HTTP/{lines}\r\n")).unwrap().unwrap();
        assert_eq!((head.body.unwrap().remaining(), head.keep_alive), (remaining, keep_alive), "{lines:?}");
    }
    for invalid in [
        "1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
        "1.1\r\nContent-Length: +1\r\n",
        "1.1\r\nContent-Length:\r\n",
        "1.1\r\nContent-Length: 1,1\r\n",
        "1.1\r\nContent-Length: 0x1\r\n",
        "1.1\r\nContent-Length: 1234567890123456\r\n",
        "1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "1.1\r\nTransfer-Encoding: gzip, chunked\r\n",
        "1.1\r\nTransfer-Encoding: chunked, chunked\r\n",
        "1.1\r\nTransfer-Encoding: ,chunked\r\n",
        "1.1\r\nTransfer-Encoding: identity\r\n",
        "1.1\r\nTransfer-Encoding:\r\n",
        "1.0\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let head = head(&format!("POST / HTTP/{invalid}\r\n")).unwrap().unwrap();
        assert!(head.body.is_none() && !head.keep_alive, "{invalid:?}");
    }
    let expects = |lines: &str| head(&format!("POST / HTTP/{lines}\r\n")).unwrap().unwrap().expects_continue;
    assert!(expects("1.1\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n"));
    assert!(!expects("1.1\r\nContent-Length: 0\r\nExpect: 100-continue\r\n"), "the body is empty");
    assert!(!expects("1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n"));
}

#[test]
fn only_the_query_is_encoded() {
    for (target, encoded) in [
        ("/?q=\"a\"", Some("/?q=%22a%22")),
        ("/?<>\"?", Some("/?%3C%3E%22?")),
        ("http://a/?\"", Some("http://a/?%22")),
        ("/?%22", None),
        ("/\"", None),
        ("/?'{|}^`[]", None),
    ] {
        let parsed = request::encode_query(target.as_bytes());
        assert_eq!(parsed.as_deref(), encoded.map(str::as_bytes), "{target}");
    }
}

const CORPUS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\n\r\nGET /a?b HTTP/1.1\r\nHost: a\r\nX: \t y \r\nX:\r\n\r\nGET /c HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloPOST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0A\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET /d HTTP/1.1\r\n\r\n",
    "PUT http://a/b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nQUERY /?\"<x>\" HTTP/1.1\r\nHost: a\r\n\r\n",
];

#[test]
fn requests_do_not_depend_on_how_their_bytes_are_split() {
    for bytes in CORPUS.iter().map(|text| text.as_bytes()) {
        let whole = read(&[bytes]);
        assert!(whole.1 && !whole.0.is_empty(), "{:?}", bytes.escape_ascii().to_string());
        for at in 1..bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(read(&[first, second]), whole, "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single), whole, "byte by byte");
    }
}

/// Returns the requests that hyper parses from the same bytes.
async fn read_by_hyper(bytes: &[u8]) -> Vec<Message> {
    let (server, client) = duplex(64 * 1024);
    let (mut output, mut input) = tokio::io::split(client);
    let messages = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let messages = Rc::clone(&messages);
        async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await else { return Err("the body is invalid") };
            let lines = parts.headers.iter();
            let lines = lines.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            let body = body.to_bytes().to_vec();
            messages.borrow_mut().push((
                parts.method.to_string(),
                parts.uri.to_string(),
                lines.collect(),
                body,
            ));
            Ok(http::Response::new(Empty::<Bytes>::new()))
        }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
    let send = async {
        input.write_all(bytes).await.unwrap();
        // Closing the stream would make hyper drop requests in progress, so it stays open until the timeout.
        let mut responses = BytesMut::new();
        while output.read_buf(&mut responses).await.is_ok_and(|count| count > 0) {}
    };
    let _ =
        tokio::time::timeout(std::time::Duration::from_millis(20), async { tokio::join!(connection, send) })
            .await;
    messages.take()
}

/// Generates requests from valid and invalid parts.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "Host: a\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 03\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: Chunked \r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: x\n",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "X: a b\t\r\n",
        "X:\r\n",
        " folded\r\n",
        "X: \u{e9}\r\n",
        "X: a\rb\r\n",
    ]);
    let body = prop::sample::select(vec![
        "",
        "abc",
        "3\r\nabc\r\n0\r\n\r\n",
        "3;x\r\nabc\r\n0\r\nA: b\r\n\r\n",
        "0\r\n\r\n",
        "03\r\nabc\r\n00\r\n\r\n",
        "3\nabc\n0\n\n",
    ]);
    let start = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a?b HTTP/1.1\r\n",
        "POST / HTTP/1.0\r\n",
        "\r\nHEAD /%20 HTTP/1.1\r\n",
        "GET http://b/c HTTP/1.1\r\n",
        "GET /  HTTP/1.1\r\n",
        "get /\u{e9} HTTP/1.1\r\n",
        "GET / HTTP/1.1\n",
    ]);
    let message = (start, prop::collection::vec(line, 0..4), body)
        .prop_map(|(start, lines, body)| format!("{start}{}\r\n{body}", lines.concat()));
    prop::collection::vec(message, 1..3).prop_map(|messages| messages.concat().into_bytes())
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read(&[&bytes]);
        read(&bytes.chunks(3).collect::<Vec<_>>());
    }

    #[test]
    fn hyper_parses_accepted_requests_identically(bytes in requests()) {
        let (ours, _) = read(&[&bytes]);
        if !ours.is_empty() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let theirs = runtime.block_on(read_by_hyper(&bytes));
            for (ours, theirs) in ours.iter().zip(&theirs) {
                prop_assert_eq!(ours, theirs);
            }
            // hyper may stop earlier, for example after an error in a later request, but must accept the first request.
            prop_assert!(!theirs.is_empty(), "{:?} is accepted only by this parser", bytes.escape_ascii().to_string());
        }
    }
}
