//! The pages of the demo app: their paths, statuses and texts.

use http::StatusCode;

/// The app's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageKind {
    Home,
    Members,
    Admin,
    Public,
    Login,
    Unknown,
}

impl PageKind {
    pub(super) const LINKED: [(&'static str, Self); 4] =
        [("/", Self::Home), ("/members", Self::Members), ("/admin", Self::Admin), ("/public", Self::Public)];

    pub(super) fn from_path(path: &str) -> Self {
        match path {
            "/" => Self::Home,
            "/members" => Self::Members,
            "/admin" => Self::Admin,
            "/public" => Self::Public,
            "/login" => Self::Login,
            _ => Self::Unknown,
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Home | Self::Members | Self::Admin | Self::Public | Self::Login => StatusCode::OK,
            Self::Unknown => StatusCode::NOT_FOUND,
        }
    }

    /// Where the page's script asks: below the page's own path, so that the same route answers.
    pub(super) fn poll(self) -> &'static str {
        match self {
            Self::Members => "/members/whoami",
            Self::Admin => "/admin/whoami",
            Self::Public => "/public/whoami",
            Self::Home | Self::Login | Self::Unknown => "/whoami",
        }
    }

    pub(super) fn note(self) -> &'static str {
        match self {
            Self::Home => {
                "This app has no idea what a session is. It greets whoever the X-User header names, and only the \
                 gateway in front of it can set that header."
            }
            Self::Members => {
                "Members only. Without a session the gateway does not let a request come this far."
            }
            Self::Admin => {
                "Admins only. The gateway looked for the admin role in the session; the app did not have to."
            }
            Self::Public => {
                "Public. The gateway looks up no session here, so the app meets a stranger, even if you are signed in."
            }
            Self::Login => "That page wants a session. The gateway sent you here to get one.",
            Self::Unknown => {
                "There is no such page in this app. These are the headers it received, all the same."
            }
        }
    }
}
