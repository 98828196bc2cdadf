//! Compares the reference file with the keys that the code reads.

use std::io;

use super::*;
use crate::time::Timestamp;

const REFERENCE: &str = include_str!("../../gateway.toml");

/// An environment without variables and files.
struct EmptyEnvironment;

impl Environment for EmptyEnvironment {
    fn cores(&self) -> usize {
        1
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000)
    }

    fn variable(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn file(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[test]
fn the_reference_names_every_key() {
    let document = DeTable::parse(REFERENCE).unwrap().into_inner();
    let mut problems = Problems::default();
    resolve(&document, Path::new(""), &EmptyEnvironment, &mut problems);

    let is_named = |key: &str| {
        let words = REFERENCE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.into_iter().any(|word| word == key)
    };
    let missing: Vec<_> = problems.known_keys.iter().filter(|key| !is_named(key)).collect();
    assert!(missing.is_empty(), "not in gateway.toml: {missing:?}");
    // Keys of most sections that the file leaves out are known too; otherwise this test would prove nothing about
    // them. It proves nothing about tables that are read only if they are present or if the format has
    // them, such as `layout`.
    assert!(
        ["role_arn", "previous", "template", "encoding"].iter().all(|key| problems.known_keys.contains(key))
    );
}
