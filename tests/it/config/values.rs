//! Resolved values of valid configuration files.

use std::time::Duration;

use sessiongate::claims::{ClaimPath, Condition, Pattern};
use sessiongate::config::layout::{CookieCodec, Signer};
use sessiongate::config::{
    Access, BalanceMethod, CertificateConfig, Consistency, FormatKind, HeaderRule, HeaderSource, HostPattern,
    HttpsRedirect, ListenerAddress, LoginTemplate, OnStoreError, Retries, SameSite, Scheme, SecureAttribute,
    ServerAddress, TemplatePart, UpstreamServer,
};

use super::fixture::{BASE, accepted, errors, read, with};

#[test]
fn defaults_depend_on_the_format() {
    let native = &accepted(&with("", "")).realms[0];
    let pyramid = &accepted(&with("[sessions.main]", "format = \"pyramid\"")).realms[0];
    assert_eq!((&native.format, native.forward_cookie), (&FormatKind::Native, false));
    assert_eq!((&pyramid.format, pyramid.forward_cookie), (&FormatKind::Pyramid, true));
    for realm in [native, pyramid] {
        assert_eq!((realm.key_attribute.as_str(), realm.cookie.name.as_str()), ("sid", "session_id"));
        assert_eq!((realm.timeout, realm.reissue_time), (Duration::from_mins(20), Duration::from_mins(2)));
        assert_eq!(
            (realm.cookie.samesite, realm.cookie.secure),
            (Some(SameSite::Strict), SecureAttribute::Auto)
        );
    }
}

#[test]
fn django_realm_has_djangos_defaults() {
    let realm = |source: &str| {
        let keys = "[sessions.main.keys]\ncurrent = \"0123456789abcdef\"\n";
        let (config, report) = read(&(source.to_owned() + keys));
        config.unwrap_or_else(|| panic!("{report}")).realms.remove(0)
    };
    let least = realm(&BASE.replace("format = \"native\"\ntable = \"sessions\"", "format = \"django\""));
    assert_eq!((least.format, least.table.as_str()), (FormatKind::Django, "sessions"));
    assert_eq!((least.key_attribute.as_str(), least.cookie.name.as_str()), ("session_key", "sessionid"));
    let two_weeks = Duration::from_secs(1_209_600);
    assert_eq!((least.timeout, least.reissue_time), (two_weeks, Duration::from_hours(1)));
    assert_eq!((least.cookie.samesite, least.cookie.max_age), (Some(SameSite::Lax), Some(two_weeks)));
    assert_eq!((least.consistency, least.forward_cookie), (Consistency::Strong, true));
    assert!(least.enforce_age && least.keys.is_some());

    let lines = "format = \"django\"|table = \"t.1\"|enforce_age = false|consistency = \"auto\"|lifetime = \"30days\"";
    let other = realm(&with("[sessions.main]", lines));
    assert_eq!(
        (other.table.as_str(), other.enforce_age, other.consistency),
        ("t.1", false, Consistency::Auto)
    );
    assert_eq!(other.lifetime, Some(Duration::from_hours(720)));
}

