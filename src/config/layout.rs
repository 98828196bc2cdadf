//! `[sessions.NAME.layout]`, resolved: where a framework's rows and its cookie say what. The presets are layouts that
//! are filled in already.

use crate::item::KeyType;

/// A layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutConfig {
    /// What the configuration calls the format: `layout`, or a preset's name.
    pub name: &'static str,
    /// How the cookie is written.
    pub cookie: CookieCodec,
    /// How ids are made.
    pub ids: IdKind,
    /// The row's key.
    pub key: KeyTemplate,
    /// The type of the key attribute.
    pub key_type: KeyType,
    /// The attribute of the payload; none: every attribute of the row is a claim.
    pub payload: Option<String>,
    /// How the payload is written.
    pub codec: PayloadCodec,
    /// An attribute that, where it is there, has this text in a session's row.
    pub marker: Option<(&'static str, &'static str)>,
    /// The attribute of the version; none: versions are fingerprints of the payload.
    pub version: Option<String>,
    /// The attribute of the idle deadline; none: a session ends its timeout after its creation.
    pub expires: Option<String>,
    /// The attribute of the moment of creation.
    pub created: Option<String>,
    /// How the two are written.
    pub unit: TimeUnit,
    /// What else there is to their meaning.
    pub rule: TimeRule,
}

/// How the cookie is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieCodec {
    /// The id.
    Plain,
    /// express-session: `s:id.mac`, percent-encoded; the session's own settings are in the payload, as `cookie`.
    Express,
    /// The cookie-signature package: `id.mac`, percent-encoded.
    CookieSignature,
    /// itsdangerous: `id.mac`.
    Itsdangerous(Signer),
    /// `id/version`, where the version is the row's.
    IdVersion,
    /// Rack: `mac--id`, and all of it is the key.
    RackHmac,
    /// AdonisJS: `s:message.mac`, where the message holds the id; the payload is wrapped likewise.
    Adonis,
}

/// A way to use itsdangerous' `Signer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// As it is by default: salt `itsdangerous.Signer`, key derivation `django-concat`.
    Default,
    /// The same, where the row's key is the whole cookie.
    Whole,
    /// Flask-Session's: salt `flask-session`, key derivation `hmac`.
    Flask,
}

/// How ids are made, and so what an unsigned one looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// 24 random bytes in base64url: uid-safe's.
    Uid,
    /// 32 random bytes in base64url: Python's `token_urlsafe()`.
    Token,
    /// 32 random bytes in hex.
    Hex,
    /// A random UUID.
    Uuid,
    /// 32 lower-case letters and digits: Django's.
    Django,
}

/// `key = "sess:{id}"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    /// Before the id.
    pub before: String,
    /// After it.
    pub after: String,
}

/// How the payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadCodec {
    /// A JSON object, in a string or in bytes.
    Json,
    /// DynamoDB's own types.
    Map,
    /// MessagePack; JSON in bytes is read, too, as Flask-Session does.
    Msgpack,
}

/// How a moment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Unix seconds, perhaps with a fraction.
    Seconds,
    /// Unix milliseconds.
    Millis,
    /// ISO 8601, in a string.
    Iso8601,
}

/// What else there is to the meaning of the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeRule {
    /// Nothing: a reissue sets the deadline. A row without one never ends.
    Deadline,
    /// A row without a deadline is no session.
    Required,
    /// The framework never moves the deadline, so neither do we.
    Fixed,
    /// aws-sessionstore-dynamodb: the deadline is nonsense by default, the last activity in `updated_at` is not.
    Rack,
    /// dynamodb-session-web: each row has timeouts of its own.
    Web,
}
