//! Paths of requests, as routes and rewrites compare them.

/// Returns whether `path` is `prefix` or below it. Both are compared by whole segments.
pub fn is_prefix(prefix: &str, path: &str) -> bool {
    prefix == "/" && path.starts_with('/')
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
