//! `sessiongate session create`, `show`, `list` and `revoke`.

use serde_json::json;
use sessiongate::time::Clock;

use super::{CONFIG, Site};

#[test]
fn session_is_created_shown_and_revoked() {
    let site = Site::new(CONFIG);
    let created =
        site.run(&["session", "create", "--claim", "user=alice", "--claim", r#"roles=["admin"]"#]).success();
    let cookie = created.stdout.trim_end();
    assert_eq!(created.stdout.lines().count(), 1);
    assert!(!created.stderr.contains(cookie.split_once('=').unwrap().1), "the cookie is shown once");

    let shown = site.run(&["session", "show", "--cookie", cookie, "--json"]).success().json();
    assert_eq!(shown["state"], "live");
    assert_eq!(shown["claims"], json!({ "user": "alice", "roles": ["admin"] }));
    assert_eq!(shown["version"], 1);
    let reference = shown["ref"].as_str().unwrap();
    assert_eq!(reference.len(), 16);
    assert!(created.stderr.contains(reference));

    // As text: by the ref, by the cookie, and by the cookie from stdin, which keeps it out of the process list.
    let value = cookie.split_once('=').unwrap().1;
    for args in [
        &["session", "show", reference] as &[&str],
        &["session", "show", "--cookie", value],
        &["session", "show", "--cookie", "-"],
    ] {
        let text = site.run_with(args, &format!("{cookie}\n")).success().stdout;
        assert!(
            text.contains(reference)
                && text.contains(r#""user": "alice""#)
                && text.contains("expires in 19m"),
            "{text}"
        );
        assert!(!text.contains(value), "the cookie is shown once");
    }

    let revoked = site.run(&["session", "revoke", reference]).success();
    assert!(revoked.stderr.contains(reference) && revoked.stdout.is_empty());
    for args in [
        &["session", "revoke", reference] as &[&str],
        &["session", "show", reference],
        &["session", "show", "--cookie", cookie],
    ] {
        let output = site.run(args).with_code(1);
        assert!(output.stderr.contains(reference) && output.stdout.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn list_has_a_line_for_each_session_and_claims_only_on_request() {
    let site = Site::new(CONFIG);
    assert!(site.run(&["session", "list"]).with_code(1).stderr.contains("there is no database"));
    let refs: Vec<_> = ["alice", "bob"].map(|user| site.create_session(&[&format!("user={user}")]).1).into();

    let text = site.run(&["session", "list"]).success();
    assert_eq!(text.stdout.lines().count(), 2);
    assert!(refs.iter().all(|reference| text.stdout.contains(reference)) && !text.stdout.contains("alice"));
    assert!(text.stderr.contains("2 rows"), "{}", text.stderr);

    let rows = site.run(&["session", "list", "--json"]).success().json_lines();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["state"] == "live" && row.get("claims").is_none()));
    let rows = site.run(&["session", "list", "--json", "--claims"]).success().json_lines();
    let mut users: Vec<_> = rows.iter().map(|row| row["claims"]["user"].as_str().unwrap()).collect();
    users.sort_unstable();
    assert_eq!(users, ["alice", "bob"]);
}

#[test]
fn list_counts_the_sessions_read_and_matched() {
    let site = Site::new(CONFIG);
    site.create_session(&["user=alice"]);
    for (args, expected) in [
        (&[] as &[&str], "1 row in table `sessions`, 1 of them live\n"),
        (&["--claim", "user=bob"], "1 row in table `sessions`, 0 match, 0 of these live\n"),
        (&["--claim", "user=alice"], "1 row in table `sessions`, 1 match, 1 of these live\n"),
        (&["--expired"], "1 row in table `sessions`, 0 match, 0 of these live\n"),
    ] {
        let output = site.run(&[&["session", "list"], args].concat()).success();
        assert_eq!(output.stderr, expected, "{args:?}");
    }
}

#[test]
fn claim_option_overrides_claims_of_a_file_or_stdin() {
    let site = Site::new(CONFIG);
    let claims = r#"{"user": "bob", "nested": {"deep": [1, 2.5, null]}}"#;
    std::fs::write(site.0.path().join("claims.json"), claims).unwrap();
    for source in ["claims.json", "-"] {
        let args = ["session", "create", "--claims-json", source, "--claim", "user=alice"];
        let cookie = site.run_with(&args, claims).success().stdout;
        let shown = site.run(&["session", "show", "--json", "--cookie", cookie.trim_end()]).success().json();
        assert_eq!(
            shown["claims"],
            json!({ "user": "alice", "nested": { "deep": [1, 2.5, null] } }),
            "{source}"
        );
    }
    let output =
        site.run_with(&["session", "create", "--claims-json", "-"], r#"{"password": "hunter2"#).with_code(2);
    assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
    site.run_with(&["session", "create", "--claims-json", "-"], "[]").with_code(2);
    // Two users must not get the same id because it was rounded.
    let rounded = r#"{"user": 18446744073709551616}"#;
    site.run_with(&["session", "create", "--claims-json", "-"], rounded).with_code(2);
    site.run(&["session", "create", "--claim", "user=18446744073709551616"]).with_code(2);
    site.run(&["session", "create", "--claims-json", "absent.json"]).with_code(2);
    site.run(&["session", "create"]).with_code(2);
}

#[test]
fn claim_of_malformed_json_is_exit_code_2_and_creates_no_session() {
    let site = Site::new(CONFIG);
    let output = site.run(&["session", "create", "--claim", "roles=[admin]"]).with_code(2);
    assert!(output.stderr.contains(r#"--claim 'roles=["admin"]'"#) && output.stdout.is_empty(), "{output:?}");
    let output = site.run(&["session", "list", "--claim", "roles=[admin]"]).with_code(2);
    assert!(output.stderr.contains(r#"--claim 'roles=["admin"]'"#), "{output:?}");
}

#[test]
fn unknown_session_is_an_error_that_does_not_repeat_the_cookie() {
    let site = Site::new(CONFIG);
    site.create_session(&["user=alice"]);
    for (args, code) in [
        (["session", "show", "--cookie", "unknown-cookie"], 1),
        (["session", "show", "--cookie", "a=b; c=unknown-cookie"], 1),
        (["session", "revoke", "--cookie", "unknown-cookie"], 1),
        (["session", "show", "--realm=main", "unknown-cookie"], 2),
        (["session", "show", "--realm=other", "0123456789abcdef"], 2),
        (["session", "show", "--realm=main", "0123456789abcdef"], 1),
    ] {
        let output = site.run(&args).with_code(code);
        assert!(
            !output.stderr.contains("unknown-cookie") && output.stdout.is_empty(),
            "{args:?}: {output:?}"
        );
    }
}

#[test]
fn realm_option_is_required_with_several_realms() {
    let second = "\n[sessions.shop]\nformat = \"pyramid\"\ntable = \"shop\"\ncookie = { name = \"shop\" }\n\
                  [[routes]]\npath = \"/shop\"\nsession = \"shop\"\naccess = \"required\"\nupstream = \"app\"\n";
    let site = Site::new(&format!("{CONFIG}{second}"));
    let output = site.run(&["session", "create", "--claim", "user=alice"]).with_code(2);
    assert!(output.stderr.contains("hint: choose one with `--realm`: `main`, `shop`"), "{}", output.stderr);
    let cookie =
        site.run(&["session", "create", "--realm", "shop", "--claim", "user=alice"]).success().stdout;
    assert!(cookie.starts_with("shop="), "{cookie}");
    let refused = site.run(&["session", "show", "--realm", "main", "--cookie", cookie.trim_end()]);
    assert_eq!(refused.code, Some(1));

    let policy = site.run(&["table", "policy"]).success().json();
    assert_eq!(policy["Statement"][0]["Resource"].as_array().unwrap().len(), 2);
}

#[test]
fn list_of_a_store_in_memory_fails_with_a_hint() {
    let site = Site::new(&CONFIG.replace(r#"path = "sessions.db""#, ""));
    let output = site.run(&["session", "list"]).with_code(1);
    assert!(output.stderr.contains("hint: set `listen`"), "{}", output.stderr);
}

#[test]
fn json_output_escapes_characters_that_a_terminal_would_interpret() {
    let site = Site::new(CONFIG);
    let name = "\u{9b}2J\u{7f}\u{202e}\u{2066}zoë";
    let (_, reference) = site.create_session(&[&format!("name={name}")]);
    for args in
        [&["session", "show", "--json", &reference] as &[&str], &["session", "list", "--json", "--claims"]]
    {
        let output = site.run(args).success();
        assert_eq!(output.json()["claims"]["name"], name, "{args:?}");
        assert!(output.stdout.contains(r"\u009b2J\u007f\u202e\u2066zoë"), "{args:?}: {}", output.stdout);
    }
}

#[test]
fn commands_that_read_sessions_keep_expired_rows() {
    let site = Site::new(&CONFIG.replace(r#"timeout = "20m""#, "timeout = \"2s\"\nreissue_time = \"1s\""));
    let (cookie, reference) = site.create_session(&["user=alice"]);
    let show = || site.run(&["session", "show", "--json", &reference]).success().json();
    let expires = show()["expires"].as_i64().unwrap();
    let mut attempts = 0..10_000;
    // The engine removes rows whose TTL is in an earlier second.
    while Clock.wall().as_secs() <= expires {
        assert_eq!(show()["expires"], expires);
        assert!(attempts.next().is_some(), "the session never expires");
    }
    for _ in 0..5 {
        let purge = ["session", "purge", "--dry-run", "--json"];
        assert_eq!(site.run(&purge).success().json()["expired"], 1);
        assert_eq!(site.run(&["session", "list", "--expired", "--json"]).success().json_lines().len(), 1);
        assert!(site.run(&["explain", "--cookie", &cookie]).success().stdout.contains("expired"));
    }
    site.run(&["check", "--connect"]).success();
    assert_eq!(show()["state"], "expired");
}
