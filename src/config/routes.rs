//! `[[routes]]`
//!
//! Routes decide who may see what, so nothing is implied: a route without a session must set `access = "public"`, and a
//! setting without effect is an error.

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
    /// The route's name in the access log: its `host` and `path`, normalized.
    pub name: String,
    /// The hosts that the route matches. `None` matches the hosts that no other route names.
    pub host: Option<HostPattern>,
    /// The path prefix, matched on segment boundaries. Begins with `/`, and ends with `/` only if it is `/` itself.
    pub path: String,
    /// The methods that the route matches. Empty matches all.
    pub methods: Vec<Method>,
    /// Index into [`Config::realms`](super::Config::realms). Always `Some` unless `access` is `Public`.
    pub realm: Option<usize>,
    /// The access rule.
    pub access: Access,
    /// Requirements on the session's claims, all of which must hold.
    pub require: Vec<Requirement>,
    /// The login page to which browsers are redirected, instead of the 401 that other clients get.
    pub login: Option<LoginTemplate>,
    /// The injected headers.
    pub headers: Vec<HeaderRule>,
    /// Whether the upstream may change the session.
    pub writes: bool,
    /// Whether flash messages are removed from the session and sent to the upstream.
    pub flash: bool,
    /// Whether requests with unsafe methods must prove that they come from this site (CSRF).
    pub csrf: bool,
    /// Settings of WebSockets and long-lived responses.
    pub streams: StreamsConfig,
    /// Headers of [`OVERRIDES`](crate::headers::OVERRIDES) that clients may send, in lower case.
    pub allow_overrides: Vec<HeaderName>,
    /// Edits of the headers of forwarded requests.
    pub request_headers: HeaderEdits,
    /// Edits of the headers of every response.
    pub response_headers: HeaderEdits,
    /// Limit on the requests of one client address to this route.
    pub rate: Option<Rate>,
    /// The destination of requests.
    pub destination: Destination,
    /// Whether `%2F` is allowed in the path.
    pub encoded_slashes: bool,
    /// Whether `//` in the path is merged into `/`. Otherwise such a path is rejected.
    pub merge_slashes: bool,
    /// Whether the path is matched case-insensitively.
    pub ignore_case: bool,
}

/// A pattern of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// One host: lower case, no port, no trailing dot.
    Exact(String),
    /// Any subdomain of this host: `example.com` for `*.example.com`.
    Subdomains(String),
}

/// An access rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Requires a session of a logged-in user. Other clients are rejected or redirected to the login page.
    Required,
    /// Requires a session, with or without a user. Other clients are rejected or redirected to the login page.
    Session,
    /// Requires nothing. The session is injected if there is one.
    Optional,
    /// Requires nothing. The session is not looked up.
    Public,
}

impl Access {
    /// Returns the value in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Session => "session",
            Self::Optional => "optional",
            Self::Public => "public",
        }
    }

    /// Returns whether requests without a session are rejected.
    pub fn needs_session(self) -> bool {
        matches!(self, Self::Required | Self::Session)
    }
}

/// `login = "/login?next={uri}"`: literal text, where `{uri}` stands for the percent-encoded path and query of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginTemplate {
    /// The text before `{uri}`, or all of it if there is no `{uri}`.
    pub before: String,
    /// The text after `{uri}`. `None` if there is no `{uri}`.
    pub after: Option<String>,
}

/// The keys that determine the access rule.
const ACCESS: [&str; 2] = ["access", "session"];
/// The keys that determine which requests a route matches.
const MATCH: [&str; 4] = ["host", "path", "methods", "ignore_case"];

/// A route with the positions of the keys that are checked against other routes.
#[derive(Debug)]
struct LocatedRoute {
    route: RouteConfig,
    /// The route's location, as the `needs` of a check refer to it.
    location: String,
    path: Option<Range<usize>>,
    access: Option<Range<usize>>,
    login: Option<Range<usize>>,
    allow_overrides: Option<Range<usize>>,
    /// The route's own `ignore_case`, if it is set.
    ignore_case: Option<bool>,
}

