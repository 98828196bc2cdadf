//! Responses: the app's response, the session cookie, and the removal of the headers for the gateway.
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::{Client, Request};
use crate::support::engine::Engine;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, DUE, Session};
use crate::support::upstream::Upstream;

fn gateway(engine: &Engine, upstream: &Upstream) -> Builder {
    Gateway::builder().engine(engine).upstream("app", upstream).route(
        "/",
        "optional",
        "[routes.headers]\nX-User = \"user\"",
    )
}

async fn put_session(engine: &Engine, due: bool) -> Session {
    let session = Session::new(json!({ "user": "alice" }));
    let session = if due { session.aged(DUE) } else { session };
    session.put(engine).await;
    session
}

#[tokio::test]
async fn control_headers_are_removed_from_responses_of_every_status() {
    let upstream = Upstream::responding(|request| {
        let status = request.target[1..].parse().unwrap();
        let response =
            ScriptedResponse::new(status, "").header("X-Session-Patch", "{}").header("x_session_ref", "x");
        response.header("X-Session-Action", "destroy").header("X-Kept", "1").header("Keep-Alive", "timeout=1")
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    for status in [200, 204, 301, 304, 401, 404, 500, 503] {
        let response = gateway.get(&format!("/{status}"), "").await;
        assert_eq!(response.status, status);
        let names: Vec<_> = response.message.headers.iter().map(|(name, _)| name.to_lowercase()).collect();
        assert!(!names.iter().any(|name| name.replace('_', "-").starts_with("x-session-")), "{names:?}");
        assert_eq!((response.header("x-kept"), response.header("keep-alive")), (Some("1"), None));
    }
}

#[tokio::test]
async fn interim_responses_are_forwarded_without_session_headers_and_an_unrequested_101_is_502() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Session-Ref: x\r\nSet-Cookie: a=b\r\n\r\n";
    let many = format!("HTTP/1.1 100 Continue\r\n\r\n{}", early.repeat(20));
    let upstream = Upstream::responding(move |request| match request.target.as_str() {
        "/101" => ScriptedResponse::upgrade("websocket"),
        "/many" => ScriptedResponse::ok("ok").preceded_by(&many),
        _ => ScriptedResponse::ok("ok").preceded_by(early),
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let response = gateway.get("/", "").await;
    assert_eq!((response.status, response.interim.len()), (200, 1));
    let [interim] = &*response.interim else { unreachable!() };
    assert!(interim.start.starts_with("HTTP/1.1 103"), "{interim:?}");
    assert_eq!(interim.headers, [("Link".to_owned(), "</a.css>".to_owned())]);
    let many = gateway.get("/many", "").await;
    assert_eq!((many.status, many.interim.len()), (200, 8), "no more than eight are forwarded");
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let old = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
    assert!(old.starts_with("HTTP/1.0 200") && !old.contains("103 Early Hints"), "{old}");
    assert_eq!(gateway.get("/101", "").await.status, 502);
}

#[tokio::test]
async fn via_tells_the_server_the_version_of_the_client() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    client.read_to_end().await;
    assert_eq!(upstream.only_request().header("via"), Some("1.0 sessiongate"));
}

/// Names in any case are equal, but some legacy apps and clients compare them as text.
#[tokio::test]
async fn names_of_unchanged_headers_keep_their_case_in_both_directions() {
    let upstream = Upstream::responding(|request| {
        let names: Vec<_> = request.message.headers.iter().map(|(name, _)| name.as_str()).collect();
        ScriptedResponse::ok(names.join(" ").as_str()).header("X-Powered-BY", "app").header("ETag", "\"1\"")
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let request = Request::get("/").header("X-API-Key", "k").header("SOAPAction", "a").header("accept", "b");
    let response = gateway.send(&request).await;
    let received = response.text();
    for name in ["X-API-Key", "SOAPAction", "accept"] {
        assert!(received.split(' ').any(|other| other == name), "{name}: {received}");
    }
    for name in ["X-Powered-BY", "ETag"] {
        assert!(response.message.headers.iter().any(|(other, _)| other == name), "{name}: {response:?}");
    }
}

#[tokio::test]
async fn trailers_are_forwarded_to_http_1_clients_that_accept_them() {
    let upstream = Upstream::responding(|_| {
        let trailers = [("X-Sum", "1"), ("X-Session-Patch", "{}"), ("Set-Cookie", "a=b")];
        ScriptedResponse::ok("abc").header("Trailer", "X-Sum, X-Session-Patch, Set-Cookie").chunked(&trailers)
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    for (accepts, expected) in [
        (Some("trailers"), &[("x-sum", "1")][..]),
        (Some("gzip;q=0.5, Trailers"), &[("x-sum", "1")]),
        (Some("gzip"), &[]),
        (None, &[]),
    ] {
        let request = Request::get("/");
        let request = match accepts {
            Some(te) => request.header("TE", te).header("Connection", "TE"),
            None => request,
        };
        let response = gateway.send(&request).await;
        assert_eq!((response.status, response.text().as_str()), (200, "abc"), "{accepts:?}");
        let trailers = response.message.trailers.iter();
        let trailers: Vec<_> = trailers.map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
        let expected_lines = expected.iter().map(|(name, value)| ((*name).to_owned(), *value));
        assert_eq!(trailers, expected_lines.collect::<Vec<_>>(), "{accepts:?}");
        let announced = response.header("trailer").map(str::to_lowercase);
        assert_eq!(announced.as_deref(), expected.first().map(|(name, _)| *name), "{accepts:?}");
    }
}

#[tokio::test]
async fn response_with_the_session_cookie_is_private() {
    let upstream = Upstream::responding(|_| {
        let response = ScriptedResponse::ok("ok").header("Cache-Control", "public, max-age=60, s-maxage=600");
        let response =
            response.header("CDN-Cache-Control", "max-age=60").header("Surrogate-Control", "max-age=60");
        response
            .header("Set-Cookie", "b=\"2; 3\"; Path=/;;x")
            .header("Vary", "Accept")
            .header("Set-Cookie", "a=1")
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let due = put_session(&engine, true).await;
    let response = gateway.get("/", &due.cookie()).await;
    let session_cookie = format!("{}; Path=/; HttpOnly; SameSite=Strict", due.cookie());
    assert_eq!(response.set_cookies(), ["b=\"2; 3\"; Path=/;;x", "a=1", &session_cookie]);
    assert_eq!(response.all("cache-control"), ["max-age=60, private"]);
    assert_eq!((response.header("cdn-cache-control"), response.header("surrogate-control")), (None, None));
    assert_eq!(response.all("vary"), ["Accept", "Cookie"]);

    let fresh = put_session(&engine, false).await;
    let response = gateway.get("/", &fresh.cookie()).await;
    assert_eq!(response.set_cookies(), ["b=\"2; 3\"; Path=/;;x", "a=1"]);
    assert_eq!(response.all("cache-control"), ["public, max-age=60, s-maxage=600"]);
    assert_eq!(response.header("cdn-cache-control"), Some("max-age=60"));
}

#[tokio::test]
async fn app_s_own_session_cookie_gets_the_realm_s_attributes_and_invalidates_the_cache() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/out" => ScriptedResponse::ok("bye").header("Set-Cookie", "session_id=; Max-Age=0; Path=/elsewhere"),
        "/change" => {
            ScriptedResponse::ok("new").header("Set-Cookie", "session_id=new/2; Domain=evil.example; Path=/x")
        }
        _ => ScriptedResponse::ok("ok"),
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("[sessions.main.cache]\nttl = \"1m\"").start().await;
    let session = put_session(&engine, true).await;
    let reads = || engine.counts().reads();
    let before = reads();
    let response = gateway.get("/change", &session.cookie()).await;
    assert_eq!(response.set_cookies(), ["session_id=new/2; Path=/; HttpOnly; SameSite=Strict"]);
    assert_eq!(response.header("cache-control"), Some("private"));
    assert_eq!(reads(), before + 1);
    gateway.get("/", &session.cookie()).await;
    assert_eq!(reads(), before + 2, "the cached row was not invalidated");
    gateway.get("/", &session.cookie()).await;
    assert_eq!(reads(), before + 2, "the row was not cached again");
    let response = gateway.get("/out", &session.cookie()).await;
    assert_eq!(response.set_cookies(), ["session_id=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict"]);
}

#[tokio::test]
async fn ambiguous_response_is_502() {
    let corpus = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9\r\n",
        "",
    ];
    let upstream = Upstream::responding(move |request| {
        ScriptedResponse::raw(corpus[request.target[1..].parse::<usize>().unwrap()])
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    for (number, bytes) in corpus.iter().enumerate() {
        assert_eq!(gateway.get(&format!("/{number}"), "").await.status, 502, "{bytes:?}");
    }
}

#[tokio::test]
async fn truncated_response_is_incomplete_for_the_client_too() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/chunked" => ScriptedResponse::ok("x".repeat(5000)).chunked(&[]).truncated_to(2500),
        "/length" => ScriptedResponse::ok("x".repeat(5000)).truncated_to(2500),
        _ => ScriptedResponse::ok("ok"),
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    for path in ["/chunked", "/length"] {
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&Request::get(path)).await;
        assert!(client.read_response().await.is_err(), "{path}");
    }
    assert_eq!(gateway.get("/", "").await.status, 200);
    let line = gateway.wait_for_event("line", |event| field(event, "path") == "/length").await;
    assert_eq!(field(&line, "complete"), false);
}

#[tokio::test]
async fn upstream_connections_are_reused_and_a_closed_one_fails_no_request() {
    let mut upstream = Upstream::start();
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    for _ in 0..5 {
        assert_eq!(gateway.send(&Request::post("/", "body")).await.status, 200);
    }
    assert_eq!(upstream.connections(), 1);
    upstream.server().stop().await;
    upstream.server().resume();
    assert_eq!(
        gateway.send(&Request::post("/", "body")).await.status,
        200,
        "not retried on a new connection"
    );
    assert_eq!(upstream.request_count(), 6);
}

#[tokio::test]
async fn connection_with_an_unread_body_is_not_reused() {
    // More than the sockets' buffers hold.
    let upstream = Upstream::responding(|_| ScriptedResponse::ok("x".repeat(30_000_000)));
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    client.read_until("HTTP/1.1 200").await;
    drop(client);
    gateway
        .wait_for_event("line of the incomplete response", |event| field(event, "complete") == false)
        .await;
    assert_eq!(gateway.get("/", "").await.message.body.len(), 30_000_000);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn early_response_closes_the_upstream_connection() {
    let upstream = Upstream::responding(|_| ScriptedResponse::ok("ok"));
    let engine = table::engine().await;
    let early = EarlyUpstream::start().await;
    let gateway = gateway(&engine, &upstream)
        .realm("")
        .toml(&format!("[upstreams.early]\nservers = [\"http://{}\"]", early.address))
        .toml("[[routes]]\npath = \"/early\"\nupstream = \"early\"\naccess = \"public\"")
        .start()
        .await;
    for count in 1..=2 {
        let mut client = Client::connect(gateway.address()).await;
        client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbegun").await;
        assert_eq!(client.read_response().await.unwrap().status, 403);
        assert_eq!(early.connections(), count, "the connection was reused");
        // Neither side waits for the rest of the request.
        assert!(client.is_closed().await);
        early.wait_for_close(count).await;
    }
    assert_eq!(gateway.get("/", "").await.status, 200);
}

/// An upstream that responds as soon as it has read a request's head, and keeps the connection open.
struct EarlyUpstream {
    address: std::net::SocketAddr,
    connections: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    closed: tokio::sync::watch::Receiver<usize>,
}

impl EarlyUpstream {
    async fn start() -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), std::sync::Arc::default());
        let count = std::sync::Arc::<std::sync::atomic::AtomicUsize>::clone(&connections);
        let (close, closed) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let mut head = Vec::new();
                while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
                let close = close.clone();
                tokio::spawn(async move {
                    let _rest = stream.read_to_end(&mut Vec::new()).await;
                    close.send_modify(|count| *count += 1);
                });
            }
        });
        Self { address, connections, closed }
    }

    /// Waits until `count` connections have been closed.
    async fn wait_for_close(&self, count: usize) {
        let mut closed = self.closed.clone();
        let closed = closed.wait_for(|closed| *closed >= count);
        let _count = crate::support::within("the end of a connection", closed).await.unwrap();
    }

    fn connections(&self) -> usize {
        self.connections.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[tokio::test]
async fn upstream_that_does_not_respond_is_504_and_one_that_refuses_is_502() {
    let mut upstream = Upstream::responding(|_| ScriptedResponse::never());
    let engine = table::engine().await;
    let session = put_session(&engine, true).await;
    let timeouts = "response_timeout = \"200ms\"\nconnect_timeout = \"200ms\"";
    let gateway = Gateway::builder()
        .engine(&engine)
        .realm("")
        .upstream_at("app", upstream.address(), timeouts)
        .route("/", "required", "")
        .start()
        .await;
    let response = gateway.get("/", &session.cookie()).await;
    assert_eq!((response.status, response.set_cookies().len()), (504, 0));
    upstream.server().stop().await;
    let response = gateway.get("/", &session.cookie()).await;
    assert_eq!(response.status, 502);
    assert!(!response.text().contains("127.0.0.1"), "{}", response.text());
    let line = gateway.wait_for_event("line", |event| field(event, "status") == 502).await;
    assert!(field(&line, "detail").as_str().unwrap().contains("refused"), "{line}");
}

#[tokio::test]
async fn requests_are_balanced_and_a_stopped_server_is_skipped() {
    let (first, second, mut third) = (Upstream::start(), Upstream::start(), Upstream::start());
    let servers =
        [first.address(), second.address(), third.address()].map(|a| format!("\"http://{a}\"")).join(", ");
    let gateway = Gateway::builder()
        .toml(&format!("[upstreams.app]\nservers = [{servers}]"))
        .route("/", "public", "")
        .start()
        .await;
    for _ in 0..9 {
        assert_eq!(gateway.get("/", "").await.status, 200);
    }
    assert_eq!([first.request_count(), second.request_count(), third.request_count()], [3, 3, 3]);
    third.server().stop().await;
    for _ in 0..9 {
        assert_eq!(gateway.get("/", "").await.status, 200);
    }
    assert_eq!(first.request_count() + second.request_count(), 15);
}

#[tokio::test]
async fn responses_without_a_body_leave_the_connection_reusable() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/304" => ScriptedResponse::new(304, "").header("ETag", "\"x\""),
        "/204" => ScriptedResponse::new(204, ""),
        _ => ScriptedResponse::ok("0123456789").without_body(),
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..2 {
        let response = client.request(&Request::new("HEAD", "/")).await;
        assert_eq!((response.status, response.header("content-length")), (200, Some("10")));
        assert_eq!(client.request(&Request::get("/304")).await.status, 304);
        assert_eq!(client.request(&Request::get("/204")).await.status, 204);
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn http_1_0_response_is_forwarded_as_http_1_1() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/length" => ScriptedResponse::raw("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        _ => ScriptedResponse::raw("HTTP/1.0 200 OK\r\n\r\nok"),
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let mut client = Client::connect(gateway.address()).await;
    for path in ["/length", "/close", "/length"] {
        let response = client.request(&Request::get(path)).await;
        assert_eq!((response.message.start.as_str(), response.text().as_str()), ("HTTP/1.1 200 OK", "ok"));
    }
}

#[tokio::test]
async fn chunked_response_is_logged_as_complete_and_a_head_response_has_no_content_length() {
    let upstream = Upstream::responding(|request| match request.method.as_str() {
        "HEAD" => ScriptedResponse::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        _ => ScriptedResponse::ok("x".repeat(5000)).chunked(&[]),
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    assert_eq!(gateway.get("/chunked", "").await.message.body.len(), 5000);
    let line = gateway.wait_for_event("line", |event| field(event, "path") == "/chunked").await;
    assert_eq!((field(&line, "complete"), field(&line, "bytes")), (&json!(true), &json!(5000)));
    let head = gateway.send(&Request::new("HEAD", "/head")).await;
    assert_eq!((head.status, head.header("content-length")), (200, None));
}

/// The end of the connection ends such a body, so only a reset tells that it is incomplete.
#[tokio::test]
async fn connection_of_an_http_1_0_client_is_reset_if_its_response_is_cut_off() {
    let upstream = Upstream::responding(|request| {
        let response = ScriptedResponse::ok("x".repeat(1000)).chunked(&[]);
        if request.target == "/cut" { response.truncated_to(500) } else { response }
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    for (path, is_cut) in [("/", false), ("/cut", true)] {
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        client.write_all(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let read = client.read_to_end(&mut Vec::new()).await;
        assert_eq!(read.is_err(), is_cut, "{read:?}");
    }
}
