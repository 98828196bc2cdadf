//! Errors in the destinations, rewriting and header edits of routes.

use sessiongate::config::{Destination, EditValue, Piece, RedirectVariable, Rewrite, UpstreamHost};
use sessiongate::rate::Rate;

use crate::config::fixture::{BASE, accepted, errors, with};

/// Returns the base file with a second route at `/app` with these lines.
fn route(lines: &str) -> String {
    with("", &format!("[[routes]]|path = \"/app\"|access = \"public\"|{lines}"))
}

fn check(cases: &[(&str, &str)]) {
    for (lines, expected) in cases {
        assert_eq!(errors(&route(lines)), [*expected], "{lines}");
    }
}

#[test]
fn invalid_destinations_are_errors() {
    let several = "a route has more than one of `upstream`, `redirect` and `respond`";
    check(&[
        ("", "`routes.upstream` is missing"),
        ("upstream = \"app\"|redirect = \"/x\"", several),
        ("redirect = \"/x\"|respond = {}", several),
        ("redirect = 1", "`routes.redirect` must be a string or a table, not an integer"),
        ("redirect = {}", "`routes.redirect.to` is missing"),
        (
            "redirect = { to = \"/x\", status = 200 }",
            "`routes.redirect.status` must be 301, 302, 303, 307 or 308",
        ),
        ("redirect = { to = \"/x\", state = 301 }", "unknown key `state` in `routes.redirect`"),
        ("respond = { status = 199 }", "`routes.respond.status` must be from 200 to 599"),
        ("respond = { status = 302 }", "`routes.respond.status` must not be a redirect"),
        ("respond = { status = 204, body = \"x\" }", "`routes.respond.body` is not allowed with status 204"),
        (
            "respond = { content_type = \"text/html\" }",
            "`routes.respond.content_type` has no effect without `body`",
        ),
        (
            "respond = { body = \"x\", content_type = \"html\" }",
            "`routes.respond.content_type` is not a valid media type",
        ),
        ("redirect = \"/x\"|prefix = \"/y\"", "`routes.prefix` has no effect on a route without `upstream`"),
        ("respond = {}|max_body = \"1KiB\"", "`routes.max_body` has no effect on a route without `upstream`"),
        (
            "upstream = \"app\"|response_timeout = \"0s\"",
            "`routes.response_timeout` must be from 1ms to 1day",
        ),
        ("upstream = \"app\"|max_body = \"2TiB\"", "`routes.max_body` must be from 0 B to 1.0 TiB"),
    ]);
    check(&[
        ("upstream = \"app\"|rate = {}", "`routes.rate.per_second` is missing"),
        (
            "upstream = \"app\"|rate = { per_second = 0 }",
            "`routes.rate.per_second` must be from 1 to 1000000",
        ),
        (
            "upstream = \"app\"|rate = { per_second = 1, burst = 0 }",
            "`routes.rate.burst` must be from 1 to 1000000",
        ),
        ("upstream = \"app\"|rate = 10", "`routes.rate` must be a table, not an integer"),
    ]);
    for (lines, expected) in [
        (
            "misses = \"of\"",
            "`server.limits.misses` must be `unlimited`, or a table such as `{ per_second = 10 }`",
        ),
        ("misses = {}", "`server.limits.misses.per_second` is missing"),
        (
            "reset_rate = \"off\"",
            "`server.limits.reset_rate` must be `unlimited`, or a table such as `{ per_second = 10 }`",
        ),
        ("reset_rate = { burst = 1 }", "`server.limits.reset_rate.per_second` is missing"),
        ("rate = { burst = 1 }", "`server.limits.rate.per_second` is missing"),
        ("max_body = \"2TiB\"", "`server.limits.max_body` must be from 0 B to 1.0 TiB"),
    ] {
        assert_eq!(errors(&with("[server]", &format!("limits.{lines}"))), [expected], "{lines}");
    }
    let rate = |per_second, burst| Some(Rate { per_second, burst });
    let limits =
        accepted(&with("[server]", "limits.misses = \"unlimited\"|limits.rate = { per_second = 5 }"))
            .server
            .limits;
    assert_eq!((limits.misses, limits.rate), (None, rate(5, 5)));
    assert_eq!(accepted(BASE).server.limits.misses, rate(10, 100));
    assert_eq!(accepted(BASE).server.limits.reset_rate, rate(100, 500));
    let unlimited = accepted(&with("[server]", "limits.reset_rate = \"unlimited\""));
    assert_eq!(unlimited.server.limits.reset_rate, None);
    accepted(&route("respond = { body = \"\" }"));
    accepted(&route(
        "redirect = { to = \"/x\", status = 303 }|[routes.response_headers]|set = { X-A = \"b\" }",
    ));
    let alone = BASE.replace("upstream = \"app\"", "respond = {}").replace("[routes.headers]\n", "");
    let alone = alone.replace("[upstreams.app]\nservers = [\"http://127.0.0.1:8000\"]\n", "");
    accepted(&alone);
}

