//! `login`: the login page to which browsers are redirected, instead of the 401 that other clients get.

use http::{Method, StatusCode};

use super::{ACCESS, LocatedRoute, MATCH, pattern};
use crate::config::diagnostic::Diagnostic;
use crate::config::value::Fault;
use crate::config::{HostPattern, LoginTemplate, RouteConfig};
use crate::path::{is_prefix, is_prefix_ignoring_case};

const URI: &str = "{uri}";

/// Parses a path on the same host, with `{uri}` at most once and in its query.
pub(super) fn template(text: &str) -> Result<LoginTemplate, Fault> {
    if !text.starts_with('/') || text.starts_with("//") {
        let hint = "for a login page on another host, use a route with `redirect`, or let the app redirect";
        return Err(Fault::new("must be a path on the same host, beginning with a single `/`").hint(hint));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(Fault::new(format!("must not contain `{}`", c.escape_debug())).hint("percent-encode it"));
    }
    // The same rules as for a route's path. They exclude every path that the gateway would reject when the browser
    // follows the redirect, and some that it would accept, such as `/log%20in`.
    pattern::path(path(text))?;
    let (before, after) = match text.split_once(URI) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    };
    if before.contains(['{', '}']) || after.is_some_and(|after| after.contains(['{', '}'])) {
        return Err(Fault::new("may contain `{uri}` once, and no other braces"));
    }
    if after.is_some() && !before.contains('?') {
        return Err(Fault::new("must have `{uri}` in its query").hint("for example \"/login?next={uri}\""));
    }
    Ok(LoginTemplate { before: before.to_owned(), after: after.map(str::to_owned) })
}

/// Returns the path of a template or URI, without query and fragment.
fn path(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or(text)
}

/// Returns a problem, and the locations that it depends on, if the login page itself requires a login or no route matches
/// it.
pub(super) fn check(located: &LocatedRoute, routes: &[LocatedRoute]) -> Option<(Diagnostic, Vec<String>)> {
    let route = &located.route;
    let login = route.login.as_ref()?;
    match matching_route(routes, route.host.as_ref(), path(&login.before)) {
        Ok(page) if page.route.access.needs_session() && page.route.realm == route.realm => {
            let redirect_loop = Diagnostic::error("the login page itself requires a login");
            let hint = "add a route for it with `access = \"optional\"` or \"public\"";
            let redirect_loop = redirect_loop.hint(hint);
            let other = page.path.clone().filter(|_| !std::ptr::eq(page, located));
            let redirect_loop = other.into_iter().fold(redirect_loop, |redirect_loop, span| {
                redirect_loop.related(span, "this route matches it")
            });
            let mut needs: Vec<_> = routes.iter().flat_map(|route| route.locations(&MATCH)).collect();
            needs.extend(page.locations(&ACCESS));
            needs.extend(located.locations(&["session"]));
            Some((redirect_loop, needs))
        }
        Ok(_) => None,
        Err(status) => {
            let why = match status {
                StatusCode::METHOD_NOT_ALLOWED => "the route of the login page does not accept GET",
                _ => "no route matches the login page",
            };
            let unmatched = Diagnostic::warning(format!("{why}, so browsers get {}", status.as_str()));
            Some((unmatched, vec!["/routes/".to_owned()]))
        }
    }
}

/// Returns the route that matches a GET of `path`, as the router finds it: among the routes with the longest prefix, the
/// one that lists GET, or else the one without methods.
///
/// # Errors
/// Returns the status of the response if no route matches.
fn matching_route<'r>(
    routes: &'r [LocatedRoute],
    host: Option<&HostPattern>,
    path: &str,
) -> Result<&'r LocatedRoute, StatusCode> {
    let matches_path = |route: &RouteConfig| {
        let is_prefix = if route.ignore_case { is_prefix_ignoring_case } else { is_prefix };
        is_prefix(&route.path, path)
    };
    let matching = || {
        routes.iter().filter(|LocatedRoute { route, .. }| route.host.as_ref() == host && matches_path(route))
    };
    let longest = matching().map(|located| located.route.path.len()).max().ok_or(StatusCode::NOT_FOUND)?;
    let accepts_get = |located: &&LocatedRoute| {
        let RouteConfig { path, methods, .. } = &located.route;
        path.len() == longest && (methods.is_empty() || methods.contains(&Method::GET))
    };
    let found = matching().filter(accepts_get).max_by_key(|located| !located.route.methods.is_empty());
    found.ok_or(StatusCode::METHOD_NOT_ALLOWED)
}
