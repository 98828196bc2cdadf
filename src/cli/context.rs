//! The context of a command: the configuration, one of its realms, and the store that the running gateway uses.
//!
//! If the store is embedded in the gateway's process, commands reach it through the address on which the gateway serves it
//! (`listen`), or through its file. An embedded store that has neither cannot be reached, and the error says so.

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

/// Timeout for connecting to the store of a gateway on this machine.
const LOOPBACK_TIMEOUT: Duration = Duration::from_secs(2);

/// The realm that a command works on, with its table.
#[derive(Debug)]
pub(super) struct RealmContext {
    pub(super) config: RealmConfig,
    pub(super) format: Box<dyn Format>,
    pub(super) table: Table,
}

/// The action to take if the database of the embedded store does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// Return an error.
    Fail,
    /// Create it, as the gateway would.
    Create,
}

/// Loads the configuration, and prints its errors and warnings to stderr.
pub(super) fn load(file: &ConfigFile) -> Result<Config, Failure> {
    Ok(load_watched(file)?.0)
}

/// Loads the configuration, and also returns a watcher of its files.
pub(super) fn load_watched(file: &ConfigFile) -> Result<(Config, SourceWatcher), Failure> {
    let path = &file.path();
    let (sources, loaded) = config::load_sources(path);
    match loaded {
        Ok((config, warnings)) => {
            output::print_diagnostics(warnings.report())?;
            Ok((config, SourceWatcher::new(sources)))
        }
        Err(problems) => {
            output::print_diagnostics(problems.report())?;
            let errors = problems.report().diagnostics().iter();
            let errors = errors.filter(|problem| problem.severity == Severity::Error).count();
            let noun = if errors == 1 { "error" } else { "errors" };
            Err(Failure::usage(format!("`{}` has {errors} {noun}", path.display())))
        }
    }
}

/// Returns the realm called `name`, or the only realm.
pub(super) fn select_realm<'c>(config: &'c Config, name: Option<&str>) -> Result<&'c RealmConfig, Failure> {
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
            Failure::usage(format!("there is no realm `{name}`")).hint(format!("the realms are {}", names()))
        }),
    }
}

/// Returns the realms of a command on tables: the realm called `name`, or the first realm of each table.
pub(super) fn table_realms<'c>(
    config: &'c Config,
    name: Option<&str>,
) -> Result<Vec<&'c RealmConfig>, Failure> {
    if name.is_some() || config.realms.is_empty() {
        return Ok(vec![select_realm(config, name)?]);
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
pub(super) async fn open_store(config: &StoreConfig, if_missing: IfMissing) -> Result<Store, Failure> {
    let StoreConfig::Embedded { path, listen } = config else {
        return Ok(Store::open_without_tasks(config).await?);
    };
    if let Some(address) = listen
        && accepts_connections(*address).await
    {
        return connect_to_gateway(*address).await;
    }
    match path {
        Some(path) if if_missing == IfMissing::Fail && !path.exists() => {
            Err(Failure::refused(format!("there is no database `{}` yet", path.display()))
                .hint("the gateway creates it when it starts; so does `sessiongate table create`"))
        }
        // Without tasks, because a command must not remove rows that it only reads.
        Some(_) => Ok(Store::open_without_tasks(config).await?),
        None if listen.is_some() => {
            Err(Failure::refused("the store is in the gateway's memory, and the gateway is not running")
                .hint("start it with `sessiongate serve`, or set `path` in [store.embedded]"))
        }
        None => Err(Failure::refused("the store is in the gateway's memory, which this command cannot reach")
            .hint("set `listen` in [store.embedded] to reach it while the gateway runs, or `path` to store it in a file")),
    }
}

/// Returns whether the store is in the memory of a gateway that is not running, or that does not serve the store.
pub(super) async fn is_unreachable(config: &StoreConfig) -> bool {
    match config {
        StoreConfig::Embedded { path: None, listen: None } => true,
        StoreConfig::Embedded { path: None, listen: Some(address) } => !accepts_connections(*address).await,
        StoreConfig::Embedded { path: Some(_), .. } | StoreConfig::Dynamodb(_) => false,
    }
}

/// Connects to the embedded store of a gateway that serves it at `address`.
async fn connect_to_gateway(address: SocketAddr) -> Result<Store, Failure> {
    let config = DynamodbConfig {
        region: Some("embedded".to_owned()),
        profile: None,
        role_arn: None,
        endpoint: Some(format!("http://{address}")),
        timeout: Duration::from_secs(5),
        attempts: 3,
    };
    // The embedded engine accepts any credentials, but the SDK needs some to sign requests.
    let credentials = StaticCredentials {
        access_key_id: "embedded".to_owned(),
        secret_access_key: Secret::new(*b"embedded"),
    };
    Ok(Store::connect(&config, Some(credentials)).await?)
}

async fn accepts_connections(address: SocketAddr) -> bool {
    matches!(tokio::time::timeout(LOOPBACK_TIMEOUT, TcpStream::connect(address)).await, Ok(Ok(_)))
}

impl RealmContext {
    /// Opens the store and selects the realm called `name`, or the only realm.
    pub(super) async fn open(
        config: &Config,
        name: Option<&str>,
        if_missing: IfMissing,
    ) -> Result<Self, Failure> {
        let realm = select_realm(config, name)?;
        let store = open_store(&config.store, if_missing).await?;
        let context = Self::new(&store, realm);
        if if_missing == IfMissing::Create && is_embedded(&config.store) {
            context.table.provision(context.format.ttl_attribute()).await?;
        }
        Ok(context)
    }

    /// Returns the context of a realm.
    pub(super) fn new(store: &Store, realm: &RealmConfig) -> Self {
        let format = format::open(realm);
        let table = table(store, realm, format.as_ref());
        Self { config: realm.clone(), format, table }
    }
}

/// Returns the table of `realm`.
pub(super) fn table(store: &Store, realm: &RealmConfig, format: &dyn Format) -> Table {
    store.table(&realm.table, format.key_schema().attribute, format.key_schema().kind)
}

/// Returns whether the store is the embedded engine.
pub(super) fn is_embedded(config: &StoreConfig) -> bool {
    match config {
        StoreConfig::Embedded { .. } => true,
        StoreConfig::Dynamodb(_) => false,
    }
}
