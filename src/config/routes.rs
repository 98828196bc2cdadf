//! `[[routes]]`
//!
//! Who may see what is said here, so nothing about it is implied: a route without a session says `access = "public"`, and
//! no option stands where it would do nothing.

pub(super) mod destination;
pub(super) mod edit;
pub(super) mod headers;
mod login;
mod pattern;
pub(super) mod redirect;
pub(super) mod rewrite;
mod streams;
pub(super) mod template;

use std::ops::Range;

use http::Method;
use serde_json::Value;
use toml::de::DeValue;

use self::destination::Destination;
use self::edit::HeaderEdits;
use self::headers::HeaderRule;
pub use self::streams::{StreamsConfig, WebsocketConfig};
use super::diagnostic::Diagnostic;
use super::limits;
use super::names::Names;
use super::section::Section;
use super::value::{Fault, boolean, one_of, string, text, wrong_type};
use crate::claims::ClaimPath;
use crate::rate::Rate;

/// One of `[[routes]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// How the access log names it: its `host` and `path` as configured.
    pub name: String,
    /// Which hosts; none: those that no other route names.
    pub host: Option<HostPattern>,
    /// A path prefix, matched on a segment boundary. Begins with `/`; has no trailing `/` unless it is `/` itself.
    pub path: String,
    /// Which methods; empty: all.
    pub methods: Vec<Method>,
    /// Index into [`Config::realms`](super::Config::realms); always there unless `access` is `Public`.
    pub realm: Option<usize>,
    /// The rule.
    pub access: Access,
    /// Claims that must hold, all of them.
    pub require: Vec<Requirement>,
    /// Where a browser without a session is sent.
    pub login: Option<LoginTemplate>,
    /// Headers to inject.
    pub headers: Vec<HeaderRule>,
    /// Whether the upstream may change the session.
    pub writes: bool,
    /// Whether the session's flash messages are taken out and handed over.
    pub flash: bool,
    /// Whether unsafe methods need a proof that they come from this site.
    pub csrf: bool,
    /// What goes on for long: WebSockets, streams of events.
    pub streams: StreamsConfig,
    /// What is done to the headers of what is forwarded.
    pub request_headers: HeaderEdits,
    /// What is done to the headers of every answer.
    pub response_headers: HeaderEdits,
    /// How often a client's address may ask for it.
    pub rate: Option<Rate>,
    /// Where requests go.
    pub destination: Destination,
    /// Whether `%2F` may stand in the path.
    pub encoded_slashes: bool,
}

/// A route's host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host: lower case, no port, no trailing dot.
    Exact(String),
    /// Any host below this one: `*.example.com` is held as `example.com`.
    Below(String),
}

/// A route's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No session: refused, or sent to log in.
    Required,
    /// Injected if it is there.
    Optional,
    /// Never looked up.
    Public,
}

/// One line of `require`: the claim is, or holds, one of the values.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// Which claim.
    pub claim: ClaimPath,
    /// Strings, whole numbers and booleans; at least one.
    pub any_of: Vec<Value>,
}

/// `login = "/login?next={uri}"`: literal text, with `{uri}` for the percent-encoded path and query of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginTemplate {
    /// Before `{uri}`; all of it where there is no `{uri}`.
    pub before: String,
    /// After `{uri}`; none: there is no `{uri}`.
    pub after: Option<String>,
}

/// A route, and where the file says what is checked against other routes.
#[derive(Debug)]
struct Placed {
    route: RouteConfig,
    path: Option<Range<usize>>,
    login: Option<Range<usize>>,
}

pub(super) fn read(
    root: &mut Section<'_, '_>,
    realms: &mut Names<'_>,
    upstreams: &mut Names<'_>,
    has_clients: bool,
) -> Vec<RouteConfig> {
    if root.is_empty("routes") {
        let missing = Diagnostic::error("there is no `[[routes]]`");
        root.report(missing.hint("add one: `[[routes]]` with `path`, `session` and `upstream`"), None);
    }
    let mut all_placed = true;
    let routes = root.tables("routes", |section| {
        let placed = route(section, realms, upstreams, has_clients);
        all_placed &= placed.is_some();
        placed
    });
    for (index, placed) in routes.iter().enumerate() {
        if let Some(first) = routes.iter().take(index).find(|first| is_alike(&first.route, &placed.route)) {
            let twice =
                format!("two routes have the path `{}`, and the same host and methods", placed.route.path);
            let twice = Diagnostic::error(twice);
            let twice = first.path.iter().fold(twice, |twice, span| twice.related(span.clone(), "the first"));
            root.report(twice, placed.path.clone());
        }
        // The route that leads to the log-in page may be one that is not placed.
        if let Some(diagnostic) = login::check(placed, &routes).filter(|_| all_placed) {
            root.report(diagnostic, placed.login.clone());
        }
    }
    routes.into_iter().map(|placed| placed.route).collect()
}

