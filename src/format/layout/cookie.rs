//! The cookie: an id, in some frameworks with a MAC. Encoded MACs are compared, so that only the canonical encoding is
//! accepted, unless the framework itself decodes them first (itsdangerous).
//!
//! Values that the framework percent-encodes are decoded once, as the framework does.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use md5::Md5;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::KeysConfig;
use crate::config::layout::{Alphabet, CookieCodec, IdKind, LayoutConfig, Signer};
use crate::format::decode::json;
use crate::format::{CookieFault, SessionId, SessionRef, row};
use crate::secret::Secret;

/// Bits of randomness in new ids of a declared shape, if the maximum length allows it: as many as in [`IdKind::Uid`].
const NEW_ID_BITS: u32 = 192;
/// The characters that `encodeURIComponent` encodes.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');
/// Python's decoder ignores trailing bits, and itsdangerous adds the padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A realm's cookie.
#[derive(Debug)]
pub(super) struct Cookie {
    pub(super) codec: CookieCodec,
    pub(super) ids: IdKind,
    pub(super) name: String,
    pub(super) keys: Option<KeysConfig>,
}

impl Cookie {
    pub(super) fn parse(&self, value: &[u8]) -> Result<SessionRef, CookieFault> {
        let decoded = match self.codec {
            CookieCodec::Express
            | CookieCodec::CookieSignature
            | CookieCodec::Adonis
            | CookieCodec::RackHmac => percent_decode(value).collect(),
            CookieCodec::Plain | CookieCodec::Itsdangerous(_) | CookieCodec::IdVersion => value.to_vec(),
        };
        let text = std::str::from_utf8(&decoded).map_err(|_| CookieFault::Shape)?;
        let id = match self.codec {
            CookieCodec::IdVersion => return row::parse_reference(value),
            CookieCodec::Plain => {
                if !self.is_plain(text) {
                    return Err(CookieFault::Shape);
                }
                text.to_owned()
            }
            CookieCodec::Express => {
                let signed = text.strip_prefix("s:").ok_or(CookieFault::Shape)?;
                self.unsign_express(signed)?
            }
            CookieCodec::CookieSignature => self.unsign_express(text)?,
            CookieCodec::Itsdangerous(signer) => self.unsign_itsdangerous(text, signer)?,
            CookieCodec::RackHmac => {
                let (mac, id) = text.split_once("--").ok_or(CookieFault::Shape)?;
                self.verify(mac, |key| hex(&hmac::<Hmac<Md5>>(key, id.as_bytes())))?;
                text.to_owned()
            }
            CookieCodec::Adonis => self.unsign_adonis(text)?,
        };
        if id.is_empty() || id.len() > LayoutConfig::MAX_ID_LENGTH || id.chars().any(char::is_control) {
            return Err(CookieFault::Shape);
        }
        Ok(SessionRef { id: SessionId::new(&id), version: 0 })
    }

    pub(super) fn value(&self, id: &SessionId, version: u64) -> String {
        let text = String::from_utf8_lossy(id.expose());
        let Some(key) = self.keys.as_ref().map(|keys| &keys.current) else {
            return match self.codec {
                CookieCodec::IdVersion => row::write_reference(id, version),
                // The configuration requires a key for formats that sign.
                CookieCodec::Plain
                | CookieCodec::Express
                | CookieCodec::CookieSignature
                | CookieCodec::Itsdangerous(_)
                | CookieCodec::RackHmac
                | CookieCodec::Adonis => text.into_owned(),
            };
        };
        match self.codec {
            CookieCodec::Plain | CookieCodec::RackHmac | CookieCodec::Itsdangerous(Signer::Whole) => {
                text.into_owned()
            }
            CookieCodec::IdVersion => row::write_reference(id, version),
            CookieCodec::Express => component(&format!("s:{text}.{}", express_mac(key, &text))),
            CookieCodec::CookieSignature => component(&format!("{text}.{}", express_mac(key, &text))),
            CookieCodec::Itsdangerous(signer) => sign_itsdangerous(key, &text, signer),
            CookieCodec::Adonis => {
                let message = json!({ "message": text, "purpose": self.name }).to_string();
                let message = URL_SAFE_NO_PAD.encode(message);
                format!("s:{message}.{}", adonis_mac(key, &message))
            }
        }
    }

