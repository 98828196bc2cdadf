//! `[sessions.NAME.layout]`
//!
//! Of a preset's layout, only the key's template is anybody's to choose; the rest is the framework's.

use toml::de::DeValue;

use super::Keys;
use super::presets::Preset;
use super::{attribute_name, presets::Defaults};
use crate::config::FormatKind;
use crate::config::layout::{CookieCodec, IdKind, KeyTemplate, LayoutConfig, PayloadCodec, Signer, TimeUnit};
use crate::config::section::Section;
use crate::config::value::{Fault, one_of, text};
use crate::item::KeyType;

/// Reads the layout into `defaults`; the key attribute, if it is given here.
pub(super) fn read(realm: &mut Section<'_, '_>, preset: Preset, defaults: &mut Defaults) -> Option<String> {
    let FormatKind::Layout(layout) = &mut defaults.format else {
        if realm.get("layout", |_| Ok(())).is_some() {
            let fault = format!("is of no use: `{}` has a layout of its own", preset.word());
            realm.refuse("layout", &["format"], Fault::new(fault));
        }
        return None;
    };
    if preset == Preset::Layout && !realm.has("layout") {
        let fault = Fault::new("is missing: it says where the rows have what");
        realm.refuse_or("layout", "format", &["layout"], fault);
        // What it would say of these is not known, so nothing contradicts it.
        (defaults.records_creation, defaults.keys) = (true, Keys::Optional);
        return realm.get("layout", |_| Ok(())).and(None);
    }
    let key_attribute = realm.table("layout", |section| {
        if let Some(key) = section.get("key", text(template)) {
            layout.key = key;
        }
        if preset == Preset::Layout { declared(section, layout) } else { None }
    });
    defaults.records_creation = layout.created.is_some();
    if preset == Preset::Layout {
        defaults.keys = match layout.cookie {
            CookieCodec::Plain | CookieCodec::IdVersion => Keys::Useless,
            CookieCodec::Express
            | CookieCodec::CookieSignature
            | CookieCodec::Itsdangerous(_)
            | CookieCodec::RackHmac
            | CookieCodec::Adonis => Keys::Required,
        };
    }
    key_attribute
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
