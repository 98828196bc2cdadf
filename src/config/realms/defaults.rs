//! What a realm is where the file says nothing: as the framework of its format has it.

use std::time::Duration;

use crate::config::{Consistency, FormatKind, SameSite};

/// `SESSION_COOKIE_AGE`
const TWO_WEEKS: Duration = Duration::from_hours(14 * 24);

pub(super) struct Defaults {
    /// None: the file has to name it.
    pub(super) table: Option<&'static str>,
    pub(super) key_attribute: &'static str,
    pub(super) timeout: Duration,
    pub(super) reissue_time: Duration,
    pub(super) consistency: Consistency,
    /// An app that owns its sessions reads the cookie itself; ours is of no use to anyone else.
    pub(super) forward_cookie: bool,
    pub(super) cookie_name: &'static str,
    pub(super) samesite: SameSite,
    pub(super) max_age: Option<Duration>,
}

impl Defaults {
    pub(super) fn of(format: FormatKind) -> Self {
        let native = Self {
            table: None,
            key_attribute: "sid",
            timeout: Duration::from_mins(20),
            reissue_time: Duration::from_mins(2),
            consistency: Consistency::Auto,
            forward_cookie: false,
            cookie_name: "session_id",
            samesite: SameSite::Strict,
            max_age: None,
        };
        match format {
            FormatKind::Native => native,
            FormatKind::Pyramid => Self { forward_cookie: true, ..native },
            FormatKind::Django => Self {
                table: Some("sessions"),
                key_attribute: "session_key",
                timeout: TWO_WEEKS,
                reissue_time: Duration::from_hours(1),
                consistency: Consistency::Strong,
                forward_cookie: true,
                cookie_name: "sessionid",
                samesite: SameSite::Lax,
                max_age: Some(TWO_WEEKS),
            },
        }
    }
}
