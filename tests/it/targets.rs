//! Request targets: percent-encoding of characters that RFC 3986 does not allow, and absolute targets.

use crate::support::client::Client;
use crate::support::gateway::{Gateway, field};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::upstream::Upstream;

async fn public_gateway(upstream: &Upstream) -> Gateway {
    Gateway::builder()
        .upstream("app", upstream)
        .realm("")
        .route("/", "public", "")
        .route("/guarded", "required", "")
        .server("workers = 1")
        .start()
        .await
}

fn get(target: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()
}

async fn status(client: &mut Client) -> u16 {
    client.read_response().await.unwrap().status
}

#[tokio::test]
async fn non_ascii_target_is_percent_encoded_before_routing() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).await;
    let cases = [
        ("/\u{ff41}dmin?\u{ff42}=\u{e9}", "/%EF%BD%81dmin?%EF%BD%82=%C3%A9"),
        ("/a\u{202e}b", "/a%E2%80%AEb"),
        ("/\u{1f36a}%C3%A9\u{80}", "/%F0%9F%8D%AA%C3%A9%C2%80"),
        ("/?\u{202e}", "/?%E2%80%AE"),
    ];
    let mut client = Client::connect(gateway.address()).await;
    for (target, expected) in cases {
        client.send(get(target.as_bytes())).await;
        assert_eq!(status(&mut client).await, 200, "{target}");
        assert_eq!(upstream.last_request().target, expected);
        let path = expected.split('?').next().unwrap();
        gateway.wait_for_event("line", |event| event["path"] == path).await;
    }
    client.send(get("/guarded/\u{e9}".as_bytes())).await;
    assert_eq!(status(&mut client).await, 401, "the route was bypassed");
}

#[tokio::test]
async fn target_that_is_not_utf_8_is_400() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).await;
    for target in [&b"/\xe9"[..], b"/?\xe9", b"/\xc0\xaf", b"/\xed\xa0\x80", b"/\xf5\x80\x80\x80"] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(get(target)).await;
        assert_eq!(status(&mut client).await, 400, "{}", target.escape_ascii());
    }
    assert_eq!(upstream.request_count(), 0);
}

/// The characters that browsers percent-encode in some part of a target. `None` is a 400.
#[tokio::test]
async fn characters_that_browsers_encode_are_encoded_forwarded_or_400() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).await;
    for (character, in_query, in_path) in [
        ('"', Some("%22"), Some("\"")),
        ('<', Some("%3C"), None),
        ('>', Some("%3E"), None),
        ('{', Some("{"), Some("{")),
        ('}', Some("}"), Some("}")),
        ('|', Some("|"), Some("|")),
        ('^', Some("^"), Some("^")),
        ('`', Some("`"), None),
        ('\'', Some("'"), Some("'")),
        ('[', Some("["), Some("[")),
        ('\\', Some("\\"), None),
        ('\x7f', None, None),
        ('\t', None, None),
    ] {
        for (before, expected) in [("/?q=", in_query), ("/p", in_path)] {
            let mut client = Client::connect(gateway.address()).await;
            client.send(get(format!("{before}{character}a{character}").as_bytes())).await;
            let status = status(&mut client).await;
            match expected {
                Some(text) => {
                    assert_eq!(status, 200, "{before}{character}");
                    assert_eq!(upstream.last_request().target, format!("{before}{text}a{text}"));
                }
                None => assert_eq!(status, 400, "{before}{character}"),
            }
        }
    }
}

#[tokio::test]
async fn query_is_encoded_in_heads_of_any_fragmentation() {
    let upstream = Upstream::responding(|request| ScriptedResponse::ok(request.message.body.clone()));
    let gateway = public_gateway(&upstream).await;
    let head = "GET /?q=\"a\"&r=<b> HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"?\"\r\n\r\n";
    let mut client = Client::connect(gateway.address()).await;
    for size in [1, 7, head.len()] {
        for piece in head.as_bytes().chunks(size) {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(status(&mut client).await, 200);
        let seen = upstream.last_request();
        assert_eq!(seen.target, "/?q=%22a%22&r=%3Cb%3E", "in pieces of {size}");
        assert_eq!(seen.header("if-none-match"), Some("\"?\""));
        // On the same connection, after a body that looks like a request.
        let body = "GET /?q=\"body\" HTTP/1.1\r\n\r\n";
        let length = body.len();
        let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
        let framings = [
            (format!("Content-Length: {length}"), body),
            ("Transfer-Encoding: chunked".to_owned(), &chunked),
        ];
        for (framing, body) in framings {
            let head =
                format!("POST /p?\"< HTTP/1.1\r\nHost: a\r\n{framing}\r\nExpect: 100-continue\r\n\r\n");
            client.send(head).await;
            client.read_until("100 Continue\r\n\r\n").await;
            client.send(body).await;
            assert_eq!(client.read_response().await.unwrap().text(), "GET /?q=\"body\" HTTP/1.1\r\n\r\n");
            assert_eq!(upstream.last_request().target, "/p?%22%3C");
        }
    }
    assert_eq!(upstream.request_count(), 9, "a body was read as a request");
}

/// A part of a pipelined head may already be in hyper's buffer.
#[tokio::test]
async fn headers_of_a_pipelined_request_are_not_encoded() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nX-Half: ?").await;
    assert_eq!(status(&mut client).await, 200);
    client.send("\"<>\"\r\n\r\n").await;
    assert_eq!(status(&mut client).await, 200);
    let seen = upstream.last_request();
    assert_eq!((seen.target.as_str(), seen.header("x-half")), ("/2", Some("?\"<>\"")));
}

#[tokio::test]
async fn path_in_the_log_is_ascii() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(get("/a\u{202e}b".as_bytes())).await;
    assert_eq!(status(&mut client).await, 200);
    gateway.wait_for_event("line", |event| field(event, "path") == "/a%E2%80%AEb").await;
    assert!(gateway.log().is_ascii());
}

#[tokio::test]
async fn absolute_target_is_forwarded_if_it_matches_host_and_400_otherwise() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .upstream("app", &upstream)
        .route("/", "public", "host = \"app.example\"")
        .start()
        .await;
    for (target, host) in [
        ("http://app.example", "app.example"),
        ("http://APP.example", "App.Example"),
        ("http://app.example:80", "app.example"),
        ("http://app.example", "app.example:80"),
        ("HTTPS://app.example:443", "app.example"),
        ("http://app.example:8080", "app.example:8080"),
        ("http://app.example.", "app.example"),
    ] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(format!("GET {target}/a?b HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(status(&mut client).await, 200, "{target} {host}");
        let seen = upstream.last_request();
        assert_eq!((seen.target.as_str(), seen.header("host")), ("/a?b", Some(host)), "{target} {host}");
    }
    let before = upstream.request_count();
    for (target, host) in [
        ("http://app.example", "other.example"),
        ("http://other.example", "app.example"),
        ("http://app.example:8080", "app.example"),
        ("http://app.example:443", "app.example"),
        ("https://app.example:80", "app.example"),
        ("http://app.example", "app.example:8080"),
        ("http://user@app.example", "app.example"),
        ("http://app.example", ""),
    ] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(format!("GET {target}/a?b HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(status(&mut client).await, 400, "{target} {host}");
    }
    assert_eq!(upstream.request_count(), before);
    // An HTTP/1.0 request need not have a Host.
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET http://app.example/ HTTP/1.0\r\n\r\n").await;
    client.read_until("HTTP/1.0 200 ").await;
    assert_eq!(upstream.last_request().header("host"), Some("app.example"));
}
