//! Secrets never appear in output. Every secret of these tests has a marker text, and no log line at `trace`, including
//! those of the AWS SDK and other dependencies, no response and no output of a command may contain it.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sessiongate::config::KeysConfig;
use sessiongate::format::native::Native;
use sessiongate::format::{Format, SessionId};
use sessiongate::secret::Secret;

use crate::support::client::{Client, Request, Response};
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gateway::Gateway;
use crate::support::program;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, DUE, Session, TIMEOUT};
use crate::support::upstream::Upstream;

/// The marker in every secret.
const CANARY: &str = "Canary7f3a";
/// The current key of the realm `signed`.
const KEY: &str = "Canary7f3a-the-current-key-of-the-signed-realm";
/// Its previous key.
const OLD_KEY: &str = "Canary7f3a-the-previous-key-of-the-signed-realm";

/// Returns a session whose id and claims have the marker.
fn marked_session(number: usize) -> Session {
    let claims = json!({
        "user": format!("{CANARY} user"), "roles": [format!("{CANARY},role")], "other": CANARY,
        "large": format!("{CANARY}{}", "x".repeat(9000)),
    });
    Session { id: format!("{CANARY}{number:0>33}"), ..Session::new(claims) }
}

fn signed_cookie(key: &str, id: &str) -> String {
    let keys = KeysConfig { current: Secret::new(key.as_bytes()), previous: vec![] };
    format!("signed={}", Native::new("sid", "signed", Some(keys)).cookie_value(&SessionId::new(id), 1))
}

async fn gateway(engine: &Engine, upstream: &Upstream, stalled: &Upstream) -> Gateway {
    let mapping = "[routes.headers]\nX-User = \"user\"\nX-Roles = \"roles\"";
    Gateway::builder()
        .engine(engine)
        .env("RUST_LOG", "trace")
        .env("AWS_ACCESS_KEY_ID", &format!("{CANARY}-access"))
        .env("AWS_SECRET_ACCESS_KEY", &format!("{CANARY}-aws"))
        .env("KEY", KEY)
        .env("OLD_KEY", OLD_KEY)
        .upstream("app", upstream)
        .upstream_at("stalled", stalled.address(), "response_timeout = \"20ms\"")
        .env("ADMIN_TOKEN", &format!("{CANARY}-of-the-admin-listener"))
        .toml("[admin]\naddress = \"127.0.0.1:0\"\ntoken = { env = \"ADMIN_TOKEN\" }")
        .realm("")
        .toml(
            "[sessions.signed]\nformat = \"native\"\ntable = \"sessions\"\ncookie.name = \"signed\"\n\
             keys = { current = { env = \"KEY\" }, previous = [{ env = \"OLD_KEY\" }] }",
        )
        .route("/", "required", &format!("login = \"/login?next={{uri}}\"\n{mapping}"))
        .route("/optional", "optional", mapping)
        .route("/public", "public", "methods = [\"GET\"]")
        .route("/login", "optional", "")
        .route("/admin", "required", "require = { user = [\"root\"] }")
        .route("/large", "required", "[routes.headers]\nX-Large = \"large\"")
        .toml("[[routes]]\npath = \"/stalled\"\nupstream = \"stalled\"\naccess = \"required\"\nsession = \"main\"")
        .toml("[[routes]]\npath = \"/signed\"\nupstream = \"app\"\naccess = \"required\"\nsession = \"signed\"")
        .start()
        .await
}

/// Returns the text of a response without its session cookies.
fn text(response: &Response) -> String {
    let is_session_cookie = |value: &str| value.starts_with("session_id=") || value.starts_with("signed=");
    let headers = response.message.headers.iter();
    let lines = headers
        .filter(|(name, value)| !(name.eq_ignore_ascii_case("set-cookie") && is_session_cookie(value)));
    let lines: Vec<_> = lines.map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{}\n{}\n\n{}", response.message.start, lines.join("\n"), response.text())
}

fn assert_unmarked(what: &str, text: &str) {
    let line = text.lines().find(|line| line.contains(CANARY) || line.contains("Q2FuYXJ5N2Yz"));
    assert_eq!(line, None, "{what}");
}

