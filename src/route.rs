//! From host, path and method to the one route that judges a request and forwards it.
//!
//! 1. The host picks a group of routes: an exact name before `*.` patterns, the longest of those before shorter ones,
//!    and the routes without a host if no other group takes it. There is no falling back from one group to another.
//! 2. Within the group the longest path prefix wins, on a segment boundary. The query takes no part.
//! 3. Among routes of that prefix, one that names the method wins over one that names none. If none takes the method,
//!    the answer is 405: a request never slides to a shorter prefix, whose rule may be a weaker one.
//! 4. A path that could be read as another path is refused before it is matched; see [`ambiguity`]. So is one that would
//!    take another route once it is decoded, or without its `;` parameters.
//! 5. A path with `//` is refused, too, unless the route that its merged path takes merges slashes. Then the merged path is
//!    judged and forwarded, as if it had been asked for: no other route has a say.

mod host;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::config::{HostPattern, RouteConfig};
use crate::path::{is_prefix, is_prefix_ignoring_case, merge_slashes};

pub(crate) use host::canonical_host;

/// Finds routes.
#[derive(Debug)]
pub struct Router<R> {
    exact: HashMap<String, Group<R>>,
    /// Longest first.
    below: Vec<(String, Group<R>)>,
    hostless: Group<R>,
}

/// The routes of one host pattern, longest prefix first, those with methods before those without.
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

/// The route of a request.
#[derive(Debug)]
pub struct RouteMatch<'r, R> {
    /// The route.
    pub route: &'r Arc<R>,
    /// The path to judge and forward in place of the one that was asked for, if slashes were merged.
    pub merged: Option<String>,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// Nothing matches host and path.
    NotFound,
    /// The path matches, the method does not; these would.
    Method(Vec<Method>),
    /// The path could be read as another path.
    Ambiguous(Ambiguity),
}

/// How a path could be read as another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguity {
    /// It does not begin with `/`.
    Relative,
    /// `//`
    EmptySegment,
    /// A `.` or `..` segment, plain or encoded.
    DotSegment,
    /// `\`, plain or encoded.
    Backslash,
    /// An encoded `/`, where the route does not allow it.
    EncodedSlash,
    /// An encoded NUL.
    Nul,
    /// A `%` that encodes nothing, or encodes one of these twice, or an overlong UTF-8 sequence, or what would take
    /// another route if it were decoded.
    Encoding,
    /// Without its `;` parameters it would take another route.
    Parameters,
}

impl<R> Router<R> {
    /// A router over `routes`, each with what it leads to.
    pub fn new<'c>(routes: impl IntoIterator<Item = (&'c RouteConfig, Arc<R>)>) -> Self {
        let mut router = Self { exact: HashMap::new(), below: Vec::new(), hostless: Vec::new() };
        for (config, route) in routes {
            let group = match &config.host {
                None => &mut router.hostless,
                Some(HostPattern::Exact(host)) => router.exact.entry(host.clone()).or_default(),
                Some(HostPattern::Below(host)) => {
                    let at = router.below.iter().position(|(other, _)| other == host).unwrap_or_else(|| {
                        router.below.push((host.clone(), Vec::new()));
                        router.below.len() - 1
                    });
                    match router.below.get_mut(at) {
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
        let order = |group: &mut Group<R>| {
            group.sort_by(|a, b| {
                b.path.len().cmp(&a.path.len()).then(a.methods.is_empty().cmp(&b.methods.is_empty()))
            });
        };
        order(&mut router.hostless);
        router.exact.values_mut().for_each(order);
        router.below.iter_mut().for_each(|(_, group)| order(group));
        router.below.sort_by_key(|(host, _)| std::cmp::Reverse(host.len()));
        router
    }

    /// All that routes lead to, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<R>> {
        let named = self.exact.values().chain(self.below.iter().map(|(_, group)| group));
        named.chain([&self.hostless]).flatten().map(|entry| &entry.route)
    }

    /// The route of a request for `path` (without query) of `host` (lower case, without port or trailing dot), which may be
    /// one for `path` with its slashes merged.
    ///
    /// # Errors
    /// See [`NoRoute`].
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

    /// The route that a request would take if every route ignored case, whatever else is said of its path.
    pub fn find_ignoring_case(&self, host: &str, path: &str, method: &Method) -> Option<&Arc<R>> {
        let takes = |entry: &Entry<R>| is_prefix_ignoring_case(&entry.path, path);
        select_by(self.group(host), takes, method).ok().map(|entry| &entry.route)
    }

    /// The route of a request for exactly this path.
    fn find_exact(&self, host: &str, path: &str, method: &Method) -> Result<&Arc<R>, NoRoute> {
        let group = self.group(host);
        let found = ambiguity(path);
        if let Some(found) = found
            && found != Ambiguity::EncodedSlash
        {
            return Err(NoRoute::Ambiguous(found));
        }
        let entry = select(group, path, method)?;
        let takes_it_too = |path: &str| {
            let other = select(group, &without_empty_segments(path), method);
            !has_dots(path) && other.is_ok_and(|other| Arc::ptr_eq(&other.route, &entry.route))
        };
        let is_same = |path: &str| {
            // Some letters beyond ASCII are letters of ASCII in another case: the Kelvin sign is a `K`.
            let in_one_case = path.is_ascii() || !group.iter().any(|entry| entry.ignore_case);
            takes_it_too(path)
                && (in_one_case
                    || takes_it_too(&fold(path, char::to_uppercase))
                        && takes_it_too(&fold(path, char::to_lowercase)))
        };
        // Apps decode before they match: neither an encoded letter nor an encoded slash may change who judges. What is
        // encoded twice is decoded by some, and what would be left to decode after that is refused above.
        let decoded = if path.contains('%') { decode(&decode(path)).into() } else { Cow::from(path) };
        if found.is_some() && !entry.encoded_slashes {
            return Err(NoRoute::Ambiguous(Ambiguity::EncodedSlash));
        }
        if (decoded != path || !decoded.is_ascii()) && !is_same(&decoded) {
            return Err(NoRoute::Ambiguous(found.unwrap_or(Ambiguity::Encoding)));
        }
        if decoded.contains(';') {
            // Servlet containers cut `;…` off every segment before they match; nor may that.
            if !is_same(&without_parameters(path)) || !is_same(&without_parameters(&decoded)) {
                return Err(NoRoute::Ambiguous(Ambiguity::Parameters));
            }
        }
        Ok(&entry.route)
    }

    fn group(&self, host: &str) -> &Group<R> {
        self.exact.get(host).unwrap_or_else(|| {
            let below = self.below.iter().find(|(suffix, _)| {
                host.strip_suffix(suffix.as_str())
                    .and_then(|head| head.strip_suffix('.'))
                    .is_some_and(|h| !h.is_empty())
            });
            below.map_or(&self.hostless, |(_, group)| group)
        })
    }
}

fn select<'g, R>(group: &'g Group<R>, path: &str, method: &Method) -> Result<&'g Entry<R>, NoRoute> {
    select_by(group, |entry| entry.takes(path), method)
}

