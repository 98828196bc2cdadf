use proptest::prelude::*;

use super::*;
use crate::config::{Access, Destination, Forwarding, HeaderEdits, StreamsConfig};

fn route(host: Option<HostPattern>, path: &str, methods: &[Method]) -> RouteConfig {
    RouteConfig {
        name: format!("{host:?}{path}{methods:?}"),
        host,
        path: path.into(),
        methods: methods.to_vec(),
        realm: None,
        access: Access::Public,
        require: vec![],
        login: None,
        headers: vec![],
        writes: false,
        flash: false,
        csrf: false,
        streams: StreamsConfig { recheck: None, idle_timeout: std::time::Duration::ZERO, websocket: None },
        allow_overrides: vec![],
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        rate: None,
        destination: Destination::Upstream(Forwarding::default()),
        encoded_slashes: path.starts_with("/slashes"),
        merge_slashes: false,
        ignore_case: false,
    }
}

fn router(routes: &[RouteConfig]) -> Router<usize> {
    Router::new(routes.iter().enumerate().map(|(at, config)| (config, Arc::new(at))))
}

fn find(router: &Router<usize>, host: &str, path: &str) -> Result<usize, NoRoute> {
    router.find(host, path, &Method::GET).map(|found| **found.route)
}

#[test]
fn longest_prefix_wins_on_a_segment_boundary() {
    let router =
        router(&[route(None, "/", &[]), route(None, "/admin", &[]), route(None, "/admin/public", &[])]);
    for (path, expected) in [
        ("/", 0),
        ("/administrator", 0),
        ("/admin", 1),
        ("/admin/", 1),
        ("/admin/x", 1),
        ("/Admin", 0),
        ("/admin/public/x", 2),
        ("/admin/publicity", 1),
        ("/admin%23/public", 0),
    ] {
        assert_eq!(find(&router, "any", path), Ok(expected), "{path}");
    }
}

#[test]
fn host_selects_a_group_without_fallback() {
    let exact = |host: &str| Some(HostPattern::Exact(host.into()));
    let wildcard = |host: &str| Some(HostPattern::Subdomains(host.into()));
    let router = router(&[
        route(None, "/", &[]),
        route(exact("a.example"), "/only", &[]),
        route(wildcard("example"), "/", &[]),
        route(wildcard("deep.example"), "/", &[]),
    ]);
    for (host, path, expected) in [
        ("other", "/", Ok(0)),
        ("example", "/", Ok(0)),
        ("xexample", "/", Ok(0)),
        ("a.example", "/only", Ok(1)),
        ("a.example", "/", Err(NoRoute::NotFound)),
        ("b.example", "/", Ok(2)),
        ("x.b.example", "/", Ok(2)),
        ("x.deep.example", "/", Ok(3)),
    ] {
        assert_eq!(find(&router, host, path), expected, "{host}{path}");
    }
}

#[test]
fn method_mismatch_does_not_fall_back_to_a_shorter_prefix() {
    let router = router(&[
        route(None, "/", &[]),
        route(None, "/form", &[Method::POST]),
        route(None, "/api", &[]),
        route(None, "/api", &[Method::GET]),
    ]);
    assert_eq!(find(&router, "", "/form"), Err(NoRoute::Method(vec![Method::POST])));
    assert_eq!(find(&router, "", "/api"), Ok(3));
    assert_eq!(router.find("", "/api", &Method::PUT).map(|found| **found.route), Ok(2));
}

