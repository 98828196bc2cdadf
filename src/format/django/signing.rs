//! Django's signing of sessions, in the attribute `data`. The MAC is verified before anything is inflated or parsed.
//!
//! - Signing format (3.1 and later): `[.]payload:time:mac`. The payload is in base64url without padding, and compressed
//!   with zlib if there is a dot; the time of the save is in base 62; the MAC covers everything before it.
//! - Legacy format (1.3 to 3.0): the base64 of `mac:payload`, without the time of the save.
//!
//! Django 1.2 and earlier, which signed a pickle with MD5, are not supported.

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

/// `"django.contrib.sessions."`, the qualified name of the session class without its module, and `"signer"`, which
/// Django's signer appends.
const SIGNING_SALT: &[u8] = b"django.contrib.sessions.SessionStoresigner";
/// The legacy salt has no dot before the class's name.
const LEGACY_SALT: &[u8] = b"django.contrib.sessionsSessionStore";
/// Length of the legacy MAC, in hex digits.
const LEGACY_MAC: usize = 40;
/// Django's compression level.
const LEVEL: u8 = 6;

/// The keys derived from `SECRET_KEY` and `SECRET_KEY_FALLBACKS`. An empty keyring verifies nothing, and its
/// signatures are never valid.
#[derive(Debug)]
pub(super) struct Keyring(Vec<DerivedKeys>);

/// The HMAC keys derived from one `SECRET_KEY`.
#[derive(Debug)]
struct DerivedKeys {
    signing: Secret,
    /// Development versions of Django 3.1 signed with SHA-1, which 3.1 and 3.2 still accept.
    signing_sha1: Secret,
    legacy: Secret,
}

/// A payload with a valid signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// The serialized session.
    pub(super) payload: Vec<u8>,
    /// The format in which it is signed.
    pub(super) envelope: Envelope,
}

/// The format in which `data` is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// The signing format, with the time of the save.
    Signing(Timestamp),
    /// The legacy format.
    Legacy,
}

/// The reason why `data` is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// `data` is in neither format.
    Shape,
    /// The MAC does not match any key.
    Signature,
    /// `data` is a pickle without a MAC of the legacy format, as Django 1.2 wrote it.
    Pickle,
}

impl Keyring {
    pub(super) fn new(keys: Option<&KeysConfig>) -> Self {
        let all = keys.iter().flat_map(|keys| std::iter::once(&keys.current).chain(&keys.previous));
        Self(all.map(DerivedKeys::new).collect())
    }

    fn verify(&self, is_signed_by: impl Fn(&DerivedKeys) -> bool) -> Result<(), OpenError> {
        if self.0.iter().any(is_signed_by) { Ok(()) } else { Err(OpenError::Signature) }
    }

    /// Verifies and unpacks `data`.
    pub(super) fn open(&self, data: &str) -> Result<Opened, OpenError> {
        if data.contains(':') { self.open_signing(data) } else { self.open_legacy(data) }
    }

    fn open_signing(&self, data: &str) -> Result<Opened, OpenError> {
        let (value, mac) = data.rsplit_once(':').ok_or(OpenError::Shape)?;
        let (packed, time) = value.rsplit_once(':').ok_or(OpenError::Shape)?;
        self.verify(|keys| keys.has_signed(value, mac))?;
        let time = base62::decode(time).and_then(|secs| i64::try_from(secs).ok()).ok_or(OpenError::Shape)?;
        let payload = unpack(packed).ok_or(OpenError::Shape)?;
        Ok(Opened { payload, envelope: Envelope::Signing(Timestamp::from_secs(time)) })
    }

    fn open_legacy(&self, data: &str) -> Result<Opened, OpenError> {
        // Django 1.3 to 1.5 insert line breaks.
        let packed: Vec<u8> = data.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let bytes = STANDARD.decode(packed).map_err(|_| OpenError::Shape)?;
        let signed = bytes.split_at_checked(LEGACY_MAC).and_then(|(mac, rest)| {
            let hex = mac.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            Some((mac, rest.strip_prefix(b":")?)).filter(|_| hex)
        });
        let Some((mac, payload)) = signed else {
            return Err(if is_pickle(&bytes) { OpenError::Pickle } else { OpenError::Shape });
        };
        self.verify(|keys| keys.legacy_mac(payload).as_bytes().ct_eq(mac).into())?;
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

    /// Signs the payload of `data` again, with `time` as the time of the save. Returns `None` if `data` is not in the
    /// signing format.
    pub(super) fn resign(&self, data: &str, time: Timestamp) -> Option<String> {
        let (value, _mac) = data.rsplit_once(':')?;
        let (packed, _time) = value.rsplit_once(':')?;
        Some(self.sign(packed, time))
    }

    fn sign(&self, packed: &str, time: Timestamp) -> String {
        // Never negative: the gateway's clock does not go below the epoch.
        let time = base62::encode(u64::try_from(time.as_secs()).unwrap_or(0));
        let value = format!("{packed}:{time}");
        let mac = self.0.first().map(|current| sha256(&current.signing, value.as_bytes()));
        format!("{value}:{}", URL_SAFE_NO_PAD.encode(mac.unwrap_or_default()))
    }
}

impl DerivedKeys {
    fn new(secret: &Secret) -> Self {
        Self {
            signing: derive::<Sha256>(SIGNING_SALT, secret),
            signing_sha1: derive::<Sha1>(SIGNING_SALT, secret),
            legacy: derive::<Sha1>(LEGACY_SALT, secret),
        }
    }

    /// Returns whether `mac` is valid for `value`. Like Django, compares the encoded MACs, so that only the canonical
    /// encoding is accepted.
    fn has_signed(&self, value: &str, mac: &str) -> bool {
        let matches = |computed: &[u8]| URL_SAFE_NO_PAD.encode(computed).as_bytes().ct_eq(mac.as_bytes());
        let by_sha256 = matches(&sha256(&self.signing, value.as_bytes()));
        (by_sha256 | matches(&sha1(&self.signing_sha1, value.as_bytes()))).into()
    }

    fn legacy_mac(&self, payload: &[u8]) -> String {
        sha1(&self.legacy, payload).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Derives an HMAC key as Django's `salted_hmac` does: the hash of the salt and the secret.
fn derive<D: Digest>(salt: &[u8], secret: &Secret) -> Secret {
    Secret::new(&D::new().chain_update(salt).chain_update(secret.expose()).finalize()[..])
}

// HMAC accepts keys of any length, so these never fail.

fn sha256(key: &Secret, message: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key.expose()).map(|mac| mac.chain_update(message));
    mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}

fn sha1(key: &Secret, message: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha1>::new_from_slice(key.expose()).map(|mac| mac.chain_update(message));
    mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}

/// Encodes a payload. Like Django, compresses it if that saves more than one byte, and marks that with a leading dot.
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

/// Returns whether `bytes` begin like a pickled dict: with the protocol number (2 and later), or with an empty dict or
/// a mark (0 and 1).
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 0..=9, ..] | [b'(', b'd', ..] | [b'}', ..])
}
