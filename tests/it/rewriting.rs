//! Rewriting of paths and of Host in requests, and of locations and cookie paths in responses.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::program;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;
use crate::support::within;

#[tokio::test]
async fn prefixes_are_stripped_and_added() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .upstream("app", &upstream)
        .route("/", "public", "")
        .route("/app", "public", "strip_prefix = true")
        .route("/app/new", "public", "strip_prefix = \"/app\"\nprefix = \"/legacy\"")
        .route("/put", "public", "prefix = \"/legacy\"")
        .route("/s", "public", "strip_prefix = true\nencoded_slashes = \"pass\"")
        .start()
        .await;
    for (target, forwarded, prefix) in [
        ("/", "/", None),
        ("/apple?x", "/apple?x", None),
        ("/app", "/", Some("/app")),
        ("/app?x=/app/y", "/?x=/app/y", Some("/app")),
        ("/app/", "/", Some("/app")),
        ("/app/app/%C3%A9;p=1?q=//..", "/app/%C3%A9;p=1?q=//..", Some("/app")),
        ("/app/new", "/legacy/new", Some("/app")),
        ("/app/new/x?y", "/legacy/new/x?y", Some("/app")),
        ("/put/x", "/legacy/put/x", None),
        ("/s/a%2Fb", "/a%2Fb", Some("/s")),
    ] {
        let request = Request::get(target).header("X-Forwarded-Prefix", "/forged");
        assert_eq!(gateway.send(&request).await.status, 200, "{target}");
        let seen = upstream.last_request();
        assert_eq!(
            (seen.target.as_str(), seen.header("x-forwarded-prefix")),
            (forwarded, prefix),
            "{target}"
        );
    }
    let before = upstream.request_count();
    for ambiguous in
        ["/app//x", "/app/../x", "/%61pp/x", "/app/%2e%2e/x", "/app%2Fx", "/s/..%2Fapp", "/s%2F..%2Fx"]
    {
        assert_eq!(gateway.get(ambiguous, "").await.status, 400, "{ambiguous}");
    }
    assert_eq!(upstream.request_count(), before);
}

/// Starts an upstream whose responses have the headers that the request names: `X-Response-Location` and so on.
fn echo() -> Upstream {
    Upstream::responding(|seen| {
        let headers = seen.message.headers.iter().filter_map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            Some((name.strip_prefix("x-response-")?.to_owned(), value.clone()))
        });
        headers.fold(ScriptedResponse::new(302, ""), |response, (name, value)| response.header(&name, &value))
    })
}

#[tokio::test]
async fn locations_and_cookie_paths_are_mapped_to_the_client_s_path() {
    let upstream = echo();
    let at = upstream.address();
    let gateway = Gateway::builder()
        .upstream("app", &upstream)
        .route("/app", "public", "strip_prefix = true")
        .route("/old", "public", "strip_prefix = true\nprefix = \"/legacy\"")
        .route("/as-it-is", "public", "strip_prefix = true\nrewrite_location = false")
        .route("/", "public", "")
        .start()
        .await;
    let server = format!("http://{at}/x");
    for (path, name, sent, expected) in [
        ("/app", "Location", "/login?a=/b", "/app/login?a=/b"),
        ("/app", "Location", "/app/login", "/app/login"),
        ("/app", "Location", "login", "login"),
        ("/app", "Location", "http://gateway.test/x", "http://gateway.test/app/x"),
        ("/app", "Location", server.as_str(), "http://gateway.test/app/x"),
        ("/app", "Location", "https://other.example/x", "https://other.example/x"),
        ("/app", "Location", "//other.example/x", "//other.example/x"),
        ("/app", "Content-Location", "/x", "/app/x"),
        ("/app", "Refresh", "5; URL=/x", "5; URL=/app/x"),
        ("/app", "Refresh", "5", "5"),
        ("/app", "Set-Cookie", "a=b; Path=/x; Secure", "a=b; Path=/app/x; Secure"),
        ("/app", "Set-Cookie", "__Host-a=b; Path=/; Secure", "__Host-a=b; Path=/; Secure"),
        ("/old/y", "Location", "/legacy/x", "/old/x"),
        ("/old/y", "Location", "/elsewhere", "/elsewhere"),
        ("/as-it-is", "Location", "/x", "/x"),
        ("/", "Location", server.as_str(), server.as_str()),
    ] {
        let response = gateway.send(&Request::get(path).header(&format!("X-Response-{name}"), sent)).await;
        assert_eq!(response.header(name), Some(expected), "{path} {name}: {sent}");
    }
}

