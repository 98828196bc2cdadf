//! Errors in configuration files. Each case breaks one rule, so it has one error.

use super::fixture::{BASE, accepted, errors, read, with};

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
fn invalid_redirects_to_https_and_hsts_are_errors() {
    let app = "tls.certificates = [{ cert = \"app.pem\", key = \"app.key\" }]";
    for (lines, expected) in [
        ("hsts = \"1day\"", "`listeners.hsts` has no effect without `tls`"),
        (
            "TLS|hsts = { preload = true, max_age = \"1day\" }",
            "`listeners.hsts.preload` needs `include_subdomains = true` and a `max_age` of at least 365 days",
        ),
        ("TLS|hsts = { preload = true }", "`listeners.hsts.max_age` is missing"),
        ("TLS|hsts = true", "`listeners.hsts` must be a duration, not a boolean"),
        (
            "TLS|redirect_to_https = true",
            "`listeners.redirect_to_https` has no effect: the listener has `tls`",
        ),
        (
            "redirect_to_https = 443",
            "`listeners.redirect_to_https` must be `true` or `false`, not an integer",
        ),
        ("redirect_to_https = { port = 0 }", "`listeners.redirect_to_https.port` must be from 1 to 65535"),
        (
            "redirect_to_https = { status = 303 }",
            "`listeners.redirect_to_https.status` must be 301, 302, 307 or 308",
        ),
        (
            "redirect_to_https = { status = 200 }",
            "`listeners.redirect_to_https.status` must be 301, 302, 307 or 308",
        ),
    ] {
        assert_eq!(errors(&with("[[listeners]]", &lines.replace("TLS", app))), [expected], "{lines}");
    }
}

#[test]
fn invalid_tls_settings_are_errors() {
    let one = |entry: &str| format!("tls.certificates = [{{ {entry} }}]");
    let app = "cert = \"app.pem\", key = \"app.key\"";
    for (lines, expected) in [
        (
            one("cert = \"app.pem\", key = \"other.key\""),
            "`listeners.tls.certificates.key` does not match the certificate",
        ),
        (
            one("cert = \"app.key\", key = \"app.key\""),
            "`listeners.tls.certificates.cert` contains no PEM certificate",
        ),
        (
            one("cert = \"text.pem\", key = \"app.key\""),
            "`listeners.tls.certificates.cert` contains no PEM certificate",
        ),
        (
            one("cert = \"app.pem\", key = \"app.pem\""),
            "`listeners.tls.certificates.key` contains no PEM private key",
        ),
        (one("cert = \"app.pem\""), "`listeners.tls.certificates.key` is missing"),
        (
            one("cert = \"gone.pem\", key = \"app.key\""),
            "`listeners.tls.certificates.cert` cannot be read from `etc/gone.pem`: entity not found",
        ),
        (
            one(&format!("{app}, client_auth = \"none\"")),
            "`listeners.tls.certificates.client_auth` has no effect: the listener has no `client_ca`",
        ),
        (
            one(&format!("{app}, client_auth = \"none\", client_ca = \"clients.pem\"")),
            "`listeners.tls.certificates.client_auth` is `none`, but `client_ca` is set",
        ),
        (
            one(&format!("{app}, client_auth = \"optional\"")),
            "`listeners.tls.certificates.client_auth` needs `client_ca`, the certificate authorities of clients",
        ),
        (
            one(&format!("{app}, client_ca = \"text.pem\"")),
            "`listeners.tls.certificates.client_ca` contains no PEM certificate",
        ),
        (one(&format!("{app}, sni = \"a\"")), "unknown key `sni` in `listeners.tls.certificates`"),
        (
            format!("{}|tls.client_auth = \"required\"", one(app)),
            "`listeners.tls.client_auth` needs `client_ca`, the certificate authorities of clients",
        ),
        (
            format!("{}|tls.min_version = \"1.1\"", one(app)),
            "`listeners.tls.min_version` must be `1.2` or `1.3`",
        ),
        (
            format!("{}|tls.handshake_timeout = \"0s\"", one(app)),
            "`listeners.tls.handshake_timeout` must be from 100ms to 10m",
        ),
        (
            "tls.min_version = \"1.3\"".to_owned(),
            "`listeners.tls.certificates` must name at least one certificate",
        ),
        (
            "tls.certificates = []".to_owned(),
            "`listeners.tls.certificates` must name at least one certificate",
        ),
        ("tls = true".to_owned(), "`listeners.tls` must be a table, not a boolean"),
    ] {
        assert_eq!(errors(&with("[[listeners]]", &lines)), [expected], "{lines}");
    }
}