/// One route; none if what it matches is wrong. What is wrong with its other parts does not hide it from the checks
/// against other routes: a file with an error is not used, so it does not matter what stands in for the wrong part.
fn route(
    section: &mut Section<'_, '_>,
    realms: &mut Names<'_>,
    upstreams: &mut Names<'_>,
    has_clients: bool,
) -> Option<Placed> {
    let host = section.get("host", text(pattern::host));
    let path = section.require("path", text(pattern::path));
    let methods = section.list("methods", text(pattern::method));
    if methods.as_ref().is_some_and(Vec::is_empty) {
        section.refuse("methods", Fault::new("is empty").hint("leave it out for all methods"));
    }
    let realm = section.get("session", |value| realms.resolve(&string(value)?));
    let access = access(section);
    let require = section.table("require", requirements);
    let login = section.get("login", text(login::template));
    for key in ["require", "login"] {
        if section.has(key) && access != Access::Required {
            let fault = Fault::new("has no effect unless the route's `access` is `required`");
            section.refuse(key, fault);
        }
    }
    let name = format!(
        "{}{}",
        host.as_ref().map(HostPattern::to_string).unwrap_or_default(),
        path.as_deref().unwrap_or_default()
    );
    let headers = section.table("headers", |section| headers::read(section, has_clients));
    let request_headers = edit::request(section, &name, &headers);
    let response_headers = edit::response(section, &name);
    // What a certificate says is known without asking anybody.
    let of_session = headers.is_empty() || headers.iter().any(|rule| !rule.is_of_certificate());
    if section.has("headers") && of_session && access == Access::Public {
        section.refuse("headers", Fault::new("needs a session, and a public route looks none up"));
    }
    let mut switch = |key: &'static str| {
        let is_on = section.get(key, boolean).unwrap_or(false);
        if is_on && access == Access::Public {
            section.refuse(key, Fault::new("needs a session, and a public route looks none up"));
        }
        is_on
    };
    let (writes, flash, csrf) = (switch("writes"), switch("flash"), switch("csrf"));
    let streams = streams::read(section, access);
    let rate = limits::rate(section, "rate");
    let destination = destination::read(section, path.as_deref(), upstreams);
    let encoded_slashes = section.get("encoded_slashes", one_of(&[("refuse", false), ("pass", true)]));

    let is_placed = host.is_some() == section.has("host") && methods.is_some() == section.has("methods");
    let path = path.filter(|_| is_placed)?;
    let route = RouteConfig {
        name,
        host,
        path,
        methods: methods.unwrap_or_default(),
        realm,
        access,
        require,
        login,
        headers,
        writes,
        flash,
        csrf,
        streams,
        request_headers,
        response_headers,
        rate,
        destination,
        encoded_slashes: encoded_slashes.unwrap_or(false),
    };
    let login = section.has("login").then(|| section.span("login")).flatten();
    Some(Placed { route, path: section.span("path"), login })
}

fn access(section: &mut Section<'_, '_>) -> Access {
    let words = [("required", Access::Required), ("optional", Access::Optional), ("public", Access::Public)];
    let given = section.get("access", one_of(&words));
    match (section.has("session"), given) {
        (false, Some(Access::Required | Access::Optional)) => {
            let fault = Fault::new("needs a session, but the route has none");
            section.refuse("access", fault.hint("add `session`, or set `access = \"public\"`"));
        }
        (false, None) if !section.has("access") => {
            let silent = Diagnostic::error("a route says neither `session` nor `access = \"public\"`");
            section.report(
                silent.hint("name the session that it needs, or say that everyone may pass"),
                section.here(),
            );
        }
        // With a public route, a session says whose cookie is kept from the upstream, or taken from it at log-in.
        (true, _) | (false, Some(Access::Public) | None) => {}
    }
    given.unwrap_or(if section.has("session") { Access::Required } else { Access::Public })
}

fn requirements(section: &mut Section<'_, '_>) -> Vec<Requirement> {
    section.entries(|section, entry| {
        let Some(claim) = ClaimPath::parse(entry.name) else {
            section.refuse_at(entry.name, entry.span, Fault::new("is not the path of a claim"));
            return None;
        };
        match values(entry.value.get_ref(), &claim) {
            Ok(any_of) => Some(Requirement { claim, any_of }),
            Err(fault) => {
                section.refuse_at(entry.name, entry.value.span(), fault);
                None
            }
        }
    })
}

/// A value, or a list of them.
fn values(value: &DeValue<'_>, claim: &ClaimPath) -> Result<Vec<Value>, Fault> {
    let wanted = "a string, an integer or a boolean, or a list of them";
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(Value::from(text.as_ref())),
        DeValue::Boolean(boolean) => Ok(Value::from(*boolean)),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map(Value::from)
            .map_err(|_| Fault::new("is too large a number")),
        DeValue::Table(_) => {
            let hint = format!("a claim inside another one is quoted: \"{}.name\" = …", claim.as_str());
            Err(wrong_type(value, wanted).hint(hint))
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) => Err(wrong_type(value, wanted)),
    };
    match value.as_array() {
        Some(array) if array.is_empty() => Err(Fault::new("lists no value, so that nobody could pass")),
        Some(array) => array.iter().map(|element| scalar(element.get_ref())).collect(),
        None => Ok(vec![scalar(value)?]),
    }
}

/// Whether one request could be meant for both. A route that names methods goes before one that takes all, so these two
/// are not alike.
fn is_alike(one: &RouteConfig, other: &RouteConfig) -> bool {
    let both_take_all = one.methods.is_empty() && other.methods.is_empty();
    one.host == other.host
        && one.path == other.path
        && (both_take_all || one.methods.iter().any(|method| other.methods.contains(method)))
}
