//! `sessiongate explain`.

use serde_json::json;

use super::{CONFIG, Site};

#[test]
fn explain_shows_the_outcome_of_a_request_and_writes_nothing() {
    let site = Site::new(CONFIG);
    let (cookie, reference) = site.create_session(&["user=alice", r#"roles=["admin","editor"]"#]);
    let before = site.run(&["session", "show", "--json", &reference]).success().json();

    let json = site.run(&["explain", "--cookie", &cookie, "--path", "/admin?x=1", "--json"]).success().json();
    assert_eq!(json["route"], "/admin");
    assert_eq!(json["session"]["ref"], reference.as_str());
    assert_eq!(json["cookies"][0]["row"]["claims"]["user"], "alice");
    assert_eq!(json["access"], json!({ "admitted": true }));
    let json = site.run(&["explain", "--cookie", &cookie, "--json", "-H", "X_User: root"]).success().json();
    assert_eq!(json["scrubbed"], json!(["x_user"]));
    assert_eq!(json["headers"]["X-User"], "alice");
    assert_eq!(json["headers"]["X-Roles"], "admin,editor");
    assert_eq!(json["headers"]["X-Session-Status"], "active");

    // A Cookie header is read as well.
    let header = format!("Cookie: {cookie}");
    let json = site.run(&["explain", "--path", "/admin", "--json", "-H", &header]).success().json();
    assert_eq!(json["access"], json!({ "admitted": true }));

    let text = site.run(&["explain", "--cookie", &cookie]).success().stdout;
    for expected in
        ["route    `/`: optional, realm `main`", "header   X-User: alice", "no reissue is due", "allowed"]
    {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    assert_eq!(site.run(&["session", "show", "--json", &reference]).success().json(), before);
}

#[test]
fn explain_does_not_write_a_due_reissue() {
    let site = Site::new(&CONFIG.replace(r#"timeout = "20m""#, "timeout = \"20m\"\nreissue_time = \"1s\""));
    let (cookie, reference) = site.create_session(&["user=alice"]);
    let before = site.run(&["session", "show", "--json", &reference]).success().json();
    let mut attempts = 0..10_000;
    while site.run(&["explain", "--cookie", &cookie, "--json"]).success().json()["session"]["reissue_to"]
        .is_null()
    {
        assert!(attempts.next().is_some(), "a reissue never becomes due");
    }
    assert!(site.run(&["explain", "--cookie", &cookie]).success().stdout.contains("a reissue is due"));
    assert_eq!(site.run(&["session", "show", "--json", &reference]).success().json(), before);
}

#[test]
fn explain_gives_the_reason_for_a_refusal() {
    let site = Site::new(CONFIG);
    let (bob, _) = site.create_session(&["user=bob"]);
    for (args, expected) in [
        (
            &["--path", "/admin"] as &[&str],
            &["401 unauthenticated", "no cookie", "302 to /login?next=%2Fadmin"] as &[&str],
        ),
        (&["--path", "/admin", "-H", "Accept: text/html"], &["302 login", "to /login?next=%2Fadmin"]),
        (&["--path", "/admin", "--cookie", &bob], &["403 forbidden", r#"requires `roles` to be "admin""#]),
        (
            &["--path", "/admin", "--cookie", "nonsense"],
            &[
                "401 unauthenticated",
                "rejected without a read: the cookie does not have the expected form: `ID/VERSION`, where ID is 43 to 128 \
                 characters of `A-Za-z0-9_-`",
            ],
        ),
        (
            &["--path", "/", "--cookie", &format!("{}\"", bob.replace('=', "=\""))],
            &["names session", "X-User: bob"],
        ),
        (&["--path", "/a//b"], &["400 ambiguous-path", "route    none"]),
        (&["--path", "/public", "--cookie", &bob], &["allowed", "X-Session-Status: anonymous"]),
        (
            &["--path", "/", "--cookie", &format!("{bob}; {bob}x")],
            &["names session", "rejected without a read", "X-User: bob"],
        ),
    ] {
        let text = site.run(&[&["explain"], args].concat()).success().stdout;
        for expected in expected {
            assert!(text.contains(expected), "{args:?}: {expected}\n{text}");
        }
    }
    site.run(&["explain", "--path", "no path"]).with_code(2);
    let output = site.run(&["explain", "--cookie", "bell\u{7}"]).with_code(2);
    assert!(!output.stderr.contains("bell"));
}

#[test]
fn explain_names_the_user_claim() {
    let site = Site::new(CONFIG);
    for (claim, user, verdict) in [
        ("user=alice", "logged in: `user` names the user", "200"),
        ("cart=1", "a guest: `user` is absent, or names no user", "401 unauthenticated"),
    ] {
        let (cookie, _) = site.create_session(&[claim, "roles=[\"admin\"]"]);
        let text = site.run(&["explain", "--cookie", &cookie, "--path", "/admin"]).success().stdout;
        assert!(text.contains(user), "{text}");
        assert!(verdict == "200" || text.contains(verdict), "{text}");
        let json = site.run(&["explain", "--cookie", &cookie, "--path", "/admin", "--json"]).success().json();
        assert_eq!(json["access"]["admitted"], verdict == "200", "{json}");
        assert_eq!(json["session"]["status"], if verdict == "200" { "active" } else { "guest" });
    }
}

#[test]
fn explain_without_a_cookie_needs_no_store() {
    let site = Site::new(&CONFIG.replace(r#"path = "sessions.db""#, ""));
    assert!(site.run(&["explain"]).success().stdout.contains("allowed"));
    site.run(&["explain", "--cookie", "x"]).with_code(1);
}

#[test]
fn explain_shows_the_destination_of_a_route() {
    let routes = "\n[[routes]]\npath = \"/app\"\naccess = \"public\"\nupstream = \"app\"\nstrip_prefix = true\n\
                  [routes.request_headers]\nset = { X-Env = \"prod\" }\n\
                  [[routes]]\npath = \"/old\"\naccess = \"public\"\nredirect = \"https://new.example{uri}\"\n\
                  [[routes]]\npath = \"/down\"\naccess = \"public\"\nrespond = { status = 503 }\n";
    let site = Site::new(&format!("{CONFIG}{routes}"));
    for (path, expected) in [
        (
            "/app/x?y",
            &["forwarded as /x?y", "X-Forwarded-Prefix: /app", "X-Env: prod", "upstream `app`"] as &[&str],
        ),
        ("/old/x", &["a redirect", "response 308 to https://new.example/old/x"]),
        ("/down", &["a fixed response", "response 503"]),
    ] {
        let text = site.run(&["explain", "--path", path]).success().stdout;
        for expected in expected {
            assert!(text.contains(expected), "{path}: {expected}\n{text}");
        }
    }
    let json = site.run(&["explain", "--json", "--path", "/app/x"]).success().json();
    assert_eq!(json["forwarded_as"], "/x");
}

#[test]
fn explain_warns_of_a_path_that_bypasses_a_route_in_another_case() {
    let site = Site::new(CONFIG);
    for (path, other) in [("/ADMIN/x", "/ADMIN/x"), ("/admin/x", "/ADMIN/X")] {
        let warning = format!(
            "case     `{other}` matches `/`, but would match `/admin` if case were ignored: if the upstream ignores \
             case, set `ignore_case = true` on `/admin`, or on a route above it"
        );
        let text = site.run(&["explain", "--path", path]).success().stdout;
        assert!(text.contains(&warning), "{text}");
        assert_eq!(site.run(&["explain", "--json", "--path", path]).success().json()["case"], warning[9..]);
    }
    // No warning where the other route's rule is no stricter.
    for path in ["/", "/PUBLIC", "/public"] {
        assert!(!site.run(&["explain", "--path", path]).success().stdout.contains("case "), "{path}");
    }
    let site = Site::new(&CONFIG.replace("path = \"/admin\"", "path = \"/admin\"\nignore_case = true"));
    for path in ["/admin", "/ADMIN/x"] {
        let text = site.run(&["explain", "--path", path]).success().stdout;
        assert!(text.contains("401 unauthenticated") && !text.contains("case "), "{text}");
    }
}

#[test]
fn explain_shows_the_path_with_merged_slashes() {
    let site = Site::new(&CONFIG.replace("path = \"/\"", "path = \"/\"\nduplicate_slashes = \"merge\""));
    assert!(
        site.run(&["explain", "--path", "/a//b?c"]).success().stdout.contains("path     forwarded as /a/b?c")
    );
    let page = ["explain", "--path", "/a//b?c", "-H", "Accept: text/html"];
    let text = site.run(&page).success().stdout;
    assert!(text.contains("308 duplicate-slashes") && text.contains("to /a/b?c"), "{text}");
    assert_eq!(site.run(&[&page[..], &["--json"]].concat()).success().json()["access"]["location"], "/a/b?c");
}

#[test]
fn explain_lists_forwarding_headers_as_removed_unless_the_proxy_is_trusted() {
    let headers =
        ["-H", "X-Forwarded-Proto: https", "-H", "X-Forwarded-For: 192.0.2.1", "-H", "X-User: root"];
    let args = [&["explain", "--json"] as &[&str], &headers].concat();
    let removed = |config: &str| Site::new(config).run(&args).success().json()["scrubbed"].clone();
    assert_eq!(removed(CONFIG), json!(["x-forwarded-proto", "x-forwarded-for", "x-user"]));
    let listener = "address = \"127.0.0.1:0\"";
    let trusted = CONFIG.replace(listener, &format!("{listener}\ntrusted_proxies = [\"127.0.0.1\"]"));
    assert_eq!(removed(&trusted), json!(["x-user"]));
}

#[test]
fn explain_lists_the_removed_override_headers() {
    let route = "\n[[routes]]\npath = \"/app\"\naccess = \"public\"\nupstream = \"app\"\n\
                 allow_overrides = [\"X-HTTP-Method-Override\"]\n";
    let site = Site::new(&format!("{CONFIG}{route}"));
    let headers = ["-H", "X-HTTP-Method-Override: DELETE", "-H", "X-Original-URL: /admin"];
    for (path, expected) in
        [("/app", json!(["x-original-url"])), ("/", json!(["x-original-url", "x-http-method-override"]))]
    {
        let args = [&["explain", "--json", "--path", path] as &[&str], &headers].concat();
        assert_eq!(site.run(&args).success().json()["scrubbed"], expected, "{path}");
    }
}
