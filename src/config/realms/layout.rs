//! `[sessions.NAME.layout]`
//!
//! The format `layout` declares everything. For presets only the key template can be set, and the form of ids if the app
//! chooses them; the framework fixes the rest.

use toml::de::DeValue;

use super::presets::{Preset, PresetRows, Signing};
use crate::config::FormatKind;
use crate::config::diagnostic::Diagnostic;
use crate::config::layout::{
    Alphabet, CookieCodec, DeclaredIds, IdKind, KeyTemplate, LayoutConfig, PayloadCodec, Signer, TimeRule,
    TimeUnit,
};
use crate::config::section::Section;
use crate::config::value::{Fault, attribute_name, integer, one_of, text};
use crate::item::KeyType;

/// A realm's format, and what follows from its layout.
pub(super) struct FormatSettings {
    pub(super) format: FormatKind,
    /// The key attribute, if the layout names it.
    pub(super) key_attribute: Option<String>,
    pub(super) signing: Signing,
    /// Whether rows record when a session was created.
    pub(super) records_creation: bool,
}

impl FormatSettings {
    /// Returns whether the gateway moves the deadlines of sessions.
    pub(super) fn has_reissues(&self) -> bool {
        match &self.format {
            FormatKind::Layout(layout) => layout.expires.is_some() && layout.rule != TimeRule::Fixed,
            FormatKind::Native | FormatKind::Pyramid | FormatKind::Django => true,
        }
    }

    /// Returns whether a session keeps the deadline with which it was created.
    pub(super) fn has_fixed_deadlines(&self) -> bool {
        matches!(&self.format, FormatKind::Layout(layout) if layout.rule == TimeRule::Fixed)
    }
}

/// Reads the realm's layout, starting from the one of its preset. `key_attribute` is the one that the realm sets.
pub(super) fn read(
    realm: &mut Section<'_, '_>,
    preset: &Preset,
    key_attribute: Option<&str>,
) -> FormatSettings {
    let key_location = realm.location("key_attribute");
    let mut settings = FormatSettings {
        format: preset.format(),
        key_attribute: None,
        signing: preset.signing,
        records_creation: preset.records_creation(),
    };
    let is_declared = matches!(preset.rows, PresetRows::Declared(_));
    let (FormatKind::Layout(layout), PresetRows::Preset(defaults) | PresetRows::Declared(defaults)) =
        (&mut settings.format, preset.rows)
    else {
        if realm.get("layout", |_| Ok(())).is_some() {
            let fault = format!("has no effect: the layout of `{}` is fixed", preset.name);
            realm.refuse("layout", &["format"], Fault::new(fault));
        }
        return settings;
    };
    if is_declared && !realm.has("layout") {
        let fault = Fault::new("is missing: it describes the rows");
        realm.refuse_or("layout", "format", &["layout"], fault);
        // Makes `layout` a known key, so that a misspelt one is reported as such.
        let _absent = realm.get("layout", |_| Ok(()));
        // Prevents errors that would follow from the missing layout.
        (settings.records_creation, settings.signing) = (true, Signing::Optional);
        return settings;
    }
    settings.key_attribute = realm.table("layout", |section| {
        if let Some(key) = section.get("key", text(template)) {
            layout.key = key;
        }
        let declared_key = if is_declared { declared(section, layout) } else { None };
        if is_declared {
            let key = declared_key.as_deref().or(key_attribute).unwrap_or(preset.key_attribute);
            check_attributes(section, layout, key, &key_location);
        }
        if defaults.has_custom_ids && section.has("ids") {
            let ids = section.table("ids", ids);
            if let Some(weak) = weak_id_warning(ids, &section.name("ids")) {
                section.report(weak, section.span("ids"));
            }
            layout.ids = IdKind::Declared(ids);
        }
        declared_key
    });
    settings.records_creation = layout.created.is_some();
    if is_declared {
        settings.signing = match layout.cookie {
            CookieCodec::Plain | CookieCodec::IdVersion => Signing::Unsupported,
            CookieCodec::Express
            | CookieCodec::CookieSignature
            | CookieCodec::Itsdangerous(_)
            | CookieCodec::RackHmac
            | CookieCodec::Adonis => Signing::Required,
        };
    }
    settings
}

