//! Functions for the fuzz targets in `fuzz/`. Each parses untrusted bytes as the gateway does, and asserts the properties of
//! the result. `tests/it/fuzzing.rs` runs the functions on the committed corpora.
//!
//! Not part of the crate's public interface.

mod request;
mod response;
mod row;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method};
use percent_encoding::percent_decode_str;

use crate::claims::Claims;
use crate::config::diagnostic::Colour;
use crate::config::environment::Environment;
use crate::config::{self, Config, RealmConfig, TrustedProxies};
use crate::fields::{Fields, visible_ascii};
use crate::headers::FORWARDED_FOR;
use crate::host::canonical_host;
use crate::path::{is_prefix, is_prefix_ignoring_case};
use crate::proxy::{self, ListenerPolicy, Peer};
use crate::route::Router;
use crate::session::cookie::{self, Stripped};
use crate::session::set_cookie::CookieWriter;
use crate::time::Timestamp;
use crate::upstream::GatewayHeaders;

pub use request::{ClientRequest, client_requests, request};
pub use response::response;
pub use row::{row, session_cookie};

/// The configuration that the targets use.
const GATEWAY: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
[store.dynamodb]
region = "eu-central-1"
[sessions.main]
format = "native"
table = "sessions"
[sessions.main.cookie]
name = "sid"
[upstreams.app]
servers = ["http://127.0.0.1:1"]
[[routes]]
path = "/"
access = "public"
upstream = "app"
[[routes]]
path = "/admin"
session = "main"
access = "required"
upstream = "app"
[routes.headers]
X-User = "user"
X-Name = { claim = "name", encoding = "utf8" }
X-Raw = { claim = "raw", encoding = "base64" }
X-Roles = { claim = "roles", join = "," }
X-Tags = { claim = "tags", join = " | ", encoding = "utf8" }
X-Greeting = { template = "{user.name} of {tenant}" }
[[routes]]
path = "/admin/public"
access = "public"
upstream = "app"
[[routes]]
path = "/files"
access = "public"
upstream = "app"
encoded_slashes = "pass"
[[routes]]
path = "/files/private"
session = "main"
access = "required"
upstream = "app"
encoded_slashes = "pass"
[[routes]]
path = "/skin"
access = "public"
upstream = "app"
duplicate_slashes = "merge"
ignore_case = true
[[routes]]
path = "/Skin/Deep"
session = "main"
access = "required"
upstream = "app"
"#;

/// Maximum size of the injected headers, in bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// Parses a Cookie header.
pub fn cookie(header: &[u8]) {
    let all: Vec<_> = cookie::values(header, "sid").collect();
    for keep in [None, all.first().copied(), all.last().copied(), Some(&b"x"[..])] {
        let rest = match cookie::without(header, "sid", keep) {
            Stripped::Unchanged => header.to_vec(),
            Stripped::Rest(rest) => rest,
            Stripped::Empty => Vec::new(),
        };
        let left: Vec<_> = cookie::values(&rest, "sid").collect();
        let expected: Vec<_> = keep.filter(|keep| all.contains(keep)).into_iter().collect();
        assert_eq!(left, expected, "only the chosen cookie remains");
        let others = |header: &[u8]| cookie::values(header, "other").map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(others(&rest), others(header), "other cookies remain");
    }
}

/// Parses a Set-Cookie header of an upstream.
pub fn set_cookie(header: &[u8]) {
    static WRITER: LazyLock<Option<CookieWriter>> =
        LazyLock::new(|| gateway().realms.first().map(|realm| CookieWriter::new(&realm.cookie)));
    let (Ok(header), Some(writer)) = (HeaderValue::from_bytes(header), WRITER.as_ref()) else { return };
    let now = Timestamp::from_secs(1_800_000_000);
    let Some(rewritten) = writer.rewrite(header.as_bytes(), true, now) else { return };
    assert!(rewritten.header.as_bytes().starts_with(b"sid="), "the cookie has the realm's name");
    let again = writer.rewrite(rewritten.header.as_bytes(), true, now);
    let again = again.map(|again| (again.header, again.value.expose().to_vec()));
    let value = rewritten.value.expose().to_vec();
    assert_eq!(again, Some((rewritten.header, value)), "rewriting is idempotent");
}

