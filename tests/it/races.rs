//! Several gateways that write one session at the same time, on ministack, an independent implementation of
//! DynamoDB's API.
//!
//! `SESSIONGATE_RACE_ROUNDS` sets the rounds of each race and format, and `SESSIONGATE_RACE_FORMAT` selects one format.

use futures_util::future::{join, join_all};
use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::gateway::{Builder, Gateway};
use crate::support::ministack::Ministack;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::session_commands::{command_target, patch_target, set_cookie, with_commands};
use crate::support::table;
use crate::support::upstream::Upstream;

/// A format under test: the configuration of its realm, and the key of its table.
struct Format {
    name: &'static str,
    realm: &'static str,
    key: (&'static str, &'static str),
}

const FORMATS: &[Format] = &[
    Format { name: "native", realm: "key_attribute = \"sid\"\nrotation_grace = \"10s\"", key: ("sid", "B") },
    Format { name: "native-without-grace", realm: "key_attribute = \"sid\"", key: ("sid", "B") },
    Format { name: "pyramid", realm: "key_attribute = \"sid\"", key: ("sid", "B") },
    Format {
        name: "django",
        realm: "[sessions.main.keys]\ncurrent = { env = \"KEY\" }",
        key: ("session_key", "S"),
    },
    Format { name: "express", realm: "[sessions.main.keys]\ncurrent = { env = \"KEY\" }", key: ("id", "S") },
];

fn formats() -> impl Iterator<Item = &'static Format> {
    let only = std::env::var("SESSIONGATE_RACE_FORMAT").ok();
    FORMATS.iter().filter(move |format| only.as_ref().is_none_or(|only| format.name == only))
}

