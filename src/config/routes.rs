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
mod require;
pub(super) mod rewrite;
mod streams;
pub(super) mod template;

use std::ops::Range;

use http::{HeaderName, Method};

use self::destination::Destination;
use self::edit::HeaderEdits;
use self::headers::HeaderRule;
pub use self::streams::{StreamsConfig, WebsocketConfig};
use super::RealmConfig;
use super::diagnostic::Diagnostic;
use super::limits;
use super::names::SectionNames;
use super::section::Section;
use super::value::{Fault, boolean, one_of, string, text};
use crate::claims::Requirement;
use crate::path::is_prefix_ignoring_case;
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
    /// Headers of [`OVERRIDES`](crate::headers::OVERRIDES) that clients may send, in lower case.
    pub allow_overrides: Vec<HeaderName>,
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
    /// Whether `//` in the path is merged to `/`; if not, such a path is refused.
    pub merge_slashes: bool,
    /// Whether letters are compared without case.
    pub ignore_case: bool,
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
    /// A user must be logged in; anybody else is refused, or sent to log in.
    Required,
    /// Any session of the realm will do, also one without a user; who has none is refused, or sent to log in.
    Session,
    /// The session is injected if there is one.
    Optional,
    /// The session is never looked up.
    Public,
}

impl Access {
    /// The word of the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Session => "session",
            Self::Optional => "optional",
            Self::Public => "public",
        }
    }

    /// Returns whether a request without a session is turned away.
    pub fn needs_session(self) -> bool {
        matches!(self, Self::Required | Self::Session)
    }
}

/// `login = "/login?next={uri}"`: literal text, with `{uri}` for the percent-encoded path and query of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginTemplate {
    /// Before `{uri}`; all of it where there is no `{uri}`.
    pub before: String,
    /// After `{uri}`; none: there is no `{uri}`.
    pub after: Option<String>,
}

/// The keys that decide who is let through.
const ACCESS: [&str; 2] = ["access", "session"];
/// The keys that decide which requests a route takes.
const MATCH: [&str; 4] = ["host", "path", "methods", "ignore_case"];

/// A route, and where the file says what is checked against other routes.
#[derive(Debug)]
struct Placed {
    route: RouteConfig,
    /// Of the route itself, as checks that depend on its keys name it.
    location: String,
    path: Option<Range<usize>>,
    access: Option<Range<usize>>,
    login: Option<Range<usize>>,
    allow_overrides: Option<Range<usize>>,
    /// What the route itself says of case.
    ignore_case: Option<bool>,
}

pub(super) fn read(
    root: &mut Section<'_, '_>,
    realm_names: &mut SectionNames<'_>,
    realms: &[RealmConfig],
    upstreams: &mut SectionNames<'_>,
    has_clients: bool,
) -> Vec<RouteConfig> {
    if root.is_empty("routes") {
        let missing = Diagnostic::error("there is no `[[routes]]`");
        let missing = missing.hint("add one: `[[routes]]` with `path`, `session` and `upstream`");
        root.report_given(&["routes"], missing, None);
    }
    let mut all_placed = true;
    let routes = root.tables("routes", |section| {
        let placed = route(section, realm_names, upstreams, has_clients);
        all_placed &= placed.is_some();
        placed
    });
    let routes = with_case(routes);
    for (index, placed) in routes.iter().enumerate() {
        if let Some(first) = routes.iter().take(index).find(|first| is_alike(&first.route, &placed.route)) {
            let twice =
                format!("two routes have the path `{}`, and the same host and methods", placed.route.path);
            let twice = Diagnostic::error(twice);
            let twice = first.path.iter().fold(twice, |twice, span| twice.related(span.clone(), "the first"));
            let needs: Vec<_> = [first, placed].iter().flat_map(|route| route.locations(&MATCH)).collect();
            root.report_given(&needs, twice, placed.path.clone());
        }
        let realm = placed.route.realm.and_then(|index| realm_names.name(index));
        let realm = realms.iter().find(|candidate| Some(candidate.name.as_str()) == realm);
        if let Some(diagnostic) = realm.and_then(|realm| check_user(&placed.route, realm)) {
            let mut needs = placed.locations(&ACCESS);
            needs.extend(realm.map(|realm| format!("/sessions/{}/user", realm.name)));
            root.report_given(&needs, diagnostic, placed.access.clone());
        }
        if let Some((diagnostic, needs)) = check_overrides(placed, &routes) {
            root.report_given(&needs, diagnostic, placed.allow_overrides.clone());
        }
        // The route that leads to the log-in page may be one that is not placed.
        if let Some((diagnostic, needs)) = login::check(placed, &routes).filter(|_| all_placed) {
            root.report_given(&needs, diagnostic, placed.login.clone());
        }
    }
    routes.into_iter().map(|placed| placed.route).collect()
}

