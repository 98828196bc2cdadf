//! The parts of the request path that are ours, one by one. A cached request runs each of them once, so their sum is what
//! a session costs on top of proxying: a part that grows beyond a microsecond is worth a look.
//!
//! `cargo bench --bench parts`

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark: a panic is how it fails"
)]

use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sessiongate::claims::Claims;
use sessiongate::config::{self, Config};
use sessiongate::format::pyramid::Pyramid;
use sessiongate::format::{Format as _, Record};
use sessiongate::headers::{Fate, Scrub};
use sessiongate::proxy::map;
use sessiongate::rate::Meter;
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

fn main() {
    divan::main();
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

#[divan::bench]
fn find_the_cookie(bencher: Bencher<'_, '_>) {
    let header = format!("theme=dark; _ga=GA1.2.1234567890.1234567890; session_id={ID}/12; lang=en");
    bencher.bench_local(|| cookie::values(black_box(header.as_bytes()), "session_id").count());
}

#[divan::bench]
fn take_the_cookie_out(bencher: Bencher<'_, '_>) {
    let header = format!("theme=dark; _ga=GA1.2.1234567890.1234567890; session_id={ID}/12; lang=en");
    bencher.bench_local(|| cookie::without(black_box(header.as_bytes()), "session_id", None));
}

#[divan::bench]
fn cookie_to_key(bencher: Bencher<'_, '_>) {
    let (pyramid, value) = (Pyramid::new("sid"), format!("{ID}/12"));
    bencher.bench_local(|| pyramid.key(&pyramid.parse_cookie(black_box(value.as_bytes())).unwrap().id));
}

#[divan::bench]
fn scrub_a_browsers_headers(bencher: Bencher<'_, '_>) {
    let (scrub, headers) = (Scrub::new(["x-user", "x-roles"].map(HeaderName::from_static), false), browser());
    bencher.bench_local(|| headers.keys().filter(|name| scrub.fate(name) == Fate::Pass).count());
}

#[divan::bench]
fn find_the_route(bencher: Bencher<'_, '_>) {
    let mut config = configuration();
    let template = config.routes.remove(0);
    for path in ["/", "/admin", "/api/v1", "/api/v2", "/static", "/login"] {
        config.routes.push(config::RouteConfig { path: path.into(), ..template.clone() });
    }
    let router = Router::new(config.routes.iter().map(|route| (route, Arc::new(()))));
    bencher.bench_local(|| router.find("app.example", black_box("/api/v2/orders/42"), &Method::GET).is_ok());
}

#[divan::bench]
fn judge_a_session(bencher: Bencher<'_, '_>) {
    let (issued, timeout) = (Timestamp::from_secs(1000), Duration::from_secs(1200));
    let policy = Policy { timeout, reissue_time: Duration::from_secs(120), lifetime: None };
    let record = Record {
        claims: claims(),
        version: 1,
        issued,
        created: None,
        expires: issued.plus(timeout),
        closed: false,
        renewal: sessiongate::format::Renewal::Realm,
        stored: sessiongate::item::Item::new(),
    };
    bencher.bench_local(|| judge(&policy, black_box(&record), Timestamp::from_secs(1060)));
}

/// Done once for each row that is read, not for each request.
#[divan::bench]
fn make_the_headers(bencher: Bencher<'_, '_>) {
    let (config, claims) = (configuration(), claims());
    bencher.bench_local(|| map(&config.routes[0].headers, black_box(&claims), 8192));
}

/// From the cookie to a live session that is in the cache.
#[divan::bench]
fn cache_hit(bencher: Bencher<'_, '_>) {
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
    bencher.bench_local(|| {
        let resolved =
            futures_util::FutureExt::now_or_never(realm.resolve(&[black_box(&value)], anybody(), now));
        assert!(matches!(resolved, Some((Resolution::Active(_), _))));
    });
}

/// A client that no limit holds for.
fn anybody() -> Meter<'static> {
    Meter::new(None, std::net::Ipv4Addr::LOCALHOST.into())
}