#[test]
fn presets_have_their_frameworks_defaults() {
    let realm = |lines: &str| {
        let source = with("[sessions.main]", lines).replace("table = \"sessions\"\n", "");
        read(&source).0.unwrap_or_else(|| panic!("{}", read(&source).1)).realms.remove(0)
    };
    let express = realm("format = \"express\"|keys.current = \"short\"");
    assert_eq!((express.table.as_str(), express.key_attribute.as_str()), ("sessions", "id"));
    assert_eq!((express.cookie.name.as_str(), express.cookie.samesite), ("connect.sid", None));
    assert_eq!((express.timeout, express.consistency), (Duration::from_hours(24), Consistency::Strong));
    assert!(express.forward_cookie);
    let FormatKind::Layout(layout) = express.format else { panic!("a layout") };
    assert_eq!((layout.cookie, layout.key.before.as_str()), (CookieCodec::Express, "sess:"));

    let cookie = |lines: &str| match realm(lines).format {
        FormatKind::Layout(layout) => layout.cookie,
        FormatKind::Native | FormatKind::Pyramid | FormatKind::Django => panic!("a layout"),
    };
    assert_eq!(cookie("format = \"flask-session\""), CookieCodec::Plain);
    let signed = cookie("format = \"flask-session\"|keys.current = \"0123456789abcdef\"");
    assert_eq!(signed, CookieCodec::Itsdangerous(Signer::Flask));
    let prefix = realm("format = \"flask-session\"|layout.key = \"mine:{id}\"").format;
    assert!(format!("{prefix:?}").contains("mine:"));
    assert_eq!(
        realm("format = \"dynamodb-session-web\"|lifetime = \"12h\"").lifetime,
        Some(Duration::from_hours(12))
    );
}

#[test]
fn each_preset_has_its_defaults() {
    let signed = [
        "native",
        "django",
        "adonis",
        "connect-dynamodb-session",
        "dynamodb-session-web",
        "dynamodb-store",
        "express",
        "flask-session",
        "rack",
    ];
    let resolve = |format: &str, lines: &str| {
        let source = with("[sessions.main]", &format!("format = \"{format}\"|{lines}"));
        let (config, report) = read(&source.replace("table = \"sessions\"\n", ""));
        let mut config = config.unwrap_or_else(|| panic!("{report}"));
        format!("{format}: {:#?}\n", config.realms.remove(0))
    };
    let table = "table = \"in-the-file\"";
    let mut realms: String = signed
        .map(|format| {
            let table = if format == "native" { table } else { "" };
            resolve(format, &format!("{table}|keys.current = \"0123456789abcdef\""))
        })
        .concat();
    realms += &resolve("pyramid", table);
    realms += &resolve("layout", &format!("{table}|layout.expires = \"e\"|user = \"u\""));
    realms += &resolve("dysession", "");
    insta::assert_snapshot!("presets", realms);
}

#[test]
fn workers_default_to_the_number_of_cores() {
    assert_eq!(accepted(&with("", "")).server.workers, 3);
    assert_eq!(accepted(&with("[server]", "workers = 0")).server.workers, 3);
    assert_eq!(accepted(&with("[server]", "workers = 7")).server.workers, 7);
}

#[test]
fn durations_and_sizes_have_units() {
    let server = |lines: &str| accepted(&with("[server]", lines)).server;
    assert_eq!(server("drain = \"1h 30m\"").drain, Duration::from_mins(90));
    assert_eq!(server("drain = \"500ms\"").drain, Duration::from_millis(500));
    assert_eq!(server("drain = \"0s\"").drain, Duration::ZERO);
    assert_eq!(server("max_header_bytes = \"64KiB\"").max_header_bytes, 65536);
    assert_eq!(server("max_header_bytes = \"64 KiB\"").max_header_bytes, 65536);
    assert_eq!(server("max_header_bytes = \"4096\"").max_header_bytes, 4096);
    assert_eq!(server("max_header_bytes = \"4kb\"").max_header_bytes, 4000);
}

#[test]
fn localhost_and_networks_are_parsed() {
    let proxies =
        r#"["10.0.0.0/8", "::1", "fd00::/8", "::ffff:10.0.0.7", "::ffff:10.0.0.0/104", "::ffff:0:0/96"]"#;
    let lines = format!("address = \"localhost:8080\"|trusted_proxies = {proxies}");
    let listener = &accepted(&with("[[listeners]]", &lines)).listeners[0];
    assert_eq!(listener.address.to_string(), "127.0.0.1:8080");
    let networks: Vec<_> = listener.trusted_proxies.networks.iter().map(ToString::to_string).collect();
    // A listener sees IPv4-mapped addresses as IPv4.
    assert_eq!(networks, ["10.0.0.0/8", "::1/128", "fd00::/8", "10.0.0.7/32", "10.0.0.0/8", "0.0.0.0/0"]);
}

