//! HTTP/2 clients: real ones, and one that breaks the rules.

mod support;

use support::answer::Answer;
use support::gateway::{Builder, Gateway, field};
use support::program::{output, said};
use support::upstream::Upstream;

fn public(upstream: &Upstream) -> Builder {
    Gateway::builder().upstream("app", upstream).route("/", "public", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_served_by_prior_knowledge() {
    let upstream =
        Upstream::answering(|_| Answer::ok("hello").header("Connection", "X-Gone").header("X-Gone", "1"));
    let gateway = public(&upstream).start().await;
    let url = format!("http://{}/a?b=c", gateway.address());
    let cookies = ["-H", "Cookie: a=1", "-H", "Cookie: b=2", "-H", "TE: trailers"];
    let arguments = [&["-sSi", "--http2-prior-knowledge", &url][..], &cookies].concat();
    let Some(answer) = said("curl", &arguments) else { return };
    assert!(answer.starts_with("HTTP/2 200") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(!answer.contains("x-gone") && !answer.contains("connection"), "{answer}");
    let seen = upstream.only();
    assert_eq!((seen.target.as_str(), seen.header("cookie")), ("/a?b=c", Some("a=1; b=2")));
    assert_eq!(seen.header("host"), Some(gateway.address().to_string().as_str()));
    assert_eq!((seen.header("via"), seen.header("te")), (Some("2.0 sessiongate"), None));
    let line = gateway.event("a line", |event| field(event, "message") == "request").await;
    assert_eq!(field(&line, "protocol"), "HTTP/2.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways() {
    let upstream = Upstream::answering(|request| Answer::ok(request.message.body.clone()));
    let gateway = public(&upstream).start().await;
    let file = gateway.directory().join("body");
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&file, &body).unwrap();
    let url = format!("http://{}/", gateway.address());
    let (sent, got) = (format!("@{}", file.display()), gateway.directory().join("got"));
    let arguments =
        ["-sS", "--http2-prior-knowledge", "--data-binary", &sent, "-o", got.to_str().unwrap(), &url];
    let Some(_) = said("curl", &arguments) else { return };
    assert!(std::fs::read(got).unwrap() == body, "the same bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn h2load_has_every_request_answered() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start().await;
    let url = format!("http://{}/", gateway.address());
    let Some(answer) = said("h2load", &["-n", "2000", "-c", "4", "-m", "50", &url]) else { return };
    assert!(answer.contains("2000 succeeded, 0 failed, 0 errored"), "{answer}");
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