#[test]
fn invalid_certificate_headers_are_errors() {
    let clients =
        "tls.certificates = [{ cert = \"app.pem\", key = \"app.key\" }]|tls.client_ca = \"clients.pem\"";
    let file = |headers: &str| {
        let file = with("[[listeners]]", clients);
        file.replace("[routes.headers]", &format!("[routes.headers]\n{headers}"))
    };
    accepted(&file("X-Client = { tls = \"subject\", encoding = \"utf8\" }"));
    let public = "session = \"main\"\nupstream = \"app\"";
    let public =
        file("X-Client = { tls = \"san\" }").replace(public, "access = \"public\"\nupstream = \"app\"");
    let (config, report) = read(&public.replace("[routes.require]\n", ""));
    assert!(config.is_some(), "a public route, too: {report}");
    for (line, expected) in [
        (
            "X-A = { tls = \"name\" }",
            "`routes.headers.X-A.tls` must be `subject`, `issuer`, `serial`, `fingerprint` or `san`",
        ),
        ("X-A = { tls = \"san\", join = \";\" }", "`routes.headers.X-A.join` is only allowed with `claim`"),
        (
            "X-A = { tls = \"san\", claim = \"a\" }",
            "`routes.headers.X-A` needs exactly one of `claim`, `template` and `tls`",
        ),
    ] {
        assert_eq!(errors(&file(line)), [expected], "{line}");
    }
    let nobody = "`routes.headers.X-A.tls` needs a listener that requests client certificates";
    assert_eq!(errors(&with("[routes.headers]", "X-A = { tls = \"san\" }")), [nobody]);
}

#[test]
fn expired_or_unused_certificate_is_a_warning() {
    let app = "{ cert = \"app.pem\", key = \"app.key\" }";
    for (second, expected) in [
        (
            "{ cert = \"old.pem\", key = \"old.key\" }",
            "the certificate of `listeners.tls.certificates.cert` has expired",
        ),
        (app, "`listeners.tls.certificates.cert` is never used"),
    ] {
        let (config, report) = read(&with("[[listeners]]", &format!("tls.certificates = [{app}, {second}]")));
        assert!(config.is_some());
        let warnings: Vec<_> = report.diagnostics().iter().map(|diagnostic| &diagnostic.message).collect();
        assert_eq!(warnings, [expected]);
    }
}

