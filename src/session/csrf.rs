//! The session's CSRF token, where Pyramid's sessions keep it: `_csrft_`, 32 random bytes in hex.

use std::fmt::Write as _;

use serde_json::Value;
use subtle::ConstantTimeEq as _;

use crate::claims::Claims;

const TOKEN: &str = "_csrft_";

/// The session's token.
pub(crate) fn token(claims: &Claims) -> Option<&str> {
    claims.get(TOKEN).and_then(Value::as_str).filter(|token| !token.is_empty())
}

/// Whether `shown` is the session's token. Does not tell by time how much of it is right.
pub(crate) fn matches(claims: &Claims, shown: &[u8]) -> bool {
    token(claims).is_some_and(|token| token.as_bytes().ct_eq(shown).into())
}

pub(super) fn put(claims: &mut Claims, token: &str) {
    claims.insert(TOKEN.to_owned(), Value::String(token.to_owned()));
}

/// A new token.
///
/// # Errors
/// If the operating system has no randomness to give.
pub(crate) fn new_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let mut token = String::with_capacity(64);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    Ok(token)
}
