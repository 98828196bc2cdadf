//! Errors in `[sessions.NAME]`.

use std::time::Duration;

use super::check;
use crate::config::fixture::{BASE, accepted, errors, read, with};

#[test]
fn invalid_realms_are_errors() {
    let stale = "`sessions.main.on_store_error` must be `refuse`, `anonymous` or `{ stale = \"30s\" }`";
    check(&[
        (
            "[sessions.main]",
            "format = \"flask\"",
            "`sessions.main.format` must be `native`, `pyramid`, `django`, `layout`, `adonis`, \
             `connect-dynamodb-session`, `dynamodb-session-web`, `dynamodb-store`, `dysession`, `express`, \
             `flask-session` or `rack`",
        ),
        ("[sessions.main]", "format = \"django\"", "`sessions.main.keys` is missing: django rows are signed"),
        (
            "[sessions.main]",
            "format = \"django\"|keys = { previous = [] }",
            "`sessions.main.keys.current` is missing",
        ),
        (
            "[sessions.main]",
            "enforce_age = true",
            "`sessions.main.enforce_age` is only for `django`: rows of other formats have a deadline",
        ),
        (
            "[sessions.main]",
            "table = \"my table\"",
            "`sessions.main.table` is not a valid DynamoDB table name",
        ),
        ("[sessions.main]", "table = \"ab\"", "`sessions.main.table` is not a valid DynamoDB table name"),
        ("[sessions.main]", "key_attribute = \"\"", "`sessions.main.key_attribute` must not be empty"),
        (
            "[sessions.main]",
            "timeout = \"500ms\"|reissue_time = \"1s\"",
            "`sessions.main.timeout` must be from 1s to 10years",
        ),
        (
            "[sessions.main]",
            "timeout = \"1m\"",
            "`sessions.main.reissue_time` is 2m, but must be shorter than `timeout`, which is 1m",
        ),
        (
            "[sessions.main]",
            "reissue_time = \"20m\"",
            "`sessions.main.reissue_time` is 20m, but must be shorter than `timeout`, which is 20m",
        ),
        (
            "[sessions.main]",
            "lifetime = \"19m\"",
            "`sessions.main.lifetime` must not be shorter than `timeout`, which is 20m",
        ),
        (
            "[sessions.main]",
            "format = \"pyramid\"|lifetime = \"12h\"",
            "`sessions.main.lifetime` cannot be enforced: pyramid rows do not record when a session was created",
        ),
        (
            "[sessions.main]",
            "format = \"pyramid\"|rotation_grace = \"5s\"",
            "`sessions.main.rotation_grace` is only for `native`: rows of other formats cannot refer to the new id",
        ),
        (
            "[sessions.main]",
            "format = \"dysession\"|reissue_time = \"1m\"",
            "`sessions.main.reissue_time` has no effect: the realm's dysession sessions are never reissued",
        ),
        (
            "[sessions.main]",
            "key_attribute = \"exp\"",
            "`sessions.main.key_attribute` is an attribute that native rows use for something else",
        ),
        (
            "[sessions.main]",
            "consistency = \"eventually\"",
            "`sessions.main.consistency` must be `auto`, `strong` or `eventual`",
        ),
        ("[sessions.main]", "on_store_error = \"pass\"", stale),
        ("[sessions.main]", "on_store_error = { stale = \"30s\", x = 1 }", stale),
        ("[sessions.main]", "on_store_error = {}", stale),
        ("[sessions.main]", "on_store_error = 1", stale),
        (
            "[sessions.main]",
            "on_store_error = { stale = \"0s\" }",
            "`sessions.main.on_store_error` must be from 1s to 1day",
        ),
        (
            "[sessions.main]",
            "forward_cookie = 1",
            "`sessions.main.forward_cookie` must be `true` or `false`, not an integer",
        ),
        ("[sessions.main.cache]", "ttl = \"2h\"", "`sessions.main.cache.ttl` must be from 0s to 1h"),
        (
            "[sessions.main.cache]",
            "capacity = 0",
            "`sessions.main.cache.capacity` must be from 1 to 10000000",
        ),
        (
            "[sessions.main.cache]",
            "capacity = 10_000_001",
            "`sessions.main.cache.capacity` must be from 1 to 10000000",
        ),
    ]);
    let stale_without_cache = with("[sessions.main.cache]", "ttl = \"0s\"")
        .replace("table = ", "on_store_error = { stale = \"30s\" }\ntable = ");
    let expected = "`sessions.main.on_store_error` needs the cache, but `cache.ttl` turns it off";
    assert_eq!(errors(&stale_without_cache), [expected]);

    assert_eq!(errors(&BASE.replace("format = \"native\"\n", "")), ["`sessions.main.format` is missing"]);
    assert_eq!(errors(&BASE.replace("table = \"sessions\"\n", "")), ["`sessions.main.table` is missing"]);
    let named = "a name under `sessions` may contain only letters, digits, `-` and `_`";
    assert_eq!(
        errors(&BASE.replace("sessions.main", "sessions.\"\"").replace("\"main\"", "\"x\"")),
        [named, "`routes.session` refers to an unknown `[sessions.NAME]`"]
    );
    assert_eq!(
        errors(&BASE.replace("sessions.main", "sessions.\"a b\"").replace("\"main\"", "\"a b\"")),
        [named]
    );
}

