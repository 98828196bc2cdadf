//! `data`: how Django signs a session. The MAC comes first: nothing is inflated or parsed that no key has signed.
//!
//! - Signing (3.1 and later): `[.]payload:time:mac`. The payload is base64url without padding, of zlib if there is a dot;
//!   the time of the save is in base 62; the MAC is of all that stands before it.
//! - Legacy (1.3 to 3.0): the base64 of `mac:payload`. It does not say when it was saved.
//!
//! Django 1.2 and before signed with MD5 over a pickle; that is not read.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::digest::{Digest, KeyInit as _};
use hmac::{Hmac, Mac as _};
use miniz_oxide::deflate::compress_to_vec_zlib;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::base62;
use crate::config::KeysConfig;
use crate::format::decode::inflate;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The salt is `"django.contrib.sessions."` and the qualified name of the class, whatever module it is in; the signer
/// appends its own.
const SIGNING_SALT: &[u8] = b"django.contrib.sessions.SessionStoresigner";
/// The legacy salt has the class's name without a dot.
const LEGACY_SALT: &[u8] = b"django.contrib.sessionsSessionStore";
/// Bytes of the legacy MAC, in hex.
const LEGACY_MAC: usize = 40;
/// Django's level of compression.
const LEVEL: u8 = 6;

/// `SECRET_KEY` and then `SECRET_KEY_FALLBACKS`, as what is derived of them. An empty one opens nothing, and what it
/// seals opens with nothing.
#[derive(Debug)]
pub(super) struct Keyring(Vec<Derived>);

/// The HMAC keys of one `SECRET_KEY`.
#[derive(Debug)]
struct Derived {
    signing: Secret,
    /// Django 3.1 and 3.2 accept SHA-1, which versions on the way to them wrote.
    signing_sha1: Secret,
    legacy: Secret,
}

/// What `data` holds, once its signature was found good.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// The serialized session.
    pub(super) payload: Vec<u8>,
    /// How it is signed.
    pub(super) envelope: Envelope,
}

/// How `data` is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// With the time of the save.
    Signing(Timestamp),
    /// Without it.
    Legacy,
}

/// Why `data` is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sealed {
    /// It has neither shape.
    Shape,
    /// No key has signed it.
    Signature,
    /// It is a bare pickle, as Django 1.2 wrote.
    Pickle,
}

impl Keyring {
    pub(super) fn new(keys: Option<&KeysConfig>) -> Self {
        let all = keys.iter().flat_map(|keys| std::iter::once(&keys.current).chain(&keys.previous));
        Self(all.map(Derived::new).collect())
    }

    fn any(&self, has_signed: impl Fn(&Derived) -> bool) -> Result<(), Sealed> {
        if self.0.iter().any(has_signed) { Ok(()) } else { Err(Sealed::Signature) }
    }

    /// Verifies `data`, and then unpacks it.
    pub(super) fn open(&self, data: &str) -> Result<Opened, Sealed> {
        if data.contains(':') { self.open_signing(data) } else { self.open_legacy(data) }
    }

    fn open_signing(&self, data: &str) -> Result<Opened, Sealed> {
        let (value, mac) = data.rsplit_once(':').ok_or(Sealed::Shape)?;
        let (packed, time) = value.rsplit_once(':').ok_or(Sealed::Shape)?;
        self.any(|keys| keys.has_signed(value, mac))?;
        let time = base62::decode(time).and_then(|secs| i64::try_from(secs).ok()).ok_or(Sealed::Shape)?;
        let payload = unpack(packed).ok_or(Sealed::Shape)?;
        Ok(Opened { payload, envelope: Envelope::Signing(Timestamp::from_secs(time)) })
    }

    fn open_legacy(&self, data: &str) -> Result<Opened, Sealed> {
        // Django 1.3 to 1.5 break lines.
        let packed: Vec<u8> = data.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let bytes = STANDARD.decode(packed).map_err(|_| Sealed::Shape)?;
        let signed = bytes.split_at_checked(LEGACY_MAC).and_then(|(mac, rest)| {
            let hex = mac.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            Some((mac, rest.strip_prefix(b":")?)).filter(|_| hex)
        });
        let Some((mac, payload)) = signed else {
            return Err(if is_pickle(&bytes) { Sealed::Pickle } else { Sealed::Shape });
        };
        self.any(|keys| keys.legacy_mac(payload).as_bytes().ct_eq(mac).into())?;
        Ok(Opened { payload: payload.to_vec(), envelope: Envelope::Legacy })
    }

