//! Errors in `[[routes]]`.

use crate::config::fixture::{BASE, accepted, errors, read, with};

#[test]
fn invalid_routes_are_errors() {
    let host = "`routes.host` is not a valid host";
    let dangling = "refers to an unknown `[sessions.NAME]`";
    let inert = "has no effect unless `access` is `required` or `session`";
    let cases = [
        ("host = \"*\"", "`routes.host` must not be `*`".to_owned()),
        ("host = \"a.*.b\"", host.to_owned()),
        ("host = \"a b\"", host.to_owned()),
        ("host = \"*.\"", host.to_owned()),
        ("host = \"127.1\"", host.to_owned()),
        ("host = \"example.com:8080\"", "`routes.host` must not have a port".to_owned()),
        ("host = \"::1\"", "`routes.host` is an IPv6 address without brackets".to_owned()),
        ("host = \"[x]\"", "`routes.host` is not an IPv6 address".to_owned()),
        ("path = \"app\"", "`routes.path` must begin with `/`".to_owned()),
        ("path = \"/a//b\"", "`routes.path` must not contain `//`".to_owned()),
        ("path = \"//\"", "`routes.path` must not contain `//`".to_owned()),
        ("path = \"/a/./b\"", "`routes.path` must not contain the segments `.` and `..`".to_owned()),
        ("path = \"/a/..\"", "`routes.path` must not contain the segments `.` and `..`".to_owned()),
        ("path = \"/a%2Fb\"", "`routes.path` must not contain `%`".to_owned()),
        ("path = \"/a?b\"", "`routes.path` must not contain `?`".to_owned()),
        ("path = \"/a#b\"", "`routes.path` must not contain `#`".to_owned()),
        ("path = \"/a;b\"", "`routes.path` must not contain `;`".to_owned()),
        ("path = \"/a\\\\b\"", "`routes.path` must not contain `\\\\`".to_owned()),
        ("path = \"/a b\"", "`routes.path` must not contain ` `".to_owned()),
        ("path = \"/ä\"", "`routes.path` must not contain `ä`".to_owned()),
        ("path = \"/app/*\"", "`routes.path` must not contain `*`".to_owned()),
        ("methods = []", "`routes.methods` is empty".to_owned()),
        ("methods = [\"get\"]", "`routes.methods` must be in upper case".to_owned()),
        ("methods = [\"G T\"]", "`routes.methods` is not a valid method".to_owned()),
        (
            "methods = [\"CONNECT\"]",
            "`routes.methods` must not be CONNECT or TRACE, which sessiongate does not forward".to_owned(),
        ),
        (
            "methods = [\"TRACE\"]",
            "`routes.methods` must not be CONNECT or TRACE, which sessiongate does not forward".to_owned(),
        ),
        ("session = \"mian\"", format!("`routes.session` {dangling}")),
        ("upstream = \"ap\"", "`routes.upstream` refers to an unknown `[upstreams.NAME]`".to_owned()),
        (
            "access = \"open\"",
            "`routes.access` must be `required`, `session`, `optional` or `public`".to_owned(),
        ),
        ("encoded_slashes = true", "`routes.encoded_slashes` must be `refuse` or `pass`".to_owned()),
        ("duplicate_slashes = \"pass\"", "`routes.duplicate_slashes` must be `refuse` or `merge`".to_owned()),
        ("ignore_case = \"yes\"", "`routes.ignore_case` must be `true` or `false`, not a string".to_owned()),
        (
            "allow_overrides = \"X-HTTP-Method\"",
            "`routes.allow_overrides` must be a list, not a string".to_owned(),
        ),
        (
            "allow_overrides = [\"X_Original_URL\"]",
            "`routes.allow_overrides` is not a valid header name".to_owned(),
        ),
        (
            "allow_overrides = [\"X-Forwarded-For\"]",
            "`routes.allow_overrides` contains `X-Forwarded-For`, which is not one of the override headers"
                .to_owned(),
        ),
        (
            "allow_overrides = [\"X-HTTP-Method\"]|request_headers.remove = [\"x-http-method\"]",
            "`routes.allow_overrides` contains `x-http-method`, which `request_headers` removes".to_owned(),
        ),
        (
            "allow_overrides = [\"X-HTTP-Method\"]|request_headers.set.X-HTTP-Method = \"GET\"",
            "`routes.allow_overrides` contains `x-http-method`, which is removed from requests on every route, \
             since a route sets it"
                .to_owned(),
        ),
        ("access = \"optional\"|login = \"/login\"", format!("`routes.login` {inert}")),
        ("websockets = true", "unknown key `websockets` in `routes`".to_owned()),
    ];
    for (lines, expected) in &cases {
        // Removes the empty tables, which are errors on some of these routes.
        let source =
            with("[[routes]]", lines).replace("[routes.require]\n", "").replace("[routes.headers]\n", "");
        assert_eq!(errors(&source), [expected.as_str()], "{lines}");
    }

    let public = BASE
        .replace("session = \"main\"\n", "")
        .replace("[routes.require]\n", "")
        .replace("[routes.headers]\n", "");
    assert_eq!(errors(&public), ["a route sets neither `session` nor `access = \"public\"`"]);
    for access in ["required", "session", "optional"] {
        let source = public.replace("path = \"/\"", &format!("path = \"/\"\naccess = \"{access}\""));
        assert_eq!(errors(&source), ["`routes.access` needs a session, but the route has none"]);
    }
    let public = public.replace("path = \"/\"", "path = \"/\"\naccess = \"public\"");
    assert_eq!(errors(&public), [""; 0]);
    let headers = "`routes.headers` needs a session, which a public route does not look up";
    assert_eq!(errors(&format!("{public}headers.X-User = \"user\"")), [headers]);
    assert_eq!(errors(&format!("{public}require.role = \"a\"")), [format!("`routes.require` {inert}")]);
    for key in ["writes", "flash", "csrf"] {
        let expected = format!("`routes.{key}` needs a session, which a public route does not look up");
        assert_eq!(errors(&format!("{public}{key} = true")), [expected]);
        assert_eq!(errors(&format!("{public}{key} = false")), [""; 0]);
    }

    let none = BASE.split("[[routes]]").next().unwrap();
    assert_eq!(errors(none), ["no `[[routes]]` is configured"]);
    assert_eq!(errors(&BASE.replace("path = \"/\"\n", "")), ["`routes.path` is missing"]);
    assert_eq!(errors(&BASE.replace("upstream = \"app\"\n", "")), ["`routes.upstream` is missing"]);
}