#[test]
fn timeout_of_sessions_that_are_never_reissued_is_a_warning() {
    let (config, report) = read(&with("[sessions.main]", "format = \"dysession\"|timeout = \"1m\""));
    assert_eq!(config.map(|config| config.realms[0].timeout), Some(Duration::from_mins(1)));
    let warnings: Vec<_> = report.diagnostics().iter().map(|diagnostic| &diagnostic.message).collect();
    assert_eq!(warnings, ["`sessions.main.timeout` applies only to sessions that the gateway creates"]);
}

#[test]
fn invalid_cookies_are_errors() {
    let name = "`sessions.main.cookie.name` is not a valid cookie name";
    let prefix = "`sessions.main.cookie.secure` must be `true`, since the cookie's name has the prefix `__Host-` or `__Secure-`";
    let path = "`sessions.main.cookie.path` must begin with `/`, and consist of visible ASCII characters other than `;`";
    let domain = "`sessions.main.cookie.domain` is not a valid domain";
    let partitioned = "`sessions.main.cookie.partitioned` is accepted by browsers only with `Secure`";
    let cases = [
        ("name = \"a b\"", name),
        ("name = \"a=b\"", name),
        ("name = \"a;b\"", name),
        ("name = \"ü\"", name),
        ("name = \"__Host-id\"", prefix),
        ("name = \"__host-id\"|secure = \"auto\"", prefix),
        ("name = \"__Secure-id\"|secure = false", prefix),
        (
            "name = \"__Host-id\"|secure = true|path = \"/app\"",
            "`sessions.main.cookie.path` must be \"/\", since the cookie's name has the prefix `__Host-`",
        ),
        (
            "name = \"__Host-id\"|secure = true|domain = \"example.com\"",
            "`sessions.main.cookie.domain` must be omitted, since the cookie's name has the prefix `__Host-`",
        ),
        ("path = \"app\"", path),
        ("path = \"/a;b\"", path),
        ("domain = \".example.com\"", "`sessions.main.cookie.domain` must not begin with a dot"),
        ("domain = \"exa mple.com\"", domain),
        ("domain = \"a..b\"", domain),
        ("secure = \"yes\"", "`sessions.main.cookie.secure` must be `\"auto\"`, `true` or `false`"),
        ("httponly = \"no\"", "`sessions.main.cookie.httponly` must be `true` or `false`, not a string"),
        ("samesite = \"Lax!\"", "`sessions.main.cookie.samesite` must be `strict`, `lax`, `none` or `omit`"),
        (
            "samesite = \"none\"|secure = false",
            "`sessions.main.cookie.samesite` is `none`, which browsers accept only with `Secure`",
        ),
        ("max_age = \"0s\"", "`sessions.main.cookie.max_age` must be from 1s to 10years"),
        ("partitioned = true", partitioned),
        ("partitioned = true|secure = false", partitioned),
    ];
    check(&cases.map(|(lines, expected)| ("[sessions.main.cookie]", lines, expected)));

    accepted(&with("[sessions.main.cookie]", "name = \"__Host-id\"|secure = true"));
    accepted(&with(
        "[sessions.main.cookie]",
        "name = \"__Secure-id\"|secure = true|domain = \"a.b\"|path = \"/x\"",
    ));
    accepted(&with("[sessions.main.cookie]", "samesite = \"none\""));
}

#[test]
fn realms_with_one_cookie_need_the_same_table_and_format() {
    let other = |lines: &str| {
        let route = "[[routes]]|path = \"/b\"|session = \"b\"|upstream = \"app\"";
        with("", &format!("[sessions.b]|{lines}|{route}"))
    };
    let expected = "`sessions.main` has the same cookie as `sessions.b`, but a different table or format";
    assert_eq!(errors(&other("format = \"native\"|table = \"others\"")), [expected]);
    assert_eq!(errors(&other("format = \"pyramid\"|table = \"sessions\"")), [expected]);
    accepted(&other("format = \"native\"|table = \"sessions\"|timeout = \"1h\""));
    accepted(&other("format = \"pyramid\"|table = \"others\"|cookie.name = \"b\""));
}
