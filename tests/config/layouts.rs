//! What is refused of `[sessions.NAME.layout]`.

use crate::fixture::{errors, with};

#[test]
fn layouts() {
    let cases = [
        ("", "`sessions.main.layout` is missing: it says where the rows have what"),
        (
            "layout = {}",
            "`sessions.main.layout.expires` is missing, and so is `created`: sessions would never end",
        ),
        ("layout = 1", "`sessions.main.layout` must be a table, not an integer"),
        (
            "layout.expires = \"e\"|layout.key = \"sess:\"",
            "`sessions.main.layout.key` must hold `{id}` once, and no other braces",
        ),
        (
            "layout.expires = \"e\"|layout.key = \"{id}{id}\"",
            "`sessions.main.layout.key` must hold `{id}` once, and no other braces",
        ),
        (
            "layout.expires = \"e\"|layout.key_type = \"N\"",
            "`sessions.main.layout.key_type` must be `S` or `B`",
        ),
        (
            "layout.expires = \"e\"|layout.codec = \"php\"|layout.payload = \"p\"",
            "`sessions.main.layout.codec` must be `json`, `map` or `msgpack`",
        ),
        (
            "layout.expires = \"e\"|layout.codec = \"json\"",
            "`sessions.main.layout.codec` needs `payload`: without it, the row's attributes are the claims",
        ),
        (
            "layout.expires = \"e\"|layout.cookie = \"id-version\"",
            "`sessions.main.layout.cookie` is `id-version`, but `version` does not say which attribute has the version",
        ),
        (
            "layout.expires = \"e\"|layout.expires_unit = \"m\"",
            "`sessions.main.layout.expires_unit` must be `s`, `ms` or `iso8601`",
        ),
        (
            "layout.expires = \"e\"|layout.cookie = \"rack-hmac\"",
            "`sessions.main.keys` is missing: layout cookies are signed",
        ),
        (
            "layout.expires = \"e\"|lifetime = \"12h\"",
            "`sessions.main.lifetime` cannot be enforced: layout rows do not record when a session was created",
        ),
        (
            "layout.expires = \"e\"|layout.key_attribute = \"a\"|key_attribute = \"b\"",
            "`sessions.main.key_attribute` stands in `layout`, too",
        ),
    ];
    for (lines, expected) in cases {
        let source = with("[sessions.main]", &format!("format = \"layout\"|{lines}"));
        assert!(errors(&source).contains(&expected.to_owned()), "{lines}: {:?}", errors(&source));
    }
    let preset = |lines: &str| errors(&with("[sessions.main]", lines));
    assert_eq!(
        preset("format = \"express\""),
        ["`sessions.main.keys` is missing: express cookies are signed"]
    );
    let useless = "`sessions.main.layout` is of no use: `native` has a layout of its own";
    assert_eq!(preset("layout.key = \"{id}\""), [useless]);
    let others = "unknown key `codec` in `sessions.main.layout`";
    assert_eq!(preset("format = \"flask-session\"|layout.codec = \"json\""), [others]);
}