/// An invalid route could match any requests, so it is not compared with others.
#[test]
fn invalid_route_is_not_compared_with_others() {
    let second = "[[routes]]|session = \"main\"|upstream = \"app\"|";
    let wrong_method = with("", &format!("{second}path = \"/\"|methods = [\"get\"]"));
    assert_eq!(errors(&wrong_method), ["`routes.methods` must be in upper case"]);
    let wrong_host = with("", &format!("{second}path = \"/\"|host = \"a b\""));
    assert_eq!(errors(&wrong_host), ["`routes.host` is not a valid host"]);
    let wrong_path =
        with("[[routes]]", "login = \"/login\"") + &format!("{second}path = \"/login;\"").replace('|', "\n");
    assert_eq!(errors(&wrong_path), ["`routes.path` must not contain `;`"]);
}

#[test]
fn invalid_requirements_are_errors() {
    let kind = "must be a string, an integer or a boolean, or a list of them";
    let cases = [
        ("role = []", "`routes.require.role` is an empty list".to_owned()),
        ("role = 1.5", format!("`routes.require.role` {kind}, not a float")),
        ("role = [[\"a\"]]", format!("`routes.require.role` {kind}, not a list")),
        (
            "user.role = \"a\"",
            "`routes.require.user` has none of the conditions `present`, `any`, `all`, `none`, `matches`, `below`, \
             `above`, `at_least`, `at_most`"
                .to_owned(),
        ),
        ("role = { any = [] }", "`routes.require.role.any` is an empty list".to_owned()),
        ("role = { present = 1 }", "`routes.require.role.present` must be `true` or `false`, not an integer".to_owned()),
        (
            "role = { below = 9007199254740992 }",
            "`routes.require.role.below` must be from -9007199254740991 to 9007199254740991".to_owned(),
        ),
        ("role = { below = nan }", "`routes.require.role.below` must be from -9007199254740991 to 9007199254740991".to_owned()),
        (
            "role = { matches = \"a)(b\" }",
            "`routes.require.role.matches` is not a valid regular expression: unopened group".to_owned(),
        ),
        ("role = { any = [\"a\"], beyond = 3 }", "unknown key `beyond` in `routes.require.role`".to_owned()),
        ("role = 99999999999999999999", "`routes.require.role` is out of range".to_owned()),
        ("\".role\" = \"a\"", "`routes.require..role` is not a valid claim path".to_owned()),
    ];
    for (lines, expected) in &cases {
        assert_eq!(errors(&with("[routes.require]", lines)), [expected.as_str()], "{lines}");
    }
}

