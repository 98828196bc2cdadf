//! Concurrent writes of two gateways to one session, interleaved on purpose by the engine. `races` runs the same races many
//! times on another engine.

mod conflicts;
mod lost_responses;
mod retired;
mod unchanged;

use std::net::SocketAddr;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gate::Gate;
use crate::support::gateway::Gateway;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::session_commands::{command_target, with_commands};
use crate::support::table;
use crate::support::upstream::Upstream;

/// A format, the key attribute of its table, and its realm.
#[derive(Clone, Copy, Debug)]
struct Rows {
    format: &'static str,
    key: (&'static str, &'static str),
    lines: &'static str,
}

const LONG_CACHE: &str = "[sessions.main.cache]\nttl = \"1m\"";
const NO_CACHE: &str = "[sessions.main.cache]\nttl = \"0s\"";
const SIGNED: &str = "keys.current = \"0123456789abcdef0123456789abcdef\"";
const NATIVE: Rows = Rows { format: "native", key: ("sid", "B"), lines: "" };
const PYRAMID: Rows = Rows { format: "pyramid", key: ("sid", "B"), lines: "" };
const DJANGO: Rows = Rows { format: "django", key: ("session_key", "S"), lines: SIGNED };
const EXPRESS: Rows = Rows { format: "express", key: ("id", "S"), lines: SIGNED };
const FORMATS: [Rows; 4] = [NATIVE, PYRAMID, DJANGO, EXPRESS];

/// Gateways that share a table, and an app that sends the commands in the query and responds with what it has received.
struct Cluster {
    gateways: Vec<Gateway>,
    _app: Upstream,
}

/// The headers of a session that the app has received.
#[derive(Debug)]
struct SessionHeaders {
    version: String,
    claims: Value,
    flash: Vec<String>,
}

impl Cluster {
    /// Starts this many gateways on a new table of the store at `store`.
    async fn start(store: SocketAddr, rows: Rows, count: usize, lines: &str) -> Self {
        let (key, key_type) = rows.key;
        table::call(store, "CreateTable", table::schema_of(table::TABLE, key, key_type)).await;
        let app = Upstream::responding(|request| {
            let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
            let received = json!({
                "version": header("x-session-version"),
                "claims": header("x-claims"),
                "flash": header("x-session-flash"),
            });
            with_commands(request, ScriptedResponse::ok(received.to_string()))
        });
        let builder = || {
            Gateway::builder()
                .store(&format!(
                    "[store.dynamodb]\nendpoint = \"http://{store}\"\ntimeout = \"10s\"\nattempts = 2"
                ))
                .upstream("app", &app)
                .toml(&format!(
                    "[sessions.main]\nformat = \"{}\"\ntable = \"sessions\"\nuser = \"user\"\n{}\n{lines}",
                    rows.format, rows.lines
                ))
                .route("/", "session", "writes = true\n[routes.headers]\nX-Claims = \"n\"")
                .route("/login", "optional", "writes = true")
                .route("/page", "session", "flash = true\n[routes.headers]\nX-Claims = \"n\"")
        };
        let gateways = join_all((0..count).map(|_| builder().start())).await;
        Self { gateways, _app: app }
    }

    /// Creates a session with these claims and returns its cookie.
    async fn log_in(&self, claims: &Value) -> String {
        let response = self.gateways[0].get(&command_target("/login", &[patch(claims)]), "").await;
        assert_eq!(response.status, 200, "{response:?}");
        cookie(&response).expect("a cookie")
    }

    /// Returns the session headers that a gateway sends, with its flash messages. Returns `None` if there is no session.
    async fn session(&self, gateway: usize, cookie: &str) -> Option<SessionHeaders> {
        received(&self.gateways[gateway].get("/page", cookie).await)
    }

    /// Sends the same request to every gateway at the same time.
    async fn send_to_all(&self, target: &str, cookie: &str) -> Vec<Response> {
        join_all(self.gateways.iter().map(|gateway| gateway.get(target, cookie))).await
    }
}

/// Returns the session headers that the app has received, or `None` if the request was refused.
fn received(response: &Response) -> Option<SessionHeaders> {
    if response.status != 200 {
        return None;
    }
    let headers = response.json();
    let text = |name: &str| headers[name].as_str().unwrap().to_owned();
    let flash = text("flash");
    Some(SessionHeaders {
        version: text("version"),
        claims: serde_json::from_str(&text("claims")).unwrap_or_default(),
        flash: flash.split(',').filter(|message| !message.is_empty()).map(str::to_owned).collect(),
    })
}

