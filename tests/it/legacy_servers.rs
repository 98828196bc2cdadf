//! Responses that violate RFC 9112: an unambiguous one is repaired and forwarded, and an ambiguous one is a 502 whose log
//! line names the header and the reason. HTTP/1.1 and HTTP/2 clients receive the same.

use crate::support::client::{Client, Request};
use crate::support::gateway::{Gateway, field};
use crate::support::program::successful_output;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::upstream::Upstream;

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";

/// Starts an upstream with the n-th of these responses at `/n`, and a gateway.
async fn serving(responses: &[Vec<u8>]) -> (Upstream, Gateway) {
    let responses = responses.to_vec();
    let upstream = Upstream::responding(move |request| {
        let number: usize = request.target.trim_start_matches('/').parse().unwrap();
        ScriptedResponse::raw(responses.get(number).unwrap().clone())
    });
    let gateway = Gateway::builder().upstream("app", &upstream).route("/", "public", "").start().await;
    (upstream, gateway)
}

/// Returns a response with these header lines and the body `hello`.
fn with(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 5\r\n\r\nhello").into_bytes()
}

/// Returns a response with these bytes after the status line.
fn framed(rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{rest}").into_bytes()
}

/// Returns the head and the body that curl receives over HTTP/2.
fn over_http2(gateway: &Gateway, number: usize) -> Option<(String, String)> {
    let url = format!("http://{}/{number}", gateway.address());
    let seen = successful_output("curl", &["-sSi", "--http2-prior-knowledge", &url])?;
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    Some((format!("{head}\r\n"), body.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn unambiguous_response_is_repaired() {
    let cases: Vec<(Vec<u8>, &[&str], &[&str])> = vec![
        (with("X-Foo : bar\r\n"), &["x-foo: bar"], &[]),
        (with("X-Foo\t : bar\r\n"), &["x-foo: bar"], &[]),
        (with("Set-Cookie : a=b\r\n"), &["set-cookie: a=b"], &[]),
        (with("X-Session-Patch : {}\r\n"), &[], &["x-session-patch"]),
        (framed("Content-Length : 5\r\n\r\nhello"), &["content-length: 5"], &[]),
        (framed(&format!("{}\r\n", CHUNKED.replace("Encoding:", "Encoding :"))), &[], &["content-length"]),
        (with("X-Foo: a\r\n b\r\n"), &["x-foo: a b"], &[]),
        (with("X-Foo: a\r\n\t  b\r\n \r\n"), &["x-foo: a b"], &[]),
        (with("X-Foo:\n a\n b\n"), &["x-foo: a b"], &[]),
        (with("Set-Cookie: a=b;\r\n Path=/x\r\n"), &["set-cookie: a=b; Path=/x"], &[]),
        (framed("Content-Length:\r\n 5\r\n\r\nhello"), &["content-length: 5"], &[]),
        (with("Content-Length: 5\r\n"), &["content-length: 5"], &[]),
        (framed("Content-Length: 5, 5\r\n\r\nhello"), &["content-length: 5"], &["5, 5"]),
        (framed("Content-Length: 5,5\r\nContent-Length: 05\r\n\r\nhello"), &["content-length: 5"], &["5,5"]),
        (framed("Content-Length: 0005\r\n\r\nhello"), &["content-length: 5"], &["0005"]),
        (with("X-Foo: a\u{1}\u{1b}[31m\u{7f}b\r\n"), &["x-foo: a  [31m b"], &[]),
        (with("X-Foo: \0\u{b}a\r\n"), &["x-foo: a"], &[]),
        (with("Cache-Control: private\u{1}\r\n"), &["cache-control: private"], &[]),
        (with("X(Foo): bar\r\nX-Bar: 1\r\n"), &["x-bar: 1"], &["foo"]),
        (with("X-Foé: bar\r\ngarbage\r\n"), &[], &["bar", "garbage"]),
        (with("X-Two: a\r\nX-One : b\r\nX-Two: c\r\n"), &["x-two: a", "x-one: b", "x-two: c"], &[]),
        (framed(&format!("{CHUNKED}X : 1\r\nY: 2\r\n 3\r\nZ: \u{1}\r\njunk\r\n\r\n")), &[], &["junk"]),
        (b"HTTP/1.1\t200  OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(), &["content-length: 5"], &[]),
        (b"HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(), &["content-length: 5"], &[]),
        (b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(), &["content-length: 5"], &[]),
        (b"HTTP/1.1 200 O\x01K\nContent-Length: 5\n\nhello".to_vec(), &["content-length: 5"], &[]),
    ];
    let responses: Vec<_> = cases.iter().map(|(response, ..)| response.clone()).collect();
    let (_upstream, gateway) = serving(&responses).await;
    for (number, (response, expected, removed)) in cases.iter().enumerate() {
        let shown = response.escape_ascii().to_string();
        let seen = Request::get(&format!("/{number}")).send(gateway.address()).await;
        assert_eq!((seen.status, &*seen.text()), (200, "hello"), "{shown}");
        assert_eq!(seen.message.start, "HTTP/1.1 200 OK", "{shown}");
        let one = (String::from_utf8_lossy(&seen.message.head).to_lowercase(), seen.text());
        let two = over_http2(&gateway, number).map(|(head, body)| (head.to_lowercase(), body));
        for (version, (head, body)) in [("HTTP/1.1", Some(one)), ("HTTP/2", two)]
            .into_iter()
            .filter_map(|(version, seen)| Some((version, seen?)))
        {
            // curl prints trailers after the body.
            assert!(body.starts_with("hello"), "{version}: {shown}: {body}");
            for line in *expected {
                let line = format!("{}\r\n", line.to_lowercase());
                assert_eq!(head.matches(&line).count(), 1, "{version}: {line} of {shown}: {head}");
            }
            for text in *removed {
                assert!(!head.contains(text), "{version}: {text} of {shown}: {head}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_response_is_502_and_its_log_line_has_the_reason() {
    let differ = "an invalid Content-Length, or several that differ";
    let coding = "a Transfer-Encoding other than chunked, or one in HTTP/1.0";
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (framed(" X-Foo: secret\r\n\r\n"), "a header `X-Foo` with whitespace before it"),
        (with("X Foo: secret\r\n"), "a header `X Foo` whose name is invalid"),
        (with("X\u{1}Foo: secret\r\n"), "a header `X\\x01Foo` whose name is invalid"),
        (with(": secret\r\n"), "a header `` whose name is invalid"),
        (with("a secret line\r\n"), "a header `` whose name is invalid"),
        (with("X-Foo\r\n : secret\r\n"), "a header `` whose name is invalid"),
        (with("(Content-Length: 7\r\n"), "a header `(Content-Length` whose name is invalid"),
        (with("Transfer/Encoding: chunked\r\n"), "a header `Transfer/Encoding` whose name is invalid"),
        (with("X-Foo: secret\rContent-Length: 2\r\n"), "a header `X-Foo` with a bare CR"),
        (with("X-Foo: secret\r\r\n"), "a header `X-Foo` with a bare CR"),
        (framed("Content-Length: 5\u{1}\r\n\r\nhello"), "a header `Content-Length` with a control character"),
        (with("Connection: clo\u{1}se\r\n"), "a header `Connection` with a control character"),
        (with("X-Session-Action: destroy\u{1}\r\n"), "a header `X-Session-Action` with a control character"),
        (with("Content-Length: 6\r\n"), differ),
        (framed("Content-Length: 5, 6\r\n\r\nhello"), differ),
        (framed("Content-Length: 5,\r\n\r\nhello"), differ),
        (framed("Content-Length:\r\n\r\nhello"), differ),
        (framed("Content-Length: +5\r\n\r\nhello"), differ),
        (with("Transfer-Encoding : chunked\r\n"), "both Content-Length and Transfer-Encoding"),
        (framed(&format!("{}\r\n", CHUNKED.replace("chunked", "gzip, chunked"))), coding),
        (framed(&format!("Transfer-Encoding:\r\n chunked\r\n{CHUNKED}\r\n")), coding),
        (b"HTTP/1.1 200 O\rK\r\nContent-Length: 5\r\n\r\nhello".to_vec(), "a bare CR in its status line"),
        (b"HTTP/1.1 099 Odd\r\nContent-Length: 5\r\n\r\nhello".to_vec(), "a status code below 100"),
        (b"HTTP/1.1 200OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(), "is not HTTP/1"),
    ];
    let responses: Vec<_> = cases.iter().map(|(response, _)| response.clone()).collect();
    let (_upstream, gateway) = serving(&responses).await;
    for (number, (response, reason)) in cases.iter().enumerate() {
        let shown = response.escape_ascii().to_string();
        let path = format!("/{number}");
        assert_eq!(Request::get(&path).send(gateway.address()).await.status, 502, "{shown}");
        let line = gateway.wait_for_event("line", |event| event["path"] == path.as_str()).await;
        let detail = field(&line, "detail").as_str().unwrap();
        assert!(detail.contains(&format!("the response {}", with_verb(reason))), "{shown}: {detail}");
        if let Some((head, _)) = over_http2(&gateway, number) {
            assert!(head.starts_with("HTTP/2 502"), "{shown}: {head}");
        }
    }
    assert!(!gateway.log().contains("secret"), "values are not logged");
}

fn with_verb(reason: &str) -> String {
    if reason.starts_with("is ") { reason.to_owned() } else { format!("has {reason}") }
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_is_logged_once_for_each_server() {
    let (_upstream, gateway) = serving(&[with("X-Foo : bar\r\n"), with("X-Other : bar\r\n")]).await;
    for path in ["/0", "/1", "/0"] {
        assert_eq!(gateway.get(path, "").await.status, 200);
    }
    let repairs = gateway.events("removed whitespace between a response header's name and its colon");
    let headers: Vec<_> = repairs.iter().map(|event| field(event, "header")).collect();
    assert_eq!(headers, ["X-Foo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_with_repaired_framing_is_not_reused() {
    for (lines, connections) in [("X-Foo : bar\r\n", 1), ("Connection : keep-alive\r\n", 2)] {
        let response = String::from_utf8(with(lines)).unwrap();
        let upstream = Upstream::responding(move |_| ScriptedResponse::default().preceded_by(&response));
        let gateway = Gateway::builder()
            .upstream("app", &upstream)
            .route("/", "public", "")
            .server("workers = 1")
            .start()
            .await;
        for _ in 0..2 {
            assert_eq!(gateway.get("/", "").await.text(), "hello", "{lines}");
        }
        assert_eq!(upstream.connections(), connections, "{lines}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reason_phrase_of_a_server_is_forwarded_over_http_1() {
    let line = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 5\r\n\r\nhello").into_bytes();
    let cases = [
        (line("200 Saved"), "HTTP/1.1 200 Saved"),
        (line("200 Tr\u{e8}s bien"), "HTTP/1.1 200 Tr\u{e8}s bien"),
        (line("200 OK"), "HTTP/1.1 200 OK"),
        (line("200"), "HTTP/1.1 200 OK"),
        (line("404 Nowhere"), "HTTP/1.1 404 Nowhere"),
        (line("299"), "HTTP/1.1 299 "),
        (line("999"), "HTTP/1.1 999 "),
        (line("999 "), "HTTP/1.1 999 "),
        (line("999 Odd"), "HTTP/1.1 999 Odd"),
        (line("600  Odd\t one"), "HTTP/1.1 600 Odd\t one"),
    ];
    let responses: Vec<_> = cases.iter().map(|(response, _)| response.clone()).collect();
    let (_upstream, gateway) = serving(&responses).await;
    for (number, (_, expected)) in cases.iter().enumerate() {
        let mut client = Client::connect(gateway.address()).await;
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let head = client.read_until("\r\n").await;
        assert_eq!(head, format!("{expected}\r\n"));
        if let Some((head, body)) = over_http2(&gateway, number) {
            let status = expected.split(' ').nth(1).unwrap();
            assert!(head.starts_with(&format!("HTTP/2 {status} \r\n")), "{head}");
            assert_eq!(body, "hello");
        }
    }
}

#[tokio::test]
async fn configured_unknown_status_has_an_empty_reason_phrase() {
    let route = "[[routes]]\npath = \"/\"\naccess = \"public\"\nrespond = { status = 599 }";
    let gateway = Gateway::builder().toml(route).start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.read_until("\r\n").await, "HTTP/1.1 599 \r\n");
}
