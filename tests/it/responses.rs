//! What comes back: the app's answer with the session's cookie, and no word that was for the gateway.
use serde_json::json;

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

async fn session(engine: &Engine, due: bool) -> Session {
    let session = Session::new(json!({ "user": "alice" }));
    let session = if due { session.aged(DUE) } else { session };
    session.put(engine).await;
    session
}

#[tokio::test]
async fn control_headers_stay_with_the_gateway_on_every_status() {
    let upstream = Upstream::responding(|request| {
        let status = request.target[1..].parse().unwrap();
        let answer =
            ScriptedResponse::new(status, "").header("X-Session-Patch", "{}").header("x_session_ref", "x");
        answer.header("X-Session-Action", "destroy").header("X-Kept", "1").header("Keep-Alive", "timeout=1")
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
async fn informational_answers_stay_behind_and_an_unasked_101_is_refused() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/101" => ScriptedResponse::upgrade("websocket"),
        _ => ScriptedResponse::ok("ok").preceded_by("HTTP/1.1 103 Early Hints\r\nX-Session-Ref: x\r\n\r\n"),
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let response = gateway.get("/", "").await;
    assert_eq!((response.status, response.interim.len()), (200, 0));
    assert_eq!(gateway.get("/101", "").await.status, 502);
}

#[tokio::test]
async fn trailers_reach_http_1_clients_that_accept_them() {
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
async fn the_cookie_comes_with_a_reissue_and_keeps_the_response_out_of_shared_caches() {
    let upstream = Upstream::responding(|_| {
        let answer = ScriptedResponse::ok("ok").header("Cache-Control", "public, max-age=60, s-maxage=600");
        answer
            .header("Set-Cookie", "b=\"2; 3\"; Path=/;;x")
            .header("Vary", "Accept")
            .header("Set-Cookie", "a=1")
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let due = session(&engine, true).await;
    let response = gateway.get("/", &due.cookie()).await;
    let ours = format!("{}; Path=/; HttpOnly; SameSite=Strict", due.cookie());
    assert_eq!(response.set_cookies(), ["b=\"2; 3\"; Path=/;;x", "a=1", &ours]);
    assert_eq!(response.all("cache-control"), ["max-age=60, private"]);
    assert_eq!(response.all("vary"), ["Accept", "Cookie"]);

    let fresh = session(&engine, false).await;
    let response = gateway.get("/", &fresh.cookie()).await;
    assert_eq!(response.set_cookies(), ["b=\"2; 3\"; Path=/;;x", "a=1"]);
    assert_eq!(response.all("cache-control"), ["public, max-age=60, s-maxage=600"]);
}

#[tokio::test]
async fn an_apps_own_cookie_wins_gets_the_realms_attributes_and_drops_the_cached_row() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/out" => ScriptedResponse::ok("bye").header("Set-Cookie", "session_id=; Max-Age=0; Path=/elsewhere"),
        "/change" => {
            ScriptedResponse::ok("new").header("Set-Cookie", "session_id=new/2; Domain=evil.example; Path=/x")
        }
        _ => ScriptedResponse::ok("ok"),
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("[sessions.main.cache]\nttl = \"1m\"").start().await;
    let session = session(&engine, true).await;
    let reads = || engine.counts().reads();
    let before = reads();
    let response = gateway.get("/change", &session.cookie()).await;
    assert_eq!(response.set_cookies(), ["session_id=new/2; Path=/; HttpOnly; SameSite=Strict"]);
    assert_eq!(response.header("cache-control"), Some("private"));
    assert_eq!(reads(), before + 1);
    gateway.get("/", &session.cookie()).await;
    assert_eq!(reads(), before + 2, "the row was forgotten");
    gateway.get("/", &session.cookie()).await;
    assert_eq!(reads(), before + 2, "and is remembered again");
    let response = gateway.get("/out", &session.cookie()).await;
    assert_eq!(response.set_cookies(), ["session_id=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict"]);
}

#[tokio::test]
async fn answers_that_can_be_read_in_two_ways_are_refused() {
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
async fn an_answer_that_breaks_off_never_looks_complete() {
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
    let line = gateway.wait_for_event("a line", |event| field(event, "path") == "/length").await;
    assert_eq!(field(&line, "complete"), false);
}

#[tokio::test]
async fn connections_are_used_again_and_a_stale_one_costs_no_request() {
    let mut upstream = Upstream::start();
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    for _ in 0..5 {
        assert_eq!(gateway.send(&Request::post("/", "body")).await.status, 200);
    }
    assert_eq!(upstream.connections(), 1);
    upstream.server().stop().await;
    upstream.server().resume();
    assert_eq!(gateway.send(&Request::post("/", "body")).await.status, 200, "over a new connection");
    assert_eq!(upstream.request_count(), 6);
}

#[tokio::test]
async fn a_connection_with_an_unread_body_is_not_used_again() {
    // More than the sockets' buffers hold.
    let upstream = Upstream::responding(|_| ScriptedResponse::ok("x".repeat(30_000_000)));
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    client.read_until("HTTP/1.1 200").await;
    drop(client);
    gateway
        .wait_for_event("the line of a request cut short", |event| field(event, "complete") == false)
        .await;
    assert_eq!(gateway.get("/", "").await.message.body.len(), 30_000_000);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_answer_before_the_request_is_whole_ends_the_upstream_connection() {
    let upstream = Upstream::responding(|_| ScriptedResponse::ok("ok"));
    let engine = table::engine().await;
    let early = Early::start().await;
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
        assert_eq!(early.connections(), count, "each on a connection of its own");
        // What is missing of the request is not waited for, on neither side.
        assert!(client.is_closed().await);
        early.closed(count).await;
    }
    assert_eq!(gateway.get("/", "").await.status, 200);
}

/// An upstream that answers as soon as it has seen a head, and keeps the connection open.
struct Early {
    address: std::net::SocketAddr,
    connections: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    closed: tokio::sync::watch::Receiver<usize>,
}

impl Early {
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

    async fn closed(&self, count: usize) {
        let mut closed = self.closed.clone();
        let closed = closed.wait_for(|closed| *closed >= count);
        let _count = crate::support::within("the end of a connection", closed).await.unwrap();
    }

    fn connections(&self) -> usize {
        self.connections.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[tokio::test]
async fn an_upstream_that_is_away_or_silent() {
    let mut upstream = Upstream::responding(|_| ScriptedResponse::never());
    let engine = table::engine().await;
    let session = session(&engine, true).await;
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
    let line = gateway.wait_for_event("a line", |event| field(event, "status") == 502).await;
    assert!(field(&line, "detail").as_str().unwrap().contains("refused"), "{line}");
}

#[tokio::test]
async fn requests_go_round_the_servers_and_past_one_that_is_away() {
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
async fn head_and_empty_answers_keep_their_framing() {
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
async fn an_answer_has_the_version_of_its_own_connection() {
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
async fn a_chunked_answer_is_complete_when_it_is_and_its_head_claims_no_length() {
    let upstream = Upstream::responding(|request| match request.method.as_str() {
        "HEAD" => ScriptedResponse::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        _ => ScriptedResponse::ok("x".repeat(5000)).chunked(&[]),
    });
    let engine = table::engine().await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    assert_eq!(gateway.get("/chunked", "").await.message.body.len(), 5000);
    let line = gateway.wait_for_event("a line", |event| field(event, "path") == "/chunked").await;
    assert_eq!((field(&line, "complete"), field(&line, "bytes")), (&json!(true), &json!(5000)));
    let head = gateway.send(&Request::new("HEAD", "/head")).await;
    assert_eq!((head.status, head.header("content-length")), (200, None));
}
