//! What each format is by default: the names and times that its framework takes when nobody says otherwise.

use std::time::Duration;

use super::Keys;
use crate::config::layout::{
    CookieCodec, IdKind, KeyTemplate, LayoutConfig, PayloadCodec, Signer, TimeRule, TimeUnit,
};
use crate::config::{Consistency, FormatKind, SameSite};
use crate::item::KeyType;

/// The word of `format = "…"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preset {
    Native,
    Pyramid,
    Django,
    Layout,
    Adonis,
    ConnectDynamodbSession,
    DynamodbSessionWeb,
    DynamodbStore,
    Dysession,
    Express,
    FlaskSession,
    Rack,
}

pub(super) const WORDS: [(&str, Preset); 12] = [
    ("native", Preset::Native),
    ("pyramid", Preset::Pyramid),
    ("django", Preset::Django),
    ("layout", Preset::Layout),
    ("adonis", Preset::Adonis),
    ("connect-dynamodb-session", Preset::ConnectDynamodbSession),
    ("dynamodb-session-web", Preset::DynamodbSessionWeb),
    ("dynamodb-store", Preset::DynamodbStore),
    ("dysession", Preset::Dysession),
    ("express", Preset::Express),
    ("flask-session", Preset::FlaskSession),
    ("rack", Preset::Rack),
];

/// django.contrib.auth's `SESSION_KEY`.
const DJANGO_USER: &[&str] = &["_auth_user_id"];
/// Flask-Login's `login_user` since 0.5.
const FLASK_USER: &[&str] = &["_user_id"];
/// Passport's session strategy, whose key is `passport`.
const PASSPORT_USER: &[&str] = &["passport.user"];

/// A realm's defaults.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) format: FormatKind,
    /// Only where the framework itself has a default.
    pub(super) table: Option<&'static str>,
    pub(super) key_attribute: &'static str,
    pub(super) cookie: CookieDefaults,
    pub(super) timeout: Duration,
    pub(super) reissue_time: Duration,
    pub(super) consistency: Consistency,
    /// The claims that say who is logged in, where the framework or its usual log-in library has them; empty: unknown.
    pub(super) user: &'static [&'static str],
    pub(super) keys: Keys,
    /// Whether rows say when a session was created.
    pub(super) records_creation: bool,
}

/// A cookie's defaults.
#[derive(Debug)]
pub(super) struct CookieDefaults {
    pub(super) name: &'static str,
    pub(super) samesite: Option<SameSite>,
    pub(super) max_age: Option<Duration>,
}

impl Defaults {
    /// sessiongate's own.
    fn own() -> Self {
        Self {
            format: FormatKind::Native,
            table: None,
            key_attribute: "sid",
            cookie: CookieDefaults { name: "session_id", samesite: Some(SameSite::Strict), max_age: None },
            timeout: Duration::from_mins(20),
            reissue_time: Duration::from_mins(2),
            consistency: Consistency::Auto,
            user: &["user"],
            keys: Keys::Optional,
            records_creation: true,
        }
    }
}