fn rounds(default: usize) -> usize {
    std::env::var("SESSIONGATE_RACE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Several gateways that share a table and an upstream, which echoes the session headers that it receives.
struct Race {
    _upstream: Upstream,
    gateways: Vec<Gateway>,
    /// A gateway without a cache, which reads the table for every request.
    witness: Gateway,
    _server: Ministack,
}

impl Race {
    /// Starts `count` gateways with a table of `format`. Returns `None` if the engine cannot be installed.
    async fn start(format: &Format, count: usize) -> Option<Self> {
        let server = Ministack::start()?;
        let (key, key_type) = format.key;
        table::call(server.address(), "CreateTable", table::schema_of("races", key, key_type)).await;
        let upstream = Upstream::responding(|request| {
            let text = |name| request.header(name).map(str::to_owned);
            let echo = json!({
                "version": text("x-session-version"), "ref": text("x-session-ref"), "n": text("x-n"),
                "flash": text("x-session-flash"),
            });
            with_commands(request, ScriptedResponse::ok(echo.to_string()))
        });
        let gateways = join_all((0..count).map(|_| builder(format, &server, &upstream, "60s").start())).await;
        let witness = builder(format, &server, &upstream, "0s").start().await;
        Some(Self { _upstream: upstream, gateways, witness, _server: server })
    }

    /// Creates a session with these claims, lets every gateway cache it, and returns its cookie.
    async fn session(&self, claims: Value) -> String {
        let created = self.gateways[0].get(&patch_target(&claims), "").await;
        assert_eq!(created.status, 200, "{}", created.text());
        let cookie = set_cookie(&created);
        for gateway in &self.gateways {
            assert_eq!(gateway.get("/", &cookie).await.status, 200);
        }
        cookie
    }

    /// Returns the version and the claim `n` of the session in the table, or `None` if there is no session.
    async fn read(&self, cookie: &str) -> Option<(String, u64)> {
        let echo = self.witness.get("/seen", cookie).await.json();
        let n = echo["n"].as_str().map_or(0, |n| n.parse().unwrap());
        echo["version"].as_str().map(|version| (version.to_owned(), n))
    }

    /// Sends two requests at the same time, through two gateways.
    async fn both(&self, first: &str, second: &str, cookie: &str) -> (Response, Response) {
        join(self.gateways[0].get(first, cookie), self.gateways[1].get(second, cookie)).await
    }
}

fn builder(format: &Format, server: &Ministack, upstream: &Upstream, ttl: &str) -> Builder {
    let name = format.name.split('-').next().unwrap();
    let cache = format!("[sessions.main.cache]\nttl = \"{ttl}\"");
    Gateway::builder()
        .env("KEY", "0123456789abcdef0123456789abcdef")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .store(&format!(
            "[store.dynamodb]\nregion = \"eu-central-1\"\nendpoint = \"{}\"\ntimeout = \"20s\"",
            server.endpoint()
        ))
        .upstream("app", upstream)
        .toml(&format!(
            "[sessions.main]\nformat = \"{name}\"\ntable = \"races\"\nuser = \"user\"\n{}\n{cache}",
            format.realm
        ))
        .route("/", "optional", "writes = true")
        .route("/seen", "optional", "[routes.headers]\nX-N = \"n\"")
        .route("/flash", "optional", "writes = true\nflash = true")
}

/// Both writes require the same version.
#[tokio::test(flavor = "multi_thread")]
async fn equal_conditional_writes_of_two_gateways_are_acknowledged_once() {
    for format in formats() {
        let Some(race) = Race::start(format, 2).await else { return };
        let cookie = race.session(json!({ "n": 0 })).await;
        for round in 1..=rounds(20) {
            let (version, _) = race.read(&cookie).await.unwrap();
            let next = json!({ "n": round }).to_string();
            let swap = command_target("/", &[("X-Session-Patch", &next), ("X-Session-If-Version", &version)]);
            let (first, second) = race.both(&swap, &swap, &cookie).await;
            let mut statuses = [first.status, second.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 409], "{}, round {round}", format.name);
            assert_eq!(race.read(&cookie).await.unwrap().1, round as u64);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flash_message_reaches_one_of_two_gateways_and_equal_appends_both_stay() {
    for format in formats() {
        let Some(race) = Race::start(format, 2).await else { return };
        let cookie = race.session(json!({ "n": 0 })).await;
        let append = command_target("/", &[("X-Session-Flash", "Saved")]);
        for round in 1..=rounds(20) {
            let (first, second) = race.both(&append, &append, &cookie).await;
            assert_eq!((first.status, second.status), (200, 200), "{}, round {round}", format.name);
            let (first, second) = race.both("/flash", "/flash", &cookie).await;
            assert_eq!((first.status, second.status), (200, 200), "{}, round {round}", format.name);
            let (first, second) = (first.json()["flash"].take(), second.json()["flash"].take());
            let delivered: Vec<_> = [first, second].into_iter().filter(|flash| !flash.is_null()).collect();
            assert_eq!(delivered, ["Saved,Saved"], "{}, round {round}", format.name);
        }
    }
}

/// An acknowledged log-out ends the session whatever its id is; a rejected one keeps the cookie.
#[tokio::test(flavor = "multi_thread")]
async fn log_out_is_not_undone_by_a_rotation_in_another_gateway() {
    let rotate = command_target("/", &[("X-Session-Action", "rotate")]);
    let destroy = command_target("/", &[("X-Session-Action", "destroy")]);
    for format in formats() {
        let Some(race) = Race::start(format, 2).await else { return };
        for round in 1..=rounds(20) {
            let old = race.session(json!({ "n": round })).await;
            // In every other round, the rotation completes first, while the other gateway has the old row cached.
            let (rotated, destroyed) = if round % 2 == 0 {
                race.both(&rotate, &destroy, &old).await
            } else {
                let rotated = race.gateways[0].get(&rotate, &old).await;
                (rotated, race.gateways[1].get(&destroy, &old).await)
            };
            let new = (rotated.status == 200).then(|| set_cookie(&rotated));
            let is_alive = match &new {
                Some(new) => race.read(new).await.is_some(),
                None => race.read(&old).await.is_some(),
            };
            let case = format!("{}, round {round}: {} {}", format.name, rotated.status, destroyed.status);
            match destroyed.status {
                200 => {
                    assert!(!is_alive, "{case}: the session outlives its log-out");
                    assert!(race.read(&old).await.is_none(), "{case}: the old id is still valid");
                }
                409 => {
                    assert!(destroyed.set_cookies().is_empty(), "{case}: the cookie stays");
                    assert!(is_alive, "{case}: the session has ended");
                    assert!(!format.name.starts_with("native"), "{case}: retired rows are followed");
                }
                _ => panic!("{case}: {}", destroyed.text()),
            }
            assert!(rotated.status == 200 || rotated.status == 409, "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_concurrent_rotations_is_acknowledged() {
    let rotate = command_target("/", &[("X-Session-Action", "rotate")]);
    for format in formats() {
        let Some(race) = Race::start(format, 2).await else { return };
        for round in 1..=rounds(10) {
            let old = race.session(json!({ "n": round })).await;
            let (first, second) = race.both(&rotate, &rotate, &old).await;
            let mut statuses = [first.status, second.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 409], "{}, round {round}", format.name);
        }
    }
}

/// A second log-out, such as from another tab, succeeds if the gateway knows that the session has ended.
#[tokio::test(flavor = "multi_thread")]
async fn two_log_outs_by_one_gateway_are_both_acknowledged() {
    let destroy = command_target("/", &[("X-Session-Action", "destroy")]);
    for format in formats() {
        let Some(race) = Race::start(format, 1).await else { return };
        let session = race.session(json!({ "n": 1 })).await;
        let gateway = &race.gateways[0];
        let (first, second) = join(gateway.get(&destroy, &session), gateway.get(&destroy, &session)).await;
        assert_eq!((first.status, second.status), (200, 200), "{}", format.name);
        assert!(race.read(&session).await.is_none());
    }
}

/// A ref that an operator has read before the rotation still identifies the session.
#[tokio::test(flavor = "multi_thread")]
async fn revocation_of_a_rotated_session_ends_it_under_its_new_id() {
    let Some(race) = Race::start(&FORMATS[0], 1).await else { return };
    let old = race.session(json!({ "n": 1 })).await;
    let reference = race.witness.get("/seen", &old).await.json()["ref"].as_str().unwrap().to_owned();
    let rotated = race.gateways[0].get(&command_target("/", &[("X-Session-Action", "rotate")]), &old).await;
    let new = set_cookie(&rotated);
    assert!(race.read(&new).await.is_some());
    let gateway = &race.gateways[0];
    let revoked = std::process::Command::new(env!("CARGO_BIN_EXE_sessiongate"))
        .args(["session", "revoke", &reference, "--config"])
        .arg(gateway.directory().join("gateway.toml"))
        .envs([("KEY", "-"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&revoked.stderr);
    assert!(revoked.status.success() && stderr.contains("had changed its id"), "{stderr}");
    assert!(race.read(&new).await.is_none() && race.read(&old).await.is_none());
}

/// 8 clients increment a counter through 3 gateways, each conditionally on the version that it has read.
#[tokio::test(flavor = "multi_thread")]
async fn compare_and_swap_counter_ends_at_the_number_of_acknowledged_writes() {
    const CLIENTS: usize = 8;
    for format in formats() {
        let Some(race) = Race::start(format, 3).await else { return };
        for _ in 0..rounds(20).div_ceil(50) {
            let cookie = race.session(json!({ "n": 0 })).await;
            let per_client = 200u64.min(rounds(20) as u64 * 2).div_ceil(CLIENTS as u64);
            let counted = join_all((0..CLIENTS).map(|client| {
                let (race, cookie) = (&race, &cookie);
                async move {
                    let gateway = &race.gateways[client % race.gateways.len()];
                    let mut acknowledged = 0u64;
                    while acknowledged < per_client {
                        let (version, n) = race.read(cookie).await.unwrap();
                        let next = json!({ "n": n + 1 }).to_string();
                        let swap = command_target(
                            "/",
                            &[("X-Session-Patch", &next), ("X-Session-If-Version", &version)],
                        );
                        match gateway.get(&swap, cookie).await.status {
                            200 => acknowledged += 1,
                            409 => {}
                            status => panic!("{status}"),
                        }
                    }
                    acknowledged
                }
            }))
            .await;
            let total: u64 = counted.iter().sum();
            assert_eq!(race.read(&cookie).await.unwrap().1, total, "{}", format.name);
        }
    }
}
