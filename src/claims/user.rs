//! The claim that identifies the logged-in user. Frameworks also give sessions to visitors who have not logged in (for
//! a cart or a CSRF token), so the existence of a session does not mean that somebody is logged in.

use serde_json::Value;

use super::{ClaimPath, Claims};

/// The claims that identify the logged-in user of a realm's session: `user = "…"`, one path or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserClaim(Vec<ClaimPath>);

impl UserClaim {
    /// Creates it from `paths`. The first path that is present in a session is used.
    pub fn new(paths: Vec<ClaimPath>) -> Self {
        Self(paths)
    }

    /// Returns whether no path is configured, so that a logged-in user cannot be told from a guest.
    pub fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value that identifies the logged-in user, or `None` for a guest.
    pub fn find<'c>(&self, claims: &'c Claims) -> Option<&'c Value> {
        self.0.iter().find_map(|path| path.find(claims)).filter(|value| identifies_user(value))
    }
}

/// Lists the paths: `` `_auth_user_id` or `user` ``.
impl std::fmt::Display for UserClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, path) in self.0.iter().enumerate() {
            write!(f, "{}`{}`", if index == 0 { "" } else { " or " }, path.as_str())?;
        }
        Ok(())
    }
}

/// Returns whether a value identifies a user. On log-out, frameworks leave `null`, `false`, `0` or an empty value; a
/// list or object identifies a user if any element does (Devise writes `[[id], salt]`).
fn identifies_user(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_logged_in) => *is_logged_in,
        Value::Number(id) => id.as_f64() != Some(0.0),
        Value::String(id) => !id.trim().is_empty(),
        Value::Array(list) => list.iter().any(identifies_user),
        Value::Object(object) => object.values().any(identifies_user),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(paths: &[&str]) -> UserClaim {
        UserClaim::new(paths.iter().map(|path| ClaimPath::parse(path).unwrap()).collect())
    }

    #[test]
    fn empty_false_and_zero_values_identify_no_user() {
        for value in [
            json!(null),
            json!(""),
            json!(" "),
            json!(false),
            json!(0),
            json!(0.0),
            json!([]),
            json!({}),
            json!([null, ""]),
            json!({"id": null}),
        ] {
            let claims = json!({ "user": value });
            assert_eq!(user(&["user"]).find(claims.as_object().unwrap()), None, "{claims}");
        }
        for value in
            [json!("alice"), json!("0"), json!(7), json!(true), json!([[1], "salt"]), json!({"id": 1})]
        {
            let claims = json!({ "user": value });
            assert_eq!(user(&["user"]).find(claims.as_object().unwrap()), Some(&value), "{claims}");
        }
        assert_eq!(user(&["user"]).find(json!({"n": 1}).as_object().unwrap()), None);
    }

    #[test]
    fn first_path_that_is_present_decides() {
        let user = user(&["auth.userid", "user.id"]);
        let found = |claims: Value| user.find(claims.as_object().unwrap()).cloned();
        assert_eq!(found(json!({"auth.userid": "a", "user": {"id": "b"}})), Some(json!("a")));
        assert_eq!(found(json!({"auth.userid": null, "user": {"id": "b"}})), Some(json!("b")));
        assert_eq!(found(json!({"auth.userid": "", "user": {"id": "b"}})), None);
        assert_eq!(found(json!({"auth": {"userid": "c"}})), Some(json!("c")));
    }
}
