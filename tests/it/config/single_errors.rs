//! One mistake is one error: its consequences are not reported.
//!
//! The tests take files that set nearly every key, and break them in one place at a time: a value gets a type that no
//! key accepts, a keyword or key is misspelt, or a key is removed. Any second error would be a consequence of the
//! first.

use std::fmt::Write as _;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fixture::{accepted, errors, read, with};

/// Keys of tables whose keys the operator chooses: a misspelt one is just another name.
const OWN_NAMES: [&str; 6] = ["sessions", "upstreams", "require", "headers", "set", "add"];

/// A file with nearly every key of the server, listeners, upstreams, routes and a native realm.
const NATIVE: &str = r#"
[server]
workers = 2
log = "json"
access_log = { file = "access.log" }
traces = "pass"
max_header_bytes = "1KiB"
odd_headers = "pass"
header_timeout = "5s"
idle_timeout = "5s"
body_timeout = "5s"
body_rate = "1KiB"
send_timeout = "5s"
drain = "5s"
drain_delay = "5s"
watch = false
[server.limits]
connections = 30_000
connections_per_address = 25_000
streams = 10
resets = 10
reset_rate = { per_second = 1, burst = 2 }
header_bytes = "128KiB"
headers = 50
uri = "63KiB"
max_body = "1MiB"
rate = { per_second = 1, burst = 2 }
misses = { per_second = 1, burst = 2 }
[admin]
address = "127.0.0.1:9090"
[[listeners]]
address = "127.0.0.1:8443"
trusted_proxies = ["10.0.0.7"]
proxy_protocol = true
http2 = false
hsts = { max_age = "730days", include_subdomains = true, preload = true }
[listeners.tls]
client_ca = "clients.pem"
client_auth = "optional"
min_version = "1.3"
handshake_timeout = "1s"
certificates = [
  { cert = "app.pem", key = "app.key", client_auth = "none" },
  { cert = "other.pem", key = "other.key", client_ca = "clients.pem", client_auth = "required" },
]
[[listeners]]
address = "unix:http.sock"
mode = "0600"
trusted_proxies = ["unix:"]
redirect_to_https = { port = 8443, status = 301 }
[store.dynamodb]
region = "eu-central-1"
profile = "sessions"
role_arn = "arn:aws:iam::123456789012:role/sessiongate"
endpoint = "http://127.0.0.1:8000"
timeout = "2s"
attempts = 2
[sessions.main]
format = "native"
table = "main-sessions"
key_attribute = "id"
user = ["account.id", "user"]
timeout = "50m"
reissue_time = "40m"
lifetime = "55m"
consistency = "strong"
on_store_error = { stale = "30s" }
forward_cookie = true
rotation_grace = "5s"
[sessions.main.cookie]
name = "__Host-id"
path = "/"
secure = true
httponly = true
samesite = "none"
max_age = "1day"
partitioned = true
[sessions.main.cache]
ttl = "1s"
capacity = 10
[upstreams.app]
servers = [{ url = "https://app.example.com", weight = 2 }, "unix:/run/app.sock"]
balance = "sticky"
connect_timeout = "1s"
response_timeout = "1s"
keep_alive = 1
idle_timeout = "1s"
max_connections = 4
protocol = "http2"
resolve = "10s"
queue = { size = 2, timeout = "2s" }
retries = { attempts = 3, budget = 0.5 }
ejection = { failures = 2, for = "1s", status = "500-599" }
health = { path = "/healthz", host = "app.internal", interval = "9s", timeout = "8s", healthy = 1, unhealthy = 1, status = "200" }
tls = { ca = "ca.pem", server_name = "app.internal", cert = "client.pem", key = "client.key" }
[[routes]]
host = "app.example.com"
path = "/app"
methods = ["GET", "POST"]
session = "main"
access = "required"
login = "/login?next={uri}"
encoded_slashes = "pass"
duplicate_slashes = "merge"
ignore_case = true
allow_overrides = ["X-HTTP-Method-Override"]
upstream = "app"
max_body = "2MiB"
rate = { per_second = 1, burst = 2 }
response_timeout = "2s"
upstream_host = "upstream"
strip_prefix = "/app"
prefix = "/new"
rewrite_location = true
writes = true
flash = true
csrf = true
websocket = { origins = ["https://partner.example"], max_age = "1h" }
recheck = "5s"
idle_timeout = "5s"
[routes.require]
role = ["admin", "staff"]
level = { at_least = 3, below = 10 }
email = { matches = ".*@example", none = "x@example", present = true }
groups = { all = ["a", "b"], any = "a", above = 1, at_most = 9 }
[routes.headers]
X-User = "user"
X-Roles = { claim = "roles", join = ";", encoding = "utf8" }
X-Greeting = { template = "{user} of {tenant}" }
X-Client = { tls = "subject" }
[routes.request_headers]
set = { X-Env = "prod" }
remove = ["X-Debug"]
[routes.response_headers]
set = { X-Frame-Options = "DENY" }
add = { Link = "</style.css>; rel=preload" }
remove = ["Server"]
[[routes]]
host = "app.example.com"
path = "/app/main"
session = "main"
upstream = "app"
[[routes]]
host = "app.example.com"
path = "/app/login-less"
access = "public"
upstream = "app"
headers = { X-Client = { tls = "issuer" } }
[[routes]]
path = "/app"
methods = ["GET"]
session = "main"
access = "optional"
upstream = "app"
upstream_host = "app.internal"
rewrite_location = true
[[routes]]
path = "/app"
methods = ["POST"]
session = "main"
access = "public"
upstream = "app"
prefix = "/new"
rewrite_location = true
[[routes]]
host = "app.example.com"
path = "/login"
session = "main"
access = "optional"
upstream = "app"
csrf = true
[[routes]]
path = "/old"
access = "public"
redirect = { to = "https://new.example.com{uri}", status = 307 }
[[routes]]
path = "/gone"
access = "public"
respond = { status = 410, body = "Gone.", content_type = "text/plain" }
"#;

