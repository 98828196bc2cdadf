//! `[admin]`
//!
//! What it serves names tables, servers and routes, so beyond this machine it is for who brings a token.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;
use super::environment::Environment;
use super::realms::keys;
use super::section::Section;
use super::value::{self, Fault, text};
use crate::secret::Secret;

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where to listen.
    pub address: AdminAddress,
    /// What all but `/healthz` and `/readyz` ask for. Always there unless only this machine can connect.
    pub token: Option<Secret>,
}

/// Where the admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// An address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// None: there is no admin listener.
pub(super) fn read(
    root: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> Option<AdminConfig> {
    root.table("admin", |admin| {
        let token = admin.get("token", |value| keys::find(value, directory, environment, false));
        if !admin.is_there() {
            // Only so that the key counts as known.
            let _absent = admin.get("address", value::string);
            return None;
        }
        let address = admin.require("address", text(|text| address(text, directory)));
        if let Some(token) = &token {
            if token.is_literal {
                keys::warn_of_literal(admin, "token", "who may read the file can read what `[admin]` serves");
            }
            if !token.secret.expose().iter().all(u8::is_ascii_graphic) {
                let fault = Fault::new("must be of printable ASCII characters without spaces");
                admin.refuse("token", &[], fault);
            }
        }
        let address = address?;
        if let AdminAddress::Tcp(tcp) = &address
            && !tcp.ip().is_loopback()
            && !admin.has("token")
        {
            let open = Diagnostic::error(
                "`admin.address` can be reached from other machines, and there is no token",
            );
            let hint = "set `token = { env = \"NAME\" }` or `{ file = \"path\" }`, or listen on 127.0.0.1";
            admin.report_given(&["token"], open.hint(hint), admin.span("address"));
        }
        Some(AdminConfig { address, token: token.map(|token| token.secret) })
    })
}

fn address(text: &str, directory: &Path) -> Result<AdminAddress, Fault> {
    match text.strip_prefix("unix:") {
        Some("") => Err(Fault::new("names no socket").hint("such as \"unix:/run/sessiongate/admin.sock\"")),
        Some(path) => Ok(AdminAddress::Unix(directory.join(path))),
        None => value::address(text).map(AdminAddress::Tcp),
    }
}