    /// Describes the form of a valid value.
    pub(super) fn shape(&self) -> String {
        let signed = match self.codec {
            CookieCodec::Plain => match self.ids {
                IdKind::Django => "32 characters of `a-z0-9`",
                IdKind::Uid | IdKind::Token | IdKind::Hex | IdKind::Uuid => {
                    return describe(16, 256, Alphabet::STRICT);
                }
                IdKind::Declared(ids) => return describe(ids.min_length, ids.max_length, ids.alphabet),
            },
            CookieCodec::IdVersion => row::REFERENCE,
            CookieCodec::Express => "`s:ID.MAC`, percent-encoded",
            CookieCodec::CookieSignature => "`ID.MAC`, percent-encoded",
            CookieCodec::Itsdangerous(_) => "`ID.MAC`",
            CookieCodec::RackHmac => "`MAC--ID`",
            CookieCodec::Adonis => "`s:MESSAGE.MAC`",
        };
        signed.to_owned()
    }

    /// Generates an id in the form of the framework, uniformly distributed.
    pub(super) fn new_id(&self) -> Result<SessionId, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let (uid, _) = bytes.split_at(24);
        let id = match self.ids {
            IdKind::Uid => URL_SAFE_NO_PAD.encode(uid),
            IdKind::Token => URL_SAFE_NO_PAD.encode(bytes),
            IdKind::Hex => hex(&bytes),
            IdKind::Uuid => uuid(bytes),
            IdKind::Django => random_text(b"abcdefghijklmnopqrstuvwxyz0123456789", 32)?,
            IdKind::Declared(ids) => {
                let alphabet: Vec<u8> = ids.alphabet.bytes().collect();
                let needed = NEW_ID_BITS.div_ceil(ids.alphabet.len().ilog2());
                let length = usize::try_from(needed).unwrap_or(usize::MAX);
                random_text(&alphabet, length.clamp(ids.min_length, ids.max_length))?
            }
        };
        let key = self.keys.as_ref().map(|keys| &keys.current);
        Ok(SessionId::new(&match (self.codec, key) {
            // For these, the id includes the MAC.
            (CookieCodec::RackHmac, Some(key)) => {
                format!("{}--{id}", hex(&hmac::<Hmac<Md5>>(key, id.as_bytes())))
            }
            (CookieCodec::Itsdangerous(Signer::Whole), Some(key)) => {
                sign_itsdangerous(key, &id, Signer::Whole)
            }
            (_, _) => id,
        }))
    }

    /// Returns whether `text` could be an unsigned id. Alphabet and length are all that can be checked without a read.
    fn is_plain(&self, text: &str) -> bool {
        match self.ids {
            IdKind::Django => {
                text.len() == 32 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            }
            IdKind::Uid | IdKind::Token | IdKind::Hex | IdKind::Uuid => {
                matches(text, 16, 256, Alphabet::STRICT)
            }
            IdKind::Declared(ids) => matches(text, ids.min_length, ids.max_length, ids.alphabet),
        }
    }

    /// Verifies `id.mac`, split at the last dot.
    fn unsign_express(&self, text: &str) -> Result<String, CookieFault> {
        let (id, mac) = text.rsplit_once('.').ok_or(CookieFault::Shape)?;
        self.verify(mac, |key| express_mac(key, id))?;
        Ok(id.to_owned())
    }

    fn unsign_itsdangerous(&self, text: &str, signer: Signer) -> Result<String, CookieFault> {
        let (id, mac) = text.rsplit_once('.').ok_or(CookieFault::Shape)?;
        let mac = LENIENT.decode(mac).map_err(|_| CookieFault::Signature)?;
        let is_mac = |key: &Secret| itsdangerous_mac(key, id, signer).as_slice().ct_eq(&mac).into();
        if !self.all_keys().any(is_mac) {
            return Err(CookieFault::Signature);
        }
        Ok(if signer == Signer::Whole { text } else { id }.to_owned())
    }

    fn unsign_adonis(&self, text: &str) -> Result<String, CookieFault> {
        let signed = text.strip_prefix("s:").ok_or(CookieFault::Shape)?;
        let (message, mac) = signed.rsplit_once('.').ok_or(CookieFault::Shape)?;
        self.verify(mac, |key| adonis_mac(key, message))?;
        let message = URL_SAFE_NO_PAD.decode(message).ok().and_then(|bytes| json::object(&bytes));
        let message = message.ok_or(CookieFault::Shape)?;
        // The value was signed for another cookie.
        if message.get("purpose").and_then(Value::as_str) != Some(&self.name) {
            return Err(CookieFault::Signature);
        }
        message.get("message").and_then(Value::as_str).map(str::to_owned).ok_or(CookieFault::Shape)
    }

    fn verify(&self, mac: &str, expected: impl Fn(&Secret) -> String) -> Result<(), CookieFault> {
        let mut keys = self.all_keys();
        let is_mac = keys.any(|key| expected(key).as_bytes().ct_eq(mac.as_bytes()).into());
        if is_mac { Ok(()) } else { Err(CookieFault::Signature) }
    }

    fn all_keys(&self) -> impl Iterator<Item = &Secret> {
        self.keys.iter().flat_map(|keys| std::iter::once(&keys.current).chain(&keys.previous))
    }
}

