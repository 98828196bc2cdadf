//! What two gateways write to one session at the worst moments, which the engine brings about: of the same races on another
//! engine, many times over, see `races`.

mod conflicts;
mod lost_answers;
mod retired;

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

/// Gateways that share a table, before an app that sends what the query says, and says what it was sent.
struct Cluster {
    gateways: Vec<Gateway>,
    _app: Upstream,
}

/// What the app was told of a session.
#[derive(Debug)]
struct Seen {
    version: String,
    claims: Value,
    flash: Vec<String>,
}

impl Cluster {
    /// This many gateways on a new table of the store at `store`.
    async fn start(store: SocketAddr, rows: Rows, count: usize, lines: &str) -> Self {
        let (key, key_type) = rows.key;
        table::call(store, "CreateTable", table::schema_of(table::TABLE, key, key_type)).await;
        let app = Upstream::responding(|request| {
            let told = |name: &str| request.header(name).unwrap_or_default().to_owned();
            let told = json!({
                "version": told("x-session-version"),
                "claims": told("x-claims"),
                "flash": told("x-session-flash"),
            });
            with_commands(request, ScriptedResponse::ok(told.to_string()))
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

    /// A new session with these claims: its cookie.
    async fn log_in(&self, claims: &Value) -> String {
        let response = self.gateways[0].get(&command_target("/login", &[patch(claims)]), "").await;
        assert_eq!(response.status, 200, "{response:?}");
        cookie(&response).expect("a cookie")
    }

    /// What the app is told of a session, and messages taken out of it, by a gateway.
    async fn see(&self, gateway: usize, cookie: &str) -> Option<Seen> {
        seen(&self.gateways[gateway].get("/page", cookie).await)
    }

    /// Has every gateway carry out the same order on a session at the same moment.
    async fn at_once(&self, target: &str, cookie: &str) -> Vec<Response> {
        join_all(self.gateways.iter().map(|gateway| gateway.get(target, cookie))).await
    }
}

/// What the app was told, if it was asked.
fn seen(response: &Response) -> Option<Seen> {
    if response.status != 200 {
        return None;
    }
    let told = response.json();
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    let flash = text("flash");
    Some(Seen {
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

/// The cookie that a response gives: `name=value`; none if it gives none, or takes it.
fn cookie(response: &Response) -> Option<String> {
    let cookies = response.set_cookies();
    let kept = cookies.iter().find(|cookie| !cookie.contains("Max-Age=0"));
    kept.map(|cookie| cookie.split(';').next().unwrap().to_owned())
}

fn statuses(responses: &[Response]) -> Vec<u16> {
    let mut statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
    statuses.sort_unstable();
    statuses
}

/// Both gateways have read the session, and both have sent their write, before either is carried out.
async fn meet(engine: &Engine, cluster: &Cluster, target: &str, cookie: &str) -> Vec<Response> {
    let gate = Gate::closed();
    engine.inject(Affected::Only("UpdateItem"), Fault::HoldRequest(gate.clone()));
    let (responses, ()) = tokio::join!(cluster.at_once(target, cookie), async {
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
        cluster.see(1, &cookie).await.unwrap();
        let Seen { version, .. } = cluster.see(0, &cookie).await.unwrap();
        let target = command_target("/", &[patch(&json!({"n": 2})), if_version(&version)]);

        let responses = meet(&engine, &cluster, &target, &cookie).await;

        assert_eq!(statuses(&responses), [200, 409], "{rows:?}");
        // Who was refused is told the version that is there now, and not one that is cached.
        for gateway in 0..2 {
            let now = cluster.see(gateway, &cookie).await.unwrap();
            assert_eq!(now.claims, json!(2), "{rows:?}");
        }
        // Without a version they agree, and both say so with the cookie of what is there now.
        let responses =
            meet(&engine, &cluster, &command_target("/", &[patch(&json!({"n": 3}))]), &cookie).await;
        assert_eq!(statuses(&responses), [200, 200], "{rows:?}");
        let cookies: Vec<_> = responses.iter().filter_map(self::cookie).collect();
        assert_eq!(cookies.len(), 2, "{rows:?}");
        assert_eq!(cookies[0], cookies[1], "{rows:?}");
        assert_eq!(cluster.see(0, &cookies[0]).await.unwrap().claims, json!(3), "{rows:?}");
    }
}

#[tokio::test]
async fn equal_messages_at_once_are_all_kept_and_each_is_taken_once() {
    for rows in FORMATS {
        let engine = Engine::start();
        let cluster = Cluster::start(engine.address(), rows, 2, "").await;
        let cookie = cluster.log_in(&json!({"user": "alice"})).await;
        cluster.see(1, &cookie).await.unwrap();

        let responses = meet(&engine, &cluster, &command_target("/", &[flash("Saved")]), &cookie).await;
        assert_eq!(statuses(&responses), [200, 200], "{rows:?}");

        let newest = responses.iter().filter_map(self::cookie).max().unwrap();
        let pages = meet(&engine, &cluster, "/page", &newest).await;
        let taken: Vec<_> = pages.iter().map(|page| seen(page).unwrap().flash).collect();
        assert_eq!(taken.concat(), ["Saved", "Saved"], "{rows:?}: {taken:?}");
        assert!(taken.iter().any(Vec::is_empty), "{rows:?}: {taken:?}");
    }
}
