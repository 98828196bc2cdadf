//! What is refused of `[sessions.NAME.layout]`.

use super::fixture::{errors, read, with};

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
    let length =
        "`sessions.main.layout.ids.length` must be a number, or a list of the least and the greatest";
    let range = "`sessions.main.layout.ids.length` must be from 1 to 1024";
    let useless_ids = "`sessions.main.layout` says what `ids` look like, which has no effect: only a `plain` cookie is an id alone";
    for (lines, expected) in [
        ("layout.ids = 8", "`sessions.main.layout.ids` must be a table, not an integer"),
        ("layout.ids = { size = 8 }", "unknown key `size` in `sessions.main.layout.ids`"),
        ("layout.ids.length = 0", range),
        ("layout.ids.length = [8, 1025]", range),
        ("layout.ids.length = [9, 8]", length),
        ("layout.ids.length = []", length),
        ("layout.ids.length = [1, 2, 3]", length),
        ("layout.ids.length = \"8\"", "`sessions.main.layout.ids.length` must be an integer, not a string"),
        (
            "layout.ids.alphabet = \"a\"",
            "`sessions.main.layout.ids.alphabet` holds fewer than two characters",
        ),
        (
            "layout.ids.alphabet = \"z-a\"",
            "`sessions.main.layout.ids.alphabet` holds a range that ends before it begins",
        ),
        (
            "layout.ids.alphabet = \"a-z;\"",
            "`sessions.main.layout.ids.alphabet` holds what no cookie's value may hold",
        ),
        (
            "layout.ids.length = 9|layout.cookie = \"express\"|layout.payload = \"p\"|keys.current = \"0123456789abcdef\"",
            useless_ids,
        ),
    ] {
        let source = with(
            "[sessions.main]",
            &format!("format = \"layout\"|user = \"u\"|layout.expires = \"e\"|{lines}"),
        );
        assert_eq!(errors(&source), [expected], "{lines}");
    }
    let preset = |lines: &str| errors(&with("[sessions.main]", lines));
    assert_eq!(
        preset("format = \"express\""),
        ["`sessions.main.keys` is missing: express cookies are signed"]
    );
    let useless = "`sessions.main.layout` is of no use: `native` has a layout of its own";
    assert_eq!(preset("layout.key = \"{id}\""), [useless]);
    assert_eq!(preset("format = \"flask-session\"|layout.ids.length = 11"), [""; 0]);
    let signed = "format = \"flask-session\"|layout.ids.length = 11|keys.current = \"0123456789abcdef\"";
    assert_eq!(preset(signed), [useless_ids]);
    let theirs = "unknown key `ids` in `sessions.main.layout`";
    assert_eq!(preset("format = \"dysession\"|layout.ids.length = 11"), [theirs]);
    let others = "unknown key `codec` in `sessions.main.layout`";
    assert_eq!(preset("format = \"flask-session\"|layout.codec = \"json\""), [others]);
}

#[test]
fn ids_that_can_be_guessed_are_warned_about() {
    let report = |ids: &str| {
        let lines = format!("format = \"layout\"|layout.expires = \"e\"|user = \"u\"|layout.ids = {ids}");
        read(&with("[sessions.main]", &lines)).1.to_string()
    };
    let warning = "`sessions.main.layout.ids` allows ids of fewer than 64 bits only, which can be guessed";
    assert!(report("{ length = [4, 15], alphabet = \"0-9a-f\" }").contains(warning));
    assert_eq!(report("{ length = [4, 16], alphabet = \"0-9a-f\" }"), "");
}
