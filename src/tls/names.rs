//! Selection of a certificate by host name.
//!
//! An exact name takes precedence over a wildcard, which matches exactly one label (RFC 6125, 6.4.3). If two
//! certificates have the same name, the first is selected.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Maps host names to positions in a list.
#[derive(Clone, Debug, Default)]
pub struct HostNames {
    exact: HashMap<String, usize>,
    /// Wildcards, keyed by parent domain: `example.com` for `*.example.com`.
    wildcards: HashMap<String, usize>,
}

impl HostNames {
    /// Maps `name` to `position`. If `name` is mapped already, keeps the mapping and returns `false`.
    pub fn add(&mut self, name: &str, position: usize) -> bool {
        let name = canonical(name);
        let slot = match name.strip_prefix("*.") {
            Some(parent) => self.wildcards.entry(parent.to_owned()),
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

    /// Returns the position for `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        let name = canonical(name);
        let wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(wildcard).copied()
    }

    /// Returns the position for `name` if wildcards match any number of labels, as in the hosts of routes. The wildcard of
    /// the longest parent domain takes precedence.
    pub fn find_below(&self, name: &str) -> Option<usize> {
        let name = canonical(name);
        let parents = std::iter::successors(name.split_once('.'), |(_, parent)| parent.split_once('.'));
        let wildcard = || parents.map(|(_, parent)| parent).find_map(|parent| self.wildcards.get(parent));
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
    fn exact_names_take_precedence_over_wildcards_and_first_over_second() {
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
        for (name, position, below) in [
            ("a.example", Some(0), Some(0)),
            ("A.Example.", Some(0), Some(0)),
            ("b.example", Some(1), Some(1)),
            ("x.a.example", Some(2), Some(2)),
            ("y.b.example", None, Some(1)),
            ("y.x.a.example", None, Some(2)),
            ("example", None, None),
            ("", None, None),
            (".example", Some(1), Some(1)),
        ] {
            assert_eq!((names.find(name), names.find_below(name)), (position, below), "{name}");
        }
    }
}