    /// Packs and signs `payload` with the current key.
    pub(super) fn seal(&self, payload: &[u8], envelope: Envelope) -> String {
        match envelope {
            Envelope::Signing(time) => self.sign(&pack(payload), time),
            Envelope::Legacy => {
                let mac = self.0.first().map(|current| current.legacy_mac(payload));
                let mut bytes = mac.unwrap_or_default().into_bytes();
                bytes.push(b':');
                bytes.extend_from_slice(payload);
                STANDARD.encode(bytes)
            }
        }
    }

    /// The same payload text signed anew, as saved at `time`; none if `data` is not in the signing format.
    pub(super) fn sign_again(&self, data: &str, time: Timestamp) -> Option<String> {
        let (value, _mac) = data.rsplit_once(':')?;
        let (packed, _time) = value.rsplit_once(':')?;
        Some(self.sign(packed, time))
    }

    fn sign(&self, packed: &str, time: Timestamp) -> String {
        // No clock here stands before 1970.
        let time = base62::encode(u64::try_from(time.as_secs()).unwrap_or(0));
        let value = format!("{packed}:{time}");
        let mac = self.0.first().map(|current| sha256(&current.signing, value.as_bytes()));
        format!("{value}:{}", URL_SAFE_NO_PAD.encode(mac.unwrap_or_default()))
    }
}

impl Derived {
    fn new(secret: &Secret) -> Self {
        Self {
            signing: derive::<Sha256>(SIGNING_SALT, secret),
            signing_sha1: derive::<Sha1>(SIGNING_SALT, secret),
            legacy: derive::<Sha1>(LEGACY_SALT, secret),
        }
    }

    /// The encoded MACs are compared, as Django compares them, so that only the canonical spelling is one.
    fn has_signed(&self, value: &str, mac: &str) -> bool {
        let is = |found: &[u8]| URL_SAFE_NO_PAD.encode(found).as_bytes().ct_eq(mac.as_bytes());
        (is(&sha256(&self.signing, value.as_bytes())) | is(&sha1(&self.signing_sha1, value.as_bytes())))
            .into()
    }

    fn legacy_mac(&self, payload: &[u8]) -> String {
        sha1(&self.legacy, payload).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Django's `salted_hmac` takes the hash of the salt and the secret for its key.
fn derive<D: Digest>(salt: &[u8], secret: &Secret) -> Secret {
    Secret::new(&D::new().chain_update(salt).chain_update(secret.expose()).finalize()[..])
}

// HMAC takes a key of any length, so there is no failure to pass on; an empty MAC is nobody's.

fn sha256(key: &Secret, message: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key.expose()).map(|mac| mac.chain_update(message));
    mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}

fn sha1(key: &Secret, message: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha1>::new_from_slice(key.expose()).map(|mac| mac.chain_update(message));
    mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}

/// Django's rule: compressed, and marked by a dot, where that saves more than a byte.
fn pack(payload: &[u8]) -> String {
    let deflated = compress_to_vec_zlib(payload, LEVEL);
    if deflated.len() + 1 < payload.len() {
        format!(".{}", URL_SAFE_NO_PAD.encode(deflated))
    } else {
        URL_SAFE_NO_PAD.encode(payload)
    }
}

fn unpack(packed: &str) -> Option<Vec<u8>> {
    match packed.strip_prefix('.') {
        Some(deflated) => inflate::zlib(&URL_SAFE_NO_PAD.decode(deflated).ok()?),
        None => URL_SAFE_NO_PAD.decode(packed).ok(),
    }
}

/// Whether bytes begin as pickles do: protocol 2 and later say so, 0 and 1 begin with an empty dict or a mark.
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 0..=9, ..] | [b'(', b'd', ..] | [b'}', ..])
}
