//! `websocket`, `recheck` and `idle_timeout` of routes.

use std::time::Duration;

use sessiongate::config::StreamsConfig;

use super::fixture::{accepted, errors, with};

fn streams(lines: &str) -> StreamsConfig {
    accepted(&with("[[routes]]", lines)).routes[0].streams.clone()
}

#[test]
fn stream_settings_and_their_defaults_are_parsed() {
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
fn invalid_stream_settings_are_errors() {
    let origin = |origin: &str| format!("websocket = {{ origins = [\"{origin}\"] }}");
    let no_origin = "`routes.websocket.origins` must be a scheme and a host";
    let not_only_origin = "`routes.websocket.origins` must consist of a scheme and a host only";
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
        (origin("*"), no_origin),
        (origin("app.example"), no_origin),
        (origin("://app.example"), no_origin),
        (origin("https://*.app.example"), not_only_origin),
        (origin("https://app.example/"), not_only_origin),
        (origin("https://app.example/chat"), not_only_origin),
        ("recheck = \"500ms\"".to_owned(), "`routes.recheck` must be at least 1s, or 0s to turn it off"),
        ("recheck = \"2h\"".to_owned(), "`routes.recheck` must be from 0s to 1h"),
        ("idle_timeout = \"8days\"".to_owned(), "`routes.idle_timeout` must be from 1s to 7days"),
    ] {
        assert_eq!(errors(&with("[[routes]]", &lines)), [expected], "{lines}");
    }
    let public = with("[[routes]]", "access = \"public\"|recheck = \"1m\"").replace("[routes.require]\n", "");
    let public = public.replace("[routes.headers]\n", "");
    assert_eq!(errors(&public), ["`routes.recheck` needs a session, which a public route does not look up"]);
}