#[test]
fn unix_sockets_are_parsed() {
    let listener = |lines: &str| accepted(&with("[[listeners]]", lines)).listeners.remove(0);
    let plain = listener("address = \"unix:/run/x.sock\"");
    assert_eq!((plain.address, plain.mode), (ListenerAddress::Unix("/run/x.sock".into()), 0o660));
    let lines = "address = \"unix:x.sock\"|mode = \"0600\"|trusted_proxies = [\"unix:\", \"10.0.0.1\"]";
    let strict = listener(lines);
    assert_eq!((strict.address, strict.mode), (ListenerAddress::Unix("etc/x.sock".into()), 0o600));
    assert!(listener(lines).trusted_proxies.unix);
}

#[test]
fn redirects_to_https_and_hsts_are_parsed() {
    let listener = |lines: &str| accepted(&with("[[listeners]]", lines)).listeners.remove(0);
    let redirect = |lines: &str| listener(&format!("redirect_to_https = {lines}")).redirect_to_https;
    let to = |port, status: u16| Some(HttpsRedirect { port, status: status.try_into().unwrap() });
    assert_eq!(redirect("true"), to(443, 308));
    assert_eq!(redirect("false"), None);
    assert_eq!(redirect("{ port = 8443 }"), to(8443, 308));
    assert_eq!(redirect("{ status = 302 }"), to(443, 302));

    let app = "tls.certificates = [{ cert = \"app.pem\", key = \"app.key\" }]";
    let hsts = |lines: &str| listener(&format!("{app}|hsts = {lines}")).hsts.unwrap().value;
    assert_eq!(hsts("\"365days\""), "max-age=31536000");
    assert_eq!(hsts("{ max_age = \"0s\" }"), "max-age=0");
    let all = "{ max_age = \"730days\", include_subdomains = true, preload = true }";
    assert_eq!(hsts(all), "max-age=63072000; includeSubDomains; preload");
}

#[test]
fn certificates_inherit_client_rules_of_the_listener() {
    let rules = |lines: &str| {
        let listener = accepted(&with("[[listeners]]", lines)).listeners.remove(0);
        let rule = |certificate: CertificateConfig| {
            certificate.clients.map(|rule| (rule.ca.to_str().unwrap().to_owned(), rule.required))
        };
        listener.tls.unwrap().certificates.into_iter().map(rule).collect::<Vec<_>>()
    };
    let app = "cert = \"app.pem\", key = \"app.key\"";
    let other = "cert = \"other.pem\", key = \"other.key\"";
    let required = Some(("etc/clients.pem".to_owned(), true));
    let optional = Some(("etc/clients.pem".to_owned(), false));
    let clients = "tls.client_ca = \"clients.pem\"";
    assert_eq!(rules(&format!("tls.certificates = [{{ {app} }}]")), [None]);
    assert_eq!(
        rules(&format!("tls.certificates = [{{ {app} }}]|{clients}")),
        std::slice::from_ref(&required)
    );
    let lines = format!("tls.certificates = [{{ {app} }}]|{clients}|tls.client_auth = \"optional\"");
    assert_eq!(rules(&lines), std::slice::from_ref(&optional));
    let own = "client_ca = \"clients.pem\", client_auth = \"optional\"";
    assert_eq!(rules(&format!("tls.certificates = [{{ {app} }}, {{ {other}, {own} }}]")), [None, optional]);
    let lines = format!("tls.certificates = [{{ {app} }}, {{ {other}, client_auth = \"none\" }}]|{clients}");
    assert_eq!(rules(&lines), [required, None]);
}

