//! WebSockets between real peers: Python's `websockets` behind and in front, and `h2` for those over HTTP/2.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tokio::sync::mpsc;

use support::app::App;
use support::engine::Engine;
use support::gateway::Gateway;
use support::table::{self, Session};
use support::{python, within};

const PACKAGES: &str = "websockets==17.4\nh2==4.4.1";

/// A client's script, and what it says.
struct Script {
    process: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Script {
    /// Only where the app behind has its environment, which is the same.
    fn start(script: &str, arguments: &[&str]) -> Self {
        let packages: Vec<_> = PACKAGES.lines().collect();
        let environment = python::environment("websockets", &packages).expect("the app has it");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
        let mut command = Command::new(environment.join("bin/python"));
        command.arg(path).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it is installed");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let (said, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test may have heard enough.
                let _ = said.send(line);
            }
        });
        Self { process, lines }
    }

    async fn line(&mut self) -> String {
        within("a line", self.lines.recv()).await.expect("the script goes on")
    }

    fn go_on(&mut self) {
        self.process.stdin.as_mut().expect("piped").write_all(b"\n").expect("it reads");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

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
    let Some(app) = App::python("websockets", PACKAGES, "websocket_app.py", "") else { return };
    let engine = table::engine().await;
    let session = alice(&engine).await;
    let gateway = gateway(&engine, &app).await;
    let url = format!("ws://{}/ws", gateway.address());
    let mut client = Script::start("websocket_client.py", &[&url, &session.cookie()]);
    assert_eq!(client.line().await, "echoed");
    session.delete(&engine).await;
    assert_eq!(client.line().await, "1008 the session has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http2_is_a_tunnel_too() {
    let Some(app) = App::python("websockets", PACKAGES, "websocket_app.py", "") else { return };
    let engine = table::engine().await;
    let session = alice(&engine).await;
    let gateway = gateway(&engine, &app).await;
    let port = gateway.address().port().to_string();
    let arguments = ["127.0.0.1", &port, &session.cookie()];
    let mut client = Script::start("websocket_over_http2.py", &arguments);
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
