//! Routes with a redirect or a constant response instead of an upstream.

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::gateway::{Gateway, field};
use crate::support::table;
use crate::support::upstream::Upstream;

fn route(path: &str, lines: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\naccess = \"public\"\n{lines}")
}

#[tokio::test]
async fn redirect_keeps_path_and_query() {
    let gateway = Gateway::builder()
        .toml(&route("/", "redirect = \"https://new.example.com{uri}\""))
        .toml(&route(
            "/here",
            "redirect = { to = \"https://{host}:8443/there{path}?a=b&{query}\", status = 301 }",
        ))
        .toml(&route("/sso", "redirect = { to = \"https://sso.example/?next={uri}\", status = 302 }"))
        .toml(&route("/search", "redirect = \"/find?{query}&lang=en&{query}#top\""))
        .toml(&route("/moved", "redirect = { to = \"/{host}\", status = 303 }"))
        .start()
        .await;
    for (target, status, location) in [
        ("/", 308, "https://new.example.com/"),
        ("/a;b/c?d=//e&f", 308, "https://new.example.com/a;b/c?d=//e&f"),
        ("/here/x?y", 301, "https://gateway.test:8443/there/here/x?a=b&y"),
        ("/here", 301, "https://gateway.test:8443/there/here?a=b"),
        ("/search?q=1", 308, "/find?q=1&lang=en&q=1#top"),
        ("/search", 308, "/find?lang=en#top"),
        ("/moved", 303, "/gateway.test"),
        ("/sso/x?y=1&z", 302, "https://sso.example/?next=%2Fsso%2Fx%3Fy%3D1%26z"),
    ] {
        let response = gateway.send(&Request::get(target).header("Host", "Gateway.TEST:1")).await;
        assert_eq!((response.status, response.header("location")), (status, Some(location)), "{target}");
    }
}

#[tokio::test]
async fn request_cannot_change_the_host_of_a_redirect() {
    let gateway = Gateway::builder()
        .toml(&route("/", "redirect = \"https://new.example.com{uri}\""))
        .toml(&route("/up", "redirect = \"https://{host}{uri}\""))
        .toml(&route("/rel", "redirect = \"/new{path}?{query}\""))
        .start()
        .await;
    for (target, status, location) in [
        ("//evil.example/x", 400, None),
        ("/@evil.example", 308, Some("https://new.example.com/@evil.example")),
        ("/?//evil.example", 308, Some("https://new.example.com/?//evil.example")),
        ("/\\evil.example", 400, None),
        ("/%0d%0aSet-Cookie:x", 308, Some("https://new.example.com/%0d%0aSet-Cookie:x")),
        ("/x\"é", 308, Some("https://new.example.com/x%22%C3%A9")),
        ("/rel/x?/y", 308, Some("/new/rel/x?/y")),
    ] {
        let response = gateway.get(target, "").await;
        assert_eq!((response.status, response.header("location")), (status, location), "{target}");
    }
    for host in ["evil.example/", "user@evil.example", "evil example", "evil.example\\"] {
        let response = gateway.send(&Request::get("/up").header("Host", host)).await;
        assert_eq!((response.status, response.header("location")), (400, None), "{host}");
    }
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET /up HTTP/1.0\r\n\r\n").await;
    assert!(
        String::from_utf8_lossy(&client.read_to_end().await).contains(" 400 "),
        "a redirect without a host"
    );
}

#[tokio::test]
async fn constant_response_has_its_status_body_and_headers() {
    let page = "respond = { status = 503, body = \"<h1>Back soon</h1>\", content_type = \"text/html\" }\n\
                [routes.response_headers]\nset = { Retry-After = \"3600\", Cache-Control = \"no-cache\" }";
    let gateway = Gateway::builder()
        .toml(&route("/", page))
        .toml(&route("/robots.txt", "respond = { body = \"User-agent: *\\nDisallow: /\\n\" }"))
        .toml(&route("/beacon", "respond = { status = 204 }"))
        .start()
        .await;
    let closed = gateway.send(&Request::post("/anything", "x")).await;
    assert_eq!((closed.status, closed.text().as_str()), (503, "<h1>Back soon</h1>"));
    let headers = ["content-type", "retry-after", "cache-control"].map(|name| closed.header(name));
    assert_eq!(headers, [Some("text/html"), Some("3600"), Some("no-cache")]);
    let robots = gateway.get("/robots.txt", "").await;
    assert_eq!((robots.status, robots.text().as_str()), (200, "User-agent: *\nDisallow: /\n"));
    assert_eq!(robots.header("content-type"), Some("text/plain; charset=utf-8"));
    let head = gateway.send(&Request::new("HEAD", "/robots.txt")).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("26")));
    let beacon = gateway.get("/beacon", "").await;
    assert_eq!((beacon.status, beacon.header("content-type"), beacon.message.body.len()), (204, None, 0));
}

#[tokio::test]
async fn redirect_of_a_route_with_a_session_needs_the_session() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let members =
        "[[routes]]\npath = \"/members\"\nsession = \"main\"\nredirect = \"https://members.example{uri}\"";
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("")
        .route("/", "public", "")
        .toml(members)
        .start()
        .await;
    let refused = gateway.get("/members/x", "").await;
    assert_eq!((refused.status, refused.header("location")), (401, None));
    let redirect = gateway.get("/members/x", &session.cookie()).await;
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (308, Some("https://members.example/members/x"))
    );
    assert_eq!(redirect.header("cache-control"), Some("no-store"), "the redirect may be cached");
    let line = gateway.wait_for_event("line", |event| field(event, "status") == 308).await;
    assert_eq!((field(&line, "verdict"), field(&line, "route")), (&json!("active"), &json!("/members")));
    assert_eq!(upstream.request_count(), 0);
}
