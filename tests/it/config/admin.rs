//! `[admin]`, and the configuration that it shows.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sessiongate::config::diagnostic::Severity;
use sessiongate::config::{AccessLogTarget, AdminAddress, parse};

use super::fixture::{TestEnvironment, accepted, errors, with};

fn admin(lines: &str) -> Vec<String> {
    errors(&with("", &format!("[admin]|{lines}")))
}

#[test]
fn admin_address_is_tcp_or_unix() {
    let address = |address: &str| {
        accepted(&with("", &format!("[admin]|address = \"{address}\""))).admin.expect("a section").address
    };
    assert_eq!(address("localhost:9090"), AdminAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9090))));
    assert_eq!(address("unix:/run/admin.sock"), AdminAddress::Unix(PathBuf::from("/run/admin.sock")));
    assert_eq!(address("unix:admin.sock"), AdminAddress::Unix(PathBuf::from("etc/admin.sock")));
    assert!(accepted(&with("", "")).admin.is_none());
}

#[test]
fn admin_address_beyond_loopback_needs_a_token() {
    let exposed = "`admin.address` is reachable from other machines, but no token is set";
    assert_eq!(admin("address = \"0.0.0.0:9090\""), [exposed]);
    assert_eq!(admin("address = \"[::]:9090\""), [exposed]);
    let token = |token: &str| admin(&format!("address = \"0.0.0.0:9090\"|token = {token}"));
    assert_eq!(token("\"0123456789abcdef\""), [""; 0]);
    assert_eq!(token("\"short\""), ["`admin.token` is shorter than 16 bytes"]);
    assert_eq!(
        token("\"0123456789 abcdef\""),
        ["`admin.token` must consist of printable ASCII characters without spaces"]
    );
    assert_eq!(
        token("{ env = \"NONE\" }"),
        ["`admin.token` refers to an environment variable that is not set"]
    );
}

#[test]
fn invalid_admin_section_is_an_error() {
    assert_eq!(admin(""), ["`admin.address` is missing"]);
    assert_eq!(admin("address = \"unix:\""), ["`admin.address` has no socket path"]);
    assert_eq!(admin("address = \"127.0.0.1:1\"|adress = 1"), ["unknown key `adress` in `admin`"]);
    assert_eq!(
        admin("address = \"9090\""),
        ["`admin.address` must be an IP address, or `localhost`, and a port"]
    );
}

#[test]
fn access_log_targets_are_parsed() {
    let target =
        |value: &str| accepted(&with("[server]", &format!("access_log = {value}"))).server.access_log;
    assert_eq!(target("true"), AccessLogTarget::Stdout);
    assert_eq!(target("\"stdout\""), AccessLogTarget::Stdout);
    assert_eq!(target("\"stderr\""), AccessLogTarget::Stderr);
    assert_eq!(target("false"), AccessLogTarget::Off);
    assert_eq!(target("{ file = \"a.log\" }"), AccessLogTarget::File(PathBuf::from("etc/a.log")));
}

/// Names of variables and files are shown; secrets and comments are not.
#[test]
fn source_is_shown_without_secrets() {
    let secret = "canary-6f1d9b-secret";
    let source = with("[server]", &format!("# old = \"{secret}\"|workers = 0x2"))
        + &format!("[admin]\naddress = \"127.0.0.1:0\"\ntoken = \"{secret}\" # {secret}\n")
        + &format!("[sessions.main.keys]\ncurrent = {{ env = \"KEY\" }}\nprevious = [\"{secret}\"]\n");
    let given = TestEnvironment { variables: [("KEY", secret)].into(), ..TestEnvironment::default() };
    let (config, report) = parse(&source, Path::new("gateway.toml"), &given);
    assert!(report.diagnostics().iter().all(|problem| problem.severity == Severity::Warning), "{report}");
    let shown = config.expect("a configuration").source;
    assert!(!shown.as_json().contains("canary"), "{}", shown.as_json());
    let shown: Value = serde_json::from_str(shown.as_json()).unwrap();
    assert_eq!(shown["admin"], json!({ "address": "127.0.0.1:0", "token": "***" }));
    let keys = json!({ "current": { "env": "KEY" }, "previous": ["***"] });
    assert_eq!(shown["sessions"]["main"]["keys"], keys);
    assert_eq!(shown["upstreams"]["app"]["servers"], json!(["http://127.0.0.1:8000"]));
    assert_eq!(shown["routes"][0]["path"], "/");
}