/// A file with realms of the other formats, which allow different keys.
const FORMATS: &str = r#"
[[listeners]]
address = "127.0.0.1:8080"
[store.embedded]
path = "sessions.db"
listen = "127.0.0.1:8000"
[sessions.django]
format = "django"
timeout = "20days"
reissue_time = "10days"
lifetime = "30days"
enforce_age = false
keys.current = { file = "app.key" }
keys.previous = [{ file = "app.key" }]
[sessions.express]
format = "express"
table = "express-sessions"
cookie.name = "express"
keys.current = { file = "app.key" }
layout.key = "app:{id}"
[sessions.rack]
format = "rack"
table = "rack-sessions"
lifetime = "60days"
keys.current = { file = "app.key" }
[sessions.dysession]
format = "dysession"
cookie.name = "dysession"
table = "dysession-sessions"
[sessions.pyramid]
format = "pyramid"
table = "pyramid-sessions"
cookie.name = "pyramid"
[sessions.shop]
format = "layout"
user = "user"
table = "shop-sessions"
lifetime = "1day"
cookie.name = "shop"
keys.current = { file = "app.key" }
[sessions.shop.layout]
cookie = "express"
key = "shop:{id}"
key_attribute = "id"
key_type = "B"
payload = "data"
codec = "msgpack"
version = "ver"
expires = "expires"
created = "created"
expires_unit = "ms"
[sessions.plain]
format = "layout"
table = "plain"
cookie.name = "plain"
layout = { cookie = "plain", expires = "expires", ids = { length = [8, 64], alphabet = "a-z" } }
[sessions.versions]
format = "layout"
table = "versions"
cookie.name = "versions"
layout = { cookie = "id-version", version = "ver", created = "created" }
[upstreams.app]
servers = ["http://127.0.0.1:3000"]
[[routes]]
path = "/django"
session = "django"
upstream = "app"
[[routes]]
path = "/express"
session = "express"
upstream = "app"
[[routes]]
path = "/rack"
session = "rack"
upstream = "app"
[[routes]]
path = "/dysession"
session = "dysession"
upstream = "app"
[[routes]]
path = "/pyramid"
session = "pyramid"
upstream = "app"
[[routes]]
path = "/shop"
session = "shop"
upstream = "app"
[[routes]]
path = "/plain"
session = "plain"
access = "session"
upstream = "app"
[[routes]]
path = "/versions"
session = "versions"
access = "session"
upstream = "app"
"#;