pub(super) fn read(
    root: &mut Section<'_, '_>,
    realm_names: &mut SectionNames<'_>,
    realms: &[RealmConfig],
    upstreams: &mut SectionNames<'_>,
    has_client_certificates: bool,
) -> Vec<RouteConfig> {
    if root.is_empty("routes") {
        let missing = Diagnostic::error("no `[[routes]]` is configured");
        let missing = missing.hint("add `[[routes]]` with `path`, `session` and `upstream`");
        root.report_unless_broken(&["routes"], missing, None);
    }
    let mut all_valid = true;
    let routes = root.tables("routes", |section| {
        let located = route(section, realm_names, upstreams, has_client_certificates);
        all_valid &= located.is_some();
        located
    });
    let routes = inherit_ignore_case(routes);
    for (index, located) in routes.iter().enumerate() {
        if let Some(first) = routes.iter().take(index).find(|first| overlap(&first.route, &located.route)) {
            let twice = format!(
                "two routes have the path `{}`, the same host and a method in common",
                located.route.path
            );
            let twice = Diagnostic::error(twice);
            let twice = first.path.iter().fold(twice, |twice, span| twice.related(span.clone(), "the first"));
            let needs: Vec<_> = [first, located].iter().flat_map(|route| route.locations(&MATCH)).collect();
            root.report_unless_broken(&needs, twice, located.path.clone());
        }
        let realm = located.route.realm.and_then(|index| realm_names.name(index));
        let realm = realms.iter().find(|candidate| Some(candidate.name.as_str()) == realm);
        if let Some(diagnostic) = realm.and_then(|realm| check_user(&located.route, realm)) {
            let mut needs = located.locations(&ACCESS);
            needs.extend(realm.map(|realm| format!("/sessions/{}/user", realm.name)));
            root.report_unless_broken(&needs, diagnostic, located.access.clone());
        }
        if let Some((diagnostic, needs)) = check_overrides(located, &routes) {
            root.report_unless_broken(&needs, diagnostic, located.allow_overrides.clone());
        }
        // The login page's route may be among the invalid ones.
        if let Some((diagnostic, needs)) = login::check(located, &routes).filter(|_| all_valid) {
            root.report_unless_broken(&needs, diagnostic, located.login.clone());
        }
    }
    routes.into_iter().map(|located| located.route).collect()
}

/// Reads one route. Returns `None` if the keys that match requests are invalid. With other errors the route is still
/// checked against the others: the file is rejected anyway, so the defaults in place of invalid values do no harm.
fn route(
    section: &mut Section<'_, '_>,
    realms: &mut SectionNames<'_>,
    upstreams: &mut SectionNames<'_>,
    has_client_certificates: bool,
) -> Option<LocatedRoute> {
    let host = section.get("host", text(pattern::host));
    let path = section.require("path", text(pattern::path));
    let methods = section.list("methods", text(pattern::method));
    if methods.as_ref().is_some_and(Vec::is_empty) {
        section.refuse("methods", &[], Fault::new("is empty").hint("omit it to match all methods"));
    }
    let realm = section.get("session", |value| realms.resolve(&string(value)?));
    let access = access(section);
    let require = section.table("require", require::read);
    let login = section.get("login", text(login::template));
    for key in ["require", "login"] {
        if section.has(key) && !access.needs_session() {
            let fault = Fault::new("has no effect unless `access` is `required` or `session`");
            section.refuse(key, &ACCESS, fault);
        }
    }
    let name = format!(
        "{}{}",
        host.as_ref().map(HostPattern::to_string).unwrap_or_default(),
        path.as_deref().unwrap_or_default()
    );
    let headers = section.table("headers", |section| headers::read(section, has_client_certificates));
    let request_headers = edit::request(section, &name, &headers);
    let allow_overrides = edit::overrides(section, &request_headers);
    let response_headers = edit::response(section, &name);
    // Headers from client certificates need no session.
    let from_session = headers.is_empty() || headers.iter().any(|rule| !rule.is_from_certificate());
    if section.has("headers") && from_session && access == Access::Public {
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

    let is_valid = host.is_some() == section.has("host") && methods.is_some() == section.has("methods");
    let path = path.filter(|_| is_valid)?;
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
        // Replaced by `inherit_ignore_case`.
        ignore_case: ignore_case.unwrap_or(false),
    };
    let login = section.has("login").then(|| section.span("login")).flatten();
    let access = section.span(if section.has("access") { "access" } else { "session" });
    let (path, allow_overrides) = (section.span("path"), section.span("allow_overrides"));
    let location = section.location("");
    Some(LocatedRoute { route, location, path, access, login, allow_overrides, ignore_case })
}

impl LocatedRoute {
    /// Returns the locations of the route's `keys`.
    fn locations(&self, keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| format!("{}{key}", self.location)).collect()
    }
}

