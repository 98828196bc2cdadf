//! The app's forms: a log-in, a counter and a log-out, made of nothing but response headers. The app keeps no session
//! and sets no cookie; it orders, and the gateway in front carries out. What an order may say stands in
//! `src/proxy/response/commands.rs`; whether it is obeyed is the route's `writes`.

use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;

use super::received::Received;
use crate::headers::{SESSION_ACTION, SESSION_FLASH, SESSION_PATCH};

/// No form is larger.
const MAX_BYTES: usize = 4096;
/// Characters of a name, at most.
pub(super) const MAX_NAME: usize = 100;

/// A form that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    LogIn,
    Count,
    LogOut,
}

impl Form {
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        match path {
            _ if method != Method::POST => None,
            "/log-in" => Some(Self::LogIn),
            "/count" => Some(Self::Count),
            "/log-out" => Some(Self::LogOut),
            _ => None,
        }
    }

    /// What is ordered of the session; none if the form makes no sense.
    pub(super) async fn order(self, received: &Received, body: Incoming) -> Option<HeaderMap> {
        match self {
            Self::LogIn => log_in(&name(&text(body).await?)?),
            Self::Count => patch(&json!({ "visits": received.visits().saturating_add(1) })),
            Self::LogOut => {
                Some(HeaderMap::from_iter([(SESSION_ACTION, HeaderValue::from_static("destroy"))]))
            }
        }
    }
}

/// Who logs in gets a new id: somebody may have planted the one from before.
fn log_in(name: &str) -> Option<HeaderMap> {
    let mut order = patch(&json!({ "user": name, "name": name, "roles": ["editor"] }))?;
    let welcome = format!("Welcome, {name}");
    let welcome = utf8_percent_encode(&welcome, NON_ALPHANUMERIC).to_string();
    order.insert(SESSION_ACTION, HeaderValue::from_static("rotate"));
    order.insert(SESSION_FLASH, HeaderValue::try_from(welcome).ok()?);
    Some(order)
}

fn patch(claims: &serde_json::Value) -> Option<HeaderMap> {
    let patch = HeaderValue::try_from(claims.to_string().into_bytes()).ok()?;
    Some(HeaderMap::from_iter([(SESSION_PATCH, patch)]))
}

async fn text(body: Incoming) -> Option<String> {
    let body = Limited::new(body, MAX_BYTES).collect().await.ok()?;
    String::from_utf8(body.to_bytes().into()).ok()
}

/// The `name` of a form, if somebody may have it: any text but an empty one, or one that no page could show in one line.
fn name(form: &str) -> Option<String> {
    let name = form.split('&').find_map(|field| field.strip_prefix("name="))?.replace('+', " ");
    let name = percent_decode_str(&name).decode_utf8().ok()?;
    let name = name.trim();
    // Controls, line breaks of Unicode, and marks that reorder the text around them.
    let is_unshown = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let fits = (1..=MAX_NAME).contains(&name.chars().count()) && !name.contains(is_unshown);
    fits.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_text_of_one_line() {
        let longest = "x".repeat(MAX_NAME);
        for (form, expected) in [
            ("name=Bob", Some("Bob")),
            ("a=b&name=+Ada-Marie+Lovelace%202+&c=d", Some("Ada-Marie Lovelace 2")),
            ("name=Zo%C3%AB", Some("Zoë")),
            (&format!("name={longest}"), Some(&*longest)),
            (&format!("name={longest}x"), None),
            ("name=", None),
            ("name=+", None),
            ("other=Bob", None),
            ("name=O%27Hara", Some("O'Hara")),
            ("name=%22Bob%22%3B+%3Cb%3E%26%25%5C", Some("\"Bob\"; <b>&%\\")),
            ("name=%E5%B1%B1%E7%94%B0", Some("山田")),
            ("name=a%E2%80%AEb", None),
            ("name=a%00b", None),
            ("name=a%0d%0aSet-Cookie:x", None),
            ("name=%ff", None),
            ("", None),
        ] {
            assert_eq!(name(form).as_deref(), expected, "{form}");
        }
    }

    #[test]
    fn a_log_in_is_a_patch_a_rotation_and_a_message() {
        let order = log_in("Zoë L").unwrap();
        let patch: serde_json::Value = serde_json::from_slice(order[SESSION_PATCH].as_bytes()).unwrap();
        assert_eq!(patch, json!({ "user": "Zoë L", "name": "Zoë L", "roles": ["editor"] }));
        assert_eq!(order[SESSION_ACTION], "rotate");
        assert_eq!(order[SESSION_FLASH], "Welcome%2C%20Zo%C3%AB%20L");
    }

    #[test]
    fn only_a_post_is_a_form() {
        assert_eq!(Form::of(&Method::POST, "/log-out"), Some(Form::LogOut));
        assert_eq!(Form::of(&Method::GET, "/log-out"), None);
        assert_eq!(Form::of(&Method::POST, "/"), None);
    }
}
