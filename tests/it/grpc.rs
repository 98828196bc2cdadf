//! gRPC between a real client and a real server.

use serde_json::{Value, json};

use crate::support::engine::Engine;
use crate::support::gateway::{Builder, Gateway};
use crate::support::script::Script;
use crate::support::table;
use crate::support::upstream::Upstream;

/// Starts a client that runs `case`.
fn client(gateway: &Gateway, case: &str, arguments: &[Value]) -> Option<Script> {
    Script::http2_client("grpc_client.py", case, gateway.address(), arguments)
}

/// Returns a gateway in front of the server at `port`.
fn gateway(engine: &Engine, port: &str) -> Builder {
    Gateway::builder()
        .engine(engine)
        .toml(&format!("[upstreams.app]\nservers = [\"h2c://127.0.0.1:{port}\"]"))
        .realm("")
        .route("/echo.Echo", "required", "[routes.headers]\nX-User = \"user\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_is_a_grpc_status() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .toml("[upstreams.gone]\nservers = [\"http://127.0.0.1:1\"]")
        .realm("")
        .route("/echo.Echo", "required", "login = \"/login\"")
        .route("/echo.Echo/Get", "public", "methods = [\"GET\"]")
        .route("/login", "public", "")
        .toml("[[routes]]\npath = \"/gone\"\naccess = \"public\"\nupstream = \"gone\"")
        .start()
        .await;
    let methods = json!(["/echo.Echo/Unary", "/none/None", "/gone/Gone", "/echo.Echo//Unary"]);
    let Some(mut client) = client(&gateway, "refused", &[methods, json!([])]) else { return };
    let statuses = client.next_json().await;
    let expected = json!([
        { "code": "UNAUTHENTICATED", "details": "You are not logged in" },
        { "code": "UNIMPLEMENTED", "details": "Nothing was found at this address" },
        { "code": "UNAVAILABLE", "details": "The application cannot be reached" },
        { "code": "INTERNAL", "details": "The path is ambiguous" },
    ]);
    assert_eq!(statuses, expected);
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_call_is_forwarded() {
    let Some(mut server) = Script::http2("grpc_server.py", &[]) else { return };
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &server.next_line().await).start().await;
    let metadata = json!([["cookie", session.cookie()], ["x-user", "mallory"]]);
    let Some(mut client) = client(&gateway, "kinds", &[metadata]) else { return };
    let expected = json!({
        "unary": "HELLO",
        "trailing": { "x-served": "alice" },
        "failed": { "code": "NOT_FOUND", "details": "no such thing: 50%" },
        "server": 1999 * 2000 / 2,
        "client": 2_000_000,
        "both": ["A0", "A1", "A2", "A3", "A4"],
    });
    assert_eq!(client.next_json().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn call_may_be_idle_for_longer_than_the_body_timeout() {
    let Some(mut server) = Script::http2("grpc_server.py", &[]) else { return };
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let timeouts = "workers = 1\nbody_timeout = \"100ms\"";
    let gateway = gateway(&engine, &server.next_line().await).server(timeouts).start().await;
    let metadata = json!([["cookie", session.cookie()]]);
    let Some(mut client) = client(&gateway, "idle", &[metadata]) else { return };
    assert_eq!(client.next_line().await, "idle");
    // This tests that an idle call is not ended; no event marks that.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    client.send_line("");
    assert_eq!(client.next_json().await, json!(["A", "B"]));
}