impl Preset {
    /// How the configuration calls it.
    pub(super) fn word(self) -> &'static str {
        WORDS.iter().find(|(_, preset)| *preset == self).map_or("", |(word, _)| word)
    }

    pub(super) fn defaults(self) -> Defaults {
        let layout = LayoutConfig {
            name: self.word(),
            cookie: CookieCodec::Plain,
            ids: IdKind::Token,
            key: KeyTemplate { before: String::new(), after: String::new() },
            key_type: KeyType::String,
            payload: Some("data".to_owned()),
            codec: PayloadCodec::Json,
            marker: None,
            version: None,
            expires: Some("expires".to_owned()),
            created: None,
            unit: TimeUnit::Seconds,
            rule: TimeRule::Deadline,
        };
        let express = LayoutConfig { cookie: CookieCodec::Express, ids: IdKind::Uid, ..layout.clone() };
        let prefix = |before: &str| KeyTemplate { before: before.to_owned(), after: String::new() };
        let some = |name: &str| Some(name.to_owned());
        let of = |layout: LayoutConfig| Defaults {
            records_creation: layout.created.is_some(),
            format: FormatKind::Layout(Box::new(layout)),
            key_attribute: "id",
            table: Some("sessions"),
            user: &[],
            ..Defaults::own()
        };
        let hours = Duration::from_hours;
        let cookie = |name, samesite, max_age| CookieDefaults { name, samesite, max_age };
        match self {
            Self::Native => Defaults::own(),
            Self::Pyramid => Defaults {
                format: FormatKind::Pyramid,
                // `SessionAuthenticationHelper` and `SessionAuthenticationPolicy`: prefix `auth.`, key `userid`.
                user: &["auth.userid"],
                keys: Keys::Useless,
                records_creation: false,
                ..Defaults::own()
            },
            // Those of django-dynamodb-sessions and of Django's settings.
            Self::Django => Defaults {
                format: FormatKind::Django,
                table: Some("sessions"),
                key_attribute: "session_key",
                cookie: cookie("sessionid", Some(SameSite::Lax), Some(hours(14 * 24))),
                timeout: hours(14 * 24),
                // A session is signed again at most once an hour, which is seldom for two weeks.
                reissue_time: hours(1),
                consistency: Consistency::Strong,
                user: DJANGO_USER,
                keys: Keys::Required,
                records_creation: true,
            },
            Self::Layout => Defaults { table: None, ..of(layout) },
            Self::Express => Defaults {
                cookie: cookie("connect.sid", None, None),
                timeout: hours(24),
                consistency: Consistency::Strong,
                user: PASSPORT_USER,
                keys: Keys::Required,
                ..of(LayoutConfig {
                    key: prefix("sess:"),
                    payload: some("sess"),
                    marker: Some(("type", "connect-session")),
                    ..express
                })
            },
            Self::DynamodbStore => Defaults {
                key_attribute: "sessionId",
                cookie: cookie("connect.sid", None, None),
                timeout: hours(24),
                consistency: Consistency::Strong,
                user: PASSPORT_USER,
                keys: Keys::Required,
                ..of(LayoutConfig {
                    key: prefix("sess:"),
                    payload: some("sess"),
                    codec: PayloadCodec::Map,
                    rule: TimeRule::Required,
                    ..express
                })
            },
            Self::ConnectDynamodbSession => Defaults {
                cookie: cookie("connect.sid", None, None),
                timeout: hours(24),
                consistency: Consistency::Strong,
                user: PASSPORT_USER,
                keys: Keys::Required,
                ..of(LayoutConfig { payload: some("content"), unit: TimeUnit::Millis, ..express })
            },
            Self::FlaskSession => Defaults {
                table: Some("Sessions"),
                cookie: cookie("session", None, Some(hours(31 * 24))),
                timeout: hours(31 * 24),
                user: FLASK_USER,
                ..of(LayoutConfig {
                    cookie: CookieCodec::Itsdangerous(Signer::Flask),
                    key: prefix("session:"),
                    payload: some("val"),
                    codec: PayloadCodec::Msgpack,
                    expires: some("expiration"),
                    ..layout
                })
            },
            Self::DynamodbSessionWeb => Defaults {
                table: Some("app_session"),
                cookie: cookie("id", Some(SameSite::Strict), Some(hours(2))),
                timeout: hours(2),
                consistency: Consistency::Strong,
                user: FLASK_USER,
                ..of(LayoutConfig {
                    cookie: CookieCodec::Itsdangerous(Signer::Whole),
                    created: some("created"),
                    rule: TimeRule::Web,
                    ..layout
                })
            },
            Self::Rack => Defaults {
                key_attribute: "session_id",
                cookie: cookie("rack.session", None, None),
                // The library ends no session by default.
                timeout: hours(30 * 24),
                consistency: Consistency::Strong,
                // Warden, and so Devise, with the scope `user`: `[[id], salt]`.
                user: &["warden.user.user.key"],
                keys: Keys::Required,
                ..of(LayoutConfig {
                    cookie: CookieCodec::RackHmac,
                    ids: IdKind::Hex,
                    expires: some("expire_at"),
                    created: some("created_at"),
                    rule: TimeRule::Rack,
                    ..layout
                })
            },
            Self::Adonis => Defaults {
                table: Some("Session"),
                key_attribute: "key",
                cookie: cookie("adonis_session", Some(SameSite::Lax), Some(hours(2))),
                timeout: hours(2),
                // @adonisjs/auth's session guard: `auth_` and the guard's name.
                user: &["auth_web"],
                keys: Keys::Required,
                ..of(LayoutConfig {
                    cookie: CookieCodec::Adonis,
                    ids: IdKind::Uuid,
                    payload: some("value"),
                    expires: some("expires_at"),
                    unit: TimeUnit::Millis,
                    ..layout
                })
            },
            Self::Dysession => Defaults {
                key_attribute: "PK",
                cookie: cookie("sessionid", Some(SameSite::Lax), None),
                timeout: hours(14 * 24),
                user: DJANGO_USER,
                keys: Keys::Useless,
                ..of(LayoutConfig {
                    ids: IdKind::Django,
                    payload: None,
                    codec: PayloadCodec::Map,
                    expires: some("ttl"),
                    rule: TimeRule::Fixed,
                    ..layout
                })
            },
        }
    }
}
