//! The configuration, resolved: every name is an index, every value is in range, every default is in place.
//!
//! A [`Config`] comes only from [`load`] or [`parse`], which report every problem of the file at once. Nothing here is
//! optional that the gateway cannot do without, so the rest of the crate checks nothing again.
//!
//! [`parse`] is pure: what it needs from outside the file comes through an [`Environment`]. [`load`] is its rim.

mod admin;
pub mod diagnostic;
mod difference;
pub mod environment;
pub mod layout;
mod limits;
mod listeners;
mod mask;
mod names;
mod realms;
mod routes;
mod section;
mod server;
mod sources;
mod store;
#[cfg(test)]
mod tests;
mod upstreams;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

pub use self::admin::{AdminAddress, AdminConfig};
use self::diagnostic::{Diagnostic, DiagnosticReport};
pub use self::difference::{Difference, SectionChange};
use self::environment::Environment;
pub use self::limits::{Limits, USUAL_CONNECTIONS};
pub use self::listeners::{
    CertificateConfig, ClientRule, Hsts, HttpsRedirect, ListenerAddress, ListenerConfig, TlsConfig,
    TlsVersion, TrustedProxies,
};
use self::names::SectionNames;
pub use self::routes::destination::{Destination, Forwarding};
pub use self::routes::edit::{EditValue, HeaderEdit, HeaderEdits, Variable};
pub use self::routes::headers::{CertificateField, Encoding, HeaderRule, HeaderSource, TemplatePart};
pub use self::routes::redirect::{Redirect, RedirectVariable, Respond};
pub use self::routes::rewrite::{Rewrite, UpstreamHost};
pub use self::routes::template::Piece;
pub use self::routes::{Access, HostPattern, LoginTemplate, RouteConfig, StreamsConfig, WebsocketConfig};
use self::section::{Problems, Section};
pub use self::server::{AccessLogTarget, LogFormat, OddHeaders, ServerConfig, Timeouts, Traces};
use self::sources::Recorder;
pub use self::sources::{Sources, Watch};
pub use self::upstreams::{
    BalanceMethod, ClientIdentity, Ejection, Health, Queue, Retries, Scheme, ServerAddress, StatusRanges,
    UpstreamConfig, UpstreamProtocol, UpstreamServer, UpstreamTls,
};
use crate::claims::UserClaim;
use crate::secret::Secret;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[admin]`
    pub admin: Option<AdminConfig>,
    /// `[[listeners]]`, at least one.
    pub listeners: Vec<ListenerConfig>,
    /// `[store.*]`, exactly one.
    pub store: StoreConfig,
    /// `[sessions.NAME]`; a route names one by its index.
    pub realms: Vec<RealmConfig>,
    /// `[upstreams.NAME]`; a route names one by its index.
    pub upstreams: Vec<UpstreamConfig>,
    /// `[[routes]]`, at least one, no two alike.
    pub routes: Vec<RouteConfig>,
    /// What the file said.
    pub source: ConfigSource,
}

/// What a file said, as JSON text in which no secret is left.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigSource(Arc<str>);

impl ConfigSource {
    /// The text.
    pub fn as_json(&self) -> &Arc<str> {
        &self.0
    }
}

/// Everything in it is beside it, resolved.
impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// `[store.embedded]` or `[store.dynamodb]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// DynamoDB's API inside the process.
    Embedded {
        /// The database file; none: in memory.
        path: Option<PathBuf>,
        /// Also serve the API on this loopback address.
        listen: Option<SocketAddr>,
    },
    /// Amazon's, or anything that speaks its API.
    Dynamodb(DynamodbConfig),
}

/// `[store.dynamodb]`. What is absent comes from the AWS SDK's own chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamodbConfig {
    /// AWS region.
    pub region: Option<String>,
    /// Profile of the shared AWS configuration files.
    pub profile: Option<String>,
    /// A role to assume.
    pub role_arn: Option<String>,
    /// Another endpoint, as a URL.
    pub endpoint: Option<String>,
    /// The limit of one operation, retries included.
    pub timeout: Duration,
    /// Tries of one operation, the first included.
    pub attempts: u32,
}

