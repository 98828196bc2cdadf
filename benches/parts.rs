//! The parts of the request path that are ours, one by one. A cached request runs each of them once, so their sum is what
//! a session costs on top of proxying: a part that grows beyond a microsecond is worth a look. What it would mean if one
//! grew stands beside it in [`PARTS`].
//!
//! `cargo bench --bench parts` takes the time of each. `parts count NAME TIMES` runs one of them so many times and says
//! what its growth would mean, for `benches/instructions/check.py`, which counts its instructions.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark: a panic is how it fails, and stdout where it reports"
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

/// Something that is measured.
struct Part {
    name: &'static str,
    /// What it means if this grows.
    regression: &'static str,
    /// Sets up, and gives what is measured.
    make: fn() -> Box<dyn FnMut()>,
}

static PARTS: [Part; 8] = [
    Part {
        name: "find_the_cookie",
        regression: "every request that brings cookies pays, for each of them: the header is read more than once, or copied",
        make: find_the_cookie,
    },
    Part {
        name: "take_the_cookie_out",
        regression: "every request with a session pays, as the app does not see its cookie: more than one copy of what is left",
        make: take_the_cookie_out,
    },
    Part {
        name: "cookie_to_key",
        regression: "every request with a session cookie pays, forged ones too: more than one hash of the id, or more copies",
        make: cookie_to_key,
    },
    Part {
        name: "scrub_a_browsers_headers",
        regression: "every request pays, for each of its headers: a name is no longer judged at a glance, but folded or copied",
        make: scrub_a_browsers_headers,
    },
    Part {
        name: "find_the_route",
        regression: "every request pays: routes are walked where they were looked up, or the path is copied",
        make: find_the_route,
    },
    Part {
        name: "judge_a_session",
        regression: "every request with a session pays: the verdict copies claims, or reads what it does not need",
        make: judge_a_session,
    },
    Part {
        name: "make_the_headers",
        regression: "every row that is read pays, not every request: it matters where the cache is off or small",
        make: make_the_headers,
    },
    Part {
        name: "cache_hit",
        regression: "every request with a session pays: a hit allocates, locks twice, or copies the row instead of sharing it",
        make: cache_hit,
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, word, name, times] = arguments.as_slice() else { return divan::main() };
    if word != "count" {
        return divan::main();
    }
    let (part, times) = (find(name), times.parse::<u64>().unwrap());
    let mut run = (part.make)();
    for _ in 0..times {
        run();
    }
    println!("{}", part.regression);
}

#[divan::bench(args = PARTS.iter().map(|part| part.name))]
fn part(bencher: Bencher<'_, '_>, name: &str) {
    bencher.bench_local((find(name).make)());
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

fn browser() -> HeaderMap {
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

fn take_the_cookie_out() -> Box<dyn FnMut()> {
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
    let (scrub, headers) = (Scrub::new(["x-user", "x-roles"].map(HeaderName::from_static), false), browser());
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

fn make_the_headers() -> Box<dyn FnMut()> {
    let (config, claims) = (configuration(), claims());
    Box::new(move || {
        drop(black_box(map(&config.routes[0].headers, black_box(&claims), 8192)));
    })
}

/// From the cookie to a live session that is in the cache.
fn cache_hit() -> Box<dyn FnMut()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (realm, value) = runtime.block_on(async {
        let config = configuration().realms.remove(0);
        let store = Store::on_engine(&Engine::memory().unwrap());
        let format = sessiongate::format::open(&config);
        let table = store.table(&config.table, format.key_schema().attribute, format.key_schema().kind);
        table.provision(None).await.unwrap();
        let policy = Policy::new(&config);
        let made = create(format.as_ref(), &table, &policy, claims(), Clock.now().wall).await.unwrap();
        let metrics = Metrics::new().unwrap().realm("main");
        let realm = Realm::new(&config, table, metrics, runtime.handle(), &TaskTracker::new(), 0);
        let value = made.cookie.expose().to_vec();
        assert!(matches!(realm.resolve(&[&value], anybody(), Clock.now()).await.0, Resolution::Active(_)));
        (realm, value)
    });
    let now = Clock.now();
    Box::new(move || {
        // What the realm does behind a request runs there, for as long as this is asked.
        let _runtime = &runtime;
        let resolved =
            futures_util::FutureExt::now_or_never(realm.resolve(&[black_box(&value)], anybody(), now));
        assert!(matches!(resolved, Some((Resolution::Active(_), _))));
    })
}

/// A client that no limit holds for.
fn anybody() -> ClientLimiter<'static> {
    ClientLimiter::new(None, std::net::Ipv4Addr::LOCALHOST.into())
}