#[test]
fn upstream_servers_are_parsed() {
    let lines = "servers = [\"http://App_1\", \"http://10.0.0.1:8000\", \"http://[::1]:81\", \"builtin:demo\", \
                 \"https://a\", \"h2c://a\", \"unix:/run/app.sock\", { url = \"https://b:8443\", weight = 3 }]";
    let tcp = |scheme, host: &str, port| ServerAddress::Tcp { scheme, host: host.to_owned(), port };
    let expected = [
        (tcp(Scheme::Http, "app_1", 80), 1),
        (tcp(Scheme::Http, "10.0.0.1", 8000), 1),
        (tcp(Scheme::Http, "::1", 81), 1),
        (ServerAddress::Demo, 1),
        (tcp(Scheme::Https, "a", 443), 1),
        (tcp(Scheme::H2c, "a", 80), 1),
        (ServerAddress::Unix("/run/app.sock".into()), 1),
        (tcp(Scheme::Https, "b", 8443), 3),
    ];
    let expected = expected.map(|(address, weight)| UpstreamServer { address, weight });
    assert_eq!(accepted(&with("[upstreams.app]", lines)).upstreams[0].servers, expected);
}

#[test]
fn upstream_settings_are_parsed() {
    let upstream = |lines: &str| accepted(&with("[upstreams.app]", lines)).upstreams.remove(0);
    let plain = upstream("");
    assert_eq!((plain.health, plain.max_connections, plain.balance), (None, None, BalanceMethod::RoundRobin));
    assert_eq!(plain.retries, Retries { attempts: 2, budget: 0.2 });
    assert_eq!(plain.ejection.map(|ejection| ejection.failures), Some(5));
    assert_eq!(upstream("ejection.failures = 0").ejection, None);
    assert_eq!(upstream("retries = { attempts = 3, budget = 1 }").retries.budget, 1.0);
    assert_eq!(upstream("retries = { attempts = 3, budget = 0x1 }").retries.budget, 1.0);
    let health = upstream("health = { path = \"/up?a=b\", interval = \"1s\" }").health.unwrap();
    assert_eq!((health.path.as_str(), health.timeout), ("/up?a=b", Duration::from_secs(1)));
    let ejection = upstream("ejection.status = \"500, 502-504\"").ejection.unwrap();
    let is_failure = |status| ejection.status.contains(http::StatusCode::from_u16(status).unwrap());
    assert_eq!([500, 501, 502, 504, 505].map(is_failure), [true, false, true, true, false]);
}

#[test]
fn realm_settings_are_parsed() {
    let realm = |lines: &str| accepted(&with("[sessions.main]", lines)).realms.remove(0);
    let stale = OnStoreError::Stale(Duration::from_secs(30));
    assert_eq!(realm("on_store_error = { stale = \"30s\" }").on_store_error, stale);
    assert_eq!(realm("on_store_error = \"anonymous\"").on_store_error, OnStoreError::Anonymous);
    assert_eq!(realm("reissue_time = \"0s\"").reissue_time, Duration::ZERO);
    assert_eq!(realm("lifetime = \"12h\"").lifetime, Some(Duration::from_hours(12)));

    let cookie = |lines: &str| accepted(&with("[sessions.main.cookie]", lines)).realms.remove(0).cookie;
    assert_eq!(cookie("samesite = \"omit\"").samesite, None);
    assert_eq!(cookie("secure = false").secure, SecureAttribute::Never);
    assert_eq!(cookie("domain = \"Example.COM\"").domain.as_deref(), Some("example.com"));
    assert!(accepted(&with("[sessions.main.cache]", "ttl = \"0s\"")).realms[0].cache.ttl.is_zero());
}