#[test]
fn required_route_of_a_realm_without_a_user_claim_is_an_error() {
    let layout = "[sessions.shop]|format = \"layout\"|table = \"shop\"|cookie.name = \"shop\"|\
                  layout = { expires = \"expires\" }|USER|\
                  [[routes]]|path = \"/shop\"|session = \"shop\"|ACCESS|upstream = \"app\"";
    let errors =
        |user: &str, access: &str| errors(&with("", &layout.replace("USER", user).replace("ACCESS", access)));
    let unknown =
        "the route is for logged-in users, but `sessions.shop` does not set the claim that names the `user`";
    assert_eq!(errors("", ""), [unknown]);
    assert_eq!(errors("", "access = \"required\""), [unknown]);
    assert_eq!(errors("", "access = \"session\""), [""; 0]);
    assert_eq!(errors("", "access = \"optional\""), [""; 0]);
    assert_eq!(errors("user = \"customer\"", ""), [""; 0]);
    assert_eq!(errors("user = []", ""), ["`sessions.shop.user` is empty, so no user could be logged in"]);
    assert_eq!(errors("user = [\"a..b\"]", ""), ["`sessions.shop.user` is not a valid claim path"]);
    assert_eq!(
        errors("user = 1", ""),
        ["`sessions.shop.user` must be a claim path, or a list of them, not an integer"]
    );
}

#[test]
fn overlapping_routes_are_errors() {
    let alike = "two routes have the path `/`, the same host and a method in common";
    let route = |lines: &str| with("", &format!("[[routes]]|session = \"main\"|upstream = \"app\"|{lines}"));
    assert_eq!(errors(&route("path = \"/\"")), [alike]);
    accepted(&route("path = \"/\"|methods = [\"GET\"]"));
    accepted(&route("path = \"/\"|host = \"example.com\""));
    accepted(&route("path = \"/app\""));

    let two = |one: &str, other: &str| {
        route(&format!(
            "path = \"/a\"|{one}|[[routes]]|session = \"main\"|upstream = \"app\"|path = \"/a/\"|{other}"
        ))
    };
    let alike = "two routes have the path `/a`, the same host and a method in common";
    assert_eq!(errors(&two("methods = [\"GET\", \"POST\"]", "methods = [\"POST\"]")), [alike]);
    assert_eq!(errors(&two("host = \"example.com\"", "host = \"EXAMPLE.com.\"")), [alike]);
    accepted(&two("methods = [\"GET\"]", "methods = [\"POST\"]"));
    accepted(&two("host = \"*.example.com\"", "host = \"example.com\""));
}

#[test]
fn invalid_login_pages_are_errors() {
    let endless = "the login page itself requires a login";
    let local = "`routes.login` must be a path on the same host, beginning with a single `/`";
    let cases = [
        ("login", local),
        ("//evil.example/", local),
        ("https://login.example/", local),
        ("/\\\\evil.example/", "`routes.login` must not contain `\\\\`"),
        ("/log in", "`routes.login` must not contain ` `"),
        ("/a/../login", "`routes.login` must not contain the segments `.` and `..`"),
        ("/login?a={uri}&b={uri}", "`routes.login` may contain `{uri}` once, and no other braces"),
        ("/login?a={url}", "`routes.login` may contain `{uri}` once, and no other braces"),
        ("/login/{uri}", "`routes.login` must have `{uri}` in its query"),
        ("/login", endless),
        ("/login?next={uri}", endless),
    ];
    for (value, expected) in cases {
        assert_eq!(errors(&with("[[routes]]", &format!("login = \"{value}\""))), [expected], "{value}");
    }

    // The page's route is the one of the same host with the longest prefix, on a segment boundary.
    let page = |page: &str| {
        with("[[routes]]", "login = \"/login?next={uri}\"")
            + &format!("[[routes]]\nupstream = \"app\"\n{}\n", page.replace('|', "\n"))
    };
    accepted(&page("path = \"/login\"|access = \"public\""));
    accepted(&page("path = \"/login\"|session = \"main\"|access = \"optional\""));
    accepted(&page("path = \"/login\"|methods = [\"GET\"]|access = \"public\""));
    let before = "[[routes]]\npath = \"/login\"\nupstream = \"app\"\naccess = \"public\"\n[[routes]]";
    accepted(&with("[[routes]]", "login = \"/login\"").replace("[[routes]]", before));
    let other = "[sessions.b]|format = \"native\"|table = \"sessions\"|cookie.name = \"b\"";
    accepted(&page(&format!("path = \"/login\"|session = \"b\"|{other}")));
    let both = "path = \"/login\"|methods = [\"GET\"]|access = \"public\"|\
                [[routes]]|path = \"/login\"|session = \"main\"|upstream = \"app\"";
    accepted(&page(both));
    assert_eq!(errors(&page("path = \"/login\"|session = \"main\"")), [endless]);
    assert_eq!(errors(&page("path = \"/login/form\"|access = \"public\"")), [endless]);
    assert_eq!(errors(&page("path = \"/log\"|access = \"public\"")), [endless]);
    // The router does not fall back to the shorter prefix either.
    let (config, report) = read(&page("path = \"/login\"|methods = [\"POST\"]|access = \"public\""));
    assert!(config.is_some(), "{report}");
    let unmatched = "the route of the login page does not accept GET, so browsers get 405";
    assert_eq!(report.diagnostics().iter().map(|warning| &*warning.message).collect::<Vec<_>>(), [unmatched]);
    assert_eq!(errors(&page("path = \"/login\"|host = \"example.com\"|access = \"public\"")), [endless]);
}

