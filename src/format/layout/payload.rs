//! The payload: the claims, encoded and wrapped as the framework does.
//!
//! express-session stores the cookie's settings beside the claims, as `cookie`. The gateway does not treat them as a
//! claim, and keeps them unchanged when it changes the claims. AdonisJS writes `{ message: claims, purpose: id }`.

use std::time::Duration;

use serde_json::{Value, json};

use super::msgpack;
use crate::claims::Claims;
use crate::config::layout::{CookieCodec, LayoutConfig, PayloadCodec, TimeRule};
use crate::format::decode::{json as json_decode, msgpack as msgpack_decode};
use crate::format::python_json::Separators;
use crate::format::{EncodeFault, RowFault, fingerprint, js_json, map, python_json};
use crate::item::{Attribute, Item};

/// express-session's member for the cookie's settings.
const COOKIE: &str = "cookie";
/// dynamodb-store's member for the last activity, in payloads that are a map.
const UPDATED: &str = "updated";
const NO_JSON_TYPE: &str = "the row contains values that JSON has no type for";

/// Decodes and encodes the payloads of a layout.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) attribute: Option<String>,
    codec: PayloadCodec,
    wrapper: Wrapper,
    dialect: Dialect,
}

/// The object that the framework wraps around the claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrapper {
    None,
    Express,
    Adonis,
}

/// The serializer whose JSON output is reproduced.
#[derive(Clone, Copy, Debug)]
enum Dialect {
    JavaScript,
    Python,
    Other,
}

/// A decoded payload.
pub(super) struct Decoded {
    pub(super) claims: Claims,
    pub(super) fingerprint: u64,
    /// express-session's `cookie.originalMaxAge`.
    pub(super) max_age: Option<Duration>,
}

impl Payload {
    pub(super) fn new(layout: &LayoutConfig) -> Self {
        let (wrapper, dialect) = match (layout.cookie, layout.rule) {
            (CookieCodec::Express, _) => (Wrapper::Express, Dialect::JavaScript),
            (CookieCodec::Adonis, _) => (Wrapper::Adonis, Dialect::JavaScript),
            (CookieCodec::CookieSignature, _) => (Wrapper::None, Dialect::JavaScript),
            (_, TimeRule::Web) => (Wrapper::None, Dialect::Python),
            (_, _) => (Wrapper::None, Dialect::Other),
        };
        Self { attribute: layout.payload.clone(), codec: layout.codec, wrapper, dialect }
    }

    /// Decodes the payload of a row. Without a payload attribute, the claims are all attributes that are not
    /// `reserved`.
    pub(super) fn decode(&self, item: &Item, reserved: &[&str], id: &str) -> Result<Decoded, RowFault> {
        let Some(name) = &self.attribute else {
            let rest = item.iter().filter(|(name, _)| !reserved.contains(&name.as_str()));
            let rest: Item = rest.map(|(name, value)| (name.clone(), value.clone())).collect();
            let claims = map::to_claims(&rest).ok_or_else(|| RowFault::Payload("*".into()))?;
            return Self::finish(claims, None, None);
        };
        let attribute = item.get(name).ok_or_else(|| RowFault::Missing(name.clone()))?;
        let broken = || RowFault::Payload(name.clone());
        let mut claims = match (self.codec, attribute) {
            (PayloadCodec::Map, Attribute::Map(payload)) => map::to_claims(payload),
            (PayloadCodec::Map, _) => return Err(RowFault::Type(name.clone())),
            (PayloadCodec::Json | PayloadCodec::Msgpack, _) => match attribute.as_bytes() {
                None => return Err(RowFault::Type(name.clone())),
                Some(bytes) if is_msgpack(self.codec, bytes) => msgpack_decode::object(bytes),
                Some(bytes) => json_decode::object(bytes),
            },
        }
        .ok_or_else(broken)?;
        let mut max_age = None;
        match self.wrapper {
            Wrapper::None => {}
            Wrapper::Express => {
                let cookie = claims.shift_remove(COOKIE);
                max_age = cookie.as_ref().and_then(original_max_age);
                if self.codec == PayloadCodec::Map {
                    claims.shift_remove(UPDATED);
                }
            }
            Wrapper::Adonis => {
                if claims.get("purpose").and_then(Value::as_str) != Some(id) {
                    return Err(broken());
                }
                let Some(Value::Object(message)) = claims.shift_remove("message") else {
                    return Err(broken());
                };
                claims = message;
            }
        }
        Self::finish(claims, max_age, attribute.as_bytes())
    }

    fn finish(claims: Claims, max_age: Option<Duration>, bytes: Option<&[u8]>) -> Result<Decoded, RowFault> {
        if claims.is_empty() {
            return Err(RowFault::Empty);
        }
        let fingerprint = match bytes {
            Some(bytes) => fingerprint(bytes),
            None => fingerprint(Value::Object(claims.clone()).to_string().as_bytes()),
        };
        Ok(Decoded { claims, fingerprint, max_age })
    }

