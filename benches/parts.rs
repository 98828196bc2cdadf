//! Benchmarks of the parts of the request path that deal with sessions. A request with a cached session runs most of them
//! once, so their sum is the cost of a session beyond proxying. A part that takes more than a microsecond deserves a look.
//! [`PARTS`] says for each part what a regression would mean.
//!
//! `cargo bench --bench parts` measures the time of each part. `parts count NAME TIMES` runs one part this many times and
//! prints the meaning of a regression, for `benches/instructions/check.py`, which counts its instructions.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark fails by a panic, and prints its results"
)]

use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sessiongate::claims::Claims;
use sessiongate::config::{self, Config};
use sessiongate::format::pyramid::Pyramid;
use sessiongate::format::{Format as _, SessionRecord};
use sessiongate::headers::Scrub;
use sessiongate::proxy::map;
use sessiongate::rate::ClientLimiter;
use sessiongate::route::Router;
use sessiongate::session::judge::{Policy, judge};
use sessiongate::session::{Realm, Resolution, cookie, create};
use sessiongate::store::Store;
use sessiongate::store::embedded::Engine;
use sessiongate::telemetry::metrics::Metrics;
use sessiongate::time::{Clock, Timestamp};
use tokio_util::task::TaskTracker;

const ID: &str = "ius9vZqjSFxq2yy-XFcYCYm9cBS9ypoXBadpRtQsX_w";
const CONFIG: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
[store.embedded]
[sessions.main]
format = "pyramid"
table = "sessions"
[sessions.main.cache]
ttl = "1h"
[upstreams.app]
servers = ["http://127.0.0.1:1"]
[[routes]]
path = "/"
session = "main"
upstream = "app"
[routes.headers]
X-User = "user.name"
X-Roles = "roles"
X-Tenant = "tenant"
X-Greeting = { template = "{user.name} of {tenant}" }
"#;

/// A benchmarked part.
struct Part {
    name: &'static str,
    /// The meaning of a regression.
    regression: &'static str,
    /// Sets the part up, and returns the function that is measured.
    setup: fn() -> Box<dyn FnMut()>,
}

static PARTS: [Part; 8] = [
    Part {
        name: "find_the_cookie",
        regression: "affects every request with cookies: the header may be read more than once, or copied",
        setup: find_the_cookie,
    },
    Part {
        name: "remove_the_cookie",
        regression: "affects every request whose session cookie is not forwarded: the rest may be copied more than once",
        setup: remove_the_cookie,
    },
    Part {
        name: "cookie_to_key",
        regression: "affects every request with a session cookie, even a forged one: the id may be hashed or copied more than once",
        setup: cookie_to_key,
    },
    Part {
        name: "scrub_a_browsers_headers",
        regression: "affects every request, once per header: names may be normalized or copied before they are checked",
        setup: scrub_a_browsers_headers,
    },
    Part {
        name: "find_the_route",
        regression: "affects every request: routes may be searched linearly, or the path copied",
        setup: find_the_route,
    },
    Part {
        name: "judge_a_session",
        regression: "affects every request with a session: claims may be copied",
        setup: judge_a_session,
    },
    Part {
        name: "map_claims_to_headers",
        regression: "affects every row that is read from the table, not every request: matters if the cache is off or small",
        setup: map_claims_to_headers,
    },
    Part {
        name: "cache_hit",
        regression: "affects every request with a session: a hit may allocate, lock twice, or copy the row",
        setup: cache_hit,
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, word, name, times] = arguments.as_slice() else { return divan::main() };
    if word != "count" {
        return divan::main();
    }
    let (part, times) = (find(name), times.parse::<u64>().unwrap());
    let mut run = (part.setup)();
    for _ in 0..times {
        run();
    }
    println!("{}", part.regression);
}

#[divan::bench(args = PARTS.iter().map(|part| part.name))]
fn part(bencher: Bencher<'_, '_>, name: &str) {
    bencher.bench_local((find(name).setup)());
}

fn find(name: &str) -> &'static Part {
    PARTS.iter().find(|part| part.name == name).unwrap_or_else(|| panic!("there is no part `{name}`"))
}

fn configuration() -> Config {
    let (config, report) = config::parse(CONFIG, "bench.toml".as_ref(), &config::environment::System);
    config.unwrap_or_else(|| panic!("{report}"))
}

fn claims() -> Claims {
    let claims =
        serde_json::json!({"user": {"name": "alice"}, "roles": ["admin", "staff"], "tenant": "acme"});
    claims.as_object().unwrap().clone()
}