#[test]
fn ambiguous_paths_are_rejected() {
    use Ambiguity::{Backslash, DotSegment, EmptySegment, EncodedSlash, Encoding, Nul, Parameters, Relative};
    let router = router(&[route(None, "/", &[]), route(None, "/admin", &[]), route(None, "/slashes", &[])]);
    for (path, why) in [
        ("", Relative),
        ("*", Relative),
        ("admin", Relative),
        ("//admin", EmptySegment),
        ("/x//admin", EmptySegment),
        ("/./admin", DotSegment),
        ("/x/../admin", DotSegment),
        ("/x/..", DotSegment),
        ("/x/.", DotSegment),
        ("/x/%2e%2e/admin", DotSegment),
        ("/x/.%2E/admin", DotSegment),
        ("/%61dmin%2e", DotSegment),
        ("/x%2fadmin", EncodedSlash),
        ("/x%2Fadmin", EncodedSlash),
        ("/slashes%2f..%2fadmin", DotSegment),
        ("/slashes/%2f..", DotSegment),
        ("/x\\admin", Backslash),
        ("/x%5Cadmin", Backslash),
        ("/admin%00", Nul),
        ("/admin%", Encoding),
        ("/admin%4", Encoding),
        ("/admin%zz", Encoding),
        ("/x%252fadmin", Encoding),
        ("/x%252e", Encoding),
        ("/x%2525", Encoding),
        // The digits of an escape that decoding reveals may be encoded as well.
        ("/%25%32%3561dmin", Encoding),
        ("/x%25%35%63..%25%35%63admin", Encoding),
        ("/x%25%32%65%25%32%65%25%32%66admin", Encoding),
        ("/x%25c%30%ae", Encoding),
        ("/x/%c0%ae%c0%ae/admin", Encoding),
        ("/x/%c1%9c", Encoding),
        ("/x/%e0%80%ae", Encoding),
        ("/x/%f0%80%80%ae", Encoding),
        ("/%61dmin", Encoding),
        ("/%61dmin/x", Encoding),
        ("/admi%6E", Encoding),
        ("/%2561dmin", Encoding),
        ("/admin%3bx", Parameters),
        ("/admin;x=1", Parameters),
        ("/admin;x=1/y", Parameters),
        ("/;/admin", Parameters),
        ("/x/..;/admin", Parameters),
        ("/x/..;a=b", Parameters),
    ] {
        assert_eq!(find(&router, "", path), Err(NoRoute::Ambiguous(why)), "{path}");
    }
    for (path, expected) in [
        ("/x/...", 0),
        ("/.well-known/x", 0),
        ("/a.b/c..d", 0),
        ("/caf%C3%A9", 0),
        ("/100%25", 0),
        ("/100%25%20of%2510", 0),
        ("/a%20b", 0),
        ("/admin/x;v=1", 1),
        ("/x;v=1/y", 0),
        ("/slashes/a%2Fb", 2),
        ("/%e0%a4%b9/%f0%9f%98%80", 0),
        ("/admin/%61", 1),
        ("/%E9;x/100%25", 0),
    ] {
        assert_eq!(find(&router, "", path), Ok(expected), "{path}");
    }
}

#[test]
fn methods_are_compared_among_routes_of_the_same_path_only() {
    let router = router(&[
        route(None, "/one", &[Method::GET]),
        route(None, "/two", &[Method::GET]),
        route(None, "/one", &[]),
        route(None, "/two", &[]),
    ]);
    for (path, expected) in [("/one", 2), ("/two", 3)] {
        assert_eq!(router.find("", path, &Method::POST).map(|found| **found.route), Ok(expected), "{path}");
    }
}

/// Returns the route and the merged path.
fn merged(router: &Router<usize>, path: &str) -> Result<(usize, Option<String>), NoRoute> {
    router.find("", path, &Method::GET).map(|found| (**found.route, found.merged))
}

#[test]
fn merged_path_decides_the_route_and_whether_slashes_are_merged() {
    let merging = |path: &str| RouteConfig { merge_slashes: true, ..route(None, path, &[]) };
    let router = router(&[
        merging("/"),
        route(None, "/admin", &[]),
        merging("/admin/files"),
        route(None, "/post", &[Method::POST]),
    ]);
    for (path, at, path_merged) in [
        ("//", 0, "/"),
        ("//x", 0, "/x"),
        ("/x///y//", 0, "/x/y/"),
        ("/x//%2525", 0, ""),
        // `/admin` does not merge slashes; `/admin/files` does, whatever the setting of `/admin`.
        ("//admin", 1, ""),
        ("/admin//", 1, ""),
        ("/admin//x", 1, ""),
        ("//admin/files", 2, "/admin/files"),
        ("/admin//files", 2, "/admin/files"),
        ("/admin//files//x", 2, "/admin/files/x"),
        ("/x//..//admin", 0, ""),
        ("//post", 0, ""),
    ] {
        let found = merged(&router, path);
        if path_merged.is_empty() {
            assert!(matches!(found, Err(NoRoute::Ambiguous(_))), "{path}: {found:?}");
        } else {
            assert_eq!(found, Ok((at, Some(path_merged.to_owned()))), "{path}");
        }
    }
    assert_eq!(merged(&router, "/x"), Ok((0, None)));
}

