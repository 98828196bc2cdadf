//! Paths that servers treat differently, and the routes' settings for them: duplicate slashes, and case.

use crate::support::client::Request;
use crate::support::engine::Engine;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::program::successful_output;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

const MERGE: &str = "duplicate_slashes = \"merge\"";
const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

/// Returns a gateway that merges slashes except at `/admin`, but again at `/admin/files`.
async fn merging(upstream: &Upstream) -> (Builder, Session, Engine) {
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let builder = Gateway::builder()
        .engine(&engine)
        .upstream("app", upstream)
        .realm("")
        .route(
            "/",
            "public",
            &format!("{MERGE}\n[routes.response_headers]\nset = {{ X-Frame-Options = \"DENY\" }}"),
        )
        .route("/admin", "required", "login = \"/login?next={uri}\"")
        .route("/admin/files", "required", &format!("{MERGE}\nlogin = \"/login?next={{uri}}\""))
        .route("/app", "public", &format!("{MERGE}\nstrip_prefix = true"));
    (builder, session, engine)
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_path_selects_the_route_and_is_forwarded() {
    let upstream = Upstream::start();
    let (builder, session, _engine) = merging(&upstream).await;
    let gateway = builder.start().await;
    for (path, target) in [
        ("//", "/"),
        ("//x", "/x"),
        ("/x///y//?q=//a//b", "/x/y/?q=//a//b"),
        ("///evil.example/x", "/evil.example/x"),
        ("/app//x", "/x"),
        ("//app//", "/"),
    ] {
        assert_eq!(gateway.get(path, "").await.status, 200, "{path}");
        assert_eq!(upstream.last_request().target, target, "{path}");
    }
    assert_eq!(gateway.send(&Request::post("//form//x", "abc")).await.status, 200);
    assert_eq!(
        (upstream.last_request().target.as_str(), upstream.last_request().message.body.as_slice()),
        ("/form/x", &b"abc"[..])
    );

    // The merged path decides which route, and so whether slashes are merged at all.
    let before = upstream.request_count();
    for (path, status) in [
        ("//admin", 400),
        ("/admin//", 400),
        ("/x//..//admin", 400),
        ("//%61dmin", 400),
        ("/a//%2e%2e/admin", 400),
        ("/admin//files", 401),
        ("//admin/files//x", 401),
    ] {
        assert_eq!(gateway.get(path, "").await.status, status, "{path}");
    }
    assert_eq!(upstream.request_count(), before);
    assert_eq!(gateway.get("/admin//files//x?a", &session.cookie()).await.status, 200);
    assert_eq!(upstream.last_request().target, "/admin/files/x?a");

    let url = format!("http://{}//admin//files", gateway.address());
    let arguments =
        ["-sS", "--http2-prior-knowledge", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"];
    for (cookie, status) in [(String::new(), "401"), (format!("Cookie: {}", session.cookie()), "200")] {
        let Some(output) = successful_output("curl", &[&arguments[..], &["-H", &cookie, &url]].concat())
        else {
            return;
        };
        assert_eq!(output, status);
    }
    assert_eq!(upstream.last_request().target, "/admin/files");
}

#[tokio::test]
async fn page_requests_are_redirected_to_the_merged_path() {
    let upstream = Upstream::start();
    let (builder, _, _engine) = merging(&upstream).await;
    let gateway = builder.start().await;
    for (path, location) in [
        ("//", "/"),
        ("//evil.example//x?q=//a", "/evil.example/x?q=//a"),
        ("/admin//files?a=b", "/admin/files?a=b"),
        ("/app//x", "/app/x"),
    ] {
        for method in ["GET", "HEAD"] {
            let response = gateway.send(&Request::new(method, path).header("Accept", HTML)).await;
            assert_eq!((response.status, response.header("location")), (308, Some(location)), "{path}");
            assert_eq!(response.header("cache-control"), Some("no-store"));
        }
    }
    let response = gateway.send(&Request::get("//x").header("Accept", HTML)).await;
    assert_eq!(response.header("x-frame-options"), Some("DENY"), "the route's headers are missing");
    let line = gateway.wait_for_event("line", |event| event["target"] == "access").await;
    assert_eq!(field(&line, "path"), "//");
    assert_eq!(field(&line, "verdict"), "duplicate-slashes");
    assert_eq!(upstream.request_count(), 0);

    // Other requests are forwarded.
    let image = Request::get("//x").header("Sec-Fetch-Mode", "no-cors").header("Sec-Fetch-Dest", "image");
    let script = Request::get("//x").header("Accept", HTML).header("X-Requested-With", "XMLHttpRequest");
    for request in [image, script, Request::post("//x", "a=b").header("Accept", HTML)] {
        assert_eq!(gateway.send(&request).await.status, 200);
        assert_eq!(upstream.last_request().target, "/x");
    }
    let response = gateway.send(&Request::get("//admin").header("Accept", HTML)).await;
    assert_eq!((response.status, response.header("location")), (400, None));
}

#[tokio::test]
async fn path_in_another_case_does_not_bypass_a_route_that_ignores_case() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let gateway = |lines: &str| {
        Gateway::builder()
            .engine(&engine)
            .upstream("app", &upstream)
            .realm("")
            .route("/", "public", "")
            .route("/skin", "required", lines)
            .route("/skin/open", "public", "")
            .route("/app", "public", "ignore_case = true\nstrip_prefix = true")
    };
    let exact = gateway("").start().await;
    assert_eq!(exact.get("/SKIN/x", "").await.status, 200, "routes are case-sensitive by default");

    let gateway = gateway("ignore_case = true").start().await;
    let before = upstream.request_count();
    for path in ["/skin", "/SKIN", "/sKiN/x", "/Skin/OPENED"] {
        assert_eq!(gateway.get(path, "").await.status, 401, "{path}");
    }
    // Percent-encoded letters, and letters that case folding maps to `s`, `k` and `i`.
    for path in ["/%53kin", "/%C5%BFkin", "/s%E2%84%AAin/x", "/sk%C4%B1n", "/s%E2%84%AAin;a/x"] {
        assert_eq!(gateway.get(path, "").await.status, 400, "{path}");
    }
    assert_eq!(upstream.request_count(), before);
    for (path, target) in [
        ("/SKIN/X?y", "/SKIN/X?y"),
        ("/Skin/Open/x", "/Skin/Open/x"),
        ("/skins", "/skins"),
        ("/aPP/X", "/X"),
        ("/caf%C3%89", "/caf%C3%89"),
    ] {
        assert_eq!(gateway.get(path, &session.cookie()).await.status, 200, "{path}");
        assert_eq!(upstream.last_request().target, target, "{path}");
    }
    assert_eq!(gateway.get("/SKIN/OPEN", "").await.status, 200, "routes below ignore case, too");
}