/// Sends requests of every kind with these cookies, and checks the responses.
async fn send_requests(gateway: &Gateway, cookies: &[String]) {
    for cookie in cookies {
        for path in [
            "/",
            "/optional",
            "/public",
            "/admin",
            "/large",
            "/stalled",
            "/signed",
            "/bad",
            "/gone",
            "/login",
        ] {
            let plain = Request::get(path).cookie(cookie);
            for request in [plain.clone().header("Accept", "text/html"), plain] {
                let mut client = Client::connect(gateway.address()).await;
                client.send_request(&request).await;
                match client.read_response().await {
                    Ok(response) => assert_unmarked(&format!("{request:?}"), &text(&response)),
                    Err(error) => assert_eq!(path, "/gone", "{error}"),
                }
            }
        }
        for request in [
            Request::new("TRACE", "/").cookie(cookie),
            Request::post("/public", "x").cookie(cookie),
            Request::get("//").cookie(cookie),
            Request::get("/").cookie(cookie).header("Host", "a b"),
            Request::get("/").cookie(cookie).header("Expect", CANARY),
            Request::get("/").cookie(cookie).header("X-Request-Id", &format!("<{CANARY}>")),
            Request::get("/").cookie(cookie).cookie(&format!("{cookie}; {cookie}x")),
            Request::get("/public").cookie(cookie).header("X-Filler", &"x".repeat(100_000)),
        ] {
            assert_unmarked(&format!("{request:?}"), &text(&gateway.send(&request).await));
        }
        for bytes in [
            format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nbroken\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nTransfer-Encoding: {CANARY}\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\0\r\n\r\n"),
        ] {
            let mut client = Client::connect(gateway.address()).await;
            client.send(&bytes).await;
            let response = client.read_response().await.unwrap();
            assert_eq!(response.status, 400, "{bytes}");
            assert_unmarked(&bytes, &text(&response));
        }
    }
}

#[tokio::test]
async fn gateway_writes_no_secret_to_logs_and_responses() {
    let own = format!("session_id={}/2", marked_session(0).id);
    let upstream = Upstream::responding(move |request| match request.target.as_str() {
        "/bad" => ScriptedResponse::raw(format!("HTTP/1.1 200 OK\r\nSet-Cookie {own}\r\n\r\n")),
        "/gone" => ScriptedResponse::ok("x".repeat(5000)).header("X-Session-Patch", CANARY).truncated_to(100),
        "/login" => ScriptedResponse::ok("").header("Set-Cookie", &own).header("X-Session-Ref", CANARY),
        _ => ScriptedResponse::ok("ok"),
    });
    let (engine, stalled) = (table::engine().await, Upstream::responding(|_| ScriptedResponse::never()));
    let gateway = gateway(&engine, &upstream, &stalled).await;
    let sessions = [
        marked_session(1),
        marked_session(2).aged(DUE),
        marked_session(3).aged(TIMEOUT + DUE),
        marked_session(4),
    ];
    for session in &sessions[..3] {
        session.put(&engine).await;
    }
    let mut cookies: Vec<_> = sessions.iter().map(Session::cookie).collect();
    let rows = [
        json!({ "dat": { "S": format!("{{\"user\": {CANARY}") } }),
        json!({ "dat": { "M": { "user": { "S": CANARY } } } }),
        json!({ "ver": { "S": CANARY } }),
        json!({ "exp": { "S": CANARY } }),
        json!({ "dat": Value::Null, "iss": { "N": "1e30" } }),
    ];
    for (number, row) in rows.iter().enumerate() {
        marked_session(10 + number).put_with(&engine, row.clone()).await;
        cookies.push(marked_session(10 + number).cookie());
    }
    let native = marked_session(20);
    native.put_with(&engine, json!({ "dat": { "M": { "user": { "S": CANARY } } } })).await;
    cookies.extend(
        [KEY, OLD_KEY, "another key that is long enough to sign"].map(|key| signed_cookie(key, &native.id)),
    );
    cookies.push(format!("session_id={CANARY}"));
    cookies.push(format!("session_id={}/Infinity; {}", marked_session(1).id, marked_session(1).cookie()));
    cookies.push(format!("signed={}/1/{CANARY}", native.id));

    send_requests(&gateway, &cookies).await;
    for (number, fault) in
        [Fault::Throttle, Fault::ServerError, Fault::AccessDenied, Fault::BrokenOff].into_iter().enumerate()
    {
        let unread = marked_session(30 + number).aged(DUE);
        unread.put(&engine).await;
        let due = marked_session(40 + number).aged(DUE);
        due.put(&engine).await;
        engine.inject(Affected::Only("UpdateItem"), fault.clone());
        gateway.get("/", &due.cookie()).await;
        engine.inject(Affected::All, fault);
        assert_unmarked("outage", &text(&gateway.get("/", &unread.cookie()).await));
        engine.clear_faults();
    }

    // Over HTTP/2, because h2 logs the frames that it reads.
    if let Some(mut curl) = program::command("curl") {
        let url = format!("http://{}/", gateway.address());
        let cookie = format!("Cookie: {}", sessions[0].cookie());
        curl.args(["-sSi", "--http2-prior-knowledge", "-H", &cookie, &url]);
        let (succeeded, stdout, stderr) = program::run(&mut curl, "").await;
        assert!(succeeded && stdout.starts_with("HTTP/2 200"), "{stdout}{stderr}");
    }

    assert!(upstream.requests().iter().any(|r| r.header("x-user").is_some_and(|user| user.contains(CANARY))));
    for path in ["/healthz", "/readyz", "/", "/metrics", "/config", "/other"] {
        let request =
            Request::get(path).header("Authorization", &format!("Bearer {CANARY}-of-the-admin-listener"));
        let response = request.send(gateway.addresses("admin")[0]).await;
        // Writes and upstream requests have failed on purpose above.
        let expected: &[u16] = match path {
            "/other" => &[404],
            "/readyz" => &[200, 503],
            _ => &[200],
        };
        assert!(expected.contains(&response.status), "{path}: {}", response.status);
        assert_unmarked(path, &text(&response));
        let refused = Request::get(path).header("Authorization", &format!("Bearer {CANARY}"));
        assert_unmarked(path, &text(&refused.send(gateway.addresses("admin")[0]).await));
    }
    let (status, log) = gateway.terminate().await;
    assert!(status.success(), "{log}");
    assert!(log.contains("\"reissue\"") && log.contains("could not be read"), "{log}");
    assert!(log.contains("\"target\":\"h2::"), "no log line of a dependency");
    assert_unmarked("log", &log);
}

