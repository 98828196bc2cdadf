//! `sessiongate demo`: its app, the commands and links that it prints, and the events that it reports.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::support::client::Request;
use crate::support::gateway::Gateway;

/// Timeout for each wait.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running demo, which is killed when this value is dropped.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    /// The lines before the live events.
    welcome: Vec<String>,
}

#[derive(Debug)]
struct Page {
    status: u16,
    head: String,
    body: String,
}

impl Demo {
    fn start(port: u16) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sessiongate"))
            .args(["demo", "--port", &port.to_string()])
            .env_clear()
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        // Ends with the demo's stdout.
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut demo = Self { child, lines, welcome: Vec::new() };
        loop {
            let line = demo.next_line();
            let last = line.ends_with("Live:");
            demo.welcome.push(line.trim().to_owned());
            if last {
                return demo;
            }
        }
    }

    fn next_line(&self) -> String {
        self.lines.recv_timeout(TIMEOUT).expect("the demo prints another line")
    }

    /// Waits for a line that contains `text`, and returns it.
    fn wait_for_line(&self, text: &str) -> String {
        loop {
            let line = self.next_line();
            if line.contains(text) {
                return line;
            }
        }
    }

    #[track_caller]
    fn printed(&self, wanted: impl Fn(&str) -> bool) -> &str {
        self.welcome.iter().find(|line| wanted(line)).unwrap_or_else(|| panic!("not in {:#?}", self.welcome))
    }

    fn url(&self) -> &str {
        self.printed(|line| line.starts_with("http://") && line.ends_with('/'))
    }

    fn link(&self) -> &str {
        self.printed(|line| line.starts_with("http://") && line.contains("/become/"))
    }

    /// Does what the printed curl command that contains all of `parts` would do.
    #[track_caller]
    fn curl(&self, parts: &[&str]) -> Page {
        let command =
            self.printed(|line| line.starts_with("curl ") && parts.iter().all(|part| line.contains(part)));
        let words = words(command);
        let mut headers = Vec::new();
        for pair in words.windows(2) {
            match pair[0].as_str() {
                "-b" => headers.push(format!("Cookie: {}", pair[1])),
                "-H" => headers.push(pair[1].clone()),
                _ => {}
            }
        }
        get(words.last().unwrap(), &headers.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn shell(&self, command: &str) -> Output {
        Command::new("/bin/sh").args(["-c", command]).env_clear().output().unwrap()
    }

    fn config(&self) -> PathBuf {
        words(self.printed(|line| line.contains(" session revoke "))).pop().unwrap().into()
    }

    /// Sends SIGINT, as Ctrl-C does, and returns the exit code.
    fn interrupt(mut self) -> i32 {
        assert!(self.shell(&format!("kill -INT {}", self.child.id())).status.success());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Fails if it has exited.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Splits a command as a shell does. Handles only single quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (at, part) in command.split('\'').enumerate() {
        if at % 2 == 1 {
            words.last_mut().unwrap().push_str(part);
            continue;
        }
        let mut pieces = part.split(' ');
        words.last_mut().unwrap().push_str(pieces.next().unwrap());
        words.extend(pieces.map(str::to_owned));
    }
    words
}

/// Sends a GET as curl does.
fn get(url: &str, headers: &[&str]) -> Page {
    send("GET", url, headers, "")
}

/// Sends a form as a browser does, with `site` as `Sec-Fetch-Site`.
fn post(url: &str, site: &str, cookie: Option<&str>, form: &str) -> Page {
    let (site, length) = (format!("Sec-Fetch-Site: {site}"), format!("Content-Length: {}", form.len()));
    let headers = [Some(site.as_str()), Some(length.as_str()), cookie];
    send("POST", url, &headers.into_iter().flatten().collect::<Vec<_>>(), form)
}

fn send(method: &str, url: &str, headers: &[&str], body: &str) -> Page {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut request =
        format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page { status, head: head.to_owned(), body: body.to_owned() }
}

impl Page {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Returns the cookie that it sets, as a header line.
    fn cookie(&self) -> String {
        format!("Cookie: {}", self.header("set-cookie").unwrap().split(';').next().unwrap())
    }
}

#[test]
fn printed_commands_show_alice_and_the_refusals() {
    let demo = Demo::start(0);
    let anonymous = demo.curl(&["curl http"]);
    assert_eq!(anonymous.status, 200);
    assert!(anonymous.body.starts_with("Hello, anonymous\n"), "{}", anonymous.body);
    demo.wait_for_line("X-Session-Status: anonymous");

    let alice = demo.curl(&["curl -b"]);
    assert!(alice.body.starts_with("Hello, alice\n"), "{}", alice.body);
    for expected in
        ["X-User:", "X-Name:", "Alice Liddell of Wonderland", "admin,editor", "X-Session-Expires:"]
    {
        assert!(alice.body.contains(expected), "{expected}: {}", alice.body);
    }
    assert!(!alice.body.to_lowercase().contains("cookie"), "the app received the session cookie");
    demo.wait_for_line("X-User: alice");

    let refused = demo.curl(&["/members"]);
    assert_eq!(refused.status, 401);
    demo.wait_for_line("did not reach the app");
    assert_eq!(demo.curl(&["/admin"]).status, 200);
    for forged in ["X-User: root", "X_User: root"] {
        let response = demo.curl(&[forged]);
        assert!(
            response.body.starts_with("Hello, anonymous\n") && !response.body.contains("root"),
            "{forged}: {}",
            response.body
        );
    }
    let browser = get(&format!("{}members", demo.url()), &["Accept: text/html"]);
    assert_eq!(
        (browser.status, browser.header("location")),
        (302, Some("/login?next=%2Fmembers")),
        "{}",
        browser.head
    );
}

/// Returns the names of the headers that a response of `/whoami` attributes to `origin`.
fn names_from(origin: &str, whoami: &str) -> BTreeSet<String> {
    let whoami: Value = serde_json::from_str(whoami).unwrap();
    let headers = whoami["headers"].as_array().unwrap().iter().filter(|header| header["from"] == origin);
    headers.map(|header| header["name"].as_str().unwrap().to_lowercase()).collect()
}

#[test]
fn headers_of_the_gateway_are_not_attributed_to_the_client() {
    let demo = Demo::start(0);
    let whoami = get(&format!("{}whoami", demo.url()), &["X-Own: 1"]);
    assert_eq!(names_from("client", &whoami.body), ["accept", "host", "x-own"].map(str::to_owned).into());
    let added = names_from("gateway", &whoami.body);
    assert!(added.contains("traceparent") && added.contains("via"), "{added:?}");
}

#[tokio::test]
async fn headers_that_a_route_sets_are_not_attributed_to_the_client() {
    for (server, from_client) in [("", "accept x-own"), ("traces = \"pass\"", "accept traceparent x-own")] {
        let gateway = Gateway::builder()
            .server(server)
            .toml("[upstreams.app]\nservers = [\"builtin:demo\"]")
            .route(
                "/app",
                "public",
                "strip_prefix = \"/app\"\nupstream_host = \"app.test\"\n\
                 request_headers = { set = { X-Set = \"1\" } }",
            )
            .start()
            .await;
        let request = Request::get("/app/whoami").header("Accept", "*/*").header("X-Own", "1");
        let request =
            request.header("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let whoami = gateway.send(&request).await.text();
        let expected = from_client.split(' ').map(str::to_owned).collect();
        assert_eq!(names_from("client", &whoami), expected, "{whoami}");
        let added = names_from("gateway", &whoami);
        for name in ["host", "x-set", "x-forwarded-prefix", "x-forwarded-for", "x-request-id"] {
            assert!(added.contains(name), "{name}: {added:?}");
        }
    }
}

#[test]
fn link_logs_in_as_alice_again_after_her_session_was_revoked() {
    let demo = Demo::start(0);
    let entered = get(demo.link(), &[]);
    assert_eq!((entered.status, entered.header("location")), (303, Some("/")));
    let cookie = entered.cookie();
    assert!(entered.head.contains("HttpOnly"), "without the realm's cookie attributes: {}", entered.head);
    assert!(get(demo.url(), &[&cookie]).body.starts_with("Hello, alice\n"));
    assert_eq!(get(demo.link(), &[]).cookie(), cookie, "another session while the first is active");

    // The cached row is used for a moment longer.
    let event = demo.wait_for_line("alice has a new session");
    let revoked = demo.shell(event.split_once("to end it: ").unwrap().1);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let mut attempts = 0..100_000;
    while get(demo.url(), &[&cookie]).body.starts_with("Hello, alice\n") {
        assert!(attempts.next().is_some(), "a revoked session is still accepted");
    }

    let again = get(demo.link(), &[]).cookie();
    assert_ne!(again, cookie);
    assert!(get(demo.url(), &[&again]).body.starts_with("Hello, alice\n"));
    demo.wait_for_line("alice has a new session");
    // The printed cookie has another session, which the printed command revokes.
    assert!(demo.curl(&["curl -b"]).body.starts_with("Hello, alice\n"));
    let command = demo.printed(|line| line.contains(" session revoke "));
    assert!(demo.shell(command).status.success(), "{command}");
}

#[test]
fn session_of_the_printed_cookie_is_reissued_and_that_of_the_link_is_not() {
    let demo = Demo::start(0);
    let list = demo.printed(|line| line.contains(" session list ")).replace("--claims", "--json");
    let sessions = || {
        let listed = String::from_utf8(demo.shell(&list).stdout).unwrap();
        let rows = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let state =
            |row: Value| (row["ref"].to_string(), (row["expires"].as_i64().unwrap(), row["state"] == "live"));
        rows.map(state).collect::<BTreeMap<_, _>>()
    };
    let (printed, (deadline, _)) = sessions().pop_first().unwrap();
    get(demo.link(), &[]);
    let (linked, (linked_deadline, _)) =
        sessions().into_iter().find(|(reference, _)| *reference != printed).unwrap();
    // No request uses either session.
    let moved = loop {
        let now = sessions();
        let (moved_to, is_live) = now[&printed];
        assert!(is_live, "the printed session has ended: {now:?}");
        if moved_to > deadline {
            break now;
        }
        // Each poll starts a process.
        std::thread::sleep(Duration::from_millis(250));
    };
    assert_eq!(moved[&linked].0, linked_deadline);
}

#[test]
fn any_name_logs_in_and_is_escaped() {
    let demo = Demo::start(0);
    for (name, shown) in [
        ("O'Hara", "O&#39;Hara"),
        ("Zoë \"Zo\"; Ñandú-López, Jr. 100%", "Zoë &quot;Zo&quot;; Ñandú-López, Jr. 100%"),
        ("山田 太郎", "山田 太郎"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("\\", "\\"),
    ] {
        let form: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let response = post(&format!("{}log-in", demo.url()), "same-origin", None, &format!("name={form}"));
        assert_eq!(response.status, 303, "{name}: {}\n{}", response.head, response.body);
        let cookie = response.cookie();
        let text = get(demo.url(), &[&cookie]).body;
        assert!(text.starts_with(&format!("Hello, {name}\n")), "{name}: {text}");
        let page = get(demo.url(), &[&cookie, "Accept: text/html"]).body;
        assert!(page.contains(&format!("Hello, {shown} ·")), "{name}: {page}");
    }
}

#[test]
fn login_counter_and_logout_work() {
    let demo = Demo::start(0);
    let to = |form: &str| format!("{}{form}", demo.url());
    let same = "same-origin";
    // Counting needs no login: the count is in a guest's session.
    let mut cookie = post(&to("count"), same, None, "").cookie();
    demo.wait_for_line("session created");
    for _ in 0..2 {
        let counted = post(&to("count"), same, Some(&cookie), "");
        assert_eq!((counted.status, counted.header("location")), (303, Some("/")), "{}", counted.head);
        cookie = counted.cookie();
    }
    let page = get(demo.url(), &[&cookie, "Accept: text/html"]);
    assert!(page.body.contains("<output id=\"visits\">3</output>"), "{}", page.body);
    let fixed = cookie;

    let refused = post(&to("log-in"), "cross-site", Some(&fixed), "name=Mallory");
    assert_eq!((refused.status, refused.header("set-cookie")), (403, None));
    demo.wait_for_line("cross-site");
    assert_eq!(post(&to("log-in"), same, Some(&fixed), "name=a%0ab").status, 400);

    let entered = post(&to("log-in"), same, Some(&fixed), "name=Zo%C3%AB+L");
    assert_eq!((entered.status, entered.header("location")), (303, Some("/")), "{}", entered.head);
    demo.wait_for_line("new id");
    let cookie = entered.cookie();
    let id = |cookie: &str| cookie.split('/').next().unwrap().to_owned();
    assert_ne!(id(&cookie), id(&fixed), "the login keeps the old id");
    assert!(get(demo.url(), &[&fixed]).body.starts_with("Hello, anonymous\n"));

    let poll = get(&to("whoami"), &[&cookie]);
    assert!(!poll.body.contains("Welcome"), "a poll took the flash message: {}", poll.body);
    let page = get(demo.url(), &[&cookie, "Accept: text/html"]);
    let welcome = "<p class=\"flash\" role=\"status\">Welcome, Zoë L</p>";
    assert!(page.body.contains(welcome) && page.body.contains("Hello, Zoë L"), "{}", page.body);
    assert!(page.body.contains("<output id=\"visits\">3</output>"), "the count was lost: {}", page.body);
    let cookie = page.cookie();
    assert!(!get(demo.url(), &[&cookie, "Accept: text/html"]).body.contains("Welcome"));

    let logged_out = post(&to("log-out"), same, Some(&cookie), "");
    assert_eq!(logged_out.status, 303);
    assert!(logged_out.header("set-cookie").unwrap().contains("Max-Age=0"), "{}", logged_out.head);
    demo.wait_for_line("session ended");
    assert!(get(demo.url(), &[&cookie]).body.starts_with("Hello, anonymous\n"));
}

#[test]
fn printed_list_and_explain_commands_work() {
    let demo = Demo::start(0);
    let listed = demo.shell(demo.printed(|line| line.contains(" session list ")));
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("Alice Liddell") && listed.lines().count() == 1, "{listed}");
    let explained = demo.shell(demo.printed(|line| line.contains(" explain ")));
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.contains("X-User: alice"), "{explained}");
}

#[test]
fn ctrl_c_exits_with_0_and_removes_the_files() {
    let demo = Demo::start(0);
    let home = demo.config().parent().unwrap().to_owned();
    assert!(home.is_dir());
    assert_eq!(demo.interrupt(), 0);
    assert!(!home.exists());
}

#[test]
fn another_port_is_used_if_the_default_is_taken() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let demo = Demo::start(port);
    demo.printed(|line| line.starts_with(&format!("note: port {port} is in use")));
    assert_ne!(demo.url(), format!("http://127.0.0.1:{port}/"));
    assert!(demo.curl(&["curl http"]).body.starts_with("Hello, anonymous\n"));
}
