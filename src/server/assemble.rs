//! Turns a configuration into the objects that all workers share.
//!
//! A reload keeps the objects whose configuration has not changed: realms with their caches, upstreams with their
//! connections, demo apps.

use std::sync::Arc;

use http::HeaderName;
use tokio_util::task::TaskTracker;

use super::error::StartError;
use crate::config::{
    self, Access, Config, HeaderEdits, HeaderRule, OddHeaders, RealmConfig, ServerAddress, StoreConfig,
    UpstreamConfig,
};
use crate::demo::{self, HeaderOrigins};
use crate::format::{self, Format};
use crate::headers::{self, Scrub};
use crate::proxy::{Gateway, Route};
use crate::rate::Limiter;
use crate::route::Router;
use crate::session::{MappingSlot, Realm};
use crate::store::Store;
use crate::store::schema::SchemaError;
use crate::store::table::Table;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttle::Throttle;
use crate::upstream::{LocalServer, Upstream};

/// A gateway, and those of its parts that a reload may keep.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) gateway: Arc<Gateway>,
    /// In the order of the configuration.
    realms: Vec<Arc<Realm>>,
    upstreams: Vec<Arc<Upstream>>,
    /// Grows whenever the numbers of [`MappingSlot`]s may refer to other routes.
    edition: u64,
}

/// Builds the gateway of `config`. Keeps the objects of `previous` whose configuration is the same.
///
/// # Errors
/// Returns [`StartError`].
pub(super) async fn assemble(
    config: &Config,
    store: &Store,
    tasks: &TaskTracker,
    telemetry: &Telemetry,
    previous: Option<(&Config, &Assembled)>,
) -> Result<Assembled, StartError> {
    let mut realms = Vec::new();
    for wanted in &config.realms {
        realms.push(match previous.and_then(|previous| kept_realm(wanted, previous)) {
            Some(kept) => kept,
            None => {
                let format = format::open(wanted);
                prepare_table(&config.store, &table(store, wanted, format.as_ref()), format.ttl_attribute())
                    .await
                    .map_err(|error| StartError::Table { realm: wanted.name.clone(), error })?;
                realm(wanted, store, tasks, telemetry)
            }
        });
    }
    let origins = HeaderOrigins::from_config(config);
    let mut upstreams = Vec::new();
    for (index, wanted) in config.upstreams.iter().enumerate() {
        upstreams.push(match previous.and_then(|previous| kept_upstream(index, config, previous)) {
            Some(kept) => kept,
            None => start_upstream(wanted, &origins, may_write(config, index)).await?,
        });
    }
    let edition = previous.map_or(0, |(old, assembled)| {
        let is_same = old.routes == config.routes
            && old.realms == config.realms
            && old.server.max_header_bytes == config.server.max_header_bytes;
        assembled.edition + u64::from(!is_same)
    });
    let gateway = Arc::new(gateway_with(config, &realms, telemetry, upstreams.clone(), edition));
    Ok(Assembled { gateway, realms, upstreams, edition })
}

/// Builds the gateway of `config` with these upstreams, without contacting them or the store.
pub(crate) fn gateway(
    config: &Config,
    store: &Store,
    tasks: &TaskTracker,
    telemetry: &Telemetry,
    upstreams: Vec<Arc<Upstream>>,
) -> Gateway {
    let realms: Vec<_> = config.realms.iter().map(|config| realm(config, store, tasks, telemetry)).collect();
    gateway_with(config, &realms, telemetry, upstreams, 0)
}

fn gateway_with(
    config: &Config,
    realms: &[Arc<Realm>],
    telemetry: &Telemetry,
    upstreams: Vec<Arc<Upstream>>,
    edition: u64,
) -> Gateway {
    let metrics = &telemetry.metrics;
    Gateway {
        router: Router::new(routes(config, realms, metrics, edition)),
        scrub: Arc::new(
            Scrub::new(injected(config), config.server.odd_headers == OddHeaders::Pass)
                .allowing(allowed_overrides(config).cloned().collect()),
        ),
        upstreams,
        hidden_cookies: config
            .realms
            .iter()
            .filter(|realm| !realm.forward_cookie)
            .map(|realm| realm.cookie.name.clone())
            .collect(),
        max_header_bytes: config.server.max_header_bytes,
        access_log: telemetry.access_log.clone(),
        traces: config.server.traces,
        metrics: Arc::clone(metrics),
        unrouted: metrics.route(None),
        failures: Throttle::default(),
        realms: realms.to_vec(),
        source: config.source.clone(),
        limits: config.server.limits,
        timeouts: config.server.timeouts,
        rate: config.server.limits.rate.map(Limiter::new),
        misses: config.server.limits.misses.map(Limiter::new).map(Arc::new),
        resets: config.server.limits.reset_rate.map(Limiter::new).map(Arc::new),
    }
}

fn realm(config: &RealmConfig, store: &Store, tasks: &TaskTracker, telemetry: &Telemetry) -> Arc<Realm> {
    let metrics = &telemetry.metrics;
    let table =
        table(store, config, format::open(config).as_ref()).with_metrics(metrics.table(&config.table));
    Realm::new(config, table, metrics.realm(&config.name), &tokio::runtime::Handle::current(), tasks, 0)
}

/// Returns the previous realm with the same configuration as `wanted`, if there is one.
fn kept_realm(wanted: &RealmConfig, (config, assembled): (&Config, &Assembled)) -> Option<Arc<Realm>> {
    let index = config.realms.iter().position(|realm| realm == wanted)?;
    assembled.realms.get(index).map(Arc::clone)
}

