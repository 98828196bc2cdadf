//! The reference file against what the code asks for.

use std::io;

use super::*;
use crate::time::Timestamp;

const REFERENCE: &str = include_str!("../../gateway.toml");

/// An environment with nothing in it.
struct Nothing;

impl Environment for Nothing {
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
    resolve(&document, Path::new(""), &Nothing, &mut problems);

    let is_named = |key: &str| {
        let words = REFERENCE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.into_iter().any(|word| word == key)
    };
    let missing: Vec<_> = problems.asked.iter().filter(|key| !is_named(key)).collect();
    assert!(missing.is_empty(), "not in gateway.toml: {missing:?}");
    // Sections that the file leaves out are asked for too, or this test would prove nothing about them.
    assert!(["role_arn", "previous", "template", "encoding"].iter().all(|key| problems.asked.contains(key)));
}