fn browser_headers() -> HeaderMap {
    let names = [
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "cookie",
        "referer",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "upgrade-insecure-requests",
        "user-agent",
    ];
    names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("value"))).collect()
}

fn find_the_cookie() -> Box<dyn FnMut()> {
    let header = format!("theme=dark; _ga=GA1.2.1234567890.1234567890; session_id={ID}/12; lang=en");
    Box::new(move || {
        black_box(cookie::values(black_box(header.as_bytes()), "session_id").count());
    })
}

fn remove_the_cookie() -> Box<dyn FnMut()> {
    let header = format!("theme=dark; _ga=GA1.2.1234567890.1234567890; session_id={ID}/12; lang=en");
    Box::new(move || {
        black_box(cookie::without(black_box(header.as_bytes()), "session_id", None));
    })
}

fn cookie_to_key() -> Box<dyn FnMut()> {
    let (pyramid, value) = (Pyramid::new("sid"), format!("{ID}/12"));
    Box::new(move || {
        black_box(pyramid.key(&pyramid.parse_cookie(black_box(value.as_bytes())).unwrap().id));
    })
}

fn scrub_a_browsers_headers() -> Box<dyn FnMut()> {
    let scrub = Scrub::new(["x-user", "x-roles"].map(HeaderName::from_static), false);
    let headers = browser_headers();
    Box::new(move || {
        black_box(headers.keys().filter(|name| !scrub.removes(name)).count());
    })
}

fn find_the_route() -> Box<dyn FnMut()> {
    let mut config = configuration();
    let template = config.routes.remove(0);
    for path in ["/", "/admin", "/api/v1", "/api/v2", "/static", "/login"] {
        config.routes.push(config::RouteConfig { path: path.into(), ..template.clone() });
    }
    let router = Router::new(config.routes.iter().map(|route| (route, Arc::new(()))));
    Box::new(move || {
        let found = router.find("app.example", black_box("/api/v2/orders/42"), &Method::GET);
        assert!(black_box(found).is_ok());
    })
}

fn judge_a_session() -> Box<dyn FnMut()> {
    let (issued, timeout) = (Timestamp::from_secs(1000), Duration::from_secs(1200));
    let policy = Policy { timeout, reissue_time: Duration::from_secs(120), lifetime: None };
    let record = SessionRecord {
        claims: claims(),
        version: 1,
        issued,
        created: None,
        expires: issued.plus(timeout),
        retired: false,
        successor: None,
        predecessor: None,
        renewal: sessiongate::format::Renewal::Realm,
        stored: sessiongate::item::Item::new(),
    };
    Box::new(move || {
        black_box(judge(&policy, black_box(&record), Timestamp::from_secs(1060)));
    })
}

fn map_claims_to_headers() -> Box<dyn FnMut()> {
    let (config, claims) = (configuration(), claims());
    Box::new(move || {
        drop(black_box(map(&config.routes[0].headers, black_box(&claims), 8192)));
    })
}

/// Resolves a cookie to a live session in the cache.
fn cache_hit() -> Box<dyn FnMut()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (realm, value) = runtime.block_on(async {
        let config = configuration().realms.remove(0);
        let store = Store::with_engine(&Engine::memory().unwrap());
        let format = sessiongate::format::open(&config);
        let table = store.table(&config.table, format.key_schema().attribute, format.key_schema().kind);
        table.provision(None).await.unwrap();
        let policy = Policy::new(&config);
        let created = create(format.as_ref(), &table, &policy, claims(), Clock.now().wall).await.unwrap();
        let metrics = Metrics::new().unwrap().realm("main");
        let realm = Realm::new(&config, table, metrics, runtime.handle(), &TaskTracker::new(), 0);
        let value = created.cookie.expose().to_vec();
        assert!(matches!(realm.resolve(&[&value], unlimited(), Clock.now()).await.0, Resolution::Active(_)));
        (realm, value)
    });
    let now = Clock.now();
    Box::new(move || {
        // Keeps the runtime of the realm's background tasks.
        let _runtime = &runtime;
        let resolved =
            futures_util::FutureExt::now_or_never(realm.resolve(&[black_box(&value)], unlimited(), now));
        assert!(matches!(resolved, Some((Resolution::Active(_), _))));
    })
}

/// Returns the limiter of a client without a limit.
fn unlimited() -> ClientLimiter<'static> {
    ClientLimiter::new(None, std::net::Ipv4Addr::LOCALHOST.into())
}
