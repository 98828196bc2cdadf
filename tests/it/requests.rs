//! Requests that the gateway forwards, and those that it refuses because a server could interpret them in another way.

use crate::support::client::{Client, Request};
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::upstream::Upstream;

fn public_gateway(upstream: &Upstream) -> Builder {
    Gateway::builder().upstream("app", upstream).route("/", "public", "")
}

/// Sends these bytes and returns the status of the response, or 0 if there is none.
async fn send_raw(gateway: &Gateway, bytes: &str) -> u16 {
    let mut client = Client::connect(gateway.address()).await;
    client.send(bytes).await;
    client.read_response().await.map_or(0, |response| response.status)
}

#[tokio::test]
async fn ambiguous_head_is_400() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let length = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n");
    let corpus = [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: \r\n\r\n".to_owned(),
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET http://a/ HTTP/1.1\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        length("Transfer-Encoding: gzip, chunked"),
        length("Transfer-Encoding: ,chunked"),
        length("Transfer-Encoding: chunked, chunked"),
        length("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        length("Transfer-Encoding: identity"),
        length("Transfer-Encoding: xchunked"),
        length("Transfer-Encoding : chunked"),
        length("Content-Length: 5\r\nContent-Length: 6"),
        length("Content-Length: +5"),
        length("Content-Length: 5, 5"),
        length("Content-Length: 0x5"),
        length("Content-Length: 12345678901234567890"),
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n".to_owned(),
        "GET /\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ];
    for bytes in corpus {
        assert_eq!(send_raw(&gateway, &bytes).await, 400, "{bytes:?}");
    }
    assert_eq!(upstream.request_count(), 0, "{:?}", upstream.requests());
    assert_eq!(gateway.get("/", "").await.status, 200, "the gateway no longer serves");
}

#[tokio::test]
async fn content_length_with_transfer_encoding_is_400_and_closes_the_connection() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    for framings in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let mut client = Client::connect(gateway.address()).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        client
            .send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framings}\r\n\r\n3\r\nabc\r\n0\r\n\r\n{smuggled}"))
            .await;
        let response = client.read_response().await.unwrap();
        assert_eq!((response.status, response.header("connection")), (400, Some("close")));
        assert!(client.is_closed().await);
        assert_eq!(upstream.request_count(), 0);
    }
}

#[tokio::test]
async fn bytes_after_a_refused_head_are_not_a_request() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let mut client = Client::connect(gateway.address()).await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n\
             0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    let response = client.read_response().await.unwrap();
    assert_eq!((response.status, response.header("connection")), (400, Some("close")));
    assert!(client.is_closed().await);
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn ambiguous_path_is_400_and_others_are_forwarded_unchanged() {
    let upstream = Upstream::start();
    let gateway =
        public_gateway(&upstream).route("/slashes", "public", "encoded_slashes = \"pass\"").start().await;
    for path in
        ["//", "/a//b", "/./a", "/a/..", "/%2e%2e/a", "/a%2fb", "/a%5cb", "/a\\b", "/a%00", "/%252e", "/a%"]
    {
        assert_eq!(
            send_raw(&gateway, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await,
            400,
            "{path}"
        );
    }
    assert_eq!(upstream.request_count(), 0);
    for path in ["/", "/a?b=//../%2f&c", "/caf%C3%A9/%7Ex/%7ex", "/a;b=c", "/a.b/c..d?", "/slashes/a%2Fb%2fc"]
    {
        assert_eq!(gateway.get(path, "").await.status, 200, "{path}");
        assert_eq!(upstream.last_request().target, path);
    }
    assert_eq!(
        send_raw(&gateway, "GET http://gateway.test/abs?x HTTP/1.1\r\nHost: gateway.test\r\n\r\n").await,
        200
    );
    assert_eq!(upstream.last_request().target, "/abs?x");
}

#[tokio::test]
async fn unsupported_method_is_405() {
    let upstream = Upstream::start();
    let gateway =
        public_gateway(&upstream).route("/form", "public", "methods = [\"POST\", \"PUT\"]").start().await;
    assert_eq!(send_raw(&gateway, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").await, 405);
    assert_eq!(gateway.send(&Request::new("TRACE", "/")).await.status, 405);
    let response = gateway.get("/form", "").await;
    assert_eq!((response.status, response.header("allow")), (405, Some("POST, PUT")));
    assert_eq!(upstream.request_count(), 0);
    assert_eq!(gateway.send(&Request::post("/form", "x")).await.status, 200);
}

#[tokio::test]
async fn host_is_matched_without_case_port_and_dot_and_forwarded_unchanged() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .upstream("app", &upstream)
        .route("/", "public", "host = \"app.example\"")
        .start()
        .await;
    for host in ["app.example", "APP.example:8443", "app.example."] {
        assert_eq!(gateway.send(&Request::get("/").header("Host", host)).await.status, 200, "{host}");
        assert_eq!(upstream.last_request().header("host"), Some(host));
    }
    let response = gateway.send(&Request::get("/").header("Host", "other.example")).await;
    assert_eq!(response.status, 404);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(response.json()["instance"], response.header("x-request-id").unwrap());
    let page =
        gateway.send(&Request::get("/").header("Host", "x").header("Accept", "text/html,*/*;q=0.8")).await;
    assert_eq!((page.status, page.header("content-type")), (404, Some("text/html; charset=utf-8")));
    assert!(page.text().contains(page.header("x-request-id").unwrap()));
}

#[tokio::test]
async fn bodies_are_streamed_in_both_directions() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("first second").paused_after(6, &held));
    let gateway = public_gateway(&upstream).start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    let first = client.read_until("first ").await;
    assert!(first.contains("HTTP/1.1 200"), "{first}");
    gate.open();
    client.read_until("second").await;

    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    for (framing, body) in [
        ("Content-Length: 300000", "x".repeat(300_000)),
        ("Transfer-Encoding: chunked", format!("{:x}\r\n{}\r\n0\r\n\r\n", 300_000, "x".repeat(300_000))),
        ("Content-Length: 0", String::new()),
    ] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}")).await;
        assert_eq!(client.read_response().await.unwrap().status, 200);
        let seen = upstream.last_request();
        let framings = seen.all("content-length").len() + seen.all("transfer-encoding").len();
        assert_eq!(
            (seen.message.body.len(), framings),
            (if body.is_empty() { 0 } else { 300_000 }, 1),
            "{framing}"
        );
    }
}