/// Returns the mutations of the node at a path, each with a description.
type Mutate<'s> = &'s dyn Fn(&str, &Node) -> Vec<(String, Node)>;

/// A value of a file that can be changed and written back.
#[derive(Clone, Debug)]
enum Node {
    /// A scalar, as in the file.
    Leaf(String),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl Node {
    fn table(source: &str, table: &DeTable<'_>) -> Self {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            (str::to_owned(AsRef::<str>::as_ref(key.get_ref())), Self::value(source, value))
        };
        Self::Table(table.iter().map(entry).collect())
    }

    fn value(source: &str, value: &Spanned<DeValue<'_>>) -> Self {
        match value.get_ref() {
            DeValue::Table(table) => Self::table(source, table),
            DeValue::Array(array) => {
                Self::List(array.iter().map(|element| Self::value(source, element)).collect())
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => Self::Leaf(source[value.span()].to_owned()),
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::Leaf(leaf) => text.push_str(leaf),
            Self::List(elements) => {
                text.push('[');
                for element in elements {
                    element.write(text);
                    text.push(',');
                }
                text.push(']');
            }
            Self::Table(entries) => {
                text.push('{');
                for (at, (key, value)) in entries.iter().enumerate() {
                    write!(text, "{}\"{key}\" = ", if at == 0 { "" } else { ", " })
                        .expect("a String accepts writes");
                    value.write(text);
                }
                text.push('}');
            }
        }
    }

    /// Returns the text of the whole file, with one line per section.
    fn file(&self) -> String {
        let Self::Table(sections) = self else { panic!("a file is a table") };
        let mut text = String::new();
        for (key, value) in sections {
            write!(text, "\"{key}\" = ").expect("a String accepts writes");
            value.write(&mut text);
            text.push('\n');
        }
        text
    }

    /// Calls `mutate` for this node and every node inside, and `each` with each mutated copy of this node.
    fn mutations(&self, path: &str, mutate: Mutate<'_>, each: &mut dyn FnMut(&str, Node)) {
        for (what, changed) in mutate(path, self) {
            each(&format!("{path}: {what}"), changed);
        }
        match self {
            Self::Leaf(_) => {}
            Self::List(elements) => {
                for (at, element) in elements.iter().enumerate() {
                    element.mutations(&format!("{path}.{at}"), mutate, &mut |what, changed| {
                        let mut elements = elements.clone();
                        elements[at] = changed;
                        each(what, Self::List(elements));
                    });
                }
            }
            Self::Table(entries) => {
                for (at, (key, value)) in entries.iter().enumerate() {
                    value.mutations(&format!("{path}.{key}"), mutate, &mut |what, changed| {
                        let mut entries = entries.clone();
                        entries[at].1 = changed;
                        each(what, Self::Table(entries));
                    });
                }
            }
        }
    }
}

/// Returns every mutation of the files above, each with a description.
fn mutated_files(mutate: Mutate<'_>) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for source in [NATIVE, FORMATS] {
        accepted(source);
        let document = DeTable::parse(source).expect("a valid file");
        let whole = Node::table(source, document.get_ref());
        accepted(&whole.file());
        whole.mutations("", mutate, &mut |what, changed| files.push((what.to_owned(), changed.file())));
    }
    assert!(files.len() > 50, "{}", files.len());
    files
}

