//! A session's decoded data, and the paths by which the configuration refers to parts of it.

mod requirement;
mod user;

use serde_json::{Map, Value};

pub use requirement::{Condition, Pattern, Requirement};
pub use user::UserClaim;

/// A session's claims: a JSON object, in the order the framework wrote it.
pub type Claims = Map<String, Value>;

/// The path of a claim: `user`, or `user.name` for a value in a nested object.
///
/// Keys may contain dots themselves (Pyramid's security policy writes `auth.userid`): at each level of nesting, longer
/// keys are tried first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimPath(String);

impl ClaimPath {
    /// Parses a path. Returns `None` if it is empty or has an empty segment.
    pub fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && text.split('.').all(|segment| !segment.is_empty()))
            .then(|| Self(text.to_owned()))
    }

    /// Returns the path as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value at this path. `null` counts as no value, since apps often write it when a user logs out.
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