/// `[sessions.NAME]`: one kind of session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealmConfig {
    /// Its name.
    pub name: String,
    /// How rows and cookie are written.
    pub format: FormatKind,
    /// The table's name.
    pub table: String,
    /// The table's key attribute.
    pub key_attribute: String,
    /// The claim that says who is logged in.
    pub user: UserClaim,
    /// Idle timeout.
    pub timeout: Duration,
    /// A session is reissued when its row's issue time is longer ago than this.
    pub reissue_time: Duration,
    /// Whether a session ends `timeout` after its last save though the framework enforces nothing. Only with `django`.
    pub enforce_age: bool,
    /// Absolute lifetime from creation. Only with a format that records the creation.
    pub lifetime: Option<Duration>,
    /// How rows are read.
    pub consistency: Consistency,
    /// What happens when the store cannot answer.
    pub on_store_error: OnStoreError,
    /// Whether the upstream sees the session cookie.
    pub forward_cookie: bool,
    /// How long a session is read under its old id after it got a new one. Zero where the format's rows cannot say so.
    pub rotation_grace: Duration,
    /// `[sessions.NAME.cookie]`
    pub cookie: CookieConfig,
    /// `[sessions.NAME.cache]`
    pub cache: CacheConfig,
    /// `[sessions.NAME.keys]`. Only with a format that signs; always there with `django`.
    pub keys: Option<KeysConfig>,
}

/// The formats that work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatKind {
    /// sessiongate's own.
    Native,
    /// pyramid-dynamodb-sessions.
    Pyramid,
    /// django-dynamodb-sessions and dj-dynamodb-sessions.
    Django,
    /// A format by declaration: `layout`, and the presets.
    Layout(Box<layout::LayoutConfig>),
}

/// How rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Eventually consistent; strongly if the row is missing or older than the cookie.
    Auto,
    /// Always strongly consistent.
    Strong,
    /// Always eventually consistent.
    Eventual,
}

/// What happens when the store cannot answer. Never: a pass on a `required` route, or a cleared cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreError {
    /// 503 on `required` and `optional` routes.
    Refuse,
    /// 503 on `required` routes; `optional` ones go on without a session, their status `unavailable`.
    Anonymous,
    /// A cached row goes on being used for this long after it stopped being fresh; then as `Refuse`.
    Stale(Duration),
}

/// `[sessions.NAME.cookie]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieConfig {
    /// Its name.
    pub name: String,
    /// `Path`
    pub path: String,
    /// `Domain`; none: the host alone.
    pub domain: Option<String>,
    /// `Secure`
    pub secure: SecureAttribute,
    /// `HttpOnly`
    pub httponly: bool,
    /// `SameSite`; none: the attribute is left out.
    pub samesite: Option<SameSite>,
    /// `Max-Age`; none: a browser-session cookie.
    pub max_age: Option<Duration>,
    /// `Partitioned`
    pub partitioned: bool,
}

/// When the cookie is `Secure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecureAttribute {
    /// When the request came over TLS.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// `SameSite`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `Strict`
    Strict,
    /// `Lax`
    Lax,
    /// `None`
    None,
}

/// `[sessions.NAME.cache]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// How long a row is used without being read again. Zero: the cache is off.
    pub ttl: Duration,
    /// How many sessions are kept.
    pub capacity: usize,
}

/// `[sessions.NAME.keys]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysConfig {
    /// Signs, and verifies first.
    pub current: Secret,
    /// Verify only.
    pub previous: Vec<Secret>,
}

/// What an operator should know about a file that is used all the same. May be empty.
#[derive(Clone, Debug)]
pub struct Warnings(DiagnosticReport);

/// Why a file is not used: at least one error, and its warnings.
#[derive(Clone, Debug)]
pub struct ConfigErrors(DiagnosticReport);

