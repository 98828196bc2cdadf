//! Errors in `[upstreams.NAME]`.

use super::check;
use crate::config::fixture::{BASE, errors, read, with};

#[test]
fn invalid_upstreams_are_errors() {
    let url = "`upstreams.app.servers` must be a server URL";
    let path = "`upstreams.app.servers` must not have a path or query: requests are forwarded with their own";
    let cases = [
        ("servers = []", "`upstreams.app.servers` must name at least one server"),
        ("servers = \"http://a\"", "`upstreams.app.servers` must be a list, not a string"),
        (
            "servers = [1]",
            "`upstreams.app.servers` must be a URL, or `{ url = \"…\", weight = 1 }`, not an integer",
        ),
        ("servers = [\"127.0.0.1:8000\"]", url),
        ("servers = [\"http://\"]", url),
        ("servers = [\"http://:80\"]", url),
        ("servers = [\"http://a b\"]", url),
        ("servers = [\"http://a..b\"]", url),
        ("servers = [\"http://a:\"]", url),
        ("servers = [\"http://a:0\"]", url),
        ("servers = [\"http://a:+80\"]", url),
        ("servers = [\"http://a:65536\"]", url),
        ("servers = [\"http://::1\"]", url),
        ("servers = [\"http://[::1\"]", url),
        ("servers = [\"http://[a]:80\"]", url),
        ("servers = [\"builtin:echo\"]", url),
        (
            "servers = [\"https://10.0.0.300\"]",
            "`upstreams.app.servers` has a host that no certificate can have",
        ),
        ("servers = [\"https://a-.b\"]", "`upstreams.app.servers` has a host that no certificate can have"),
        ("servers = [\"ftp://a\"]", url),
        ("servers = [\"unix:app.sock\"]", "`upstreams.app.servers` must have an absolute path after `unix:`"),
        (
            "servers = [{ weight = 2 }]",
            "`upstreams.app.servers` must be a URL, or `{ url = \"…\", weight = 1 }`",
        ),
        (
            "servers = [{ url = \"http://a\", weight = 0 }]",
            "`upstreams.app.servers` has an invalid weight: it must be from 1 to 1000",
        ),
        ("servers = [\"http://a/\"]", path),
        ("servers = [\"http://a/app\"]", path),
        ("servers = [\"http://a?b\"]", path),
        ("servers = [\"http://u:p@a\"]", "`upstreams.app.servers` must not contain a user or password"),
        ("connect_timeout = \"0s\"", "`upstreams.app.connect_timeout` must be from 1ms to 1day"),
        ("response_timeout = \"2days\"", "`upstreams.app.response_timeout` must be from 1ms to 1day"),
        ("keep_alive = 5000", "`upstreams.app.keep_alive` must be from 0 to 4096"),
        ("idle_timeout = 4", "`upstreams.app.idle_timeout` must be a duration, not an integer"),
        ("weight = 4", "unknown key `weight` in `upstreams.app`"),
    ];
    check(&cases.map(|(lines, expected)| ("[upstreams.app]", lines, expected)));
    let cases = [
        (
            "balance = \"random\"",
            "`upstreams.app.balance` must be `round_robin`, `least_connections`, `random_two` or `sticky`",
        ),
        ("resolve = \"30s\"", "`upstreams.app.resolve` has no effect: no server has a host name to look up"),
        (
            "protocol = \"http2\"",
            "`upstreams.app.protocol` has no effect: the servers' URLs determine the protocol",
        ),
        ("queue.size = 3", "`upstreams.app.queue` has no effect without `max_connections`"),
        ("retries.attempts = 0", "`upstreams.app.retries.attempts` must be from 1 to 10"),
        ("retries.budget = 0.0", "`upstreams.app.retries.budget` must be from 0.001 to 1"),
        ("retries.budget = \"a\"", "`upstreams.app.retries.budget` must be a number, not a string"),
        (
            "retries = { attempts = 1, budget = 0.5 }",
            "`upstreams.app.retries.budget` has no effect: with `attempts = 1` there are no retries",
        ),
        (
            "ejection = { failures = 0, for = \"1s\" }",
            "`upstreams.app.ejection.for` has no effect: with `failures = 0` no server is ejected",
        ),
        ("ejection.status = \"5xx\"", "`upstreams.app.ejection.status` must be statuses from 100 to 599"),
        ("ejection.status = \"599-500\"", "`upstreams.app.ejection.status` must be statuses from 100 to 599"),
        ("health.interval = \"1s\"", "`upstreams.app.health.path` is missing"),
        ("health.path = \"healthz\"", "`upstreams.app.health.path` must be a path"),
        (
            "health = { path = \"/\", host = \"a b\" }",
            "`upstreams.app.health.host` must be a host with an optional port",
        ),
        (
            "health = { path = \"/\", timeout = \"9s\" }",
            "`upstreams.app.health.timeout` must not be longer than `interval`",
        ),
        ("tls.server_name = \"a\"", "`upstreams.app.tls` has no effect: no server is reached over TLS"),
    ];
    check(&cases.map(|(lines, expected)| ("[upstreams.app]", lines, expected)));
    let https = "servers = [\"https://a\"]";
    let tls = |lines: &str| {
        let source = with("[upstreams.app]", &format!("{https}|tls = {{ {lines} }}"));
        let (_, report) = read(&source);
        report.diagnostics().iter().map(|problem| problem.message.clone()).collect::<Vec<_>>()
    };
    assert!(tls("ca = \"ca.pem\", cert = \"client.pem\", key = \"client.key\"").is_empty());
    for (lines, expected) in [
        ("cert = \"client.pem\"", "`upstreams.app.tls.cert` needs `key`"),
        ("key = \"client.key\"", "`upstreams.app.tls.key` needs `cert`"),
        ("ca = \"client.key\"", "`upstreams.app.tls.ca` contains no PEM certificate"),
        ("ca = \"none.pem\"", "`upstreams.app.tls.ca` cannot be read from `etc/none.pem`: entity not found"),
        ("cert = \"client.pem\", key = \"ca.pem\"", "`upstreams.app.tls.key` contains no PEM private key"),
        (
            "cert = \"ca.pem\", key = \"client.key\"",
            "`upstreams.app.tls.key` cannot be used with `cert`: keys may not be consistent: KeyMismatch",
        ),
        ("server_name = \"a b\"", "`upstreams.app.tls.server_name` must be a host name or an IP address"),
        ("verify = false", "unknown key `verify` in `upstreams.app.tls`"),
    ] {
        assert_eq!(tls(lines), [expected], "{lines}");
    }
    let none = BASE.replace("servers = [\"http://127.0.0.1:8000\"]", "");
    assert_eq!(errors(&none), ["`upstreams.app.servers` is missing"]);
}