fn component(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

/// Computes an HMAC. Never fails, since HMAC accepts keys of any length.
fn hmac<M: Mac + KeyInit>(key: &Secret, message: &[u8]) -> Vec<u8> {
    <M as KeyInit>::new_from_slice(key.expose())
        .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

fn express_mac(key: &Secret, id: &str) -> String {
    STANDARD_NO_PAD.encode(hmac::<Hmac<Sha256>>(key, id.as_bytes()))
}

fn adonis_mac(key: &Secret, message: &str) -> String {
    let key = Secret::new(Sha256::digest(key.expose()).to_vec());
    URL_SAFE_NO_PAD.encode(hmac::<Hmac<Sha256>>(&key, message.as_bytes()))
}

fn itsdangerous_mac(key: &Secret, id: &str, signer: Signer) -> Vec<u8> {
    let derived = match signer {
        Signer::Flask => hmac::<Hmac<Sha1>>(key, b"flask-session"),
        Signer::Default | Signer::Whole => {
            let concat = Sha1::new().chain_update(b"itsdangerous.Signer").chain_update(b"signer");
            concat.chain_update(key.expose()).finalize().to_vec()
        }
    };
    hmac::<Hmac<Sha1>>(&Secret::new(derived), id.as_bytes())
}

fn sign_itsdangerous(key: &Secret, id: &str, signer: Signer) -> String {
    format!("{id}.{}", URL_SAFE_NO_PAD.encode(itsdangerous_mac(key, id, signer)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Formats a UUID of version 4 (RFC 9562) from random bytes.
fn uuid(bytes: [u8; 32]) -> String {
    let (bytes, _) = bytes.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    let number = u128::from_be_bytes(*bytes) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{number:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

fn matches(text: &str, shortest: usize, longest: usize, alphabet: Alphabet) -> bool {
    (shortest..=longest).contains(&text.len()) && text.bytes().all(|byte| alphabet.contains(byte))
}

fn describe(shortest: usize, longest: usize, alphabet: Alphabet) -> String {
    if shortest == longest {
        return format!("{shortest} characters of `{alphabet}`");
    }
    format!("{shortest} to {longest} characters of `{alphabet}`")
}

/// Generates `length` random characters of `alphabet` by rejection sampling, so that all are equally likely.
fn random_text(alphabet: &[u8], length: usize) -> Result<String, getrandom::Error> {
    let letters = alphabet.len().max(1);
    let limit = 256 - 256 % letters;
    let mut text = String::with_capacity(length);
    loop {
        let mut bytes = [0; 48];
        getrandom::fill(&mut bytes)?;
        for byte in bytes.into_iter().map(usize::from).filter(|byte| *byte < limit) {
            if text.len() == length {
                return Ok(text);
            }
            text.extend(alphabet.get(byte % letters).map(|c| char::from(*c)));
        }
    }
}