/// Returns the previous upstream with the same configuration as `config.upstreams[index]`, if there is one. An upstream
/// with a demo app is kept only if the app may still show the same headers and write the same sessions.
fn kept_upstream(
    index: usize,
    config: &Config,
    (old, assembled): (&Config, &Assembled),
) -> Option<Arc<Upstream>> {
    let wanted = config.upstreams.get(index)?;
    let at = old.upstreams.iter().position(|upstream| upstream == wanted)?;
    let kept = assembled.upstreams.get(at)?;
    let is_unchanged = !kept.has_local_server()
        || (HeaderOrigins::from_config(config) == HeaderOrigins::from_config(old)
            && may_write(config, index) == may_write(old, at));
    is_unchanged.then(|| Arc::clone(kept))
}

/// Returns whether any route lets upstream number `index` change sessions.
fn may_write(config: &Config, index: usize) -> bool {
    config.routes.iter().any(|route| route.destination.upstream() == Some(index) && route.writes)
}

/// Returns the names of all headers that an upstream may trust as the gateway's: those that any route injects or sets,
/// except headers that clients send themselves.
fn injected(config: &Config) -> impl Iterator<Item = HeaderName> {
    config.routes.iter().flat_map(|route| {
        let set = route.request_headers.set.iter().map(|edit| &edit.name);
        let set = set.filter(|name| !headers::is_client_header(name));
        route.headers.iter().map(|rule| &rule.name).chain(set).cloned()
    })
}

/// Returns the headers by which clients may override a request's method, host or path on some route.
fn allowed_overrides(config: &Config) -> impl Iterator<Item = &HeaderName> {
    config.routes.iter().flat_map(|route| &route.allow_overrides)
}

/// Returns the request header edits of `route`. They also remove override headers that only other routes allow.
fn request_headers(route: &config::RouteConfig, config: &Config) -> HeaderEdits {
    let mut edits = route.request_headers.clone();
    let others = allowed_overrides(config).filter(|name| !route.allow_overrides.contains(name));
    edits.remove.extend(others.cloned());
    edits
}

fn table(store: &Store, realm: &RealmConfig, format: &dyn Format) -> Table {
    let schema = format.key_schema();
    store.table(&realm.table, schema.attribute, schema.kind)
}

/// Creates the table in the embedded engine, or checks the schema of the table in DynamoDB.
async fn prepare_table(
    store: &StoreConfig,
    table: &Table,
    ttl_attribute: Option<&str>,
) -> Result<(), SchemaError> {
    let checked = match store {
        StoreConfig::Embedded { .. } => table.provision(ttl_attribute).await,
        StoreConfig::Dynamodb(_) => table.check_schema().await,
    };
    match checked {
        // Without the store, the gateway serves routes that need no session. The others work when the store is back.
        Err(SchemaError::Store(error)) if error.is_retryable() => {
            tracing::warn!(table = table.name(), %error, "the table could not be checked");
            Ok(())
        }
        checked => checked,
    }
}

fn routes<'c>(
    config: &'c Config,
    realms: &[Arc<Realm>],
    metrics: &Metrics,
    edition: u64,
) -> Vec<(&'c config::RouteConfig, Arc<Route>)> {
    // Each route of a realm has its own slot for the mapped headers that a cached session holds.
    let mut mappings = vec![0; realms.len()];
    let mut next_slot = |realm: usize| {
        let next = mappings.get_mut(realm)?;
        *next += 1;
        Some(MappingSlot { number: *next - 1, edition })
    };
    let route = |route: &'c config::RouteConfig| {
        let mapping = route.realm.filter(|_| route.access != Access::Public).and_then(&mut next_slot);
        let (certificate_headers, headers): (Vec<_>, Vec<_>) =
            route.headers.iter().cloned().partition(HeaderRule::is_from_certificate);
        let built = Route {
            name: route.name.clone(),
            metrics: metrics.route(Some(&route.name)),
            access: route.access,
            realm: route.realm.and_then(|realm| realms.get(realm)).map(Arc::clone),
            require: route.require.clone(),
            login: route.login.clone(),
            mapping: mapping.filter(|_| !headers.is_empty()),
            headers,
            certificate_headers,
            writes: route.writes,
            flash: route.flash,
            csrf: route.csrf,
            streams: route.streams.clone(),
            request_headers: request_headers(route, config),
            response_headers: route.response_headers.clone(),
            rate: route.rate.map(Limiter::new),
            destination: route.destination.clone().with_max_body(config.server.limits.max_body),
        };
        (route, Arc::new(built))
    };
    let routes = config.routes.iter().map(route).collect();
    for (realm, mappings) in realms.iter().zip(mappings) {
        realm.set_mapping_slots(mappings);
    }
    routes
}

async fn start_upstream(
    upstream: &UpstreamConfig,
    origins: &HeaderOrigins,
    writes: bool,
) -> Result<Arc<Upstream>, StartError> {
    let mut apps = Vec::new();
    for _ in upstream.servers.iter().filter(|server| server.address == ServerAddress::Demo) {
        let app = demo::App::new(origins.clone()).with_writes(writes).spawn().await;
        let app = app.map_err(|error| StartError::System { what: "the demo app", error })?;
        apps.push(LocalServer { address: app.address(), running: Box::new(app) });
    }
    let upstream = Upstream::new(upstream.clone(), apps);
    let upstream = upstream.map_err(|error| StartError::System { what: "TLS to an upstream", error })?;
    upstream.start().await;
    Ok(upstream)
}