#[test]
fn hosts_and_paths_are_normalized() {
    let route = |lines: &str| accepted(&with("[[routes]]", lines)).routes.remove(0);
    let host = |host: &str| route(&format!("host = \"{host}\"")).host.unwrap();
    let exact = |host: &str| HostPattern::Exact(host.to_owned());
    assert_eq!(host("App.Example.COM."), exact("app.example.com"));
    assert_eq!(host("*.Example.com"), HostPattern::Subdomains("example.com".to_owned()));
    assert_eq!(host("127.0.0.1"), exact("127.0.0.1"));
    assert_eq!(host("[0:0::1]"), exact("[::1]"));
    assert_eq!(host("localhost"), exact("localhost"));

    assert_eq!(route("path = \"/app/\"").path, "/app");
    assert_eq!(route("path = \"/\"").path, "/");
    assert_eq!(route("path = \"/a.b/..c/@~\"").path, "/a.b/..c/@~");
    assert_eq!(route("host = \"*.a.b\"|path = \"/x\"").name, "*.a.b/x");
    assert_eq!(route("methods = [\"GET\", \"PROPFIND\"]").methods.len(), 2);
    assert!(route("encoded_slashes = \"pass\"").encoded_slashes);
}

#[test]
fn ignore_case_is_inherited_by_routes_below() {
    let route = |host: &str, path: &str, says: &str| {
        format!("[[routes]]|{host}path = \"{path}\"|access = \"public\"|upstream = \"app\"|{says}|")
    };
    let lines = [
        ("", "/App", "ignore_case = true"),
        ("", "/app/admin", ""),
        ("", "/app/exact", "ignore_case = false"),
        ("", "/APP/Exact/x", ""),
        ("", "/apple", ""),
        ("host = \"b.example\"|", "/app/x", ""),
        ("host = \"c.example\"|", "/", "ignore_case = true"),
        ("host = \"c.example\"|", "/x", ""),
    ];
    let lines: String = lines.iter().map(|(host, path, says)| route(host, path, says)).collect();
    let routes = accepted(&with("", &lines)).routes;
    let ignored: Vec<_> = routes.iter().filter(|r| r.ignore_case).map(|route| route.name.as_str()).collect();
    assert_eq!(ignored, ["/App", "/app/admin", "c.example/", "c.example/x"]);

    let twice = route("", "/one", "ignore_case = true") + &route("", "/ONE", "");
    assert_eq!(
        errors(&with("", &twice)),
        ["two routes have the path `/ONE`, the same host and a method in common"]
    );
    assert_eq!(errors(&with("", &twice.replace("true", "false"))), [""; 0]);
}

#[test]
fn access_defaults_to_required_with_a_session() {
    let routes =
        accepted(&with("", "[[routes]]|path = \"/x\"|access = \"public\"|upstream = \"app\"")).routes;
    assert_eq!((routes[0].access, routes[0].realm), (Access::Required, Some(0)));
    assert_eq!((routes[1].access, routes[1].realm), (Access::Public, None));
}

#[test]
fn names_are_resolved_to_indices() {
    let config = accepted(&with(
        "",
        "[sessions.b]|format = \"native\"|table = \"sessions\"|[upstreams.a]|servers = [\"http://a\"]|\
         [[routes]]|path = \"/b\"|session = \"b\"|upstream = \"a\"",
    ));
    let route = &config.routes[1];
    assert_eq!(config.realms[route.realm.unwrap()].name, "b");
    assert_eq!(config.upstreams[route.destination.upstream().unwrap()].name, "a");
    assert_eq!(config.upstreams[config.routes[0].destination.upstream().unwrap()].name, "app");
}

#[test]
fn requirements_are_parsed() {
    let lines = "role = [\"admin\", 7, true]|\"user.active\" = true|\
                 age = { at_least = 0x12, below = 65.5 }|team = { present = true, none = \"x\", all = [\"a\", \"b\"] }|\
                 mail = { matches = \".*@example\\\\.com\" }";
    let require = &accepted(&with("[routes.require]", lines)).routes[0].require;
    assert_eq!(require[0].claim.as_str(), "role");
    let any = |values: serde_json::Value| Condition::Any(values.as_array().unwrap().clone());
    assert_eq!(require[0].conditions, [any(serde_json::json!(["admin", 7, true]))]);
    assert_eq!(require[1].claim.as_str(), "user.active");
    assert_eq!(require[1].conditions, [any(serde_json::json!([true]))]);
    assert_eq!(require[2].conditions, [Condition::Below(65.5), Condition::AtLeast(18.0)]);
    let (present, all) = (Condition::Present(true), Condition::All(vec!["a".into(), "b".into()]));
    assert_eq!(require[3].conditions, [present, all, Condition::None(vec!["x".into()])]);
    assert_eq!(require[4].conditions, [Condition::Matches(Pattern::new(".*@example\\.com").unwrap())]);
}