    /// Returns the payload `old` with its claims replaced.
    pub(super) fn rewrite(
        &self,
        old: &Attribute,
        claims: &Claims,
        id: &str,
    ) -> Result<Attribute, EncodeFault> {
        if let Attribute::Map(old) = old {
            return self.rewrite_map(old, claims, id).map(Attribute::Map);
        }
        let bytes = old.as_bytes().ok_or(EncodeFault::Unsupported("the row's payload has another type"))?;
        if is_msgpack(self.codec, bytes) {
            // The claims are JSON: values without a JSON type (bytes, dates) would be written back as text.
            let old = msgpack_decode::object(bytes)
                .filter(|old| msgpack::encode(old).as_deref() == Some(bytes))
                .ok_or(EncodeFault::Unsupported(NO_JSON_TYPE))?;
            let new = self.wrap(claims, cookie_of(&old), id)?;
            return msgpack::encode(&new).map(Attribute::Binary).ok_or(EncodeFault::TooDeep);
        }
        let old_claims =
            json_decode::object(bytes).ok_or(EncodeFault::Unsupported("the row's payload is invalid"))?;
        let text = self.json(&self.wrap(claims, cookie_of(&old_claims), id)?)?;
        Ok(if matches!(old, Attribute::Binary(_)) {
            Attribute::Binary(text.into())
        } else {
            Attribute::String(text)
        })
    }

    fn rewrite_map(&self, old: &Item, claims: &Claims, id: &str) -> Result<Item, EncodeFault> {
        let is_kept = |name: &str| self.wrapper == Wrapper::Express && matches!(name, COOKIE | UPDATED);
        let (kept, rest): (Item, Item) = old.clone().into_iter().partition(|(name, _)| is_kept(name));
        let roundtrip = map::to_claims(&rest).map(|claims| map::from_claims(&claims));
        if roundtrip != Some(Ok(rest)) {
            return Err(EncodeFault::Unsupported(NO_JSON_TYPE));
        }
        let mut new = map::from_claims(&self.wrap(claims, Value::Null, id)?)?;
        new.extend(kept);
        Ok(new)
    }

    /// Encodes the payload of a new session; `cookie` contains the cookie's settings for express-session.
    pub(super) fn write(&self, claims: &Claims, cookie: Value, id: &str) -> Result<Attribute, EncodeFault> {
        let wrapped = self.wrap(claims, cookie, id)?;
        Ok(match self.codec {
            PayloadCodec::Json => Attribute::String(self.json(&wrapped)?),
            PayloadCodec::Map => Attribute::Map(map::from_claims(&wrapped)?),
            PayloadCodec::Msgpack => {
                Attribute::Binary(msgpack::encode(&wrapped).ok_or(EncodeFault::TooDeep)?)
            }
        })
    }

    fn wrap(&self, claims: &Claims, cookie: Value, id: &str) -> Result<Claims, EncodeFault> {
        match self.wrapper {
            Wrapper::None => Ok(claims.clone()),
            Wrapper::Express if self.codec == PayloadCodec::Map && claims.contains_key(UPDATED) => {
                Err(EncodeFault::Unsupported("`updated` is reserved by the framework"))
            }
            Wrapper::Express if claims.contains_key(COOKIE) => {
                Err(EncodeFault::Unsupported("`cookie` is reserved by the framework"))
            }
            Wrapper::Express => {
                let mut wrapped = Claims::from_iter([(COOKIE.to_owned(), cookie)]);
                wrapped.extend(claims.clone());
                Ok(wrapped)
            }
            Wrapper::Adonis => Ok(Claims::from_iter([
                ("message".to_owned(), Value::Object(claims.clone())),
                ("purpose".to_owned(), json!(id)),
            ])),
        }
    }

    fn json(&self, claims: &Claims) -> Result<String, EncodeFault> {
        match self.dialect {
            Dialect::JavaScript => js_json::stringify(claims),
            Dialect::Python => python_json::dumps(claims, Separators::Spaced),
            Dialect::Other => serde_json::to_string(claims).map_err(|_| EncodeFault::Number),
        }
    }
}

/// Returns whether a payload is MessagePack rather than JSON. JSON objects begin with `{`, which in MessagePack is the
/// number 123 and so never a session.
fn is_msgpack(codec: PayloadCodec, bytes: &[u8]) -> bool {
    codec == PayloadCodec::Msgpack && bytes.first() != Some(&b'{')
}

/// Returns the cookie's settings, which express-session stores beside the claims.
fn cookie_of(payload: &Claims) -> Value {
    payload.get(COOKIE).cloned().unwrap_or_default()
}

/// Reads `originalMaxAge`, in milliseconds. It is `null` for a cookie that expires with the browser session.
fn original_max_age(cookie: &Value) -> Option<Duration> {
    let millis = cookie.get("originalMaxAge")?.as_f64()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked")]
    (1.0..1e14).contains(&millis).then(|| Duration::from_millis(millis as u64))
}
