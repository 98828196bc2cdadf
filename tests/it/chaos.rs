//! Half of what is asked of the table fails, in every way and at random, while sessions come, go and are changed. Who is
//! served is served as who they are, nobody passes without a session, and who is remembered is served throughout.
//!
//! `CHAOS_SEED` repeats a run.
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

/// xorshift64*: all that a repeatable run takes.
struct Chance(u64);

impl Chance {
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

/// Answers with what the gateway says of the request: that is what its client compares with who it is.
fn mirror() -> Upstream {
    Upstream::responding(|request| {
        let user = request.header("x-user").unwrap_or("-");
        ScriptedResponse::ok(format!("{} {user}", request.header("x-session-status").unwrap_or("-")))
    })
}

/// Something goes wrong with half of the operations; a tenth of those that do take their time.
fn misfortune(chance: &mut Chance) -> Option<Fault> {
    match chance.below(20) {
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
        // All clients have one address, and half of their ids are nobody's.
        .server("workers = 2\naccess_log = false\n[server.limits]\nmisses = \"unlimited\"")
        .upstream("app", upstream)
        .realm(realm)
        .route("/", "required", headers)
        .route("/optional", "optional", headers)
}

#[tokio::test]
async fn nobody_is_somebody_else_and_nobody_gets_in() {
    let mut chance = Chance(seed());
    let (engine, upstream) = (table::engine().await, mirror());
    let gateway = gateway(&engine, &upstream, "cache = { ttl = \"20ms\", capacity = 20 }").start().await;
    let users: Vec<_> = (0..60)
        .map(|number| {
            let session = Session::new(json!({ "user": format!("user {number}") }));
            // Some live, some are due, some are over, and some were never there.
            let age = [Duration::ZERO, DUE, TIMEOUT + DUE, Duration::ZERO][number % 4];
            Arc::new((number, session.aged(age)))
        })
        .collect();
    for user in users.iter().filter(|user| user.0 % 4 != 3) {
        user.1.put(&engine).await;
    }
    let injected = chance.0;
    engine.inject_with(Affected::All, {
        let chance = std::sync::Mutex::new(Chance(injected | 1));
        move || misfortune(&mut chance.lock().unwrap())
    });

    let visits: Vec<Vec<(usize, usize)>> =
        (0..16).map(|_| (0..120).map(|_| (chance.below(users.len()), chance.below(4))).collect()).collect();
    let address = gateway.address();
    let visitors = visits.into_iter().map(|visits| {
        let users = users.clone();
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let (mut served, mut away) = (0, 0);
            for (user, kind) in visits {
                let (number, session) = &*users[user];
                let dead = number % 4 >= 2;
                let stranger = &users[(user + 1) % users.len()].1;
                let (path, cookie, nobody) = match kind {
                    0 => ("/", session.cookie(), dead),
                    1 => ("/optional", session.cookie(), dead),
                    2 => ("/", "other=1".to_owned(), true),
                    // Of two, one at most is who is meant, and only if the other is nobody.
                    _ => ("/", format!("{}; {}", session.cookie(), stranger.cookie()), true),
                };
                let response = client.request(&Request::get(path).cookie(&cookie)).await;
                let who = response.text();
                let expected = match (response.status, kind) {
                    (200, 3) => {
                        let other = (number + 1) % users.len();
                        let alone = [(*number, other), (other, *number)];
                        alone
                            .into_iter()
                            .find(|(alive, dead)| alive % 4 < 2 && dead % 4 >= 2)
                            .map(|(alive, _)| alive)
                    }
                    (200, 1) if nobody => {
                        assert_eq!(who, "anonymous -");
                        continue;
                    }
                    (200, _) if !nobody => Some(*number),
                    (200, _) => None,
                    (401, _) if nobody => continue,
                    (503, 2) => panic!("without a cookie there is nothing to ask"),
                    (503, _) => {
                        away += 1;
                        continue;
                    }
                    (status, _) => panic!("{status} to {kind} of user {number}"),
                };
                let expected = expected.unwrap_or_else(|| panic!("{path} let {cookie} in as {who}"));
                assert_eq!(who, format!("active user {expected}"));
                served += 1;
            }
            (served, away)
        })
    });
    let outcomes: Vec<(usize, usize)> = join_all(visitors).await.into_iter().map(Result::unwrap).collect();
    let (served, away) = outcomes.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(served > 50 && away > 50, "{served} served, {away} told that it cannot be told");

    // Nothing was brought to life, and nothing was lost.
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
async fn who_is_remembered_is_served_whatever_happens() {
    let mut chance = Chance(seed());
    let (engine, upstream) = (table::engine().await, mirror());
    let realm = "cache.ttl = \"1ms\"\non_store_error = { stale = \"1m\" }";
    let gateway = gateway(&engine, &upstream, realm).start().await;
    let users: Vec<_> = (0..20)
        .map(|number| Session::new(json!({ "user": format!("user {number}") })).aged(DUE * (number % 2)))
        .collect();
    for user in &users {
        user.put(&engine).await;
        assert_eq!(gateway.get("/", &user.cookie()).await.status, 200);
    }
    let injected = chance.0;
    engine.inject_with(Affected::All, {
        let chance = std::sync::Mutex::new(Chance(injected | 1));
        move || misfortune(&mut chance.lock().unwrap())
    });
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..1000 {
        let number = chance.below(users.len());
        let response = client.request(&Request::get("/").cookie(&users[number].cookie())).await;
        assert_eq!((response.status, response.text()), (200, format!("active user {number}")));
    }
}
