//! Finds the route of a request by host, path and method.
//!
//! 1. The host selects a group of routes: an exact name before a wildcard, a longer wildcard before a shorter one, and
//!    the routes without a host if nothing else matches. There is no fallback from one group to another.
//! 2. Within the group the longest path prefix wins, on a segment boundary. The query is ignored.
//! 3. Among the routes of that prefix, one that lists the method wins over one without methods. If none matches, the
//!    response is 405: there is no fallback to a shorter prefix, whose access rule may be weaker.
//! 4. A path that servers could interpret differently is rejected; see [`ambiguity`]. So is a path that would match
//!    another route after decoding, or without its `;` parameters.
//! 5. A path with `//` is rejected as well, unless the route of the merged path has `merge_slashes`. Then the gateway
//!    handles the request as one for the merged path.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::config::{HostPattern, RouteConfig};
use crate::path::{is_prefix, is_prefix_ignoring_case, merge_slashes};

/// A routing table.
#[derive(Debug)]
pub struct Router<R> {
    exact: HashMap<String, Group<R>>,
    /// Parent domains of wildcards, longest first.
    wildcards: Vec<(String, Group<R>)>,
    /// The routes without a host.
    any_host: Group<R>,
}

/// The routes of one host pattern: longest prefix first, then those with methods before those without.
type Group<R> = Vec<Entry<R>>;

#[derive(Debug)]
struct Entry<R> {
    path: String,
    methods: Vec<Method>,
    encoded_slashes: bool,
    merge_slashes: bool,
    ignore_case: bool,
    route: Arc<R>,
}

/// A matching route.
#[derive(Debug)]
pub struct RouteMatch<'r, R> {
    /// The route.
    pub route: &'r Arc<R>,
    /// The merged path, which replaces the requested one, if slashes were merged.
    pub merged: Option<String>,
}

/// The reason why a request has no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No route matches the host and path.
    NotFound,
    /// Routes match the path but not the method; they allow these methods.
    Method(Vec<Method>),
    /// Servers could interpret the path differently.
    Ambiguous(Ambiguity),
}

/// The reason why servers could interpret a path differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguity {
    /// The path does not begin with `/`.
    Relative,
    /// `//`
    EmptySegment,
    /// A `.` or `..` segment, plain or encoded.
    DotSegment,
    /// `\`, plain or encoded.
    Backslash,
    /// An encoded `/`, which the route does not allow.
    EncodedSlash,
    /// An encoded NUL.
    Nul,
    /// An incomplete `%` sequence, double encoding, an overlong UTF-8 sequence, or a path that would match another
    /// route after decoding.
    Encoding,
    /// The path would match another route without its `;` parameters.
    Parameters,
}

