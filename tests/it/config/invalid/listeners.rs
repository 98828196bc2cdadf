//! Errors in `[[listeners]]` and its certificates.

use super::check;
use crate::config::fixture::{BASE, accepted, errors, read, with};

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
        (
            "[[listeners]]",
            "proxy_protocol = true|trusted_proxies = []",
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
