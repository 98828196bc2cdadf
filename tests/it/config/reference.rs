//! `gateway.toml`, the reference at the root of the repository: it is valid, and its defaults are the real ones.

use super::fixture::{accepted, read};

const REFERENCE: &str = include_str!("../../../gateway.toml");

/// The beginnings of lines that show an example, because the key has no default or one that cannot be written.
const EXAMPLES: [&str; 45] = [
    "address = \"127.0.0.1:9090",
    "token",
    "redirect_to_https",
    "hsts",
    "connections = ",
    "certificates",
    "client_ca",
    "path = \"var",
    "listen",
    "region",
    "profile",
    "role_arn",
    "endpoint",
    "lifetime",
    "domain",
    "max_age",
    "current",
    "previous",
    "host",
    "methods",
    "require",
    "login",
    "format = \"layout",
    "table = \"shop",
    "ids = ",
    "payload",
    "version",
    "expires = ",
    "created",
    "redirect",
    "respond",
    "strip_prefix",
    "prefix",
    "max_body",
    "rate = ",
    "response_timeout = \"5m",
    "set",
    "add",
    "remove",
    "path = \"/healthz",
    "status = \"500",
    "ca = ",
    "server_name",
    "cert = ",
    "key = \"client",
];

#[test]
fn reference_is_valid_without_warnings() {
    insta::assert_debug_snapshot!(accepted(REFERENCE));
}

/// Uncomments each key in turn: one with its default changes nothing, and one with an example is valid and changes
/// something.
#[test]
fn commented_out_keys_show_their_defaults() {
    // Other sections that the examples need.
    let file = REFERENCE.replace("access = \"optional\"", "access = \"required\"")
        + "\n[[routes]]\npath = \"/login\"\naccess = \"public\"\nupstream = \"app\"\n"
        + "[[routes]]\nhost = \"app.example.com\"\npath = \"/login\"\naccess = \"public\"\nupstream = \"app\"\n";
    let file = file.replace("{ env = \"SESSION_KEY\" }", "\"0123456789abcdef\"");
    let file = file.replace("{ file = \"old-session-key\" }", "\"0123456789abcdef\"");
    let file = file.replace("{ env = \"ADMIN_TOKEN\" }", "\"0123456789abcdef\"");

    let mut tried = Vec::new();
    let mut header = String::new();
    for line in file.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if bare.starts_with('[') {
            header = line.to_owned();
        }
        let Some((key, _)) = bare.split_once(" = ").filter(|_| bare != line && is_key(bare)) else {
            continue;
        };
        let before = with_section(&file, &header, key);
        let after = before.replacen(line, bare, 1);
        tried.push(key.to_owned());
        let (config, report) = read(&after);
        let config = config.unwrap_or_else(|| panic!("{line}\n{report}"));
        let same = match read(&before).0 {
            Some(before) => format!("{before:?}") == format!("{config:?}"),
            None => false,
        };
        assert_eq!(same, !EXAMPLES.iter().any(|example| bare.starts_with(example)), "{line}");
    }
    assert!(tried.len() > 40, "{tried:?}");
}

/// Returns the file with the section `header` uncommented, and with the keys that `key` needs.
fn with_section(file: &str, header: &str, key: &str) -> String {
    if key == "enforce_age" {
        let keys = "[sessions.main.keys]\ncurrent = \"0123456789abcdef\"\n";
        return file.replace("format = \"native\"", "format = \"django\"") + keys;
    }
    let tls =
        file.replace("# [listeners.tls]", "[listeners.tls]").replace("# certificates = ", "certificates = ");
    match key {
        "mode" => return file.replace("address = \"127.0.0.1:8080\"", "address = \"unix:x.sock\""),
        "hsts" | "client_ca" | "min_version" | "handshake_timeout" => return tls,
        "client_auth" => return tls.replace("# client_ca = ", "client_ca = "),
        "certificates" => return file.replace("# [listeners.tls]", "[listeners.tls]"),
        _ => {}
    }
    let Some(bare) = header.strip_prefix("# ") else {
        // `protocol` has an effect only with TLS or a Unix socket, and `resolve` only with a host name.
        let file = if matches!(key, "protocol" | "resolve") { over_tls(file) } else { file.to_owned() };
        return file;
    };
    if bare == "[[routes]]" {
        let local = "[[routes]]\npath = \"/old\"\naccess = \"public\"\n";
        let forwarding = "[[routes]]\npath = \"/app\"\naccess = \"public\"\nupstream = \"app\"\n";
        let commented = |lines: &str| lines.lines().map(|line| format!("# {line}\n")).collect::<String>();
        let strip = if key == "rewrite_location" { "strip_prefix = true\n" } else { "" };
        let (this, other) =
            if ["redirect", "respond"].contains(&key) { (local, forwarding) } else { (forwarding, local) };
        let file = file.replace(&commented(other), "");
        return file.replace(&commented(this), &format!("{this}{strip}"));
    }
    if bare.starts_with("[sessions.shop") {
        let needed =
            ["[sessions.shop", "format = ", "table = \"shop", "cookie.name", "payload", "expires = "];
        let is_needed = |bare: &str| {
            needed.iter().any(|start| bare.starts_with(start)) && !bare.starts_with(&format!("{key} = "))
        };
        let lines =
            file.lines().map(|line| line.strip_prefix("# ").filter(|bare| is_needed(bare)).unwrap_or(line));
        return lines.collect::<Vec<_>>().join("\n");
    }
    let file = file.replacen(header, bare, 1);
    match (bare, key) {
        ("[admin]", "token") => file.replace("# address = \"127.0.0.1:9090", "address = \"127.0.0.1:9090"),
        ("[store.dynamodb]", _) => file.replace("[store.embedded]", "# [store.embedded]"),
        ("[upstreams.app.queue]", _) => file.replace("# max_connections = 0", "max_connections = 8"),
        ("[upstreams.app.health]", "path") => file,
        ("[upstreams.app.health]", _) => file.replace("# path = \"/healthz", "path = \"/healthz"),
        ("[upstreams.app.tls]", "cert") => over_tls(&file).replace("# key = \"client", "key = \"client"),
        ("[upstreams.app.tls]", "key") => over_tls(&file).replace("# cert = \"client", "cert = \"client"),
        ("[upstreams.app.tls]", _) => over_tls(&file),
        ("[sessions.main.keys]", "previous") => file.replace("# current = ", "current = "),
        _ => file,
    }
}

fn over_tls(file: &str) -> String {
    file.replace("servers = [\"builtin:demo\"]", "servers = [\"https://app.example.com\"]")
}

fn is_key(line: &str) -> bool {
    let key = line.split_once(" = ").map(|(key, _)| key).unwrap_or_default();
    !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}
