//! `login`: where a browser without a session is sent.

use http::Method;

use super::{ACCESS, MATCH, Placed, pattern};
use crate::config::diagnostic::Diagnostic;
use crate::config::value::Fault;
use crate::config::{HostPattern, LoginTemplate, RouteConfig};
use crate::path::{is_prefix, is_prefix_ignoring_case};

const URI: &str = "{uri}";

/// A path on the same host, with `{uri}` at most once and in its query.
pub(super) fn template(text: &str) -> Result<LoginTemplate, Fault> {
    if !text.starts_with('/') || text.starts_with("//") {
        let hint = "a log-in page elsewhere is a page of an upstream that redirects";
        return Err(Fault::new("must be a path on the same host, with one `/` in front").hint(hint));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(
            Fault::new(format!("must not hold `{}`", c.escape_debug())).hint("write it percent-encoded")
        );
    }
    // Held to what a route's path is: anything else would be refused when the browser follows it.
    pattern::path(path(text))?;
    let (before, after) = match text.split_once(URI) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    };
    if before.contains(['{', '}']) || after.is_some_and(|after| after.contains(['{', '}'])) {
        return Err(Fault::new("may hold `{uri}` once, and no other braces"));
    }
    if after.is_some() && !before.contains('?') {
        return Err(Fault::new("must have `{uri}` in its query").hint("such as \"/login?next={uri}\""));
    }
    Ok(LoginTemplate { before: before.to_owned(), after: after.map(str::to_owned) })
}

/// The path of a template or of a URI, without query and fragment.
fn path(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or(text)
}

/// Whether a browser that is sent to log in arrives somewhere: not where it would be sent to log in again. Also returns
/// the locations of the keys that decide.
pub(super) fn check(placed: &Placed, routes: &[Placed]) -> Option<(Diagnostic, Vec<String>)> {
    let route = &placed.route;
    let login = route.login.as_ref()?;
    match taken(routes, route.host.as_ref(), path(&login.before)) {
        Some(page) if page.route.access.needs_session() && page.route.realm == route.realm => {
            let endless = Diagnostic::error("the log-in page would itself need a log-in");
            let hint = "give it a route of its own, with `access = \"optional\"` or \"public\"";
            let endless = endless.hint(hint);
            let other = page.path.clone().filter(|_| !std::ptr::eq(page, placed));
            let endless = other
                .into_iter()
                .fold(endless, |endless, span| endless.related(span, "it falls into this route"));
            let mut needs: Vec<_> = routes.iter().flat_map(|route| route.locations(&MATCH)).collect();
            needs.extend(page.locations(&ACCESS));
            needs.extend(placed.locations(&["session"]));
            Some((endless, needs))
        }
        Some(_) => None,
        None => {
            let lost = Diagnostic::warning("no route leads to the log-in page, so it is not found");
            Some((lost, vec!["/routes/".to_owned()]))
        }
    }
}

/// The route that a browser's GET of `path` takes: that of the longest prefix, and of two the one that names the method.
fn taken<'r>(routes: &'r [Placed], host: Option<&HostPattern>, path: &str) -> Option<&'r Placed> {
    let takes = |route: &RouteConfig| {
        let is_prefix = if route.ignore_case { is_prefix_ignoring_case } else { is_prefix };
        is_prefix(&route.path, path)
    };
    let candidates = routes.iter().filter(|Placed { route, .. }| {
        let method = route.methods.is_empty() || route.methods.contains(&Method::GET);
        route.host.as_ref() == host && method && takes(route)
    });
    candidates.max_by_key(|Placed { route, .. }| (route.path.len(), !route.methods.is_empty()))
}
