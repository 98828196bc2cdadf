//! The session's CSRF token, in the claim of Pyramid's sessions: `_csrft_`, 32 random bytes in hex.

use std::fmt::Write as _;

use serde_json::Value;
use subtle::ConstantTimeEq as _;

use crate::claims::Claims;

const TOKEN: &str = "_csrft_";

/// Returns the session's token.
pub(crate) fn token(claims: &Claims) -> Option<&str> {
    claims.get(TOKEN).and_then(Value::as_str).filter(|token| !token.is_empty())
}

/// Returns whether `received` is the session's token, in constant time.
pub(crate) fn matches(claims: &Claims, received: &[u8]) -> bool {
    token(claims).is_some_and(|token| token.as_bytes().ct_eq(received).into())
}

pub(super) fn set(claims: &mut Claims, token: &str) {
    claims.insert(TOKEN.to_owned(), Value::String(token.to_owned()));
}

/// Generates a token.
///
/// # Errors
/// Returns an error if the operating system cannot provide random bytes.
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
