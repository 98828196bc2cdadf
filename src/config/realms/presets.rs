//! The session formats: one preset for each value of `format = "…"`, with the names and times that its framework
//! uses by default.

use std::time::Duration;

use crate::config::layout::{
    CookieCodec, IdKind, KeyTemplate, LayoutConfig, PayloadCodec, Signer, TimeRule, TimeUnit,
};
use crate::config::{Consistency, FormatKind, SameSite};
use crate::item::KeyType;

/// A session format and the defaults of its realms.
#[derive(Debug)]
pub(super) struct Preset {
    /// The value of `format`.
    pub(super) name: &'static str,
    pub(super) rows: PresetRows,
    /// The table, if the framework has a default for it.
    pub(super) table: Option<&'static str>,
    pub(super) key_attribute: &'static str,
    pub(super) cookie: CookieDefaults,
    pub(super) timeout: Duration,
    pub(super) reissue_time: Duration,
    pub(super) consistency: Consistency,
    /// The claims that name the user, as the framework or its usual login library writes them. Empty if there are none.
    pub(super) user: &'static [&'static str],
    pub(super) signing: Signing,
}

/// How a format's rows are read and written.
#[derive(Clone, Copy, Debug)]
pub(super) enum PresetRows {
    Native,
    Pyramid,
    Django,
    /// With a layout that the preset fixes.
    Preset(PresetLayout),
    /// With a layout that the configuration declares, starting from this one.
    Declared(PresetLayout),
}

/// Whether a format signs with the keys of its realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signing {
    /// If the realm has keys.
    Optional,
    /// Always, so the realm must have keys.
    Required,
    /// Never.
    Unsupported,
}

/// Defaults of the session cookie's attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct CookieDefaults {
    pub(super) name: &'static str,
    pub(super) samesite: Option<SameSite>,
    pub(super) max_age: Option<Duration>,
}

/// A [`LayoutConfig`] as a constant.
#[derive(Clone, Copy, Debug)]
pub(super) struct PresetLayout {
    cookie: CookieCodec,
    ids: IdKind,
    /// Whether the application chooses its ids, so that `layout.ids` may describe them.
    pub(super) has_custom_ids: bool,
    key_prefix: &'static str,
    payload: Option<&'static str>,
    codec: PayloadCodec,
    marker: Option<(&'static str, &'static str)>,
    expires: &'static str,
    created: Option<&'static str>,
    unit: TimeUnit,
    rule: TimeRule,
}

/// django.contrib.auth's `SESSION_KEY`.
const DJANGO_USER: &[&str] = &["_auth_user_id"];
/// Flask-Login's `login_user` since 0.5.
const FLASK_USER: &[&str] = &["_user_id"];
/// Passport's session strategy, whose key is `passport`.
const PASSPORT_USER: &[&str] = &["passport.user"];

/// sessiongate's own format.
pub(super) const NATIVE: Preset = Preset {
    name: "native",
    rows: PresetRows::Native,
    table: None,
    key_attribute: "sid",
    cookie: CookieDefaults { name: "session_id", samesite: Some(SameSite::Strict), max_age: None },
    timeout: Duration::from_mins(20),
    reissue_time: Duration::from_mins(2),
    consistency: Consistency::Auto,
    user: &["user"],
    signing: Signing::Optional,
};

const LAYOUT: PresetLayout = PresetLayout {
    cookie: CookieCodec::Plain,
    ids: IdKind::Token,
    has_custom_ids: false,
    key_prefix: "",
    payload: Some("data"),
    codec: PayloadCodec::Json,
    marker: None,
    expires: "expires",
    created: None,
    unit: TimeUnit::Seconds,
    rule: TimeRule::Deadline,
};

/// The defaults of express-session: its ids, the signed cookie `connect.sid`, and an idle timeout of a day.
const EXPRESS_LAYOUT: PresetLayout =
    PresetLayout { cookie: CookieCodec::Express, ids: IdKind::Uid, ..LAYOUT };
const EXPRESS: Preset = Preset {
    table: Some("sessions"),
    key_attribute: "id",
    cookie: CookieDefaults { name: "connect.sid", samesite: None, max_age: None },
    timeout: days(1),
    consistency: Consistency::Strong,
    user: PASSPORT_USER,
    signing: Signing::Required,
    ..NATIVE
};

