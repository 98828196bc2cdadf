//! The names of certificates, and which certificate a name chooses.
//!
//! A name as it stands goes before a wildcard, which takes exactly one label (RFC 6125, 6.4.3); of two certificates
//! with one name, the first has it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// From names to positions in a list.
#[derive(Clone, Debug, Default)]
pub struct HostNames {
    exact: HashMap<String, usize>,
    /// `*.example.com` is held as `example.com`.
    below: HashMap<String, usize>,
}

impl HostNames {
    /// Gives `name` to `position`, unless it has one. Whether it had none.
    pub fn add(&mut self, name: &str, position: usize) -> bool {
        let name = canonical(name);
        let slot = match name.strip_prefix("*.") {
            Some(parent) => self.below.entry(parent.to_owned()),
            None => self.exact.entry(name),
        };
        match slot {
            Entry::Occupied(_) => false,
            Entry::Vacant(slot) => {
                slot.insert(position);
                true
            }
        }
    }

    /// The position that `name` chooses.
    pub fn find(&self, name: &str) -> Option<usize> {
        let name = canonical(name);
        let wildcard = || self.below.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(wildcard).copied()
    }
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_before_a_wildcard_and_the_first_before_the_second() {
        let mut names = HostNames::default();
        for (name, position, is_new) in [
            ("a.example", 0, true),
            ("*.Example", 1, true),
            ("*.a.example", 2, true),
            ("A.EXAMPLE.", 3, false),
            ("*.example", 3, false),
        ] {
            assert_eq!(names.add(name, position), is_new, "{name}");
        }
        for (name, position) in [
            ("a.example", Some(0)),
            ("A.Example.", Some(0)),
            ("b.example", Some(1)),
            ("x.a.example", Some(2)),
            ("y.b.example", None),
            ("example", None),
            ("", None),
            (".example", Some(1)),
        ] {
            assert_eq!(names.find(name), position, "{name}");
        }
    }
}
