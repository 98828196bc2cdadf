//! Header edits of routes, in requests and responses.

use serde_json::json;

use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

#[tokio::test]
async fn request_headers_are_set_and_removed() {
    let upstream = Upstream::start();
    let edits = "[routes.request_headers]\nremove = [\"X-Debug\", \"Accept-Encoding\"]\n\
                 set = { X-Env = \"prod\", User-Agent = \"gate\", X-Way = \"{scheme}://{host} {client_ip} {request_id} {route}\" }";
    let gateway = Gateway::builder()
        .server("workers = 1\nodd_headers = \"pass\"")
        .upstream("app", &upstream)
        .route("/", "public", "")
        .route("/edited", "public", edits)
        .start()
        .await;
    let request = |path: &str| {
        ["X-Env", "x_env", "X-Way", "X-Debug", "X.Debug", "Accept-Encoding", "User-Agent", "User_Agent"]
            .into_iter()
            .fold(Request::get(path).header("X-Request-Id", "id-1"), |request, name| {
                request.header(name, "client's")
            })
    };
    gateway.send(&request("/edited").header("X-Debug", "twice").header("Host", "Gateway.test:80")).await;
    let seen = upstream.last_request();
    assert_eq!((seen.header("x-env"), seen.header("user-agent")), (Some("prod"), Some("gate")));
    assert_eq!(seen.header("x-way"), Some("http://gateway.test 127.0.0.1 id-1 /edited"));
    let forwarded: Vec<_> =
        seen.message.headers.iter().filter(|(_, value)| value == "client's" || value == "twice").collect();
    assert!(forwarded.is_empty(), "{forwarded:?}");

    // A header that one route sets is removed from clients' requests on every route, because the upstream trusts it. A header
    // that every client sends is replaced only on that route.
    gateway.send(&request("/")).await;
    let seen = upstream.last_request();
    assert_eq!((seen.header("x-env"), seen.header("x_env"), seen.header("x-way")), (None, None, None));
    assert_eq!((seen.header("user-agent"), seen.header("x-debug")), (Some("client's"), Some("client's")));
}

const SECURE: &str = "[routes.response_headers]\nremove = [\"Server\", \"X-Powered-By\"]\n\
    set = { X-Frame-Options = \"DENY\", Cache-Control = \"public, max-age=60\", X-Id = \"{request_id}\" }\n\
    add = { Vary = \"Accept\" }";

#[tokio::test]
async fn response_headers_are_edited_and_session_cookies_stay_private() {
    let engine = table::engine().await;
    let upstream = Upstream::responding(|_| {
        let response = ScriptedResponse::ok("ok")
            .header("Server", "apache")
            .header("X-Powered-By", "php")
            .header("Vary", "Origin");
        // A header that Connection names is removed, but not the configured one of the same name.
        response
            .header("X-Frame-Options", "ALLOW")
            .header("X-Frame-Options", "SAMEORIGIN")
            .header("Connection", "x-frame-options")
    });
    let session = Session::new(json!({ "user": "alice" })).aged(table::DUE);
    session.put(&engine).await;
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("")
        .route("/", "optional", SECURE)
        .start()
        .await;
    let plain = gateway.send(&Request::get("/").header("X-Request-Id", "id-1")).await;
    assert_eq!(plain.all("x-frame-options"), ["DENY"]);
    assert_eq!((plain.header("server"), plain.header("x-powered-by")), (None, None));
    assert_eq!(plain.all("vary"), ["Origin", "Accept"]);
    assert_eq!(
        (plain.header("cache-control"), plain.header("x-id")),
        (Some("public, max-age=60"), Some("id-1"))
    );

    let reissued = gateway.get("/", &session.cookie()).await;
    assert_eq!(reissued.set_cookies().len(), 1);
    assert_eq!(reissued.header("cache-control"), Some("max-age=60, private"));
    assert_eq!(reissued.all("vary"), ["Origin", "Accept", "Cookie"]);
}

#[tokio::test]
async fn refusals_have_the_headers_of_the_route_and_keep_their_own() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let edits = SECURE.replace("X-Id", "Content-Type = \"text/evil\", X-Id");
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("")
        .route("/", "required", &edits)
        .start()
        .await;
    let refused = gateway.get("/", "").await;
    assert_eq!((refused.status, refused.all("x-frame-options")), (401, vec!["DENY"]));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert_eq!(refused.header("x-id"), refused.header("x-request-id"));
    assert_eq!(upstream.request_count(), 0);
}