#[test]
fn user_claim_defaults_to_the_frameworks() {
    let user = |text: &str| accepted(text).realms[0].user.to_string();
    let realm = |lines: &str| with("[sessions.main]", lines);
    assert_eq!(user(&realm("")), "`user`");
    assert_eq!(user(&realm("user = \"account.id\"")), "`account.id`");
    assert_eq!(user(&realm("user = [\"account.id\", \"user\"]")), "`account.id` or `user`");
    let keys = "keys = { current = { file = \"app.key\" } }";
    for (format, keys, expected) in [
        ("pyramid", "", "`auth.userid`"),
        ("django", keys, "`_auth_user_id`"),
        ("dysession", "", "`_auth_user_id`"),
        ("flask-session", "", "`_user_id`"),
        ("dynamodb-session-web", "", "`_user_id`"),
        ("express", keys, "`passport.user`"),
        ("dynamodb-store", keys, "`passport.user`"),
        ("connect-dynamodb-session", keys, "`passport.user`"),
        ("rack", keys, "`warden.user.user.key`"),
        ("adonis", keys, "`auth_web`"),
    ] {
        let text = realm(keys).replace("format = \"native\"", &format!("format = \"{format}\""));
        assert_eq!(user(&text), expected, "{format}");
    }
}

#[test]
fn login_templates_are_parsed() {
    let login = |value: &str| {
        let page = "[[routes]]|path = \"/login\"|access = \"public\"|upstream = \"app\"";
        let source = with("[[routes]]", &format!("login = \"{value}\"")) + &page.replace('|', "\n");
        accepted(&source).routes.remove(0).login.unwrap()
    };
    let template = |before: &str, after: Option<&str>| LoginTemplate {
        before: before.to_owned(),
        after: after.map(str::to_owned),
    };
    assert_eq!(login("/login"), template("/login", None));
    assert_eq!(login("/login?next={uri}"), template("/login?next=", Some("")));
    assert_eq!(login("/login?next={uri}&x=1"), template("/login?next=", Some("&x=1")));
}

#[test]
fn header_templates_are_parsed() {
    let headers = |lines: &str| accepted(&with("[routes.headers]", lines)).routes.remove(0).headers;
    let parts =
        |template: &str| match headers(&format!("X-A = {{ template = \"{template}\" }}")).remove(0).source {
            HeaderSource::Template(parts) => parts,
            HeaderSource::Claim { .. } | HeaderSource::Certificate(_) => panic!("not a template"),
        };
    let text = |text: &str| TemplatePart::Text(text.to_owned());
    let claim = |path| TemplatePart::Claim(ClaimPath::parse(path).unwrap());
    assert_eq!(parts("{user.name} of {tenant}"), [claim("user.name"), text(" of "), claim("tenant")]);
    assert_eq!(parts("{{{a}}}"), [text("{"), claim("a"), text("}")]);
    assert_eq!(parts("{a}{b}!"), [claim("a"), claim("b"), text("!")]);

    // In the order of the file, not sorted.
    let names: Vec<_> =
        headers("X-B = \"b\"|X-A = \"a\"").into_iter().map(|HeaderRule { name, .. }| name).collect();
    assert_eq!(names, ["x-b", "x-a"]);
}

#[test]
fn authorization_header_can_be_injected() {
    assert_eq!(accepted(&with("[routes.headers]", "Authorization = \"token\"")).routes[0].headers.len(), 1);
}
