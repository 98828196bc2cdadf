//! Errors in configuration files. Each case breaks one rule, so it has one error.

mod destinations;
mod listeners;
mod routes;
mod sessions;
mod upstreams;

use super::fixture::{BASE, accepted, errors, with};

/// The header, the lines under it (`|` stands for a new line), and the expected error.
type Case = (&'static str, &'static str, &'static str);

fn check(cases: &[Case]) {
    for (header, lines, expected) in cases {
        assert_eq!(errors(&with(header, lines)), [*expected], "{header} {lines}");
    }
}

#[test]
fn base_file_is_valid() {
    accepted(BASE);
}

#[test]
fn invalid_server_settings_are_errors() {
    let access_log =
        "`server.access_log` must be `true`, `false`, `\"stdout\"`, `\"stderr\"` or `{ file = \"path\" }`";
    check(&[
        ("[server]", "wrokers = 2", "unknown key `wrokers` in `server`"),
        ("[server]", "workers = 1025", "`server.workers` must be from 0 to 1024"),
        ("[server]", "workers = -1", "`server.workers` must be from 0 to 1024"),
        ("[server]", "workers = \"2\"", "`server.workers` must be an integer, not a string"),
        ("[server]", "workers = 99999999999999999999", "`server.workers` must be from 0 to 1024"),
        ("[server]", "log = \"jsn\"", "`server.log` must be `text` or `json`"),
        ("[server]", "log = 1", "`server.log` must be `text` or `json`"),
        ("[server]", "access_log = \"yes\"", access_log),
        ("[server]", "access_log = 1", access_log),
        ("[server]", "access_log = { path = \"a\" }", access_log),
        ("[server]", "access_log = { file = \"\" }", "`server.access_log` must not be empty"),
        ("[server]", "traces = \"make\"", "`server.traces` must be `sampled`, `unsampled` or `pass`"),
        (
            "[server]",
            "max_header_bytes = \"255B\"",
            "`server.max_header_bytes` must be from 256 B to 64.0 KiB",
        ),
        (
            "[server]",
            "max_header_bytes = \"65KiB\"",
            "`server.max_header_bytes` must be from 256 B to 64.0 KiB",
        ),
        ("[server]", "max_header_bytes = \"8 pounds\"", "`server.max_header_bytes` is not a size"),
        ("[server]", "max_header_bytes = 8192", "`server.max_header_bytes` must be a size, not an integer"),
        ("[server]", "odd_headers = \"keep\"", "`server.odd_headers` must be `drop` or `pass`"),
        ("[server]", "header_timeout = \"0s\"", "`server.header_timeout` must be from 100ms to 1h"),
        ("[server]", "header_timeout = 15", "`server.header_timeout` must be a duration, not an integer"),
        ("[server]", "header_timeout = \"15\"", "`server.header_timeout` is not a duration"),
        ("[server]", "idle_timeout = \"50ms\"", "`server.idle_timeout` must be from 100ms to 1h"),
        ("[server]", "body_timeout = \"2h\"", "`server.body_timeout` must be from 100ms to 1h"),
        ("[server]", "send_timeout = 30", "`server.send_timeout` must be a duration, not an integer"),
        ("[server]", "body_rate = \"2MiB\"", "`server.body_rate` must be from 0 B to 1.0 MiB"),
        // This would overflow the parser's arithmetic.
        ("[server]", "drain = \"18446744073709551615s 1000ms\"", "`server.drain` is not a duration"),
        ("[server]", "drain = \"100years\"", "`server.drain` must be from 0s to 1day"),
        ("", "[[server.x]]", "unknown key `x` in `server`"),
    ]);
    assert_eq!(errors(&BASE.replace("[server]", "server = 3")), ["`server` must be a table, not an integer"]);
}

#[test]
fn invalid_limits_are_errors() {
    let connections = "`server.limits.connections` must be from 1 to 10000000";
    let too_high = "`server.limits.connections_per_address` has no effect unless it is below `connections`";
    check(&[
        ("[server]", "limits.connections = 0", connections),
        ("[server]", "limits.connections = 10|limits.connections_per_address = 10", too_high),
        (
            "[server]",
            "limits.connections_per_address = -1",
            "`server.limits.connections_per_address` must be from 0 to 10000000",
        ),
    ]);
    let limit = |line: &str| format!("[server]\n[server.limits]\n{line}");
    for (line, expected) in [
        ("streams = 0", "`server.limits.streams` must be from 1 to 10000"),
        ("resets = 0", "`server.limits.resets` must be from 1 to 10000"),
        ("header_bytes = \"1KiB\"", "`server.limits.header_bytes` must be from 4.0 KiB to 1.0 MiB"),
        ("headers = 9", "`server.limits.headers` must be from 10 to 10000"),
        ("uri = \"64KiB\"", "`server.limits.uri` must be from 256 B to 64.0 KiB"),
        ("header_bytes = \"8KiB\"", "`server.limits.uri` must not exceed `header_bytes`, which includes it"),
        ("stream = 1", "unknown key `stream` in `server.limits`"),
    ] {
        assert_eq!(errors(&BASE.replace("[server]", &limit(line))), [expected], "{line}");
    }
}

#[test]
fn invalid_stores_are_errors() {
    let endpoint = "`store.dynamodb.endpoint` must be an `http` or `https` URL";
    let user = "`store.dynamodb.endpoint` must not contain a user or password";
    check(&[
        (
            "[store.dynamodb]",
            "region = \"eu central\"",
            "`store.dynamodb.region` is not a valid AWS region name",
        ),
        ("[store.dynamodb]", "profile = \"\"", "`store.dynamodb.profile` must not be empty"),
        (
            "[store.dynamodb]",
            "profile = \"a\\u0000b\"",
            "`store.dynamodb.profile` must not contain control characters",
        ),
        ("[store.dynamodb]", "role_arn = \"gateway\"", "`store.dynamodb.role_arn` is not a valid role ARN"),
        ("[store.dynamodb]", "endpoint = \"127.0.0.1:8000\"", endpoint),
        ("[store.dynamodb]", "endpoint = \"ftp://localhost\"", endpoint),
        ("[store.dynamodb]", "endpoint = \"http://\"", endpoint),
        ("[store.dynamodb]", "endpoint = \"http://u:p@localhost\"", user),
        (
            "[store.dynamodb]",
            "endpoint = \"http://localhost/?a=b\"",
            "`store.dynamodb.endpoint` must not have a query",
        ),
        ("[store.dynamodb]", "timeout = \"1ms\"", "`store.dynamodb.timeout` must be from 10ms to 5m"),
        ("[store.dynamodb]", "attempts = 0", "`store.dynamodb.attempts` must be from 1 to 10"),
        ("[store.dynamodb]", "attempts = 11", "`store.dynamodb.attempts` must be from 1 to 10"),
        ("[store.dynamodb]", "path = \"x\"", "unknown key `path` in `store.dynamodb`"),
        ("", "[store.redis]", "unknown key `redis` in `store`"),
    ]);
    let none = BASE.replace("[store.dynamodb]\n", "");
    assert_eq!(errors(&none), ["no store is configured"]);
    assert_eq!(errors(&format!("{none}[store]")), ["no store is configured"]);
    assert_eq!(errors(&format!("store = 1\n{none}")), ["`store` must be a table, not an integer"]);
}

#[cfg(feature = "embedded")]
#[test]
fn invalid_embedded_stores_are_errors() {
    let embedded = |lines: &str| BASE.replace("[store.dynamodb]", &format!("[store.embedded]\n{lines}"));
    let loopback = "`store.embedded.listen` must be a loopback address";
    assert_eq!(errors(&embedded("listen = \"0.0.0.0:8000\"")), [loopback]);
    assert_eq!(errors(&embedded("listen = \"10.0.0.1:8000\"")), [loopback]);
    assert_eq!(errors(&embedded("path = 3")), ["`store.embedded.path` must be a string, not an integer"]);
    assert_eq!(errors(&embedded("[store.dynamodb]")), ["two stores are configured"]);
    accepted(&embedded("listen = \"[::1]:0\""));
}

#[cfg(not(feature = "embedded"))]
#[test]
fn embedded_store_needs_the_cargo_feature() {
    let embedded = BASE.replace("[store.dynamodb]", "[store.embedded]");
    assert_eq!(errors(&embedded), ["this build of sessiongate has no embedded store"]);
}
