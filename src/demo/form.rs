//! The app's forms: log-in, counter and log-out. To handle them, the app stores no session and
//! sets no cookie. It responds with session commands (`src/proxy/response/commands.rs`), which the gateway carries out
//! if the route has `writes = true`.

use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;

use super::received::Received;
use crate::headers::{SESSION_ACTION, SESSION_FLASH, SESSION_PATCH};

/// Maximum size of a form, in bytes.
const MAX_BYTES: usize = 4096;
/// Maximum length of a name, in characters.
pub(super) const MAX_NAME: usize = 100;

/// A submitted form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    LogIn,
    Count,
    LogOut,
}

impl Form {
    /// Returns the form that is submitted to `path`, or `None` if the request is not a form.
    pub(super) fn from_request(method: &Method, path: &str) -> Option<Self> {
        match path {
            _ if method != Method::POST => None,
            "/log-in" => Some(Self::LogIn),
            "/count" => Some(Self::Count),
            "/log-out" => Some(Self::LogOut),
            _ => None,
        }
    }

    /// Returns the session commands for the response, or `None` if the form is invalid.
    pub(super) async fn commands(self, received: &Received, body: Incoming) -> Option<HeaderMap> {
        match self {
            Self::LogIn => log_in(&name(&text(body).await?)?),
            Self::Count => patch(&json!({ "visits": received.visits().saturating_add(1) })),
            Self::LogOut => {
                Some(HeaderMap::from_iter([(SESSION_ACTION, HeaderValue::from_static("destroy"))]))
            }
        }
    }
}

/// Returns the commands of a log-in. They rotate the session id, to prevent session fixation.
fn log_in(name: &str) -> Option<HeaderMap> {
    let mut commands = patch(&json!({ "user": name, "name": name, "roles": ["editor"] }))?;
    let welcome = format!("Welcome, {name}");
    let welcome = utf8_percent_encode(&welcome, NON_ALPHANUMERIC).to_string();
    commands.insert(SESSION_ACTION, HeaderValue::from_static("rotate"));
    commands.insert(SESSION_FLASH, HeaderValue::try_from(welcome).ok()?);
    Some(commands)
}

fn patch(claims: &serde_json::Value) -> Option<HeaderMap> {
    let patch = HeaderValue::try_from(claims.to_string().into_bytes()).ok()?;
    Some(HeaderMap::from_iter([(SESSION_PATCH, patch)]))
}

async fn text(body: Incoming) -> Option<String> {
    let body = Limited::new(body, MAX_BYTES).collect().await.ok()?;
    String::from_utf8(body.to_bytes().into()).ok()
}

/// Returns the form's `name`, or `None` if it is empty, too long or cannot be shown on one line.
fn name(form: &str) -> Option<String> {
    let name = form.split('&').find_map(|field| field.strip_prefix("name="))?.replace('+', " ");
    let name = percent_decode_str(&name).decode_utf8().ok()?;
    let name = name.trim();
    // Control characters, Unicode line breaks, and bidirectional embeddings, overrides and isolates.
    let is_invalid = |character: char| {
        character.is_control()
            || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let is_valid = (1..=MAX_NAME).contains(&name.chars().count()) && !name.contains(is_invalid);
    is_valid.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_any_text_on_one_line() {
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
    fn log_in_patches_rotates_and_adds_a_message() {
        let commands = log_in("Zoë L").unwrap();
        let patch: serde_json::Value = serde_json::from_slice(commands[SESSION_PATCH].as_bytes()).unwrap();
        assert_eq!(patch, json!({ "user": "Zoë L", "name": "Zoë L", "roles": ["editor"] }));
        assert_eq!(commands[SESSION_ACTION], "rotate");
        assert_eq!(commands[SESSION_FLASH], "Welcome%2C%20Zo%C3%AB%20L");
    }

    #[test]
    fn only_post_requests_are_forms() {
        assert_eq!(Form::from_request(&Method::POST, "/log-out"), Some(Form::LogOut));
        assert_eq!(Form::from_request(&Method::GET, "/log-out"), None);
        assert_eq!(Form::from_request(&Method::POST, "/"), None);
    }
}