/// One route; none if what it matches is wrong. What is wrong with its other parts does not hide it from the checks
/// against other routes: a file with an error is not used, so it does not matter what stands in for the wrong part.
fn route(
    section: &mut Section<'_, '_>,
    realms: &mut SectionNames<'_>,
    upstreams: &mut SectionNames<'_>,
    has_clients: bool,
) -> Option<Placed> {
    let host = section.get("host", text(pattern::host));
    let path = section.require("path", text(pattern::path));
    let methods = section.list("methods", text(pattern::method));
    if methods.as_ref().is_some_and(Vec::is_empty) {
        section.refuse("methods", &[], Fault::new("is empty").hint("leave it out for all methods"));
    }
    let realm = section.get("session", |value| realms.resolve(&string(value)?));
    let access = access(section);
    let require = section.table("require", require::read);
    let login = section.get("login", text(login::template));
    for key in ["require", "login"] {
        if section.has(key) && !access.needs_session() {
            let fault = Fault::new("has no effect unless the route's `access` is `required` or `session`");
            section.refuse(key, &ACCESS, fault);
        }
    }
    let name = format!(
        "{}{}",
        host.as_ref().map(HostPattern::to_string).unwrap_or_default(),
        path.as_deref().unwrap_or_default()
    );
    let headers = section.table("headers", |section| headers::read(section, has_clients));
    let request_headers = edit::request(section, &name, &headers);
    let allow_overrides = edit::overrides(section, &request_headers);
    let response_headers = edit::response(section, &name);
    // What a certificate says is known without asking anybody.
    let of_session = headers.is_empty() || headers.iter().any(|rule| !rule.is_of_certificate());
    if section.has("headers") && of_session && access == Access::Public {
        section.refuse("headers", &["access", "session", "headers/"], needs_session());
    }
    let mut switch = |key: &'static str| {
        let is_on = section.get(key, boolean).unwrap_or(false);
        if is_on && access == Access::Public {
            section.refuse(key, &ACCESS, needs_session());
        }
        is_on
    };
    let (writes, flash, csrf) = (switch("writes"), switch("flash"), switch("csrf"));
    let streams = streams::read(section, access);
    let rate = limits::rate(section, "rate");
    let destination = destination::read(section, path.as_deref(), upstreams);
    let encoded_slashes = section.get("encoded_slashes", one_of(&[("refuse", false), ("pass", true)]));
    let merge_slashes = section.get("duplicate_slashes", one_of(&[("refuse", false), ("merge", true)]));
    let ignore_case = section.get("ignore_case", boolean);

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
        allow_overrides,
        request_headers,
        response_headers,
        rate,
        destination,
        encoded_slashes: encoded_slashes.unwrap_or(false),
        merge_slashes: merge_slashes.unwrap_or(false),
        // Until the routes above it are known.
        ignore_case: ignore_case.unwrap_or(false),
    };
    let login = section.has("login").then(|| section.span("login")).flatten();
    let access = section.span(if section.has("access") { "access" } else { "session" });
    let (path, allow_overrides) = (section.span("path"), section.span("allow_overrides"));
    let location = section.location("");
    Some(Placed { route, location, path, access, login, allow_overrides, ignore_case })
}

impl Placed {
    /// The locations of `keys` of the route.
    fn locations(&self, keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| format!("{}{key}", self.location)).collect()
    }
}

