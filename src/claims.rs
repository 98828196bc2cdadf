//! A session's decoded data, and the paths that configuration uses to name a part of it.

mod requirement;
mod user;

use serde_json::{Map, Value};

pub use requirement::{Condition, Pattern, Requirement};
pub use user::UserClaim;

/// A session's claims: a JSON object, in the order the framework wrote it.
pub type Claims = Map<String, Value>;

/// The way to one claim: `user`, or `user.name` through nested objects.
///
/// A key that itself holds dots (`auth.userid`, as Pyramid's security policy writes it) is found first: at every level
/// the longest key that is there wins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimPath(String);

impl ClaimPath {
    /// Parses a path; `None` if it or one of its segments is empty.
    pub fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && text.split('.').all(|segment| !segment.is_empty()))
            .then(|| Self(text.to_owned()))
    }

    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value at this path, if there is one. `null` counts as no value: an app that logs a user out often writes it.
    pub fn find<'c>(&self, claims: &'c Claims) -> Option<&'c Value> {
        find(claims, &self.0).filter(|value| !value.is_null())
    }
}

fn find<'c>(object: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    path.rmatch_indices('.').find_map(|(dot, _)| {
        let (head, tail) = path.split_at_checked(dot)?;
        find(object.get(head)?.as_object()?, tail.strip_prefix('.')?)
    })
}
