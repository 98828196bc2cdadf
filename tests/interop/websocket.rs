//! WebSockets between real peers: Python's `websockets` as the server and as a client, and `h2` as a client over HTTP/2.

use super::app::App;
use crate::support::engine::Engine;
use crate::support::gateway::Gateway;
use crate::support::packages::Runtime;
use crate::support::script::Script;
use crate::support::table::{self, Session};

const PACKAGES: [&str; 2] = ["websockets==17.4", "h2==4.4.1"];

/// The server and the gateway of a test, and the client's session.
struct Site {
    engine: Engine,
    session: Session,
    gateway: Gateway,
    _app: App,
}

impl Site {
    /// Returns `None` if the packages cannot be installed.
    async fn start() -> Option<Self> {
        let app = App::start(Runtime::Python, "websockets", &PACKAGES, "websocket_app.py").await?;
        let engine = table::engine().await;
        let session = table::alice_session(&engine).await;
        let gateway = Gateway::builder()
            .engine(&engine)
            .upstream_at("app", app.address, "")
            .realm("")
            .route("/ws", "required", "websocket = true\nrecheck = \"1s\"")
            .route("/", "optional", "")
            .start()
            .await;
        Some(Self { engine, session, gateway, _app: app })
    }

    /// Starts a client with these arguments and the session's cookie.
    fn client(&self, script: &str, arguments: &[&str]) -> Script {
        let interpreter = Runtime::Python.command("websockets", &PACKAGES).expect("the app has them");
        Script::start(interpreter, script, &[arguments, &[&self.session.cookie()]].concat())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_megabyte_are_echoed_until_the_session_ends() {
    let Some(site) = Site::start().await else { return };
    let url = format!("ws://{}/ws", site.gateway.address());
    let mut client = site.client("websocket_client.py", &[&url]);
    assert_eq!(client.next_line().await, "echoed");
    site.session.delete(&site.engine).await;
    assert_eq!(client.next_line().await, "1008 the session has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_over_http2_ends_with_its_session() {
    let Some(site) = Site::start().await else { return };
    let port = site.gateway.address().port().to_string();
    let mut client = site.client("websocket_over_http2.py", &["127.0.0.1", &port]);
    for expected in [
        "enabled 1",
        "other route 405",
        "other protocol 405",
        "tunnel 200 []",
        "echoed b'\\x81\\x05hello'",
        // The server accepts only handshakes.
        "plain 426",
    ] {
        assert_eq!(client.next_line().await, expected);
    }
    site.session.delete(&site.engine).await;
    client.send_line("");
    assert_eq!(client.next_line().await, "closed 1008");
    assert_eq!(client.next_line().await, "ended");
}