fn access(section: &mut Section<'_, '_>) -> Access {
    let words = [Access::Required, Access::Session, Access::Optional, Access::Public];
    let given = section.get("access", one_of(&words.map(|access| (access.word(), access))));
    match (section.has("session"), given) {
        (false, Some(Access::Required | Access::Session | Access::Optional)) => {
            let fault = Fault::new("needs a session, but the route has none");
            let fault = fault.hint("add `session`, or set `access = \"public\"`");
            section.refuse("access", &["session"], fault);
        }
        (false, None) if !section.has("access") => {
            let silent = Diagnostic::error("a route says neither `session` nor `access = \"public\"`");
            section.report_given(
                &ACCESS,
                silent.hint("name the session that it needs, or say that everyone may pass"),
                section.here(),
            );
        }
        // With a public route, a session says whose cookie is kept from the upstream, or taken from it at log-in.
        (true, _) | (false, Some(Access::Public) | None) => {}
    }
    given.unwrap_or(if section.has("session") { Access::Required } else { Access::Public })
}

/// What to say of a key that a public route has no use for.
fn needs_session() -> Fault {
    Fault::new("needs a session, and a public route looks none up").hint(
        "with `access = \"optional\"` everybody may pass, too, and the session is looked up; a log-in page needs that",
    )
}

/// Returns an error if the route is for users who are logged in, and its realm's sessions do not say who is.
fn check_user(route: &RouteConfig, realm: &RealmConfig) -> Option<Diagnostic> {
    if route.access != Access::Required || !realm.user.is_unknown() {
        return None;
    }
    let name = &realm.name;
    let message = format!(
        "the route is for users who are logged in, but `sessions.{name}` does not say which claim names the user"
    );
    let hint = format!(
        "set `user = \"CLAIM\"` in `[sessions.{name}]`, or `access = \"session\"` to let any session through"
    );
    Some(Diagnostic::error(message).hint(hint))
}

/// Returns an error if `placed` allows clients a header that a route writes itself, and the locations that it depends on.
fn check_overrides(placed: &Placed, routes: &[Placed]) -> Option<(Diagnostic, Vec<String>)> {
    let allowed = &placed.route.allow_overrides;
    let writes = |other: &Placed| {
        let set = other.route.request_headers.set.iter().map(|edit| &edit.name);
        let injected = other.route.headers.iter().map(|rule| &rule.name);
        set.chain(injected).find(|name| allowed.contains(name)).cloned()
    };
    let (writer, name) = routes.iter().find_map(|other| Some((other, writes(other)?)))?;
    let message = format!(
        "`routes.allow_overrides` holds `{name}`, which clients can send on no route, since one of them sets it"
    );
    let mut needs = placed.locations(&["allow_overrides"]);
    needs.extend(writer.locations(&["headers/", "request_headers/"]));
    Some((Diagnostic::error(message), needs))
}

/// The routes with `ignore_case` as the nearest route that says so has it, of those of the same host with the same path or
/// one above it. An upstream that ignores case does so of what is below, too.
fn with_case(mut routes: Vec<Placed>) -> Vec<Placed> {
    let ignored: Vec<bool> = routes
        .iter()
        .map(|Placed { route, .. }| {
            let above = routes.iter().filter(|above| {
                above.ignore_case.is_some()
                    && above.route.host == route.host
                    && is_prefix_ignoring_case(&above.route.path, &route.path)
            });
            let nearest = above.max_by_key(|above| (above.route.path.len(), above.ignore_case));
            nearest.and_then(|above| above.ignore_case).unwrap_or(false)
        })
        .collect();
    for (placed, ignored) in routes.iter_mut().zip(ignored) {
        placed.route.ignore_case = ignored;
    }
    routes
}

/// Whether one request could be meant for both. A route that names methods goes before one that takes all, so these two
/// are not alike.
fn is_alike(one: &RouteConfig, other: &RouteConfig) -> bool {
    let both_take_all = one.methods.is_empty() && other.methods.is_empty();
    let ignore_case = one.ignore_case || other.ignore_case;
    one.host == other.host
        && (one.path == other.path || ignore_case && one.path.eq_ignore_ascii_case(&other.path))
        && (both_take_all || one.methods.iter().any(|method| other.methods.contains(method)))
}