impl Warnings {
    /// The warnings, and how to show them.
    pub fn report(&self) -> &DiagnosticReport {
        &self.0
    }
}

impl ConfigErrors {
    /// The errors and warnings, and how to show them.
    pub fn report(&self) -> &DiagnosticReport {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads a file, and the variables and files that it names.
///
/// # Errors
/// If the file cannot be read, or something in it is wrong: everything that is.
pub fn load(path: &Path) -> Result<(Config, Warnings), ConfigErrors> {
    load_sources(path).1
}

/// Reads a file, as [`load`] does, and tells which files that took, whatever came of it.
pub fn load_sources(path: &Path) -> (Sources, Result<(Config, Warnings), ConfigErrors>) {
    let recorder = Recorder::default();
    let loaded = load_in(path, &recorder);
    (recorder.into_sources(), loaded)
}

fn load_in(path: &Path, environment: &dyn Environment) -> Result<(Config, Warnings), ConfigErrors> {
    let bytes = environment.file(path).map_err(|error| {
        let unreadable = Diagnostic::error(format!("the configuration cannot be read: {error}"));
        ConfigErrors(DiagnosticReport::new(
            path,
            String::new(),
            vec![unreadable.hint(
                "`--config FILE` or SESSIONGATE_CONFIG names another file; `sessiongate demo` needs none",
            )],
        ))
    })?;
    let source = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let source = mask::unparsed(&String::from_utf8_lossy(error.as_bytes()));
        let not_text = Diagnostic::error("the configuration is not UTF-8 text").at(at..at + 1);
        ConfigErrors(DiagnosticReport::new(path, source, vec![not_text]))
    })?;
    match parse(&source, path, environment) {
        (Some(config), report) => Ok((config, Warnings(report))),
        (None, report) => Err(ConfigErrors(report)),
    }
}

/// Resolves the text of a file. There is a [`Config`] if and only if the report has no error.
///
/// `file` is what the report calls it, and the paths in it are relative to where that is.
pub fn parse(source: &str, file: &Path, environment: &dyn Environment) -> (Option<Config>, DiagnosticReport) {
    let (document, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        // What could be read of such a file may lack anything, so its content is not judged.
        let errors = errors.iter().map(|error| {
            let diagnostic = Diagnostic::error(error.message());
            error.span().into_iter().fold(diagnostic, Diagnostic::at)
        });
        return (None, DiagnosticReport::new(file, mask::unparsed(source), errors.collect()));
    }
    let document = document.into_inner();
    let mut problems = Problems::default();
    let directory = file.parent().unwrap_or(Path::new(""));
    let config = resolve(&document, directory, environment, &mut problems);
    let report = DiagnosticReport::new(file, mask::parsed(source, &document), problems.into_diagnostics());
    (config.filter(|_| !report.has_errors()), report)
}

/// Goes through the whole file, whatever is wrong on the way. What comes out is good if no problem is an error.
fn resolve<'d>(
    document: &'d DeTable<'d>,
    directory: &Path,
    environment: &dyn Environment,
    problems: &mut Problems,
) -> Option<Config> {
    Section::root(document, problems, |root| {
        let mut realm_names = SectionNames::realms(root);
        let mut upstream_names = SectionNames::upstreams(root);
        let server = server::read(root, directory, environment);
        let admin = admin::read(root, directory, environment);
        let listeners = listeners::read(root, directory, environment);
        let store = store::read(root, directory);
        let realms = realms::read(root, directory, environment);
        let upstreams = upstreams::read(root, directory, environment);
        let has_clients = listeners.iter().any(ListenerConfig::asks_clients);
        let routes = routes::read(root, &mut realm_names, &realms, &mut upstream_names, has_clients);
        realm_names.warn_of_unused(root);
        upstream_names.warn_of_unused(root);
        let source = ConfigSource(format!("{:#}\n", mask::shown(document)).into());
        Some(Config { server, admin, listeners, store: store?, realms, upstreams, routes, source })
    })
}