fn declared(section: &mut Section<'_, '_>, layout: &mut LayoutConfig) -> Option<String> {
    let cookies = [
        ("plain", CookieCodec::Plain),
        ("express", CookieCodec::Express),
        ("cookie-signature", CookieCodec::CookieSignature),
        ("itsdangerous", CookieCodec::Itsdangerous(Signer::Default)),
        ("id-version", CookieCodec::IdVersion),
        ("rack-hmac", CookieCodec::RackHmac),
        ("adonis", CookieCodec::Adonis),
    ];
    let codecs =
        [("json", PayloadCodec::Json), ("map", PayloadCodec::Map), ("msgpack", PayloadCodec::Msgpack)];
    let units = [("s", TimeUnit::Seconds), ("ms", TimeUnit::Millis), ("iso8601", TimeUnit::Iso8601)];
    layout.cookie = section.get("cookie", one_of(&cookies)).unwrap_or(CookieCodec::Plain);
    layout.ids = match layout.cookie {
        CookieCodec::Express | CookieCodec::CookieSignature => IdKind::Uid,
        CookieCodec::Plain | CookieCodec::Itsdangerous(_) | CookieCodec::IdVersion => IdKind::Token,
        CookieCodec::RackHmac => IdKind::Hex,
        CookieCodec::Adonis => IdKind::Uuid,
    };
    let key_attribute = section.get("key_attribute", text(attribute_name));
    let types = [("S", KeyType::String), ("B", KeyType::Binary)];
    layout.key_type = section.get("key_type", one_of(&types)).unwrap_or(KeyType::String);
    let name = |value: &DeValue<'_>| text(attribute_name)(value);
    layout.payload = section.get("payload", name);
    let codec = section.get("codec", one_of(&codecs));
    layout.version = section.get("version", name);
    layout.expires = section.get("expires", name);
    layout.created = section.get("created", name);
    layout.unit = section.get("expires_unit", one_of(&units)).unwrap_or(TimeUnit::Seconds);

    layout.codec =
        codec.unwrap_or(if layout.payload.is_some() { PayloadCodec::Json } else { PayloadCodec::Map });
    if layout.payload.is_none() && layout.codec != PayloadCodec::Map {
        let fault = Fault::new("needs `payload`: without it, every attribute of a row is a claim");
        section.refuse("codec", &["payload"], fault);
    }
    if layout.payload.is_none() && matches!(layout.cookie, CookieCodec::Express | CookieCodec::Adonis) {
        section.refuse(
            "cookie",
            &["payload"],
            Fault::new("needs `payload`: the framework wraps the claims in it"),
        );
    }
    if layout.cookie == CookieCodec::IdVersion && layout.version.is_none() {
        let fault = Fault::new("is `id-version`, which needs `version`, the attribute with the version");
        section.refuse("cookie", &["version"], fault);
    }
    if section.is_present() && layout.expires.is_none() && layout.created.is_none() {
        let fault = Fault::new("is missing, and so is `created`: sessions would never expire");
        let fault = fault.hint("set the attribute with the deadline, or the one with the time of creation");
        section.refuse("expires", &["expires", "created"], fault);
    }
    key_attribute
}

/// Refuses a layout that uses one attribute for two purposes. `key` is the key attribute, and `key_location` its location in
/// the realm.
fn check_attributes(section: &mut Section<'_, '_>, layout: &LayoutConfig, key: &str, key_location: &str) {
    let names = [
        ("key_attribute", Some(key)),
        ("payload", layout.payload.as_deref()),
        ("version", layout.version.as_deref()),
        ("expires", layout.expires.as_deref()),
        ("created", layout.created.as_deref()),
    ];
    for (index, (purpose, name)) in names.into_iter().enumerate() {
        let mut others = names.into_iter().take(index).filter(|(_, other)| name.is_some() && *other == name);
        if let Some((other, _)) = others.next() {
            let fault = Fault::new(format!("names the same attribute as `{other}`"));
            section.refuse(purpose, &[purpose, other, key_location], fault);
        }
    }
}

/// Reads `{ length = [8, 64], alphabet = "a-z0-9" }`.
fn ids(section: &mut Section<'_, '_>) -> DeclaredIds {
    let (min_length, max_length) = section.get("length", length).unwrap_or((16, 256));
    let alphabet = section.get("alphabet", text(|text| Alphabet::parse(text).map_err(Fault::new)));
    let alphabet = alphabet.unwrap_or(Alphabet::STRICT);
    DeclaredIds { min_length, max_length, alphabet }
}

/// Returns a warning if even the longest ids have fewer than 64 bits, and so can be guessed.
fn weak_id_warning(ids: DeclaredIds, name: &str) -> Option<Diagnostic> {
    let exponent = u32::try_from(ids.max_length).unwrap_or(u32::MAX);
    u128::from(ids.alphabet.len()).checked_pow(exponent).filter(|count| *count < 1 << 64)?;
    let weak =
        Diagnostic::warning(format!("`{name}` allows ids with fewer than 64 bits, which can be guessed"));
    Some(weak.hint("use longer ids in the app; `misses` limits the guesses of one client address"))
}

/// Parses a length, or a list of the minimum and the maximum length.
fn length(value: &DeValue<'_>) -> Result<(usize, usize), Fault> {
    let number = integer(1..=LayoutConfig::MAX_ID_LENGTH);
    let Some(list) = value.as_array() else {
        return number(value).map(|length| (length, length));
    };
    let range = match list.iter().map(|element| number(element.get_ref())).collect::<Result<Vec<_>, _>>()?[..]
    {
        [min_length, max_length] if min_length <= max_length => (min_length, max_length),
        _ => return Err(Fault::new("must be a number, or a list of the minimum and the maximum")),
    };
    Ok(range)
}

/// Parses a key template such as `sess:{id}`, with the id exactly once.
fn template(text: &str) -> Result<KeyTemplate, Fault> {
    match text.split_once("{id}") {
        Some((before, after)) if !format!("{before}{after}").contains(['{', '}']) && text.len() <= 1024 => {
            Ok(KeyTemplate { before: before.to_owned(), after: after.to_owned() })
        }
        Some(_) | None => {
            Err(Fault::new("must contain `{id}` once, and no other braces").hint("for example \"sess:{id}\""))
        }
    }
}