#[test]
fn case_is_ignored_if_the_route_has_ignore_case() {
    let ignoring = |path: &str| RouteConfig { ignore_case: true, ..route(None, path, &[]) };
    let router = router(&[
        route(None, "/", &[]),
        ignoring("/skin"),
        ignoring("/Skin/Deep"),
        route(None, "/exact", &[]),
    ]);
    for (path, expected) in [
        ("/skin", 1),
        ("/SKIN/x", 1),
        ("/sKiN/deep", 2),
        ("/skins", 0),
        ("/SKINS", 0),
        ("/Exact", 0),
        ("/caf%C3%A9", 0),
        ("/SKIN/caf%C3%89", 1),
        ("/%C5%BF", 0),
    ] {
        assert_eq!(find(&router, "", path), Ok(expected), "{path}");
    }
    for path in [
        "/%53kin",
        "/s%4Bin",
        // U+017F becomes `S` in upper case, U+212A `k` in lower case, U+0131 `I` in upper case.
        "/%C5%BFkin",
        "/s%E2%84%AAin/x",
        "/sk%C4%B1n",
        "/\u{17f}kin",
        "/%C5%BFkin;x/y",
        "/skin/dee%70",
    ] {
        assert!(matches!(find(&router, "", path), Err(NoRoute::Ambiguous(_))), "{path}");
    }
    assert_eq!(router.find_ignoring_case("", "/EXACT/x", &Method::GET).map(|route| **route), Some(3));
}

/// Interprets a path as the most lenient server would: decodes everything, removes parameters, resolves dot segments.
fn most_lenient(path: &str) -> String {
    let mut text = path.to_owned();
    for _ in 0..3 {
        text = percent_decode_str(&text).decode_utf8_lossy().into_owned();
    }
    let mut out: Vec<&str> = Vec::new();
    for segment in text.split(['/', '\\']) {
        match segment.split(';').next().unwrap() {
            "" | "." => {}
            ".." => drop(out.pop()),
            segment => out.push(segment),
        }
    }
    format!("/{}", out.join("/"))
}

proptest! {
    #[test]
    fn most_lenient_interpretation_of_a_path_has_the_same_route(
        parts in prop::collection::vec("(/|admin|%61|dmin|61|%3b|x|\\.|%2e|%2F|%5c|;|;a=b|%25|%3[2356]|[2356c]|%|2f|\\\\|%c0%af)", 1..10),
    ) {
        let router = router(&[route(None, "/", &[]), route(None, "/admin", &[])]);
        let path = format!("/{}", parts.concat());
        if let Ok(at) = find(&router, "", &path) {
            let lenient = most_lenient(&path);
            prop_assert_eq!(at == 1, is_prefix("/admin", &lenient), "{} is {}", path, lenient);
        }
    }

    #[test]
    fn encoded_slashes_never_reach_another_route(
        parts in prop::collection::vec("(/|admin|%61|dmin|x|%2e|%2F|;|;a=b|%25|%3[2356]|[2356]|2f)", 1..10),
    ) {
        let open = RouteConfig { encoded_slashes: true, ..route(None, "/", &[]) };
        let router = router(&[open, route(None, "/admin", &[])]);
        let path = format!("/{}", parts.concat());
        if let Ok(at) = find(&router, "", &path) {
            let lenient = most_lenient(&path);
            prop_assert_eq!(at == 1, is_prefix("/admin", &lenient), "{} is {}", path, lenient);
        }
    }

    #[test]
    fn merged_slashes_and_ignored_case_do_not_bypass_another_route(
        parts in prop::collection::vec("(/|//|skin|SKIN|sKi|n|%6b|\u{212a}|%E2%84%AA|x|%2F|;|;a=b|%25)", 1..10),
        merges in any::<[bool; 2]>(),
    ) {
        let [open, guard] = merges;
        let open = RouteConfig { merge_slashes: open, encoded_slashes: true, ..route(None, "/", &[]) };
        let guard = RouteConfig { merge_slashes: guard, ignore_case: true, ..route(None, "/skin", &[]) };
        let router = router(&[open, guard]);
        let path = format!("/{}", parts.concat());
        if let Ok((at, judged)) = merged(&router, &path) {
            let forwarded = judged.unwrap_or(path);
            prop_assert!(!forwarded.contains("//"));
            let lenient = most_lenient(&forwarded);
            for lenient in [lenient.to_lowercase(), lenient.to_uppercase().to_lowercase(), lenient] {
                prop_assert_eq!(at == 1, is_prefix_ignoring_case("/skin", &lenient), "{} is {}", forwarded, lenient);
            }
        }
    }

    #[test]
    fn no_path_panics(path in ".*") {
        let _ = find(&router(&[route(None, "/", &[])]), "", &path);
    }
}
