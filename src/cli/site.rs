//! What a command works on: the configuration, a realm of it, and the store that the running gateway uses.
//!
//! A store inside the gateway's own process is reached where the gateway serves it (`listen`), or through its file; one
//! that is neither served nor on disk cannot be reached from here, and that is said.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::config::diagnostic::Severity;
use crate::config::{self, Config, DynamodbConfig, RealmConfig, SourceWatcher, StoreConfig};
use crate::format::{self, Format};
use crate::secret::Secret;
use crate::store::table::Table;
use crate::store::{StaticCredentials, Store};

use super::args::ConfigFile;
use super::failure::Failure;
use super::output;

/// How long a gateway on this machine may take to accept a connection to its store.
const LOOPBACK_WAIT: Duration = Duration::from_secs(2);

/// A realm that a command works on.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) config: RealmConfig,
    pub(super) format: Box<dyn Format>,
    pub(super) table: Table,
    /// The embedded engine's tasks end with it.
    _store: Option<Store>,
}

/// Whether a command may make a database that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// What is not there is not found.
    Existing,
    /// What is not there is made, as the gateway itself would.
    Create,
}

/// Loads the configuration; its problems go to stderr.
pub(super) fn load(file: &ConfigFile) -> Result<Config, Failure> {
    Ok(load_watched(file)?.0)
}

/// Loads the configuration, and tells when there is another.
pub(super) fn load_watched(file: &ConfigFile) -> Result<(Config, SourceWatcher), Failure> {
    let path = &file.path();
    let (sources, loaded) = config::load_sources(path);
    match loaded {
        Ok((config, warnings)) => {
            output::report(warnings.report())?;
            Ok((config, SourceWatcher::new(sources)))
        }
        Err(problems) => {
            output::report(problems.report())?;
            let errors = problems.report().diagnostics().iter();
            let errors = errors.filter(|problem| problem.severity == Severity::Error).count();
            let noun = if errors == 1 { "error" } else { "errors" };
            Err(Failure::usage(format!("`{}` has {errors} {noun}", path.display())))
        }
    }
}

/// The realm called `name`, or the only one.
pub(super) fn realm<'c>(config: &'c Config, name: Option<&str>) -> Result<&'c RealmConfig, Failure> {
    let names = || {
        let names: Vec<_> = config.realms.iter().map(|realm| format!("`{}`", realm.name)).collect();
        names.join(", ")
    };
    match (name, config.realms.as_slice()) {
        (_, []) => Err(Failure::usage("the configuration has no [sessions.NAME]")),
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::usage("the configuration has several realms")
            .hint(format!("choose one with `--realm`: {}", names()))),
        (Some(name), realms) => realms.iter().find(|realm| realm.name == name).ok_or_else(|| {
            Failure::usage(format!("there is no realm `{name}`")).hint(format!("there is {}", names()))
        }),
    }
}

/// The realms that a command on tables is about: the one called `name`, or each that has a table of its own.
pub(super) fn tables<'c>(config: &'c Config, name: Option<&str>) -> Result<Vec<&'c RealmConfig>, Failure> {
    if name.is_some() {
        return Ok(vec![realm(config, name)?]);
    }
    let mut realms: Vec<&RealmConfig> = Vec::new();
    for realm in &config.realms {
        if realms.iter().all(|other| other.table != realm.table) {
            realms.push(realm);
        }
    }
    Ok(realms)
}

/// Opens the store that the running gateway uses.
pub(super) async fn open_store(config: &StoreConfig, reach: Reach) -> Result<Store, Failure> {
    let StoreConfig::Embedded { path, listen } = config else { return Ok(Store::open(config).await?) };
    if let Some(address) = listen
        && is_served(*address).await
    {
        return served(*address).await;
    }
    match path {
        Some(path) if reach == Reach::Existing && !path.exists() => {
            Err(Failure::refused(format!("there is no database `{}` yet", path.display()))
                .hint("the gateway makes it when it starts; `sessiongate table create` does, too"))
        }
        // The API is the running gateway's to serve.
        Some(path) => Ok(Store::open(&StoreConfig::Embedded { path: Some(path.clone()), listen: None }).await?),
        None if listen.is_some() => Err(Failure::refused("the store is inside the gateway, and it is not running")
            .hint("start it with `sessiongate serve`, or give [store.embedded] a `path`")),
        None => Err(Failure::refused("the store is in the gateway's memory, out of reach from here")
            .hint("set `listen` in [store.embedded] to reach it while the gateway runs, or `path` to keep it in a file")),
    }
}

/// Whether the store is in the memory of a gateway that is not running, or does not serve it to anybody.
pub(super) async fn begins_with_gateway(config: &StoreConfig) -> bool {
    match config {
        StoreConfig::Embedded { path: None, listen: None } => true,
        StoreConfig::Embedded { path: None, listen: Some(address) } => !is_served(*address).await,
        StoreConfig::Embedded { path: Some(_), .. } | StoreConfig::Dynamodb(_) => false,
    }
}

/// The store of a gateway that serves it at `address`.
async fn served(address: SocketAddr) -> Result<Store, Failure> {
    let config = DynamodbConfig {
        region: Some("embedded".to_owned()),
        profile: None,
        role_arn: None,
        endpoint: Some(format!("http://{address}")),
        timeout: Duration::from_secs(5),
        attempts: 3,
    };
    // The engine checks none, but a request must be signed with something.
    let credentials = StaticCredentials {
        access_key_id: "embedded".to_owned(),
        secret_access_key: Secret::new(*b"embedded"),
    };
    Ok(Store::connect(&config, Some(credentials)).await?)
}

async fn is_served(address: SocketAddr) -> bool {
    matches!(tokio::time::timeout(LOOPBACK_WAIT, TcpStream::connect(address)).await, Ok(Ok(_)))
}

impl Site {
    /// The realm called `name`, or the only one, over its store.
    pub(super) async fn open(config: &Config, name: Option<&str>, reach: Reach) -> Result<Self, Failure> {
        let realm = realm(config, name)?;
        let store = open_store(&config.store, reach).await?;
        let site = Self::over(&store, realm);
        if reach == Reach::Create && is_embedded(&config.store) {
            site.table.provision(site.format.ttl_attribute()).await?;
        }
        Ok(Self { _store: Some(store), ..site })
    }

    /// A realm over a store that the caller keeps open.
    pub(super) fn over(store: &Store, realm: &RealmConfig) -> Self {
        let format = format::open(realm);
        let table = table(store, realm, format.as_ref());
        Self { config: realm.clone(), format, table, _store: None }
    }
}

/// The table of `realm`.
pub(super) fn table(store: &Store, realm: &RealmConfig, format: &dyn Format) -> Table {
    store.table(&realm.table, format.key_schema().attribute, format.key_schema().kind)
}

/// Whether the store is DynamoDB's API inside the gateway.
pub(super) fn is_embedded(config: &StoreConfig) -> bool {
    match config {
        StoreConfig::Embedded { .. } => true,
        StoreConfig::Dynamodb(_) => false,
    }
}