#[test]
fn invalid_headers_are_errors() {
    let reserved = "is a header that HTTP or sessiongate itself uses";
    for name in [
        "Connection",
        "Content-Type",
        "content-length",
        "Cookie",
        "Date",
        "Expect",
        "Forwarded",
        "HOST",
        "HTTP2-Settings",
        "Keep-Alive",
        "Proxy",
        "Proxy-Authorization",
        "Sec-Fetch-Mode",
        "Set-Cookie",
        "TE",
        "Traceparent",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Via",
        "X-Forwarded-For",
        "X-Request-Id",
        "X-Session-Status",
    ] {
        let lines = format!("{name} = \"user\"");
        assert_eq!(
            errors(&with("[routes.headers]", &lines)),
            [format!("`routes.headers.{name}` {reserved}")]
        );
    }
    let claim = "is not a valid claim path";
    let join = "must consist of at most 8 characters: punctuation other than `%`, and spaces";
    let brace = "has an unbalanced brace";
    let cases = [
        ("X_User = \"user\"", "`routes.headers.X_User` is not a valid header name".to_owned()),
        ("\"X.User\" = \"user\"", "`routes.headers.X.User` is not a valid header name".to_owned()),
        ("\"\" = \"user\"", "`routes.headers.` is not a valid header name".to_owned()),
        ("X-A = \"a\"|x-a = \"b\"", "`routes.headers.x-a` is set twice".to_owned()),
        ("X-A = \"\"", format!("`routes.headers.X-A` {claim}")),
        ("X-A = \"a..b\"", format!("`routes.headers.X-A` {claim}")),
        ("X-A = 1", "`routes.headers.X-A` must be a claim path or a table, not an integer".to_owned()),
        ("X-A = {}", "`routes.headers.X-A` needs exactly one of `claim`, `template` and `tls`".to_owned()),
        (
            "X-A = { claim = \"a\", template = \"{a}\" }",
            "`routes.headers.X-A` needs exactly one of `claim`, `template` and `tls`".to_owned(),
        ),
        ("X-A = { claim = \"a.\" }", format!("`routes.headers.X-A.claim` {claim}")),
        ("X-A = { claim = \"a\", join = \"x\" }", format!("`routes.headers.X-A.join` {join}")),
        ("X-A = { claim = \"a\", join = \"%\" }", format!("`routes.headers.X-A.join` {join}")),
        ("X-A = { claim = \"a\", join = \"\" }", "`routes.headers.X-A.join` must not be empty".to_owned()),
        (
            "X-A = { template = \"{a}\", join = \",\" }",
            "`routes.headers.X-A.join` is only allowed with `claim`".to_owned(),
        ),
        (
            "X-A = { claim = \"a\", encoding = \"latin1\" }",
            "`routes.headers.X-A.encoding` must be `percent`, `utf8` or `base64`".to_owned(),
        ),
        (
            "X-A = { claims = \"a\", claim = \"a\" }",
            "unknown key `claims` in `routes.headers.X-A`".to_owned(),
        ),
        ("X-A = { template = \"a\" }", "`routes.headers.X-A.template` contains no claim".to_owned()),
        ("X-A = { template = \"{}\" }", format!("`routes.headers.X-A.template` {claim}")),
        ("X-A = { template = \"{a\" }", format!("`routes.headers.X-A.template` {brace}")),
        ("X-A = { template = \"{a}}\" }", format!("`routes.headers.X-A.template` {brace}")),
        ("X-A = { template = \"{a{b}\" }", format!("`routes.headers.X-A.template` {brace}")),
        ("X-A = { template = \"ü {a}\" }", "`routes.headers.X-A.template` must not contain `ü`".to_owned()),
    ];
    for (lines, expected) in &cases {
        assert_eq!(errors(&with("[routes.headers]", lines)), [expected.as_str()], "{lines}");
    }
}
