//! The resolved configuration: references are indices, values are in range, and defaults are filled in.
//!
//! A [`Config`] comes only from [`load`] or [`parse`], which report every problem of a file in one run. The rest of the
//! crate relies on that and does not validate again.
//!
//! [`parse`] does no IO: secrets, certificates and the time come through an [`Environment`]. [`load`] reads the file and
//! uses the process's own environment.

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
pub use self::limits::{DEFAULT_CONNECTIONS, Limits};
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
pub use self::sources::{SourceWatcher, Sources};
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
    /// `[sessions.NAME]`; routes refer to them by index.
    pub realms: Vec<RealmConfig>,
    /// `[upstreams.NAME]`; routes refer to them by index.
    pub upstreams: Vec<UpstreamConfig>,
    /// `[[routes]]`: at least one. No request matches two of them with the same priority.
    pub routes: Vec<RouteConfig>,
    /// The file's content, for display.
    pub source: ConfigSource,
}

/// The content of a configuration file as JSON, with secrets masked.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigSource(Arc<str>);

impl ConfigSource {
    /// Returns the JSON text.
    pub fn as_json(&self) -> &Arc<str> {
        &self.0
    }
}

/// Prints no content, since the resolved configuration beside it has the same content.
impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigSource(..)")
    }
}

/// `[store.embedded]` or `[store.dynamodb]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// The embedded engine, which implements DynamoDB's API inside the process.
    Embedded {
        /// The database file. `None` keeps the tables in memory.
        path: Option<PathBuf>,
        /// A loopback address on which the API is also served.
        listen: Option<SocketAddr>,
    },
    /// Amazon DynamoDB, or a server with a compatible API.
    Dynamodb(DynamodbConfig),
}

/// `[store.dynamodb]`. The AWS SDK's default provider chain supplies the values that are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamodbConfig {
    /// The AWS region.
    pub region: Option<String>,
    /// A profile of the shared AWS configuration files.
    pub profile: Option<String>,
    /// The ARN of a role to assume.
    pub role_arn: Option<String>,
    /// The URL of another endpoint.
    pub endpoint: Option<String>,
    /// Timeout for one operation, retries included.
    pub timeout: Duration,
    /// Maximum attempts of one operation, the first included.
    pub attempts: u32,
}

/// `[sessions.NAME]`: a session realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealmConfig {
    /// The realm's name.
    pub name: String,
    /// The format of rows and cookie.
    pub format: FormatKind,
    /// The table's name.
    pub table: String,
    /// The name of the table's partition key.
    pub key_attribute: String,
    /// The claim that names the user.
    pub user: UserClaim,
    /// Idle timeout of sessions.
    pub timeout: Duration,
    /// Minimum time between two reissues of a session.
    pub reissue_time: Duration,
    /// Whether sessions end `timeout` after their last save, which Django itself leaves to the browser. Only `django`
    /// uses it.
    pub enforce_age: bool,
    /// Maximum lifetime of a session since its creation. Only formats that record the creation support it.
    pub lifetime: Option<Duration>,
    /// Consistency of reads.
    pub consistency: Consistency,
    /// The reaction to a store that is unavailable.
    pub on_store_error: OnStoreError,
    /// Whether upstreams receive the session cookie.
    pub forward_cookie: bool,
    /// How long a session's old id stays valid after a rotation. Zero for formats whose rows cannot refer to another.
    pub rotation_grace: Duration,
    /// `[sessions.NAME.cookie]`
    pub cookie: CookieConfig,
    /// `[sessions.NAME.cache]`
    pub cache: CacheConfig,
    /// `[sessions.NAME.keys]`. Only for formats that sign; always `Some` for `django`.
    pub keys: Option<KeysConfig>,
}

/// A session format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatKind {
    /// sessiongate's own format.
    Native,
    /// pyramid-dynamodb-sessions.
    Pyramid,
    /// django-dynamodb-sessions and dj-dynamodb-sessions.
    Django,
    /// A format described by a layout: `layout` itself and most presets.
    Layout(Box<layout::LayoutConfig>),
}

/// Consistency of reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Eventually consistent at first, and strongly consistent if the row is missing or older than the cookie.
    Auto,
    /// Always strongly consistent.
    Strong,
    /// Always eventually consistent.
    Eventual,
}

/// The reaction to an unavailable store. No reaction lets a request without a session pass a `required` route, or clears a
/// cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreError {
    /// Respond with 503 on every route that looks up sessions.
    Refuse,
    /// Like `Refuse`, but serve `optional` routes without a session; the upstream sees the status `unavailable`.
    Anonymous,
    /// Use a cached row for this long after its ttl, and then respond as `Refuse` does.
    Stale(Duration),
}