#[tokio::test]
async fn expect_100_continue_gets_100_only_if_the_request_is_forwarded() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).route("/form", "public", "methods = [\"PUT\"]").start().await;
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut client = Client::connect(gateway.address()).await;
    client.send(head("/")).await;
    client.read_until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("abc").await;
    assert_eq!(client.read_response().await.unwrap().status, 200);
    assert_eq!(
        (upstream.only_request().message.body, upstream.only_request().header("expect")),
        (b"abc".to_vec(), Some("100-continue"))
    );

    let mut client = Client::connect(gateway.address()).await;
    client.send(head("/form")).await;
    let response = client.read_response().await.unwrap();
    assert_eq!((response.status, response.interim.len()), (405, 0));
    assert_eq!(send_raw(&gateway, "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n").await, 417);
}

#[tokio::test]
async fn request_id_is_the_same_in_upstream_request_response_and_log() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let response = gateway.send(&Request::get("/").header("X-Request-Id", "abc-1.2_3")).await;
    assert_eq!(response.header("x-request-id"), Some("abc-1.2_3"));
    assert_eq!(upstream.last_request().all("x-request-id"), ["abc-1.2_3"]);
    let line = gateway.wait_for_event("line", |event| event["target"] == "access").await;
    assert_eq!(field(&line, "id"), "abc-1.2_3");
    for bad in ["", "a b", "<script>", "a\"b"] {
        let response = gateway.send(&Request::get("/").header("X-Request-Id", bad)).await;
        let new = response.header("x-request-id").unwrap();
        assert!(new.len() == 32 && new != bad, "{new}");
        assert_eq!(upstream.last_request().all("x-request-id"), [new]);
    }
}

#[tokio::test]
async fn upgrade_to_h2c_is_removed_from_the_request() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let request = Request::get("/").header("Connection", "Upgrade, HTTP2-Settings").header("Upgrade", "h2c");
    assert_eq!(gateway.send(&request.header("HTTP2-Settings", "AAMAAABkAAQAAP__")).await.status, 200);
    let seen = upstream.only_request();
    assert_eq!(
        (seen.header("upgrade"), seen.header("http2-settings"), seen.header("connection")),
        (None, None, None)
    );
}

#[tokio::test]
async fn head_above_the_limits_is_431() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    assert_eq!(send_raw(&gateway, &large).await, 431);
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(send_raw(&gateway, &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).await, 431);
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn connection_without_a_complete_head_in_time_is_closed() {
    let upstream = Upstream::start();
    let timeouts = "workers = 1\nheader_timeout = \"200ms\"\nidle_timeout = \"200ms\"";
    let gateway = public_gateway(&upstream).server(timeouts).start().await;
    let mut slow = Client::connect(gateway.address()).await;
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
    let rest = slow.read_to_end().await;
    assert!(rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
    let mut idle = Client::connect(gateway.address()).await;
    assert_eq!(idle.request(&Request::get("/")).await.status, 200);
    assert!(idle.is_closed().await);
}

#[tokio::test]
async fn sigterm_finishes_open_requests_and_accepts_no_new_connections() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("done").after(&held));
    let mut gateway = public_gateway(&upstream).start().await;
    let address = gateway.address();
    let mut client = Client::connect(address).await;
    client.send_request(&Request::get("/")).await;
    upstream.wait_for_requests(1).await;
    let mut idle = Client::connect(address).await;
    gateway.signal("TERM");
    gateway.wait_for_event("drain", |event| field(event, "message") == "draining").await;
    assert!(idle.is_closed().await, "the idle connection stays open");
    gate.open();
    let response = client.read_response().await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "done"));
    assert!(gateway.wait().await.success());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn address_in_use_is_an_error_at_start() {
    let upstream = Upstream::start();
    let first = public_gateway(&upstream).start().await;
    let in_use = format!("address = \"{}\"", first.address());
    let failure = public_gateway(&upstream).listener(&in_use).fail_to_start().await;
    assert_eq!(failure.status.code(), Some(1));
    assert!(failure.log.contains(&format!("cannot listen on {}", first.address())), "{}", failure.log);
}

