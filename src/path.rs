//! Comparison of request paths, for routes and rewrites.

/// Returns whether `path` equals `prefix` or is below it, on a segment boundary.
pub fn is_prefix(prefix: &str, path: &str) -> bool {
    prefix == "/" && path.starts_with('/')
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Like [`is_prefix`], ignoring the case of ASCII letters.
pub fn is_prefix_ignoring_case(prefix: &str, path: &str) -> bool {
    if prefix == "/" {
        return path.starts_with('/');
    }
    let split = path.split_at_checked(prefix.len());
    split.is_some_and(|(head, rest)| {
        head.eq_ignore_ascii_case(prefix) && (rest.is_empty() || rest.starts_with('/'))
    })
}

/// Replaces each run of slashes by one `/`.
pub fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_on_a_segment_boundary() {
        for (prefix, path, same_case, any_case) in [
            ("/", "/x", true, true),
            ("/app", "/app", true, true),
            ("/app", "/app/x", true, true),
            ("/app", "/apple", false, false),
            ("/app", "/APP/x", false, true),
            ("/App", "/aPP", false, true),
            ("/app", "/APPle", false, false),
            ("/app", "/ap", false, false),
            ("/app", "/aé", false, false),
        ] {
            assert_eq!(is_prefix(prefix, path), same_case, "{prefix} {path}");
            assert_eq!(is_prefix_ignoring_case(prefix, path), any_case, "{prefix} {path}");
        }
    }

    #[test]
    fn runs_of_slashes_are_merged() {
        for (path, merged) in [("//", "/"), ("/a", "/a"), ("//a///b//", "/a/b/"), ("/%2F//x", "/%2F/x")] {
            assert_eq!(merge_slashes(path), merged);
        }
    }
}
