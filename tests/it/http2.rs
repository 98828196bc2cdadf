//! HTTP/2 clients: real ones, and one that breaks the rules.

use serde_json::{Value, json};

use crate::support::certificates::Authority;
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::program::{output, successful_output};
use crate::support::script::Script;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

fn public(upstream: &Upstream) -> Builder {
    Gateway::builder().upstream("app", upstream).route("/", "public", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_served_by_prior_knowledge() {
    let upstream = Upstream::responding(|_| {
        ScriptedResponse::ok("hello").header("Connection", "X-Gone").header("X-Gone", "1")
    });
    let gateway = public(&upstream).start().await;
    let url = format!("http://{}/a?b=c", gateway.address());
    let cookies = ["-H", "Cookie: a=1", "-H", "Cookie: b=2", "-H", "TE: trailers"];
    let arguments = [&["-sSi", "--http2-prior-knowledge", &url][..], &cookies].concat();
    let Some(answer) = successful_output("curl", &arguments) else { return };
    assert!(answer.starts_with("HTTP/2 200") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(!answer.contains("x-gone") && !answer.contains("connection"), "{answer}");
    let seen = upstream.only_request();
    assert_eq!((seen.target.as_str(), seen.header("cookie")), ("/a?b=c", Some("a=1; b=2")));
    assert_eq!(seen.header("host"), Some(gateway.address().to_string().as_str()));
    assert_eq!((seen.header("via"), seen.header("te")), (Some("2.0 sessiongate"), None));
    let line = gateway.wait_for_event("a line", |event| field(event, "message") == "request").await;
    assert_eq!(field(&line, "protocol"), "HTTP/2.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways() {
    let upstream = Upstream::responding(|request| ScriptedResponse::ok(request.message.body.clone()));
    let gateway = public(&upstream).start().await;
    let file = gateway.directory().join("body");
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&file, &body).unwrap();
    let url = format!("http://{}/", gateway.address());
    let (sent, got) = (format!("@{}", file.display()), gateway.directory().join("got"));
    let arguments =
        ["-sS", "--http2-prior-knowledge", "--data-binary", &sent, "-o", got.to_str().unwrap(), &url];
    let Some(_) = successful_output("curl", &arguments) else { return };
    assert!(std::fs::read(got).unwrap() == body, "the same bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn h2load_has_every_request_answered() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start().await;
    let url = format!("http://{}/", gateway.address());
    let Some(answer) = successful_output("h2load", &["-n", "2000", "-c", "4", "-m", "50", &url]) else {
        return;
    };
    assert!(answer.contains("2000 succeeded, 0 failed, 0 errored"), "{answer}");
}

/// The reference implementation's client: by prior knowledge and over TLS, with trailers both ways.
#[tokio::test(flavor = "multi_thread")]
async fn nghttp_is_served() {
    let upstream =
        Upstream::responding(|_| ScriptedResponse::ok("hello").chunked(&[("X-Sum", "from-the-app")]));
    let gateway = public(&upstream)
        .listener("address = \"127.0.0.1:0\"")
        .listener(
            "address = \"127.0.0.1:0\"\n[listeners.tls]\n\
             certificates = [{ cert = \"app.pem\", key = \"app.key\" }]",
        )
        .certificate("app", &Authority::new("ours").server(&["app.test"]))
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
            let Some(said) = successful_output("nghttp", arguments) else { return };
            for expected in [":status: 200", "hello", "x-sum: from-the-app"] {
                assert!(said.contains(expected), "{url}: no {expected} in {said}");
            }
            let seen = upstream.last_request();
            assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, "/a?b=c"), "{url}");
            assert_eq!(seen.message.text(), if method == "POST" { "the body" } else { "" });
            assert!(seen.message.trailers.is_empty() && seen.header("x-late").is_none(), "{url}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_it_does_not_speak_it() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).listener("address = \"127.0.0.1:0\"\nhttp2 = false").start().await;
    let url = format!("http://{}/", gateway.address());
    let Some(output) = output("curl", &["-sS", "--http2-prior-knowledge", &url]) else { return };
    assert!(!output.status.success());
    assert_eq!(gateway.get("/", "").await.status, 200);
}

/// A client of the script's that does `case`.
fn client(gateway: &Gateway, case: &str, arguments: &[Value]) -> Option<Script> {
    Script::http2_client("h2_client.py", case, gateway.address(), arguments)
}

/// A request's head, with these fields after the pseudo-headers.
fn head(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/")];
    pseudo.iter().chain(fields).map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The same with another value of a pseudo-header; none: without it.
fn but(name: &str, value: Option<&str>) -> Vec<(String, String)> {
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
async fn heads_that_no_client_may_send_are_refused() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start().await;
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
        (but(":authority", None), status(400)),
        ([but(":authority", None), vec![("host".into(), "gateway.test".into())]].concat(), status(200)),
        (head(&[("host", "other.test")]), status(400)),
        (head(&[("host", "gateway.test"), ("host", "gateway.test")]), status(400)),
        (but(":authority", Some("user@gateway.test")), status(400)),
        (but(":path", Some("*")), status(400)),
        (but(":method", Some("TRACE")), status(405)),
        (vec![(":method".into(), "CONNECT".into()), (":authority".into(), "a:1".into())], status(405)),
        (but(":path", Some(&format!("/{long}"))), status(414)),
        (head(&many), status(431)),
        (head(&[("x", &"x".repeat(70_000))]), status(431)),
        (head(&[("expect", "something")]), status(417)),
        (but(":path", Some("/?q=\"a\"")), reset.clone()),
        (but(":path", Some("/?<>")), reset.clone()),
        (but(":path", None), reset.clone()),
        (but(":path", Some("")), reset.clone()),
        (but(":method", None), reset.clone()),
        (but(":scheme", None), reset.clone()),
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
    let stories = client.next_json().await;
    for ((head, expected), story) in cases.iter().zip(stories.as_array().unwrap()) {
        let shown: String = format!("{head:?}").chars().take(300).collect();
        if expected["reset"].is_u64() {
            // The whole connection may go with the stream.
            let code = if story["reset"].is_u64() { &story["reset"] } else { &story["goaway"] };
            assert_eq!((code, &story["status"]), (&expected["reset"], &Value::Null), "{shown}: {story}");
        } else {
            assert_eq!(story["status"], expected["status"], "{shown}: {story}");
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
    let gateway = public(&upstream).start().await;
    let heads =
        ["/\u{ff41}dmin?\u{ff42}=\u{e9}", "/a\u{202e}b", "/?\u{1f36a}"].map(|path| but(":path", Some(path)));
    let Some(mut client) = client(&gateway, "heads", &[json!(heads)]) else { return };
    for story in client.next_json().await.as_array().unwrap() {
        assert_eq!(story["status"], 200, "{story}");
    }
    let mut targets: Vec<_> = upstream.requests().into_iter().map(|request| request.target).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/%EF%BD%81dmin?%EF%BD%82=%C3%A9", "/?%F0%9F%8D%AA", "/a%E2%80%AEb"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_not_agreed_to_by_a_route_that_has_none() {
    let upstream = Upstream::start();
    let constant = "[[routes]]\npath = \"/constant\"\naccess = \"public\"\nrespond = { status = 204 }";
    let gateway = public(&upstream).toml(constant).start().await;
    let connect = |path: &str| {
        let asked = but(":method", Some("CONNECT")).into_iter().filter(|(name, _)| name != ":path");
        asked.chain([(":path".into(), path.into()), (":protocol".into(), "websocket".into())]).collect()
    };
    let heads: [Vec<(String, String)>; 2] = ["/constant", "/"].map(connect);
    let Some(mut client) = client(&gateway, "heads", &[json!(heads)]) else { return };
    for story in client.next_json().await.as_array().unwrap() {
        assert_eq!(story["status"], 405, "{story}");
    }
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_length_than_was_said_does_not_arrive() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start().await;
    let Some(mut client) = client(&gateway, "length", &[]) else { return };
    let story = client.next_json().await;
    let code = if story["goaway"].is_u64() { &story["goaway"] } else { &story["streams"]["1"]["reset"] };
    assert_eq!((code, &story["streams"]["1"]["status"]), (&json!(PROTOCOL_ERROR), &Value::Null), "{story}");
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn crumbs_are_one_cookie_before_anything_reads_them() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice" }));
    session.put(&engine).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_their_connection_and_harm_nobody_else() {
    let upstream = Upstream::start();
    let limits = "workers = 1\nsend_timeout = \"300ms\"\n[server.limits]\nresets = 20";
    let gateway = public(&upstream).server(limits).start().await;
    for kind in ["resets", "mistakes", "continuations", "empty", "settings", "pings"] {
        let Some(mut client) = client(&gateway, "flood", &[json!(kind)]) else { return };
        let story = client.next_json().await;
        assert_eq!(story["stopped"], true, "{kind}: {story}");
        // Those that only make it answer are stopped when nobody takes the answers.
        let expected =
            if matches!(kind, "settings" | "pings") { Value::Null } else { json!(ENHANCE_YOUR_CALM) };
        assert_eq!(story["goaway"], expected, "{kind}: {story}");
        assert_eq!(gateway.get("/", "").await.status, 200, "after {kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_bound_are_refused_one_by_one() {
    let upstream = Upstream::responding(|_| ScriptedResponse::never());
    let gateway = public(&upstream).server("workers = 1\n[server.limits]\nstreams = 7").start().await;
    let Some(mut client) = client(&gateway, "many", &[json!(20)]) else { return };
    assert_eq!(client.next_json().await, json!({ "allowed": 7, "refused": 13 }));
    assert!(upstream.request_count() <= 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_to_the_client_and_not_to_http_1() {
    let upstream = Upstream::responding(|_| {
        let trailers =
            [("X-Sum", "1"), ("X-Session-Patch", "{}"), ("Set-Cookie", "a=b"), ("Content-Length", "9")];
        ScriptedResponse::ok("abc").chunked(&trailers)
    });
    let gateway = public(&upstream).start().await;
    let said = json!([["x-sum", "2"], ["x-session-ref", "0"]]);
    let Some(mut client) = client(&gateway, "trailers", &[said]) else { return };
    let story = client.next_json().await;
    assert_eq!((&story["status"], &story["ended"]), (&json!(200), &json!(true)), "{story}");
    assert_eq!(story["trailers"], json!({ "x-sum": "1" }), "{story}");
    let seen = upstream.only_request();
    assert_eq!((seen.message.body.as_slice(), seen.message.trailers.len()), (&b"abc"[..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pseudo_header_in_trailers_is_a_protocol_error() {
    let upstream = Upstream::responding(|request| ScriptedResponse::ok(request.message.body.clone()));
    let gateway = public(&upstream).start().await;
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
            let story = client.next_json().await;
            // Where the header block goes on in another frame, h2 takes that for one out of place.
            let code = if story["reset"].is_u64() { &story["reset"] } else { &story["goaway"] };
            assert_eq!(json!([story["status"], code]), expected, "{shape}: {fields}: {story}");
            let is_good = expected[0] == 200;
            assert_eq!(
                (&story["ended"], &story["body"]),
                (&json!(is_good), &json!(if is_good { 3 } else { 0 }))
            );
        }
    }
    assert_eq!(upstream.request_count(), 6, "one of each shape");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_client_takes_nothing_is_reset_and_the_others_go_on() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/large" => ScriptedResponse::ok(vec![b'x'; 1 << 20]),
        _ => ScriptedResponse::ok("small"),
    });
    let gateway = public(&upstream).server("workers = 1\nsend_timeout = \"300ms\"").start().await;
    let Some(mut client) = client(&gateway, "stalled", &[]) else { return };
    let story = client.next_json().await;
    assert_eq!(
        (&story["slow"]["reset"], &story["slow"]["ended"]),
        (&json!(CANCEL), &json!(false)),
        "{story}"
    );
    for other in ["good", "again"] {
        assert_eq!((&story[other]["status"], &story[other]["ended"]), (&json!(200), &json!(true)), "{story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_off() {
    let upstream = Upstream::responding(|_| ScriptedResponse::ok(vec![b'x'; 32 << 20]));
    let gateway = public(&upstream).server("workers = 1\nsend_timeout = \"300ms\"").start().await;
    let Some(mut client) = client(&gateway, "deaf", &[]) else { return };
    assert_eq!(client.next_line().await, "asked");
    // Written when the response is given up.
    let line = gateway.wait_for_event("a line", |event| field(event, "message") == "request").await;
    assert_eq!(field(&line, "complete"), false, "{line}");
    client.send_line("");
    let story = client.next_json().await;
    assert_eq!((&story["closed"], &story["streams"]["1"]["ended"]), (&json!(true), &json!(false)), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_told_to_go() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).server("workers = 1\nidle_timeout = \"300ms\"").start().await;
    let Some(mut client) = client(&gateway, "idle", &[]) else { return };
    let story = client.next_json().await;
    assert_eq!((&story["goaway"], &story["closed"]), (&json!(NO_ERROR), &json!(true)), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_streams_under_way() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("done").after(&held));
    let mut gateway = public(&upstream).start().await;
    let Some(mut client) = client(&gateway, "drain", &[]) else { return };
    assert_eq!(client.next_line().await, "asked");
    upstream.wait_for_requests(1).await;
    gateway.signal("TERM");
    assert_eq!(client.next_line().await, "told");
    gate.open();
    let expected = json!({ "goaway": NO_ERROR, "body": 4, "ended": true });
    assert_eq!(client.next_json().await, expected);
    assert!(gateway.wait().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_is_reset_and_never_complete() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/length" => ScriptedResponse::ok(vec![b'x'; 1000]).truncated_to(100),
        _ => ScriptedResponse::ok(vec![b'x'; 5000]).chunked(&[]).truncated_to(2000),
    });
    let gateway = public(&upstream).start().await;
    let heads = [but(":path", Some("/length")), but(":path", Some("/chunked"))];
    let Some(mut client) = client(&gateway, "heads", &[json!(heads)]) else { return };
    for story in client.next_json().await.as_array().unwrap() {
        assert_eq!((&story["ended"], story["reset"].is_u64()), (&json!(false), true), "{story}");
        assert_ne!(story["reset"], NO_ERROR, "{story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_takes_its_request_along() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start().await;
    let Some(mut client) = client(&gateway, "vanish", &[]) else { return };
    assert_eq!(client.next_line().await, "asked");
    client.send_line("");
    client.next_json().await;
    assert_eq!(gateway.get("/", "").await.status, 200);
    assert_eq!(upstream.only_request().target, "/", "half a request is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_taken_back_has_its_line() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |request| {
        if request.target == "/held" {
            ScriptedResponse::ok("late").after(&held)
        } else {
            ScriptedResponse::ok("ok")
        }
    });
    let gateway = public(&upstream).start().await;
    let Some(mut client) = client(&gateway, "reset", &[]) else { return };
    assert_eq!(client.next_line().await, "asked");
    gate.wait_for_arrival().await;
    client.send_line("");
    let line = gateway.wait_for_event("the line", |event| event["path"] == "/held").await;
    let said = (&line["status"], &line["verdict"], &line["protocol"]);
    assert_eq!(said, (&499.into(), &"gone".into(), &"HTTP/2.0".into()), "{line}");
    client.next_json().await;
    let other = gateway.wait_for_event("the other's line", |event| event["path"] == "/small").await;
    assert_eq!(other["status"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_wait_for_the_body() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .upstream("app", &upstream)
        .route("/small", "public", "")
        .server("body_timeout = \"300ms\"")
        .start()
        .await;
    let Some(mut client) = client(&gateway, "unread", &[]) else { return };
    let story = client.next_json().await;
    let refused = &story["streams"]["1"];
    assert_eq!((&refused["status"], &refused["ended"]), (&json!(404), &json!(true)), "{story}");
    assert_eq!(refused["reset"], NO_ERROR, "{story}");
    assert_eq!(story["streams"]["3"]["status"], 200, "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_is_told_408_and_the_connection_goes_on() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).server("workers = 1\nbody_timeout = \"300ms\"").start().await;
    let Some(mut client) = client(&gateway, "slow", &[]) else { return };
    let story = client.next_json().await;
    assert_eq!(story["streams"]["1"]["status"], 408, "{story}");
    assert_eq!(story["streams"]["3"]["status"], 200, "{story}");
    assert_eq!(upstream.only_request().target, "/small");
}
