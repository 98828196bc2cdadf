//! Random store faults: half of all operations fail, each in a random way. Every response is for the right user, a
//! request without a session is anonymous or refused, and cached sessions are served throughout if the configuration
//! allows it.
//!
//! The environment variable `CHAOS_SEED` repeats a run.
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gateway::Gateway;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, DUE, Session, TIMEOUT};
use crate::support::upstream::Upstream;

/// A pseudorandom generator, xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % bound
    }
}

fn seed() -> u64 {
    let given = std::env::var("CHAOS_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seed = given.unwrap_or_else(|| getrandom::u64().expect("randomness") | 1);
    println!("CHAOS_SEED={seed}");
    seed
}

/// Starts an upstream that responds with the session status and the user that the gateway sends.
fn echo_user() -> Upstream {
    Upstream::responding(|request| {
        let user = request.header("x-user").unwrap_or("-");
        ScriptedResponse::ok(format!("{} {user}", request.header("x-session-status").unwrap_or("-")))
    })
}

/// Returns the fault of the next operation: half of all operations fail, and one in twenty is delayed.
fn next_fault(random: &mut Random) -> Option<Fault> {
    match random.below(20) {
        0..=2 => Some(Fault::Throttle),
        3..=5 => Some(Fault::ServerError),
        6..=7 => Some(Fault::AccessDenied),
        8..=9 => Some(Fault::BrokenOff),
        10 => Some(Fault::Delay(Duration::from_millis(20))),
        _ => None,
    }
}

fn gateway(engine: &Engine, upstream: &Upstream, realm: &str) -> crate::support::gateway::Builder {
    let headers = "[routes.headers]\nX-User = \"user\"";
    Gateway::builder()
        .engine_with(engine, "timeout = \"500ms\"\nattempts = 1")
        // All clients have one address, and half of their session ids are unknown.
        .server("workers = 2\naccess_log = false\n[server.limits]\nmisses = \"unlimited\"")
        .upstream("app", upstream)
        .realm(realm)
        .route("/", "required", headers)
        .route("/optional", "optional", headers)
}

#[tokio::test]
async fn faults_never_admit_a_request_without_a_session_or_as_another_user() {
    let mut random = Random(seed());
    let (engine, upstream) = (table::engine().await, echo_user());
    let gateway = gateway(&engine, &upstream, "cache = { ttl = \"20ms\", capacity = 20 }").start().await;
    let users: Vec<_> = (0..60)
        .map(|number| {
            let session = Session::new(json!({ "user": format!("user {number}") }));
            // Active, due, expired and unknown sessions.
            let age = [Duration::ZERO, DUE, TIMEOUT + DUE, Duration::ZERO][number % 4];
            Arc::new((number, session.aged(age)))
        })
        .collect();
    for user in users.iter().filter(|user| user.0 % 4 != 3) {
        user.1.put(&engine).await;
    }
    let injected = random.0;
    engine.inject_with(Affected::All, {
        let random = std::sync::Mutex::new(Random(injected | 1));
        move || next_fault(&mut random.lock().unwrap())
    });

    let requests: Vec<Vec<(usize, usize)>> =
        (0..16).map(|_| (0..120).map(|_| (random.below(users.len()), random.below(4))).collect()).collect();
    let address = gateway.address();
    let clients = requests.into_iter().map(|requests| {
        let users = users.clone();
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let (mut served, mut unavailable) = (0, 0);
            for (user, kind) in requests {
                let (number, session) = &*users[user];
                let absent = number % 4 >= 2;
                let other = &users[(user + 1) % users.len()].1;
                let (path, cookie, anonymous) = match kind {
                    0 => ("/", session.cookie(), absent),
                    1 => ("/optional", session.cookie(), absent),
                    2 => ("/", "other=1".to_owned(), true),
                    // Of two cookies, one is used only if the session of the other is absent.
                    _ => ("/", format!("{}; {}", session.cookie(), other.cookie()), true),
                };
                let response = client.request(&Request::get(path).cookie(&cookie)).await;
                let user = response.text();
                let expected = match (response.status, kind) {
                    (200, 3) => {
                        let other = (number + 1) % users.len();
                        let alone = [(*number, other), (other, *number)];
                        alone
                            .into_iter()
                            .find(|(present, absent)| present % 4 < 2 && absent % 4 >= 2)
                            .map(|(present, _)| present)
                    }
                    (200, 1) if anonymous => {
                        assert_eq!(user, "anonymous -");
                        continue;
                    }
                    (200, _) if !anonymous => Some(*number),
                    (200, _) => None,
                    (401, _) if anonymous => continue,
                    (503, 2) => panic!("a request without a session cookie needs no store"),
                    (503, _) => {
                        unavailable += 1;
                        continue;
                    }
                    (status, _) => panic!("{status} to {kind} of user {number}"),
                };
                let expected = expected.unwrap_or_else(|| panic!("{path} admitted {cookie} as {user}"));
                assert_eq!(user, format!("active user {expected}"));
                served += 1;
            }
            (served, unavailable)
        })
    });
    let outcomes: Vec<(usize, usize)> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    let (served, unavailable) = outcomes.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(served > 50 && unavailable > 50, "{served} served, {unavailable} unavailable");

    // No row was created or lost, and no claims or version changed.
    engine.clear_faults();
    for user in &users {
        let row = user.1.row(&engine).await;
        assert_eq!(row.is_null(), user.0 % 4 == 3);
        if !row.is_null() {
            assert_eq!((&row["dat"], &row["ver"]), (&user.1.item()["dat"], &user.1.item()["ver"]));
        }
    }
}

#[tokio::test]
async fn stale_rows_are_served_during_faults() {
    let mut random = Random(seed());
    let (engine, upstream) = (table::engine().await, echo_user());
    let realm = "cache.ttl = \"1ms\"\non_store_error = { stale = \"1m\" }";
    let gateway = gateway(&engine, &upstream, realm).start().await;
    let users: Vec<_> = (0..20)
        .map(|number| Session::new(json!({ "user": format!("user {number}") })).aged(DUE * (number % 2)))
        .collect();
    for user in &users {
        user.put(&engine).await;
        assert_eq!(gateway.get("/", &user.cookie()).await.status, 200);
    }
    let injected = random.0;
    engine.inject_with(Affected::All, {
        let random = std::sync::Mutex::new(Random(injected | 1));
        move || next_fault(&mut random.lock().unwrap())
    });
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..1000 {
        let number = random.below(users.len());
        let response = client.request(&Request::get("/").cookie(&users[number].cookie())).await;
        assert_eq!((response.status, response.text()), (200, format!("active user {number}")));
    }
}