#[test]
fn invalid_redirects_are_errors() {
    let start = "`routes.redirect` must begin with `https://`, `http://` or a single `/`";
    let slash = "`routes.redirect` must not have a `/` before `{uri}` or `{path}`, which begin with one";
    for (to, expected) in [
        ("new.example", start),
        ("ftp://new.example", start),
        ("//new.example", start),
        ("{uri}", start),
        ("javascript:x", start),
        ("https://", "`routes.redirect` is not a valid host"),
        ("https://{uri}", "`routes.redirect` is not a valid host"),
        ("https://user@new.example", "`routes.redirect` is not a valid host"),
        ("https://*.example", "`routes.redirect` must be a single host"),
        ("https://new.example{query}", "`routes.redirect` must not contain `{query}` in its host"),
        ("https://new.example/{path}", slash),
        ("/{uri}", slash),
        ("/x/{uri}", slash),
        ("/{query}", "`routes.redirect` must have `{query}` after a `?`"),
        ("/x{user}", "`routes.redirect` contains the unknown variable `{user}`"),
        ("/x{uri", "`routes.redirect` has an unbalanced brace"),
        ("/x y", "`routes.redirect` must not contain ` `"),
        ("/\\\\x", "`routes.redirect` must not contain `\\\\`"),
        ("/x\\r\\nSet-Cookie: a", "`routes.redirect` must not contain control characters"),
    ] {
        assert_eq!(errors(&route(&format!("redirect = \"{to}\""))), [expected], "{to}");
    }
    for to in [
        "https://new.example{uri}",
        "http://new.example:8080{path}?{query}",
        "https://{host}{uri}",
        "https://www.{host}:8443{uri}",
        "/login?next={uri}#top",
        "/{host}{path}",
        "https://[::1]/x",
    ] {
        accepted(&route(&format!("redirect = \"{to}\"")));
    }
    let config = accepted(&route("redirect = \"/a{path}?{uri}\""));
    let Destination::Redirect(redirect) = &config.routes[1].destination else { panic!("{config:?}") };
    let text = |text: &str| Piece::Text(text.to_owned());
    let variable = Piece::Variable;
    let expected =
        [text("/a"), variable(RedirectVariable::Path), text("?"), variable(RedirectVariable::EncodedUri)];
    assert_eq!((redirect.to.as_slice(), redirect.status.as_u16()), (&expected[..], 308));
}

#[test]
fn invalid_rewriting_is_an_error() {
    let strip = "`routes.strip_prefix` is not a prefix of the route's path";
    for (lines, expected) in [
        ("strip_prefix = \"/ap\"", strip),
        ("strip_prefix = \"/app/x\"", strip),
        ("strip_prefix = \"/\"", "`routes.strip_prefix` must not be `/`"),
        ("strip_prefix = \"app\"", "`routes.strip_prefix` must begin with `/`"),
        (
            "strip_prefix = 1",
            "`routes.strip_prefix` must be a path, or `true` for the route's path, not an integer",
        ),
        ("prefix = \"/a/../b\"", "`routes.prefix` must not contain the segments `.` and `..`"),
        ("prefix = \"/a?b\"", "`routes.prefix` must not contain `?`"),
        ("prefix = \"/\"", "`routes.prefix` must not be `/`"),
        ("strip_prefix = true|prefix = \"/app/\"", "`routes.prefix` is the same as `strip_prefix`"),
        (
            "rewrite_location = true",
            "`routes.rewrite_location` has no effect: the route changes neither path nor host",
        ),
        ("upstream_host = \"a:+80\"", "`routes.upstream_host` is not a valid host"),
        ("upstream_host = \"a b\"", "`routes.upstream_host` is not a valid host"),
        ("upstream_host = \"*.example\"", "`routes.upstream_host` must be a single host"),
    ] {
        assert_eq!(errors(&route(&format!("upstream = \"app\"|{lines}"))), [expected], "{lines}");
    }
    let root = with("[[routes]]", "strip_prefix = true");
    assert_eq!(errors(&root), ["`routes.strip_prefix` has no effect: the route's path is `/`"]);

    let read = |lines: &str| {
        let config = accepted(&route(&format!("upstream = \"app\"|{lines}")));
        match config.routes[1].destination.clone() {
            Destination::Upstream(to) => (to.rewrite, to.host),
            Destination::Redirect(_) | Destination::Respond(_) => panic!("{lines}"),
        }
    };
    let rewrite = |strip: &str, prefix: &str, rewrite_location| Rewrite {
        strip: strip.into(),
        prefix: prefix.into(),
        rewrite_location,
    };
    assert_eq!(read("strip_prefix = true"), (rewrite("/app", "", true), UpstreamHost::Preserve));
    assert_eq!(read("strip_prefix = false"), (rewrite("", "", false), UpstreamHost::Preserve));
    assert_eq!(
        read(
            "strip_prefix = \"/app/\"|prefix = \"/old/\"|rewrite_location = false|upstream_host = \"upstream\""
        ),
        (rewrite("/app", "/old", false), UpstreamHost::Server)
    );
    assert_eq!(
        read("upstream_host = \"App.Internal:8080\""),
        (rewrite("", "", true), UpstreamHost::Name("app.internal:8080".into()))
    );
}