#[test]
fn invalid_listeners_are_errors() {
    let address = "`listeners.address` must be an IP address, or `localhost`, and a port";
    let twice = "two listeners have the address 127.0.0.1:8080";
    check(&[
        ("[[listeners]]", "address = \":8080\"", address),
        ("[[listeners]]", "address = \"*:8080\"", address),
        ("[[listeners]]", "address = \"127.0.0.1\"", address),
        ("[[listeners]]", "address = \"app.example.com:80\"", address),
        ("[[listeners]]", "address = \"localhost:http\"", address),
        ("[[listeners]]", "address = \"127.0.0.1:65536\"", address),
        ("[[listeners]]", "address = \"\"", "`listeners.address` must not be empty"),
        ("[[listeners]]", "addres = \"x\"", "unknown key `addres` in `listeners`"),
        (
            "[[listeners]]",
            "trusted_proxies = \"10.0.0.0/8\"",
            "`listeners.trusted_proxies` must be a list, not a string",
        ),
        (
            "[[listeners]]",
            "trusted_proxies = [\"10.0.0.0/8\", \"proxy\"]",
            "`listeners.trusted_proxies` must be an address or a network",
        ),
        (
            "[[listeners]]",
            "trusted_proxies = [\"10.1.2.3/8\"]",
            "`listeners.trusted_proxies` has address bits beyond its prefix length",
        ),
        ("[[listeners]]", "address = \"127.0.0.1:8080\"|[[listeners]]|address = \"localhost:8080\"", twice),
        ("", "[[listeners]]", "`listeners.address` is missing"),
    ]);
    check(&[
        ("[[listeners]]", "address = \"unix:\"", "`listeners.address` has no socket path"),
        ("[[listeners]]", "mode = \"0600\"", "`listeners.mode` is only for Unix sockets"),
        ("[[listeners]]", "address = \"unix:x\"|mode = \"rw\"", "`listeners.mode` must be file permissions"),
        (
            "[[listeners]]",
            "address = \"unix:x\"|mode = \"07777\"",
            "`listeners.mode` must be file permissions",
        ),
        (
            "[[listeners]]",
            "address = \"unix:x\"|[[listeners]]|address = \"unix:x\"",
            "two listeners have the address unix:etc/x",
        ),
        (
            "[[listeners]]",
            "trusted_proxies = [\"unix:\"]",
            "`listeners.trusted_proxies` contains `unix:`, but the listener is not a Unix socket",
        ),
        (
            "[[listeners]]",
            "address = \"unix:x\"|trusted_proxies = [\"10.0.0.1\"]",
            "`listeners.trusted_proxies` has no effect: clients of a Unix socket have no address",
        ),
        (
            "[[listeners]]",
            "proxy_protocol = true",
            "`listeners.proxy_protocol` needs `trusted_proxies`: without it any client could claim any address",
        ),
    ]);
    let long = format!("address = \"unix:/{}\"", "x".repeat(107));
    assert_eq!(
        errors(&with("[[listeners]]", &long)),
        ["`listeners.address` is longer than 107 bytes, the limit for Unix sockets"]
    );
    accepted(&with("[[listeners]]", "address = \"127.0.0.1:0\"|[[listeners]]|address = \"127.0.0.1:0\""));

    let none = BASE.replace("[[listeners]]\naddress = \"127.0.0.1:0\"\n", "");
    assert_eq!(errors(&none), ["no `[[listeners]]` is configured"]);
    assert_eq!(errors(&format!("listeners = []\n{none}")), ["no `[[listeners]]` is configured"]);
    assert_eq!(errors(&format!("listeners = [1]\n{none}")), ["`listeners` must be a table, not an integer"]);
    let table = BASE.replace("[[listeners]]", "[listeners]");
    assert_eq!(errors(&table), ["`listeners` must be a list of tables, not a table"]);
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
fn invalid_cookies_are_errors() {
    let name = "`sessions.main.cookie.name` is not a valid cookie name";
    let prefix = "`sessions.main.cookie.secure` must be `true`, since the cookie's name has the prefix `__Host-` or `__Secure-`";
    let path = "`sessions.main.cookie.path` must begin with `/` and contain neither `;` nor spaces";
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
    let expected = "`sessions.main` has the same cookie as `sessions.b`, but another table or format";
    assert_eq!(errors(&other("format = \"native\"|table = \"others\"")), [expected]);
    assert_eq!(errors(&other("format = \"pyramid\"|table = \"sessions\"")), [expected]);
    accepted(&other("format = \"native\"|table = \"sessions\"|timeout = \"1h\""));
    accepted(&other("format = \"pyramid\"|table = \"others\"|cookie.name = \"b\""));
}

#[test]
fn invalid_upstreams_are_errors() {
    let url = "`upstreams.app.servers` must be a server URL";
    let path = "`upstreams.app.servers` must not have a path or query: requests are forwarded with their own";
    let cases = [
        ("servers = []", "`upstreams.app.servers` must name at least one server"),
        ("servers = \"http://a\"", "`upstreams.app.servers` must be a list, not a string"),
        ("servers = [1]", "`upstreams.app.servers` must be a string, not an integer"),
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
            "`upstreams.app.tls.key` does not match `cert`: keys may not be consistent: KeyMismatch",
        ),
        ("server_name = \"a b\"", "`upstreams.app.tls.server_name` must be a host name or an IP address"),
        ("verify = false", "unknown key `verify` in `upstreams.app.tls`"),
    ] {
        assert_eq!(tls(lines), [expected], "{lines}");
    }
    let none = BASE.replace("servers = [\"http://127.0.0.1:8000\"]", "");
    assert_eq!(errors(&none), ["`upstreams.app.servers` is missing"]);
}

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
             since one sets it"
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
    let headers = "`routes.headers` needs a session, but a public route looks up none";
    assert_eq!(errors(&format!("{public}headers.X-User = \"user\"")), [headers]);
    assert_eq!(errors(&format!("{public}require.role = \"a\"")), [format!("`routes.require` {inert}")]);
    for key in ["writes", "flash", "csrf"] {
        let expected = format!("`routes.{key}` needs a session, but a public route looks up none");
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
    let alike = "two routes have the path `/`, and the same host and methods";
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
    let alike = "two routes have the path `/a`, and the same host and methods";
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
    assert_eq!(errors(&page("path = \"/login\"|methods = [\"POST\"]|access = \"public\"")), [endless]);
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
    let join = "must consist of punctuation other than `%`, and spaces";
    let brace = "has an unbalanced brace";
    let cases = [
        ("X_User = \"user\"", "`routes.headers.X_User` is not a valid header name".to_owned()),
        ("\"X.User\" = \"user\"", "`routes.headers.X.User` is not a valid header name".to_owned()),
        ("\"\" = \"user\"", "`routes.headers.` is not a valid header name".to_owned()),
        ("X-A = \"a\"|x-a = \"b\"", "`routes.headers.x-a` is set twice".to_owned()),
        ("X-A = \"\"", format!("`routes.headers.X-A` {claim}")),
        ("X-A = \"a..b\"", format!("`routes.headers.X-A` {claim}")),
        ("X-A = 1", "`routes.headers.X-A` must be a table, not an integer".to_owned()),
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
