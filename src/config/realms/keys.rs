//! `[sessions.NAME.keys]`: the secrets that sign cookies, named by the file rather than held in it.

use std::path::Path;

use toml::de::DeValue;

use crate::config::KeysConfig;
use crate::config::diagnostic::Diagnostic;
use crate::config::environment::Environment;
use crate::config::section::Section;
use crate::config::value::{Fault, string, wrong_type};
use crate::secret::Secret;

/// Shorter keys can be guessed from one cookie.
const SHORTEST: usize = 16;
/// What comes of a key that is known.
const FORGERY: &str = "who may read the file can forge sessions";

/// A secret, and whether the file itself holds it.
pub(in crate::config) struct Found {
    pub(in crate::config) secret: Secret,
    pub(in crate::config) is_literal: bool,
    /// Accepted only of an app, which has signed with it so far.
    is_short: bool,
}

pub(super) fn read(
    realm: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
    app_owned: bool,
) -> Option<KeysConfig> {
    let found = |value: &DeValue<'_>| find(value, directory, environment, app_owned);
    realm.table("keys", |keys| {
        let current = keys.require("current", found);
        let previous = keys.list("previous", found).unwrap_or_default();
        if current.iter().any(|found| found.is_literal) {
            warn_of_literal(keys, "current", FORGERY);
        }
        if previous.iter().any(|found| found.is_literal) {
            warn_of_literal(keys, "previous", FORGERY);
        }
        if current.iter().any(|found| found.is_short) {
            warn_of_short(keys, "current");
        }
        if previous.iter().any(|found| found.is_short) {
            warn_of_short(keys, "previous");
        }
        let previous = previous.into_iter().map(|found| found.secret).collect();
        Some(KeysConfig { current: current?.secret, previous })
    })
}

pub(in crate::config) fn warn_of_literal(keys: &mut Section<'_, '_>, key: &str, danger: &str) {
    let warning =
        Diagnostic::warning(format!("`{}` stands in the configuration file itself", keys.name(key)));
    let hint = format!("{danger}; use `{{ env = \"NAME\" }}` or `{{ file = \"path\" }}`");
    keys.report(warning.hint(hint), keys.span(key));
}

fn too_short() -> Fault {
    Fault::new(format!("is shorter than {SHORTEST} bytes"))
        .hint("`openssl rand -base64 32` prints one that nobody can guess")
}

fn warn_of_short(keys: &mut Section<'_, '_>, key: &str) {
    let Fault { message, hint, .. } = too_short();
    let warning = Diagnostic::warning(format!("`{}` {message}", keys.name(key)));
    keys.report(hint.into_iter().fold(warning, Diagnostic::hint), keys.span(key));
}

/// `{ env = "NAME" }`, `{ file = "path" }`, or the secret itself.
pub(in crate::config) fn find(
    value: &DeValue<'_>,
    directory: &Path,
    environment: &dyn Environment,
    app_owned: bool,
) -> Result<Found, Fault> {
    let shape = "`{ env = \"NAME\" }` or `{ file = \"path\" }`";
    let (bytes, is_literal) = match value {
        DeValue::String(literal) => (literal.as_bytes().to_vec(), true),
        DeValue::Table(table) => {
            let mut entries = table.iter();
            let (Some((kind, place)), None) = (entries.next(), entries.next()) else {
                return Err(Fault::new(format!("must be {shape}")));
            };
            let kind: &str = kind.get_ref();
            let bytes = match kind {
                "env" => variable(&string(place.get_ref())?, environment)?,
                "file" => file(&directory.join(string(place.get_ref())?), environment)?,
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
        1..SHORTEST if !app_owned => Err(too_short()),
        length => Ok(Found { secret: Secret::new(bytes), is_literal, is_short: length < SHORTEST }),
    }
}

fn variable(name: &str, environment: &dyn Environment) -> Result<Vec<u8>, Fault> {
    environment.variable(name).ok_or_else(|| {
        Fault::new("names an environment variable that is not set")
            .hint("it must be set for the process that runs sessiongate")
    })
}

/// Editors and `echo` end a file with a newline that nobody means to be part of the secret.
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