/// Finds the route of a request target, and compares it with the routes for the ways in which other servers read the path.
pub fn route(target: &[u8]) {
    static ROUTER: LazyLock<Router<String>> = LazyLock::new(|| {
        Router::new(gateway().routes.iter().map(|route| (route, Arc::new(route.path.clone()))))
    });
    let Ok(target) = PathAndQuery::try_from(target) else { return };
    let Ok(found) = ROUTER.find("example.com", target.path(), &Method::GET) else { return };
    let judged = found.merged.as_deref().unwrap_or(target.path());
    let longest = |ignore_case: bool, reading: &str| {
        let matches = if ignore_case { is_prefix_ignoring_case } else { is_prefix };
        let routes = gateway().routes.iter().filter(|route| route.ignore_case == ignore_case);
        routes
            .map(|route| route.path.as_str())
            .filter(|path| matches(path, reading))
            .max_by_key(|path| path.len())
    };
    for reading in readings(judged) {
        let matched = [false, true].into_iter().filter_map(|ignore_case| longest(ignore_case, &reading));
        let matched = matched.max_by_key(|path| path.len());
        assert_eq!(matched, Some(found.route.as_str()), "{judged} may be read as {reading}");
        for cased in [reading.to_lowercase(), reading.to_uppercase()] {
            let matched = longest(true, &cased);
            let expected = longest(true, judged);
            assert_eq!(matched, expected, "{judged} may be read as {cased}");
        }
    }
}

/// Returns the ways in which servers read a path: unchanged or decoded once or twice; with `\` as `/`; with and without
/// parameters; without empty segments; with dot segments resolved.
fn readings(path: &str) -> Vec<String> {
    let decode = |path: &str| percent_decode_str(path).decode_utf8_lossy().into_owned();
    let decoded = decode(path);
    let twice = decode(&decoded);
    let mut readings = Vec::new();
    for path in [path.to_owned(), decoded, twice] {
        for path in [path.replace('\\', "/"), path] {
            let bare = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
            for path in [Cow::from(bare.collect::<Vec<_>>().join("/")), Cow::from(path.as_str())] {
                readings.push(resolve(&path));
                readings.push(path.into_owned());
            }
        }
    }
    readings
}

