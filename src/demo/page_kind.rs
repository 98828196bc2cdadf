//! The pages of the demo app: their paths, status codes and texts.

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

    /// Returns the path that the page's script polls: for `/members`, `/admin` and `/public` a path below the page,
    /// which has the page's route, and for all other pages `/whoami`.
    pub(super) fn poll_path(self) -> &'static str {
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
                "This app knows nothing about sessions. It greets the user in the X-User header, and only the gateway \
                 in front of it can set that header."
            }
            Self::Members => {
                "In sessiongate demo, this page is for members only: the gateway does not forward requests without a \
                 logged-in user to it."
            }
            Self::Admin => {
                "In sessiongate demo, this page is for admins only: the gateway checks for the admin role in the session, \
                 so the app does not need to."
            }
            Self::Public => {
                "In sessiongate demo, this page is public: the gateway does not look up sessions here, so you are \
                 anonymous even if you are logged in."
            }
            Self::Login => {
                "The page that you requested requires you to log in. The gateway redirected you here."
            }
            Self::Unknown => "This app has no such page. These are the headers that it received.",
        }
    }
}