#[tokio::test]
async fn request_body_of_any_method_is_forwarded() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    for method in ["GET", "DELETE", "POST"] {
        for body in
            ["Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "Content-Length: 3\r\n\r\nabc"]
        {
            assert_eq!(send_raw(&gateway, &format!("{method} / HTTP/1.1\r\nHost: a\r\n{body}")).await, 200);
            let seen = upstream.last_request();
            assert_eq!((seen.method.as_str(), seen.message.body.as_slice()), (method, &b"abc"[..]));
            let framings = seen.all("content-length").len() + seen.all("transfer-encoding").len();
            assert_eq!(framings, 1, "{method} {body:?}");
        }
    }
}

#[tokio::test]
async fn content_length_is_forwarded_in_canonical_form() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    for (sent, body, forwarded) in [("003", "abc", "3"), ("3", "abc", "3"), ("0", "", "0"), ("000", "", "0")]
    {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {sent}\r\n\r\n{body}");
        assert_eq!(send_raw(&gateway, &request).await, 200);
        let seen = upstream.last_request();
        assert_eq!(seen.all("content-length"), [forwarded], "{sent}");
        assert_eq!(seen.message.body, body.as_bytes());
    }
}

#[tokio::test]
async fn only_http_1_0_requests_may_lack_a_host() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    assert_eq!(send_raw(&gateway, "GET / HTTP/1.0\r\n\r\n").await, 200);
    assert_eq!(send_raw(&gateway, "GET / HTTP/1.1\r\n\r\n").await, 400);
    assert_eq!(upstream.request_count(), 1);
}

#[tokio::test]
async fn encoded_letter_does_not_bypass_a_route() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .upstream("app", &upstream)
        .realm("")
        .route("/", "public", "encoded_slashes = \"pass\"")
        .route("/admin", "required", "")
        .start()
        .await;
    assert_eq!(gateway.get("/admin/x", "").await.status, 401);
    for path in ["/%61dmin/x", "/admi%6e", "/admin%2fx", "/%2561dmin", "/admin%3bx", "/admin%2f;a/x"] {
        assert_eq!(gateway.get(path, "").await.status, 400, "{path}");
    }
    assert_eq!(upstream.request_count(), 0);
    assert_eq!(gateway.get("/%61%2fdmin", "").await.status, 200);
}

#[tokio::test]
async fn stalled_client_is_408_and_stalled_upstream_is_504() {
    let upstream = Upstream::start();
    // Accepts connections and does not read.
    let stalled = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limit = "response_timeout = \"300ms\"";
    let gateway = Gateway::builder()
        .upstream_at("app", upstream.address(), limit)
        .upstream_at("stalled", stalled.local_addr().unwrap(), limit)
        .route("/", "public", "")
        .toml("[[routes]]\npath = \"/stalled\"\nupstream = \"stalled\"\naccess = \"public\"")
        .start()
        .await;
    assert_eq!(send_raw(&gateway, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await, 408);

    let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let head = "POST /stalled HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n";
        let _incomplete = to.write_all(&[head.as_bytes(), &vec![b'x'; 50_000_000]].concat()).await;
    });
    let mut response = [0; 12];
    let reading = tokio::io::AsyncReadExt::read_exact(&mut from, &mut response);
    crate::support::within("a response", reading).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&response), "HTTP/1.1 504");
    sending.abort();
}

#[tokio::test]
async fn invalid_chunked_body_is_400() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    for body in ["zz\r\n", "3\r\nabcd\r\n", "-1\r\n", "ffffffffffffffff1\r\n"] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let mut client = Client::connect(gateway.address()).await;
        client.send(&bytes).await;
        let response = client.read_response().await.unwrap();
        assert_eq!((response.status, response.header("connection")), (400, Some("close")), "{body:?}");
        assert!(client.is_closed().await);
    }
    assert_eq!(upstream.request_count(), 0);
    assert_eq!(gateway.get("/", "").await.status, 200);
}