fn resolve(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

/// Maps claims to headers.
pub fn mapping(claims: &[u8]) {
    let Ok(claims) = serde_json::from_slice::<Claims>(claims) else { return };
    let rules = gateway().routes.iter().flat_map(|route| &route.headers).cloned().collect::<Vec<_>>();
    let Ok(headers) = proxy::map(&rules, &claims, MAX_HEADER_BYTES) else { return };
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(size <= MAX_HEADER_BYTES, "the headers are within the limit");
    for (name, value) in headers.iter() {
        let bytes = value.as_bytes();
        assert!(!bytes.is_empty() && bytes.trim_ascii() == bytes, "{name} has no blanks at its ends");
        assert!(!bytes.iter().any(u8::is_ascii_control), "{name} contains no control character");
        if name == "x-roles" && claims.get("roles").is_some_and(serde_json::Value::is_array) {
            let mut elements = bytes.split(|&byte| byte == b',');
            assert!(
                elements.all(|element| element.trim_ascii() == element),
                "elements have no blanks at their ends"
            );
        }
    }
}

/// Parses a configuration, and renders its errors and warnings.
pub fn configuration(source: &[u8]) {
    let Ok(source) = std::str::from_utf8(source) else { return };
    let (config, report) = config::parse(source, Path::new("gateway.toml"), &EmptyEnvironment);
    assert_eq!(
        config.is_none(),
        report.has_errors(),
        "a configuration is valid if and only if it has no error"
    );
    let text = report.render(Colour::Plain);
    assert!(
        !text.chars().any(|character| character.is_control() && character != '\n'),
        "the text cannot control the terminal"
    );
}

/// Parses the forwarding headers of a proxy. Each line of the input is a letter, which stands for the header's name, and
/// the value.
pub fn forwarded(lines: &[u8]) {
    let mut fields = Fields::new();
    for line in lines.split(|&byte| byte == b'\n') {
        let name = match line.first() {
            Some(b'f') => HeaderName::from_static("x-forwarded-for"),
            Some(b'p') => HeaderName::from_static("x-forwarded-proto"),
            Some(b'h') => HeaderName::from_static("x-forwarded-host"),
            Some(_) => HeaderName::from_static("forwarded"),
            None => continue,
        };
        let Ok(value) = HeaderValue::from_bytes(line.get(1..).unwrap_or_default()) else { continue };
        fields.append(name, value);
    }
    let networks = "10.0.0.0/8".parse().into_iter().collect();
    let policy = Arc::new(ListenerPolicy::trusting(TrustedProxies { networks, unix: false }));
    let host = HeaderValue::from_static("app.example");
    let [untrusted, proxy] = [[192, 0, 2, 1], [10, 0, 0, 1]].map(IpAddr::from);
    let origin = |address| Peer::new(Some(address), &policy, None).origin(&fields, &host);

    let from_untrusted = origin(untrusted);
    assert!(
        from_untrusted.client == Some(untrusted) && !from_untrusted.secure,
        "headers of an untrusted client are ignored"
    );
    let origin = origin(proxy);
    let name = FORWARDED_FOR;
    let elements = fields.get_all(&name).flat_map(|line| line.split(|&byte| byte == b','));
    let addresses = elements.filter_map(visible_ascii).map(str::trim);
    let addresses: Vec<IpAddr> = addresses
        .filter_map(|text| {
            text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip())).ok()
        })
        .map(|address: IpAddr| address.to_canonical())
        .collect();
    assert!(
        origin.client == Some(proxy) || origin.client.is_some_and(|client| addresses.contains(&client)),
        "the client's address comes from the header"
    );
    let mut added = GatewayHeaders::default();
    origin.write(&mut fields, &mut added);
    let mut written = fields.into_map();
    added.insert_into(&mut written);
    let host = written.get("x-forwarded-host").and_then(|host| canonical_host(host.as_bytes()));
    assert!(host.is_some(), "the forwarded host is valid");
    assert!(written.values().all(|value| value.to_str().is_ok()), "the forwarded headers are text");
}

/// Parses a Host header.
pub fn host(value: &[u8]) {
    let Some(name) = canonical_host(value) else { return };
    assert_eq!(canonical_host(name.as_bytes()).as_ref(), Some(&name), "normalization is idempotent");
    assert!(
        !name.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii_graphic()),
        "a canonical host is lower-case visible ASCII"
    );
}

fn gateway() -> &'static Config {
    static CONFIG: LazyLock<Config> = LazyLock::new(|| parse(GATEWAY));
    &CONFIG
}

/// Returns the realm of [`GATEWAY`], with `lines` in place of its format.
fn realm(lines: &str) -> Option<RealmConfig> {
    let (head, rest) = GATEWAY.split_once("[sessions.main]\nformat = \"native\"\n")?;
    parse(&format!("{head}[sessions.main]\n{lines}\n{rest}")).realms.pop()
}

fn parse(source: &str) -> Config {
    let (config, report) = config::parse(source, Path::new("gateway.toml"), &EmptyEnvironment);
    assert!(config.is_some(), "{report}");
    config.into_iter().next().unwrap_or_else(|| unreachable!("asserted"))
}

/// An environment without variables and files.
struct EmptyEnvironment;

impl Environment for EmptyEnvironment {
    fn cores(&self) -> usize {
        1
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000)
    }

    fn variable(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn file(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}