/// Every format, in the order in which error messages list them.
pub(super) static PRESETS: [Preset; 12] = [
    NATIVE,
    Preset {
        name: "pyramid",
        rows: PresetRows::Pyramid,
        // `SessionAuthenticationHelper` and `SessionAuthenticationPolicy`: prefix `auth.`, key `userid`.
        user: &["auth.userid"],
        signing: Signing::Unsupported,
        ..NATIVE
    },
    // The defaults of django-dynamodb-sessions and of Django's settings.
    Preset {
        name: "django",
        rows: PresetRows::Django,
        table: Some("sessions"),
        key_attribute: "session_key",
        cookie: CookieDefaults { name: "sessionid", samesite: Some(SameSite::Lax), max_age: Some(days(14)) },
        timeout: days(14),
        // A reissue signs the session again; once an hour is enough for a timeout of two weeks.
        reissue_time: Duration::from_hours(1),
        consistency: Consistency::Strong,
        user: DJANGO_USER,
        signing: Signing::Required,
    },
    Preset {
        name: "layout",
        rows: PresetRows::Declared(PresetLayout { has_custom_ids: true, ..LAYOUT }),
        key_attribute: "id",
        user: &[],
        ..NATIVE
    },
    Preset {
        name: "adonis",
        rows: PresetRows::Preset(PresetLayout {
            cookie: CookieCodec::Adonis,
            ids: IdKind::Uuid,
            payload: Some("value"),
            expires: "expires_at",
            unit: TimeUnit::Millis,
            ..LAYOUT
        }),
        table: Some("Session"),
        key_attribute: "key",
        cookie: CookieDefaults {
            name: "adonis_session",
            samesite: Some(SameSite::Lax),
            max_age: Some(Duration::from_hours(2)),
        },
        timeout: Duration::from_hours(2),
        // @adonisjs/auth's session guard: `auth_` and the guard's name.
        user: &["auth_web"],
        signing: Signing::Required,
        ..NATIVE
    },
    Preset {
        name: "connect-dynamodb-session",
        rows: PresetRows::Preset(PresetLayout {
            payload: Some("content"),
            unit: TimeUnit::Millis,
            ..EXPRESS_LAYOUT
        }),
        ..EXPRESS
    },
    Preset {
        name: "dynamodb-session-web",
        rows: PresetRows::Preset(PresetLayout {
            cookie: CookieCodec::Itsdangerous(Signer::Whole),
            has_custom_ids: true,
            created: Some("created"),
            rule: TimeRule::Web,
            ..LAYOUT
        }),
        table: Some("app_session"),
        key_attribute: "id",
        cookie: CookieDefaults {
            name: "id",
            samesite: Some(SameSite::Strict),
            max_age: Some(Duration::from_hours(2)),
        },
        timeout: Duration::from_hours(2),
        consistency: Consistency::Strong,
        user: FLASK_USER,
        ..NATIVE
    },
    Preset {
        name: "dynamodb-store",
        rows: PresetRows::Preset(PresetLayout {
            key_prefix: "sess:",
            payload: Some("sess"),
            codec: PayloadCodec::Map,
            rule: TimeRule::Required,
            ..EXPRESS_LAYOUT
        }),
        key_attribute: "sessionId",
        ..EXPRESS
    },
    Preset {
        name: "dysession",
        rows: PresetRows::Preset(PresetLayout {
            ids: IdKind::Django,
            payload: None,
            codec: PayloadCodec::Map,
            expires: "ttl",
            rule: TimeRule::Fixed,
            ..LAYOUT
        }),
        table: Some("sessions"),
        key_attribute: "PK",
        cookie: CookieDefaults { name: "sessionid", samesite: Some(SameSite::Lax), max_age: None },
        timeout: days(14),
        user: DJANGO_USER,
        signing: Signing::Unsupported,
        ..NATIVE
    },
    Preset {
        name: "express",
        rows: PresetRows::Preset(PresetLayout {
            key_prefix: "sess:",
            payload: Some("sess"),
            marker: Some(("type", "connect-session")),
            ..EXPRESS_LAYOUT
        }),
        ..EXPRESS
    },
    Preset {
        name: "flask-session",
        rows: PresetRows::Preset(PresetLayout {
            cookie: CookieCodec::Itsdangerous(Signer::Flask),
            has_custom_ids: true,
            key_prefix: "session:",
            payload: Some("val"),
            codec: PayloadCodec::Msgpack,
            expires: "expiration",
            ..LAYOUT
        }),
        table: Some("Sessions"),
        key_attribute: "id",
        cookie: CookieDefaults { name: "session", samesite: None, max_age: Some(days(31)) },
        timeout: days(31),
        user: FLASK_USER,
        ..NATIVE
    },
    Preset {
        name: "rack",
        rows: PresetRows::Preset(PresetLayout {
            cookie: CookieCodec::RackHmac,
            ids: IdKind::Hex,
            expires: "expire_at",
            created: Some("created_at"),
            rule: TimeRule::Rack,
            ..LAYOUT
        }),
        table: Some("sessions"),
        key_attribute: "session_id",
        cookie: CookieDefaults { name: "rack.session", samesite: None, max_age: None },
        // The library never expires sessions by default.
        timeout: days(30),
        consistency: Consistency::Strong,
        // Warden, and so Devise, with the scope `user`: `[[id], salt]`.
        user: &["warden.user.user.key"],
        signing: Signing::Required,
        ..NATIVE
    },
];

