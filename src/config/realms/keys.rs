//! `[sessions.NAME.keys]`: signing keys, which the file should refer to rather than contain.

use std::path::Path;

use toml::de::DeValue;

use crate::config::KeysConfig;
use crate::config::diagnostic::Diagnostic;
use crate::config::environment::Environment;
use crate::config::section::Section;
use crate::config::value::{Fault, string, wrong_type};
use crate::secret::Secret;

/// Minimum length of a key in bytes. Shorter ones can be found by brute force from one cookie.
const MIN_LENGTH: usize = 16;
/// The danger of a key in the configuration file.
const FORGERY: &str = "anyone who can read the file can forge sessions";

/// A secret, and the properties that cause warnings.
pub(in crate::config) struct LoadedSecret {
    pub(in crate::config) secret: Secret,
    /// Whether the configuration file itself contains it.
    pub(in crate::config) is_literal: bool,
    /// Whether it is shorter than [`MIN_LENGTH`]. Only keys that an app already uses may be that short.
    is_short: bool,
}

pub(super) fn read(
    realm: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
    app_owned: bool,
) -> Option<KeysConfig> {
    let secret = |value: &DeValue<'_>| load(value, directory, environment, app_owned);
    realm.table("keys", |keys| {
        let current = keys.require("current", secret);
        let previous = keys.list("previous", secret).unwrap_or_default();
        if current.iter().any(|key| key.is_literal) {
            warn_of_literal(keys, "current", FORGERY);
        }
        if previous.iter().any(|key| key.is_literal) {
            warn_of_literal(keys, "previous", FORGERY);
        }
        if current.iter().any(|key| key.is_short) {
            warn_of_short(keys, "current");
        }
        if previous.iter().any(|key| key.is_short) {
            warn_of_short(keys, "previous");
        }
        let previous = previous.into_iter().map(|key| key.secret).collect();
        Some(KeysConfig { current: current?.secret, previous })
    })
}

pub(in crate::config) fn warn_of_literal(keys: &mut Section<'_, '_>, key: &str, danger: &str) {
    let warning =
        Diagnostic::warning(format!("the configuration file contains the secret `{}`", keys.name(key)));
    let hint = format!("{danger}; use `{{ env = \"NAME\" }}` or `{{ file = \"path\" }}`");
    keys.report(warning.hint(hint), keys.span(key));
}

fn too_short() -> Fault {
    Fault::new(format!("is shorter than {MIN_LENGTH} bytes"))
        .hint("generate one with `openssl rand -base64 32`")
}

fn warn_of_short(keys: &mut Section<'_, '_>, key: &str) {
    let Fault { message, hint, .. } = too_short();
    let warning = Diagnostic::warning(format!("`{}` {message}", keys.name(key)));
    keys.report(hint.into_iter().fold(warning, Diagnostic::hint), keys.span(key));
}

/// Loads a secret: `{ env = "NAME" }`, `{ file = "path" }`, or the secret itself. A secret shorter than [`MIN_LENGTH`] is
/// accepted only if `app_owned`.
pub(in crate::config) fn load(
    value: &DeValue<'_>,
    directory: &Path,
    environment: &dyn Environment,
    app_owned: bool,
) -> Result<LoadedSecret, Fault> {
    let shape = "`{ env = \"NAME\" }` or `{ file = \"path\" }`";
    let (bytes, is_literal) = match value {
        DeValue::String(literal) => (literal.as_bytes().to_vec(), true),
        DeValue::Table(table) => {
            let mut entries = table.iter();
            let (Some((kind, source)), None) = (entries.next(), entries.next()) else {
                return Err(Fault::new(format!("must be {shape}")));
            };
            let kind: &str = kind.get_ref();
            let bytes = match kind {
                "env" => variable(&string(source.get_ref())?, environment)?,
                "file" => file(&directory.join(string(source.get_ref())?), environment)?,
                _ => return Err(Fault::new(format!("must be {shape}"))),
            };
            (bytes, false)
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => return Err(wrong_type(value, shape)),
    };
    match bytes.len() {
        0 => Err(Fault::new("is empty")),
        1..MIN_LENGTH if !app_owned => Err(too_short()),
        length => Ok(LoadedSecret { secret: Secret::new(bytes), is_literal, is_short: length < MIN_LENGTH }),
    }
}

fn variable(name: &str, environment: &dyn Environment) -> Result<Vec<u8>, Fault> {
    environment.variable(name).ok_or_else(|| {
        Fault::new("refers to an environment variable that is not set")
            .hint("set it for the sessiongate process")
    })
}

/// Reads a secret from a file, without the newline that editors and `echo` append.
fn file(path: &Path, environment: &dyn Environment) -> Result<Vec<u8>, Fault> {
    let mut bytes = environment
        .file(path)
        .map_err(|error| Fault::new(format!("cannot be read from `{}`: {error}", path.display())))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}