fn patch(claims: &Value) -> (&'static str, String) {
    ("X-Session-Patch", claims.to_string())
}

fn flash(message: &str) -> (&'static str, String) {
    ("X-Session-Flash", message.to_owned())
}

fn if_version(version: &str) -> (&'static str, String) {
    ("X-Session-If-Version", version.to_owned())
}

/// Returns the cookie that a response sets, as `name=value`, or `None` if it sets none or expires it.
fn cookie(response: &Response) -> Option<String> {
    let cookies = response.set_cookies();
    let set = cookies.iter().find(|cookie| !cookie.contains("Max-Age=0"));
    set.map(|cookie| cookie.split(';').next().unwrap().to_owned())
}

fn statuses(responses: &[Response]) -> Vec<u16> {
    let mut statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
    statuses.sort_unstable();
    statuses
}

/// Sends the same request to both gateways. The engine does the first write only when both gateways have sent theirs.
async fn interleave(engine: &Engine, cluster: &Cluster, target: &str, cookie: &str) -> Vec<Response> {
    let gate = Gate::closed();
    engine.inject(Affected::Only("UpdateItem"), Fault::HoldRequest(gate.clone()));
    let (responses, ()) = tokio::join!(cluster.send_to_all(target, cookie), async {
        for _ in &cluster.gateways {
            gate.wait_for_arrival().await;
        }
        gate.open();
    });
    engine.clear_faults();
    responses
}

#[tokio::test]
async fn equal_patches_of_one_version_are_acknowledged_once() {
    for rows in FORMATS {
        let engine = Engine::start();
        let cluster = Cluster::start(engine.address(), rows, 2, LONG_CACHE).await;
        let cookie = cluster.log_in(&json!({"user": "alice", "n": 1})).await;
        cluster.session(1, &cookie).await.unwrap();
        let SessionHeaders { version, .. } = cluster.session(0, &cookie).await.unwrap();
        let target = command_target("/", &[patch(&json!({"n": 2})), if_version(&version)]);

        let responses = interleave(&engine, &cluster, &target, &cookie).await;

        assert_eq!(statuses(&responses), [200, 409], "{rows:?}");
        // Both gateways then have the current version, not a cached one.
        for gateway in 0..2 {
            let now = cluster.session(gateway, &cookie).await.unwrap();
            assert_eq!(now.claims, json!(2), "{rows:?}");
        }
        // Without a version, both succeed and send the cookie of the current version.
        let responses =
            interleave(&engine, &cluster, &command_target("/", &[patch(&json!({"n": 3}))]), &cookie).await;
        assert_eq!(statuses(&responses), [200, 200], "{rows:?}");
        let cookies: Vec<_> = responses.iter().filter_map(self::cookie).collect();
        assert_eq!(cookies.len(), 2, "{rows:?}");
        assert_eq!(cookies[0], cookies[1], "{rows:?}");
        assert_eq!(cluster.session(0, &cookies[0]).await.unwrap().claims, json!(3), "{rows:?}");
    }
}

#[tokio::test]
async fn concurrent_equal_flash_messages_are_all_stored_and_each_is_delivered_once() {
    for rows in FORMATS {
        let engine = Engine::start();
        let cluster = Cluster::start(engine.address(), rows, 2, "").await;
        let cookie = cluster.log_in(&json!({"user": "alice"})).await;
        cluster.session(1, &cookie).await.unwrap();

        let responses = interleave(&engine, &cluster, &command_target("/", &[flash("Saved")]), &cookie).await;
        assert_eq!(statuses(&responses), [200, 200], "{rows:?}");

        let newest = responses.iter().filter_map(self::cookie).max().unwrap();
        let pages = interleave(&engine, &cluster, "/page", &newest).await;
        let delivered: Vec<_> = pages.iter().map(|page| received(page).unwrap().flash).collect();
        assert_eq!(delivered.concat(), ["Saved", "Saved"], "{rows:?}: {delivered:?}");
        assert!(delivered.iter().any(Vec::is_empty), "{rows:?}: {delivered:?}");
    }
}
