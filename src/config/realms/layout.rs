//! `[sessions.NAME.layout]`
//!
//! Of a preset's layout, only the key's template is anybody's to choose, and what ids are made of where the framework
//! leaves it to the app; the rest is the framework's.

use toml::de::DeValue;

use super::presets::{Preset, PresetRows, Signing};
use crate::config::FormatKind;
use crate::config::diagnostic::Diagnostic;
use crate::config::layout::{
    Alphabet, CookieCodec, DeclaredIds, IdKind, KeyTemplate, LayoutConfig, PayloadCodec, Signer, TimeUnit,
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

/// Reads the realm's layout, starting from the one of its preset.
pub(super) fn read(realm: &mut Section<'_, '_>, preset: &Preset) -> FormatSettings {
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
            let fault = format!("is of no use: `{}` has a layout of its own", preset.name);
            realm.refuse("layout", &["format"], Fault::new(fault));
        }
        return settings;
    };
    if is_declared && !realm.has("layout") {
        let fault = Fault::new("is missing: it says where the rows have what");
        realm.refuse_or("layout", "format", &["layout"], fault);
        // Makes `layout` a known key, so that a misspelt one is reported as such.
        let _absent = realm.get("layout", |_| Ok(()));
        // Settings that depend on the missing layout are not checked against it.
        (settings.records_creation, settings.signing) = (true, Signing::Optional);
        return settings;
    }
    settings.key_attribute = realm.table("layout", |section| {
        if let Some(key) = section.get("key", text(template)) {
            layout.key = key;
        }
        let key_attribute = if is_declared { declared(section, layout) } else { None };
        if defaults.has_custom_ids && section.has("ids") {
            let ids = section.table("ids", ids);
            if let Some(weak) = warn_of_weak(ids, &section.name("ids")) {
                section.report(weak, section.span("ids"));
            }
            layout.ids = IdKind::Declared(ids);
        }
        key_attribute
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
        let fault = Fault::new("needs `payload`: without it, the row's attributes are the claims");
        section.refuse("codec", &["payload"], fault);
    }
    if layout.payload.is_none() && matches!(layout.cookie, CookieCodec::Express | CookieCodec::Adonis) {
        section.refuse("cookie", &["payload"], Fault::new("needs `payload`: its framework wraps the claims"));
    }
    if layout.cookie == CookieCodec::IdVersion && layout.version.is_none() {
        let fault = Fault::new("is `id-version`, but `version` does not say which attribute has the version");
        section.refuse("cookie", &["version"], fault);
    }
    if section.is_there() && layout.expires.is_none() && layout.created.is_none() {
        let fault = Fault::new("is missing, and so is `created`: sessions would never end");
        let fault = fault.hint("name the attribute of the deadline, or that of the creation");
        section.refuse("expires", &["expires", "created"], fault);
    }
    key_attribute
}

/// `{ length = [8, 64], alphabet = "a-z0-9" }`
fn ids(section: &mut Section<'_, '_>) -> DeclaredIds {
    let (shortest, longest) = section.get("length", length).unwrap_or((16, 256));
    let alphabet = section.get("alphabet", text(|text| Alphabet::parse(text).map_err(Fault::new)));
    let alphabet = alphabet.unwrap_or(Alphabet::STRICT);
    DeclaredIds { shortest, longest, alphabet }
}

/// Returns a warning if there are so few `ids` that one can be guessed.
fn warn_of_weak(ids: DeclaredIds, name: &str) -> Option<Diagnostic> {
    let exponent = u32::try_from(ids.longest).unwrap_or(u32::MAX);
    u128::from(ids.alphabet.len()).checked_pow(exponent).filter(|count| *count < 1 << 64)?;
    let weak =
        Diagnostic::warning(format!("`{name}` allows ids of fewer than 64 bits only, which can be guessed"));
    Some(weak.hint("let the app make longer ones; `misses` bounds how fast one address can guess"))
}

/// A number, or the least and the greatest.
fn length(value: &DeValue<'_>) -> Result<(usize, usize), Fault> {
    let number = integer(1..=LayoutConfig::LONGEST_ID);
    let Some(list) = value.as_array() else {
        return number(value).map(|length| (length, length));
    };
    let range = match list.iter().map(|element| number(element.get_ref())).collect::<Result<Vec<_>, _>>()?[..]
    {
        [shortest, longest] if shortest <= longest => (shortest, longest),
        _ => return Err(Fault::new("must be a number, or a list of the least and the greatest")),
    };
    Ok(range)
}

/// `sess:{id}`: the id, once.
fn template(text: &str) -> Result<KeyTemplate, Fault> {
    match text.split_once("{id}") {
        Some((before, after)) if !format!("{before}{after}").contains(['{', '}']) && text.len() <= 1024 => {
            Ok(KeyTemplate { before: before.to_owned(), after: after.to_owned() })
        }
        Some(_) | None => {
            Err(Fault::new("must hold `{id}` once, and no other braces").hint("such as \"sess:{id}\""))
        }
    }
}
