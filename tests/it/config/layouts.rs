//! Errors and warnings about `[sessions.NAME.layout]`.

use super::fixture::{errors, read, with};

#[test]
fn invalid_layouts_are_errors() {
    let cases = [
        ("", "`sessions.main.layout` is missing: it describes the rows"),
        (
            "layout = {}",
            "`sessions.main.layout.expires` is missing, and so is `created`: sessions would never expire",
        ),
        ("layout = 1", "`sessions.main.layout` must be a table, not an integer"),
        (
            "layout.expires = \"e\"|layout.key = \"sess:\"",
            "`sessions.main.layout.key` must contain `{id}` once, and no other braces",
        ),
        (
            "layout.expires = \"e\"|layout.key = \"{id}{id}\"",
            "`sessions.main.layout.key` must contain `{id}` once, and no other braces",
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
            "`sessions.main.layout.codec` needs `payload`: without it, every attribute of a row is a claim",
        ),
        (
            "layout.expires = \"e\"|layout.cookie = \"id-version\"",
            "`sessions.main.layout.cookie` is `id-version`, which needs `version`, the attribute with the version",
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
            "`sessions.main.key_attribute` is also set in `layout`",
        ),
    ];
    for (lines, expected) in cases {
        let source = with("[sessions.main]", &format!("format = \"layout\"|{lines}"));
        assert!(errors(&source).contains(&expected.to_owned()), "{lines}: {:?}", errors(&source));
    }
    let length =
        "`sessions.main.layout.ids.length` must be a number, or a list of the minimum and the maximum";
    let range = "`sessions.main.layout.ids.length` must be from 1 to 1024";
    let ids_without_effect =
        "`sessions.main.layout` sets `ids`, which has no effect unless the cookie is `plain`";
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
            "`sessions.main.layout.ids.alphabet` contains fewer than two characters",
        ),
        (
            "layout.ids.alphabet = \"z-a\"",
            "`sessions.main.layout.ids.alphabet` contains a range that ends before it begins",
        ),
        (
            "layout.ids.alphabet = \"a-z;\"",
            "`sessions.main.layout.ids.alphabet` contains a character that cookie values cannot contain",
        ),
        ("layout.payload = \"e\"", "`sessions.main.layout.expires` names the same attribute as `payload`"),
        ("layout.created = \"e\"", "`sessions.main.layout.created` names the same attribute as `expires`"),
        ("layout.version = \"e\"", "`sessions.main.layout.expires` names the same attribute as `version`"),
        (
            "layout.payload = \"id\"",
            "`sessions.main.layout.payload` names the same attribute as `key_attribute`",
        ),
        (
            "key_attribute = \"e\"",
            "`sessions.main.layout.expires` names the same attribute as `key_attribute`",
        ),
        (
            "layout.key_attribute = \"e\"",
            "`sessions.main.layout.expires` names the same attribute as `key_attribute`",
        ),
        (
            "layout.ids.length = 9|layout.cookie = \"express\"|layout.payload = \"p\"|keys.current = \"0123456789abcdef\"",
            ids_without_effect,
        ),
    ] {
        let source = with(
            "[sessions.main]",
            &format!("format = \"layout\"|user = \"u\"|layout.expires = \"e\"|{lines}"),
        );
        assert_eq!(errors(&source), [expected], "{lines}");
    }
    let never = "`sessions.main.reissue_time` has no effect: the realm's layout sessions are never reissued";
    let created = "format = \"layout\"|user = \"u\"|layout.created = \"c\"|reissue_time = \"1m\"";
    assert_eq!(errors(&with("[sessions.main]", created)), [never]);
    let preset = |lines: &str| errors(&with("[sessions.main]", lines));
    assert_eq!(
        preset("format = \"express\""),
        ["`sessions.main.keys` is missing: express cookies are signed"]
    );
    let fixed = "`sessions.main.layout` has no effect: the layout of `native` is fixed";
    assert_eq!(preset("layout.key = \"{id}\""), [fixed]);
    assert_eq!(preset("format = \"flask-session\"|layout.ids.length = 11"), [""; 0]);
    let signed = "format = \"flask-session\"|layout.ids.length = 11|keys.current = \"0123456789abcdef\"";
    assert_eq!(preset(signed), [ids_without_effect]);
    let theirs = "unknown key `ids` in `sessions.main.layout`";
    assert_eq!(preset("format = \"dysession\"|layout.ids.length = 11"), [theirs]);
    let others = "unknown key `codec` in `sessions.main.layout`";
    assert_eq!(preset("format = \"flask-session\"|layout.codec = \"json\""), [others]);
}

#[test]
fn short_ids_are_a_warning() {
    let report = |ids: &str| {
        let lines = format!("format = \"layout\"|layout.expires = \"e\"|user = \"u\"|layout.ids = {ids}");
        read(&with("[sessions.main]", &lines)).1.to_string()
    };
    let warning = "`sessions.main.layout.ids` allows ids with fewer than 64 bits, which can be guessed";
    assert!(report("{ length = [4, 15], alphabet = \"0-9a-f\" }").contains(warning));
    assert_eq!(report("{ length = [4, 16], alphabet = \"0-9a-f\" }"), "");
}