impl<R> Router<R> {
    /// Creates a router from the configuration of each route and the value that [`find`](Self::find) returns for it.
    pub fn new<'c>(routes: impl IntoIterator<Item = (&'c RouteConfig, Arc<R>)>) -> Self {
        let mut router = Self { exact: HashMap::new(), wildcards: Vec::new(), any_host: Vec::new() };
        for (config, route) in routes {
            let group = match &config.host {
                None => &mut router.any_host,
                Some(HostPattern::Exact(host)) => router.exact.entry(host.clone()).or_default(),
                Some(HostPattern::Subdomains(host)) => {
                    let known = router.wildcards.iter().position(|(other, _)| other == host);
                    let at = known.unwrap_or_else(|| {
                        router.wildcards.push((host.clone(), Vec::new()));
                        router.wildcards.len() - 1
                    });
                    match router.wildcards.get_mut(at) {
                        Some((_, group)) => group,
                        None => continue,
                    }
                }
            };
            group.push(Entry {
                path: config.path.clone(),
                methods: config.methods.clone(),
                encoded_slashes: config.encoded_slashes,
                merge_slashes: config.merge_slashes,
                ignore_case: config.ignore_case,
                route,
            });
        }
        let sort = |group: &mut Group<R>| {
            group.sort_by(|a, b| {
                b.path.len().cmp(&a.path.len()).then(a.methods.is_empty().cmp(&b.methods.is_empty()))
            });
        };
        sort(&mut router.any_host);
        router.exact.values_mut().for_each(sort);
        router.wildcards.iter_mut().for_each(|(_, group)| sort(group));
        router.wildcards.sort_by_key(|(host, _)| std::cmp::Reverse(host.len()));
        router
    }

    /// Iterates over all routes, in no particular order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<R>> {
        let named = self.exact.values().chain(self.wildcards.iter().map(|(_, group)| group));
        named.chain([&self.any_host]).flatten().map(|entry| &entry.route)
    }

    /// Finds the route for `path` (without query) on `host` (lower case, without port or trailing dot), merging slashes
    /// if the route allows it.
    ///
    /// # Errors
    /// Returns [`NoRoute`] if no route matches, or if the path is ambiguous.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Result<RouteMatch<'_, R>, NoRoute> {
        let refusal = match self.find_exact(host, path, method) {
            Ok(route) => return Ok(RouteMatch { route, merged: None }),
            Err(refusal) => refusal,
        };
        if refusal != NoRoute::Ambiguous(Ambiguity::EmptySegment) {
            return Err(refusal);
        }
        let merged = merge_slashes(path);
        match select(self.group(host), &merged, method) {
            Ok(entry) if entry.merge_slashes => {}
            Ok(_) | Err(_) => return Err(refusal),
        }
        let route = self.find_exact(host, &merged, method)?;
        Ok(RouteMatch { route, merged: Some(merged) })
    }

    /// Finds the route that would match if all routes ignored case. Does not reject ambiguous paths.
    pub fn find_ignoring_case(&self, host: &str, path: &str, method: &Method) -> Option<&Arc<R>> {
        let matches = |entry: &Entry<R>| is_prefix_ignoring_case(&entry.path, path);
        select_by(self.group(host), matches, method).ok().map(|entry| &entry.route)
    }

    /// Finds the route for `path` without merging slashes.
    fn find_exact(&self, host: &str, path: &str, method: &Method) -> Result<&Arc<R>, NoRoute> {
        let group = self.group(host);
        let found = ambiguity(path);
        if let Some(found) = found
            && found != Ambiguity::EncodedSlash
        {
            return Err(NoRoute::Ambiguous(found));
        }
        let entry = select(group, path, method)?;
        let is_match = |path: &str| {
            let other = select(group, &without_empty_segments(path), method);
            !has_dots(path) && other.is_ok_and(|other| Arc::ptr_eq(&other.route, &entry.route))
        };
        let is_same = |path: &str| {
            // Converting the case turns some non-ASCII letters into ASCII ones: the Kelvin sign is a `k` in lower case.
            let keeps_letters = path.is_ascii() || !group.iter().any(|entry| entry.ignore_case);
            is_match(path)
                && (keeps_letters
                    || is_match(&convert_non_ascii(path, char::to_uppercase))
                        && is_match(&convert_non_ascii(path, char::to_lowercase)))
        };
        // Apps decode the path before they match it, some of them twice: the decoded path must match the same route. A
        // path that is still encoded after that was rejected by `ambiguity`.
        let decoded = if path.contains('%') { decode(&decode(path)).into() } else { Cow::from(path) };
        if found.is_some() && !entry.encoded_slashes {
            return Err(NoRoute::Ambiguous(Ambiguity::EncodedSlash));
        }
        if (decoded != path || !decoded.is_ascii()) && !is_same(&decoded) {
            return Err(NoRoute::Ambiguous(found.unwrap_or(Ambiguity::Encoding)));
        }
        if decoded.contains(';') {
            // Servlet containers remove `;…` from each segment before they match: that path must match the same route,
            // too.
            if !is_same(&without_parameters(path)) || !is_same(&without_parameters(&decoded)) {
                return Err(NoRoute::Ambiguous(Ambiguity::Parameters));
            }
        }
        Ok(&entry.route)
    }

    fn group(&self, host: &str) -> &Group<R> {
        self.exact.get(host).unwrap_or_else(|| {
            let wildcard = self.wildcards.iter().find(|(parent, _)| {
                host.strip_suffix(parent.as_str())
                    .and_then(|head| head.strip_suffix('.'))
                    .is_some_and(|h| !h.is_empty())
            });
            wildcard.map_or(&self.any_host, |(_, group)| group)
        })
    }
}

fn select<'g, R>(group: &'g Group<R>, path: &str, method: &Method) -> Result<&'g Entry<R>, NoRoute> {
    select_by(group, |entry| entry.matches(path), method)
}

/// Selects the entry for `method` among those of the longest path for which `matches` returns `true`.
fn select_by<'g, R>(
    group: &'g Group<R>,
    matches: impl Fn(&Entry<R>) -> bool,
    method: &Method,
) -> Result<&'g Entry<R>, NoRoute> {
    let longest = group.iter().position(&matches).ok_or(NoRoute::NotFound)?;
    let candidates = group.get(longest..).unwrap_or_default();
    let accepts = |entry: &Entry<R>| entry.methods.is_empty() || entry.methods.contains(method);
    if let Some(first) = candidates.first().filter(|first| accepts(first)) {
        return Ok(first);
    }
    // Matching entries of the same length have the same path, ignoring case.
    let length = candidates.first().map_or(0, |entry| entry.path.len());
    let mut same =
        candidates.iter().take_while(|entry| entry.path.len() == length).filter(|entry| matches(entry));
    same.clone().find(|entry| accepts(entry)).ok_or_else(|| {
        let allowed = same.by_ref().flat_map(|entry| entry.methods.iter().cloned()).collect();
        NoRoute::Method(allowed)
    })
}

