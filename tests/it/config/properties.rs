//! Parsing any file returns a configuration or errors that can be rendered.

use std::time::Duration;

use proptest::prelude::*;
use sessiongate::config::diagnostic::Colour;

use super::fixture::{accepted, read, with};

const REFERENCE: &str = include_str!("../../../gateway.toml");

/// Fragments that a typo or a generator could insert anywhere.
const TOKENS: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    "\"",
    "'",
    "\"\"\"",
    "\\",
    "\\u0000",
    ",",
    ".",
    "#",
    "\n",
    "\r\n",
    "\0",
    "ü",
    "\u{feff}",
    "-1",
    "99999999999999999999",
    "1e400",
    "nan",
    "1979-05-27",
    "true",
    "{ env = \"X\" }",
    "{ file = \"\" }",
    "[x]\n",
    "[sessions.main]\n",
    "[[routes]]\n",
    "[routes.headers]\n",
    "keys.current = \"\"\n",
    "\u{202e}",
    "{uri}",
    "{{",
    "}}",
];

/// One change of a text: the relative position, the number of removed bytes, and the inserted token.
type Edit = (f64, usize, usize);

fn edit(text: &mut String, (position, removed, token): Edit) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0 ≤ position < 1"
    )]
    let start = text.floor_char_boundary((text.len() as f64 * position) as usize);
    let end = text.ceil_char_boundary((start + removed).min(text.len()));
    text.replace_range(start..end, TOKENS[token % TOKENS.len()]);
}

fn check(source: &str) {
    let (config, report) = read(source);
    assert_eq!(config.is_none(), report.has_errors());
    for diagnostic in report.diagnostics() {
        assert!(!diagnostic.message.is_empty());
        if let Some(span) = &diagnostic.span {
            assert!(span.start <= span.end && span.end <= source.len(), "{span:?} in {} bytes", source.len());
        }
    }
    report.render(Colour::Plain);
    report.render(Colour::Ansi);
    assert!(!format!("{report:?}").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_parsed(source in any::<String>()) {
        check(&source);
    }

    #[test]
    fn any_tokens_are_parsed(tokens in prop::collection::vec(0..TOKENS.len(), 0..40)) {
        check(&tokens.into_iter().map(|token| TOKENS[token]).collect::<String>());
    }

    #[test]
    fn any_change_of_the_reference_is_parsed(edits in prop::collection::vec((0.0..1.0, 0..30_usize, 0..TOKENS.len()), 1..4)) {
        let mut source = REFERENCE.to_owned();
        edits.into_iter().for_each(|change| edit(&mut source, change));
        check(&source);
    }

    #[test]
    fn any_value_of_any_key_is_parsed(line in 0..200_usize, value in "[ -~]{0,20}|\"[ -~]{0,40}\"") {
        let mut source = String::new();
        for (number, text) in REFERENCE.lines().enumerate() {
            let bare = text.strip_prefix("# ").unwrap_or(text);
            match bare.split_once(" = ") {
                Some((key, _)) if number == line => source.push_str(&format!("{key} = {value}\n")),
                Some(_) | None => source.push_str(&format!("{text}\n")),
            }
        }
        check(&source);
    }

    #[test]
    fn formatted_durations_parse_to_themselves(millis in 0..86_400_000_u64) {
        let drain = Duration::from_millis(millis);
        let text = humantime::format_duration(drain);
        prop_assert_eq!(accepted(&with("[server]", &format!("drain = \"{text}\""))).server.drain, drain);
    }

    #[test]
    fn formatted_sizes_parse_to_themselves(bytes in 256..=65536_usize) {
        let read = |text: String| {
            accepted(&with("[server]", &format!("max_header_bytes = \"{text}\""))).server.max_header_bytes
        };
        prop_assert_eq!(read(format!("{bytes}B")), bytes);
        prop_assert_eq!(read(format!("{} KiB", bytes / 1024 + usize::from(bytes < 1024))), (bytes / 1024).max(1) * 1024);
    }
}
