//! JSON merge patch (RFC 7396).

use serde_json::Value;

use crate::claims::Claims;

/// Merges `patch` into `claims`: `null` removes a member, an object is merged, any other value replaces the member.
pub(super) fn merge(claims: &mut Claims, patch: &Claims) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                claims.shift_remove(name);
            }
            Value::Object(patch) => {
                let member = claims.entry(name.clone()).or_insert(Value::Null);
                if let Value::Object(member) = member {
                    merge(member, patch);
                } else {
                    let mut fresh = Claims::new();
                    merge(&mut fresh, patch);
                    *member = Value::Object(fresh);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                claims.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7396, appendix A, whose original and patch are objects.
    #[test]
    fn examples_of_the_rfc_are_merged_as_specified() {
        for (original, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut claims = original.as_object().unwrap().clone();
            merge(&mut claims, patch.as_object().unwrap());
            assert_eq!(Value::Object(claims), expected, "{original} + {patch}");
        }
    }
}