const fn days(number: u64) -> Duration {
    Duration::from_hours(number * 24)
}

impl Preset {
    pub(super) fn is_native(&self) -> bool {
        matches!(self.rows, PresetRows::Native)
    }

    pub(super) fn is_django(&self) -> bool {
        matches!(self.rows, PresetRows::Django)
    }

    /// Returns whether rows record when a session was created.
    pub(super) fn records_creation(&self) -> bool {
        match self.rows {
            PresetRows::Native | PresetRows::Django => true,
            PresetRows::Pyramid => false,
            PresetRows::Preset(layout) | PresetRows::Declared(layout) => layout.created.is_some(),
        }
    }

    /// Returns whether rows have an attribute of this name besides the key. The names of a declared layout are not known
    /// here.
    pub(super) fn uses_attribute(&self, name: &str) -> bool {
        match self.rows {
            PresetRows::Native => ["dat", "ver", "iss", "exp", "cre", "cls", "nxt", "prv"].contains(&name),
            PresetRows::Pyramid => ["dat", "ver", "iss", "exp"].contains(&name),
            PresetRows::Django => ["data", "created", "ttl"].contains(&name),
            PresetRows::Preset(layout) => layout.uses_attribute(name),
            PresetRows::Declared(_) => false,
        }
    }

    /// Returns the format, before the configuration's `layout` is applied to it.
    pub(super) fn format(&self) -> FormatKind {
        match self.rows {
            PresetRows::Native => FormatKind::Native,
            PresetRows::Pyramid => FormatKind::Pyramid,
            PresetRows::Django => FormatKind::Django,
            PresetRows::Preset(layout) | PresetRows::Declared(layout) => {
                FormatKind::Layout(Box::new(layout.to_config(self.name)))
            }
        }
    }
}

impl PresetLayout {
    fn uses_attribute(&self, name: &str) -> bool {
        let times: &[&str] = match self.rule {
            TimeRule::Deadline | TimeRule::Required | TimeRule::Fixed => &[],
            TimeRule::Rack => &["updated_at", "locked_at"],
            TimeRule::Web => &["accessed", "idle_timeout", "absolute_timeout"],
        };
        let marker = self.marker.map(|(marker, _)| marker);
        let names = [self.payload, marker, Some(self.expires), self.created];
        names.contains(&Some(name)) || times.contains(&name)
    }

    fn to_config(self, name: &'static str) -> LayoutConfig {
        LayoutConfig {
            name,
            cookie: self.cookie,
            ids: self.ids,
            key: KeyTemplate { before: self.key_prefix.to_owned(), after: String::new() },
            key_type: KeyType::String,
            payload: self.payload.map(str::to_owned),
            codec: self.codec,
            marker: self.marker,
            version: None,
            expires: Some(self.expires.to_owned()),
            created: self.created.map(str::to_owned),
            unit: self.unit,
            rule: self.rule,
        }
    }
}