impl<R> Entry<R> {
    fn matches(&self, path: &str) -> bool {
        if self.ignore_case { is_prefix_ignoring_case(&self.path, path) } else { is_prefix(&self.path, path) }
    }
}

/// Applies `convert` to the non-ASCII characters of `path`.
fn convert_non_ascii<I: Iterator<Item = char>>(path: &str, convert: impl Fn(char) -> I) -> String {
    let mut converted = String::with_capacity(path.len());
    for c in path.chars() {
        if c.is_ascii() { converted.push(c) } else { converted.extend(convert(c)) }
    }
    converted
}

fn decode(path: &str) -> String {
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

fn has_dots(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn without_empty_segments(path: &str) -> String {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    format!("/{}", segments.collect::<Vec<_>>().join("/"))
}

fn without_parameters(path: &str) -> String {
    let bare: Vec<_> = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    bare.join("/")
}

/// Returns the reason why servers could interpret `path` differently, if there is one. An encoded slash is reported
/// only if there is no other reason, since a route may allow it.
pub fn ambiguity(path: &str) -> Option<Ambiguity> {
    let Some(rest) = path.strip_prefix('/') else { return Some(Ambiguity::Relative) };
    // Fast path for ordinary requests.
    if !path.contains(['%', '\\', '.']) && !path.contains("//") {
        return None;
    }
    if path.contains("//") {
        return Some(Ambiguity::EmptySegment);
    }
    if path.contains('\\') {
        return Some(Ambiguity::Backslash);
    }
    let (mut encoded_slash, mut encoded_percent) = (false, false);
    for (at, _) in path.match_indices('%') {
        let Some(byte) = escaped_byte(path.as_bytes(), at) else { return Some(Ambiguity::Encoding) };
        if let Some(found) = escape_ambiguity(path.as_bytes(), at, byte) {
            return Some(found);
        }
        encoded_slash |= byte == b'/';
        encoded_percent |= byte == b'%';
    }
    if encoded_percent && reveals_ambiguous_escape(path) {
        return Some(Ambiguity::Encoding);
    }
    // Also split at encoded slashes, so that on a route that allows these, `%2f..` cannot leave its prefix.
    let mut segments =
        rest.split('/').flat_map(|segment| segment.split("%2f").flat_map(|part| part.split("%2F")));
    if segments.any(|segment| matches!(segment, "." | "..")) {
        return Some(Ambiguity::DotSegment);
    }
    encoded_slash.then_some(Ambiguity::EncodedSlash)
}

/// Returns the reason why servers could interpret the escape of `byte` at position `at` differently, if there is one.
fn escape_ambiguity(path: &[u8], at: usize, byte: u8) -> Option<Ambiguity> {
    match byte {
        0x00 => Some(Ambiguity::Nul),
        b'\\' => Some(Ambiguity::Backslash),
        // No client has a reason to encode a dot, except to hide it.
        b'.' => Some(Ambiguity::DotSegment),
        // Overlong UTF-8: ASCII in two bytes.
        0xc0 | 0xc1 => Some(Ambiguity::Encoding),
        // Overlong UTF-8 in three or four bytes, depending on the second byte.
        0xe0 | 0xf0 => {
            let shortest = if byte == 0xe0 { 0xa0 } else { 0x90 };
            let second = escaped_byte(path, at + 3).filter(|_| path.get(at + 3) == Some(&b'%'));
            second.filter(|second| (0x80..shortest).contains(second)).map(|_| Ambiguity::Encoding)
        }
        _ => None,
    }
}

/// Returns whether decoding `path` results in an escape that an app that decodes twice could interpret differently. Its
/// digits may be encoded as well: `%25%32%66` is `%2f` after the first decoding.
fn reveals_ambiguous_escape(path: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    let mut escapes = (0..decoded.len()).filter(|at| decoded.get(*at) == Some(&b'%'));
    escapes.any(|at| {
        // A `%` that begins no escape is a literal one.
        escaped_byte(&decoded, at)
            .is_some_and(|byte| matches!(byte, b'/' | b'%') || escape_ambiguity(&decoded, at, byte).is_some())
    })
}

/// Returns the byte that the escape at position `at` stands for, or `None` if its digits are invalid.
fn escaped_byte(path: &[u8], at: usize) -> Option<u8> {
    path.get(at + 1..at + 3).and_then(hex)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

#[cfg(test)]
mod tests;
