//! `[store.embedded]` and `[store.dynamodb]`

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::Uri;

use super::diagnostic::Diagnostic;
use super::section::Section;
use super::value::{self, Fault, duration, integer, string, text};
use super::{DynamodbConfig, StoreConfig};

/// Reads the store. Returns `None` if the file configures no store or both stores.
pub(super) fn read(root: &mut Section<'_, '_>, directory: &Path) -> Option<StoreConfig> {
    root.table("store", |store| {
        let both = store.has("embedded") && store.has("dynamodb");
        if both {
            let clash = Diagnostic::error("two stores are configured").hint("keep one of them");
            let clash = match store.span("embedded") {
                Some(embedded) => clash.related(embedded, "the other"),
                None => clash,
            };
            store.report(clash, store.span("dynamodb"));
        }
        let embedded = store.table("embedded", |section| embedded(section, directory));
        let dynamodb = store.table("dynamodb", dynamodb);
        match (embedded, dynamodb) {
            (Some(_), Some(_)) => None,
            (Some(one), None) | (None, Some(one)) => Some(one),
            (None, None) => {
                // An invalid store has been reported already.
                if !store.has("embedded") && !store.has("dynamodb") {
                    let missing = Diagnostic::error("no store is configured");
                    let hint =
                        "add `[store.dynamodb]`, or `[store.embedded]` for a store inside this process";
                    store.report_unless_broken(
                        &["embedded", "dynamodb"],
                        missing.hint(hint),
                        store.own_span(),
                    );
                }
                None
            }
        }
    })
}

fn embedded(section: &mut Section<'_, '_>, directory: &Path) -> Option<StoreConfig> {
    let path = section.get("path", string).map(|path| directory.join(path));
    let listen = section.get("listen", text(loopback));
    if section.is_present() && !cfg!(feature = "embedded") {
        let absent = Diagnostic::error("this build of sessiongate has no embedded store");
        let hint = "build it with the cargo feature `embedded`, or use `[store.dynamodb]`";
        section.report(absent.hint(hint), section.own_span());
    }
    section.is_present().then_some(StoreConfig::Embedded { path, listen })
}

fn dynamodb(section: &mut Section<'_, '_>) -> Option<StoreConfig> {
    let timeout = duration(Duration::from_millis(10)..=Duration::from_mins(5));
    let config = DynamodbConfig {
        region: section.get("region", text(region)),
        profile: section.get("profile", string),
        role_arn: section.get("role_arn", text(role_arn)),
        endpoint: section.get("endpoint", text(endpoint)),
        timeout: section.get("timeout", timeout).unwrap_or(Duration::from_secs(1)),
        attempts: section.get("attempts", integer(1..=10)).unwrap_or(3),
    };
    section.is_present().then_some(StoreConfig::Dynamodb(config))
}

/// Parses a loopback address: the embedded engine's API checks no credentials, so other machines must not reach it.
fn loopback(text: &str) -> Result<SocketAddr, Fault> {
    let address = value::address(text)?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(Fault::new("must be a loopback address").hint("the embedded store checks no credentials"))
}

fn region(text: &str) -> Result<String, Fault> {
    if text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Ok(text.to_owned());
    }
    Err(Fault::new("is not a valid AWS region name").hint("for example \"eu-central-1\""))
}

fn role_arn(text: &str) -> Result<String, Fault> {
    if text.starts_with("arn:") && text.contains(":role/") {
        return Ok(text.to_owned());
    }
    Err(Fault::new("is not a valid role ARN")
        .hint("for example \"arn:aws:iam::123456789012:role/sessiongate\""))
}

fn endpoint(text: &str) -> Result<String, Fault> {
    let fault =
        || Fault::new("must be an `http` or `https` URL").hint("for example \"http://127.0.0.1:8000\"");
    let url: Uri = text.parse().map_err(|_| fault())?;
    let authority = url.authority().ok_or_else(fault)?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
        return Err(fault());
    }
    if authority.as_str().contains('@') {
        return Err(Fault::new("must not contain a user or password")
            .hint("credentials come from the AWS SDK's default chain: environment, profile or role"));
    }
    if url.query().is_some() {
        return Err(Fault::new("must not have a query"));
    }
    Ok(text.to_owned())
}
