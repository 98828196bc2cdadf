//! `websocket`, `recheck` and `idle_timeout` of a route.

use std::time::Duration;

use sessiongate::config::StreamsConfig;

use super::fixture::{accepted, errors, with};

fn streams(lines: &str) -> StreamsConfig {
    accepted(&with("[[routes]]", lines)).routes[0].streams.clone()
}

#[test]
fn what_is_said_and_what_is_not() {
    let plain = streams("");
    assert_eq!(plain.recheck, Some(Duration::from_mins(1)));
    assert_eq!(plain.idle_timeout, Duration::from_hours(1));
    assert_eq!(plain.websocket, None);
    assert_eq!(streams("websocket = false"), plain);
    assert_eq!(streams("recheck = \"0s\"").recheck, None);
    assert_eq!(streams("recheck = \"1s\"|idle_timeout = \"7days\"").recheck, Some(Duration::from_secs(1)));

    let day = Duration::from_hours(24);
    for (lines, origins, max_age) in [
        ("websocket = true", &[][..], day),
        ("websocket = {}", &[], day),
        ("websocket = { max_age = \"2h\" }", &[], Duration::from_hours(2)),
        ("websocket.max_age = \"30days\"", &[], 30 * day),
        (
            "websocket = { origins = [\"https://A.example:443\", \"http://b:8080\", \"capacitor://localhost\"] }",
            &["https://a.example", "http://b:8080", "capacitor://localhost"],
            day,
        ),
    ] {
        let websocket = streams(lines).websocket.expect("is on");
        assert_eq!(
            (websocket.origins, websocket.max_age),
            (origins.iter().map(|&origin| origin.to_owned()).collect(), max_age)
        );
    }
}

#[test]
fn refusals() {
    let origin = |origin: &str| format!("websocket = {{ origins = [\"{origin}\"] }}");
    let neither = "`routes.websocket.origins` must be a scheme and a host";
    let more = "`routes.websocket.origins` must be a scheme and a host, and nothing else";
    for (lines, expected) in [
        (
            "websocket = \"yes\"".to_owned(),
            "`routes.websocket` must be `true`, `false` or a table, not a string",
        ),
        ("websocket = { origin = [] }".to_owned(), "unknown key `origin` in `routes.websocket`"),
        (
            "websocket = { max_age = \"0s\" }".to_owned(),
            "`routes.websocket.max_age` must be from 1s to 30days",
        ),
        (origin("*"), neither),
        (origin("app.example"), neither),
        (origin("://app.example"), neither),
        (origin("https://*.app.example"), more),
        (origin("https://app.example/"), more),
        (origin("https://app.example/chat"), more),
        ("recheck = \"500ms\"".to_owned(), "`routes.recheck` must be at least 1s, or 0s for never"),
        ("recheck = \"2h\"".to_owned(), "`routes.recheck` must be from 0s to 1h"),
        ("idle_timeout = \"8days\"".to_owned(), "`routes.idle_timeout` must be from 1s to 7days"),
    ] {
        assert_eq!(errors(&with("[[routes]]", &lines)), [expected], "{lines}");
    }
    let public = with("[[routes]]", "access = \"public\"|recheck = \"1m\"").replace("[routes.require]\n", "");
    let public = public.replace("[routes.headers]\n", "");
    assert_eq!(errors(&public), ["`routes.recheck` needs a session, and a public route looks none up"]);
}