#[test]
fn commands_that_fail_write_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\n\
         [store.dynamodb]\nendpoint = \"http://{closed}\"\ntimeout = \"100ms\"\nattempts = 1\n\
         [sessions.main]\nformat = \"native\"\ntable = \"sessions\"\ncookie.name = \"signed\"\nkeys.current = \"{KEY}\"\n\
         [upstreams.app]\nservers = [\"http://127.0.0.1:1\"]\n\
         [[routes]]\npath = \"/\"\nsession = \"main\"\naccess = \"required\"\nupstream = \"app\"\n"
    );
    let invalid = config.replace("keys.current = \"", "keys.current = [\"").replace("format", "fromat");
    std::fs::write(directory.path().join("gateway.toml"), &config).unwrap();
    std::fs::write(directory.path().join("invalid.toml"), invalid).unwrap();
    let id = marked_session(1).id;
    let (cookie, forged) =
        (signed_cookie(KEY, &id), signed_cookie("another key that is long enough to sign", &id));
    let unsigned = format!("{id}/1");
    let commands: &[&[&str]] = &[
        &["check"],
        &["check", "--connect"],
        &["check", "--config", "invalid.toml"],
        &["serve", "--config", "invalid.toml"],
        &["table", "show"],
        &["table", "create"],
        &["table", "policy"],
        &["session", "create", "--claim", &format!("user={CANARY}")],
        &["session", "list"],
        &["session", "show", "--cookie", &cookie],
        &["session", "show", "--cookie", &forged],
        &["session", "show", "--cookie", &unsigned],
        &["session", "show", "--cookie", CANARY],
        &["session", "revoke", "--cookie", &cookie],
        &["session", "revoke", "--cookie", &forged],
        &["explain", "--cookie", &cookie],
        &["explain", "--cookie", &forged],
        &["explain", "--cookie", &unsigned, "--json"],
        &["explain", "--cookie", CANARY, "--path", "//"],
    ];
    for arguments in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_sessiongate"))
            .args(*arguments)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .env("RUST_LOG", "trace")
            .envs(program::AWS_ENVIRONMENT)
            .envs([("AWS_ACCESS_KEY_ID", CANARY), ("AWS_SECRET_ACCESS_KEY", CANARY)])
            .output()
            .unwrap();
        for stream in [&output.stdout, &output.stderr] {
            assert_unmarked(&format!("{arguments:?}"), &String::from_utf8_lossy(stream));
        }
    }
}