fn access(section: &mut Section<'_, '_>) -> Access {
    let words = [Access::Required, Access::Session, Access::Optional, Access::Public];
    let given = section.get("access", one_of(&words.map(|access| (access.as_str(), access))));
    match (section.has("session"), given) {
        (false, Some(Access::Required | Access::Session | Access::Optional)) => {
            let fault = Fault::new("needs a session, but the route has none");
            let fault = fault.hint("add `session`, or set `access = \"public\"`");
            section.refuse("access", &["session"], fault);
        }
        (false, None) if !section.has("access") => {
            let missing = Diagnostic::error("a route sets neither `session` nor `access = \"public\"`");
            section.report_unless_broken(
                &ACCESS,
                missing.hint("set `session` to its realm, or `access = \"public\"` to let everyone through"),
                section.own_span(),
            );
        }
        // On a public route, `session` names the realm whose cookie is handled without a lookup.
        (true, _) | (false, Some(Access::Public) | None) => {}
    }
    given.unwrap_or(if section.has("session") { Access::Required } else { Access::Public })
}

/// Returns the fault of a setting that has no effect on a public route.
fn needs_session() -> Fault {
    Fault::new("needs a session, which a public route does not look up")
        .hint("use `access = \"optional\"`, which also lets everyone through, for example for a login page")
}

/// Returns an error if the route is for logged-in users, but its realm has no claim that names the user.
fn check_user(route: &RouteConfig, realm: &RealmConfig) -> Option<Diagnostic> {
    if route.access != Access::Required || !realm.user.is_unset() {
        return None;
    }
    let name = &realm.name;
    let message = format!(
        "the route is for logged-in users, but `sessions.{name}` does not set the claim that names the `user`"
    );
    let hint = format!(
        "set `user = \"CLAIM\"` in `[sessions.{name}]`, or `access = \"session\"` to let any session through"
    );
    Some(Diagnostic::error(message).hint(hint))
}

/// Returns an error, and the locations that it depends on, if `located` lets clients send a header that a route sets.
fn check_overrides(located: &LocatedRoute, routes: &[LocatedRoute]) -> Option<(Diagnostic, Vec<String>)> {
    let allowed = &located.route.allow_overrides;
    let writes = |other: &LocatedRoute| {
        let set = other.route.request_headers.set.iter().map(|edit| &edit.name);
        let injected = other.route.headers.iter().map(|rule| &rule.name);
        set.chain(injected).find(|name| allowed.contains(name)).cloned()
    };
    let (writer, name) = routes.iter().find_map(|other| Some((other, writes(other)?)))?;
    let message = format!(
        "`routes.allow_overrides` contains `{name}`, which is removed from requests on every route, since a route sets it"
    );
    let mut needs = located.locations(&["allow_overrides"]);
    needs.extend(writer.locations(&["headers/", "request_headers/"]));
    Some((Diagnostic::error(message), needs))
}

/// Sets each route's `ignore_case` to the value of the nearest route that sets it: the one with the same host and the
/// longest prefix of the route's path. If several such routes have equally long paths, `true` wins, even over the
/// route's own `false`. An upstream that ignores case does so for all paths below.
fn inherit_ignore_case(mut routes: Vec<LocatedRoute>) -> Vec<LocatedRoute> {
    let ignored: Vec<bool> = routes
        .iter()
        .map(|LocatedRoute { route, .. }| {
            let above = routes.iter().filter(|above| {
                above.ignore_case.is_some()
                    && above.route.host == route.host
                    && is_prefix_ignoring_case(&above.route.path, &route.path)
            });
            let nearest = above.max_by_key(|above| (above.route.path.len(), above.ignore_case));
            nearest.and_then(|above| above.ignore_case).unwrap_or(false)
        })
        .collect();
    for (located, ignored) in routes.iter_mut().zip(ignored) {
        located.route.ignore_case = ignored;
    }
    routes
}

/// Returns whether a request could match both routes with the same priority. A route with methods has priority over one
/// without.
fn overlap(one: &RouteConfig, other: &RouteConfig) -> bool {
    let both_match_all = one.methods.is_empty() && other.methods.is_empty();
    let ignore_case = one.ignore_case || other.ignore_case;
    one.host == other.host
        && (one.path == other.path || ignore_case && one.path.eq_ignore_ascii_case(&other.path))
        && (both_match_all || one.methods.iter().any(|method| other.methods.contains(method)))
}