/// `[sessions.NAME.cookie]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieConfig {
    /// The cookie's name.
    pub name: String,
    /// `Path`
    pub path: String,
    /// `Domain`. `None` omits it, so that the cookie is sent only to the host that set it.
    pub domain: Option<String>,
    /// `Secure`
    pub secure: SecureAttribute,
    /// `HttpOnly`
    pub httponly: bool,
    /// `SameSite`. `None` omits the attribute.
    pub samesite: Option<SameSite>,
    /// `Max-Age`. `None` omits it, so that the cookie ends with the browser session.
    pub max_age: Option<Duration>,
    /// `Partitioned`
    pub partitioned: bool,
}

/// When the cookie has the attribute `Secure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecureAttribute {
    /// If the client's connection uses TLS.
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
    /// How long a row is used before it is read again. Zero turns the cache off.
    pub ttl: Duration,
    /// Maximum number of cached sessions.
    pub capacity: usize,
}

/// `[sessions.NAME.keys]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysConfig {
    /// The key that signs, and the first to verify with.
    pub current: Secret,
    /// Keys that only verify.
    pub previous: Vec<Secret>,
}

/// The warnings about a valid file. May be empty.
#[derive(Clone, Debug)]
pub struct Warnings(DiagnosticReport);

/// The errors that make a file invalid, at least one, and its warnings.
#[derive(Clone, Debug)]
pub struct ConfigErrors(DiagnosticReport);

impl Warnings {
    /// Returns the report that renders the warnings.
    pub fn report(&self) -> &DiagnosticReport {
        &self.0
    }
}

impl ConfigErrors {
    /// Returns the report that renders the errors and warnings.
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

/// Loads a configuration file, and the variables and files that it refers to.
///
/// # Errors
/// Returns every problem of the file, or the reason why it cannot be read.
pub fn load(path: &Path) -> Result<(Config, Warnings), ConfigErrors> {
    load_sources(path).1
}

/// Loads a configuration file as [`load`] does, and also returns which files were read, even if the result is an error.
pub fn load_sources(path: &Path) -> (Sources, Result<(Config, Warnings), ConfigErrors>) {
    let recorder = Recorder::default();
    let loaded = load_in(path, &recorder);
    (recorder.into_sources(), loaded)
}

fn load_in(path: &Path, environment: &dyn Environment) -> Result<(Config, Warnings), ConfigErrors> {
    let bytes = environment.file(path).map_err(|error| {
        let unreadable = Diagnostic::error(format!("cannot read the configuration: {error}"));
        ConfigErrors(DiagnosticReport::new(
            path,
            String::new(),
            vec![unreadable.hint(
                "use `--config FILE` or SESSIONGATE_CONFIG for another file; `sessiongate demo` needs none",
            )],
        ))
    })?;
    let source = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let source = mask::mask_unparsed(&String::from_utf8_lossy(error.as_bytes()));
        let not_text = Diagnostic::error("the configuration is not UTF-8 text").at(at..at + 1);
        ConfigErrors(DiagnosticReport::new(path, source, vec![not_text]))
    })?;
    match parse(&source, path, environment) {
        (Some(config), report) => Ok((config, Warnings(report))),
        (None, report) => Err(ConfigErrors(report)),
    }
}

/// Parses and resolves the text of a file. Returns a [`Config`] if and only if the report has no error.
///
/// `file` is the path that the report shows. Relative paths in the file are resolved against its directory.
pub fn parse(source: &str, file: &Path, environment: &dyn Environment) -> (Option<Config>, DiagnosticReport) {
    let (document, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        // A file with syntax errors is parsed only in part, so its values are not checked.
        let errors = errors.iter().map(|error| {
            let diagnostic = Diagnostic::error(error.message());
            error.span().into_iter().fold(diagnostic, Diagnostic::at)
        });
        return (None, DiagnosticReport::new(file, mask::mask_unparsed(source), errors.collect()));
    }
    let document = document.into_inner();
    let mut problems = Problems::default();
    let directory = file.parent().unwrap_or(Path::new(""));
    let config = resolve(&document, directory, environment, &mut problems);
    let report =
        DiagnosticReport::new(file, mask::mask_parsed(source, &document), problems.into_diagnostics());
    (config.filter(|_| !report.has_errors()), report)
}

/// Resolves the whole file, and records its problems. The result is valid if none of them is an error.
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
        let has_client_certificates = listeners.iter().any(ListenerConfig::requests_client_certificates);
        let routes =
            routes::read(root, &mut realm_names, &realms, &mut upstream_names, has_client_certificates);
        realm_names.warn_of_unused(root);
        upstream_names.warn_of_unused(root);
        let source = ConfigSource(format!("{:#}\n", mask::to_json(document)).into());
        Some(Config { server, admin, listeners, store: store?, realms, upstreams, routes, source })
    })
}