/// The entry for `method` among those of the longest path that `takes` accepts.
fn select_by<'g, R>(
    group: &'g Group<R>,
    takes: impl Fn(&Entry<R>) -> bool,
    method: &Method,
) -> Result<&'g Entry<R>, NoRoute> {
    let longest = group.iter().position(&takes).ok_or(NoRoute::NotFound)?;
    let candidates = group.get(longest..).unwrap_or_default();
    let length = candidates.first().map_or(0, |entry| entry.path.len());
    // Of one length, those that take the path have the same one, but for case.
    let mut same =
        candidates.iter().take_while(|entry| entry.path.len() == length).filter(|entry| takes(entry));
    same.clone().find(|entry| entry.methods.is_empty() || entry.methods.contains(method)).ok_or_else(|| {
        let allowed = same.by_ref().flat_map(|entry| entry.methods.iter().cloned()).collect();
        NoRoute::Method(allowed)
    })
}

impl<R> Entry<R> {
    fn takes(&self, path: &str) -> bool {
        if self.ignore_case { is_prefix_ignoring_case(&self.path, path) } else { is_prefix(&self.path, path) }
    }
}

/// `path` with its letters beyond ASCII in another case.
fn fold<I: Iterator<Item = char>>(path: &str, to: impl Fn(char) -> I) -> String {
    let mut folded = String::with_capacity(path.len());
    for c in path.chars() {
        if c.is_ascii() { folded.push(c) } else { folded.extend(to(c)) }
    }
    folded
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

/// How `path` could be read as another path, if it could. An encoded slash is told last: a route may allow it.
pub fn ambiguity(path: &str) -> Option<Ambiguity> {
    let Some(rest) = path.strip_prefix('/') else { return Some(Ambiguity::Relative) };
    // The plain path of a plain request: one look is enough.
    if !path.contains(['%', '\\', '.']) && !path.contains("//") {
        return None;
    }
    if path.contains("//") {
        return Some(Ambiguity::EmptySegment);
    }
    if path.contains('\\') {
        return Some(Ambiguity::Backslash);
    }
    let mut encoded_slash = false;
    for (at, _) in path.match_indices('%') {
        match path.as_bytes().get(at + 1..at + 3).and_then(hex) {
            None => return Some(Ambiguity::Encoding),
            Some(0x00) => return Some(Ambiguity::Nul),
            Some(b'\\') => return Some(Ambiguity::Backslash),
            // There is no reason to encode a dot but to hide it.
            Some(b'.') => return Some(Ambiguity::DotSegment),
            Some(b'/') => encoded_slash = true,
            // Never in UTF-8 but to write ASCII in two bytes.
            Some(0xc0 | 0xc1) => return Some(Ambiguity::Encoding),
            // Nor these two, followed by what would make three or four bytes of it.
            Some(first @ (0xe0 | 0xf0)) => {
                let second =
                    path.get(at + 3..at + 6).and_then(|next| hex(next.strip_prefix('%')?.as_bytes()));
                let shortest = if first == 0xe0 { 0xa0 } else { 0x90 };
                if second.is_some_and(|second| (0x80..shortest).contains(&second)) {
                    return Some(Ambiguity::Encoding);
                }
            }
            Some(b'%') => {
                let twice = path.as_bytes().get(at + 3..at + 5).and_then(hex);
                if matches!(twice, Some(0x00 | b'/' | b'\\' | b'.' | b'%')) {
                    return Some(Ambiguity::Encoding);
                }
            }
            Some(_) => {}
        }
    }
    // With slashes decoded too, so that a route which allows those cannot be led out of its prefix.
    let mut segments =
        rest.split('/').flat_map(|segment| segment.split("%2f").flat_map(|part| part.split("%2F")));
    if segments.any(|segment| matches!(segment, "." | "..")) {
        return Some(Ambiguity::DotSegment);
    }
    encoded_slash.then_some(Ambiguity::EncodedSlash)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

#[cfg(test)]
mod tests;