fn is_named_by_operator(path: &str) -> bool {
    path.rsplit('.').next().is_some_and(|last| OWN_NAMES.contains(&last))
}

/// Asserts that every file has exactly one problem, or problems that `allows` accepts.
#[track_caller]
fn assert_single(files: Vec<(String, String)>, allows: impl Fn(&[String]) -> bool) {
    let mut wrong = String::new();
    for (what, file) in files {
        let (config, report) = read(&file);
        assert_eq!(config.is_none(), report.has_errors(), "{what}");
        let messages: Vec<_> = report.diagnostics().iter().map(|problem| problem.message.clone()).collect();
        if messages.len() != 1 && !allows(&messages) {
            writeln!(wrong, "{what}: {messages:#?}").expect("a String accepts writes");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn invalid_value_is_the_only_error() {
    let files = mutated_files(&|path, _| match path {
        "" => Vec::new(),
        _ => vec![("a date".to_owned(), Node::Leaf("1979-05-27".to_owned()))],
    });
    assert_single(files, |_| false);
}

#[test]
fn misspelt_word_is_at_most_one_error() {
    let files = mutated_files(&|_, node| match node {
        Node::Leaf(text) if text.starts_with('"') => {
            let inside = text.trim_matches('"');
            let words = [format!("{inside}x"), inside[..inside.len() - 1].to_owned(), format!("!{inside}")];
            words.map(|word| (format!("{word:?}"), Node::Leaf(format!("\"{word}\"")))).to_vec()
        }
        Node::Leaf(_) | Node::List(_) | Node::Table(_) => Vec::new(),
    });
    // The misspelt word may be a valid name, path or duration.
    assert_single(files, <[String]>::is_empty);
}

#[test]
fn misspelt_key_is_the_only_error() {
    let files = mutated_files(&|path, node| match node {
        Node::Table(entries) if !is_named_by_operator(path) => (0..entries.len())
            .map(|at| {
                let mut entries = entries.clone();
                entries[at].0.push('x');
                (entries[at].0.clone(), Node::Table(entries))
            })
            .collect(),
        Node::Table(_) | Node::Leaf(_) | Node::List(_) => Vec::new(),
    });
    assert_single(files, |_| false);
}

#[test]
fn missing_key_is_the_only_error() {
    let files = mutated_files(&|path, node| match node {
        Node::Table(entries) if !is_named_by_operator(path) => (0..entries.len())
            .map(|at| {
                let mut entries = entries.clone();
                let (key, _) = entries.remove(at);
                (format!("without {key}"), Node::Table(entries))
            })
            .collect(),
        Node::Table(_) | Node::Leaf(_) | Node::List(_) => Vec::new(),
    });
    // An absent optional key may contradict keys that need it. That is an error of its own, not a consequence.
    assert_single(files, |messages| !messages.iter().any(|message| message.contains("is missing")));
}

#[test]
fn independent_errors_are_all_reported() {
    let mistakes = "access = \"require\"|session = \"mian\"|login = \"login\"|methods = [\"get\"]|headers.Host = \"user\"";
    let source = with("[[routes]]", mistakes).replace("[routes.headers]\n", "");
    assert_eq!(errors(&source).len(), 5, "{}", read(&source).1);
    let source = with("[sessions.main]", "format = \"nativ\"|timeout = 3|reissue_time = 3|key_attribute = 3");
    assert_eq!(errors(&source).len(), 4, "{}", read(&source).1);
}

#[test]
fn misspelt_access_hides_errors_of_dependent_keys() {
    let lines =
        "access = \"require\"|login = \"/login\"|writes = true|flash = true|csrf = true|recheck = \"5s\"";
    let source = with("[[routes]]", lines).replace("[routes.require]", "[routes.require]\nrole = \"admin\"");
    assert_eq!(errors(&source), ["`routes.access` must be `required`, `session`, `optional` or `public`"]);
}