#[tokio::test]
async fn upstream_host_is_the_client_s_the_server_s_or_a_configured_one() {
    let upstream = echo();
    let at = upstream.address().to_string();
    let gateway = Gateway::builder()
        .upstream("app", &upstream)
        .route("/", "public", "")
        .route("/server", "public", "upstream_host = \"upstream\"")
        .route("/name", "public", "upstream_host = \"app.internal:8080\"")
        .start()
        .await;
    for (path, host, sent, expected) in [
        ("/", "gateway.test", "http://gateway.test/x".to_owned(), "http://gateway.test/x"),
        ("/server", at.as_str(), format!("http://{at}/x"), "http://gateway.test/x"),
        ("/name", "app.internal:8080", "http://app.internal:8080/x".to_owned(), "http://gateway.test/x"),
    ] {
        let response = gateway.send(&Request::get(path).header("X-Response-Location", &sent)).await;
        let seen = upstream.last_request();
        assert_eq!(
            (seen.header("host"), seen.header("x-forwarded-host")),
            (Some(host), Some("gateway.test"))
        );
        assert_eq!(response.header("location"), Some(expected), "{path}");
    }
}

#[tokio::test]
async fn login_redirect_prefix_header_and_log_have_the_client_s_path() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice" })).aged(table::DUE);
    session.put(&engine).await;
    let gateway = Gateway::builder()
        .engine(&engine)
        .listener("address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]")
        .upstream("app", &upstream)
        .realm("")
        .route("/app", "required", "strip_prefix = true\nlogin = \"/login?next={uri}\"")
        .route("/login", "public", "")
        .start()
        .await;
    let page = Request::get("/app/x?y").header("Accept", "text/html");
    assert_eq!(gateway.send(&page).await.header("location"), Some("/login?next=%2Fapp%2Fx%3Fy"));
    let request = page.cookie(&session.cookie()).header("X-Forwarded-Prefix", "/outer");
    let response = gateway.send(&request).await;
    assert_eq!(upstream.only_request().header("x-forwarded-prefix"), Some("/outer/app"));
    assert!(
        response.set_cookies()[0].contains("Path=/"),
        "the session cookie's path was rewritten: {response:?}"
    );
    let line = gateway.wait_for_event("line", |event| event["target"] == "access").await;
    assert_eq!(crate::support::gateway::field(&line, "path"), "/app/x");
}

/// Python's file server, which redirects to directories with a trailing slash.
#[tokio::test]
async fn file_server_works_below_a_stripped_prefix() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("docs")).unwrap();
    std::fs::write(directory.path().join("docs/index.html"), "a page").unwrap();
    let Some(mut command) = program::command("python3") else { return };
    command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]).current_dir(directory.path());
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    within("the server's port", output.read_line(&mut line)).await.unwrap();
    let port = line.split("port ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let gateway = Gateway::builder()
        .upstream_at("app", format!("127.0.0.1:{port}").parse().unwrap(), "")
        .route("/files", "public", "strip_prefix = true")
        .start()
        .await;
    let response = gateway.get("/files/docs", "").await;
    let location = response.header("location").unwrap_or_default().to_owned();
    let page = gateway.get(&location, "").await;
    assert_eq!((response.status, location.as_str()), (301, "/files/docs/"));
    assert_eq!((page.status, page.text().as_str()), (200, "a page"));
}
