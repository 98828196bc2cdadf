//! HTTP/2: real clients, and one that violates the protocol.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::program::{output, successful_output};
use crate::support::raw_http2::RawHttp2;
use crate::support::script::Script;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table;
use crate::support::upstream::Upstream;

fn public_gateway(upstream: &Upstream) -> Builder {
    Gateway::builder().upstream("app", upstream).route("/", "public", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_served_with_prior_knowledge() {
    let upstream = Upstream::responding(|_| {
        ScriptedResponse::ok("hello").header("Connection", "X-Gone").header("X-Gone", "1")
    });
    let gateway = public_gateway(&upstream).start().await;
    let url = format!("http://{}/a?b=c", gateway.address());
    let cookies = ["-H", "Cookie: a=1", "-H", "Cookie: b=2", "-H", "TE: trailers"];
    let arguments = [&["-sSi", "--http2-prior-knowledge", &url][..], &cookies].concat();
    let Some(response) = successful_output("curl", &arguments) else { return };
    assert!(response.starts_with("HTTP/2 200") && response.ends_with("\r\n\r\nhello"), "{response}");
    assert!(!response.contains("x-gone") && !response.contains("connection"), "{response}");
    let seen = upstream.only_request();
    assert_eq!((seen.target.as_str(), seen.header("cookie")), ("/a?b=c", Some("a=1; b=2")));
    assert_eq!(seen.header("host"), Some(gateway.address().to_string().as_str()));
    assert_eq!((seen.header("via"), seen.header("te")), (Some("2.0 sessiongate"), None));
    let line = gateway.wait_for_event("line", |event| field(event, "message") == "request").await;
    assert_eq!(field(&line, "protocol"), "HTTP/2.0");
}

/// A response to HEAD has no content (RFC 9110, 9.3.2); curl fails if it receives any.
#[tokio::test(flavor = "multi_thread")]
async fn generated_response_to_head_has_no_content() {
    let page = "[[routes]]\npath = \"/page\"\naccess = \"public\"\nrespond = { body = \"hello\" }";
    let gateway = public_gateway(&Upstream::start()).toml(page).start().await;
    for (target, status) in [("page", "HTTP/2 200"), ("page?%zz", "HTTP/2 200"), ("%2e%2e/x", "HTTP/2 400")] {
        let url = format!("http://{}/{target}", gateway.address());
        let arguments = ["-sS", "--head", "--path-as-is", "--http2-prior-knowledge", &url];
        let Some(response) = successful_output("curl", &arguments) else { return };
        assert!(response.starts_with(status), "{response}");
    }
    let lines = gateway.events("request");
    assert!(lines.iter().all(|line| line["bytes"] == 0 && line["complete"] == true), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_are_forwarded_unchanged() {
    let upstream = Upstream::responding(|request| ScriptedResponse::ok(request.message.body.clone()));
    let gateway = public_gateway(&upstream).start().await;
    let file = gateway.directory().join("body");
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&file, &body).unwrap();
    let url = format!("http://{}/", gateway.address());
    let (sent, received) = (format!("@{}", file.display()), gateway.directory().join("received"));
    let arguments =
        ["-sS", "--http2-prior-knowledge", "--data-binary", &sent, "-o", received.to_str().unwrap(), &url];
    let Some(_) = successful_output("curl", &arguments) else { return };
    assert!(std::fs::read(received).unwrap() == body, "other bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_h2load_succeeds() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let url = format!("http://{}/", gateway.address());
    let Some(report) = successful_output("h2load", &["-n", "2000", "-c", "4", "-m", "50", &url]) else {
        return;
    };
    assert!(report.contains("2000 succeeded, 0 failed, 0 errored"), "{report}");
}

/// With prior knowledge and over TLS, with trailers in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn nghttp_is_served() {
    let upstream =
        Upstream::responding(|_| ScriptedResponse::ok("hello").chunked(&[("X-Sum", "from-the-app")]));
    let gateway = public_gateway(&upstream)
        .listener("address = \"127.0.0.1:0\"")
        .listener(
            "address = \"127.0.0.1:0\"\n[listeners.tls]\n\
             certificates = [{ cert = \"app.pem\", key = \"app.key\" }]",
        )
        .certificate("app", &Authority::new("Test CA").server(&["app.test"]))
        .file("body", "the body")
        .start()
        .await;
    let body = gateway.directory().join("body").display().to_string();
    let plain = format!("http://{}/a?b=c", gateway.addresses("http")[0]);
    let secure = format!("https://{}/a?b=c", gateway.addresses("https")[0]);
    for url in [&plain, &secure] {
        let get = ["-v", "-y", url];
        let post = ["-v", "-y", "-d", &body, "--trailer", "x-late: 1", url];
        for (arguments, method) in [(&get[..], "GET"), (&post[..], "POST")] {
            let Some(output) = successful_output("nghttp", arguments) else { return };
            for expected in [":status: 200", "hello", "x-sum: from-the-app"] {
                assert!(output.contains(expected), "{url}: no {expected} in {output}");
            }
            let seen = upstream.last_request();
            assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, "/a?b=c"), "{url}");
            assert_eq!(seen.message.text(), if method == "POST" { "the body" } else { "" });
            assert!(seen.message.trailers.is_empty() && seen.header("x-late").is_none(), "{url}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_false_rejects_http2() {
    let upstream = Upstream::start();
    let gateway =
        public_gateway(&upstream).listener("address = \"127.0.0.1:0\"\nhttp2 = false").start().await;
    let url = format!("http://{}/", gateway.address());
    let Some(output) = output("curl", &["-sS", "--http2-prior-knowledge", &url]) else { return };
    assert!(!output.status.success());
    assert_eq!(gateway.get("/", "").await.status, 200);
}

/// Starts a client that runs `case` of `h2_client.py`.
fn client(gateway: &Gateway, case: &str, arguments: &[Value]) -> Option<Script> {
    Script::http2_client("h2_client.py", case, gateway.address(), arguments)
}

/// Reads the client's outcomes of `count` requests.
async fn outcomes(client: &mut Script, count: usize) -> Vec<Value> {
    let outcomes = client.next_json().await.as_array().unwrap().clone();
    assert_eq!(outcomes.len(), count, "{outcomes:?}");
    outcomes
}

/// Returns a request's header fields: the pseudo-headers, and then `fields`.
fn head(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/")];
    pseudo.iter().chain(fields).map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Returns a request's header fields with another value of a pseudo-header, or without it.
fn with_pseudo(name: &str, value: Option<&str>) -> Vec<(String, String)> {
    let fields = head(&[]).into_iter();
    let changed = fields.filter_map(|(other, old)| match value {
        _ if other != name => Some((other, old)),
        Some(value) => Some((other, value.to_owned())),
        None => None,
    });
    changed.collect()
}

const NO_ERROR: u64 = 0;
const PROTOCOL_ERROR: u64 = 1;
const CANCEL: u64 = 8;
const ENHANCE_YOUR_CALM: u64 = 11;

#[tokio::test(flavor = "multi_thread")]
async fn invalid_header_fields_are_rejected_or_reset_the_stream() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let long = "x".repeat(17_000);
    let many: Vec<(String, String)> = (0..101).map(|n| (format!("x-{n}"), "1".to_owned())).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let status = |status: u64| json!({ "status": status });
    let reset = json!({ "reset": PROTOCOL_ERROR });
    let cases = [
        (head(&[("te", "trailers")]), status(200)),
        (head(&[("host", "gateway.test")]), status(200)),
        (head(&[("host", "Gateway.Test:80")]), status(200)),
        (head(&[("host", "gateway.test:81")]), status(400)),
        (with_pseudo(":authority", None), status(400)),
        (
            [with_pseudo(":authority", None), vec![("host".into(), "gateway.test".into())]].concat(),
            status(200),
        ),
        (head(&[("host", "other.test")]), status(400)),
        (head(&[("host", "gateway.test"), ("host", "gateway.test")]), status(400)),
        (with_pseudo(":authority", Some("user@gateway.test")), status(400)),
        (with_pseudo(":path", Some("*")), status(400)),
        (with_pseudo(":method", Some("TRACE")), status(405)),
        (vec![(":method".into(), "CONNECT".into()), (":authority".into(), "a:1".into())], status(405)),
        (with_pseudo(":path", Some(&format!("/{long}"))), status(414)),
        (head(&many), status(431)),
        (head(&[("x", &"x".repeat(70_000))]), status(431)),
        (head(&[("expect", "something")]), status(417)),
        (with_pseudo(":path", Some("/?q=\"a\"")), reset.clone()),
        (with_pseudo(":path", Some("/?<>")), reset.clone()),
        (with_pseudo(":path", None), reset.clone()),
        (with_pseudo(":path", Some("")), reset.clone()),
        (with_pseudo(":method", None), reset.clone()),
        (with_pseudo(":scheme", None), reset.clone()),
        (head(&[(":path", "/again")]), reset.clone()),
        (head(&[("x", "1"), (":late", "1")]), reset.clone()),
        (head(&[("connection", "close")]), reset.clone()),
        (head(&[("keep-alive", "1")]), reset.clone()),
        (head(&[("proxy-connection", "close")]), reset.clone()),
        (head(&[("transfer-encoding", "chunked")]), reset.clone()),
        (head(&[("upgrade", "websocket")]), reset.clone()),
        (head(&[("te", "gzip")]), reset.clone()),
        (head(&[("X-Upper", "1")]), reset.clone()),
        (head(&[("x", "a\r\nb: c")]), reset.clone()),
        (head(&[("x", "a\0b")]), reset),
    ];
    let heads: Vec<_> = cases.iter().map(|(head, _)| head).collect();
    let Some(mut client) = client(&gateway, "heads", &[json!(heads)]) else { return };
    let outcomes = outcomes(&mut client, cases.len()).await;
    for ((head, expected), outcome) in cases.iter().zip(&outcomes) {
        let shown: String = format!("{head:?}").chars().take(300).collect();
        if expected["reset"].is_u64() {
            // This may also close the whole connection.
            let code = if outcome["reset"].is_u64() { &outcome["reset"] } else { &outcome["goaway"] };
            assert_eq!((code, &outcome["status"]), (&expected["reset"], &Value::Null), "{shown}: {outcome}");
        } else {
            assert_eq!(outcome["status"], expected["status"], "{shown}: {outcome}");
        }
    }
    assert_eq!(
        upstream.request_count(),
        cases.iter().filter(|(_, expected)| expected["status"] == 200).count()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn non_ascii_paths_are_percent_encoded() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let heads = ["/\u{ff41}dmin?\u{ff42}=\u{e9}", "/a\u{202e}b", "/?\u{1f36a}"]
        .map(|path| with_pseudo(":path", Some(path)));
    let Some(mut client) = client(&gateway, "heads", &[json!(heads)]) else { return };
    for outcome in outcomes(&mut client, 3).await {
        assert_eq!(outcome["status"], 200, "{outcome}");
    }
    let mut targets: Vec<_> = upstream.requests().into_iter().map(|request| request.target).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/%EF%BD%81dmin?%EF%BD%82=%C3%A9", "/?%F0%9F%8D%AA", "/a%E2%80%AEb"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_connect_on_a_route_without_websocket_is_405() {
    let upstream = Upstream::start();
    let constant = "[[routes]]\npath = \"/constant\"\naccess = \"public\"\nrespond = { status = 204 }";
    let gateway = public_gateway(&upstream).toml(constant).start().await;
    let connect = |path: &str| {
        let fields = with_pseudo(":method", Some("CONNECT")).into_iter().filter(|(name, _)| name != ":path");
        fields.chain([(":path".into(), path.into()), (":protocol".into(), "websocket".into())]).collect()
    };
    let heads: [Vec<(String, String)>; 2] = ["/constant", "/"].map(connect);
    let Some(mut client) = client(&gateway, "heads", &[json!(heads)]) else { return };
    for outcome in outcomes(&mut client, 2).await {
        assert_eq!(outcome["status"], 405, "{outcome}");
    }
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn body_shorter_than_its_content_length_is_a_protocol_error() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let Some(mut client) = client(&gateway, "length", &[]) else { return };
    let outcome = client.next_json().await;
    let code =
        if outcome["goaway"].is_u64() { &outcome["goaway"] } else { &outcome["streams"]["1"]["reset"] };
    assert_eq!(
        (code, &outcome["streams"]["1"]["status"]),
        (&json!(PROTOCOL_ERROR), &Value::Null),
        "{outcome}"
    );
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cookie_fields_are_joined_into_one() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("")
        .route("/", "required", "[routes.headers]\nX-User = \"user\"")
        .start()
        .await;
    let cookie = session.cookie();
    let fields = [("cookie", "a=1"), ("cookie", cookie.as_str()), ("x-user", "mallory"), ("cookie", "b=2")];
    let Some(mut client) = client(&gateway, "heads", &[json!([head(&fields)])]) else { return };
    assert_eq!(client.next_json().await[0]["status"], 200);
    let seen = upstream.only_request();
    assert_eq!(seen.header("cookie"), Some(format!("a=1; {cookie}; b=2").as_str()));
    assert_eq!(seen.header("x-user"), Some("alice"));
}

/// Clients may send each cookie in a field of its own (RFC 9113, 8.2.3). The fields count as one.
#[tokio::test(flavor = "multi_thread")]
async fn head_with_more_fields_than_allowed_is_431_but_cookies_count_as_one() {
    let upstream = Upstream::start();
    let limits = "[server.limits]\nheaders = 10";
    let gateway = public_gateway(&upstream).server(limits).start().await;
    let names: Vec<_> = (0..11).map(|number| format!("x-{number}")).collect();
    let others = |count: usize| names[..count].iter().map(|name| (name.as_str(), "1")).collect::<Vec<_>>();
    let cookies = [vec![("cookie", "a=1"); 20], others(9)].concat();
    let heads = json!([head(&others(10)), head(&others(11)), head(&cookies)]);
    let Some(mut client) = client(&gateway, "heads", &[heads]) else { return };
    let outcome = client.next_json().await;
    let statuses: Vec<_> = (0..3).map(|index| outcome[index]["status"].clone()).collect();
    assert_eq!(statuses, [json!(200), json!(431), json!(200)], "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_closes_its_connection_and_others_are_served() {
    let upstream = Upstream::start();
    let limits = "workers = 1\nsend_timeout = \"300ms\"\n[server.limits]\nresets = 20";
    let gateway = public_gateway(&upstream).server(limits).start().await;
    for kind in ["resets", "invalid_updates", "continuations", "empty", "settings", "pings"] {
        let Some(mut client) = client(&gateway, "flood", &[json!(kind)]) else { return };
        let outcome = client.next_json().await;
        assert_eq!(outcome["stopped"], true, "{kind}: {outcome}");
        // Floods of SETTINGS and PING end when the client does not read the acknowledgements.
        let expected =
            if matches!(kind, "settings" | "pings") { Value::Null } else { json!(ENHANCE_YOUR_CALM) };
        assert_eq!(outcome["goaway"], expected, "{kind}: {outcome}");
        assert_eq!(gateway.get("/", "").await.status, 200, "after {kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_above_the_limit_are_refused() {
    let upstream = Upstream::responding(|_| ScriptedResponse::never());
    let gateway = public_gateway(&upstream).server("workers = 1\n[server.limits]\nstreams = 7").start().await;
    let Some(mut client) = client(&gateway, "many", &[json!(20)]) else { return };
    assert_eq!(client.next_json().await, json!({ "allowed": 7, "refused": 13 }));
    assert!(upstream.request_count() <= 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_are_forwarded_to_the_client_and_not_to_an_http_1_server() {
    let upstream = Upstream::responding(|_| {
        let trailers =
            [("X-Sum", "1"), ("X-Session-Patch", "{}"), ("Set-Cookie", "a=b"), ("Content-Length", "9")];
        ScriptedResponse::ok("abc").chunked(&trailers)
    });
    let gateway = public_gateway(&upstream).start().await;
    let trailers = json!([["x-sum", "2"], ["x-session-ref", "0"]]);
    let Some(mut client) = client(&gateway, "trailers", &[trailers]) else { return };
    let outcome = client.next_json().await;
    assert_eq!((&outcome["status"], &outcome["ended"]), (&json!(200), &json!(true)), "{outcome}");
    assert_eq!(outcome["trailers"], json!({ "x-sum": "1" }), "{outcome}");
    let seen = upstream.only_request();
    assert_eq!((seen.message.body.as_slice(), seen.message.trailers.len()), (&b"abc"[..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pseudo_header_in_trailers_is_a_protocol_error() {
    let upstream = Upstream::responding(|request| ScriptedResponse::ok(request.message.body.clone()));
    let gateway = public_gateway(&upstream).start().await;
    for shape in ["plain", "padded", "priority", "resized", "continued", "bytes"] {
        for (fields, expected) in [
            (json!([["x-sum", "2"]]), json!([200, null])),
            (json!([[":path", "/trailers"]]), json!([null, PROTOCOL_ERROR])),
            (json!([[":path", "/other"], ["x-sum", "2"]]), json!([null, PROTOCOL_ERROR])),
            (json!([[":method", "POST"], [":scheme", "http"]]), json!([null, PROTOCOL_ERROR])),
            (json!([[":status", "200"]]), json!([null, PROTOCOL_ERROR])),
            (json!([["x-sum", "2"], [":authority", "gateway.test"]]), json!([null, PROTOCOL_ERROR])),
        ] {
            let Some(mut client) = client(&gateway, "raw_trailers", &[json!(shape), fields.clone()]) else {
                return;
            };
            let outcome = client.next_json().await;
            // If the HEADERS frame is already malformed, h2 rejects its CONTINUATION as unexpected, with GOAWAY.
            let code = if outcome["reset"].is_u64() { &outcome["reset"] } else { &outcome["goaway"] };
            assert_eq!(json!([outcome["status"], code]), expected, "{shape}: {fields}: {outcome}");
            let is_valid = expected[0] == 200;
            assert_eq!(
                (&outcome["ended"], &outcome["body"]),
                (&json!(is_valid), &json!(if is_valid { 3 } else { 0 }))
            );
        }
    }
    assert_eq!(upstream.request_count(), 6, "one request of each shape");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_without_flow_control_window_is_reset_and_others_continue() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/large" => ScriptedResponse::ok(vec![b'x'; 1 << 20]),
        _ => ScriptedResponse::ok("small"),
    });
    let gateway = public_gateway(&upstream).server("workers = 1\nsend_timeout = \"300ms\"").start().await;
    let Some(mut client) = client(&gateway, "stalled", &[]) else { return };
    let outcome = client.next_json().await;
    assert_eq!(
        (&outcome["slow"]["reset"], &outcome["slow"]["ended"]),
        (&json!(CANCEL), &json!(false)),
        "{outcome}"
    );
    for other in ["good", "later"] {
        assert_eq!(
            (&outcome[other]["status"], &outcome[other]["ended"]),
            (&json!(200), &json!(true)),
            "{outcome}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_of_a_client_that_does_not_read_is_closed() {
    let upstream = Upstream::responding(|_| ScriptedResponse::ok(vec![b'x'; 32 << 20]));
    let gateway = public_gateway(&upstream).server("workers = 1\nsend_timeout = \"300ms\"").start().await;
    let Some(mut client) = client(&gateway, "not_reading", &[]) else { return };
    assert_eq!(client.next_line().await, "request sent");
    // This line is written when the response is aborted.
    let line = gateway.wait_for_event("line", |event| field(event, "message") == "request").await;
    assert_eq!(field(&line, "complete"), false, "{line}");
    client.send_line("");
    let outcome = client.next_json().await;
    assert_eq!(
        (&outcome["closed"], &outcome["streams"]["1"]["ended"]),
        (&json!(true), &json!(false)),
        "{outcome}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connection_gets_goaway_and_is_closed() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).server("workers = 1\nidle_timeout = \"300ms\"").start().await;
    let Some(mut client) = client(&gateway, "idle", &[]) else { return };
    let outcome = client.next_json().await;
    assert_eq!((&outcome["goaway"], &outcome["closed"]), (&json!(NO_ERROR), &json!(true)), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_sends_goaway_and_finishes_open_streams() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("done").after(&held));
    let mut gateway = public_gateway(&upstream).start().await;
    let Some(mut client) = client(&gateway, "drain", &[]) else { return };
    assert_eq!(client.next_line().await, "request sent");
    upstream.wait_for_requests(1).await;
    gateway.signal("TERM");
    assert_eq!(client.next_line().await, "GOAWAY");
    gate.open();
    let expected = json!({ "goaway": NO_ERROR, "body": 4, "ended": true });
    assert_eq!(client.next_json().await, expected);
    assert!(gateway.wait().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_response_resets_the_stream() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/length" => ScriptedResponse::ok(vec![b'x'; 1000]).truncated_to(100),
        _ => ScriptedResponse::ok(vec![b'x'; 5000]).chunked(&[]).truncated_to(2000),
    });
    let gateway = public_gateway(&upstream).start().await;
    let heads = [with_pseudo(":path", Some("/length")), with_pseudo(":path", Some("/chunked"))];
    let Some(mut client) = client(&gateway, "heads", &[json!(heads)]) else { return };
    for outcome in outcomes(&mut client, 2).await {
        assert_eq!((&outcome["ended"], outcome["reset"].is_u64()), (&json!(false), true), "{outcome}");
        assert_ne!(outcome["reset"], NO_ERROR, "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_request_of_a_disconnected_client_is_not_forwarded() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let Some(mut client) = client(&gateway, "disconnect", &[]) else { return };
    assert_eq!(client.next_line().await, "request sent");
    client.send_line("");
    client.next_json().await;
    assert_eq!(gateway.get("/", "").await.status, 200);
    assert_eq!(upstream.only_request().target, "/", "an incomplete request was forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn request_whose_stream_was_reset_is_logged_as_499() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |request| {
        if request.target == "/held" {
            ScriptedResponse::ok("late").after(&held)
        } else {
            ScriptedResponse::ok("ok")
        }
    });
    let gateway = public_gateway(&upstream).start().await;
    let Some(mut client) = client(&gateway, "reset", &[]) else { return };
    assert_eq!(client.next_line().await, "request sent");
    gate.wait_for_arrival().await;
    client.send_line("");
    let line = gateway.wait_for_event("line", |event| event["path"] == "/held").await;
    let logged = (&line["status"], &line["verdict"], &line["protocol"]);
    assert_eq!(logged, (&499.into(), &"gone".into(), &"HTTP/2.0".into()), "{line}");
    client.next_json().await;
    let other = gateway.wait_for_event("line of the other stream", |event| event["path"] == "/small").await;
    assert_eq!(other["status"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_does_not_wait_for_the_body() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .upstream("app", &upstream)
        .route("/small", "public", "")
        .server("body_timeout = \"300ms\"")
        .start()
        .await;
    let Some(mut client) = client(&gateway, "unread", &[]) else { return };
    let outcome = client.next_json().await;
    let refused = &outcome["streams"]["1"];
    assert_eq!((&refused["status"], &refused["ended"]), (&json!(404), &json!(true)), "{outcome}");
    assert_eq!(refused["reset"], NO_ERROR, "{outcome}");
    assert_eq!(outcome["streams"]["3"]["status"], 200, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_request_body_is_408_and_other_streams_continue() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).server("workers = 1\nbody_timeout = \"300ms\"").start().await;
    let Some(mut client) = client(&gateway, "slow", &[]) else { return };
    let outcome = client.next_json().await;
    assert_eq!(outcome["streams"]["1"]["status"], 408, "{outcome}");
    assert_eq!(outcome["streams"]["3"]["status"], 200, "{outcome}");
    assert_eq!(upstream.only_request().target, "/small");
}

/// Some clients reset a stream with NO_ERROR when they give up an upload.
#[tokio::test]
async fn upload_that_is_reset_with_no_error_does_not_reach_the_upstream_as_complete() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).start().await;
    let mut client = RawHttp2::connect("127.0.0.1", gateway.address()).await;
    let stream = client.begin_post("/upload", b"abc");
    client.send().await;
    eventually("the beginning of the upload", || async { upstream.connections() == 1 }).await;
    client.give_up(stream);
    client.send().await;
    gateway.wait_for_event("line", |event| field(event, "path") == "/upload").await;
    let after = client.get("/after");
    client.send().await;
    assert!(client.reads_to_end_of(after).await);
    let targets: Vec<_> = upstream.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/after"], "a part of the upload was taken for a whole request");
}

/// The client never acknowledges the PING with which h2 shuts the connection down.
#[tokio::test]
async fn connection_of_a_changed_listener_is_closed_although_its_client_ignores_pings() {
    let upstream = Upstream::start();
    let listener = "address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]";
    let gateway = public_gateway(&upstream).listener(listener).start().await;
    let mut client = RawHttp2::connect("127.0.0.1", gateway.address()).await;
    let first = client.get("/");
    client.send().await;
    assert!(client.reads_to_end_of(first).await);
    gateway.edit_config(|text| text.replace("trusted_proxies = [\"127.0.0.1\"]", ""));
    gateway.reload().await;
    for _ in 0..80 {
        let stream = client.get("/");
        client.send().await;
        if !client.reads_to_end_of(stream).await {
            return;
        }
        // The interval of the requests.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("the connection is still served with the old listener's settings");
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_connect_that_looks_accepted_is_502_and_changes_no_session() {
    let upstream = Upstream::responding(|_| {
        ScriptedResponse::ok("no WebSocket").header("X-Session-Patch", "{\"seen\":1}")
    });
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("")
        .route("/", "optional", "websocket = true\nwrites = true")
        .start()
        .await;
    let connect = with_pseudo(":method", Some("CONNECT")).into_iter();
    let cookie = session.cookie();
    let more = [(":protocol", "websocket"), ("sec-websocket-version", "13"), ("cookie", &cookie)];
    let connect = connect.chain(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let (pseudo, regular): (Vec<_>, Vec<_>) = connect.partition(|(name, _)| name.starts_with(':'));
    let heads = [[pseudo, regular].concat()];
    let before = session.row(&engine).await;
    let Some(mut client) = client(&gateway, "heads", &[json!(heads)]) else { return };
    let outcome = &outcomes(&mut client, 1).await[0];
    assert_eq!(outcome["status"], 502, "{outcome}");
    assert_eq!(session.row(&engine).await, before);
    assert_eq!(upstream.request_count(), 1);
}
