//! `[sessions.NAME]`: session realms

mod cookie;
pub(super) mod keys;
mod layout;
mod presets;

use std::path::Path;
use std::time::Duration;

use humantime::format_duration;
use toml::de::DeValue;

use self::presets::{PRESETS, Signing};
use super::diagnostic::Diagnostic;
use super::environment::Environment;
use super::layout::{CookieCodec, IdKind};
use super::section::Section;
use super::value::{
    Fault, MAX_SESSION_DURATION, attribute_name, boolean, duration, integer, one_of, table_name, text,
    wrong_type,
};
use super::{CacheConfig, Consistency, FormatKind, OnStoreError, RealmConfig};
use crate::claims::{ClaimPath, UserClaim};

pub(super) fn read(
    root: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> Vec<RealmConfig> {
    let mut seen: Vec<RealmConfig> = Vec::new();
    root.named("sessions", |name, section| {
        let realm = realm(name, section, directory, environment)?;
        let other = seen.iter().find(|other| other.cookie.name == realm.cookie.name);
        if let Some(other) = other.filter(|other| other.table != realm.table || other.format != realm.format)
        {
            let needs = [name, &other.name].into_iter().flat_map(|name| {
                ["format", "table", "layout/", "cookie/name"].map(|key| format!("/sessions/{name}/{key}"))
            });
            let needs: Vec<_> = needs.collect();
            let message = format!(
                "`sessions.{}` has the same cookie as `sessions.{name}`, but a different table or format",
                other.name
            );
            let hint = format!("use a `cookie.name` other than `{}` for one of them", realm.cookie.name);
            section.report_unless_broken(&needs, Diagnostic::error(message).hint(hint), section.own_span());
        }
        seen.push(realm);
        Some(())
    });
    seen
}

fn realm(
    name: &str,
    section: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> Option<RealmConfig> {
    let formats = PRESETS.each_ref().map(|preset| (preset.name, preset));
    let format = section.require("format", one_of(&formats));
    // A realm without a valid format is checked as if it were `native`.
    let preset = format.unwrap_or(&presets::NATIVE);
    let mut table = section.get("table", text(table_name));
    if !section.has("table") {
        table = preset.table.map(str::to_owned);
        if table.is_none() {
            section.refuse("table", &["table", "format"], Fault::new("is missing"));
        }
    }
    let key_attribute = section.get("key_attribute", text(attribute_name));
    if key_attribute.as_deref().is_some_and(|name| preset.uses_attribute(name)) {
        let fault = format!("is an attribute that {} rows use for something else", preset.name);
        section.refuse("key_attribute", &["format"], Fault::new(fault));
    }
    let mut settings = layout::read(section, preset, key_attribute.as_deref());
    if settings.key_attribute.is_some() && key_attribute.is_some() {
        section.refuse("key_attribute", &[], Fault::new("is also set in `layout`"));
    }

    let user = section.get("user", user_claim);
    let timeout = section.get("timeout", duration(Duration::from_secs(1)..=MAX_SESSION_DURATION));
    let timeout = timeout.unwrap_or(preset.timeout);
    let reissue_time = section.get("reissue_time", duration(Duration::ZERO..=MAX_SESSION_DURATION));
    let reissue_time = reissue_time.unwrap_or(preset.reissue_time);
    if !settings.has_reissues() {
        if section.has("reissue_time") {
            let fault = format!("has no effect: the realm's {} sessions are never reissued", preset.name);
            section.refuse("reissue_time", &["format", "layout/expires"], Fault::new(fault));
        }
    } else if reissue_time >= timeout {
        let (given, limit) = (format_duration(reissue_time), format_duration(timeout));
        let fault = Fault::new(format!("is {given}, but must be shorter than `timeout`, which is {limit}"));
        section.refuse_or(
            "reissue_time",
            "timeout",
            &["reissue_time", "timeout", "format"],
            fault.hint("otherwise sessions expire while they are used"),
        );
    }
    if section.has("timeout") && settings.has_fixed_deadlines() {
        let message =
            format!("`{}` applies only to sessions that the gateway creates", section.name("timeout"));
        let hint = format!("an app's {} session ends only if its row has `ttl`", preset.name);
        section.report(Diagnostic::warning(message).hint(hint), section.span("timeout"));
    }
    let enforce_age = section.get("enforce_age", boolean);
    if section.has("enforce_age") && !preset.is_django() {
        let fault = Fault::new("is only for `django`: rows of other formats have a deadline");
        section.refuse("enforce_age", &["format"], fault);
    }
    let lifetime = section.get("lifetime", duration(Duration::from_secs(1)..=MAX_SESSION_DURATION));
    if lifetime.is_some() && !settings.records_creation {
        let fault =
            format!("cannot be enforced: {} rows do not record when a session was created", preset.name);
        section.refuse("lifetime", &["format", "layout/created"], Fault::new(fault));
    } else if lifetime.is_some_and(|lifetime| lifetime < timeout) {
        let fault = format!("must not be shorter than `timeout`, which is {}", format_duration(timeout));
        section.refuse("lifetime", &["timeout", "format"], Fault::new(fault));
    }

    let consistencies =
        [("auto", Consistency::Auto), ("strong", Consistency::Strong), ("eventual", Consistency::Eventual)];
    let consistency = section.get("consistency", one_of(&consistencies));
    let on_store_error = section.get("on_store_error", on_store_error).unwrap_or(OnStoreError::Refuse);
    let forward_cookie = section.get("forward_cookie", boolean);
    let rotation_grace = section.get("rotation_grace", duration(Duration::ZERO..=Duration::from_mins(1)));
    let is_native = preset.is_native();
    if section.has("rotation_grace") && !is_native {
        let fault = Fault::new("is only for `native`: rows of other formats cannot refer to the new id");
        section.refuse("rotation_grace", &["format"], fault);
    }
    let cookie = section.table("cookie", |section| cookie::read(section, &preset.cookie));
    let cache = section.table("cache", cache);
    if matches!(on_store_error, OnStoreError::Stale(_)) && cache.ttl.is_zero() {
        let fault = Fault::new("needs the cache, but `cache.ttl` turns it off");
        section.refuse("on_store_error", &["cache/ttl"], fault);
    }
    // With an unknown format, the keys may be an app's own, which may be short.
    let keys = keys::read(section, directory, environment, !is_native || format.is_none());
    match (settings.signing, section.has("keys")) {
        (Signing::Unsupported, true) => {
            let fault = format!("has no effect: the realm's {} cookies are not signed", preset.name);
            section.refuse("keys", &["format", "layout/cookie"], Fault::new(fault));
        }
        (Signing::Required, false) => {
            let signed = if preset.is_django() { "rows" } else { "cookies" };
            let fault = Fault::new(format!("is missing: {} {signed} are signed", preset.name));
            section.refuse_or(
                "keys",
                "format",
                &["keys", "format", "layout/cookie"],
                fault.hint("set `current` to the app's signing secret"),
            );
        }
        (Signing::Unsupported, false) | (Signing::Required, true) | (Signing::Optional, _) => {}
    }
    if let (FormatKind::Layout(layout), None, true) =
        (&mut settings.format, &keys, settings.signing == Signing::Optional)
    {
        // Signing is optional for this format, and there are no keys.
        layout.cookie = CookieCodec::Plain;
    }
    if let FormatKind::Layout(layout) = &settings.format
        && layout.cookie != CookieCodec::Plain
        && matches!(layout.ids, IdKind::Declared(_))
    {
        let fault = Fault::new("sets `ids`, which has no effect unless the cookie is `plain`");
        section.refuse("layout", &["format", "keys", "layout/"], fault);
    }
    Some(RealmConfig {
        name: name.to_owned(),
        format: format.map(|_| settings.format)?,
        table: table?,
        key_attribute: key_attribute
            .or(settings.key_attribute)
            .unwrap_or_else(|| preset.key_attribute.to_owned()),
        user: user.unwrap_or_else(|| {
            UserClaim::new(preset.user.iter().filter_map(|path| ClaimPath::parse(path)).collect())
        }),
        timeout,
        reissue_time,
        enforce_age: enforce_age.unwrap_or(true),
        lifetime,
        consistency: consistency.unwrap_or(preset.consistency),
        on_store_error,
        // Apps with their own sessions read the cookie themselves. The native cookie is of no use to an app.
        forward_cookie: forward_cookie.unwrap_or(!is_native),
        rotation_grace: rotation_grace.unwrap_or(if is_native {
            Duration::from_secs(10)
        } else {
            Duration::ZERO
        }),
        cookie,
        cache,
        keys,
    })
}

fn cache(section: &mut Section<'_, '_>) -> CacheConfig {
    let ttl = section.get("ttl", duration(Duration::ZERO..=Duration::from_hours(1)));
    let capacity = section.get("capacity", integer(1..=10_000_000));
    CacheConfig { ttl: ttl.unwrap_or(Duration::from_secs(2)), capacity: capacity.unwrap_or(100_000) }
}

/// Parses `"refuse"`, `"anonymous"` or `{ stale = "30s" }`.
fn on_store_error(value: &DeValue<'_>) -> Result<OnStoreError, Fault> {
    let stale = value.as_table().filter(|table| table.len() == 1).and_then(|table| table.get("stale"));
    match (value.as_str(), stale) {
        (Some("refuse"), _) => Ok(OnStoreError::Refuse),
        (Some("anonymous"), _) => Ok(OnStoreError::Anonymous),
        (_, Some(stale)) => {
            let range = Duration::from_secs(1)..=Duration::from_hours(24);
            duration(range)(stale.get_ref()).map(OnStoreError::Stale)
        }
        (_, None) => Err(Fault::new("must be `refuse`, `anonymous` or `{ stale = \"30s\" }`")),
    }
}

/// Parses a claim path or a list of claim paths.
fn user_claim(value: &DeValue<'_>) -> Result<UserClaim, Fault> {
    let path = |value: &DeValue<'_>| {
        let path = value.as_str().ok_or_else(|| wrong_type(value, "a claim path, or a list of them"))?;
        ClaimPath::parse(path).ok_or_else(|| Fault::new("is not a valid claim path"))
    };
    let paths = match value.as_array() {
        Some(array) => array.iter().map(|element| path(element.get_ref())).collect::<Result<Vec<_>, _>>()?,
        None => vec![path(value)?],
    };
    if paths.is_empty() {
        return Err(Fault::new("is empty, so no user could be logged in"));
    }
    Ok(UserClaim::new(paths))
}
