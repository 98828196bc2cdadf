//! From the configuration to what workers share.

use std::sync::Arc;

use http::HeaderName;
use tokio_util::task::TaskTracker;

use super::StartError;
use crate::config::{self, Access, Config, OddHeaders, RealmConfig, StoreConfig, UpstreamConfig};
use crate::demo;
use crate::format::{self, Format};
use crate::headers::Scrub;
use crate::proxy::{Gateway, Route};
use crate::route::Router;
use crate::session::Realm;
use crate::store::Store;
use crate::store::schema::SchemaError;
use crate::store::table::Table;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttle::Throttle;
use crate::upstream::{Endpoint, Upstream};

/// The gateway, and the apps that run with it.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) gateway: Gateway,
    pub(super) apps: Vec<demo::Running>,
}

pub(super) async fn assemble(
    config: &Config,
    store: &Store,
    tasks: &TaskTracker,
    telemetry: &Telemetry,
) -> Result<Assembled, StartError> {
    for realm in &config.realms {
        let format = format::open(realm);
        ensure(&config.store, &table(store, realm, format.as_ref()), format.ttl_attribute())
            .await
            .map_err(|error| StartError::Table { realm: realm.name.clone(), error })?;
    }
    let names: Vec<_> = injected(config).collect();
    let mut apps = Vec::new();
    let mut upstreams = Vec::new();
    for (index, upstream) in config.upstreams.iter().enumerate() {
        let writes = config.routes.iter().any(|route| route.upstream == index && route.writes);
        upstreams.push(Arc::new(resolve(upstream, &names, writes, &mut apps).await?));
    }
    Ok(Assembled { gateway: gateway(config, store, tasks, telemetry, upstreams), apps })
}

/// The gateway of `config` over `upstreams`, of which nothing has been asked yet, and neither of the store.
pub(crate) fn gateway(
    config: &Config,
    store: &Store,
    tasks: &TaskTracker,
    telemetry: &Telemetry,
    upstreams: Vec<Arc<Upstream>>,
) -> Gateway {
    let metrics = &telemetry.metrics;
    let control = tokio::runtime::Handle::current();
    let realm = |(number, realm): (usize, &RealmConfig)| {
        let table = table(store, realm, format::open(realm).as_ref()).measured(metrics.table(&realm.table));
        let mappings = config.routes.iter().filter(|route| route.realm == Some(number)).count();
        Realm::new(realm, table, metrics.realm(&realm.name), &control, tasks, mappings)
    };
    let realms: Vec<_> = config.realms.iter().enumerate().map(realm).collect();
    Gateway {
        router: Router::new(routes(config, &realms, metrics)),
        scrub: Arc::new(Scrub::new(injected(config), config.server.odd_headers == OddHeaders::Pass)),
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
        realms,
        source: config.source.clone(),
        limits: config.server.limits,
        timeouts: config.server.timeouts,
    }
}

/// The names of all headers that any route injects.
fn injected(config: &Config) -> impl Iterator<Item = HeaderName> {
    config.routes.iter().flat_map(|route| route.headers.iter().map(|rule| rule.name.clone()))
}

fn table(store: &Store, realm: &RealmConfig, format: &dyn Format) -> Table {
    let schema = format.key_schema();
    store.table(&realm.table, schema.attribute, schema.kind)
}

/// Makes the table inside the process, or makes sure of the one outside.
async fn ensure(store: &StoreConfig, table: &Table, ttl_attribute: Option<&str>) -> Result<(), SchemaError> {
    let checked = match store {
        StoreConfig::Embedded { .. } => table.provision(ttl_attribute).await,
        StoreConfig::Dynamodb(_) => table.check_schema().await,
    };
    match checked {
        // Whoever starts while the store is away serves what needs no store, and the rest when it is back.
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
) -> Vec<(&'c config::RouteConfig, Arc<Route>)> {
    // Each route of a realm has a place of its own in what its sessions remember.
    let mut mappings = vec![0; realms.len()];
    let mut number = |realm: usize| {
        let next = mappings.get_mut(realm)?;
        *next += 1;
        Some(*next - 1)
    };
    let route = |route: &'c config::RouteConfig| {
        let mapping = route.realm.filter(|_| route.access != Access::Public).and_then(&mut number);
        let leads_to = Route {
            name: route.name.clone(),
            metrics: metrics.route(Some(&route.name)),
            access: route.access,
            realm: route.realm.and_then(|realm| realms.get(realm)).map(Arc::clone),
            require: route.require.clone(),
            login: route.login.clone(),
            headers: route.headers.clone(),
            mapping: mapping.filter(|_| !route.headers.is_empty()),
            writes: route.writes,
            flash: route.flash,
            csrf: route.csrf,
            upstream: route.upstream,
        };
        (route, Arc::new(leads_to))
    };
    config.routes.iter().map(route).collect()
}

async fn resolve(
    upstream: &UpstreamConfig,
    injected: &[HeaderName],
    writes: bool,
    apps: &mut Vec<demo::Running>,
) -> Result<Upstream, StartError> {
    let mut servers = Vec::new();
    for server in &upstream.servers {
        servers.push(match server {
            config::Server::Http { host, port } => Endpoint::new(host, *port),
            config::Server::Demo => {
                let app = demo::App::new(injected.iter().cloned()).with_writes(writes).spawn().await;
                let app = app.map_err(|error| StartError::System { what: "the built-in demo app", error })?;
                let address = app.address();
                apps.push(app);
                Endpoint::new(&address.ip().to_string(), address.port())
            }
        });
    }
    Ok(Upstream {
        name: upstream.name.clone(),
        servers,
        connect_timeout: upstream.connect_timeout,
        response_timeout: upstream.response_timeout,
        keep_alive: upstream.keep_alive,
        idle_timeout: upstream.idle_timeout,
    })
}