#[test]
fn invalid_header_edits_are_errors() {
    let request = |lines: &str| route(&format!("upstream = \"app\"|[routes.request_headers]|{lines}"));
    for name in [
        "Host",
        "Cookie",
        "Connection",
        "Content-Length",
        "Transfer-Encoding",
        "X-Forwarded-For",
        "Forwarded",
        "Via",
        "X-Session-Ref",
        "X-Request-Id",
        "Sec-Fetch-Site",
        "TE",
    ] {
        let reserved = format!("contains `{name}`, which HTTP or sessiongate itself uses");
        let set = request(&format!("set = {{ {name} = \"x\" }}"));
        assert_eq!(errors(&set), [format!("`routes.request_headers.set.{name}` {reserved}")]);
        let remove = request(&format!("remove = [\"{name}\"]"));
        assert_eq!(errors(&remove), [format!("`routes.request_headers.remove` {reserved}")]);
    }
    let only_gateway =
        "`routes.request_headers.set.Traceparent` contains `traceparent`, which only the gateway sets";
    assert_eq!(errors(&request("set = { Traceparent = \"x\" }")), [only_gateway]);
    assert!(errors(&request("remove = [\"Traceparent\"]")).is_empty());
    let response = |lines: &str| route(&format!("upstream = \"app\"|[routes.response_headers]|{lines}"));
    for name in [
        "Set-Cookie",
        "Content-Length",
        "Connection",
        "Keep-Alive",
        "Transfer-Encoding",
        "Location",
        "WWW-Authenticate",
        "X-Session-Status",
        "X-Request-Id",
        "Date",
        "Sec-WebSocket-Accept",
    ] {
        for verb in ["set", "add"] {
            let reserved = format!(
                "`routes.response_headers.{verb}.{name}` contains `{name}`, which HTTP or sessiongate itself uses"
            );
            assert_eq!(errors(&response(&format!("{verb} = {{ {name} = \"x\" }}"))), [reserved]);
        }
    }
    for (lines, expected) in [
        ("set = { X_A = \"x\" }", "`routes.response_headers.set.X_A` is not a valid header name"),
        ("set = { X-A = \"x\", x-a = \"y\" }", "`routes.response_headers.set.x-a` is set twice"),
        (
            "set = { X-A = \"x\" }|remove = [\"x-a\"]",
            "`routes.response_headers.remove` contains `x-a`, which is also set or added",
        ),
        (
            "set = { X-A = \"x\" }|add = { X-A = \"y\" }",
            "`routes.response_headers.add` contains `x-a`, which is also set",
        ),
        ("set = { X-A = 1 }", "`routes.response_headers.set.X-A` must be a string, not an integer"),
        ("set = { X-A = \"\" }", "`routes.response_headers.set.X-A` must not be empty"),
        ("set = { X-A = \" x\" }", "`routes.response_headers.set.X-A` must not begin or end with a space"),
        ("set = { X-A = \"ü\" }", "`routes.response_headers.set.X-A` must not contain `ü`"),
        (
            "set = { X-A = \"a\\nb\" }",
            "`routes.response_headers.set.X-A` must not contain control characters",
        ),
        (
            "set = { X-A = \"{cookie}\" }",
            "`routes.response_headers.set.X-A` contains the unknown variable `{cookie}`",
        ),
        ("set = { X-A = \"{host\" }", "`routes.response_headers.set.X-A` has an unbalanced brace"),
    ] {
        assert_eq!(errors(&response(lines)), [expected], "{lines}");
    }
    // The values of request headers may be credentials, which no message may contain.
    assert_eq!(
        errors(&request("set = { Authorization = \"Bearer {secret}\" }")),
        ["`routes.request_headers.set.Authorization` contains an unknown variable"]
    );
    assert_eq!(errors(&request("add = { X-A = \"x\" }")), ["unknown key `add` in `routes.request_headers`"]);
    let injected = BASE.to_owned() + "X-User = \"user\"\n[routes.request_headers]\nremove = [\"x-user\"]\n";
    let expected =
        "`routes.request_headers` edits `x-user`, which `headers` sets or removes on every request";
    assert_eq!(errors(&injected), [expected]);

    let config = accepted(&response(
        "set = { X-A = \"{route} {{}}\", X-B = \"{client_ip}\" }|add = { Vary = \"Accept\" }",
    ));
    let edits = &config.routes[1].response_headers;
    assert!(matches!(&edits.set[0].value, EditValue::Constant(value) if value == "/app {}"), "{edits:?}");
    assert!(matches!(&edits.set[1].value, EditValue::Template(_)), "{edits:?}");
    accepted(&response(
        "set = { Content-Security-Policy = \"default-src 'self'\", Cache-Control = \"no-cache\" }|remove = [\"Server\"]",
    ));
}
