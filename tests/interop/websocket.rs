//! WebSockets between real peers: Python's `websockets` behind and in front, and `h2` for those over HTTP/2.

use serde_json::json;

use crate::support::app::App;
use crate::support::engine::Engine;
use crate::support::gateway::Gateway;
use crate::support::script::Script;
use crate::support::table::{self, Session};

const PACKAGES: &str = "websockets==17.4\nh2==4.4.1";

async fn gateway(engine: &Engine, app: &App) -> Gateway {
    let builder = Gateway::builder().engine(engine).upstream_at("app", app.address, "").realm("");
    let builder = builder.route("/ws", "required", "websocket = true\nrecheck = \"1s\"");
    builder.route("/", "optional", "").start().await
}

async fn alice(engine: &Engine) -> Session {
    let session = Session::new(json!({ "user": "alice" }));
    session.put(engine).await;
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_go_both_ways_until_the_session_ends() {
    let Some(app) = App::python("websockets", PACKAGES, "websocket_app.py").map(|app| app.pointed_to(""))
    else {
        return;
    };
    let engine = table::engine().await;
    let session = alice(&engine).await;
    let gateway = gateway(&engine, &app).await;
    let url = format!("ws://{}/ws", gateway.address());
    let mut client =
        Script::python("websockets", PACKAGES, "websocket_client.py", &[&url, &session.cookie()]);
    assert_eq!(client.line().await, "echoed");
    session.delete(&engine).await;
    assert_eq!(client.line().await, "1008 the session has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http2_is_a_tunnel_too() {
    let Some(app) = App::python("websockets", PACKAGES, "websocket_app.py").map(|app| app.pointed_to(""))
    else {
        return;
    };
    let engine = table::engine().await;
    let session = alice(&engine).await;
    let gateway = gateway(&engine, &app).await;
    let port = gateway.address().port().to_string();
    let arguments = ["127.0.0.1", &port, &session.cookie()];
    let mut client = Script::python("websockets", PACKAGES, "websocket_over_http2.py", &arguments);
    for expected in [
        "enabled 1",
        "elsewhere 405",
        "another protocol 405",
        "tunnel 200 []",
        "echoed b'\\x81\\x05hello'",
        // The server behind takes nothing but handshakes.
        "beside it 426",
    ] {
        assert_eq!(client.line().await, expected);
    }
    session.delete(&engine).await;
    client.go_on();
    assert_eq!(client.line().await, "closed 1008");
    assert_eq!(client.line().await, "ended");
}
